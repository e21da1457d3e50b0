/**
 * The registry of models: names, numbered versions that never change, aliases that do. Versions are ONNX files of ours (registry.ts keeps
 * those files) or files that a run or a logged model made with any framework. Everything in another project is not found.
 */
import type { Selectable } from 'kysely'
import { type Actor, record } from '../db/audit.ts'
import type { Db } from '../db/open.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'

export interface RegisteredModel {
  name: string
  description: string | null
  created: number
  updated: number
  tags: Record<string, string>
  aliases: Record<string, number>
}
export interface RegisteredVersion {
  name: string
  version: number
  kind: 'artefact' | 'mlflow'
  created: number
  updated: number
  description: string | null
  stage: Stage
  source: string
  run: string | null
  loggedModel: string | null
  /** Where its run can be looked at, for a run of another server. */
  runLink: string | null
  user: string
  tags: Record<string, string>
  aliases: string[]
}
export const stages = ['None', 'Staging', 'Production', 'Archived'] as const
export type Stage = (typeof stages)[number]

// ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export function checkRegisteredName(name: string): string {
  if (name === '' || name.length > 250 || /[/:\p{Cc}]/u.test(name))
    throw new Failure('registered_name_invalid', { name: name.slice(0, 120) })
  return name
}
export function checkAlias(alias: string): string {
  const sound = /^[\w-]{1,255}$/.test(alias) && alias !== 'latest' && !/^v\d+$/i.test(alias)
  if (!sound) throw new Failure('alias_invalid', { alias: alias.slice(0, 120) })
  return alias
}
export function stageNamed(text: string): Stage {
  const stage = stages.find(each => each.toLowerCase() === text.toLowerCase())
  if (!stage) throw new Failure('stage_invalid', { stage: text.slice(0, 60) })
  return stage
}

// ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** throws registered_model_exists, registered_name_invalid */
export async function createRegisteredModel(
  db: Db,
  project: string,
  { name, description, tags }: { name: string; description: string | null; tags: Readonly<Record<string, string>> },
): Promise<RegisteredModel> {
  checkRegisteredName(name)
  const now = Date.now()
  await db.transaction().execute(async transaction => {
    const made = await transaction
      .insertInto('registered_models')
      .values({ project, name, description, created: now, updated: now })
      .onConflict(conflict => conflict.doNothing())
      .returning('name')
      .executeTakeFirst()
    if (!made) throw new Failure('registered_model_exists', { name })
    const rows = Object.entries(tags).map(([key, value]) => ({ project, name, key, value }))
    if (rows.length > 0) await transaction.insertInto('registered_model_tags').values(rows).execute()
  })
  return getRegisteredModel(db, project, name)
}

/** For versions that are registered without asking for the name first. */
export async function ensureRegistered(db: Db, project: string, name: string, now: number): Promise<void> {
  await db
    .insertInto('registered_models')
    .values({ project, name, description: null, created: now, updated: now })
    .onConflict(conflict => conflict.columns(['project', 'name']).doUpdateSet({ updated: now }))
    .execute()
}

/** throws registered_model_not_found */
export async function getRegisteredModel(db: Db, project: string, name: string): Promise<RegisteredModel> {
  const [model] = await registeredModels(db, project, [name])
  if (!model) throw new Failure('registered_model_not_found', { name })
  return model
}

/** In the order of `names`. */
export async function registeredModels(db: Db, project: string, names: readonly string[]): Promise<RegisteredModel[]> {
  if (names.length === 0) return []
  const [rows, tags, aliases] = await Promise.all([
    db.selectFrom('registered_models').selectAll().where('project', '=', project).where('name', 'in', names).execute(),
    db.selectFrom('registered_model_tags').selectAll().where('project', '=', project).where('name', 'in', names).execute(),
    db.selectFrom('model_aliases').selectAll().where('project', '=', project).where('name', 'in', names).execute(),
  ])
  const found = new Map(
    rows.map(({ name, description, created, updated }): [string, RegisteredModel] => [
      name,
      { name, description, created, updated, tags: {}, aliases: {} },
    ]),
  )
  for (const [name, of] of Map.groupBy(tags, tag => tag.name)) {
    const model = found.get(name)
    if (model) model.tags = recordOf(of)
  }
  for (const { name, alias, version } of aliases) found.get(name)!.aliases[alias] = version
  return names.flatMap(name => found.get(name) ?? [])
}

