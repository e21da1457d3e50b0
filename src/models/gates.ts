/**
 * Whether a version may take the place of another: where both have a score on the same version of a named test set, one that is worse beyond
 * the interval may not. Both answered the same pictures, so their scores hang together and the true interval of the difference is narrower
 * than the one computed here: what is refused is worse.
 */
import type { Db } from '../db/open.ts'
import { TestSetScore } from '../sdk/shapes.ts'

export interface Share {
  n: number
  accuracy: number
  /** 95 % interval. */
  low: number
  high: number
}
export interface GateComparison {
  /** `site-B@2`. */
  set: string
  before: Share
  after: Share
  /** `after` minus `before`, with its 95 % interval. */
  difference: number
  low: number
  high: number
  worse: boolean
}

/**
 * Newcombe's interval of a difference from two intervals of Wilson's kind: R. G. Newcombe, Interval estimation for the difference between
 * independent proportions, Statistics in Medicine 17 (1998), method 10.
 */
export function compareShares(set: string, before: Share, after: Share): GateComparison {
  const difference = after.accuracy - before.accuracy
  const low = difference - Math.hypot(after.accuracy - after.low, before.high - before.accuracy)
  const high = difference + Math.hypot(after.high - after.accuracy, before.accuracy - before.low)
  return { set, before, after, difference, low, high, worse: high < 0 }
}

/** The newest version of each set on which both have a score. A score on pictures that a model has met counts without those, or not at all. */
export function compareScores(before: readonly TestSetScore[], after: readonly TestSetScore[]): GateComparison[] {
  const found = new Map<string, GateComparison & { version: number }>()
  for (const one of before)
    for (const other of after) {
      if (one.set.digest !== other.set.digest || one.set.name !== other.set.name) continue
      const [a, b] = [honest(one), honest(other)]
      const known = found.get(one.set.name)
      if (!a || !b || (known && known.version >= one.set.version)) continue
      found.set(one.set.name, { ...compareShares(`${one.set.name}@${one.set.version}`, a, b), version: one.set.version })
    }
  return [...found.values()].map(({ version: _, ...comparison }) => comparison)
}

function honest({ seen, n, accuracy, low, high }: TestSetScore): Share | null {
  const met = seen && seen.trained + seen.chosenOn + seen.copies > 0
  return met ? seen.without : { n, accuracy, low, high }
}

/** Of the version that is there now and the one that is to take its place; empty where they have no set in common. */
export async function compareVersions(
  db: Db,
  project: string,
  name: string,
  { before, after }: { before: number; after: number },
): Promise<GateComparison[]> {
  const [one, other] = [await scoresOf(db, project, name, before), await scoresOf(db, project, name, after)]
  return compareScores(one, other)
}

/** By the version's file; those of a copy are those of what it was copied from. */
export async function scoresOf(db: Db, project: string, name: string, version: number): Promise<TestSetScore[]> {
  const digest = await digestOf(db, project, name, version)
  if (digest === null) return []
  const rows = await db
    .selectFrom('test_set_scores')
    .select('score')
    .where('model', '=', digest)
    .orderBy('test_set')
    .orderBy('version', 'desc')
    .execute()
  return rows.map(({ score }) => TestSetScore.parse(JSON.parse(score)))
}

async function digestOf(db: Db, project: string, name: string, version: number): Promise<string | null> {
  let at = { name, version }
  for (let i = 0; i < 20; i++) {
    const row = await db
      .selectFrom('model_versions')
      .select(['digest', 'source'])
      .where('project', '=', project)
      .where('name', '=', at.name)
      .where('version', '=', at.version)
      .executeTakeFirst()
    if (!row) return null
    if (row.digest !== '') return row.digest
    const [, from, number] = /^models:\/([^/]+)\/(\d{1,9})$/.exec(row.source) ?? []
    if (!from) return null
    at = { name: from, version: Number(number) }
  }
  return null
}

const percent = (share: number) => `${(share * 100).toFixed(1)} %`
export const gateSentence = ({ set, before, after, difference, low, high }: GateComparison): string =>
  `${percent(after.accuracy)} instead of ${percent(before.accuracy)} on ${set} (${points(difference)} points, 95 % interval ${points(low)} to ${points(high)})`
const points = (share: number) => `${share < 0 ? '−' : '+'}${Math.abs(share * 100).toFixed(1)}`
