/** The log of a run as a file: torn, damaged, refused in part, meant for others, wanted by two. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import {
  besides,
  endOf,
  headOf,
  type Line,
  linesOf,
  newRunId,
  openSpool,
  readLine,
  readSent,
  spoolsIn,
  sweepSpools,
} from '../../src/track/spool.ts'
import { mayBelongHere, startSpoolReplay, takeUp } from '../../src/track/spool-replay.ts'
import { connectSpool, createDelivery, type SpoolServer } from '../../src/track/spool-send.ts'
import { getTrackedRun, metricHistory } from '../../src/track/tracked-runs.ts'
import { thisProcess } from '../../src/track/worker.ts'
import { temporaryFolder } from './homes.ts'
import { filesIn, serve, statusOf, until } from './trainings.ts'

/** A process that was here and is gone. */
async function dead() {
  const child = spawn(process.execPath, ['-e', ''])
  const worker = { ...thisProcess(), pid: child.pid!, birth: 'gone' }
  await once(child, 'exit')
  return worker
}
const by = (worker = thisProcess(), url: string | null = null, token: string | null = null) => ({ worker, url, token })
const start = (run: string, rest: object): Line => ({
  start: { run, experiment: { name: 'spooled' }, name: null, started: 1_000, tags: {} },
  format: 1,
  ...(rest as { by: ReturnType<typeof by> }),
})
const point = (step: number): Line => ({ metrics: { loss: step / 8 }, step, at: 1_000 + step })

/** A log as its writer left it. */
function written(folder: string, lines: readonly Line[], run = newRunId()) {
  const writer = openSpool(folder, run, error => assert.fail(error))
  for (const line of lines) writer.append(line)
  writer.close()
  return writer.spool
}
const server = async (t: TestContext) => {
  const home = temporaryFolder(t)
  const served = await serve(t, home)
  return { ...served, home, spools: join(home, 'spool') }
}
const hushed = { stopped: () => false, onRefused() {}, onHeld() {}, onSent() {} }

