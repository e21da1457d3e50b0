/**
 * The whole table of routes, walked by everybody: nobody without a token gets in, nobody does what their role does not allow, and what belongs
 * to another project is not there. What is checked is what rights are about: answers that hold something of the other project, and rows and files
 * of it that are changed.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { sql } from 'kysely'
import { ownerAtHome, ownerToken } from '../../src/accounts/owner.ts'
import { authenticate, createToken } from '../../src/accounts/tokens.ts'
import { addUser, createProject } from '../../src/accounts/users.ts'
import { createApp } from '../../src/api/app.ts'
import { foreignRoutesOf, routesOf } from '../../src/control-plane.ts'
import { plainSpec } from '../../src/jobs/spec.ts'
import { calls } from '../../src/sdk/calls/index.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import { walk } from '../../src/storage/objects.ts'
import { openHome } from '../../src/track/home.ts'
import { createRunLog } from '../../src/track/log.ts'

const folder = mkdtempSync(join(tmpdir(), 'rights-'))
const home = await openHome(folder)
const { db } = home
const log = createRunLog(db)
const objects = memoryObjects()
const [routes, foreign] = [routesOf(home, log, { jobsBy: 'editors' }), foreignRoutesOf(home, log, objects)]
const app = createApp({
  routes,
  foreign,
  authenticate: text => authenticate(db, text),
  loopback: false,
  limits: { requests: 1e6, failures: 1e6 },
})
after(async () => {
  await app.close()
  await log.close()
  await home.close()
  rmSync(folder, { recursive: true, force: true })
})

const marker = 'nobody-elsewhere-may-read-this'
const tokens: Record<string, string> = {}
const mine = { experiment: '', run: '', model: '', token: '', job: 0, version: 1, name: `model-${crypto.randomUUID()}` }

async function ask(method: string, url: string, token: string | undefined, body?: unknown) {
  const answer = await app.inject({
    method: method as 'GET',
    url,
    headers: { ...(token && { authorization: `Bearer ${token}` }), ...(body !== undefined && { 'content-type': 'application/json' }) },
    ...(body !== undefined && { payload: JSON.stringify(body) }),
  })
  return { status: answer.statusCode, text: answer.payload }
}
const made = async (path: string, body: unknown, method = 'POST') => {
  const { status, text } = await ask(method, path, tokens['a/admin'], body)
  assert.equal(status, 200, `${path}: ${text}`)
  return JSON.parse(text)
}

before(async () => {
  await ownerToken(home)
  for (const project of ['a', 'b']) {
    await createProject(db, ownerAtHome, project)
    for (const role of ['viewer', 'editor', 'admin'] as const) {
      const user = `${role}-of-${project}`
      await addUser(db, { user: 'owner', project }, user, role)
      for (const scope of ['all', 'read', 'track'] as const) {
        const { id, token } = await createToken(db, { user, name: marker, project, scope, expires: null })
        tokens[`${project}/${role}${scope === 'all' ? '' : `/${scope}`}`] = token
        if (project === 'a') mine.token = id
      }
    }
    await db
      .insertInto('users')
      .values({ name: `nobody-of-${project}`, owner: 0, created: '', disabled: null })
      .execute()
    tokens[`${project}/nobody`] = (
      await createToken(db, { user: `nobody-of-${project}`, name: 'n', project, scope: 'all', expires: null })
    ).token
  }
  const tags = [{ key: 'note', value: marker }]
  mine.experiment = (await made('/api/2.0/mlflow/experiments/create', { name: `experiment-${marker}`, tags })).experiment_id
  mine.run = (await made('/api/2.0/mlflow/runs/create', { experiment_id: mine.experiment, tags })).run.info.run_id
  await made('/api/2.0/mlflow/runs/log-batch', {
    run_id: mine.run,
    params: [{ key: 'p', value: marker }],
    metrics: [{ key: 'loss', value: 0.123456, timestamp: 1, step: 1 }],
  })
  await made('/api/2.0/mlflow/runs/log-inputs', {
    run_id: mine.run,
    datasets: [{ dataset: { name: 'd', digest: 'd', source_type: 's', source: marker } }],
  })
  mine.model = (
    await made('/api/2.0/mlflow/logged-models', { experiment_id: mine.experiment, name: 'm', source_run_id: mine.run, tags })
  ).model.info.model_id
  mine.job = (await made('/api/jobs', { spec: plainSpec(marker, { argv: ['echo', marker] }) })).job
  await made('/api/2.0/mlflow/registered-models/create', { name: mine.name, description: marker, tags })
  await made('/api/2.0/mlflow/model-versions/create', { name: mine.name, source: `models:/${mine.model}`, description: marker, tags })
  await made('/api/2.0/mlflow/registered-models/alias', { name: mine.name, alias: 'champion', version: '1' })
  for (const place of [`${mine.experiment}/${mine.run}/artifacts/f.txt`, `${mine.experiment}/models/${mine.model}/artifacts/f.txt`])
    await objects.put(place, Readable.from([Buffer.from(marker)]))
})

/** What could be asked for in any route, all of it the project a's. Fields that a route does not know are ignored by MLflow's, refused by ours. */
const everything = () => ({
  ...{ experiment_id: mine.experiment, experiment_ids: [mine.experiment], experiment_name: `experiment-${marker}` },
  ...{ run_id: mine.run, run_uuid: mine.run, run_ids: [mine.run], runId: undefined, source_run_id: mine.run },
  ...{
    model_id: mine.model,
    model_ids: [mine.model],
    name: mine.name,
    new_name: 'stolen',
    version: '1',
    alias: 'champion',
    stage: 'Archived',
  },
  ...{
    key: 'note',
    value: 'changed',
    metric_key: 'loss',
    metric_keys: ['loss'],
    timestamp: 5,
    step: 5,
    path: 'f.txt',
    artifact_file_path: 'f.txt',
    artifact_path: 'f.txt',
  },
  ...{
    metrics: [{ key: 'loss', value: 9, timestamp: 9, step: 9 }],
    params: [{ key: 'q', value: 'changed' }],
    status: 'FAILED',
    description: 'changed',
    max_results: 100,
  },
  ...{
    source: `models:/${mine.name}/1`,
    models: [{ model_id: mine.model, step: 1 }],
    model_json: JSON.stringify({ run_id: mine.run, model_uuid: 'x' }),
  },
  datasets: [{ dataset: { name: 'd', digest: 'd', source_type: 's', source: 'changed' } }],
  tags: [{ key: 'note', value: 'changed' }],
})
/** Ours say exactly what they take. Each call is here, or the test says which is not. */
const input = (): Record<keyof typeof calls, Record<string, unknown>> => ({
  getServer: {},
  createProject: { project: 'a' },
  listProjects: {},
  addUser: { user: 'viewer-of-b', role: 'admin', project: 'a' },
  listUsers: { project: 'a' },
  removeUser: { user: 'viewer-of-a' },
  disableUser: { user: 'viewer-of-a' },
  enableUser: { user: 'viewer-of-a' },
  createToken: { name: 'n', project: 'a' },
  listTokens: { project: 'a' },
  revokeToken: { id: mine.token },
  listAudit: { project: 'a' },
  createExperiment: { name: 'own' },
  getOrCreateExperiment: { name: `experiment-${marker}` },
  getExperiment: { experiment: mine.experiment },
  listExperiments: {},
  listModels: { filter: `name = '${mine.name}'` },
  getModel: { name: mine.name },
  listVersions: { name: mine.name },
  getVersion: { name: mine.name, version: 'champion' },
  getLineage: { name: mine.name, version: '1' },
  promoteModel: { name: mine.name, alias: 'other', version: 1, reason: 'r', force: true },
  removeAlias: { name: mine.name, alias: 'champion' },
  renameModel: { name: mine.name, to: 'stolen' },
  deleteVersion: { name: mine.name, version: 1, preview: true },
  deleteModel: { name: mine.name, preview: true },
  startRun: { experiment: mine.experiment, run: mine.run },
  getRun: { run: mine.run },
  searchRuns: { experiments: [mine.experiment] },
  logToRun: { run: mine.run, params: { q: 'changed' }, metrics: [{ key: 'loss', value: 9, timestamp: 9, step: 9 }] },
  beat: { run: mine.run },
  resumeRun: { run: mine.run },
  endRun: { run: mine.run, status: 'failed' },
  deleteRun: { run: mine.run },
  restoreRun: { run: mine.run },
  getMetricHistory: { run: mine.run, key: 'loss' },
  submitJob: { spec: plainSpec('own', { argv: ['true'] }) },
  listJobs: {},
  getJob: { job: mine.job },
  stopJob: { job: mine.job },
  retryJob: { job: mine.job },
  deleteJob: { job: mine.job },
  listNodes: {},
})
/** These find among one's own, or make something: there is no object that could be missing. */
const open = new Set<string>([
  ...[
    'getServer',
    'listProjects',
    'createExperiment',
    'getOrCreateExperiment',
    'listExperiments',
    'listModels',
    'listVersions',
    'searchRuns',
    'submitJob',
    'listJobs',
    'listNodes',
  ],
])
const openInMlflow =
  /\/(search|search-datasets|server-info|registered-models\/create|experiments\/create|traces|get-history-bulk)$|\/version$|\/metrics$|\/health|^\/$|\/api$|openapi/

