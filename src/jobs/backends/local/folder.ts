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
  existsSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
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

/** All pipes of an attempt of so many processes. */
export const pipesOf = (folder: string, processes: number): string[] => [
  files(folder).control,
  ...Array.from({ length: processes }, (_, i) => [pipePath(folder, i, 'out'), pipePath(folder, i, 'err')]).flat(),
]

/** Null: it is not there, or somebody is just writing what needs no rename. */
export function readJson<T>(path: string): T | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T
  } catch {
    return null
  }
}

/**
 * Whole or not there, for readers of this boot. Not flushed: after a power cut the attempt is lost in any case.
 * throws what the system says
 */
export function writeJson(path: string, value: unknown): void {
  const part = `${path}.part-${process.pid}`
  writeFileSync(part, `${JSON.stringify(value)}\n`, { mode: 0o600 })
  renameSync(part, path)
}

/** What is good to have, and not worth an end. */
export function tryToWriteJson(path: string, value: unknown): void {
  try {
    writeJson(path, value)
  } catch {} // a full disk
}

/** Files that have to be written on a full disk too, with the room that is taken for them while there is some: bytes. */
const reserved = { 'exit.json': 4096, 'cause.json': 4096, 'stop.json': 256, 'phase.json': 256, 'supervisor.next': 256 } as const
type Reserved = keyof typeof reserved
const reservePath = (folder: string, name: Reserved) => join(folder, `${name}.reserved`)

/** throws what the system says */
export function reserveRoom(folder: string): void {
  for (const name of Object.keys(reserved) as Reserved[]) {
    if (existsSync(join(folder, name)) || existsSync(reservePath(folder, name))) continue
    const part = join(folder, `${name}.part-${process.pid}`)
    writeFileSync(part, ' '.repeat(reserved[name]), { mode: 0o600 })
    renameSync(part, reservePath(folder, name))
  }
}

/** Into the room that is reserved for it, which takes none of the disk's, then under its name; again in place. */
export function writeReserved(folder: string, name: Reserved, value: object, { flush = false } = {}): void {
  const text = JSON.stringify(value)
  const path = existsSync(reservePath(folder, name)) ? reservePath(folder, name) : join(folder, name)
  const file = openSync(path, 'r+')
  try {
    writeSync(file, text + ' '.repeat(Math.max(0, reserved[name] - Buffer.byteLength(text))), 0)
    if (flush) fsyncSync(file)
  } finally {
    closeSync(file)
  }
  if (path !== join(folder, name)) renameSync(path, join(folder, name))
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
  try {
    writeFileSync(part, `${JSON.stringify(self)}\n`, { mode: 0o600 })
  } catch (error) {
    // the disk is full: into the room that is reserved for one more, if nobody else has taken it
    if (!takeReserved(folder, part, self)) throw error
  }
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

function takeReserved(folder: string, part: string, self: ProcessIdentity): boolean {
  try {
    renameSync(reservePath(folder, 'supervisor.next'), part)
    const file = openSync(part, 'r+')
    writeSync(file, JSON.stringify(self), 0)
    closeSync(file)
    return true
  } catch {
    return false
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

/** Flushed. throws what the system says */
export function writeExit(folder: string, exit: Exit): void {
  let { message } = exit
  while (message && Buffer.byteLength(JSON.stringify({ ...exit, message })) > reserved['exit.json'])
    message = message.slice(0, Math.floor(message.length * 0.8))
  writeReserved(folder, 'exit.json', { ...exit, message }, { flush: true })
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

export function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

export const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false

export function isEmpty(path: string): boolean {
  try {
    return readdirSync(path).length === 0
  } catch {
    return true
  }
}
