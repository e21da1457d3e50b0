/** Blurred, dark, empty, tiny, odd: on real pictures where pixels matter, and only what falls out of its set. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import sharp from 'sharp'
import { judgeQuality } from '../../../src/data/check/quality.ts'
import { lookAt } from '../../../src/data/facts.ts'
import type { ManifestRow } from '../../../src/sdk/shapes.ts'
import { fromRgb, paint } from '../../images/make.ts'
import { type Changes, picture } from './made.ts'

/** Flat rectangles, each seed others: sharp edges at all sizes. */
const town = (width: number, height: number, seed: number) =>
  fromRgb(
    paint(width, height, (x, y) => {
      const value = ((Math.floor(x / (9 + seed)) * 7919 + Math.floor(y / 13) * 104729 + seed * 31) % 211) + 20
      return [value, (value * 3) % 256, 255 - value]
    }),
    width,
    height,
  )

async function judge(files: Record<string, Buffer>) {
  const facts = await Promise.all(Object.values(files).map(bytes => lookAt(bytes)))
  const rows = Object.keys(files).map((path, index) => ({
    ...picture().row,
    path,
    width: facts[index]!.width,
    height: facts[index]!.height,
  }))
  return judgeQuality(rows, facts)
}

test('one blurred, one dark, one empty, one tiny and one long picture among good ones', async () => {
  const good = Object.fromEntries(
    await Promise.all(Array.from({ length: 20 }, async (_, index) => [`good ${index}`, await town(320, 240, index).jpeg().toBuffer()])),
  ) as Record<string, Buffer>
  const found = await judge({
    ...good,
    blurred: await town(320, 240, 30).blur(9).jpeg().toBuffer(),
    'slightly soft': await town(320, 240, 31).blur(1).jpeg().toBuffer(),
    dark: await town(320, 240, 32).linear(0.1, 0).jpeg().toBuffer(),
    empty: await sharp({ create: { width: 320, height: 240, channels: 3, background: '#777' } })
      .jpeg()
      .toBuffer(),
    tiny: await town(40, 30, 33).png().toBuffer(),
    long: await town(900, 150, 34).png().toBuffer(),
  })
  assert.deepEqual(found, { blurred: ['blurred'], dark: ['dark'], uniform: ['empty'], tiny: ['tiny'], oddShaped: ['long'], notes: [] })
})

test('what holds for all of a set is said once, not of each picture', () => {
  const set = (changes: Changes) => Array.from({ length: 100 }, () => picture(changes))
  const judged = (pictures: { row: ManifestRow; facts: Parameters<typeof judgeQuality>[1][number] }[]) =>
    judgeQuality(
      pictures.map(({ row }) => row),
      pictures.map(({ facts }) => facts),
    )
  for (const [changes, note] of [
    [{ width: 28, height: 28 }, /small: 28 pixels/],
    [{ look: { sharpness: 0.2 } }, /^100 of 100 pictures have no sharp edge/],
    [{ look: { high: 0.1 } }, /^100 of 100 pictures are very dark/],
    [{ width: 2000, height: 500 }, /100 of 100 pictures are at least 3 times/],
  ] as const) {
    const { notes, ...lists } = judged(set(changes))
    assert.match(notes.join(), note)
    assert.ok(Object.values(lists).every(list => list.length === 0))
    assert.equal(notes.length, 1)
  }
  assert.deepEqual(judged([]), { tiny: [], uniform: [], blurred: [], dark: [], oddShaped: [], notes: [] })
})

test('a class of night pictures is not a list of dark ones', () => {
  const pictures = [
    ...Array.from({ length: 60 }, () => picture()),
    ...Array.from({ length: 40 }, () => picture({ label: 'night', look: { high: 0.1 } })),
  ]
  const { dark, notes } = judgeQuality(
    pictures.map(({ row }) => row),
    pictures.map(({ facts }) => facts),
  )
  assert.deepEqual([dark, notes.length], [[], 1])
})

test('drawings of flat colours and pictures without any edge are not called blurred', () => {
  const drawings = Array.from({ length: 50 }, () => picture({ look: { sharpness: 1, edges: 0.9, dominant: 0.8 } }))
  const fog = picture({ look: { sharpness: 0.2, edges: 0.03 } })
  const pictures = [...drawings, fog]
  assert.deepEqual(
    judgeQuality(
      pictures.map(({ row }) => row),
      pictures.map(({ facts }) => facts),
    ).blurred,
    [],
  )
})
