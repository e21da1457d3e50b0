import assert from 'node:assert/strict'
import { appendFileSync, cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createRun, deleteRun, getRun, listRuns, openRun, readMetrics } from '../../src/track/runs.ts'
import { child, childHead, newRun, temporaryHome } from './homes.ts'

test('a run goes from queued to running to its end, and any process reads it as it is', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun({ params: { rate: 0.1 } }))
  const id = writer.run.run
  assert.equal((await getRun(home, id)).status, 'queued')
  await writer.start()
  await writer.logMetrics(1, { loss: 2 })
  await writer.logMetrics(2, { loss: 1, accuracy: 0.5 })
  await writer.recordCheckpoint(2)
  const running = await getRun(home, id)
  assert.equal(running.status, 'running')
  assert.equal(running.checkpointStep, 2)
  await writer.update({ model: { name: 'birds', version: 1 } })
  await writer.finish('succeeded')
  const done = await getRun(home, id)
  assert.equal(done.status, 'succeeded')
  assert.deepEqual(done.metrics, { loss: 1, accuracy: 0.5 })
  assert.deepEqual(done.params, { rate: 0.1 })
  assert.deepEqual(done.model, { name: 'birds', version: 1 })
  assert.ok(done.ended && done.ended >= done.started)
  assert.deepEqual(await listRuns(home), [done])
  const row = await home.db.selectFrom('runs').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
  assert.equal(row.status, 'succeeded', 'the database says the same')
})

test('numbers that JSON has no word for are kept by name', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun())
  await writer.start()
  await writer.logMetrics(1, { a: Number.NaN, b: Number.POSITIVE_INFINITY, c: Number.NEGATIVE_INFINITY, d: -0.5 })
  await writer.finish('failed', 'out_of_memory')
  const expected = { a: 'NaN', b: 'Infinity', c: '-Infinity', d: -0.5 }
  const run = await getRun(home, writer.run.run)
  assert.deepEqual(run.metrics, expected)
  assert.equal(run.reason, 'out_of_memory')
  assert.deepEqual(
    (await readMetrics(home, run.run)).map(point => point.values),
    [expected],
  )
})

const kills = process.env['PLINTH_TEST'] === 'long' ? 500 : 20

test(`${kills} kills of the process that trains: nothing acknowledged is lost, and no run says it is still running`, async t => {
  const home = await temporaryHome(t)
  const id = (await createRun(home, newRun())).run.run
  const program = `${childHead({ openRun: 'track/runs.ts' })}
    const writer = await openRun(home, process.argv[2])
    await writer.start()
    for (let step = Number(process.argv[3]); ; step++) {
      await writer.logMetrics(step, { loss: 1 / step, text: step })
      if (step % 5 === 0) await writer.recordCheckpoint(step)
      say(step)
    }`
  const acknowledged: number[] = []
  for (let kill = 1; kill <= kills; kill++) {
    const from = (acknowledged.at(-1) ?? 0) + 1
    const { process: trainer, lines, ended } = child(program, [home.path, id, String(from)])
    let count = 0
    for await (const step of lines) {
      acknowledged.push(step as number)
      if (++count >= ((kill - 1) % 20) + 1) trainer.kill('SIGKILL') // at another place each time, in the middle of whatever comes next
    }
    assert.equal(await ended, 'SIGKILL')
    for (const run of [await getRun(home, id), (await listRuns(home))[0]!]) {
      assert.equal(run.status, 'failed')
      assert.equal(run.reason, 'lost')
    }
    const logged = new Map((await readMetrics(home, id)).map(({ step, values }) => [step, values]))
    for (const step of acknowledged.slice(-400))
      assert.deepEqual(logged.get(step), { loss: 1 / step, text: step }, `step ${step} after kill ${kill}`)
  }
  assert.ok(acknowledged.length >= 210 * (kills / 20))
  const all = new Set((await readMetrics(home, id)).map(point => point.step))
  assert.deepEqual(
    acknowledged.filter(step => !all.has(step)),
    [],
  )
  const { checkpointStep } = await getRun(home, id)
  const last = acknowledged.at(-1)!
  assert.ok(checkpointStep >= last - (last % 5), 'an acknowledged checkpoint is remembered')
})

