/** Which version a name leads to: aliases and MLflow's stages are moved here, past the gate (gates.ts), and the log of deeds says who, when and why. */
import { type Actor, record } from '../db/audit.ts'
import { type Db, exclusively } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { compareVersions, type GateComparison, gateSentence } from './gates.ts'
import {
  changeRegisteredVersion,
  checkAlias,
  deleteAlias,
  getRegisteredModel,
  getRegisteredVersion,
  latestVersions,
  type RegisteredVersion,
  type Stage,
  setAlias,
} from './registered.ts'

export interface Promotion {
  name: string
  version: number
  alias: string
  /** What the alias led to before; null: nothing. */
  before: number | null
  comparisons: GateComparison[]
  forced: boolean
}
export interface Move {
  name: string
  version: number
  /** Why: kept for good. Null where the asker has no way to say it. */
  reason: string | null
  /** Also where the gate says no; wants a reason. */
  force?: boolean
}

/** throws alias_invalid, registered_version_not_found, promotion_refused, promotion_without_reason */
export async function promote(db: Db, actor: Actor, { alias, ...move }: Move & { alias: string }): Promise<Promotion> {
  checkAlias(alias)
  const { project } = actor
  const moved = await throughGate(db, actor, move, `alias ${alias}`, {
    before: async transaction => {
      const { aliases } = await getRegisteredModel(transaction, project, move.name)
      return Object.hasOwn(aliases, alias) ? aliases[alias]! : null
    },
    move: transaction => setAlias(transaction, project, move.name, alias, move.version),
  })
  return { ...moved, alias }
}

/** MLflow's older way. `archive`: those in that stage before go to Archived. throws as `promote` */
export async function moveToStage(
  db: Db,
  actor: Actor,
  { stage, archive, ...move }: Move & { stage: Stage; archive: boolean },
): Promise<RegisteredVersion> {
  const { project } = actor
  const { name, version } = move
  await throughGate(db, actor, move, `stage ${stage}`, {
    // only Production stands for what is used: tried out or put away may be whatever one likes
    before: async transaction =>
      stage === 'Production' ? ((await latestVersions(transaction, project, name, [stage]))[0]?.version ?? null) : null,
    move: async transaction => {
      const there = archive ? await versionsIn(transaction, project, name, stage) : []
      for (const other of there)
        if (other !== version) await changeRegisteredVersion(transaction, project, name, other, { stage: 'Archived' })
      await changeRegisteredVersion(transaction, project, name, version, { stage })
    },
  })
  return getRegisteredVersion(db, project, name, version)
}

async function throughGate(
  db: Db,
  { project, user }: Actor,
  { name, version, reason, force = false }: Move,
  place: string,
  { before: findBefore, move }: { before(db: Db): Promise<number | null>; move(db: Db): Promise<void> },
): Promise<Omit<Promotion, 'alias'>> {
  if (force && !reason) throw new Failure('promotion_without_reason')
  // nobody moves it between the look and the deed
  const { refused, ...done } = await exclusively(db, async transaction => {
    await getRegisteredVersion(transaction, project, name, version)
    const before = await findBefore(transaction)
    const comparisons =
      before === null || before === version ? [] : await compareVersions(transaction, project, name, { before, after: version })
    const worse = comparisons.filter(comparison => comparison.worse)
    const refused = worse.length > 0 && !force
    const deed = { place, before, reason, forced: force && worse.length > 0, comparisons }
    // refusals stay in the log: somebody wanted it
    await record(transaction, {
      ...{ project, user, subject: `${name}@${version}`, details: deed },
      action: refused ? 'models.promote_refused' : 'models.promote',
    })
    if (!refused) await move(transaction)
    return { refused: refused ? worse : null, name, version, before, comparisons, forced: deed.forced }
  })
  if (refused)
    throw new Failure('promotion_refused', {
      ...{ model: `${name}@${version}`, current: `${name}@${done.before}`, place },
      scores: refused.map(gateSentence).join('; '),
    })
  return done
}

/** throws registered_model_not_found; taking away what is not there is fine, and leaves no trace */
export async function takeAlias(
  db: Db,
  { project, user }: Actor,
  { name, alias, reason }: { name: string; alias: string; reason: string | null },
): Promise<void> {
  await db.transaction().execute(async transaction => {
    const { aliases } = await getRegisteredModel(transaction, project, name)
    if (!Object.hasOwn(aliases, alias)) return
    await deleteAlias(transaction, project, name, alias)
    const details = { place: `alias ${alias}`, before: aliases[alias]!, reason }
    await record(transaction, { project, user, action: 'models.alias_delete', subject: `${name}@${aliases[alias]}`, details })
  })
}

async function versionsIn(db: Db, project: string, name: string, stage: Stage): Promise<number[]> {
  const rows = await db
    .selectFrom('model_versions')
    .select('version')
    .where('project', '=', project)
    .where('name', '=', name)
    .where('stage', '=', stage)
    .where('deleted', 'is', null)
    .execute()
  return rows.map(({ version }) => version)
}
