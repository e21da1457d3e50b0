/** Runs of recipes and of SDKs among the tracked ones, and the truth about those whose process is gone. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openHome } from '../../src/track/home.ts'
import { reapLostRuns } from '../../src/track/reaper.ts'
import { createRun } from '../../src/track/runs.ts'
import { searchRuns } from '../../src/track/search/runs.ts'
import { createTrackedRun, getTrackedRun, metricHistory } from '../../src/track/tracked-runs.ts'
import { thisProcess } from '../../src/track/worker.ts'

test('a training is found among the tracked runs, with its params and every point of its metrics, each once', async () => {
  const home = await openHome(mkdtempSync(join(tmpdir(), 'home-')))
  const run = await createRun(home, {
    name: 'clothes',
    recipe: 'image-classification',
    params: { seed: 3, backbone: 'lite' },
    environment: { plinth: '0.1.0', commit: null },
    dataset: { name: 'clothes', version: 2, digest: 'd'.repeat(32) },
    device: null,
  })
  await run.start()
  for (let step = 1; step <= 3; step++) run.logMetrics(step, { loss: 1 / step })
  await run.recordCheckpoint(3)
  await run.finish('succeeded')
  const { experiment, status, params, tags } = await getTrackedRun(home.db, 'default', run.run.run)
  assert.deepEqual([status, params, tags['plinth.dataset']], ['succeeded', { seed: '3', backbone: 'lite' }, 'clothes@2'])
  const history = await metricHistory(home.db, 'default', run.run.run, 'loss')
  assert.deepEqual(
    history.map(({ step, value }) => [step, value]),
    [
      [1, 1],
      [2, 1 / 2],
      [3, 1 / 3],
    ],
  )
  const search = { experiments: [experiment], filter: 'metrics.loss < 0.4', orderBy: [], view: 'active', limit: 10 } as const
  assert.equal((await searchRuns(home.db, 'default', search)).numbers.length, 1)
  await home.close()
})

test('a run whose process died is failed, lost; one whose process lives is left alone', async () => {
  const home = await openHome(mkdtempSync(join(tmpdir(), 'home-')))
  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'])
  const { pid } = child
  const dead = { ...thisProcess(), pid: pid!, birth: 'another birth' }
  child.kill('SIGKILL')
  await new Promise(resolve => child.once('exit', resolve))
  const start = (worker: object) =>
    createTrackedRun(home.db, 'default', { experiment: '0', user: 'u', tags: [], worker: JSON.stringify(worker) })
  const [gone, here] = [await start(dead), await start(thisProcess())]
  assert.equal(await reapLostRuns(home), 1)
  const states = await Promise.all([gone, here].map(({ run }) => getTrackedRun(home.db, 'default', run)))
  assert.deepEqual(
    states.map(({ status, reason }) => [status, reason]),
    [
      ['failed', 'lost'],
      ['running', null],
    ],
  )
  await home.close()
})
