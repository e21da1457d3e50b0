/** The controller, on the simulated engine and in simulated time, over each kind of database. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { authenticate } from '../../src/accounts/tokens.ts'
import { openDatabase } from '../../src/db/open.ts'
import type { Failure } from '../../src/failure.ts'
import { fakeNode } from '../../src/jobs/backends/fake.ts'
import { plainSpec } from '../../src/jobs/spec.ts'
import { deleteJob, retryJob, stopJob } from '../../src/jobs/store.ts'
import { endJobRun, runsOfLivingJobs } from '../../src/track/job-runs.ts'
import { reapLostRuns } from '../../src/track/reaper.ts'
import { getTrackedRun, resumeTrackedRun, updateTrackedRun } from '../../src/track/tracked-runs.ts'
import { thisProcess } from '../../src/track/worker.ts'
import { databases } from '../db/databases.ts'
import { actor, createWorld } from './world.ts'

const h100 = (id: string) => ({ id, vendor: 'nvidia', name: 'H100', memory: 80e9, free: true, why: null })
const wanted = { vendor: null, name: 'H100', count: 1, memory: null }
const resources = plainSpec('', { argv: [''] }).resources
const cores = (amount: number) => ({ resources: { ...resources, cpus: { amount, exact: true } } })
const retried = (on: ('user_error' | 'lost' | 'node_lost' | 'preempted')[], max = 3) => ({
  retry: { on, max, backoff: { min: 5, max: 60 }, exitCodes: [] },
})

/** Flushing a disk proves nothing here. */
const inMemory = { kind: 'SQLite', missing: null, open: () => openDatabase(':memory:') }

