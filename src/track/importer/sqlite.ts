/** The SQLite file of an MLflow server, 2.0 or newer: opened for reading only, in pieces, so that a server that runs on it goes on writing. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { Failure } from '../../failure.ts'
import { localFiles } from './local-files.ts'
import {
  clean,
  damaged,
  modelId,
  modelStatus,
  type Pair,
  runId,
  runStatus,
  type Source,
  type SourceModel,
  type SourcePoint,
  type SourceRegistered,
  type SourceRun,
  shown,
  unbounded,
  whole,
} from './source.ts'

/** What has to be there; tables that came with later versions may be missing. */
const needed: Record<string, readonly string[]> = {
  experiments: ['experiment_id', 'name', 'artifact_location', 'lifecycle_stage'],
  runs: ['run_uuid', 'name', 'user_id', 'status', 'start_time', 'end_time', 'lifecycle_stage', 'artifact_uri', 'experiment_id'],
  params: ['run_uuid', 'key', 'value'],
  tags: ['run_uuid', 'key', 'value'],
  metrics: ['run_uuid', 'key', 'value', 'timestamp', 'step', 'is_nan'],
  experiment_tags: ['experiment_id', 'key', 'value'],
  registered_models: ['name', 'creation_time', 'last_updated_time', 'description'],
  registered_model_tags: ['name', 'key', 'value'],
  model_versions: [
    'name',
    'version',
    'creation_time',
    'last_updated_time',
    'description',
    'user_id',
    'current_stage',
    'source',
    'run_id',
    'run_link',
  ],
  model_version_tags: ['name', 'version', 'key', 'value'],
}
const later: Record<string, readonly string[]> = {
  registered_model_aliases: ['name', 'alias', 'version'],
  datasets: ['dataset_uuid', 'name', 'digest', 'dataset_source_type', 'dataset_source', 'dataset_schema', 'dataset_profile'],
  inputs: ['input_uuid', 'source_type', 'source_id', 'destination_type', 'destination_id'],
  input_tags: ['input_uuid', 'name', 'value'],
  logged_models: ['model_id', 'experiment_id', 'name', 'artifact_location', 'creation_timestamp_ms', 'last_updated_timestamp_ms', 'status'],
  logged_model_params: ['model_id', 'param_key', 'param_value'],
  logged_model_tags: ['model_id', 'tag_key', 'tag_value'],
  logged_model_metrics: ['model_id', 'metric_name', 'metric_timestamp_ms', 'metric_step', 'metric_value', 'run_id'],
}
/** What Plinth has no place for, with the words for it. */
const without: Record<string, string> = {
  trace_info: 'traces',
  evaluation_datasets: 'evaluation datasets',
  scorers: 'scorers',
  webhooks: 'webhooks',
  endpoints: 'gateway endpoints',
}

type Row = Record<string, unknown>

/**
 * `artifacts`: the folder that its files are in (`--artifacts-destination`), besides that of the database itself.
 * throws import_source_not_found, import_source_unknown, import_source_damaged
 */
export function openSqliteSource(path: string, { artifacts }: { artifacts: string | null }): Source {
  if (!existsSync(path)) throw new Failure('import_source_not_found', { source: path })
  const db = guarded(() => new DatabaseSync(path, { readOnly: true, allowExtension: false, enableDoubleQuotedStringLiterals: false }))
  try {
    // a file from a stranger: nothing in its schema runs on our behalf
    guarded(() => db.exec('pragma trusted_schema = off; pragma cell_size_check = on; pragma mmap_size = 0; pragma query_only = on'))
    return source(db, path, artifacts)
  } catch (error) {
    db.close()
    throw error
  }
}

