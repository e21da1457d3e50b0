/**
 * Milliseconds until an attempt is looked at again: often while it starts and where it may end at once, seldom once it has run for a while;
 * seldomer where there are many, so that looking takes a bounded part of the time.
 */
export function poll(age: number, attempts: number): number {
  const usual = age < 2_000 ? 25 : age < 10_000 ? 100 : age < 60_000 ? 250 : 1_000
  return Math.max(usual, attempts)
}
