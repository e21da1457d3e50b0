/** Searching logged models. */
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { parseFilter, type Vocabulary } from './filter.ts'
import { compared, isPostgres, type SortTerm, selectPage } from './statement.ts'

const vocabulary: Vocabulary = {
  entities: {
    metric: 'metric',
    metrics: 'metric',
    param: 'param',
    params: 'param',
    tag: 'tag',
    tags: 'tag',
    attribute: 'attribute',
    attributes: 'attribute',
    attr: 'attribute',
  },
  attributes: {
    name: 'name',
    model_id: 'model_id',
    model_type: 'model_type',
    status: 'status',
    source_run_id: 'source_run_id',
    creation_timestamp: 'creation_timestamp',
    creation_timestamp_ms: 'creation_timestamp',
    creation_time: 'creation_timestamp',
    last_updated_timestamp: 'last_updated_timestamp',
    last_updated_timestamp_ms: 'last_updated_timestamp',
  },
  numeric: ['creation_timestamp', 'last_updated_timestamp'],
  lists: ['name', 'model_id', 'model_type', 'status', 'source_run_id'],
  nullable: ['tag', 'param'],
}
const columns: Record<string, RawBuilder<unknown>> = {
  name: sql`m.name`,
  model_id: sql`m.id`,
  model_type: sql`coalesce(m.type, '')`,
  status: sql`upper(m.status)`,
  source_run_id: sql`coalesce(m.run, '')`,
  creation_timestamp: sql`m.created`,
  last_updated_timestamp: sql`m.updated`,
}

export interface LoggedModelSearch {
  experiments: readonly string[]
  filter: string
  orderBy: readonly { field: string; ascending: boolean; dataset: { name: string; digest: string | null } | null }[]
  /** Narrow metrics to those measured on one of these; without a digest any version of that name counts. */
  datasets: readonly { name: string; digest: string | null }[]
  limit: number
  after?: string | undefined
}

/** Ids, for `loggedModels`. throws search_invalid, page_invalid */
export async function searchLoggedModels(
  db: Db,
  project: string,
  search: LoggedModelSearch,
): Promise<{ ids: string[]; next: string | null }> {
  const ids = search.experiments.filter(id => /^\d{1,15}$/.test(id)).map(Number)
  if (ids.length === 0) return { ids: [], next: null }
  const postgres = isPostgres(db)
  const conditions = parseFilter(search.filter, vocabulary).map(({ entity, key, operator, value }): RawBuilder<SqlBool> => {
    if (entity === 'attribute') return compared(columns[key]!, operator, value, postgres)
    if (entity === 'metric')
      return sql`exists (select 1 from logged_model_metrics x where x.model = m.id and x.key = ${key} and x.special <> 1 and ${compared(sql`x.value`, operator, value, postgres)}${onOneOf(search.datasets)})`
    const table = sql.table(entity === 'param' ? 'logged_model_params' : 'logged_model_tags')
    const has = (condition: RawBuilder<unknown>) =>
      sql<SqlBool>`exists (select 1 from ${table} x where x.model = m.id and x.key = ${key}${condition})`
    if (operator === 'IS NULL') return sql`not ${has(sql``)}`
    if (operator === 'IS NOT NULL') return has(sql``)
    return has(sql` and ${compared(sql`x.value`, operator, value, postgres)}`)
  })
  const terms = search.orderBy.flatMap(({ field, ascending, dataset }): SortTerm[] => {
    if (field.startsWith('metrics.')) {
      const best = sql`(select x.value from logged_model_metrics x where x.model = m.id and x.key = ${field.slice('metrics.'.length)} and x.special <> 1${onOneOf(dataset ? [dataset] : [])} order by x.step desc, x.timestamp desc, x.value desc limit 1)`
      return [
        { value: sql`case when ${best} is null then 1 else 0 end`, descending: false },
        { value: sql`coalesce(${best}, 0)`, descending: !ascending },
      ]
    }
    const name = vocabulary.attributes[field.replace(/^attributes?\./, '')]
    if (!name || !columns[name])
      throw new Failure('search_invalid', { problem: `logged models cannot be sorted by ${JSON.stringify(field.slice(0, 60))}` })
    return [{ value: columns[name], descending: !ascending }]
  })
  return await selectPage<string>(db, {
    from: sql`logged_models m`,
    id: sql`m.id`,
    conditions: [
      sql`m.experiment in (select id from experiments where project = ${project} and id in (${sql.join(ids)}))`,
      sql`m.deleted is null`,
      ...conditions,
    ],
    terms: [...terms, { value: sql`m.created`, descending: true }, { value: sql`m.id`, descending: false }],
    question: [search.experiments, search.filter, search.orderBy, search.datasets],
    limit: search.limit,
    after: search.after,
  })
}

const onOneOf = (datasets: LoggedModelSearch['datasets']): RawBuilder<unknown> =>
  datasets.length === 0
    ? sql``
    : sql` and (${sql.join(
        datasets.map(({ name, digest }) =>
          digest === null ? sql`x.dataset_name = ${name}` : sql`(x.dataset_name = ${name} and x.dataset_digest = ${digest})`,
        ),
        sql` or `,
      )})`
