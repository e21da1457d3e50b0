/**
 * A job file: SkyPilot's task YAML by its keys and their meaning, and one key more, `ext`, for what SkyPilot lacks. Every field of a file gets
 * a verdict, so that nobody has to guess what happened to it; only what cannot be left out without changing the job is refused.
 */
import { basename, isAbsolute, join, resolve } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { Failure } from '../../failure.ts'
import { notebookCommand } from '../environments/notebook-command.ts'
import { JobSpec, plainSpec } from '../spec.ts'
import { bytes, cores, devices } from './amounts.ts'
import { readExt } from './ext.ts'
import { Fields } from './fields.ts'

export interface FieldVerdict {
  /** `resources.use_spot` */
  field: string
  verdict: 'honoured' | 'translated' | 'ignored' | 'unsupported'
  note: string | null
}

export interface JobFile {
  spec: JobSpec
  verdicts: FieldVerdict[]
  /** Variables of each job of an array, in order; empty: it is one job. */
  array: readonly Record<string, string>[]
  /** How many jobs of an array run at once; null: as many as there is room for. */
  parallel: number | null
  /** Values of secrets that the file itself holds; they travel beside the spec. */
  secrets: Record<string, string>
  /** Names of secrets whose values the submitter has to bring. */
  missingSecrets: string[]
}

export interface JobFileOptions {
  /** For messages and as the name of a job that has none. */
  file: string
  /** Folder that relative paths start from. */
  folder: string
  /** `--envs K=V`: stands over the file's. */
  envs?: Readonly<Record<string, string>>
}

/** Bytes; a job file is written by people. */
const largest = 1_000_000

/** throws job_file_malformed, job_file_field, job_file_unsupported, job_envs_missing */
export function readJobFile(text: string, { file, folder, envs: given = {} }: JobFileOptions): JobFile {
  const fields = new Fields(documentOf(text, file), '')
  const name = fields.text('name') ?? basename(file).replace(/\.ya?ml$/, '')
  const envs = { ...variables(fields, 'envs', given), ...given }
  const secrets = secretsOf(fields, envs)
  const fill = (value: string | null) => (value === null ? null : substitute(value, envs))

  const resources = fields.section('resources')
  const ext = readExt(fields.section('ext'))
  const accelerators = resources.take('accelerators') ?? resources.take('gpus', { verdict: 'translated', note: 'read as accelerators' })
  const alternatives = [...list(resources.take('any_of')), ...list(resources.take('ordered'))]
  const cpus = resources.take('cpus')
  const memory = resources.take('memory')
  const recovery = resources.section('job_recovery')
  const strategy = recovery.text('strategy', { verdict: 'translated', note: 'a job that lost its node or was preempted is queued again' })
  const retries = recovery.number('max_restarts_on_errors')
  const exitCodes = list(recovery.take('recover_on_exit_codes')).map(Number)
  const spot = resources.take('use_spot', { verdict: 'translated', note: 'the job may be preempted, and is then queued again' }) === true
  const priority = resources.number('priority')
  const shell = fields.text('run')
  const workdir = fields.take('workdir')
  if (workdir !== null && typeof workdir !== 'string')
    fields.refuse('workdir', 'a repository is not cloned here: clone it, and give the folder')
  const disk = resources.take('disk_size')

  for (const [field, why] of Object.entries(notHere.resources)) resources.ignore(field, why)
  for (const [field, why] of Object.entries(notHere.task)) fields.ignore(field, why)
  for (const [field, why] of Object.entries(unsupported)) fields.unsupported(field, why)
  resources.imageOf('image_id')

  if (shell === null && ext.notebook === null) throw new Failure('job_file_field', { field: 'run', problem: 'there is nothing to run' })
  const spec = plainSpec(name, shell === null ? { argv: notebookCommand(ext.notebook!) } : { shell }, {
    ...ext.spec,
    workdir: workdir === null ? folder : absolute(fill(String(workdir))!, folder),
    nodes: fields.taken('num_nodes', value => Number(value ?? 1)),
    resources: {
      cpus: cpus === null ? null : cores('resources.cpus', cpus),
      memory: memory === null ? null : bytes('resources.memory', memory),
      devices: [
        ...devices('resources.accelerators', accelerators),
        ...alternatives.flatMap(each => devices('resources.any_of', acceleratorsOf(each))),
      ],
      disk: disk === null ? null : bytes('resources.disk_size', disk).amount,
      infra: resources.taken('infra', value => (value === null ? null : String(value))),
      labels: resources.taken('labels', value => textRecord('resources.labels', value)),
    },
    envs,
    secrets: secrets.names,
    setup: fields.text('setup'),
    priority: priority ?? 0,
    preemptible: spot,
    notebook: ext.notebook,
  })
  if (strategy !== null || retries !== null || exitCodes.length > 0)
    spec.retry = {
      ...spec.retry,
      on: retries ? [...new Set([...spec.retry.on, 'user_error' as const])] : spec.retry.on,
      max: retries ?? spec.retry.max,
      exitCodes,
    }
  recovery.unknown()
  resources.unknown()
  fields.unknown()
  const verdicts = [...fields.verdicts, ...resources.verdicts, ...recovery.verdicts, ...ext.verdicts]
  const bad = verdicts.filter(({ verdict }) => verdict === 'unsupported')
  if (bad.length > 0)
    throw new Failure('job_file_unsupported', {
      file: basename(file),
      fields: bad.map(({ field, note }) => `${field} (${note})`).join('; '),
    })
  return {
    spec: checked(spec),
    verdicts,
    array: ext.array,
    parallel: ext.parallel,
    secrets: secrets.values,
    missingSecrets: secrets.missing,
  }
}