test('a torn last line is not read, and swallows nothing that is logged after it', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun())
  await writer.start()
  await writer.logMetrics(1, { loss: 3 })
  await writer.finish('cancelled', 'interrupted')
  const file = join(writer.directory, 'metrics.jsonl')
  appendFileSync(file, '{"step":2,"time":1,"values":{"lo')
  assert.deepEqual(
    (await readMetrics(home, writer.run.run)).map(p => p.step),
    [1],
  )

  const again = await openRun(home, writer.run.run)
  await again.start()
  await again.logMetrics(2, { loss: 2 })
  await again.finish('succeeded')
  const points = await readMetrics(home, writer.run.run)
  assert.deepEqual(
    points.map(p => [p.step, p.values]),
    [
      [1, { loss: 3 }],
      [2, { loss: 2 }],
    ],
  )
  assert.ok(readFileSync(file, 'utf8').endsWith('\n'))
})

test('what another process works on cannot be started or deleted, until that process is gone', async t => {
  const home = await temporaryHome(t)
  const id = (await createRun(home, newRun())).run.run
  const worker = child(
    `${childHead({ openRun: 'track/runs.ts' })}
    await (await openRun(home, process.argv[2])).start()
    say('started')
    process.stdin.resume()`,
    [home.path, id],
  )
  t.after(() => worker.process.kill('SIGKILL'))
  await worker.lines.next()
  assert.equal((await getRun(home, id)).status, 'running')
  await assert.rejects((await openRun(home, id)).start(), { code: 'run_busy' })
  await assert.rejects(deleteRun(home, id), { code: 'run_busy' })
  assert.equal((await getRun(home, id)).status, 'running', 'the attempts changed nothing')

  worker.process.kill('SIGKILL')
  await worker.ended
  assert.equal((await getRun(home, id)).reason, 'lost')
  const writer = await openRun(home, id)
  await writer.start()
  const resumed = await getRun(home, id)
  assert.deepEqual([resumed.status, resumed.reason, resumed.ended], ['running', null, null])
  await assert.rejects(deleteRun(home, id), { code: 'run_busy' })
  await writer.finish('succeeded')
})

test('a deleted run is gone with its files, and others stay', async t => {
  const home = await temporaryHome(t)
  const [one, two] = [await createRun(home, newRun()), await createRun(home, newRun())]
  for (const writer of [one, two]) {
    await writer.start()
    writeFileSync(join(writer.directory, 'report.html'), 'x')
    await writer.finish('succeeded')
  }
  await deleteRun(home, one.run.run)
  assert.equal(existsSync(one.directory), false)
  assert.ok(existsSync(join(two.directory, 'report.html')))
  assert.deepEqual(
    (await listRuns(home)).map(run => run.run),
    [two.run.run],
  )
  assert.deepEqual(
    (await home.db.selectFrom('runs').select('id').execute()).map(row => row.id),
    [two.run.run],
  )
  await assert.rejects(getRun(home, one.run.run), { code: 'run_not_found' })
  await assert.rejects(deleteRun(home, one.run.run), { code: 'run_not_found' })
})

test('runs are listed newest first', async t => {
  const home = await temporaryHome(t)
  const made: { run: string; started: string }[] = []
  while (new Set(made.map(run => run.started)).size < 4) {
    const { run } = await createRun(home, newRun())
    made.push({ run: run.run, started: run.started })
  }
  const listed = await listRuns(home)
  assert.equal(listed.length, made.length)
  const newestFirst = made.toSorted((a, b) => b.started.localeCompare(a.started) || b.run.localeCompare(a.run))
  assert.deepEqual(
    listed.map(run => run.run),
    newestFirst.map(run => run.run),
  )
})

test('a run is found by the first letters of its id, if only one has them; a path is no id', async t => {
  const home = await temporaryHome(t)
  const id = (await createRun(home, newRun())).run.run
  assert.equal((await getRun(home, id.slice(0, 8))).run, id)
  await createRun(home, newRun())
  for (const wrong of ['', 'abc', '../runs', `../${id}`, `${id}/..`, id.toUpperCase().replace(/\d/g, 'F'), '%', `${id}\n`, '0'.repeat(33)])
    await assert.rejects(getRun(home, wrong), { code: 'run_not_found' }, JSON.stringify(wrong))
  for (const wrong of [`../runs/${id}`, id.slice(0, 8), `${id}/`])
    await assert.rejects(openRun(home, wrong), { code: 'run_not_found' }, 'to write, the whole id is needed')

  const twin = `${id.slice(0, 12)}${'0'.repeat(20)}`
  cpSync(join(home.path, 'runs', id), join(home.path, 'runs', twin), { recursive: true })
  await assert.rejects(getRun(home, id.slice(0, 12)), { code: 'run_ambiguous' })
})
