/** Runs in the database: what they are, apart from what they log (log.ts). Everything asked for in another project is not found. */
import { randomBytes } from 'node:crypto'
import { type Selectable, sql } from 'kysely'
import { type Db, inTransaction } from '../db/open.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'
import type { RunStatus } from '../sdk/shapes.ts'
import { writeTags } from './log.ts'
import { original } from './points.ts'
import { inventedName } from './run-names.ts'

export interface TrackedRun {
  /** Its short number inside the database. */
  number: number
  run: string
  experiment: string
  name: string
  status: RunStatus
  reason: string | null
  user: string
  /** Milliseconds since 1970. */
  started: number
  ended: number | null
  heartbeat: number | null
  deleted: boolean
  location: string
  params: Record<string, string>
  tags: Record<string, string>
  /** The newest point of each metric. */
  metrics: { key: string; value: number; timestamp: number; step: number }[]
}

export interface NewTrackedRun {
  experiment: string
  name?: string | undefined
  user: string
  started?: number | undefined
  tags: readonly { key: string; value: string }[]
  status?: RunStatus
  /** Made by the caller: a run that is there already under this id is answered as it is. */
  run?: string | undefined
  /** The process that works on it, as JSON of track/worker.ts. */
  worker?: string | undefined
}

export const nameTag = 'mlflow.runName'

/** throws experiment_not_found, experiment_deleted */
export async function createTrackedRun(db: Db, project: string, given: NewTrackedRun): Promise<TrackedRun> {
  const named = given.tags.find(({ key }) => key === nameTag)?.value
  if (given.name && named && named !== given.name) throw new Failure('run_name_ambiguous', { name: given.name, tag: named })
  const name = given.name || named || inventedName()
  const run = given.run ?? randomBytes(16).toString('hex')
  if (!/^\d{1,15}$/.test(given.experiment)) throw new Failure('experiment_not_found', { experiment: given.experiment.slice(0, 64) })
  const number = await inTransaction(db, async transaction => {
    const experiment = await transaction
      .selectFrom('experiments')
      .select(['id', 'location', 'deleted'])
      .where('id', '=', Number(given.experiment))
      .where('project', '=', project)
      .executeTakeFirst()
    if (!experiment) throw new Failure('experiment_not_found', { experiment: given.experiment })
    if (experiment.deleted !== null) throw new Failure('experiment_deleted', { experiment: given.experiment })
    const made = await transaction
      .insertInto('tracked_runs')
      .values({
        id: run,
        experiment: experiment.id,
        name,
        status: given.status ?? 'running',
        reason: null,
        user: given.user,
        started: given.started ?? Date.now(),
        ended: null,
        deleted: null,
        location: `${experiment.location}/${run}/artifacts`,
        worker: given.worker ?? null,
        heartbeat: given.worker ? Date.now() : null,
      })
      .onConflict(conflict => conflict.column('id').doNothing())
      .returning('number')
      .executeTakeFirst()
    if (!made) return (await rowOf(transaction, project, run)).number
    const { number } = made
    await writeTags(transaction, number, [...given.tags, { key: nameTag, value: name }])
    return number
  })
  return (await trackedRuns(db, [number]))[0]!
}

/** throws tracked_run_not_found */
export async function getTrackedRun(db: Db, project: string, run: string): Promise<TrackedRun> {
  const { number } = await rowOf(db, project, run)
  return (await trackedRuns(db, [number]))[0]!
}

export interface RunChange {
  name?: string | undefined
  status?: RunStatus | undefined
  reason?: string | null
  ended?: number | undefined
}

/** throws tracked_run_not_found, tracked_run_deleted */
export async function updateTrackedRun(
  db: Db,
  project: string,
  run: string,
  { name, status, reason, ended }: RunChange,
): Promise<TrackedRun> {
  const row = await activeRow(db, project, run)
  const change = {
    ...(name && { name }),
    ...(status && { status, reason: reason ?? null }),
    ...(ended !== undefined && { ended }),
  }
  if (Object.keys(change).length > 0)
    await inTransaction(db, async transaction => {
      await transaction.updateTable('tracked_runs').set(change).where('number', '=', row.number).execute()
      if (name) await writeTags(transaction, row.number, [{ key: nameTag, value: name }])
    })
  return (await trackedRuns(db, [row.number]))[0]!
}

/** Running again, whatever it was; `worker`: who answers for it from now on, as JSON. throws tracked_run_not_found, tracked_run_deleted */
export async function resumeTrackedRun(db: Db, project: string, run: string, worker: string | undefined): Promise<TrackedRun> {
  const { number } = await activeRow(db, project, run)
  await db
    .updateTable('tracked_runs')
    .set({ status: 'running', reason: null, ended: null, worker: worker ?? null, heartbeat: worker ? Date.now() : null })
    .where('number', '=', number)
    .execute()
  return (await trackedRuns(db, [number]))[0]!
}

/** Deleted runs can be restored until `gc` takes them. Deleting a deleted run, or restoring an active one, changes nothing. */
export async function setDeleted(db: Db, project: string, run: string, deleted: boolean): Promise<void> {
  const { number } = await rowOf(db, project, run)
  await db
    .updateTable('tracked_runs')
    .set({ deleted: deleted ? Date.now() : null })
    .where('number', '=', number)
    .execute()
}

