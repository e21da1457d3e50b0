/**
 * Runs of recipes among the tracked runs. Their truth stays in their folder (runs.ts); what the folder says is written here again and
 * again, and writing it twice changes nothing, so a kill between the two costs at most that the table is late.
 */
import type { Db } from '../db/open.ts'
import type { Run } from '../sdk/index.ts'
import { writeTags } from './log.ts'
import type { MetricPoint } from './metrics.ts'
import { createKeys, writePoints } from './points.ts'

const project = 'default'

/** One experiment a model name: that is what its owner compares. */
export async function mirrorRun(db: Db, run: Run, points: readonly MetricPoint[] = []): Promise<void> {
  const experiment = await experimentCalled(db, run.name)
  const state = { status: run.status, reason: run.reason, ended: run.ended === null ? null : Date.parse(run.ended), heartbeat: Date.now() }
  const { number } = await db
    .insertInto('tracked_runs')
    .values({
      ...{
        id: run.run,
        experiment: experiment.id,
        name: run.name,
        user: 'owner',
        started: Date.parse(run.started),
        deleted: null,
        worker: null,
      },
      location: `${experiment.location}/${run.run}/artifacts`,
      ...state,
    })
    .onConflict(conflict => conflict.column('id').doUpdateSet(state))
    .returning('number')
    .executeTakeFirstOrThrow()
  const params = Object.entries(run.params).map(([key, value]) => ({ run: number, key, value: asText(value) }))
  if (params.length > 0)
    await db
      .insertInto('params')
      .values(params)
      .onConflict(conflict => conflict.doNothing())
      .execute()
  await writeTags(db, number, tagsOf(run))
  await log(db, number, points)
}

/** Without a trace: its folder is going. */
export async function forgetRun(db: Db, run: string): Promise<void> {
  const row = await db.selectFrom('tracked_runs').select('number').where('id', '=', run).executeTakeFirst()
  if (!row) return
  for (const table of ['params', 'tags', 'metrics', 'latest_metrics', 'run_inputs', 'run_models'] as const)
    await db.deleteFrom(table).where('run', '=', row.number).execute()
  await db.deleteFrom('tracked_runs').where('number', '=', row.number).execute()
}

async function experimentCalled(db: Db, name: string): Promise<{ id: number; location: string }> {
  const known = () =>
    db.selectFrom('experiments').select(['id', 'location']).where('project', '=', project).where('name', '=', name).executeTakeFirst()
  const found = await known()
  if (found) return found
  const now = Date.now()
  const made = await db
    .insertInto('experiments')
    .values({ project, name, location: '', created: now, updated: now, deleted: null })
    .onConflict(conflict => conflict.doNothing())
    .returning('id')
    .executeTakeFirst()
  const { id } = made ?? (await known())! // somebody else was faster
  const location = `mlflow-artifacts:/${id}`
  if (made) await db.updateTable('experiments').set({ location }).where('id', '=', id).execute()
  return { id, location }
}

async function log(db: Db, run: number, points: readonly MetricPoint[]): Promise<void> {
  const numbers = await createKeys().of(
    db,
    points.flatMap(({ values }) => Object.keys(values)),
  )
  await writePoints(
    db,
    points.flatMap(({ step, time, values }) =>
      Object.entries(values).map(([key, value]) => ({ run, key: numbers.get(key)!, step, timestamp: time, value: Number(value) })),
    ),
  )
}

const asText = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))

/** What leads from a run to its data, model, code and machine, under MLflow's names where it has one. */
function tagsOf({ name, recipe, dataset, model, device, environment }: Run) {
  const tags: [string, string | null | undefined][] = [
    ['mlflow.runName', name],
    ['mlflow.source.type', 'RECIPE'],
    ['mlflow.source.git.commit', typeof environment['commit'] === 'string' ? environment['commit'] : null],
    ['plinth.recipe', recipe],
    ['plinth.dataset', dataset && `${dataset.name}@${dataset.version}`],
    ['plinth.dataset.digest', dataset?.digest],
    ['plinth.model', model && `${model.name}@${model.version}`],
    ['plinth.device', device && `${device.kind}: ${device.name}, ${device.threads} threads`],
    ['plinth.version', typeof environment['plinth'] === 'string' ? environment['plinth'] : null],
  ]
  return tags.flatMap(([key, value]) => (value ? [{ key, value }] : []))
}
