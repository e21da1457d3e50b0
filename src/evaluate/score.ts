/** One model's answers on one test set, put together into the Evaluation that is printed, stored and shown. */
import { Failure } from '../failure.ts'
import { softmax } from '../models/logistic-regression.ts'
import type { Evaluation } from '../sdk/shapes.ts'
import { type Groups, groupedPairedDifference, groupedShare } from './grouped.ts'
import {
  agreements,
  answers,
  balancedAccuracy,
  classNumbers,
  confusionMatrix,
  expectedCalibrationError,
  majorityBaseline,
  perClass,
  probabilityTable,
  type Rows,
  reliability,
  shareTrue,
  type Table,
  worstMistakes,
} from './metrics.ts'
import { type Origin, slices } from './slices.ts'

export interface ScoreInput {
  /** Class names; every class number below is an index into them. */
  labels: readonly string[]
  /** [n] true class numbers of the test pictures. */
  truth: ArrayLike<number>
  /** [n, classes] calibrated probabilities, as the artefact gives them. */
  probabilities: Rows
  /** Class numbers of the training side: it decides what the majority baseline answers. */
  trainTruth: ArrayLike<number>
  /** [n, classes] of the linear probe on the same pictures; null outside a training. */
  linearProbeProbabilities: Rows | null
  /** [n] file names, for the worst mistakes and the slices by folder. */
  paths: readonly string[]
  /** [n] which group (copies, burst, patient …) each picture is in, null = alone; absent: all stand alone. Groups widen the interval. */
  groups?: Groups
  /** [n] when and with what each was taken, as rows of a manifest know it, for the slices. */
  origins?: readonly Omit<Origin, 'path'>[]
  /** The temperature that is already in `probabilities`. */
  calibration: { temperature: number }
}

/** Throws evaluation_empty, shape_mismatch, and bad_scores where an input holds NaN, an infinity, or is not what it is called. */
export function score(input: ScoreInput): Evaluation {
  const { labels, truth, probabilities, trainTruth, linearProbeProbabilities, paths, calibration, origins } = input
  const classes = labels.length
  if (truth.length === 0) throw new Failure('evaluation_empty')
  const given = probabilityTable(probabilities, classes, 'the test probabilities')
  const labelled = classNumbers(truth, classes, 'the test labels', given.n)
  for (const [what, list] of [['paths', paths] as const, ['origins', origins ?? paths] as const])
    if (list.length !== given.n)
      throw new Failure('shape_mismatch', { operation: `the test ${what}`, a: `[${list.length}]`, b: `[${given.n}]` })
  const groups = input.groups ?? paths.map(() => null)
  const { temperature } = calibration
  if (!(temperature > 0 && Number.isFinite(temperature)))
    throw new Failure('bad_scores', { what: 'the calibration', problem: `its temperature is ${temperature}` })

  const answer = answers(given)
  const right = agreements(labelled, answer)
  const { share: accuracy, low, high, ...interval } = groupedShare(right, groups)
  const confusion = confusionMatrix(labelled, answer, classes)
  const scores = perClass(confusion)
  const bins = reliability(given, labelled)
  const ece = expectedCalibrationError(bins)
  const parts = slices({ origins: paths.map((path, i) => ({ ...origins?.[i], path })), labels: labelsOf(labelled, labels), right, groups })

  const probe = linearProbeProbabilities && probabilityTable(linearProbeProbabilities, classes, "the linear probe's probabilities")
  if (probe && probe.n !== given.n)
    throw new Failure('shape_mismatch', { operation: 'the linear probe', a: `[${probe.n}]`, b: `[${given.n}]` })
  const probeRight = probe && agreements(labelled, answers(probe))

  return {
    n: given.n,
    accuracy,
    low,
    high,
    majority: majorityBaseline(labelled, classNumbers(trainTruth, classes, 'the training labels'), classes),
    linearProbe: probeRight && shareTrue(probeRight),
    balancedAccuracy: balancedAccuracy(scores),
    perClass: scores.map((scoreOf, k) => ({ label: labels[k]!, ...scoreOf })),
    confusion,
    calibration: {
      temperature,
      expectedCalibrationErrorBefore: expectedCalibrationError(reliability(withoutTemperature(given, temperature), labelled)),
      expectedCalibrationErrorAfter: ece,
      bins,
    },
    ...(probeRight && { versusLinearProbe: groupedPairedDifference(right, probeRight, groups) }),
    worstMistakes: worstMistakes(given, labelled, labels, paths),
    interval,
    ece,
    ...(parts.length > 0 && { slices: parts }),
  }
}

const labelsOf = (numbers: Int32Array, labels: readonly string[]) => Array.from(numbers, label => labels[label]!)

/** softmax(z) from softmax(z / T): log p is z / T up to a constant a row, so multiplying it by T undoes the temperature. */
function withoutTemperature({ n, classes, values }: Table, temperature: number): Table {
  // a probability that fell below the smallest float is taken as the smallest: at the top, where it counts, nothing changes
  const logits = Float64Array.from(values, p => temperature * Math.log(Math.max(p, 1e-45)))
  return { n, classes, values: softmax(logits, classes) }
}
