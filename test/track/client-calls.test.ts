/** What clients that send later need of the server, on both databases: things that are named by their client and may be said twice. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { createExperiment, deleteExperiment, getOrCreateExperiment } from '../../src/track/experiments.ts'
import { createLoggedModel, setLoggedModelStatus } from '../../src/track/logged-models.ts'
import { listener, reapLostRuns } from '../../src/track/reaper.ts'
import { newRunId } from '../../src/track/spool.ts'
import { beat, createTrackedRun, getTrackedRun, resumeTrackedRun, updateTrackedRun } from '../../src/track/tracked-runs.ts'
import { thisProcess } from '../../src/track/worker.ts'
import { databases } from '../db/databases.ts'

for (const { kind, missing, open } of databases()) {
  const skip = missing ?? false
  const opened = missing ? null : open()
  after(async () => (await opened)?.destroy())

  test(`${kind}: many who name one experiment at once get one`, { skip }, async () => {
    const db = await opened!
    const found = await Promise.all(Array.from({ length: 12 }, () => getOrCreateExperiment(db, 'default', { name: 'together' })))
    assert.equal(new Set(found.map(({ experiment }) => experiment)).size, 1)
    const { experiment } = await createExperiment(db, 'default', { name: 'gone', tags: {} })
    await deleteExperiment(db, 'default', experiment)
    await assert.rejects(getOrCreateExperiment(db, 'default', { name: 'gone' }), { code: 'experiment_deleted' })
  })

  test(`${kind}: a run and a model of their client's naming are made once, and are nobody else's`, { skip }, async () => {
    const db = await opened!
    await db.insertInto('projects').values({ id: 'other', created: '2026-01-01T00:00:00.000Z' }).execute()
    const [run, model] = [newRunId(), `m-${newRunId()}`]
    const make = (name: string) => createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [], run, name })
    assert.deepEqual([(await make('first')).number, (await make('second')).name], [(await make('third')).number, 'first'])
    const log = (name: string) =>
      createLoggedModel(db, 'default', { model, experiment: '0', name, type: null, run, params: [], tags: [{ key: 'a', value: name }] })
    await log('first')
    await setLoggedModelStatus(db, 'default', model, 'ready', null)
    const again = await log('second')
    assert.deepEqual([again.name, again.status, again.tags], ['first', 'ready', { a: 'first' }])
    const { experiment } = await createExperiment(db, 'other', { name: 'theirs', tags: {} })
    await assert.rejects(createTrackedRun(db, 'other', { experiment, user: 'u', tags: [], run }), { code: 'tracked_run_not_found' })
  })

  test(`${kind}: a run that was thought lost and speaks up is running; whoever could not be heard is given time; a log that is here judges`, {
    skip,
  }, async () => {
    const db = await opened!
    const far = { ...thisProcess(), place: 'another machine' }
    const start = (worker: object) =>
      createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [], worker: JSON.stringify(worker) })
    const { run, number } = await start(far)
    await db
      .updateTable('tracked_runs')
      .set({ heartbeat: Date.now() - 300_000 })
      .where('number', '=', number)
      .execute()
    assert.equal(await reapLostRuns({ db }, { isSilent: listener() }), 0)
    assert.equal(await reapLostRuns({ db }, { except: async () => new Set([run]) }), 0)
    assert.equal(await reapLostRuns({ db }), 1)
    assert.equal((await getTrackedRun(db, 'default', run)).status, 'failed')
    assert.deepEqual(await beat(db, 'default', run), { status: 'running' })
    const { reason, ended } = await getTrackedRun(db, 'default', run)
    assert.deepEqual([reason, ended], [null, null])
    // one that failed by itself is not brought back by a late sign of life
    await updateTrackedRun(db, 'default', run, { status: 'failed', reason: 'RangeError', ended: 5 })
    assert.deepEqual(await beat(db, 'default', run), { status: 'failed' })
    const dead = JSON.stringify({ ...thisProcess(), birth: 'long ago' })
    const resumed = await resumeTrackedRun(db, 'default', run, dead)
    assert.deepEqual([resumed.status, resumed.reason, resumed.ended], ['running', null, null])
    assert.equal(await reapLostRuns({ db }), 1)
    assert.equal((await getTrackedRun(db, 'default', run)).reason, 'lost')
  })
}
