/** What a run says it is, when the process that worked on it is gone, is elsewhere, or had its number given to another. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Home } from '../../src/db/home.ts'
import { createRun, getRun, listRuns, openRun, type RunWriter } from '../../src/track/runs.ts'
import { birthTicks, isAlive, silence, thisProcess, type Worker } from '../../src/track/worker.ts'
import { child, childHead, newRun, temporaryHome } from './homes.ts'

const statusOf = ({ status, reason }: { status: string; reason: string | null }) => (reason ? `${status} (${reason})` : status)
const fileOf = ({ directory }: RunWriter) => join(directory, 'run.json')
const stored = (writer: RunWriter) => JSON.parse(readFileSync(fileOf(writer), 'utf8'))
const inDatabase = async (home: Home, writer: RunWriter) =>
  statusOf(await home.db.selectFrom('runs').select(['status', 'reason']).where('id', '=', writer.run.run).executeTakeFirstOrThrow())

async function startedRun(home: Home, worker: Partial<Worker> = {}): Promise<RunWriter> {
  const writer = await createRun(home, newRun())
  await writer.start()
  writer.logMetrics(1, { loss: 1 })
  const now = stored(writer)
  writeFileSync(fileOf(writer), JSON.stringify({ ...now, worker: { ...now.worker, ...worker } }))
  return writer
}
const longAgo = (writer: RunWriter, milliseconds: number) => {
  const then = new Date(Date.now() - milliseconds)
  utimesSync(fileOf(writer), then, then)
}

test('a process with the same number that was born at another time is another process', {
  skip: process.platform !== 'linux' && 'only Linux says when a process was born',
}, async t => {
  const home = await temporaryHome(t)
  const writer = await startedRun(home, { birth: `${thisProcess().birth.split('/')[0]}/1` })
  assert.equal(statusOf(await getRun(home, writer.run.run)), 'failed (lost)')
  const rebooted = await startedRun(home, { birth: `another-boot/${thisProcess().birth.split('/')[1]}` })
  assert.equal(statusOf(await getRun(home, rebooted.run.run)), 'failed (lost)')
})

test('a lost run is written down as lost, with what it had logged and when it was last seen', async t => {
  const home = await temporaryHome(t)
  const writer = await startedRun(home, { pid: 2 ** 22 + 1 })
  assert.equal(await inDatabase(home, writer), 'running')
  longAgo(writer, 5000)
  const seen = new Date(statSync(fileOf(writer)).mtimeMs).toISOString()
  const [lost] = await listRuns(home)
  assert.equal(statusOf(lost!), 'failed (lost)')
  assert.deepEqual(lost!.metrics, { loss: 1 })
  assert.equal(lost!.ended, seen)
  assert.equal(await inDatabase(home, writer), 'failed (lost)')
  const { run, worker } = stored(writer)
  assert.deepEqual([run, worker], [lost, null])
  assert.deepEqual(await getRun(home, lost!.run), lost, 'and from then on it stays so')
})

test('of a process in another container or on another machine, the last sign of life counts, and nothing is written', async t => {
  const home = await temporaryHome(t)
  const writer = await startedRun(home, { place: 'elsewhere/pid:[1]', pid: 2 ** 22 + 1 })
  assert.equal(statusOf(await getRun(home, writer.run.run)), 'running')
  await assert.rejects((await openRun(home, writer.run.run)).start(), { code: 'run_busy' })
  longAgo(writer, silence + 1000)
  assert.equal(statusOf(await getRun(home, writer.run.run)), 'failed (lost)')
  assert.equal(statusOf((await listRuns(home))[0]!), 'failed (lost)')
  assert.equal(stored(writer).run.status, 'running', 'it may only have been out of reach')
  const resumed = await openRun(home, writer.run.run)
  await resumed.start()
  assert.equal(statusOf(await getRun(home, writer.run.run)), 'running')
  await resumed.finish('succeeded')
})

test('of six processes that resume a lost run at once, exactly one gets it', async t => {
  const home = await temporaryHome(t)
  const writer = await startedRun(home, { pid: 2 ** 22 + 1 })
  const program = `${childHead({ openRun: 'track/runs.ts' })}
    const writer = await openRun(home, process.argv[2])
    say('ready')
    await new Promise(resolve => process.stdin.once('data', resolve))
    say(await writer.start().then(() => 'mine', error => error.code))
    process.stdin.resume()`
  const children = Array.from({ length: 6 }, () => child(program, [home.path, writer.run.run]))
  t.after(() => {
    for (const each of children) each.process.kill('SIGKILL')
  })
  for (const { lines } of children) assert.equal((await lines.next()).value, 'ready')
  for (const each of children) each.process.stdin!.write('go')
  const answers = await Promise.all(children.map(async ({ lines }) => (await lines.next()).value))
  assert.deepEqual(answers.toSorted(), ['mine', ...Array(5).fill('run_busy')].toSorted())
  assert.equal(statusOf(await getRun(home, writer.run.run)), 'running')
})

test('two writers in one process do not both get a run', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun())
  await writer.start()
  await writer.start() // once more by the one who has it changes nothing
  await assert.rejects((await openRun(home, writer.run.run)).start(), { code: 'run_busy' })
  await writer.finish('succeeded')
})

test('two trainings at once in one home do not disturb each other', async t => {
  const home = await temporaryHome(t)
  const program = `${childHead({ createRun: 'track/runs.ts' })}
    const writer = await createRun(home, { name: process.argv[2], recipe: 'r', params: {}, environment: {}, dataset: null, device: null })
    await writer.start()
    for (let step = 1; step <= 100; step++) {
      writer.logMetrics(step, { loss: 1 / step })
      if (step % 10 === 0) await writer.recordCheckpoint(step)
    }
    await writer.finish('succeeded')
    await home.close()`
  const both = ['one', 'two'].map(name => child(program, [home.path, name]))
  for (const { ended } of both) assert.equal(await ended, 0)
  const runs = await listRuns(home)
  assert.deepEqual(runs.map(run => run.name).toSorted(), ['one', 'two'])
  for (const run of runs) assert.deepEqual([statusOf(run), run.checkpointStep, run.metrics], ['succeeded', 100, { loss: 0.01 }])
})

test('the database can be lost: the folders say the same', async t => {
  const home = await temporaryHome(t)
  for (const status of ['succeeded', 'failed', 'cancelled'] as const) {
    const writer = await createRun(home, newRun())
    await writer.start()
    await writer.finish(status, status === 'failed' ? 'disk_full' : null)
  }
  const before = await listRuns(home)
  await home.db.deleteFrom('runs').execute()
  assert.deepEqual(await listRuns(home), before)
})

test('a run whose record was damaged is listed as such, a folder without one is not', async t => {
  const home = await temporaryHome(t)
  const writer = await startedRun(home)
  for (const damage of ['', '{"run":', '{}', 'null', '[]']) {
    writeFileSync(fileOf(writer), damage)
    assert.equal(statusOf((await listRuns(home))[0]!), 'failed (damaged)', damage)
    assert.equal(statusOf(await getRun(home, writer.run.run)), 'failed (damaged)', damage)
    await assert.rejects(openRun(home, writer.run.run), { code: 'home_damaged' })
  }
  rmSync(fileOf(writer))
  assert.deepEqual(await listRuns(home), [])
})

test('the kernel’s line about a process is read right, whatever the process is called', () => {
  const line = (name: string, state: string) => `4242 (${name}) ${state} 1 4242 4242 0 -1 4194560 1 0 0 0 3 1 0 0 20 0 11 0 987654 1 2 3`
  for (const name of ['node', 'a b', ') R 1 2 3', '((', 'MainThread)']) assert.equal(birthTicks(line(name, 'S')), '987654', name)
  assert.equal(birthTicks(line('node', 'Z')), null, 'a zombie works on nothing')
  assert.equal(birthTicks(''), null)
})

test('this process is alive, and one that never was is not', () => {
  const worker = thisProcess()
  assert.equal(isAlive(worker, 0), true)
  assert.equal(isAlive({ ...worker, pid: 2 ** 22 + 1 }, Date.now()), false)
})

test('checkpoints that are recorded without waiting are written in their order', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun())
  await writer.start()
  await Promise.all(Array.from({ length: 20 }, (_, i) => writer.recordCheckpoint(i + 1)))
  assert.equal((await getRun(home, writer.run.run)).checkpointStep, 20)
  assert.deepEqual(readdirSync(writer.directory).sort(), ['metrics.jsonl', 'run.json'])
  await writer.finish('succeeded')
})
