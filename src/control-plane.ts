/** The composition root of `plinth up`: one process that tracks runs and keeps models, behind one HTTP application. */
import { join } from 'node:path'
import type { Server as TlsServer } from 'node:tls'
import { serverAddress, storedToken } from './accounts/credentials.ts'
import { ownerAtHome, ownerToken, resetOwnerToken } from './accounts/owner.ts'
import { rememberPrincipals } from './accounts/remember.ts'
import { accountRoutes } from './accounts/routes.ts'
import { createSpoolAccess } from './accounts/spool-access.ts'
import { authenticate } from './accounts/tokens.ts'
import { asAnswer, createApp } from './api/app.ts'
import { isLoopback } from './api/guards.ts'
import { listen, send, urlHost } from './api/http.ts'
import { injectedFetch } from './api/inject.ts'
import { localClient } from './api/local-client.ts'
import { openApi, openApiPage } from './api/openapi.ts'
import { pageOf } from './api/page.ts'
import { type RateLimits, usualLimits } from './api/rate-limit.ts'
import { type ForeignRoute, type Route, route } from './api/route.ts'
import { readTls, renewTls, type TlsFiles } from './api/tls.ts'
import { configFolder, home as homePath, mlflowAuthorization, serverToken, serverUrl, version } from './config.ts'
import { isPostgres, showTarget } from './db/dialect.ts'
import type { Home } from './db/home.ts'
import { shrinkDatabase } from './db/size.ts'
import { Failure } from './failure.ts'
import { type Log, silentLog } from './monitoring/log.ts'
import { createServerMetrics } from './monitoring/metrics.ts'
import { gaugesOf, logRequest } from './monitoring/server.ts'
import { calls } from './sdk/calls/index.ts'
import { type Client, createClient } from './sdk/client.ts'
import { diskObjects } from './storage/disk-objects.ts'
import type { Objects } from './storage/objects.ts'
import type { BackupOptions } from './track/backup.ts'
import type { Garbage } from './track/gc.ts'
import { openHome as openHomeAt } from './track/home.ts'
import type { ImportOptions } from './track/importer/import.ts'
import { keeperOf } from './track/keeper.ts'
import { keepHome } from './track/lock.ts'
import { createRunLog, type RunLog } from './track/log.ts'
import { mlflowRoutes } from './track/mlflow/routes.ts'
import { modelRoutes } from './track/model-routes.ts'
import { openReaders } from './track/readers.ts'
import { type Reads, readHere } from './track/reads.ts'
import { startReaper } from './track/reaper.ts'
import type { RestoreOptions } from './track/restore.ts'
import { trackingRoutes } from './track/routes.ts'
import { mayBelongHere, startSpoolReplay } from './track/spool-replay.ts'
import { connectSpool } from './track/spool-send.ts'

export const openHome = (options?: { database?: string | undefined }): Promise<Home> => openHomeAt(homePath(), options)

export { openLog as serverLog } from './monitoring/log.ts'
export { listSpools, sendSpools } from './track/spool-replay.ts'

// read when they are called: the server starts without them
export const backUp = async (home: Home, to: string, options: BackupOptions) =>
  (await import('./track/backup.ts')).backUp(home, to, options)
export const restore = async (from: string, to: string, options: RestoreOptions) =>
  (await import('./track/restore.ts')).restore(from, to, options)
export const lookForGarbage = async (home: Home, options: { days: number }) => (await import('./track/gc.ts')).lookForGarbage(home, options)
/** Deletes it; the database's file shrinks only where no server needs it meanwhile. Answers the bytes freed. */
export const collectGarbage = async (home: Home, garbage: readonly Garbage[]): Promise<number> => {
  const freed = await (await import('./track/gc.ts')).collectGarbage(garbage)
  return (await keeperOf(home.path)) ? freed : freed + (await shrinkDatabase(home))
}
export const restoreRecords = async (copy: string, database: string) => (await import('./track/restore.ts')).restoreRecords(copy, database)
export const verifyBackup = async (from: string, options: RestoreOptions) => (await import('./track/restore.ts')).verify(from, options)

