/** Whatever is sent to whatever route of MLflow's API: the answer is never a broken server, and a refusal always has its word and a message. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import { createRunLog } from '../../src/track/log.ts'
import { mlflowRoutes } from '../../src/track/mlflow/routes.ts'
import { databases } from '../db/databases.ts'
import { type MlflowApi, mlflowApi } from './server.ts'

const times = process.env['PLINTH_TEST'] === 'long' ? 100_000 : 1200

/** What routes read; others are ignored. */
const names = [
  ...[
    'experiment_id',
    'experiment_ids',
    'experiment_name',
    'name',
    'new_name',
    'artifact_location',
    'tags',
    'key',
    'value',
    'filter',
    'order_by',
    'max_results',
  ],
  ...[
    'page_token',
    'view_type',
    'run_view_type',
    'run_id',
    'run_uuid',
    'run_ids',
    'run_name',
    'user_id',
    'start_time',
    'end_time',
    'status',
    'metrics',
    'params',
  ],
  ...[
    'timestamp',
    'step',
    'model_id',
    'dataset_name',
    'dataset_digest',
    'metric_key',
    'start_step',
    'end_step',
    'datasets',
    'dataset',
    'digest',
    'source_type',
  ],
  ...[
    'source',
    'schema',
    'profile',
    'models',
    'model_json',
    'model_type',
    'source_run_id',
    'path',
    'artifact_directory_path',
    'artifact_file_path',
    'alias',
    'version',
  ],
  ...['stage', 'stages', 'description', 'archive_existing_versions', 'field_name', 'ascending', 'num_parts', 'runId', 'maxResults'],
]

for (const database of databases())
  describe(database.kind, { skip: database.missing ?? false }, () => {
    let api: MlflowApi
    let known: string[]
    before(async () => {
      api = await mlflowApi(await database.open())
      const { run, experiment } = await api.run()
      const { model } = await api.post('logged-models', { experiment_id: experiment, name: 'm', source_run_id: run })
      await api.post('registered-models/create', { name: 'registered' })
      await api.post('model-versions/create', {
        name: 'registered',
        source: `models:/${model.info.model_id}`,
        model_id: model.info.model_id,
      })
      known = [run, experiment, model.info.model_id, 'registered', '0', '1', 'Default', `models:/${model.info.model_id}`, `runs:/${run}/m`]
    })
    after(() => api.close())

    test('any message to any route is answered or refused', { timeout: 3_600_000 }, async () => {
      const routes = mlflowRoutes({ db: api.db, log: createRunLog(api.db), objects: api.objects, models: api.objects, home: '' }).filter(
        ({ path }) => !path.startsWith('/ajax-api'),
      )
      const words = [
        ...known,
        'a',
        '',
        'x\0y',
        '\ud800',
        '__proto__',
        'constructor',
        '../x',
        '9'.repeat(30),
        'x'.repeat(9000),
        '-1',
        '1e999',
        'NaN',
        "it's",
        'FINISHED',
        'READY',
        'Production',
        'metrics.m > 1',
        "name = 'a'",
        "tags.a LIKE '%[*?'",
        'metrics.m DESC',
        'models:/registered/1',
        's3://a/b',
        'e30=',
      ]
      const word = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...words) }, fc.string({ unit: 'binary', maxLength: 20 }))
      const plain = fc.oneof(
        word,
        fc.integer(),
        fc.double(),
        fc.maxSafeInteger(),
        fc.boolean(),
        fc.constant(null),
        fc.constantFrom(2 ** 63, -(2 ** 63), 1e308, -0, 2 ** 53),
      )
      const { message } = fc.letrec<{ message: object; value: unknown }>(tie => ({
        message: fc.dictionary(fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...names) }, fc.string({ maxLength: 5 })), tie('value'), {
          maxKeys: 9,
        }),
        value: fc.oneof(
          { maxDepth: 3, withCrossShrink: true },
          { weight: 5, arbitrary: plain },
          fc.array(tie('message'), { maxLength: 3 }),
          fc.array(plain, { maxLength: 3 }),
          tie('message'),
        ),
      }))
      const body = fc.oneof(
        { weight: 12, arbitrary: message.map(each => JSON.stringify(each)) },
        { weight: 1, arbitrary: fc.string() },
        { weight: 1, arbitrary: message.map(each => JSON.stringify(JSON.stringify(each))) },
        fc.json(),
      )
      const asked = fc.record({
        route: fc.constantFrom(...routes),
        body,
        query: message,
        segment: word,
        type: fc.constantFrom('application/json', 'application/json', 'application/json', 'text/plain', 'application/x-protobuf', ''),
      })
      let answered = 0
      await fc.assert(
        fc.asyncProperty(asked, async ({ route, body, query, segment, type }) => {
          const { method } = route
          const path = route.path.replace(/:\w+|\*/g, encodeURIComponent(segment.toWellFormed()) || 'x')
          const search = new URLSearchParams(
            Object.entries(query).flatMap(([name, value]) =>
              [value].flat().map((each): [string, string] => [name, String(typeof each === 'object' ? JSON.stringify(each) : each)]),
            ),
          )
          const reads = method === 'GET'
          const answer = await api.ask(
            method,
            reads ? `${path}?${search}` : path,
            reads ? {} : { text: body, headers: type ? { 'content-type': type } : {} },
          )
          if (answer.status === 200) answered++
          else {
            assert.ok(
              answer.status >= 400 && (answer.status < 500 || answer.status === 501),
              `${answer.status} ${JSON.stringify(answer.body)}`,
            )
            assert.equal(typeof answer.body.error_code, 'string', JSON.stringify(answer.body))
            assert.equal(typeof answer.body.message, 'string')
            assert.ok(!/sqlite|SQLITE|select |postgres|\/tmp\//.test(answer.body.message), answer.body.message)
          }
        }),
        { numRuns: times, endOnFailure: process.env['PLINTH_TEST'] === 'long' },
      )
      assert.ok(answered > times / 50, `only ${answered} of ${times} were understood`)
      // and all that was said is still readable
      await api.post('experiments/search', { max_results: 1000, view_type: 'ALL' })
      await api.post('runs/search', { experiment_ids: ['0', known[1]], run_view_type: 'ALL' })
    })
  })
