/**
 * Dataset versions: immutable manifests, one JSON file each under datasets/<name>/, with a row in the database to find them by.
 * Who asks for a version gets exactly what was saved, or a failure: the file is checked against its digest at every reading.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CompiledQuery } from 'kysely'
import type { Home as WholeHome } from '../db/home.ts'
import { checkName, parseReference } from '../db/names.ts'
import type { Db } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { type DatasetReference, Manifest } from '../sdk/shapes.ts'
import { makeFolder, storageFailure, writeFileAtomic } from '../storage/disk.ts'
import { manifestDigest } from './import.ts'

type Home = Pick<WholeHome, 'path' | 'db'>
export type DatasetVersion = DatasetReference & { images: number; classes: number; created: string }

const fileOf = (home: Home, name: string, version: number) => join(home.path, 'datasets', name, `${version}.json`)

/** The same rows under the same name are the same version, however often they are saved; anything else is the next one. Throws name_invalid. */
export async function saveDataset(home: Home, name: string, manifest: Manifest): Promise<DatasetReference> {
  checkName('dataset', name)
  const digest = manifestDigest(manifest)
  await makeFolder(home.path, 'datasets', name)
  return await exclusively(home.db, async db => {
    const saved = await db
      .selectFrom('dataset_versions')
      .select(['version', 'digest'])
      .where('name', '=', name)
      .orderBy('version')
      .execute()
    const same = saved.find(row => row.digest === digest)
    if (same && (await isWhole(fileOf(home, name, same.version), digest))) return { name, version: same.version, digest }
    const version = same?.version ?? (saved.at(-1)?.version ?? 0) + 1
    await writeFileAtomic(fileOf(home, name, version), `${JSON.stringify(manifest)}\n`)
    if (!same) {
      const row = {
        name,
        version,
        digest,
        images: manifest.rows.length,
        classes: manifest.classes.length,
        created: new Date().toISOString(),
      }
      await db.insertInto('dataset_versions').values(row).execute()
    }
    return { name, version, digest }
  })
}

/** By name, oldest version first. */
export async function listDatasets(home: Home): Promise<DatasetVersion[]> {
  const columns = ['name', 'version', 'digest', 'images', 'classes', 'created'] as const
  return await home.db.selectFrom('dataset_versions').select(columns).orderBy('name').orderBy('version').execute()
}

/** `birds` is its newest version, `birds@2` that one. Throws dataset_not_found, dataset_version_not_found, dataset_damaged, name_invalid. */
export async function resolveDataset(home: Home, reference: string): Promise<{ reference: DatasetReference; manifest: Manifest }> {
  const { name, version } = parseReference('dataset', reference)
  const saved = await home.db
    .selectFrom('dataset_versions')
    .select(['version', 'digest'])
    .where('name', '=', name)
    .orderBy('version')
    .execute()
  const newest = saved.at(-1)
  if (!newest) throw new Failure('dataset_not_found', { name })
  const row = version === null ? newest : saved.find(row => row.version === version)
  if (!row) throw new Failure('dataset_version_not_found', { name, version: version!, newest: newest.version })
  const manifest = await readManifest(fileOf(home, name, row.version), (problem, cause) => {
    return new Failure('dataset_damaged', { name, version: row.version, problem }, { cause })
  })
  if (manifestDigest(manifest) !== row.digest) {
    throw new Failure('dataset_damaged', { name, version: row.version, problem: 'its digest differs' })
  }
  return { reference: { name, version: row.version, digest: row.digest }, manifest }
}

async function readManifest(path: string, damaged: (problem: string, cause: unknown) => Failure): Promise<Manifest> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'ENOENT' ? damaged('the file is missing', error) : storageFailure(error, path)
  })
  try {
    return Manifest.parse(JSON.parse(text))
  } catch (error) {
    throw damaged('it is not a manifest', error)
  }
}

async function isWhole(path: string, digest: string): Promise<boolean> {
  try {
    return manifestDigest(await readManifest(path, problem => new Failure('internal', { problem }))) === digest
  } catch {
    return false // written anew
  }
}

/** Two imports at once, in one process or two, may not both take the next number. */
async function exclusively<T>(db: Db, work: (db: Db) => Promise<T>): Promise<T> {
  return await db.connection().execute(async connection => {
    await connection.executeQuery(CompiledQuery.raw('begin immediate'))
    try {
      const result = await work(connection)
      await connection.executeQuery(CompiledQuery.raw('commit'))
      return result
    } catch (error) {
      await connection.executeQuery(CompiledQuery.raw('rollback'))
      throw error
    }
  })
}
