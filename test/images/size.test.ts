import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { claimedPixels } from '../../src/images/size.ts'
import { bitmap, fromRgb, scene } from './make.ts'

const picture = () => fromRgb(scene(61, 47), 61, 47)
const files: Record<string, () => Promise<Buffer>> = {
  jpeg: () => picture().jpeg().toBuffer(),
  'progressive jpeg with a profile and EXIF': () =>
    picture()
      .jpeg({ progressive: true })
      .withMetadata({ orientation: 6, exif: { IFD0: { Make: 'x'.repeat(3000) } } })
      .toBuffer(),
  png: () => picture().png().toBuffer(),
  gif: () => picture().gif().toBuffer(),
  webp: () => picture().webp().toBuffer(),
  'lossless webp': () => picture().webp({ lossless: true }).toBuffer(),
  'webp with transparency': () => picture().ensureAlpha(0.5).webp().toBuffer(),
}

test('the size is read from the header of each common format', async () => {
  for (const [name, make] of Object.entries(files)) assert.equal(claimedPixels(await make()), 61 * 47, name)
  const rows = Array.from({ length: 3 }, () => [1, 2, 3, 4, 5, 6])
  assert.equal(claimedPixels(bitmap({ width: 2, height: 3, bits: 24, rows })), 6)
  assert.equal(claimedPixels(bitmap({ width: 2, height: 3, bits: 24, rows, topDown: true })), 6)
})

test('what does not say its size gives null, and damage never more than an answer', async () => {
  assert.equal(claimedPixels(new Uint8Array()), null)
  assert.equal(claimedPixels(await picture().tiff().toBuffer()), null)
  const lying = await files['png']!()
  lying.fill(0xff, 16, 24) // more pixels than whole numbers are exact
  assert.equal(claimedPixels(lying), Number.MAX_SAFE_INTEGER)
  const honest = await Promise.all(Object.values(files).map(make => make()))
  fc.assert(
    fc.property(
      fc.constantFrom(...honest),
      fc.nat(),
      fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 8 }),
      (file, end, changes) => {
        const copy = Uint8Array.from(file.subarray(0, end % (file.length + 1)))
        for (const [at, value] of changes) if (at < copy.length) copy[at] = value
        const pixels = claimedPixels(copy)
        assert.ok(pixels === null || (Number.isSafeInteger(pixels) && pixels >= 0), `${pixels}`)
      },
    ),
    { numRuns: 3000 },
  )
})