interface Asked {
  what: string
  method: string
  url: string
  body: unknown
  right: string
  open: boolean
}
function requests(): Asked[] {
  const named = new Map(Object.entries(calls).map(([name, call]) => [call as unknown, name]))
  const all = input()
  const ours = routes.map(({ call }): Asked => {
    const name = named.get(call) as keyof typeof calls
    const given = { ...all[name] }
    assert.ok(given, `${name} is not in the table of this test`)
    const path = call.path.replace(/:(\w+)/g, (_, field: string) => {
      const value = given[field]
      delete given[field]
      return encodeURIComponent(String(value))
    })
    const inQuery = call.method === 'GET' || call.method === 'DELETE'
    const query = inQuery ? `?${new URLSearchParams(given as Record<string, string>)}` : ''
    return {
      what: name,
      method: call.method,
      url: `${path}${query}`,
      body: inQuery ? undefined : given,
      right: call.right,
      open: open.has(name),
    }
  })
  const sink = everything()
  const flat = Object.entries(sink).flatMap(([key, value]) =>
    value === undefined ? [] : [value].flat().map(each => [key, typeof each === 'object' ? JSON.stringify(each) : String(each)]),
  )
  const places = [
    `${mine.experiment}/${mine.run}/artifacts/f.txt`,
    `${mine.experiment}/models/${mine.model}/artifacts/f.txt`,
    `registered/${mine.name}/1/model.onnx`,
  ]
  const theirs = foreign.flatMap(({ method, path, right, body }): Asked[] => {
    const whats = path.endsWith('*') ? places.map(place => path.replace('*', place)) : [path]
    return whats.map(filled => {
      const url = filled.replace(/:(\w+)/g, (_, field: string) =>
        field === 'model_id' ? mine.model : field === 'job' ? String(mine.job) : 'note',
      )
      // the list of files is asked by a path that begins with the experiment
      const query = new URLSearchParams(
        path.endsWith('mlflow-artifacts/artifacts') ? [['path', `${mine.experiment}/${mine.run}/artifacts`]] : flat,
      )
      return {
        what: `${method} ${filled}`,
        method,
        url: method === 'GET' || body !== 'text' ? `${url}?${query}` : url,
        body: method === 'GET' ? undefined : sink,
        right,
        open: openInMlflow.test(path) || /\/api\/2\.0\/\*|3\.0\/\*|ajax-api\/\*$/.test(path),
      }
    })
  })
  return [...ours, ...theirs]
}

