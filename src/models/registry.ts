/**
 * Models and their immutable versions. The file comes first, named by its content, then one row in one statement: a version that
 * can be listed is whole, a name can change without touching a file, and a file without a row is a leftover that `gc` removes.
 */
import { existsSync, statSync } from 'node:fs'
import { readFile, rm, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { type Selectable, sql } from 'kysely'
import type { Home } from '../db/home.ts'
import { checkName, parseReference } from '../db/names.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'
import { type DatasetReference, ModelVersion } from '../sdk/index.ts'
import { sha256, sha256OfFile } from '../storage/blobs.ts'
import { copyFileAtomic, storageFailure } from '../storage/disk.ts'
import { readArtefact } from './artefact.ts'
import { MAX_BYTES } from './artefact-format.ts'
import { ensureRegistered, forgetVersions, renameRegistered } from './registered.ts'

export interface NewModel {
  name: string
  /** The ONNX file; it is copied. */
  file: string
  labels: readonly string[]
  run: string | null
  dataset: DatasetReference | null
  accuracy: ModelVersion['accuracy']
}
type Row = Selectable<Schema['model_versions']>

/** The project of whoever works on the home itself. */
const own = 'default'

/** The next version of that name. Numbers are never given twice, also not after a deletion, nor to two processes at once. */
export async function registerModel(home: Home, { name, file, labels, run, dataset, accuracy }: NewModel): Promise<ModelVersion> {
  checkName('model', name)
  const digest = await sha256OfFile(file)
  const stored = fileOf(home, digest)
  await copyFileAtomic(file, stored)
  const { size } = await stat(stored)
  const now = Date.now()
  const json = (value: object | null) => value && JSON.stringify(value)
  return await home.db.transaction().execute(async transaction => {
    if (!existsSync(stored)) await copyFileAtomic(file, stored) // another process deleted the last version with this content just now
    const { rows } = await sql<Row>`
      insert into model_versions
        (project, name, version, kind, labels, run, dataset, created, bytes, digest, accuracy, stage, source, "user", updated)
      select ${own}, ${name}, coalesce(max(version), 0) + 1, 'artefact', ${json(labels)}, ${run}, ${json(dataset)},
        ${new Date(now).toISOString()}, ${size}, ${digest}, ${json(accuracy)}, 'None', '', 'owner', ${now}
      from model_versions where project = ${own} and name = ${name}
      returning *`.execute(transaction)
    await ensureRegistered(transaction, own, name, now)
    return asVersion(home, rows[0]!)
  })
}

/** Newest first within a name, names in order. */
export async function listModels(home: Home): Promise<ModelVersion[]> {
  const rows = await home.db
    .selectFrom('model_versions')
    .selectAll()
    .where('project', '=', own)
    .where('kind', '=', 'artefact')
    .where('deleted', 'is', null)
    .orderBy('name')
    .orderBy('version', 'desc')
    .execute()
  return rows.map(row => asVersion(home, row))
}

/**
 * `clothes` (the newest), `clothes@3`, or the path of a file. A folder that happens to have the model's name is not in the way.
 * throws model_not_found, name_invalid, version_invalid, artefact_…
 */
export async function resolveModel(home: Home, reference: string): Promise<ModelVersion> {
  if (/[/\\]/.test(reference) || statSync(reference, { throwIfNoEntry: false })?.isFile()) return fromFile(home, resolve(reference))
  const { name, version } = parseReference('model', reference)
  let query = home.db
    .selectFrom('model_versions')
    .selectAll()
    .where('project', '=', own)
    .where('kind', '=', 'artefact')
    .where('name', '=', name)
    .where('deleted', 'is', null)
  if (version !== null) query = query.where('version', '=', version)
  const row = await query.orderBy('version', 'desc').executeTakeFirst()
  if (!row) throw new Failure('model_not_found', { model: reference })
  return asVersion(home, row)
}

/** Gives all versions of a model another name; its numbers stay. throws model_not_found, model_exists, model_name_spent */
export async function renameModel(home: Home, from: string, to: string): Promise<void> {
  checkName('model', from)
  checkName('model', to)
  await home.db.transaction().execute(async transaction => {
    const versions = await transaction
      .selectFrom('model_versions')
      .select(['name', 'deleted'])
      .where('project', '=', own)
      .where('name', 'in', [from, to])
      .execute()
    const [mine, theirs] = [versions.filter(row => row.name === from), versions.filter(row => row.name === to)]
    if (mine.every(row => row.deleted !== null)) throw new Failure('model_not_found', { model: from })
    if (theirs.some(row => row.deleted === null)) throw new Failure('model_exists', { name: to })
    if (theirs.length > 0) throw new Failure('model_name_spent', { name: to })
    await renameRegistered(transaction, own, from, to)
  })
}

/** One version (`clothes@2`), or all of a name. Answers what goes and how many bytes that frees; a preview deletes nothing. throws model_not_found */
export async function deleteModel(
  home: Home,
  reference: string,
  { preview = false } = {},
): Promise<{ versions: ModelVersion[]; bytes: number }> {
  const { name, version } = parseReference('model', reference)
  const versions = await home.db.transaction().execute(async transaction => {
    let those = transaction
      .selectFrom('model_versions')
      .selectAll()
      .where('project', '=', own)
      .where('kind', '=', 'artefact')
      .where('name', '=', name)
      .where('deleted', 'is', null)
    if (version !== null) those = those.where('version', '=', version)
    const rows = await those.orderBy('version', 'desc').execute()
    if (rows.length === 0) throw new Failure('model_not_found', { model: reference })
    if (!preview) {
      const numbers = rows.map(row => row.version)
      const deleted = new Date().toISOString()
      await transaction
        .updateTable('model_versions')
        .set({ deleted })
        .where('project', '=', own)
        .where('name', '=', name)
        .where('version', 'in', numbers)
        .execute()
      await forgetVersions(transaction, own, name, numbers)
    }
    return rows.map(row => asVersion(home, row))
  })
  let bytes = 0
  for (const digest of new Set(versions.map(version => version.digest))) {
    const leaving = versions.filter(version => version.digest === digest)
    if (await freeFile(home, digest, preview ? leaving.length : 0)) bytes += leaving[0]!.bytes
  }
  return { versions, bytes }
}

/**
 * Deletes the file if no version names it, or, with `leaving` versions about to go, says whether it would. Nobody can register a
 * version with this content meanwhile. A kill before it leaves a file that no version names, which `gc` finds.
 */
async function freeFile(home: Home, digest: string, leaving: number): Promise<boolean> {
  return await home.db.transaction().execute(async transaction => {
    const users = await transaction
      .selectFrom('model_versions')
      .select('name')
      .where('digest', '=', digest)
      .where('deleted', 'is', null)
      .execute()
    if (users.length > leaving) return false
    const path = fileOf(home, digest)
    if (leaving === 0)
      await rm(path, { force: true }).catch(error => {
        throw storageFailure(error, path)
      })
    return true
  })
}

/** A copy with the rights of any file of this user. throws path_in_the_way where there is something already, model_not_found, disk_full */
export async function exportModel(home: Home, reference: string, to: string): Promise<ModelVersion> {
  const model = await resolveModel(home, reference)
  const path = resolve(to)
  if (existsSync(path)) throw new Failure('path_in_the_way', { path })
  await copyFileAtomic(model.path, path, 'stream')
  return model
}

const fileOf = (home: Home, digest: string) => join(home.path, 'models', `${digest}.onnx`)

function asVersion(home: Home, row: Row): ModelVersion {
  const { name, version, run, created, bytes, digest } = row
  return ModelVersion.parse({
    name,
    version,
    path: fileOf(home, digest),
    labels: JSON.parse(row.labels),
    run,
    dataset: row.dataset && JSON.parse(row.dataset),
    created,
    bytes,
    digest,
    accuracy: row.accuracy && JSON.parse(row.accuracy),
  })
}

/** A file of ours from anywhere: the registered version where it is one, else what its own metadata says, as version 1 of its file name. */
async function fromFile(home: Home, path: string): Promise<ModelVersion> {
  const bytes = await readModelFile(path)
  const digest = sha256(bytes)
  const known = await home.db
    .selectFrom('model_versions')
    .selectAll()
    .where('digest', '=', digest)
    .where('deleted', 'is', null)
    .executeTakeFirst()
  if (known) return { ...asVersion(home, known), path }
  const { labels, lineage } = readArtefact(bytes).metadata
  return {
    name: basename(path).replace(/\.onnx$/i, ''),
    version: 1,
    path,
    labels,
    run: lineage.run,
    dataset: lineage.dataset,
    created: lineage.created,
    bytes: bytes.length,
    digest,
    accuracy: null,
  }
}

async function readModelFile(path: string): Promise<Uint8Array> {
  const missing = (problem: string, cause?: unknown) => new Failure('artefact_missing', { path, problem }, { cause })
  const entry = await stat(path).catch(error => {
    throw missing(error.code, error)
  })
  if (!entry.isFile()) throw missing(entry.isDirectory() ? 'it is a folder' : 'it is not a file')
  if (entry.size > MAX_BYTES) throw new Failure('artefact_too_large', { bytes: entry.size, limit: MAX_BYTES })
  return await readFile(path).catch(error => {
    throw missing(error.code, error)
  })
}
