/** Numbers that say how sure they are: an interval, the terms it is the sum of, and whether each was measured or estimated. */

/** low ≤ likely ≤ high. About nine of ten real values should lie between low and high. */
export interface Range {
  low: number
  likely: number
  high: number
}

export type Basis = 'measured' | 'estimated'

export interface Term extends Range {
  name: string
  basis: Basis
  /** How it was worked out, for people. */
  how: string
}

/** The sum of its terms, end by end. */
export interface Estimate extends Range {
  unit: 'bytes' | 'seconds'
  /** `measured` only where every term is. */
  basis: Basis
  terms: Term[]
}

export const exactly = (value: number): Range => ({ low: value, likely: value, high: value })

/** Every end multiplied; both have to be positive. */
export const times = (a: Range, b: Range | number): Range => {
  const { low, likely, high } = typeof b === 'number' ? exactly(b) : b
  return { low: a.low * low, likely: a.likely * likely, high: a.high * high }
}

/** Ends crossed: the lowest quotient is the lowest over the highest. */
export const over = (a: Range, b: Range | number): Range => {
  const { low, likely, high } = typeof b === 'number' ? exactly(b) : b
  return { low: a.low / high, likely: a.likely / likely, high: a.high / low }
}

/**
 * What `a` has beyond `b`, never below nothing: b plus this is the larger of both. Where the ends would cross, they are as wide as the middle:
 * the sum is then a little wider than the larger of both.
 */
export const beyond = (a: Range, b: Range): Range => {
  const [low, likely, high] = (['low', 'likely', 'high'] as const).map(end => Math.max(0, a[end] - b[end])) as [number, number, number]
  return { low: Math.min(low, likely), likely, high: Math.max(high, likely) }
}

export const plus = (...ranges: readonly Range[]): Range => ({
  low: ranges.reduce((sum, { low }) => sum + low, 0),
  likely: ranges.reduce((sum, { likely }) => sum + likely, 0),
  high: ranges.reduce((sum, { high }) => sum + high, 0),
})

export const term = (name: string, range: Range, basis: Basis, how: string): Term => ({ name, ...range, basis, how })

export function estimate(unit: Estimate['unit'], terms: readonly Term[]): Estimate {
  const kept = terms.filter(({ high }) => high > 0)
  return {
    unit,
    ...plus(...kept),
    basis: kept.length > 0 && kept.every(({ basis }) => basis === 'measured') ? 'measured' : 'estimated',
    terms: kept,
  }
}
