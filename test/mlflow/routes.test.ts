/** The routes that MLflow's clients and pages ask, one by one: each is there, under both prefixes, and behind a token. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { openDatabase } from '../../src/db/open.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import { createRunLog } from '../../src/track/log.ts'
import { mlflowRoutes } from '../../src/track/mlflow/routes.ts'
import { mlflowApi } from './server.ts'

/** Without these a client or a page of MLflow breaks. */
const must = [
  'GET /mlflow/experiments/get-by-name',
  'POST /mlflow/experiments/create',
  'POST /mlflow/experiments/search',
  'GET /mlflow/experiments/search',
  'GET /mlflow/experiments/get',
  'POST /mlflow/experiments/delete',
  'POST /mlflow/experiments/restore',
  'POST /mlflow/experiments/update',
  'POST /mlflow/runs/create',
  'POST /mlflow/runs/update',
  'POST /mlflow/runs/delete',
  'POST /mlflow/runs/restore',
  'POST /mlflow/runs/log-metric',
  'POST /mlflow/runs/log-parameter',
  'POST /mlflow/experiments/set-experiment-tag',
  'POST /mlflow/experiments/delete-experiment-tag',
  'POST /mlflow/runs/set-tag',
  'POST /mlflow/runs/delete-tag',
  'GET /mlflow/runs/get',
  'POST /mlflow/runs/search',
  'GET /mlflow/artifacts/list',
  'GET /mlflow/metrics/get-history',
  'POST /mlflow/runs/log-batch',
  'POST /mlflow/runs/log-model',
  'POST /mlflow/runs/log-inputs',
  'POST /mlflow/runs/outputs',
  'POST /mlflow/logged-models',
  'PATCH /mlflow/logged-models/:model_id',
  'GET /mlflow/logged-models/:model_id',
  'DELETE /mlflow/logged-models/:model_id',
  'POST /mlflow/logged-models/search',
  'PATCH /mlflow/logged-models/:model_id/tags',
  'DELETE /mlflow/logged-models/:model_id/tags/:tag_key',
  'GET /mlflow/logged-models/:model_id/artifacts/directories',
  'POST /mlflow/logged-models/:model_id/params',
  'POST /mlflow/registered-models/create',
  'POST /mlflow/registered-models/rename',
  'PATCH /mlflow/registered-models/update',
  'DELETE /mlflow/registered-models/delete',
  'GET /mlflow/registered-models/get',
  'GET /mlflow/registered-models/search',
  'POST /mlflow/registered-models/get-latest-versions',
  'GET /mlflow/registered-models/get-latest-versions',
  'POST /mlflow/model-versions/create',
  'PATCH /mlflow/model-versions/update',
  'POST /mlflow/model-versions/transition-stage',
  'DELETE /mlflow/model-versions/delete',
  'GET /mlflow/model-versions/get',
  'GET /mlflow/model-versions/search',
  'GET /mlflow/model-versions/get-download-uri',
  'POST /mlflow/registered-models/set-tag',
  'POST /mlflow/model-versions/set-tag',
  'DELETE /mlflow/registered-models/delete-tag',
  'DELETE /mlflow/model-versions/delete-tag',
  'POST /mlflow/registered-models/alias',
  'DELETE /mlflow/registered-models/alias',
  'GET /mlflow/registered-models/alias',
  'GET /mlflow-artifacts/artifacts/*',
  'PUT /mlflow-artifacts/artifacts/*',
  'GET /mlflow-artifacts/artifacts',
  'DELETE /mlflow-artifacts/artifacts/*',
]
/** Without these something is missing in its pages, or a client tries, is told and does it another way. */
const also = [
  'GET /mlflow/metrics/get-history-bulk',
  'GET /mlflow/metrics/get-history-bulk-interval',
  'POST /mlflow/experiments/search-datasets',
  'POST /mlflow/upload-artifact',
  'GET /mlflow/logged-models/:model_id/artifacts/files',
  'GET /mlflow/traces',
  'POST /mlflow/traces',
  'POST /mlflow/artifacts/presigned-upload-url',
  'POST /mlflow/artifacts/presigned-download-url',
  'POST /mlflow-artifacts/mpu/create/*',
  'POST /mlflow-artifacts/mpu/complete/*',
  'POST /mlflow-artifacts/mpu/abort/*',
  'GET /mlflow-artifacts/presigned/*',
]
const ofVersion3 = ['GET /mlflow/server-info', 'POST /mlflow/traces', 'POST /mlflow/traces/search']
const whole = ['GET /version', 'GET /', 'GET /get-artifact', 'GET /model-versions/get-artifact']

