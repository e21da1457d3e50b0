/** What runs log, against a model in memory, on both databases. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import { type Batch, createRunLog, type LoggedMetric } from '../../src/track/log.ts'
import { createTrackedRun, getTrackedRun, metricHistory, setDeleted } from '../../src/track/tracked-runs.ts'
import { databases } from '../db/databases.ts'

// few names, steps and values, so that they meet
const metric = fc.record(
  {
    key: fc.constantFrom('loss', 'a b/c', '__proto__', 'ÿ'),
    value: fc.constantFrom(0, -0.5, 0.1 + 0.2, 1e-308, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.MAX_VALUE),
    timestamp: fc.constantFrom(0, 1, 1_700_000_000_000),
    step: fc.constantFrom(-3, 0, 1, 2 ** 53 - 1),
  },
  { noNullPrototype: true },
)
const pair = fc.record({ key: fc.constantFrom('p', 'q', '__proto__', 'constructor'), value: fc.constantFrom('', '1', "it's", '🐦') })
const batch = fc.record({
  run: fc.nat(2),
  metrics: fc.array(metric, { maxLength: 6 }),
  params: fc.array(pair, { maxLength: 2 }),
  tags: fc.array(pair, { maxLength: 2 }),
})

/** A run as it has to be: sets and maps, nothing clever. */
interface Model {
  params: Map<string, string>
  tags: Map<string, string>
  points: Map<string, LoggedMetric>
}
const asKept = (value: number) => (Number.isNaN(value) ? 0 : Math.min(Math.max(value, -Number.MAX_VALUE), Number.MAX_VALUE))
const rank = (value: number) => (Number.isFinite(value) ? 0 : Number.isNaN(value) ? 1 : value > 0 ? 2 : 3)
const order = (a: LoggedMetric, b: LoggedMetric) =>
  a.step - b.step || a.timestamp - b.timestamp || asKept(a.value) - asKept(b.value) || rank(a.value) - rank(b.value)

/** Whether all of it is taken; if not, nothing is. */
function apply(model: Model, { metrics, params, tags }: Pick<Batch, 'metrics' | 'params' | 'tags'>): boolean {
  const next = new Map(model.params)
  for (const { key, value } of params) {
    if ((next.get(key) ?? value) !== value) return false
    next.set(key, value)
  }
  model.params = next
  for (const { key, value } of tags) model.tags.set(key, value)
  for (const point of metrics) model.points.set(JSON.stringify([point.key, point.step, point.timestamp, String(point.value)]), point)
  return true
}

for (const { kind, missing, open } of databases()) {
  const skip = missing ?? false
  const db = missing ? null! : await open()
  after(() => db?.destroy())

  test(`${kind}: whatever is logged together, a run has each point once, the newest of each metric, params as first said`, {
    skip,
  }, async () => {
    const log = createRunLog(db)
    await fc.assert(
      fc.asyncProperty(fc.array(batch, { maxLength: 12 }), async given => {
        const runs = await Promise.all(
          [0, 1, 2].map(() => createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [], name: 'n' })),
        )
        const models = runs.map((): Model => ({ params: new Map(), tags: new Map([['mlflow.runName', 'n']]), points: new Map() }))
        // all at once: they are written in groups, in the order they came
        const taken = await Promise.all(
          given.map(({ run, ...rest }) =>
            log.log({ project: 'default', run: runs[run]!.run, ...rest }).then(
              () => true,
              (error: unknown) => {
                assert.equal((error as Failure).code, 'param_changed')
                return false
              },
            ),
          ),
        )
        assert.deepEqual(
          taken,
          given.map(({ run, ...rest }) => apply(models[run]!, rest)),
        )
        for (const [i, { run }] of runs.entries()) {
          const { params, tags, metrics } = await getTrackedRun(db, 'default', run)
          const model = models[i]!
          assert.deepEqual(new Map(Object.entries(params)), model.params)
          assert.deepEqual(new Map(Object.entries(tags)), model.tags)
          const byKey = Map.groupBy(model.points.values(), ({ key }) => key)
          assert.deepEqual(new Set(metrics.map(({ key }) => key)), new Set(byKey.keys()))
          for (const [key, points] of byKey) {
            assert.deepEqual(
              metrics.find(each => each.key === key),
              points.toSorted(order).at(-1),
            )
            assert.deepEqual((await metricHistory(db, 'default', run, key)).toSorted(order), points.toSorted(order))
          }
        }
      }),
      { numRuns: process.env['PLINTH_TEST'] === 'long' ? 1000 : 60 },
    )
    await log.close()
  })

  test(`${kind}: 200 writers at once lose no point and double none`, { skip }, async () => {
    const log = createRunLog(db)
    const { run } = await createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [] })
    const project = 'default'
    await Promise.all(
      Array.from({ length: 200 }, async (_, writer) => {
        for (let step = 0; step < 10; step++) {
          const metrics = [{ key: 'shared', value: writer + step / 10, timestamp: 1, step }]
          // every point twice, as after an answer that was lost
          await Promise.all([
            log.log({ project, run, metrics, params: [], tags: [] }),
            log.log({ project, run, metrics, params: [], tags: [] }),
          ])
        }
      }),
    )
    const history = await metricHistory(db, project, run, 'shared')
    assert.deepEqual(
      history.map(({ value }) => value).toSorted((a, b) => a - b),
      Array.from({ length: 200 }, (_, writer) => Array.from({ length: 10 }, (_, step) => writer + step / 10)).flat(),
    )
    await log.close()
  })

  test(`${kind}: a batch that cannot be written takes no other one with it`, { skip }, async () => {
    const log = createRunLog(db)
    const project = 'default'
    const [good, deleted] = await Promise.all([0, 1].map(() => createTrackedRun(db, project, { experiment: '0', user: 'u', tags: [] })))
    await setDeleted(db, project, deleted!.run, true)
    const point = { key: 'loss', value: 1, timestamp: 1, step: 1 }
    const one = (run: string, extra: Partial<Batch> = {}) => log.log({ project, run, metrics: [point], params: [], tags: [], ...extra })
    // no database takes NUL as text, or a step that is no whole number: refused at the edge, here it gets through
    const results = await Promise.allSettled([
      one(good!.run, { params: [{ key: 'a', value: '1' }] }),
      one(good!.run, { metrics: [{ ...point, step: 0.5 }] }),
      one('f'.repeat(32)),
      one(deleted!.run),
      one(good!.run, { project: 'other' }),
      one(good!.run, { params: [{ key: 'a', value: '2' }], tags: [{ key: 'half', value: 'written' }] }),
      one(good!.run, { tags: [{ key: 't', value: 'v' }] }),
    ])
    assert.deepEqual(
      results.map(result => (result.status === 'fulfilled' ? 'written' : result.reason instanceof Failure ? result.reason.code : 'broken')),
      ['written', 'broken', 'tracked_run_not_found', 'tracked_run_deleted', 'tracked_run_not_found', 'param_changed', 'written'],
    )
    const { params, tags, metrics } = await getTrackedRun(db, project, good!.run)
    assert.deepEqual([params, tags['t'], tags['half'], metrics], [{ a: '1' }, 'v', undefined, [point]])
    await log.close()
  })
}