for (const database of [inMemory, databases()[1]!]) {
  const world = async (t: Parameters<typeof createWorld>[0], options: Parameters<typeof createWorld>[2] = {}) =>
    await createWorld(t, await database.open(), options)

  test(`${database.kind}: a job runs as a tracked run, on the device that it was given, and its outputs become artifacts`, async t => {
    if (database.missing) return t.skip(database.missing)
    const { submit, play, job, engine, objects, db, step } = await world(t, {
      nodes: [fakeNode('gpu-1', { devices: [h100('GPU-a'), h100('GPU-b')] })],
    })
    const number = await submit('say hello; output model/weights.txt learned; sleep 2', {
      ...{ name: 'train', experiment: 'birds', resources: { ...resources, devices: [wanted] } },
    })
    await step()
    const running = await job(number)
    assert.deepEqual(running.device, { kind: 'gpu', name: 'H100', threads: 4 })
    assert.deepEqual(running.attempts[0]!.devices, ['GPU-a'])
    const { attempt, secrets } = engine.given(number, 1)!
    assert.equal(attempt.envs['PLINTH_RUN_ID'], running.run)
    assert.equal(attempt.envs['MLFLOW_RUN_ID'], running.run)
    assert.equal(attempt.envs['MLFLOW_TRACKING_URI'], 'http://127.0.0.1:6420')
    assert.equal(secrets['MLFLOW_TRACKING_TOKEN'], secrets['PLINTH_TOKEN'])
    assert.ok(!JSON.stringify(attempt).includes(secrets['PLINTH_TOKEN']!))
    const principal = await authenticate(db, `Bearer ${secrets['PLINTH_TOKEN']}`)
    assert.deepEqual([principal!.run, principal!.scope, principal!.owner], [running.run, 'track', false])

    await play([number])
    const ended = await job(number)
    assert.deepEqual([ended.state, ended.reason, ended.exitCode, ended.warnings], ['succeeded', null, 0, []])
    const run = await getTrackedRun(db, 'default', ended.run!)
    assert.deepEqual([run.status, run.name, run.ended], ['succeeded', 'train', ended.ended])
    assert.equal(run.tags['plinth.job'], String(number))
    assert.equal(run.tags['plinth.device'], 'gpu: H100, 4 threads')
    assert.deepEqual(await objects.list(`${run.experiment}/${run.run}/artifacts/outputs/model`), [{ name: 'weights.txt', bytes: 7 }])
    await assert.rejects(authenticate(db, `Bearer ${secrets['PLINTH_TOKEN']}`), (error: Failure) => error.code === 'job_over')
  })

  test(`${database.kind}: a failed attempt is tried again after ever longer pauses, as attempts of the same job and run`, async t => {
    if (database.missing) return t.skip(database.missing)
    const { submit, play, job, db, step, pass, now, controller } = await world(t)
    const number = await submit('sleep 1; exit 3', retried(['user_error'], 2))
    await step()
    pass(1)
    await step()
    const between = await job(number)
    assert.deepEqual([between.state, between.reason], ['queued', 'user_error'])
    assert.equal((await getTrackedRun(db, 'default', between.run!)).status, 'queued')
    await step()
    assert.equal(controller.why(number), 'waits 5 s before attempt 2')
    await play([number])
    const { state, reason, exitCode, attempts, run } = await job(number)
    assert.deepEqual([state, reason, exitCode], ['failed', 'user_error', 3])
    const pauses = attempts.slice(1).map(({ started }, i) => Math.floor((started! - attempts[i]!.ended!) / 1000))
    assert.deepEqual(pauses, [5, 10])
    assert.equal((await getTrackedRun(db, 'default', run!)).status, 'failed')
    assert.equal(run, between.run)

    await retryJob(db, actor, number, now())
    await play([number])
    assert.equal((await job(number)).attempts.length, 6, 'asked for again, it has all of its retries again')
  })

  test(`${database.kind}: after a kill between any two steps the next controller brings every job to its right end`, async t => {
    if (database.missing) return t.skip(database.missing)
    const seldom = process.env['PLINTH_TEST'] === 'long' ? 1 : database.kind === 'SQLite' ? 11 : 150
    let crashed = 0
    for (let at = 1 + (seldom >> 1); ; at += seldom) {
      const { db, engine, objects, secrets, submit, job, play, takeOver, ...rest } = await createWorld(null, await database.open())
      // a succeeding job with outputs and a secret, one that is tried again, one that waits for the first, one that is stopped
      const jobs = [
        await submit('sleep 1; output a.txt kept; secret KEY; sleep 1', { name: 'good' }, { secrets: { KEY: 'hush' } }),
        await submit('sleep 1; exit 4', retried(['user_error'], 1)),
        await submit('sleep 60', { timeouts: { pending: null, run: null, stop: 1 } }),
      ]
      jobs.push(await submit('say after', { dependsOn: [{ job: jobs[0]!, when: 'succeeded' }] }))
      let steps = 0
      let dead = false
      const killable = () => {
        if (dead) throw new Error('killed')
        if (++steps !== at) return
        dead = true
        throw new Error('killed')
      }
      const guarded = <T extends object>(whole: T): T =>
        new Proxy(whole, {
          get: (target, name) => {
            const value = Reflect.get(target, name)
            if (typeof value !== 'function' || name === 'url' || name === 'tokenTaken') return value
            return async (...words: unknown[]) => {
              killable()
              const answer = await value.apply(target, words)
              killable() // it was done, and nobody heard of it
              return answer
            }
          },
        })
      const plugin = {
        transformQuery: ({ node }: { node: never }) => {
          killable()
          return node
        },
        transformResult: async ({ result }: { result: never }) => result,
      }
      takeOver({ db: db.withPlugin(plugin as never), backend: guarded, tracking: guarded })
      for (let i = 0; i < 60 && !dead; i++) {
        await rest.step().catch(() => {})
        if (i === 4) await stopJob(db, actor, jobs[2]!, undefined, { now: rest.now() })
        rest.pass(0.25)
      }
      const over = !dead
      dead = true // whatever of it is still under way
      await rest.controller.close()
      takeOver()
      await stopJob(db, actor, jobs[2]!, undefined, { now: rest.now() })
      await play(jobs, 200)
      const [good, twice, stopped, later] = await Promise.all(jobs.map(job))
      const told = `killed at step ${at}`
      assert.deepEqual(
        [good!, twice!, stopped!, later!].map(({ state, reason }) => [state, reason]),
        [
          ['succeeded', null],
          ['failed', 'user_error'],
          ['cancelled', 'cancelled'],
          ['succeeded', null],
        ],
        told,
      )
      assert.deepEqual(
        [good!, twice!, later!].map(({ attempts }) => attempts.map(({ status }) => status)),
        [['succeeded'], ['failed', 'failed'], ['succeeded']],
        told,
      )
      assert.ok(
        [...engine.starts.values()].every(count => count === 1),
        told,
      )
      for (const each of [good!, twice!, stopped!, later!]) {
        if (each.run === null) continue // stopped before it ever ran
        const run = await getTrackedRun(db, 'default', each.run)
        assert.deepEqual([run.status, run.reason], [each.state, each.reason], told)
      }
      const { experiment, run } = await getTrackedRun(db, 'default', good!.run!)
      assert.deepEqual(await objects.list(`${experiment}/${run}/artifacts/outputs`), [{ name: 'a.txt', bytes: 4 }], told)
      assert.deepEqual(await secrets.read(good!.job), {}, told)
      const alive = await db.selectFrom('tokens').select('id').where('revoked', 'is', null).execute()
      assert.deepEqual(alive, [], told)
      const { count } = await db
        .selectFrom('tracked_runs')
        .select(({ fn }) => fn.countAll<number>().as('count'))
        .executeTakeFirstOrThrow()
      assert.equal(Number(count), [good!, twice!, stopped!, later!].filter(each => each.run !== null).length, told)
      await rest.controller.close()
      await db.destroy()
      if (over) break
      crashed++
    }
    t.diagnostic(`${crashed} kills`)
    assert.ok(crashed > (database.kind === 'SQLite' ? 15 : 1), `${crashed} kills`)
  })
}

