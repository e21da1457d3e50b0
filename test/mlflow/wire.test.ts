/** What MLflow's server takes, answers and refuses, field by field (its REST documentation, and what 3.17 was seen to do), on both databases. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { databases } from '../db/databases.ts'
import { type Asked, type MlflowApi, mlflowApi } from './server.ts'

for (const database of databases())
  describe(database.kind, { skip: database.missing ?? false }, () => {
    let api: MlflowApi
    before(async () => {
      api = await mlflowApi(await database.open())
    })
    after(() => api.close())

    const refused = async (
      path: string,
      body: unknown,
      message: RegExp,
      expected: { status?: number; code?: string; method?: string; asked?: Asked } = {},
    ) => {
      const { status = 400, code = 'INVALID_PARAMETER_VALUE', method = 'POST', asked } = expected
      const answer = await api.ask(method, path, method === 'GET' ? asked : { body, ...asked })
      assert.deepEqual([answer.status, answer.body.error_code], [status, code], `${path}: ${JSON.stringify(answer.body)}`)
      assert.match(answer.body.message, message)
    }
    const point = (key: string, value: unknown, timestamp: unknown = 1, step: unknown = 0) => ({ key, value, timestamp, step })
    const history = async (run: string, key: string) =>
      (await api.get('metrics/get-history', { run_id: run, metric_key: key })).metrics ?? []

    // ── the wire ──

    test('a run is answered with every field where clients look for it', async () => {
      const { experiment } = await api.run()
      const { run } = await api.post('runs/create', {
        experiment_id: experiment,
        start_time: 1700000000000,
        user_id: 'ada',
        run_name: 'first',
        tags: [{ key: 'mlflow.source.name', value: 'train.py' }],
      })
      const id = run.info.run_id
      assert.match(id, /^[0-9a-f]{32}$/)
      assert.deepEqual(run, {
        info: {
          run_id: id,
          run_uuid: id,
          run_name: 'first',
          experiment_id: experiment,
          user_id: 'ada',
          status: 'RUNNING',
          start_time: 1700000000000,
          artifact_uri: `mlflow-artifacts:/${experiment}/${id}/artifacts`,
          lifecycle_stage: 'active',
        },
        data: { tags: run.data.tags },
        inputs: {},
      })
      assert.deepEqual(
        run.data.tags.toSorted((a: { key: string }, b: { key: string }) => (a.key < b.key ? -1 : 1)),
        [
          { key: 'mlflow.runName', value: 'first' },
          { key: 'mlflow.source.name', value: 'train.py' },
        ],
      )
      const read = await api.get('runs/get', { run_id: id })
      assert.deepEqual([read.run.outputs, read.run.inputs], [{}, {}])
    })

    test('nothing found is an empty object, and an empty text or a zero is there', async () => {
      const { run } = await api.run()
      assert.deepEqual(await api.post('runs/search', { experiment_ids: ['999'] }), {})
      assert.deepEqual(await api.get('metrics/get-history', { run_id: run, metric_key: 'none' }), {})
      assert.deepEqual(await api.get('registered-models/search'), {})
      await api.post('runs/log-batch', {
        run_id: run,
        metrics: [point('zero', 0)],
        params: [{ key: 'empty', value: '' }, { key: 'unset' }],
      })
      const { data } = (await api.get('runs/get', { run_id: run })).run
      assert.deepEqual(data.metrics, [{ key: 'zero', value: 0, timestamp: 1, step: 0 }])
      assert.deepEqual(data.params, [
        { key: 'empty', value: '' },
        { key: 'unset', value: '' },
      ])
    })

    test('doubles come as numbers and as text, NaN leaves as text, infinities as the largest double', async () => {
      const { run } = await api.run()
      const largest = Number.MAX_VALUE
      const sent = [1, '1.5', '1e3', 'NaN', 'Infinity', '-Infinity', '-2']
      for (const [step, value] of sent.entries()) await api.post('runs/log-metric', { run_id: run, ...point('m', value, 1, step) })
      await api.ask('POST', 'runs/log-metric', { text: `{"run_id":"${run}","key":"m","value":1e999,"timestamp":1,"step":7}` })
      const values = (await history(run, 'm')).map(({ value }: { value: unknown }) => value)
      assert.deepEqual(values, [1, 1.5, 1000, 'NaN', largest, -largest, -2, largest])
      for (const value of ['', 'one', [1], {}, true, 'nan'])
        await refused(
          'runs/log-metric',
          { run_id: run, ...point('m', value) },
          /^(Invalid value .* for parameter 'value' supplied: |Missing value)/,
        )
    })

    test('whole numbers come as numbers and as text, and leave as numbers; none is rounded', async () => {
      const { run } = await api.run()
      await api.post('runs/log-metric', { run_id: run, ...point('m', 1, '1700000000000', '-3') })
      assert.deepEqual(await history(run, 'm'), [{ key: 'm', value: 1, timestamp: 1700000000000, step: -3 }])
      await refused(
        'runs/log-metric',
        { run_id: run, ...point('m', 1, 1, '9223372036854775807') },
        /^Invalid value .* for parameter 'step'/,
      )
      await refused(
        'runs/log-metric',
        { run_id: run, ...point('m', 1, 1, 1.5) },
        /^Invalid value 1.5 for parameter 'step' supplied: Hint: Value was of type 'float'/,
      )
    })

    test('names may be written in snake_case or camelCase, not both; null and unknown fields are nothing', async () => {
      const { run, experiment } = await api.run()
      await api.post('runs/log-parameter', { runId: run, key: 'a', value: '1', unknown: { deep: [1] }, run_uuid: null })
      assert.deepEqual((await api.post('runs/search', { experimentIds: [experiment], maxResults: 1 })).runs[0].data.params, [
        { key: 'a', value: '1' },
      ])
      await refused('runs/log-parameter', { runId: run, run_id: run, key: 'a', value: '1' }, /^Request specifies both 'run_id' and 'runId'/)
    })

    test('run_uuid is as good as run_id', async () => {
      const { run } = await api.run()
      await api.post('runs/set-tag', { run_uuid: run, key: 'a', value: '1' })
      assert.equal((await api.get('runs/get', { run_uuid: run })).run.info.run_id, run)
      assert.equal((await api.get('runs/get', { run_uuid: run, run_id: run })).run.info.run_id, run)
    })

    test('an old client encodes its body twice, and a body of R has only texts in it', async () => {
      const { run, experiment } = await api.run()
      const twice = JSON.stringify(JSON.stringify({ run_id: run, key: 'a', value: '1' }))
      assert.equal((await api.ask('POST', 'runs/log-parameter', { text: twice })).status, 200)
      await api.post('runs/log-metric', { run_id: run, key: 'm', value: '1.5', timestamp: '5', step: '0' })
      const { runs } = await api.post('runs/search', { experiment_ids: [experiment], max_results: '10' })
      assert.deepEqual(
        [runs[0].data.params, runs[0].data.metrics],
        [[{ key: 'a', value: '1' }], [{ key: 'm', value: 1.5, timestamp: 5, step: 0 }]],
      )
    })

    test('enumerations are words or their numbers', async () => {
      const { run, experiment } = await api.run()
      for (const [sent, shown] of [
        [4, 'FAILED'],
        ['FINISHED', 'FINISHED'],
        ['5', 'KILLED'],
        ['SCHEDULED', 'SCHEDULED'],
        [1, 'RUNNING'],
      ])
        assert.equal((await api.post('runs/update', { run_id: run, status: sent })).run_info.status, shown)
      await refused('runs/update', { run_id: run, status: 'DONE' }, /^Invalid value "DONE" for parameter 'status' supplied/)
      await api.post('runs/delete', { run_id: run })
      for (const view of [2, 'DELETED_ONLY', 'ALL', '3'])
        assert.equal((await api.post('runs/search', { experiment_ids: [experiment], run_view_type: view })).runs.length, 1)
      assert.deepEqual(await api.post('runs/search', { experiment_ids: [experiment], run_view_type: 'ACTIVE_ONLY' }), {})
    })

    test('a body that is empty or cannot be read is an empty message, and what is missing is named', async () => {
      for (const text of ['', '{', '[]', 'null', '5', '"', '"5"', '"["', '['.repeat(100_000)])
        await refused('runs/log-batch', undefined, /^Missing value for required parameter 'run_id'/, { asked: { text, body: undefined } })
      const { run } = await api.run()
      const { message } = (await api.ask('POST', 'runs/log-batch', { body: { run_id: run, metrics: [{ key: 'a', value: 1 }] } })).body
      assert.equal(
        message,
        "Missing value for required parameter 'metrics[0].timestamp'. See the API docs for more information about request parameters.",
      )
      await refused(
        'runs/log-batch',
        { run_id: run, metrics: [point('a', 1), { key: 'a', timestamp: 1 }] },
        /parameter 'metrics\[1\]\.value'/,
      )
      await refused('runs/log-batch', { run_id: run, params: [{ value: '1' }] }, /parameter 'params\[0\]\.key'/)
      await refused(
        'runs/log-inputs',
        { run_id: run, datasets: [{ dataset: { name: 'a' } }] },
        /parameter 'datasets\[0\]\.dataset\.digest'/,
      )
      await refused(
        'experiments/create',
        { name: 5 },
        /^Invalid value 5 for parameter 'name' supplied: Hint: Value was of type 'int'\. See the API docs/,
      )
      await refused(
        'experiments/create',
        { name: 'x', tags: 'a' },
        /^Invalid value "a" for parameter 'tags' supplied: Hint: Value was of type 'str'/,
      )
    })

    test('a body has to say that it is JSON', async () => {
      for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp'])
        await refused('experiments/create', { name: 'x' }, /Content-Type must be one of \['application\/json'\]/, {
          asked: { headers: { 'content-type': type } },
        })
      for (const [i, type] of ['application/json; charset=utf-8', 'application/json;charset=UTF-8', 'Application/JSON'].entries())
        assert.equal(
          (await api.ask('POST', 'experiments/create', { body: { name: `typed ${i}` }, headers: { 'content-type': type } })).status,
          200,
        )
    })

    test('texts that no database keeps are refused or mended, never a broken server', async () => {
      const { run } = await api.run()
      await refused('runs/set-tag', { run_id: run, key: 'a', value: 'x\0y' }, /NUL/)
      await api.post('runs/set-tag', { run_id: run, key: 'half', value: 'x\ud800y' })
      await api.post('runs/set-tag', { run_id: run, key: '__proto__', value: 'own' })
      await api.post('runs/log-batch', {
        run_id: run,
        params: [
          { key: '__proto__', value: 'p' },
          { key: 'constructor', value: 'c' },
        ],
      })
      const { data } = (await api.get('runs/get', { run_id: run })).run
      const tags = Object.fromEntries(data.tags.map(({ key, value }: Record<string, string>) => [`=${key}`, value]))
      assert.deepEqual([tags['=half'], tags['=__proto__']], ['x\ufffdy', 'own'])
      assert.deepEqual(data.params.map(({ key, value }: Record<string, string>) => `${key}=${value}`).toSorted(), [
        '__proto__=p',
        'constructor=c',
      ])
    })

    // ── limits ──

    test('names of metrics, params and tags look like relative paths of letters, digits, _ . - : / and spaces', async () => {
      const { run } = await api.run()
      for (const key of ['a/b', 'a b', 'a:b', 'a.b', 'ä-ß_9', '損失', 'a'.repeat(250)]) {
        await api.post('runs/log-batch', {
          run_id: run,
          metrics: [point(key, 1)],
          params: [{ key, value: '1' }],
          tags: [{ key, value: '1' }],
        })
        assert.equal((await history(run, key)).length, 1, key)
      }
      for (const key of ['a\nb', 'a*b', 'a,b', '../a', '/a', 'a//b', 'a/', '.', '..', '...', './a', 'a/../b', '🙂'])
        for (const body of [{ metrics: [point(key, 1)] }, { params: [{ key, value: '' }] }, { tags: [{ key, value: '' }] }])
          await refused(
            'runs/log-batch',
            { run_id: run, ...body },
            /^Invalid value ".*" for parameter '(metrics|params|tags)\[0\]\.key' supplied: Names may/,
          )
      await refused('runs/log-metric', { run_id: run, ...point('a'.repeat(251), 1) }, /exceeds the maximum length of 250 characters/)
    })

    test('long values of params and tags are cut by characters, those of experiments and models are refused', async () => {
      const { run, experiment } = await api.run()
      const long = '🙂'.repeat(9000)
      await api.post('runs/log-batch', { run_id: run, params: [{ key: 'p', value: long }], tags: [{ key: 't', value: long }] })
      const { data } = (await api.get('runs/get', { run_id: run })).run
      assert.equal([...data.params[0].value].length, 6000)
      assert.equal([...data.tags.find(({ key }: { key: string }) => key === 't').value].length, 8000)
      // the same long value again is no change
      await api.post('runs/log-parameter', { run_id: run, key: 'p', value: long })
      await refused(
        'experiments/set-experiment-tag',
        { experiment_id: experiment, key: 'a', value: 'x'.repeat(20_001) },
        /'value' exceeds the maximum length of 20000/,
      )
      await api.post('registered-models/create', { name: 'limits' })
      await refused(
        'registered-models/set-tag',
        { name: 'limits', key: 'a', value: 'x'.repeat(100_001) },
        /exceeds the maximum length of 100000/,
      )
      await refused('experiments/create', { name: 'x'.repeat(501) }, /'name' exceeds the maximum length of 500/)
      const dataset = { name: 'd', digest: 'x'.repeat(37), source_type: 'local', source: '{}' }
      await refused('runs/log-inputs', { run_id: run, datasets: [{ dataset }] }, /'digest' exceeds the maximum length of 36/)
    })

    test('a batch has its limits, and each param once', async () => {
      const { run } = await api.run()
      const metrics = Array.from({ length: 1001 }, (_, i) => point('m', i, 1, i))
      const pairs = (n: number) => Array.from({ length: n }, (_, i) => ({ key: `k${i}`, value: '' }))
      await refused('runs/log-batch', { run_id: run, metrics }, /^A batch logging request can contain at most 1000 metrics\. Got 1001/)
      await refused('runs/log-batch', { run_id: run, params: pairs(101) }, /at most 100 params/)
      await refused('runs/log-batch', { run_id: run, tags: pairs(101) }, /at most 100 tags/)
      await refused(
        'runs/log-batch',
        { run_id: run, metrics: metrics.slice(0, 901), params: pairs(100) },
        /at most 1000 metrics, params, and tags/,
      )
      await refused(
        'runs/log-batch',
        {
          run_id: run,
          params: [
            { key: 'a', value: '1' },
            { key: 'a', value: '1' },
          ],
        },
        /^Duplicate parameter keys have been submitted: \['a'\]/,
      )
      assert.deepEqual(await api.post('runs/log-batch', { run_id: run, metrics: metrics.slice(0, 900), params: pairs(100) }), {})
    })

    // ── runs ──

    test('a param keeps its value: the same again is nothing, another one is refused in the words clients know', async () => {
      const { run } = await api.run()
      for (let i = 0; i < 2; i++) await api.post('runs/log-parameter', { run_id: run, key: 'depth', value: '3' })
      await refused(
        'runs/log-parameter',
        { run_id: run, key: 'depth', value: '5' },
        new RegExp(
          `^Changing param values is not allowed\\. Param with key='depth' was already logged with value='3' for run ID='${run}'\\. Attempted logging new value '5'`,
        ),
      )
      await refused(
        'runs/log-batch',
        {
          run_id: run,
          params: [
            { key: 'new', value: '1' },
            { key: 'depth', value: '5' },
          ],
          metrics: [point('m', 1)],
        },
        /^Changing param values is not allowed\. Params were already logged='\[\{'key': 'depth', 'old_value': '3', 'new_value': '5'\}\]' for run ID/,
      )
      const { data } = (await api.get('runs/get', { run_id: run })).run
      assert.deepEqual([data.params, data.metrics], [[{ key: 'depth', value: '3' }], undefined], 'nothing of the refused batch was kept')
    })

    test('a point sent again is one point, another value at the same place is a second, and the latest is the greatest', async () => {
      const { run } = await api.run()
      const send = (...points: object[]) => api.post('runs/log-batch', { run_id: run, metrics: points })
      await send(point('m', 5, 10, 3), point('m', 1, 30, 1))
      await send(point('m', 5, 10, 3), point('m', 6, 10, 3), point('m', 2, 20, 2))
      assert.deepEqual(
        (await history(run, 'm')).map(({ value, timestamp, step }: Record<string, number>) => [timestamp, step, value]),
        [
          [10, 3, 5],
          [10, 3, 6],
          [20, 2, 2],
          [30, 1, 1],
        ],
      )
      assert.deepEqual((await api.get('runs/get', { run_id: run })).run.data.metrics, [{ key: 'm', value: 6, timestamp: 10, step: 3 }])
      await refused('runs/log-metric', { run_id: run, ...point('m', 1, -1) }, /^Invalid value -1 for parameter 'timestamp'.*nonnegative/)
      await api.post('runs/log-metric', { run_id: run, key: 'nostep', value: 1, timestamp: 1 })
      assert.equal((await history(run, 'nostep'))[0].step, 0)
    })

    test('a history comes whole or in pages that hold every point once', async () => {
      const { run } = await api.run()
      const sent = Array.from({ length: 25 }, (_, i) => point('m', i % 3 === 0 ? 'NaN' : i, 1000 - (i % 5), i))
      await api.post('runs/log-batch', { run_id: run, metrics: sent })
      const whole = await history(run, 'm')
      assert.equal(whole.length, 25)
      const paged: object[] = []
      let token: string | undefined
      for (let pages = 0; ; pages++) {
        const page = await api.get('metrics/get-history', {
          run_id: run,
          metric_key: 'm',
          max_results: '5',
          ...(token && { page_token: token }),
        })
        paged.push(...page.metrics)
        token = page.next_page_token
        if (!token) {
          assert.equal(pages, 4, 'a full last page has no token')
          break
        }
        if (pages === 1) await api.post('runs/log-batch', { run_id: run, metrics: [point('m', -1, 0, 99)] }) // before all that is to come
      }
      assert.deepEqual(paged, whole)
      for (const query of [
        { max_results: '0' },
        { max_results: '-1' },
        { page_token: 'xyz' },
        { page_token: Buffer.from('{"offset":3}').toString('base64') },
      ])
        await refused(`metrics/get-history?${new URLSearchParams({ run_id: run, metric_key: 'm', ...(query as object) })}`, null, /./, {
          method: 'GET',
        })
      await refused(`metrics/get-history?run_id=${'0'.repeat(32)}&metric_key=m`, null, /./, {
        method: 'GET',
        status: 404,
        code: 'RESOURCE_DOES_NOT_EXIST',
      })
    })

    test('histories of many runs come in bulk, or thinned out with their first and last points', async () => {
      const runs = [await api.run(), await api.run()].map(({ run }) => run).toSorted() as [string, string]
      for (const run of runs)
        await api.post('runs/log-batch', {
          run_id: run,
          metrics: Array.from({ length: 500 }, (_, i) => point('m', i === 499 ? 'NaN' : i, i, i)),
        })
      const bulk = await api.get(
        'metrics/get-history-bulk',
        { run_id: [...runs].toReversed(), metric_key: 'm', max_results: '600' },
        { prefix: 'ajax-api' },
      )
      assert.equal(bulk.metrics.length, 600)
      assert.deepEqual(
        [bulk.metrics[0], bulk.metrics[500]],
        [
          { ...point('m', 0, 0), run_id: runs[0] },
          { ...point('m', 0, 0), run_id: runs[1] },
        ],
      )
      assert.equal(bulk.metrics[499].value, 'NaN')
      const { metrics } = await api.get('metrics/get-history-bulk-interval', { run_ids: runs, metric_key: 'm', max_results: '10' })
      for (const run of runs) {
        const steps = metrics.filter((each: { run_id: string }) => each.run_id === run).map(({ step }: { step: number }) => step)
        assert.equal(steps.length, 10)
        assert.deepEqual([steps[0], steps.at(-1)], [0, 499])
        assert.deepEqual(
          steps,
          steps.toSorted((a: number, b: number) => a - b),
        )
      }
      const part = await api.get('metrics/get-history-bulk-interval', {
        run_ids: [runs[0]],
        metric_key: 'm',
        start_step: '100',
        end_step: '102',
      })
      assert.deepEqual(
        part.metrics.map(({ step }: { step: number }) => step),
        [100, 101, 102],
      )
      assert.deepEqual(await api.get('metrics/get-history-bulk', { run_id: runs[0], metric_key: 'none' }), { metrics: [] })
      for (const query of [
        'run_ids=a',
        'metric_key=m',
        `run_ids=${runs[0]}&metric_key=m&max_results=2501`,
        `run_ids=${runs[0]}&metric_key=m&start_step=1`,
        `run_ids=${runs[0]}&metric_key=m&start_step=2&end_step=1`,
      ])
        await refused(`metrics/get-history-bulk-interval?${query}`, null, /./, { method: 'GET' })
      await refused(
        `metrics/get-history-bulk?metric_key=m&${Array.from({ length: 101 }, () => `run_id=${runs[0]}`).join('&')}`,
        null,
        /at most 100/,
        { method: 'GET' },
      )
    })

    test('the name of a run and its tag are one, wherever it is set', async () => {
      const { experiment } = await api.run()
      const named = async (run: string) => {
        const { info, data } = (await api.get('runs/get', { run_id: run })).run
        const tag = data.tags.find(({ key }: { key: string }) => key === 'mlflow.runName')?.value
        assert.equal(tag, info.run_name)
        return tag
      }
      const create = async (body: object) => (await api.post('runs/create', { experiment_id: experiment, ...body })).run.info.run_id
      assert.match(await named(await create({})), /^[a-z]+-[a-z]+-\d+$/)
      const run = await create({ tags: [{ key: 'mlflow.runName', value: 'one' }] })
      assert.equal(await named(run), 'one')
      await api.post('runs/set-tag', { run_id: run, key: 'mlflow.runName', value: 'two' })
      assert.equal(await named(run), 'two')
      await api.post('runs/update', { run_id: run, run_name: 'three' })
      assert.equal(await named(run), 'three')
      await api.post('runs/log-batch', { run_id: run, tags: [{ key: 'mlflow.runName', value: 'four' }] })
      assert.equal(await named(run), 'four')
      await refused('runs/create', { experiment_id: experiment, run_name: 'a', tags: [{ key: 'mlflow.runName', value: 'b' }] }, /./)
    })

    test('a deleted run is read but not written, and comes back; both twice are nothing', async () => {
      const { run } = await api.run()
      await api.post('runs/set-tag', { run_id: run, key: 't', value: '1' })
      for (let i = 0; i < 2; i++) await api.post('runs/delete', { run_id: run })
      assert.equal((await api.get('runs/get', { run_id: run })).run.info.lifecycle_stage, 'deleted')
      for (const [path, body] of [
        ['runs/log-metric', point('m', 1)],
        ['runs/log-parameter', { key: 'a', value: '1' }],
        ['runs/set-tag', { key: 'a', value: '1' }],
        ['runs/delete-tag', { key: 't' }],
        ['runs/update', { status: 'FINISHED' }],
        ['runs/log-batch', { metrics: [point('m', 1)] }],
        ['runs/log-inputs', { datasets: [] }],
        ['runs/outputs', { models: [] }],
      ] as const)
        await refused(path, { run_id: run, ...body }, /must be in the 'active' state|active/)
      for (let i = 0; i < 2; i++) await api.post('runs/restore', { run_id: run })
      await api.post('runs/log-metric', { run_id: run, ...point('m', 1) })
      await api.post('runs/delete-tag', { run_id: run, key: 't' })
      await refused('runs/delete-tag', { run_id: run, key: 't' }, /./, { status: 404, code: 'RESOURCE_DOES_NOT_EXIST' })
      await refused('runs/set-tag', { run_id: '0'.repeat(32), key: 't', value: '' }, /./, { status: 404, code: 'RESOURCE_DOES_NOT_EXIST' })
    })

    test('inputs and outputs of a run are kept once each, and found in it', async () => {
      const { run, experiment } = await api.run()
      const dataset = { name: 'birds', digest: 'abc', source_type: 'local', source: '{"uri":"birds.csv"}', schema: '{}' }
      const tags = [{ key: 'mlflow.data.context', value: 'train' }]
      for (let i = 0; i < 2; i++) await api.post('runs/log-inputs', { run_id: run, datasets: [{ dataset, tags }] })
      const { model } = await api.post('logged-models', { experiment_id: experiment, name: 'net', source_run_id: run })
      await api.post('runs/outputs', { run_id: run, models: [{ model_id: model.info.model_id, step: 7 }] })
      await api.post('runs/log-inputs', { run_id: run, models: [{ model_id: model.info.model_id }] })
      const read = (await api.get('runs/get', { run_id: run })).run
      assert.deepEqual(read.inputs, { dataset_inputs: [{ tags, dataset }], model_inputs: [{ model_id: model.info.model_id }] })
      assert.deepEqual(read.outputs, { model_outputs: [{ model_id: model.info.model_id, step: 7 }] })
      assert.deepEqual(await api.post('experiments/search-datasets', { experiment_ids: [experiment] }, { prefix: 'ajax-api' }), {
        dataset_summaries: [{ experiment_id: experiment, name: 'birds', digest: 'abc', context: 'train' }],
      })
      assert.equal((await api.post('runs/search', { experiment_ids: [experiment], filter: "datasets.name = 'birds'" })).runs.length, 1)
    })

    // ── experiments ──

    test('an experiment has a name of its own, also when it is deleted, and takes its runs with it and back', async () => {
      const { run, experiment } = await api.run()
      const { name, artifact_location } = (await api.get('experiments/get', { experiment_id: experiment })).experiment
      assert.equal(artifact_location, `mlflow-artifacts:/${experiment}`)
      const exists = { code: 'RESOURCE_ALREADY_EXISTS' }
      await refused('experiments/create', { name }, /^Experiment\(name=.*\) already exists\./, exists)
      await api.post('experiments/delete', { experiment_id: experiment })
      await refused('experiments/delete', { experiment_id: experiment }, /./, { status: 404, code: 'RESOURCE_DOES_NOT_EXIST' })
      await refused('experiments/create', { name }, /already exists/, exists)
      assert.equal((await api.get('experiments/get-by-name', { experiment_name: name })).experiment.lifecycle_stage, 'deleted')
      assert.equal((await api.get('runs/get', { run_id: run })).run.info.lifecycle_stage, 'deleted')
      for (const [path, body] of [
        ['experiments/update', { new_name: 'x' }],
        ['experiments/set-experiment-tag', { key: 'a', value: '' }],
        ['runs/create', {}],
        ['logged-models', { name: 'm' }],
      ] as const)
        await refused(path, { experiment_id: experiment, ...body }, /active/)
      await api.post('experiments/restore', { experiment_id: experiment })
      assert.equal((await api.get('runs/get', { run_id: run })).run.info.lifecycle_stage, 'active')
      await refused('experiments/update', { experiment_id: experiment, new_name: 'Default' }, /already exists/, exists)
      for (const id of ['abc', '-1', '1.5', '99999999999999999999'])
        await refused(`experiments/get?experiment_id=${id}`, null, /^Invalid experiment ID/, { method: 'GET' })
      await refused('experiments/get?experiment_id=999999', null, /./, { method: 'GET', status: 404, code: 'RESOURCE_DOES_NOT_EXIST' })
      await refused('experiments/search', {}, /max_results.*positive integer/)
    })

    test('experiment 0 is there, and runs fall into it', async () => {
      assert.equal((await api.get('experiments/get', { experiment_id: '0' })).experiment.name, 'Default')
      assert.equal((await api.post('runs/create', {})).run.info.experiment_id, '0')
    })

    test('a place of the client is kept as text; one on this server is the own folder of the experiment', async () => {
      const located = async (artifact_location: string) => {
        const { experiment_id } = await api.post('experiments/create', { name: crypto.randomUUID(), artifact_location })
        const { run } = await api.post('runs/create', { experiment_id })
        return { experiment_id, location: run.info.artifact_uri.replace(`/${run.info.run_id}/artifacts`, ''), run: run.info.run_id }
      }
      const s3 = await located('s3://bucket/folder/')
      assert.equal(s3.location, 's3://bucket/folder')
      await refused(`artifacts/list?run_id=${s3.run}`, null, /s3:\/\/bucket\/folder.*never opens/, { method: 'GET' })
      await refused(`/get-artifact?run_id=${s3.run}&path=x`, null, /never opens/, { method: 'GET' })
      const local = await located('file:///etc')
      for (const path of [`artifacts/list?run_id=${local.run}`, `/get-artifact?run_id=${local.run}&path=passwd`])
        await refused(path, null, /never opens/, { method: 'GET' })
      const own = await located('mlflow-artifacts:/0')
      assert.equal(own.location, `mlflow-artifacts:/${own.experiment_id}`)
      for (const artifact_location of ['file:///a/../../etc', 's3://b/%2e%2e/x', 's3://b/x#y'])
        await refused('experiments/create', { name: 'bad', artifact_location }, /./)
    })

    test('experiments are paged by tokens that belong to their question', async () => {
      const names = await Promise.all(
        ['p1', 'p2', 'p3'].map(async name => (await api.post('experiments/create', { name: `${name} paged` })).experiment_id),
      )
      const search = (more: object) =>
        api.post('experiments/search', { filter: "name LIKE '%paged'", max_results: 2, order_by: ['name'], ...more })
      const first = await search({})
      const second = await search({ page_token: first.next_page_token })
      assert.deepEqual(
        [...first.experiments, ...second.experiments].map(({ experiment_id }) => experiment_id),
        names,
      )
      assert.equal(second.next_page_token, undefined)
      assert.equal((await search({ max_results: 3 })).next_page_token, undefined, 'a full last page')
      await refused('experiments/search', { filter: "name LIKE 'x%'", max_results: 2, page_token: first.next_page_token }, /page token/)
      for (const page_token of ['x', '===', Buffer.from('{"offset":2}').toString('base64')])
        await refused('runs/search', { experiment_ids: ['0'], page_token }, /page token/)
      await search({ page_token: '' })
      await refused('runs/search', { experiment_ids: ['0'], max_results: 50_001 }, /max_results/)
      await refused('runs/search', { experiment_ids: ['0'], order_by: ['metrics.m', 'metrics.m'] }, /./)
    })

    // ── logged models ──

    test('a logged model is pending until it is said to be ready, and carries params, tags and metrics of its own', async () => {
      const { run, experiment } = await api.run()
      const created = await api.post('logged-models', {
        experiment_id: experiment,
        name: 'net',
        model_type: 'sklearn',
        source_run_id: run,
        params: [{ key: 'a', value: '1' }],
        tags: [{ key: 't', value: 'x' }],
      })
      const { model_id: id } = created.model.info
      assert.match(id, /^m-[0-9a-f]{32}$/)
      assert.deepEqual(
        [created.model.info.status, created.model.info.artifact_uri],
        ['LOGGED_MODEL_PENDING', `mlflow-artifacts:/${experiment}/models/${id}/artifacts`],
      )
      assert.equal((await api.ask('PATCH', `logged-models/${id}`, { body: { status: 2 } })).body.model.info.status, 'LOGGED_MODEL_READY')
      assert.equal(
        (await api.ask('PATCH', `logged-models/${id}`, { body: { model_id: id, status: 'LOGGED_MODEL_UPLOAD_FAILED' } })).body.model.info
          .status,
        'LOGGED_MODEL_UPLOAD_FAILED',
      )
      await refused(`logged-models/${id}`, { status: 'X' }, /^Invalid value "X" for parameter 'status'/, { method: 'PATCH' })
      await api.post('runs/log-batch', {
        run_id: run,
        metrics: [{ ...point('acc', 0.9), model_id: id, dataset_name: 'd', dataset_digest: 'x', run_id: run }],
      })
      const { model } = await api.get(`logged-models/${id}`)
      assert.deepEqual(model.data.metrics, [
        { key: 'acc', value: 0.9, timestamp: 1, step: 0, model_id: id, run_id: run, dataset_name: 'd', dataset_digest: 'x' },
      ])
      await api.ask('PATCH', `logged-models/${id}/tags`, { body: { tags: [{ key: 'a b/c', value: '1' }] } })
      assert.equal((await api.ask('DELETE', `logged-models/${id}/tags/${encodeURIComponent('a b/c')}`)).status, 200)
      const bySearch = (more: object) => api.post('logged-models/search', { experiment_ids: [experiment], ...more })
      assert.equal((await bySearch({ filter: "name = 'net' AND metrics.acc > 0.5", datasets: [{ dataset_name: 'd' }] })).models.length, 1)
      for (const name of ['a/b', 'a:b', 'a.b', 'a%b', 'a"b', "a'b"])
        await refused('logged-models', { experiment_id: experiment, name }, /^Invalid model name/)
      await api.ask('DELETE', `logged-models/${id}`)
      await refused(`logged-models/${id}`, null, /./, { method: 'GET', status: 404, code: 'RESOURCE_DOES_NOT_EXIST' })
      assert.deepEqual(await bySearch({}), {})
    })

    test('clients before 3.0 say what they logged on the run', async () => {
      const { run } = await api.run()
      const info = { artifact_path: 'model', flavors: {}, utc_time_created: 'now', run_id: run }
      const second = { ...info, artifact_path: 'second' }
      // the first is told twice, as after an answer that got lost
      for (const told of [info, second, info]) await api.post('runs/log-model', { run_id: run, model_json: JSON.stringify(told) })
      const { tags } = (await api.get('runs/get', { run_id: run })).run.data
      assert.deepEqual(JSON.parse(tags.find(({ key }: { key: string }) => key === 'mlflow.log-model.history').value), [info, second])
      await refused('runs/log-model', { run_id: run, model_json: '{' }, /^Malformed model info/)
      await refused('runs/log-model', { run_id: run, model_json: '{}' }, /^Model json is missing mandatory fields/)
    })

    // ── registry ──

    const registered = async (name: string) => {
      await api.post('registered-models/create', { name })
      const make = async (more: object = {}) =>
        (await api.post('model-versions/create', { name, source: 's3://bucket/x', ...more })).model_version
      return make
    }

    test('versions count up and are never given again; a deleted one loses its aliases', async () => {
      const make = await registered('counted')
      await refused('registered-models/create', { name: 'counted' }, /^Registered Model \(name=counted\) already exists/, {
        code: 'RESOURCE_ALREADY_EXISTS',
      })
      const first = await make({ description: 'the first', tags: [{ key: 'a', value: '1' }] })
      assert.deepEqual([first.version, first.status, first.current_stage, first.tags], ['1', 'READY', 'None', [{ key: 'a', value: '1' }]])
      await make()
      await api.post('registered-models/alias', { name: 'counted', alias: 'champion', version: '2' })
      assert.equal((await api.get('registered-models/alias', { name: 'counted', alias: 'champion' })).model_version.version, '2')
      assert.deepEqual((await api.get('registered-models/get', { name: 'counted' })).registered_model.aliases, [
        { alias: 'champion', version: '2' },
      ])
      await api.ask('DELETE', 'model-versions/delete', { body: { name: 'counted', version: '2' } })
      await refused('registered-models/alias?name=counted&alias=champion', null, /^Registered model alias champion not found/, {
        method: 'GET',
      })
      await refused('registered-models/alias?name=none&alias=champion', null, /^Registered Model with name=none not found/, {
        method: 'GET',
        status: 404,
        code: 'RESOURCE_DOES_NOT_EXIST',
      })
      await refused('model-versions/get?name=counted&version=2', null, /./, { method: 'GET', status: 404, code: 'RESOURCE_DOES_NOT_EXIST' })
      assert.equal((await make()).version, '3')
      assert.equal((await api.get('registered-models/alias', { name: 'counted', alias: 'latest' })).model_version.version, '3')
      for (const alias of ['latest', 'v1', 'V22', 'a b', 'a/b', 'x'.repeat(256)])
        await refused('registered-models/alias', { name: 'counted', alias, version: '1' }, /./)
      for (const version of ['1.5', 'x', '-1'])
        await refused(`model-versions/get?name=counted&version=${version}`, null, /must be an integer/, { method: 'GET' })
    })

    test('stages are moved between whatever their spelling, and all versions in one are archived when asked', async () => {
      const make = await registered('staged')
      for (let i = 0; i < 4; i++) await make()
      const move = (version: string, stage: string, archive_existing_versions = false) =>
        api.post('model-versions/transition-stage', { name: 'staged', version, stage, archive_existing_versions })
      await move('1', 'production')
      await move('2', 'PRODUCTION')
      assert.equal((await move('3', 'Production', true)).model_version.current_stage, 'Production')
      const { model_versions } = await api.get('model-versions/search', { filter: "name = 'staged'", order_by: ['version_number DESC'] })
      assert.deepEqual(
        model_versions.map(({ version, current_stage }: Record<string, string>) => `${version} ${current_stage}`),
        ['4 None', '3 Production', '2 Archived', '1 Archived'],
      )
      const latest = await api.post('registered-models/get-latest-versions', { name: 'staged', stages: ['Production'] })
      assert.deepEqual(
        latest.model_versions.map(({ version }: { version: string }) => version),
        ['3'],
      )
      const all = await api.get('registered-models/get-latest-versions', { name: 'staged' })
      assert.deepEqual(
        all.model_versions.map(({ version }: { version: string }) => version),
        ['2', '3', '4'],
      )
      await refused('model-versions/transition-stage', { name: 'staged', version: '1', stage: 'Foo' }, /^Invalid Model Version stage: Foo/)
      await refused(
        'model-versions/transition-stage',
        { name: 'staged', version: '1', stage: 'None', archive_existing_versions: true },
        /./,
      )
    })

    test('versions are found by the last change first, as scripts take the first for the one worked on last', async () => {
      const make = await registered('changed')
      for (let i = 0; i < 3; i++) await make()
      await api.db.updateTable('model_versions').set({ updated: 1 }).where('name', '=', 'changed').execute()
      await api.post('model-versions/set-tag', { name: 'changed', version: '2', key: 'a', value: 'b' })
      const order = async (query: object = {}) =>
        (await api.get('model-versions/search', { filter: "name = 'changed'", ...query })).model_versions.map(
          ({ version }: { version: string }) => version,
        )
      assert.deepEqual(await order(), ['2', '3', '1'])
      assert.deepEqual(await order({ order_by: ['version_number ASC'] }), ['1', '2', '3'])
    })

    test('a version keeps the link to a run elsewhere; a source within a run names that run', async () => {
      const { run } = await api.run()
      const make = await registered('linked')
      const link = 'https://other.example.org/#/experiments/1/runs/x'
      assert.equal((await make({ run_link: link })).run_link, link)
      assert.equal((await api.get('model-versions/get', { name: 'linked', version: '1' })).model_version.run_link, link)
      assert.equal((await make()).run_link, undefined)
      assert.equal((await make({ source: `runs:/${run}/model` })).run_id, run)
      const elsewhere = '0'.repeat(32) // the registry may be another server than the one that tracks
      assert.equal((await make({ source: `runs:/${elsewhere}/model`, run_id: elsewhere })).run_id, elsewhere)
      for (const source of ['runs:/x/y', `runs:/${run}`, `runs://host/${run}/model`, `runs:/${elsewhere}/model`])
        assert.match(
          String((await api.ask('POST', 'model-versions/create', { body: { name: 'linked', source } })).status),
          /^40[04]$/,
          source,
        )
    })

    test('a version made from a logged model knows its run and its files, and the model knows the version', async () => {
      const { run, experiment } = await api.run()
      const { model } = await api.post('logged-models', { experiment_id: experiment, name: 'net', source_run_id: run })
      const { model_id } = model.info
      const make = await registered('from logged')
      const version = await make({ source: `models:/${model_id}`, model_id })
      assert.deepEqual([version.run_id, version.model_id], [run, model_id])
      const place = async (name: string, number: string) =>
        (await api.get('model-versions/get-download-uri', { name, version: number })).artifact_uri
      assert.equal(await place('from logged', '1'), model.info.artifact_uri)
      const tag = (await api.get(`logged-models/${model_id}`)).model.info.tags.find(
        ({ key }: { key: string }) => key === 'mlflow.modelVersions',
      )
      assert.deepEqual(JSON.parse(tag.value), [{ name: 'from logged', version: 1 }])
      const copy = await registered('copied')
      assert.equal((await copy({ source: 'models:/from logged/1' })).run_id, run)
      assert.equal(await place('copied', '1'), model.info.artifact_uri)
    })

    test('no source makes the server open a file or an address, and none lies outside of the project', async () => {
      const { run, experiment } = await api.run()
      const foreign = await api.post('experiments/create', { name: 'foreign' }, { project: 'other' })
      const make = await registered('sources')
      for (const source of [
        '/etc/passwd',
        'etc/passwd',
        'file:///etc/passwd',
        'FILE:/etc/passwd',
        'C:\\windows',
        './x',
        '..',
        'dummy-source',
        'models:/nope',
        `models:/m-${'0'.repeat(32)}`,
        'models:/none/1',
        's3://b/../x',
        's3://b/%2e%2e/x',
        's3://b/%252e%252e/x',
        's3://b/x%00',
        `mlflow-artifacts:/${experiment}/../0/x`,
        `mlflow-artifacts:/${experiment}/%2e%2e/x`,
        `mlflow-artifacts:/${foreign.experiment_id}/x`,
        'mlflow-artifacts://host/1/x',
        'mlflow-artifacts:/',
        'mlflow-artifacts:/etc/passwd',
        `runs:/${'0'.repeat(32)}/model`,
      ]) {
        const { status, body } = await api.ask('POST', 'model-versions/create', {
          body: { name: 'sources', source, ...(source.startsWith('runs') && { run_id: run }) },
        })
        assert.ok(status === 400 || status === 404, `${source}: ${status} ${JSON.stringify(body)}`)
      }
      for (const source of [
        's3://bucket/x',
        'https://example.org/x',
        'dbfs:/x',
        `runs:/${run}/model`,
        `mlflow-artifacts:/${experiment}/${run}/artifacts/model`,
      ])
        assert.equal((await make({ source, run_id: run })).source, source)
    })

    test('prompts are registered models that are found only when they are asked for', async () => {
      const prompt = [{ key: 'mlflow.prompt.is_prompt', value: 'true' }]
      await api.post('registered-models/create', { name: 'greeting', tags: prompt })
      await api.post('registered-models/create', { name: 'no prompt', tags: [{ key: 'kind', value: 'net' }] })
      await api.post('model-versions/create', {
        name: 'greeting',
        source: 'dummy-source',
        tags: [...prompt, { key: 'mlflow.prompt.text', value: 'Hello {{name}}' }],
      })
      await refused('model-versions/create', { name: 'greeting', source: '/etc/passwd', tags: prompt }, /^Invalid prompt source/)
      const names = async (filter: string) =>
        ((await api.get('registered-models/search', { filter, max_results: '1000' })).registered_models ?? []).map(
          ({ name }: { name: string }) => name,
        )
      assert.deepEqual(await names("tag.`mlflow.prompt.is_prompt` = 'true'"), ['greeting'])
      for (const filter of ['', "tag.`mlflow.prompt.is_prompt` != 'true'", "tag.`mlflow.prompt.is_prompt` = 'false'", "name LIKE '%'"]) {
        assert.ok(!(await names(filter)).includes('greeting'), filter)
        assert.ok((await names(filter)).includes('no prompt'), filter)
      }
      assert.deepEqual(await names("tags.kind != 'tree'"), ['no prompt'], 'a model without the tag is unequal to nothing')
    })

    test('a model is renamed with its versions and aliases, described, tagged and deleted', async () => {
      const make = await registered('old name')
      await make()
      await api.post('registered-models/alias', { name: 'old name', alias: 'a', version: '1' })
      assert.equal(
        (await api.post('registered-models/rename', { name: 'old name', new_name: 'new name' })).registered_model.name,
        'new name',
      )
      assert.equal((await api.get('registered-models/alias', { name: 'new name', alias: 'a' })).model_version.name, 'new name')
      assert.equal(
        (await api.ask('PATCH', 'registered-models/update', { body: { name: 'new name', description: 'd' } })).body.registered_model
          .description,
        'd',
      )
      assert.equal(
        (await api.ask('PATCH', 'model-versions/update', { body: { name: 'new name', version: '1', description: 'v' } })).body.model_version
          .description,
        'v',
      )
      await api.post('model-versions/set-tag', { name: 'new name', version: '1', key: 'k', value: 'x' })
      assert.equal((await api.get('model-versions/search', { filter: "tags.k = 'x'" })).model_versions.length, 1)
      assert.equal(
        (await api.ask('DELETE', 'model-versions/delete-tag', { body: { name: 'new name', version: '1', key: 'k' } })).status,
        200,
      )
      assert.equal((await api.ask('DELETE', 'registered-models/delete', { body: { name: 'new name' } })).status, 200)
      await refused('registered-models/get?name=new name', null, /./, { method: 'GET', status: 404, code: 'RESOURCE_DOES_NOT_EXIST' })
      for (const name of ['a/b', 'a:b', '']) await refused('registered-models/create', { name }, /./)
    })

    // ── projects ──

    test('what lies in another project is not there, on any route', async () => {
      const { run, experiment } = await api.run()
      const { model } = await api.post('logged-models', { experiment_id: experiment, name: 'net' })
      await (await registered('of default'))()
      const id = model.info.model_id
      const asked = { project: 'other' }
      const dataset = { name: 'd', digest: 'x', source_type: 'local', source: '{}' }
      const lookups: [string, string, unknown?][] = [
        ['GET', `experiments/get?experiment_id=${experiment}`],
        ['POST', 'experiments/update', { experiment_id: experiment, new_name: 'x' }],
        ['POST', 'experiments/delete', { experiment_id: experiment }],
        ['POST', 'experiments/restore', { experiment_id: experiment }],
        ['POST', 'experiments/set-experiment-tag', { experiment_id: experiment, key: 'a', value: '' }],
        ['POST', 'experiments/delete-experiment-tag', { experiment_id: experiment, key: 'a' }],
        ['POST', 'runs/create', { experiment_id: experiment }],
        ['GET', `runs/get?run_id=${run}`],
        ['POST', 'runs/update', { run_id: run, status: 'FAILED' }],
        ['POST', 'runs/delete', { run_id: run }],
        ['POST', 'runs/restore', { run_id: run }],
        ['POST', 'runs/log-metric', { run_id: run, ...point('m', 1) }],
        ['POST', 'runs/log-parameter', { run_id: run, key: 'a', value: '' }],
        ['POST', 'runs/set-tag', { run_id: run, key: 'a', value: '' }],
        ['POST', 'runs/delete-tag', { run_id: run, key: 'a' }],
        ['POST', 'runs/log-batch', { run_id: run, metrics: [point('m', 1)] }],
        ['POST', 'runs/log-inputs', { run_id: run, datasets: [{ dataset }] }],
        ['POST', 'runs/outputs', { run_id: run, models: [{ model_id: id }] }],
        [
          'POST',
          'runs/log-model',
          { run_id: run, model_json: JSON.stringify({ artifact_path: '', flavors: {}, utc_time_created: '', run_id: run }) },
        ],
        ['GET', `metrics/get-history?run_id=${run}&metric_key=m`],
        ['GET', `metrics/get-history-bulk?run_id=${run}&metric_key=m`],
        ['GET', `metrics/get-history-bulk-interval?run_ids=${run}&metric_key=m`],
        ['GET', `artifacts/list?run_id=${run}`],
        ['GET', `/get-artifact?run_id=${run}&path=x`],
        ['POST', `upload-artifact?run_uuid=${run}&path=x`, 'x'],
        ['GET', `/api/2.0/mlflow-artifacts/artifacts?path=${experiment}/${run}/artifacts`],
        ['GET', `/api/2.0/mlflow-artifacts/artifacts/${experiment}/${run}/artifacts/x`],
        ['PUT', `/api/2.0/mlflow-artifacts/artifacts/${experiment}/${run}/artifacts/x`, 'x'],
        ['DELETE', `/api/2.0/mlflow-artifacts/artifacts/${experiment}/${run}/artifacts`],
        ['POST', 'logged-models', { experiment_id: experiment, name: 'm' }],
        ['GET', `logged-models/${id}`],
        ['PATCH', `logged-models/${id}`, { status: 2 }],
        ['DELETE', `logged-models/${id}`],
        ['PATCH', `logged-models/${id}/tags`, { tags: [{ key: 'a', value: '' }] }],
        ['DELETE', `logged-models/${id}/tags/a`],
        ['POST', `logged-models/${id}/params`, { params: [{ key: 'a', value: '' }] }],
        ['GET', `logged-models/${id}/artifacts/directories`],
        ['GET', `logged-models/${id}/artifacts/files?artifact_file_path=x`],
        ['GET', 'registered-models/get?name=of default'],
        ['POST', 'registered-models/rename', { name: 'of default', new_name: 'x' }],
        ['PATCH', 'registered-models/update', { name: 'of default', description: '' }],
        ['DELETE', 'registered-models/delete', { name: 'of default' }],
        ['POST', 'registered-models/get-latest-versions', { name: 'of default' }],
        ['POST', 'registered-models/set-tag', { name: 'of default', key: 'a', value: '' }],
        ['DELETE', 'registered-models/delete-tag', { name: 'of default', key: 'a' }],
        ['POST', 'registered-models/alias', { name: 'of default', alias: 'a', version: '1' }],
        ['DELETE', 'registered-models/alias', { name: 'of default', alias: 'a' }],
        ['GET', 'registered-models/alias?name=of default&alias=latest'],
        ['POST', 'model-versions/create', { name: 'of default', source: 's3://x/y' }],
        ['POST', 'model-versions/create', { name: 'of default', source: `models:/${id}`, model_id: id }],
        ['GET', 'model-versions/get?name=of default&version=1'],
        ['PATCH', 'model-versions/update', { name: 'of default', version: '1', description: '' }],
        [
          'POST',
          'model-versions/transition-stage',
          { name: 'of default', version: '1', stage: 'Production', archive_existing_versions: true },
        ],
        ['DELETE', 'model-versions/delete', { name: 'of default', version: '1' }],
        ['GET', 'model-versions/get-download-uri?name=of default&version=1'],
        ['POST', 'model-versions/set-tag', { name: 'of default', version: '1', key: 'a', value: '' }],
        ['DELETE', 'model-versions/delete-tag', { name: 'of default', version: '1', key: 'a' }],
        ['GET', '/model-versions/get-artifact?name=of default&version=1&path=x'],
      ]
      for (const [method, path, body] of lookups) {
        const sent = typeof body === 'string' ? { text: Buffer.from(body) } : { body }
        const answer = await api.ask(method, path.replaceAll(' ', '%20'), { ...asked, ...sent })
        assert.deepEqual(
          [answer.status, answer.body.error_code],
          [404, 'RESOURCE_DOES_NOT_EXIST'],
          `${method} ${path}: ${JSON.stringify(answer.body)}`,
        )
      }
      for (const [path, body] of [
        ['experiments/search', { max_results: 1000, view_type: 'ALL', filter: `name != 'foreign'` }],
        ['runs/search', { experiment_ids: [experiment], run_view_type: 'ALL' }],
        ['logged-models/search', { experiment_ids: [experiment] }],
        ['experiments/search-datasets', { experiment_ids: [experiment] }],
      ] as const)
        assert.deepEqual(await api.post(path, body, asked), {}, path)
      for (const path of ['registered-models/search', 'model-versions/search']) assert.deepEqual(await api.get(path, {}, asked), {}, path)
      await refused(`experiments/get-by-name?experiment_name=Default`, null, /./, {
        method: 'GET',
        status: 404,
        code: 'RESOURCE_DOES_NOT_EXIST',
        asked,
      })
    })
  })
