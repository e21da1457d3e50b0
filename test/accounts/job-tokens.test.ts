/** The token of a job: its own run and what it makes beneath it, and nothing else, on no route; dead with the attempt. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { giveJobToken, takeJobToken } from '../../src/accounts/job-tokens.ts'
import { ownerToken } from '../../src/accounts/owner.ts'
import { createSpoolAccess } from '../../src/accounts/spool-access.ts'
import { authenticate, listTokens } from '../../src/accounts/tokens.ts'
import { createApp } from '../../src/api/app.ts'
import { foreignRoutesOf, routesOf } from '../../src/control-plane.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import { idsIn } from '../../src/track/confined.ts'
import { openHome } from '../../src/track/home.ts'
import { startJobRun } from '../../src/track/job-runs.ts'
import { createRunLog } from '../../src/track/log.ts'

const folder = mkdtempSync(join(tmpdir(), 'job-tokens-'))
const home = await openHome(folder)
const { db } = home
const log = createRunLog(db)
const objects = memoryObjects()
const app = createApp({
  routes: routesOf(home, log),
  foreign: foreignRoutesOf(home, log, objects),
  authenticate: text => authenticate(db, text),
  loopback: false,
})
after(async () => {
  await app.close()
  await log.close()
  await home.close()
  rmSync(folder, { recursive: true, force: true })
})

const derived = (words: string) => createHash('sha256').update(`key ${words}`).digest()
const own = 'a'.repeat(32)
const secret = 'nobody-else-may-read-this'
let owner = ''
let token = ''
let other = ''
let model = ''

async function ask(method: string, url: string, body?: unknown, as = token, headers: Record<string, string> = {}) {
  const answer = await app.inject({
    method: method as 'GET',
    url,
    headers: { authorization: `Bearer ${as}`, ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
    ...(body !== undefined && { payload: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  return { status: answer.statusCode, text: answer.payload, json: () => JSON.parse(answer.payload) }
}
const mlflow = (path: string, body: unknown, as?: string) => ask('POST', `/api/2.0/mlflow/${path}`, body, as)

before(async () => {
  owner = await ownerToken(home)
  await startJobRun(db, { project: 'default', user: 'owner', run: own, name: 'train', experiment: null, tags: {} })
  token = await giveJobToken(db, derived, { job: 1, attempt: 1, user: 'owner', project: 'default', run: own })
  const made = await mlflow('runs/create', { experiment_id: '0', tags: [{ key: 'note', value: secret }] }, owner)
  other = made.json().run.info.run_id
  await mlflow('runs/log-batch', { run_id: other, params: [{ key: 'p', value: secret }] }, owner)
  model = (await mlflow('logged-models', { experiment_id: '0', name: 'm', source_run_id: other }, owner)).json().model.info.model_id
  for (const place of [`0/${other}/artifacts/f.txt`, `0/models/${model}/artifacts/f.txt`, `0/${own}/artifacts/f.txt`])
    await objects.put(place, Readable.from([Buffer.from(secret)]))
})

test('it does what a training does with its own run', async () => {
  const steps: [string, string, unknown?][] = [
    ['GET', `/api/runs/${own}`],
    ['POST', `/api/runs/${own}/log`, { metrics: [{ key: 'loss', value: 1, timestamp: 1, step: 1 }], tags: { a: 'b' } }],
    ['POST', `/api/runs/${own}/heartbeat`, {}],
    ['GET', `/api/2.0/mlflow/runs/get?run_id=${own}`],
    [
      'POST',
      '/api/2.0/mlflow/runs/log-batch',
      { run_id: own, params: [{ key: 'lr', value: '1' }], metrics: [{ key: 'x', value: 1, timestamp: 1, step: 0 }] },
    ],
    ['GET', `/api/2.0/mlflow/metrics/get-history?run_id=${own}&metric_key=x`],
    ['GET', `/api/2.0/mlflow/artifacts/list?run_id=${own}`],
    ['GET', `/api/2.0/mlflow-artifacts/artifacts/0/${own}/artifacts/f.txt`],
    ['GET', `/api/2.0/mlflow-artifacts/artifacts?path=0/${own}/artifacts`],
    ['GET', '/api/2.0/mlflow/experiments/get?experiment_id=0'],
    ['POST', '/api/2.0/mlflow/experiments/create', { name: 'of the job' }],
  ]
  for (const [method, url, body] of steps) {
    const { status, text } = await ask(method, url, body)
    assert.equal(status, 200, `${method} ${url}: ${text}`)
  }
  const put = await app.inject({
    method: 'PUT',
    url: `/api/2.0/mlflow-artifacts/artifacts/0/${own}/artifacts/new/weights.bin`,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/octet-stream' },
    payload: Buffer.from('weights'),
  })
  assert.equal(put.statusCode, 200, put.payload)
})

test('what it makes stands beneath its run, and it may go on with that', async () => {
  for (const tags of [[], [{ key: 'mlflow.parentRunId', value: own }]]) {
    const made = await mlflow('runs/create', { experiment_id: '0', run_name: 'child', tags })
    const child = made.json().run.info.run_id
    assert.ok(
      made.json().run.data.tags.some((tag: { key: string; value: string }) => tag.key === 'mlflow.parentRunId' && tag.value === own),
    )
    assert.equal((await mlflow('runs/log-metric', { run_id: child, key: 'm', value: 1, timestamp: 1 })).status, 200)
    const grandchild = await mlflow('runs/create', { experiment_id: '0', tags: [{ key: 'mlflow.parentRunId', value: child }] })
    assert.equal((await mlflow('runs/set-tag', { run_id: grandchild.json().run.info.run_id, key: 'k', value: 'v' })).status, 200)
  }
  const started = await ask('POST', '/api/runs', { name: 'by the contract', run: 'b'.repeat(32) })
  assert.equal(started.json().tags['mlflow.parentRunId'], own)
  assert.equal((await ask('POST', `/api/runs/${'b'.repeat(32)}/end`, { status: 'failed' })).json().status, 'failed')
  const logged = await mlflow('logged-models', { experiment_id: '0', name: 'mine', source_run_id: own })
  const mine = logged.json().model.info.model_id
  assert.equal((await ask('PATCH', `/api/2.0/mlflow/logged-models/${mine}`, { model_id: mine, status: 'LOGGED_MODEL_READY' })).status, 200)
  await mlflow('registered-models/create', { name: 'registered-by-a-job' })
  const version = await mlflow('model-versions/create', {
    name: 'registered-by-a-job',
    source: `models:/${mine}`,
    run_id: own,
    model_id: mine,
  })
  assert.equal(version.status, 200, version.text)
})

test('searches find its own, whatever the filter says', async () => {
  const filters = ['', `attributes.run_id = '${other}'`, `params.p = '${secret}'`, 'metrics.x > 0 or metrics.x < 0', "' or '1' = '1"]
  for (const filter of filters) {
    for (const found of [
      await mlflow('runs/search', { experiment_ids: ['0'], filter }),
      await ask('POST', '/api/runs/search', { experiments: ['0'], filter }),
    ]) {
      // what is refused repeats what was asked
      if (found.status === 200) assert.ok(!found.text.includes(secret) && !found.text.includes(other), `${filter}: ${found.text}`)
      else assert.equal(found.status, 400, found.text)
    }
  }
  const all = (await mlflow('runs/search', { experiment_ids: ['0'] })).json().runs
  assert.equal(all.length, 3, 'those directly beneath its own')
})

test('no route, no spelling and no detour leads to another run, model or file', async () => {
  const before = JSON.stringify([
    await db.selectFrom('tracked_runs').selectAll().where('id', '=', other).execute(),
    await db.selectFrom('tags').selectAll().execute(),
  ])
  const tries: [string, string, unknown?][] = [
    ['GET', `/api/runs/${other}`],
    ['POST', `/api/runs/${other}/log`, { tags: { a: 'b' } }],
    ['POST', `/api/runs/${other}/heartbeat`, {}],
    ['POST', `/api/runs/${other}/end`, { status: 'failed' }],
    ['POST', `/api/runs/${other}/resume`, {}],
    ['GET', `/api/runs/${other}/metrics?key=x`],
    ['POST', '/api/runs', { run: other }],
    ['POST', '/api/runs', { tags: { 'mlflow.parentRunId': other } }],
    ['POST', `/api/runs/${own}/log`, { metrics: [{ key: 'k', value: 1, timestamp: 1, step: 1, model }] }],
    ['GET', `/api/2.0/mlflow/runs/get?run_id=${own}&run_id=${other}`],
    ['GET', `/api/2.0/mlflow/runs/get?run_id=${own}&run_uuid=${other}`],
    ['GET', `/ajax-api/2.0/mlflow/runs/get?runId=${other}`],
    ['POST', '/api/2.0/mlflow/runs/log-batch', { run_id: own, runId: other, tags: [{ key: 'x', value: 'y' }] }],
    ['POST', '/api/2.0/mlflow/runs/log-batch', JSON.stringify(JSON.stringify({ run_id: other, tags: [{ key: 'x', value: 'y' }] }))],
    ['POST', '/api/2.0/mlflow/runs/log-batch', `{"run_id":"${own}","run_id":"${other}","tags":[{"key":"x","value":"y"}]}`],
    ['POST', '/api/2.0/mlflow/runs/set-tag', { runUuid: other, key: 'x', value: 'y' }],
    ['POST', '/api/2.0/mlflow/runs/set-tag', { run_id: own, key: 'mlflow.parentRunId', value: other }],
    ['POST', '/api/2.0/mlflow/runs/create', { experiment_id: '0', tags: [{ key: 'mlflow.parentRunId', value: other }] }],
    ['POST', '/api/2.0/mlflow/runs/update', { run_id: other, status: 'KILLED' }],
    ['POST', '/api/2.0/mlflow/runs/delete', { run_id: own }],
    ['GET', `/api/2.0/mlflow/metrics/get-history-bulk?run_id=${own}&run_id=${other}&metric_key=x`],
    ['GET', `/api/2.0/mlflow/artifacts/list?run_id=${other}`],
    ['GET', `/get-artifact?run_id=${other}&path=f.txt`],
    ['GET', `/api/2.0/mlflow-artifacts/artifacts/0/${other}/artifacts/f.txt`],
    ['GET', `/api/2.0/mlflow-artifacts/artifacts/0/${own}/artifacts/%2e%2e/%2e%2e/${other}/artifacts/f.txt`],
    ['GET', `/api/2.0/mlflow-artifacts/artifacts/0/${own}%2f..%2f${other}/artifacts/f.txt`],
    ['GET', `/api/2.0/mlflow-artifacts/artifacts/0/models/${model}/artifacts/f.txt`],
    ['GET', `/api/2.0/mlflow-artifacts/artifacts?path=0/${other}/artifacts`],
    ['GET', '/api/2.0/mlflow-artifacts/artifacts?path=0'],
    ['PUT', `/api/2.0/mlflow-artifacts/artifacts/0/${other}/artifacts/f.txt`],
    ['DELETE', `/api/2.0/mlflow-artifacts/artifacts/0/${own}/artifacts/f.txt`],
    ['POST', `/api/2.0/mlflow/upload-artifact?run_id=${own}&run_uuid=${other}&path=f.txt`],
    ['GET', `/api/2.0/mlflow/logged-models/${model}`],
    ['PATCH', `/api/2.0/mlflow/logged-models/${model}/tags`, { tags: [{ key: 'x', value: 'y' }] }],
    ['POST', '/api/2.0/mlflow/logged-models', { experiment_id: '0', name: 'n' }],
    ['POST', '/api/2.0/mlflow/logged-models/search', { experiment_ids: ['0'] }],
    ['POST', '/api/2.0/mlflow/runs/outputs', { run_id: own, models: [{ model_id: model, step: 1 }] }],
    ['POST', '/api/2.0/mlflow/model-versions/create', { name: 'stolen', source: `models:/${model}` }],
    ['POST', '/api/2.0/mlflow/model-versions/create', { name: 'stolen', source: `runs:/${other}/model`, run_id: own }],
    [
      'POST',
      '/api/2.0/mlflow/model-versions/create',
      { name: 'stolen', source: `mlflow-artifacts:/0/${other}/artifacts/f.txt`, run_id: own },
    ],
    ['GET', '/api/jobs'],
    ['GET', '/api/jobs/1/log'],
    ['POST', '/api/jobs', { spec: {} }],
    ['GET', '/api/tokens'],
    ['POST', '/api/tokens', { name: 'mine' }],
    ['GET', '/api/experiments'],
    ['GET', '/metrics'],
    ['GET', '/api/openapi.json'],
  ]
  for (const [method, url, body] of tries) {
    const { status, text } = await ask(method, url, body)
    assert.ok([400, 403, 404].includes(status), `${method} ${url} ${JSON.stringify(body)} answered ${status} ${text.slice(0, 200)}`)
    assert.ok(!text.includes(secret), url)
  }
  const now = JSON.stringify([
    await db.selectFrom('tracked_runs').selectAll().where('id', '=', other).execute(),
    await db.selectFrom('tags').selectAll().execute(),
  ])
  assert.equal(now, before)
})

test('the run of a job does not succeed before the job does; that it failed is believed', async () => {
  await mlflow('runs/update', { run_id: own, status: 'FINISHED', end_time: 5 })
  await ask('POST', `/api/runs/${own}/end`, { status: 'succeeded' })
  const { status, ended } = (await ask('GET', `/api/runs/${own}`)).json()
  assert.deepEqual([status, ended], ['running', null])
  await mlflow('runs/update', { run_id: own, status: 'FAILED' })
  assert.equal((await ask('GET', `/api/runs/${own}`)).json().status, 'failed')
  await ask('POST', `/api/runs/${own}/resume`, {})
})

test('asked for again it is the same token; taken, it is dead, and says why to who still has it', async () => {
  const about = { job: 2, attempt: 1, user: 'owner', project: 'default', run: own }
  const first = await giveJobToken(db, derived, about)
  assert.equal(await giveJobToken(db, derived, about), first)
  const second = await giveJobToken(db, derived, { ...about, attempt: 2 })
  assert.notEqual(second, first)
  await takeJobToken(db, derived, 2, 1)
  const refused = await ask('GET', `/api/runs/${own}`, undefined, first)
  assert.deepEqual([refused.status, refused.json().error.code], [401, 'job_over'])
  assert.equal((await mlflow('runs/log-metric', { run_id: own, key: 'm', value: 1, timestamp: 1 }, first)).status, 401)
  await giveJobToken(db, derived, about)
  assert.equal((await ask('GET', `/api/runs/${own}`, undefined, first)).status, 401, 'it does not come back')
  assert.equal((await ask('GET', `/api/runs/${own}`, undefined, second)).status, 200)
  assert.equal(
    (await ask('GET', `/api/runs/${own}`, undefined, `${first.slice(0, -1)}${first.at(-1) === 'A' ? 'B' : 'A'}`)).json().error.code,
    'token_wrong',
  )
  const listed = await listTokens(db, { user: 'owner', owner: true, project: 'default', role: null, scope: 'all', token: '' })
  assert.ok(
    listed.every(({ name }) => !name.startsWith('job ')),
    'tokens of jobs are not listed among those of people',
  )
})

test('what a job logged while the server was away is taken up with no more rights than it had', async () => {
  const spool = createSpoolAccess(db)
  const id = /^plinth_([0-9a-f]{12})_/.exec(token)![1]!
  const principal = spool.principal((await spool.authorize(id))!)
  assert.equal(principal!.run, own)
})

test('ids are found under every name, at any depth', () => {
  const found = idsIn({
    runId: 'a',
    nested: [{ run_uuid: 'b', deep: { source_run_id: 'c', model_id: 'd' } }],
    run_ids: ['e', 'f'],
    key: 'run_id',
    value: 'x',
  })
  assert.deepEqual([found.runs.toSorted(), found.models], [['a', 'b', 'c', 'e', 'f'], ['d']])
})