const world = async (t: Parameters<typeof createWorld>[0], options: Parameters<typeof createWorld>[2] = {}) =>
  await createWorld(t, await inMemory.open(), options)

test('one that waits is cancelled at once, one that runs is asked, and killed after its grace', async t => {
  const { submit, step, pass, job, db, now, play } = await world(t, { nodes: [fakeNode('n0', { cpus: 2 })] })
  const [obedient, stubborn, waiting] = [await submit('sleep 600'), await submit('ignore-term; sleep 600'), await submit('sleep 600')]
  await step()
  assert.deepEqual(
    (await Promise.all([obedient, stubborn, waiting].map(job))).map(({ state }) => state),
    ['starting', 'starting', 'queued'],
  )
  await stopJob(db, actor, waiting, undefined, { now: now() })
  assert.deepEqual([(await job(waiting)).state, (await job(waiting)).attempts], ['cancelled', []])
  for (const each of [obedient, stubborn]) await stopJob(db, actor, each, 30, { now: now() })
  assert.equal((await job(stubborn)).state, 'stopping')
  await play([obedient], 2)
  assert.deepEqual([(await job(obedient)).state, (await job(obedient)).exitCode], ['cancelled', 143])
  pass(5)
  await step()
  assert.equal((await job(stubborn)).state, 'stopping')
  await stopJob(db, actor, stubborn, 8, { now: now() }) // asked again with less: eight seconds from now
  await play([stubborn], 10)
  const ended = await job(stubborn)
  assert.deepEqual([ended.state, ended.exitCode, ended.attempts[0]!.signal], ['cancelled', 137, 'SIGKILL'])
})

test('a job of higher priority takes the place of one that may be stopped, which comes again', async t => {
  const { submit, step, pass, job, play, controller } = await world(t, { nodes: [fakeNode('n0', { cpus: 4 })] })
  const low = await submit('sleep 20', { ...cores(4), preemptible: true })
  await step()
  pass(5)
  const high = await submit('sleep 5', { ...cores(4), priority: 10 })
  await step()
  assert.equal(controller.why(high), `waits for job ${low}, which is stopped for it`)
  await play([low, high])
  const [first, second] = [await job(low), await job(high)]
  assert.deepEqual(
    first.attempts.map(({ status, reason }) => [status, reason]),
    [
      ['failed', 'preempted'],
      ['succeeded', null],
    ],
  )
  assert.ok(second.attempts[0]!.started! < first.attempts[1]!.started!)
  assert.deepEqual([first.state, second.state], ['succeeded', 'succeeded'])
})

