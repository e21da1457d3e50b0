/** Copies as a user has them: artwork of the sample, edited, in a folder with many other pictures that look much alike. */
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import sharp from 'sharp'
import { holdTogether } from '../../../src/data/copies/grouping.ts'
import { farRadius, findHashPairs, hashRadius, orientedDistance } from '../../../src/data/copies/hash-search.ts'
import { findCopies, groupsOf } from '../../../src/data/copies/index.ts'
import { namedScenes } from '../../../src/data/copies/names.ts'
import { openFacts } from '../../../src/data/facts.ts'
import { importPictures } from '../../../src/data/import.ts'
import { extractSample } from '../../../src/data/samples.ts'
import { fingerprint, hashDistance } from '../../../src/images/fingerprint.ts'
import type { ManifestRow } from '../../../src/sdk/index.ts'
import { randomNumbers } from '../../models/tiny-model.ts'
import { temporaryFolder } from '../../track/homes.ts'
import { sampleArchive } from '../folders.ts'

const edits = {
  png: (file: string) => sharp(file).png({ compressionLevel: 1 }),
  jpeg: (file: string) => sharp(file).flatten({ background: 'white' }).jpeg({ quality: 30 }),
  half: (file: string) => sharp(file).flatten({ background: 'white' }).resize({ width: 36 }).png(),
  brighter: (file: string) => sharp(file).flatten({ background: 'white' }).modulate({ brightness: 1.2 }).png(),
  mirror: (file: string) => sharp(file).flatten({ background: 'white' }).flop().png(),
}

test('edits of artwork are found again, and hardly anything else is called a copy', async t => {
  const folder = temporaryFolder(t)
  await extractSample('emoji', join(folder, 'sample'))
  const names = readdirSync(join(folder, 'sample', 'animal')).filter(name => name.endsWith('__noto.png'))
  mkdirSync(join(folder, 'set', 'animal'), { recursive: true })
  for (const [i, name] of names.entries()) copyFileSync(join(folder, 'sample', 'animal', name), join(folder, 'set', 'animal', `p${i}x.png`))
  const made = new Map<string, string>()
  for (const [i] of names.slice(0, 10).entries())
    for (const [edit, make] of Object.entries(edits)) {
      const path = `animal/e${edit}${i}x.png`
      writeFileSync(join(folder, 'set', path), await make(join(folder, 'set', 'animal', `p${i}x.png`)).toBuffer())
      made.set(path, `animal/p${i}x.png`)
    }
  const facts = await openFacts(join(folder, 'facts'))
  t.after(() => facts.close())
  const manifest = await importPictures(join(folder, 'set'), { blobs: null, facts, accept: 'anything' })
  const copies = await findCopies({ manifest, dataset: 'd'.repeat(32), facts, seed: 1 })
  const paths = copies.samePicture.map(group => group.map(row => manifest.rows[row]!.path))
  const original = (path: string) => made.get(path) ?? path
  const found = [...made].filter(([path, of]) =>
    paths.some(group => group.includes(path) && group.some(other => other !== path && original(other) === of)),
  )
  assert.ok(found.length >= 0.9 * made.size, `${found.length} of ${made.size} edits found`)
  const wrong = paths.filter(group => new Set(group.map(original)).size > 1)
  assert.ok(wrong.length <= 1, `different pictures in one group: ${JSON.stringify(wrong)}`)
  const groups = groupsOf(copies)
  assert.equal(new Set(groups.flat()).size, groups.flat().length)
})

test('small pictures are alike only where every pixel is: clothes of 28 pixels give no edited copy', async t => {
  const folder = temporaryFolder(t)
  const facts = await openFacts(join(folder, 'facts'))
  t.after(() => facts.close())
  const manifest = await importPictures(sampleArchive('fashion'), { blobs: null, facts, accept: 'anything' })
  const copies = await findCopies({ manifest, dataset: 'd'.repeat(32), facts })
  const edited = copies.samePicture.filter(group => new Set(group.map(row => manifest.rows[row]!.pixels)).size > 1)
  assert.deepEqual(edited, [])
  assert.equal(copies.notJudged.length, manifest.rows.length)
})

