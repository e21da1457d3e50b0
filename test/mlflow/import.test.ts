/** Taking over from an MLflow: its database, its API, its folder; again, stopped and gone on with, and from strangers. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, describe, test } from 'node:test'
import fc from 'fast-check'
import { type Db, openDatabase } from '../../src/db/open.ts'
import { Failure } from '../../src/failure.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import { type Objects, walk } from '../../src/storage/objects.ts'
import { type Imported, importMlflow } from '../../src/track/importer/import.ts'
import type { Kind } from '../../src/track/importer/into.ts'
import { openSource } from '../../src/track/importer/open.ts'
import { readRecord } from '../../src/track/importer/yaml-record.ts'
import { databases } from '../db/databases.ts'
import { type Json, type MlflowApi, mlflowApi } from './server.ts'

const place = mkdtempSync(join(tmpdir(), 'import-'))
after(() => rmSync(place, { recursive: true, force: true }))
const id = (n: number) => n.toString(16).padStart(32, '0')
const model = `m-${id(77)}`

const taken = async (
  from: string,
  db: Db,
  objects: Objects = memoryObjects(),
  options: { artifacts?: string; signal?: AbortSignal; authorization?: string; onProgress?(done: number): void } = {},
): Promise<Imported> => {
  const source = await openSource(from, {
    artifacts: options.artifacts ?? null,
    authorization: options.authorization ?? null,
    signal: options.signal,
  })
  try {
    return await importMlflow(source, {
      db,
      objects,
      project: 'default',
      ...(options.signal && { signal: options.signal }),
      ...(options.onProgress && { onProgress: options.onProgress }),
    })
  } finally {
    source.close()
  }
}
const column = ({ counts }: Imported, which: 'source' | 'here' | 'added') =>
  Object.fromEntries(Object.entries(counts).map(([kind, count]) => [kind, count[which]])) as Record<Kind, number>
const whole = (imported: Imported) => assert.deepEqual(column(imported, 'here'), column(imported, 'source'))
const namesIn = async (objects: Objects) => {
  const names: string[] = []
  for await (const { name } of walk(objects, '')) names.push(name)
  return names
}

// ── its database ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** As MLflow 3.17.2 fills it: runs of every state, special numbers, links, a registry; and two experiments that are not to come along. */
function mlflowDatabase(name: string): { path: string; db: DatabaseSync } {
  const path = join(place, name, 'mlflow.db')
  mkdirSync(dirname(path), { recursive: true })
  const db = new DatabaseSync(path)
  db.exec(`begin; ${readFileSync(new URL('./mlflow-3.17.sql', import.meta.url), 'utf8')}`)
  const insert = (table: string, ...rows: Record<string, string | number | bigint | null>[]) => {
    for (const row of rows)
      db.prepare(`insert into ${table} (${Object.keys(row).map(each => `"${each}"`)}) values (${Object.keys(row).map(() => '?')})`).run(
        ...Object.values(row),
      )
  }
  const experiment = (experiment_id: number | bigint, name: string, more = {}) =>
    insert('experiments', {
      experiment_id,
      name,
      artifact_location: `mlflow-artifacts:/${experiment_id}`,
      lifecycle_stage: 'active',
      creation_time: 1000,
      last_update_time: 2000,
      ...more,
    })
  experiment(0, 'Default')
  experiment(7, 'birds')
  experiment(335095079438237672n, 'from a folder', { artifact_location: 's3://bucket/far' })
  experiment(9, 'gone', { lifecycle_stage: 'deleted' })
  experiment(10, 'birds', { workspace: 'elsewhere' })
  insert('experiment_tags', { experiment_id: 7, key: 'team', value: 'b' })
  const run = (n: number, experiment_id: number | bigint, more = {}) =>
    insert('runs', {
      ...{
        run_uuid: id(n),
        name: `run ${n}`,
        source_type: 'LOCAL',
        source_name: '',
        entry_point_name: '',
        user_id: 'ada',
        status: 'FINISHED',
        start_time: 5000 + n,
        end_time: 6000 + n,
      },
      ...{
        source_version: '',
        lifecycle_stage: 'active',
        artifact_uri: `mlflow-artifacts:/${experiment_id}/${id(n)}/artifacts`,
        experiment_id,
        deleted_time: null,
      },
      ...more,
    })
  run(1, 7)
  run(2, 7, { status: 'RUNNING', end_time: null })
  run(3, 7, { status: 'KILLED', lifecycle_stage: 'deleted' })
  run(4, 335095079438237672n, { status: 'FAILED', artifact_uri: `s3://bucket/far/${id(4)}/artifacts` })
  run(5, 9, { lifecycle_stage: 'deleted' })
  run(6, 10)
  insert(
    'params',
    { run_uuid: id(1), key: 'depth', value: '3' },
    { run_uuid: id(1), key: 'nul', value: 'ab' },
    { run_uuid: id(6), key: 'no', value: '' },
  )
  insert(
    'tags',
    { run_uuid: id(1), key: 'mlflow.runName', value: 'run 1' },
    { run_uuid: id(1), key: 'mlflow.parentRunId', value: id(2) },
    { run_uuid: id(2), key: 'empty', value: null },
  )
  for (let step = 0; step < 12_000; step++)
    insert('metrics', { run_uuid: id(1), key: 'loss', value: 1 / (step + 1), timestamp: 9000 + step, step, is_nan: 0 })
  insert(
    'metrics',
    { run_uuid: id(1), key: 'special', value: 0, timestamp: 1, step: 0, is_nan: 1 },
    { run_uuid: id(1), key: 'special', value: 1.7976931348623157e308, timestamp: 1, step: 1, is_nan: 0 },
    { run_uuid: id(1), key: 'special', value: -1.7976931348623157e308, timestamp: 1, step: 2, is_nan: 0 },
    { run_uuid: id(1), key: 'special', value: 0, timestamp: 1, step: 0, is_nan: 0 },
    { run_uuid: id(2), key: 'loss', value: 5, timestamp: 1, step: -4, is_nan: 0 },
  )
  insert('datasets', {
    dataset_uuid: 'd1',
    experiment_id: 7,
    name: 'set',
    digest: 'abc',
    dataset_source_type: 'local',
    dataset_source: '{}',
    dataset_schema: null,
    dataset_profile: null,
  })
  const link = { destination_type: 'RUN', destination_id: id(1), step: 0 }
  insert('inputs', { input_uuid: 'i1', source_type: 'DATASET', source_id: 'd1', ...link })
  insert('inputs', {
    input_uuid: 'i2',
    source_type: 'RUN_OUTPUT',
    source_id: id(1),
    destination_type: 'MODEL_OUTPUT',
    destination_id: model,
    step: 3,
  })
  insert('input_tags', { input_uuid: 'i1', name: 'mlflow.data.context', value: 'train' })
  insert('logged_models', {
    ...{
      model_id: model,
      experiment_id: 7,
      name: 'net',
      artifact_location: `mlflow-artifacts:/7/models/${model}/artifacts`,
      creation_timestamp_ms: 1,
      last_updated_timestamp_ms: 2,
    },
    ...{ status: 2, lifecycle_stage: 'active', model_type: 'sklearn', source_run_id: id(1), status_message: null },
  })
  insert('logged_model_params', { model_id: model, experiment_id: 7, param_key: 'C', param_value: '1' })
  insert('logged_model_metrics', {
    model_id: model,
    metric_name: 'acc',
    metric_timestamp_ms: 1,
    metric_step: 0,
    metric_value: 0.9,
    experiment_id: 7,
    run_id: id(1),
    dataset_name: 'set',
    dataset_digest: 'abc',
  })
  insert(
    'registered_models',
    { name: "o'net", creation_time: 1, last_updated_time: 2, description: 'all' },
    { name: 'a/b', creation_time: 1, last_updated_time: 2, description: '' },
  )
  const version = (version: number, source: string, more = {}) =>
    insert('model_versions', {
      ...{
        name: "o'net",
        version,
        creation_time: 1,
        last_updated_time: 2,
        description: null,
        user_id: 'ada',
        current_stage: 'None',
        source,
        run_id: id(1),
        status: 'READY',
        run_link: null,
        ...more,
      },
    })
  version(1, `mlflow-artifacts:/7/${id(1)}/artifacts/net`, { current_stage: 'Production' })
  version(2, `models:/${model}`, { run_link: 'https://example.org/#/runs/1' })
  version(5, '', { current_stage: 'Deleted_Internal' })
  insert('registered_model_tags', { name: "o'net", key: 'team', value: 'b' })
  insert('model_version_tags', { name: "o'net", version: 1, key: 'checked', value: 'yes' })
  insert('registered_model_aliases', { name: "o'net", alias: 'champion', version: 2 })
  db.exec('commit')
  return { path, db }
}

