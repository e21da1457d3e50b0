/**
 * Runs. The truth about a run is its folder: `run.json` (written whole each time) and `metrics.jsonl` (only appended to). A run that
 * says it is at work is believed only while the very process that works on it lives; otherwise it is failed, reason lost.
 *
 * The database answers for runs that have ended, so that listing thousands reads no folders. It stays honest by order: a row says
 * "at work" before its folder does, and "ended" only after. The database's write lock (`exclusively`) also serves as the lock of a folder.
 */
import { randomBytes } from 'node:crypto'
import { utimesSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Home } from '../db/home.ts'
import { type Db, exclusively } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { hasEnded, Run, type RunReporter } from '../sdk/index.ts'
import { makeFolder, removeFolder, storageFailure, writeFileAtomic } from '../storage/disk.ts'
import { type MetricLog, type MetricPoint, newestOf, openMetricLog, readMetricLog, seriesOf } from './metrics.ts'
import { forgetRun, mirrorRun } from './mirror.ts'
import { withReserve } from './reserve.ts'
import { heartbeat, isAlive, isHere, thisProcess, Worker } from './worker.ts'

export interface RunWriter extends RunReporter {
  /** This process works on it from now on. throws run_busy while another one does */
  start(): Promise<void>
  /** On disk when it returns: a kill of this process loses nothing. throws metric_invalid, disk_full */
  logMetrics(step: number, values: Readonly<Record<string, number>>): void
  update(change: Partial<Pick<Run, 'params' | 'model' | 'device' | 'dataset'>>): Promise<void>
  finish(status: 'succeeded' | 'failed' | 'cancelled', reason?: string | null): Promise<void>
}

/** run.json */
const Stored = z.strictObject({
  run: Run,
  worker: Worker.nullable(),
  /** Bytes of metrics.jsonl whose newest values are in `run.metrics`. */
  covered: z.int().min(0),
})
type Stored = z.infer<typeof Stored>

export type NewRun = Pick<Run, 'name' | 'recipe' | 'params' | 'environment' | 'dataset' | 'device'>

// ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A new run, queued: it counts as at work while this process lives, until the one that starts it takes over. */
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
  const stored: Stored = { run, worker: thisProcess(), covered: 0 }
  await store(directory, stored)
  await index(home.db, run)
  return writer(home, directory, stored)
}

/** The run for a process that is about to work on it. throws run_not_found */
export async function openRun(home: Home, id: string): Promise<RunWriter> {
  const directory = folderOf(home, id)
  return writer(home, directory, (await readStored(directory, id)).stored)
}

function writer(home: Home, directory: string, initial: Stored): RunWriter {
  let stored = initial
  let started = false
  let log: MetricLog | null = null
  let pulse: NodeJS.Timeout | undefined
  let newest: Run['metrics'] = {}
  let pumped = 0
  let last: Promise<void> = Promise.resolve()

  /** One after the other, in the order of the calls. */
  const save = (change: Partial<Run>): Promise<void> => {
    last = last
      .catch(() => {}) // was told to whoever asked for it
      .then(async () => {
        log?.flush()
        const metrics = { ...stored.run.metrics, ...newest }
        stored = { ...stored, run: { ...stored.run, ...change, metrics }, covered: log?.bytes ?? stored.covered }
        await store(directory, stored)
      })
    return last
  }
  /** Brings what was logged to where runs are searched; what was brought is not read again. */
  const pump = async () => {
    const to = log?.bytes ?? 0
    await mirrorRun(home.db, stored.run, await readMetricLog(join(directory, 'metrics.jsonl'), pumped))
    pumped = Math.max(pumped, to)
  }
  const end = () => {
    clearInterval(pulse)
    log?.close()
    log = null
    started = false
  }

  return {
    get run() {
      return stored.run
    },
    directory,
    async start() {
      if (started) return
      const id = stored.run.run
      const running = (run: Run): Run => ({ ...run, status: 'running', reason: null, ended: null })
      await index(home.db, running((await readStored(directory, id)).stored.run))
      await locked(home.db, async db => {
        const { stored: current, lastSign } = await readStored(directory, id)
        const { worker } = current
        if (current.run.status !== 'queued' && isOpen(current.run) && worker && isAlive(worker, lastSign))
          throw new Failure('run_busy', { run: id, pid: worker.pid })
        log?.close()
        log = openMetricLog(join(directory, 'metrics.jsonl'))
        stored = { run: running(await withNewest(directory, current)), worker: thisProcess(), covered: log.bytes }
        await index(db, stored.run)
        await store(directory, stored)
      }).catch(error => {
        end()
        throw error
      })
      started = true
      pulse = setInterval(() => {
        signOfLife(directory)
        void pump().catch(() => {}) // busy or full: the next beat, or the end, catches up
      }, heartbeat).unref()
    },
    logMetrics(step, values) {
      log ??= openMetricLog(join(directory, 'metrics.jsonl'))
      newest = { ...newest, ...log.append(step, values) }
    },
    recordCheckpoint: step => save({ checkpointStep: step }),
    async update(change) {
      await save(change)
      if (!isOpen(stored.run)) await index(home.db, stored.run)
    },
    async finish(status, reason = null) {
      const ended = new Date().toISOString()
      await withReserve(home.path, () => save({ status, reason, ended }))
      end()
      // "ended" stands in the database last: until then whoever keeps the home looks again, and brings what is missing
      await withReserve(home.path, pump)
      await withReserve(home.path, () => index(home.db, stored.run))
    },
  }
}

