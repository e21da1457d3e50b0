/** Experiments in MLflow's words. */
import type { ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import type { Experiment } from '../../sdk/calls/experiments.ts'
import {
  createExperiment,
  deleteExperiment,
  deleteExperimentTag,
  experimentsOf,
  getExperiment,
  getExperimentByName,
  renameExperiment,
  restoreExperiment,
  setExperimentTag,
} from '../experiments.ts'
import { searchExperiments } from '../search/experiments.ts'
import { compact, limitOf, type Message, mlflowRoute, pairs, viewOf } from './wire.ts'

export const experimentRoutes = (db: Db): ForeignRoute[] => [
  ...mlflowRoute('POST', '/mlflow/experiments/create', 'editor', async (message, { project }) => {
    const tags = Object.fromEntries(message.messages('tags').map(tag => [tag.required('key'), tag.text('value') ?? '']))
    const { experiment } = await createExperiment(db, project, { name: named(message, 'name'), tags })
    return { experiment_id: experiment }
  }),
  ...mlflowRoute('GET', '/mlflow/experiments/get', 'viewer', async (message, { project }) => ({
    experiment: asMlflowExperiment(await getExperiment(db, project, idOf(message))),
  })),
  ...mlflowRoute('GET', '/mlflow/experiments/get-by-name', 'viewer', async (message, { project }) => ({
    experiment: asMlflowExperiment(await getExperimentByName(db, project, message.required('experiment_name'))),
  })),
  ...(['GET', 'POST'] as const).flatMap(method =>
    mlflowRoute(method, '/mlflow/experiments/search', 'viewer', async (message, { project }) => {
      const { ids, next } = await searchExperiments(db, project, {
        filter: message.text('filter') ?? '',
        orderBy: message.texts('order_by'),
        view: viewOf(message.text('view_type')),
        limit: limitOf(message, { most: 50_000 }),
        after: message.text('page_token') || undefined,
      })
      return compact({ experiments: (await experimentsOf(db, ids)).map(asMlflowExperiment), next_page_token: next })
    }),
  ),
  ...mlflowRoute('POST', '/mlflow/experiments/update', 'editor', async (message, { project }) => {
    await renameExperiment(db, project, idOf(message), named(message, 'new_name'))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/delete', 'editor', async (message, { project }) => {
    await deleteExperiment(db, project, idOf(message))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/restore', 'editor', async (message, { project }) => {
    await restoreExperiment(db, project, idOf(message))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/set-experiment-tag', 'editor', async (message, { project }) => {
    await setExperimentTag(db, project, idOf(message), message.required('key'), (message.text('value') ?? '').slice(0, 5000))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/delete-experiment-tag', 'editor', async (message, { project }) => {
    await deleteExperimentTag(db, project, idOf(message), message.required('key'))
    return {}
  }),
]

/** An integer as text; anything else is no experiment's id. */
function idOf(message: Message): string {
  const id = message.required('experiment_id')
  if (!/^\d{1,15}$/.test(id))
    throw new Failure('mlflow_parameter', { problem: `Invalid experiment ID ${JSON.stringify(id)}: it must be an integer.` })
  return id
}

function named(message: Message, field: string): string {
  const name = message.required(field)
  if (name.length > 500)
    throw new Failure('mlflow_parameter', { problem: `The name of an experiment has at most 500 characters; this one has ${name.length}.` })
  return name
}

export const asMlflowExperiment = ({ experiment, name, location, created, updated, deleted, tags }: Experiment) =>
  compact({
    experiment_id: experiment,
    name,
    artifact_location: location,
    lifecycle_stage: deleted ? 'deleted' : 'active',
    creation_time: created,
    last_update_time: updated,
    tags: pairs(tags),
  })
