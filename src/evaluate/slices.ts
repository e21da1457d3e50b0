/**
 * Parts of a test set by where the pictures come from: folder, camera, month, file format. A bad camera shows without being asked for.
 *
 * Whether a part differs from the rest is tested within the classes, so that a camera that saw the hard class is not blamed for it, and
 * judged with Holm's correction, because whoever looks at forty parts will find a bad one by luck.
 */
import type { Evaluation } from '../sdk/shapes.ts'
import { type Groups, gathered, groupedShare } from './grouped.ts'

export type Slice = NonNullable<Evaluation['slices']>[number]

/** Where a picture comes from: what a row of a manifest knows of it. */
export interface Origin {
  path: string
  captured?: string | undefined
  camera?: string | undefined
  format?: string | undefined
}

export interface SliceInput {
  origins: readonly Origin[]
  /** [n] label of each picture, and whether the answer was right. */
  labels: readonly string[]
  right: readonly boolean[]
  groups: Groups
}

/** A part with fewer pictures says nothing; a rest with fewer is nothing to compare with. */
const fewest = 10
/** Most parts that are kept: those that stand out, then the largest. */
const mostKept = 60
/** Chance that any part of a set without differences is said to stand out. */
const luck = 0.05

/** Those that stand out first, the worst first. Empty where everything comes from one place. */
export function slices({ origins, labels, right, groups }: SliceInput): Slice[] {
  const parts = partsOf(origins, labels)
  const units = gathered(right.length, groups).members
  const tested = parts.map(part => ({ ...part, ...comparedWithRest(part.rows, labels, right, units) }))
  const called = holm(tested)
  return tested
    .map(({ by, value, rows, p, worse, key }): Slice & { p: number } => {
      const { share, low, high } = groupedShare(
        rows.map(row => right[row]!),
        rows.map(row => groups[row]!),
      )
      const stands = !called.has(key) ? 'not told apart' : worse ? 'worse' : 'better'
      return { by, value, n: rows.length, accuracy: share, low, high, stands, p }
    })
    .sort((a, b) => order[a.stands] - order[b.stands] || (a.stands === 'not told apart' ? b.n - a.n : a.p - b.p))
    .slice(0, mostKept)
    .map(({ p: _, ...slice }) => slice)
}
const order = { worse: 0, better: 1, 'not told apart': 2 } as const

// ── which parts there are ───────────────────────────────────────────────────────────────────────────────────────────────────

interface Part {
  by: Slice['by']
  value: string
  rows: number[]
  /** The same for a part and its complement: asking about one is asking about the other. */
  key: string
}

function partsOf(origins: readonly Origin[], labels: readonly string[]): Part[] {
  const found: Part[] = []
  const seen = new Set<string>()
  const add = (by: Part['by'], values: readonly (string | null)[]) => {
    for (const [value, rows] of Map.groupBy(values.keys(), row => values[row]!)) {
      const complete = rows.length === origins.length
      if (value === null || rows.length < fewest || complete || origins.length - rows.length < fewest) continue
      const inside = rows.join()
      if (seen.has(inside)) continue // the same pictures under another name: said once
      seen.add(inside)
      const key = rows[0] === 0 ? inside : Array.from(origins.keys()).filter(notIn(rows)).join()
      found.push({ by, value, rows, key })
    }
  }
  const folders = origins.map(({ path }, row) => foldersOf(path, labels[row]!))
  const deepest = folders.reduce((most, names) => Math.max(most, names.length), 0)
  for (let level = 0; level < deepest; level++)
    add(
      'folder',
      folders.map(names => names[level] ?? null),
    )
  add(
    'camera',
    origins.map(({ camera }) => camera ?? null),
  )
  add(
    'month',
    origins.map(({ captured }) => (captured && /^\d{4}-\d{2}/.test(captured) ? captured.slice(0, 7) : null)),
  )
  add(
    'format',
    origins.map(({ format }) => format ?? null),
  )
  return found
}

