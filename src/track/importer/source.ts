/**
 * What is taken over from an MLflow, wherever it keeps it: its database, its REST API or its folder (sqlite.ts, rest.ts, file-store.ts).
 * Everything here comes from outside: texts are cleaned, numbers are checked, ids are plain; what does not fit is a coded refusal.
 */
import { Failure } from '../../failure.ts'
import type { RunStatus } from '../../sdk/shapes.ts'
import type { LoggedModelStatus } from '../logged-models.ts'

export interface Pair {
  key: string
  value: string
}
export interface SourceExperiment {
  /** As it is called there; here it is found by its name. */
  id: string
  name: string
  location: string
  created: number
  updated: number
  deleted: boolean
  tags: Pair[]
}
export interface SourceRun {
  /** Stays what it is. */
  id: string
  experiment: string
  name: string
  user: string
  status: RunStatus
  started: number
  ended: number | null
  deleted: boolean
  location: string
  params: Pair[]
  tags: Pair[]
  datasets: {
    name: string
    digest: string
    sourceType: string
    source: string
    schema: string | null
    profile: string | null
    tags: Pair[]
  }[]
  inputs: string[]
  outputs: { model: string; step: number }[]
}
export interface SourcePoint {
  key: string
  value: number
  timestamp: number
  step: number
}
export interface SourceModel {
  id: string
  experiment: string
  name: string
  type: string | null
  status: LoggedModelStatus
  message: string | null
  run: string | null
  location: string
  created: number
  updated: number
  deleted: boolean
  params: Pair[]
  tags: Pair[]
  metrics: (SourcePoint & { run: string; datasetName: string; datasetDigest: string })[]
}
export interface SourceRegistered {
  name: string
  description: string | null
  created: number
  updated: number
  tags: Pair[]
  aliases: { alias: string; version: number }[]
  versions: SourceVersion[]
}
export interface SourceVersion {
  version: number
  created: number
  updated: number
  description: string | null
  user: string
  stage: string
  source: string
  run: string | null
  /** Where that run can be looked at, for one of another server. */
  runLink: string | null
  /** Its number is spent, and that is all that is left of it. */
  deleted: boolean
  tags: Pair[]
}
export interface SourceFile {
  /** Relative, with forward slashes. */
  path: string
  bytes: number
  open(): Promise<AsyncIterable<Uint8Array>>
}
/** Whose files: a run's or a logged model's. */
export interface Owner {
  kind: 'run' | 'model'
  id: string
  location: string
}

export interface Source {
  /** Runs there, for the time that is left; null where nobody counts them. */
  totalRuns(): Promise<number | null>
  experiments(): AsyncIterable<SourceExperiment>
  runs(): AsyncIterable<SourceRun>
  /** How many points a run has; null where nobody counts them. */
  countPoints(run: SourceRun): Promise<number | null>
  points(run: SourceRun): AsyncIterable<SourcePoint[]>
  models(): AsyncIterable<SourceModel>
  registered(): AsyncIterable<SourceRegistered>
  /** Null where they cannot be reached from here. */
  files(owner: Owner): Promise<AsyncIterable<SourceFile> | null>
  /** What is there and has no place here, by its kind: { traces: 12 }. */
  left(): Promise<Record<string, number>>
  close(): void
}

// ── what comes from outside ─────────────────────────────────────────────────────────────────────────────────────────────────

export const damaged = (problem: string) => new Failure('import_source_damaged', { problem })

/** No NUL, no half of a surrogate pair: databases keep neither. */
export const clean = (text: string): string => text.replaceAll('\0', '').toWellFormed()

export function runId(text: string): string {
  if (!/^[0-9a-f]{32}$/.test(text)) throw damaged(`a run is called ${shown(text)}, which is no id of MLflow`)
  return text
}
export function modelId(text: string): string {
  if (!/^m-[0-9a-f]{32}$/.test(text)) throw damaged(`a logged model is called ${shown(text)}, which is no id of MLflow`)
  return text
}
export function whole(what: string, value: unknown): number {
  const number = typeof value === 'bigint' || (typeof value === 'string' && /^-?\d{1,19}$/.test(value)) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isSafeInteger(number)) throw damaged(`${what} is ${shown(value)}, which is no whole number`)
  return number
}
export const shown = (value: unknown): string => String(value).slice(0, 80)

export const runStatus = (word: string): RunStatus =>
  (({ RUNNING: 'running', SCHEDULED: 'queued', FINISHED: 'succeeded', FAILED: 'failed', KILLED: 'cancelled' }) as const)[word] ??
  refuse(`a run has the status ${shown(word)}`)
const modelStatuses: readonly LoggedModelStatus[] = ['pending', 'pending', 'ready', 'upload_failed']
export const modelStatus = (number: number): LoggedModelStatus => modelStatuses[number] ?? refuse(`a model has the status ${shown(number)}`)
function refuse(problem: string): never {
  throw damaged(problem)
}

/** MLflow keeps infinities as the largest double, and says so of neither. */
export const unbounded = (value: number): number =>
  Math.abs(value) === Number.MAX_VALUE ? Math.sign(value) * Number.POSITIVE_INFINITY : value

/** What MLflow says of models that a registered version came from: `models:/m-…`. */
export const loggedModelIn = (source: string): string | null => /^models:\/(m-[0-9a-f]{32})$/.exec(source)?.[1] ?? null
