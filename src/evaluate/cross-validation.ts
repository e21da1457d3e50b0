/**
 * Repeated cross-validation of the head over groups: every picture is judged by heads that saw neither it nor a copy of it. A small test side says
 * little; this uses all pictures, at the price of judging the head (with the pictures that a fold leaves) and not the model that is kept.
 */
import { unitsOf } from '../data/folds.ts'
import { randomFrom } from '../engine/random.ts'
import { outOfFold, scaled } from './out-of-fold.ts'

export interface CrossValidationTask {
  /** [n, width] */
  features: Float32Array
  width: number
  labels: Int32Array
  /** How many classes. */
  classes: number
  groups: readonly (readonly number[])[] | null
  folds?: number
  repeats?: number
  seed: number
  threads: number
  signal?: AbortSignal | undefined
}

export interface CrossValidation {
  folds: number
  repeats: number
  /** Pictures and groups (a picture that is alone is one). */
  n: number
  groups: number
  accuracy: number
  /** 95 % interval. */
  low: number
  high: number
}

const draws = 2000

/** @throws bad_scores for features that are not numbers, shape_mismatch */
export async function crossValidate(task: CrossValidationTask): Promise<CrossValidation> {
  const { labels, classes, groups, folds = 5, repeats = 3, seed } = task
  const n = labels.length
  const heard = await outOfFold({ ...task, features: scaled(task.features, task.width, n), folds, repeats })
  const right = Float64Array.from({ length: n }, (_, i) => {
    let sum = 0
    for (const { probabilities } of heard) {
      const row = probabilities.subarray(i * classes, (i + 1) * classes)
      sum += Number(row.indexOf(Math.max(...row)) === labels[i])
    }
    return sum / repeats
  })
  const units = unitsOf(n, groups).map(rows => ({ n: rows.length, right: rows.reduce((sum, row) => sum + right[row]!, 0) }))
  const accuracy = right.reduce((sum, r) => sum + r, 0) / n
  const random = randomFrom(seed, n)
  const drawn = Float64Array.from({ length: draws }, () => {
    let [hits, all] = [0, 0]
    for (let i = 0; i < units.length; i++) {
      const unit = units[Math.floor(random() * units.length)]!
      hits += unit.right
      all += unit.n
    }
    return hits / all
  }).sort()
  return {
    folds,
    repeats,
    n,
    groups: units.length,
    accuracy,
    low: drawn[Math.floor(0.025 * draws)]!,
    high: drawn[Math.ceil(0.975 * draws) - 1]!,
  }
}
