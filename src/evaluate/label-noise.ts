/**
 * How many labels are wrong, as an estimate with an interval.
 *
 * Counting the pictures that a head would call otherwise counts the hard pictures too: on a clean set of shirts and coats that is every sixth. What tells wrong
 * labels from hard pictures is that they do not become rarer where the head is sure. So the labels are read as coming from two sources,
 *
 *   P(label = k | picture) = Σⱼ Pⱼ(β) · Tⱼₖ,     P(β) = softmax(β · log p),
 *
 * where p is what the heads say out of fold, β how much surer they would be of clean labels (the hard pictures), and T how often a j is labelled k wherever
 * it is (the wrong labels). Both are fitted by maximum likelihood: expectation-maximisation for T, a step of Fisher scoring for β in between.
 * The rows of T are drawn a little towards the mean rate, spread evenly, because most pairs of classes are seen a handful of times.
 * The model of T is that of confident learning (Northcutt et al., JAIR 70 (2021) 1373); the thresholds are replaced by the likelihood.
 */
import { randomFrom } from '../engine/random.ts'

export interface NoiseTask {
  /** [n, classes] mean log-probabilities, out of fold. */
  logProbabilities: Float64Array
  labels: Int32Array
  classes: number
  /** Rows that are drawn together when the interval is made. */
  units: readonly (readonly number[])[]
  seed: number
  draws?: number
}

export interface NoiseEstimate {
  count: number
  /** 95 %, whole numbers. */
  low: number
  high: number
  /** [n] how probable it is that the label is wrong. */
  wrong: Float64Array
  /** For each class and each other class how many pictures labelled `from` are expected to be `to`. */
  exchanged: { from: number; to: number; count: number }[]
}

/** Classes of a picture that are looked at: its label and those that the heads find most probable. */
const kept = 10
/** A class whose log-probability is so far below the highest changes nothing: what it could explain, errors explain better. */
const negligible = 8
/** With more classes than this all pairs share one rate: there are not enough pictures to tell them apart. */
const mostClassesForPairs = 60

/** Share of the pictures that even a head of clean labels would miss which may pass for wrong labels, or hide some: set so that intervals hold, see docs/inside/mislabels.md. */
const tailDoubt = 0.1

interface Sparse {
  n: number
  /** [n, kept] classes, the label first; −1 where there are fewer. */
  classes: Int32Array
  logs: Float64Array
  /** [n] how many classes were left out, and the mean of their logarithms: without them P(β) would not add up to 1, and a small β would cost nothing. */
  others: Int32Array
  othersLog: Float64Array
}
interface Model {
  beta: number
  /** [classes, classes]: how often a j is labelled k; or one rate for all. */
  pairs: Float64Array | null
  rate: number
}

export function estimateNoise({ logProbabilities, labels, classes, units, seed, draws = 100 }: NoiseTask): NoiseEstimate {
  const n = labels.length
  const { fitted, sparse, wrong, exchanged } = fitNoise(logProbabilities, labels, classes)
  const count = sum(wrong)

  const random = randomFrom(seed, n, 77)
  const drawn: number[] = []
  for (let draw = 0; draw < draws; draw++) {
    const weights = new Float64Array(n)
    for (let i = 0; i < units.length; i++) for (const row of units[Math.floor(random() * units.length)]!) weights[row]!++
    const again = fit(fitted, sparse, labels, classes, weights, { rounds: 25, tolerance: 1e-4 })
    const { wrong } = posterior(again, sparse, labels, classes)
    let [all, bad] = [0, 0]
    for (let i = 0; i < n; i++) {
      all += weights[i]!
      bad += weights[i]! * wrong[i]!
    }
    drawn.push((bad * n) / all)
  }
  drawn.sort((a, b) => a - b)
  // a drawn sample holds pictures twice, which lets the rates fit them better: as much as the middle of the draws is off, all of them are
  const off = drawn[Math.floor(draws / 2)]! - count
  // and the draws know the luck of this sample, not that hard pictures may be odder than the model of them allows
  const doubt = tailDoubt * hardPictures(fitted, sparse)
  const low = Math.max(0, Math.floor(Math.min(count, drawn[Math.floor(0.025 * draws)]! - off) - doubt))
  const high = Math.min(n, Math.ceil(Math.max(count, drawn[Math.ceil(0.975 * draws) - 1]! - off) + doubt))
  return { count, low, high, wrong, exchanged }
}