test('a machine that is lost takes its attempt with it; the next one runs elsewhere, and the old one is refused', async t => {
  const { submit, step, pass, job, play, engine, db } = await world(t, { nodes: [fakeNode('n0'), fakeNode('n1')] })
  const number = await submit('sleep 10', retried(['node_lost']))
  await step()
  const { secrets } = engine.given(number, 1)!
  pass(2)
  engine.loseNode((await job(number)).attempts[0]!.nodes[0]!)
  await play([number])
  const { attempts, state } = await job(number)
  assert.deepEqual([state, attempts.map(({ reason }) => reason)], ['succeeded', ['node_lost', null]])
  assert.notEqual(attempts[0]!.nodes[0], attempts[1]!.nodes[0])
  await assert.rejects(authenticate(db, `Bearer ${secrets['PLINTH_TOKEN']}`), (error: Failure) => error.code === 'job_over')
})

test('of what cannot be asked nothing is concluded; of what cannot be found it is said that it is lost', async t => {
  const { submit, step, pass, job, play, engine, controller } = await world(t, { nodes: [fakeNode('n0')] })
  const number = await submit('sleep 5')
  await step()
  engine.faults.cut.add('n0')
  for (let i = 0; i < 40; i++) {
    pass(1)
    await step()
  }
  assert.equal((await job(number)).state, 'starting')
  assert.equal(controller.why(number), 'cannot be asked now: its machine does not answer')
  engine.faults.cut.clear()
  await play([number])
  assert.equal((await job(number)).state, 'succeeded')

  const gone = await submit('sleep 60')
  await step()
  engine.faults.vanished.add(`${gone}/1`)
  await play([gone])
  const { state, reason, message, exitCode } = await job(gone)
  assert.deepEqual([state, reason, message, exitCode], ['failed', 'lost', 'the simulated engine knows nothing of it', null])
})

test('a start that is refused is told; one whose answer is lost is not started twice', async t => {
  const { submit, job, play, engine } = await world(t)
  engine.faults.failStarts = 1
  const refused = await submit('say never')
  await play([refused])
  const failed = await job(refused)
  assert.deepEqual([failed.state, failed.reason], ['failed', 'start_failed'])
  assert.match(failed.message!, /refused to start/)

  engine.faults.loseAnswers = 1
  const unheard = await submit('sleep 3')
  await play([unheard])
  assert.equal((await job(unheard)).state, 'succeeded')
  assert.equal(engine.starts.get(`${unheard}/1`), 1)
})

test('a job waits for others, and is cancelled with the reason when that can never be any more', async t => {
  const { submit, step, job, play, controller, db } = await world(t)
  const first = await submit('sleep 3; exit 1', { name: 'prepare' }, { group: 'pipeline' })
  const onSuccess = await submit('say on', { dependsOn: [{ job: 'prepare', when: 'succeeded' }] }, { group: 'pipeline' })
  const onFailure = await submit('say clean up', { dependsOn: [{ job: first, when: 'failed' }] })
  const onEnd = await submit('say whatever', { dependsOn: [{ job: first, when: 'ended' }] })
  await step()
  assert.equal(controller.why(onSuccess), `waits for job ${first} (prepare) to succeed`)
  await play([first, onSuccess, onFailure, onEnd])
  const never = await job(onSuccess)
  assert.deepEqual([never.state, never.reason], ['cancelled', 'cancelled'])
  assert.equal(never.message, `it was to start when job ${first} (prepare) had succeeded, and that one failed`)
  assert.deepEqual([(await job(onFailure)).state, (await job(onEnd)).state], ['succeeded', 'succeeded'])

  const base = await submit('sleep 1')
  await play([base])
  const orphan = await submit('say', { dependsOn: [{ job: base, when: 'ended' }] })
  await deleteJob(db, actor, base)
  await play([orphan])
  assert.equal((await job(orphan)).message, `it was to start when job ${base} had ended, and that job was deleted`)
})

