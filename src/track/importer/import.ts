/**
 * Takes over what an MLflow holds. Ids stay, experiments and models are found by name, and only what is missing is written: the same import
 * again adds what is new, and one that was stopped goes on. What is here afterwards is read back and counted against the source.
 */
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { stages } from '../../models/registered.ts'
import type { Objects } from '../../storage/objects.ts'
import { safe } from '../mlflow/artifact-paths.ts'
import { createKeys, type Keys, stored, writePoints } from '../points.ts'
import { nameTag } from '../tracked-runs.ts'
import {
  loggedModelIn,
  type Owner,
  type Pair,
  type Source,
  type SourceExperiment,
  type SourceModel,
  type SourceRegistered,
  type SourceRun,
} from './source.ts'

export const kinds = [
  ...[
    'experiments',
    'runs',
    'params',
    'tags',
    'metric points',
    'dataset inputs',
    'logged models',
    'registered models',
    'model versions',
    'aliases',
  ],
  ...['files', 'bytes of files'],
] as const
export type Kind =
  | 'experiments'
  | 'runs'
  | 'params'
  | 'tags'
  | 'metric points'
  | 'dataset inputs'
  | 'logged models'
  | 'registered models'
  | 'model versions'
  | 'aliases'
  | 'files'
  | 'bytes of files'
export interface Count {
  /** At the source. */
  source: number
  /** Of those, here afterwards. */
  here: number
  /** Of those, written by this import. */
  added: number
}
export interface Imported {
  counts: Record<Kind, Count>
  /** What is not as it is at the source, and why: other values that were here first, files that could not be reached. */
  notes: string[]
  /** Beyond those that are listed. */
  moreNotes: number
  /** What has no place in Plinth, by kind. */
  left: Record<string, number>
}
export interface ImportOptions {
  db: Db
  objects: Objects
  project: string
  signal?: AbortSignal
  onProgress?(done: number, total: number | null, note: string): void
}

/** throws import_source_damaged, and what a disk or a database refuses; what was written until then stays, whole */
export async function importMlflow(
  source: Source,
  { db, objects, project, signal, onProgress = () => {} }: ImportOptions,
): Promise<Imported> {
  const counts = Object.fromEntries(kinds.map(kind => [kind, { source: 0, here: 0, added: 0 }])) as Record<Kind, Count>
  const notes: string[] = []
  let moreNotes = 0
  const note = (text: string): void => {
    if (notes.length < 200) notes.push(text)
    else moreNotes++
  }
  const count = (kind: Kind, { source = 1, here = source, added = 0 }: Partial<Count>) => {
    counts[kind].source += source
    counts[kind].here += here
    counts[kind].added += added
  }
  const into: Into = { db, objects, project, keys: createKeys(), experiments: new Map(), places: new Map(), count, note }

  for await (const experiment of source.experiments()) {
    signal?.throwIfAborted()
    await takeExperiment(into, experiment)
  }
  const total = await source.totalRuns()
  let done = 0
  for await (const run of source.runs()) {
    signal?.throwIfAborted()
    await takeRun(into, source, run)
    onProgress(++done, total, `${counts['metric points'].source} points, ${counts.files.source} files`)
  }
  for await (const model of source.models()) {
    signal?.throwIfAborted()
    await takeModel(into, source, model)
  }
  for await (const model of source.registered()) {
    signal?.throwIfAborted()
    await takeRegistered(into, model)
  }
  return { counts, notes, moreNotes, left: await source.left() }
}

interface Into {
  db: Db
  objects: Objects
  project: string
  keys: Keys
  /** Ids there → ids here. */
  experiments: Map<string, number>
  /** Where files of runs and models were → where they are. */
  places: Map<string, string>
  count(kind: Kind, what: Partial<Count>): void
  note(text: string): void
}

