/** The composition root of `plinth up`: one process that tracks runs and keeps models, behind one HTTP application. */
import { createHash } from 'node:crypto'
import { cpus, hostname } from 'node:os'
import { join } from 'node:path'
import type { Server as TlsServer } from 'node:tls'
import { serverAddress, storedToken } from './accounts/credentials.ts'
import { giveJobToken, takeJobToken } from './accounts/job-tokens.ts'
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
import { configFolder, hardwareFile, home as homePath, mlflowAuthorization, serverToken, serverUrl, version } from './config.ts'
import { isPostgres, showTarget } from './db/dialect.ts'
import type { Home } from './db/home.ts'
import { shrinkDatabase } from './db/size.ts'
import { Failure } from './failure.ts'
import type { Device } from './hardware/inventory/device.ts'
import type { Telemetry } from './hardware/telemetry.ts'
import type { LocalBackend } from './jobs/backends/local/backend.ts'
import { logRoute } from './jobs/log-route.ts'
import { type JobHost, jobRoutes } from './jobs/routes.ts'
import type { JobSecrets } from './jobs/secrets.ts'
import type { JobTracking } from './jobs/tracking.ts'
import { type Log, silentLog } from './monitoring/log.ts'
import { createServerMetrics } from './monitoring/metrics.ts'
import { gaugesOf, logRequest } from './monitoring/server.ts'
import { calls } from './sdk/calls/index.ts'
import { type Client, createClient } from './sdk/client.ts'
import { type LogLine, type LogWanted, readJobLog } from './sdk/job-log.ts'
import { diskObjects } from './storage/disk-objects.ts'
import type { Objects } from './storage/objects.ts'
import type { BackupOptions } from './track/backup.ts'
import { confinedForeign, confinedRoutes } from './track/confined.ts'
import type { Garbage } from './track/gc.ts'
import { openHome as openHomeAt } from './track/home.ts'
import type { ImportOptions } from './track/importer/import.ts'
import { endJobRun, experimentOfRun, keepJobFile, pauseJobRun, runsOfLivingJobs, startJobRun, tagJobRun } from './track/job-runs.ts'
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
export const lookForGarbage = async (home: Home, options: { days: number }) => {
  const [track, environments] = await Promise.all([import('./track/gc.ts'), import('./jobs/environments/store.ts')])
  const { garbage, held } = await track.lookForGarbage(home, options)
  // in the cache, which other homes share: not by the days that this one asks for
  return { garbage: [...garbage, ...(await environments.findUnusedEnvironments())], held }
}
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
  /** Who may submit jobs. A job is a program of the user that the server runs as, and can read whatever that user can, the owner's token too. */
  jobsBy?: 'owner' | 'editors'
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
  const { host, port, behindProxy = false, proxies = [], tls, log = silentLog, limits = usualLimits, jobsBy = 'owner' } = options
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
  let telemetry: Telemetry | null = null
  const closing = new AbortController()
  let url = ''
  const jobs = hostOfJobs(home, { onError, tokenTaken: principals.forget, url: () => url })
  const app = createApp({
    routes: routesOf(home, runLog, { reads, rightsChanged: principals.forget, jobs, jobsBy }),
    foreign: foreignRoutesOf(home, runLog, diskObjects(join(home.path, 'artifacts')), {
      ...{ reads, jobs, closing: closing.signal },
      metrics: async () => metrics.text([...(await gaugesOf(home, { points, dropped: log.dropped })), ...(telemetry?.gauges() ?? [])]),
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
    closing.abort()
    await app.close()
    clearInterval(idle)
    clearTimeout(late)
    for (const stop of stops) await stop()
    await runLog.close()
    await reads.close()
    telemetry?.close()
    metrics.close()
    await keeping.release()
  }
  try {
    await app.ready()
    const { port: bound } = await listen(app.server, port, host)
    url = `${pair ? 'https' : 'http'}://${urlHost(host)}:${bound}`
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
    const judged = async () => new Set([...(await replay.judges()), ...(await runsOfLivingJobs(home.db))])
    stops.push(startReaper(home, onError, { except: judged }), replay.stop)
    // what it takes is loaded when the address has been told: jobs go on without it
    const start = async () => {
      const { controller, devices } = await jobs()
      controller?.start()
      const { startTelemetry } = await import('./hardware/telemetry.ts')
      if (!closing.signal.aborted) telemetry = startTelemetry({ devices, onError })
    }
    const starting = setTimeout(() => start().catch(onError), 0)
    stops.unshift(async () => {
      clearTimeout(starting)
      await jobs.close()
    })
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

// ── jobs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const jobsFolder = ({ path }: Pick<Home, 'path'>) => join(path, 'jobs')

interface Hosted extends JobHost {
  /** Accelerators of this machine. */
  devices(): Promise<readonly Device[]>
  close(): void
}

/** Where jobs run, made at the first question. `keeper`: this process keeps the home, so its loop starts them; otherwise one only looks. */
function hostOfJobs(
  home: Pick<Home, 'db' | 'path'>,
  keeper: { onError(error: unknown): void; tokenTaken(): void; url(): string } | null = null,
): (() => Promise<Hosted>) & { close(): Promise<void> } {
  let host: Promise<Hosted> | undefined
  const make = async (): Promise<Hosted> => {
    const [{ openJobSecrets }, { createLocalBackend }, { activeJobs }, { keepNode }, { devicesOf }] = await Promise.all([
      import('./jobs/secrets.ts'),
      import('./jobs/backends/local/backend.ts'),
      import('./jobs/store.ts'),
      import('./hardware/node.ts'),
      import('./hardware/inventory/index.ts'),
    ])
    const secrets = await openJobSecrets(jobsFolder(home))
    const machine = keepNode({ override: hardwareFile() })
    const devices = async () => devicesOf(await machine.inventory())
    const inventory = async () => {
      // what computes on an accelerator for a job of ours does not keep the next one from a part of it
      const ours = new Set<number>()
      for (const { id, attempt, allocation } of await activeJobs(home.db))
        if (allocation.includes('"share"')) for (const pid of await local.processes(id, attempt)) ours.add(pid)
      return [await machine.node({ ours: pid => ours.has(pid) })]
    }
    const local: LocalBackend = createLocalBackend({ home: home.path, inventory })
    const backends = new Map([[local.name, local]])
    const tracking = trackingOf(home, secrets, keeper ?? { tokenTaken: () => {}, url: () => '' })
    const made = { backends, secrets, tracking, devices, close: () => machine.close() }
    if (!keeper) return { ...made, controller: null }
    const { createController } = await import('./jobs/loop.ts')
    const { onError } = keeper
    const controller = createController({
      ...{ db: home.db, backends: [local], secrets, tracking, onError },
      machine: {
        folderOf: (_, job, attempt) => join(jobsFolder(home), String(job), String(attempt)),
        devices,
        processes: (_, job, attempt) => local.processes(job, attempt),
        about: { host: hostname(), platform: `${process.platform}-${process.arch}`, processor: cpus()[0]?.model.trim() ?? process.arch },
        version,
        home: home.path,
      },
    })
    return { ...made, controller }
  }
  const close = async () => {
    const made = await host?.catch(() => undefined) // who asked has been told
    await made?.controller?.close()
    for (const backend of made?.backends.values() ?? []) await backend.close()
    made?.close()
  }
  const ask = () => {
    host ??= make().catch(error => {
      host = undefined
      throw error
    })
    return host
  }
  return Object.assign(ask, { close })
}

/** What jobs have to do with runs and tokens. */
function trackingOf(
  { db, path }: Pick<Home, 'db' | 'path'>,
  { derived }: JobSecrets,
  { tokenTaken, url }: { tokenTaken(): void; url(): string },
): JobTracking {
  const objects = diskObjects(join(path, 'artifacts'))
  return {
    startRun: startJobRun,
    experimentOf: (project, run) => experimentOfRun(db, project, run),
    pauseRun: pauseJobRun,
    endRun: endJobRun,
    tagRun: (project, run, tags) => tagJobRun(db, project, run, tags),
    keepFile: (project, run, name, content) => keepJobFile(db, objects, project, run, name, content),
    giveToken: (transaction, job) => giveJobToken(transaction, derived, job),
    takeToken: (transaction, job, attempt) => takeJobToken(transaction, derived, job, attempt),
    tokenTaken,
    url,
  }
}

/** What commands need of jobs besides the contract's calls, loaded when one asks. */
export const jobs = async () => {
  const [file, script, amounts, spec, early, page, search, steps] = await Promise.all([
    import('./jobs/job-file/read.ts'),
    import('./jobs/job-file/script.ts'),
    import('./jobs/job-file/amounts.ts'),
    import('./jobs/spec.ts'),
    import('./jobs/sweeps/early-stop.ts'),
    import('./jobs/sweeps/page.ts'),
    import('./jobs/sweeps/search.ts'),
    import('./jobs/sweeps/steps.ts'),
  ])
  return { ...file, ...script, amounts, ...spec, ...early, ...page, ...search, ...steps }
}

/** Who keeps the home; null where nobody alive does. */
export const keeperAt = (path: string) => keeperOf(path)

export interface JobsConnection {
  plinth: Client<typeof calls>
  /** Null: nobody keeps the home; jobs are looked at, and told to stop, from here. */
  url: string | null
  /** The lines of an attempt's log; with `follow` until it has ended. */
  log(wanted: LogWanted): AsyncIterable<LogLine>
  close(): Promise<void>
}

/**
 * Where jobs can be run and followed: the server that PLINTH_URL names, the one that keeps the home, else this process, which then is the
 * server of the home until the connection is closed. `host: false`: without a server it only looks. Jobs go on when it closes.
 * throws login_needed, server_address, and what opening a home throws
 */
export async function connectJobs({ host = true } = {}): Promise<JobsConnection> {
  const given = serverUrl()
  if (given !== undefined) {
    const { plinth, url, close } = await connect()
    const token = serverToken() ?? (await storedToken(configFolder(), url!)) ?? ''
    return { plinth, url, log: wanted => readJobLog({ url: url!, token }, wanted), close }
  }
  const home = await openHome()
  try {
    const served = await serverOf(home, host)
    if (!served) return { ...lookingAt(home), url: null }
    const { url, token, close } = served
    return {
      ...{ plinth: remoteClient({ url, token }), url, log: (wanted: LogWanted) => readJobLog({ url, token }, wanted) },
      close: async () => {
        await close()
        await home.close()
      },
    }
  } catch (error) {
    await home.close()
    throw error
  }
}

/** Milliseconds that a server which is starting is waited for. */
const startingUp = 15_000

async function serverOf(home: Home, host: boolean): Promise<{ url: string; token: string; close(): Promise<void> } | null> {
  for (const began = Date.now(); ; ) {
    const keeper = await keeperOf(home.path)
    if (keeper?.url) return { url: keeper.url, token: await ownerToken(home), close: async () => {} }
    if (!keeper && !host) return null
    if (!keeper) {
      const server = await hostHere(home)
      if (server) return server
    }
    if (Date.now() - began > startingUp) throw new Failure('server_unreachable', { url: `process ${keeper?.worker.pid ?? ''}` })
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** At the same port each time where that is free: a job that outlived the process that served it then finds the next one. Null: somebody was faster. */
async function hostHere(home: Home): Promise<ControlPlane | null> {
  const port = 10_000 + (createHash('sha256').update(home.path).digest().readUInt16BE(0) % 10_000)
  for (const each of [port, 0])
    try {
      return await startControlPlane(home, { host: '127.0.0.1', port: each })
    } catch (error) {
      if (error instanceof Failure && error.code === 'home_held') return null
      if (each !== port || !(error instanceof Failure) || (error.code !== 'port_taken' && error.code !== 'port_refused')) throw error
    }
  return null
}

function lookingAt(home: Home): Omit<JobsConnection, 'url'> {
  const log = createRunLog(home.db)
  const host = hostOfJobs(home)
  return {
    plinth: localClient(calls, routesOf(home, log, { jobs: host }), ownerAtHome),
    async *log({ job, attempt, offset = 0, follow = false, signal = new AbortController().signal }) {
      const [{ createLineReader }, { attemptsOf }] = await Promise.all([import('./jobs/log-lines.ts'), import('./jobs/store.ts')])
      const engine = (await attemptsOf(home.db, job)).find(each => each.attempt === attempt)?.engine
      const backend = (await host()).backends.get(engine ?? '')
      const lines = createLineReader()
      for (let [at, over] = [offset, backend === undefined]; !over && !signal.aborted; ) {
        const read = await backend!.readLog(job, attempt, { offset: at, limit: 256 * 1024, follow, signal })
        yield* lines.read(at, read)
        over = read.end || (!follow && read.bytes.length === 0)
        at = read.next
      }
    },
    close: () => log.close().finally(() => home.close()),
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
  {
    reads = readHere(db),
    rightsChanged = () => {},
    jobs = hostOfJobs({ db, path }),
    jobsBy = 'owner',
  }: { reads?: Reads; rightsChanged?: () => void; jobs?: () => Promise<JobHost>; jobsBy?: ControlPlaneOptions['jobsBy'] } = {},
): Route[] =>
  confinedRoutes(db, [
    route(calls.getServer, (_, { principal: { user, project, role, owner } }) => ({
      version,
      user,
      project,
      role: owner ? 'owner' : role,
    })),
    ...accountRoutes(db, rightsChanged),
    ...modelRoutes(db, path),
    ...trackingRoutes(db, log, reads),
    ...jobRoutes({ db, folder: jobsFolder({ path }), host: jobs, mayRun: ({ owner }) => owner || jobsBy === 'editors' }),
  ])

/** What is asked in other languages than ours: health checks, MLflow's REST, artifacts. */
export const foreignRoutesOf = (
  { db, path: folder }: Pick<Home, 'db' | 'path'>,
  log: RunLog,
  objects: Objects,
  {
    reads = readHere(db),
    metrics = async () => '',
    jobs = hostOfJobs({ db, path: folder }),
    closing = new AbortController().signal,
  }: { reads?: Reads; metrics?: () => Promise<string>; jobs?: () => Promise<JobHost>; closing?: AbortSignal } = {},
): ForeignRoute[] =>
  confinedForeign(db, [
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
    logRoute({ db, host: jobs, closing }),
    ...mlflowRoutes({ db, log, objects, models: diskObjects(join(folder, 'models')), home: folder, reads }),
  ])