const notIn = (rows: readonly number[]) => {
  const inside = new Set(rows)
  return (row: number) => !inside.has(row)
}

/** Folders above a picture without the one that is its label, from the outside in: `site-a/cat/x.jpg` and `cat/site-a/x.jpg` are both of site-a. */
function foldersOf(path: string, label: string): string[] {
  const names = path.split('/').slice(0, -1)
  const own = names.lastIndexOf(label)
  return own < 0 ? names : names.toSpliced(own, 1)
}

// ── whether they differ ─────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Exact two-sided test of “the part is as often wrong as the rest, class by class”: given how many mistakes each class has, those in
 * the part follow a hypergeometric distribution, and their sum over the classes its convolution (Birch's exact test of stratified
 * tables). Pictures of one group, class and side of the question count once, as wrong where most of them are.
 */
function comparedWithRest(
  rows: readonly number[],
  labels: readonly string[],
  right: readonly boolean[],
  units: readonly (readonly number[])[],
): { p: number; worse: boolean } {
  const inside = new Set(rows)
  const strata = new Map<string, { n: number; wrong: number; inPart: number; wrongInPart: number }>()
  for (const unit of units)
    for (const members of Map.groupBy(unit, row => `${inside.has(row)} ${labels[row]}`).values()) {
      const wrong = 2 * members.filter(row => !right[row]).length > members.length
      const label = labels[members[0]!]!
      const of = strata.get(label) ?? { n: 0, wrong: 0, inPart: 0, wrongInPart: 0 }
      const within = inside.has(members[0]!)
      of.n++
      of.wrong += Number(wrong)
      of.inPart += Number(within)
      of.wrongInPart += Number(wrong && within)
      strata.set(label, of)
    }
  let chances = [1]
  let least = 0
  let seen = 0
  let expected = 0
  for (const { n, wrong, inPart, wrongInPart } of strata.values()) {
    const [from, own] = hypergeometric(n, wrong, inPart)
    least += from
    seen += wrongInPart
    expected += (wrong * inPart) / n
    if (own.length > 1) chances = convolved(chances, own)
  }
  const atSeen = chances[seen - least]!
  // as likely or less; rounding must not leave out what is equally likely
  const p = chances.reduce((sum, chance) => sum + (chance <= atSeen * (1 + 1e-9) ? chance : 0), 0)
  return { p: Math.min(1, p), worse: seen > expected }
}

/** Chances of k = from, from + 1, … marked among `drawn` of n with `marked` marks. */
function hypergeometric(n: number, marked: number, drawn: number): [from: number, chances: number[]] {
  const from = Math.max(0, drawn - (n - marked))
  const to = Math.min(marked, drawn)
  // each from the one before, by logarithm: factorials of thousands do not fit
  const logs = [0]
  for (let k = from; k < to; k++)
    logs.push(logs.at(-1)! + Math.log(((marked - k) * (drawn - k)) / ((k + 1) * (n - marked - drawn + k + 1))))
  const most = logs.reduce((a, b) => Math.max(a, b))
  const weights = logs.map(log => Math.exp(log - most))
  const sum = weights.reduce((a, b) => a + b, 0)
  return [from, weights.map(weight => weight / sum)]
}

function convolved(a: readonly number[], b: readonly number[]): number[] {
  const sum = new Array<number>(a.length + b.length - 1).fill(0)
  for (const [i, x] of a.entries()) for (const [j, y] of b.entries()) sum[i + j]! += x * y
  return sum
}

/** Keys of the parts that stand out. Holm (1979): the smallest p against luck / m, the next against luck / (m − 1) …, up to the first that fails. */
function holm(parts: readonly { key: string; p: number }[]): Set<string> {
  const questions = [...new Map(parts.map(({ key, p }) => [key, p]))].sort((a, b) => a[1] - b[1])
  const first = questions.findIndex(([, p], i) => p > luck / (questions.length - i))
  return new Set(questions.slice(0, first < 0 ? questions.length : first).map(([key]) => key))
}