/** From entries: assigned, a key called __proto__ would be lost. */
const recordOf = (tags: readonly { key: string; value: string }[]) => Object.fromEntries(tags.map(({ key, value }) => [key, value]))

export async function describeRegisteredModel(db: Db, project: string, name: string, description: string): Promise<RegisteredModel> {
  await touched(db, project, name, { description })
  return getRegisteredModel(db, project, name)
}

/** Gives all versions of a model another name. throws registered_model_not_found, registered_model_exists, model_name_spent */
export async function renameRegisteredModel(db: Db, { project, user }: Actor, from: string, to: string): Promise<RegisteredModel> {
  checkRegisteredName(to)
  await db.transaction().execute(async transaction => {
    await getRegisteredModel(transaction, project, from)
    if ((await registeredModels(transaction, project, [to])).length > 0) throw new Failure('registered_model_exists', { name: to })
    const spent = transaction.selectFrom('model_versions').select('version').where('project', '=', project).where('name', '=', to)
    if (await spent.executeTakeFirst()) throw new Failure('model_name_spent', { name: to })
    await renameRegistered(transaction, project, from, to)
    await touched(transaction, project, to, {})
    await record(transaction, { project, user, action: 'models.rename', subject: from, details: { to } })
  })
  return getRegisteredModel(db, project, to)
}

const namedTables = ['model_versions', 'registered_models', 'registered_model_tags', 'model_version_tags', 'model_aliases'] as const
export async function renameRegistered(db: Db, project: string, from: string, to: string): Promise<void> {
  for (const table of namedTables)
    await db.updateTable(table).set({ name: to }).where('project', '=', project).where('name', '=', from).execute()
}

/** throws registered_model_not_found */
export async function setRegisteredModelTag(db: Db, project: string, name: string, key: string, value: string): Promise<void> {
  await touched(db, project, name, {})
  await db
    .insertInto('registered_model_tags')
    .values({ project, name, key, value })
    .onConflict(conflict => conflict.columns(['project', 'name', 'key']).doUpdateSet({ value }))
    .execute()
}
export async function deleteRegisteredModelTag(db: Db, project: string, name: string, key: string): Promise<void> {
  await touched(db, project, name, {})
  await db.deleteFrom('registered_model_tags').where('project', '=', project).where('name', '=', name).where('key', '=', key).execute()
}

async function touched(db: Db, project: string, name: string, change: { description?: string }): Promise<void> {
  const { numUpdatedRows } = await db
    .updateTable('registered_models')
    .set({ ...change, updated: Date.now() })
    .where('project', '=', project)
    .where('name', '=', name)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) throw new Failure('registered_model_not_found', { name })
}

// ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface NewVersion {
  name: string
  source: string
  run: string | null
  loggedModel: string | null
  runLink?: string | null
  description: string | null
  user: string
  tags: Readonly<Record<string, string>>
}

/** The next number of that name; none is ever given twice. throws registered_model_not_found */
export async function createRegisteredVersion(db: Db, project: string, given: NewVersion): Promise<RegisteredVersion> {
  const { name, source, run, loggedModel, runLink = null, description, user, tags } = given
  const now = Date.now()
  const version = await db.transaction().execute(async transaction => {
    await touched(transaction, project, name, {})
    const { newest } = await transaction
      .selectFrom('model_versions')
      .select(select => select.fn.max('version').as('newest'))
      .where('project', '=', project)
      .where('name', '=', name)
      .executeTakeFirstOrThrow()
    const version = Number(newest ?? 0) + 1
    await transaction
      .insertInto('model_versions')
      .values({
        ...{
          project,
          name,
          version,
          kind: 'mlflow',
          labels: '[]',
          run,
          dataset: null,
          created: new Date(now).toISOString(),
          bytes: 0,
          digest: '',
        },
        ...{
          accuracy: null,
          deleted: null,
          description,
          stage: 'None',
          source,
          logged_model: loggedModel,
          run_link: runLink,
          user,
          updated: now,
        },
      })
      .execute()
    const rows = Object.entries(tags).map(([key, value]) => ({ project, name, version, key, value }))
    if (rows.length > 0) await transaction.insertInto('model_version_tags').values(rows).execute()
    return version
  })
  return getRegisteredVersion(db, project, name, version)
}

