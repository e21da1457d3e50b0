import assert from 'node:assert/strict'
import { test } from 'node:test'
import sharp from 'sharp'
import { activationOverlay, type PlacesOfPicture } from '../../src/images/overlay.ts'

const grey = (width: number, height: number) => ({ width, height, data: new Uint8Array(width * height * 3).fill(128) })
async function pixels(width: number, height: number, map: PlacesOfPicture, options: Parameters<typeof activationOverlay>[2] = {}) {
  const { data, info } = await sharp(await activationOverlay(grey(width, height), map, options))
    .raw()
    .toBuffer({ resolveWithObject: true })
  const at = (x: number, y: number) => {
    const [r, , b] = data.subarray((Math.floor(y * info.height) * info.width + Math.floor(x * info.width)) * 3)
    return r! - b! > 40 ? 'warm' : b! - r! > 40 ? 'cold' : 'grey'
  }
  return { at, width: info.width, height: info.height }
}
/** For the upper left, against the lower right. */
const places = { rows: 2, columns: 2, places: [1, 0, 0, -1] }

test('warm is what speaks for the label, cold what speaks against it, where it is in the picture', async () => {
  const { at, width, height } = await pixels(60, 60, { ...places, fit: 'crop' })
  assert.deepEqual([width, height], [480, 480])
  assert.deepEqual([at(0.1, 0.1), at(0.9, 0.9), at(0.95, 0.05)], ['warm', 'cold', 'grey'])
})

test('the map lies over the part that the network sees: the middle, all of it, or all of it with a border', async () => {
  const crop = await pixels(300, 100, { ...places, fit: 'crop' })
  assert.deepEqual([crop.at(0.05, 0.1), crop.at(0.36, 0.1), crop.at(0.64, 0.9), crop.at(0.95, 0.9)], ['grey', 'warm', 'cold', 'grey'])
  const squash = await pixels(300, 100, { ...places, fit: 'squash' })
  assert.deepEqual([squash.at(0.05, 0.1), squash.at(0.95, 0.9)], ['warm', 'cold'])
  // the picture is the middle third of the square: both rows of places meet in it
  const boxed = await pixels(300, 100, { ...places, fit: 'letterbox' })
  assert.deepEqual([boxed.at(0.05, 0.1), boxed.at(0.95, 0.9)], ['warm', 'cold'])
})

test('maps that are compared share a scale, nothing is nothing, and every size is taken', async () => {
  const weak = await pixels(60, 60, { ...places, fit: 'crop' }, { scale: 50 })
  assert.equal(weak.at(0.1, 0.1), 'grey')
  const nothing = await pixels(60, 60, { rows: 3, columns: 3, places: new Float32Array(9), fit: 'crop' })
  assert.equal(nothing.at(0.5, 0.5), 'grey')
  for (const [width, height] of [
    [1, 1],
    [1, 900],
    [900, 2],
  ] as const)
    for (const fit of ['crop', 'squash', 'letterbox'] as const) {
      const small = await pixels(width, height, { rows: 1, columns: 1, places: [1], fit }, { side: 64 })
      assert.equal(Math.max(small.width, small.height), 64)
      // of a strip, the square in the middle is less than a pixel
      if (fit !== 'crop' || width === height) assert.equal(small.at(0.5, 0.5), 'warm', `${width} × ${height} ${fit}`)
    }
})
