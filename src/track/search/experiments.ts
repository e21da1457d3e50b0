/** Searching experiments. */
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from '../../db/open.ts'
import { parseFilter, parseOrder, type Vocabulary } from './filter.ts'
import { compared, isPostgres, selectPage } from './statement.ts'

const vocabulary: Vocabulary = {
  entities: { tag: 'tag', tags: 'tag', attribute: 'attribute', attributes: 'attribute', attr: 'attribute' },
  attributes: { name: 'name', experiment_id: 'experiment_id', creation_time: 'creation_time', last_update_time: 'last_update_time' },
  numeric: ['creation_time', 'last_update_time'],
  lists: [],
  nullable: ['tag'],
}
const columns: Record<string, RawBuilder<unknown>> = {
  name: sql`e.name`,
  experiment_id: sql`e.id`,
  creation_time: sql`e.created`,
  last_update_time: sql`e.updated`,
}

export interface ExperimentSearch {
  filter: string
  orderBy: readonly string[]
  view: 'active' | 'deleted' | 'all'
  limit: number
  after?: string | undefined
}

/** Ids, for `experimentsOf`; by default the newest first. throws search_invalid, page_invalid */
export async function searchExperiments(db: Db, project: string, { filter, orderBy, view, limit, after }: ExperimentSearch) {
  const postgres = isPostgres(db)
  const conditions = parseFilter(filter, vocabulary).map(({ entity, key, operator, value }): RawBuilder<SqlBool> => {
    if (entity === 'attribute') return compared(columns[key]!, operator, value, postgres)
    const has = (condition: RawBuilder<unknown>) =>
      sql<SqlBool>`exists (select 1 from experiment_tags t where t.experiment = e.id and t.key = ${key}${condition})`
    if (operator === 'IS NULL') return sql`not ${has(sql``)}`
    if (operator === 'IS NOT NULL') return has(sql``)
    return has(sql` and ${compared(sql`t.value`, operator, value, postgres)}`)
  })
  const orders = (orderBy.length > 0 ? orderBy : ['creation_time DESC', 'experiment_id ASC']).map(text => parseOrder(text, vocabulary))
  return await selectPage<number>(db, {
    from: sql`experiments e`,
    id: sql`e.id`,
    conditions: [
      sql`e.project = ${project}`,
      ...(view === 'all' ? [] : [view === 'deleted' ? sql<SqlBool>`e.deleted is not null` : sql<SqlBool>`e.deleted is null`]),
      ...conditions,
    ],
    terms: [...orders.map(({ key, descending }) => ({ value: columns[key]!, descending })), { value: sql`e.id`, descending: true }],
    question: [filter, orderBy, view],
    limit,
    after,
  })
}
