import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, readdirSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { openBlobs, sha256, sha256OfFile } from '../../src/storage/blobs.ts'
import { temporaryFolder } from '../track/homes.ts'

test('what is put is got again, by the sha256 of its bytes, from bytes and from files', async t => {
  const folder = temporaryFolder(t)
  const blobs = openBlobs(folder)
  const file = join(temporaryFolder(t), 'file')
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), async bytes => {
      const digest = await blobs.put(bytes)
      assert.equal(digest, sha256(bytes))
      assert.deepEqual(Buffer.from(await blobs.get(digest)), Buffer.from(bytes))
      writeFileSync(file, bytes)
      assert.equal(await blobs.putFile(file), digest)
      assert.equal(await sha256OfFile(file), digest)
      assert.equal(await blobs.verify(digest), true)
    }),
    { numRuns: 25 },
  )
  assert.equal(sha256(Buffer.from('abc')), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad') // FIPS 180-2, B.1
})

test('equal bytes are stored once, also by many writers at once', async t => {
  const folder = temporaryFolder(t)
  const many = await Promise.all(Array.from({ length: 20 }, () => openBlobs(folder).put(Buffer.from('same'))))
  assert.equal(new Set(many).size, 1)
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  assert.deepEqual(
    files.map(entry => entry.name),
    [many[0]],
  )
  if (process.platform !== 'win32') assert.equal(statSync(openBlobs(folder).path(many[0]!)).mode & 0o077, 0)
})

test('a blob that a power cut left short, or that somebody changed, is told, and putting it again mends it', async t => {
  const blobs = openBlobs(temporaryFolder(t))
  const bytes = Buffer.from('a picture')
  const digest = await blobs.put(bytes)
  truncateSync(blobs.path(digest), 3)
  await blobs.put(bytes)
  assert.deepEqual(Buffer.from(await blobs.get(digest)), bytes, 'a short one is written anew')

  writeFileSync(blobs.path(digest), 'A PICTURE')
  assert.equal(await blobs.verify(digest), false)
  await assert.rejects(blobs.get(digest), { code: 'blob_damaged' })
  assert.equal(existsSync(blobs.path(digest)), false, 'it was moved aside')
  await blobs.put(bytes)
  assert.equal(await blobs.verify(digest), true)
})

test('what is no digest leads to no file', async t => {
  const folder = temporaryFolder(t)
  const blobs = openBlobs(join(folder, 'blobs'))
  writeFileSync(join(folder, 'secret'), 'x')
  await assert.rejects(blobs.get('0'.repeat(64)), { code: 'blob_missing' })
  assert.equal(await blobs.has('0'.repeat(64)), false)
  for (const digest of [
    '',
    '../secret',
    `../${'0'.repeat(61)}`,
    'A'.repeat(64),
    '0'.repeat(63),
    `${'0'.repeat(64)}\n`,
    `${'0'.repeat(64)}/../../secret`,
  ]) {
    assert.throws(() => blobs.path(digest), { code: 'blob_missing' }, JSON.stringify(digest))
    await assert.rejects(blobs.get(digest), { code: 'blob_missing' })
  }
})

test('a file that is not there cannot be put, and leaves no half', async t => {
  const folder = temporaryFolder(t)
  await assert.rejects(openBlobs(folder).putFile(join(folder, 'not', 'there')))
  await assert.rejects(openBlobs(folder).putFile(dirname(folder)))
  assert.deepEqual(readdirSync(folder), [])
})

test('four processes that put the same and other things lose nothing and store nothing twice', async t => {
  const blobs = openBlobs(temporaryFolder(t))
  const program = new URL('./putter.ts', import.meta.url).pathname
  const ranges = [0, 50, 100, 50].map(from => [from, from + 100])
  const answers = await Promise.all(
    ranges.map(([from, to]) => promisify(execFile)(process.execPath, [program, blobs.folder, String(from), String(to)])),
  )
  for (const [i, { stdout }] of answers.entries()) {
    for (const [n, digest] of (JSON.parse(stdout) as string[]).entries()) {
      const number = ranges[i]![0]! + n
      assert.equal(Buffer.from(await blobs.get(digest)).toString(), `number ${number}`)
    }
  }
  assert.equal(readdirSync(blobs.folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile()).length, 200)
})

test('a file that may only be read is taken as any other, and its blob is ours to delete', async t => {
  const blobs = openBlobs(temporaryFolder(t))
  const source = join(temporaryFolder(t), 'source')
  writeFileSync(source, 'picture', { mode: 0o400 })
  const digest = await blobs.putFile(source)
  rmSync(source)
  assert.equal(Buffer.from(await blobs.get(digest)).toString(), 'picture')
  if (process.platform !== 'win32') assert.equal(statSync(blobs.path(digest)).mode & 0o777, 0o600)
})

test('a blob put again looks new, so that gc leaves it to the import under way', async t => {
  const blobs = openBlobs(temporaryFolder(t))
  const digest = await blobs.put(Buffer.from('x'))
  utimesSync(blobs.path(digest), 1000, 1000)
  await blobs.put(Buffer.from('x'))
  assert.ok(Date.now() - statSync(blobs.path(digest)).mtimeMs < 60_000)
})
