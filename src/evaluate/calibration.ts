/** Makes the model's probabilities mean what they say, on validation pictures: one temperature, and one threshold for "unknown". */
import { softmax } from '../models/logistic-regression.ts'
import { answers, classNumbers, type Rows, type Table, table } from './metrics.ts'

export interface Calibration {
  /** Logits are divided by it before the softmax. > 1 makes the model less sure of itself, < 1 surer; the answer never changes. */
  temperature: number
  /** Answers whose probability is below it are marked `unknown`. */
  threshold: number
  /** Validation pictures that both were fitted on. */
  n: number
  /** What could not be fitted and why, in sentences for the user. */
  notes: string[]
}

/** Below so many validation pictures a fitted temperature is noise. */
export const fewestForTemperature = 20
const temperatures = { low: 0.05, high: 20 }
/** Share of right answers that may be marked `unknown`. */
export const falseUnknowns = 0.05
/** Saturated probabilities differ in the last digit between machines: no threshold above this. */
const highestThreshold = 0.99

/**
 * Fits temperature and threshold. `logits`: [n, classes] of the validation side, `truth`: its class numbers.
 *
 * Temperature: least mean negative log-likelihood (Guo et al. 2017, §4.2).
 * Threshold: the largest that is expected to mark at most 5 % of *right* answers as unknown. Of m right validation answers, ordered by
 * probability, a new right answer falls below the j-th with probability j / (m + 1): j = ⌊0.05 · (m + 1)⌋. Under 19 right answers there is
 * no such j: threshold 0, nothing is ever `unknown`, and a note says so.
 */
export function calibrate(logits: Rows, truth: ArrayLike<number>, classes: number): Calibration {
  const checked = table(logits, classes, 'the validation logits')
  const labels = classNumbers(truth, classes, 'the validation labels', checked.n)
  const { temperature, note } = temperatureOf(checked, labels)
  const notes = note ? [note] : []

  const answer = answers(checked)
  const tempered = softmax(checked.values, classes, temperature)
  const right = Array.from(labels.keys(), i => ({ correct: answer[i] === labels[i], probability: tempered[i * classes + answer[i]!]! }))
    .filter(({ correct }) => correct)
    .map(({ probability }) => probability)
    .sort((a, b) => a - b)
  const j = Math.floor(falseUnknowns * (right.length + 1))
  if (j === 0) notes.push(`Only ${right.length} right answers on validation: too few for a threshold, so no answer will be marked unknown.`)
  return { temperature, threshold: j === 0 ? 0 : Math.min(highestThreshold, right[j - 1]!), n: checked.n, notes }
}

/** The temperature alone; 1 where it cannot be fitted. */
export const fitTemperature = (logits: Rows, truth: ArrayLike<number>, classes: number): number => {
  const checked = table(logits, classes, 'the validation logits')
  return temperatureOf(checked, classNumbers(truth, classes, 'the validation labels', checked.n)).temperature
}

/** Mean negative log-likelihood of the labels under softmax(logits / temperature), in nats. */
export function negativeLogLikelihood(logits: ArrayLike<number>, truth: ArrayLike<number>, classes: number, temperature = 1): number {
  let sum = 0
  for (let i = 0; i < truth.length; i++) {
    let most = Number.NEGATIVE_INFINITY
    for (let k = 0; k < classes; k++) most = Math.max(most, logits[i * classes + k]!)
    let total = 0
    for (let k = 0; k < classes; k++) total += Math.exp((logits[i * classes + k]! - most) / temperature)
    sum += Math.log(total) - (logits[i * classes + truth[i]!]! - most) / temperature
  }
  return sum / truth.length
}

/**
 * In β = 1 / temperature the loss is convex (log-sum-exp of linear functions minus a linear one), so its slope
 * mean(E_softmax(βz)[z] − z_truth) only rises: the one zero is found by Newton steps kept inside a shrinking bracket.
 */
function temperatureOf({ n, classes, values }: Table, truth: Int32Array): { temperature: number; note?: string } {
  if (n < fewestForTemperature)
    return {
      temperature: 1,
      note: `Only ${n} validation pictures: too few to calibrate the probabilities, which are shown as the model gives them.`,
    }

  const slopeAt = (beta: number) => {
    let slope = 0
    let curvature = 0
    for (let i = 0; i < n; i++) {
      const at = i * classes
      let most = Number.NEGATIVE_INFINITY
      for (let k = 0; k < classes; k++) most = Math.max(most, values[at + k]!)
      let sum = 0
      let first = 0
      let second = 0
      for (let k = 0; k < classes; k++) {
        const z = values[at + k]! - most // relative to the top: no overflow, and E and variance lose nothing
        const e = Math.exp(beta * z)
        sum += e
        first += e * z
        second += e * z * z
      }
      const mean = first / sum
      slope += mean - (values[at + truth[i]!]! - most)
      curvature += second / sum - mean * mean
    }
    return { slope: slope / n, curvature: curvature / n }
  }

  const flat = slopeAt(0)
  if (flat.curvature === 0) return { temperature: 1, note: 'The model gives every class the same score: there is nothing to calibrate.' }
  if (flat.slope >= 0)
    return { temperature: 1, note: 'On validation the scores say no more than chance: the probabilities could not be calibrated.' }
  // the likelihood then grows without end as the temperature falls, and every answer would become "100 %"
  if (answers({ n, classes, values }).every((answer, i) => answer === truth[i]))
    return {
      temperature: 1,
      note: 'Every validation picture is answered right: nothing shows how sure the model may be, so its probabilities are shown as it gives them.',
    }
  let low = 1 / temperatures.high
  let high = 1 / temperatures.low
  if (slopeAt(high).slope < 0)
    return {
      temperature: temperatures.low,
      note: `The model is far less sure of itself than it may be: its scores were divided by ${temperatures.low}, the least that is tried.`,
    }
  if (slopeAt(low).slope > 0)
    return {
      temperature: temperatures.high,
      note: `The model is far too sure of itself: its scores were divided by ${temperatures.high}, the most that is tried.`,
    }

  let beta = Math.min(high, Math.max(low, 1))
  for (let i = 0; i < 100 && high - low > 1e-12 * high; i++) {
    const { slope, curvature } = slopeAt(beta)
    if (slope === 0) break
    if (slope > 0) high = beta
    else low = beta
    const newton = beta - slope / curvature
    const next = newton > low && newton < high ? newton : (low + high) / 2
    if (Math.abs(next - beta) <= 1e-13 * beta) break
    beta = next
  }
  return { temperature: 1 / beta }
}
