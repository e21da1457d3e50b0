/** Searching registered models and their versions. */
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from '../../db/open.ts'
import { type Comparison, parseFilter, parseOrder, type Vocabulary } from './filter.ts'
import { compared, isPostgres, selectPage } from './statement.ts'

export interface RegistrySearch {
  filter: string
  orderBy: readonly string[]
  limit: number
  after?: string | undefined
}

const entities = { tag: 'tag', tags: 'tag', attribute: 'attribute', attributes: 'attribute' } as const
const models: Vocabulary = {
  entities,
  attributes: { name: 'name', timestamp: 'timestamp', last_updated_timestamp: 'timestamp', creation_timestamp: 'creation_timestamp' },
  numeric: ['timestamp', 'creation_timestamp'],
  lists: [],
  nullable: [],
}
const modelColumns: Record<string, RawBuilder<unknown>> = {
  name: sql`m.name`,
  timestamp: sql`m.updated`,
  creation_timestamp: sql`m.created`,
}

/**
 * Prompts are registered models too, marked by this tag: they are found only by those who ask for them, and whoever asks for what is none
 * gets the models without the tag. A model that lacks any other tag is unequal to nothing.
 */
const promptTag = 'mlflow.prompt.is_prompt'
function withoutPrompts(comparisons: readonly Comparison[], isPrompt: RawBuilder<SqlBool>) {
  const asked = comparisons.find(({ entity, key }) => entity === 'tag' && key === promptTag)
  const value = String(asked?.value).toLowerCase()
  if ((asked?.operator === '=' && value === 'true') || (asked?.operator === '!=' && value === 'false'))
    return { comparisons, conditions: [] }
  return {
    comparisons: comparisons.filter(each => each.entity !== 'tag' || each.key !== promptTag),
    conditions: [sql<SqlBool>`not ${isPrompt}`],
  }
}

/** Names, for `registeredModels`. throws search_invalid */
export async function searchRegisteredModels(db: Db, project: string, { filter, orderBy, limit, after }: RegistrySearch) {
  const postgres = isPostgres(db)
  const tagged = (key: string, condition: RawBuilder<unknown>) =>
    sql<SqlBool>`exists (select 1 from registered_model_tags t where t.project = m.project and t.name = m.name and t.key = ${key} and ${condition})`
  const { comparisons, conditions: notPrompts } = withoutPrompts(parseFilter(filter, models), tagged(promptTag, sql`t.value = 'true'`))
  const conditions = comparisons.map(
    ({ entity, key, operator, value }): RawBuilder<SqlBool> =>
      entity === 'attribute'
        ? compared(modelColumns[key]!, operator, value, postgres)
        : tagged(key, compared(sql`t.value`, operator, value, postgres)),
  )
  const orders = orderBy.map(text => parseOrder(text, models))
  return await selectPage<string>(db, {
    from: sql`registered_models m`,
    id: sql`m.name`,
    conditions: [sql`m.project = ${project}`, ...notPrompts, ...conditions],
    terms: [...orders.map(({ key, descending }) => ({ value: modelColumns[key]!, descending })), { value: sql`m.name`, descending: false }],
    question: [filter, orderBy],
    limit,
    after,
  })
}

const versions: Vocabulary = {
  entities,
  attributes: {
    ...{
      name: 'name',
      version_number: 'version_number',
      run_id: 'run_id',
      source_path: 'source_path',
      creation_timestamp: 'creation_timestamp',
    },
    last_updated_timestamp: 'last_updated_timestamp',
  },
  numeric: ['version_number', 'creation_timestamp', 'last_updated_timestamp'],
  lists: ['run_id'],
  nullable: [],
}
const versionColumns: Record<string, RawBuilder<unknown>> = {
  name: sql`v.name`,
  version_number: sql`v.version`,
  run_id: sql`coalesce(v.run, '')`,
  source_path: sql`v.source`,
  creation_timestamp: sql`v.created`,
  last_updated_timestamp: sql`v.updated`,
}

/** Names and numbers, for `registeredVersions`. throws search_invalid */
export async function searchVersions(db: Db, project: string, { filter, orderBy, limit, after }: RegistrySearch) {
  const postgres = isPostgres(db)
  const prompt = sql<SqlBool>`exists (select 1 from model_version_tags t where t.project = v.project and t.name = v.name and t.key = ${promptTag} and t.value = 'true')`
  const { comparisons, conditions: notPrompts } = withoutPrompts(parseFilter(filter, versions), prompt)
  const conditions = comparisons.map(({ entity, key, operator, value }): RawBuilder<SqlBool> => {
    if (entity === 'attribute') {
      const asText = key === 'creation_timestamp' && typeof value === 'number' // kept as ISO 8601, which sorts as time does
      return compared(versionColumns[key]!, operator, asText ? new Date(value).toISOString() : value, postgres)
    }
    return sql`exists (select 1 from model_version_tags t where t.project = v.project and t.name = v.name and t.version = v.version and t.key = ${key} and ${compared(sql`t.value`, operator, value, postgres)})`
  })
  const orders = orderBy.map(text => parseOrder(text, versions))
  const { ids, next } = await selectPage<string>(db, {
    from: sql`model_versions v`,
    id: sql`v.version || '@' || v.name`,
    conditions: [sql`v.project = ${project}`, sql`v.deleted is null`, ...notPrompts, ...conditions],
    terms: [
      ...orders.map(({ key, descending }) => ({ value: versionColumns[key]!, descending })),
      { value: sql`v.name`, descending: false },
      { value: sql`v.version`, descending: true },
    ],
    question: [filter, orderBy],
    limit,
    after,
  })
  return { versions: ids.map(id => ({ version: Number.parseInt(id, 10), name: id.slice(id.indexOf('@') + 1) })), next }
}
