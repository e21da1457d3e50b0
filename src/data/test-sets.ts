/**
 * Named test sets: dataset versions of their own kind that nobody trains on, the score of each model on them, and a memory of how
 * often they were asked. A test set that has judged many models has become part of how they were chosen.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../db/home.ts'
import { parseReference } from '../db/names.ts'
import { Failure } from '../failure.ts'
import { type DatasetReference, type Manifest, type TestSet, TestSetScore } from '../sdk/shapes.ts'
import { storageFailure } from '../storage/disk.ts'
import { resolveDataset, saveDataset } from './versions.ts'

export type { Home }

/** The same pictures are the same version; others under the same name the next one. Throws dataset_kind, name_invalid. */
export const addTestSet = (home: Home, name: string, manifest: Manifest): Promise<DatasetReference> =>
  saveDataset(home, name, manifest, 'test set')

/** Newest version of each, by name. */
export async function listTestSets(home: Home): Promise<TestSet[]> {
  const rows = await home.db
    .selectFrom('dataset_versions')
    .select(['name', 'version', 'digest', 'images', 'classes', 'created'])
    .where('kind', '=', 'test set')
    .orderBy('name')
    .orderBy('version')
    .execute()
  const names = Map.groupBy(rows, row => row.name)
  return await Promise.all(
    [...names.values()].map(async versions => {
      const digests = versions.map(version => version.digest)
      return { ...versions.at(-1)!, ...(await looksAt(home, digests)) }
    }),
  )
}

async function looksAt({ db }: Home, digests: readonly string[]): Promise<{ looks: number; models: number }> {
  const row = await db
    .selectFrom('test_set_looks')
    .select(({ fn }) => [fn.countAll<number>().as('looks'), fn.count<number>('model').distinct().as('models')])
    .where('digest', 'in', digests)
    .executeTakeFirstOrThrow()
  return { looks: Number(row.looks), models: Number(row.models) }
}

export async function isTestSet({ db }: Home, name: string): Promise<boolean> {
  const row = await db
    .selectFrom('dataset_versions')
    .select('name')
    .where('name', '=', name)
    .where('kind', '=', 'test set')
    .executeTakeFirst()
  return row !== undefined
}

/** Throws test_set_not_for_training. */
export async function refuseTestSet(home: Home, { name }: { name: string }): Promise<void> {
  if (await isTestSet(home, name)) throw new Failure('test_set_not_for_training', { name })
}

/** `site-B` in its newest version, or `site-B@2`. Throws test_set_not_found and as `resolveDataset`. */
export async function openTestSet(home: Home, reference: string): Promise<{ set: TestSet; manifest: Manifest }> {
  const { name } = parseReference('dataset', reference)
  const set = (await listTestSets(home)).find(each => each.name === name)
  if (!set) throw new Failure('test_set_not_found', { name })
  const { reference: version, manifest } = await resolveDataset(home, reference)
  return { set: { ...set, ...version, images: manifest.rows.length, classes: manifest.classes.length }, manifest }
}

/** Takes all its versions and scores away; what it was asked stays known. A preview removes nothing. Throws test_set_not_found. */
export async function removeTestSet(home: Home, name: string, { preview = false } = {}): Promise<number[]> {
  if (!(await isTestSet(home, name))) throw new Failure('test_set_not_found', { name })
  const versions = await home.db.selectFrom('dataset_versions').select('version').where('name', '=', name).orderBy('version').execute()
  if (!preview) {
    // rows first: a kill leaves files that nothing names, never a version without its file
    await home.db.transaction().execute(async transaction => {
      await transaction.deleteFrom('dataset_versions').where('name', '=', name).where('kind', '=', 'test set').execute()
      await transaction.deleteFrom('test_set_scores').where('test_set', '=', name).execute()
    })
    const folder = join(home.path, 'datasets', name)
    await rm(folder, { recursive: true, force: true }).catch(error => {
      throw storageFailure(error, folder)
    })
  }
  return versions.map(row => row.version)
}

/** Keeps the newest score of a model on a version, and counts the look, both or neither. */
export async function recordScore(home: Home, score: TestSetScore): Promise<void> {
  const { set, model, at } = score
  const row = { model, test_set: set.name, version: set.version, digest: set.digest, score: JSON.stringify(score) }
  await home.db.transaction().execute(async transaction => {
    await transaction
      .insertInto('test_set_scores')
      .values(row)
      .onConflict(conflict => conflict.columns(['model', 'test_set', 'version']).doUpdateSet({ digest: row.digest, score: row.score }))
      .execute()
    await transaction.insertInto('test_set_looks').values({ digest: set.digest, model, at }).execute()
  })
}

/** Counts a look that left no score of its own: a comparison. */
export async function recordLook({ db }: Home, { digest }: { digest: string }, model: string): Promise<void> {
  await db.insertInto('test_set_looks').values({ digest, model, at: new Date().toISOString() }).execute()
}

/** Of one model (by the digest of its file), of one set by name, or all; best first within a set and version. */
export async function testSetScores({ db }: Home, of: { model?: string; set?: string } = {}): Promise<TestSetScore[]> {
  let query = db.selectFrom('test_set_scores').select('score').orderBy('test_set').orderBy('version', 'desc')
  if (of.model !== undefined) query = query.where('model', '=', of.model)
  if (of.set !== undefined) query = query.where('test_set', '=', of.set)
  const scores = (await query.execute()).map(row => TestSetScore.parse(JSON.parse(row.score)))
  const groups = Map.groupBy(scores, ({ set }) => `${set.name}@${set.version}`)
  return [...groups.values()].flatMap(group => group.toSorted((a, b) => b.accuracy - a.accuracy))
}
