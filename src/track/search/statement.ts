/** What all searches share: comparisons whose values are bound, an order without nulls, and pages that go on behind the last row seen. */
import { createHash } from 'node:crypto'
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import type { Comparison } from './filter.ts'

export const isPostgres = (db: Db): boolean => db.getExecutor().adapter.constructor.name === 'PostgresAdapter'

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
      // PostgreSQL would take the column's type for it, and 1.5 is no whole number
      if (postgres && typeof value === 'number') return sql`${left} ${sql.raw(operator)} cast(${value} as double precision)`
      return sql`${left} ${sql.raw(operator)} ${value}`
  }
}

/** `%` and `_` as GLOB's `*` and `?`, and what is special there as itself. */
const asGlob = (pattern: string) => pattern.replace(/[[*?]/g, '[$&]').replaceAll('%', '*').replaceAll('_', '?')

/** One value to sort by. None is ever null: what a run lacks has a rank of its own, so a page can go on behind it. */
export interface SortTerm {
  value: RawBuilder<unknown>
  descending: boolean
}

export interface PageQuery {
  from: RawBuilder<unknown>
  /** What names a row. */
  id: RawBuilder<unknown>
  conditions: readonly RawBuilder<SqlBool>[]
  /** The last of them tells all rows apart. */
  terms: readonly SortTerm[]
  /** What was asked: a token of another question is refused. */
  question: readonly unknown[]
  limit: number
  after?: string | undefined
}

/** Names of the rows of one page, in order, and the token of the next one; null at the end. throws page_invalid */
export async function selectPage<Id extends number | string>(db: Db, query: PageQuery): Promise<{ ids: Id[]; next: string | null }> {
  const { terms, limit } = query
  const question = createHash('sha256').update(JSON.stringify(query.question)).digest('hex').slice(0, 16)
  const after = query.after ? readToken(query.after, question, terms.length) : null
  const conditions = [...query.conditions, ...(after ? [behind(terms, after)] : [])]
  const keys = terms.map(({ value }, i) => sql`${value} as ${sql.ref(`k${i}`)}`)
  const order = terms.map(({ value, descending }) => sql`${value} ${sql.raw(descending ? 'desc' : 'asc')}`)
  const where = conditions.length === 0 ? sql`true` : sql.join(conditions, sql` and `)
  const { rows } = await sql<{ id: Id } & Record<`k${number}`, number | string>>`
    select ${query.id} as id, ${sql.join(keys)} from ${query.from} where ${where} order by ${sql.join(order)} limit ${limit + 1}`
    .execute(db)
    .catch(error => {
      // a token that somebody wrote: text where a number was. PostgreSQL says so, 22P02 or 42883
      if (after && /^(22|42883)/.test((error as { code?: string }).code ?? '')) throw new Failure('page_invalid')
      throw error
    })
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const values = last && terms.map((_, i) => last[`k${i}`]!)
  return { ids: page.map(({ id }) => id), next: values && rows.length > limit ? writeToken(question, values) : null }
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
