/** Runs of recipes and of SDKs among the tracked ones, and the truth about those whose process is gone. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openHome } from '../../src/track/home.ts'
import { listener, reapLostRuns } from '../../src/track/reaper.ts'
import { createRun, listRuns, settleRuns } from '../../src/track/runs.ts'
import { searchRuns } from '../../src/track/search/runs.ts'
import { createTrackedRun, getTrackedRun, metricHistory } from '../../src/track/tracked-runs.ts'
import { silence, thisProcess } from '../../src/track/worker.ts'

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

const training = { name: 'clothes', recipe: 'image-classification', params: {}, environment: {}, dataset: null, device: null }

test('what a kill kept from the tables is brought there: the end of a training, its last points, one from before there were any', async () => {
  const home = await openHome(mkdtempSync(join(tmpdir(), 'home-')))
  const { db } = home
  const [run, old] = [await createRun(home, training), await createRun(home, training)]
  for (const each of [run, old]) {
    await each.start()
    for (let step = 1; step <= 3; step++) each.logMetrics(step, { loss: 1 / step })
    await each.finish('succeeded')
  }
  const truth = await getTrackedRun(db, 'default', run.run.run)
  // as a kill leaves it between the folder, which says that it ended, and the tables
  await db
    .updateTable('runs')
    .set({ status: 'running', run: JSON.stringify({ ...run.run, status: 'running' }) })
    .where('id', '=', run.run.run)
    .execute()
  await db.updateTable('tracked_runs').set({ status: 'running', ended: null }).where('id', '=', run.run.run).execute()
  for (const table of ['metrics', 'latest_metrics'] as const) await db.deleteFrom(table).where('run', '=', truth.number).execute()
  await db.deleteFrom('tracked_runs').where('id', '=', old.run.run).execute()
  await settleRuns(home)
  for (const {
    run: { run: id },
  } of [run, old]) {
    const { status, ended, metrics } = await getTrackedRun(db, 'default', id)
    assert.deepEqual([status, ended === null, metrics.map(({ value }) => value)], ['succeeded', false, [1 / 3]])
    assert.equal((await metricHistory(db, 'default', id, 'loss')).length, 3)
  }
  await home.close()
})

test('a training whose folder was taken away, or cannot be read, is not at work; folders of those that ended are not read again', async () => {
  const home = await openHome(mkdtempSync(join(tmpdir(), 'home-')))
  const runs = await Promise.all([0, 1, 2].map(() => createRun(home, training)))
  const [gone, spoilt, ended] = runs.map(({ directory, run }) => ({ directory, id: run.run }))
  for (const each of runs) await each.start()
  await runs[2]!.finish('succeeded')
  rmSync(gone!.directory, { recursive: true })
  writeFileSync(join(spoilt!.directory, 'run.json'), '{"run": {')
  writeFileSync(join(ended!.directory, 'run.json'), '{"run": {')
  await settleRuns(home)
  const states = await Promise.all([gone, spoilt, ended].map(each => getTrackedRun(home.db, 'default', each!.id)))
  assert.deepEqual(
    states.map(({ status, reason }) => [status, reason]),
    [
      ['failed', 'damaged'],
      ['failed', 'damaged'],
      ['succeeded', null],
    ],
  )
  assert.deepEqual((await listRuns(home)).map(({ status }) => status).toSorted(), ['failed', 'succeeded'])
  for (const each of runs.slice(0, 2)) await each.finish('failed').catch(() => {})
  await home.close()
})

test('silence is measured by the clock of whoever listens, however clocks jump', () => {
  let time = 1_000_000
  const isSilent = listener(() => time)
  assert.equal(isSilent(1, 5), false, 'whoever is new has time to speak up, however old the last sign is')
  time += silence - 1
  assert.equal(isSilent(1, 5), false)
  assert.equal(isSilent(1, 4), false, 'a sign of life is one, also from a clock that went back')
  time += silence - 1
  assert.equal(isSilent(1, 4), false)
  time += 1
  assert.equal(isSilent(1, 4), true)
  const ahead = Date.now() + 86_400_000
  assert.equal(isSilent(2, ahead), false)
  time += silence
  assert.equal(isSilent(2, ahead), true, 'a machine whose clock is a day ahead is not believed for a day')
})
