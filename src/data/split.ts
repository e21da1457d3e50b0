/**
 * Which picture is trained on, which chooses the model, which tests it. Its own record, not part of the dataset.
 *
 * What moves together is a *unit*: a group of the manifest (exact copies, or whatever else was grouped), or one picture alone. Each unit gets
 * a place in a shuffled order that depends on the seed and its own pixels only: renaming, adding or removing other pictures does not move it.
 */
import { createHash } from 'node:crypto'
import type { Manifest, Side, Split } from '../sdk/shapes.ts'
import { joinGroups } from './groups.ts'

export type SplitOptions = {
  seed: number
  /** Shares of train, validation, test; they add up to 1. */
  ratios?: readonly [number, number, number]
  /** Digest of the dataset version that the row numbers refer to. */
  dataset: string
  /**
   * Pixel digest → the side it was on when an earlier model was made that this training goes on from. Such pictures stay there, so that
   * nothing is tested that was learned from; null = that model's pictures are not known.
   */
  earlier?: ReadonlyMap<string, Side> | null
  /** Rows that must stay together besides the manifest's own groups: copies and scenes, as `groupsOf` of data/copies gives them. */
  groups?: readonly (readonly number[])[]
}

const sides = ['train', 'validation', 'test'] as const satisfies readonly Side[]
type Unit = { rows: number[]; label: string; order: string; side: Side | null }

/** Every row is on exactly one side, no group on two, and the sides of the user's own folders are kept. The same manifest and options give the same split. */
export function splitDataset(manifest: Manifest, { seed, ratios = [0.7, 0.15, 0.15], dataset, earlier, groups = [] }: SplitOptions): Split {
  const notes: string[] = []
  const all = unitsOf(manifest, groups, seed, notes)
  const shares = { train: ratios[0], validation: ratios[1], test: ratios[2] }
  const placed: Record<Side, number[]> = { train: [], validation: [], test: [] }
  const units = earlier ? all.filter(unit => !placeAsBefore(unit, manifest, earlier, placed)) : all
  if (units.length < all.length) {
    const kept = sum(Object.values(placed).map(side => side.length))
    notes.push(
      `${plural(kept, 'picture')} of the earlier model stay on the side they were on, so that nothing is tested that was learned from.`,
    )
  }
  if (earlier === null)
    notes.push('Which pictures the earlier model has learned from is not known here: if test pictures are among them, the score flatters.')
  const given = sides.filter(side => units.some(unit => unit.side === side))
  const decided = given.includes('train')
  if (given.length > 0 && !decided) {
    notes.push(`There is no train folder beside your ${list(given)}: your folders were joined and split anew.`)
    for (const unit of units) unit.side = null
  }

  if (units.length === 0) notes.unshift('The split is that of the earlier model.')
  else if (!decided) {
    place(units, shares, placed, notes)
    notes.unshift(`Split by chance within each class (seed ${seed}): ${percents(ratios)} to train, choose and test on.`)
  } else placeGiven(units, given, shares, placed, notes)
  for (const side of sides) placed[side].sort((a, b) => a - b)
  notes.push(...missingClasses(manifest, placed))
  return { schema: 1, dataset, seed, ratios: [...ratios], ...placed, notes }
}

const percents = (ratios: readonly number[]) => ratios.map(ratio => `${Math.round(100 * ratio)} %`).join(', ')
const list = (names: readonly string[]) => names.join(', ').replace(/, ([^,]*)$/, ' and $1')
const plural = (count: number, one: string, many = `${one}s`) => `${count} ${count === 1 ? one : many}`

// ── units ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function unitsOf({ rows }: Manifest, found: NonNullable<SplitOptions['groups']>, seed: number, notes: string[]): Unit[] {
  // exact copies belong together even where a manifest from elsewhere does not say so
  const reasons = rows.map(row => [`pixels:${row.pixels}`, ...(row.group === null ? [] : [`group:${row.group}`])])
  for (const [number, group] of found.entries()) for (const row of group) reasons[row]!.push(`found:${number}`)
  const joined = joinGroups(reasons)
  const groups = Map.groupBy(rows.keys(), index => joined[index] ?? `pixels:${rows[index]!.pixels}`)
  let moved = 0
  const units = [...groups.values()].map((members): Unit => {
    const given = members.map(index => rows[index]!.side).filter(side => side !== null)
    const side = sides.find(side => given.includes(side)) ?? null // a copy of a training picture is no test
    moved += given.filter(own => own !== side).length
    const pixels = members.map(index => rows[index]!.pixels).sort()[0]!
    return { rows: members, label: commonest(members.map(index => rows[index]!.labels[0]!)), order: shuffled(seed, pixels), side }
  })
  if (moved > 0) {
    const verb = moved === 1 ? 'is a copy' : 'are copies'
    notes.push(
      `${plural(moved, 'picture')} of your validation or test folder ${verb} (or of the same scene or group) of pictures in train or validation. They were moved there, so that no picture is judged that was learned from.`,
    )
  }
  return units.sort((a, b) => b.rows.length - a.rows.length || (a.order < b.order ? -1 : 1))
}

