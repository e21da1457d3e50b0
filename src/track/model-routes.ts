/** The registry as the contract calls it: who answers which call. */
import { type Route, route } from '../api/route.ts'
import type { Db } from '../db/open.ts'
import { deleteVersions } from '../models/deletion.ts'
import { scoresOf } from '../models/gates.ts'
import { findVersions, lineageOf } from '../models/lineage.ts'
import { promote, takeAlias } from '../models/promote.ts'
import { getRegisteredModel, registeredModels, renameRegisteredModel, versionByAlias, versionDetails } from '../models/registered.ts'
import { calls } from '../sdk/calls/models.ts'
import { runningDeployments } from './deployments.ts'
import { searchRegisteredModels } from './search/registry.ts'

/** `home`: its folder. */
export const modelRoutes = (db: Db, home: string): Route[] => {
  const remove = (actor: { project: string; user: string }, name: string, version: number | null, preview: boolean) =>
    deleteVersions({ path: home, db }, actor, { name, version, preview, deployments: () => runningDeployments(home) })
  const found = async (project: string, name: string, version: string) =>
    /^\d{1,9}$/.test(version) ? Number(version) : (await versionByAlias(db, project, name, version)).version
  return [
    route(calls.listModels, async ({ filter, limit, after }, { project }) => {
      const { ids, next } = await searchRegisteredModels(db, project, { filter, orderBy: [], limit, after })
      return { items: await registeredModels(db, project, ids), next: next ?? null }
    }),
    route(calls.getModel, ({ name }, { project }) => getRegisteredModel(db, project, name)),
    route(calls.listVersions, async (query, { project }) => {
      const { items, next } = await findVersions(db, project, query)
      return { items: await versionDetails(db, project, items), next }
    }),
    route(calls.getVersion, async ({ name, version: asked }, { project }) => {
      const version = await found(project, name, asked)
      const [details] = await versionDetails(db, project, [{ name, version }], { required: true })
      return { ...details!, testSets: await scoresOf(db, project, name, version) }
    }),
    route(calls.getLineage, async ({ name, version }, { project }) => lineageOf(db, project, name, await found(project, name, version))),
    route(calls.promoteModel, (move, { project, principal: { user } }) => promote(db, { project, user }, move)),
    route(calls.removeAlias, async ({ name, alias, reason = null }, { project, principal: { user } }) => {
      await takeAlias(db, { project, user }, { name, alias, reason })
      return {}
    }),
    route(calls.renameModel, ({ name, to }, { project, principal: { user } }) => renameRegisteredModel(db, { project, user }, name, to)),
    route(calls.deleteVersion, async ({ name, version, preview }, { project, principal: { user } }) => ({
      ...(await remove({ project, user }, name, version, preview)),
      deleted: !preview,
    })),
    route(calls.deleteModel, async ({ name, preview }, { project, principal: { user } }) => ({
      ...(await remove({ project, user }, name, null, preview)),
      deleted: !preview,
    })),
  ]
}
