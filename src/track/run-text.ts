/**
 * Runs as JSON, a thousand at a time. What is many, params and tags, the database writes itself; metrics are written here, since SQLite
 * would cut their digits. No objects in between: that is a quarter of the time.
 */
import { sql } from 'kysely'
import { type Db, selectLists, speaksPostgres } from '../db/open.ts'
import { original } from './points.ts'
import { described, type TrackedRun } from './tracked-runs.ts'

export interface RunText {
  run: Omit<TrackedRun, 'params' | 'tags' | 'metrics'>
  /** JSON each: `[{"key":…,"value":…},…]`, or for params and tags as records `{…:…}`; what a run has none of is '' . */
  params: string
  tags: string
  metrics: string
}
export interface RunWords {
  /** How params and tags are written. */
  as: 'pairs' | 'record'
  /** How JSON has the values of metrics that it has no number for. */
  special(value: number): string
}

/** In the order of `numbers`, as search answers them. */
export async function runTexts(db: Db, numbers: readonly number[], words: RunWords): Promise<RunText[]> {
  const texts = new Map<number, RunText>()
  for (let at = 0; at < numbers.length; at += 1000) {
    const some = numbers.slice(at, at + 1000)
    const rows = await db.selectFrom('tracked_runs').selectAll().where('number', 'in', some).execute()
    for (const row of rows) texts.set(row.number, { run: described(row), params: '', tags: '', metrics: '' })
    for (const table of ['params', 'tags'] as const)
      for (const { run, text } of await written(db, table, some, words.as)) texts.get(run)![table] = text
    for (const [run, text] of await writtenMetrics(db, some, words.special)) texts.get(run)!.metrics = text
  }
  return numbers.flatMap(number => texts.get(number) ?? [])
}

async function written(db: Db, table: 'params' | 'tags', runs: readonly number[], as: RunWords['as']) {
  const text = speaksPostgres(db)
    ? as === 'pairs'
      ? sql`json_agg(json_build_object('key', key, 'value', value) order by key)::text`
      : sql`json_object_agg(key, value order by key)::text`
    : as === 'pairs'
      ? sql`json_group_array(json_object('key', key, 'value', value))`
      : sql`json_group_object(key, value)`
  const { rows } = await sql<{ run: number; text: string }>`
    select run, ${text} as text from ${sql.table(table)} where run in (${sql.join(runs)}) group by run`.execute(db)
  return rows
}

type Point = [run: number, key: number, step: number, timestamp: number, value: number, special: number]

async function writtenMetrics(db: Db, runs: readonly number[], odd: RunWords['special']): Promise<Map<number, string>> {
  const points = await selectLists<Point>(
    db,
    sql`select run, key, step, timestamp, value, special from latest_metrics where run in (${sql.join(runs)})`,
  )
  const names = new Map<number, string>()
  const ids = [...new Set(points.map(([, key]) => key))]
  for (let at = 0; at < ids.length; at += 1000)
    for (const { id, key } of await db
      .selectFrom('metric_keys')
      .selectAll()
      .where('id', 'in', ids.slice(at, at + 1000))
      .execute())
      names.set(id, JSON.stringify(key))
  const lists = new Map<number, string>()
  for (const [run, key, step, timestamp, value, special] of points) {
    const number = special === 0 ? String(value) : odd(original({ value, special }))
    const text = `{"key":${names.get(key)},"value":${number},"timestamp":${timestamp},"step":${step}}`
    const before = lists.get(run)
    lists.set(run, before === undefined ? text : `${before},${text}`)
  }
  for (const [run, text] of lists) lists.set(run, `[${text}]`)
  return lists
}
