/**
 * Multinomial logistic regression on the features of an untouched network: the head of stage A, and the linear probe that
 * fine-tuning has to beat. Features are standardised, the strength of the regularisation is chosen on validation, and the
 * answer is given in terms of the raw features, so that it can be put behind the network as its last layer.
 *
 * Minimises, as scikit-learn does,  1/S · Σ sᵢ · −log p(yᵢ | xᵢ)  +  1/(2 · C · S) · ‖W‖²,  S = Σ sᵢ,  biases free,
 * by L-BFGS; loss and gradient come from the engine, because multiplying [n, width] by [width, classes] hundreds of times is
 * the whole cost.
 */
import { add, gradient, input, logSoftmax, matMul, mul, neg, type Program, compile as program, reduceSum } from '../engine/index.ts'
import { Failure } from '../failure.ts'

/** Strong to weak: each fit starts from the one before. */
export const strengths: readonly number[] = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1]
/** Where there is nothing to choose on: the best or next to it on every data set that was measured. */
const strengthWithoutValidation = 0.003

export interface LabelledFeatures {
  /** [n, width], row-major. */
  features: Float32Array
  /** [n] class numbers. */
  labels: ArrayLike<number>
}

export interface LogisticRegressionTask {
  train: LabelledFeatures
  validation: LabelledFeatures
  width: number
  classes: number
  threads: number
  /** `balanced` weighs each class alike, however many pictures it has: n / (present classes · n of the class). */
  classWeights?: 'balanced' | null
  /** Values of C to try, strong (small) to weak. */
  grid?: readonly number[]
  /** Stops when no slope of the (mean) loss is steeper. */
  tolerance?: number
  /** Most steps of L-BFGS for each C. */
  iterations?: number
}

export interface LogisticRegression {
  /** [classes, width], for raw features. */
  weight: Float32Array
  /** [classes]. */
  bias: Float32Array
  /** The chosen C. */
  c: number
  /** 0 where there are no validation pictures. */
  validationAccuracy: number
  /** Mean negative log-likelihood on validation; 0 where there are no pictures. */
  validationLoss: number
  /** Every C that was tried. */
  tried: { c: number; validationAccuracy: number; validationLoss: number; iterations: number }[]
  /** features [n, width] → [n, classes]. */
  probabilities(features: Float32Array): Float64Array
}

/** Weights [classes, width] and biases [classes] in one array, as L-BFGS wants them. */
export type Parameters = Float64Array

/** Throws shape_mismatch; bad_scores for features that are not numbers; one_class_left where there is nothing to tell apart. */
export async function fitLogisticRegression(task: LogisticRegressionTask): Promise<LogisticRegression> {
  const { train, validation, width, classes, threads, grid = strengths, tolerance = 1e-5, iterations = 300 } = task
  check(train, 'the training features', task)
  check(validation, 'the validation features', task)
  const counts = new Float64Array(classes)
  for (let i = 0; i < train.labels.length; i++) counts[train.labels[i]!]!++
  const present = [...counts.keys()].filter(k => counts[k]! > 0)
  if (present.length < 2) throw new Failure('one_class_left', { label: present.length === 0 ? 'none' : `class number ${present[0]}` })

  const scaling = standardisation(train.features, width)
  const n = train.labels.length
  const sampleWeights = Float32Array.from({ length: n }, (_, i) =>
    task.classWeights === 'balanced' ? 1 / (present.length * counts[train.labels[i]!]!) : 1 / n,
  )
  const objective = await lossAndGradient(standardised(train.features, scaling), train.labels, sampleWeights, present, width, threads)
  const raw = (parameters: Parameters) => inRawFeatures(parameters, present, scaling, counts, classes)

  let best: (LogisticRegression & { weight: Float32Array }) | null = null
  const tried: LogisticRegression['tried'] = []
  try {
    let parameters: Parameters = new Float64Array(present.length * (width + 1))
    for (const c of validation.labels.length > 0 ? grid : [strengthWithoutValidation]) {
      const fitted = await minimise(parameters, at => objective.at(at, 1 / (c * n)), { tolerance, iterations })
      parameters = fitted.parameters
      const head = raw(parameters)
      const { accuracy, loss } = measure(head, validation, width)
      tried.push({ c, validationAccuracy: accuracy, validationLoss: loss, iterations: fitted.iterations })
      if (!best || isBetter({ accuracy, loss }, best, validation.labels.length))
        best = {
          ...head,
          c,
          validationAccuracy: accuracy,
          validationLoss: loss,
          tried,
          probabilities: features => softmax(logits(head, features, width), classes),
        }
    }
  } finally {
    await objective.close()
  }
  return best!
}

