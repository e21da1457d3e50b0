/** Logged models, and what runs used and made, in MLflow's words. */
import { isDeepStrictEqual } from 'node:util'
import type { ForeignRoute } from '../../api/route.ts'
import { recorded } from '../../db/audit.ts'
import type { Db } from '../../db/open.ts'
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
import { inventedName } from '../run-names.ts'
import { searchLoggedModels } from '../search/logged-models.ts'
import { getTrackedRun, setRunTag } from '../tracked-runs.ts'
import { atMost } from './limits.ts'
import { runIn } from './runs.ts'
import { compact, enumeration, experimentIn, limitIn, type Message, mlflowRoute, pairs, wireNumber, wrongParameter } from './wire.ts'

export const loggedModelRoutes = (db: Db): ForeignRoute[] => [
  ...mlflowRoute('POST', '/mlflow/logged-models', 'tracker', async (message, { project }) => ({
    model: asMlflowModel(
      await createLoggedModel(db, project, {
        model: ownIdIn(message),
        experiment: experimentIn(message),
        name: nameIn(message),
        type: message.text('model_type') ?? null,
        run: message.text('source_run_id') || null,
        params: message.messages('params').map(pairIn),
        tags: message.messages('tags').map(pairIn),
      }),
    ),
  })),
  ...mlflowRoute('GET', '/mlflow/logged-models/:model_id', 'viewer', async (message, { project }) => ({
    model: asMlflowModel(await getLoggedModel(db, project, message.required('model_id'))),
  })),
  ...mlflowRoute('PATCH', '/mlflow/logged-models/:model_id', 'tracker', async (message, { project }) => {
    const status = message.word('status', statuses) ?? message.missing('status')
    return {
      model: asMlflowModel(
        await setLoggedModelStatus(db, project, message.required('model_id'), status, message.text('status_message') ?? null),
      ),
    }
  }),
  ...mlflowRoute('DELETE', '/mlflow/logged-models/:model_id', 'editor', async (message, { project, principal: { user } }) => {
    const model = message.required('model_id')
    await recorded(db, { project, user, action: 'logged_models.delete', subject: model }, transaction =>
      deleteLoggedModel(transaction, project, model),
    )
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
      limit: limitIn(message, { usual: 50, most: 50_000 }),
      after: message.text('page_token') || undefined,
    })
    return compact({ models: (await loggedModels(db, ids)).map(asMlflowModel), next_page_token: next })
  }),
  ...mlflowRoute('PATCH', '/mlflow/logged-models/:model_id/tags', 'tracker', async (message, { project }) => ({
    model: asMlflowModel(await setLoggedModelTags(db, project, message.required('model_id'), message.messages('tags').map(pairIn))),
  })),
  ...mlflowRoute('DELETE', '/mlflow/logged-models/:model_id/tags/:tag_key', 'editor', async (message, { project }) => {
    await deleteLoggedModelTag(db, project, message.required('model_id'), message.required('tag_key'))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/logged-models/:model_id/params', 'tracker', async (message, { project }) => {
    await logLoggedModelParams(db, project, message.required('model_id'), message.messages('params').map(pairIn))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/outputs', 'tracker', async (message, { project }) => {
    const models = message.messages('models').map(model => ({ model: model.required('model_id'), step: model.integer('step') ?? 0 }))
    await logOutputs(db, project, runIn(message), models)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/runs/log-inputs', 'tracker', async (message, { project }) => {
    const models = message.messages('models').map(model => model.required('model_id'))
    await logInputs(db, project, runIn(message), { datasets: message.messages('datasets').map(datasetIn), models })
    return {}
  }),
  // what clients before 3.0 say instead of making a logged model
  ...mlflowRoute('POST', '/mlflow/runs/log-model', 'tracker', async (message, { project }) => {
    const run = runIn(message)
    const info = modelInfoIn(message)
    const { tags } = await getTrackedRun(db, project, run)
    const before = parsed(tags[historyTag] ?? '[]') // a script may have written anything there
    const history = Array.isArray(before) ? before : []
    // told again after an answer that got lost
    if (!history.some(each => isDeepStrictEqual(each, info)))
      await setRunTag(db, project, run, historyTag, JSON.stringify([...history, info]))
    return {}
  }),
]

const historyTag = 'mlflow.log-model.history'

function modelInfoIn(message: Message): object {
  const text = message.required('model_json')
  const info = parsed(text)
  if (info === null || typeof info !== 'object' || Array.isArray(info))
    throw wrongParameter(`Malformed model info. \n ${text.slice(0, 200)} \n is not a valid JSON.`)
  const lacking = ['artifact_path', 'flavors', 'utc_time_created', 'run_id'].filter(field => !Object.hasOwn(info, field))
  if (lacking.length > 0) throw wrongParameter(`Model json is missing mandatory fields: ${lacking.join(', ')}`)
  return info
}
function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function datasetIn(input: Message) {
  const dataset = input.message('dataset')
  const optional = (field: string, most: number) => {
    const text = dataset.text(field)
    return text === undefined ? null : atMost(field, most, text)
  }
  return {
    name: atMost('name', 500, dataset.required('name')),
    digest: atMost('digest', 36, dataset.required('digest')),
    sourceType: dataset.required('source_type'),
    source: atMost('source', 65_535, dataset.required('source')),
    schema: optional('schema', 1_048_575),
    profile: optional('profile', 16_777_215),
    tags: input
      .messages('tags')
      .map(tag => ({ key: atMost('key', 255, tag.required('key')), value: atMost('value', 500, tag.text('value') ?? '') })),
  }
}

/** Ours alone: plinth-spool names the model before any server has heard of it, and may have to say it twice. */
function ownIdIn(message: Message): string | undefined {
  const id = message.text('model_id') || undefined
  if (id !== undefined && !/^m-[0-9a-f]{32}$/.test(id)) message.wrong('model_id', 'it must be m- and 32 lower-case hexadecimal digits.')
  return id
}

function nameIn(message: Message): string {
  const name = message.text('name') || inventedName()
  if (/[/:.%"']/.test(name))
    throw wrongParameter(
      `Invalid model name ('${name.slice(0, 200)}') provided. Model name must be a non-empty string and cannot contain the following characters: ('/', ':', '.', '%', '"', "'")`,
    )
  return atMost('name', 500, name)
}

/** Keys of models' params and tags are free; only their length is bounded. */
const pairIn = (message: Message) => ({
  key: atMost('key', 250, message.required('key')),
  value: atMost('value', 100_000, message.text('value') ?? ''),
})

const statuses = enumeration<LoggedModelStatus>([
  ['LOGGED_MODEL_PENDING', 1, 'pending'],
  ['LOGGED_MODEL_READY', 2, 'ready'],
  ['LOGGED_MODEL_UPLOAD_FAILED', 3, 'upload_failed'],
])
const toMlflow = Object.fromEntries([...statuses].map(([word, { means }]) => [means, word])) as Record<LoggedModelStatus, string>

const asMlflowModel = (model: LoggedModel) => ({
  info: compact({
    model_id: model.model,
    experiment_id: model.experiment,
    name: model.name,
    creation_timestamp_ms: model.created,
    last_updated_timestamp_ms: model.updated,
    artifact_uri: model.location,
    status: toMlflow[model.status],
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
