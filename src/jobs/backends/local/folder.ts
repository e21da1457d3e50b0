/**
 * The folder of an attempt on this machine: beside the files of attempt.ts those that only the local engine knows.
 *
 *     placement.json      cores, control groups, limit of the log: decided by the backend before anything starts
 *     control, 0.out, 0.err …   pipes with names: what wrappers tell the shim, and what each process prints
 *     <phase>.<n>.born    who process n of the phase is; .exit: how it ended; .failed: why it could not even start
 *     ports.json          where the processes of the run meet
 *     cause.json          why the shim began to end it; policy.json: the log policy that matched
 *     shim.log            what the shim itself has to say, which is nothing as long as it works
 *
 * Only node: modules are imported: the shim uses it.
 */
import {
  closeSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Exit, ProcessIdentity } from '../../attempt.ts'
import type { GroupParents } from './cgroups.ts'

export interface Placement {
  /** Name of its control groups. */
  name: string
  /** For each node a list as taskset reads it; null: all of the machine. */
  cores: (string | null)[]
  groups: GroupParents
  /** Bytes of the log that are kept. */
  logLimit: number
}

/** stop.json */
export interface StopFile {
  reason: 'cancelled' | 'timeout' | 'preempted' | 'device_missing'
  /** From when on nobody is asked any more: milliseconds of the machine's uptime. */
  killAt: number
}

export const files = (folder: string) => {
  const at = (name: string) => join(folder, name)
  return {
    attempt: at('attempt.json'),
    secrets: at('secrets.json'),
    phase: at('phase.json'),
    environment: at('environment.json'),
    outputs: at('outputs'),
    work: at('work'),
    peak: at('peak.json'),
    exit: at('exit.json'),
    stop: at('stop.json'),
    placement: at('placement.json'),
    control: at('control'),
    ports: at('ports.json'),
    cause: at('cause.json'),
    policy: at('policy.json'),
    shimLog: at('shim.log'),
  }
}
export const pipePath = (folder: string, process: number, stream: 'out' | 'err'): string => join(folder, `${process}.${stream}`)

/** Null: it is not there, or somebody is just writing what needs no rename. */
export function readJson<T>(path: string): T | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T
  } catch {
    return null
  }
}

/** Whole or not there, for readers of this boot; nobody needs these after a power cut. */
export function writeJson(path: string, value: unknown): void {
  const part = `${path}.part-${process.pid}`
  writeFileSync(part, `${JSON.stringify(value)}\n`, { mode: 0o600 })
  renameSync(part, path)
}

/**
 * Becomes the supervisor of the attempt, if the one before is dead; null: somebody else is, or was quicker. Numbers are never used twice, so
 * nobody has to remove a stale lock, and two that try at once cannot both have it.
 */
export function claim(folder: string, self: ProcessIdentity, isDead: (before: ProcessIdentity) => boolean): string | null {
  const before = latestSupervisor(folder)
  if (before && !isDead(before.identity)) return null
  const path = join(folder, `supervisor.${(before?.number ?? 0) + 1}.json`)
  const part = join(folder, `supervisor.part-${self.pid}-${self.birth}`)
  writeFileSync(part, `${JSON.stringify(self)}\n`, { mode: 0o600 })
  try {
    linkSync(part, path) // refused where the name is taken; with its content from the first moment
    return path
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return null
    throw error
  } finally {
    unlinkSync(part)
  }
}

export function latestSupervisor(folder: string): { number: number; path: string; identity: ProcessIdentity } | null {
  const numbers = readdirSync(folder).flatMap(name => Number(/^supervisor\.(\d+)\.json$/.exec(name)?.[1] ?? []))
  if (numbers.length === 0) return null
  const number = Math.max(...numbers)
  const path = join(folder, `supervisor.${number}.json`)
  const identity = readJson<ProcessIdentity>(path)
  return identity && { number, path, identity }
}

const reserved = 4096
const reservePath = (folder: string) => join(folder, 'exit.reserved')

/** Takes the room for exit.json while there is some: a job may fill the disk. */
export function reserveExit(folder: string): void {
  writeFileSync(reservePath(folder), ' '.repeat(reserved), { mode: 0o600 })
}

/** Into the reserved room, flushed, then under its name. */
export function writeExit(folder: string, exit: Exit): void {
  const text = fitted(exit)
  const file = openSync(reservePath(folder), 'r+')
  writeSync(file, text + ' '.repeat(reserved - Buffer.byteLength(text)), 0)
  try {
    fsyncSync(file)
  } catch {} // a network disk that cannot
  closeSync(file)
  renameSync(reservePath(folder), files(folder).exit)
}

function fitted(exit: Exit): string {
  for (let length = exit.message?.length ?? 0; ; length = Math.floor(length * 0.8)) {
    const text = JSON.stringify({ ...exit, message: exit.message?.slice(0, length) ?? null })
    if (Buffer.byteLength(text) <= reserved) return text
  }
}

/** Makes room for what a wrapper writes about its process, for the same reason. */
export function reserveReport(path: string): void {
  writeFileSync(`${path}.born`, `${' '.repeat(120)}\n`, { mode: 0o600 })
  writeFileSync(`${path}.exit`, '   \n', { mode: 0o600 })
}

/** The exit code that a wrapper left; undefined: it has not ended. */
export function readExitCode(path: string): number | undefined {
  try {
    const text = readFileSync(path, 'utf8')
    return /^\s*\d+\n/.test(text) ? Number(text) : undefined
  } catch {
    return undefined
  }
}

/** Who a process and its wrapper are; null: it was never started, or is just starting. */
export function readBorn(path: string): Record<'leader' | 'wrapper', { pid: number; birth: string }> | null {
  try {
    const [pid, birth, above, itsBirth] = readFileSync(path, 'utf8').split('\n')[0]!.trim().split(' ')
    if (!itsBirth) return null
    return { leader: { pid: Number(pid), birth: birth! }, wrapper: { pid: Number(above), birth: itsBirth } }
  } catch {
    return null
  }
}
