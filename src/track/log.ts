/**
 * What runs log: metrics, params and tags, many small requests written together. Requests that arrive while a transaction is being
 * written wait for the next one, so a thousand clients cost a few flushes of the disk; each is answered only when its points are there.
 */
import { CompiledQuery } from 'kysely'
import type { Db } from '../db/open.ts'
import { Failure } from '../failure.ts'

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
  let waiting: Waiting[] = []
  let writing: Promise<void> | null = null

  const flush = async () => {
    // one turn of the event loop gathers what has already arrived
    await new Promise(resolve => setImmediate(resolve))
    while (waiting.length > 0) {
      const batches = take(waiting)
      waiting = waiting.slice(batches.length)
      const refused = new Map<Waiting, unknown>()
      try {
        await db.transaction().execute(transaction => write(transaction, batches, refused, keys))
        for (const batch of batches) refused.has(batch) ? batch.reject(refused.get(batch)) : batch.resolve()
      } catch (error) {
        keys.forget() // some may have been made in the transaction that is gone
        for (const batch of batches) batch.reject(error)
      }
    }
    writing = null
  }
  return {
    log: batch =>
      new Promise((resolve, reject) => {
        waiting.push({ ...batch, resolve, reject })
        writing ??= flush()
      }),
    close: async () => {
      await writing
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
  const points: Omit<Point, 'special'>[] = []
  for (const batch of batches) {
    try {
      const run = runs.get(batch.run)
      if (!run || run.project !== batch.project) throw new Failure('tracked_run_not_found', { run: batch.run })
      if (run.deleted !== null) throw new Failure('tracked_run_deleted', { run: batch.run })
      if (batch.params.length > 0) await writeParams(db, run.number, batch)
      if (batch.tags.length > 0) await writeTags(db, run.number, batch.tags)
      await writeModelMetrics(db, batch)
      for (const metric of batch.metrics) {
        const { step, timestamp } = metric
        points.push({ run: run.number, key: await keys.of(db, metric.key), step, timestamp, value: metric.value })
      }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      refused.set(batch, error)
    }
  }
  await writePoints(db, points)
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

// ── points ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Point {
  run: number
  key: number
  step: number
  timestamp: number
  value: number
  special: number
}

/** NaN and infinities have no order and no number in a database: see db/schema.ts. */
export const stored = (value: number): { value: number; special: number } =>
  Number.isNaN(value)
    ? { value: 0, special: 1 }
    : value === Number.POSITIVE_INFINITY
      ? { value: Number.MAX_VALUE, special: 2 }
      : value === Number.NEGATIVE_INFINITY
        ? { value: -Number.MAX_VALUE, special: 3 }
        : { value, special: 0 }
export const original = ({ value, special }: { value: number; special: number }): number =>
  special === 0 ? value : special === 1 ? Number.NaN : special === 2 ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY

/** Rows of one statement, from few sizes, so that few texts are compiled; six values a row stay far below the limit on parameters. */
const sizes = [256, 32, 4, 1] as const
const columns = '(run, key, step, timestamp, value, special)'
const rowsOf = (n: number) =>
  Array.from({ length: n }, (_, i) => `(${Array.from({ length: 6 }, (_, j) => `$${6 * i + j + 1}`).join(',')})`).join(',')
const statements = new Map(
  sizes.map(n => [
    n as number,
    {
      points: `insert into metrics ${columns} values ${rowsOf(n)} on conflict do nothing`,
      latest: `insert into latest_metrics ${columns} values ${rowsOf(n)} on conflict (run, key) do update set step = excluded.step, timestamp = excluded.timestamp, value = excluded.value, special = excluded.special where (excluded.step, excluded.timestamp, excluded.value) > (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)`,
    },
  ]),
)

/** The newest of each metric is kept apart, so that a run is read without its history. */
export async function writePoints(db: Db, given: readonly Omit<Point, 'special'>[]): Promise<void> {
  const points = given.map(point => ({ ...point, ...stored(point.value) }))
  await inStatements(db, points, 'points')
  const latest = new Map<number, Map<number, Point>>()
  for (const point of points) {
    const ofRun = latest.get(point.run) ?? new Map<number, Point>()
    latest.set(point.run, ofRun)
    const best = ofRun.get(point.key)
    if (!best || isNewer(point, best)) ofRun.set(point.key, point)
  }
  await inStatements(
    db,
    [...latest.values()].flatMap(ofRun => [...ofRun.values()]),
    'latest',
  )
}

const isNewer = (a: Point, b: Point) =>
  a.step !== b.step ? a.step > b.step : a.timestamp !== b.timestamp ? a.timestamp > b.timestamp : a.value > b.value

async function inStatements(db: Db, points: readonly Point[], kind: 'points' | 'latest'): Promise<void> {
  for (let at = 0; at < points.length; ) {
    const size = sizes.find(n => n <= points.length - at)!
    const values = points
      .slice(at, at + size)
      .flatMap(({ run, key, step, timestamp, value, special }) => [run, key, step, timestamp, value, special])
    await db.executeQuery(CompiledQuery.raw(statements.get(size)![kind], values))
    at += size
  }
}

// ── names of metrics ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Names are long and few, points are many: each name has a number, remembered here once it is in the database. */
interface Keys {
  of(db: Db, key: string): number | Promise<number>
  forget(): void
}
export function createKeys(): Keys {
  const known = new Map<string, number>()
  return {
    of(db, key) {
      return known.get(key) ?? make(db, key)
    },
    forget: () => known.clear(),
  }
  async function make(db: Db, key: string): Promise<number> {
    await db
      .insertInto('metric_keys')
      .values({ key })
      .onConflict(conflict => conflict.doNothing())
      .execute()
    const { id } = await db.selectFrom('metric_keys').select('id').where('key', '=', key).executeTakeFirstOrThrow()
    if (known.size > 100_000) known.clear()
    known.set(key, id)
    return id
  }
}

function* chunks<T>(items: readonly T[], size = 500): Generator<T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size)
}
