/** The searches that MLflow's own server was asked, and what it answered (recorded in 2026), on both databases. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import { createRunLog } from '../../src/track/log.ts'
import { parseFilter, parseOrder } from '../../src/track/search/filter.ts'
import { type RunSearch, searchRuns } from '../../src/track/search/runs.ts'
import { createTrackedRun, trackedRuns } from '../../src/track/tracked-runs.ts'
import { databases } from '../db/databases.ts'

/** Found (1), not found (0) or refused. The run: metrics m=2, `a b`=3, nan=NaN; params p=Abc, x.y=1, e=''; tags t=v1, q=it's; called it's; running. */
const asked: Record<string, 0 | 1 | 'refused'> = {
  'metrics.m > 1': 1,
  'metrics.m = 2.0': 1,
  'metrics.m>=2': 1,
  'metric.m < 1e3': 1,
  'metrics.m > -1': 1,
  "metrics.m = '2'": 'refused',
  'metrics.`a b` = 3': 1,
  'metrics."a b" = 3': 1,
  "metrics.'a b' = 3": 1,
  'metrics.nan > 0': 0,
  'metrics.nan = 0': 0, // MLflow finds it, which helps nobody
  'metrics.nan < 1': 0,
  'metrics.m IS NULL': 'refused',
  ' metrics.m > 1 ': 1,
  'metrics.m == 2': 'refused',
  'metrics.m <> 2': 'refused',
  'Metrics.m > 1': 'refused',
  'metrics.m > .5': 1,
  'metrics.m > 1_000': 'refused',
  'metrics.m > +1': 'refused',
  'metrics.m > 0x1': 'refused',
  "params.p = 'Abc'": 1,
  'params.p = "Abc"': 1,
  'params.p = Abc': 'refused',
  "params.p = 'abc'": 0,
  "params.p LIKE 'A%'": 1,
  "params.p like 'A%'": 1,
  "params.p LIKE 'a%'": 0,
  "params.p ILIKE 'a%'": 1,
  "params.p != 'zzz'": 1,
  "params.nope != 'zzz'": 0,
  "params.x.y = '1'": 1,
  "params.`x.y` = '1'": 1,
  "param.p = 'Abc' and tags.t = 'v1'": 1,
  "params.p = 'Abc' AND tags.t = 'v1' AND metrics.m > 0": 1,
  "parameters.p = 'Abc'": 1,
  "params.p IN ('Abc','d')": 'refused',
  "params.e = ''": 1,
  "params.p RLIKE 'A.*'": 'refused',
  "tags.t IN ('v1')": 'refused',
  'tags.t IS NULL': 0,
  'tags.nope IS NULL': 1,
  'tags.t IS NOT NULL': 1,
  "tags.q = 'it''s'": 0,
  'tags.q = "it\'s"': 1,
  "tags.q = 'it\\'s'": 0,
  'tags.`mlflow.runName` = "it\'s"': 1,
  "tags.mlflow.runName LIKE 'it%'": 1,
  "attributes.status = 'RUNNING'": 1,
  "attribute.status = 'running'": 0,
  "attributes.status IN ('RUNNING')": 'refused',
  "status = 'RUNNING'": 1,
  "run.status = 'RUNNING'": 1,
  'attr.run_name = "it\'s"': 1,
  'attributes.`run name` = "it\'s"': 1,
  "attributes.run_id = 'RUN'": 1,
  "run_id IN ('RUN')": 1,
  "attributes.run_id IN ('RUN','b')": 1,
  "run_id NOT IN ('a')": 1,
  'run_id IN ()': 'refused',
  'attributes.start_time > 1': 1,
  "attributes.start_time = '5'": 'refused',
  'start_time >= 5': 1,
  'attributes.created > 1': 1,
  "attributes.artifact_uri LIKE 'mlflow%'": 1,
  "attributes.user_id = ''": 1,
  'attributes.end_time > 0': 0,
  "attributes.lifecycle_stage = 'active'": 'refused',
  "attributes.experiment_id = '1'": 'refused',
  "datasets.name = 'x'": 0,
  "dataset.digest IN ('a','b')": 0,
  "datasets.context = 'train'": 0,
  "datasets.foo='x'": 'refused',
  "params.p = 'Abc' OR tags.t = 'v1'": 'refused',
  "(params.p = 'Abc')": 'refused',
  "NOT params.p = 'Abc'": 'refused',
  'metrics.m': 'refused',
  'metrics.m >': 'refused',
  'metrics.m > 1;': 'refused',
  'metrics.m > 1; metrics.m<5': 'refused',
  '1 < metrics.m': 'refused',
  'metrics.m BETWEEN 1 AND 3': 'refused',
  "foo.bar = 'x'": 'refused',
  'metrics.m = 1 and': 0,
  '': 1,
  '   ': 'refused',
  'metrics.m > 1 -- c': 'refused',
}
const sorted: Record<string, 1 | 'refused'> = {
  'metrics.m': 1,
  'metrics.m DESC': 1,
  'metric.`a b` asc': 1,
  'attributes.start_time DESC': 1,
  'start_time desc nulls last': 'refused',
  'created DESC': 1,
  'tags.t': 1,
  run_name: 1,
  'attributes.artifact_uri': 1,
  'attribute.run_id': 1,
  'metrics.m foo': 'refused',
  'datasets.name': 'refused',
  status: 1,
  end_time: 1,
  user_id: 1,
  duration: 'refused',
  timestamp: 'refused',
  'metrics.m DESC, params.p': 'refused',
}