/** The two sources without the interval: which labels are probably wrong. `logProbabilities`: [n, classes] */
export function fitNoise(logProbabilities: Float64Array, labels: Int32Array, classes: number) {
  const sparse = mostProbable(logProbabilities, labels, classes)
  const ones = new Float64Array(labels.length).fill(1)
  const start: Model = { beta: 1.2, rate: 0.03, pairs: classes <= mostClassesForPairs ? evenly(classes, 0.03) : null }
  const fitted = fit(start, sparse, labels, classes, ones, { rounds: 200, tolerance: 1e-6 })
  return { fitted, sparse, ...posterior(fitted, sparse, labels, classes) }
}

function mostProbable(logs: Float64Array, labels: Int32Array, classes: number): Sparse {
  const n = labels.length
  const sparse = {
    n,
    classes: new Int32Array(n * kept).fill(-1),
    logs: new Float64Array(n * kept).fill(Number.NEGATIVE_INFINITY),
    others: new Int32Array(n),
    othersLog: new Float64Array(n),
  }
  for (let i = 0; i < n; i++) {
    const at = i * kept
    sparse.classes[at] = labels[i]!
    sparse.logs[at] = logs[i * classes + labels[i]!]!
    for (let k = 0; k < classes; k++) {
      const value = logs[i * classes + k]!
      if (k === labels[i] || value <= sparse.logs[at + kept - 1]!) continue
      let place = at + kept - 1
      for (; place > at + 1 && sparse.logs[place - 1]! < value; place--) {
        sparse.logs[place] = sparse.logs[place - 1]!
        sparse.classes[place] = sparse.classes[place - 1]!
      }
      sparse.logs[place] = value
      sparse.classes[place] = k
    }
    const most = Math.max(sparse.logs[at]!, sparse.logs[at + 1]!)
    let left = 0
    for (let k = 0; k < classes; k++) left += logs[i * classes + k]!
    sparse.others[i] = classes
    for (let s = at; s < at + kept; s++) {
      if (s > at && sparse.logs[s]! < most - negligible) sparse.classes[s] = -1
      if (sparse.classes[s]! < 0) continue
      left -= sparse.logs[s]!
      sparse.others[i]!--
    }
    sparse.othersLog[i] = sparse.others[i]! > 0 ? left / sparse.others[i]! : 0
  }
  return sparse
}

function evenly(classes: number, rate: number): Float64Array {
  return Float64Array.from({ length: classes * classes }, (_, at) =>
    Math.floor(at / classes) === at % classes ? 1 - rate : rate / (classes - 1),
  )
}

/** Probability that a j is labelled k. */
const seen = ({ pairs, rate }: Model, classes: number, j: number, k: number) =>
  pairs ? pairs[j * classes + k]! : j === k ? 1 - rate : rate / (classes - 1)

/** Pⱼ(β) · Tⱼₖ of the kept classes of row i, in `joint`; returns their sum. `surer` gets d log sum / dβ. */
function jointOf(
  model: Model,
  { classes: own, logs, others, othersLog }: Sparse,
  i: number,
  classes: number,
  joint: Float64Array,
  slope: { of: number },
): number {
  const at = i * kept
  const label = own[at]!
  const most = Math.max(logs[at]!, logs[at + 1]!) // the label, or the most probable of the others
  let total = others[i]! * Math.exp(model.beta * (othersLog[i]! - most))
  let mean = total * (othersLog[i]! - most)
  for (let s = 0; s < kept; s++) {
    joint[s] = 0
    if (own[at + s]! < 0) break // classes come in order, so none follows
    joint[s] = Math.exp(model.beta * (logs[at + s]! - most))
    total += joint[s]!
    mean += joint[s]! * (logs[at + s]! - most)
  }
  mean /= total
  let [all, rise] = [0, 0]
  for (let s = 0; s < kept; s++) {
    const j = own[at + s]!
    if (j < 0) break
    joint[s]! *= seen(model, classes, j, label) / total
    all += joint[s]!
    rise += joint[s]! * (logs[at + s]! - most - mean)
  }
  slope.of = rise / all
  return all
}

