/** The composition root of `plinth up`: one process that tracks runs and keeps models, behind one HTTP application. */
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { ownerToken } from './accounts/owner.ts'
import { accountRoutes } from './accounts/routes.ts'
import { authenticate } from './accounts/tokens.ts'
import { asAnswer, createApp } from './api/app.ts'
import { isLoopback } from './api/guards.ts'
import { send } from './api/http.ts'
import { openApi, openApiPage } from './api/openapi.ts'
import { pageOf } from './api/page.ts'
import { type ForeignRoute, type Route, route } from './api/route.ts'
import { home as homePath, version } from './config.ts'
import type { Home } from './db/home.ts'
import { Failure } from './failure.ts'
import { calls } from './sdk/calls/index.ts'
import { diskObjects } from './storage/disk-objects.ts'
import type { Objects } from './storage/objects.ts'
import { openHome as openHomeAt } from './track/home.ts'
import { createRunLog, type RunLog } from './track/log.ts'
import { mlflowRoutes } from './track/mlflow/routes.ts'
import { startReaper } from './track/reaper.ts'
import { trackingRoutes } from './track/routes.ts'

export const openHome = (): Promise<Home> => openHomeAt(homePath())

export interface ControlPlane {
  url: string
  /** The owner's, for this machine. */
  token: string
  close(): Promise<void>
}

export async function startControlPlane(home: Home, { host, port }: { host: string; port: number }): Promise<ControlPlane> {
  const loopback = isLoopback(host)
  if (!loopback) throw new Failure('host_not_safe', { host })
  const token = await ownerToken(home)
  const log = createRunLog(home.db)
  const app = createApp({
    routes: routesOf(home, log),
    foreign: foreignRoutesOf(home, log, diskObjects(join(home.path, 'artifacts'))),
    authenticate: authorization => authenticate(home.db, authorization),
    loopback,
  })
  await app.listen({ host, port })
  const stopReaper = startReaper(home, () => {})
  const { port: bound } = app.server.address() as AddressInfo
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    token,
    close: async () => {
      await app.close()
      await log.close()
      await stopReaper()
    },
  }
}

/** Every call of the contract and who answers it. */
export const routesOf = ({ db }: Pick<Home, 'db'>, log: RunLog): Route[] => [
  route(calls.getServer, (_, { principal: { user, project, role, owner } }) => ({ version, user, project, role: owner ? 'owner' : role })),
  ...accountRoutes(db),
  ...trackingRoutes(db, log),
]

/** What is asked in other languages than ours: health checks, MLflow's REST, artifacts. */
export const foreignRoutesOf = ({ db }: Pick<Home, 'db'>, log: RunLog, objects: Objects): ForeignRoute[] => [
  ...['/healthz', '/health'].map(
    (path): ForeignRoute => ({
      method: 'GET',
      path,
      right: 'public',
      body: 'none',
      answer: () => 'OK',
      failed: () => ({ status: 500, body: 'not OK' }),
    }),
  ),
  { method: 'GET', path: '/api/openapi.json', right: 'viewer', body: 'none', answer: () => openApi(calls, version), failed: asAnswer },
  {
    method: 'GET',
    path: '/api',
    right: 'viewer',
    body: 'none',
    failed: asAnswer,
    answer: ({ response }) => {
      const { html, headers } = pageOf(openApiPage(calls, version))
      send(response, 200, 'text/html; charset=utf-8', html, headers)
      return null
    },
  },
  ...mlflowRoutes({ db, log, objects }),
]