function source(db: DatabaseSync, path: string, artifacts: string | null): Source {
  const tables = checkSchema(db, path)
  const has = (table: string) => tables.has(table)
  const columnsOf = (table: string) => tables.get(table) ?? new Set<string>()
  const statements = new Map<string, StatementSync>()
  const statement = (sql: string): StatementSync => {
    const found = statements.get(sql) ?? db.prepare(sql)
    found.setReadBigInts(true) // a number that is too large is refused below, not thrown by the driver
    statements.set(sql, found)
    return found
  }
  const all = (sql: string, ...values: (string | number | bigint)[]): Row[] => guarded(() => statement(sql).all(...values) as Row[])
  const count = (sql: string, ...values: (string | number | bigint)[]) => whole('a count', all(sql, ...values)[0]!['n'])
  // of several workspaces the first is taken: names are unique in one only
  const own = (table: string) => (columnsOf(table).has('workspace') ? "workspace = 'default'" : '1 = 1')
  const pairs = (sql: string, ...values: (string | number | bigint)[]): Pair[] =>
    all(sql, ...values).map(({ key, value }) => ({ key: text('a key', key), value: optional('a value', value) ?? '' }))
  const runsOfOwn = `experiment_id in (select experiment_id from experiments where ${own('experiments')})`

  return {
    totalRuns: async () => count(`select count(*) as n from runs where ${runsOfOwn}`),
    async *experiments() {
      const times = columnsOf('experiments').has('creation_time')
        ? 'creation_time, last_update_time'
        : 'null as creation_time, null as last_update_time'
      const rows = all(
        `select experiment_id, name, artifact_location, lifecycle_stage, ${times} from experiments where ${own('experiments')} order by experiment_id`,
      )
      for (const row of rows) {
        const id = row['experiment_id']
        if (typeof id !== 'bigint') throw damaged(`an experiment has the id ${shown(id)}`) // of 18 digits, where it was a folder once
        yield {
          id: String(id),
          name: text('the name of an experiment', row['name']),
          location: optional('a location', row['artifact_location']) ?? '',
          created: time(row['creation_time']) ?? 0,
          updated: time(row['last_update_time']) ?? 0,
          deleted: row['lifecycle_stage'] === 'deleted',
          tags: pairs('select key, value from experiment_tags where experiment_id = ?', id),
        }
      }
    },
    async *runs() {
      const page = `select run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id
        from runs where run_uuid > ? and ${runsOfOwn} order by run_uuid limit 500`
      for (let last = ''; ; ) {
        const rows = all(page, last)
        for (const row of rows) yield run(row)
        if (rows.length === 0) return
        const next = text('the id of a run', rows.at(-1)!['run_uuid'])
        if (next <= last) throw damaged('its index of runs is out of order')
        last = next
      }
    },
    countPoints: async ({ id }) => count('select count(*) as n from metrics where run_uuid = ?', id),
    async *points({ id }) {
      const sql = 'select key, value, timestamp, step, is_nan from metrics where run_uuid = ?'
      let batch: SourcePoint[] = []
      for (const row of guardedRows(statement(sql).iterate(id) as Iterable<Row>)) {
        batch.push({
          key: text('a metric', row['key']),
          ...point(row, 'value', 'timestamp', 'step'),
          ...(row['is_nan'] ? { value: Number.NaN } : {}),
        })
        if (batch.length < 5000) continue
        yield batch
        batch = []
      }
      if (batch.length > 0) yield batch
    },
    async *models() {
      if (!has('logged_models')) return
      const extra = ['lifecycle_stage', 'model_type', 'source_run_id', 'status_message'].map(name =>
        columnsOf('logged_models').has(name) ? name : `null as ${name}`,
      )
      const page = `select model_id, experiment_id, name, artifact_location, creation_timestamp_ms, last_updated_timestamp_ms, status, ${extra.join(', ')}
        from logged_models where model_id > ? and ${runsOfOwn} order by model_id limit 500`
      for (let last = ''; ; ) {
        const rows = all(page, last)
        for (const row of rows) yield model(row)
        if (rows.length === 0) return
        const next = text('the id of a model', rows.at(-1)!['model_id'])
        if (next <= last) throw damaged('its index of models is out of order')
        last = next
      }
    },
    async *registered() {
      for (const row of all(
        `select name, creation_time, last_updated_time, description from registered_models where ${own('registered_models')} order by name`,
      ))
        yield registered(row)
    },
    files: async owner =>
      localFiles(owner, { location: owner.location, roots: [dirname(path), ...(artifacts ? [artifacts] : [])], artifacts }),
    async left() {
      const others = columnsOf('experiments').has('workspace')
        ? count(`select count(*) as n from experiments where not (${own('experiments')})`)
        : 0
      const counts = Object.entries(without).map(([table, words]): [string, number] => [
        words,
        has(table) ? count(`select count(*) as n from ${table}`) : 0,
      ])
      return Object.fromEntries([...counts, ['experiments of other workspaces', others] as [string, number]].filter(([, n]) => n > 0))
    },
    close: () => db.close(),
  }

  function run(row: Row): SourceRun {
    const id = runId(text('the id of a run', row['run_uuid']))
    const started = time(row['start_time']) ?? 0
    return {
      id,
      experiment: String(row['experiment_id']),
      name: optional('the name of a run', row['name']) ?? '',
      user: optional('the user of a run', row['user_id']) ?? '',
      status: runStatus(text('the status of a run', row['status'])),
      started,
      ended: time(row['end_time']),
      deleted: row['lifecycle_stage'] === 'deleted',
      location: optional('a location', row['artifact_uri']) ?? '',
      params: pairs('select key, value from params where run_uuid = ?', id),
      tags: pairs('select key, value from tags where run_uuid = ?', id),
      datasets: has('datasets') && has('inputs') ? datasetsOf(id) : [],
      inputs: links(id, 'RUN_INPUT', 'MODEL_INPUT').map(({ model }) => model),
      outputs: links(id, 'RUN_OUTPUT', 'MODEL_OUTPUT'),
    }
  }

  function datasetsOf(run: string): SourceRun['datasets'] {
    const rows = all(
      `select i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, d.dataset_profile
       from inputs i join datasets d on d.dataset_uuid = i.source_id where i.source_type = 'DATASET' and i.destination_type = 'RUN' and i.destination_id = ?`,
      run,
    )
    return rows.map(row => ({
      name: text('a dataset', row['name']),
      digest: text('a digest', row['digest']),
      sourceType: text('a source type', row['dataset_source_type']),
      source: text('a source', row['dataset_source']),
      schema: optional('a schema', row['dataset_schema']),
      profile: optional('a profile', row['dataset_profile']),
      tags: has('input_tags')
        ? pairs('select name as key, value from input_tags where input_uuid = ?', text('an input', row['input_uuid']))
        : [],
    }))
  }

  function links(run: string, from: string, to: string): { model: string; step: number }[] {
    if (!has('inputs')) return []
    const step = columnsOf('inputs').has('step') ? 'step' : '0 as step'
    return all(
      `select destination_id, ${step} from inputs where source_type = ? and source_id = ? and destination_type = ?`,
      from,
      run,
      to,
    ).map(row => ({
      model: modelId(text('a model', row['destination_id'])),
      step: whole('a step', row['step'] ?? 0),
    }))
  }

  function model(row: Row): SourceModel {
    const id = modelId(text('the id of a model', row['model_id']))
    const named = columnsOf('logged_model_metrics').has('dataset_name')
      ? 'dataset_name, dataset_digest'
      : 'null as dataset_name, null as dataset_digest'
    const metrics = has('logged_model_metrics')
      ? all(
          `select metric_name, metric_value, metric_timestamp_ms, metric_step, run_id, ${named} from logged_model_metrics where model_id = ?`,
          id,
        )
      : []
    return {
      id,
      experiment: String(row['experiment_id']),
      name: text('the name of a model', row['name']),
      type: optional('the type of a model', row['model_type']),
      status: modelStatus(whole('the status of a model', row['status'])),
      message: optional('a message', row['status_message']),
      run: optional('a run', row['source_run_id']) || null,
      location: text('a location', row['artifact_location']),
      created: time(row['creation_timestamp_ms']) ?? 0,
      updated: time(row['last_updated_timestamp_ms']) ?? 0,
      deleted: row['lifecycle_stage'] === 'deleted',
      params: has('logged_model_params')
        ? pairs('select param_key as key, param_value as value from logged_model_params where model_id = ?', id)
        : [],
      tags: has('logged_model_tags')
        ? pairs('select tag_key as key, tag_value as value from logged_model_tags where model_id = ?', id)
        : [],
      metrics: metrics.map(each => ({
        key: text('a metric', each['metric_name']),
        ...point(each, 'metric_value', 'metric_timestamp_ms', 'metric_step'),
        run: text('a run', each['run_id']),
        datasetName: optional('a dataset', each['dataset_name']) ?? '',
        datasetDigest: optional('a digest', each['dataset_digest']) ?? '',
      })),
    }
  }

  function registered(row: Row): SourceRegistered {
    const name = text('the name of a model', row['name'])
    const versions = all(
      `select version, creation_time, last_updated_time, description, user_id, current_stage, source, run_id, run_link from model_versions
       where name = ? and ${own('model_versions')} order by version`,
      name,
    )
    return {
      name,
      description: optional('a description', row['description']) || null,
      created: time(row['creation_time']) ?? 0,
      updated: time(row['last_updated_time']) ?? 0,
      tags: pairs(`select key, value from registered_model_tags where name = ? and ${own('registered_model_tags')}`, name),
      aliases: has('registered_model_aliases')
        ? all(`select alias, version from registered_model_aliases where name = ? and ${own('registered_model_aliases')}`, name).map(
            each => ({
              alias: text('an alias', each['alias']),
              version: whole('a version', each['version']),
            }),
          )
        : [],
      versions: versions.map(each => {
        const version = whole('a version', each['version'])
        return {
          version,
          created: time(each['creation_time']) ?? 0,
          updated: time(each['last_updated_time']) ?? 0,
          description: optional('a description', each['description']) || null,
          user: optional('a user', each['user_id']) ?? '',
          stage: optional('a stage', each['current_stage']) ?? 'None',
          source: optional('a source', each['source']) ?? '',
          run: optional('a run', each['run_id']) || null,
          runLink: optional('a link', each['run_link']) || null,
          deleted: each['current_stage'] === 'Deleted_Internal',
          tags: pairs(
            `select key, value from model_version_tags where name = ? and version = ? and ${own('model_version_tags')}`,
            name,
            version,
          ),
        }
      }),
    }
  }
}