/** `--artifacts-destination` of that server. */
function filesOf(path: string): string {
  const folder = join(dirname(path), 'files')
  for (const [name, content] of [
    [`7/${id(1)}/artifacts/net/MLmodel`, 'm'],
    [`7/${id(1)}/artifacts/größe.txt`, ''],
    [`7/models/${model}/artifacts/model.pkl`, 'weights'],
  ] as const) {
    mkdirSync(join(folder, dirname(name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
  return folder
}

for (const database of databases())
  describe(`into ${database.kind}`, { skip: database.missing ?? false }, () => {
    test('a database comes whole, keeps its ids, and a second time adds only what is new', async () => {
      const { path, db: source } = mlflowDatabase(`whole ${database.kind}`)
      const api = await mlflowApi(await database.open())
      try {
        const first = await taken(`sqlite:////${path.slice(1)}`, api.db, api.objects, { artifacts: filesOf(path) })
        assert.deepEqual(column(first, 'source'), {
          ...{
            experiments: 4,
            runs: 5,
            params: 2,
            tags: 3,
            'metric points': 12_005,
            'dataset inputs': 1,
            'logged models': 1,
            'registered models': 2,
            'model versions': 2,
            aliases: 1,
          },
          ...{ files: 3, 'bytes of files': 8 },
        })
        assert.deepEqual({ ...column(first, 'here'), 'registered models': 2 }, column(first, 'source'), 'all but a name that cannot be')
        assert.deepEqual(
          { ...column(first, 'added'), experiments: 4, 'registered models': 2 },
          column(first, 'source'),
          'Default was there',
        )
        assert.deepEqual(first.left, { 'experiments of other workspaces': 1 })
        assert.ok(first.notes.some(note => note.includes('s3://bucket/far')) && first.notes.some(note => note.includes('a/b')))

        const { run } = await api.get('runs/get', { run_id: id(1) })
        const birds = (await api.get('experiments/get-by-name', { experiment_name: 'birds' })).experiment
        assert.deepEqual(run.info, {
          ...{
            run_id: id(1),
            run_uuid: id(1),
            run_name: 'run 1',
            experiment_id: birds.experiment_id,
            user_id: 'ada',
            status: 'FINISHED',
            start_time: 5001,
            end_time: 6001,
          },
          ...{ artifact_uri: `mlflow-artifacts:/${birds.experiment_id}/${id(1)}/artifacts`, lifecycle_stage: 'active' },
        })
        assert.deepEqual(run.data.params, [
          { key: 'depth', value: '3' },
          { key: 'nul', value: 'ab' },
        ])
        assert.deepEqual(run.inputs.dataset_inputs[0].dataset.digest, 'abc')
        assert.deepEqual(run.outputs.model_outputs, [{ model_id: model, step: 3 }])
        const history = async (metric_key: string) => (await api.get('metrics/get-history', { run_id: id(1), metric_key })).metrics
        assert.equal((await history('loss')).length, 12_000)
        assert.deepEqual(
          (await history('special')).map(({ step, value }: Json) => [step, value]),
          [
            [0, 0],
            [0, 'NaN'],
            [1, Number.MAX_VALUE],
            [2, -Number.MAX_VALUE],
          ],
        )
        assert.equal((await api.get('runs/get', { run_id: id(3) })).run.info.lifecycle_stage, 'deleted')
        assert.equal((await api.get('runs/get', { run_id: id(4) })).run.info.artifact_uri, `s3://bucket/far/${id(4)}/artifacts`)
        assert.equal((await api.get('experiments/get-by-name', { experiment_name: 'gone' })).experiment.lifecycle_stage, 'deleted')
        assert.equal(
          (await api.get('experiments/get-by-name', { experiment_name: 'from a folder' })).experiment.artifact_location,
          's3://bucket/far',
        )
        assert.equal((await api.get('registered-models/alias', { name: "o'net", alias: 'champion' })).model_version.version, '2')
        assert.equal(
          (await api.get('model-versions/get-download-uri', { name: "o'net", version: '1' })).artifact_uri,
          `${run.info.artifact_uri}/net`,
        )
        assert.equal(
          (await api.get('model-versions/get-download-uri', { name: "o'net", version: '2' })).artifact_uri,
          `mlflow-artifacts:/${birds.experiment_id}/models/${model}/artifacts`,
        )
        assert.equal(
          (await api.get('model-versions/get', { name: "o'net", version: '2' })).model_version.run_link,
          'https://example.org/#/runs/1',
        )
        assert.equal((await api.get(`logged-models/${model}`)).model.data.metrics[0].dataset_name, 'set')
        assert.equal(
          (await api.post('model-versions/create', { name: "o'net", source: 's3://x/y' })).model_version.version,
          '6',
          'a spent number stays spent',
        )
        assert.deepEqual((await namesIn(api.objects)).length, 3)

        // here something else happens to it, there it goes on
        await api.post('registered-models/alias', { name: "o'net", alias: 'champion', version: '1' })
        await api.post('runs/log-batch', { run_id: id(2), params: [{ key: 'ours', value: '1' }] })
        source.exec(`update runs set status = 'FINISHED', end_time = 7000 where run_uuid = '${id(2)}'`)
        source.exec(`insert into metrics values ('loss', 4, 2, '${id(2)}', -3, 0)`)
        source.exec(`insert into params values ('ours', '2', '${id(2)}'), ('theirs', '1', '${id(2)}')`)
        const second = await taken(path, api.db, api.objects, { artifacts: filesOf(path) })
        assert.deepEqual(
          Object.entries(column(second, 'added')).filter(([, added]) => added > 0),
          [
            ['params', 1],
            ['metric points', 1],
          ],
        )
        assert.ok(second.notes.some(note => note.includes('param ours')) && second.notes.some(note => note.includes('alias champion')))
        assert.equal(second.counts.params.source - second.counts.params.here, 1)
        const again = (await api.get('runs/get', { run_id: id(2) })).run
        assert.deepEqual([again.info.status, again.info.end_time, again.data.params.length], ['FINISHED', 7000, 2])
      } finally {
        source.close()
        await api.close()
      }
    })

    test('an import that is stopped goes on, and ends as if it had not been', async () => {
      const { path, db: source } = mlflowDatabase(`stopped ${database.kind}`)
      source.close()
      const [stopped, straight] = [await database.open(), await database.open()]
      const [some, all] = [memoryObjects(), memoryObjects()]
      try {
        const stop = new AbortController()
        await assert.rejects(
          taken(path, stopped, some, {
            artifacts: filesOf(path),
            signal: stop.signal,
            onProgress: done => done === 2 && stop.abort(new Failure('interrupted', { next: '' })),
          }),
          { code: 'interrupted' },
        )
        const rest = await taken(path, stopped, some, { artifacts: filesOf(path) })
        assert.equal(rest.counts.runs.added, 3)
        const once = await taken(path, straight, all, { artifacts: filesOf(path) })
        assert.deepEqual(column(rest, 'here'), column(once, 'here'))
        assert.deepEqual(await namesIn(some), await namesIn(all))
      } finally {
        await stopped.destroy()
        await straight.destroy()
      }
    })
  })

test('an old database, without what came later, is taken too', async () => {
  const { path, db: source } = mlflowDatabase('old')
  for (const table of [
    'datasets',
    'inputs',
    'input_tags',
    'logged_model_metrics',
    'logged_model_params',
    'logged_model_tags',
    'logged_models',
    'registered_model_aliases',
    'trace_info',
  ])
    source.exec(`drop table ${table}`)
  source.close()
  const db = await openDatabase(':memory:')
  const imported = await taken(path, db)
  assert.deepEqual([imported.counts.runs.here, imported.counts['logged models'].source], [6 - 1, 0])
  await db.destroy()
})

test('a database of a stranger is refused, or gives only what is its own', async () => {
  const db = await openDatabase(':memory:')
  const refused = async (name: string, change: (source: DatabaseSync, path: string) => void, code: string, problem?: RegExp) => {
    const { path, db: source } = mlflowDatabase(`hostile ${name}`)
    source.exec('pragma foreign_keys = off; pragma ignore_check_constraints = on')
    change(source, path)
    source.close()
    await assert.rejects(taken(path, db), (error: Failure) => error.code === code && (!problem || problem.test(error.message)), name)
  }
  await refused(
    'view',
    source =>
      source.exec(
        'alter table tags rename to t; create view tags as with recursive r(run_uuid, key, value) as (select 1, 1, 1 union all select 1, 1, 1 from r) select * from r',
      ),
    'import_source_damaged',
    /no plain table/,
  )
  await refused(
    'virtual',
    source => source.exec('alter table tags rename to t; create virtual table tags using fts5(run_uuid, key, value)'),
    'import_source_damaged',
    /no plain table/,
  )
  await refused(
    'column',
    source => source.exec('alter table metrics rename column is_nan to was_nan'),
    'import_source_unknown',
    /metrics\.is_nan/,
  )
  await refused(
    'id',
    source => source.exec(`update runs set run_uuid = '../../../etc' where run_uuid = '${id(3)}'`),
    'import_source_damaged',
    /no id of MLflow/,
  )
  await refused(
    'number',
    source => source.exec(`update runs set start_time = 9223372036854775807 where run_uuid = '${id(3)}'`),
    'import_source_damaged',
    /no whole number/,
  )
  await refused('blob', source => source.exec(`update params set value = x'00ff' where key = 'depth'`), 'import_source_damaged', /no text/)
  await refused('status', source => source.exec(`update runs set status = 'DONE' where run_uuid = '${id(3)}'`), 'import_source_damaged')
  await refused('other', source => source.exec('drop table runs'), 'import_source_unknown', /runs/)
  await refused('no database', (_, path) => writeFileSync(path, 'SQLite format 3\0 and then nothing'), 'import_source_damaged')
  const { path, db: source } = mlflowDatabase('cut')
  source.close()
  const bytes = readFileSync(path)
  for (const length of [0, 100, 4096, 20_000, bytes.length - 5000]) {
    writeFileSync(path, bytes.subarray(0, length))
    await assert.rejects(
      taken(path, await openDatabase(':memory:')),
      (error: Failure) => /^import_source_(damaged|unknown)$/.test(error.code),
      `${length} bytes`,
    )
  }
  await assert.rejects(taken(join(place, 'nothing.db'), db), { code: 'import_source_not_found' })
  await assert.rejects(
    taken('postgresql://user:secret@host/db', db),
    (error: Failure) => error.code === 'import_source_unknown' && !error.message.includes('secret'),
  )
  await db.destroy()
})

test('files are read only where they may be: not elsewhere on this machine, and through no link', async () => {
  const { path, db: source } = mlflowDatabase('places')
  const secret = join(place, 'secret')
  mkdirSync(secret)
  writeFileSync(join(secret, 'key.txt'), 'secret')
  const own = join(dirname(path), 'mlruns', '7', id(1), 'artifacts')
  mkdirSync(own, { recursive: true })
  writeFileSync(join(own, 'mine.txt'), 'mine')
  symlinkSync(secret, join(own, 'link'))
  symlinkSync(join(secret, 'key.txt'), join(own, 'key.txt'))
  symlinkSync(secret, join(dirname(path), 'out'))
  const located = (n: number, uri: string) => source.prepare('update runs set artifact_uri = ? where run_uuid = ?').run(uri, id(n))
  located(1, own)
  located(2, `file://${secret}`)
  located(3, join(dirname(path), 'out'))
  located(4, `${dirname(path)}/mlruns/../../secret`)
  located(5, '/etc')
  source.close()
  const [db, objects] = [await openDatabase(':memory:'), memoryObjects()]
  const imported = await taken(path, db, objects)
  assert.deepEqual(
    (await namesIn(objects)).map(name => name.split('/').at(-1)),
    ['mine.txt'],
  )
  for (const n of [2, 3, 4, 5])
    assert.ok(
      imported.notes.some(note => note.includes(id(n))),
      `${n}`,
    )
  await db.destroy()
})

test('files that cannot be reached at first come later; a place of the other server never means one of ours', async () => {
  const { path, db: source } = mlflowDatabase('later')
  source.close()
  const api = await mlflowApi(await openDatabase(':memory:'))
  try {
    // experiment 7 of the source has the number of somebody else's here
    for (let i = 0; i < 8; i++) await api.post('experiments/create', { name: `foreign ${i}` }, { project: 'other' })
    const foreign = (await api.post('runs/create', { experiment_id: '7' }, { project: 'other' })).run.info.run_id
    await api.ask('PUT', `/api/2.0/mlflow-artifacts/artifacts/7/${foreign}/artifacts/secret.txt`, {
      text: Buffer.from('secret'),
      project: 'other',
    })
    const first = await taken(path, api.db, api.objects)
    assert.ok(first.notes.some(note => note.includes('mlflow-artifacts:/7') && note.includes('--artifacts')))
    const { artifact_uri, experiment_id } = (await api.get('runs/get', { run_id: id(1) })).run.info
    assert.notEqual(experiment_id, '7')
    assert.equal(artifact_uri, `mlflow-artifacts:/${experiment_id}/${id(1)}/artifacts`)
    assert.equal((await api.get('model-versions/get-download-uri', { name: "o'net", version: '1' })).artifact_uri, `${artifact_uri}/net`)
    // and where a record says so all the same, the files of another project are not there
    await api.db
      .updateTable('tracked_runs')
      .set({ location: `mlflow-artifacts:/7/${foreign}/artifacts` })
      .where('id', '=', id(2))
      .execute()
    for (const route of [`artifacts/list?run_id=${id(2)}`, `/get-artifact?run_id=${id(2)}&path=secret.txt`])
      assert.equal((await api.ask('GET', route)).status, 404)
    assert.equal((await api.ask('POST', `upload-artifact?run_uuid=${id(2)}&path=secret.txt`, { text: Buffer.from('x') })).status, 404)
    const second = await taken(path, api.db, api.objects, { artifacts: filesOf(path) })
    assert.deepEqual(second.counts.files, { source: 3, here: 3, added: 3 })
    assert.deepEqual(
      (await api.get('artifacts/list', { run_id: id(1) })).files.map((file: Json) => file.path),
      ['größe.txt', 'net'],
    )
  } finally {
    await api.close()
  }
})

// ── its API ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a server is asked page by page, and another one holds the same afterwards', async () => {
  const there = await mlflowApi(await openDatabase(':memory:'))
  const here = await mlflowApi(await openDatabase(':memory:'))
  try {
    const port = await there.listen()
    const { path, db: source } = mlflowDatabase('over there')
    source.close()
    await taken(path, there.db, there.objects, { artifacts: filesOf(path) })
    for (let i = 0; i < 250; i++) await there.post('runs/create', { experiment_id: '0', start_time: 1 + i })
    await there.post('registered-models/create', { name: 'greeting', tags: [{ key: 'mlflow.prompt.is_prompt', value: 'true' }] })
    await there.post('model-versions/create', {
      name: 'greeting',
      source: 'dummy-source',
      tags: [{ key: 'mlflow.prompt.is_prompt', value: 'true' }],
    })
    const from = `http://127.0.0.1:${port}/`
    await assert.rejects(taken(from, here.db), { code: 'import_refused' })
    const imported = await taken(from, here.db, here.objects, { authorization: 'Bearer default' })
    whole(imported)
    assert.deepEqual(column(imported, 'source'), {
      ...{
        experiments: 4,
        runs: 255,
        params: 2,
        tags: 257,
        'metric points': 12_005,
        'dataset inputs': 1,
        'logged models': 1,
        'registered models': 2,
        'model versions': 3,
        aliases: 1,
      },
      ...{ files: 3, 'bytes of files': 8 },
    })
    for (const run of [1, 2, 3, 4].map(id)) {
      const [a, b] = await Promise.all([there, here].map(api => api.get('runs/get', { run_id: run })))
      assert.deepEqual(b, a)
    }
    const version = { name: "o'net", version: '2' }
    const [a, b] = await Promise.all([there, here].map(api => api.get('model-versions/get', version)))
    assert.equal(b.model_version.run_link, a.model_version.run_link)
    assert.deepEqual(await namesIn(here.objects), await namesIn(there.objects))
    const second = await taken(from, here.db, here.objects, { authorization: 'Bearer default' })
    assert.deepEqual([...new Set(Object.values(column(second, 'added')))], [0])
  } finally {
    await there.close()
    await here.close()
  }
})

test('a server that is none, lies or leads elsewhere is refused, and ends', async () => {
  const db = await openDatabase(':memory:')
  const answering = async (listener: RequestListener, code: string, told?: RegExp) => {
    const server = createServer(listener)
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    try {
      const { port } = server.address() as AddressInfo
      await assert.rejects(
        taken(`http://127.0.0.1:${port}`, db),
        (error: Failure) => error.code === code && (!told || told.test(error.message)),
      )
    } finally {
      server.closeAllConnections()
      server.close()
    }
  }
  const json =
    (body: unknown): RequestListener =>
    (_, response) =>
      void response.end(JSON.stringify(body))
  const experiment = { experiment_id: '1', name: 'x', artifact_location: '' }
  await answering((_, response) => void response.end('<html>'), 'import_source_damaged', /not what MLflow answers/)
  await answering(json({ experiments: [{ name: 5 }] }), 'import_source_damaged')
  await answering(json({ experiments: [experiment], next_page_token: 'again' }), 'import_source_damaged', /circle/)
  await answering((_, response) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(), 'import_unreachable')
  await answering((_, response) => void response.writeHead(404).end('no'), 'import_refused')
  await answering(
    (request, response) =>
      json(
        request.url!.includes('experiments') ? { experiments: [experiment] } : { runs: [{ info: { run_id: '../x', experiment_id: '1' } }] },
      )(request, response),
    'import_source_damaged',
    /no id/,
  )
  await assert.rejects(
    taken('http://user:secret@127.0.0.1:1', db),
    (error: Failure) => error.code === 'import_source_unknown' && !error.message.includes('secret'),
  )
  await db.destroy()
})

// ── its folder ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a folder mlruns comes whole, also where it was moved since', async () => {
  const root = join(place, 'store', 'mlruns')
  const write = (name: string, content: string) => {
    mkdirSync(join(root, dirname(name)), { recursive: true })
    writeFileSync(join(root, name), content)
  }
  const experiment = '335095079438237672'
  const run = `${experiment}/${id(1)}`
  const about = (name: string, more = '') =>
    `artifact_location: file:///old/place/mlruns/${name}\ncreation_time: 1\nexperiment_id: '${name}'\nlast_update_time: 2\nlifecycle_stage: active\nname: ${more || 'Default'}\n`
  write('0/meta.yaml', about('0'))
  write(`${experiment}/meta.yaml`, about(experiment, "'birds: of a\n\n  feather'"))
  write(`${experiment}/tags/team`, 'b')
  write(`.trash/5/meta.yaml`, about('5', 'gone'))
  write(
    `${run}/meta.yaml`,
    `artifact_uri: file:///old/place/mlruns/${run}/artifacts\nend_time: 9\nexperiment_id: '${experiment}'\nlifecycle_stage: active\nrun_id: ${id(1)}\nrun_name: first\nsource_type: 4\nstart_time: 5\nstatus: 3\ntags: []\nuser_id: ada\n`,
  )
  write(`${run}/params/net/depth`, '3')
  write(`${run}/tags/mlflow.note.content`, 'two\nlines')
  write(`${run}/metrics/loss`, '1 0.5 0\n2 nan 1\n3 inf 2\n1 0.5 0\n')
  write(`${run}/metrics/train/acc`, '1 0.9 0 set abc\n')
  write(`${run}/artifacts/deep/a.txt`, 'a')
  write(
    `${run}/inputs/i/meta.yaml`,
    'destination_id: d\ndestination_type: RUN\nsource_id: d\nsource_type: DATASET\ntags:\n  mlflow.data.context: train\n',
  )
  write(`${run}/outputs/${model}/meta.yaml`, `destination_id: ${model}\nsource_type: RUN_OUTPUT\nstep: 3\ntags: {}\n`)
  write(
    `${experiment}/datasets/d/meta.yaml`,
    `digest: abc\nname: set\nprofile: '{"n": 2}'\nschema: null\nsource: '{"tags": {"mlflow.user": "root", "mlflow.source.type":\n  "LOCAL"}}'\nsource_type: code\n`,
  )
  write(
    `${experiment}/models/${model}/meta.yaml`,
    `artifact_location: /old/place/mlruns/${experiment}/models/${model}/artifacts\ncreation_timestamp: 1\nexperiment_id: '${experiment}'\nlast_updated_timestamp: 2\nmodel_id: ${model}\nmodel_type: null\nname: net\nsource_run_id: ${id(1)}\nstatus: 2\n`,
  )
  write(`${experiment}/models/${model}/metrics/acc`, `5 0.9 0 ${id(1)}\n`)
  write(`${experiment}/models/${model}/artifacts/model.pkl`, 'weights')
  write('models/net/meta.yaml', 'creation_timestamp: 1\ndescription: all\nlast_updated_timestamp: 2\nname: net\n')
  write(
    'models/net/version-1/meta.yaml',
    `creation_timestamp: 1\ncurrent_stage: Production\nlast_updated_timestamp: 2\nname: net\nrun_id: ${id(1)}\nsource: models:/${model}\nversion: 1\n`,
  )
  write(
    'models/net/version-2/meta.yaml',
    'creation_timestamp: 1\ncurrent_stage: Deleted_Internal\nlast_updated_timestamp: 2\nname: net\nsource: x\nversion: 2\n',
  )
  write('models/net/aliases/champion', '1')
  const api: MlflowApi = await mlflowApi(await openDatabase(':memory:'))
  try {
    const imported = await taken(root, api.db, api.objects)
    whole(imported)
    assert.deepEqual(column(imported, 'source'), {
      ...{
        experiments: 3,
        runs: 1,
        params: 1,
        tags: 1,
        'metric points': 4,
        'dataset inputs': 1,
        'logged models': 1,
        'registered models': 1,
        'model versions': 1,
        aliases: 1,
      },
      ...{ files: 2, 'bytes of files': 8 },
    })
    const read = (await api.get('runs/get', { run_id: id(1) })).run
    assert.deepEqual([read.info.status, read.data.params], ['FINISHED', [{ key: 'net/depth', value: '3' }]])
    assert.equal(read.inputs.dataset_inputs[0].dataset.source, '{"tags": {"mlflow.user": "root", "mlflow.source.type": "LOCAL"}}')
    assert.equal((await api.get('experiments/get', { experiment_id: read.info.experiment_id })).experiment.name, 'birds: of a\nfeather')
    assert.match(
      (await api.get('model-versions/get-download-uri', { name: 'net', version: '1' })).artifact_uri,
      /^mlflow-artifacts:\/\d+\/models\/m-/,
    )
    assert.deepEqual([...new Set(Object.values(column(await taken(root, api.db, api.objects), 'added')))], [0])
  } finally {
    await api.close()
  }
  await assert.rejects(taken(place, await openDatabase(':memory:')), { code: 'import_source_unknown' })
})

