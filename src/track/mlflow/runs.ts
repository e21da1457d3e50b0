/** Runs and what they log, in MLflow's words. */
import type { ForeignRoute } from '../../api/route.ts'
import { recorded } from '../../db/audit.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import type { Batch, RunLog } from '../log.ts'
import type { Reads } from '../reads.ts'
import { createTrackedRun, deleteRunTag, getTrackedRun, nameTag, setDeleted, setRunTag, updateTrackedRun } from '../tracked-runs.ts'
import { keyIn, paramIn, tagIn } from './limits.ts'
import { asMlflowRun, asMlflowRuns, foundRuns, infoOf, statuses } from './run-words.ts'
import { experimentIn, limitIn, type Message, mlflowRoute, viewIn, wrongParameter } from './wire.ts'

export const runRoutes = (db: Db, log: RunLog, reads: Reads): ForeignRoute[] => [
  ...mlflowRoute('POST', '/mlflow/runs/create', 'tracker', async (message, { project, principal }) => {
    const run = await createTrackedRun(db, project, {
      experiment: experimentIn(message, '0'),
      name: message.text('run_name'),
      user: message.text('user_id') || principal.user,
      started: message.integer('start_time') || undefined,
      tags: message.messages('tags').map(tagIn),
    })
    const { outputs: _, ...created } = asMlflowRun(run, undefined)
    return { run: created }
  }),
  ...mlflowRoute('GET', '/mlflow/runs/get', 'viewer', async (message, { project }) => ({
    run: (await asMlflowRuns(db, [await getTrackedRun(db, project, runIn(message))]))[0],
  })),
  ...mlflowRoute('POST', '/mlflow/runs/update', 'tracker', async (message, { project }) => {
    const run = await updateTrackedRun(db, project, runIn(message), {
      name: message.text('run_name'),
      status: message.word('status', statuses),
      ended: message.integer('end_time'),
    })
    return { run_info: infoOf(run) }
  }),
  ...mlflowRoute('POST', '/mlflow/runs/delete', 'editor', async (message, { project, principal: { user } }) => {
    const run = runIn(message)
    await recorded(db, { project, user, action: 'runs.delete', subject: run }, transaction => setDeleted(transaction, project, run, true))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/restore', 'editor', async (message, { project }) => {
    await setDeleted(db, project, runIn(message), false)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/search', 'viewer', (message, { project }) =>
    reads.ask(foundRuns, project, {
      experiments: message.texts('experiment_ids'),
      filter: message.text('filter') ?? '',
      orderBy: message.texts('order_by'),
      view: viewIn(message, 'run_view_type'),
      limit: limitIn(message, { usual: 1000, most: 50_000 }),
      after: message.text('page_token') || undefined,
    }),
  ),
  ...mlflowRoute('POST', '/mlflow/runs/log-metric', 'tracker', async (message, { project }) => {
    await log.log({ project, run: runIn(message), metrics: [metricIn(message)], params: [], tags: [] })
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/log-parameter', 'tracker', async (message, { project }) => {
    await written(log, { project, run: runIn(message), metrics: [], params: [paramIn(message)], tags: [] }, asOneParam)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/set-tag', 'tracker', async (message, { project }) => {
    const { key, value } = tagIn(message)
    await setRunTag(db, project, runIn(message), key, value)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/delete-tag', 'tracker', async (message, { project }) => {
    await deleteRunTag(db, project, runIn(message), message.required('key'))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/log-batch', 'tracker', async (message, { project }) => {
    const run = runIn(message)
    const tags = message.messages('tags').map(tagIn)
    const batch = { metrics: message.messages('metrics').map(metricIn), params: message.messages('params').map(paramIn), tags }
    checkBatch(batch)
    await written(log, { project, run, ...batch }, asParamsOfBatch)
    const name = tags.findLast(({ key }) => key === nameTag)
    if (name) await setRunTag(db, project, run, nameTag, name.value) // the name of the run, in another place
    return {}
  }),
]

export const runIn = (message: Message) => message.text('run_id') || message.text('run_uuid') || message.required('run_id')

function metricIn(message: Message) {
  const key = keyIn(message)
  const value = message.number('value') ?? message.missing('value')
  const timestamp = message.integer('timestamp') ?? message.missing('timestamp')
  if (timestamp < 0) message.wrong('timestamp', `metric '${key}' (value=${value}). Timestamp must be a nonnegative long (64-bit integer).`)
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

function checkBatch({ metrics, params, tags }: Pick<Batch, 'metrics' | 'params' | 'tags'>): void {
  const limit = (what: string, count: number, most: number) => {
    if (count > most)
      throw wrongParameter(
        `A batch logging request can contain at most ${most} ${what}. Got ${count} ${what}. Please split up ${what} across multiple requests and try again.`,
      )
  }
  limit('metrics', metrics.length, 1000)
  limit('params', params.length, 100)
  limit('tags', tags.length, 100)
  limit('metrics, params, and tags', metrics.length + params.length + tags.length, 1000)
  const names = params.map(({ key }) => key)
  const twice = names.filter((key, i) => names.indexOf(key) < i)
  if (twice.length > 0)
    throw wrongParameter(
      `Duplicate parameter keys have been submitted: ${asList(twice)}. Please ensure the request contains only one param value per param key.`,
    )
}

type Changed = Record<'run' | 'key' | 'old' | 'value', unknown>
/** Clients look for these very words when a param is given another value. */
const asOneParam = ({ run, key, old, value }: Changed) =>
  `Changing param values is not allowed. Param with key='${key}' was already logged with value='${old}' for run ID='${run}'. Attempted logging new value '${value}'.`
const asParamsOfBatch = ({ run, key, old, value }: Changed) =>
  `Changing param values is not allowed. Params were already logged='[{'key': '${key}', 'old_value': '${old}', 'new_value': '${value}'}]' for run ID='${run}'.`
const asList = (texts: readonly string[]) => `[${texts.map(text => `'${text}'`).join(', ')}]`

async function written(log: RunLog, batch: Batch, told: (details: Changed) => string): Promise<void> {
  try {
    await log.log(batch)
  } catch (error) {
    if (error instanceof Failure && error.code === 'param_changed') throw wrongParameter(told(error.details as Changed))
    throw error
  }
}
