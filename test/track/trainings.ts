/** Trainings as processes, and what a home knows of their runs afterwards. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type ControlPlane, startControlPlane } from '../../src/control-plane.ts'
import type { Db } from '../../src/db/open.ts'
import { openHome } from '../../src/track/home.ts'
import { getTrackedRun, metricHistory } from '../../src/track/tracked-runs.ts'

export const long = process.env['PLINTH_TEST'] === 'long'

/** Asks again until it is as wanted; the limit is only for a test that would never end. */
export async function until<T>(ask: () => Promise<T> | T, wanted: (value: T) => boolean, seconds = 20): Promise<T> {
  const end = Date.now() + seconds * 1000
  for (;;) {
    const value = await ask()
    if (wanted(value)) return value
    assert.ok(Date.now() < end, `never happened; last ${JSON.stringify(value)}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

export interface Server extends ControlPlane {
  db: Db
}

/** The server of a home, in this process. */
export async function serve(t: TestContext, path: string): Promise<Server> {
  const home = await openHome(path)
  const server = await startControlPlane(home, { host: '127.0.0.1', port: 0 })
  let closed = false
  const close = async () => {
    if (closed) return
    closed = true
    await server.close()
    await home.close()
  }
  t.after(close)
  return { ...server, close, db: home.db }
}

export interface Training {
  process: ChildProcess
  run: Promise<string>
  /** How many points it was told are kept. */
  points(): number
  said(): string
  ended: Promise<number | string>
}

const program = fileURLToPath(new URL('./training.ts', import.meta.url))

export function train(t: TestContext, home: string, points: number, how = 'end', environment: Record<string, string> = {}): Training {
  const child = spawn(process.execPath, [program, home, String(points), how], {
    env: { ...process.env, PLINTH_HOME: home, PLINTH_URL: '', PLINTH_TOKEN: '', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.after(() => child.kill('SIGKILL'))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', text => {
    said += text
  })
  let last = -1
  const lines = createInterface({ input: child.stdout })
  const run = new Promise<string>(resolve => {
    lines.once('line', resolve)
    lines.on('line', line => {
      if (line.length < 32) last = Number(line)
    })
  })
  const ended = once(child, 'close').then(([code, signal]) => (signal ?? code) as number | string)
  return { process: child, run, points: () => last + 1, said: () => said, ended }
}

/** Every point that was logged up to there is in the database, once; more only where one was written and not yet said. */
export async function assertWhole(db: Db, run: string, points: number): Promise<void> {
  const history = await metricHistory(db, 'default', run, 'loss')
  const steps = history.map(({ step }) => step)
  assert.deepEqual(steps, [...steps.keys()], 'no point is missing or doubled')
  assert.ok(steps.length === points || steps.length === points + 1, `${points} were acknowledged, ${steps.length} are there`)
  assert.ok(
    history.every(({ step, value, timestamp }) => value === 1 / (step + 1) && timestamp === 1_000_000 + step),
    'as they were logged',
  )
}

export async function statusOf(db: Db, run: string): Promise<string> {
  const found = await getTrackedRun(db, 'default', run).catch(() => null)
  return found ? [found.status, found.reason].filter(Boolean).join(' ') : 'unknown'
}

/** Logs that have not arrived. */
export const filesIn = (home: string): string[] => {
  try {
    return readdirSync(join(home, 'spool')).filter(name => name.endsWith('.jsonl'))
  } catch {
    return []
  }
}