// ── experiments ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function takeExperiment(
  { db, project, experiments, count, note }: Into,
  { id, name, location, created, updated, deleted, tags }: SourceExperiment,
): Promise<void> {
  await db.transaction().execute(async transaction => {
    const find = () =>
      transaction
        .selectFrom('experiments')
        .select(['id', 'deleted'])
        .where('project', '=', project)
        .where('name', '=', name)
        .executeTakeFirst()
    const before = await find()
    if (!before) {
      const { id: made } = await transaction
        .insertInto('experiments')
        .values({ project, name, location: '', created, updated, deleted: deleted ? updated : null })
        .returning('id')
        .executeTakeFirstOrThrow()
      // a store of their own (s3://…) is where their clients go on writing
      const own = isOurs(location) ? `mlflow-artifacts:/${made}` : location
      await transaction.updateTable('experiments').set({ location: own }).where('id', '=', made).execute()
    } else if ((before.deleted !== null) !== deleted) note(`experiment ${name}: here it is ${deleted ? 'not ' : ''}deleted, and stays so`)
    const { id: here } = (await find())!
    experiments.set(id, here)
    if (tags.length > 0)
      await transaction
        .insertInto('experiment_tags')
        .values(tags.map(({ key, value }) => ({ experiment: here, key, value })))
        .onConflict(conflict => conflict.doNothing())
        .execute()
    count('experiments', { added: before ? 0 : 1 })
  })
}

/** Files that were behind a server, or on a disk of it, come along; those in a store of their own stay there. */
const isOurs = (location: string) =>
  location === '' || /^(mlflow-artifacts|file|https?):/i.test(location) || location.startsWith('/') || location.startsWith('.')

// ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function takeRun(into: Into, source: Source, run: SourceRun): Promise<void> {
  const { db, project, experiments, count, note } = into
  const experiment = experiments.get(run.experiment)
  if (experiment === undefined) return note(`run ${run.id}: its experiment ${run.experiment} is not at the source`)
  const files = await source.files({ kind: 'run', id: run.id, location: run.location })
  const place = `mlflow-artifacts:/${experiment}/${run.id}/artifacts`
  const location = files ? place : run.location
  const name = run.name || run.tags.find(({ key }) => key === nameTag)?.value || run.id.slice(0, 8)
  const tags = run.tags.some(({ key }) => key === nameTag) ? run.tags : [...run.tags, { key: nameTag, value: name }]

  const number = await db.transaction().execute(async transaction => {
    const { experiment: _, id, user, status, started, ended } = run
    const made = await transaction
      .insertInto('tracked_runs')
      .values({
        ...{ id, experiment, name, status, reason: null, user, started, ended, deleted: run.deleted ? (ended ?? started) : null, location },
        ...{ worker: null, heartbeat: null },
      })
      .onConflict(conflict => conflict.column('id').doNothing())
      .returning('number')
      .executeTakeFirst()
    const row = await transaction
      .selectFrom('tracked_runs as r')
      .innerJoin('experiments as e', 'e.id', 'r.experiment')
      .select(['r.number', 'r.status', 'e.project'])
      .where('r.id', '=', id)
      .executeTakeFirstOrThrow()
    if (row.project !== project) return null
    // it went on there since it was taken over
    if (!made && row.status === 'running' && status !== 'running')
      await transaction.updateTable('tracked_runs').set({ status, ended, name }).where('number', '=', row.number).execute()
    count('runs', { added: made ? 1 : 0 })
    await takePairs(into, transaction, 'params', row.number, run.params, `run ${id}`)
    await takePairs(into, transaction, 'tags', row.number, tags, `run ${id}`, run.tags.length)
    await takeDatasets(into, transaction, row.number, experiment, run)
    await takeLinks(transaction, row.number, run)
    return row.number
  })
  if (number === null) {
    count('runs', { here: 0 })
    return note(`run ${run.id}: another project has it already`)
  }
  await takePoints(into, source, run, number)
  await takeFiles(into, files, { kind: 'run', id: run.id, location: run.location }, `${experiment}/${run.id}/artifacts`, place)
}

