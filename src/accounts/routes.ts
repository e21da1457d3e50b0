/** Accounts as the contract calls them. */
import { type Route, route } from '../api/route.ts'
import type { Db } from '../db/open.ts'
import { calls } from '../sdk/calls/accounts.ts'
import { listAudit } from './audit.ts'
import { listTokens, makeToken, revokeToken } from './tokens.ts'
import { addUser, createProject, inProject, listProjects, listUsers, removeUser, setDisabled } from './users.ts'

/** `changed` is called after each call that may have changed who may do what. */
export const accountRoutes = (db: Db, changed: () => void): Route[] =>
  routes(db).map(({ call, answer }) => ({
    call,
    answer: async (input, context) => {
      try {
        return await answer(input, context)
      } finally {
        if (call.method !== 'GET') changed()
      }
    },
  }))

const routes = (db: Db): Route[] => [
  route(calls.createProject, ({ project }, { principal }) => createProject(db, principal, project)),
  route(calls.listProjects, async (_, { principal }) => ({ items: await listProjects(db, principal) })),
  route(calls.addUser, async ({ user, role, project }, { principal }) =>
    addUser(db, await inProject(db, principal, project, 'admin'), user, role),
  ),
  route(calls.listUsers, async ({ project }, { principal }) => ({
    items: await listUsers(db, (await inProject(db, principal, project, 'viewer')).project),
  })),
  route(calls.removeUser, async ({ user, project }, { principal }) => {
    await removeUser(db, await inProject(db, principal, project, 'admin'), user)
    return {}
  }),
  route(calls.disableUser, ({ user }, { principal }) => setDisabled(db, principal, user, true)),
  route(calls.enableUser, ({ user }, { principal }) => setDisabled(db, principal, user, false)),
  route(calls.createToken, async ({ project, ...input }, { principal }) =>
    makeToken(db, await inProject(db, principal, project, 'viewer'), input),
  ),
  route(calls.listTokens, async ({ project }, { principal }) => ({
    items: await listTokens(db, await inProject(db, principal, project, 'viewer')),
  })),
  route(calls.revokeToken, async ({ id, project }, { principal }) =>
    revokeToken(db, await inProject(db, principal, project, 'viewer'), id),
  ),
  route(calls.listAudit, async ({ project, ...input }, { principal }) =>
    listAudit(db, (await inProject(db, principal, project, 'admin')).project, input),
  ),
]
