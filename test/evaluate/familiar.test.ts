import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import sharp, { type Sharp } from 'sharp'
import { findCopies } from '../../src/data/copies/index.ts'
import { openFacts } from '../../src/data/facts.ts'
import { importPictures } from '../../src/data/import.ts'
import { familiarPictures } from '../../src/evaluate/familiar.ts'
import type { Side } from '../../src/sdk/index.ts'
import { openBlobs } from '../../src/storage/blobs.ts'
import { randomNumbers } from '../models/tiny-model.ts'
import { temporaryFolder } from '../track/homes.ts'

/** Something with shapes at several scales, another for each number. */
function scene(number: number) {
  const next = randomNumbers(number * 7919 + 1)
  const waves = Array.from({ length: 6 }, () => ({
    x: (next() - 0.5) / 6,
    y: (next() - 0.5) / 6,
    at: 6.3 * next(),
    size: 20 + 40 * next(),
  }))
  const [width, height] = [200, 150]
  const data = new Uint8Array(width * height * 3)
  for (let i = 0; i < width * height; i++) {
    const [x, y] = [i % width, Math.floor(i / width)]
    const value = waves.reduce((sum, wave) => sum + wave.size * Math.sign(Math.sin(x * wave.x + y * wave.y + wave.at)), 128)
    for (let channel = 0; channel < 3; channel++) data[3 * i + channel] = Math.max(0, Math.min(255, value + 20 * channel))
  }
  return sharp(data, { raw: { width, height, channels: 3 } })
}

test('pictures are known again as another file, and as an edited copy; the others are fresh', async t => {
  const folder = temporaryFolder(t)
  const write = async (path: string, picture: Sharp) => {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), await picture.toBuffer())
  }
  for (let i = 0; i < 8; i++) await write(`learned/${i % 2 ? 'a' : 'b'}/${'pqrstuvw'[i]}.png`, scene(i).png())
  await write('asked/a/one.png', scene(1).png({ compressionLevel: 0 }))
  await write('asked/b/two.png', scene(2).webp({ lossless: true }))
  await write('asked/a/three.jpg', scene(3).jpeg({ quality: 50 }))
  await write('asked/b/four.png', scene(4).modulate({ brightness: 1.15 }).png())
  await write('asked/a/new.png', scene(101).png())
  await write('asked/b/other.png', scene(102).png())
  const facts = await openFacts(join(folder, 'facts'))
  t.after(() => facts.close())
  const blobs = openBlobs(join(folder, 'blobs'))
  const [learned, asked] = [
    await importPictures(join(folder, 'learned'), { blobs, facts, accept: 'anything' }),
    await importPictures(join(folder, 'asked'), { blobs, facts, accept: 'anything' }),
  ]
  const sides = new Map<string, Side>(learned.rows.map((row, i) => [row.pixels, i % 3 === 2 ? 'validation' : 'train']))
  const looking = { facts, blob: (content: string) => blobs.get(content), signal: new AbortController().signal }
  const found = await familiarPictures(asked, [{ sides, rows: learned.rows }, null], looking)
  assert.equal(found.learned[1], null)
  const known = Object.fromEntries(asked.rows.map(row => [row.path, found.learned[0]!.get(row.pixels) ?? null]))
  const side = (path: string) => sides.get(learned.rows.find(row => row.path === path)!.pixels)
  assert.deepEqual([known['a/one.png'], known['b/two.png']], [side('a/q.png'), side('b/r.png')])
  assert.deepEqual([known['a/new.png'], known['b/other.png']], [null, null])
  const { tiers } = await findCopies({ manifest: asked, dataset: '', facts })
  if (!tiers.includes('hash')) return t.diagnostic('edited copies are not looked for')
  assert.deepEqual([known['a/three.jpg'], known['b/four.png']], ['copy', 'copy'])
})

test('pictures of the question that belong together get one group, whatever the model learned from', async t => {
  const folder = temporaryFolder(t)
  for (const [path, number] of [
    ['a/x.png', 1],
    ['a/y.png', 1],
    ['b/z.png', 2],
  ] as const) {
    mkdirSync(join(folder, 'asked', path, '..'), { recursive: true })
    writeFileSync(join(folder, 'asked', path), await scene(number).png().toBuffer())
  }
  const facts = await openFacts(join(folder, 'facts'))
  t.after(() => facts.close())
  const blobs = openBlobs(join(folder, 'blobs'))
  const asked = await importPictures(join(folder, 'asked'), { blobs, accept: 'anything' })
  const { manifest, learned } = await familiarPictures(asked, [], {
    facts,
    blob: content => blobs.get(content),
    signal: new AbortController().signal,
  })
  const groups = Object.fromEntries(manifest.rows.map(row => [row.path, row.group]))
  assert.ok(groups['a/x.png'] !== null && groups['a/x.png'] === groups['a/y.png'])
  assert.deepEqual([groups['b/z.png'], learned], [null, []])
  assert.ok(facts.get(asked.rows[0]!.content), 'what was not known of a picture is looked at and kept')
})