/** Of the pairs that are not here; what is here under the same key stays. `counted`: without those that we add ourselves. */
async function takePairs(
  into: Into,
  db: Db,
  table: 'params' | 'tags',
  run: number,
  pairs: readonly Pair[],
  of: string,
  counted = pairs.length,
) {
  const all = async () =>
    new Map((await db.selectFrom(table).select(['key', 'value']).where('run', '=', run).execute()).map(row => [row.key, row.value]))
  const before = await all()
  const missing = pairs.filter(({ key }) => !before.has(key))
  for (const rows of chunks(missing.map(({ key, value }) => ({ run, key, value }))))
    await db
      .insertInto(table)
      .values(rows)
      .onConflict(conflict => conflict.doNothing())
      .execute()
  const after = missing.length > 0 ? await all() : before
  const other = pairs.filter(({ key, value }) => after.has(key) && after.get(key) !== value)
  if (table === 'params') for (const { key } of other) into.note(`${of}: param ${key} has another value here, which stays`)
  const absent = pairs.filter(({ key }) => !after.has(key)).length
  into.count(table, {
    source: counted,
    here: counted - absent - (table === 'params' ? other.length : 0),
    added: Math.min(missing.length, counted),
  })
}

async function takeDatasets(into: Into, db: Db, run: number, experiment: number, { datasets }: SourceRun): Promise<void> {
  for (const { name, digest, sourceType, source, schema, profile, tags } of datasets) {
    await db
      .insertInto('logged_datasets')
      .values({ experiment, name, digest, source_type: sourceType, source, schema, profile })
      .onConflict(conflict => conflict.columns(['experiment', 'name', 'digest']).doNothing())
      .execute()
    const { id } = await db
      .selectFrom('logged_datasets')
      .select('id')
      .where('experiment', '=', experiment)
      .where('name', '=', name)
      .where('digest', '=', digest)
      .executeTakeFirstOrThrow()
    const context = tags.find(({ key }) => key === 'mlflow.data.context')?.value ?? null
    const made = await db
      .insertInto('run_inputs')
      .values({ run, dataset: id, context, tags: JSON.stringify(tags) })
      .onConflict(conflict => conflict.columns(['run', 'dataset']).doNothing())
      .returning('dataset')
      .executeTakeFirst()
    into.count('dataset inputs', { added: made ? 1 : 0 })
  }
}

async function takeLinks(db: Db, run: number, { inputs, outputs }: SourceRun): Promise<void> {
  const rows = [
    ...inputs.map(model => ({ run, model, direction: 'input', step: 0 })),
    ...outputs.map(({ model, step }) => ({ run, model, direction: 'output', step })),
  ]
  if (rows.length > 0)
    await db
      .insertInto('run_models')
      .values(rows)
      .onConflict(conflict => conflict.doNothing())
      .execute()
}

/** A batch is a transaction; the same point again is one point. Where both have as many, nothing is read. */
async function takePoints({ db, keys, count }: Into, source: Source, run: SourceRun, number: number): Promise<void> {
  const here = async () =>
    Number(
      (
        await db
          .selectFrom('metrics')
          .select(select => select.fn.countAll().as('n'))
          .where('run', '=', number)
          .executeTakeFirstOrThrow()
      ).n,
    )
  const [before, there] = [await here(), await source.countPoints(run)]
  if (there !== null && there === before) return count('metric points', { source: there })
  let read = 0
  for await (const batch of source.points(run)) {
    read += batch.length
    try {
      await db.transaction().execute(async transaction => {
        const numbers = await keys.of(
          transaction,
          batch.map(({ key }) => key),
        )
        await writePoints(
          transaction,
          batch.map(({ key, ...point }) => ({ run: number, key: numbers.get(key)!, ...point })),
        )
      })
    } catch (error) {
      keys.forget() // some may have been made in the transaction that is gone
      throw error
    }
  }
  const after = await here()
  count('metric points', { source: read, here: Math.min(read, after), added: after - before })
}

// ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A file of the same size is the same file: artifacts are written once. */
async function takeFiles(
  { objects, places, count, note }: Into,
  files: Awaited<ReturnType<Source['files']>>,
  { kind, id, location }: Owner,
  folder: string,
  place: string,
): Promise<void> {
  if (!files) {
    if (location !== '') note(`${kind} ${id}: its files stay at ${location}, which was not read`)
    return
  }
  places.set(location.replace(/\/+$/, ''), place)
  try {
    for await (const { path, bytes, open } of files) {
      let [here, added] = [0, 0]
      try {
        const name = `${folder}/${safe(path)}`
        const there = await objects.head(name)
        if (there?.bytes === bytes) here = 1
        else if (there) note(`${kind} ${id}: the file ${path} is another one here (${there.bytes} bytes, there ${bytes}), and stays`)
        else {
          const put = await objects.put(name, await open())
          if (put.bytes === bytes) [here, added] = [1, 1]
          else note(`${kind} ${id}: of the file ${path} came ${put.bytes} of ${bytes} bytes`)
        }
      } catch (error) {
        if (isFatal(error)) throw error
        note(`${kind} ${id}: the file ${path} was not copied: ${told(error)}`)
      }
      count('files', { here, added })
      count('bytes of files', { source: bytes, here: here * bytes, added: added * bytes })
    }
  } catch (error) {
    if (isFatal(error)) throw error
    note(`${kind} ${id}: its files at ${location} could not be listed: ${told(error)}`)
  }
}

/** What would go wrong with every other file too. */
const isFatal = (error: unknown) =>
  error instanceof Failure &&
  !['artifact_path', 'object_name', 'object_in_the_way', 'import_unreachable', 'import_refused'].includes(error.code)
const told = (error: unknown) =>
  error instanceof Failure ? error.message : ((error as NodeJS.ErrnoException).code ?? (error as Error).message)

// ── logged models ───────────────────────────────────────────────────────────────────────────────────────────────────────────

async function takeModel(into: Into, source: Source, model: SourceModel): Promise<void> {
  const { db, project, experiments, count, note } = into
  const experiment = experiments.get(model.experiment)
  if (experiment === undefined) return note(`logged model ${model.id}: its experiment ${model.experiment} is not at the source`)
  const owner: Owner = { kind: 'model', id: model.id, location: model.location }
  const files = await source.files(owner)
  const folder = `${experiment}/models/${model.id}/artifacts`
  const place = `mlflow-artifacts:/${folder}`
  const taken = await db.transaction().execute(async transaction => {
    const { id, name, type, status, message, run, created, updated } = model
    const made = await transaction
      .insertInto('logged_models')
      .values({
        id,
        experiment,
        name,
        type,
        status,
        message,
        run,
        location: files ? place : model.location,
        created,
        updated,
        deleted: model.deleted ? updated : null,
      })
      .onConflict(conflict => conflict.column('id').doNothing())
      .returning('id')
      .executeTakeFirst()
    const row = await transaction
      .selectFrom('logged_models as m')
      .innerJoin('experiments as e', 'e.id', 'm.experiment')
      .select(['m.status', 'e.project'])
      .where('m.id', '=', id)
      .executeTakeFirstOrThrow()
    if (row.project !== project) return false
    if (!made && row.status === 'pending' && status !== 'pending')
      await transaction.updateTable('logged_models').set({ status, message, updated }).where('id', '=', id).execute()
    for (const [table, pairs] of [
      ['logged_model_params', model.params],
      ['logged_model_tags', model.tags],
    ] as const)
      for (const rows of chunks(pairs.map(({ key, value }) => ({ model: id, key, value }))))
        await transaction
          .insertInto(table)
          .values(rows)
          .onConflict(conflict => conflict.doNothing())
          .execute()
    const points = model.metrics.map(({ key, value, timestamp, step, run, datasetName, datasetDigest }) => ({
      ...{ model: id, key, ...stored(value), timestamp, step, run, dataset_name: datasetName, dataset_digest: datasetDigest },
    }))
    for (const rows of chunks(points))
      await transaction
        .insertInto('logged_model_metrics')
        .values(rows)
        .onConflict(conflict => conflict.doNothing())
        .execute()
    count('logged models', { added: made ? 1 : 0 })
    return true
  })
  if (!taken) {
    count('logged models', { here: 0 })
    return note(`logged model ${model.id}: another project has it already`)
  }
  await takeFiles(into, files, owner, folder, place)
}

