/** Labels that look wrong, ranked, with the evidence beside each. They are proposals: nothing is ever relabelled by itself. */
import { unitOfRow } from '../data/folds.ts'
import { randomFrom } from '../engine/random.ts'
import type { Mislabels } from '../sdk/shapes.ts'
import { nearestNeighbours } from './neighbours.ts'
import { outOfFold } from './out-of-fold.ts'

export interface MislabelTask {
  /** [n, width] of the untouched backbone */
  features: Float32Array
  width: number
  /** [n] numbers into `classes` */
  labels: Int32Array
  classes: readonly string[]
  paths: readonly string[]
  /** Copies and scenes: a copy with the same wrong label must not vouch for it. */
  groups: readonly (readonly number[])[]
  threads: number
  seed: number
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

const neighboursAsked = 10
const neighboursShown = 5

/** @throws bad_scores for features that are not numbers, shape_mismatch */
export async function findMislabels(task: MislabelTask): Promise<Mislabels> {
  const { features, width, labels, paths, groups, threads, seed, signal, onProgress } = task
  const n = labels.length
  const classes = task.classes.length
  const group = unitOfRow(n, groups)
  const heard = await outOfFold({ features, width, labels, classes, groups, seed, threads, signal, onProgress })
  const near = await nearestNeighbours({ features, width, group, k: neighboursAsked, threads, signal })

  const p = new Float64Array(n * classes)
  for (const { probabilities } of heard.repeats) for (let i = 0; i < p.length; i++) p[i]! += probabilities[i]! / heard.repeats.length
  const thresholds = new Float64Array(classes)
  const counts = new Float64Array(classes)
  for (let i = 0; i < n; i++) {
    thresholds[labels[i]!]! += p[i * classes + labels[i]!]!
    counts[labels[i]!]!++
  }
  for (let k = 0; k < classes; k++) thresholds[k]! /= Math.max(1, counts[k]!)
  const other = Int32Array.from({ length: n }, (_, i) => {
    let best = labels[i] === 0 ? 1 : 0
    for (let k = 0; k < classes; k++) if (k !== labels[i] && p[i * classes + k]! > p[i * classes + best]!) best = k
    return best
  })
  const margin = Float64Array.from({ length: n }, (_, i) => p[i * classes + other[i]!]! - p[i * classes + labels[i]!]!)
  const disagreement = Float64Array.from({ length: n }, (_, i) => {
    const rows = near.rows.subarray(i * near.k, (i + 1) * near.k).filter(row => row >= 0)
    return rows.length ? rows.filter(row => labels[row] !== labels[i]).length / rows.length : 0
  })
  const [byMargin, byNeighbours] = [rank(margin), rank(disagreement)]
  const score = Float64Array.from({ length: n }, (_, i) => (byMargin[i]! + byNeighbours[i]!) / 2)

  const wrong = [...labels.keys()].filter(i => p[i * classes + other[i]!]! >= thresholds[other[i]!]! && margin[i]! > 0)
  const random = randomFrom(seed, n)
  const drawn = Float64Array.from({ length: 1000 }, () => {
    let sum = 0
    for (let i = 0; i < wrong.length; i++) sum += Number(random() < 0.5) * 2
    return sum
  }).sort()
  const order = [...labels.keys()].sort((a, b) => score[b]! - score[a]!)
  const listed = order.slice(0, Math.min(500, n, Math.max(20, 2 * wrong.length)))
  const pairs = Map.groupBy(wrong, i => `${labels[i]} ${other[i]}`)
  return {
    n,
    estimate: { count: wrong.length, low: drawn[25]!, high: Math.max(wrong.length, drawn[974]!) },
    exchanged: [...pairs.values()]
      .map(rows => ({ label: task.classes[labels[rows[0]!]!]!, suggestion: task.classes[other[rows[0]!]!]!, count: rows.length }))
      .sort((a, b) => b.count - a.count)
      .slice(0, 10),
    listed: listed.map(i => ({
      path: paths[i]!,
      label: task.classes[labels[i]!]!,
      pile: 'another' as const,
      suggestion: task.classes[other[i]!]!,
      score: score[i]!,
      probabilityOfLabel: p[i * classes + labels[i]!]!,
      probabilityOfSuggestion: p[i * classes + other[i]!]!,
      neighbours: [...near.rows.subarray(i * near.k, i * near.k + neighboursShown)]
        .map((row, at) => ({ row, similarity: near.similarity[i * near.k + at]! }))
        .filter(({ row }) => row >= 0)
        .map(({ row, similarity }) => ({ path: paths[row]!, label: task.classes[labels[row]!]!, similarity })),
    })),
    notes: ['In practice about half of such a list is truly wrong: look at each picture and its neighbours before you change a label.'],
  }
}

/** Place of each value among all, 0 … 1; equal values share the middle of their places. */
function rank(values: Float64Array): Float64Array {
  const order = [...values.keys()].sort((a, b) => values[a]! - values[b]!)
  const places = new Float64Array(values.length)
  for (let from = 0; from < order.length; ) {
    let to = from
    while (to < order.length && values[order[to]!] === values[order[from]!]) to++
    for (let at = from; at < to; at++) places[order[at]!] = (from + to - 1) / 2 / Math.max(1, values.length - 1)
    from = to
  }
  return places
}
