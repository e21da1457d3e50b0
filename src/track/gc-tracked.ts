/**
 * What was deleted long ago among tracked runs, experiments and logged models, and what nothing names any more. Deleted is not gone: it can
 * be restored until `gc` clears it away. What a version of a model came from stays, so that its history and its files do.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../db/home.ts'
import { type Db, exclusively } from '../db/open.ts'
import type { Failure } from '../failure.ts'
import { removeFolder } from '../storage/disk.ts'
import type { Garbage } from './gc.ts'
import { deleteRun } from './runs.ts'

/** Something deleted that stays, and why. */
export interface Held {
  what: string
  by: string
}
export interface DeletedThings {
  garbage: Garbage[]
  held: Held[]
}

/** Of a point of a metric in the database, roughly. */
const bytesAPoint = 40
const atOnce = 20_000

/** What was deleted before `before`, in milliseconds since 1970. */
export async function deletedThings(home: Home, before: number): Promise<DeletedThings> {
  const garbage: Garbage[] = []
  const held: Held[] = []
  for (const run of await deletedRuns(home.db, before)) {
    const by = await versionFrom(home.db, run.id, run.location)
    if (by) held.push({ what: `run ${run.id}`, by })
    else garbage.push(await asGarbage(home, run))
  }
  for (const model of await deletedLoggedModels(home.db, before)) {
    const by = await versionFrom(home.db, model.id, model.location)
    if (by) held.push({ what: `logged model ${model.id}`, by })
    else garbage.push(await loggedModelGarbage(home, model, before))
  }
  garbage.push(...(await deletedExperiments(home, before)), ...(await nobodysFiles(home)), ...(await nobodysPoints(home)))
  garbage.push(...(await oldTokens(home.db, before)))
  return { garbage, held }
}

// ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Run = { number: number; id: string; experiment: number; location: string }

/** Deleted themselves, or with their experiment. */
async function deletedRuns(db: Db, before: number): Promise<Run[]> {
  return await db
    .selectFrom('tracked_runs as r')
    .innerJoin('experiments as e', 'e.id', 'r.experiment')
    .select(['r.number', 'r.id', 'r.experiment', 'r.location'])
    .where(where => where.or([where('r.deleted', '<', before), where('e.deleted', '<', before)]))
    .orderBy('r.number')
    .execute()
}

async function asGarbage(home: Home, run: Run): Promise<Garbage> {
  const folder = artifactsOf(home, run.location)
  const { points } = await home.db
    .selectFrom('metrics')
    .select(({ fn }) => fn.countAll<number>().as('points'))
    .where('run', '=', run.number)
    .executeTakeFirstOrThrow()
  const bytes = (folder ? await folderBytes(folder) : 0) + Number(points) * bytesAPoint
  return {
    path: folder ?? join(home.path, 'artifacts', String(run.experiment), run.id),
    bytes,
    reason: 'deleted run, with its metrics and files',
    async remove() {
      if (!(await stillDeleted(home.db, run)) || (await versionFrom(home.db, run.id, run.location))) return 0
      // a recipe's run has a folder of its own, which would bring it back
      const busy = await deleteRun(home, run.id).then(
        () => false,
        (error: Failure) => {
          if (error.code !== 'run_not_found' && error.code !== 'run_busy') throw error
          return error.code === 'run_busy'
        },
      )
      if (busy) return 0
      await forgetTracked(home.db, run.number)
      if (folder) await removeFolder(parentOf(folder))
      return bytes
    },
  }
}

const stillDeleted = async (db: Db, { number }: Run): Promise<boolean> =>
  (await db
    .selectFrom('tracked_runs as r')
    .innerJoin('experiments as e', 'e.id', 'r.experiment')
    .select('r.number')
    .where('r.number', '=', number)
    .where(where => where.or([where('r.deleted', 'is not', null), where('e.deleted', 'is not', null)]))
    .executeTakeFirst()) !== undefined

