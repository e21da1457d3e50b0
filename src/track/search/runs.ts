/** Searching runs: conditions and order become one statement whose values are all bound; pages go on behind the last row seen. */
import { createHash } from 'node:crypto'
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { type Comparison, type Order, parseFilter, parseOrder } from './filter.ts'

export interface RunSearch {
  experiments: readonly string[]
  filter: string
  orderBy: readonly string[]
  view: 'active' | 'deleted' | 'all'
  limit: number
  after?: string | undefined
}

/** Numbers of runs, in order, for `trackedRuns`. throws search_invalid, page_invalid */
export async function searchRuns(db: Db, project: string, search: RunSearch): Promise<{ numbers: number[]; next: string | null }> {
  const comparisons = parseFilter(search.filter)
  const terms = sortTerms(search.orderBy.map(text => parseOrder(text)))
  if (search.experiments.length === 0) return { numbers: [], next: null }
  const postgres = isPostgres(db)
  const question = createHash('sha256')
    .update(JSON.stringify([search.experiments, search.filter, search.orderBy, search.view]))
    .digest('hex')
    .slice(0, 16)
  const after = search.after ? readToken(search.after, question, terms.length) : null
  const ids = search.experiments.filter(id => /^\d{1,15}$/.test(id)).map(Number)
  if (ids.length === 0) return { numbers: [], next: null }
  const conditions: RawBuilder<SqlBool>[] = [
    sql`r.experiment in (select id from experiments where project = ${project} and id in (${sql.join(ids)}))`,
    ...(search.view === 'all' ? [] : [search.view === 'deleted' ? sql<SqlBool>`r.deleted is not null` : sql<SqlBool>`r.deleted is null`]),
    ...comparisons.map(comparison => condition(comparison, postgres)),
    ...(after ? [behind(terms, after)] : []),
  ]
  const keys = terms.map(({ value }, i) => sql`${value} as ${sql.ref(`k${i}`)}`)
  const order = terms.map(({ value, descending }) => sql`${value} ${sql.raw(descending ? 'desc' : 'asc')}`)
  const { rows } = await sql<{ number: number } & Record<`k${number}`, number | string>>`
    select r.number, ${sql.join(keys)} from tracked_runs r where ${sql.join(conditions, sql` and `)}
    order by ${sql.join(order)} limit ${search.limit + 1}`.execute(db)
  const page = rows.slice(0, search.limit)
  const last = page.at(-1)
  const next =
    rows.length > search.limit && last
      ? writeToken(
          question,
          terms.map((_, i) => last[`k${i}`]!),
        )
      : null
  return { numbers: page.map(({ number }) => number), next }
}

const isPostgres = (db: Db) => db.getExecutor().adapter.constructor.name === 'PostgresAdapter'

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

export function compared(
  left: RawBuilder<unknown>,
  operator: Comparison['operator'],
  value: Comparison['value'],
  postgres: boolean,
): RawBuilder<SqlBool> {
  switch (operator) {
    case 'IN':
    case 'NOT IN':
      return sql`${left} ${sql.raw(operator)} (${sql.join(value as string[])})`
    case 'LIKE': // SQLite's LIKE does not tell A from a; its GLOB does
      return postgres ? sql`${left} like ${value} escape ''` : sql`${left} glob ${asGlob(value as string)}`
    case 'ILIKE':
      return postgres ? sql`${left} ilike ${value} escape ''` : sql`${left} like ${value}`
    case 'IS NULL':
    case 'IS NOT NULL':
      return sql`${left} ${sql.raw(operator)}`
    default:
      return sql`${left} ${sql.raw(operator)} ${value}`
  }
}

/** `%` and `_` as GLOB's `*` and `?`, and what is special there as itself. */
const asGlob = (pattern: string) => pattern.replace(/[[*?]/g, '[$&]').replaceAll('%', '*').replaceAll('_', '?')

// ── order ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** One value to sort by. None is ever null: what a run lacks has a rank of its own, so a page can go on behind it. */
interface SortTerm {
  value: RawBuilder<unknown>
  descending: boolean
}

/** Numbers first, then NaN, then what lacks the field, whatever the direction; the newest first among equals. */
function sortTerms(orders: readonly Order[]): SortTerm[] {
  const seen = new Set<string>()
  const terms: SortTerm[] = []
  for (const { entity, key, descending } of orders) {
    const name = `${entity}.${key}`
    if (seen.has(name)) throw new Failure('search_invalid', { problem: `${key} is sorted by twice` })
    seen.add(name)
    if (entity === 'attribute') {
      const column = attributes[key]!
      const isNumber = key === 'start_time' || key === 'end_time'
      terms.push({ value: sql`case when ${column} is null then 1 else 0 end`, descending: false })
      terms.push({ value: isNumber ? sql`coalesce(${column}, 0)` : sql`coalesce(${column}, '')`, descending })
    } else if (entity === 'metric') {
      const of = (column: string) =>
        sql`(select ${sql.ref(`m.${column}`)} from latest_metrics m where m.run = r.number and m.key = (select id from metric_keys where key = ${key}))`
      terms.push({
        value: sql`coalesce(case ${of('special')} when 1 then 1 else ${of('special')} * 0 end, 2)`,
        descending: false,
      })
      terms.push({ value: sql`coalesce(${of('value')}, 0)`, descending })
    } else {
      const table = sql.table(entity === 'param' ? 'params' : 'tags')
      const own = sql`(select p.value from ${table} p where p.run = r.number and p.key = ${key})`
      terms.push({ value: sql`case when ${own} is null then 1 else 0 end`, descending: false })
      terms.push({ value: sql`coalesce(${own}, '')`, descending })
    }
  }
  if (!seen.has('attribute.start_time')) terms.push({ value: sql`r.started`, descending: true })
  terms.push({ value: sql`r.id`, descending: false })
  return terms
}

/** Lexicographically behind the row with these values. */
function behind(terms: readonly SortTerm[], values: readonly (number | string)[]): RawBuilder<SqlBool> {
  const alternatives = terms.map(({ value, descending }, i) => {
    const equal = terms.slice(0, i).map((term, j) => sql`${term.value} = ${values[j]}`)
    return sql`(${sql.join([...equal, sql`${value} ${sql.raw(descending ? '<' : '>')} ${values[i]}`], sql` and `)})`
  })
  return sql`(${sql.join(alternatives, sql` or `)})`
}

const writeToken = (question: string, values: readonly (number | string)[]) =>
  Buffer.from(JSON.stringify([question, ...values])).toString('base64url')

/** A token belongs to the question it was given for. throws page_invalid */
function readToken(token: string, question: string, length: number): (number | string)[] {
  try {
    const [asked, ...values] = JSON.parse(Buffer.from(token, 'base64url').toString()) as (number | string)[]
    if (asked === question && values.length === length && values.every(value => typeof value === 'string' || typeof value === 'number'))
      return values
  } catch {
    // told below
  }
  throw new Failure('page_invalid')
}
