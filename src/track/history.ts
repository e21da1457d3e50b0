/** A metric over time, thinned out in the database: a million points are answered as a thousand, and no peak is lost. */
import { CompiledQuery, sql } from 'kysely'
import { type Db, speaksPostgres } from '../db/open.ts'
import { asLists } from '../db/sqlite.ts'
import { original } from './points.ts'
import { rowOf } from './tracked-runs.ts'

export interface HistoryPoint {
  step: number
  timestamp: number
  value: number
  least: number
  greatest: number
  count: number
}

/**
 * At most `most` points, by step, then time. With more in the database they are cut into stretches of equally many, whatever their steps
 * are (scripts that never say a step log all of theirs at 0); each gives its last point and, for the band around the line, the least and
 * greatest value. NaN counts in no band; a stretch of nothing else is NaN. throws tracked_run_not_found
 */
export async function thinnedHistory(
  db: Db,
  project: string,
  run: string,
  key: string,
  most: number,
): Promise<{ total: number; points: HistoryPoint[] }> {
  const { number } = await rowOf(db, project, run)
  const named = await db.selectFrom('metric_keys').select('id').where('key', '=', key).executeTakeFirst()
  if (!named) return { total: 0, points: [] }
  const metric: Metric = { run: number, key: named.id }
  const total = await countPoints(db, metric)
  const each = Math.max(1, Math.ceil(total / most))
  const stretches = speaksPostgres(db) ? await stretchesByWindow(db, metric, each, total) : await stretchesBySeeking(db, metric, each)
  return {
    total: stretches.reduce((sum, { count }) => sum + count, 0),
    points: stretches.map(({ step, timestamp, count, least, greatest, ...last }) => ({
      ...{ step, timestamp, count, value: original(last) },
      least: bound(least),
      greatest: bound(greatest),
    })),
  }
}

export interface Metric {
  run: number
  key: number
}
/** Where a point stands among those of its metric. */
export type Place = [step: number, timestamp: number, value: number, special: number]

/** Its last point, and what there is in it. */
interface Stretch {
  step: number
  timestamp: number
  value: number
  special: number
  count: number
  least: number | null
  greatest: number | null
}

/** All of them, or those of some steps. */
export async function countPoints(db: Db, { run, key }: Metric, steps: { from: number; to: number } | null = null): Promise<number> {
  const between = steps ? sql` and step between ${steps.from} and ${steps.to}` : sql``
  const { rows } = await sql<{
    total: number
  }>`select count(*) as total from metrics where run = ${run} and key = ${key}${between}`.execute(db)
  return Number(rows[0]!.total)
}

const numbers = 'min(value) filter (where special <> 1) as least, max(value) filter (where special <> 1) as greatest, count(*) as count'

/** PostgreSQL numbers the points in one pass. */
async function stretchesByWindow(db: Db, { run, key }: Metric, each: number, total: number): Promise<Stretch[]> {
  const last = sql`filter (where place % ${sql.lit(each)} = ${sql.lit(each - 1)} or place = ${sql.lit(total - 1)})`
  const { rows } = await sql<Stretch>`
    select place / ${sql.lit(each)} as part, ${sql.raw(numbers)}, max(step) ${last} as step, max(timestamp) ${last} as timestamp,
      max(value) ${last} as value, max(special) ${last} as special
    from (select step, timestamp, value, special, row_number() over (order by step, timestamp, value, special) - 1 as place
      from metrics where run = ${run} and key = ${key} limit ${total}) placed
    group by 1 order by 1`.execute(db)
  return rows.map(row => ({ ...row, count: Number(row.count) }))
}

/**
 * SQLite is four times as fast when it jumps from one end of a stretch to the next in the table's own order, and looks between them. Where no
 * step lies on both sides of an end, steps alone are compared: a third less than whole places.
 */
async function stretchesBySeeking(db: Db, { run, key }: Metric, each: number): Promise<Stretch[]> {
  const ask = async <Row>(text: string, values: readonly number[]) =>
    (await db.executeQuery<Row>(CompiledQuery.raw(text.replace('METRIC', 'from metrics where run = ? and key = ?'), [run, key, ...values])))
      .rows
  const stretches: Stretch[] = []
  let behind = edge('>', beforeAll, false)
  for (;;) {
    const [last, next] = await ask<Place>(`${asLists}select ${order} METRIC and ${behind.text} order by ${order} limit 2 offset ?`, [
      ...behind.values,
      each - 1,
    ])
    // the rest, where it is shorter
    const end =
      last ?? (await ask<Place>(`${asLists}select ${order} METRIC and ${behind.text} order by ${backwards} limit 1`, behind.values))[0]
    if (!end) return stretches
    const between = next?.[0] !== end[0]
    const upTo = edge('<=', end, between)
    const [found] = await ask<Pick<Stretch, 'least' | 'greatest' | 'count'>>(
      `select ${numbers} METRIC and ${behind.text} and ${upTo.text}`,
      [...behind.values, ...upTo.values],
    )
    const [step, timestamp, value, special] = end
    stretches.push({ step, timestamp, value, special, ...found! })
    behind = edge('>', end, between)
  }
}

const order = 'step, timestamp, value, special'
const backwards = order.replace(/\w+/g, '$& desc')

/** One side of a stretch; `between`: no other point has this step on the other side. */
const edge = (comparison: '>' | '<=', place: Place, between: boolean) =>
  between
    ? { text: `step ${comparison} ?`, values: [place[0]] }
    : { text: `(${order}) ${comparison} (?, ?, ?, ?)`, values: place as readonly number[] }

export const beforeAll: Place = [-Number.MAX_SAFE_INTEGER, -1, 0, 0]

/** The `n`th point behind a place, 1 being the next; null where there are not so many. */
export async function placeAfter(db: Db, { run, key }: Metric, after: Place, n: number): Promise<Place | null> {
  const text = `${asLists}select ${order} from metrics where run = ? and key = ? and (${order}) > (?, ?, ?, ?) order by ${order} limit 1 offset ?`
  return (await db.executeQuery<Place>(CompiledQuery.raw(text, [run, key, ...after, n - 1]))).rows[0] ?? null
}

/** As numbers are kept: see points.ts. */
const bound = (value: number | null) =>
  value === null
    ? Number.NaN
    : value === Number.MAX_VALUE
      ? Number.POSITIVE_INFINITY
      : value === -Number.MAX_VALUE
        ? Number.NEGATIVE_INFINITY
        : value
