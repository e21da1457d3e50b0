/**
 * Models and their immutable versions. The file comes first, named by its content, then one row in one statement: a version that
 * can be listed is whole, a name can change without touching a file, and a file without a row is a leftover that `gc` removes.
 */

import { existsSync } from 'node:fs'
import { copyFile, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type Selectable, sql } from 'kysely'
import type { Home } from '../db/home.ts'
import { checkName, parseReference } from '../db/names.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'
import { type DatasetReference, ModelVersion } from '../sdk/index.ts'
import { sha256OfFile } from '../storage/blobs.ts'
import { storageFailure, syncFolder, temporaryPath } from '../storage/disk.ts'
import { readArtefact } from './artefact.ts'

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

/** The next version of that name. Numbers are never given twice, also not after a deletion. */
export async function registerModel(home: Home, { name, file, labels, run, dataset, accuracy }: NewModel): Promise<ModelVersion> {
  checkName('model', name)
  const digest = await sha256OfFile(file)
  const { size } = await stat(file)
  await copyWhole(file, fileOf(home, digest))
  const json = (value: object | null) => value && JSON.stringify(value)
  const { rows } = await sql<Row>`
    insert into model_versions (name, version, labels, run, dataset, created, bytes, digest, accuracy)
    select ${name}, coalesce(max(version), 0) + 1, ${json(labels)}, ${run}, ${json(dataset)}, ${new Date().toISOString()}, ${size}, ${digest}, ${json(accuracy)}
    from model_versions where name = ${name}
    returning *`.execute(home.db)
  return asVersion(home, rows[0]!)
}

/** Newest first within a name, names in order. */
export async function listModels(home: Home): Promise<ModelVersion[]> {
  const rows = await home.db
    .selectFrom('model_versions')
    .selectAll()
    .where('deleted', 'is', null)
    .orderBy('name')
    .orderBy('version', 'desc')
    .execute()
  return rows.map(row => asVersion(home, row))
}

/** `clothes` (the newest), `clothes@3`, or the path of a file. throws model_not_found, artefact_… */
export async function resolveModel(home: Home, reference: string): Promise<ModelVersion> {
  if (/[/\\]/.test(reference) || existsSync(reference)) return fromFile(home, resolve(reference))
  const { name, version } = parseReference('model', reference)
  let query = home.db.selectFrom('model_versions').selectAll().where('name', '=', name).where('deleted', 'is', null)
  if (version !== null) query = query.where('version', '=', version)
  const row = await query.orderBy('version', 'desc').executeTakeFirst()
  if (!row) throw new Failure('model_not_found', { model: reference })
  return asVersion(home, row)
}

/** Gives all versions of a model another name. throws model_exists, model_not_found */
export async function renameModel(home: Home, from: string, to: string): Promise<void> {
  checkName('model', from)
  checkName('model', to)
  await home.db.transaction().execute(async transaction => {
    const taken = await transaction.selectFrom('model_versions').select('name').where('name', '=', to).executeTakeFirst()
    if (taken) throw new Failure('model_exists', { name: to })
    const { numUpdatedRows } = await transaction.updateTable('model_versions').set({ name: to }).where('name', '=', from).executeTakeFirst()
    if (numUpdatedRows === 0n) throw new Failure('model_not_found', { model: from })
  })
}

/** One version (`clothes@2`), or all of a name. Answers what was deleted and how many bytes that freed; a preview deletes nothing. */
export async function deleteModel(
  home: Home,
  reference: string,
  { preview = false } = {},
): Promise<{ versions: ModelVersion[]; bytes: number }> {
  const { name, version } = parseReference('model', reference)
  const all = (await listModels(home)).filter(model => model.name === name && (version === null || model.version === version))
  if (all.length === 0) throw new Failure('model_not_found', { model: reference })
  let bytes = 0
  for (const model of all) {
    if (preview) {
      bytes += model.bytes
      continue
    }
    await home.db
      .updateTable('model_versions')
      .set({ deleted: new Date().toISOString() })
      .where('name', '=', name)
      .where('version', '=', model.version)
      .execute()
    const used = await home.db
      .selectFrom('model_versions')
      .select('name')
      .where('digest', '=', model.digest)
      .where('deleted', 'is', null)
      .executeTakeFirst()
    if (used) continue
    await rm(model.path, { force: true })
    bytes += model.bytes
  }
  return { versions: all, bytes }
}

/** Copies the file out of the home. throws path_in_the_way where there is something already */
export async function exportModel(home: Home, reference: string, to: string): Promise<ModelVersion> {
  const model = await resolveModel(home, reference)
  if (existsSync(to)) throw new Failure('path_in_the_way', { path: to })
  await copyWhole(model.path, resolve(to))
  return model
}

const fileOf = (home: Home, digest: string) => join(home.path, 'models', `${digest}.onnx`)

async function copyWhole(from: string, to: string): Promise<void> {
  const part = temporaryPath(to)
  try {
    await copyFile(from, part)
    const handle = await open(part, 'r+')
    await handle.sync().finally(() => handle.close())
    await rename(part, to)
    await syncFolder(dirname(to))
  } catch (error) {
    await rm(part, { force: true })
    throw storageFailure(error, to)
  }
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
  const digest = await sha256OfFile(path).catch(() => {
    throw new Failure('model_not_found', { model: path })
  })
  const known = await home.db
    .selectFrom('model_versions')
    .selectAll()
    .where('digest', '=', digest)
    .where('deleted', 'is', null)
    .executeTakeFirst()
  if (known) return { ...asVersion(home, known), path }
  const { labels, lineage } = readArtefact(await readFile(path)).metadata
  return {
    name: basename(path).replace(/\.onnx$/i, ''),
    version: 1,
    path,
    labels,
    run: lineage.run,
    dataset: lineage.dataset,
    created: lineage.created,
    bytes: (await stat(path)).size,
    digest,
    accuracy: null,
  }
}
