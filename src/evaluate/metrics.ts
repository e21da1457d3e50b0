/** What a table of probabilities says about a model, number by number. Every function here is pure and knows nothing of files or models. */
import { Failure } from '../failure.ts'
import { wilson } from './intervals.ts'

/** One row of class scores a picture: flat [n · classes] as the engine gives them, or one array a picture as a classifier does. */
export type Rows = Float32Array | Float64Array | readonly ArrayLike<number>[]
/** Rows that were checked: n · classes finite numbers. */
export interface Table {
  n: number
  classes: number
  values: Float32Array | Float64Array
}

/** Checks rows at the edge. Throws bad_scores where a number is missing, NaN or infinite; `what` names them in the message. */
export function table(rows: Rows, classes: number, what: string): Table {
  let values: Float32Array | Float64Array
  if (ArrayBuffer.isView(rows)) {
    if (rows.length % classes !== 0) throw new Failure('shape_mismatch', { operation: what, a: `[${rows.length}]`, b: `[n, ${classes}]` })
    values = rows
  } else {
    values = new Float64Array(rows.length * classes)
    rows.forEach((row, i) => {
      if (row.length !== classes) throw new Failure('shape_mismatch', { operation: what, a: `[${row.length}]`, b: `[${classes}]` })
      for (let k = 0; k < classes; k++) values[i * classes + k] = row[k]!
    })
  }
  const bad = values.findIndex(value => !Number.isFinite(value))
  if (bad >= 0)
    throw new Failure('bad_scores', { what, problem: `picture ${Math.floor(bad / classes)} has ${values[bad]} for class ${bad % classes}` })
  return { n: values.length / classes, classes, values }
}

/** The same for probabilities, whose rows must add up to 1: logits passed by mistake are found here and not in a report. */
export function probabilityTable(rows: Rows, classes: number, what: string): Table {
  const checked = table(rows, classes, what)
  for (let i = 0; i < checked.n; i++) {
    let sum = 0
    for (let k = 0; k < classes; k++) {
      const p = checked.values[i * classes + k]!
      if (p < 0) throw new Failure('bad_scores', { what, problem: `picture ${i} has the probability ${p}` })
      sum += p
    }
    if (Math.abs(sum - 1) > 0.01) throw new Failure('bad_scores', { what, problem: `the probabilities of picture ${i} add up to ${sum}` })
  }
  return checked
}

/** Class numbers, each checked to be one of `classes`; as many as `n` where that is given. */
export function classNumbers(truth: ArrayLike<number>, classes: number, what: string, n = truth.length): Int32Array {
  if (truth.length !== n) throw new Failure('shape_mismatch', { operation: what, a: `[${truth.length}]`, b: `[${n}]` })
  return Int32Array.from(truth, label => {
    if (!Number.isInteger(label) || label < 0 || label >= classes)
      throw new Failure('bad_scores', { what, problem: `${label} is not the number of one of ${classes} classes` })
    return label
  })
}

/** Number of the most probable class of each row; the first among equals. */
export function answers({ n, classes, values }: Table): Int32Array {
  return Int32Array.from({ length: n }, (_, i) => {
    let best = 0
    for (let k = 1; k < classes; k++) if (values[i * classes + k]! > values[i * classes + best]!) best = k
    return best
  })
}

export const agreements = (truth: Int32Array, answer: Int32Array): boolean[] => Array.from(truth, (label, i) => label === answer[i])
export const shareTrue = (flags: readonly boolean[]): number => flags.reduce((sum, flag) => sum + Number(flag), 0) / flags.length

/** confusion[true][answered]: counts. */
export function confusionMatrix(truth: Int32Array, answer: Int32Array, classes: number): number[][] {
  const counts = Array.from({ length: classes }, () => new Array<number>(classes).fill(0))
  truth.forEach((label, i) => {
    counts[label]![answer[i]!]!++
  })
  return counts
}

export interface ClassMetrics {
  n: number
  /** Of the pictures answered with this class, the share that are of it; null when it was never answered. */
  precision: number | null
  /** Of the pictures of this class, the share answered with it; null when there are none. */
  recall: number | null
  /** Harmonic mean, 2·TP / (2·TP + FP + FN); null when there are no pictures of the class. */
  f1: number | null
}
export function perClass(confusion: readonly (readonly number[])[]): ClassMetrics[] {
  return confusion.map((row, k) => {
    const n = row.reduce((sum, count) => sum + count, 0)
    const answered = confusion.reduce((sum, other) => sum + other[k]!, 0)
    const right = row[k]!
    return {
      n,
      precision: answered === 0 ? null : right / answered,
      recall: n === 0 ? null : right / n,
      f1: n === 0 ? null : (2 * right) / (n + answered),
    }
  })
}

/**
 * Classes that are surely weak first: by the upper end of the recall's interval, so that 0 of 8 comes before 0 of 1, which says little.
 * Classes without pictures come last.
 */
