/** Runs of jobs: made when the first attempt starts, running while the job does, and ended as it ends. The controller of jobs calls these. */
import type { Db } from '../db/open.ts'
import { Failure } from '../failure.ts'
import type { Objects } from '../storage/objects.ts'
import { getOrCreateExperiment } from './experiments.ts'
import { writeTags } from './log.ts'
import { below } from './mlflow/artifact-paths.ts'
import { createTrackedRun, getTrackedRun, rowOf } from './tracked-runs.ts'

interface RunOfJob {
  project: string
  user: string
  /** Made by the caller. */
  run: string
  name: string
  experiment: string | null
  tags: Readonly<Record<string, string>>
}
type End = 'succeeded' | 'failed' | 'cancelled'

/** In the caller's transaction. There already: it is running again. throws experiment_deleted */
export async function startJobRun(db: Db, { project, user, run, name, experiment, tags }: RunOfJob): Promise<void> {
  const known = await rowOf(db, project, run).catch(notThere)
  const pairs = Object.entries(tags).map(([key, value]) => ({ key, value }))
  if (known) {
    await setStatus(db, known.number, { status: 'running', reason: null, ended: null })
    await writeTags(db, known.number, pairs)
    return
  }
  const id =
    experiment === null ? await defaultExperiment(db, project) : (await getOrCreateExperiment(db, project, { name: experiment })).experiment
  await createTrackedRun(db, project, { experiment: id, name, user, run, tags: [...pairs, { key: 'mlflow.source.type', value: 'JOB' }] })
}

/** Experiment 0 is the one that MLflow's clients take in the default project; others get one of that name. */
async function defaultExperiment(db: Db, project: string): Promise<string> {
  return (await getOrCreateExperiment(db, project, { name: 'Default' })).experiment
}

export const experimentOfRun = async (db: Db, project: string, run: string): Promise<string> =>
  String((await rowOf(db, project, run)).experiment)

/** It waits for the next attempt of its job. In the caller's transaction. */
export async function pauseJobRun(db: Db, project: string, run: string): Promise<void> {
  const known = await rowOf(db, project, run).catch(notThere)
  if (known) await setStatus(db, known.number, { status: 'queued', reason: null, ended: null })
}

/**
 * In the caller's transaction. A script that told its run that it failed, and then ended with exit code 0, is believed what it told. Answers the
 * status of the run. One that somebody deleted meanwhile is left alone.
 */
export async function endJobRun(
  db: Db,
  { project, run, status, reason, ended }: { project: string; run: string; status: End; reason: string | null; ended: number },
): Promise<End> {
  const known = await rowOf(db, project, run).catch(notThere)
  if (!known) return status
  const row = await db.selectFrom('tracked_runs').select(['status', 'reason']).where('number', '=', known.number).executeTakeFirstOrThrow()
  const own = row.status === 'failed' || row.status === 'cancelled' ? row.status : null
  const told = status === 'succeeded' && own !== null && row.reason !== 'lost' ? own : status
  await setStatus(db, known.number, { status: told, reason: told === status ? reason : row.reason, ended })
  return told
}

export async function tagJobRun(db: Db, project: string, run: string, tags: Readonly<Record<string, string>>): Promise<void> {
  const known = await rowOf(db, project, run).catch(notThere)
  if (!known) return
  const pairs = Object.entries(tags).map(([key, value]) => ({ key, value }))
  if (pairs.length > 0) await writeTags(db, known.number, pairs)
}

/** A file of the run, replacing what has that name. throws tracked_run_not_found, artifact_path, object_name, disk_full */
export async function keepJobFile(
  db: Db,
  objects: Objects,
  project: string,
  run: string,
  path: string,
  content: AsyncIterable<Uint8Array>,
): Promise<void> {
  const { location } = await getTrackedRun(db, project, run)
  await objects.put(below(location, path), content)
}

/** Runs that belong to jobs which have not ended: whatever their processes say or do not say, the job decides about them. */
export async function runsOfLivingJobs(db: Db): Promise<Set<string>> {
  const rows = await db
    .selectFrom('jobs')
    .select('run')
    .where('status', 'in', ['queued', 'starting', 'setting_up', 'running', 'stopping'])
    .where('run', 'is not', null)
    .execute()
  return new Set(rows.map(({ run }) => run!))
}

const setStatus = (db: Db, number: number, change: { status: string; reason: string | null; ended: number | null }) =>
  db.updateTable('tracked_runs').set(change).where('number', '=', number).execute()

const notThere = (error: unknown): null => {
  if (error instanceof Failure && error.code === 'tracked_run_not_found') return null
  throw error
}
