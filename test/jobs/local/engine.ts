/** For the tests of the local engine: a home of its own, attempts on it, and waiting until one is as it should be. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Allocation, Attempt, Exit } from '../../../src/jobs/attempt.ts'
import type { Observation } from '../../../src/jobs/backend.ts'
import { createLocalBackend, type LocalBackend, type LocalOptions } from '../../../src/jobs/backends/local/backend.ts'
import { type JobSpec, plainSpec } from '../../../src/jobs/spec.ts'

export const long = process.env['PLINTH_TEST'] === 'long'

type Share = Allocation['nodes'][number]
export interface Wanted extends Partial<Omit<JobSpec, 'version' | 'name' | 'run'>> {
  /** What each node gets. */
  share?: Partial<Share>
  secretValues?: Record<string, string>
  attempt?: number
}

export interface Engine {
  home: string
  backend: LocalBackend
  /** Starts it and answers its number. `run`: shell text, or words. */
  start(run: string | string[], wanted?: Wanted): Promise<number>
  ended(job: number): Promise<Exit>
  /** Starts it and waits for its end. */
  run(run: string | string[], wanted?: Wanted): Promise<Exit & { job: number; log: string[]; text: string }>
  /** Lines of the log without their times. */
  log(job: number): Promise<string[]>
  /** Until the log has this text. */
  said(job: number, text: string): Promise<void>
  folder(job: number, attempt?: number): string
  /** What a test that failed has left running ends. */
  close(): Promise<void>
}

export function makeEngine(options: Partial<LocalOptions> = {}): Engine {
  const home = options.home ?? mkdtempSync(join(tmpdir(), 'local-'))
  const backend = createLocalBackend({ inventory: async () => [], ...options, home })
  let number = 0
  const engine: Engine = {
    home,
    backend,
    folder: (job, attempt = 1) => join(home, 'jobs', String(job), String(attempt)),
    async start(run, wanted = {}) {
      const job = ++number
      await backend.start(attemptOf(job, run, wanted), wanted.secretValues ?? {})
      return job
    },
    ended: job => endOf(backend, job),
    async run(run, wanted) {
      const job = await engine.start(run, wanted)
      const exit = await engine.ended(job)
      const log = await engine.log(job)
      return { ...exit, job, log, text: log.map(line => line.slice(2)).join('\n') }
    },
    log: job => readLines(backend, job),
    async close() {
      for (const { job, attempt } of await backend.known()) await backend.stop(job, attempt, { grace: 0, reason: 'cancelled' })
      await backend.close()
    },
    said: (job, text) => until(async () => (await readLines(backend, job)).some(line => line.includes(text)), `"${text}" in the log`),
  }
  return engine
}

export function attemptOf(job: number, run: string | string[], { share, secretValues, attempt = 1, ...spec }: Wanted = {}): Attempt {
  const node = { node: 'here', cpus: 1, memory: 0, devices: [], ...share }
  return {
    ...{ job, attempt, project: 'test', envs: {}, cookie: randomBytes(16).toString('hex') },
    spec: plainSpec(`job-${job}`, typeof run === 'string' ? { shell: run } : { argv: run }, {
      secrets: Object.keys(secretValues ?? {}),
      ...spec,
    }),
    allocation: { nodes: Array.from({ length: spec.nodes ?? 1 }, () => node) },
  }
}

export async function readLines(backend: LocalBackend, job: number): Promise<string[]> {
  const chunks: Uint8Array[] = []
  for (let offset = 0; ; ) {
    const signal = new AbortController().signal
    const { bytes, next } = await backend.readLog(job, 1, { offset, limit: 1 << 20, follow: false, signal })
    if (bytes.length === 0) break
    chunks.push(bytes)
    offset = next
  }
  const lines = Buffer.concat(chunks).toString().split('\n')
  assert.equal(lines.pop(), '', 'the last line is whole')
  return lines.map(line => {
    assert.match(line, /^\d{13} [oep] /)
    return line.slice(14)
  })
}

export async function endOf(backend: LocalBackend, job: number): Promise<Exit> {
  let seen: Observation | undefined
  await until(
    async () => {
      seen = await backend.observe(job, 1)
      return seen.status === 'ended' || seen.status === 'lost'
    },
    () => `the end of job ${job}, which is ${JSON.stringify(seen)}`,
  )
  if (seen?.status !== 'ended') throw new Error(`job ${job} is ${JSON.stringify(seen)}`)
  return seen.exit
}

/** Looks again and again; fails after `seconds`. */
export async function until(holds: () => boolean | Promise<boolean>, what: string | (() => string), seconds = 30): Promise<void> {
  for (const end = performance.now() + seconds * 1000; ; ) {
    if (await holds()) return
    if (performance.now() > end) assert.fail(`waited ${seconds} s for ${typeof what === 'string' ? what : what()}`)
    await delay(10)
  }
}

/** Processes that have the text in their environment, this one apart. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc').flatMap(name => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return []
    try {
      const state = readFileSync(`/proc/${name}/stat`, 'latin1').replace(/^.*\) /s, '')[0]
      return state !== 'Z' && readFileSync(`/proc/${name}/environ`, 'latin1').includes(text) ? [Number(name)] : []
    } catch {
      return []
    }
  })
}

export const shimOf = (engine: Engine, job: number): number => {
  const names = readdirSync(engine.folder(job)).flatMap(name => Number(/^supervisor\.(\d+)\.json$/.exec(name)?.[1] ?? []))
  return JSON.parse(readFileSync(join(engine.folder(job), `supervisor.${Math.max(...names)}.json`), 'utf8')).pid
}
