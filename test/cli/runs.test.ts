/** `plinth runs` shows runs of every origin, with a server on the home and without. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { startControlPlane } from '../../src/control-plane.ts'
import { calls } from '../../src/sdk/calls/index.ts'
import { createClient } from '../../src/sdk/client.ts'
import { openHome } from '../../src/track/home.ts'
import { createRun } from '../../src/track/runs.ts'
import { temporaryFolder } from '../track/homes.ts'
import { main } from '../up/up.ts'

test('trainings, MLflow’s runs and those of the SDK are listed, found, shown and deleted, with the server and without', async t => {
  const folder = join(temporaryFolder(t), 'home')
  // biome-ignore lint/suspicious/noExplicitAny: answers are compared field by field
  const plinth = async (...words: string[]): Promise<any> => {
    const environment = { ...process.env, PLINTH_HOME: folder, PLINTH_URL: '', PLINTH_TOKEN: '' }
    const child = spawn(process.execPath, [main, ...words, '--json'], { env: environment, stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.setEncoding('utf8').on('data', part => (text += part))
    await once(child, 'close')
    return JSON.parse(text.trim().split('\n').at(-1)!)
  }
  const names = async (...words: string[]): Promise<string[]> =>
    (await plinth('runs', 'list', ...words)).runs.map((run: { name: string }) => run.name).toSorted()

  const home = await openHome(folder)
  t.after(() => home.close())
  const training = await createRun(home, {
    ...{ name: 'clothes', recipe: 'image-classification', params: { seed: 3 }, environment: {}, dataset: null, device: null },
  })
  await training.start()
  training.logMetrics(1, { accuracy: 0.5 })
  await training.recordCheckpoint(1)
  await training.finish('succeeded')

  const server = await startControlPlane(home, { host: '127.0.0.1', port: 0 })
  const client = createClient(calls, server)
  const { experiment } = await client.createExperiment({ name: 'birds' })
  const { run: parent } = await client.startRun({ experiment, name: 'sweep', tags: { 'mlflow.note.content': 'which *rate*?' } })
  const { run: child } = await client.startRun({ experiment, name: 'rate 0.1', tags: { 'mlflow.parentRunId': parent } })
  await client.logToRun({ run: child, metrics: [{ key: 'accuracy', value: 0.9, step: 1, timestamp: 1 }], params: { rate: '0.1' } })
  const answer = await fetch(`${server.url}/api/2.0/mlflow/runs/create`, {
    method: 'POST',
    headers: { authorization: `Bearer ${server.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ experiment_id: '0', run_name: 'from MLflow' }),
  })
  assert.equal(answer.status, 200)

  const all = ['clothes', 'from MLflow', 'rate 0.1', 'sweep']
  assert.deepEqual(await names(), all)
  await server.close()
  assert.deepEqual(await names(), all)
  assert.deepEqual(await names('--experiment', 'birds'), ['rate 0.1', 'sweep'])
  assert.deepEqual(await names('--filter', "metrics.accuracy > 0.6 and params.rate = '0.1'"), ['rate 0.1'])
  assert.deepEqual(
    (await plinth('runs', 'list', '--sort', 'metrics.accuracy DESC', '--last', '2')).runs.map((run: { name: string }) => run.name),
    ['rate 0.1', 'clothes'],
  )
  assert.equal((await plinth('runs', 'list', '--experiment', 'nobody')).error.code, 'experiment_not_found')
  assert.equal((await plinth('runs', 'list', '--filter', 'nonsense')).error.code, 'search_invalid')

  const { run: shown } = await plinth('runs', 'show', parent.slice(0, 10))
  assert.deepEqual(
    [shown.name, shown.experiment, shown.tags['mlflow.note.content'], shown.children],
    ['sweep', 'birds', 'which *rate*?', [{ run: child, name: 'rate 0.1', status: 'running', reason: null }]],
  )
  const { run: inner } = await plinth('runs', 'show', child)
  assert.deepEqual([inner.parent, inner.params, inner.metrics], [parent, { rate: '0.1' }, { accuracy: 0.9 }])
  const { run: trained } = await plinth('runs', 'show', training.run.run)
  assert.deepEqual(
    [trained.checkpointStep, trained.params, trained.recipe, trained.experiment],
    [1, { seed: 3 }, 'image-classification', 'clothes'],
  )

  assert.deepEqual(await plinth('runs', 'delete', child), { run: child })
  assert.deepEqual(await plinth('runs', 'delete', training.run.run), { run: training.run.run })
  assert.deepEqual(await names(), ['from MLflow', 'sweep'])
  assert.deepEqual(await names('--deleted'), ['rate 0.1'])
  assert.equal(existsSync(join(folder, 'runs', training.run.run)), false)
  assert.equal((await plinth('runs', 'show', training.run.run)).error.code, 'tracked_run_not_found')
})
