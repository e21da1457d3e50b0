/** Searching runs: conditions and order become one statement whose values are all bound; pages go on behind the last row seen. */
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { type Comparison, type Order, parseFilter, parseOrder } from './filter.ts'
import { compared, isPostgres, type SortTerm, selectPage } from './statement.ts'

export interface RunSearch {
  /** Without it, all of the project. */
  experiments?: readonly string[] | undefined
  filter: string
  orderBy: readonly string[]
  view: 'active' | 'deleted' | 'all'
  limit: number
  after?: string | undefined
}

/** Numbers of runs, in order, for `trackedRuns`. throws search_invalid, page_invalid */
export async function searchRuns(db: Db, project: string, search: RunSearch): Promise<{ numbers: number[]; next: string | null }> {
  const comparisons = parseFilter(search.filter)
  const { joins, terms } = sorting(search.orderBy.map(text => parseOrder(text)))
  const ids = search.experiments && (await experimentsOf(db, project, search.experiments))
  if (ids?.length === 0) return { numbers: [], next: null }
  const postgres = isPostgres(db)
  const { ids: numbers, next } = await selectPage<number>(db, {
    from: sql`tracked_runs r ${sql.join(joins, sql` `)}`,
    id: sql`r.number`,
    conditions: [
      // of one experiment the index gives them in order, and a page ends after its last row
      ids?.length === 1
        ? sql<SqlBool>`r.experiment = ${ids[0]}`
        : sql<SqlBool>`r.experiment in (${ids ? sql.join(ids) : sql`select id from experiments where project = ${project}`})`,
      ...(search.view === 'all' ? [] : [search.view === 'deleted' ? sql<SqlBool>`r.deleted is not null` : sql<SqlBool>`r.deleted is null`]),
      ...comparisons.map(comparison => condition(comparison, postgres)),
    ],
    terms,
    question: [search.experiments, search.filter, search.orderBy, search.view],
    limit: search.limit,
    after: search.after,
  })
  return { numbers, next }
}

/** Those of them that are in the project. */
async function experimentsOf(db: Db, project: string, named: readonly string[]): Promise<number[]> {
  const numbers = named.filter(id => /^\d{1,15}$/.test(id)).map(Number)
  if (numbers.length === 0) return []
  const rows = await db.selectFrom('experiments').select('id').where('project', '=', project).where('id', 'in', numbers).execute()
  return rows.map(({ id }) => id)
}

// ── conditions ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A metric, param or tag that a run does not have is never unequal to anything. */
function condition({ entity, key, operator, value }: Comparison, postgres: boolean): RawBuilder<SqlBool> {
  const compare = (left: RawBuilder<unknown>) => compared(left, operator, value, postgres)
  switch (entity) {
    case 'metric': // NaN is neither more nor less than any number
      return sql`exists (select 1 from latest_metrics m where m.run = r.number and m.key = (select id from metric_keys where key = ${key}) and m.special <> 1 and ${compare(sql`m.value`)})`
    case 'param':
    case 'tag': {
      const table = sql.table(entity === 'param' ? 'params' : 'tags')
      if (operator === 'IS NULL') return sql`not exists (select 1 from ${table} p where p.run = r.number and p.key = ${key})`
      if (operator === 'IS NOT NULL') return sql`exists (select 1 from ${table} p where p.run = r.number and p.key = ${key})`
      return sql`exists (select 1 from ${table} p where p.run = r.number and p.key = ${key} and ${compare(sql`p.value`)})`
    }
    case 'dataset':
      return sql`exists (select 1 from run_inputs i join logged_datasets d on d.id = i.dataset where i.run = r.number and ${compare(datasetColumns[key]!)})`
    case 'attribute':
      return compare(attributes[key]!)
  }
}

const datasetColumns: Record<string, RawBuilder<unknown>> = { name: sql`d.name`, digest: sql`d.digest`, context: sql`i.context` }
const attributes: Record<string, RawBuilder<unknown>> = {
  run_id: sql`r.id`,
  run_name: sql`r.name`,
  status: sql`case r.status when 'running' then 'RUNNING' when 'stopping' then 'RUNNING' when 'succeeded' then 'FINISHED' when 'failed' then 'FAILED' when 'cancelled' then 'KILLED' else 'SCHEDULED' end`,
  user_id: sql`r."user"`,
  artifact_uri: sql`r.location`,
  start_time: sql`r.started`,
  end_time: sql`r.ended`,
}

// ── order ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Numbers first, then NaN, then what lacks the field, whatever the direction; the newest first among equals. */
function sorting(orders: readonly Order[]): { joins: RawBuilder<unknown>[]; terms: SortTerm[] } {
  const seen = new Set<string>()
  const joins: RawBuilder<unknown>[] = []
  const terms: SortTerm[] = []
  for (const [i, { entity, key, descending }] of orders.entries()) {
    const table = `s${i}`
    const own = sql.ref(`${table}.value`)
    const name = `${entity}.${key}`
    if (seen.has(name)) throw new Failure('search_invalid', { problem: `${key} is sorted by twice` })
    seen.add(name)
    if (entity === 'attribute') {
      const column = attributes[key]!
      const isNumber = key === 'start_time' || key === 'end_time'
      terms.push({ value: sql`case when ${column} is null then 1 else 0 end`, descending: false })
      terms.push({ value: isNumber ? sql`coalesce(${column}, 0)` : sql`coalesce(${column}, '')`, descending })
    } else if (entity === 'metric') {
      joins.push(
        sql`left join latest_metrics ${sql.ref(table)} on ${sql.ref(`${table}.run`)} = r.number and ${sql.ref(`${table}.key`)} = (select id from metric_keys where key = ${key})`,
      )
      const special = sql.ref(`${table}.special`)
      terms.push({ value: sql`case when ${special} is null then 2 when ${special} = 1 then 1 else 0 end`, descending: false })
      terms.push({ value: sql`coalesce(${own}, 0)`, descending })
    } else {
      const of = sql.table(entity === 'param' ? 'params' : 'tags')
      joins.push(sql`left join ${of} ${sql.ref(table)} on ${sql.ref(`${table}.run`)} = r.number and ${sql.ref(`${table}.key`)} = ${key}`)
      terms.push({ value: sql`case when ${own} is null then 1 else 0 end`, descending: false })
      terms.push({ value: sql`coalesce(${own}, '')`, descending })
    }
  }
  if (!seen.has('attribute.start_time')) terms.push({ value: sql`r.started`, descending: true })
  terms.push({ value: sql`r.id`, descending: false })
  return { joins, terms }
}
