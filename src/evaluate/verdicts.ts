/** What the numbers mean, in plain sentences: for the terminal, the report, and whoever has never heard of an interval. */
import type { Evaluation } from '../sdk/shapes.ts'
import { calibrationErrorByLuck, weakestFirst } from './metrics.ts'

/** 0.8675 → "86.8 %". */
export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`
/** 0.021 → "+2.1 points". */
export const points = (difference: number): string => {
  const text = (100 * difference).toFixed(1)
  return `${difference >= 0 ? '+' : '−'}${text.replace('-', '')} points`
}
/** Three digits of chance are more than anyone needs: "p = 0.012", "p < 0.001". */
export const chance = (p: number): string => (p < 0.001 ? 'p < 0.001' : `p = ${p.toFixed(3)}`)

/** A result is called beyond luck when luck would give it less often than this. */
const luck = 0.05
/** Half the width of the interval above which the test is called small. */
const tooWide = 0.05
/** Below so many test pictures a single class's score says next to nothing. */
const fewOfAClass = 10

/** 19 of 20 perfectly calibrated models stay below this multiple of what luck gives (simulated in test/evaluate/metrics.test.ts). */
const beyondLuck = 1.75

/** Below so many test pictures the calibration error is all luck. */
const fewForCalibration = 30

/** One sentence a finding, the most important first. */
export const verdicts = (evaluation: Evaluation): string[] => [accuracyVerdict(evaluation), ...furtherVerdicts(evaluation)]

/** All but the accuracy itself, for a page that shows it large. */
export const furtherVerdicts = (evaluation: Evaluation): string[] => [
  majorityVerdict(evaluation),
  ...linearProbeVerdict(evaluation),
  ...sizeVerdict(evaluation),
  ...weakestClassVerdict(evaluation),
  ...calibrationVerdict(evaluation),
]

function accuracyVerdict(evaluation: Evaluation): string {
  const { n, accuracy, low, high } = evaluation
  const pictures = `${n} test ${n === 1 ? 'picture' : 'pictures'}${unseen(evaluation)}`
  return `Right on ${Math.round(accuracy * n)} of ${pictures}: ${percent(accuracy)}. On more pictures like these expect ${percent(low)} to ${percent(high)} (95 % interval).`
}

/** Only a training knows that its test pictures were kept apart; whoever evaluates a folder later may hand in anything. */
export const unseen = ({ linearProbe }: Evaluation): string => (linearProbe === null ? '' : ' that it never saw before')

function majorityVerdict({ low, high, majority }: Evaluation): string {
  const always = `always answering the most frequent class (${percent(majority)})`
  if (low > majority) return `Better than ${always}.`
  if (high < majority) return `Worse than ${always}: this model is of no use as it is.`
  return `Not shown to be better than ${always}.`
}

function linearProbeVerdict({ versusLinearProbe, linearProbe }: Evaluation): string[] {
  if (linearProbe === null) return []
  const probe = `the linear probe, a plain classifier on the untouched backbone (${percent(linearProbe)})`
  if (!versusLinearProbe) return [`For comparison: ${probe}.`]
  const { onlyA, onlyB, difference, low, high, p, n } = versusLinearProbe
  if (onlyA === 0 && onlyB === 0) return [`Right and wrong on exactly the same pictures as ${probe}.`]
  const size = `${points(difference)} on the same ${n} pictures, 95 % interval ${points(low)} to ${points(high)}, ${chance(p)}`
  if (p < luck) return [`${difference > 0 ? 'Better' : 'Worse'} than ${probe}: ${size}.`]
  return [`Not told apart from ${probe}: ${size}; a difference of this size can be luck.`]
}

function sizeVerdict({ n, low, high, perClass }: Evaluation): string[] {
  const half = (high - low) / 2
  const sentences =
    half > tooWide
      ? [
          `The test is small: the accuracy is known to about ±${(100 * half).toFixed(0)} points only. Four times as many pictures would halve that.`,
        ]
      : []
  const few = perClass.filter(score => score.n < fewOfAClass)
  // when the whole test is tiny every class is: one sentence is enough
  if (few.length > 0 && n >= fewOfAClass) {
    const names = listed(few.map(({ label, n }) => `${quoted(label)} (${n})`))
    sentences.push(`Too few test pictures to judge ${few.length === 1 ? 'this class' : 'these classes'} alone: ${names}.`)
  }
  return sentences
}

function weakestClassVerdict({ perClass, confusion }: Evaluation): string[] {
  const judged = weakestFirst(perClass.map((score, k) => ({ ...score, k }))).filter(({ n }) => n >= fewOfAClass)
  const [weakest] = judged
  if (judged.length < 2 || !weakest) return []
  if (judged.every(({ recall }) => recall === 1)) return ['No mistake in any class that has enough test pictures.']
  const row = confusion[weakest.k]!
  const missed = weakest.n - row[weakest.k]!
  const [other, most] = row.reduce((best, count, k) => (k !== weakest.k && count > best[1] ? [k, count] : best), [0, 0] as [number, number])
  // one of many is no pattern, and between two classes there is nothing to guess
  const pattern =
    perClass.length > 2 && most > 1
      ? `; ${most === missed ? 'all' : most} of the ${missed} missed were taken for ${quoted(perClass[other]!.label)}`
      : ''
  return [`Weakest class: ${quoted(weakest.label)}, ${row[weakest.k]} of ${weakest.n} found (${percent(weakest.recall!, 0)})${pattern}.`]
}

function calibrationVerdict({ n, calibration: { expectedCalibrationErrorAfter: error, bins } }: Evaluation): string[] {
  if (!bins) return []
  if (n < fewForCalibration) return [`Too few test pictures to say whether the probabilities can be believed.`]
  const byLuck = calibrationErrorByLuck(bins)
  const off = `the probabilities are off by ${(100 * error).toFixed(1)} points on average`
  if (error <= beyondLuck * byLuck + 1e-9)
    return [
      `Calibration: ${off}; luck alone would give ${(100 * byLuck).toFixed(1)} on ${n} ${n === 1 ? 'picture' : 'pictures'}, so nothing speaks against them.`,
    ]
  const mean = (of: 'confidence' | 'accuracy') => bins.reduce((sum, bin) => sum + bin.n * (bin[of] ?? 0), 0) / n
  return [
    `Calibration: ${off}: the model is ${mean('confidence') > mean('accuracy') ? 'surer than it should be' : 'less sure than it could be'}.`,
  ]
}

/** Foreign names between quotes, so that a sentence cannot be mistaken for part of them, and on one line. */
export const quoted = (name: string): string => `“${name.replace(/\p{C}/gu, '·')}”`
const listed = (names: readonly string[], most = 5): string =>
  names.length <= most ? names.join(', ') : `${names.slice(0, most).join(', ')} and ${names.length - most} more`
