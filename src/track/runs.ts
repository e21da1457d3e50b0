/**
 * Runs. The truth about a run is its folder: `run.json` (written whole each time) and `metrics.jsonl` (one line a log call, only
 * appended to). The database holds a copy for listing. A run that says it is running is believed only while the very process
 * that started it lives.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { appendFile, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Home } from '../db/home.ts'
import { Failure } from '../failure.ts'
import { Run, type RunReporter } from '../sdk/index.ts'
import { makeFolder, storageFailure, writeFileAtomic } from '../storage/disk.ts'

export interface RunWriter extends RunReporter {
  /** This process works on it from now on. throws run_busy while another one does */
  start(): Promise<void>
  update(change: Partial<Pick<Run, 'params' | 'model' | 'device' | 'dataset'>>): Promise<void>
  finish(status: 'succeeded' | 'failed' | 'cancelled', reason?: string | null): Promise<void>
}

/** run.json: the run, and who is at work on it. */
const Stored = z.strictObject({ run: Run, worker: z.strictObject({ pid: z.int(), started: z.string() }).nullable() })
type Stored = z.infer<typeof Stored>

export type NewRun = Pick<Run, 'name' | 'recipe' | 'params' | 'environment' | 'dataset' | 'device'>

export async function createRun(home: Home, given: NewRun): Promise<RunWriter> {
  const run: Run = {
    run: randomBytes(16).toString('hex'),
    ...given,
    status: 'queued',
    reason: null,
    started: new Date().toISOString(),
    ended: null,
    checkpointStep: 0,
    metrics: {},
    model: null,
  }
  const directory = await makeFolder(folderOf(home, run.run))
  const stored: Stored = { run, worker: identity(process.pid) }
  await writeFileAtomic(join(directory, 'run.json'), JSON.stringify(stored))
  await index(home, run)
  return writer(home, directory, stored)
}

/** The run for a process that is about to work on it. throws run_not_found */
export async function openRun(home: Home, id: string): Promise<RunWriter> {
  const directory = folderOf(home, id)
  return writer(home, directory, await readStored(directory, id))
}

function writer(home: Home, directory: string, initial: Stored): RunWriter {
  let stored = initial
  let newest: Record<string, number> = {}
  const file = join(directory, 'metrics.jsonl')
  const save = async (change: Partial<Run>, worker = stored.worker) => {
    stored = { run: { ...stored.run, ...change, metrics: { ...stored.run.metrics, ...asJson(newest) } }, worker }
    newest = {}
    await writeFileAtomic(join(directory, 'run.json'), JSON.stringify(stored))
  }
  return {
    get run() {
      return stored.run
    },
    directory,
    async start() {
      const current = await readStored(directory, stored.run.run)
      if (current.worker && current.worker.pid !== process.pid && current.run.status === 'running' && isAlive(current.worker))
        throw new Failure('run_busy', { run: stored.run.run, pid: current.worker.pid })
      stored = current
      await endTornLine(file)
      await save({ status: 'running', reason: null, ended: null }, identity(process.pid))
      await index(home, stored.run)
    },
    async logMetrics(step, values) {
      newest = { ...newest, ...values }
      try {
        await appendFile(file, `${JSON.stringify({ step, time: Date.now(), values: asJson(values) })}\n`)
      } catch (error) {
        throw storageFailure(error, file)
      }
    },
    recordCheckpoint: step => save({ checkpointStep: step }),
    update: change => save(change),
    async finish(status, reason = null) {
      await save({ status, reason, ended: new Date().toISOString() }, null)
      await index(home, stored.run)
    },
  }
}

// ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Newest first, each as its folder says it is now. */
export async function listRuns(home: Home): Promise<Run[]> {
  const ids = await readdir(join(home.path, 'runs'))
  const runs = await Promise.all(
    ids.filter(id => /^[0-9a-f]{32}$/.test(id)).map(id => readRun(home, id).catch(() => null)), // a folder in the making or being deleted
  )
  return runs.filter(run => run !== null).sort((a, b) => b.started.localeCompare(a.started) || b.run.localeCompare(a.run))
}

