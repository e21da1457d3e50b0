/** Numbers as people say them. */

/** `0.934` → `93 %`; never 0 % or 100 % for what is only nearly so. */
export function percentWords(probability: number): string {
  if (probability < 0.01) return 'less than 1 %'
  if (probability > 0.99) return 'more than 99 %'
  return `${Math.round(probability * 100)} %`
}

export const counted = (count: number, one: string, many = `${one}s`): string =>
  `${count.toLocaleString('en-US')} ${count === 1 ? one : many}`