function check({ features, labels }: LabelledFeatures, what: string, { width, classes }: LogisticRegressionTask): void {
  if (features.length !== labels.length * width)
    throw new Failure('shape_mismatch', { operation: what, a: `[${features.length}]`, b: `[${labels.length}, ${width}]` })
  const bad = features.findIndex(value => !Number.isFinite(value))
  if (bad >= 0)
    throw new Failure('bad_scores', { what, problem: `picture ${Math.floor(bad / width)} has ${features[bad]} at feature ${bad % width}` })
  for (let i = 0; i < labels.length; i++)
    if (!Number.isInteger(labels[i]) || labels[i]! < 0 || labels[i]! >= classes)
      throw new Failure('bad_scores', { what, problem: `${labels[i]} is not the number of one of ${classes} classes` })
}

// ── features ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Scaling {
  mean: Float64Array
  /** 1 / standard deviation; 0 for a feature that is constant, which then takes no part. */
  inverse: Float64Array
}

/** Mean and spread of each feature, in two passes and float64: one pass loses small spreads beside large means. */
export function standardisation(features: Float32Array, width: number): Scaling {
  const n = features.length / width
  const mean = new Float64Array(width)
  const squares = new Float64Array(width)
  for (let at = 0; at < features.length; at += width) for (let f = 0; f < width; f++) mean[f]! += features[at + f]!
  for (let f = 0; f < width; f++) mean[f]! /= n
  for (let at = 0; at < features.length; at += width)
    for (let f = 0; f < width; f++) {
      const off = features[at + f]! - mean[f]!
      squares[f]! += off * off
    }
  // what is no larger than the rounding of the float32 features is not a spread
  const inverse = squares.map((sum, f) => {
    const spread = Math.sqrt(sum / n)
    return spread <= 1e-6 * Math.abs(mean[f]!) || spread < 1e-30 ? 0 : 1 / spread
  })
  return { mean, inverse }
}

export function standardised(features: Float32Array, { mean, inverse }: Scaling): Float32Array {
  const width = mean.length
  const out = new Float32Array(features.length)
  for (let at = 0; at < features.length; at += width)
    for (let f = 0; f < width; f++) out[at + f] = (features[at + f]! - mean[f]!) * inverse[f]!
  return out
}

/** W · (x − mean) / spread + b, written as W' · x + b'. */
function inRawFeatures(
  parameters: Parameters,
  present: readonly number[],
  { mean, inverse }: Scaling,
  counts: Float64Array,
  classes: number,
) {
  const width = mean.length
  const weight = new Float32Array(classes * width)
  const bias = new Float64Array(classes)
  present.forEach((k, row) => {
    let shift = parameters[present.length * width + row]!
    for (let f = 0; f < width; f++) {
      const w = Math.fround(parameters[row * width + f]! * inverse[f]!)
      weight[k * width + f] = w
      shift -= w * mean[f]! // with the rounded weight: the two errors cancel around the mean
    }
    bias[k] = shift
  })
  // A class without training pictures: as likely as half a picture would make it, where the others are at the mean of the features.
  const atMean = present.map((_, row) => parameters[present.length * width + row]!)
  const most = Math.max(...atMean)
  const total = most + Math.log(atMean.reduce((sum, logit) => sum + Math.exp(logit - most), 0))
  const n = counts.reduce((sum, count) => sum + count, 0)
  for (let k = 0; k < classes; k++) if (counts[k] === 0) bias[k] = total + Math.log(0.5 / n)
  return { weight, bias: Float32Array.from(bias) }
}

// ── the loss, by the engine ─────────────────────────────────────────────────────────────────────────────────────────────────

interface Objective {
  /** Loss and gradient at the parameters, with `penalty`/2 · ‖W‖² added. */
  at(parameters: Parameters, penalty: number): Promise<{ loss: number; slope: Float64Array }>
  close(): Promise<void>
}

