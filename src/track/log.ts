/**
 * What runs log: metrics, params and tags, many small requests written together. Requests that arrive while a transaction is being
 * written wait for the next one, so a thousand clients cost a few flushes of the disk; each is answered only when its points are there.
 */
import { CompiledQuery } from 'kysely'
import type { Db } from '../db/open.ts'
import { relaxedTransactions } from '../db/relaxed.ts'
import { Failure } from '../failure.ts'
import { createKeys, type Keys, type NewPoint, stored, writePoints } from './points.ts'

export interface LoggedMetric {
  key: string
  value: number
  /** Milliseconds since 1970. */
  timestamp: number
  step: number
  /** The logged model that was measured, and on what. */
  model?: string | undefined
  datasetName?: string | undefined
  datasetDigest?: string | undefined
}
export interface Batch {
  project: string
  run: string
  metrics: readonly LoggedMetric[]
  params: readonly { key: string; value: string }[]
  tags: readonly { key: string; value: string }[]
}

export interface RunLog {
  /**
   * Stored, all of it or nothing, when it resolves. The same point twice is one point; the same param with another value is refused.
   * throws tracked_run_not_found, tracked_run_deleted, param_changed, disk_full …
   */
  log(batch: Batch): Promise<void>
  /** Waits for what is under way. */
  close(): Promise<void>
}

type Waiting = Batch & { resolve(): void; reject(error: unknown): void }
/** Rows of one transaction: more would keep others waiting. */
const mostPoints = 50_000

export function createRunLog(db: Db): RunLog {
  const keys = createKeys()
  const relaxed = relaxedTransactions(db)
  let waiting: Waiting[] = []
  let writing: Promise<void> | null = null

  const flush = async () => {
    // one turn of the event loop gathers what has already arrived
    await new Promise(resolve => setImmediate(resolve))
    while (waiting.length > 0) {
      const batches = take(waiting)
      waiting = waiting.slice(batches.length)
      await writeTogether(batches)
    }
    writing = null
  }
  const writeTogether = async (batches: readonly Waiting[]): Promise<void> => {
    const refused = new Map<Waiting, unknown>()
    // of points, the last tenth of a second may go with the mains; what is said once is on disk when it is answered
    const transactions = batches.every(({ params, tags }) => params.length + tags.length === 0) ? relaxed : db.transaction()
    try {
      await transactions.execute(transaction => write(transaction, batches, refused, keys))
    } catch (error) {
      keys.forget() // some may have been made in the transaction that is gone
      if (batches.length > 1 && !(error instanceof Failure)) {
        // something in one of them that nobody expected: the others are not to suffer from it
        for (const batch of batches) await writeTogether([batch])
      } else for (const batch of batches) batch.reject(error)
      return
    }
    for (const batch of batches) refused.has(batch) ? batch.reject(refused.get(batch)) : batch.resolve()
  }
  return {
    log: batch =>
      new Promise((resolve, reject) => {
        waiting.push({ ...batch, resolve, reject })
        writing ??= flush()
      }),
    close: async () => {
      await writing
      await relaxed.close()
    },
  }
}

/** As many of the first as fit into one transaction; at least one. */
function take(waiting: readonly Waiting[]): Waiting[] {
  let points = 0
  for (const [i, { metrics }] of waiting.entries()) {
    points += metrics.length
    if (points > mostPoints && i > 0) return waiting.slice(0, i)
  }
  return [...waiting]
}

async function write(db: Db, batches: readonly Waiting[], refused: Map<Waiting, unknown>, keys: Keys): Promise<void> {
  const runs = await runsOf(db, batches)
  const accepted: { run: number; metrics: readonly LoggedMetric[] }[] = []
  for (const batch of batches) {
    try {
      const run = runs.get(batch.run)
      if (!run || run.project !== batch.project) throw new Failure('tracked_run_not_found', { run: batch.run.slice(0, 64) })
      if (run.deleted !== null) throw new Failure('tracked_run_deleted', { run: batch.run })
      if (batch.params.length > 0) await writeParams(db, run.number, batch)
      if (batch.tags.length > 0) await writeTags(db, run.number, batch.tags)
      if (batch.metrics.some(({ model }) => model)) await writeModelMetrics(db, batch)
      accepted.push({ run: run.number, metrics: batch.metrics })
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      refused.set(batch, error)
    }
  }
  const numbers = await keys.of(db, names(accepted))
  const points: NewPoint[] = []
  for (const { run, metrics } of accepted)
    for (const { key, step, timestamp, value } of metrics) points.push({ run, key: numbers.get(key)!, step, timestamp, value })
  await writePoints(db, points)
}

function* names(batches: readonly { metrics: readonly LoggedMetric[] }[]): Generator<string> {
  for (const { metrics } of batches) for (const { key } of metrics) yield key
}

type RunRow = { number: number; id: string; project: string; deleted: number | null }
async function runsOf(db: Db, batches: readonly Batch[]): Promise<Map<string, RunRow>> {
  const rows = new Map<string, RunRow>()
  for (const ids of chunks([...new Set(batches.map(({ run }) => run))])) {
    const marks = ids.map((_, i) => `$${i + 1}`).join(',')
    const text = `select r.number, r.id, r.deleted, e.project from tracked_runs r join experiments e on e.id = r.experiment where r.id in (${marks})`
    for (const row of (await db.executeQuery<RunRow>(CompiledQuery.raw(text, ids))).rows) rows.set(row.id, row)
  }
  return rows
}

/** Checked first, so that a refused batch leaves nothing in the transaction it shares with others. */
async function writeParams(db: Db, run: number, { run: id, params }: Batch): Promise<void> {
  const names = params.map(({ key }) => key)
  const known = await db.selectFrom('params').select(['key', 'value']).where('run', '=', run).where('key', 'in', names).execute()
  const before = new Map(known.map(({ key, value }) => [key, value]))
  for (const { key, value } of params) {
    const old = before.get(key)
    if (old !== undefined && old !== value) throw new Failure('param_changed', { run: id, key, old, value })
    before.set(key, value)
  }
  const fresh = [...before].filter(([key]) => !known.some(row => row.key === key))
  if (fresh.length > 0)
    await db
      .insertInto('params')
      .values(fresh.map(([key, value]) => ({ run, key, value })))
      .execute()
}

export async function writeTags(db: Db, run: number, tags: readonly { key: string; value: string }[]): Promise<void> {
  const rows = [...new Map(tags.map(({ key, value }) => [key, { run, key, value }])).values()]
  await db
    .insertInto('tags')
    .values(rows)
    .onConflict(conflict => conflict.columns(['run', 'key']).doUpdateSet(row => ({ value: row.ref('excluded.value') })))
    .execute()
}

async function writeModelMetrics(db: Db, { run, metrics }: Batch): Promise<void> {
  const rows = metrics.flatMap(({ key, value, timestamp, step, model, datasetName = '', datasetDigest = '' }) =>
    model ? [{ model, key, ...stored(value), timestamp, step, run, dataset_name: datasetName, dataset_digest: datasetDigest }] : [],
  )
  if (rows.length > 0)
    await db
      .insertInto('logged_model_metrics')
      .values(rows)
      .onConflict(conflict => conflict.doNothing())
      .execute()
}

function* chunks<T>(items: readonly T[], size = 500): Generator<T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size)
}
