import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import sharp from 'sharp'
import { appearance } from '../../src/images/appearance.ts'
import { fromRgb, paint, scene } from './make.ts'

const look = (width: number, height: number, data: Uint8Array) => appearance({ width, height, data })
const grey = (value: number) => paint(40, 30, () => [value, value, value])
/** A city of flat rectangles: what a sharp photo has, edges at all sizes. */
const houses = (width: number, height: number) =>
  paint(width, height, (x, y) => {
    const value = ((Math.floor(x / 13) * 7919 + Math.floor(y / 9) * 104729) % 211) + 20
    return [value, (value * 3) % 256, 255 - value]
  })

test('black, white and grey pictures have the lightness they look like, and nothing else', () => {
  for (const [value, brightness] of [
    [0, 0],
    [255, 1],
    [128, 0.502],
  ] as const) {
    const { dominant, ...seen } = look(40, 30, grey(value))
    assert.equal(dominant, 1)
    assert.ok(Math.abs(seen.brightness - brightness) < 0.001 && Math.abs(seen.rim - brightness) < 0.001)
    for (const zero of [seen.contrast, seen.saturation, seen.edges, seen.rimContrast]) assert.ok(zero < 0.002)
  }
})

test('a picture half black and half white, a red one, and a white rim around black', () => {
  const halves = look(
    100,
    100,
    paint(100, 100, x => (x < 50 ? [0, 0, 0] : [255, 255, 255])),
  )
  assert.ok(Math.abs(halves.brightness - 0.5) < 0.01 && Math.abs(halves.contrast - 0.5) < 0.01)
  assert.deepEqual([halves.low, halves.high, halves.sharpness, halves.edges], [0, 1, 1, 1])
  assert.equal(
    look(
      20,
      20,
      paint(20, 20, () => [255, 0, 0]),
    ).saturation,
    1,
  )
  const framed = look(
    200,
    100,
    paint(200, 100, (x, y) => (x < 12 || y < 12 || x >= 188 || y >= 88 ? [255, 255, 255] : [0, 0, 0])),
  )
  assert.equal(framed.rim, 1)
  assert.equal(framed.rimContrast, 0)
})

test('blur is told from sharpness, whatever the size of the picture and the amount of detail', async () => {
  for (const [width, height] of [
    [128, 96],
    [640, 480],
    [2000, 1500],
  ] as const) {
    const data = houses(width, height)
    const blurred = async (share: number) =>
      look(
        width,
        height,
        await fromRgb(data, width, height)
          .blur(share * width)
          .raw()
          .toBuffer(),
      ).sharpness
    const [sharpest, little, much] = [look(width, height, data).sharpness, await blurred(0.004), await blurred(0.025)]
    assert.ok(sharpest > 0.5 && little > 0.3 && much < 0.3 && little > much, `${width}: ${sharpest}, ${little}, ${much}`)
  }
})

test('the same picture in another size looks the same', async () => {
  const large = scene(800, 600)
  const small = await sharp(large, { raw: { width: 800, height: 600, channels: 3 } })
    .resize(400, 300)
    .raw()
    .toBuffer()
  const [a, b] = [look(800, 600, large), look(400, 300, small)]
  for (const key of ['brightness', 'contrast', 'low', 'high', 'saturation', 'rim'] as const)
    assert.ok(Math.abs(a[key] - b[key]) < 0.03, `${key}: ${a[key]} and ${b[key]}`)
})

test('any size gives finite numbers between 0 and 1, down to one pixel', () => {
  const sizes = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }))
  const strips = fc.constantFrom([20_000, 1], [1, 5000], [3, 700])
  fc.assert(
    fc.property(fc.oneof(sizes, strips), fc.integer({ min: 1, max: 1e6 }), ([width, height], seed) => {
      const data = new Uint8Array(3 * width! * height!).map((_, i) => (i * seed) >> 3)
      for (const value of Object.values(look(width!, height!, data))) assert.ok(value >= 0 && value <= 1, String(value))
    }),
    { numRuns: 200 },
  )
})