async function lossAndGradient(
  features: Float32Array,
  labels: ArrayLike<number>,
  sampleWeights: Float32Array,
  present: readonly number[],
  width: number,
  threads: number,
): Promise<Objective> {
  const n = labels.length
  const classes = present.length
  // [n, classes]: the weight of a picture in the column of its class. It is fed, like the features: constants would be copied into the model.
  const targets = new Float32Array(n * classes)
  const columnOf = new Map(present.map((k, column) => [k, column]))
  for (let i = 0; i < n; i++) targets[i * classes + columnOf.get(labels[i]!)!] = sampleWeights[i]!

  const x = input('x', [n, width])
  const y = input('y', [n, classes])
  const w = input('w', [classes, width])
  const b = input('b', [classes])
  // one term a picture; the terms are added up here, in float64, because L-BFGS compares losses that differ in the eighth digit
  const terms = neg(reduceSum(mul(logSoftmax(add(matMul(x, w, { transposeB: true }), b)), y), [1]))
  const slopes = gradient(reduceSum(terms, [0]), [w, b])
  const compiled: Program = await program({ terms, w: slopes.get(w)!, b: slopes.get(b)! }, new Map(), { threads })
  const weight = new Float32Array(classes * width)
  const bias = new Float32Array(classes)

  return {
    async at(parameters, penalty) {
      weight.set(parameters.subarray(0, classes * width))
      bias.set(parameters.subarray(classes * width))
      const out = await compiled.run({ x: features, y: targets, w: weight, b: bias })
      let loss = 0
      for (const term of out['terms'] as Float32Array) loss += term
      const slope = new Float64Array(parameters.length)
      slope.set(out['w'] as Float32Array)
      slope.set(out['b'] as Float32Array, classes * width)
      for (let i = 0; i < classes * width; i++) {
        loss += (penalty / 2) * parameters[i]! * parameters[i]!
        slope[i]! += penalty * parameters[i]!
      }
      return { loss, slope }
    },
    close: () => compiled.close(),
  }
}

// ── L-BFGS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const remembered = 12
/** Relative change of the loss that is only rounding: three such steps in a row and it stops. */
const noise = 1e-8

/**
 * Limited-memory BFGS with backtracking (Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.1).
 * The loss is convex, so every step it takes has positive curvature; float32 gradients make it stop a little before float64 would.
 */
export async function minimise(
  start: Parameters,
  at: (parameters: Parameters) => Promise<{ loss: number; slope: Float64Array }>,
  { tolerance, iterations }: { tolerance: number; iterations: number },
): Promise<{ parameters: Parameters; iterations: number }> {
  const pairs: { step: Float64Array; change: Float64Array; inverse: number }[] = []
  let parameters = start
  let here = await at(parameters)
  let still = 0
  for (let iteration = 0; iteration < iterations; iteration++) {
    if (here.slope.every(slope => Math.abs(slope) <= tolerance)) return { parameters, iterations: iteration }
    const direction = twoLoops(here.slope, pairs)
    let steepness = dot(direction, here.slope)
    if (!(steepness < 0)) {
      // memory spoilt by rounding: forget it and go straight down
      if (pairs.length === 0) return { parameters, iterations: iteration }
      pairs.length = 0
      direction.set(here.slope.map(slope => -slope))
      steepness = -dot(here.slope, here.slope)
    }
    let length = pairs.length === 0 ? Math.min(1, 1 / Math.sqrt(-steepness)) : 1
    let next = moved(parameters, direction, length)
    let there = await at(next)
    // sufficient decrease, or as good as equal: below that float32 cannot tell
    const enough = () => there.loss <= here.loss + 1e-4 * length * steepness
    for (let halvings = 0; !enough() && halvings < 20; halvings++) {
      const fitted = (-steepness * length * length) / (2 * (there.loss - here.loss - steepness * length)) // lowest point of the parabola
      length = Number.isFinite(fitted) ? Math.min(0.5 * length, Math.max(0.1 * length, fitted)) : 0.1 * length
      next = moved(parameters, direction, length)
      there = await at(next)
    }
    if (!enough()) return { parameters, iterations: iteration }
    const step = next.map((value, i) => value - parameters[i]!)
    const change = there.slope.map((value, i) => value - here.slope[i]!)
    const curvature = dot(step, change)
    if (curvature > 1e-12 * dot(change, change)) {
      pairs.push({ step, change, inverse: 1 / curvature })
      if (pairs.length > remembered) pairs.shift()
    }
    still = here.loss - there.loss <= noise * Math.max(1, here.loss) ? still + 1 : 0
    parameters = next
    here = there
    if (still === 3) return { parameters, iterations: iteration + 1 }
  }
  return { parameters, iterations }
}