test('a search among hashes finds what comparing each with each finds', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 }), async seed => {
      const next = randomNumbers(seed)
      const hashes: Uint8Array[] = []
      for (let i = 0; i < 40; i++) {
        const of = i % 4 === 0 || hashes.length === 0 ? null : hashes[Math.floor(next() * hashes.length)]!
        const hash = of ? of.slice() : Uint8Array.from({ length: 32 }, () => Math.floor(256 * next()))
        for (let flips = of ? Math.floor(40 * next()) : 0; flips > 0; flips--) hash[Math.floor(32 * next())]! ^= 1 << Math.floor(8 * next())
        hashes.push(hash)
      }
      const found = new Set((await findHashPairs(hashes)).pairs.map(({ a, b }) => `${a} ${b}`))
      for (let a = 0; a < hashes.length; a++)
        for (let b = a + 1; b < hashes.length; b++) {
          const { straight, turned } = orientedDistance(hashes[a]!, hashes[b]!)
          const distance = Math.min(straight, turned)
          if (distance <= hashRadius) assert.ok(found.has(`${a} ${b}`), `${a} and ${b}, ${distance} apart, were not found`)
          if (distance > farRadius) assert.ok(!found.has(`${a} ${b}`), `${a} and ${b} are ${distance} apart`)
        }
    }),
    { numRuns: 30 },
  )
})

test('what is alike one after the other makes no chain: each member is like the first', () => {
  const near = (a: number, b: number) => Math.abs(a - b) <= 1
  const pairs = [0, 1, 2, 3, 4, 5].map(i => [i, i + 1] as const)
  const { groups, loose } = holdTogether(pairs, near)
  for (const [first, ...others] of groups) for (const other of others) assert.ok(near(first!, other), `${first} with ${other}`)
  assert.deepEqual(loose, [[0, 1, 2, 3, 4, 5, 6]])
  assert.deepEqual(
    holdTogether(
      [
        [3, 7],
        [7, 9],
        [3, 9],
      ],
      () => true,
    ),
    { groups: [[3, 7, 9]], loose: [] },
  )
})

test('a fingerprint stays when a picture is made smaller, and says when there is nothing to compare', async () => {
  const next = randomNumbers(5)
  const data = Uint8Array.from({ length: 16 * 12 * 3 }, () => Math.floor(256 * next()))
  const large = sharp(data, { raw: { width: 16, height: 12, channels: 3 } }).resize(640, 480, { kernel: 'cubic' })
  const pixels = async (side: number) => {
    const { data, info } = await sharp(await large.clone().png().toBuffer())
      .resize(side)
      .raw()
      .toBuffer({ resolveWithObject: true })
    return fingerprint({ width: info.width, height: info.height, data })
  }
  const [whole, half] = [await pixels(640), await pixels(320)]
  assert.ok(hashDistance(whole.hash, half.hash) <= 12, `${hashDistance(whole.hash, half.hash)} bits apart`)
  const flat = fingerprint({ width: 300, height: 200, data: new Uint8Array(300 * 200 * 3).fill(90) })
  assert.equal(flat.quality, 0)
})

test('names keep files of one source together, and numbers alone keep nothing together', () => {
  const row = (path: string): ManifestRow => ({
    path,
    content: path,
    pixels: path,
    labels: ['a'],
    group: null,
    side: null,
    width: 100,
    height: 100,
    flags: [],
  })
  const next = randomNumbers(3)
  const named = (paths: string[]) => {
    const rows = paths.map(row)
    const pictures = rows.map((_, i) => ({
      rows: [i],
      hash: Uint8Array.from({ length: 32 }, () => Math.floor(256 * next())),
      judged: true,
    }))
    return namedScenes(rows, pictures).scenes.map(({ rows }) => rows)
  }
  const hash = (letter: string) => letter.repeat(32)
  assert.deepEqual(named([`a/cat.rf.${hash('a')}.jpg`, `a/cat.rf.${hash('b')}.jpg`, `a/dog.rf.${hash('c')}.jpg`]), [[0, 1]])
  assert.deepEqual(named(Array.from({ length: 30 }, (_, i) => `a/img_${String(i).padStart(4, '0')}.jpg`)), [])
})
