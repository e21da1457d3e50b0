/** Versions that go: shown first, with what that frees, and refused while an alias or a running process uses them. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Selectable } from 'kysely'
import { type Actor, record } from '../db/audit.ts'
import type { Home } from '../db/home.ts'
import { type Db, exclusively } from '../db/open.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'
import { storageFailure } from '../storage/disk.ts'
import { forgetVersions } from './registered.ts'

type Row = Selectable<Schema['model_versions']>
/** Where files of ours are, by the sha256 of their content. */
export const fileOf = (home: Pick<Home, 'path'>, digest: string): string => join(home.path, 'models', `${digest}.onnx`)
/** The project of whoever works on the home itself. */
export const own = 'default'

/** What answers somebody right now, as far as deleting is concerned. */
export interface Deployed {
  model: { name: string; version: number; digest: string }
  worker: { pid: number }
}
export interface Deletion {
  versions: { name: string; version: number; bytes: number; digest: string }[]
  /** What the disk gets back: a file that a version elsewhere shares stays. Files of runs and logged models stay with those. */
  bytes: number
  /** Why they cannot go, if they cannot: aliases and what serves them. */
  users: string[]
}

export interface Deleting {
  name: string
  /** Null: all of them, and the name. */
  version: number | null
  preview: boolean
  /** Whether an alias is in the way, or goes with its version. */
  aliases?: 'stay' | 'go'
  deployments(): Promise<readonly Deployed[]>
}

/**
 * One version, or all of a name and the name itself. Numbers stay spent. A preview deletes nothing and refuses nothing.
 * throws registered_model_not_found, registered_version_not_found, model_in_use
 */
export async function deleteVersions(
  home: Pick<Home, 'path' | 'db'>,
  { project, user }: Actor,
  { name, version, preview, aliases = 'stay', deployments }: Deleting,
): Promise<Deletion> {
  // whoever starts to serve one of them does so before or after, never in between
  const { deletion, files } = await exclusively(home.db, async db => {
    let those = db
      .selectFrom('model_versions')
      .selectAll()
      .where('project', '=', project)
      .where('name', '=', name)
      .where('deleted', 'is', null)
    if (version !== null) those = those.where('version', '=', version)
    const rows = await those.orderBy('version', 'desc').execute()
    const model = await db
      .selectFrom('registered_models')
      .select('name')
      .where('project', '=', project)
      .where('name', '=', name)
      .executeTakeFirst()
    if (rows.length === 0 && version !== null) throw new Failure('registered_version_not_found', { name, version })
    if (rows.length === 0 && !model) throw new Failure('registered_model_not_found', { name })
    const users = [
      ...(aliases === 'stay' ? await aliasesOf(db, project, name, version) : []),
      ...(project === own ? serving(rows, await deployments()) : []),
    ]
    const files = await filesOnlyOf(db, rows)
    const deletion: Deletion = {
      versions: rows.map(({ name, version, bytes, digest }) => ({ name, version, bytes: Number(bytes), digest })),
      bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
      users,
    }
    if (preview) return { deletion, files: [] }
    const subject = version === null ? name : `${name}@${version}`
    if (users.length > 0) throw new Failure('model_in_use', { model: subject, users: users.join(', ') })
    const numbers = rows.map(row => row.version)
    if (numbers.length > 0) {
      await db
        .updateTable('model_versions')
        .set({ deleted: new Date().toISOString() })
        .where('project', '=', project)
        .where('name', '=', name)
        .where('version', 'in', numbers)
        .execute()
      await forgetVersions(db, project, name, numbers)
    }
    if (version === null)
      for (const table of ['registered_models', 'registered_model_tags'] as const)
        await db.deleteFrom(table).where('project', '=', project).where('name', '=', name).execute()
    await record(db, { project, user, action: 'models.delete', subject, details: { versions: numbers, bytes: deletion.bytes } })
    return { deletion, files }
  })
  for (const { digest } of files) await freeFile(home, digest)
  return deletion
}

async function aliasesOf(db: Db, project: string, name: string, version: number | null): Promise<string[]> {
  let query = db.selectFrom('model_aliases').select(['alias', 'version']).where('project', '=', project).where('name', '=', name)
  if (version !== null) query = query.where('version', '=', version)
  const rows = await query.orderBy('alias').execute()
  return rows.map(row => `alias ${row.alias} of version ${row.version}`)
}

const serving = (rows: readonly Row[], deployments: readonly Deployed[]): string[] =>
  deployments
    .filter(({ model }) => rows.some(row => row.name === model.name && row.version === model.version && row.digest === model.digest))
    .map(({ model, worker }) => `process ${worker.pid}, which serves version ${model.version}`)

/** Files that no version but these names, each once. */
async function filesOnlyOf(db: Db, rows: readonly Row[]): Promise<{ digest: string; bytes: number }[]> {
  const files: { digest: string; bytes: number }[] = []
  for (const [digest, leaving] of Map.groupBy(
    rows.filter(({ kind }) => kind === 'artefact'),
    row => row.digest,
  )) {
    const users = await db.selectFrom('model_versions').select('name').where('digest', '=', digest).where('deleted', 'is', null).execute()
    if (users.length <= leaving.length) files.push({ digest, bytes: Number(leaving[0]!.bytes) })
  }
  return files
}

/**
 * Deletes the file if no version names it. Nobody can register a version with this content meanwhile. A kill before it leaves a file that no
 * version names, which `gc` finds.
 */
async function freeFile(home: Pick<Home, 'path' | 'db'>, digest: string): Promise<void> {
  await home.db.transaction().execute(async transaction => {
    const users = await transaction
      .selectFrom('model_versions')
      .select('name')
      .where('digest', '=', digest)
      .where('deleted', 'is', null)
      .executeTakeFirst()
    if (users) return
    const path = fileOf(home, digest)
    await rm(path, { force: true }).catch(error => {
      throw storageFailure(error, path)
    })
  })
}