test('the records of the folder are read as PyYAML writes them', () => {
  const read = (text: string) => Object.fromEntries(readRecord(text, 'x'))
  assert.deepEqual(read("a: 1\nb: '2'\nc: null\nd: ''\ne: plain text\nf: \"tab\\there\\x41\\u00e9\"\n'g: h': i\n"), {
    a: 1,
    b: '2',
    c: null,
    d: '',
    e: 'plain text',
    f: 'tab\thereAé',
    'g: h': 'i',
  })
  assert.deepEqual(read('long: word word\n  more words\nnext: 1\n'), { long: 'word word more words', next: 1 })
  assert.deepEqual(read("text: 'one\n\n  two''s'\n"), { text: "one\ntwo's" })
  assert.deepEqual(read('text: "a\\\n  \\ b\\n\\\n  c"\n'), { text: 'a b\nc' })
  assert.deepEqual(read('tags: []\nmap: {}\nbig: 12345678901234567890\n'), { tags: null, map: new Map(), big: '12345678901234567890' })
  assert.deepEqual(read('block: |-\n  one\n  two\nfolded: >\n  one\n  two\n'), { block: 'one\ntwo', folded: 'one two\n' })
  assert.deepEqual(read("m:\n  -x: 1\n  a#b: '2'\n  ? long\n    name\n  : 'v'\n"), {
    m: new Map<string, number | string>([
      ['-x', 1],
      ['a#b', '2'],
      ['long name', 'v'],
    ]),
  })
  for (const text of ['a: &x 1', 'a: *x', 'a: !!python/object:os.system', '- a', 'a', "a: 'open", '{a: 1}', 'a: [1, 2]', '\ta: 1'])
    assert.throws(() => readRecord(text, 'x'), { code: 'import_source_damaged' }, text)
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string(), fc.constantFrom('a: b', "c: 'd", '  e: f', 'g: "h\\', '', '- i', 'j: |', "'k': l"))),
      lines => {
        try {
          readRecord(lines.join('\n'), 'x')
        } catch (error) {
          assert.equal((error as Failure).code, 'import_source_damaged', String(error))
        }
      },
    ),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 50_000 : 1000 },
  )
})
