/**
 * `plinth up` is killed at any instant while clients write, and started again: nothing that was acknowledged is lost, what was not is whole
 * or not there, what is sent again is there once, and no status lies. 300 kills with PLINTH_TEST=long.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openDatabase } from '../../src/db/open.ts'
import { getTrackedRun, metricHistory } from '../../src/track/tracked-runs.ts'
import { thisProcess } from '../../src/track/worker.ts'
import { databases } from '../db/databases.ts'
import { temporaryFolder } from '../track/homes.ts'
import { startUp, type Up } from './up.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const writers = 6
const stepsOfRun = 12

/** One run of one writer, and how far it was acknowledged. */
interface Told {
  run: string
  started: boolean
  /** Batches: three points and a param each. */
  batches: number
  singles: number
  ended: 'succeeded' | 'failed' | null
}

for (const { kind, missing, target } of databases()) {
  const kills = kind === 'SQLite' ? (long ? 300 : 20) : long ? 100 : 2
  test(`${kind}: ${kills} kills of the server under writers lose nothing that was acknowledged`, { skip: missing ?? false }, async t => {
    const home = join(temporaryFolder(t), 'home')
    const port = await freePort()
    const database = kind === 'SQLite' ? null : await target()
    const told: Told[] = []
    const world: World = {
      ...{ up: await start(t, home, port, database), next: Promise.withResolvers<void>(), acknowledged: 0, stopped: false },
      ...{ killAt: 0, kill: () => {} },
    }
    const writing = Promise.all(Array.from({ length: writers }, () => write(world, told)))
    for (let kill = 0; kill < kills; kill++) {
      // after so many answers, in the middle of whatever the others have under way
      await new Promise<void>(resolve => {
        world.kill = resolve
        world.killAt = world.acknowledged + randomInt(1, 120)
      })
      world.up.process.kill('SIGKILL')
      await world.up.ended
      world.up = await start(t, home, port, database)
      world.next.resolve()
      world.next = Promise.withResolvers()
    }
    world.stopped = true
    await writing
    await assertTruth(database ?? join(home, 'plinth.db'), told)
    t.diagnostic(`${world.acknowledged} answers, ${told.length} runs`)

    // a run whose process has gone while nobody was looking is told as lost, one whose process lives is not
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 1e9)'])
    t.after(() => child.kill('SIGKILL'))
    const gone = await world.up.post('/api/runs', { name: 'gone', worker: { ...thisProcess(), pid: child.pid, birth: 'another' } })
    const here = await world.up.post('/api/runs', { name: 'here', worker: thisProcess() })
    world.up.process.kill('SIGKILL')
    await world.up.ended
    world.up = await start(t, home, port, database)
    const until = performance.now() + 10_000
    const statusOf = async ({ run }: { run: string }) => {
      const { status, reason } = (await (await world.up.ask(`/api/runs/${run}`)).json()) as { status: string; reason: string | null }
      return [status, reason]
    }
    while ((await statusOf(gone))[0] === 'running' && performance.now() < until)
      await once(world.up.process.stderr!, 'data').catch(() => {})
    assert.deepEqual(
      [await statusOf(gone), await statusOf(here)],
      [
        ['failed', 'lost'],
        ['running', null],
      ],
    )
    world.up.process.kill('SIGKILL')
    await world.up.ended
  })
}

interface World {
  up: Up
  /** Resolves when a server that was killed is there again. */
  next: PromiseWithResolvers<void>
  acknowledged: number
  stopped: boolean
  killAt: number
  kill(): void
}

/** Starts runs, logs to them and ends them; whatever is not answered is sent again until it is. */
async function write(world: World, told: Told[]): Promise<void> {
  const send = async (path: string, body: object): Promise<void> => {
    for (;;) {
      const { up } = world
      try {
        const answer = await up.ask(path, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } })
        const text = await answer.text()
        assert.equal(answer.status, 200, text)
        break
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error
        if (world.up === up) await world.next.promise // killed: the one after it takes it
      }
    }
    if (++world.acknowledged >= world.killAt) world.kill()
  }
  while (!world.stopped) {
    const run: Told = { run: randomBytes(16).toString('hex'), started: false, batches: 0, singles: 0, ended: null }
    told.push(run)
    await send('/api/runs', { run: run.run, name: 'written', tags: { writer: 'kill' } })
    run.started = true
    for (let step = 0; step < stepsOfRun && !world.stopped; step++) {
      if (step % 3 === 0) {
        const point = { key: 'single', value: step, timestamp: step, step }
        await send('/api/2.0/mlflow/runs/log-metric', { run_id: run.run, ...point })
        run.singles = step + 1
      }
      const metrics = [0, 1, 2].map(i => ({ key: `batch ${i}`, value: step + i / 10, timestamp: step, step }))
      if (step % 2 === 0)
        await send('/api/2.0/mlflow/runs/log-batch', { run_id: run.run, metrics, params: [{ key: `param ${step}`, value: `${step}` }] })
      else await send(`/api/runs/${run.run}/log`, { metrics, params: { [`param ${step}`]: `${step}` } })
      run.batches = step + 1
    }
    if (run.batches < stepsOfRun) return
    const status = randomInt(2) === 0 ? 'succeeded' : 'failed'
    await send(`/api/runs/${run.run}/end`, { status, ended: 5 })
    run.ended = status
  }
}

async function assertTruth(database: string, told: readonly Told[]): Promise<void> {
  const db = await openDatabase(database)
  try {
    for (const { run, started, batches, singles, ended } of told) {
      if (!started) continue
      const { status, reason, params, tags, metrics } = await getTrackedRun(db, 'default', run)
      assert.deepEqual([tags['writer'], reason], ['kill', null])
      assert.equal(status, ended ?? 'running')
      const histories = await Promise.all(['batch 0', 'batch 1', 'batch 2', 'single'].map(key => metricHistory(db, 'default', run, key)))
      const [first, second, third, single] = histories.map(points => points.map(({ step, value }) => [step, value]))
      // in order, each once, none missing; one more may be there that was not answered, and then it is whole
      assert.ok(first!.length === batches || first!.length === batches + 1)
      assert.deepEqual(
        [first, second, third],
        [0, 1, 2].map(i => first!.map((_, step) => [step, step + i / 10])),
      )
      assert.deepEqual(Object.keys(params).length, first!.length)
      const singlesThere = single!.map(([step]) => step!)
      assert.deepEqual(
        singlesThere,
        Array.from({ length: singlesThere.length }, (_, i) => i * 3),
      )
      assert.ok(singlesThere.length >= Math.ceil(singles / 3))
      const newest = metrics.find(({ key }) => key === 'batch 2')
      assert.deepEqual(newest && [newest.step, newest.value], first!.length > 0 ? third!.at(-1) : undefined)
    }
  } finally {
    await db.destroy()
  }
}

const start = (t: TestContext, home: string, port: number, database: string | null): Promise<Up> =>
  startUp(t, home, { port: String(port), ...(database && { environment: { PLINTH_DATABASE: database } }) })

const freePort = () =>
  new Promise<number>(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
