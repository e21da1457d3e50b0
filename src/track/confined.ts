/**
 * What the token of a job reaches: its own run, runs that it makes beneath it, and models that those runs log. A closed list of calls, each with
 * what it may name; everything else is refused. Every id anywhere in a request is looked at, in every spelling that is read somewhere, so that it
 * does not matter which of them a route takes.
 */
import type { Context, ForeignRequest, ForeignRoute, Route } from '../api/route.ts'
import type { Db } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { calls as experimentCalls } from '../sdk/calls/experiments.ts'
import { calls as runCalls } from '../sdk/calls/runs.ts'
import { calls as serverCalls } from '../sdk/calls/server.ts'
import type { Call } from '../sdk/contract.ts'
import { pathIn, safe } from './mlflow/artifact-paths.ts'
import { shown } from './run-answers.ts'
import { getTrackedRun } from './tracked-runs.ts'

const parentTag = 'mlflow.parentRunId'

export function confinedRoutes(db: Db, routes: readonly Route[]): Route[] {
  const reach = createReach(db)
  return routes.map(({ call, answer }) => ({
    call,
    answer: async (input, context) => {
      const { run } = context.principal ?? {}
      if (run === undefined) return await answer(input, context)
      const rule = ownCalls.get(call)
      if (!rule) throw new Failure('job_run_only')
      return await rule({ input: input as Record<string, unknown>, run, db, context, reach, answer: changed => answer(changed, context) })
    },
  }))
}

interface Asked {
  input: Record<string, unknown>
  run: string
  db: Db
  context: Context
  reach: Reach
  answer(input: unknown): unknown
}
type Rule = (asked: Asked) => unknown

const plainly: Rule = ({ input, answer }) => answer(input)
const aboutItsRun: Rule = async ({ input, run, context, reach, answer }) => {
  await reach.check(context.project, run, { runs: [input['run']] })
  return await answer(input)
}
const ownCalls = new Map<Call, Rule>([
  [serverCalls.getServer, plainly],
  [experimentCalls.getExperiment, plainly],
  [experimentCalls.getOrCreateExperiment, plainly],
  [
    runCalls.startRun,
    async ({ input, run, context, reach, answer }) => {
      const tags = (input['tags'] ?? {}) as Record<string, string>
      await reach.check(context.project, run, { runs: [tags[parentTag]], made: [input['run']] })
      return await answer({ ...input, tags: { [parentTag]: run, ...tags } })
    },
  ],
  [runCalls.getRun, aboutItsRun],
  [
    runCalls.logToRun,
    async ({ input, run, context, reach, answer }) => {
      const models = (input['metrics'] as { model?: string }[]).map(({ model }) => model)
      await reach.check(context.project, run, { runs: [input['run'], (input['tags'] as Record<string, string>)[parentTag]], models })
      return await answer(input)
    },
  ],
  [runCalls.beat, aboutItsRun],
  [runCalls.resumeRun, aboutItsRun],
  [runCalls.getMetricHistory, aboutItsRun],
  [runCalls.searchRuns, ({ input, run, answer }) => answer({ ...input, filter: beneath(run, String(input['filter'] ?? '')) })],
  [
    runCalls.endRun,
    async asked => {
      const { input, run, db, context, answer } = asked
      // the job's own run succeeds when the job has: a script of several steps may say so after each
      if (input['run'] === run && input['status'] === 'succeeded') return shown(await getTrackedRun(db, context.project, run))
      return input['run'] === run ? await answer(input) : await aboutItsRun(asked)
    },
  ],
])

/** Conditions are joined by "and" alone: what stands first holds whatever follows. */
const beneath = (run: string, filter: string) => `tags.\`${parentTag}\` = '${run}'${filter.trim() === '' ? '' : ` and ${filter}`}`

// ── MLflow's ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export function confinedForeign(db: Db, routes: readonly ForeignRoute[]): ForeignRoute[] {
  const reach = createReach(db)
  return routes.map(route => ({
    ...route,
    answer: async (request, context) => {
      const { run } = context.principal ?? {}
      if (run === undefined) return await route.answer(request, context)
      const name = `${route.method} ${route.path.replace(/^\/(ajax-)?api\/[23]\.0(?=\/)/, '')}`
      const rule = foreignCalls[name] ?? (/\/\*$/.test(name) && !name.includes('mlflow') ? 'plainly' : undefined)
      if (!rule) throw new Failure('job_run_only')
      const body = messageIn(request.body)
      const named = idsIn([body, Object.fromEntries(request.query), request.params, [...request.query]])
      if (rule === 'its model' && name.includes('model-versions/create')) fromSource(body['source'], named)
      if (rule === 'file' || rule === 'files') {
        const path = rule === 'file' ? pathIn(request) : safe((request.query.get('path') ?? '').replace(/(?<=[^/])\/$/, ''))
        await reach.check(context.project, run, ownerOf(path))
      }
      if (rule === 'its run' && named.runs.length === 0) throw new Failure('job_run_only')
      if (rule === 'its model' && named.models.length + named.runs.length === 0) throw new Failure('job_run_only')
      await reach.check(context.project, run, named)
      const changed =
        rule === 'beneath' ? childOf(run, body) : rule === 'search' ? searchOf(run, body) : rule === 'update' ? withoutEnd(run, body) : null
      // what a route reads has to be what was looked at here
      const text = typeof request.body === 'string' ? JSON.stringify(changed ?? body) : request.body
      return await route.answer(withBody(request, text), context)
    },
  }))
}