export function weakestFirst<Score extends Pick<ClassMetrics, 'n' | 'recall' | 'f1'>>(scores: readonly Score[]): Score[] {
  const atBest = ({ n, recall }: Score) => (recall === null ? 2 : wilson(Math.round(recall * n), n)[1])
  return scores.toSorted((a, b) => atBest(a) - atBest(b) || (a.f1 ?? 0) - (b.f1 ?? 0))
}

/** Mean recall over the classes that have pictures: what accuracy would be if all classes were equally frequent. */
export function balancedAccuracy(scores: readonly ClassMetrics[]): number {
  const recalls = scores.flatMap(({ recall }) => (recall === null ? [] : [recall]))
  return recalls.reduce((sum, recall) => sum + recall, 0) / recalls.length
}

/** Accuracy on `truth` of always answering the class that is most frequent in `trainTruth`; the first among equals. */
export function majorityBaseline(truth: Int32Array, trainTruth: Int32Array, classes: number): number {
  const counts = new Array<number>(classes).fill(0)
  for (const label of trainTruth) counts[label]!++
  const majority = counts.indexOf(Math.max(...counts))
  return truth.reduce((sum, label) => sum + Number(label === majority), 0) / truth.length
}

export interface Mistake {
  path: string
  label: string
  predicted: string
  probability: number
  probabilityOfLabel: number
}
/** Wrong answers, the surest first: either the model's worst or a wrong label, both worth a look. Equal ones in order of their paths. */
export function worstMistakes(
  probabilities: Table,
  truth: Int32Array,
  labels: readonly string[],
  paths: readonly string[],
  most = 24,
): Mistake[] {
  const answer = answers(probabilities)
  const probability = (i: number, k: number) => probabilities.values[i * probabilities.classes + k]!
  return Array.from(truth, (label, i) => ({
    path: paths[i]!,
    label: labels[label]!,
    predicted: labels[answer[i]!]!,
    probability: probability(i, answer[i]!),
    probabilityOfLabel: probability(i, label),
  }))
    .filter((_, i) => truth[i] !== answer[i])
    .sort((a, b) => b.probability - a.probability || (a.path < b.path ? -1 : Number(a.path > b.path)))
    .slice(0, most)
}

/** Answers whose probability lies in (low, high]; the first bin takes 0 too. */
export interface CalibrationBin {
  low: number
  high: number
  n: number
  /** Mean probability that the model gave its answers, and the share of them that were right; null in an empty bin. */
  confidence: number | null
  accuracy: number | null
}
export const calibrationBins = 10
/** Reliability of the answer that was given (its top probability), in `calibrationBins` bins of equal width. */
export function reliability(probabilities: Table, truth: Int32Array): CalibrationBin[] {
  const answer = answers(probabilities)
  const sums = Array.from({ length: calibrationBins }, () => ({ n: 0, confidence: 0, right: 0 }))
  truth.forEach((label, i) => {
    const p = Math.min(1, probabilities.values[i * probabilities.classes + answer[i]!]!)
    const bin = sums[Math.min(calibrationBins - 1, Math.max(0, Math.ceil(p * calibrationBins) - 1))]!
    bin.n++
    bin.confidence += p
    bin.right += Number(label === answer[i])
  })
  return sums.map(({ n, confidence, right }, i) => ({
    low: i / calibrationBins,
    high: (i + 1) / calibrationBins,
    n,
    confidence: n === 0 ? null : confidence / n,
    accuracy: n === 0 ? null : right / n,
  }))
}

/**
 * Expected calibration error: Σ over bins of n_bin / n · |accuracy − confidence|, for the top answer.
 * Source: Guo et al., On Calibration of Modern Neural Networks (2017), §2; there 15 bins, here `calibrationBins`.
 */
export function expectedCalibrationError(bins: readonly CalibrationBin[]): number {
  const n = bins.reduce((sum, bin) => sum + bin.n, 0)
  return bins.reduce((sum, bin) => sum + (bin.n === 0 ? 0 : (bin.n / n) * Math.abs(bin.accuracy! - bin.confidence!)), 0)
}

/**
 * The error that a perfectly calibrated model would show by luck on as many pictures (it is never 0, and large on small tests):
 * a bin's share of right answers then scatters around its confidence c with √(c(1 − c)/n), whose mean size is √(2/π) of that.
 */
export function calibrationErrorByLuck(bins: readonly CalibrationBin[]): number {
  const n = bins.reduce((sum, bin) => sum + bin.n, 0)
  const scatter = bins.reduce((sum, bin) => sum + (bin.n === 0 ? 0 : Math.sqrt(bin.n * bin.confidence! * (1 - bin.confidence!))), 0)
  return (Math.sqrt(2 / Math.PI) * scatter) / n
}
