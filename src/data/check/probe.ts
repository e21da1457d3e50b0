/**
 * Guesses classes from one property, or several, out of fold: what is counted in four fifths of the pictures is tried on the last. Every class weighs
 * alike (balanced accuracy), so that nothing is gained by a class being large.
 */
import { permutation, randomFrom } from '../../engine/random.ts'

/** A property in numbers: what each picture has of it, out of `values`. */
export interface Coded {
  /** [n] 0 … values − 1. */
  codes: Int32Array
  values: number
  /** Neighbouring codes mean neighbouring values. */
  ordered: boolean
}

export const folds = 5
/** The fold of each picture, even within each class. */
export function dealFolds(labels: Int32Array, seed: number): Int32Array {
  const order = permutation(labels.length, randomFrom(seed, labels.length))
  const dealt = new Map<number, number>()
  const foldOf = new Int32Array(labels.length)
  for (const row of order) {
    const count = dealt.get(labels[row]!) ?? 0
    foldOf[row] = count % folds
    dealt.set(labels[row]!, count + 1)
  }
  return foldOf
}

const mostValues = 256
/** The most frequent values each get a code, all others one together. */
export function codeCategories(values: readonly string[]): Coded & { names: string[] } {
  const counts = new Map<string, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  const names = [...counts]
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
    .slice(0, mostValues - 1)
    .map(([name]) => name)
  const codeOf = new Map(names.map((name, code) => [name, code]))
  return { codes: Int32Array.from(values, value => codeOf.get(value) ?? names.length), values: names.length + 1, ordered: false, names }
}

const bins = 64
/** Bins of equally many pictures; what is not known has the first bin to itself. `edges[b]`: the smallest value in bin b. */
export function codeQuantities(values: readonly (number | null)[]): Coded & { edges: number[] } {
  const sorted = Float64Array.from(values.filter(value => value !== null)).sort()
  const edges: number[] = []
  for (let bin = 0; bin < bins; bin++) {
    const edge = sorted[Math.floor((bin * sorted.length) / bins)]
    if (edge !== undefined && edge !== edges.at(-1)) edges.push(edge)
  }
  const bin = (value: number) => {
    let [low, high] = [0, edges.length - 1]
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (edges[middle]! <= value) low = middle
      else high = middle - 1
    }
    return low + 1
  }
  return {
    codes: Int32Array.from(values, value => (value === null ? 0 : bin(value))),
    values: edges.length + 1,
    ordered: true,
    edges: [Number.NaN, ...edges],
  }
}

/** counts[fold][code * classes + label] */
export function countCodes({ codes, values }: Coded, labels: Int32Array, classes: number, foldOf: Int32Array): Int32Array[] {
  const counts = Array.from({ length: folds }, () => new Int32Array(values * classes))
  for (let i = 0; i < codes.length; i++) counts[foldOf[i]!]![codes[i]! * classes + labels[i]!]!++
  return counts
}

/** Balanced accuracy of the most likely class given all of the properties, taken as independent (naive Bayes), and its standard error. */
export function guessFrom(
  coded: readonly Coded[],
  labels: Int32Array,
  classes: number,
  foldOf: Int32Array,
): { accuracy: number; error: number } {
  const counted = coded.map(each => smoothed(each, countCodes(each, labels, classes, foldOf), classes))
  const right = new Float64Array(classes)
  const all = new Float64Array(classes)
  const score = new Float64Array(classes)
  for (let i = 0; i < labels.length; i++) {
    score.fill(0)
    for (const [p, { codes }] of coded.entries()) {
      const table = counted[p]![foldOf[i]!]!
      const at = codes[i]! * classes
      for (let k = 0; k < classes; k++) score[k]! += table[at + k]!
    }
    let best = 0
    for (let k = 1; k < classes; k++) if (score[k]! > score[best]!) best = k
    all[labels[i]!]!++
    if (best === labels[i]) right[labels[i]!]!++
  }
  let [sum, variance, present] = [0, 0, 0]
  for (let k = 0; k < classes; k++) {
    if (all[k] === 0) continue
    present++
    const recall = right[k]! / all[k]!
    const wary = (right[k]! + 1) / (all[k]! + 2) // five of five is not certainty
    sum += recall
    variance += (wary * (1 - wary)) / all[k]!
  }
  return { accuracy: sum / present, error: Math.sqrt(variance) / present }
}

