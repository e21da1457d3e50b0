/** Logged models, and what runs used and made, in MLflow's words. */
import type { ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import type { Objects } from '../../storage/objects.ts'
import {
  createLoggedModel,
  deleteLoggedModel,
  deleteLoggedModelTag,
  getLoggedModel,
  type LoggedModel,
  type LoggedModelStatus,
  loggedModels,
  logLoggedModelParams,
  setLoggedModelStatus,
  setLoggedModelTags,
} from '../logged-models.ts'
import { logInputs, logOutputs } from '../run-links.ts'
import { searchLoggedModels } from '../search/logged-models.ts'
import { getTrackedRun, setRunTag } from '../tracked-runs.ts'
import { filesIn, joined, placeOf } from './artifacts.ts'
import { compact, limitOf, type Message, mlflowRoute, pairOf, pairs, wireNumber } from './wire.ts'

export const loggedModelRoutes = (db: Db, objects: Objects): ForeignRoute[] => [
  ...mlflowRoute('POST', '/mlflow/logged-models', 'editor', async (message, { project }) => ({
    model: asMlflowModel(
      await createLoggedModel(db, project, {
        experiment: message.required('experiment_id'),
        name: named(message.text('name') || 'model'),
        type: message.text('model_type') ?? null,
        run: message.text('source_run_id') || null,
        params: message.messages('params').map(pairOf),
        tags: message.messages('tags').map(pairOf),
      }),
    ),
  })),
  ...mlflowRoute('GET', '/mlflow/logged-models/:model_id', 'viewer', async (message, { project }) => ({
    model: asMlflowModel(await getLoggedModel(db, project, message.required('model_id'))),
  })),
  ...mlflowRoute('PATCH', '/mlflow/logged-models/:model_id', 'editor', async (message, { project }) => {
    const status = fromMlflow(message)
    return {
      model: asMlflowModel(
        await setLoggedModelStatus(db, project, message.required('model_id'), status, message.text('status_message') ?? null),
      ),
    }
  }),
  ...mlflowRoute('DELETE', '/mlflow/logged-models/:model_id', 'editor', async (message, { project }) => {
    await deleteLoggedModel(db, project, message.required('model_id'))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/logged-models/search', 'viewer', async (message, { project }) => {
    const dataset = (each: Message) => ({ name: each.required('dataset_name'), digest: each.text('dataset_digest') || null })
    const { ids, next } = await searchLoggedModels(db, project, {
      experiments: message.texts('experiment_ids'),
      filter: message.text('filter') ?? '',
      orderBy: message.messages('order_by').map(order => ({
        field: order.required('field_name'),
        ascending: order.boolean('ascending') ?? true,
        dataset: order.text('dataset_name') ? dataset(order) : null,
      })),
      datasets: message.messages('datasets').map(dataset),
      limit: limitOf(message, { usual: 50, most: 50_000 }),
      after: message.text('page_token') || undefined,
    })
    return compact({ models: (await loggedModels(db, ids)).map(asMlflowModel), next_page_token: next })
  }),
  ...mlflowRoute('PATCH', '/mlflow/logged-models/:model_id/tags', 'editor', async (message, { project }) => ({
    model: asMlflowModel(await setLoggedModelTags(db, project, message.required('model_id'), message.messages('tags').map(pairOf))),
  })),
  ...mlflowRoute('DELETE', '/mlflow/logged-models/:model_id/tags/:tag_key', 'editor', async (message, { project }) => {
    await deleteLoggedModelTag(db, project, message.required('model_id'), message.required('tag_key'))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/logged-models/:model_id/params', 'editor', async (message, { project }) => {
    await logLoggedModelParams(db, project, message.required('model_id'), message.messages('params').map(pairOf))
    return {}
  }),
  ...mlflowRoute('GET', '/mlflow/logged-models/:model_id/artifacts/directories', 'viewer', async (message, { project }) => {
    const { location } = await getLoggedModel(db, project, message.required('model_id'))
    const folder = message.text('artifact_directory_path') ?? ''
    const own = placeOf(location)
    return compact({ root_uri: location, files: own === null ? [] : await filesIn(objects, joined(own, folder), folder) })
  }),
  ...mlflowRoute('POST', '/mlflow/runs/outputs', 'editor', async (message, { project }) => {
    const models = message.messages('models').map(model => ({ model: model.required('model_id'), step: model.integer('step') ?? 0 }))
    await logOutputs(db, project, message.required('run_id'), models)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/log-inputs', 'editor', async (message, { project }) => {
    const models = message.messages('models').map(model => model.required('model_id'))
    await logInputs(db, project, message.required('run_id'), { datasets: message.messages('datasets').map(datasetIn), models })
    return {}
  }),
  // what clients before 3.0 say instead of making a logged model
  ...mlflowRoute('POST', '/mlflow/runs/log-model', 'editor', async (message, { project }) => {
    const run = message.required('run_id')
    const { tags } = await getTrackedRun(db, project, run)
    const before = JSON.parse(tags[historyTag] ?? '[]') as unknown[]
    await setRunTag(db, project, run, historyTag, JSON.stringify([...before, jsonIn(message.required('model_json'))]))
    return {}
  }),
]

const historyTag = 'mlflow.log-model.history'

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new Failure('mlflow_parameter', { problem: "Malformed model info in parameter 'model_json': it is no JSON." })
  }
}

function datasetIn(input: Message) {
  const dataset = input.message('dataset')
  return {
    name: dataset.required('name').slice(0, 500),
    digest: dataset.required('digest').slice(0, 36),
    sourceType: dataset.required('source_type'),
    source: dataset.required('source'),
    schema: dataset.text('schema') ?? null,
    profile: dataset.text('profile') ?? null,
    tags: input.messages('tags').map(pairOf),
  }
}

function named(name: string): string {
  if (/[/:.%"']/.test(name))
    throw new Failure('mlflow_parameter', { problem: `Invalid model name ${JSON.stringify(name)}: it may not contain / : . % " '.` })
  return name
}

const statuses: Record<LoggedModelStatus, string> = {
  pending: 'LOGGED_MODEL_PENDING',
  ready: 'LOGGED_MODEL_READY',
  upload_failed: 'LOGGED_MODEL_UPLOAD_FAILED',
}
function fromMlflow(message: Message): LoggedModelStatus {
  const word = message.required('status')
  const found = Object.entries(statuses).find(([, there]) => there === word)
  if (!found) throw new Failure('mlflow_parameter', { problem: `Invalid value ${JSON.stringify(word)} for parameter 'status' supplied.` })
  return found[0] as LoggedModelStatus
}

const asMlflowModel = (model: LoggedModel) => ({
  info: compact({
    model_id: model.model,
    experiment_id: model.experiment,
    name: model.name,
    creation_timestamp_ms: model.created,
    last_updated_timestamp_ms: model.updated,
    artifact_uri: model.location,
    status: statuses[model.status],
    model_type: model.type,
    source_run_id: model.run,
    status_message: model.message,
    tags: pairs(model.tags),
  }),
  data: compact({
    params: pairs(model.params),
    metrics: model.metrics.map(({ key, value, timestamp, step, run, datasetName, datasetDigest }) =>
      compact({
        key,
        value: wireNumber(value),
        timestamp,
        step,
        model_id: model.model,
        run_id: run,
        dataset_name: datasetName || null,
        dataset_digest: datasetDigest || null,
      }),
    ),
  }),
})