// ── what is in the file ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Plain tables with plain columns; a view or a virtual table of that name would be somebody's trap. throws import_source_unknown */
function checkSchema(db: DatabaseSync, path: string): Map<string, Set<string>> {
  const found = guarded(() => db.prepare("select name, type, sql from sqlite_master where type in ('table', 'view')").all()) as Row[]
  const tables = new Map<string, Set<string>>()
  for (const { name, type, sql } of found) {
    if (typeof name !== 'string' || !(Object.hasOwn(needed, name) || Object.hasOwn(later, name) || Object.hasOwn(without, name))) continue
    if (type !== 'table' || !/^\s*create\s+table\b/i.test(String(sql))) throw damaged(`${shown(name)} in it is no plain table`)
    const columns = guarded(() => db.prepare('select name from pragma_table_info(?)').all(name)) as Row[]
    tables.set(name, new Set(columns.map(column => String(column['name']))))
  }
  const lacking = (wanted: typeof needed, optional: boolean) =>
    Object.entries(wanted).flatMap(([table, columns]) => {
      const own = tables.get(table)
      if (!own) return optional ? [] : [table]
      return columns.filter(column => !own.has(column)).map(column => `${table}.${column}`)
    })
  const missing = [...lacking(needed, false), ...lacking(later, true)]
  if (missing.length > 0)
    throw new Failure('import_source_unknown', { source: path, problem: `it lacks ${missing.slice(0, 5).join(', ')}` })
  return tables
}