/** throws registered_version_not_found */
export async function getRegisteredVersion(db: Db, project: string, name: string, version: number): Promise<RegisteredVersion> {
  const [found] = await registeredVersions(db, project, [{ name, version }])
  if (!found) throw new Failure('registered_version_not_found', { name, version })
  return found
}

/** In the order asked for; deleted ones are not there. */
export async function registeredVersions(
  db: Db,
  project: string,
  wanted: readonly { name: string; version: number }[],
): Promise<RegisteredVersion[]> {
  if (wanted.length === 0) return []
  const names = [...new Set(wanted.map(({ name }) => name))]
  const numbers = [...new Set(wanted.map(({ version }) => version))]
  const [rows, tags, aliases] = await Promise.all([
    db
      .selectFrom('model_versions')
      .selectAll()
      .where('project', '=', project)
      .where('name', 'in', names)
      .where('version', 'in', numbers)
      .where('deleted', 'is', null)
      .execute(),
    db
      .selectFrom('model_version_tags')
      .selectAll()
      .where('project', '=', project)
      .where('name', 'in', names)
      .where('version', 'in', numbers)
      .execute(),
    db
      .selectFrom('model_aliases')
      .selectAll()
      .where('project', '=', project)
      .where('name', 'in', names)
      .where('version', 'in', numbers)
      .execute(),
  ])
  const keyOf = ({ name, version }: { name: string; version: number }) => `${version}@${name}`
  const found = new Map(rows.map(row => [keyOf(row), asVersion(row)]))
  for (const [key, of] of Map.groupBy(tags, keyOf)) {
    const version = found.get(key)
    if (version) version.tags = recordOf(of)
  }
  for (const alias of aliases) found.get(keyOf(alias))?.aliases.push(alias.alias)
  return wanted.flatMap(each => found.get(keyOf(each)) ?? [])
}

export type VersionDetails = RegisteredVersion & {
  labels: string[]
  dataset: { name: string; version: number; digest: string } | null
  accuracy: { n: number; accuracy: number; low: number; high: number } | null
  bytes: number
  digest: string
}

/** With what only files of ours have. `required`: throws registered_version_not_found */
export async function versionDetails(
  db: Db,
  project: string,
  wanted: readonly { name: string; version: number }[],
  { required = false } = {},
): Promise<VersionDetails[]> {
  const versions = await registeredVersions(db, project, wanted)
  const [first] = wanted
  if (required && first && versions.length < wanted.length) throw new Failure('registered_version_not_found', { ...first })
  if (versions.length === 0) return []
  const rows = await db
    .selectFrom('model_versions')
    .select(['name', 'version', 'labels', 'dataset', 'accuracy', 'bytes', 'digest'])
    .where('project', '=', project)
    .where('name', 'in', [...new Set(versions.map(({ name }) => name))])
    .where('version', 'in', [...new Set(versions.map(({ version }) => version))])
    .execute()
  const known = new Map(rows.map(row => [`${row.version}@${row.name}`, row]))
  return versions.map(version => {
    const row = known.get(`${version.version}@${version.name}`)!
    return {
      ...version,
      labels: JSON.parse(row.labels) as string[],
      dataset: row.dataset === null ? null : (JSON.parse(row.dataset) as VersionDetails['dataset']),
      accuracy: row.accuracy === null ? null : (JSON.parse(row.accuracy) as VersionDetails['accuracy']),
      bytes: Number(row.bytes),
      digest: row.digest,
    }
  })
}

const asVersion = (row: Selectable<Schema['model_versions']>): RegisteredVersion => ({
  name: row.name,
  version: row.version,
  kind: row.kind as RegisteredVersion['kind'],
  created: Date.parse(row.created),
  updated: row.updated,
  description: row.description,
  stage: row.stage as Stage,
  source: row.source,
  run: row.run,
  loggedModel: row.logged_model,
  runLink: row.run_link,
  user: row.user,
  tags: {},
  aliases: [],
})

