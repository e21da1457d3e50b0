/** The folder `mlruns` of an MLflow without a server: one folder a run, one file a param, a tag, a metric. Links in it are not followed. */
import { existsSync } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Failure } from '../../failure.ts'
import { localFiles } from './local-files.ts'
import {
  clean,
  damaged,
  modelId,
  modelStatus,
  type Pair,
  runId,
  type Source,
  type SourceModel,
  type SourcePoint,
  type SourceRegistered,
  type SourceRun,
  shown,
  unbounded,
  whole,
} from './source.ts'
import { readRecord, type YamlRecord } from './yaml-record.ts'

const statuses = ['running', 'running', 'queued', 'succeeded', 'failed', 'cancelled'] as const
/** No param, tag or description is longer; the profile of a dataset may be. */
const mostBytes = 64 * 2 ** 20
const trash = '.trash'

/** throws import_source_unknown */
export async function openFileStore(path: string, { artifacts }: { artifacts: string | null }): Promise<Source> {
  const root = resolve(path)
  const folders = await foldersIn(root)
  const isStore =
    folders.some(folder => /^\d{1,20}$/.test(folder) && existsSync(join(root, folder, 'meta.yaml'))) || existsSync(join(root, 'models'))
  if (!isStore) throw new Failure('import_source_unknown', { source: path, problem: 'it holds no experiments with a meta.yaml' })
  const kept = { experiments: await experimentsIn(root), traces: 0 }
  const folderOf = new Map(kept.experiments.map(({ id, folder }) => [id, folder]))

  return {
    async totalRuns() {
      let total = 0
      for (const { folder } of kept.experiments) total += (await runsIn(folder)).length
      return total
    },
    async *experiments() {
      for (const { id, folder, record } of kept.experiments)
        yield {
          id,
          name: textOf(record, 'name', folder),
          location: optionalOf(record, 'artifact_location') ?? '',
          created: wholeOf(record, 'creation_time') ?? 0,
          updated: wholeOf(record, 'last_update_time') ?? 0,
          deleted: folder.includes(`/${trash}/`) || optionalOf(record, 'lifecycle_stage') === 'deleted',
          tags: await pairsIn(join(folder, 'tags')),
        }
    },
    async *runs() {
      for (const { id, folder } of kept.experiments) for (const run of await runsIn(folder)) yield await readRun(folder, run, id)
    },
    countPoints: async () => null,
    async *points({ id, experiment }) {
      for (const { name, path } of await filesUnder(join(folderOf.get(experiment)!, id, 'metrics'))) yield* pointsIn(path, name)
    },
    async *models() {
      for (const { id, folder } of kept.experiments)
        for (const model of await foldersIn(join(folder, 'models')))
          if (/^m-[0-9a-f]{32}$/.test(model)) yield await readModel(join(folder, 'models', model), id)
    },
    async *registered() {
      for (const name of await foldersIn(join(root, 'models'))) {
        const folder = join(root, 'models', name)
        if (existsSync(join(folder, 'meta.yaml'))) yield await readRegistered(folder)
      }
    },
    // where the folder was moved since, its records still name the old place
    files: async owner =>
      localFiles(owner, {
        location: movedHere(owner.location, root, kept.experiments),
        roots: [root, ...(artifacts ? [artifacts] : [])],
        artifacts: artifacts ?? beside(root),
      }),
    async left(): Promise<Record<string, number>> {
      let traces = 0
      for (const { folder } of kept.experiments) traces += (await foldersIn(join(folder, 'traces'))).length
      return traces > 0 ? { traces } : {}
    },
    close() {},
  }
}

const beside = (root: string) => (existsSync(join(dirname(root), 'mlartifacts')) ? join(dirname(root), 'mlartifacts') : null)

function movedHere(location: string, root: string, experiments: readonly { id: string; folder: string }[]): string {
  const path = location.replace(/^file:\/\/(localhost)?(?=\/)/i, '')
  if (!path.startsWith('/') || existsSync(path)) return location
  for (const { id, folder } of experiments) {
    const at = path.lastIndexOf(`/${id}/`)
    if (at >= 0) return join(folder, path.slice(at + id.length + 2))
  }
  return location.startsWith(root) ? location : path
}

interface Found {
  id: string
  folder: string
  record: YamlRecord
}
async function experimentsIn(root: string): Promise<Found[]> {
  const found: Found[] = []
  for (const place of [root, join(root, trash)])
    for (const name of await foldersIn(place)) {
      const folder = join(place, name)
      if (!/^[A-Za-z0-9][\w-]{0,63}$/.test(name) || name === 'models' || !existsSync(join(folder, 'meta.yaml'))) continue
      const record = await recordIn(folder)
      found.push({ id: String(record.get('experiment_id') ?? name), folder, record })
    }
  return found
}

