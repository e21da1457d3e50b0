/** The typed client against the application, on both databases. */
import assert from 'node:assert/strict'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { startControlPlane } from '../../src/control-plane.ts'
import { calls } from '../../src/sdk/calls/index.ts'
import { createClient } from '../../src/sdk/client.ts'
import { openHome } from '../../src/track/home.ts'

const home = await openHome(mkdtempSync(join(tmpdir(), 'home-')))
const server = await startControlPlane(home, { host: '127.0.0.1', port: 0 })
after(async () => {
  await server.close()
  await home.close()
})
const plinth = createClient(calls, server)

test('a run is started, logged to, found and ended through the typed client', async () => {
  const { experiment } = await plinth.createExperiment({ name: 'birds', tags: { owner: 'me' } })
  const started = await plinth.startRun({ experiment, name: 'first' })
  const point = (step: number, value: number | 'NaN') => ({ key: 'loss', step, value, timestamp: step })
  await plinth.logToRun({ run: started.run, metrics: [point(2, 0.5), point(1, 0.7), point(3, 'NaN')], params: { net: 'lite' } })
  await plinth.logToRun({ run: started.run, metrics: [point(2, 0.5)], params: { net: 'lite' } })
  const run = await plinth.getRun({ run: started.run })
  assert.deepEqual([run.params, run.metrics], [{ net: 'lite' }, [point(3, 'NaN')]])
  assert.deepEqual((await plinth.searchRuns({ experiments: [experiment], filter: "params.net = 'lite'" })).items, [run])
  const { total, points } = await plinth.getMetricHistory({ run: started.run, key: 'loss' })
  assert.deepEqual([total, points.map(({ value }) => value)], [3, [0.7, 0.5, 'NaN']])
  assert.equal((await plinth.endRun({ run: started.run, status: 'succeeded' })).status, 'succeeded')
})

test('a refusal arrives with its code, what happened and what to do', async () => {
  await assert.rejects(plinth.getRun({ run: '0'.repeat(32) }), { code: 'tracked_run_not_found', status: 404, next: /runs list/ })
  await assert.rejects(createClient(calls, { url: server.url, token: 'plinth_000000000000_'.padEnd(63, 'x') }).getServer({}), {
    code: 'token_wrong',
  })
  await assert.rejects(createClient(calls, { url: server.url }).getServer({}), { code: 'token_required' })
  await assert.rejects(createClient(calls, { url: 'http://127.0.0.1:1' }).getServer({}), { code: 'server_unreachable' })
})

test('starting a run again under the same id starts no second one', async () => {
  const run = 'a'.repeat(32)
  const [first, second] = [await plinth.startRun({ run, name: 'x' }), await plinth.startRun({ run, name: 'x' })]
  assert.deepEqual(first, second)
})
