/** Who is learned from and who is held back, for the distance behind “none of these” (unknown.ts, left-out.ts). */
import { groupedFolds } from '../data/folds.ts'
import { permutation, randomFrom } from '../engine/random.ts'
import { fitFeatureSpace } from '../models/feature-space.ts'
import { fitManyHeads, type ManyHeads } from '../models/many-heads.ts'
import type { Measures } from '../models/unknown.ts'
import { scaled, usualStrength } from './out-of-fold.ts'

/** Share of pictures of known classes that may be called unknown by mistake. */
export const falseAlarmRate = 0.05
export const folds = 5
/** More are drawn from: the measure has enough of them, and 100,000 would not fit in memory twice. */
const mostPictures = 12_000
/** Numbers of logits at once, 64 MB: with many classes fewer pictures are looked at. */
const mostLogits = 16e6

export interface UnknownTask {
  /** [n, width], row-major: features of training and validation pictures by the network that goes into the file. */
  features: Float32Array
  width: number
  /** [n] class numbers. */
  labels: Int32Array
  classes: readonly string[]
  /** Rows (of these n) that must not be torn apart. */
  groups: readonly (readonly number[])[] | null
  /** Of the file, for the network's features; and what its logits are divided by. */
  head: { weight: Float32Array; bias: Float32Array }
  temperature: number
  /** Rows that neither the network nor the head learned from: the validation side. */
  fresh: readonly number[]
  /** Only where the network was fine-tuned: features [n, width] of the same pictures by the network before that. */
  untouched?: Float32Array | undefined
  seed: number
  threads: number
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface Chosen extends Omit<UnknownTask, 'groups'> {
  /** In no order; all of them where there are not too many. */
  rows: readonly number[]
  /** Of each of the `rows`. */
  fold: Int32Array
}

export function enough(task: UnknownTask): Chosen {
  const { labels, classes, groups, seed } = task
  const n = labels.length
  const most = Math.max(folds * classes.length, Math.min(mostPictures, Math.floor(mostLogits / 2 / classes.length)))
  const rows = n <= most ? Array.from({ length: n }, (_, row) => row) : permutation(n, randomFrom(seed, n)).slice(0, most)
  const place = new Map(rows.map((row, i) => [row, i]))
  const together = groups?.map(group => group.flatMap(row => place.get(row) ?? [])).filter(group => group.length > 1) ?? null
  const fold = groupedFolds({ labels: Int32Array.from(rows, row => labels[row]!), groups: together, folds, seed })
  return { ...task, rows, fold }
}

export const labelsOf = ({ labels }: Chosen, rows: readonly number[]) => Int32Array.from(rows, row => labels[row]!)
export const places = (rows: readonly number[], holds: (i: number) => boolean): number[] => [...rows.keys()].filter(holds)
export const picked = (measures: Measures, at: readonly number[]): Measures => ({
  relative: at.map(i => measures.relative[i]!),
  rest: at.map(i => measures.rest[i]!),
  entropy: at.map(i => measures.entropy[i]!),
})

export function spaceOf({ width, labels, threads, seed, signal }: Chosen, features: Float32Array, rows: readonly number[]) {
  signal?.throwIfAborted()
  return fitFeatureSpace({ features, width, rows }, { labels, threads, seed })
}

/** One head for each of `learns`, which says whether it learns from the i-th of the rows; null where one of them would learn from none. */
export async function headsWithout(
  chosen: Chosen,
  features: Float32Array,
  learns: readonly ((i: number) => boolean)[],
): Promise<ManyHeads | null> {
  const { rows, width, classes, threads, signal } = chosen
  const own = new Float32Array(rows.length * width)
  for (const [i, row] of rows.entries()) own.set(features.subarray(row * width, (row + 1) * width), i * width)
  const weights = learns.map(learn => Float32Array.from(rows, (_, i) => Number(learn(i))))
  if (weights.some(weight => !weight.includes(1))) return null
  return fitManyHeads({
    features: scaled(own, width, rows.length),
    width,
    labels: labelsOf(chosen, rows),
    classes: classes.length,
    weights,
    c: usualStrength,
    threads,
    signal,
  })
}

/**
 * The smallest distance such that a new picture of a known class, alike to these, is beyond it with at most this probability: the
 * ⌈(1 − rate) · (n + 1)⌉-th of n (split conformal prediction; Vovk et al. 2005).
 */
export function conformal(distances: Float64Array, rate: number): number {
  const sorted = distances.toSorted()
  return sorted[Math.min(sorted.length, Math.ceil((1 - rate) * (sorted.length + 1))) - 1]!
}