const store = (directory: string, stored: Stored) => writeFileAtomic(join(directory, 'run.json'), JSON.stringify(stored))

function signOfLife(directory: string): void {
  try {
    utimesSync(join(directory, 'run.json'), new Date(), new Date())
  } catch {
    // deleted under its worker: the next save will say so
  }
}

// ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Newest first. */
export async function listRuns(home: Home): Promise<Run[]> {
  const rows = await home.db.selectFrom('runs').select(['id', 'run']).execute()
  const known = new Map(rows.map(row => [row.id, JSON.parse(row.run) as Run]))
  const ids = (await readdir(join(home.path, 'runs'))).filter(id => /^[0-9a-f]{32}$/.test(id))
  const runs: Run[] = []
  for (const id of ids) {
    const row = known.get(id)
    const run = row && !isOpen(row) ? row : await readRun(home, id, row).catch(leaveOut)
    if (run) runs.push(run)
  }
  return runs.sort((a, b) => (a.started < b.started || (a.started === b.started && a.run < b.run) ? 1 : -1))
}

/** A folder in the making or being deleted, or one of which nothing can be read any more. */
function leaveOut(error: unknown): null {
  if (error instanceof Failure && (error.code === 'run_not_found' || error.code === 'home_damaged')) return null
  throw error
}

/** `id`: the whole id, or so many first letters (four at least) that only one run has them. throws run_not_found, run_ambiguous */
export async function getRun(home: Home, id: string): Promise<Run> {
  const whole = await completeId(home, id)
  const row = await home.db.selectFrom('runs').select('run').where('id', '=', whole).executeTakeFirst()
  return readRun(home, whole, row && (JSON.parse(row.run) as Run))
}

/** throws run_not_found, run_ambiguous */
export async function completeId(home: Home, id: string): Promise<string> {
  if (/^[0-9a-f]{32}$/.test(id)) return id
  if (!/^[0-9a-f]{4,31}$/.test(id)) throw new Failure('run_not_found', { run: id.slice(0, 64) })
  const matching = (await readdir(join(home.path, 'runs'))).filter(name => /^[0-9a-f]{32}$/.test(name) && name.startsWith(id))
  if (matching.length > 1) throw new Failure('run_ambiguous', { run: id, count: matching.length })
  if (!matching[0]) throw new Failure('run_not_found', { run: id })
  return matching[0]
}

/** As its folder says, unless the process that would have to be at work is gone. `row`: what the database remembers of it. */
async function readRun(home: Home, id: string, row?: Run): Promise<Run> {
  const directory = folderOf(home, id)
  try {
    const { stored, lastSign } = await readStored(directory, id)
    if (!isOpen(stored.run)) {
      if (row && isOpen(row)) await bring(home.db, directory, stored.run)
      return stored.run
    }
    if (stored.worker && isAlive(stored.worker, lastSign)) return await withNewest(directory, stored)
    const lost: Run = {
      ...(await withNewest(directory, stored)),
      status: 'failed',
      reason: 'lost',
      ended: new Date(lastSign).toISOString(),
    }
    if (stored.worker && isHere(stored.worker)) await writeLost(home, directory, id).catch(() => {}) // a disk that is full, or for reading only
    return lost
  } catch (error) {
    if (row && error instanceof Failure && error.code === 'home_damaged') return { ...row, status: 'failed', reason: 'damaged' }
    throw error
  }
}

/** What the folder of a run that has ended says, all of it, into the database. */
async function bring(db: Db, directory: string, run: Run): Promise<void> {
  await mirrorRun(db, run, await readMetricLog(join(directory, 'metrics.jsonl')))
  await index(db, run)
}

/**
 * Makes the database say of trainings what is true, for whoever keeps the home: those that it has at work are looked at, those that it
 * does not have, or has only from before there were tracked runs, are brought. No folder of a run that has ended is read twice.
 */