/** −H · slope, where H is what the remembered steps say about the inverse curvature. */
function twoLoops(slope: Float64Array, pairs: readonly { step: Float64Array; change: Float64Array; inverse: number }[]): Float64Array {
  const direction = slope.map(value => -value)
  const shares = pairs
    .toReversed()
    .map(({ step, change, inverse }) => {
      const share = inverse * dot(step, direction)
      addTo(direction, change, -share)
      return share
    })
    .reverse()
  const last = pairs.at(-1)
  if (last) {
    const scale = 1 / (last.inverse * dot(last.change, last.change))
    for (let i = 0; i < direction.length; i++) direction[i]! *= scale
  }
  pairs.forEach(({ step, change, inverse }, i) => {
    addTo(direction, step, shares[i]! - inverse * dot(change, direction))
  })
  return direction
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
function addTo(target: Float64Array, values: Float64Array, scale: number): void {
  for (let i = 0; i < target.length; i++) target[i]! += scale * values[i]!
}
function moved(from: Float64Array, direction: Float64Array, length: number): Float64Array {
  const to = from.slice()
  addTo(to, direction, length)
  return to
}

// ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** features [n, width] → [n, classes], in float64. */
function logits({ weight, bias }: { weight: Float32Array; bias: Float32Array }, features: Float32Array, width: number): Float64Array {
  const classes = bias.length
  const n = features.length / width
  const out = new Float64Array(n * classes)
  for (let i = 0; i < n; i++)
    for (let k = 0; k < classes; k++) {
      let sum = bias[k]!
      for (let f = 0; f < width; f++) sum += features[i * width + f]! * weight[k * width + f]!
      out[i * classes + k] = sum
    }
  return out
}

/** Softmax of each row of logits / temperature, in float64 whatever comes in. `logits`: [n · classes] flat. */
export function softmax(logits: ArrayLike<number>, classes: number, temperature = 1): Float64Array {
  const out = new Float64Array(logits.length)
  for (let at = 0; at < logits.length; at += classes) {
    let most = Number.NEGATIVE_INFINITY
    for (let k = 0; k < classes; k++) most = Math.max(most, logits[at + k]!)
    let sum = 0
    for (let k = 0; k < classes; k++) sum += out[at + k] = Math.exp((logits[at + k]! - most) / temperature)
    for (let k = 0; k < classes; k++) out[at + k]! /= sum
  }
  return out
}

function measure(head: { weight: Float32Array; bias: Float32Array }, { features, labels }: LabelledFeatures, width: number) {
  const n = labels.length
  if (n === 0) return { accuracy: 0, loss: 0 }
  const classes = head.bias.length
  const probabilities = softmax(logits(head, features, width), classes)
  let right = 0
  let loss = 0
  for (let i = 0; i < n; i++) {
    const row = probabilities.subarray(i * classes, (i + 1) * classes)
    right += Number(row.indexOf(Math.max(...row)) === labels[i])
    loss -= Math.log(Math.max(row[labels[i]!]!, Number.MIN_VALUE))
  }
  return { accuracy: right / n, loss: loss / n }
}

/**
 * The loss sees more than the accuracy and flatters less: the best of eight accuracies on the validation pictures is 1 to 2.5 points too
 * good, which would also be an unfair start for fine-tuning, which is compared with it. With a handful of pictures the loss is too noisy.
 */
const fewestForLoss = 40
function isBetter(
  now: { accuracy: number; loss: number },
  best: { validationAccuracy: number; validationLoss: number },
  n: number,
): boolean {
  if (n >= fewestForLoss) return now.loss < best.validationLoss
  return now.accuracy > best.validationAccuracy || (now.accuracy === best.validationAccuracy && now.loss < best.validationLoss)
}