test('a job says what it waits for, gives up after its time, and is refused in the end where no machine could ever hold it', async t => {
  const { submit, step, pass, job, play, controller } = await world(t, { nodes: [fakeNode('n0', { cpus: 4 })] })
  const long = await submit('sleep 600', cores(3))
  await step()
  const next = await submit('sleep 1', { ...cores(2), timeouts: { pending: 30, run: null, stop: 1 } })
  const large = await submit('sleep 1', cores(64))
  await step()
  assert.equal(controller.why(next), 'waits for 2 cores, 1 free')
  assert.equal(controller.why(large), 'waits: no machine here has 64 cores; there is: 1 with 4 cores and 16 GB of memory')
  await play([next], 40)
  const { state, reason, message } = await job(next)
  assert.deepEqual([state, reason, message], ['failed', 'timeout', 'it could not start within 30 s: it waits for 2 cores, 1 free'])
  pass(60)
  await play([large], 20)
  assert.equal((await job(large)).message, 'no machine here has 64 cores; there is: 1 with 4 cores and 16 GB of memory')
  const spec = plainSpec('x', { argv: ['true'] }, { resources: { ...resources, devices: [{ ...wanted, count: 2 }] } })
  await assert.rejects(
    controller.checkPossible(spec),
    (error: Failure) => error.code === 'job_device_missing' && /no accelerator/.test(error.message),
  )
  await assert.rejects(controller.checkPossible(plainSpec('x', { argv: ['true'] }, cores(9))), { code: 'job_too_large' })
  const elsewhere = plainSpec('x', { argv: ['true'] }, { resources: { ...resources, infra: 'slurm/gpu' } })
  await assert.rejects(controller.checkPossible(elsewhere), { code: 'job_engine_unknown' })
  assert.equal((await job(long)).state, 'running')
})

test('of a group so many run at once as it says', async t => {
  const { submit, step, job, play } = await world(t)
  const jobs: number[] = []
  for (let i = 0; i < 6; i++) jobs.push(await submit('sleep 2', { parallel: 2, ...cores(0.5) }, { group: 'array', index: i }))
  await step()
  const states = await Promise.all(jobs.map(job))
  assert.equal(states.filter(({ state }) => state === 'starting').length, 2)
  await play(jobs)
  assert.ok((await Promise.all(jobs.map(job))).every(({ state }) => state === 'succeeded'))
})

test('the run of a job that lives is not lost, whatever became of the process that logged to it', async t => {
  const { submit, step, job, db } = await world(t)
  const number = await submit('sleep 600')
  await step()
  const { run } = await job(number)
  // a script of the job that went on with the run, and died
  await resumeTrackedRun(db, 'default', run!, JSON.stringify({ ...thisProcess(), pid: 2 ** 30 }))
  assert.equal(await reapLostRuns({ db }, { except: () => runsOfLivingJobs(db) }), 0)
  assert.equal((await getTrackedRun(db, 'default', run!)).status, 'running')
  assert.equal(await reapLostRuns({ db }), 1, 'the process is gone indeed')
})

test('a script that tells its run that it failed and ends with exit code 0 is believed, and said so', async t => {
  const { submit, step, job, db, play } = await world(t)
  const number = await submit('sleep 1')
  await step()
  const { run } = await job(number)
  await updateTrackedRun(db, 'default', run!, { status: 'failed', reason: 'diverged', ended: Date.now() })
  await play([number])
  const { state, warnings } = await job(number)
  assert.equal(state, 'succeeded')
  assert.deepEqual(warnings, ['The script told its run that it failed, and ended with exit code 0.'])
  const { status, reason } = await getTrackedRun(db, 'default', run!)
  assert.deepEqual([status, reason], ['failed', 'diverged'])
})

test('an output that cannot be kept is told, and the others are kept', async t => {
  const { submit, job, play, objects } = await world(t)
  const number = await submit('output ../../escape x; output fine.txt y')
  await play([number])
  const { warnings, state, run } = await job(number)
  assert.equal(state, 'succeeded')
  assert.match(warnings.join(), /^The output \.\.\/\.\.\/escape was not kept: Invalid path/)
  assert.deepEqual(await objects.list(`0/${run}/artifacts/outputs`), [{ name: 'fine.txt', bytes: 1 }])
})

