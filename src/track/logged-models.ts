/** Models as runs log them: a place for files, a state, params, tags and the metrics that were measured with it. */
import { randomBytes } from 'node:crypto'
import type { Selectable } from 'kysely'
import type { Db } from '../db/open.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'
import { original } from './points.ts'

export type LoggedModelStatus = 'pending' | 'ready' | 'upload_failed'
export interface LoggedModel {
  model: string
  experiment: string
  name: string
  type: string | null
  status: LoggedModelStatus
  message: string | null
  run: string | null
  location: string
  created: number
  updated: number
  params: Record<string, string>
  tags: Record<string, string>
  metrics: { key: string; value: number; timestamp: number; step: number; run: string; datasetName: string; datasetDigest: string }[]
}
type Pairs = readonly { key: string; value: string }[]

export interface NewLoggedModel {
  /** Made by the caller: a model that is there already under this id is answered as it is. */
  model?: string | undefined
  experiment: string
  name: string
  type: string | null
  run: string | null
  params: Pairs
  tags: Pairs
}

/** throws experiment_not_found, experiment_deleted */
export async function createLoggedModel(
  db: Db,
  project: string,
  { model, experiment, name, type, run, params, tags }: NewLoggedModel,
): Promise<LoggedModel> {
  const id = model ?? `m-${randomBytes(16).toString('hex')}`
  const now = Date.now()
  await db.transaction().execute(async transaction => {
    const home = await transaction
      .selectFrom('experiments')
      .select(['id', 'location', 'deleted'])
      .where('id', '=', Number(experiment))
      .where('project', '=', project)
      .executeTakeFirst()
    if (!home) throw new Failure('experiment_not_found', { experiment })
    if (home.deleted !== null) throw new Failure('experiment_deleted', { experiment })
    const location = `${home.location}/models/${id}/artifacts`
    const made = await transaction
      .insertInto('logged_models')
      .values({
        id,
        experiment: home.id,
        name,
        type,
        status: 'pending',
        message: null,
        run,
        location,
        created: now,
        updated: now,
        deleted: null,
      })
      .onConflict(conflict => conflict.column('id').doNothing())
      .returning('id')
      .executeTakeFirst()
    if (!made) return
    await writePairs(transaction, 'logged_model_params', id, params)
    await writePairs(transaction, 'logged_model_tags', id, tags)
  })
  return getLoggedModel(db, project, id)
}

/** throws logged_model_not_found, also for a deleted one */
export async function getLoggedModel(db: Db, project: string, model: string): Promise<LoggedModel> {
  await rowOf(db, project, model)
  return (await loggedModels(db, [model]))[0]!
}

export async function setLoggedModelStatus(
  db: Db,
  project: string,
  model: string,
  status: LoggedModelStatus,
  message: string | null,
): Promise<LoggedModel> {
  await rowOf(db, project, model)
  await db.updateTable('logged_models').set({ status, message, updated: Date.now() }).where('id', '=', model).execute()
  return getLoggedModel(db, project, model)
}

export async function deleteLoggedModel(db: Db, project: string, model: string): Promise<void> {
  await rowOf(db, project, model)
  await db.updateTable('logged_models').set({ deleted: Date.now() }).where('id', '=', model).execute()
}

export async function setLoggedModelTags(db: Db, project: string, model: string, tags: Pairs): Promise<LoggedModel> {
  await rowOf(db, project, model)
  await writePairs(db, 'logged_model_tags', model, tags)
  return getLoggedModel(db, project, model)
}

/** throws tag_not_found */
export async function deleteLoggedModelTag(db: Db, project: string, model: string, key: string): Promise<void> {
  await rowOf(db, project, model)
  const { numDeletedRows } = await db.deleteFrom('logged_model_tags').where('model', '=', model).where('key', '=', key).executeTakeFirst()
  if (numDeletedRows === 0n) throw new Failure('tag_not_found', { key, of: `logged model ${model}` })
}

/** A param keeps its first value. */
export async function logLoggedModelParams(db: Db, project: string, model: string, params: Pairs): Promise<void> {
  await rowOf(db, project, model)
  const rows = params.map(({ key, value }) => ({ model, key, value }))
  if (rows.length > 0)
    await db
      .insertInto('logged_model_params')
      .values(rows)
      .onConflict(conflict => conflict.doNothing())
      .execute()
}

/** In the order of `ids`. */
export async function loggedModels(db: Db, ids: readonly string[]): Promise<LoggedModel[]> {
  if (ids.length === 0) return []
  const [rows, params, tags, metrics] = await Promise.all([
    db.selectFrom('logged_models').selectAll().where('id', 'in', ids).execute(),
    db.selectFrom('logged_model_params').selectAll().where('model', 'in', ids).execute(),
    db.selectFrom('logged_model_tags').selectAll().where('model', 'in', ids).execute(),
    db
      .selectFrom('logged_model_metrics')
      .selectAll()
      .where('model', 'in', ids)
      .orderBy('key')
      .orderBy('step')
      .orderBy('timestamp')
      .execute(),
  ])
  const found = new Map(rows.map(row => [row.id, asModel(row)]))
  // made from entries: assigned, a key called __proto__ would be lost
  const recordOf = (pairs: Pairs) => Object.fromEntries(pairs.map(({ key, value }) => [key, value]))
  for (const [model, of] of Map.groupBy(params, row => row.model)) found.get(model)!.params = recordOf(of)
  for (const [model, of] of Map.groupBy(tags, row => row.model)) found.get(model)!.tags = recordOf(of)
  for (const { model, key, timestamp, step, run, dataset_name, dataset_digest, ...point } of metrics)
    found
      .get(model)!
      .metrics.push({ key, value: original(point), timestamp, step, run, datasetName: dataset_name, datasetDigest: dataset_digest })
  return ids.flatMap(id => found.get(id) ?? [])
}

const asModel = ({
  id,
  experiment,
  name,
  type,
  status,
  message,
  run,
  location,
  created,
  updated,
}: Selectable<Schema['logged_models']>): LoggedModel => ({
  model: id,
  experiment: String(experiment),
  name,
  type,
  status: status as LoggedModelStatus,
  message,
  run,
  location,
  created,
  updated,
  params: {},
  tags: {},
  metrics: [],
})

async function rowOf(db: Db, project: string, model: string): Promise<void> {
  const row = await db
    .selectFrom('logged_models as m')
    .innerJoin('experiments as e', 'e.id', 'm.experiment')
    .select('m.id')
    .where('m.id', '=', model)
    .where('e.project', '=', project)
    .where('m.deleted', 'is', null)
    .executeTakeFirst()
  if (!row) throw new Failure('logged_model_not_found', { model: model.slice(0, 64) })
}

async function writePairs(db: Db, table: 'logged_model_params' | 'logged_model_tags', model: string, pairs: Pairs): Promise<void> {
  const rows = [...new Map(pairs.map(({ key, value }) => [key, { model, key, value }])).values()]
  if (rows.length === 0) return
  await db
    .insertInto(table)
    .values(rows)
    .onConflict(conflict => conflict.columns(['model', 'key']).doUpdateSet(row => ({ value: row.ref('excluded.value') })))
    .execute()
}
