/**
 * What the choices of a training share. They are made on the training and validation sides, never on the test side, with heads on cached features:
 * cheap enough to ask every time, and the same pictures, seed and threads give the same answer.
 */
import { unitOfRow } from '../../data/folds.ts'
import { permutation, randomFrom } from '../../engine/random.ts'
import type { TrainResult } from '../../sdk/index.ts'

/** What was decided, and the sentence that says so and why. */
export type Choice = NonNullable<TrainResult['choices']>[number]

/** Pictures that a choice may look at. Numbers in `groups` are positions in `rows`, which are rows of the manifest. */
export interface Sample {
  rows: number[]
  labels: Int32Array
  groups: number[][]
}

/** At most so many of the rows, by chance. */
export function sampleOf(
  rows: readonly number[],
  labelOf: (row: number) => number,
  groups: readonly (readonly number[])[],
  most: number,
  seed: number,
): Sample {
  const kept = permutation(rows.length, randomFrom(seed, 3, rows.length))
    .slice(0, most)
    .map(i => rows[i]!)
    .sort((a, b) => a - b)
  return { rows: kept, labels: Int32Array.from(kept, labelOf), groups: groupsWithin(groups, kept) }
}

/** The groups as far as they lie within these rows, by position; what is left alone is not listed. */
export function groupsWithin(groups: readonly (readonly number[])[], rows: readonly number[]): number[][] {
  const at = new Map(rows.map((row, i) => [row, i]))
  return groups.map(group => group.flatMap(row => at.get(row) ?? [])).filter(group => group.length > 1)
}

/** Rows of a matrix [n, width], one after the other. */
export function rowsOf(values: Float32Array, width: number, rows: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * width)
  for (const [i, row] of rows.entries()) out.set(values.subarray(row * width, (row + 1) * width), i * width)
  return out
}

/** 12 → "12", 12345 → "12,345" */
export const count = (n: number): string => n.toLocaleString('en-US')

const draws = 1000

/**
 * Is the mean of these differences more than luck? The mean over the pictures, with `classes` over the classes' means, and its 95 % interval
 * (bootstrap over groups: pictures that belong together are drawn together).
 */
export function meanDifference(
  differences: Float64Array,
  { labels, groups }: Pick<Sample, 'labels' | 'groups'>,
  { classes, seed }: { classes?: number; seed: number },
): { mean: number; low: number; high: number } {
  const unit = unitOfRow(differences.length, groups)
  const of = (row: number) => (classes ? labels[row]! : 0)
  // one entry for each group and class in it
  const parts = [...Map.groupBy(differences.keys(), row => `${unit[row]} ${of(row)}`).values()].map(rows => ({
    class: of(rows[0]!),
    n: rows.length,
    sum: rows.reduce((total, row) => total + differences[row]!, 0),
  }))
  const strata = [...Map.groupBy(parts, part => part.class).values()]
  const random = randomFrom(seed, 4, differences.length)
  const drawn = Float64Array.from({ length: draws }, () => {
    let total = 0
    for (const own of strata) {
      let [n, sum] = [0, 0]
      for (let i = 0; i < own.length; i++) {
        const part = own[Math.floor(random() * own.length)]!
        n += part.n
        sum += part.sum
      }
      total += sum / n
    }
    return total / strata.length
  }).sort()
  const mean =
    strata.reduce((total, own) => total + own.reduce((sum, part) => sum + part.sum, 0) / own.reduce((n, part) => n + part.n, 0), 0) /
    strata.length
  return { mean, low: drawn[Math.floor(0.025 * draws)]!, high: drawn[Math.ceil(0.975 * draws) - 1]! }
}
