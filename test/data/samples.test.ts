import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { importPictures } from '../../src/data/import.ts'
import { extractSample, type SampleName, samples } from '../../src/data/samples.ts'
import { splitDataset } from '../../src/data/split.ts'
import { temporary } from './folders.ts'

test('fashion: 2,000 pictures, 200 a class, every one readable and different, with the licence', async t => {
  const folder = join(temporary(t), 'new/clothes')
  assert.deepEqual(await extractSample('fashion', folder), { files: 2000 })
  assert.match(readFileSync(join(folder, 'LICENSE.txt'), 'utf8'), /MIT License[\s\S]*Zalando/)
  const manifest = await importPictures(folder, { blobs: null })
  assert.deepEqual([manifest.rows.length, manifest.unreadable, manifest.exactDuplicates], [2000, [], []])
  assert.equal(manifest.classes.length, samples.fashion.classes)
  for (const label of manifest.classes) assert.equal(manifest.rows.filter(row => row.labels[0] === label).length, 200)
  assert.ok(manifest.rows.every(row => row.width === 28 && row.height === 28))
  const { train, validation, test: testing } = splitDataset(manifest, { seed: 1, dataset: 'x' })
  assert.deepEqual([train.length, validation.length, testing.length], [1400, 300, 300])
})

test('emoji: the same things by three vendors; one drawing that Fluent uses for two things is found', async t => {
  const folder = temporary(t)
  assert.deepEqual(await extractSample('emoji', folder), { files: 1752 })
  const notice = readFileSync(join(folder, 'NOTICE.txt'), 'utf8')
  for (const needed of ['Apache License, Version 2.0', 'CC-BY 4.0', 'MIT License', 'Google', 'Twitter', 'Microsoft', 'Change made'])
    assert.ok(notice.includes(needed), needed)
  const groupOf = (path: string) => /([^/]*)__/.exec(path)![1]!
  const manifest = await importPictures(folder, { blobs: null, groupBy: /([^/]*)__/ })
  assert.deepEqual(manifest.classes, ['animal', 'building', 'clothing', 'face', 'food', 'plant', 'tool', 'vehicle'])
  assert.deepEqual([manifest.rows.length, manifest.unreadable], [1752, []])
  assert.ok(manifest.rows.every(row => /^[a-z]+\/[a-z0-9-]+__(noto|twemoji|fluent)\.png$/.test(row.path)))
  assert.equal(new Set(manifest.rows.map(row => groupOf(row.path))).size, 586)
  assert.deepEqual(manifest.conflicts, [['animal/cat-face__fluent.png', 'face/grinning-cat__fluent.png']])
  const split = splitDataset(manifest, { seed: 1, dataset: 'x' })
  const things = (side: number[]) => new Set(side.map(row => groupOf(manifest.rows[row]!.path)))
  const tested = things(split.test)
  assert.deepEqual(
    [...things(split.train)].filter(thing => tested.has(thing)),
    [],
  )
  assert.ok(Math.abs(split.test.length / 1752 - 0.15) < 0.01)
})

test('an interrupted sample is completed, a finished one left as it is, and other people’s folders untouched', async t => {
  const folder = join(temporary(t), 'clothes')
  await extractSample('fashion', folder)
  rmSync(join(folder, 'bag'), { recursive: true })
  assert.deepEqual(await extractSample('fashion', folder), { files: 2000 })
  assert.equal(readdirSync(join(folder, 'bag')).length, 200)
  const [cut, empty] = readdirSync(join(folder, 'bag')).map(name => join(folder, 'bag', name)) as [string, string]
  const whole = [cut, empty].map(path => readFileSync(path))
  writeFileSync(cut, whole[0]!.subarray(0, 100)) // as a kill or a full disk leaves it
  writeFileSync(empty, '')
  assert.deepEqual(await extractSample('fashion', folder), { files: 2000 })
  assert.deepEqual(
    [cut, empty].map(path => readFileSync(path)),
    whole,
  )

  const changed = readdirSync(join(folder, 'coat'))[0]!
  writeFileSync(join(folder, 'coat', changed), 'my own')
  await assert.rejects(extractSample('fashion', folder), { code: 'sample_folder_taken', message: new RegExp(changed) })
  assert.equal(readFileSync(join(folder, 'coat', changed), 'utf8'), 'my own')

  const mine = join(temporary(t), 'mine')
  mkdirSync(mine)
  writeFileSync(join(mine, 'diary.txt'), 'dear diary')
  await assert.rejects(extractSample('emoji', mine), { code: 'sample_folder_taken' })
  assert.deepEqual(readdirSync(mine), ['diary.txt'])
  await assert.rejects(extractSample('emoji', join(mine, 'diary.txt')), { code: 'sample_folder_taken' })
  await assert.rejects(extractSample('cats' as SampleName, join(mine, 'x')), { code: 'sample_unknown', next: /fashion, emoji/ })
})