/** `from`: an MLflow, as in `openSource`. Over the home itself, with or without a server on it. */
export const importFromMlflow = async (
  home: Home,
  from: string,
  { artifacts, project, ...options }: Pick<ImportOptions, 'project' | 'signal' | 'onProgress'> & { artifacts: string | null },
) => {
  const { openSource } = await import('./track/importer/open.ts')
  const { importMlflow } = await import('./track/importer/import.ts')
  const source = await openSource(from, { artifacts, authorization: mlflowAuthorization(), signal: options.signal })
  try {
    return await importMlflow(source, { db: home.db, objects: diskObjects(join(home.path, 'artifacts')), project, ...options })
  } finally {
    source.close()
  }
}

export interface ControlPlaneOptions {
  host: string
  port: number
  /** A proxy that speaks TLS stands in front; then any name is answered. */
  behindProxy?: boolean
  /** Addresses and networks of proxies whose X-Forwarded headers are believed. */
  proxies?: readonly string[]
  tls?: TlsFiles
  log?: Log
  limits?: RateLimits
}
export interface ControlPlane {
  url: string
  /** The owner's, for this machine. */
  token: string
  /** Requests under way are answered first, for as long as `grace`; what runs logged is in the database before it resolves. */
  close(): Promise<void>
}

/** Milliseconds that requests under way have to end when the server is stopped. */
const grace = 20_000

/** Whether it may listen so, before a home is made or changed for it. throws host_not_safe, tls_unusable */
export function checkReach({ host, behindProxy = false, tls }: Pick<ControlPlaneOptions, 'host' | 'behindProxy' | 'tls'>) {
  if (!isLoopback(host) && !behindProxy && !tls) throw new Failure('host_not_safe', { host })
  return tls && readTls(tls)
}

/** throws host_not_safe, home_held, port_taken, port_refused, host_unknown, tls_unusable */
export async function startControlPlane(home: Home, options: ControlPlaneOptions): Promise<ControlPlane> {
  const { host, port, behindProxy = false, proxies = [], tls, log = silentLog, limits = usualLimits } = options
  const pair = checkReach(options)
  const keeping = await keepHome(home)
  const metrics = createServerMetrics()
  const written = createRunLog(home.db)
  let points = 0
  const runLog: RunLog = {
    log: async batch => {
      await written.log(batch)
      points += batch.metrics.length
    },
    close: written.close,
  }
  const onError = (error: unknown) => log.error('loop', { error })
  const token = await ownerToken(home)
  const spoolAccess = createSpoolAccess(home.db)
  const principals = rememberPrincipals(authorization => authenticate(home.db, authorization))
  const reads = isPostgres(home.target) ? readHere(home.db) : openReaders(home.db, home.target)
  const app = createApp({
    routes: routesOf(home, runLog, { reads, rightsChanged: principals.forget }),
    foreign: foreignRoutesOf(home, runLog, diskObjects(join(home.path, 'artifacts')), {
      reads,
      metrics: async () => metrics.text(await gaugesOf(home, { points, dropped: log.dropped })),
    }),
    authenticate: async authorization => spoolAccess.principal(authorization) ?? (await principals.authenticate(authorization)),
    limits,
    loopback: isLoopback(host) && !behindProxy,
    ...(proxies.length > 0 && { trustProxy: proxies }),
    ...(pair && { tls: pair }),
    onAnswered: request => {
      metrics.answered(request)
      logRequest(log, request)
    },
  })
  const stops: (() => Promise<void> | void)[] = []
  const close = async () => {
    // a connection that has had its answer would be kept for the next request
    const idle = setInterval(() => app.server.closeIdleConnections(), 50)
    const late = setTimeout(() => app.server.closeAllConnections(), grace)
    await app.close()
    clearInterval(idle)
    clearTimeout(late)
    for (const stop of stops) await stop()
    await runLog.close()
    await reads.close()
    metrics.close()
    await keeping.release()
  }
  try {
    await app.ready()
    const { port: bound } = await listen(app.server, port, host)
    const url = `${pair ? 'https' : 'http'}://${urlHost(host)}:${bound}`
    await keeping.announce(url)
    if (tls && pair) stops.push(renewTls(app.server as unknown as TlsServer, tls, onError))
    const replay = startSpoolReplay(
      home.path,
      async by => {
        const authorization = mayBelongHere(by) ? await spoolAccess.authorize(by.token) : null
        return authorization === null ? null : connectSpool({ url, fetch: injectedFetch(app, authorization) })
      },
      onError,
    )
    stops.push(startReaper(home, onError, { except: replay.judges }), replay.stop)
    log.info('started', { version, url, pid: process.pid, home: home.path, database: showTarget(home.target) })
    return {
      url,
      token,
      close: async () => {
        log.info('stopping')
        await close()
        log.info('stopped')
      },
    }
  } catch (error) {
    await close()
    throw error
  }
}