/** Every row there is, as text, and every file. */
async function everythingKept(): Promise<Map<string, number>> {
  const kept = new Map<string, number>()
  const add = (text: string) => kept.set(text, (kept.get(text) ?? 0) + 1)
  for (const { name } of await db.introspection.getTables()) {
    const { rows } = await sql.raw(`select * from "${name}"`).execute(db)
    for (const row of rows) add(`${name} ${JSON.stringify(row)}`)
  }
  for await (const { name } of walk(objects, '')) {
    const found = await objects.get(name)
    const parts = []
    for await (const part of found!.content) parts.push(part)
    add(`file ${name} ${Buffer.concat(parts).toString()}`)
  }
  return kept
}
const gone = (before: Map<string, number>, now: Map<string, number>) =>
  [...before].filter(([row, count]) => (now.get(row) ?? 0) < count).map(([row]) => row)
const come = (before: Map<string, number>, now: Map<string, number>) =>
  [...now].filter(([row, count]) => (before.get(row) ?? 0) < count).map(([row]) => row)

test('without a token no route answers but those that say so', async () => {
  const open: string[] = []
  for (const { what, method, url, body, right } of requests()) {
    const { status } = await ask(method, url, undefined, body)
    if (right === 'public') open.push(what)
    else assert.equal(status, 401, what)
    if (right !== 'public') assert.equal((await ask(method, url, `plinth_${'0'.repeat(12)}_${'x'.repeat(43)}`, body)).status, 401, what)
  }
  assert.deepEqual(open.sort(), ['GET /', 'GET /health', 'GET /healthz', 'GET /version'])
})

