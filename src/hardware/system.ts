/**
 * Everything that hardware/ asks the machine goes through `System`, so that tests replay trees of /proc and /sys and answers of tools from
 * machines that are not at hand. Tools run as children with a time limit: nvidia-smi hangs when a card has fallen off the bus.
 */
import { spawn } from 'node:child_process'
import { access, constants, readdir, readlink, statfs } from 'node:fs/promises'
import { readText } from './limits.ts'

export interface Answer {
  code: number
  output: string
  errors: string
  /** It did not end within its time and was killed, or left alone where it cannot be. */
  late: boolean
}

export interface Space {
  /** Bytes. */
  total: number
  free: number
  /** Of statfs(2). */
  type: number
}

export interface System {
  platform: NodeJS.Platform
  read(path: string): string | null
  /** Names in a folder; none where it is not there. */
  list(folder: string): Promise<string[]>
  /** What a link points to; null where there is none. */
  link(path: string): Promise<string | null>
  /** Whether this user may read and write it. */
  access(path: string): Promise<'granted' | 'refused' | 'missing'>
  /** What a tool says; null where there is no such tool. */
  run(command: string, ...args: string[]): Promise<Answer | null>
  variable(name: string): string | undefined
  /** Null where it cannot be told, or not within a second. */
  space(path: string): Promise<Space | null>
  /** Text at an address, for a cloud's metadata; null where nobody answers within a second. */
  get(url: string, headers: Readonly<Record<string, string>>): Promise<string | null>
}

/** Milliseconds: a card without persistence mode takes seconds to answer. */
const patience = 8000
const largest = 4 << 20

export const thisSystem: System = {
  platform: process.platform,
  read: readText,
  list: folder => readdir(folder).catch(() => []),
  link: path => readlink(path).catch(() => null),
  access: path =>
    access(path, constants.R_OK | constants.W_OK).then(
      () => 'granted',
      error => (error.code === 'ENOENT' || error.code === 'ENOTDIR' ? 'missing' : 'refused'),
    ),
  run: (command, ...args) => runTool(command, args),
  variable: name => process.env[name],
  space: path =>
    within(
      1000,
      statfs(path).then(({ blocks, bavail, bsize, type }) => ({ total: blocks * bsize, free: bavail * bsize, type })),
    ),
  get: async (url, headers) => {
    try {
      const answer = await fetch(url, { headers: { ...headers }, signal: AbortSignal.timeout(1000), redirect: 'error' })
      return answer.ok ? (await answer.text()).slice(0, 10_000) : null
    } catch {
      return null // no such service here
    }
  },
}

/**
 * Standard output of a tool without a shell, at most 4 MiB. It leads a group of its own, so that what it started goes with it; one that
 * cannot be killed (a driver that hangs in the kernel) is left behind, and does not keep this process alive.
 */
export function runTool(command: string, args: readonly string[], milliseconds = patience): Promise<Answer | null> {
  return new Promise(resolve => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, env: { ...process.env, LC_ALL: 'C' } })
    let output = ''
    let errors = ''
    const end = (answer: Answer | null) => {
      clearTimeout(timer)
      resolve(answer)
    }
    const timer = setTimeout(() => {
      kill()
      child.stdout.destroy()
      child.stderr.destroy()
      child.unref()
      end({ code: 1, output, errors, late: true })
    }, milliseconds)
    const kill = () => {
      try {
        process.kill(-child.pid!, 'SIGKILL')
      } catch {
        // it has ended meanwhile
      }
    }
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (output.length > largest) kill()
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (errors.length < 10_000) errors += text
    })
    child.on('error', error =>
      end((error as NodeJS.ErrnoException).code === 'ENOENT' ? null : { code: 1, output, errors: error.message, late: false }),
    )
    child.on('close', code => end({ code: code ?? 1, output, errors, late: false }))
  })
}

/** Null where it takes longer, or fails. */
export function within<T>(milliseconds: number, work: Promise<T>): Promise<T | null> {
  return new Promise(resolve => {
    const timer = setTimeout(() => resolve(null), milliseconds)
    work.then(resolve, () => resolve(null)).finally(() => clearTimeout(timer))
  })
}

// ── where facts came from ───────────────────────────────────────────────────────────────────────────────────────────────────

export interface Provenance {
  /** When it was read, ISO 8601. */
  time: string
  /** What was read and run, in that order, with the beginning of what it said. */
  sources: { source: string; raw: string }[]
  /** Whether this reader has ever seen a real device of its kind; else it is known from documented outputs only. */
  verified: boolean
  /** It comes from an override file: there is no such device. */
  fake: boolean
}

const rawLength = 2000
const mostSources = 200

/**
 * A system that notes what is read, so that a record's sources are what really was read. A tool that was late once is not asked again: what
 * hangs would hang each time.
 */
export function recorded(system: System, { verified }: { verified: boolean }): { system: System; provenance: Provenance } {
  const provenance: Provenance = { time: new Date().toISOString(), sources: [], verified, fake: false }
  const late = new Map<string, Answer>()
  const note = (source: string, raw: string) => {
    if (provenance.sources.length < mostSources) provenance.sources.push({ source, raw: raw.slice(0, rawLength) })
  }
  return {
    provenance,
    system: {
      ...system,
      read: path => {
        const text = system.read(path)
        if (text !== null) note(path, text)
        return text
      },
      run: async (command, ...args) => {
        const before = late.get(command)
        if (before) return before
        const answer = await system.run(command, ...args)
        if (answer) note([command, ...args].join(' '), answer.late ? 'no answer in time' : answer.output || answer.errors)
        if (answer?.late) late.set(command, answer)
        return answer
      },
      get: async (url, headers) => {
        const text = await system.get(url, headers)
        if (text !== null) note(url, text)
        return text
      },
    },
  }
}
