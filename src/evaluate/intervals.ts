/** How far a measured share can be trusted: intervals for one proportion and for the difference of two on the same pictures. */
import { Failure } from '../failure.ts'

/**
 * Wilson score interval for k successes in n trials, as shares: [low, high].
 * Unlike the textbook ±1.96·s it stays inside [0, 1], is not empty at 0 or n, and holds what it promises on small tests.
 * n = 0 says nothing: [0, 1]. Source: E. B. Wilson, JASA 22 (1927) 209; recommended by Brown, Cai, DasGupta, Stat. Sci. 16 (2001) 101.
 */
export function wilson(k: number, n: number, confidence = 0.95): [low: number, high: number] {
  if (!Number.isInteger(k) || !Number.isInteger(n) || k < 0 || k > n)
    throw new Failure('bad_scores', { what: `${k} of ${n}`, problem: 'that is not a count of successes' })
  if (n === 0) return [0, 1]
  return wilsonOfShare(k / n, n, confidence)
}

/** The same for a share of n pictures, where n need not be whole: groups are worth fewer pictures than they hold. n > 0. */
export function wilsonOfShare(share: number, n: number, confidence = 0.95): [low: number, high: number] {
  const z = normalQuantile((1 + confidence) / 2)
  const z2 = (z * z) / n
  const centre = share + z2 / 2
  const half = z * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n))
  // at the ends the formula gives 0 and 1 up to rounding: say them exactly
  return [share === 0 ? 0 : (centre - half) / (1 + z2), share === 1 ? 1 : (centre + half) / (1 + z2)]
}

export interface PairedDifference {
  n: number
  /** Pictures that only A, or only B, gets right; the others say nothing about which of the two is better. */
  onlyA: number
  onlyB: number
  /** Accuracy of A minus accuracy of B, with its interval. */
  difference: number
  low: number
  high: number
  /** Exact two-sided McNemar test: how often two equally good models would differ at least this much by luck. */
  p: number
}

/**
 * Is A better than B, asked of the same pictures? Far sharper than comparing two separate intervals.
 * Interval: Newcombe's method 10 (Stat. Med. 17 (1998) 2635): two Wilson intervals joined with the correlation of the pairs.
 */
export function pairedDifference(correctA: readonly boolean[], correctB: readonly boolean[], confidence = 0.95): PairedDifference {
  if (correctA.length !== correctB.length)
    throw new Failure('shape_mismatch', { operation: 'pairedDifference', a: `[${correctA.length}]`, b: `[${correctB.length}]` })
  const count = (a: boolean, b: boolean) => correctA.reduce((sum, right, i) => sum + Number(right === a && correctB[i] === b), 0)
  return pairedDifferenceOfCounts(count(true, true), count(true, false), count(false, true), count(false, false), confidence)
}

/** The same from the four counts: both right, only A, only B, both wrong. Counts that are not whole (of groups) give an interval, but no p of theirs. */
export function pairedDifferenceOfCounts(both: number, onlyA: number, onlyB: number, neither: number, confidence = 0.95): PairedDifference {
  const n = both + onlyA + onlyB + neither
  if (n === 0) return { n, onlyA, onlyB, difference: 0, low: -1, high: 1, p: 1 }
  const a = both + onlyA
  const b = both + onlyB
  const [lowA, highA] = wilsonOfShare(a / n, n, confidence)
  const [lowB, highB] = wilsonOfShare(b / n, n, confidence)
  const difference = (onlyA - onlyB) / n

  const margins = a * (n - a) * b * (n - b)
  const agreement = both * neither - onlyA * onlyB
  // Newcombe's continuity correction where the pairs agree more than by chance; no spread on one side means no correlation
  const phi = margins === 0 ? 0 : (agreement > 0 ? Math.max(agreement - n / 2, 0) : agreement) / Math.sqrt(margins)
  const joined = (x: number, y: number) => Math.sqrt(Math.max(0, x * x - 2 * phi * x * y + y * y))
  return {
    n,
    onlyA,
    onlyB,
    difference,
    low: difference - joined(a / n - lowA, highB - b / n),
    high: difference + joined(highA - a / n, b / n - lowB),
    p: exactMcNemar(onlyA, onlyB),
  }
}

/** Two-sided p of `a` against `b` disagreements under a fair coin: min(1, 2·P(X ≤ min(a, b))), X ~ Bin(a + b, ½). */
export function exactMcNemar(a: number, b: number): number {
  const n = a + b
  const smaller = Math.min(a, b)
  if (a === b) return 1
  // terms by logarithm: 2^-n alone underflows beyond a thousand disagreements
  let logTerm = -n * Math.LN2
  let tail = 0
  for (let i = 0; i <= smaller; i++) {
    tail += Math.exp(logTerm)
    logTerm += Math.log((n - i) / (i + 1))
  }
  return Math.min(1, 2 * tail)
}

/** z with P(Z ≤ z) = p for a standard normal Z, to about 16 digits. Source: M. J. Wichura, algorithm AS 241, Appl. Stat. 37 (1988) 477. */
export function normalQuantile(p: number): number {
  if (!(p > 0 && p < 1)) throw new Failure('bad_scores', { what: `confidence ${p}`, problem: 'it must lie between 0 and 1' })
  const q = p - 0.5
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q
    return (q * polynomial(quantile.middle[0], r)) / polynomial(quantile.middle[1], r)
  }
  const r = Math.sqrt(-Math.log(Math.min(p, 1 - p)))
  const [[top, bottom], shift] = r <= 5 ? [quantile.tail, 1.6] : [quantile.farTail, 5]
  return (Math.sign(q) * polynomial(top, r - shift)) / polynomial(bottom, r - shift)
}

/**
 * Expected maximum of k standard normal draws, within 5 % for two and 1 % from ten on. Source: G. Blom, Statistical Estimates and Transformed Beta-Variables (1958):
 * Φ⁻¹((k − 3/8) / (k + 1/4)).
 */
export const expectedMaximum = (k: number): number => (k < 2 ? 0 : normalQuantile((k - 0.375) / (k + 0.25)))

/** Coefficients from the constant term upwards. */
const polynomial = (coefficients: readonly number[], x: number) => coefficients.reduceRight((sum, c) => sum * x + c, 0)

const quantile = {
  middle: [
    [
      3.3871328727963665, 133.14166789178438, 1971.5909503065513, 13731.69376550946, 45921.95393154987, 67265.7709270087, 33430.57558358813,
      2509.0809287301227,
    ],
    [
      1, 42.31333070160091, 687.1870074920579, 5394.196021424751, 21213.794301586597, 39307.89580009271, 28729.085735721943,
      5226.495278852546,
    ],
  ],
  tail: [
    [
      1.4234371107496835, 4.630337846156546, 5.769497221460691, 3.6478483247632045, 1.2704582524523684, 0.2417807251774506,
      0.022723844989269184, 0.0007745450142783414,
    ],
    [
      1, 2.053191626637759, 1.6763848301838038, 0.6897673349851, 0.14810397642748008, 0.015198666563616457, 0.0005475938084995345,
      1.0507500716444169e-9,
    ],
  ],
  farTail: [
    [
      6.657904643501103, 5.463784911164114, 1.7848265399172913, 0.29656057182850487, 0.026532189526576124, 0.0012426609473880784,
      2.7115555687434876e-5, 2.0103343992922881e-7,
    ],
    [
      1, 0.599832206555888, 0.1369298809227358, 0.014875361290850615, 0.0007868691311456133, 1.8463183175100548e-5, 1.421511758316446e-7,
      2.0442631033899397e-15,
    ],
  ],
} as const
