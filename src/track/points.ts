/** Points of metrics in the database: how numbers are kept, how many are written at once, and the newest of each metric beside them. */
import { CompiledQuery } from 'kysely'
import { type Db, speaksPostgres } from '../db/open.ts'

/** One point: the run by its number in the database, the metric by the number of its name. */
export interface NewPoint {
  run: number
  key: number
  step: number
  /** Milliseconds since 1970. */
  timestamp: number
  value: number
}
interface Point extends NewPoint {
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

/** The same point twice is one. The newest of each metric is kept apart, so that a run is read without its history. */
export async function writePoints(db: Db, given: readonly NewPoint[]): Promise<void> {
  if (given.length === 0) return
  // neighbours in the table one after the other; and no two writers that lock the same rows in two orders
  const points = given.map(point => ({ ...point, ...stored(point.value) })).sort((a, b) => a.run - b.run || a.key - b.key || order(a, b))
  const latest = points.filter(({ run, key }, i) => run !== points[i + 1]?.run || key !== points[i + 1]?.key)
  if (speaksPostgres(db)) {
    await db.executeQuery(CompiledQuery.raw(postgres.points, asColumns(points)))
    await db.executeQuery(CompiledQuery.raw(postgres.latest, asColumns(latest)))
  } else {
    await inStatements(db, points, 'points')
    await inStatements(db, latest, 'latest')
  }
}

/** What is newest: by step, then time, then value. Whatever order points arrive in, the same one is. */
const order = (a: Point, b: Point) => a.step - b.step || a.timestamp - b.timestamp || a.value - b.value || a.special - b.special

const columns = ['run', 'key', 'step', 'timestamp', 'value', 'special'] as const
const named = (table: string) => columns.map(column => `${table}.${column}`).slice(2)
const insertPoints = (rows: string) => `insert into metrics (${columns}) ${rows} on conflict do nothing`
const insertLatest = (rows: string) =>
  `insert into latest_metrics (${columns}) ${rows} on conflict (run, key) do update set step = excluded.step, timestamp = excluded.timestamp, value = excluded.value, special = excluded.special where (${named('excluded')}) > (${named('latest_metrics')})`

/** PostgreSQL takes columns as lists: one statement for any number of rows. */
const lists = 'select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::double precision[], $6::bigint[])'
const postgres = { points: insertPoints(lists), latest: insertLatest(lists) }
const asColumns = (points: readonly Point[]) => columns.map(column => points.map(point => point[column]))

/** SQLite takes rows, from few sizes so that few texts are compiled; six values a row stay far below the limit on parameters. */
const sizes = [256, 32, 4, 1] as const
const rows = (n: number) => `values ${Array.from({ length: n }, () => '(?, ?, ?, ?, ?, ?)').join(', ')}`
const sqlite = new Map<number, { points: string; latest: string }>(
  sizes.map(n => [n, { points: insertPoints(rows(n)), latest: insertLatest(rows(n)) }]),
)

async function inStatements(db: Db, points: readonly Point[], kind: 'points' | 'latest'): Promise<void> {
  for (let at = 0; at < points.length; ) {
    const size = sizes.find(n => n <= points.length - at)!
    const values: number[] = []
    for (const { run, key, step, timestamp, value, special } of points.slice(at, at + size))
      values.push(run, key, step, timestamp, value, special)
    await db.executeQuery(CompiledQuery.raw(sqlite.get(size)![kind], values))
    at += size
  }
}

// ── names of metrics ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Names are long and few, points are many: each name has a number, which is never taken away and so remembered here. */
export interface Keys {
  /** Makes the numbers that are missing. */
  of(db: Db, names: Iterable<string>): Promise<ReadonlyMap<string, number>>
  /** For when a transaction that may have made some is gone. */
  forget(): void
}
export function createKeys(): Keys {
  const known = new Map<string, number>()
  return {
    async of(db, names) {
      const missing = [...new Set(names)].filter(name => !known.has(name))
      if (missing.length === 0) return known
      if (known.size > 100_000) {
        known.clear()
        return await this.of(db, names)
      }
      for (let at = 0; at < missing.length; at += 500) {
        const some = missing.slice(at, at + 500)
        const values = some.map(key => ({ key }))
        await db
          .insertInto('metric_keys')
          .values(values)
          .onConflict(conflict => conflict.doNothing())
          .execute()
        for (const { id, key } of await db.selectFrom('metric_keys').selectAll().where('key', 'in', some).execute()) known.set(key, id)
      }
      return known
    },
    forget: () => known.clear(),
  }
}
