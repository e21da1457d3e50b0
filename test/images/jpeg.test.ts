import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import sharp, { type Sharp } from 'sharp'
import { decodePicture } from '../../src/images/decode.ts'
import { jpegHeader } from '../../src/images/jpeg.ts'
import { fromRgb, scene } from './make.ts'

const picture = () => fromRgb(scene(61, 47), 61, 47)
const files: Record<string, () => Sharp> = {
  plain: () => picture().jpeg(),
  progressive: () => picture().jpeg({ progressive: true }),
  grey: () => picture().toColourspace('b-w').jpeg(),
  cmyk: () => picture().toColourspace('cmyk').jpeg(),
  'without subsampling': () => picture().jpeg({ chromaSubsampling: '4:4:4' }),
  'with a profile': () => picture().withIccProfile('p3').jpeg(),
  'with much EXIF': () =>
    picture()
      .withExif({ IFD0: { Make: 'x'.repeat(5000), Model: 'y' } })
      .jpeg(),
  ...Object.fromEntries(
    [1, 2, 3, 4, 5, 6, 7, 8].map(orientation => [`orientation ${orientation}`, () => picture().withMetadata({ orientation }).jpeg()]),
  ),
}

test('our reading of the header is that of libvips, for every kind of JPEG', async () => {
  for (const [name, make] of Object.entries(files)) {
    const bytes = await make().toBuffer()
    const theirs = await sharp(bytes).metadata()
    const ours = jpegHeader(bytes)!
    assert.deepEqual(
      [ours.width, ours.height, ours.components, ours.precision, ours.orientation],
      [theirs.width, theirs.height, theirs.channels, 8, theirs.orientation ?? 1],
      name,
    )
    assert.deepEqual(ours.exif && Buffer.from(ours.exif), theirs.exif, name)
  }
})

test('a JPEG is decoded to the same pixels and flags whichever of us reads its header', async () => {
  for (const [name, make] of Object.entries(files)) {
    const bytes = await make().toBuffer()
    // a segment that ours does not step over: a fill byte where a length should be is unknown to it, and nothing to libjpeg
    const odd = Buffer.concat([bytes.subarray(0, 2), Buffer.from([0xff, 0x01]), bytes.subarray(2)])
    assert.equal(jpegHeader(odd), null)
    const [a, b] = [await decodePicture(bytes, { formats: 'upload' }), await decodePicture(odd, { formats: 'upload' }).catch(() => null)]
    if (b) assert.deepEqual({ ...b, flags: b.flags.filter(flag => flag !== 'damaged') }, a, name)
    assert.deepEqual([a.width * a.height, a.flags.includes('grey'), a.flags.includes('cmyk')], [61 * 47, name === 'grey', name === 'cmyk'])
    assert.equal(a.flags.includes('exif-turned'), /orientation [2-8]/.test(name), name)
  }
})

test('damage never throws and never reads outside', async () => {
  const honest = await Promise.all(Object.values(files).map(make => make().toBuffer()))
  fc.assert(
    fc.property(
      fc.constantFrom(...honest),
      fc.nat(),
      fc.array(fc.tuple(fc.nat(700), fc.nat(255)), { maxLength: 8 }),
      (file, end, changes) => {
        const copy = Uint8Array.from(file.subarray(0, end % (file.length + 1)))
        for (const [at, value] of changes) if (at < copy.length) copy[at] = value
        const header = jpegHeader(copy)
        if (header) assert.ok(header.orientation >= 1 && header.orientation <= 8 && (header.exif?.length ?? 0) <= copy.length)
      },
    ),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 100_000 : 3000 },
  )
})
