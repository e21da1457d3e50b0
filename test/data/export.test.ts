/** A dataset written out again: the same bytes, importable to the same digest, over nothing that was there. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { exportDataset } from '../../src/data/export.ts'
import { importPictures, manifestDigest } from '../../src/data/import.ts'
import type { Manifest, ManifestRow } from '../../src/sdk/shapes.ts'
import { blobsIn, type Files, pictures, temporary, write } from './folders.ts'

async function imported(t: TestContext, files: Files, options: { groupBy?: RegExp } = {}) {
  const folder = temporary(t)
  const source = await write(join(folder, 'source'), files)
  const blobs = blobsIn(folder)
  return { folder, source, blobs, manifest: await importPictures(source, { blobs, accept: 'anything', ...options }) }
}
const again = async (folder: string) => manifestDigest(await importPictures(folder, { blobs: null, accept: 'anything' }))
const filesIn = (folder: string) =>
  readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .toSorted()

test('class folders, sides, groups and odd names come out as they went in, and give the same digest', async t => {
  const odd = {
    "a/it's 🦊.png": 1,
    'a/two\nlines.png': 2,
    'a/deep/er/x, "y";z.png': 3,
    'b/ spaces .png': 4,
    'b/é.png': 5,
    'b/copy.png': 1,
    'b/6.png': 6,
  }
  for (const [files, options] of [
    [odd, {}],
    [{ ...pictures('train/a', 3), ...pictures('train/b', 3, 10), ...pictures('test/b', 2, 20), ...pictures('val/a', 2, 30) }, {}],
    [{ ...pictures('a', 4), ...pictures('b', 4, 100) }, { groupBy: /(\d)\.png$/ }],
  ] as const) {
    const { folder, source, blobs, manifest } = await imported(t, files, options)
    const out = join(folder, 'out')
    const exported = await exportDataset({ manifest, directory: out, blob: content => blobs.get(content) })
    assert.deepEqual([exported.files, exported.found, exported.renamed], [Object.keys(files).length, 0, 0])
    assert.deepEqual(filesIn(out), [...filesIn(source), exported.labels].toSorted())
    for (const path of filesIn(source)) assert.deepEqual(readFileSync(join(out, path)), readFileSync(join(source, path)))
    assert.equal(await again(out), manifestDigest(manifest))
  }
})

test('where folders are not the labels, files go into folders that are; --keep-paths leaves them, and labels.csv says the labels', async t => {
  const { folder, blobs, manifest } = await imported(t, { ...pictures('images', 6), 'more/1.png': 50, 'labels.csv': '' })
  const relabelled: Manifest = {
    ...manifest,
    classes: ['cat', 'dog'],
    rows: manifest.rows.map(
      (row, index): ManifestRow => ({ ...row, labels: [index % 2 ? 'cat' : 'dog'], side: index < 2 ? 'test' : 'train' }),
    ),
  }
  const blob = (content: string) => blobs.get(content)
  const sorted = await exportDataset({ manifest: relabelled, directory: join(folder, 'sorted'), blob })
  assert.equal(sorted.renamed, 7)
  assert.deepEqual(filesIn(join(folder, 'sorted')).slice(0, 3), ['labels.csv', 'test/cat/1.png', 'test/dog/0.png'])
  const back = await importPictures(join(folder, 'sorted'), { blobs: null, accept: 'anything' })
  assert.deepEqual(
    Object.fromEntries(back.rows.map(row => [row.pixels, row.labels])),
    Object.fromEntries(relabelled.rows.map(row => [row.pixels, row.labels])),
  )

  await exportDataset({ manifest: relabelled, directory: join(folder, 'kept'), blob, keepPaths: true })
  assert.equal(await again(join(folder, 'kept')), manifestDigest(relabelled))
})

test('a second call completes what the first began, and touches nothing that is whole', async t => {
  const { folder, blobs, manifest } = await imported(t, { ...pictures('a', 20), ...pictures('b', 20, 100) })
  const directory = join(folder, 'out')
  const stop = new AbortController()
  const first = exportDataset({
    manifest,
    directory,
    blob: content => blobs.get(content),
    signal: stop.signal,
    onProgress: done => done === 5 && stop.abort(new Error('stopped')),
  })
  await assert.rejects(first, /stopped/)
  const whole = filesIn(directory).length
  assert.ok(whole >= 5 && whole < 40)
  writeFileSync(join(directory, 'a', '1.png.plinth-part-0123456789ab'), 'what a kill left')
  const second = await exportDataset({ manifest, directory, blob: content => blobs.get(content) })
  assert.deepEqual([second.files, second.found], [40, whole])
  assert.equal(await again(directory), manifestDigest(manifest))
  assert.equal(filesIn(directory).length, 41)
})

test('nothing is written over or beside what is not of this export', async t => {
  const { folder, blobs, manifest } = await imported(t, { ...pictures('a', 3), ...pictures('b', 3, 100) })
  const blob = (content: string) => blobs.get(content)
  for (const [name, path] of [
    ['other', 'a/0.png'],
    ['beside', 'notes.txt'],
  ] as const) {
    const directory = await write(join(folder, name), { [path]: 'mine' })
    await assert.rejects(exportDataset({ manifest, directory, blob }), { code: 'export_folder_taken' })
    assert.equal(readFileSync(join(directory, path), 'utf8'), 'mine')
    assert.ok(!filesIn(directory).includes('labels.csv'))
  }
  writeFileSync(join(folder, 'file'), 'mine')
  await assert.rejects(exportDataset({ manifest, directory: join(folder, 'file'), blob }), { code: 'export_folder_taken' })
})

test('paths that lead out, collide or are too long for a disk stay below the folder and apart', async t => {
  const { folder, blobs, manifest } = await imported(t, { ...pictures('a', 5), ...pictures('b', 5, 100) })
  const bad = [
    '../../out.png',
    '/etc/x.png',
    'a/../../y.png',
    'a/./z.png',
    `a/${'ü'.repeat(200)}.png`,
    `a/${'ü'.repeat(201)}.png`,
    'same/1.png',
    'same/1.png',
    '..',
    'a//q.png',
  ]
  const rows = manifest.rows.map((row, index) => ({ ...row, path: bad[index]!, labels: ['a'] }))
  const directory = join(folder, 'deep', 'er', 'out')
  mkdirSync(join(folder, 'deep'))
  const { files, labels } = await exportDataset({
    manifest: { ...manifest, rows },
    directory,
    blob: content => blobs.get(content),
    keepPaths: true,
  })
  assert.equal(files, 10)
  assert.deepEqual(
    filesIn(join(folder, 'deep')).filter(path => !path.startsWith('er/out/')),
    [],
  )
  const written = filesIn(directory).filter(path => path !== labels)
  assert.equal(written.length, 10)
  const digest = (path: string) =>
    createHash('sha256')
      .update(readFileSync(join(directory, path)))
      .digest('hex')
  assert.deepEqual(new Set(written.map(digest)), new Set(rows.map(row => row.content)))
  rmSync(join(folder, 'deep'), { recursive: true })
})