/** `mlflow.runName` is the run's name in another place: both change together. */
export async function setRunTag(db: Db, project: string, run: string, key: string, value: string): Promise<void> {
  const { number } = await activeRow(db, project, run)
  await db.transaction().execute(async transaction => {
    await writeTags(transaction, number, [{ key, value }])
    if (key === nameTag) await transaction.updateTable('tracked_runs').set({ name: value }).where('number', '=', number).execute()
  })
}

/** throws tag_not_found */
export async function deleteRunTag(db: Db, project: string, run: string, key: string): Promise<void> {
  const { number } = await activeRow(db, project, run)
  const { numDeletedRows } = await db.deleteFrom('tags').where('run', '=', number).where('key', '=', key).executeTakeFirst()
  if (numDeletedRows === 0n) throw new Failure('tag_not_found', { key, of: `run ${run}` })
}

/** Whole runs in the order of `numbers`, put together from four questions, however many they are. */
export async function trackedRuns(db: Db, numbers: readonly number[]): Promise<TrackedRun[]> {
  const runs = new Map<number, TrackedRun>()
  for (let at = 0; at < numbers.length; at += 1000) {
    const some = numbers.slice(at, at + 1000)
    const [rows, params, tags, metrics] = await Promise.all([
      db.selectFrom('tracked_runs').selectAll().where('number', 'in', some).execute(),
      db.selectFrom('params').selectAll().where('run', 'in', some).execute(),
      db.selectFrom('tags').selectAll().where('run', 'in', some).execute(),
      db
        .selectFrom('latest_metrics as m')
        .innerJoin('metric_keys as k', 'k.id', 'm.key')
        .select(['m.run', 'k.key', 'm.step', 'm.timestamp', 'm.value', 'm.special'])
        .where('m.run', 'in', some)
        .execute(),
    ])
    for (const row of rows) runs.set(row.number, asRun(row))
    // made from entries: assigned, a key called __proto__ would be lost
    for (const [run, rows] of Map.groupBy(params, row => row.run)) runs.get(run)!.params = recordOf(rows)
    for (const [run, rows] of Map.groupBy(tags, row => row.run)) runs.get(run)!.tags = recordOf(rows)
    for (const { run, key, step, timestamp, ...point } of metrics)
      runs.get(run)!.metrics.push({ key, value: original(point), timestamp, step })
  }
  return numbers.flatMap(number => runs.get(number) ?? [])
}

const recordOf = (rows: readonly { key: string; value: string }[]) => Object.fromEntries(rows.map(({ key, value }) => [key, value]))

export const asRun = (row: Selectable<Schema['tracked_runs']>): TrackedRun => ({ ...described(row), params: {}, tags: {}, metrics: [] })

/** Without what it logs. */
export const described = ({
  number,
  id,
  experiment,
  name,
  status,
  reason,
  user,
  started,
  ended,
  heartbeat,
  deleted,
  location,
}: Selectable<Schema['tracked_runs']>): Omit<TrackedRun, 'params' | 'tags' | 'metrics'> => ({
  number,
  run: id,
  experiment: String(experiment),
  name,
  status: status as RunStatus,
  reason,
  user,
  started,
  ended,
  heartbeat,
  deleted: deleted !== null,
  location,
})

export async function rowOf(db: Db, project: string, run: string) {
  const row = await db
    .selectFrom('tracked_runs as r')
    .innerJoin('experiments as e', 'e.id', 'r.experiment')
    .select(['r.number', 'r.deleted', 'r.experiment', 'r.location'])
    .where('r.id', '=', run)
    .where('e.project', '=', project)
    .executeTakeFirst()
  if (!row) throw new Failure('tracked_run_not_found', { run: run.slice(0, 64) })
  return row
}

export async function activeRow(db: Db, project: string, run: string) {
  const row = await rowOf(db, project, run)
  if (row.deleted !== null) throw new Failure('tracked_run_deleted', { run })
  return row
}

/** Every point of one metric by time, step and value; nothing for a metric the run does not have. throws tracked_run_not_found */
export async function metricHistory(
  db: Db,
  project: string,
  run: string,
  key: string,
  { limit, offset = 0 }: { limit?: number; offset?: number } = {},
) {
  const { number } = await rowOf(db, project, run)
  const { rows } = await sql<{ step: number; timestamp: number; value: number; special: number }>`
    select m.step, m.timestamp, m.value, m.special from metrics m join metric_keys k on k.id = m.key
    where m.run = ${number} and k.key = ${key} order by m.timestamp, m.step, m.value limit ${limit ?? Number.MAX_SAFE_INTEGER} offset ${offset}`.execute(
    db,
  )
  return rows.map(({ step, timestamp, ...point }) => ({ key, step, timestamp, value: original(point) }))
}

/**
 * The run's process says that it lives; answers the status, so that it hears when somebody stopped the run. A run that was thought lost
 * (its process could not be seen from here, and the network was away) is running again. throws tracked_run_not_found
 */
export async function beat(db: Db, project: string, run: string): Promise<{ status: RunStatus }> {
  const { number } = await rowOf(db, project, run)
  await db
    .updateTable('tracked_runs')
    .set({ status: 'running', reason: null, ended: null })
    .where('number', '=', number)
    .where('status', '=', 'failed')
    .where('reason', '=', 'lost')
    .execute()
  const row = await db
    .updateTable('tracked_runs')
    .set({ heartbeat: Date.now() })
    .where('number', '=', number)
    .returning('status')
    .executeTakeFirstOrThrow()
  return { status: row.status as RunStatus }
}