export interface Connection {
  plinth: Client<typeof calls>
  /** Null: the home of this machine, used by its owner. */
  url: string | null
  /** The home's folder; null for a server elsewhere. */
  home: string | null
  /** The home itself, for what is only here. */
  opened: Home | null
  close(): Promise<void>
}

/**
 * The contract's calls to the server that PLINTH_URL names, else to the home itself, with or without a server on it. `owner`: the call is about
 * accounts, so there has to be one. throws login_needed, server_address, and what opening a home throws
 */
export async function connect({ owner = false } = {}): Promise<Connection> {
  const given = serverUrl()
  if (given === undefined) {
    const home = await openHome()
    if (owner) await ownerToken(home)
    const log = createRunLog(home.db)
    const close = () => log.close().finally(() => home.close())
    return { plinth: localClient(calls, routesOf(home, log), ownerAtHome), url: null, home: home.path, opened: home, close }
  }
  const url = serverAddress(given)
  const token = serverToken() ?? (await storedToken(configFolder(), url))
  if (!token) throw new Failure('login_needed', { url })
  return { plinth: remoteClient({ url, token }), url, home: null, opened: null, close: async () => {} }
}

/** Says it where two versions do not understand each other. */
export function remoteClient({ url, token }: { url: string; token: string }): Client<typeof calls> {
  const plain = createClient(calls, { url, token })
  const explained = async (error: unknown): Promise<never> => {
    const strange = !(error instanceof Failure) || error.code === 'api_route_not_found'
    const theirs = strange
      ? await plain.getServer({}).then(
          ({ version }) => version,
          () => null,
        )
      : null
    if (theirs !== null && theirs !== version) throw new Failure('server_version', { url, theirs, ours: version }, { cause: error })
    if (error instanceof Failure) throw error
    throw new Failure('server_answer', { url, problem: 'its answer does not have the form it should have' }, { cause: error })
  }
  return Object.fromEntries(
    Object.entries(plain).map(([name, ask]) => [
      name,
      (input: never, options: never) => (ask as (input: never, options: never) => Promise<unknown>)(input, options).catch(explained),
    ]),
  ) as typeof plain
}

export { forgetToken, serverAddress, storeToken } from './accounts/credentials.ts'
export { deleteRun as deleteTraining, listRuns as listTrainings, settleRuns as settleTrainings } from './track/runs.ts'
/** A new token for the owner in the home's file; the one before is worth nothing any more. */
export const resetToken = resetOwnerToken

/** Every call of the contract and who answers it. */
export const routesOf = (
  { db, path }: Pick<Home, 'db' | 'path'>,
  log: RunLog,
  { reads = readHere(db), rightsChanged = () => {} }: { reads?: Reads; rightsChanged?: () => void } = {},
): Route[] => [
  route(calls.getServer, (_, { principal: { user, project, role, owner } }) => ({ version, user, project, role: owner ? 'owner' : role })),
  ...accountRoutes(db, rightsChanged),
  ...modelRoutes(db, path),
  ...trackingRoutes(db, log, reads),
]

/** What is asked in other languages than ours: health checks, MLflow's REST, artifacts. */
export const foreignRoutesOf = (
  { db, path: folder }: Pick<Home, 'db' | 'path'>,
  log: RunLog,
  objects: Objects,
  { reads = readHere(db), metrics = async () => '' }: { reads?: Reads; metrics?: () => Promise<string> } = {},
): ForeignRoute[] => [
  ...['/healthz', '/health'].map(
    (path): ForeignRoute => ({
      method: 'GET',
      path,
      right: 'public',
      body: 'none',
      answer: () => 'OK',
      failed: asAnswer,
    }),
  ),
  {
    method: 'GET',
    path: '/metrics',
    right: 'viewer',
    body: 'none',
    failed: asAnswer,
    answer: async ({ response }) => {
      send(response, 200, 'text/plain; version=0.0.4; charset=utf-8', await metrics())
      return null
    },
  },
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
  ...mlflowRoutes({ db, log, objects, models: diskObjects(join(folder, 'models')), home: folder, reads }),
]