/** First what makes it a run, so that nobody can restore it; then its points, a few at a time, so that nobody has to wait. */
async function forgetTracked(db: Db, number: number): Promise<void> {
  await exclusively(db, async transaction => {
    for (const table of ['params', 'tags', 'latest_metrics', 'run_inputs', 'run_models'] as const)
      await transaction.deleteFrom(table).where('run', '=', number).execute()
    await transaction.deleteFrom('tracked_runs').where('number', '=', number).execute()
  })
  await forgetPoints(db, number)
}

async function forgetPoints(db: Db, run: number): Promise<number> {
  for (let gone = 0; ; ) {
    const last = await db
      .selectFrom('metrics')
      .select(['key', 'step', 'timestamp'])
      .where('run', '=', run)
      .orderBy('key')
      .orderBy('step')
      .orderBy('timestamp')
      .offset(atOnce)
      .limit(1)
      .executeTakeFirst()
    let some = db.deleteFrom('metrics').where('run', '=', run)
    if (last)
      some = some.where(where =>
        where.or([
          where('key', '<', last.key),
          where.and([where('key', '=', last.key), where('step', '<', last.step)]),
          where.and([where('key', '=', last.key), where('step', '=', last.step), where('timestamp', '<=', last.timestamp)]),
        ]),
      )
    gone += Number((await some.executeTakeFirst()).numDeletedRows)
    if (!last) return gone
  }
}

/** Of a run that a `gc` before this one was killed in: its number is never given again. */
async function nobodysPoints(home: Home): Promise<Garbage[]> {
  const { db } = home
  const found: Garbage[] = []
  for (let after = Number.NEGATIVE_INFINITY; ; ) {
    // from one run to the next by the index, not over all points
    let next = db.selectFrom('metrics').select('run').orderBy('run').limit(1)
    if (after !== Number.NEGATIVE_INFINITY) next = next.where('run', '>', after)
    const row = await next.executeTakeFirst()
    if (!row) return found
    after = row.run
    const known = await db.selectFrom('tracked_runs').select('number').where('number', '=', row.run).executeTakeFirst()
    if (known) continue
    const reason = 'metrics of a run that is gone'
    found.push({ path: home.target, bytes: bytesAPoint, reason, remove: async () => (await forgetPoints(db, row.run)) * bytesAPoint })
  }
}

// ── logged models and experiments ───────────────────────────────────────────────────────────────────────────────────────────

type Model = { id: string; location: string }

async function deletedLoggedModels(db: Db, before: number): Promise<Model[]> {
  return await db
    .selectFrom('logged_models as m')
    .innerJoin('experiments as e', 'e.id', 'm.experiment')
    .select(['m.id', 'm.location'])
    .where(where => where.or([where('m.deleted', '<', before), where('e.deleted', '<', before)]))
    .orderBy('m.id')
    .execute()
}

async function loggedModelGarbage(home: Home, model: Model, before: number): Promise<Garbage> {
  const folder = artifactsOf(home, model.location)
  const bytes = folder ? await folderBytes(folder) : 0
  return {
    path: folder ?? model.location,
    bytes,
    reason: 'deleted logged model, with its files',
    async remove() {
      const gone = await exclusively(home.db, async db => {
        if (!(await deletedLoggedModels(db, before)).some(({ id }) => id === model.id)) return false
        for (const table of ['logged_model_params', 'logged_model_tags', 'logged_model_metrics', 'run_models'] as const)
          await db.deleteFrom(table).where('model', '=', model.id).execute()
        await db.deleteFrom('logged_models').where('id', '=', model.id).execute()
        return true
      })
      if (!gone) return 0
      if (folder) await removeFolder(parentOf(folder))
      return bytes
    },
  }
}

