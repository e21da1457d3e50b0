import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  addTestSet,
  isTestSet,
  listTestSets,
  openTestSet,
  recordLook,
  recordScore,
  refuseTestSet,
  removeTestSet,
  testSetScores,
} from '../../src/data/test-sets.ts'
import { listDatasets, saveDataset } from '../../src/data/versions.ts'
import { goBackBefore, migrate } from '../../src/db/migrate.ts'
import { migrations } from '../../src/db/schema.ts'
import { connect } from '../../src/db/sqlite.ts'
import type { DatasetReference, Manifest, TestSetScore } from '../../src/sdk/shapes.ts'
import { collectGarbage, findGarbage } from '../../src/track/gc.ts'
import { child, childHead, temporaryFolder, temporaryHome } from '../track/homes.ts'

const long = process.env['PLINTH_TEST'] === 'long'

function manifest(...names: string[]): Manifest {
  const row = { labels: ['cat'], group: null, side: null, width: 4, height: 4, flags: [] }
  const rows = names.map(name => ({ ...row, path: `cat/${name}.png`, content: name, pixels: name }))
  return { schema: 1, classes: ['cat'], rows, unreadable: [], ignored: [], exactDuplicates: [], conflicts: [] }
}
const scored = (set: DatasetReference, model: string, accuracy = 0.8): TestSetScore => ({
  set,
  model,
  n: 100,
  accuracy,
  low: accuracy - 0.08,
  high: accuracy + 0.07,
  balancedAccuracy: accuracy,
  seen: null,
  at: '2026-11-25T00:00:00.000Z',
})
const counts = async (home: Parameters<typeof listTestSets>[0]) =>
  (await listTestSets(home)).map(({ name, version, looks, models }) => [name, version, looks, models])

test('a test set is a dataset of its own kind: versions as any, listed apart, never trained on', async t => {
  const home = await temporaryHome(t)
  const first = await addTestSet(home, 'site-b', manifest('a', 'b'))
  assert.deepEqual(await addTestSet(home, 'site-b', manifest('a', 'b')), first)
  const second = await addTestSet(home, 'site-b', manifest('a', 'b', 'c'))
  assert.equal(second.version, 2)
  await saveDataset(home, 'birds', manifest('a'), 'dataset')
  assert.deepEqual(
    (await listDatasets(home)).map(({ name }) => name),
    ['birds'],
  )
  assert.deepEqual(await counts(home), [['site-b', 2, 0, 0]])
  assert.equal((await openTestSet(home, 'site-b@1')).manifest.rows.length, 2)
  assert.equal((await openTestSet(home, 'site-b')).set.images, 3)
  assert.deepEqual([await isTestSet(home, 'site-b'), await isTestSet(home, 'birds')], [true, false])
  await assert.rejects(openTestSet(home, 'birds'), { code: 'test_set_not_found' })
  await assert.rejects(refuseTestSet(home, first), { code: 'test_set_not_for_training' })
  await refuseTestSet(home, { name: 'birds' })
  await assert.rejects(addTestSet(home, 'birds', manifest('x')), { code: 'dataset_kind' })
  await assert.rejects(saveDataset(home, 'site-b', manifest('x'), 'dataset'), { code: 'dataset_kind' })
  // a review makes the next version of whatever it looked at
  assert.equal((await saveDataset(home, 'site-b', manifest('a'))).version, 3)
  assert.equal((await listTestSets(home))[0]!.version, 3)
})

test('every look counts, also over versions; the newest score of a model on a version is kept, best first', async t => {
  const home = await temporaryHome(t)
  const one = await addTestSet(home, 'site-b', manifest('a'))
  const two = await addTestSet(home, 'site-b', manifest('a', 'b'))
  await recordScore(home, scored(one, 'x', 0.7))
  await recordScore(home, scored(two, 'x', 0.6))
  await recordScore(home, scored(two, 'x', 0.65))
  await recordScore(home, scored(two, 'y', 0.9))
  await recordLook(home, two, 'z')
  assert.deepEqual(await counts(home), [['site-b', 2, 5, 3]])
  assert.deepEqual(
    (await testSetScores(home, { set: 'site-b' })).map(({ set, model, accuracy }) => [set.version, model, accuracy]),
    [
      [2, 'y', 0.9],
      [2, 'x', 0.65],
      [1, 'x', 0.7],
    ],
  )
  assert.equal((await testSetScores(home, { model: 'y' })).length, 1)
  assert.deepEqual(await testSetScores(home, { model: 'nobody' }), [])
})

