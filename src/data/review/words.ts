/** Numbers as people say them. */

/** `0.934` → `93 %`; never 0 % or 100 % for what is only nearly so. */
export function percentWords(probability: number): string {
  if (probability < 0.01) return 'less than 1 %'
  if (probability > 0.99) return 'more than 99 %'
  return `${Math.round(probability * 100)} %`
}

export const counted = (count: number, one: string, many = `${one}s`): string =>
  `${count.toLocaleString('en-US')} ${count === 1 ? one : many}`

/** What to expect of the likely mislabels: most lists hold more right labels than wrong ones. */
export function estimateSentence({ count, low, high, n }: { count: number; low: number; high: number; n: number }): string {
  const [about, from, to] = [count, low, high].map(value => Math.round(value).toLocaleString('en-US'))
  return `About ${about} (${from} to ${to}) of ${n.toLocaleString('en-US')} labels are likely to be wrong. The surest come first: stop when many in a row turn out right.`
}
