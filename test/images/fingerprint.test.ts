import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { orientedDistance } from '../../src/data/copies/hash-search.ts'
import { fingerprint, hashDistance, leastQuality } from '../../src/images/fingerprint.ts'
import { paint } from './make.ts'

/** Blots of several colours in places that depend on the seed; nothing about it is symmetric. */
function blots(width: number, height: number, seed: number) {
  const spots = Array.from({ length: 9 }, (_, index) => {
    const part = (k: number) => Math.abs(Math.sin(seed * 12.9898 + index * 78.233 + k * 37.719)) % 1
    return { x: part(1), y: part(2), size: 0.05 + 0.2 * part(3), colour: [255 * part(4), 255 * part(5), 255 * part(6)] }
  })
  const data = paint(width, height, (x, y) => {
    const hit = spots.find(spot => Math.hypot(x / width - spot.x, y / height - spot.y) < spot.size)
    return hit ? hit.colour.map(Math.round) : [200, 190, 170]
  })
  return { width, height, data }
}
const mirrored = ({ width, height, data }: ReturnType<typeof blots>) => ({
  width,
  height,
  data: paint(width, height, (x, y) => [...data.subarray(3 * (y * width + width - 1 - x), 3 * (y * width + width - x))]),
})
const turned = ({ width, height, data }: ReturnType<typeof blots>) => ({
  width: height,
  height: width,
  data: paint(height, width, (x, y) => [...data.subarray(3 * ((height - 1 - x) * width + y), 3 * ((height - 1 - x) * width + y) + 3)]),
})

test('the same picture in another size has the same fingerprint, and another picture has not', () => {
  const large = fingerprint(blots(480, 360, 1))
  const small = fingerprint(blots(160, 120, 1))
  assert.ok(hashDistance(large.hash, small.hash) <= 12, `${hashDistance(large.hash, small.hash)} bits apart`)
  const others = [2, 3, 4, 5, 6].map(seed => hashDistance(large.hash, fingerprint(blots(480, 360, seed)).hash))
  assert.ok(Math.min(...others) > 70, `others are ${others.join(', ')} bits apart`)
  const error = large.grey.reduce((sum, value, at) => sum + Math.abs(value - small.grey[at]!), 0) / 4096
  assert.ok(error < 4, `grey copies differ by ${error} tones`)
})

test('a mirrored or quarter-turned picture is found from the hash alone', () => {
  const picture = blots(200, 150, 7)
  const own = fingerprint(picture).hash
  for (const other of [mirrored(picture), turned(picture), turned(turned(picture)), mirrored(turned(picture))]) {
    const { straight, turned: any } = orientedDistance(own, fingerprint(other).hash)
    assert.ok(any <= 6 && straight > 60, `${any} bits in the right orientation, ${straight} as it is`)
  }
})

test('pictures with nothing in them, or of hardly any pixels, are said to be no use for comparing', () => {
  const flat = (width: number, height: number) =>
    fingerprint({ width, height, data: paint(width, height, (x, y) => [90 + x / width, 90, 90 + y / height]) })
  for (const { quality } of [flat(300, 200), flat(1, 1), flat(20_000, 10), fingerprint(blots(8, 6, 1))]) assert.ok(quality < leastQuality)
  assert.ok(fingerprint(blots(300, 200, 1)).quality >= 2 * leastQuality)
})

test('any size gives a whole fingerprint', () => {
  const side = fc.integer({ min: 1, max: 150 })
  fc.assert(
    fc.property(side, side, fc.uint8Array({ minLength: 3, maxLength: 64 }), (width, height, values) => {
      const data = Uint8Array.from({ length: 3 * width * height }, (_, at) => values[at % values.length]!)
      const { hash, quality, grey, colour } = fingerprint({ width, height, data })
      assert.ok(hash.length === 32 && grey.length === 4096 && /^[0-9a-f]{256}$/.test(colour) && quality >= 0 && quality <= 100)
      const [low, high] = [Math.min(...values), Math.max(...values)]
      assert.ok(
        grey.every(value => value >= low - 1 && value <= high + 1),
        'tones that the picture does not have',
      )
    }),
    { numRuns: 60 },
  )
})