/** `id`: the whole id, or so many first letters that only one run has them. throws run_not_found, run_ambiguous */
export async function getRun(home: Home, id: string): Promise<Run> {
  return readRun(home, await completeId(home, id))
}

export async function completeId(home: Home, id: string): Promise<string> {
  if (/^[0-9a-f]{32}$/.test(id)) return id
  if (!/^[0-9a-f]{4,31}$/.test(id)) throw new Failure('run_not_found', { run: id.slice(0, 64) })
  const matching = (await readdir(join(home.path, 'runs'))).filter(name => name.startsWith(id))
  if (matching.length > 1) throw new Failure('run_ambiguous', { run: id, count: matching.length })
  if (!matching[0]) throw new Failure('run_not_found', { run: id })
  return matching[0]
}

async function readRun(home: Home, id: string): Promise<Run> {
  const directory = folderOf(home, id)
  const { run, worker } = await readStored(directory, id)
  const open = run.status === 'queued' || run.status === 'running'
  if (open && !(worker && isAlive(worker))) return { ...run, status: 'failed', reason: 'lost' }
  return run
}

export interface MetricPoint {
  step: number
  /** Milliseconds since 1970. */
  time: number
  values: Run['metrics']
}

/** All points in the order they were logged. A resumed run logs some steps again: the later line counts. */
export async function readMetrics(home: Home, id: string): Promise<MetricPoint[]> {
  const text = await readFile(join(folderOf(home, id), 'metrics.jsonl'), 'utf8').catch(() => '')
  return text
    .split('\n')
    .slice(0, -1) // what follows the last line break was never acknowledged
    .flatMap(line => {
      try {
        return [JSON.parse(line) as MetricPoint]
      } catch {
        return [] // a line torn by a kill, closed by the next start
      }
    })
}

/** throws run_busy while it is at work */
export async function deleteRun(home: Home, id: string): Promise<void> {
  const run = await getRun(home, id)
  if (run.status === 'running' || run.status === 'queued') throw new Failure('run_busy', { run: run.run, pid: 'another process' })
  await rm(folderOf(home, run.run), { recursive: true, force: true })
  await home.db.deleteFrom('runs').where('id', '=', run.run).execute()
}

// ── below ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function folderOf(home: Home, id: string): string {
  if (!/^[0-9a-f]{32}$/.test(id)) throw new Failure('run_not_found', { run: id.slice(0, 64) })
  return join(home.path, 'runs', id)
}

async function readStored(directory: string, id: string): Promise<Stored> {
  const text = await readFile(join(directory, 'run.json'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new Failure('run_not_found', { run: id })
    throw storageFailure(error, directory)
  })
  return Stored.parse(JSON.parse(text))
}

async function index(home: Home, run: Run): Promise<void> {
  const { run: id, name, recipe, status, reason, started, ended } = run
  const row = { id, name, recipe, status, reason, started, ended, run: JSON.stringify(run) }
  await home.db
    .insertInto('runs')
    .values(row)
    .onConflict(conflict => conflict.column('id').doUpdateSet(row))
    .execute()
}

/** A kill in the middle of a line must not swallow the next one. */
async function endTornLine(file: string): Promise<void> {
  const handle = await open(file, 'a+')
  try {
    const { size } = await handle.stat()
    if (size === 0) return
    const last = Buffer.alloc(1)
    await handle.read(last, 0, 1, size - 1)
    if (last[0] !== 10) await handle.appendFile('\n')
  } finally {
    await handle.close()
  }
}

/** A process is its number and its birth: numbers are used again. */
const identity = (pid: number) => ({ pid, started: birthOf(pid) ?? '' })

function isAlive({ pid, started }: { pid: number; started: string }): boolean {
  const birth = birthOf(pid)
  if (birth !== null) return birth === started
  if (process.platform === 'linux') return false
  try {
    process.kill(pid, 0) // elsewhere the number alone has to do
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Ticks since boot at which the process began (proc(5), field 22), with the boot's id; null where /proc does not say. */
function birthOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return null // dead, only not collected yet
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}/${fields[19]}`
  } catch {
    return null
  }
}

const asJson = (values: Readonly<Record<string, number>>): Run['metrics'] =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number.isFinite(value) ? value : (String(value) as 'NaN')]))