const runsIn = async (folder: string) => {
  const runs: string[] = []
  for (const name of await foldersIn(folder))
    if (/^[0-9a-f]{32}$/.test(name) && existsSync(join(folder, name, 'meta.yaml'))) runs.push(name)
  return runs
}

async function readRun(experimentFolder: string, name: string, experiment: string): Promise<SourceRun> {
  const folder = join(experimentFolder, name)
  const record = await recordIn(folder)
  const id = runId(String(record.get('run_id') ?? record.get('run_uuid') ?? name))
  if (id !== name) throw damaged(`the folder of run ${shown(name)} says that it is ${shown(id)}`)
  const datasets: SourceRun['datasets'] = []
  const inputs: string[] = []
  for (const input of await foldersIn(join(folder, 'inputs'))) {
    const link = await recordIn(join(folder, 'inputs', input))
    if (optionalOf(link, 'source_type') !== 'DATASET') {
      inputs.push(modelId(textOf(link, 'destination_id', input)))
      continue
    }
    const dataset = plainName(textOf(link, 'source_id', input))
    const about = await recordIn(join(experimentFolder, 'datasets', dataset))
    datasets.push({
      name: textOf(about, 'name', dataset),
      digest: textOf(about, 'digest', dataset),
      sourceType: optionalOf(about, 'source_type') ?? '',
      source: optionalOf(about, 'source') ?? '',
      schema: optionalOf(about, 'schema'),
      profile: optionalOf(about, 'profile'),
      tags: mapOf(link, 'tags'),
    })
  }
  const outputs: SourceRun['outputs'] = []
  for (const output of await foldersIn(join(folder, 'outputs'))) {
    const link = await recordIn(join(folder, 'outputs', output))
    outputs.push({ model: modelId(textOf(link, 'destination_id', output)), step: wholeOf(link, 'step') ?? 0 })
  }
  return {
    id,
    experiment,
    name: optionalOf(record, 'run_name') ?? optionalOf(record, 'name') ?? '',
    user: optionalOf(record, 'user_id') ?? '',
    status: statuses[wholeOf(record, 'status') ?? 1] ?? 'running',
    started: wholeOf(record, 'start_time') ?? 0,
    ended: wholeOf(record, 'end_time'),
    deleted: optionalOf(record, 'lifecycle_stage') === 'deleted',
    location: optionalOf(record, 'artifact_uri') ?? '',
    params: await pairsIn(join(folder, 'params')),
    tags: await pairsIn(join(folder, 'tags')),
    ...{ datasets, inputs, outputs },
  }
}

async function readModel(folder: string, experiment: string): Promise<SourceModel> {
  const record = await recordIn(folder)
  const metrics: SourceModel['metrics'] = []
  for (const { name, path } of await filesUnder(join(folder, 'metrics')))
    for await (const [timestamp, value, step, run = '', datasetName = '', datasetDigest = ''] of fieldsOf(path))
      metrics.push({ ...pointOf(name, timestamp, value, step), run, datasetName, datasetDigest })
  return {
    id: modelId(textOf(record, 'model_id', folder)),
    experiment,
    name: optionalOf(record, 'name') ?? 'model',
    type: optionalOf(record, 'model_type'),
    status: modelStatus(wholeOf(record, 'status') ?? 1),
    message: optionalOf(record, 'status_message'),
    run: optionalOf(record, 'source_run_id'),
    location: optionalOf(record, 'artifact_location') ?? '',
    created: wholeOf(record, 'creation_timestamp') ?? 0,
    updated: wholeOf(record, 'last_updated_timestamp') ?? 0,
    deleted: optionalOf(record, 'lifecycle_stage') === 'deleted',
    params: await pairsIn(join(folder, 'params')),
    tags: await pairsIn(join(folder, 'tags')),
    metrics,
  }
}

async function readRegistered(folder: string): Promise<SourceRegistered> {
  const record = await recordIn(folder)
  const name = textOf(record, 'name', folder)
  const versions: SourceRegistered['versions'] = []
  for (const each of await foldersIn(folder)) {
    const [, number] = /^version-(\d{1,9})$/.exec(each) ?? []
    if (!number) continue
    const version = await recordIn(join(folder, each))
    versions.push({
      version: Number(number),
      created: wholeOf(version, 'creation_timestamp') ?? 0,
      updated: wholeOf(version, 'last_updated_timestamp') ?? 0,
      description: optionalOf(version, 'description'),
      user: optionalOf(version, 'user_id') ?? '',
      stage: optionalOf(version, 'current_stage') ?? 'None',
      source: optionalOf(version, 'source') ?? '',
      run: optionalOf(version, 'run_id'),
      runLink: optionalOf(version, 'run_link'),
      deleted: optionalOf(version, 'current_stage') === 'Deleted_Internal',
      tags: await pairsIn(join(folder, each, 'tags')),
    })
  }
  const aliases = await pairsIn(join(folder, 'aliases'))
  return {
    name,
    description: optionalOf(record, 'description'),
    created: wholeOf(record, 'creation_timestamp') ?? 0,
    updated: wholeOf(record, 'last_updated_timestamp') ?? 0,
    tags: await pairsIn(join(folder, 'tags')),
    aliases: aliases.map(({ key, value }) => ({ alias: key, version: whole('a version', value.trim()) })),
    versions: versions.toSorted((a, b) => a.version - b.version),
  }
}

// ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function foldersIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(missing)
  return entries
    .filter(entry => entry.isDirectory())
    .map(({ name }) => name)
    .toSorted()
}
const missing = (error: NodeJS.ErrnoException): [] => {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return []
  throw error
}

/** A name with / in it is a file in folders. */
async function filesUnder(folder: string, at = ''): Promise<{ name: string; path: string }[]> {
  const found: { name: string; path: string }[] = []
  for (const entry of await readdir(join(folder, at), { withFileTypes: true }).catch(missing)) {
    const name = at === '' ? entry.name : `${at}/${entry.name}`
    if (entry.isDirectory()) found.push(...(await filesUnder(folder, name)))
    else if (entry.isFile()) found.push({ name: clean(name), path: join(folder, name) })
  }
  return found
}

const pairsIn = async (folder: string): Promise<Pair[]> =>
  Promise.all((await filesUnder(folder)).map(async ({ name, path }) => ({ key: name, value: await contentOf(path) })))

async function contentOf(path: string): Promise<string> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    if (size > mostBytes) throw damaged(`${shown(path)} has ${size} bytes`)
    return clean((await file.readFile()).toString())
  } finally {
    await file.close()
  }
}

async function* fieldsOf(path: string): AsyncGenerator<string[]> {
  const file = await open(path, 'r')
  try {
    for await (const line of file.readLines()) {
      if (line.length > 10_000) throw damaged(`${shown(path)} has a line without an end`)
      if (line.trim() !== '') yield line.trim().split(' ').map(clean)
    }
  } finally {
    await file.close()
  }
}

async function* pointsIn(path: string, key: string): AsyncGenerator<SourcePoint[]> {
  let batch: SourcePoint[] = []
  const seen = new Set<string>() // the folder keeps a point that was sent again twice
  for await (const fields of fieldsOf(path)) {
    const [timestamp, value, step] = fields
    const line = fields.join(' ')
    if (seen.has(line)) continue
    seen.add(line)
    batch.push(pointOf(key, timestamp, value, step))
    if (batch.length < 5000) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

const special: Record<string, number> = { nan: Number.NaN, inf: Number.POSITIVE_INFINITY, '-inf': Number.NEGATIVE_INFINITY }
function pointOf(key: string, timestamp = '', value = '', step = '0'): SourcePoint {
  const number = special[value.toLowerCase()] ?? (/^[-+.\deE]+$/.test(value) ? Number(value) : Number.NaN)
  if (Number.isNaN(number) && value.toLowerCase() !== 'nan') throw damaged(`the metric ${shown(key)} has the value ${shown(value)}`)
  return { key, value: unbounded(number), timestamp: whole('a time', timestamp), step: whole('a step', step) }
}

// ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const recordIn = async (folder: string): Promise<YamlRecord> => {
  const path = join(folder, 'meta.yaml')
  return readRecord(
    await contentOf(path).catch(error => {
      if (error instanceof Failure) throw error
      throw damaged(`${shown(path)} cannot be read`)
    }),
    path,
  )
}
function optionalOf(record: YamlRecord, field: string): string | null {
  const value = record.get(field)
  return value === null || value === undefined || typeof value === 'object' ? null : clean(String(value))
}
function textOf(record: YamlRecord, field: string, of: string): string {
  const value = optionalOf(record, field)
  if (value === null) throw damaged(`${shown(of)} has no ${field}`)
  return value
}
function wholeOf(record: YamlRecord, field: string): number | null {
  const value = record.get(field)
  return value === null || value === undefined ? null : whole(field, value)
}
function mapOf(record: YamlRecord, field: string): Pair[] {
  const map = record.get(field)
  return map instanceof Map ? [...map].map(([key, value]) => ({ key: clean(key), value: clean(String(value ?? '')) })) : []
}
function plainName(name: string): string {
  if (!/^[\w-]{1,64}$/.test(name)) throw damaged(`something is called ${shown(name)}, which is no plain name`)
  return name
}