test('removing a set frees its name and forgets its scores; the same pictures under another name are not fresh again', async t => {
  const home = await temporaryHome(t)
  const set = await addTestSet(home, 'site-b', manifest('a', 'b'))
  for (const model of ['x', 'y', 'z']) await recordScore(home, scored(set, model))
  assert.deepEqual(await removeTestSet(home, 'site-b', { preview: true }), [1])
  assert.equal((await listTestSets(home)).length, 1)
  assert.deepEqual(await removeTestSet(home, 'site-b'), [1])
  assert.deepEqual([await listTestSets(home), await testSetScores(home)], [[], []])
  assert.equal(existsSync(join(home.path, 'datasets', 'site-b')), false)
  await assert.rejects(removeTestSet(home, 'site-b'), { code: 'test_set_not_found' })
  await addTestSet(home, 'fresh', manifest('a', 'b'))
  await addTestSet(home, 'truly-fresh', manifest('c'))
  await saveDataset(home, 'site-b', manifest('a'), 'dataset')
  assert.deepEqual(await counts(home), [
    ['fresh', 1, 3, 3],
    ['truly-fresh', 1, 0, 0],
  ])
})

test('nobody collects the pictures of a test set as garbage', async t => {
  const home = await temporaryHome(t)
  const bytes = Buffer.from('a picture')
  const content = await home.blobs.put(bytes)
  await addTestSet(home, 'site-b', manifest(content))
  await collectGarbage(await findGarbage(home))
  assert.deepEqual(Buffer.from(await home.blobs.get(content)), bytes)
})

test('killed at any moment, a score and its look are both there or neither, and none that was acknowledged is lost', async t => {
  const home = await temporaryHome(t)
  const set = await addTestSet(home, 'site-b', manifest('a', 'b'))
  const acknowledged = new Set<string>()
  const rounds = long ? 60 : 6
  for (let round = 0; round < rounds; round++) {
    const program = `${childHead({ recordScore: 'data/test-sets.ts' })}
      const score = ${JSON.stringify(scored(set, ''))}
      for (let i = 0; ; i++) { await recordScore(home, { ...score, model: '${round} ' + i }); say('${round} ' + i) }`
    const { process: writer, lines, ended } = child(program, [home.path])
    let heard = 0
    for await (const line of lines) {
      acknowledged.add(line as string)
      if (++heard === 3 + ((round * 7) % 20)) writer.kill('SIGKILL')
    }
    assert.equal(await ended, 'SIGKILL')
  }
  const models = new Set((await testSetScores(home, { set: 'site-b' })).map(({ model }) => model))
  for (const model of acknowledged) assert.ok(models.has(model), model)
  assert.deepEqual(await counts(home), [['site-b', 1, models.size, models.size]])
})

test('a home from before test sets gets them, its datasets stay datasets, and it can go back', async t => {
  const path = join(temporaryFolder(t), 'plinth.db')
  const db = await connect(path)
  t.after(() => db.destroy())
  await migrate(db, path, { known: migrations.slice(0, 1) })
  const birds = { name: 'birds', version: 1, digest: 'd', images: 3, classes: 1, created: '' }
  await db.insertInto('dataset_versions').values(birds).execute()
  await migrate(db, path)
  assert.ok(existsSync(`${path}.before-002-test-sets`))
  const versions = async () => (await db.selectFrom('dataset_versions').selectAll().execute()).map(row => ({ ...row }))
  assert.deepEqual(await versions(), [{ ...birds, kind: 'dataset' }])
  await db.insertInto('test_set_looks').values({ digest: 'd', model: 'm', at: '' }).execute()
  await goBackBefore(db, path, '002-test-sets')
  assert.deepEqual(await versions(), [birds])
})
