/**
 * Takes over what an MLflow holds. Ids stay, experiments and models are found by name, and only what is missing is written: the same import
 * again adds what is new, and one that was stopped goes on. What is here afterwards is read back and counted against the source.
 */
import type { Db } from '../../db/open.ts'
import type { Objects } from '../../storage/objects.ts'
import { createKeys } from '../points.ts'
import { type Count, type Into, isOurs, type Kind, kinds } from './into.ts'
import type { Source, SourceExperiment } from './source.ts'
import { takeModel, takeRegistered } from './take-models.ts'
import { takeRun } from './take-runs.ts'

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
  const far = new Map<string, { owners: number; first: string }>()
  const into: Into = { db, objects, project, keys: createKeys(), experiments: new Map(), places: new Map(), far, count, note }

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
  for (const [place, { owners, first }] of far)
    note(
      isOurs(place)
        ? `the files below ${place} (${owners} runs or models, ${first} first) could not be reached: say where they are with --artifacts, and run it again`
        : `the files below ${place} (${owners} runs or models, ${first} first) stay there`,
    )
  return { counts, notes, moreNotes, left: await source.left() }
}

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
