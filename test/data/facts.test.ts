import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import sharp from 'sharp'
import { type Facts, lookAt, openFacts, type PictureFacts } from '../../src/data/facts.ts'
import { openFactsFile } from '../../src/data/facts-file.ts'
import { importPictures, manifestDigest } from '../../src/data/import.ts'
import { sha256 } from '../../src/data/source.ts'
import { appearance } from '../../src/images/appearance.ts'
import { decodePicture, pixelDigest } from '../../src/images/decode.ts'
import { fingerprint } from '../../src/images/fingerprint.ts'
import { fromRgb, scene, tiff } from '../images/make.ts'
import { onSmallDisk } from '../storage/small-disk.ts'
import { blobsIn, picture, pictures, temporary, write } from './folders.ts'
import { madeUp } from './made-up-facts.ts'

const writer = new URL('./facts-writer.ts', import.meta.url)

test('one look at a photo gives its size, pixels, time, camera, looks and fingerprint', async () => {
  const bytes = await fromRgb(scene(96, 64), 96, 64)
    .jpeg()
    .withExif({ IFD0: { Make: 'Fuji', Model: 'X100' }, IFD2: { DateTimeOriginal: '2026:05:01 12:30:59' } })
    .withMetadata({ orientation: 6 })
    .toBuffer()
  const { grey, ...facts } = await lookAt(bytes)
  const decoded = await decodePicture(bytes, { formats: 'local' })
  const { grey: expectedGrey, ...print } = fingerprint(decoded)
  assert.deepEqual(facts, {
    content: sha256(bytes),
    pixels: pixelDigest(decoded),
    width: 64,
    height: 96,
    format: 'jpeg',
    bytes: bytes.length,
    flags: ['exif-turned'],
    captured: '2026-05-01T12:30:59',
    camera: 'Fuji X100',
    appearance: appearance(decoded),
    fingerprint: print,
  })
  assert.deepEqual(grey, expectedGrey)
})

test('a TIFF says in its own directory what took it', async () => {
  const text = 'Phase One\0'
  const plain = tiff(2, 1, { type: 'uint', bits: 8, channels: 3, values: [1, 2, 3, 4, 5, 6] })
  // the model, as a text behind everything else
  const at = plain.length + 12
  const file = tiff(2, 1, { type: 'uint', bits: 8, channels: 3, values: [1, 2, 3, 4, 5, 6] }, [[0x0110, 2, at]])
  assert.equal(file.length, at)
  const directory = file.readUInt32LE(4)
  for (let entry = directory + 2; entry < file.length - 12; entry += 12) {
    if (file.readUInt16LE(entry) === 0x0110) file.writeUInt32LE(text.length, entry + 4)
  }
  assert.equal((await lookAt(Buffer.concat([file, Buffer.from(text)]))).camera, 'Phase One')
})

test('what was put is there again in the next process, grey copies too, and nothing else is', async t => {
  const folder = temporary(t)
  const bytes = await picture(7)
  const seen = await lookAt(bytes)
  const first = await openFacts(folder)
  assert.equal(first.get(seen.content), null)
  first.put(seen)
  first.put(madeUp('another'))
  first.close()
  const again = await openFacts(folder)
  const { grey, ...facts } = seen
  assert.deepEqual(again.get(seen.content), facts)
  assert.deepEqual(again.grey(seen.content), grey)
  assert.deepEqual(again.grey(madeUp('another').content), madeUp('another').grey)
  assert.equal(again.get(sha256('unknown')), null)
  assert.throws(() => again.grey(sha256('unknown')), { code: 'internal' })
  again.close()
})

/** Counts what an import asks and learns. */
function counting(facts: Facts) {
  const counts = { known: 0, looked: 0 }
  return {
    counts,
    get(content: string): PictureFacts | null {
      const found = facts.get(content)
      if (found) counts.known++
      return found
    },
    put(seen: Parameters<Facts['put']>[0]) {
      counts.looked++
      facts.put(seen)
    },
  }
}

test('a folder looked at again decodes nothing, a changed one what changed, and both give what a first look would', async t => {
  const folder = temporary(t)
  const photos = await write(join(folder, 'photos'), { ...pictures('cat', 6), ...pictures('dog', 6, 100), 'dog/broken.png': 'x' })
  const look = async () => {
    const facts = await openFacts(join(folder, 'facts'))
    const counted = counting(facts)
    const manifest = await importPictures(photos, { blobs: null, facts: counted })
    facts.close()
    return { manifest, ...counted.counts }
  }
  const first = await look()
  assert.deepEqual([first.known, first.looked], [0, 12])
  const second = await look()
  assert.deepEqual([second.known, second.looked], [12, 0])
  assert.deepEqual(second.manifest, first.manifest)

  rmSync(join(photos, 'cat/0.png'))
  cpSync(join(photos, 'cat/1.png'), join(photos, 'dog/copy of a cat.png'))
  writeFileSync(join(photos, 'cat/2.png'), await picture(500))
  const third = await look()
  assert.deepEqual([third.known, third.looked], [11, 1])
  const fresh = await importPictures(photos, { blobs: blobsIn(folder) })
  assert.deepEqual(third.manifest, fresh)
  assert.equal(manifestDigest(third.manifest), manifestDigest(fresh))
})

