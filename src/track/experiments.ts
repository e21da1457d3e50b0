/** Experiments in the database. Everything asked for in another project is not found. */
import { numberInPage } from '../api/input.ts'
import { type Db, inTransaction } from '../db/open.ts'
import { Failure } from '../failure.ts'
import type { Experiment } from '../sdk/calls/experiments.ts'

/** `location`: a place of the client's own for files, which is never opened here. throws experiment_exists (deleted ones keep their name) */
export async function createExperiment(
  db: Db,
  project: string,
  { name, tags, location: own }: { name: string; tags: Record<string, string>; location?: string | undefined },
): Promise<Experiment> {
  const now = Date.now()
  return await inTransaction(db, async transaction => {
    const row = await transaction
      .insertInto('experiments')
      .values({ project, name, location: '', created: now, updated: now, deleted: null })
      .onConflict(conflict => conflict.columns(['project', 'name']).doNothing())
      .returning('id')
      .executeTakeFirst()
    if (!row) throw new Failure('experiment_exists', { name })
    const location = own ?? `mlflow-artifacts:/${row.id}`
    await transaction.updateTable('experiments').set({ location }).where('id', '=', row.id).execute()
    const rows = Object.entries(tags).map(([key, value]) => ({ experiment: row.id, key, value }))
    if (rows.length > 0) await transaction.insertInto('experiment_tags').values(rows).execute()
    return { experiment: String(row.id), name, location, created: now, updated: now, deleted: false, tags }
  })
}

/** Made where there is none of that name. throws experiment_deleted: a deleted one keeps its name */
export async function getOrCreateExperiment(db: Db, project: string, { name }: { name: string }): Promise<Experiment> {
  const named = () => getExperimentByName(db, project, name)
  const found = await named().catch(error => {
    if (error instanceof Failure && error.code === 'experiment_name_unknown') return null
    throw error
  })
  const experiment =
    found ??
    (await createExperiment(db, project, { name, tags: {} }).catch(error => {
      if (error instanceof Failure && error.code === 'experiment_exists') return named() // somebody else was faster
      throw error
    }))
  if (experiment.deleted) throw new Failure('experiment_deleted', { experiment: name })
  return experiment
}

/** throws experiment_not_found */
export async function getExperiment(db: Db, project: string, experiment: string): Promise<Experiment> {
  const row = await db
    .selectFrom('experiments')
    .selectAll()
    .where('id', '=', Number(experiment))
    .where('project', '=', project)
    .executeTakeFirst()
  if (!row) throw new Failure('experiment_not_found', { experiment })
  return (await withTags(db, [row]))[0]!
}

/** Newest first. */
export async function listExperiments(db: Db, project: string, { limit, after }: { limit: number; after?: string | undefined }) {
  let query = db.selectFrom('experiments').selectAll().where('project', '=', project).where('deleted', 'is', null)
  if (after !== undefined) query = query.where('id', '<', numberInPage(after))
  const rows = await query
    .orderBy('id', 'desc')
    .limit(limit + 1)
    .execute()
  const items = await withTags(db, rows.slice(0, limit))
  return { items, next: rows.length > limit ? items.at(-1)!.experiment : null }
}

type Row = { id: number; name: string; location: string; created: number; updated: number; deleted: number | null }
async function withTags(db: Db, rows: readonly Row[]): Promise<Experiment[]> {
  const ids = rows.map(row => row.id)
  const tags = ids.length === 0 ? [] : await db.selectFrom('experiment_tags').selectAll().where('experiment', 'in', ids).execute()
  const of = Map.groupBy(tags, tag => tag.experiment)
  return rows.map(({ id, name, location, created, updated, deleted }) => ({
    experiment: String(id),
    name,
    location,
    created,
    updated,
    deleted: deleted !== null,
    tags: Object.fromEntries((of.get(id) ?? []).map(({ key, value }) => [key, value])),
  }))
}

/** A deleted one too: its name is taken. throws experiment_named_nothing */
export async function getExperimentByName(db: Db, project: string, name: string): Promise<Experiment> {
  const row = await db.selectFrom('experiments').selectAll().where('name', '=', name).where('project', '=', project).executeTakeFirst()
  if (!row) throw new Failure('experiment_name_unknown', { name })
  return (await withTags(db, [row]))[0]!
}

/** throws experiment_not_found, experiment_deleted, experiment_exists */
export async function renameExperiment(db: Db, project: string, experiment: string, name: string): Promise<void> {
  await active(db, project, experiment)
  await db.transaction().execute(async transaction => {
    const taken = await transaction
      .selectFrom('experiments')
      .select('id')
      .where('name', '=', name)
      .where('project', '=', project)
      .executeTakeFirst()
    if (taken && String(taken.id) !== experiment) throw new Failure('experiment_exists', { name })
    await transaction.updateTable('experiments').set({ name, updated: Date.now() }).where('id', '=', Number(experiment)).execute()
  })
}

/** With all its runs, and back with all its runs. throws experiment_not_found, also for one that is deleted already */
export async function deleteExperiment(db: Db, project: string, experiment: string): Promise<void> {
  const { deleted } = await getExperiment(db, project, experiment)
  if (deleted) throw new Failure('experiment_not_found', { experiment })
  await setExperimentDeleted(db, experiment, Date.now())
}
export async function restoreExperiment(db: Db, project: string, experiment: string): Promise<void> {
  await getExperiment(db, project, experiment)
  await setExperimentDeleted(db, experiment, null)
}
async function setExperimentDeleted(db: Db, experiment: string, deleted: number | null): Promise<void> {
  await inTransaction(db, async transaction => {
    await transaction.updateTable('experiments').set({ deleted, updated: Date.now() }).where('id', '=', Number(experiment)).execute()
    await transaction.updateTable('tracked_runs').set({ deleted }).where('experiment', '=', Number(experiment)).execute()
  })
}

/** throws experiment_not_found, experiment_deleted */
export async function setExperimentTag(db: Db, project: string, experiment: string, key: string, value: string): Promise<void> {
  await active(db, project, experiment)
  await db
    .insertInto('experiment_tags')
    .values({ experiment: Number(experiment), key, value })
    .onConflict(conflict => conflict.columns(['experiment', 'key']).doUpdateSet({ value }))
    .execute()
}
/** throws tag_not_found */
export async function deleteExperimentTag(db: Db, project: string, experiment: string, key: string): Promise<void> {
  await active(db, project, experiment)
  const { numDeletedRows } = await db
    .deleteFrom('experiment_tags')
    .where('experiment', '=', Number(experiment))
    .where('key', '=', key)
    .executeTakeFirst()
  if (numDeletedRows === 0n) throw new Failure('tag_not_found', { key, of: `experiment ${experiment}` })
}

async function active(db: Db, project: string, experiment: string): Promise<void> {
  const { deleted } = await getExperiment(db, project, experiment)
  if (deleted) throw new Failure('experiment_deleted', { experiment })
}

/** In the order of `ids`. */
export async function experimentsOf(db: Db, ids: readonly number[]): Promise<Experiment[]> {
  if (ids.length === 0) return []
  const rows = await db.selectFrom('experiments').selectAll().where('id', 'in', ids).execute()
  const found = new Map((await withTags(db, rows)).map(each => [each.experiment, each]))
  return ids.flatMap(id => found.get(String(id)) ?? [])
}