export async function settleRuns(home: Home): Promise<void> {
  const { db } = home
  const rows = await db.selectFrom('runs').select(['id', 'status']).execute()
  const known = new Set(rows.map(({ id }) => id))
  for (const { id } of rows.filter(isOpen)) {
    const row = JSON.parse((await db.selectFrom('runs').select('run').where('id', '=', id).executeTakeFirstOrThrow()).run) as Run
    const run = await readRun(home, id, row).catch(leaveOut)
    // its folder was taken away, or holds nothing that can be read: then nobody can work on it
    if (run === null || run.reason === 'damaged')
      await index(db, { ...row, status: 'failed', reason: 'damaged', ended: row.ended ?? now() })
  }
  const ids = (await readdir(join(home.path, 'runs'))).filter(id => /^[0-9a-f]{32}$/.test(id) && !known.has(id))
  for (const id of ids) await readRun(home, id).catch(leaveOut)
  const missing = await db
    .selectFrom('runs')
    .select(['id', 'run'])
    .where('id', 'not in', db.selectFrom('tracked_runs').select('id'))
    .execute()
  for (const { id, run } of missing) await bring(db, folderOf(home, id), JSON.parse(run) as Run)
}
const now = () => new Date().toISOString()

/** Says on disk what is certain, so that the run need not be looked at again. A process that takes it over meanwhile wins. */
async function writeLost(home: Home, directory: string, id: string): Promise<void> {
  await locked(home.db, async db => {
    const { stored, lastSign } = await readStored(directory, id)
    if (!isOpen(stored.run) || !stored.worker || isAlive(stored.worker, lastSign)) return
    const run: Run = { ...(await withNewest(directory, stored)), status: 'failed', reason: 'lost', ended: new Date(lastSign).toISOString() }
    await store(directory, { ...stored, run, worker: null })
    await index(db, run)
    await mirrorRun(db, run, await readMetricLog(join(directory, 'metrics.jsonl')))
  })
}

/** Every point, in the order they were logged. throws run_not_found */
export async function readMetrics(home: Home, id: string): Promise<MetricPoint[]> {
  const whole = await completeId(home, id)
  const directory = folderOf(home, whole)
  await readStored(directory, whole)
  return readMetricLog(join(directory, 'metrics.jsonl'))
}

/** One metric by step; for a step that was logged again after a resume, the later value. throws run_not_found */
export async function metricSeries(home: Home, id: string, name: string) {
  return seriesOf(await readMetrics(home, id), name)
}

/** With its checkpoints, metrics and report. throws run_not_found, run_busy while it is at work */
export async function deleteRun(home: Home, id: string): Promise<void> {
  const whole = await completeId(home, id)
  const directory = folderOf(home, whole)
  await locked(home.db, async db => {
    const found = await readStored(directory, whole).catch(error => {
      if (error instanceof Failure && error.code === 'home_damaged') return null
      throw error
    })
    const worker = found && isOpen(found.stored.run) && found.stored.worker
    if (worker && isAlive(worker, found.lastSign)) throw new Failure('run_busy', { run: whole, pid: worker.pid })
    await db.deleteFrom('runs').where('id', '=', whole).execute()
    await forgetRun(db, whole)
  })
  await removeFolder(directory)
}

// ── below ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whether a process has to be at work on it for its status to be true. */
export const isOpen = (run: { status: string }): boolean => !hasEnded(run.status)

function folderOf(home: Home, id: string): string {
  if (!/^[0-9a-f]{32}$/.test(id)) throw new Failure('run_not_found', { run: id.slice(0, 64) })
  return join(home.path, 'runs', id)
}

async function readStored(directory: string, id: string): Promise<{ stored: Stored; lastSign: number }> {
  const file = join(directory, 'run.json')
  try {
    const { mtimeMs } = await stat(file)
    return { stored: Stored.parse(JSON.parse(await readFile(file, 'utf8'))), lastSign: mtimeMs }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new Failure('run_not_found', { run: id })
    if (error instanceof SyntaxError || error instanceof z.ZodError) throw new Failure('home_damaged', { path: file }, { cause: error })
    throw storageFailure(error, file)
  }
}

/** With the metrics that were logged since run.json was written. */
async function withNewest(directory: string, { run, covered }: Stored): Promise<Run> {
  const points = await readMetricLog(join(directory, 'metrics.jsonl'), covered)
  return points.length === 0 ? run : { ...run, metrics: { ...run.metrics, ...newestOf(points) } }
}

async function index(db: Db, run: Run): Promise<void> {
  const { run: id, name, recipe, status, reason, started, ended } = run
  const row = { id, name, recipe, status, reason, started, ended, run: JSON.stringify(run) }
  await db
    .insertInto('runs')
    .values(row)
    .onConflict(conflict => conflict.column('id').doUpdateSet(row))
    .execute()
  await mirrorRun(db, run)
}

/** No other process writes to the database, or is inside `locked`, until it is done. */
const locked = exclusively
