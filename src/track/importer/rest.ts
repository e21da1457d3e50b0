/** An MLflow server by its REST API, 2.0 or newer: what its own clients read, page by page. Answers are checked before they are believed. */
import { Readable } from 'node:stream'
import { z } from 'zod'
import { Failure } from '../../failure.ts'
import {
  clean,
  damaged,
  modelId,
  type Owner,
  runId,
  runStatus,
  type Source,
  type SourceFile,
  type SourceModel,
  type SourceRegistered,
  type SourceRun,
  shown,
  unbounded,
  whole,
} from './source.ts'

// ── what a server answers ───────────────────────────────────────────────────────────────────────────────────────────────────

const text = z.string().transform(clean)
const integer = z.union([z.number(), z.string()]).transform(value => whole('a number', value))
const double = z.union([z.number(), z.enum(['NaN', 'Infinity', '-Infinity'])]).transform(value => unbounded(Number(value)))
const tags = z.array(z.object({ key: text, value: text.default('') })).default([])
const page = { next_page_token: z.string().optional() }

const Experiments = z.object({
  ...page,
  experiments: z
    .array(
      z.object({
        experiment_id: z.string(),
        name: text,
        artifact_location: text.default(''),
        lifecycle_stage: z.string().default('active'),
        creation_time: integer.default(0),
        last_update_time: integer.default(0),
        tags,
      }),
    )
    .default([]),
})
const Metric = z.object({ key: text, value: double.default(0), timestamp: integer.default(0), step: integer.default(0) })
const Dataset = z.object({
  name: text,
  digest: text,
  source_type: text.default(''),
  source: text.default(''),
  schema: text.optional(),
  profile: text.optional(),
})
const Runs = z.object({
  ...page,
  runs: z
    .array(
      z.object({
        info: z.object({
          run_id: z.string(),
          experiment_id: z.string(),
          run_name: text.default(''),
          user_id: text.default(''),
          status: z.string().default('RUNNING'),
          start_time: integer.default(0),
          end_time: integer.optional(),
          artifact_uri: text.default(''),
          lifecycle_stage: z.string().default('active'),
        }),
        data: z.object({ metrics: z.array(Metric).default([]), params: tags, tags }).default({ metrics: [], params: [], tags: [] }),
        inputs: z
          .object({
            dataset_inputs: z.array(z.object({ tags, dataset: Dataset })).default([]),
            model_inputs: z.array(z.object({ model_id: z.string() })).default([]),
          })
          .default({ dataset_inputs: [], model_inputs: [] }),
        outputs: z
          .object({ model_outputs: z.array(z.object({ model_id: z.string(), step: integer.default(0) })).default([]) })
          .default({ model_outputs: [] }),
      }),
    )
    .default([]),
})
const History = z.object({ ...page, metrics: z.array(Metric).default([]) })
const Models = z.object({
  ...page,
  models: z
    .array(
      z.object({
        info: z.object({
          model_id: z.string(),
          experiment_id: z.string(),
          name: text,
          creation_timestamp_ms: integer.default(0),
          last_updated_timestamp_ms: integer.default(0),
          artifact_uri: text.default(''),
          status: z.string().default('LOGGED_MODEL_PENDING'),
          model_type: text.optional(),
          source_run_id: text.optional(),
          status_message: text.optional(),
          tags,
        }),
        data: z
          .object({
            params: tags,
            metrics: z
              .array(Metric.extend({ run_id: text.default(''), dataset_name: text.default(''), dataset_digest: text.default('') }))
              .default([]),
          })
          .default({ params: [], metrics: [] }),
      }),
    )
    .default([]),
})
const RegisteredModels = z.object({
  ...page,
  registered_models: z
    .array(
      z.object({
        name: text,
        description: text.optional(),
        creation_timestamp: integer.default(0),
        last_updated_timestamp: integer.default(0),
        tags,
        aliases: z.array(z.object({ alias: text, version: integer })).default([]),
      }),
    )
    .default([]),
})
const Versions = z.object({
  ...page,
  model_versions: z
    .array(
      z.object({
        version: integer,
        creation_timestamp: integer.default(0),
        last_updated_timestamp: integer.default(0),
        description: text.optional(),
        user_id: text.default(''),
        current_stage: z.string().default('None'),
        source: text.default(''),
        run_id: text.optional(),
        run_link: text.optional(),
        tags,
      }),
    )
    .default([]),
})
const Files = z.object({
  files: z.array(z.object({ path: z.string(), is_dir: z.boolean().default(false), file_size: integer.default(0) })).default([]),
})
const statuses = { LOGGED_MODEL_PENDING: 'pending', LOGGED_MODEL_READY: 'ready', LOGGED_MODEL_UPLOAD_FAILED: 'upload_failed' } as const

// ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const mostBytes = 256 * 2 ** 20
const patience = 120_000 // milliseconds, for an answer to begin
const tries = 4

interface Server {
  url: string
  authorization: string | null
  signal: AbortSignal | undefined
}

/** `url`: as in MLFLOW_TRACKING_URI, a path in front included. throws import_unreachable, import_refused, import_source_unknown */
export async function openRestSource(address: string, { authorization, signal }: Omit<Server, 'url'>): Promise<Source> {
  const url = new URL(address)
  if (url.username || url.password)
    throw new Failure('import_source_unknown', {
      source: url.host,
      problem: 'a password does not belong into an address that others can read; use MLFLOW_TRACKING_TOKEN, or …_USERNAME and …_PASSWORD',
    })
  const server: Server = { url: `${url.origin}${url.pathname.replace(/\/+$/, '')}`, authorization, signal }
  const found: z.infer<typeof Experiments>['experiments'] = []
  for await (const each of pages(server, 'experiments/search', Experiments, { view_type: 'ALL', max_results: 1000 }))
    found.push(...each.experiments)
  return source(server, found)
}

function source(server: Server, experiments: z.infer<typeof Experiments>['experiments']): Source {
  const newest: { models: boolean | null } = { models: null }
  const runsIn = (experiment: string, max_results: number) =>
    pages(server, 'runs/search', Runs, {
      experiment_ids: [experiment],
      run_view_type: 'ALL',
      max_results,
      order_by: ['attribute.start_time ASC'],
    })
  const metricsOf = new Map<string, string[]>()
  const closed = new Set<string>()
  return {
    async totalRuns() {
      let total = 0
      for (const { experiment_id } of experiments) for await (const { runs } of runsIn(experiment_id, 1000)) total += runs.length
      return total
    },
    async *experiments() {
      for (const each of experiments)
        yield {
          id: each.experiment_id,
          name: each.name,
          location: each.artifact_location,
          created: each.creation_time,
          updated: each.last_update_time,
          deleted: each.lifecycle_stage === 'deleted',
          tags: each.tags,
        }
    },
    async *runs() {
      for (const { experiment_id } of experiments)
        for await (const { runs } of runsIn(experiment_id, 200))
          for (const run of runs) {
            const id = runId(run.info.run_id)
            metricsOf.set(
              id,
              run.data.metrics.map(({ key }) => key),
            )
            yield asRun(run)
            metricsOf.delete(id)
          }
    },
    countPoints: async () => null,
    async *points({ id }) {
      for (const key of metricsOf.get(id) ?? [])
        for await (const { metrics } of pages(
          server,
          'metrics/get-history',
          History,
          { run_id: id, metric_key: key, max_results: 25_000 },
          'GET',
        ))
          yield metrics
    },
    async *models() {
      for (const { experiment_id } of experiments) {
        if (newest.models === false) return // before 3.0 there were none
        try {
          for await (const { models } of pages(server, 'logged-models/search', Models, {
            experiment_ids: [experiment_id],
            max_results: 50,
          }))
            for (const model of models) yield asModel(model)
          newest.models = true
        } catch (error) {
          if (newest.models === null && error instanceof Failure && error.details['status'] === 404) newest.models = false
          else throw error
        }
      }
    },
    async *registered() {
      const seen = new Set<string>()
      for (const filter of [undefined, "tag.`mlflow.prompt.is_prompt` = 'true'"]) // prompts are not among the first
        for await (const { registered_models } of pages(
          server,
          'registered-models/search',
          RegisteredModels,
          { max_results: 100, ...(filter && { filter }) },
          'GET',
        ))
          for (const model of registered_models) {
            if (seen.has(model.name)) continue
            seen.add(model.name)
            yield await withVersions(server, model, filter !== undefined)
          }
    },
    files: owner => filesOf(server, owner, closed),
    async left() {
      return {}
    },
    close() {},
  }
}