/** throws registered_version_not_found */
export async function changeRegisteredVersion(
  db: Db,
  project: string,
  name: string,
  version: number,
  change: { description?: string; stage?: Stage },
): Promise<RegisteredVersion> {
  await getRegisteredVersion(db, project, name, version)
  const now = Date.now()
  await db
    .updateTable('model_versions')
    .set({ ...change, updated: now })
    .where('project', '=', project)
    .where('name', '=', name)
    .where('version', '=', version)
    .execute()
  await touched(db, project, name, {})
  return getRegisteredVersion(db, project, name, version)
}

/** What hangs on versions that are gone. */
export async function forgetVersions(db: Db, project: string, name: string, versions: readonly number[]): Promise<void> {
  for (const table of ['model_version_tags', 'model_aliases'] as const)
    await db.deleteFrom(table).where('project', '=', project).where('name', '=', name).where('version', 'in', versions).execute()
}

/** throws registered_version_not_found */
export async function setVersionTag(db: Db, project: string, name: string, version: number, key: string, value: string): Promise<void> {
  await changeRegisteredVersion(db, project, name, version, {})
  await db
    .insertInto('model_version_tags')
    .values({ project, name, version, key, value })
    .onConflict(conflict => conflict.columns(['project', 'name', 'version', 'key']).doUpdateSet({ value }))
    .execute()
}
export async function deleteVersionTag(db: Db, project: string, name: string, version: number, key: string): Promise<void> {
  await changeRegisteredVersion(db, project, name, version, {})
  await db
    .deleteFrom('model_version_tags')
    .where('project', '=', project)
    .where('name', '=', name)
    .where('version', '=', version)
    .where('key', '=', key)
    .execute()
}

// ── aliases ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Past every gate: promote.ts asks first, in the transaction that this is called in. throws alias_invalid, registered_version_not_found */
export async function setAlias(db: Db, project: string, name: string, alias: string, version: number): Promise<void> {
  checkAlias(alias)
  await getRegisteredVersion(db, project, name, version)
  await db
    .insertInto('model_aliases')
    .values({ project, name, alias, version })
    .onConflict(conflict => conflict.columns(['project', 'name', 'alias']).doUpdateSet({ version }))
    .execute()
}

export async function deleteAlias(db: Db, project: string, name: string, alias: string): Promise<void> {
  await getRegisteredModel(db, project, name)
  await db.deleteFrom('model_aliases').where('project', '=', project).where('name', '=', name).where('alias', '=', alias).execute()
}

/** `latest` is the newest version. throws registered_model_not_found, registered_alias_not_found */
export async function versionByAlias(db: Db, project: string, name: string, alias: string): Promise<RegisteredVersion> {
  const { aliases } = await getRegisteredModel(db, project, name)
  const version = alias === 'latest' ? await newestVersion(db, project, name) : Object.hasOwn(aliases, alias) ? aliases[alias] : undefined
  if (version === undefined) throw new Failure('registered_alias_not_found', { alias })
  return getRegisteredVersion(db, project, name, version)
}

async function newestVersion(db: Db, project: string, name: string): Promise<number | undefined> {
  const row = await db
    .selectFrom('model_versions')
    .select('version')
    .where('project', '=', project)
    .where('name', '=', name)
    .where('deleted', 'is', null)
    .orderBy('version', 'desc')
    .executeTakeFirst()
  return row?.version
}

/** The newest version in each stage. */
export async function latestVersions(
  db: Db,
  project: string,
  name: string,
  wanted: readonly Stage[] = stages,
): Promise<RegisteredVersion[]> {
  const rows = await db
    .selectFrom('model_versions')
    .select(['stage', select => select.fn.max('version').as('version')])
    .where('project', '=', project)
    .where('name', '=', name)
    .where('deleted', 'is', null)
    .groupBy('stage')
    .execute()
  const those = rows.filter(({ stage }) => wanted.includes(stage as Stage)).map(({ version }) => ({ name, version: Number(version) }))
  return registeredVersions(
    db,
    project,
    those.sort((a, b) => a.version - b.version),
  )
}