function fit(
  start: Model,
  sparse: Sparse,
  labels: Int32Array,
  classes: number,
  weights: Float64Array,
  { rounds, tolerance }: { rounds: number; tolerance: number },
): Model {
  let model = start
  const joint = new Float64Array(kept)
  const slope = { of: 0 }
  for (let round = 0; round < rounds; round++) {
    const counts = new Float64Array(model.pairs ? classes * classes : 0)
    let [wrong, all, rise, curvature] = [0, 0, 0, 0]
    for (let i = 0; i < sparse.n; i++) {
      const weight = weights[i]!
      if (weight === 0) continue
      const total = jointOf(model, sparse, i, classes, joint, slope)
      all += weight
      wrong += weight * (1 - joint[0]! / total)
      rise += weight * slope.of
      curvature += weight * slope.of * slope.of
      if (model.pairs)
        for (let s = 0; s < kept; s++) {
          const j = sparse.classes[i * kept + s]!
          if (j < 0) break
          counts[j * classes + labels[i]!]! += (weight * joint[s]!) / total
        }
    }
    const rate = (wrong + 0.5) / (all + 1)
    // half a step, and a short one: T has to follow, or both run off together
    const step = curvature > 0 ? Math.max(-0.05, Math.min(0.05, (0.5 * rise) / curvature)) : 0
    const beta = Math.max(0.3, Math.min(5, model.beta + step))
    const settled = Math.abs(rate - model.rate) < tolerance && Math.abs(beta - model.beta) < 100 * tolerance
    model = { beta, rate, pairs: model.pairs ? drawnToMean(counts, classes, rate) : null }
    if (settled) break
  }
  return model
}

/** Rows of rates, each as if `classes` more pictures of the class had been seen at the mean rate, with errors spread evenly. */
function drawnToMean(counts: Float64Array, classes: number, rate: number): Float64Array {
  const pairs = new Float64Array(classes * classes)
  for (let j = 0; j < classes; j++) {
    let total = classes
    for (let k = 0; k < classes; k++) total += counts[j * classes + k]!
    for (let k = 0; k < classes; k++)
      pairs[j * classes + k] = (counts[j * classes + k]! + classes * (j === k ? 1 - rate : rate / (classes - 1))) / total
  }
  return pairs
}

function posterior(model: Model, sparse: Sparse, labels: Int32Array, classes: number) {
  const joint = new Float64Array(kept)
  const wrong = new Float64Array(sparse.n)
  const exchanged = new Map<number, number>()
  for (let i = 0; i < sparse.n; i++) {
    const total = jointOf(model, sparse, i, classes, joint, { of: 0 })
    for (let s = 1; s < kept; s++) {
      const j = sparse.classes[i * kept + s]!
      if (j < 0) break
      const key = labels[i]! * classes + j
      exchanged.set(key, (exchanged.get(key) ?? 0) + joint[s]! / total)
    }
    wrong[i] = 1 - joint[0]! / total
  }
  return {
    wrong,
    exchanged: [...exchanged]
      .map(([key, count]) => ({ from: Math.floor(key / classes), to: key % classes, count }))
      .sort((a, b) => b.count - a.count),
  }
}

/** How many pictures a head that was as sure as P(β) says would miss, were all labels right. */
function hardPictures({ beta }: Model, { n, classes: own, logs, others, othersLog }: Sparse): number {
  let missed = 0
  for (let i = 0; i < n; i++) {
    const most = Math.max(logs[i * kept]!, logs[i * kept + 1]!)
    let total = others[i]! * Math.exp(beta * (othersLog[i]! - most))
    for (let s = 0; s < kept && own[i * kept + s]! >= 0; s++) total += Math.exp(beta * (logs[i * kept + s]! - most))
    missed += 1 - 1 / total
  }
  return missed
}

const sum = (values: Float64Array) => values.reduce((total, value) => total + value, 0)
