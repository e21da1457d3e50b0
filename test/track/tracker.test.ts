/** What a training in TypeScript logs, with a server, without one, and with one that comes and goes. */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { storeToken } from '../../src/accounts/credentials.ts'
import { createToken } from '../../src/accounts/tokens.ts'
import { listSpools, sendSpools } from '../../src/track/spool-replay.ts'
import { getTrackedRun, metricHistory, updateTrackedRun } from '../../src/track/tracked-runs.ts'
import { startRun } from '../../src/track/tracker.ts'
import { plinth } from '../up/up.ts'
import { temporaryFolder } from './homes.ts'
import { assertWhole, filesIn, serve, statusOf, train, until } from './trainings.ts'

// each has a home of its own, and most of the time is waiting for loops that look every two seconds
describe('what a training logs', { concurrency: 4 }, () => {
  test('a training tells the server of its home as it goes, and leaves nothing behind', async t => {
    const home = temporaryFolder(t)
    const server = await serve(t, home)
    const run = await startRun({
      directory: home,
      experiment: 'digits',
      name: 'first',
      params: { lr: 0.1, layers: [8, 8] },
      tags: { team: 'a' },
    })
    run.metrics({ loss: 0.5, accuracy: Number.NaN }, { step: 7 })
    run.metric('loss', 0.4, { step: 8 })
    assert.equal(await run.flush(), true)
    const going = await getTrackedRun(server.db, 'default', run.id)
    assert.deepEqual(
      [going.status, going.name, going.params, going.tags['team']],
      ['running', 'first', { layers: '[8,8]', lr: '0.1' }, 'a'],
    )
    assert.ok(going.heartbeat !== null)
    assert.deepEqual(
      (await metricHistory(server.db, 'default', run.id, 'loss')).map(({ step, value }) => [step, value]),
      [
        [7, 0.5],
        [8, 0.4],
      ],
    )
    await run.end()
    assert.equal(await statusOf(server.db, run.id), 'succeeded')
    assert.deepEqual(filesIn(home), [])
  })

  test('without a server all of it is in a file, the training is told where, and the next plinth up takes it up', async t => {
    const home = temporaryFolder(t)
    const training = train(t, home, 300)
    assert.equal(await training.ended, 0)
    const run = await training.run
    assert.match(training.said(), /plinth up will take it up/)
    assert.ok(training.said().includes(join(home, 'spool', `${run}.jsonl`)))
    const { answer } = plinth(home, ['spool', 'list'])
    assert.deepEqual(
      [answer.spools.length, answer.spools[0].run, answer.spools[0].alive, answer.spools[0].end, answer.spools[0].lines],
      [1, run, false, 'succeeded', 303],
    )
    const alone = plinth(home, ['spool', 'send'])
    assert.deepEqual([alone.status, alone.answer.spools[0].problem.code], [1, 'spool_no_server'])
    const server = await serve(t, home)
    await until(
      () => filesIn(home),
      files => files.length === 0,
    )
    assert.equal(await statusOf(server.db, run), 'succeeded')
    await assertWhole(server.db, run, 300)
  })

  test('a server that comes while the training goes on gets all of it from the beginning', async t => {
    const home = temporaryFolder(t)
    const run = await startRun({ directory: home, experiment: 'late' })
    run.metric('loss', 3)
    assert.equal(await run.flush(), false)
    const server = await serve(t, home)
    run.metric('loss', 2)
    await until(
      () => statusOf(server.db, run.id),
      status => status === 'running',
    )
    await server.close()
    run.metric('loss', 1) // nobody hears it
    const next = await serve(t, home)
    await run.end('cancelled', { reason: 'enough', wait: 20_000 })
    assert.equal(await statusOf(next.db, run.id), 'cancelled enough')
    const history = await metricHistory(next.db, 'default', run.id, 'loss')
    assert.deepEqual(
      history.map(({ step, value }) => [step, value]),
      [
        [0, 3],
        [1, 2],
        [2, 1],
      ],
    )
  })

  test('how a process ends is how its run ends', async t => {
    const home = temporaryFolder(t)
    const server = await serve(t, home)
    const cases = [
      ['end', 'succeeded'],
      ['throw', 'failed RangeError'],
      ['exit 3', 'failed exit 3'],
      ['falls off the end', 'succeeded'],
      ['dispose', 'failed not ended'],
    ] as const
    const ends = cases.map(async ([how, status]) => {
      const training = train(t, home, 20, how)
      const run = await training.run
      await training.ended
      await until(
        () => filesIn(home).filter(name => name.startsWith(run)),
        files => files.length === 0,
      )
      assert.equal(await statusOf(server.db, run), status, how)
      await assertWhole(server.db, run, 20)
    })
    const signals = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map(async signal => {
      const training = train(t, home, 20, 'wait')
      const run = await training.run
      await until(training.points, points => points === 20)
      training.process.kill(signal)
      assert.equal(await training.ended, signal, 'the program ends as it would have without')
      await until(
        () => statusOf(server.db, run),
        status => status === `cancelled ${signal}`,
      )
    })
    await Promise.all([...ends, ...signals])
  })

  test('a run that somebody stopped is told so', async t => {
    const home = temporaryFolder(t)
    const server = await serve(t, home)
    const run = await startRun({ directory: home })
    await run.flush()
    assert.equal(run.stopRequested, false)
    await updateTrackedRun(server.db, 'default', run.id, { status: 'cancelled' })
    await until(
      () => run.stopRequested,
      stopped => stopped,
    )
    await run.end('cancelled')
  })

  test('a param keeps its first value, and what is no number or has no name is left out; the rest arrives', async t => {
    const home = temporaryFolder(t)
    const server = await serve(t, home)
    const run = await startRun({ directory: home, params: { lr: 1 } })
    run.params({ lr: 2, seed: 3 })
    run.metric('loss', 'bad' as unknown as number)
    run.metric('', 1)
    run.metric('x'.repeat(251), 1)
    run.metric('loss', 1, { step: 0.5 })
    run.metric('loss', 1, { time: -1 })
    run.metric('loss', 5)
    run.tags({ note: 'half a letter \ud800 and a nul \0', [`__proto__`]: 'kept' })
    await run.end()
    run.metric('loss', 6) // too late
    const { params, tags, metrics } = await getTrackedRun(server.db, 'default', run.id)
    assert.deepEqual(params, { lr: '1', seed: '3' })
    assert.equal(tags['note'], 'half a letter \ufffd and a nul \ufffd')
    assert.deepEqual(
      metrics.map(({ key, value }) => [key, value]),
      [['loss', 5]],
    )
  })

  test('whatever is logged, nothing is thrown into the training', async t => {
    const home = temporaryFolder(t)
    const run = await startRun({ directory: home })
    const value = fc.anything({ withBigInt: true, withDate: true, withNullPrototype: true, withSparseArray: true, withObjectString: true })
    fc.assert(
      fc.property(value, value, value, (a, b, c) => {
        run.metric(a as string, b as number, c as { step?: number })
        run.metrics(a as Record<string, number>, { step: b as number, time: c as number })
        run.params(a as Record<string, unknown>)
        run.tags({ [String(typeof a)]: b, c })
      }),
    )
    const hostile = {
      toJSON() {
        throw new Error('no')
      },
      toString() {
        throw new Error('no')
      },
    }
    run.params({ hostile, circular: Object.assign({}, { run }) })
    await startRun({
      directory: '/dev/null/nothing',
      params: null as never,
      tags: { hostile },
      name: hostile as never,
      url: 'no url',
    }).then(async run => {
      run.metric('loss', 1)
      await run.end('succeeded', { wait: 200 })
    })
    await run.end('succeeded', { wait: 200 })
  })

  test('where no log can be written all of it still reaches the server', async t => {
    const home = temporaryFolder(t)
    const server = await serve(t, home)
    const run = await startRun({ directory: '/dev/null/nowhere', url: server.url, token: server.token })
    for (let step = 0; step < 500; step++) run.metric('loss', 1 / (step + 1), { step, time: 1_000_000 + step })
    await run.end()
    await assertWhole(server.db, run.id, 500)
    assert.equal(await statusOf(server.db, run.id), 'succeeded')
  })

  test('a server elsewhere that is gone, lets nobody in or is something else costs nothing, and is told of once', async t => {
    const home = temporaryFolder(t)
    let answers = 0
    const other = createServer((_, response) => {
      answers++
      response.writeHead(404).end('<html>not here</html>')
    })
    await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve))
    t.after(() => other.close())
    const server = await serve(t, temporaryFolder(t))
    const nobody = 'http://127.0.0.1:9'
    const token = `plinth_${'0'.repeat(12)}_${'A'.repeat(43)}`
    for (const url of [nobody, `http://127.0.0.1:${(other.address() as AddressInfo).port}`, server.url]) {
      const training = train(t, home, 100, 'end', { PLINTH_URL: url, PLINTH_TOKEN: token })
      assert.equal(await training.ended, 0)
      const warnings = training.said().trim().split('\n')
      assert.ok(warnings.length <= 3 && warnings.some(line => line.includes('.jsonl')), training.said())
      assert.ok(!training.said().includes(token), 'no secret is printed')
    }
    assert.ok(answers > 0)
    assert.equal(filesIn(home).filter(name => name.endsWith('.jsonl')).length, 3)
    // the server of this home leaves alone what was meant for others
    await serve(t, home)
    const end = Date.now() + 3_000 // the loop looks every two seconds
    await until(
      () => Date.now() > end,
      over => over,
    )
    assert.deepEqual(
      (await listSpools(home)).map(({ url }) => url === null),
      [false, false, false],
    )
  })

  test('what a dead training left for a server elsewhere is sent by the next one for it, or by hand, into the project of its token', async t => {
    const [home, elsewhere] = [temporaryFolder(t), temporaryFolder(t)]
    const server = await serve(t, elsewhere)
    await server.db.insertInto('projects').values({ id: 'vision', created: new Date().toISOString() }).execute()
    const { token } = await createToken(server.db, { user: 'owner', name: 't', project: 'vision', scope: 'track', expires: null })
    const environment = { PLINTH_URL: server.url, PLINTH_TOKEN: token }
    const [lost, left] = [train(t, home, 50, 'wait', environment), train(t, home, 50, 'wait', environment)]
    const runs = await Promise.all([lost.run, left.run])
    for (const training of [lost, left]) {
      await until(training.points, points => points === 50)
      training.process.kill('SIGKILL')
      await training.ended
    }
    const in_ = async (run: string) => {
      const { status, reason } = await getTrackedRun(server.db, 'vision', run)
      const history = await metricHistory(server.db, 'vision', run, 'loss')
      return [status, reason, history.length]
    }
    const first = runs[0]!.slice(0, 12)
    const [other] = await sendSpools(home, { token: server.token, run: first })
    assert.equal(other!.problem?.code, 'spool_other_token')
    await assert.rejects(sendSpools(home, { token, run: 'f'.repeat(32) }), { code: 'spool_not_found' })
    const sent = await sendSpools(home, { token, run: first })
    assert.deepEqual(
      sent.map(({ run, problem }) => [run, problem]),
      [[runs[0], null]],
    )
    assert.deepEqual(await in_(runs[0]!), ['failed', 'lost', 50])
    // what plinth login keeps is as good as the variable
    const config = temporaryFolder(t)
    await storeToken(join(config, 'plinth'), server.url, { token, user: 'owner', project: 'vision' })
    const next = train(t, home, 50, 'end', { PLINTH_URL: server.url, XDG_CONFIG_HOME: config })
    assert.equal(await next.ended, 0)
    const third = train(t, home, 50, 'wait', environment) // it has the time
    await until(
      () => filesIn(home).filter(name => name.startsWith(runs[1]!)),
      files => files.length === 0,
    )
    assert.deepEqual(await in_(runs[1]!), ['failed', 'lost', 50])
    third.process.kill('SIGKILL')
  })
})