// ── registry ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function takeRegistered(into: Into, model: SourceRegistered): Promise<void> {
  const { db, project, count, note } = into
  const { name, description, created, updated } = model
  if (/[/:]/.test(name) || name.length > 250) {
    count('registered models', { here: 0 })
    return note(`registered model ${name.slice(0, 250)}: a name with / or : cannot be used in models:/…, so it was left; rename it there`)
  }
  await db.transaction().execute(async transaction => {
    const made = await transaction
      .insertInto('registered_models')
      .values({ project, name, description, created, updated })
      .onConflict(conflict => conflict.doNothing())
      .returning('name')
      .executeTakeFirst()
    count('registered models', { added: made ? 1 : 0 })
    for (const rows of chunks(model.tags.map(({ key, value }) => ({ project, name, key, value }))))
      await transaction
        .insertInto('registered_model_tags')
        .values(rows)
        .onConflict(conflict => conflict.doNothing())
        .execute()
    for (const version of model.versions) {
      const source = movedTo(into, version.source)
      const stage = stages.find(each => each.toLowerCase() === version.stage.toLowerCase()) ?? 'None'
      const row = {
        ...{
          project,
          name,
          version: version.version,
          kind: 'mlflow',
          labels: '[]',
          run: version.run,
          dataset: null,
          bytes: 0,
          digest: '',
          accuracy: null,
        },
        ...{
          created: new Date(version.created).toISOString(),
          updated: version.updated,
          description: version.description,
          user: version.user,
        },
        ...{
          stage,
          source,
          logged_model: loggedModelIn(version.source),
          deleted: version.deleted ? new Date(version.updated).toISOString() : null,
        },
      }
      const added = await transaction
        .insertInto('model_versions')
        .values(row)
        .onConflict(conflict => conflict.columns(['project', 'name', 'version']).doNothing())
        .returning('version')
        .executeTakeFirst()
      const here = await transaction
        .selectFrom('model_versions')
        .select(['source', 'run'])
        .where('project', '=', project)
        .where('name', '=', name)
        .where('version', '=', version.version)
        .executeTakeFirstOrThrow()
      const same = here.source === source && here.run === version.run
      if (!version.deleted) count('model versions', { here: same ? 1 : 0, added: added ? 1 : 0 })
      if (!same) note(`model ${name}: version ${version.version} is another one here, and stays`)
      if (same && !version.deleted)
        for (const rows of chunks(version.tags.map(({ key, value }) => ({ project, name, version: version.version, key, value }))))
          await transaction
            .insertInto('model_version_tags')
            .values(rows)
            .onConflict(conflict => conflict.doNothing())
            .execute()
    }
    const live = new Set(model.versions.filter(({ deleted }) => !deleted).map(({ version }) => version))
    for (const { alias, version } of model.aliases.filter(each => live.has(each.version))) {
      const added = await transaction
        .insertInto('model_aliases')
        .values({ project, name, alias, version })
        .onConflict(conflict => conflict.columns(['project', 'name', 'alias']).doNothing())
        .returning('alias')
        .executeTakeFirst()
      const { version: here } = await transaction
        .selectFrom('model_aliases')
        .select('version')
        .where('project', '=', project)
        .where('name', '=', name)
        .where('alias', '=', alias)
        .executeTakeFirstOrThrow()
      count('aliases', { here: here === version ? 1 : 0, added: added ? 1 : 0 })
      if (here !== version) note(`model ${name}: the alias ${alias} is on version ${here} here (there on ${version}), and stays`)
    }
  })
}

/** A source among files that were copied, where those are now. */
function movedTo({ places }: Into, source: string): string {
  for (let at = source.replace(/\/+$/, ''); at !== ''; at = at.slice(0, Math.max(0, at.lastIndexOf('/')))) {
    const place = places.get(at)
    if (place) return place + source.replace(/\/+$/, '').slice(at.length)
  }
  return source
}

function* chunks<T>(items: readonly T[], size = 200): Generator<T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size)
}