const everything: RunSearch = { experiments: ['0'], filter: '', orderBy: [], view: 'active', limit: 100 }

for (const { kind, missing, open } of databases()) {
  test(`${kind}: every search that MLflow's server was asked is answered as there`, { skip: missing ?? false }, async () => {
    const db = await open()
    after(() => db.destroy())
    const { run } = await createTrackedRun(db, 'default', {
      experiment: '0',
      name: "it's",
      user: '',
      tags: [
        { key: 't', value: 'v1' },
        { key: 'q', value: "it's" },
      ],
    })
    const metric = (key: string, value: number) => ({ key, value, timestamp: 1, step: 0 })
    await createRunLog(db).log({
      project: 'default',
      run,
      metrics: [metric('m', 2), metric('a b', 3), metric('nan', Number.NaN)],
      params: [
        { key: 'p', value: 'Abc' },
        { key: 'x.y', value: '1' },
        { key: 'e', value: '' },
      ],
      tags: [],
    })
    const found = async (search: Partial<RunSearch>) =>
      searchRuns(db, 'default', { ...everything, ...search }).then(
        ({ numbers }) => numbers.length,
        error => (error instanceof Failure && error.code === 'search_invalid' ? 'refused' : error),
      )
    for (const [filter, expected] of Object.entries(asked))
      assert.equal(await found({ filter: filter.replaceAll("RUN'", `${run}'`) }), expected, filter)
    for (const [order, expected] of Object.entries(sorted)) assert.equal(await found({ orderBy: [order] }), expected, order)
    assert.equal(await found({ orderBy: ['params.p desc', 'start_time'] }), 1)
    assert.equal(await found({ orderBy: ['metrics.m', 'metrics.m'] }), 'refused')
    assert.equal(await found({ experiments: [] }), 0)
    assert.equal((await searchRuns(db, 'another', everything)).numbers.length, 0)
  })

  test(`${kind}: pages hold every run once, numbers before NaN before nothing in both directions`, { skip: missing ?? false }, async () => {
    const db = await open()
    after(() => db.destroy())
    const log = createRunLog(db)
    const values = [3, 1, Number.NaN, null, 2, Number.POSITIVE_INFINITY, null, Number.NaN, -5, Number.NEGATIVE_INFINITY, 2]
    for (const [i, value] of values.entries()) {
      const { run } = await createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [], started: 1000 + (i % 3) })
      if (value !== null)
        await log.log({ project: 'default', run, metrics: [{ key: 'loss', value, timestamp: 1, step: 1 }], params: [], tags: [] })
    }
    for (const direction of ['ASC', 'DESC']) {
      const seen: number[] = []
      for (let after: string | undefined; ; ) {
        const page = await searchRuns(db, 'default', { ...everything, orderBy: [`metrics.loss ${direction}`], limit: 2, after })
        seen.push(...page.numbers)
        if (page.next === null) break
        after = page.next
      }
      assert.equal(new Set(seen).size, values.length)
      const order = (await trackedRuns(db, seen)).map(({ metrics }) => metrics[0]?.value ?? null)
      const numbers = values.filter(value => value !== null && !Number.isNaN(value)).map(Number)
      numbers.sort((a, b) => (direction === 'ASC' ? a - b || 0 : b - a || 0))
      assert.deepEqual(order, [...numbers, Number.NaN, Number.NaN, null, null])
    }
    const { next } = await searchRuns(db, 'default', { ...everything, limit: 2 })
    await assert.rejects(searchRuns(db, 'default', { ...everything, filter: 'metrics.loss > 1', limit: 2, after: next! }), {
      code: 'page_invalid',
    })
    await assert.rejects(searchRuns(db, 'default', { ...everything, after: 'nonsense' }), { code: 'page_invalid' })
  })
}

test('any text is read or refused, and nothing else', () => {
  const piece = fc.constantFrom(
    'metrics.',
    'tags.`',
    "'",
    '"',
    ' AND ',
    '(',
    ')',
    ',',
    '>=',
    'IS NOT NULL',
    ' in ',
    '\\',
    'é',
    '\0',
    '--',
    '1e9',
    '.',
    ' ',
  )
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(piece).map(parts => parts.join('')),
      ),
      text => {
        for (const read of [parseFilter, parseOrder]) {
          try {
            read(text)
          } catch (error) {
            assert.ok(error instanceof Failure && error.code === 'search_invalid', String(error))
          }
        }
      },
    ),
    { numRuns: 2000 },
  )
})
