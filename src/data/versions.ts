/**
 * Dataset versions: immutable manifests, one JSON file each under datasets/<name>/, with a row in the database to find them by.
 * Who asks for a version gets exactly what was saved, or a failure: the file is checked against its digest at every reading.
 */
import { readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sql } from 'kysely'
import type { Home as WholeHome } from '../db/home.ts'
import { checkName, parseReference } from '../db/names.ts'
import { Failure } from '../failure.ts'
import { type DatasetReference, Manifest } from '../sdk/shapes.ts'
import { makeFolder, storageFailure, syncFolder, writeFileAtomic } from '../storage/disk.ts'
import { manifestDigest } from './import.ts'

type Home = Pick<WholeHome, 'path' | 'db'>
/** What a name stands for, in all its versions: pictures to train on, or pictures that models are only tested on. */
export type DatasetKind = 'dataset' | 'test set'
export type DatasetVersion = DatasetReference & { images: number; classes: number; created: string }

const fileOf = (home: Home, name: string, version: number) => join(home.path, 'datasets', name, `${version}.json`)

/**
 * The same rows under the same name are the same version, however often they are saved; anything else is the next one. `kind`
 * absent: whatever the name stands for already. Throws name_invalid, dataset_kind.
 * No lock is held meanwhile: the file takes the number, and the row follows once the file is whole. A process that dies in between leaves
 * a number that is never given again, and no version that cannot be read.
 */
export async function saveDataset(home: Home, name: string, manifest: Manifest, kind?: DatasetKind): Promise<DatasetReference> {
  checkName('dataset', name)
  const digest = manifestDigest(manifest)
  const content = `${JSON.stringify(manifest)}\n`
  await makeFolder(home.path, 'datasets', name)
  const saved = await versionsOf(home, name)
  const taken = saved.at(-1)?.kind
  if (taken !== undefined && kind !== undefined && taken !== kind) throw new Failure('dataset_kind', { name, taken, wanted: kind })
  const same = saved.find(row => row.digest === digest)
  if (same) {
    const path = fileOf(home, name, same.version)
    if (!(await isWhole(path, digest))) await writeFileAtomic(path, content)
    return { name, version: same.version, digest }
  }
  const version = await takeNumber(home, name, (saved.at(-1)?.version ?? 0) + 1, content)
  const created = new Date().toISOString()
  await sql`insert into dataset_versions (name, version, digest, images, classes, created, kind)
    select ${name}, ${version}, ${digest}, ${manifest.rows.length}, ${manifest.classes.length}, ${created}, ${taken ?? kind ?? 'dataset'}
    where not exists (select 1 from dataset_versions where name = ${name} and digest = ${digest})`.execute(home.db)
  const first = (await versionsOf(home, name)).find(row => row.digest === digest)!
  if (first.version !== version) await rm(fileOf(home, name, version), { force: true }) // somebody saved the same at the same time
  return { name, version: first.version, digest }
}

/** Writes the first free file from `version` on; two that come at once get two numbers. */
async function takeNumber(home: Home, name: string, version: number, content: string): Promise<number> {
  for (; ; version++) {
    const path = fileOf(home, name, version)
    try {
      await writeFile(path, content, { flag: 'wx', mode: 0o600, flush: true })
      await syncFolder(dirname(path))
      return version
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue
      await rm(path, { force: true })
      throw storageFailure(error, path)
    }
  }
}

const versionsOf = ({ db }: Home, name: string) =>
  db.selectFrom('dataset_versions').select(['version', 'digest', 'kind']).where('name', '=', name).orderBy('version').execute()

/** By name, oldest version first. */
export async function listDatasets(home: Home, kind: DatasetKind = 'dataset'): Promise<DatasetVersion[]> {
  const columns = ['name', 'version', 'digest', 'images', 'classes', 'created'] as const
  return await home.db.selectFrom('dataset_versions').select(columns).where('kind', '=', kind).orderBy('name').orderBy('version').execute()
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