test('nothing is written when pictures are only looked at', async t => {
  const folder = temporary(t)
  const photos = await write(join(folder, 'photos'), { ...pictures('cat', 3), ...pictures('dog', 3, 100) })
  await importPictures(photos, { blobs: null })
  assert.deepEqual(readdirSync(folder), ['photos'])
})

test('processes that write at once and are killed leave everything they had put', { timeout: 60_000 }, async t => {
  const folder = temporary(t)
  const put: string[] = []
  const rounds = process.env['PLINTH_TEST'] === 'long' ? 100 : 3
  for (let round = 0; round < rounds; round++) {
    await Promise.all(
      ['a', 'b', 'c'].map(async (name, index) => {
        const child = spawn(process.execPath, [fileURLToPath(writer), folder, `${round} ${name}`, '1000000'], {
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        let printed = ''
        child.stdout.on('data', chunk => {
          printed += chunk
          if (printed.length > 400 * (index + 1)) child.kill('SIGKILL')
        })
        await once(child, 'close')
        put.push(...printed.split('\n').slice(0, -1))
      }),
    )
  }
  assert.ok(put.length > 50 * rounds, `${put.length}`)
  const facts = await openFacts(folder)
  for (const name of put) {
    const { grey, ...expected } = madeUp(name)
    assert.deepEqual(facts.get(expected.content), expected)
    assert.deepEqual(facts.grey(expected.content), grey)
  }
  facts.close()
})

test('however the file is damaged, a record is what was put or is not there, and the others are found', async t => {
  const folder = temporary(t)
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  const whole = await openFactsFile(folder, 'v')
  for (const name of names) whole.put(madeUp(name))
  whole.close()
  const honest = readFileSync(join(folder, 'v.facts'))
  let found = 0
  const damage = fc.record({
    at: fc.nat(honest.length),
    length: fc.integer({ min: 1, max: 6000 }),
    bytes: fc.uint8Array({ maxLength: 60 }),
    cut: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(damage, async ({ at, length, bytes, cut }) => {
      const rest = cut ? honest.subarray(Math.min(honest.length, at + length)) : honest.subarray(Math.min(honest.length, at + bytes.length))
      writeFileSync(join(folder, 'v.facts'), Buffer.concat([honest.subarray(0, at), bytes, rest]))
      const facts = await openFactsFile(folder, 'v')
      let here = 0
      for (const name of names) {
        const { grey, ...expected } = madeUp(name)
        const got = facts.get(expected.content)
        if (got === null) continue
        here++
        assert.deepEqual(got, expected)
        assert.deepEqual(facts.grey(expected.content), grey)
      }
      assert.ok(here >= names.length - 3, `${here} of ${names.length} after ${length} bytes at ${at}`)
      found += here
      facts.put(madeUp('new')) // behind whatever is there
      facts.close()
      const later = await openFactsFile(folder, 'v')
      assert.deepEqual(later.grey(madeUp('new').content), madeUp('new').grey)
      later.close()
    }),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 5000 : 200 },
  )
  assert.ok(found > 0)
})

test('another version of the program looks at its own facts, and old ones go after a month', async t => {
  const folder = temporary(t)
  const old = await openFactsFile(folder, 'old')
  old.put(madeUp('a'))
  old.close()
  const current = await openFactsFile(folder, 'current')
  assert.equal(current.get(madeUp('a').content), null)
  current.close()
  assert.deepEqual(readdirSync(folder).sort(), ['current.facts', 'old.facts'])
  const longAgo = new Date(Date.now() - 31 * 24 * 3600 * 1000)
  utimesSync(join(folder, 'old.facts'), longAgo, longAgo)
  utimesSync(join(folder, 'current.facts'), longAgo, longAgo)
  ;(await openFactsFile(folder, 'current')).close()
  assert.deepEqual(readdirSync(folder), ['current.facts'])
})

test('where nothing can be written, facts are remembered in memory', async t => {
  const folder = temporary(t)
  writeFileSync(join(folder, 'facts'), 'a file where the folder should be')
  const facts = await openFacts(join(folder, 'facts'))
  const { grey, ...expected } = madeUp('a')
  facts.put({ ...expected, grey })
  assert.deepEqual(facts.get(expected.content), expected)
  assert.deepEqual(facts.grey(expected.content), grey)
  facts.close()
})

test('a full disk costs the cache its memory and nobody their work', async t => {
  const said = await onSmallDisk<{ remembered: number }>(t, writer, ['full', '1500'], '4m')
  if (said) assert.deepEqual(said, { remembered: 1500 })
})

test('a picture of one pixel and one of 20,000 × 10 are looked at like any other', async () => {
  const one = await lookAt(
    await sharp({ create: { width: 1, height: 1, channels: 3, background: '#123456' } })
      .png()
      .toBuffer(),
  )
  assert.deepEqual([one.width, one.height, one.grey.length], [1, 1, 4096])
  const wide = await lookAt(
    await fromRgb(Buffer.alloc(20_000 * 10 * 3, 99), 20_000, 10)
      .png()
      .toBuffer(),
  )
  assert.deepEqual([wide.width, wide.height, wide.grey.length], [20_000, 10, 4096])
  for (const value of [...Object.values(one.appearance), ...Object.values(wide.appearance)]) assert.ok(Number.isFinite(value))
})
