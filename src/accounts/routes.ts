/** Accounts as the contract calls them. */
import { type Route, route } from '../api/route.ts'
import type { Db } from '../db/open.ts'
import { calls } from '../sdk/calls/accounts.ts'
import { listAudit } from './audit.ts'
import { listTokens, makeToken, revokeToken } from './tokens.ts'
import { addUser, createProject, listProjects, listUsers, removeUser, setDisabled } from './users.ts'

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
  route(calls.addUser, ({ user, role }, { principal }) => addUser(db, principal, user, role)),
  route(calls.listUsers, async (_, { project }) => ({ items: await listUsers(db, project) })),
  route(calls.removeUser, async ({ user }, { principal }) => {
    await removeUser(db, principal, user)
    return {}
  }),
  route(calls.disableUser, ({ user }, { principal }) => setDisabled(db, principal, user, true)),
  route(calls.enableUser, ({ user }, { principal }) => setDisabled(db, principal, user, false)),
  route(calls.createToken, (input, { principal }) => makeToken(db, principal, input)),
  route(calls.listTokens, async (_, { principal }) => ({ items: await listTokens(db, principal) })),
  route(calls.revokeToken, ({ id }, { principal }) => revokeToken(db, principal, id)),
  route(calls.listAudit, (input, { project }) => listAudit(db, project, input)),
]