test('one that is stopped between two attempts ends with its run', async t => {
  const { submit, step, pass, job, db, now } = await world(t)
  const number = await submit('sleep 1; exit 3', retried(['user_error']))
  await step()
  pass(2)
  await step()
  const { run } = await job(number)
  const endRun = (over: typeof db, id: string) =>
    endJobRun(over, { project: 'default', run: id, status: 'cancelled', reason: 'cancelled', ended: now() })
  await stopJob(db, actor, number, undefined, { now: now(), endRun })
  assert.deepEqual([(await job(number)).state, (await job(number)).message], ['cancelled', 'stopped between two attempts'])
  assert.equal((await getTrackedRun(db, 'default', run!)).status, 'cancelled')
})

test('an engine that does not keep the time limit is told to; a clock that jumps ends nothing and keeps nothing waiting', async t => {
  const { submit, step, pass, job, play, jump } = await world(t)
  const limited = await submit('sleep 600', { timeouts: { pending: null, run: 30, stop: 1 } })
  await step()
  pass(0.1)
  await step()
  jump(3600)
  await step()
  assert.equal((await job(limited)).state, 'running')
  await play([limited], 120)
  assert.deepEqual([(await job(limited)).state, (await job(limited)).reason], ['failed', 'timeout'])

  const retrying = await submit('sleep 1; exit 1', retried(['user_error'], 1))
  await step()
  pass(2)
  await step()
  jump(-7200)
  await play([retrying], 30)
  assert.equal((await job(retrying)).attempts.length, 2)
})

test('a job whose experiment was deleted fails with that as its reason', async t => {
  const { submit, job, play, db } = await world(t)
  const first = await submit('say x', { experiment: 'short-lived' })
  await play([first])
  await db.updateTable('experiments').set({ deleted: Date.now() }).where('name', '=', 'short-lived').execute()
  const second = await submit('say x', { experiment: 'short-lived' })
  await play([second])
  const { state, reason, message } = await job(second)
  assert.deepEqual([state, reason], ['failed', 'start_failed'])
  assert.match(message!, /deleted/)
})

test('an attempt that only the engine knows holds its lease, and its number is given to nobody', async t => {
  const { submit, step, job, engine, db, takeOver, controller } = await world(t, { nodes: [fakeNode('n0', { cpus: 4 })] })
  const lost = await submit('sleep 600', cores(3))
  await step()
  await controller.close()
  // the database of a backup: it knows nothing of the job
  await db.deleteFrom('job_attempts').execute()
  await db.deleteFrom('jobs').execute()
  const again = takeOver()
  await step()
  const next = await submit('sleep 1', cores(2))
  assert.ok(next > lost)
  await step()
  assert.equal(again.why(next), 'waits for 2 cores, 1 free')
  assert.equal((await engine.backend().observe(lost, 1)).status, 'running', 'it is left alone')
  assert.equal((await job(next)).state, 'queued')
})

test('an attempt that was given up for lost and is still there is stopped', async t => {
  const { submit, step, play, pass, engine, controller, takeOver } = await world(t)
  const number = await submit('sleep 600')
  await step()
  engine.faults.vanished.add(`${number}/1`)
  await play([number])
  await controller.close()
  engine.faults.vanished.clear()
  takeOver()
  await step()
  pass(1)
  assert.equal((await engine.backend().observe(number, 1)).status, 'ended')
})

test('what runs by itself starts within a moment of its submission, and asks the database seldom when there is nothing to do', async t => {
  const db = await inMemory.open()
  let questions = 0
  const counting = {
    transformQuery: ({ node }: { node: never }) => {
      questions++
      return node
    },
    transformResult: async ({ result }: { result: never }) => result,
  }
  const real = await createWorld(t, db)
  const controller = real.takeOver({ db: db.withPlugin(counting as never) })
  controller.start()
  const number = await real.submit('say at once')
  const began = performance.now()
  while ((await real.job(number)).state !== 'succeeded') {
    assert.ok(performance.now() - began < 5000)
    await new Promise(resolve => setImmediate(resolve))
  }
  await controller.settled()
  const before = questions
  await new Promise(resolve => setTimeout(resolve, 500))
  assert.ok(questions - before <= 6, `${questions - before} questions in half a second`)
})
