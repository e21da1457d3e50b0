import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { newestOf, openMetricLog, readMetricLog, seriesOf } from '../../src/track/metrics.ts'
import { createRun, getRun, metricSeries, openRun } from '../../src/track/runs.ts'
import { newRun, temporaryFolder, temporaryHome } from './homes.ts'

const name = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 60 })
  .filter(text => /^[^\p{Cc}\u2028\u2029]+$/u.test(text) && text !== '__proto__')
const value = fc.oneof(fc.double(), fc.integer(), fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 5e-324))
const call = fc.record({ step: fc.maxSafeInteger(), values: fc.dictionary(name, value, { maxKeys: 4, noNullPrototype: true }) })

test('any number under any name comes back as it was logged', async t => {
  const folder = temporaryFolder(t)
  let file = 0
  await fc.assert(
    fc.asyncProperty(fc.array(call, { maxLength: 8 }), async calls => {
      const path = join(folder, String(file++))
      const log = openMetricLog(path)
      for (const { step, values } of calls) log.append(step, values)
      log.close()
      const points = await readMetricLog(path)
      assert.deepEqual(
        points.map(point => point.step),
        calls.map(point => (point.step === 0 ? 0 : point.step)),
      )
      for (const [i, { values }] of calls.entries())
        for (const [metric, number] of Object.entries(values))
          assert.ok(Object.is(Number(points[i]!.values[metric]), number === 0 ? 0 : number), `${metric}: ${number}`)
    }),
    { numRuns: 60 },
  )
})

test('wherever a file was torn, the whole lines count and the next one is not swallowed', async t => {
  const path = join(temporaryFolder(t), 'metrics.jsonl')
  const log = openMetricLog(path)
  for (let step = 0; step < 3; step++) log.append(step, { 'löss ✓': step })
  log.close()
  const whole = readFileSync(path)
  for (let length = 0; length <= whole.length; length++) {
    writeFileSync(path, whole.subarray(0, length))
    const lines = whole.subarray(0, length).toString('latin1').split('\n').length - 1
    assert.equal((await readMetricLog(path)).length, lines)
    const next = openMetricLog(path)
    next.append(99, { x: 1 })
    next.close()
    const steps = (await readMetricLog(path)).map(point => point.step)
    // a line that lacks nothing but its end is ended, and then counts: it was written, only not acknowledged
    const sound = whole[length] === 10 ? lines + 1 : lines
    assert.deepEqual(steps, [...[0, 1, 2].slice(0, sound), 99], `cut after ${length} bytes`)
  }
})

test('what is no metric is refused, and nothing is written', async t => {
  const path = join(temporaryFolder(t), 'metrics.jsonl')
  const log = openMetricLog(path)
  t.after(() => log.close())
  for (const bad of ['', 'a\nb', 'a\0', 'a\u2028b', '__proto__', 'x'.repeat(251)])
    assert.throws(() => log.append(1, JSON.parse(`{${JSON.stringify(bad)}:1}`)), { code: 'metric_invalid' }, JSON.stringify(bad))
  for (const step of [1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '1' as never])
    assert.throws(() => log.append(step, { x: 1 }), { code: 'metric_invalid' }, String(step))
  for (const wrong of ['1', null, undefined, 1n, {}])
    assert.throws(() => log.append(1, { x: wrong as never }), { code: 'metric_invalid' }, String(wrong))
  assert.equal(readFileSync(path, 'utf8'), '')
  assert.equal(log.bytes, 0)
})

test('lines that are not ours are passed over', async t => {
  const path = join(temporaryFolder(t), 'metrics.jsonl')
  writeFileSync(path, 'null\n[]\n1\n"x"\n{}\n{"step":1,"time":2,"values":{"a":1}}\n\n{"values":null}\n')
  assert.deepEqual(await readMetricLog(path), [{ step: 1, time: 2, values: { a: 1 } }])
  assert.deepEqual(await readMetricLog(`${path}.not`), [])
})

test('steps that a resume logs again count once, in the order of the steps', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun())
  await writer.start()
  for (const step of [1, 2, 3]) writer.logMetrics(step, { loss: step, other: 0 })
  await writer.finish('cancelled', 'interrupted')
  const again = await openRun(home, writer.run.run)
  await again.start()
  for (const step of [2, 3, 4]) again.logMetrics(step, { loss: Number.NaN, late: step })
  assert.deepEqual((await getRun(home, again.run.run)).metrics, { loss: 'NaN', other: 0, late: 4 }, 'the newest, while it runs')
  await again.finish('succeeded')
  const series = await metricSeries(home, again.run.run, 'loss')
  assert.deepEqual(
    series.map(point => [point.step, point.value]),
    [
      [1, 1],
      [2, Number.NaN],
      [3, Number.NaN],
      [4, Number.NaN],
    ],
  )
  assert.deepEqual(await metricSeries(home, again.run.run, 'toString'), [])
  assert.deepEqual(seriesOf([], 'x'), [])
  assert.deepEqual(newestOf([]), {})
})
