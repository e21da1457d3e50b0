/** The searches that MLflow's own server was asked, and what it answered (recorded in 2026), on both databases. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import { createRunLog } from '../../src/track/log.ts'
import { runTexts } from '../../src/track/run-text.ts'
import { parseFilter, parseOrder } from '../../src/track/search/filter.ts'
import { type RunSearch, searchRuns } from '../../src/track/search/runs.ts'
import { createTrackedRun, setDeleted, trackedRuns } from '../../src/track/tracked-runs.ts'
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
    // written by somebody who knows how they look
    const [question] = JSON.parse(Buffer.from(next!, 'base64url').toString())
    const forged = Buffer.from(JSON.stringify([question, 'x', 'y'])).toString('base64url')
    const answer = await searchRuns(db, 'default', { ...everything, limit: 2, after: forged }).catch(error => error)
    assert.ok(Array.isArray(answer.numbers) || answer.code === 'page_invalid', String(answer))
  })
}

for (const { kind, missing, open } of databases()) {
  const skip = missing ?? false
  test(`${kind}: pages hold every run that was there once, whatever is started, renamed and deleted meanwhile`, { skip }, async () => {
    const db = await open()
    after(() => db.destroy())
    const start = (i: number) =>
      createTrackedRun(db, 'default', { experiment: '0', user: 'u', name: `n${i % 7}`, tags: [], started: 1000 + (i % 10) })
    const old = []
    for (let i = 0; i < 60; i++) old.push((await start(i)).number)
    for (const orderBy of [[], ['start_time'], ['run_name DESC'], ['tags.`mlflow.runName`']]) {
      const seen: number[] = []
      for (let after: string | undefined, turn = 0; ; turn++) {
        const page = await searchRuns(db, 'default', { ...everything, orderBy, limit: 7, after })
        seen.push(...page.numbers)
        for (let i = 0; i < 5; i++) {
          const { run } = await start(turn * 5 + i)
          if (i === 0) await setDeleted(db, 'default', run, true)
        }
        if (page.next === null || seen.length > 1000) break
        after = page.next
      }
      assert.deepEqual(
        old.filter(number => seen.filter(each => each === number).length !== 1),
        [],
        String(orderBy),
      )
      assert.equal(new Set(seen).size, seen.length)
    }
  })

  test(`${kind}: runs written as text are the runs themselves`, { skip }, async () => {
    const db = await open()
    after(() => db.destroy())
    const log = createRunLog(db)
    const numbers: number[] = []
    const text = fc.string({ unit: 'grapheme', maxLength: 8 }).filter(each => !each.includes('\0'))
    const key = fc.oneof(
      text.filter(each => each !== ''),
      fc.constantFrom('__proto__', 'a"b\\', 'ÿ', '\u2028'),
    )
    const pairs = fc.uniqueArray(fc.record({ key, value: text }), { selector: each => each.key, maxLength: 4 })
    const metrics = fc.array(fc.record({ key, value: fc.double(), timestamp: fc.nat(), step: fc.maxSafeInteger() }), { maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(pairs, pairs, metrics, async (params, tags, metrics) => {
        const { run, number } = await createTrackedRun(db, 'default', { experiment: '0', user: 'u', tags: [] })
        await log.log({ project: 'default', run, params, tags, metrics })
        numbers.push(number)
      }),
      { numRuns: 100 },
    )
    const value = (number: number) => (Number.isFinite(number) ? number + 0 : String(number))
    const wanted = (await trackedRuns(db, numbers)).map(({ metrics, params, tags, ...run }) => ({
      run,
      params: Object.entries(params).toSorted(),
      tags: Object.entries(tags).toSorted(),
      metrics: metrics.map(point => ({ ...point, value: value(point.value) })),
    }))
    for (const as of ['pairs', 'record'] as const) {
      const found = await runTexts(db, numbers, { as, special: each => JSON.stringify(value(each)) })
      const entries = (list: string): [string, string][] =>
        as === 'record'
          ? Object.entries(JSON.parse(list || '{}'))
          : (JSON.parse(list || '[]') as { key: string; value: string }[]).map(({ key, value }) => [key, value])
      assert.deepEqual(
        found.map(({ run, params, tags, metrics }) => ({
          run,
          params: entries(params).toSorted(),
          tags: entries(tags).toSorted(),
          metrics: JSON.parse(metrics || '[]'),
        })),
        wanted.map(each => ({ ...each })),
      )
    }
    await log.close()
  })

  test(`${kind}: any filter that can be read can be asked`, { skip }, async () => {
    const db = await open()
    after(() => db.destroy())
    const field = fc.constantFrom(
      'metrics.m',
      'params.p',
      'tags.t',
      'start_time',
      'end_time',
      'status',
      'run_id',
      'dataset.name',
      'run_name',
    )
    const operator = fc.constantFrom('=', '!=', '<', '>=', 'LIKE', 'ILIKE', 'IN', 'NOT IN', 'IS NULL')
    const value = fc.constantFrom('1.5', '1e400', '-3', '99999999999999999999', "'%_[*?\\'", "''", "('a', '%')", '', "'\0'", "'\ud800'")
    await fc.assert(
      fc.asyncProperty(field, operator, value, fc.option(field), async (field, operator, value, order) => {
        const search = {
          ...everything,
          filter: `${field} ${operator} ${value}`,
          orderBy: order === null || order === 'dataset.name' ? [] : [order],
        }
        const asked = await searchRuns(db, 'default', search).catch(error => error)
        assert.ok(!(asked instanceof Error) || (asked instanceof Failure && asked.code === 'search_invalid'), `${search.filter}: ${asked}`)
      }),
      { numRuns: 400 },
    )
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
