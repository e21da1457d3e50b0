/** The registry in MLflow's words. */
import type { ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { deleteVersions } from '../../models/deletion.ts'
import { moveToStage, promote, takeAlias } from '../../models/promote.ts'
import {
  changeRegisteredVersion,
  createRegisteredModel,
  createRegisteredVersion,
  deleteRegisteredModelTag,
  deleteVersionTag,
  describeRegisteredModel,
  getRegisteredModel,
  getRegisteredVersion,
  latestVersions,
  type RegisteredModel,
  type RegisteredVersion,
  registeredModels,
  registeredVersions,
  renameRegisteredModel,
  setRegisteredModelTag,
  setVersionTag,
  stageNamed,
  versionByAlias,
} from '../../models/registered.ts'
import { runningDeployments } from '../deployments.ts'
import { type RegistrySearch, searchRegisteredModels, searchVersions } from '../search/registry.ts'
import { atMost, registryTagIn, tagsIn } from './limits.ts'
import { placeOfArtefact } from './model-files.ts'
import { isPrompt, noteVersion, originIn, placeOfVersion } from './origins.ts'
import { compact, limitIn, type Message, mlflowRoute, pairs, versionIn } from './wire.ts'

/** `home`: its folder. */
export const registryRoutes = (db: Db, home: string): ForeignRoute[] => {
  // aliases of what is deleted vanish there; what is being served stays
  const remove = (actor: { project: string; user: string }, name: string, version: number | null) =>
    deleteVersions({ path: home, db }, actor, { name, version, preview: false, aliases: 'go', deployments: () => runningDeployments(home) })
  const whole = async (project: string, model: RegisteredModel) => asMlflowModel(model, await latestVersions(db, project, model.name))
  return [
    // ── models ──
    ...mlflowRoute('POST', '/mlflow/registered-models/create', 'tracker', async (message, { project }) => {
      const model = await createRegisteredModel(db, project, {
        name: message.required('name'),
        description: message.text('description') ?? null,
        tags: tagsIn(message, registryTagIn),
      })
      return { registered_model: await whole(project, model) }
    }),
    ...mlflowRoute('GET', '/mlflow/registered-models/get', 'viewer', async (message, { project }) => ({
      registered_model: await whole(project, await getRegisteredModel(db, project, message.required('name'))),
    })),
    ...mlflowRoute('GET', '/mlflow/registered-models/search', 'viewer', async (message, { project }) => {
      const { ids, next } = await searchRegisteredModels(db, project, searchIn(message, { usual: 100, most: 1000 }))
      const models = await registeredModels(db, project, ids)
      return compact({ registered_models: await Promise.all(models.map(model => whole(project, model))), next_page_token: next })
    }),
    ...mlflowRoute('POST', '/mlflow/registered-models/rename', 'editor', async (message, { project, principal: { user } }) => ({
      registered_model: await whole(
        project,
        await renameRegisteredModel(db, { project, user }, message.required('name'), message.required('new_name')),
      ),
    })),
    ...mlflowRoute('PATCH', '/mlflow/registered-models/update', 'tracker', async (message, { project }) => ({
      registered_model: await whole(
        project,
        await describeRegisteredModel(db, project, message.required('name'), message.text('description') ?? ''),
      ),
    })),
    ...mlflowRoute('DELETE', '/mlflow/registered-models/delete', 'editor', async (message, { project, principal: { user } }) => {
      await remove({ project, user }, message.required('name'), null)
      return {}
    }),
    ...(['GET', 'POST'] as const).flatMap(method =>
      mlflowRoute(method, '/mlflow/registered-models/get-latest-versions', 'viewer', async (message, { project }) => {
        const name = message.required('name')
        await getRegisteredModel(db, project, name)
        const stages = message.texts('stages').map(stageNamed)
        return compact({
          model_versions: (await latestVersions(db, project, name, stages.length > 0 ? stages : undefined)).map(asMlflowVersion),
        })
      }),
    ),
    ...mlflowRoute('POST', '/mlflow/registered-models/set-tag', 'tracker', async (message, { project }) => {
      const { key, value } = registryTagIn(message)
      await setRegisteredModelTag(db, project, message.required('name'), key, value)
      return {}
    }),
    ...mlflowRoute('DELETE', '/mlflow/registered-models/delete-tag', 'editor', async (message, { project }) => {
      await deleteRegisteredModelTag(db, project, message.required('name'), message.required('key'))
      return {}
    }),
    // ── aliases ──
    ...mlflowRoute('POST', '/mlflow/registered-models/alias', 'editor', async (message, { project, principal: { user } }) => {
      const [name, alias, version] = [message.required('name'), message.required('alias'), versionIn(message)]
      await promote(db, { project, user }, { name, version, alias, reason: null })
      return {}
    }),
    ...mlflowRoute('DELETE', '/mlflow/registered-models/alias', 'editor', async (message, { project, principal: { user } }) => {
      await takeAlias(db, { project, user }, { name: message.required('name'), alias: message.required('alias'), reason: null })
      return {}
    }),
    ...mlflowRoute('GET', '/mlflow/registered-models/alias', 'viewer', async (message, { project }) => ({
      model_version: asMlflowVersion(await versionByAlias(db, project, message.required('name'), message.required('alias'))),
    })),
    // ── versions ──
    ...mlflowRoute('POST', '/mlflow/model-versions/create', 'tracker', async (message, { project, principal }) => {
      const name = message.required('name')
      const tags = tagsIn(message, registryTagIn)
      const origin = await originIn(db, project, message, isPrompt(tags))
      const version = await createRegisteredVersion(db, project, {
        ...{ name, ...origin, user: principal.user, tags, description: message.text('description') ?? null },
        runLink: runLinkIn(message),
      })
      if (origin.loggedModel) await noteVersion(db, project, origin.loggedModel, version)
      return { model_version: asMlflowVersion(version) }
    }),
    ...mlflowRoute('GET', '/mlflow/model-versions/get', 'viewer', async (message, { project }) => ({
      model_version: asMlflowVersion(await getRegisteredVersion(db, project, message.required('name'), versionIn(message))),
    })),
    ...mlflowRoute('GET', '/mlflow/model-versions/search', 'viewer', async (message, { project }) => {
      const { versions, next } = await searchVersions(db, project, newestFirst(searchIn(message, { usual: 200_000, most: 200_000 })))
      return compact({ model_versions: (await registeredVersions(db, project, versions)).map(asMlflowVersion), next_page_token: next })
    }),
    ...mlflowRoute('PATCH', '/mlflow/model-versions/update', 'tracker', async (message, { project }) => {
      const change = { description: message.text('description') ?? '' }
      return {
        model_version: asMlflowVersion(await changeRegisteredVersion(db, project, message.required('name'), versionIn(message), change)),
      }
    }),
    ...mlflowRoute('POST', '/mlflow/model-versions/transition-stage', 'editor', async (message, { project, principal: { user } }) => {
      const [name, version, stage] = [message.required('name'), versionIn(message), stageNamed(message.required('stage'))]
      const archive = message.boolean('archive_existing_versions') ?? false
      if (archive && stage !== 'Staging' && stage !== 'Production')
        throw new Failure('mlflow_parameter', {
          problem: `Existing versions can only be archived when a version goes to Staging or Production, not ${stage}.`,
        })
      return {
        model_version: asMlflowVersion(await moveToStage(db, { project, user }, { name, version, stage, archive, reason: null })),
      }
    }),
    ...mlflowRoute('DELETE', '/mlflow/model-versions/delete', 'editor', async (message, { project, principal: { user } }) => {
      await remove({ project, user }, message.required('name'), versionIn(message))
      return {}
    }),
    ...mlflowRoute('GET', '/mlflow/model-versions/get-download-uri', 'viewer', async (message, { project }) => {
      return {
        artifact_uri: await placeOfVersion(
          db,
          project,
          await getRegisteredVersion(db, project, message.required('name'), versionIn(message)),
        ),
      }
    }),
    ...mlflowRoute('POST', '/mlflow/model-versions/set-tag', 'tracker', async (message, { project }) => {
      const { key, value } = registryTagIn(message)
      await setVersionTag(db, project, message.required('name'), versionIn(message), key, value)
      return {}
    }),
    ...mlflowRoute('DELETE', '/mlflow/model-versions/delete-tag', 'editor', async (message, { project }) => {
      await deleteVersionTag(db, project, message.required('name'), versionIn(message), message.required('key'))
      return {}
    }),
  ]
}

const searchIn = (message: Message, limits: { usual: number; most: number }) => ({
  filter: message.text('filter') ?? '',
  orderBy: message.texts('order_by'),
  limit: limitIn(message, limits),
  after: message.text('page_token') || undefined,
})

/** As MLflow's server has it: scripts take the first one for the one that was worked on last. */
const newestFirst = (search: RegistrySearch): RegistrySearch =>
  search.orderBy.length > 0 ? search : { ...search, orderBy: ['last_updated_timestamp DESC', 'name ASC', 'version_number DESC'] }

/** Kept to be shown, and never followed. throws mlflow_parameter */
const runLinkIn = (message: Message): string | null => atMost('run_link', 500, message.text('run_link') ?? '') || null

// ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const asMlflowModel = ({ name, description, created, updated, tags, aliases }: RegisteredModel, latest: readonly RegisteredVersion[]) =>
  compact({
    name,
    creation_timestamp: created,
    last_updated_timestamp: updated,
    description,
    latest_versions: latest.map(asMlflowVersion),
    tags: pairs(tags),
    aliases: Object.entries(aliases).map(([alias, version]) => ({ alias, version: String(version) })),
  })

const asMlflowVersion = (version: RegisteredVersion) =>
  compact({
    name: version.name,
    version: String(version.version),
    creation_timestamp: version.created,
    last_updated_timestamp: version.updated,
    user_id: version.user,
    current_stage: version.stage,
    description: version.description,
    source: version.kind === 'artefact' ? placeOfArtefact(version) : version.source,
    run_id: version.run,
    run_link: version.runLink,
    status: 'READY',
    tags: pairs(version.tags),
    aliases: version.aliases,
    model_id: version.loggedModel,
  })