type ForeignRule = 'plainly' | 'its run' | 'its model' | 'beneath' | 'search' | 'update' | 'file' | 'files'
const foreignCalls: Record<string, ForeignRule> = {
  'GET /mlflow/server-info': 'plainly',
  'GET /mlflow/experiments/get': 'plainly',
  'GET /mlflow/experiments/get-by-name': 'plainly',
  'POST /mlflow/experiments/create': 'plainly',
  'POST /mlflow/runs/create': 'beneath',
  'GET /mlflow/runs/get': 'its run',
  'POST /mlflow/runs/update': 'update',
  'POST /mlflow/runs/search': 'search',
  'POST /mlflow/runs/log-metric': 'its run',
  'POST /mlflow/runs/log-parameter': 'its run',
  'POST /mlflow/runs/log-batch': 'its run',
  'POST /mlflow/runs/set-tag': 'its run',
  'POST /mlflow/runs/delete-tag': 'its run',
  'POST /mlflow/runs/log-model': 'its run',
  'POST /mlflow/runs/log-inputs': 'its run',
  'POST /mlflow/runs/outputs': 'its run',
  'GET /mlflow/metrics/get-history': 'its run',
  'GET /mlflow/metrics/get-history-bulk': 'its run',
  'GET /mlflow/metrics/get-history-bulk-interval': 'its run',
  'GET /mlflow/artifacts/list': 'its run',
  'POST /mlflow/upload-artifact': 'its run',
  'GET /get-artifact': 'its run',
  'POST /mlflow/logged-models': 'its run',
  'GET /mlflow/logged-models/:model_id': 'its model',
  'PATCH /mlflow/logged-models/:model_id': 'its model',
  'PATCH /mlflow/logged-models/:model_id/tags': 'its model',
  'POST /mlflow/logged-models/:model_id/params': 'its model',
  'GET /mlflow/logged-models/:model_id/artifacts/directories': 'its model',
  'GET /mlflow/logged-models/:model_id/artifacts/files': 'its model',
  'GET /mlflow-artifacts/artifacts': 'files',
  'GET /mlflow-artifacts/artifacts/*': 'file',
  'PUT /mlflow-artifacts/artifacts/*': 'file',
  'POST /mlflow-artifacts/mpu/create/*': 'plainly', // refused for everybody, in words that clients understand
  'POST /mlflow-artifacts/mpu/complete/*': 'plainly',
  'POST /mlflow-artifacts/mpu/abort/*': 'plainly',
  'GET /mlflow-artifacts/presigned/*': 'plainly',
  // a training registers its own model; what others registered is named to it, and not opened
  'POST /mlflow/registered-models/create': 'plainly',
  'GET /mlflow/registered-models/get': 'plainly',
  'POST /mlflow/model-versions/create': 'its model',
  'GET /mlflow/model-versions/get': 'plainly',
  'POST /mlflow/traces/search': 'plainly',
  'GET /mlflow/traces': 'plainly',
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

/** As wire.ts reads it: what cannot be parsed is empty; old clients encode twice. */
function messageIn(body: unknown): Record<string, unknown> {
  if (typeof body !== 'string') return {}
  let value: unknown = body
  for (let i = 0; i < 2 && typeof value === 'string'; i++)
    try {
      value = JSON.parse(value)
    } catch {
      value = {}
    }
  return isObject(value) ? value : {}
}

interface Named {
  runs: unknown[]
  models: unknown[]
}

/** Under every name that a run or a logged model can have in a request, snake or camel, at any depth. */
export function idsIn(value: unknown): Named {
  const found: Named = { runs: [], models: [] }
  const take = (key: string, each: unknown) => {
    const name = key.replaceAll('_', '').toLowerCase()
    const list = Array.isArray(each) ? each : [each]
    if (/^(source|parent)?run(id|ids|uuid)?$/.test(name)) found.runs.push(...list.filter(item => typeof item === 'string' && item !== ''))
    else if (/^(source)?model(id|ids|uuid)$/.test(name)) found.models.push(...list.filter(item => typeof item === 'string' && item !== ''))
  }
  const walk = (each: unknown, depth: number) => {
    if (depth > 20) throw new Failure('job_run_only')
    if (Array.isArray(each)) {
      // the pairs of a query
      if (each.length === 2 && typeof each[0] === 'string' && typeof each[1] === 'string') take(each[0], each[1])
      for (const item of each) walk(item, depth + 1)
    } else if (isObject(each)) {
      for (const [key, item] of Object.entries(each)) {
        take(key, item)
        walk(item, depth + 1)
      }
      if (each['key'] === parentTag && typeof each['value'] === 'string') found.runs.push(each['value'])
    }
  }
  walk(value, 0)
  return found
}

/** `runs:/<run>/model`, `models:/m-…`, `mlflow-artifacts:/1/<run>/artifacts/model`; any other place is nobody's that is known here. */
function fromSource(source: unknown, found: Named): void {
  if (typeof source !== 'string' || source === '') return
  const run = /^runs:\/+([0-9a-f]{32})(?:\/|$)/.exec(source)?.[1]
  const model = /^models:\/+(m-[0-9a-f]{32})(?:\/|$)/.exec(source)?.[1]
  const path = /^mlflow-artifacts:\/+(?:[^/]+\/)??(\d+\/.+)$/.exec(source)?.[1]
  if (run) found.runs.push(run)
  else if (model) found.models.push(model)
  else if (path && !/\.\.|%/.test(path)) {
    const owner = ownerOf(path)
    found.runs.push(...owner.runs)
    found.models.push(...owner.models)
  } else found.runs.push(source)
}

/** Of `1/<run>/artifacts/…` and `1/models/<model>/artifacts/…`. throws job_run_only for any other path */
function ownerOf(path: string): Named {
  const [, model, run] = /^\d{1,15}\/(?:models\/(m-[0-9a-f]{32})|([0-9a-f]{32}))\/artifacts(?:\/|$)/.exec(path) ?? []
  if (model) return { runs: [], models: [model] }
  if (run) return { runs: [run], models: [] }
  throw new Failure('job_run_only')
}

function childOf(run: string, body: Record<string, unknown>): Record<string, unknown> {
  const tags = Array.isArray(body['tags']) ? body['tags'] : []
  if (tags.some(tag => isObject(tag) && tag['key'] === parentTag)) return body
  return { ...body, tags: [...tags, { key: parentTag, value: run }] }
}

const searchOf = (run: string, body: Record<string, unknown>) => ({
  ...body,
  filter: beneath(run, typeof body['filter'] === 'string' ? body['filter'] : ''),
})

/** The job's own run succeeds when the job has: what autologging and a `with` say after each step is not the end. */
function withoutEnd(run: string, body: Record<string, unknown>): Record<string, unknown> {
  const named = idsIn(body).runs
  if (!named.includes(run) || !['FINISHED', 3, '3'].includes(body['status'] as string)) return body
  const { status: _, end_time: __, endTime: ___, ...rest } = body
  return rest
}

/** The request as it was, read through, with another body. */
const withBody = (request: ForeignRequest, body: unknown): ForeignRequest =>
  new Proxy(request, { get: (target, name) => (name === 'body' ? body : Reflect.get(target, name, target)) })

// ── what is beneath ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Reach {
  /** `made`: ids that may be new. throws tracked_run_not_found, logged_model_not_found */
  check(
    project: string,
    own: string,
    named: { runs?: readonly unknown[]; models?: readonly unknown[]; made?: readonly unknown[] },
  ): Promise<void>
}

