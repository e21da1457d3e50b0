/** Deals pictures into folds for cross-validation: what belongs together stays together, and each fold gets its share of each class. */
import { permutation, randomFrom } from '../engine/random.ts'

export interface FoldOptions {
  /** [n] class numbers. */
  labels: Int32Array
  /** Rows that must not be torn apart; a row in none of them is alone, groups that share a row are one group. null = every row is alone. */
  groups: readonly (readonly number[])[] | null
  /** How many folds. Where fewer groups than that exist, some folds stay empty. */
  folds: number
  /** Another seed, another deal. */
  seed: number
}

/**
 * The fold (0 … folds − 1) of each row. No group is on two folds. The largest groups are placed first, each where its classes are rarest and, among equals,
 * where the fewest pictures are: without groups the folds differ by at most one picture in each class and in all.
 */
export function groupedFolds({ labels, groups, folds, seed }: FoldOptions): Int32Array {
  const n = labels.length
  const classes = labels.reduce((most, label) => Math.max(most, label + 1), 0)
  const totals = new Int32Array(classes)
  for (const label of labels) totals[label]!++

  const units = unitsOf(n, groups)
  const order = permutation(units.length, randomFrom(seed, units.length))
  // Array.prototype.sort is stable: among units of one size and class the shuffled order stays
  order.sort((a, b) => units[b]!.length - units[a]!.length || labels[units[a]![0]!]! - labels[units[b]![0]!]!)

  const ofClass = Array.from({ length: folds }, () => new Int32Array(classes))
  const sizes = new Int32Array(folds)
  const foldOf = new Int32Array(n)
  for (const index of order) {
    const unit = units[index]!
    let best = 0
    let crowded = Number.POSITIVE_INFINITY
    for (let fold = 0; fold < folds; fold++) {
      let crowd = 0
      for (const row of unit) crowd += ofClass[fold]![labels[row]!]! / totals[labels[row]!]!
      const better = crowd < crowded - 1e-9 || (crowd <= crowded + 1e-9 && sizes[fold]! < sizes[best]!)
      if (better) [best, crowded] = [fold, crowd]
    }
    for (const row of unit) {
      foldOf[row] = best
      ofClass[best]![labels[row]!]!++
    }
    sizes[best]! += unit.length
  }
  return foldOf
}

/** Every row in exactly one unit: the groups, joined where they overlap, and the rows that are in none. Units come in order of their first row. */
export function unitsOf(n: number, groups: readonly (readonly number[])[] | null): number[][] {
  const of = unitOfRow(n, groups)
  const units: number[][] = []
  for (let row = 0; row < n; row++) {
    const unit = units[of[row]!]
    if (unit) unit.push(row)
    else units[of[row]!] = [row]
  }
  return units
}

/** The number of each row's unit, 0 … units − 1 in order of their first row. */
export function unitOfRow(n: number, groups: readonly (readonly number[])[] | null): Int32Array {
  const parent = Int32Array.from({ length: n }, (_, row) => row)
  const root = (row: number): number => {
    let at = row
    while (parent[at] !== at) {
      parent[at] = parent[parent[at]!]!
      at = parent[at]!
    }
    return at
  }
  for (const group of groups ?? [])
    for (const row of group) {
      const [a, b] = [root(group[0]!), root(row)]
      parent[Math.max(a, b)] = Math.min(a, b)
    }
  const numbers = new Int32Array(n)
  let units = 0
  for (let row = 0; row < n; row++) numbers[row] = parent[row] === row ? units++ : numbers[root(row)]!
  return numbers
}
