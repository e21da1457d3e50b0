/** Runs with what they logged: each in one transaction, its points in more of them. */
import type { Db } from '../../db/open.ts'
import { writePoints } from '../points.ts'
import { writeRunInput } from '../run-links.ts'
import { nameTag } from '../tracked-runs.ts'
import { chunks, type Into, isServed } from './into.ts'
import type { Pair, Source, SourceRun } from './source.ts'
import { takeFiles } from './take-files.ts'

export async function takeRun(into: Into, source: Source, run: SourceRun): Promise<void> {
  const { db, project, experiments, count, note } = into
  const experiment = experiments.get(run.experiment)
  if (experiment === undefined) return note(`run ${run.id}: its experiment ${run.experiment} is not at the source`)
  const files = await source.files({ kind: 'run', id: run.id, location: run.location })
  const place = `mlflow-artifacts:/${experiment}/${run.id}/artifacts`
  // a place of the source's server means another thing here: it is never kept as it is
  const location = files || isServed(run.location) ? place : run.location
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
      .select(['r.number', 'r.status', 'r.location', 'e.project'])
      .where('r.id', '=', id)
      .executeTakeFirstOrThrow()
    if (row.project !== project) return null
    // the files could not be reached then, and can be now
    if (files && row.location === run.location)
      await transaction.updateTable('tracked_runs').set({ location }).where('number', '=', row.number).execute()
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
  for (const dataset of datasets) into.count('dataset inputs', { added: (await writeRunInput(db, { run, experiment }, dataset)) ? 1 : 0 })
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
