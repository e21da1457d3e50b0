/** Plinth's own models over MLflow's API: its files reach the client, the gate says no as 400, what is served stays. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { registerModel } from '../../src/models/registry.ts'
import { openHome } from '../../src/track/home.ts'
import { finishedArtefact } from '../models/tiny-model.ts'
import { main } from '../up/up.ts'
import { mlflowPython, startServer } from './server.ts'

const server = await startServer()
after(() => server.close())
const home = await openHome(server.home)
after(() => home.close())
const onnx = await finishedArtefact()
const file = join(server.home, 'given.onnx')
for (const again of [false, true]) {
  // the same network with another threshold is another file
  writeFileSync(file, again ? await finishedArtefact({ threshold: 0.7 }) : onnx)
  await registerModel(home, { name: 'colours', file, labels: ['red', 'green', 'blue'], run: null, dataset: null, accuracy: null })
}

async function ask(method: string, path: string, body?: object) {
  const response = await fetch(new URL(path, server.url), {
    method,
    headers: { authorization: `Bearer ${server.token}`, ...(body && { 'content-type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) }),
  })
  const bytes = Buffer.from(await response.arrayBuffer())
  // biome-ignore lint/suspicious/noExplicitAny: answers are compared field by field
  const read = (): any => JSON.parse(bytes.toString())
  return { status: response.status, bytes, read }
}
const registered = '/api/2.0/mlflow/registered-models'

test('an ONNX file of ours has a source that the server itself answers', async () => {
  const { model_versions } = (await ask('GET', '/api/2.0/mlflow/model-versions/search?filter=')).read()
  assert.deepEqual(
    model_versions.map((each: { version: string; source: string }) => [each.version, each.source]),
    [
      ['2', 'mlflow-artifacts:/registered/colours/2'],
      ['1', 'mlflow-artifacts:/registered/colours/1'],
    ],
  )
  const { artifact_uri } = (await ask('GET', '/api/2.0/mlflow/model-versions/get-download-uri?name=colours&version=1')).read()
  assert.equal(artifact_uri, 'mlflow-artifacts:/registered/colours/1')
  const { files } = (await ask('GET', '/api/2.0/mlflow-artifacts/artifacts?path=registered/colours/1')).read()
  assert.deepEqual(
    files.map((each: { path: string }) => each.path),
    ['MLmodel', 'model.onnx'],
  )
  const { status, bytes } = await ask('GET', '/api/2.0/mlflow-artifacts/artifacts/registered/colours/1/model.onnx')
  assert.equal(status, 200)
  assert.ok(bytes.equals(Buffer.from(onnx)))
  assert.equal((await ask('GET', '/api/2.0/mlflow-artifacts/artifacts/registered/colours/9/model.onnx')).status, 404)
  for (const method of ['PUT', 'DELETE'])
    assert.ok(
      (await ask(method, '/api/2.0/mlflow-artifacts/artifacts/registered/colours/1/model.onnx')).status >= 400,
      'a version never changes',
    )
  const elsewhere = await fetch(new URL('/api/2.0/mlflow-artifacts/artifacts/registered/colours/1/model.onnx', server.url), {
    headers: { authorization: `Bearer ${await server.tokenFor('other')}` },
  })
  assert.equal(elsewhere.status, 404)
})

test('MLflow’s own client downloads it, and reads what it is', async t => {
  const python = mlflowPython()
  if (!python) return t.skip('there is no Python with MLflow')
  const program = `
import hashlib, mlflow, os
from mlflow.models import Model
path = mlflow.artifacts.download_artifacts('models:/colours/1')
print(hashlib.sha256(open(os.path.join(path, 'model.onnx'), 'rb').read()).hexdigest(), *sorted(Model.load(path).flavors))`
  // not waited for in this thread, which the server answers in
  const { stdout } = await promisify(execFile)(python, ['-c', program], {
    env: { ...process.env, MLFLOW_TRACKING_URI: server.url, MLFLOW_TRACKING_TOKEN: server.token },
  })
  const { digest } = await home.db.selectFrom('model_versions').select('digest').where('version', '=', 1).executeTakeFirstOrThrow()
  assert.equal(stdout.trim(), `${digest} onnx python_function`)
})

test('a worse version is refused with 400 and the reason, as an alias and in Production', async () => {
  const rows = await home.db.selectFrom('model_versions').select(['version', 'digest']).execute()
  for (const { version, digest } of rows) {
    const accuracy = version === 1 ? 0.9 : 0.6
    const set = { name: 'site-B', version: 1, digest: 's' }
    const score = {
      set,
      model: digest,
      n: 400,
      accuracy,
      low: accuracy - 0.03,
      high: accuracy + 0.03,
      balancedAccuracy: accuracy,
      seen: null,
      at: '',
    }
    await home.db
      .insertInto('test_set_scores')
      .values({ model: digest, test_set: 'site-B', version: 1, digest: 's', score: JSON.stringify(score) })
      .execute()
  }
  assert.equal((await ask('POST', `${registered}/alias`, { name: 'colours', alias: 'champion', version: '1' })).status, 200)
  const refused = await ask('POST', `${registered}/alias`, { name: 'colours', alias: 'champion', version: '2' })
  assert.equal(refused.status, 400)
  assert.equal(refused.read().error_code, 'INVALID_PARAMETER_VALUE')
  assert.match(refused.read().message, /colours@2 .*worse than colours@1.*60\.0 % instead of 90\.0 % on site-B@1.*--force --reason/)
  const stage = (version: string) =>
    ask('POST', '/api/2.0/mlflow/model-versions/transition-stage', {
      name: 'colours',
      version,
      stage: 'Production',
      archive_existing_versions: true,
    })
  assert.equal((await stage('1')).status, 200)
  assert.equal((await stage('2')).status, 400)
  assert.equal((await ask('GET', `${registered}/alias?name=colours&alias=champion`)).read().model_version.version, '1')
})

test('a version that plinth serve answers with is not deleted, and is when that ends', async () => {
  const serving = spawn(process.execPath, [main, 'serve', 'colours@champion', '--port', '0', '--json'], {
    env: { ...process.env, PLINTH_HOME: server.home },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await once(createInterface({ input: serving.stdout }), 'line')
  assert.equal(JSON.parse(line).model, 'colours@1')
  const remove = () => ask('DELETE', '/api/2.0/mlflow/model-versions/delete', { name: 'colours', version: '1' })
  const refused = await remove()
  assert.equal(refused.status, 409)
  assert.match(refused.read().message, new RegExp(`process ${serving.pid}`))
  serving.kill('SIGKILL') // it says nothing any more
  await once(serving, 'exit')
  assert.equal((await remove()).status, 200)
  assert.equal((await ask('GET', `${registered}/get?name=colours`)).read().registered_model.aliases, undefined, 'its aliases vanish')
})
