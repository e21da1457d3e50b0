import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { test } from 'node:test'
import type { Home } from '../../src/db/home.ts'
import { registerModel } from '../../src/models/registry.ts'
import { temporaryPath } from '../../src/storage/disk.ts'
import { collectGarbage, findGarbage } from '../../src/track/gc.ts'
import { createRun } from '../../src/track/runs.ts'
import { newRun, temporaryHome } from './homes.ts'

const yesterday = new Date(Date.now() - 24 * 60 * 60 * 1000)
const age = (...paths: string[]) => {
  for (const path of paths) utimesSync(path, yesterday, yesterday)
}
const found = async (home: Home) => (await findGarbage(home)).map(item => relative(home.path, item.path).replaceAll('\\', '/')).sort()
const inBlobs = (digest: string) => `blobs/${digest.slice(0, 2)}/${digest}`

async function finishedRun(home: Home, status: 'succeeded' | 'failed' | 'cancelled') {
  const writer = await createRun(home, newRun())
  await writer.start()
  for (const name of ['checkpoint.safetensors', 'best.safetensors', 'report.html'])
    writeFileSync(join(writer.directory, name), 'x'.repeat(100))
  await writer.finish(status)
  return writer
}

test('an empty home holds no garbage', async t => {
  assert.deepEqual(await findGarbage(await temporaryHome(t)), [])
})

test('checkpoints of runs that succeeded can go; those of others are what a resume needs', async t => {
  const home = await temporaryHome(t)
  const done = await finishedRun(home, 'succeeded')
  const others = [await finishedRun(home, 'failed'), await finishedRun(home, 'cancelled')]
  const id = done.run.run
  assert.deepEqual(await found(home), [`runs/${id}/best.safetensors`, `runs/${id}/checkpoint.safetensors`])
  const garbage = await findGarbage(home)
  assert.equal(
    garbage.reduce((sum, item) => sum + item.bytes, 0),
    200,
  )
  for (const { reason } of garbage) assert.match(reason, /\w/)
  assert.ok(existsSync(garbage[0]!.path), 'finding deletes nothing')
  await collectGarbage(garbage)
  assert.deepEqual(await findGarbage(home), [])
  await collectGarbage(garbage) // what is gone is gone
  assert.deepEqual(
    readdirSync(done.directory).filter(name => name.endsWith('.safetensors')),
    [],
  )
  assert.ok(existsSync(join(done.directory, 'report.html')))
  assert.ok(existsSync(join(done.directory, 'run.json')))
  for (const { directory } of others) assert.ok(existsSync(join(directory, 'checkpoint.safetensors')))
})

test('nothing of a run at work is found, nor what it may be using: features, pictures, half files', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun())
  const cache = join(home.path, 'features', 'abc')
  mkdirSync(cache)
  writeFileSync(join(cache, 'train.bin'), 'x'.repeat(50))
  writeFileSync(join(writer.directory, 'checkpoint.safetensors'), 'x')
  const half = temporaryPath(join(writer.directory, 'checkpoint.safetensors'))
  writeFileSync(half, 'x')
  assert.deepEqual(await found(home), [], 'queued')
  await writer.start()
  assert.deepEqual(await found(home), [], 'running')
  await collectGarbage(await findGarbage(home))
  await writer.finish('failed', 'out_of_memory')
  assert.deepEqual(await found(home), ['features/abc'])
  const [features] = await findGarbage(home)
  assert.equal(features!.bytes, 50)

  // found while nobody was at work, deleted while somebody is
  const next = await createRun(home, newRun())
  await next.start()
  await collectGarbage([features!])
  assert.ok(existsSync(join(cache, 'train.bin')), 'the run that came in between keeps its features')
  await next.finish('cancelled')
  await collectGarbage(await findGarbage(home))
  assert.equal(existsSync(cache), false)
  assert.ok(existsSync(half), 'a half file of a moment ago may be in the making')
})

