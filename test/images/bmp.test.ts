import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import { decodePicture } from '../../src/images/decode.ts'
import { type BitmapParts, bitmap, blue, green, type Rgb, red, yellow } from './make.ts'

const white: Rgb = [255, 255, 255]
const palette: Rgb[] = [red, green, blue, yellow]
const expected = Buffer.from([...red, ...green, ...blue, ...yellow, ...red, ...green]) // 3 × 2, from the top
const decode = (bytes: Uint8Array) => decodePicture(bytes, { formats: 'local' })

const bgr = (...colours: Rgb[]) => colours.flatMap(([r, g, b]) => [b, g, r])
const bgrx = (last: number, ...colours: Rgb[]) => colours.flatMap(([r, g, b]) => [b, g, r, last])
const half = (...values: number[]) => values.flatMap(value => [value & 255, value >> 8])

const variants: Record<string, BitmapParts> = {
  '24 bits': { width: 3, height: 2, bits: 24, rows: [bgr(yellow, red, green), bgr(red, green, blue)] },
  '24 bits from the top': { width: 3, height: 2, bits: 24, topDown: true, rows: [bgr(red, green, blue), bgr(yellow, red, green)] },
  '32 bits with rubbish in the fourth byte': {
    width: 3,
    height: 2,
    bits: 32,
    rows: [bgrx(7, yellow, red, green), bgrx(99, red, green, blue)],
  },
  '8 bits of palette': {
    width: 3,
    height: 2,
    bits: 8,
    palette,
    rows: [
      [3, 0, 1],
      [0, 1, 2],
    ],
  },
  '8 bits of palette, OS/2 header': {
    width: 3,
    height: 2,
    bits: 8,
    headerSize: 12,
    palette,
    rows: [
      [3, 0, 1],
      [0, 1, 2],
    ],
  },
  '4 bits of palette': {
    width: 3,
    height: 2,
    bits: 4,
    palette,
    rows: [
      [0x30, 0x10],
      [0x01, 0x20],
    ],
  },
  '2 bits of palette': { width: 3, height: 2, bits: 2, palette, rows: [[0b11000100], [0b00011000]] },
  '16 bits, 5 each': { width: 3, height: 2, bits: 16, rows: [half(0x7fe0, 0x7c00, 0x03e0), half(0x7c00, 0x03e0, 0x001f)] },
  '16 bits, 5-6-5 by masks': {
    width: 3,
    height: 2,
    bits: 16,
    compression: 3,
    masks: [0xf800, 0x7e0, 0x1f],
    rows: [half(0xffe0, 0xf800, 0x07e0), half(0xf800, 0x07e0, 0x001f)],
  },
  '32 bits by masks in other order, header 4': {
    width: 3,
    height: 2,
    bits: 32,
    compression: 3,
    headerSize: 108,
    masks: [0xff, 0xff00, 0xff0000, 0],
    rows: [
      [255, 255, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0],
      [255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 0],
    ],
  },
  '8 bits in runs': {
    width: 3,
    height: 2,
    bits: 8,
    compression: 1,
    palette,
    padded: false,
    rows: [
      [0, 3, 3, 0, 1, 0],
      [0, 0],
      [1, 0, 1, 1, 1, 2],
      [0, 0, 0, 1],
    ],
  },
  '4 bits in runs': {
    width: 3,
    height: 2,
    bits: 4,
    compression: 2,
    palette,
    padded: false,
    rows: [
      [1, 0x30, 2, 0x01, 0, 0],
      [0, 3, 0x01, 0x20, 0, 1],
    ],
  },
  'without the padding of its last row': {
    width: 3,
    height: 2,
    bits: 24,
    padded: false,
    rows: [[...bgr(yellow, red, green), 0, 0, 0], bgr(red, green, blue)],
  },
}

for (const [name, parts] of Object.entries(variants)) {
  test(`a bitmap of ${name} has the right pixels`, async () => {
    const picture = await decode(bitmap(parts))
    assert.deepEqual([picture.width, picture.height, picture.format], [3, 2, 'bmp'])
    assert.deepEqual(Buffer.from(picture.data), expected)
  })
}

test('one bit a pixel, and a row that ends within a byte', async () => {
  const picture = await decode(bitmap({ width: 10, height: 1, bits: 1, palette: [red, blue], rows: [[0b10101010, 0b01000000]] }))
  assert.deepEqual(Buffer.from(picture.data), Buffer.from([blue, red, blue, red, blue, red, blue, red, red, blue].flat()))
})

test('alpha of a version 5 bitmap is laid on white; alpha that is zero everywhere was never meant', async () => {
  const masks = [0xff0000, 0xff00, 0xff, 0xff000000]
  const parts = { width: 2, height: 1, bits: 32, compression: 3, headerSize: 124 as const, masks }
  const half = await decode(bitmap({ ...parts, rows: [[0, 0, 255, 128, 255, 0, 0, 0]] }))
  assert.deepEqual([...half.data], [255, 127, 127, ...white])
  assert.deepEqual(half.flags, ['alpha'])
  const opaque = await decode(bitmap({ ...parts, rows: [[0, 0, 255, 0, 255, 0, 0, 0]] }))
  assert.deepEqual([...opaque.data], [...red, ...blue])
})

test('pixels that no run reaches are the first colour, and a jump goes where it says', async () => {
  const rows = [
    [0, 2, 1, 1],
    [1, 1],
    [0, 1],
  ] // jump one right, one up; one pixel of green; end
  const picture = await decode(bitmap({ width: 3, height: 2, bits: 8, compression: 1, palette, padded: false, rows }))
  assert.deepEqual([...picture.data], [red, green, red, red, red, red].flat())
})

test('a bitmap that is cut short, has no size, or claims the moon is refused before memory is taken', async () => {
  const whole = bitmap(variants['24 bits']!)
  await assert.rejects(decode(whole.subarray(0, -4)), { code: 'image_unreadable' })
  await assert.rejects(decode(whole.subarray(0, 30)), { code: 'image_unreadable' })
  await assert.rejects(decode(bitmap({ ...variants['24 bits']!, width: 0 })), { code: 'image_unreadable' })
  await assert.rejects(decode(bitmap({ ...variants['24 bits']!, width: 30_000, height: 30_000 })), { code: 'image_too_large' })
  await assert.rejects(decode(bitmap({ ...variants['8 bits in runs']!, width: 10_000, height: 10_000 })), { code: 'image_unreadable' })
  await assert.rejects(decode(bitmap({ ...variants['24 bits']!, compression: 5 })), { code: 'image_unreadable' })
})

test('no bytes whatever make the bitmap decoder do anything but answer or refuse', async () => {
  const seeds = Object.values(variants).map(bitmap)
  const runs = process.env['PLINTH_TEST'] === 'long' ? 20_000 : 1500
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 6 }),
      fc.nat(40),
      async (seed, changes, cut) => {
        const bytes = Buffer.from(seed)
        for (const [at, value] of changes) bytes[at % bytes.length] = value
        const refusal = await decodePicture(bytes.subarray(0, bytes.length - cut), { formats: 'local', maxPixels: 1e6 }).then(
          picture => assert.equal(picture.data.length, 3 * picture.width * picture.height),
          error => error,
        )
        assert.ok(refusal === undefined || refusal instanceof Failure, String(refusal))
      },
    ),
    { numRuns: runs },
  )
})
