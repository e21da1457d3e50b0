/** Experiments in MLflow's words. */
import type { ForeignRoute } from '../../api/route.ts'
import { recorded } from '../../db/audit.ts'
import type { Db } from '../../db/open.ts'
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
import { atMost, experimentTagIn, tagsIn } from './limits.ts'
import { compact, experimentIn, limitIn, type Message, mlflowRoute, pairs, viewIn, wrongParameter } from './wire.ts'

export const experimentRoutes = (db: Db): ForeignRoute[] => [
  ...mlflowRoute('POST', '/mlflow/experiments/create', 'tracker', async (message, { project }) => {
    const tags = tagsIn(message, experimentTagIn)
    const { experiment } = await createExperiment(db, project, { name: nameIn(message, 'name'), tags, location: locationIn(message) })
    return { experiment_id: experiment }
  }),
  ...mlflowRoute('GET', '/mlflow/experiments/get', 'viewer', async (message, { project }) => ({
    experiment: asMlflowExperiment(await getExperiment(db, project, experimentIn(message))),
  })),
  ...mlflowRoute('GET', '/mlflow/experiments/get-by-name', 'viewer', async (message, { project }) => ({
    experiment: asMlflowExperiment(await getExperimentByName(db, project, message.required('experiment_name'))),
  })),
  ...(['GET', 'POST'] as const).flatMap(method =>
    mlflowRoute(method, '/mlflow/experiments/search', 'viewer', async (message, { project }) => {
      const { ids, next } = await searchExperiments(db, project, {
        filter: message.text('filter') ?? '',
        orderBy: message.texts('order_by'),
        view: viewIn(message, 'view_type'),
        limit: limitIn(message, { most: 50_000 }),
        after: message.text('page_token') || undefined,
      })
      return compact({ experiments: (await experimentsOf(db, ids)).map(asMlflowExperiment), next_page_token: next })
    }),
  ),
  ...mlflowRoute('POST', '/mlflow/experiments/update', 'editor', async (message, { project }) => {
    await renameExperiment(db, project, experimentIn(message), nameIn(message, 'new_name'))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/delete', 'editor', async (message, { project, principal: { user } }) => {
    const experiment = experimentIn(message)
    await recorded(db, { project, user, action: 'experiments.delete', subject: experiment }, transaction =>
      deleteExperiment(transaction, project, experiment),
    )
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/restore', 'editor', async (message, { project }) => {
    await restoreExperiment(db, project, experimentIn(message))
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/set-experiment-tag', 'tracker', async (message, { project }) => {
    const { key, value } = experimentTagIn(message)
    await setExperimentTag(db, project, experimentIn(message), key, value)
    return {}
  }),
  ...mlflowRoute('POST', '/mlflow/experiments/delete-experiment-tag', 'editor', async (message, { project }) => {
    await deleteExperimentTag(db, project, experimentIn(message), message.required('key'))
    return {}
  }),
]

const nameIn = (message: Message, field: string) => atMost('name', 500, message.required(field))

/**
 * A place of the client's own (s3://…) is kept as text and never opened here. One inside this server's artifacts is ours to choose: the
 * experiment gets its own folder there, like every other.
 */
function locationIn(message: Message): string | undefined {
  const location = message.text('artifact_location')?.trim()
  if (!location || /^mlflow-artifacts:/i.test(location)) return undefined
  if (/#/.test(location)) throw wrongParameter("'artifact_location' URL can't include fragments or params.")
  if (/(^|[/\\])\.\.([/\\]|$)/.test(location.replaceAll(/%2e/gi, '.').replaceAll(/%2f/gi, '/')))
    message.wrong('artifact_location', 'it must not contain relative references.')
  return atMost('artifact_location', 2048, location).replace(/\/+$/, '')
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