const acceleratorsOf = (alternative: unknown): unknown =>
  typeof alternative === 'object' && alternative !== null ? ((alternative as Record<string, unknown>)['accelerators'] ?? null) : alternative

const notHere = {
  resources: {
    cloud: 'jobs run where Plinth runs',
    region: 'jobs run where Plinth runs',
    zone: 'jobs run where Plinth runs',
    instance_type: 'a machine is not rented',
    disk_tier: 'disks are as they are',
    network_tier: 'the network is as it is',
    autostop: 'a machine is not rented',
    ports: 'ports of this machine are open to it already',
    max_hourly_cost: 'a machine is not rented',
    local_disk: 'disks are as they are',
    accelerator_args: 'accelerators are used as they are set up',
  },
  task: {
    event_callback: 'nothing is called back',
    config: 'settings of SkyPilot itself',
    experimental: 'settings of SkyPilot itself',
    inputs: 'only a hint for planning',
    outputs: 'only a hint for planning',
  },
} as const

const unsupported = {
  service: 'services are deployed with plinth serve',
  pool: 'there are no pools of workers',
  volumes: 'volumes of a cloud cannot be attached',
  file_mounts: "nothing is mounted outside of the job's folder: give the path where the data is",
  managed_secrets: 'give the value with --secret',
} as const

function documentOf(text: string, file: string): Record<string, unknown> {
  const name = basename(file)
  if (text.length > largest) throw new Failure('job_file_malformed', { file: name, problem: 'it is larger than 1 MB' })
  let documents: ReturnType<typeof parseAllDocuments>
  try {
    documents = parseAllDocuments(text, { uniqueKeys: true, prettyErrors: true, strict: true })
  } catch (error) {
    throw new Failure('job_file_malformed', { file: name, problem: (error as Error).message.split('\n')[0]! })
  }
  const [first, ...more] = 'empty' in documents ? [] : documents
  if (!first) throw new Failure('job_file_malformed', { file: name, problem: 'it is empty' })
  if (more.length > 0)
    throw new Failure('job_file_unsupported', {
      file: name,
      fields: '--- (a pipeline of several tasks: give each a file and order them with ext.depends_on)',
    })
  const [wrong] = first.errors
  if (wrong) throw new Failure('job_file_malformed', { file: name, problem: wrong.message.split('\n')[0]! })
  let value: unknown
  try {
    value = first.toJS({ maxAliasCount: 100 })
  } catch {
    throw new Failure('job_file_malformed', { file: name, problem: 'its aliases stand for more than 100 copies' })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Failure('job_file_malformed', { file: name, problem: 'it is no list of keys such as name, resources and run' })
  return value as Record<string, unknown>
}

/** Values are text; null has to be given with the command. */
function variables(fields: Fields, field: string, given: Readonly<Record<string, string>>): Record<string, string> {
  const value = fields.take(field)
  const entries = Object.entries(textRecord(field, value, true))
  const missing = entries.filter(([name, each]) => each === null && given[name] === undefined).map(([name]) => name)
  if (missing.length > 0) throw new Failure('job_envs_missing', { names: missing.join(', '), first: missing[0]! })
  return Object.fromEntries(entries.flatMap(([name, each]) => (each === null ? [] : [[name, each]])))
}

function secretsOf(
  fields: Fields,
  envs: Readonly<Record<string, string>>,
): { values: Record<string, string>; names: string[]; missing: string[] } {
  const value = fields.take('secrets')
  if (Array.isArray(value)) {
    const names = value.filter(each => typeof each === 'string')
    if (names.length < value.length) fields.refuse('secrets', 'a list of names is needed')
    return { values: {}, names, missing: names }
  }
  const record = textRecord('secrets', value, true)
  const values = Object.fromEntries(Object.entries(record).flatMap(([name, each]) => (each === null ? [] : [[name, each]])))
  const names = Object.keys(record).filter(name => !(name in envs))
  return { values, names, missing: names.filter(name => !(name in values)) }
}

function textRecord(field: string, value: unknown, nulls?: false): Record<string, string>
function textRecord(field: string, value: unknown, nulls: true): Record<string, string | null>
function textRecord(field: string, value: unknown, nulls = false): Record<string, string | null> {
  if (value === null || value === undefined) return {}
  if (typeof value !== 'object' || Array.isArray(value))
    throw new Failure('job_file_field', { field, problem: 'names and values are needed' })
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => {
      if (each === null && nulls) return [name, null]
      if (typeof each === 'object' && each !== null)
        throw new Failure('job_file_field', { field: `${field}.${name}`, problem: 'its value is a list or an object, not a text' })
      return [name, String(each ?? '')]
    }),
  )
}

/** What no single field can say: that the whole is a spec. throws job_file_field */
function checked(spec: JobSpec): JobSpec {
  const { success, error } = JobSpec.safeParse(spec)
  if (success) return spec
  const [issue] = error.issues
  const path = issue!.path.map(part => ourWords[String(part)] ?? String(part)).join('.')
  throw new Failure('job_file_field', { field: path || 'the file', problem: issue!.message })
}

const ourWords: Readonly<Record<string, string>> = {
  nodes: 'num_nodes',
  devices: 'accelerators',
  disk: 'disk_size',
  preemptible: 'use_spot',
}

/** `${NAME}` and `$NAME` in paths, by the job's variables; the commands themselves are left to the shell. */
export const substitute = (text: string, envs: Readonly<Record<string, string>>): string =>
  text.replace(/\$(?:\{(\w+)\}|(\w+))/g, (all, braced: string | undefined, plain: string | undefined) => envs[(braced ?? plain)!] ?? all)

const list = (value: unknown): unknown[] => (value === null || value === undefined ? [] : [value].flat())
const absolute = (path: string, folder: string) => (isAbsolute(path) ? path : resolve(join(folder, path)))