test('pictures that no dataset names can go once they are old; named ones never', async t => {
  const home = await temporaryHome(t)
  const [named, loose, fresh] = [
    await home.blobs.put(Buffer.from('a')),
    await home.blobs.put(Buffer.from('b')),
    await home.blobs.put(Buffer.from('c')),
  ]
  const row = { path: 'a.png', content: named, pixels: named, labels: ['x'], group: null, side: null, width: 1, height: 1, flags: [] }
  const manifest = { schema: 1, classes: ['x'], rows: [row], unreadable: [], ignored: [], exactDuplicates: [], conflicts: [] }
  mkdirSync(join(home.path, 'datasets', 'birds'))
  const file = join(home.path, 'datasets', 'birds', '1.json')
  writeFileSync(file, JSON.stringify(manifest))
  const version = { name: 'birds', version: 1, digest: 'd', images: 1, classes: 1, created: '2026-01-01T00:00:00.000Z' }
  await home.db.insertInto('dataset_versions').values(version).execute()
  age(home.blobs.path(named), home.blobs.path(loose))
  assert.deepEqual(await found(home), [inBlobs(loose)])

  // put again between the finding and the deleting: it is somebody's now
  const garbage = await findGarbage(home)
  await home.blobs.put(Buffer.from('b'))
  await collectGarbage(garbage)
  assert.equal(await home.blobs.has(loose), true)

  age(home.blobs.path(loose))
  await collectGarbage(await findGarbage(home))
  assert.deepEqual([await home.blobs.has(named), await home.blobs.has(loose), await home.blobs.has(fresh)], [true, false, true])

  // while a version cannot be read, any picture may be its
  age(home.blobs.path(fresh))
  writeFileSync(file, '{"schema":1,')
  assert.deepEqual(await found(home), [])
})

test('model files without a version and half files of killed writers can go once they are old', async t => {
  const home = await temporaryHome(t)
  const source = join(home.path, '..', 'model.onnx')
  writeFileSync(source, 'a model')
  const kept = await registerModel(home, { name: 'birds', file: source, labels: ['a', 'b'], run: null, dataset: null, accuracy: null })
  const orphan = join(home.path, 'models', `${'0'.repeat(64)}.onnx`)
  const young = join(home.path, 'models', `${'1'.repeat(64)}.onnx`)
  const half = temporaryPath(orphan)
  const foreign = join(home.path, 'models', 'notes.txt')
  for (const path of [orphan, young, half, foreign]) writeFileSync(path, 'x')
  age(kept.path, orphan, half, foreign)
  const expected = [relative(home.path, orphan), relative(home.path, half)].map(path => path.replaceAll('\\', '/'))
  assert.deepEqual(await found(home), expected.sort())
  await collectGarbage(await findGarbage(home))
  assert.deepEqual([kept.path, young, foreign, orphan, half].map(existsSync), [true, true, true, false, false])
})

test('half a run of a killed process, and half a deleted one, can go once they are old', async t => {
  const home = await temporaryHome(t)
  const writer = await createRun(home, newRun())
  const half = join(home.path, 'runs', 'a'.repeat(32))
  const deleted = temporaryPath(join(home.path, 'runs', 'b'.repeat(32)))
  for (const folder of [half, deleted]) {
    mkdirSync(folder)
    writeFileSync(join(folder, 'checkpoint.safetensors'), 'x'.repeat(70))
  }
  assert.deepEqual(await found(home), [], 'one of them may be in the making')
  age(half, deleted)
  const garbage = await findGarbage(home)
  assert.deepEqual(
    garbage.map(item => [relative(join(home.path, 'runs'), item.path), item.bytes]),
    [half, deleted].map(path => [relative(join(home.path, 'runs'), path), 70]),
  )
  assert.equal(await collectGarbage(garbage), 140)
  assert.equal(await collectGarbage(garbage), 0, 'what is gone frees nothing')
  assert.deepEqual(readdirSync(join(home.path, 'runs')), [writer.run.run])
})

test('a link in the home leads nowhere', { skip: process.platform === 'win32' }, async t => {
  const home = await temporaryHome(t)
  const outside = join(home.path, '..', 'outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'mine'), 'x')
  symlinkSync(outside, join(home.path, 'features', 'link'))
  await collectGarbage(await findGarbage(home))
  assert.ok(existsSync(join(outside, 'mine')))
})
