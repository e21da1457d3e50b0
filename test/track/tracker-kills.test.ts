/** Processes killed at any moment, servers that flap, disks that are full: nothing that was acknowledged is lost, nothing is there twice, no status lies. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { sql } from 'kysely'
import { openHome } from '../../src/track/home.ts'
import { startRun } from '../../src/track/tracker.ts'
import { onSmallDisk } from '../storage/small-disk.ts'
import { startUp, type Up } from '../up/up.ts'
import { temporaryFolder } from './homes.ts'
import { assertWhole, filesIn, long, serve, statusOf, train, until } from './trainings.ts'

const kills = long ? 500 : 12

/** From 0 to below `limit`, the same in each run of the test. */
const chance = (seed: number, limit: number) => ((seed * 2654435761) % 4294967296) % limit

test(`${kills} kills of trainings at any moment: all that was acknowledged is with the server, once, and each run is failed, lost`, async t => {
  const home = temporaryFolder(t)
  const server = await serve(t, home)
  const killed: { run: string; points: number }[] = []
  const kill = async (seed: number) => {
    const training = train(t, home, 1_000_000, 'wait')
    const run = await training.run
    // from the very first line on, through the first sending, into the steady state
    const pause = chance(seed, 600)
    await new Promise(resolve => setTimeout(resolve, pause))
    training.process.kill('SIGKILL')
    await training.ended
    killed.push({ run, points: training.points() })
  }
  for (let seed = 0; seed < kills; seed += 2) await Promise.all([kill(seed), kill(seed + 1)])
  const died = Date.now()
  for (const { run, points } of killed) {
    await until(
      () => statusOf(server.db, run),
      status => status === 'failed lost',
    )
    assert.ok(Date.now() - died < 10_000, 'within ten seconds')
    await until(
      () => filesIn(home).filter(name => name.startsWith(run)),
      files => files.length === 0,
      60,
    )
    await assertWhole(server.db, run, points)
    assert.equal(await statusOf(server.db, run), 'failed lost')
  }
  assert.ok(new Set(killed.map(({ points }) => points)).size > kills / 2, 'they died at different points')
  const { rows } = await sql<{ n: number }>`select count(*) as n from tracked_runs`.execute(server.db)
  assert.equal(Number(rows[0]!.n), kills)
})

test(`${kills} kills of the server while a training logs: all of it is there, once, and it succeeded`, async t => {
  const home = temporaryFolder(t)
  const run = await startRun({ directory: home, experiment: 'flapping' })
  let points = 0
  const logging = setInterval(() => {
    for (let i = 0; i < 20; i++, points++) run.metric('loss', 1 / (points + 1), { step: points, time: 1_000_000 + points })
  }, 5)
  const statuses = new Set<string>()
  for (let kill = 0; kill < kills; kill++) {
    const server = await startUp(t, home, { words: ['--quiet'] })
    await new Promise(resolve => setTimeout(resolve, chance(kill, 400)))
    const asked = await server.ask(`/api/runs/${run.id}`).catch(() => null)
    if (asked?.ok) statuses.add(((await asked.json()) as { status: string }).status)
    server.process.kill('SIGKILL')
    await server.ended
  }
  clearInterval(logging)
  const server = await serve(t, home)
  await run.end('succeeded', { wait: 60_000 })
  await assertWhole(server.db, run.id, points)
  assert.equal(await statusOf(server.db, run.id), 'succeeded')
  assert.deepEqual([...statuses], ['running'], 'nobody was ever told that it is lost')
  assert.deepEqual(filesIn(home), [])
  t.diagnostic(`${points} points over ${kills} servers`)
})

test('both die, again and again: what the last server finds is whole', async t => {
  const home = temporaryFolder(t)
  const killed: { run: string; points: number }[] = []
  let server: Up | null = null
  for (let round = 0; round < (long ? 50 : 3); round++) {
    server = await startUp(t, home, { words: ['--quiet'] })
    const training = train(t, home, 1_000_000, 'wait')
    const run = await training.run
    await new Promise(resolve => setTimeout(resolve, 100 + chance(round, 500)))
    const [first, second] = round % 2 ? [server.process, training.process] : [training.process, server.process]
    first.kill('SIGKILL')
    await new Promise(resolve => setTimeout(resolve, chance(round + 7, 300)))
    second.kill('SIGKILL')
    await Promise.all([server.ended, training.ended])
    killed.push({ run, points: training.points() })
  }
  const last = await serve(t, home)
  await until(
    () => filesIn(home),
    files => files.length === 0,
    60,
  )
  for (const { run, points } of killed) {
    await assertWhole(last.db, run, points)
    assert.equal(await statusOf(last.db, run), 'failed lost')
  }
})

test('a hundred thousand points that waited arrive in seconds, and the status is true before the first of them', async t => {
  const home = temporaryFolder(t)
  const training = train(t, home, 100_000)
  assert.equal(await training.ended, 0)
  const run = await training.run
  const server = await serve(t, home)
  const started = performance.now()
  await until(
    () => statusOf(server.db, run),
    status => status === 'succeeded',
  )
  const told = performance.now() - started
  await until(
    () => filesIn(home),
    files => files.length === 0,
    60,
  )
  const seconds = (performance.now() - started) / 1000
  await assertWhole(server.db, run, 100_000)
  t.diagnostic(`${Math.round(100_000 / seconds)} points a second; the end was told after ${Math.round(told)} ms`)
  assert.ok(told < 1000 * seconds, 'its end comes first')
})

test('a disk that is full keeps nothing from the server, and stops no training', async t => {
  const answer = await onSmallDisk<SmallDisk>(t, new URL('./training-small-disk.ts', import.meta.url), [temporaryFolder(t)])
  if (!answer) return
  const { run, home, logged, refusedAt, milliseconds, warnings } = answer
  assert.ok(refusedAt > 0 && refusedAt < logged, 'the disk was full on the way')
  assert.ok(milliseconds < 20_000)
  assert.equal(warnings, 1, 'said once')
  const opened = await openHome(home)
  t.after(() => opened.close())
  await assertWhole(opened.db, run, logged)
  assert.equal(await statusOf(opened.db, run), 'succeeded')
})
export interface SmallDisk {
  run: string
  home: string
  logged: number
  refusedAt: number
  milliseconds: number
  warnings: number
}

test('a run whose server was put back to an older copy, or lost its records, is told anew from the log', async (t: TestContext) => {
  const [home, first] = [temporaryFolder(t), temporaryFolder(t)]
  const server = await serve(t, first)
  const run = await startRun({ directory: home, experiment: 'lost', url: server.url, token: server.token })
  for (let step = 0; step < 10; step++) run.metric('loss', 1 / (step + 1), { step, time: 1_000_000 + step })
  assert.equal(await run.flush(), true)
  for (const table of ['metrics', 'latest_metrics', 'params', 'tags', 'tracked_runs'])
    await sql`delete from ${sql.table(table)}`.execute(server.db)
  run.metric('loss', 1 / 11, { step: 10, time: 1_000_010 })
  await run.end('succeeded', { wait: 20_000 })
  await assertWhole(server.db, run.id, 11)
  assert.equal(await statusOf(server.db, run.id), 'succeeded')
  assert.deepEqual(filesIn(join(home)), [])
})
