/** What a run used and what it made: datasets and models, said after it was created. */
import type { Db } from '../db/open.ts'
import { activeRow } from './tracked-runs.ts'

export interface DatasetInput {
  name: string
  digest: string
  sourceType: string
  source: string
  schema: string | null
  profile: string | null
  tags: readonly { key: string; value: string }[]
}

/** The same dataset said twice is one. throws tracked_run_not_found, tracked_run_deleted */
export async function logInputs(
  db: Db,
  project: string,
  run: string,
  { datasets, models }: { datasets: readonly DatasetInput[]; models: readonly string[] },
): Promise<void> {
  const { number, experiment } = await activeRow(db, project, run)
  await db.transaction().execute(async transaction => {
    for (const dataset of datasets) await writeRunInput(transaction, { run: number, experiment }, dataset)
    await link(
      transaction,
      number,
      'input',
      models.map(model => ({ model, step: 0 })),
    )
  })
}

/** In the caller's transaction; false where the run has this dataset already. */
export async function writeRunInput(
  transaction: Db,
  { run, experiment }: { run: number; experiment: number },
  { name, digest, sourceType, source, schema, profile, tags }: DatasetInput,
): Promise<boolean> {
  await transaction
    .insertInto('logged_datasets')
    .values({ experiment, name, digest, source_type: sourceType, source, schema, profile })
    .onConflict(conflict => conflict.columns(['experiment', 'name', 'digest']).doNothing())
    .execute()
  const { id } = await transaction
    .selectFrom('logged_datasets')
    .select('id')
    .where('experiment', '=', experiment)
    .where('name', '=', name)
    .where('digest', '=', digest)
    .executeTakeFirstOrThrow()
  const context = tags.find(({ key }) => key === 'mlflow.data.context')?.value ?? null
  const made = await transaction
    .insertInto('run_inputs')
    .values({ run, dataset: id, context, tags: JSON.stringify(tags) })
    .onConflict(conflict => conflict.columns(['run', 'dataset']).doNothing())
    .returning('dataset')
    .executeTakeFirst()
  return made !== undefined
}

/** throws tracked_run_not_found, tracked_run_deleted */
export async function logOutputs(db: Db, project: string, run: string, models: readonly { model: string; step: number }[]): Promise<void> {
  const { number } = await activeRow(db, project, run)
  await link(db, number, 'output', models)
}

async function link(db: Db, run: number, direction: 'input' | 'output', models: readonly { model: string; step: number }[]): Promise<void> {
  const rows = models.map(({ model, step }) => ({ run, model, direction, step }))
  if (rows.length > 0)
    await db
      .insertInto('run_models')
      .values(rows)
      .onConflict(conflict => conflict.doNothing())
      .execute()
}

export interface RunLinks {
  datasets: (Omit<DatasetInput, 'tags'> & { tags: { key: string; value: string }[] })[]
  inputs: string[]
  outputs: { model: string; step: number }[]
}

/** By the runs' numbers; runs without any are not in it. */
export async function linksOf(db: Db, numbers: readonly number[]): Promise<Map<number, RunLinks>> {
  const links = new Map<number, RunLinks>()
  const of = (run: number) => {
    const found = links.get(run) ?? { datasets: [], inputs: [], outputs: [] }
    links.set(run, found)
    return found
  }
  for (let at = 0; at < numbers.length; at += 1000) {
    const some = numbers.slice(at, at + 1000)
    const datasets = await db
      .selectFrom('run_inputs as i')
      .innerJoin('logged_datasets as d', 'd.id', 'i.dataset')
      .select(['i.run', 'i.tags', 'd.name', 'd.digest', 'd.source_type as sourceType', 'd.source', 'd.schema', 'd.profile'])
      .where('i.run', 'in', some)
      .execute()
    for (const { run, tags, ...dataset } of datasets)
      of(run).datasets.push({ ...dataset, tags: JSON.parse(tags) as { key: string; value: string }[] })
    for (const { run, model, direction, step } of await db.selectFrom('run_models').selectAll().where('run', 'in', some).execute())
      if (direction === 'input') of(run).inputs.push(model)
      else of(run).outputs.push({ model, step })
  }
  return links
}
