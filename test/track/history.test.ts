/** Histories that are thinned out, against the points they were made of, on both databases. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { thinnedHistory } from '../../src/track/history.ts'
import { createRunLog, type LoggedMetric } from '../../src/track/log.ts'
import { createTrackedRun } from '../../src/track/tracked-runs.ts'
import { databases } from '../db/databases.ts'

const point = fc.record(
  {
    key: fc.constant('loss'),
    // a script that says no step, one that counts, one that was wild
    step: fc.oneof(fc.constant(0), fc.nat(50), fc.constantFrom(-(2 ** 53) + 1, 2 ** 53 - 1)),
    timestamp: fc.nat(20),
    // the largest double is how infinity is kept, and comes back as it in a band
    value: fc.oneof(
      fc.double({ max: 1e308, min: -1e308 }),
      fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0),
    ),
  },
  { noNullPrototype: true },
)
const rank = (value: number) => (Number.isNaN(value) ? 1 : Number.isFinite(value) ? 0 : value > 0 ? 2 : 3)
const kept = (value: number) => (Number.isNaN(value) ? 0 : Math.min(Math.max(value + 0, -Number.MAX_VALUE), Number.MAX_VALUE))
const order = (a: LoggedMetric, b: LoggedMetric) =>
  a.step - b.step || a.timestamp - b.timestamp || kept(a.value) - kept(b.value) || rank(a.value) - rank(b.value)

for (const { kind, missing, open } of databases()) {
  const skip = missing ?? false
  const db = missing ? null! : await open()
  after(() => db?.destroy())

  test(`${kind}: a thinned history has every peak, and each point in one stretch`, { skip }, async () => {
    const log = createRunLog(db)
    await fc.assert(
      fc.asyncProperty(fc.array(point, { maxLength: 60 }), fc.integer({ min: 2, max: 20 }), async (given, most) => {
        const { run } = await createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [] })
        await log.log({ project: 'default', run, metrics: given, params: [], tags: [] })
        const different = new Map(given.map(each => [`${each.step} ${each.timestamp} ${each.value + 0}`, each]))
        const all = [...different.values()].sort(order)
        const { total, points } = await thinnedHistory(db, 'default', run, 'loss', most)
        assert.equal(total, all.length)
        assert.ok(points.length <= most)
        // stretches one after the other are all of it
        let at = 0
        for (const { step, timestamp, value, least, greatest, count } of points) {
          const own = all.slice(at, at + count)
          at += count
          const last = own.at(-1)!
          assert.deepEqual([step, timestamp, value + 0], [last.step, last.timestamp, last.value + 0])
          const numbers = own.map(each => each.value + 0).filter(each => !Number.isNaN(each))
          assert.deepEqual(
            [least + 0, greatest + 0],
            numbers.length > 0 ? [Math.min(...numbers) + 0, Math.max(...numbers) + 0] : [Number.NaN, Number.NaN],
          )
        }
        assert.equal(at, all.length)
      }),
      { numRuns: process.env['PLINTH_TEST'] === 'long' ? 2000 : 150 },
    )
    await log.close()
  })

  test(`${kind}: a metric that a run does not have has no points; a run of another project is not found`, { skip }, async () => {
    const { run } = await createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [] })
    assert.deepEqual(await thinnedHistory(db, 'default', run, 'loss', 10), { total: 0, points: [] })
    assert.deepEqual(await thinnedHistory(db, 'default', run, 'never heard of', 10), { total: 0, points: [] })
    await assert.rejects(thinnedHistory(db, 'other', run, 'loss', 10), { code: 'tracked_run_not_found' })
  })
}
