/** A metric over time, thinned out in the database: a million points are answered as a thousand, and no peak is lost. */
import { sql } from 'kysely'
import type { Db } from '../db/open.ts'
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
 * At most `most` points. With more in the database, steps are cut into equal stretches; each gives its last value and, for the band
 * around the line, the least and greatest. NaN counts in no band; a stretch of nothing else is NaN. throws tracked_run_not_found
 */
export async function thinnedHistory(
  db: Db,
  project: string,
  run: string,
  key: string,
  most: number,
): Promise<{ total: number; points: HistoryPoint[] }> {
  const { number } = await rowOf(db, project, run)
  const id = await db.selectFrom('metric_keys').select('id').where('key', '=', key).executeTakeFirst()
  if (!id) return { total: 0, points: [] }
  const {
    rows: [range],
  } = await sql<{ total: number; first: number | null; last: number | null }>`
    select count(*) as total, min(step) as first, max(step) as last from metrics where run = ${number} and key = ${id.id}`.execute(db)
  const total = Number(range!.total)
  if (total === 0) return { total, points: [] }
  const [first, last] = [Number(range!.first), Number(range!.last)]
  if (total <= most) {
    const { rows } = await sql<{ step: number; timestamp: number; value: number; special: number }>`
      select step, timestamp, value, special from metrics where run = ${number} and key = ${id.id} order by step, timestamp, value`.execute(
      db,
    )
    return {
      total,
      points: rows.map(({ step, timestamp, ...point }) => {
        const value = original(point)
        return { step, timestamp, value, least: value, greatest: value, count: 1 }
      }),
    }
  }
  const stretch = Math.max(1, Math.ceil((last - first + 1) / most))
  const { rows } = await sql<{
    step: number
    timestamp: number
    least: number | null
    greatest: number | null
    count: number
    value: number
    special: number
  }>`
    with stretches as (
      select (step - ${first}) / ${sql.lit(stretch)} as stretch, max(step) as step, max(timestamp) as timestamp, count(*) as count,
        min(case when special = 1 then null else value end) as least, max(case when special = 1 then null else value end) as greatest
      from metrics where run = ${number} and key = ${id.id} group by 1)
    select s.step, s.timestamp, s.count, s.least, s.greatest, m.value, m.special
    from stretches s join metrics m on m.run = ${number} and m.key = ${id.id} and m.step = s.step
      and (m.timestamp, m.value) = (select x.timestamp, x.value from metrics x where x.run = ${number} and x.key = ${id.id} and x.step = s.step order by x.timestamp desc, x.value desc limit 1)
    order by s.step`.execute(db)
  const bound = (value: number | null) =>
    value === null
      ? Number.NaN
      : value === Number.MAX_VALUE
        ? Number.POSITIVE_INFINITY
        : value === -Number.MAX_VALUE
          ? Number.NEGATIVE_INFINITY
          : value
  return {
    total,
    points: rows.map(({ step, timestamp, count, least, greatest, ...point }) => ({
      step,
      timestamp,
      value: original(point),
      least: bound(least),
      greatest: bound(greatest),
      count: Number(count),
    })),
  }
}
