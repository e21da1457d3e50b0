/** MLflow's API as tests ask it: without sockets over any kind of database, or as a server with a home of its own. */
import { existsSync, globSync, mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createToken } from '../../src/accounts/tokens.ts'
import { createApp } from '../../src/api/app.ts'
import type { Db } from '../../src/db/open.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import type { Objects } from '../../src/storage/objects.ts'
import { openHome } from '../../src/track/home.ts'
import { createRunLog } from '../../src/track/log.ts'
import { mlflowRoutes } from '../../src/track/mlflow/routes.ts'
import { python } from '../peers.ts'

// biome-ignore lint/suspicious/noExplicitAny: answers are compared field by field
export type Json = any

export interface Answer {
  status: number
  body: Json
  headers: Record<string, unknown>
  bytes: Buffer
}
export interface Asked {
  body?: unknown
  /** Sent as it is, in the place of a body. */
  text?: string | Buffer
  headers?: Record<string, string>
  /** Project of the token; null sends none. */
  project?: string | null
  /** `api` or `ajax-api`. */
  prefix?: string
}
export interface MlflowApi {
  db: Db
  objects: Objects
  /** `path`: `runs/create`, or whole where it begins with /. */
  ask(method: string, path: string, asked?: Asked): Promise<Answer>
  /** The body of an answer that has to be 200. */
  post(path: string, body: unknown, asked?: Asked): Promise<Json>
  get(path: string, query?: Record<string, string | string[]>, asked?: Asked): Promise<Json>
  /** A new experiment and a run in it. */
  run(): Promise<{ experiment: string; run: string }>
  /** Answers sockets too, on the port that this gives. */
  listen(): Promise<number>
  close(): Promise<void>
}

/** Requests go straight into the application; tokens are names of projects. */
export async function mlflowApi(db: Db, objects: Objects = memoryObjects()): Promise<MlflowApi> {
  const log = createRunLog(db)
  const home = mkdtempSync(join(tmpdir(), 'mlflow-'))
  const app = createApp({
    routes: [],
    foreign: mlflowRoutes({ db, log, objects, models: memoryObjects(), home }),
    loopback: false,
    authenticate: async authorization => {
      const project = /^Bearer (.+)$/.exec(authorization ?? '')?.[1]
      return project ? { user: 'ada', owner: false, project, role: 'editor', scope: 'all', token: 't' } : null
    },
  })
  await db
    .insertInto('projects')
    .values({ id: 'other', created: new Date().toISOString() })
    .onConflict(conflict => conflict.doNothing())
    .execute()
  const api: MlflowApi = {
    db,
    objects,
    async ask(method, path, { body, text, headers = {}, project = 'default', prefix = 'api' } = {}) {
      const answer = await app.inject({
        method: method as 'GET',
        url: path.startsWith('/') ? path : `/${prefix}/2.0/mlflow/${path}`,
        headers: {
          ...(project !== null && { authorization: `Bearer ${project}` }),
          ...((body !== undefined || typeof text === 'string') && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined ? { payload: JSON.stringify(body) } : text !== undefined ? { payload: text } : {}),
      })
      const json = String(answer.headers['content-type'] ?? '').startsWith('application/json')
      return {
        status: answer.statusCode,
        body: json ? JSON.parse(answer.payload) : answer.payload,
        headers: answer.headers,
        bytes: answer.rawPayload,
      }
    },
    async post(path, body, asked) {
      return granted(await api.ask('POST', path, { body, ...asked }), path)
    },
    async get(path, query = {}, asked) {
      const search = new URLSearchParams(
        Object.entries(query).flatMap(([name, value]) => [value].flat().map((each): [string, string] => [name, each])),
      )
      return granted(await api.ask('GET', `${path}?${search}`, asked), path)
    },
    async run() {
      const { experiment_id: experiment } = await api.post('experiments/create', { name: `experiment ${crypto.randomUUID()}` })
      const { run } = await api.post('runs/create', { experiment_id: experiment })
      return { experiment, run: run.info.run_id }
    },
    async listen() {
      await app.listen({ host: '127.0.0.1', port: 0 })
      return (app.server.address() as AddressInfo).port
    },
    async close() {
      await app.close()
      await log.close()
      await db.destroy()
      rmSync(home, { recursive: true, force: true })
    },
  }
  return api
}

function granted({ status, body }: Answer, path: string): unknown {
  if (status !== 200) throw new Error(`${path}: ${status} ${JSON.stringify(body)}`)
  return body
}

export interface TestServer {
  url: string
  /** The owner's, in the project `default`. */
  token: string
  home: string
  db: Db
  /** The owner's in another project, which is made. */
  tokenFor(project: string): Promise<string>
  close(): Promise<void>
}

/** `plinth up`'s server in this process, on a home that is gone afterwards. */
export async function startServer(): Promise<TestServer> {
  const folder = mkdtempSync(join(tmpdir(), 'mlflow-'))
  const home = await openHome(folder)
  const { startControlPlane } = await import('../../src/control-plane.ts')
  const server = await startControlPlane(home, { host: '127.0.0.1', port: 0 })
  return {
    url: server.url,
    token: server.token,
    home: folder,
    db: home.db,
    async tokenFor(project) {
      await home.db.insertInto('projects').values({ id: project, created: new Date().toISOString() }).execute()
      const { token } = await createToken(home.db, { user: 'owner', name: 'test', project, scope: 'all', expires: null })
      return token
    },
    async close() {
      await server.close()
      await home.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** A Python that has MLflow, or null: PLINTH_MLFLOW_PYTHON, or that of the peers. */
export function mlflowPython(): string | null {
  const candidates = [process.env['PLINTH_MLFLOW_PYTHON'], python()]
  return (
    candidates.find(path => path && existsSync(path) && globSync(join(path, '../../lib/python*/site-packages/mlflow')).length > 0) ?? null
  )
}
