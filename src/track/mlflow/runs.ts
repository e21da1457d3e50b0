/** Runs and what they log, in MLflow's words. */
import type { ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import type { RunStatus } from '../../sdk/shapes.ts'
import type { RunLog } from '../log.ts'
import { linksOf, type RunLinks } from '../run-links.ts'
import { searchRuns } from '../search/runs.ts'
import {
  createTrackedRun,
  deleteRunTag,
  getTrackedRun,
  metricHistory,
  setDeleted,
  setRunTag,
  type TrackedRun,
  trackedRuns,
  updateTrackedRun,
} from '../tracked-runs.ts'
import { compact, limitOf, type Message, mlflowRoute, pairOf, pairs, viewOf, wireNumber } from './wire.ts'

export const runRoutes = (db: Db, log: RunLog): ForeignRoute[] => [
  ...mlflowRoute('POST', '/mlflow/runs/create', 'editor', async (message, { project, principal }) => {
    const run = await createTrackedRun(db, project, {
      experiment: message.text('experiment_id') || '0',
      name: message.text('run_name'),
      user: message.text('user_id') || principal.user,
      started: message.integer('start_time'),
      tags: message.messages('tags').map(pairOf),
    })
    const { outputs: _, ...created } = asMlflowRun(run, undefined)
    return { run: created }
  }),
  ...mlflowRoute('GET', '/mlflow/runs/get', 'viewer', async (message, { project }) => ({
    run: (await asMlflowRuns(db, [await getTrackedRun(db, project, runId(message))]))[0],
  })),
  ...mlflowRoute('POST', '/mlflow/runs/update', 'editor', async (message, { project }) => {
    const run = await updateTrackedRun(db, project, runId(message), {
      name: message.text('run_name'),
      status: statusOf(message),
      ended: message.integer('end_time'),
    })
    return { run_info: infoOf(run) }
  }),
  ...mlflowRoute('POST', '/mlflow/runs/delete', 'editor', async (message, { project }) => {
    await setDeleted(db, project, runId(message), true)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/restore', 'editor', async (message, { project }) => {
    await setDeleted(db, project, runId(message), false)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/search', 'viewer', async (message, { project }) => {
    const { numbers, next } = await searchRuns(db, project, {
      experiments: message.texts('experiment_ids'),
      filter: message.text('filter') ?? '',
      orderBy: message.texts('order_by'),
      view: viewOf(message.text('run_view_type')),
      limit: limitOf(message, { usual: 1000, most: 50_000 }),
      after: message.text('page_token') || undefined,
    })
    return compact({ runs: await asMlflowRuns(db, await trackedRuns(db, numbers)), next_page_token: next })
  }),
  ...mlflowRoute('POST', '/mlflow/runs/log-metric', 'editor', async (message, { project }) => {
    await log.log({ project, run: runId(message), metrics: [metric(message)], params: [], tags: [] })
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/log-parameter', 'editor', async (message, { project }) => {
    await log.log({ project, run: runId(message), metrics: [], params: [param(message)], tags: [] })
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/set-tag', 'editor', async (message, { project }) => {
    const { key, value } = pairOf(message)
    await setRunTag(db, project, runId(message), key, value)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/delete-tag', 'editor', async (message, { project }) => {
    await deleteRunTag(db, project, runId(message), message.required('key'))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/log-batch', 'editor', async (message, { project }) => {
    const batch = {
      metrics: message.messages('metrics').map(metric),
      params: message.messages('params').map(param),
      tags: message.messages('tags').map(pairOf),
    }
    checkBatch(batch)
    await log.log({ project, run: runId(message), ...batch })
    return {}
  }),
  ...mlflowRoute('GET', '/mlflow/metrics/get-history', 'viewer', async (message, { project }) => {
    const points = await metricHistory(db, project, runId(message), message.required('metric_key'))
    return compact({ metrics: points.map(point => ({ ...point, value: wireNumber(point.value) })) })
  }),
]

const runId = (message: Message) => message.text('run_id') || message.required('run_uuid')
const param = (message: Message) => ({ key: message.required('key'), value: (message.text('value') ?? '').slice(0, 6000) })

function metric(message: Message) {
  const key = message.required('key')
  const value = message.number('value')
  const timestamp = message.integer('timestamp')
  if (value === undefined) throw new Failure('mlflow_parameter', { problem: "Missing value for required parameter 'value'." })
  if (timestamp === undefined) throw new Failure('mlflow_parameter', { problem: "Missing value for required parameter 'timestamp'." })
  return {
    key,
    value,
    timestamp,
    step: message.integer('step') ?? 0,
    model: message.text('model_id') || undefined,
    datasetName: message.text('dataset_name'),
    datasetDigest: message.text('dataset_digest'),
  }
}

function checkBatch({ metrics, params, tags }: { metrics: unknown[]; params: unknown[]; tags: unknown[] }): void {
  const limit = (what: string, count: number, most: number) => {
    if (count > most) throw new Failure('mlflow_parameter', { problem: `A batch may hold at most ${most} ${what}; this one has ${count}.` })
  }
  limit('metrics', metrics.length, 1000)
  limit('params', params.length, 100)
  limit('tags', tags.length, 100)
  limit('entries', metrics.length + params.length + tags.length, 1000)
}

// ── as MLflow calls it ──────────────────────────────────────────────────────────────────────────────────────────────────────

const toMlflow: Record<RunStatus, string> = {
  queued: 'SCHEDULED',
  starting: 'SCHEDULED',
  setting_up: 'SCHEDULED',
  running: 'RUNNING',
  stopping: 'RUNNING',
  succeeded: 'FINISHED',
  failed: 'FAILED',
  cancelled: 'KILLED',
}
const fromMlflow = new Map<string, RunStatus>([
  ['RUNNING', 'running'],
  ['SCHEDULED', 'queued'],
  ['FINISHED', 'succeeded'],
  ['FAILED', 'failed'],
  ['KILLED', 'cancelled'],
])
function statusOf(message: Message): RunStatus | undefined {
  const word = message.text('status')
  if (word === undefined) return undefined
  const status = fromMlflow.get(word)
  if (!status) throw new Failure('mlflow_parameter', { problem: `Invalid value ${JSON.stringify(word)} for parameter 'status' supplied.` })
  return status
}

export const infoOf = (run: TrackedRun) =>
  compact({
    run_id: run.run,
    run_uuid: run.run,
    run_name: run.name,
    experiment_id: run.experiment,
    user_id: run.user,
    status: toMlflow[run.status],
    start_time: run.started,
    end_time: run.ended ?? undefined,
    artifact_uri: run.location,
    lifecycle_stage: run.deleted ? 'deleted' : 'active',
  })

async function asMlflowRuns(db: Db, runs: readonly TrackedRun[]) {
  const links = await linksOf(
    db,
    runs.map(({ number }) => number),
  )
  return runs.map(run => asMlflowRun(run, links.get(run.number)))
}

const asMlflowRun = (run: TrackedRun, links: RunLinks | undefined) => ({
  info: infoOf(run),
  data: compact({
    metrics: run.metrics.map(point => ({ ...point, value: wireNumber(point.value) })),
    params: pairs(run.params),
    tags: pairs(run.tags),
  }),
  inputs: compact({
    dataset_inputs: links?.datasets.map(({ tags, sourceType, ...dataset }) => ({
      tags,
      dataset: compact({ ...dataset, source_type: sourceType }),
    })),
    model_inputs: links?.inputs.map(model => ({ model_id: model })),
  }),
  outputs: compact({ model_outputs: links?.outputs.map(({ model, step }) => ({ model_id: model, step })) }),
})