const deepest = 20

function createReach(db: Db): Reach {
  /** Once beneath, always: its parent does not change hands. */
  const known = new Set<string>()
  const parentOf = async (project: string, run: string): Promise<{ parent: string | null } | null> => {
    const row = await db
      .selectFrom('tracked_runs as r')
      .innerJoin('experiments as e', 'e.id', 'r.experiment')
      .leftJoin('tags as t', join => join.onRef('t.run', '=', 'r.number').on('t.key', '=', parentTag))
      .select('t.value as parent')
      .where('r.id', '=', run)
      .where('e.project', '=', project)
      .executeTakeFirst()
    return row ?? null
  }
  const isBeneath = async (project: string, own: string, run: string): Promise<boolean> => {
    if (run === own || known.has(`${own} ${run}`)) return true
    let at: string | null = run
    for (let depth = 0; at !== null && at !== own && depth < deepest; depth++) at = (await parentOf(project, at))?.parent ?? null
    if (at !== own) return false
    if (known.size > 100_000) known.clear()
    known.add(`${own} ${run}`)
    return true
  }
  return {
    async check(project, own, { runs = [], models = [], made = [] }) {
      for (const run of new Set(runs))
        if (run !== undefined && !(await isBeneath(project, own, String(run))))
          throw new Failure('tracked_run_not_found', { run: String(run).slice(0, 64) })
      for (const run of new Set(made))
        if (run !== undefined && (await parentOf(project, String(run))) !== null && !(await isBeneath(project, own, String(run))))
          throw new Failure('tracked_run_not_found', { run: String(run).slice(0, 64) })
      for (const model of new Set(models)) {
        if (model === undefined) continue
        const row = await db.selectFrom('logged_models').select('run').where('id', '=', String(model)).executeTakeFirst()
        if (!row?.run || !(await isBeneath(project, own, row.run)))
          throw new Failure('logged_model_not_found', { model: String(model).slice(0, 64) })
      }
    },
  }
}