/** Once nothing is in them: the experiment Default stays, as MLflow's clients expect one. */
async function deletedExperiments({ path, db }: Home, before: number): Promise<Garbage[]> {
  const rows = await db.selectFrom('experiments').select('id').where('deleted', '<', before).where('id', '>', 0).execute()
  return rows.map(({ id }) => ({
    path: join(path, 'artifacts', String(id)),
    bytes: 0,
    reason: 'deleted experiment',
    async remove() {
      const gone = await exclusively(db, async transaction => {
        const row = await transaction.selectFrom('experiments').select('deleted').where('id', '=', id).executeTakeFirst()
        if (row?.deleted == null) return false
        for (const table of ['tracked_runs', 'logged_models'] as const)
          if (await transaction.selectFrom(table).select('id').where('experiment', '=', id).limit(1).executeTakeFirst()) return false
        for (const table of ['experiment_tags', 'logged_datasets'] as const)
          await transaction.deleteFrom(table).where('experiment', '=', id).execute()
        await transaction.deleteFrom('experiments').where('id', '=', id).execute()
        return true
      })
      if (gone) await removeFolder(join(path, 'artifacts', String(id)))
      return 0
    },
  }))
}

// ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `artifacts/<experiment>/<run>` and `artifacts/<experiment>/models/<model>` without a row: left by a deletion that was killed. */
async function nobodysFiles(home: Home): Promise<Garbage[]> {
  const root = join(home.path, 'artifacts')
  const found: Garbage[] = []
  for (const experiment of await namesIn(root)) {
    const owners = (await namesIn(join(root, experiment))).map(name => ({
      id: name,
      path: join(root, experiment, name),
      table: 'tracked_runs' as const,
    }))
    const models = await namesIn(join(root, experiment, 'models'))
    const all = [
      ...owners.filter(({ id }) => /^[0-9a-f]{32}$/.test(id)),
      ...models
        .filter(id => /^m-[0-9a-f]{32}$/.test(id))
        .map(id => ({ id, path: join(root, experiment, 'models', id), table: 'logged_models' as const })),
    ]
    for (const { id, path, table } of all) {
      const isNamed = async () => (await home.db.selectFrom(table).select('id').where('id', '=', id).executeTakeFirst()) !== undefined
      const entry = await stat(path).catch(() => null)
      if (!entry || Date.now() - entry.mtimeMs < 60 * 60 * 1000 || (await isNamed())) continue
      const bytes = await folderBytes(path)
      const remove = async () => (!(await isNamed()) && (await removeFolder(path)) ? bytes : 0)
      found.push({ path, bytes, reason: 'files of a run or logged model that is gone', remove })
    }
  }
  return found
}

/** `mlflow-artifacts:/1/<run>/artifacts` → its folder in the home; null for files that lie elsewhere. */
function artifactsOf({ path }: Home, location: string): string | null {
  const [, place] = /^mlflow-artifacts:\/+(\d{1,15}\/(?:models\/)?[\w-]+\/artifacts)$/.exec(location) ?? []
  return place ? join(path, 'artifacts', ...place.split('/')) : null
}
const parentOf = (artifacts: string) => join(artifacts, '..')

const namesIn = (folder: string): Promise<string[]> => readdir(folder).catch(() => [])

async function folderBytes(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  let bytes = 0
  for (const entry of entries) if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name)).catch(() => null))?.size ?? 0
  return bytes
}

// ── who needs it ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A version of a model that came from this run or logged model, by its lineage or by where its files are; the first one's name. */
async function versionFrom(db: Db, id: string, location: string): Promise<string | null> {
  const row = await db
    .selectFrom('model_versions')
    .select(['name', 'version'])
    .where('deleted', 'is', null)
    .where(where =>
      where.or([
        where('run', '=', id),
        where('logged_model', '=', id),
        where('source', '=', location),
        where('source', 'like', `${location}/%`),
        where('source', 'like', `%:/${id}`),
        where('source', 'like', `%:/${id}/%`),
      ]),
    )
    .executeTakeFirst()
  return row ? `${row.name}@${row.version}` : null
}

async function oldTokens(db: Db, before: number): Promise<Garbage[]> {
  const date = new Date(before).toISOString()
  const dead = () => db.selectFrom('tokens').where(where => where.or([where('revoked', '<', date), where('expires', '<', date)]))
  const rows = await dead().select('id').execute()
  return rows.map(({ id }) => ({
    path: `token ${id}`,
    bytes: 0,
    reason: 'token that was revoked, or has expired',
    async remove() {
      await db.deleteFrom('tokens').where('id', '=', id).execute()
      return 0
    },
  }))
}