function text(what: string, value: unknown): string {
  if (typeof value !== 'string') throw damaged(`${what} is ${shown(value)}, which is no text`)
  return clean(value)
}
const optional = (what: string, value: unknown): string | null => (value === null || value === undefined ? null : text(what, value))
const time = (value: unknown): number | null => (value === null || value === undefined ? null : whole('a time', value))
function point(row: Row, value: string, timestamp: string, step: string) {
  const number = row[value] === null ? Number.NaN : Number(row[value])
  if (typeof row[value] !== 'number' && typeof row[value] !== 'bigint' && row[value] !== null)
    throw damaged(`a value is ${shown(row[value])}, which is no number`)
  return { value: unbounded(number), timestamp: whole('a time', row[timestamp] ?? 0), step: whole('a step', row[step] ?? 0) }
}

/** What SQLite says of a file that is none, or is broken, or is held by somebody. */
function guarded<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw asFailure(error)
  }
}
function* guardedRows(rows: Iterable<Row>): Generator<Row> {
  const iterator = rows[Symbol.iterator]()
  for (;;) {
    const { done, value } = guarded(() => iterator.next())
    if (done) return
    yield value
  }
}
function asFailure(error: unknown): unknown {
  const { code, errstr = '', message = '' } = error as { code?: string; errstr?: string; message?: string }
  return code === 'ERR_SQLITE_ERROR' ? damaged(errstr || message) : error
}
