/**
 * Intervals and tests for pictures that come in groups (copies, bursts, one patient, one conveyor run): ten pictures of one thing say
 * little more than one, and an interval that counts them as ten promises too much.
 *
 * How many pictures that stand alone they are worth follows from how alike the answers within a group are. A group of one is a
 * picture that stands alone, and without larger groups everything here is what intervals.ts says.
 */
import { Failure } from '../failure.ts'
import { exactMcNemar, type PairedDifference, pairedDifferenceOfCounts, wilsonOfShare } from './intervals.ts'

/** Which group a picture is in; null = alone. */
export type Groups = readonly (string | null)[]

export interface GroupedShare {
  share: number
  low: number
  high: number
  /** Groups and pictures that stand alone, counted together. */
  groups: number
  method: 'wilson' | 'grouped-wilson'
}

/**
 * The share of true answers with its 95 % interval. Groups widen it: Wilson's interval for as many pictures as the groups are worth.
 * A bootstrap over groups would be the textbook answer and promises too much where mistakes are few; docs/inside/evaluate.md has the
 * measured coverage of both. Throws shape_mismatch.
 */
export function groupedShare(right: readonly boolean[], groups: Groups, confidence = 0.95): GroupedShare {
  const { members, together } = gathered(right.length, groups)
  const share = right.reduce((sum, each) => sum + Number(each), 0) / right.length
  const worth = together ? effectiveSize(right.map(Number), members) : right.length
  const [low, high] = wilsonOfShare(share, worth, confidence)
  return { share, low, high, groups: members.length, method: together ? 'grouped-wilson' : 'wilson' }
}

/**
 * Is A better than B on the same pictures, when pictures come in groups? Interval: as for pictures that stand alone, for as many as
 * the groups are worth. `p`: exact, by exchanging A and B group by group; McNemar's test where every group is one picture.
 */
export function groupedPairedDifference(correctA: readonly boolean[], correctB: readonly boolean[], groups: Groups): PairedDifference {
  if (correctA.length !== correctB.length)
    throw new Failure('shape_mismatch', { operation: 'groupedPairedDifference', a: `[${correctA.length}]`, b: `[${correctB.length}]` })
  const { members, together } = gathered(correctA.length, groups)
  const count = (a: boolean, b: boolean) => correctA.reduce((sum, right, i) => sum + Number(right === a && correctB[i] === b), 0)
  const counts = [count(true, true), count(true, false), count(false, true), count(false, false)] as const
  if (!together) return pairedDifferenceOfCounts(...counts)
  const n = correctA.length
  const differences = correctA.map((right, i) => Number(right) - Number(correctB[i]))
  const scale = effectiveSize(differences, members) / n
  const [both, onlyA, onlyB, neither] = counts.map(each => each * scale) as [number, number, number, number]
  return {
    ...pairedDifferenceOfCounts(both, onlyA, onlyB, neither),
    n,
    onlyA: counts[1],
    onlyB: counts[2],
    difference: (counts[1] - counts[2]) / n,
    p: exactExchange(members.map(rows => rows.reduce((sum, row) => sum + differences[row]!, 0))),
  }
}

/**
 * Two equally good models may be exchanged within any group, which turns the sign of that group's difference. The p of the sum that
 * was seen is its place among all 2^groups sums, two-sided. Exact: the sums are whole numbers, so they are counted, not drawn.
 */
export function exactExchange(differences: readonly number[]): number {
  const sizes = differences.map(Math.abs).filter(size => size > 0)
  const seen = Math.abs(differences.reduce((sum, difference) => sum + difference, 0))
  if (seen === 0) return 1
  if (sizes.every(size => size === 1)) return exactMcNemar((sizes.length + seen) / 2, (sizes.length - seen) / 2)
  const most = sizes.reduce((sum, size) => sum + size, 0)
  let chances = new Float64Array(2 * most + 1) // of the sum i − most
  let next = new Float64Array(chances.length)
  chances[most] = 1
  let reach = 0
  for (const size of sizes) {
    next.fill(0)
    for (let i = most - reach; i <= most + reach; i++) {
      const half = chances[i]! / 2
      if (half === 0) continue
      next[i - size]! += half
      next[i + size]! += half
    }
    const spent = chances
    chances = next
    next = spent
    reach += size
  }
  let p = 0
  for (let i = 0; i < chances.length; i++) if (Math.abs(i - most) >= seen) p += chances[i]!
  return Math.min(1, p)
}

/**
 * How many pictures that stand alone n grouped ones are worth: n / (1 + (Σm²/n − 1)·ρ), Kish's design effect, with ρ the intraclass
 * correlation of the values (one-way analysis of variance, cut to 0 … 1). Where few groups hold both outcomes ρ is hardly known, and
 * is drawn towards 1, the careful end, with the weight of one such group.
 */
function effectiveSize(values: readonly number[], members: readonly (readonly number[])[]): number {
  const n = values.length
  const mean = values.reduce((sum, value) => sum + value, 0) / n
  const squares = members.reduce((sum, rows) => sum + rows.length * rows.length, 0)
  let between = 0
  let within = 0
  for (const rows of members) {
    const own = rows.reduce((sum, row) => sum + values[row]!, 0) / rows.length
    between += rows.length * (own - mean) ** 2
    for (const row of rows) within += (values[row]! - own) ** 2
  }
  const several = members.filter(rows => rows.length > 1)
  const usual = commonest(values)
  const informative = Math.min(
    several.filter(rows => rows.some(row => values[row] === usual)).length,
    several.filter(rows => rows.some(row => values[row] !== usual)).length,
  )
  const size = (n - squares / n) / (members.length - 1)
  const meanBetween = between / (members.length - 1)
  const meanWithin = within / (n - members.length)
  const correlation = (meanBetween - meanWithin) / (meanBetween + (size - 1) * meanWithin)
  const known = members.length > 1 && Number.isFinite(correlation) ? Math.min(1, Math.max(0, correlation)) : 1
  return n / (1 + (squares / n - 1) * ((known * informative + 1) / (informative + 1)))
}

/** Rows of each group, lone pictures as groups of one; `together`: whether any group has more than one. Throws shape_mismatch. */
export function gathered(n: number, groups: Groups): { members: number[][]; together: boolean } {
  if (groups.length !== n) throw new Failure('shape_mismatch', { operation: 'the groups', a: `[${groups.length}]`, b: `[${n}]` })
  const members = [...Map.groupBy(Array.from({ length: n }).keys(), row => groups[row] ?? row).values()]
  return { members, together: members.length < n }
}

function commonest(values: readonly number[]): number {
  const counts = new Map<number, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  return [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best), [0, 0] as [number, number])[0]
}