/** log P(code | class) by what the other folds hold; ordered codes lend to their neighbours. */
function smoothed({ values, ordered }: Coded, counts: readonly Int32Array[], classes: number): Float64Array[] {
  return counts.map((_, fold) => {
    const sum = new Float64Array(values * classes)
    const totals = new Float64Array(classes)
    for (const [other, count] of counts.entries()) {
      if (other === fold) continue
      for (let at = 0; at < sum.length; at++) {
        sum[at]! += count[at]!
        totals[at % classes]! += count[at]!
      }
    }
    return sum.map((_, at) => {
      let count = 0
      if (ordered) {
        for (let off = -4; off <= 4; off++) count += (sum[at + off * classes] ?? 0) * ((5 - Math.abs(off)) / 25)
      } else count = sum[at]!
      return Math.log((count + 0.5) / (totals[at % classes]! + 0.5 * values))
    })
  })
}

export interface OneAgainstRest {
  /** Out of fold: share of the class that is taken for it, minus share of the others that is. */
  gain: number
  /** How likely luck alone gives as many hits or more (Fisher's exact test, one-sided). */
  luck: number
}

/** For each class: how well does this one property tell it from all others? Categories by the set of values it prefers, quantities by one cut. */
export function oneAgainstRest(coded: Coded, labels: Int32Array, classes: number, foldOf: Int32Array): OneAgainstRest[] {
  const counts = countCodes(coded, labels, classes, foldOf)
  const { values, ordered } = coded
  const sums = counts.map((_, fold) => {
    const sum = new Float64Array(values * classes)
    for (const [other, count] of counts.entries()) if (other !== fold) for (let at = 0; at < sum.length; at++) sum[at]! += count[at]!
    return sum
  })
  const rowTotals = (table: ArrayLike<number>) => {
    const totals = new Float64Array(values)
    for (let code = 0; code < values; code++) for (let k = 0; k < classes; k++) totals[code]! += table[code * classes + k]!
    return totals
  }
  const trainTotals = sums.map(rowTotals)
  const testTotals = counts.map(rowTotals)
  const [own, rest] = [new Float64Array(values), new Float64Array(values)]
  return Array.from({ length: classes }, (_, k) => {
    let [hits, falses, ofClass, others] = [0, 0, 0, 0]
    for (let fold = 0; fold < folds; fold++) {
      let [ownTotal, restTotal] = [0, 0]
      for (let code = 0; code < values; code++) {
        ownTotal += own[code] = sums[fold]![code * classes + k]!
        restTotal += rest[code] = trainTotals[fold]![code]! - own[code]!
      }
      const takes = ordered ? bestCut(own, rest, ownTotal, restTotal) : (code: number) => own[code]! / ownTotal > rest[code]! / restTotal
      for (let code = 0; code < values; code++) {
        const inClass = counts[fold]![code * classes + k]!
        const outside = testTotals[fold]![code]! - inClass
        ofClass += inClass
        others += outside
        if (ownTotal > 0 && restTotal > 0 && takes(code)) {
          hits += inClass
          falses += outside
        }
      }
    }
    if (ofClass === 0 || others === 0) return { gain: 0, luck: 1 }
    return { gain: hits / ofClass - falses / others, luck: fisher(hits, ofClass, falses, others) }
  })
}

/** The side of the cut with the largest difference between the two shares; unknown values (code 0) stay out. */
function bestCut(own: Float64Array, rest: Float64Array, ownTotal: number, restTotal: number): (code: number) => boolean {
  let [below, best, cut, upper] = [0, 0, 0, true]
  for (let code = 1; code < own.length; code++) {
    if (Math.abs(below) > best) [best, cut, upper] = [Math.abs(below), code, below < 0]
    below += own[code]! / ownTotal - rest[code]! / restTotal
  }
  return code => code > 0 && best > 0 && (upper ? code >= cut : code < cut)
}

/** P(at least `hits` of `ofClass`) when `hits + falses` are dealt by chance among `ofClass + others`. */
export function fisher(hits: number, ofClass: number, falses: number, others: number): number {
  const taken = hits + falses
  const all = ofClass + others
  const whole = logChoose(all, taken)
  let tail = 0
  for (let k = hits; k <= Math.min(ofClass, taken); k++) {
    if (taken - k <= others) tail += Math.exp(logChoose(ofClass, k) + logChoose(others, taken - k) - whole)
  }
  return Math.min(1, tail)
}

const logFactorials = [0]
function logFactorial(n: number): number {
  for (let k = logFactorials.length; k <= n; k++) logFactorials.push(logFactorials[k - 1]! + Math.log(k))
  return logFactorials[n]!
}
const logChoose = (n: number, k: number) => logFactorial(n) - logFactorial(k) - logFactorial(n - k)
