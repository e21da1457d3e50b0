/**
 * How suspicious each label is, from two witnesses that have seen neither the picture nor its copies: heads fitted out of fold on how alike pictures are, and the
 * labels of the nearest pictures. docs/inside/mislabels.md says what else was tried and what it was worth.
 */
import { unitOfRow } from '../data/folds.ts'
import { softmax } from '../models/logistic-regression.ts'
import { fitNoise } from './label-noise.ts'
import { likenessFeatures, makeUnitVectors } from './likeness.ts'
import { type Neighbours, nearestNeighbours } from './neighbours.ts'
import { type OutOfFoldRepeat, outOfFold, scaled } from './out-of-fold.ts'

export interface SuspicionTask {
  /** [n, width], raw. */
  features: Float32Array
  width: number
  labels: Int32Array
  classes: number
  groups: readonly (readonly number[])[]
  threads: number
  seed: number
  folds?: number
  repeats?: number
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface Suspicion {
  /** [n] 0 … 1, higher is more suspicious. */
  score: Float64Array
  /** [n, classes] what heads and neighbours together say. */
  probabilities: Float64Array
  /** [n, classes] mean log-probability of the heads alone. */
  heads: Float64Array
  /** [n] the most probable class besides the label. */
  other: Int32Array
  /** 1 where anything can be said: some head has seen the class on another picture. */
  judged: Uint8Array
  near: Neighbours
  /** [n, width] standardised features as unit vectors, and [n] their lengths before. */
  unit: Float32Array
  lengths: Float64Array
}

const folds = 5
/** Neighbours asked: fewer where classes are small. */
const neighbours = { most: 20, fewest: 5 }
/** Weight of the neighbours' word beside that of the heads. */
const neighboursWeight = 0.25
/** Votes that every class has together before anybody voted. */
const priorVotes = 3
/** Weight of how much some other class is to be believed. With 0 the label alone counts, with 1 only the ratio of the two. */
const otherWeight = 0.3

/** @throws bad_scores for features that are not numbers or when all are copies of one another, shape_mismatch */
export async function suspicions(task: SuspicionTask): Promise<Suspicion> {
  const { width, labels, classes, groups, threads, seed, signal } = task
  const n = labels.length
  const unit = scaled(task.features, width, n)
  const lengths = makeUnitVectors(unit, width)
  const k = Math.min(neighbours.most, Math.max(neighbours.fewest, Math.round(n / classes / 4)))
  const near = await nearestNeighbours({ unit, width, group: unitOfRow(n, groups), k, threads, signal })
  const effort = affordable(n, classes)
  const likeness = await likenessFeatures({ unit, width, landmarks: effort.landmarks, seed, threads })
  const repeats = task.repeats ?? effort.repeats
  const asked = { ...task, ...effort, ...likeness, folds: task.folds ?? folds }
  // wrong labels teach too: a first round says which are probably wrong, and in the second those teach the less
  const first = together(await outOfFold({ ...asked, repeats: 1, seed: seed + 1 }), labels, classes)
  const { wrong } = fitNoise(first.heads, labels, classes)
  const { heads, judged } = together(await outOfFold({ ...asked, repeats, trust: wrong.map(w => 1 - w) }), labels, classes)
  const probabilities = softmax(withNeighbours(heads, labels, classes, near), classes)

  const other = Int32Array.from({ length: n }, (_, i) => {
    let best = labels[i] === 0 ? 1 : 0
    for (let c = 0; c < classes; c++) if (c !== labels[i] && probabilities[i * classes + c]! > probabilities[i * classes + best]!) best = c
    return best
  })
  const usual = meanOfClass(labels, classes, i => probabilities[i * classes + labels[i]!]!)
  const score = Float64Array.from({ length: n }, (_, i) => {
    if (!judged[i]) return 0
    const own = probabilities[i * classes + labels[i]!]! / Math.max(usual[labels[i]!]!, 1e-9)
    const rival = probabilities[i * classes + other[i]!]! ** otherWeight
    return rival / (rival + own)
  })
  return { score, probabilities, heads, other, judged, near, unit, lengths }
}

/**
 * What can be had in tens of seconds on two cores. A logistic fit costs 4 · n · landmarks · classes · heads multiplications a step; with a thousand classes that
 * would be minutes, so there the heads are found by least squares.
 */
function affordable(n: number, classes: number): { landmarks: number; repeats: number; iterations: number; heads: 'logistic' | 'ridge' } {
  const cost = n * classes
  if (cost <= 4e5) return { landmarks: 1000, repeats: 3, iterations: 60, heads: 'logistic' }
  if (cost <= 1e6) return { landmarks: 600, repeats: 2, iterations: 50, heads: 'logistic' }
  return { landmarks: 400, repeats: cost <= 1e7 ? 2 : 1, iterations: 0, heads: 'ridge' }
}

/** Mean log-probabilities of the repeats, and for whom anything can be said. */
function together(heard: readonly OutOfFoldRepeat[], labels: Int32Array, classes: number): { heads: Float64Array; judged: Uint8Array } {
  const heads = new Float64Array(labels.length * classes)
  const judged = new Uint8Array(labels.length)
  for (let i = 0; i < labels.length; i++) {
    // a head that never saw the class cannot speak for it; where none did, nothing is said
    const able = heard.filter(({ known }) => known[i])
    judged[i] = Number(able.length > 0)
    const speaking = able.length > 0 ? able : heard
    for (let at = i * classes; at < (i + 1) * classes; at++)
      for (const { probabilities } of speaking) heads[at]! += Math.log(probabilities[at]! + 1e-12) / speaking.length
  }
  return { heads, judged }
}

/** Mean of the two witnesses' logarithms, [n, classes]. */
function withNeighbours(heads: Float64Array, labels: Int32Array, classes: number, { k, rows }: Neighbours): Float64Array {
  const n = labels.length
  const joint = new Float64Array(heads.length)
  const votes = new Float64Array(classes)
  for (let i = 0; i < n; i++) {
    votes.fill(0)
    let voters = 0
    for (let at = i * k; at < (i + 1) * k; at++)
      if (rows[at]! >= 0) {
        votes[labels[rows[at]!]!]!++
        voters++
      }
    for (let c = 0; c < classes; c++) {
      const word = Math.log((votes[c]! + priorVotes / classes) / (voters + priorVotes))
      joint[i * classes + c] = (heads[i * classes + c]! + neighboursWeight * word) / (1 + neighboursWeight)
    }
  }
  return joint
}

export function meanOfClass(labels: Int32Array, classes: number, of: (row: number) => number): Float64Array {
  const [sums, counts] = [new Float64Array(classes), new Float64Array(classes)]
  for (let i = 0; i < labels.length; i++) {
    sums[labels[i]!]! += of(i)
    counts[labels[i]!]!++
  }
  return sums.map((sum, c) => (counts[c]! > 0 ? sum / counts[c]! : 0))
}