const asRun = ({ info, data, inputs, outputs }: z.infer<typeof Runs>['runs'][number]): SourceRun => ({
  id: runId(info.run_id),
  experiment: info.experiment_id,
  name: info.run_name,
  user: info.user_id,
  status: runStatus(info.status),
  started: info.start_time,
  ended: info.end_time ?? null,
  deleted: info.lifecycle_stage === 'deleted',
  location: info.artifact_uri,
  params: data.params,
  tags: data.tags,
  datasets: inputs.dataset_inputs.map(({ dataset: { name, digest, source_type, source, schema, profile }, tags }) => ({
    ...{ name, digest, sourceType: source_type, source, schema: schema ?? null, profile: profile ?? null, tags },
  })),
  inputs: inputs.model_inputs.map(({ model_id }) => modelId(model_id)),
  outputs: outputs.model_outputs.map(({ model_id, step }) => ({ model: modelId(model_id), step })),
})

const asModel = ({ info, data }: z.infer<typeof Models>['models'][number]): SourceModel => ({
  id: modelId(info.model_id),
  experiment: info.experiment_id,
  name: info.name,
  type: info.model_type ?? null,
  status: statuses[info.status as keyof typeof statuses] ?? 'pending',
  message: info.status_message ?? null,
  run: info.source_run_id || null,
  location: info.artifact_uri,
  created: info.creation_timestamp_ms,
  updated: info.last_updated_timestamp_ms,
  deleted: false,
  params: data.params,
  tags: info.tags,
  metrics: data.metrics.map(({ run_id, dataset_name, dataset_digest, ...point }) => ({
    ...point,
    run: run_id,
    datasetName: dataset_name,
    datasetDigest: dataset_digest,
  })),
})

async function withVersions(
  server: Server,
  model: z.infer<typeof RegisteredModels>['registered_models'][number],
  prompt: boolean,
): Promise<SourceRegistered> {
  const { name, description, creation_timestamp, last_updated_timestamp, tags, aliases } = model
  const quoted = name.includes("'") ? `"${name}"` : `'${name}'`
  const filter = `name = ${quoted}${prompt ? " and tag.`mlflow.prompt.is_prompt` = 'true'" : ''}`
  const versions: SourceRegistered['versions'] = []
  for await (const page of pages(server, 'model-versions/search', Versions, { filter, max_results: 1000 }, 'GET'))
    for (const {
      version,
      creation_timestamp,
      last_updated_timestamp,
      description,
      user_id,
      current_stage,
      source,
      run_id,
      run_link,
      tags,
    } of page.model_versions)
      versions.push({
        ...{ version, created: creation_timestamp, updated: last_updated_timestamp, description: description || null, user: user_id },
        ...{ stage: current_stage, source, run: run_id || null, runLink: run_link || null, deleted: false, tags },
      })
  return { name, description: description || null, created: creation_timestamp, updated: last_updated_timestamp, tags, aliases, versions }
}

// ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const proxied = '/api/2.0/mlflow-artifacts/artifacts'

/**
 * Through the server, wherever it keeps them: by their path where it is the store, else by their run or model. Null where it does not reach
 * them either; `closed` remembers those stores, so that it is not asked for every run.
 */
async function filesOf(server: Server, { kind, id, location }: Owner, closed: Set<string>): Promise<AsyncIterable<SourceFile> | null> {
  const path = /^mlflow-artifacts:\/(?!\/)/.test(location)
    ? location.slice('mlflow-artifacts:/'.length).replace(/^\/+/, '')
    : location.startsWith(`${server.url}${proxied}/`)
      ? location.slice(server.url.length + proxied.length + 1)
      : null
  const list = async (folder: string): Promise<z.infer<typeof Files>['files']> => {
    if (path !== null) {
      const { files } = await get(
        server,
        `${server.url}${proxied}?path=${encodeURIComponent(folder === '' ? path : `${path}/${folder}`)}`,
        Files,
      )
      return files.map(file => ({ ...file, path: folder === '' ? file.path : `${folder}/${file.path}` }))
    }
    const query =
      kind === 'run' ? `artifacts/list?run_id=${id}&path=` : `logged-models/${id}/artifacts/directories?artifact_directory_path=`
    return (await get(server, `${server.url}/api/2.0/mlflow/${query}${encodeURIComponent(folder)}`, Files)).files
  }
  const addressOf = (file: string) =>
    path !== null
      ? `${server.url}${proxied}/${[...path.split('/'), ...file.split('/')].map(encodeURIComponent).join('/')}`
      : kind === 'run'
        ? `${server.url}/get-artifact?run_id=${id}&path=${encodeURIComponent(file)}`
        : `${server.url}/ajax-api/2.0/mlflow/logged-models/${id}/artifacts/files?artifact_file_path=${encodeURIComponent(file)}`
  if (path !== null) return walk('', () => list(''), 0)
  const store = /^[a-z][a-z0-9+.-]*:\/\/[^/]*/i.exec(location)?.[0] ?? 'a path'
  if (closed.has(store)) return null
  try {
    const first = await list('')
    return walk('', async () => first, 0)
  } catch (error) {
    if (!(error instanceof Failure) || !['import_refused', 'import_unreachable'].includes(error.code)) throw error
    closed.add(store)
    return null
  }

  async function* walk(folder: string, listed: () => ReturnType<typeof list>, depth: number): AsyncGenerator<SourceFile> {
    if (depth > 50) throw damaged(`folders of ${kind} ${id} lie in each other without an end`)
    for (const { path: file, is_dir, file_size } of await listed()) {
      if (!file.startsWith(folder === '' ? '' : `${folder}/`) || file === folder)
        throw damaged(`in ${shown(folder)} it lists ${shown(file)}`)
      if (is_dir) yield* walk(file, () => list(file), depth + 1)
      else
        yield {
          path: file,
          bytes: file_size,
          open: async () => Readable.fromWeb((await ask(server, addressOf(file))).body! as import('node:stream/web').ReadableStream),
        }
    }
  }
}

// ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** All pages; a token that comes twice would never end. */
async function* pages<Schema extends z.ZodType<{ next_page_token?: string | undefined }>>(
  server: Server,
  path: string,
  schema: Schema,
  message: Record<string, unknown>,
  method: 'GET' | 'POST' = 'POST',
): AsyncGenerator<z.output<Schema>> {
  const seen = new Set<string>()
  for (let token: string | undefined; ; ) {
    const asked = { ...message, ...(token && { page_token: token }) }
    const url = `${server.url}/api/2.0/mlflow/${path}`
    const query = new URLSearchParams(Object.entries(asked).map(([name, value]): [string, string] => [name, String(value)]))
    const answer = method === 'GET' ? await get(server, `${url}?${query}`, schema) : await get(server, url, schema, asked)
    yield answer
    token = answer.next_page_token || undefined
    if (!token) return
    if (seen.has(token)) throw damaged(`its pages of ${path} go round in a circle`)
    seen.add(token)
  }
}

async function get<Schema extends z.ZodType>(server: Server, url: string, schema: Schema, body?: unknown): Promise<z.output<Schema>> {
  const response = await ask(server, url, body)
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > mostBytes) throw damaged(`an answer of it is larger than ${mostBytes / 2 ** 20} MB`)
    chunks.push(chunk)
  }
  const read = schema.safeParse(parsed(Buffer.concat(chunks).toString()))
  if (!read.success)
    throw damaged(
      `what it answers to ${new URL(url).pathname} is not what MLflow answers: ${read.error.issues[0]?.path.join('.')} ${read.error.issues[0]?.message}`,
    )
  return read.data
}
function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** throws import_unreachable after some tries, import_refused for what will not get better */
async function ask({ authorization, signal }: Server, url: string, body?: unknown): Promise<Response> {
  const { pathname, host } = new URL(url)
  for (let attempt = 1; ; attempt++) {
    const waiting = AbortSignal.timeout(patience)
    let problem: string
    try {
      const response = await fetch(url, {
        method: body === undefined ? 'GET' : 'POST',
        headers: { ...(authorization && { authorization }), ...(body !== undefined && { 'content-type': 'application/json' }) },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        redirect: 'error', // another host is another question
        signal: signal ? AbortSignal.any([signal, waiting]) : waiting,
      })
      if (response.ok) return response
      const told = (await response.text()).slice(0, 300)
      if (response.status < 500 && response.status !== 429)
        throw new Failure('import_refused', { host, path: pathname, status: response.status, told })
      problem = `${response.status} ${told}`
    } catch (error) {
      if (error instanceof Failure) throw error
      signal?.throwIfAborted()
      const cause = (error as Error).cause as NodeJS.ErrnoException | undefined
      problem = cause?.code ?? cause?.message ?? (error as Error).message
    }
    if (attempt >= tries) throw new Failure('import_unreachable', { host, problem: clean(problem).slice(0, 300) })
    await new Promise(resolve => setTimeout(resolve, 250 * 2 ** attempt))
  }
}