// each has a home of its own, and most of the time is waiting for loops that look every two seconds
describe('logs that wait', { concurrency: 8 }, () => {
  test('a log cut at every byte still gives its whole lines, and nothing else', async t => {
    const folder = temporaryFolder(t)
    const run = newRunId()
    const lines: Line[] = [
      start(run, { by: by() }),
      { params: { 'n\u2028ä': '"\\' } },
      point(1),
      { tags: { a: '𝄞' } },
      { end: { status: 'failed', reason: null, at: 5 } },
    ]
    const spool = written(folder, lines, run)
    const whole = readFileSync(besides(spool, 'jsonl'))
    for (let size = 0; size <= whole.length; size++) {
      writeFileSync(besides(spool, 'jsonl'), whole.subarray(0, size))
      const read: Line[] = []
      let end = 0
      for await (const line of linesOf(spool, 0)) {
        read.push(readLine(line.text)!)
        end = line.end
      }
      assert.deepEqual(read, lines.slice(0, read.length))
      assert.equal(end, size === 0 ? 0 : whole.lastIndexOf(10, size - 1) + 1)
      assert.equal((await endOf(spool))?.status, size === whole.length ? 'failed' : undefined)
    }
  })

  test('any bytes are read as lines without harm, and any line that is written is read as it was', async t => {
    const folder = temporaryFolder(t)
    const spool = written(folder, [point(1)])
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 2000 }),
      fc.string({ unit: 'binary' }).map(text => new TextEncoder().encode(text)),
    )
    await fc.assert(
      fc.asyncProperty(bytes, fc.nat(3000), async (content, from) => {
        writeFileSync(besides(spool, 'jsonl'), content)
        for await (const { text } of linesOf(spool, from)) readLine(text)
        await headOf(spool)
        await endOf(spool)
        writeFileSync(besides(spool, 'sent'), content)
        assert.ok((await readSent(spool)).bytes >= 0)
      }),
    )
    fc.assert(
      fc.property(fc.json(), text => {
        readLine(text)
      }),
    )
    const name = fc.string({ unit: 'grapheme', minLength: 1 })
    const line = fc.oneof(
      fc.record({
        metrics: fc.dictionary(name, fc.double({ noNaN: true, noDefaultInfinity: true })),
        step: fc.maxSafeInteger(),
        at: fc.maxSafeNat(),
      }),
      fc.record({ params: fc.dictionary(name, fc.string()) }),
      fc.record({ tags: fc.dictionary(name, fc.string()) }),
    )
    fc.assert(
      fc.property(line, value => {
        const text = JSON.stringify(value)
        assert.deepEqual(JSON.stringify(readLine(text)), text)
      }),
    )
  })

  test('what the server never takes is put aside with its reason, line by line; all the rest arrives', async t => {
    const { db, spools, home } = await server(t)
    const run = newRunId()
    const spool = written(
      spools,
      [
        start(run, { by: by(await dead()) }),
        { params: { lr: '1' } },
        ...Array.from({ length: 300 }, (_, step) => point(step)),
        { metrics: { ['x'.repeat(300)]: 1 }, step: 0, at: 1 },
        { params: { lr: '2' } },
        { tags: { fine: 'yes' } },
        { call: { method: 'POST', path: 'runs/delete-tag', body: { run_id: run, key: 'never there' } } },
        { file: { of: run, path: 'a.txt', part: 'gone', bytes: 1 } },
        point(300),
        { end: { status: 'succeeded', reason: null, at: 2_000 } },
      ],
      run,
    )
    await until(
      () => filesIn(home),
      files => files.length === 0,
    )
    assert.equal((await metricHistory(db, 'default', run, 'loss')).length, 301)
    const { params, tags, ended } = await getTrackedRun(db, 'default', run)
    assert.deepEqual([params, tags['fine'], ended], [{ lr: '1' }, 'yes', 2_000])
    const refused = readFileSync(besides(spool, 'refused'), 'utf8').trim().split('\n')
    assert.deepEqual(
      refused.map(line => (JSON.parse(line) as { refused: { code: string } }).refused.code),
      ['api_request_invalid', 'param_changed', 'resource_does_not_exist', 'spool_part_missing'],
    )
  })

  test('a damaged line is put aside, and a line of nothing is passed over', async t => {
    const { db, spools, home } = await server(t)
    const run = newRunId()
    const spool = written(spools, [start(run, { by: by() }), point(0)], run)
    const text = readFileSync(besides(spool, 'jsonl'), 'utf8').replace(/"pid":\d+/, `"pid":${(await dead()).pid}`)
    writeFileSync(besides(spool, 'jsonl'), `${text}\n{"metrics":{"loss":\n${JSON.stringify(point(1))}\n{"metrics":{"lo`)
    await until(
      () => filesIn(home),
      files => files.length === 0,
    )
    assert.equal((await metricHistory(db, 'default', run, 'loss')).length, 2)
    assert.equal(await statusOf(db, run), 'failed lost')
    assert.match(readFileSync(besides(spool, 'refused'), 'utf8'), /spool_line/)
  })

  test('files and calls of a Python run arrive where the run keeps them, in their order', async t => {
    const { db, spools, home, url, token } = await server(t)
    const [run, model] = [newRunId(), `m-${newRunId()}`]
    const numberless = `spool-${Buffer.from('spooled').toString('base64url')}`
    const lines: Line[] = [
      start(run, { by: by(await dead(), 'http://localhost:1') }),
      {
        call: {
          method: 'POST',
          path: 'logged-models',
          body: { experiment_id: numberless, name: 'net', source_run_id: run, model_id: model },
        },
      },
      { file: { of: model, path: 'data/weights.bin', part: '1-aa', bytes: 70_000 } },
      { call: { method: 'PATCH', path: `logged-models/${model}`, body: { status: 'LOGGED_MODEL_READY' } } },
      { file: { of: run, path: 'notes/ä b.txt', part: '2-bb', bytes: 2 } },
      { metrics: { loss: 1 }, step: 0, at: 1, model, dataset: { name: 'd', digest: 'x' } },
      { end: { status: 'succeeded', reason: null, at: 2_000 } },
    ]
    mkdirSync(join(spools, `${run}.files`), { recursive: true })
    writeFileSync(join(spools, `${run}.files`, '1-aa'), Buffer.alloc(70_000, 7))
    writeFileSync(join(spools, `${run}.files`, '2-bb'), 'hi')
    written(spools, lines, run)
    await until(
      () => filesIn(home),
      files => files.length === 0,
    )
    const { experiment } = await getTrackedRun(db, 'default', run)
    const ask = async (path: string) => {
      const answer = await fetch(`${url}/api/2.0/${path}`, { headers: { authorization: `Bearer ${token}` } })
      assert.equal(answer.status, 200, path)
      return answer
    }
    const files = (place: string) => `mlflow-artifacts/artifacts/${experiment}/${place}`
    assert.equal(await (await ask(files(`${run}/artifacts/notes/%C3%A4%20b.txt`))).text(), 'hi')
    assert.equal((await (await ask(files(`models/${model}/artifacts/data/weights.bin`))).arrayBuffer()).byteLength, 70_000)
    const told = (await (await ask(`mlflow/logged-models/${model}`)).json()) as {
      model: { info: { status: string }; data: { metrics: unknown[] } }
    }
    assert.deepEqual([told.model.info.status, told.model.data.metrics.length], ['LOGGED_MODEL_READY', 1])
    assert.ok(!existsSync(join(spools, `${run}.files`)), 'the copies are gone')
  })

  test('sent again from the beginning, or by two at once, all of it is there once', async t => {
    const { db, url, token } = await server(t)
    const folder = temporaryFolder(t)
    const run = newRunId()
    const lines = [start(run, { by: by() }), ...Array.from({ length: 2_500 }, (_, step) => point(step)), { params: { a: 'b' } }]
    const spool = written(folder, lines, run)
    const deliver = async () => {
      const delivery = createDelivery(spool, connectSpool({ url, token }), { alive: true, onRefused: failure => assert.fail(failure) })
      await delivery.send()
      return delivery
    }
    await Promise.all([deliver(), deliver(), deliver()])
    writeFileSync(besides(spool, 'sent'), '{"bytes":1') // half of it
    await deliver()
    assert.equal((await metricHistory(db, 'default', run, 'loss')).length, 2_500)
    // what has arrived is not read again
    assert.equal((await deliver()).sent, readFileSync(besides(spool, 'jsonl')).length)
  })

  test('one of two takes a dead log up, and the lock of a dead process counts for nothing', async t => {
    const folder = temporaryFolder(t)
    const run = newRunId()
    const spool = written(folder, [start(run, { by: by(await dead()) }), point(0)], run)
    let sending = 0
    let most = 0
    let ended = 0
    const slow = {
      calls: new Proxy(
        {},
        {
          get: () => async () => {
            sending++
            most = Math.max(most, sending)
            await new Promise(resolve => setTimeout(resolve, 20))
            sending--
            return { experiment: '1', location: 'mlflow-artifacts:/1' }
          },
        },
      ),
    } as SpoolServer
    const connect = async () => slow
    writeFileSync(besides(spool, 'lock'), JSON.stringify(thisProcess()))
    await takeUp([spool], connect, { ...hushed, onSent: () => assert.fail('a living process holds it') })
    writeFileSync(besides(spool, 'lock'), JSON.stringify(await dead()))
    await Promise.all(Array.from({ length: 8 }, () => takeUp([spool], connect, { ...hushed, onSent: () => ended++ })))
    assert.deepEqual([most, ended, existsSync(besides(spool, 'jsonl')), existsSync(besides(spool, 'lock'))], [1, 1, false, false])
  })

  test('a living writer sends its own, also one that can only be seen by its file', async t => {
    const { db, spools, home } = await server(t)
    const [here, elsewhere, silent] = [newRunId(), newRunId(), newRunId()]
    const other = { ...thisProcess(), place: 'another machine' }
    written(spools, [start(here, { by: by() })], here)
    written(spools, [start(elsewhere, { by: by(other) })], elsewhere)
    const gone = written(spools, [start(silent, { by: by(other) })], silent)
    const then = new Date(Date.now() - 120_000)
    utimesSync(besides(gone, 'jsonl'), then, then)
    await until(
      () => statusOf(db, silent),
      status => status === 'failed lost',
    )
    assert.equal((await getTrackedRun(db, 'default', silent)).ended, Math.round(then.getTime()), 'when it was last heard of')
    assert.deepEqual([await statusOf(db, here), await statusOf(db, elsewhere)], ['unknown', 'unknown'])
    await until(
      () => filesIn(home),
      files => files.length === 2,
    )
  })

  test('a log that cannot be sent keeps nobody else waiting, is told of once, and its run is left to whoever looks for lost ones', async t => {
    const folder = temporaryFolder(t)
    mkdirSync(join(folder, 'spool'))
    const worker = await dead()
    const [bad, good] = ['0'.repeat(32), 'f'.repeat(32)]
    for (const run of [bad, good]) written(join(folder, 'spool'), [start(run, { by: by(worker) }), point(0)], run)
    const calls = (name: string) => async (input: { run?: string }) => {
      if (input.run === bad) throw new Failure('tracked_run_deleted', { run: bad })
      return name === 'getOrCreateExperiment' ? { experiment: '1' } : { location: 'mlflow-artifacts:/1' }
    }
    const fake = { calls: new Proxy({}, { get: (_, name: string) => calls(name) }) } as SpoolServer
    const errors: unknown[] = []
    const replay = startSpoolReplay(
      folder,
      async () => fake,
      error => errors.push(error),
    )
    await until(
      () => filesIn(folder),
      files => files.length === 1,
    )
    await until(
      () => replay.judges(),
      judges => judges.size === 0,
    )
    await replay.stop()
    assert.deepEqual(filesIn(folder), [`${bad}.jsonl`])
    assert.deepEqual(
      errors.map(error => (error as Failure).code),
      ['tracked_run_deleted'],
    )
  })

  test('a process that resumed a run and died leaves it lost, and one that only joined says nothing of its end', async t => {
    const { db, spools, home } = await server(t)
    const run = newRunId()
    const worker = await dead()
    written(spools, [start(run, { by: by(worker) }), { end: { status: 'succeeded', reason: null, at: 2_000 } }], run)
    await until(
      () => filesIn(home),
      files => files.length === 0,
    )
    const joined = (name: string, lines: Line[]) => {
      const text = [{ join: { run }, by: by(worker), format: 1 }, ...lines].map(line => `${JSON.stringify(line)}\n`).join('')
      writeFileSync(join(spools, `${run}-${name}.jsonl`), text)
    }
    joined('00000001', [point(1)])
    await until(
      () => filesIn(home),
      files => files.length === 0,
    )
    assert.equal(await statusOf(db, run), 'succeeded')
    assert.equal((await metricHistory(db, 'default', run, 'loss')).length, 1)
    joined('00000002', [{ resume: true }, point(2)])
    await until(
      () => filesIn(home),
      files => files.length === 0,
    )
    await until(
      () => statusOf(db, run),
      status => status === 'failed lost',
    )
  })

  test('which server is meant: the one of the home, or another', () => {
    const cases: [string | null, string | null, boolean][] = [
      [null, null, true],
      ['http://localhost:6420', null, true],
      ['http://127.0.0.1:6420', null, true],
      ['http://[::1]:6420', null, true],
      ['https://plinth.example', null, false],
      ['https://plinth.example', 'abcdefabcdef', true], // its token says
      ['no address', null, false],
    ]
    for (const [url, token, here] of cases) assert.equal(mayBelongHere(by(thisProcess(), url, token)), here, String(url))
  })

  test("no line leads out of the folder of the log, or out of MLflow's calls", () => {
    const call = (path: string) => readLine(JSON.stringify({ call: { method: 'POST', path, body: {} } }))
    const file = (part: string) => readLine(JSON.stringify({ file: { of: 'a', path: 'b', part, bytes: 1 } }))
    assert.deepEqual(
      [call('../../tokens'), call('runs/../../../tokens'), file('..'), file('../x'), file('/etc/passwd')],
      [null, null, null, null, null],
    )
    assert.ok(call('logged-models/m-1/tags/a%2Fb') && file('1-ab'))
  })

  test('what killed processes left beside logs that are gone is swept, what was refused stays', async t => {
    const folder = temporaryFolder(t)
    const [gone, here] = ['a'.repeat(32), 'b'.repeat(32)]
    const files = [`${gone}.lock`, `${gone}.lock.0123`, `${gone}.sent.plinth-part-00`, `${gone}.refused`, `${here}.jsonl`, `${here}.lock`]
    const then = new Date(Date.now() - 120_000)
    for (const file of files) {
      writeFileSync(join(folder, file), 'x')
      utimesSync(join(folder, file), then, then)
    }
    writeFileSync(join(folder, `${gone}.sent`), 'new')
    await sweepSpools(folder)
    const left = [...files, `${gone}.sent`].filter(file => existsSync(join(folder, file)))
    assert.deepEqual(left, [`${gone}.refused`, `${here}.jsonl`, `${here}.lock`, `${gone}.sent`])
    assert.equal((await spoolsIn(folder)).length, 1)
  })
})