test('nobody does what their role, or the scope of their token, does not allow', async () => {
  const may: Record<string, readonly string[]> = {
    nobody: [],
    viewer: ['viewer'],
    'viewer/read': ['viewer'],
    'viewer/track': ['viewer'],
    editor: ['viewer', 'tracker', 'editor'],
    'editor/read': ['viewer'],
    'editor/track': ['viewer', 'tracker'],
    admin: ['viewer', 'tracker', 'editor', 'admin'],
    'admin/read': ['viewer'],
    'admin/track': ['viewer', 'tracker'],
  }
  const before = await everythingKept()
  let refused = 0
  for (const [who, rights] of Object.entries(may))
    for (const { what, method, url, body, right } of requests()) {
      if (right === 'public' || rights.includes(right)) continue
      const { status, text } = await ask(method, url, tokens[`a/${who}`], body)
      assert.equal(status, 403, `${who}: ${what} answered ${text.slice(0, 200)}`)
      refused++
    }
  assert.ok(refused > 500, `${refused}`)
  assert.deepEqual([gone(before, await everythingKept()), come(before, await everythingKept())], [[], []])
})

test('what belongs to another project is not there, on no route, in no list and no search, and stays as it is', async () => {
  const before = await everythingKept()
  const admins = ['b/admin', 'b/editor', 'b/viewer', 'b/admin/track', 'b/nobody']
  const numberOfRun = Number(
    (await db.selectFrom('tracked_runs').select('number').where('id', '=', mine.run).executeTakeFirstOrThrow()).number,
  )
  const found: string[] = []
  // what they make under the same names is theirs, and would be found: it comes last
  const makes = ({ what }: Asked) => /createExperiment|getOrCreate|\/create$/i.test(what)
  const turns = [false, true].flatMap(last =>
    admins.flatMap(who =>
      requests()
        .filter(asked => makes(asked) === last)
        .map(asked => ({ who, ...asked })),
    ),
  )
  for (const { who, what, method, url, body, open } of turns) {
    const { status, text } = await ask(method, url, tokens[who], body)
    // an experiment of that name, made among one's own, has only its name in common
    if (text.replaceAll(`experiment-${marker}`, '').includes(marker) || text.includes('0.123456'))
      found.push(`${who}: ${what} told ${text.slice(0, 300)}`)
    const allowed = open
      ? status < 500 || status === 501
      : status === 404 ||
        status === 403 ||
        (status >= 400 && /"(INVALID_PARAMETER_VALUE|api_request_invalid|BAD_REQUEST|NOT_IMPLEMENTED|artifact_path)"/.test(text))
    if (!allowed) found.push(`${who}: ${what} answered ${status} ${text.slice(0, 200)}`)
  }
  const now = await everythingKept()
  found.push(
    ...gone(before, now)
      .filter(row => !/^(sqlite_|metric_keys)/.test(row))
      .map(row => `gone: ${row}`),
  )
  const added = come(before, now).filter(
    row =>
      row.includes('"project":"a"') ||
      row.includes(mine.run) ||
      row.includes(mine.model) ||
      new RegExp(`"run":${numberOfRun}\\b`).test(row) ||
      row.includes(`"experiment":${mine.experiment},`),
  )
  found.push(...added.map(row => `new: ${row}`))
  assert.deepEqual(found, [])
})

test('and the same requests reach it where they come from the project itself: this walk would see it', async () => {
  const order = (asked: Asked) =>
    asked.method === 'GET' ? 0 : /delete|DELETE|rename/i.test(asked.what) || asked.method === 'DELETE' ? 2 : 1
  const reached = new Map<string, number>()
  let told = 0
  for (const asked of requests().sort((x, y) => order(x) - order(y))) {
    const { status, text } = await ask(asked.method, asked.url, tokens['a/admin'], asked.body)
    if (text.includes(marker)) told++
    reached.set(asked.what, status)
  }
  const answered = [...reached.values()].filter(status => status === 200).length
  assert.ok(answered > 100 && told > 25, `${answered} of ${reached.size} answered, ${told} told something`)
})

test('a job is a program of the server’s user, so nobody but the owner runs one where that was not allowed', async () => {
  const strict = createApp({
    routes: routesOf(home, log),
    foreign: [],
    authenticate: text => authenticate(db, text),
    loopback: false,
    limits: { requests: 1e6, failures: 1e6 },
  })
  try {
    const submit = async (token: string) => {
      const payload = JSON.stringify({ spec: plainSpec('own', { argv: ['true'] }) })
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      const answer = await strict.inject({ method: 'POST', url: '/api/jobs', headers, payload })
      return [answer.statusCode, JSON.parse(answer.payload).error?.code]
    }
    for (const role of ['editor', 'admin']) assert.deepEqual(await submit(tokens[`a/${role}`]!), [403, 'jobs_of_the_owner'])
    assert.deepEqual(await submit(await ownerToken(home)), [200, undefined])
  } finally {
    await strict.close()
  }
})
