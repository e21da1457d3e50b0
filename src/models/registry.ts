/**
 * Models and their immutable versions. The file comes first, named by its content, then one row in one statement: a version that
 * can be listed is whole, a name can change without touching a file, and a file without a row is a leftover that `gc` removes.
 */
import { existsSync, statSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { type Selectable, sql } from 'kysely'
import type { Home } from '../db/home.ts'
import { checkName, parseModelReference } from '../db/names.ts'
import type { Db } from '../db/open.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'
import { type DatasetReference, ModelVersion } from '../sdk/index.ts'
import { sha256, sha256OfFile } from '../storage/blobs.ts'
import { copyFileAtomic } from '../storage/disk.ts'
import { readArtefact } from './artefact.ts'
import { MAX_BYTES } from './artefact-format.ts'
import { type Deletion, type Deployed, deleteVersions, fileOf, own } from './deletion.ts'
import { ensureRegistered, renameRegistered, versionByAlias } from './registered.ts'

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
    await ensureRegistered(transaction, own, name, now) // its row is locked from here: two that count get numbers of their own
    const { rows } = await sql<Row>`
      insert into model_versions
        (project, name, version, kind, labels, run, dataset, created, bytes, digest, accuracy, stage, source, "user", updated)
      select ${own}, ${name}, coalesce(max(version), 0) + 1, 'artefact', ${json(labels)}, ${run}, ${json(dataset)},
        ${new Date(now).toISOString()}, ${size}, ${digest}, ${json(accuracy)}, 'None', '', 'owner', ${now}
      from model_versions where project = ${own} and name = ${name}
      returning *`.execute(transaction)
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
 * `clothes` (the newest), `clothes@3`, `clothes@champion`, or the path of a file. A folder that happens to have the model's name is not in the way.
 * throws model_not_found, model_alias_not_found, name_invalid, version_invalid, artefact_…
 */
export async function resolveModel(home: Home, reference: string): Promise<ModelVersion> {
  if (/[/\\]/.test(reference) || statSync(reference, { throwIfNoEntry: false })?.isFile()) return fromFile(home, resolve(reference))
  const { name, version } = await followed(home.db, reference)
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

/** An alias is followed to the number it leads to now. */
async function followed(db: Db, reference: string): Promise<{ name: string; version: number | null }> {
  const { name, version, alias } = parseModelReference(reference)
  if (alias === null || alias === 'latest') return { name, version }
  const found = await versionByAlias(db, own, name, alias).catch(error => {
    if (error instanceof Failure && error.code === 'registered_model_not_found') throw new Failure('model_not_found', { model: reference })
    if (error instanceof Failure && error.code === 'registered_alias_not_found') throw new Failure('model_alias_not_found', { name, alias })
    throw error
  })
  return { name, version: found.version }
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

/** One version (`clothes@2`), or all of a name. Answers what goes and how many bytes that frees; a preview deletes nothing. throws model_not_found, model_in_use */
export async function deleteModel(
  home: Home,
  reference: string,
  { preview = false, deployments = async () => [] }: { preview?: boolean; deployments?(): Promise<readonly Deployed[]> } = {},
): Promise<Deletion> {
  const { name, version } = await followed(home.db, reference)
  const actor = { project: own, user: 'owner' }
  return await deleteVersions(home, actor, { name, version, preview, deployments }).catch(error => {
    const missing =
      error instanceof Failure && (error.code === 'registered_model_not_found' || error.code === 'registered_version_not_found')
    throw missing ? new Failure('model_not_found', { model: reference }, { cause: error }) : error
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
