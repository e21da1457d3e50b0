/** Trainings in Python with MLflow's client and the wheel of this repository. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { buildSpool } from '../../scripts/build-spool.ts'
import { mlflowPython } from '../mlflow/server.ts'

export const python = mlflowPython()
export const missing = python ? false : 'MLflow is not installed (npm run peers, or PLINTH_MLFLOW_PYTHON)'

/** The wheel, unpacked as pip would: what is in front of PYTHONPATH is as good as installed. */
let site: string | null = null
export function installed(): string {
  if (site) return site
  const folder = mkdtempSync(join(tmpdir(), 'spool-'))
  site = join(folder, 'site')
  execFileSync(python!, ['-m', 'zipfile', '-e', buildSpool(folder, python!), site])
  return site
}

// biome-ignore lint/suspicious/noExplicitAny: what the program says
export type Said = any

export interface Trainer {
  process: ChildProcess
  /** Has a function of training.py called; answers what it said meanwhile. Fails as it fails. */
  do(word: string, ...values: unknown[]): Promise<Said[]>
  /** How many points each run was told are kept. */
  points: Map<string, number>
  /** Process numbers of runs. */
  pids: Map<string, number>
  stderr(): string
  ended: Promise<number | string>
  /** Ends it as a program ends. */
  close(): Promise<void>
}

const program = fileURLToPath(new URL('./training.py', import.meta.url))

export async function startTrainer(t: TestContext, home: string, url: string, environment: Record<string, string> = {}): Promise<Trainer> {
  const child = spawn(python!, [program], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      PLINTH_HOME: home,
      PYTHONPATH: installed(),
      MLFLOW_TRACKING_URI: `plinth+${url}`,
      MLFLOW_TRACKING_TOKEN: '',
      MLFLOW_DISABLE_TELEMETRY: 'true',
      MLFLOW_HTTP_REQUEST_MAX_RETRIES: '1',
      MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT: '1',
      GIT_PYTHON_REFRESH: 'quiet',
      ...environment,
    },
  })
  t.after(() => child.kill('SIGKILL'))
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-20_000)
  })
  const ended = once(child, 'close').then(([code, signal]) => (signal ?? code) as number | string)
  const [points, pids] = [new Map<string, number>(), new Map<string, number>()]
  let said: Said[] = []
  let waiting: ((end: Said) => void) | null = null
  let failed: ((error: Error) => void) | null = null
  const ready = new Promise<void>((resolve, reject) => {
    failed = reject
    createInterface(child.stdout).on('line', line => {
      if (!line.startsWith('{')) return // what MLflow prints
      const what = JSON.parse(line) as Said
      if (what.step !== undefined) points.set(what.run, what.step + 1)
      else if (what.pid !== undefined) pids.set(what.run, what.pid)
      if (what.ready) resolve()
      else if (what.done) waiting?.(what)
      else if (what.step === undefined) said.push(what)
    })
  })
  void ended.then(code => failed?.(new Error(`the program ended with ${code}: ${stderr}`)))
  await ready
  return {
    process: child,
    points,
    pids,
    stderr: () => stderr,
    ended,
    async do(word, ...values) {
      said = []
      const end = await new Promise<Said>((resolve, reject) => {
        waiting = resolve
        failed = reject
        child.stdin.write(`${JSON.stringify([word, ...values])}\n`)
      })
      if (end.error) assert.fail(end.error)
      return said
    },
    async close() {
      child.stdin.end()
      assert.equal(await ended, 0, stderr)
    },
  }
}