const shuffled = (seed: number, pixels: string) => createHash('sha256').update(`${seed} ${pixels}`).digest('hex')

/** The first of the labels that occur most often. */
function commonest(labels: readonly string[]): string {
  const counts = new Map<string, number>()
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1)
  return [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0]
}

/** Whether the unit was placed: the side nearest to learning of any of its pictures counts. */
function placeAsBefore(unit: Unit, { rows }: Manifest, earlier: ReadonlyMap<string, Side>, placed: Record<Side, number[]>): boolean {
  const known = unit.rows.map(row => earlier.get(rows[row]!.pixels))
  const side = sides.find(each => known.includes(each))
  if (side) add(placed[side], unit)
  return side !== undefined
}

// ── placing ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Shares = Record<Side, number>

/** The user's sides stay; a side they do not have is taken out of train. */
function placeGiven(units: readonly Unit[], given: readonly Side[], shares: Shares, placed: Record<Side, number[]>, notes: string[]): void {
  const missing = (['validation', 'test'] as const).filter(side => !given.includes(side))
  notes.unshift(`Your own folders decide: ${list(given)}.`)
  for (const unit of units) if (unit.side !== null && unit.side !== 'train') add(placed[unit.side], unit)
  const training = units.filter(unit => unit.side === 'train' || unit.side === null)
  if (missing.length === 0) {
    for (const unit of training) add(placed.train, unit)
    return
  }
  const wanted = { train: shares.train, validation: 0, test: 0 }
  for (const side of missing) wanted[side] = shares[side]
  place(training, wanted, placed, notes)
  const taken = missing.map(side => `${Math.round((100 * shares[side]) / sum(Object.values(wanted)))} % for ${side}`)
  notes.push(`You have no folder for ${list(missing)}: ${list(taken)} were taken out of train, by chance within each class.`)
}

/** Class by class, the largest unit first, each to the side that lacks most. */
function place(units: readonly Unit[], shares: Shares, placed: Record<Side, number[]>, notes: string[]): void {
  const wanted = sides.filter(side => shares[side] > 0)
  const few: string[] = []
  for (const [label, own] of Map.groupBy(units, unit => unit.label)) {
    const lacks = targets(sum(own.map(unit => unit.rows.length)), own.length, shares)
    const empty = new Set<Side>(wanted)
    if (own.length < wanted.length) few.push(label)
    for (const [index, unit] of own.entries()) {
      const left = own.length - index
      // where every unit that is left is needed to have one on each side, it goes to a side without
      const choice = wanted.filter(side => left > empty.size || empty.has(side))
      const side = choice.reduce((best, side) => (lacks[side] > lacks[best] ? side : best), choice[0]!)
      add(placed[side], unit)
      lacks[side] -= unit.rows.length
      empty.delete(side)
    }
  }
  if (few.length > 0) {
    notes.push(
      `Too few pictures that differ to have one on each side: ${few.slice(0, 10).join(', ')}${few.length > 10 ? ` and ${few.length - 10} more classes` : ''}.`,
    )
  }
}

function add(side: number[], unit: Unit): void {
  for (const row of unit.rows) side.push(row)
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0)

/** Whole numbers of pictures for each side; at least one each where there are units enough. */
function targets(pictures: number, units: number, shares: Shares): Record<Side, number> {
  const all = sum(Object.values(shares))
  const least = (side: Side) => (shares[side] > 0 && units >= 3 ? 1 : 0)
  const validation = Math.max(least('validation'), Math.round((pictures * shares.validation) / all))
  const test = Math.max(least('test'), Math.round((pictures * shares.test) / all))
  return { train: pictures - validation - test, validation, test }
}

function missingClasses({ classes, rows }: Manifest, placed: Record<Side, number[]>): string[] {
  const effects: Record<Side, string> = {
    train: 'they cannot be learned',
    validation: 'they have no say in choosing the model',
    test: 'nothing is said about them',
  }
  return sides.flatMap(side => {
    const there = new Set(placed[side].flatMap(index => rows[index]!.labels))
    const missing = classes.filter(label => !there.has(label))
    if (missing.length === 0) return []
    const named = missing.slice(0, 10).join(', ') + (missing.length > 10 ? ` and ${missing.length - 10} more` : '')
    return [`No picture in ${side} for: ${named}; ${effects[side]}.`]
  })
}