const expected = [
  ...[...must, ...also].flatMap(route => ['/api/2.0', '/ajax-api/2.0'].map(prefix => route.replace(' ', ` ${prefix}`))),
  ...ofVersion3.flatMap(route => ['/api/3.0', '/ajax-api/3.0'].map(prefix => route.replace(' ', ` ${prefix}`))),
  ...whole,
]

const db = await openDatabase(':memory:')
const api = await mlflowApi(db)
after(() => api.close())
const table = mlflowRoutes({ db, log: createRunLog(db), objects: memoryObjects(), models: memoryObjects(), home: '' })

test('the table of routes is this list, and a clear no to the rest', () => {
  const named = table.filter(({ path }) => !['/api/2.0/*', '/api/3.0/*', '/ajax-api/*'].includes(path))
  assert.equal(must.length, 61)
  assert.deepEqual(named.map(({ method, path }) => `${method} ${path}`).toSorted(), expected.toSorted())
})

test('every route is answered by a function of its own, never by the no', async () => {
  const lost: string[] = []
  for (const route of expected) {
    const [method, path] = route.split(' ') as [string, string]
    const url = path.replace('*', '1/x').replace(/:\w+/g, 'm-1')
    const { status, body } = await api.ask(method, url, method === 'GET' || method === 'PUT' ? {} : { body: {} })
    if (status === 404 && body.error_code !== 'RESOURCE_DOES_NOT_EXIST') lost.push(`${route}: ${JSON.stringify(body)}`)
    if (status >= 500 && status !== 501) lost.push(`${route}: ${status}`)
  }
  assert.deepEqual(lost, [])
})

test('no route is answered without a token but the one that tells the version, and a page without contents', async () => {
  for (const { method, path, right } of table) {
    const url = path.replace('*', '1/x').replace(/:\w+/g, 'm-1')
    const { status, body } = await api.ask(method, url, { project: null, ...(method !== 'GET' && { body: {} }) })
    if (path === '/') assert.match(body, /^<!doctype html>.*Plinth answers here/s, 'the page behind the links that clients print')
    else if (right === 'public') assert.deepEqual([path, status, body], ['/version', 200, '3.3.0'])
    else assert.deepEqual([path, status, body.error_code], [path, 401, 'UNAUTHENTICATED'])
  }
})

test('an unknown route is never a missing thing: clients then try another version of the call', async () => {
  for (const path of [
    '/api/2.0/mlflow/nothing',
    '/api/3.0/mlflow/traces/tr-1',
    '/ajax-api/3.0/mlflow/gateway/secrets/list',
    '/api/2.0/preview/mlflow/runs/get',
  ])
    for (const method of ['GET', 'POST', 'PATCH', 'DELETE', 'PUT']) {
      const { status, body } = await api.ask(method, path, method === 'GET' ? {} : { body: {} })
      assert.deepEqual([status, body.error_code], [404, 'ENDPOINT_NOT_FOUND'], `${method} ${path}`)
    }
  const told = async (path: string) => (await api.ask('POST', path, { body: {} })).body.message
  assert.match(
    await told('/api/3.0/mlflow/datasets/create'),
    /datasets\/create is not answered here: evaluation datasets are not part of Plinth\./,
  )
  assert.match(await told('/api/2.0/mlflow/nothing'), /nothing is not answered here\. Look at docs\/mlflow\.md/)
  const { status, body } = await api.ask('GET', 'runs/create')
  assert.deepEqual([status, body.error_code], [404, 'ENDPOINT_NOT_FOUND'], 'the wrong method')
})

test('what is not done says so in the words that clients look for, and is not tried again', async () => {
  const upload = await api.ask('POST', '/api/2.0/mlflow-artifacts/mpu/create/1/x', { body: { path: 'x', num_parts: 3 } })
  assert.deepEqual([upload.status, upload.body.error_code], [501, 'NOT_IMPLEMENTED'])
  assert.match(upload.body.message, /^Multipart upload is not supported for the current artifact repository/)
  assert.equal((await api.ask('GET', '/api/2.0/mlflow-artifacts/presigned/1/x')).status, 501)
  assert.equal((await api.ask('POST', '/api/3.0/mlflow/traces', { body: {} })).status, 501)
  assert.deepEqual(await api.post('/api/3.0/mlflow/traces/search', {}), {})
})

test('an address that cannot be decoded, and a body that is too large, are refused in words', async () => {
  const address = await api.ask('GET', '/api/2.0/mlflow/logged-models/%ff')
  assert.deepEqual([address.status, address.body.error.code], [400, 'api_request_invalid'])
  const large = await api.ask('POST', 'runs/log-batch', { text: 'x'.repeat(17 * 2 ** 20) })
  assert.deepEqual([large.status, large.body.error_code], [413, 'BAD_REQUEST'])
})
