import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { createPreprocessor, type PictureLike } from '../../src/models/artefact.ts'
import { LETTERBOX_GREY } from '../../src/models/preprocessing.ts'
import { Fit } from '../../src/sdk/index.ts'
import { python } from '../peers.ts'
import { noise, plain } from './tiny-model.ts'

const golden = JSON.parse(readFileSync(new URL('../golden/preprocessing.json', import.meta.url), 'utf8')) as {
  cases: { fit: Fit; width: number; height: number; side: number; planes: string }[]
}
const prepare = async (picture: PictureLike, side: number, { threads = 1, fit }: { threads?: number; fit?: Fit } = {}) => {
  const preprocessor = await createPreprocessor(side, { threads, ...(fit && { fit }) })
  try {
    return await preprocessor.run(picture)
  } finally {
    await preprocessor.close()
  }
}
const largest = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0)

test('pictures of any shape come out as Pillow scales them, to one level', async () => {
  assert.deepEqual(new Set(golden.cases.map(({ fit }) => fit)), new Set(Fit.options))
  for (const { fit, width, height, side, planes } of golden.cases) {
    const ours = await prepare(noise(width, height), side, { fit })
    const pillow = Buffer.from(planes, 'base64')
    assert.equal(ours.length, pillow.length)
    const differing = ours.filter((value, i) => value !== pillow[i]).length / ours.length
    assert.ok(largest(ours, pillow) <= 1, `${fit} ${width} × ${height} → ${side}: ${largest(ours, pillow)} levels`)
    // Pillow takes the axis first that saves it more, the runtime always the rows: where the scales differ, so does what is rounded first
    assert.ok(differing < (fit === 'squash' ? 0.3 : 0.05), `${fit} ${width} × ${height} → ${side}: ${differing} of the values differ`)
  }
})

test('a small picture is enlarged by ordinary bilinear interpolation', async () => {
  const picture = noise(28, 28)
  const ours = await prepare(picture, 96)
  const exact = bilinear(picture, 96)
  // two passes on whole numbers: up to half a level in each
  assert.ok(largest(ours, exact) <= 1.001, `${largest(ours, exact)} levels`)
})

test('a picture that has model size already is not touched, however it is fitted', async () => {
  const picture = noise(64, 64)
  for (const fit of Fit.options) {
    const ours = await prepare(picture, 64, { fit })
    for (let channel = 0; channel < 3; channel++)
      for (let pixel = 0; pixel < 64 * 64; pixel++) assert.equal(ours[channel * 64 * 64 + pixel], picture.data[pixel * 3 + channel])
  }
})

test('what is cut off is what lies beyond the square in the centre', async () => {
  const wide = plain(300, 100, [0, 0, 0])
  for (let y = 0; y < 100; y++) for (let x = 100; x < 200; x++) wide.data.set([10, 20, 30], (y * 300 + x) * 3)
  const ours = await prepare(wide, 32)
  for (const [channel, value] of [10, 20, 30].entries())
    assert.ok(ours.subarray(channel * 1024, (channel + 1) * 1024).every(v => v === value))
})

test('squash keeps both ends of a wide picture, letterbox keeps them and its shape', async () => {
  const wide = plain(300, 100, [0, 0, 0])
  for (let y = 0; y < 100; y++) for (let x = 0; x < 150; x++) wide.data.set([200, 200, 200], (y * 300 + x) * 3)
  const squashed = await prepare(wide, 32, { fit: 'squash' })
  const boxed = await prepare(wide, 33, { fit: 'letterbox' })
  const at = (planes: Uint8Array, side: number, x: number, y: number) => planes[y * side + x]
  for (const y of [0, 16, 31]) assert.deepEqual([at(squashed, 32, 2, y), at(squashed, 32, 29, y)], [200, 0])
  assert.deepEqual([at(boxed, 33, 2, 16), at(boxed, 33, 30, 16)], [200, 0])
  // 33 × 11 in the middle of 33 × 33: eleven rows of grey above and eleven below
  const grey = Array.from({ length: 33 }, (_, y) => at(boxed, 33, 2, y) === LETTERBOX_GREY && at(boxed, 33, 30, y) === LETTERBOX_GREY)
  assert.deepEqual(
    grey,
    Array.from({ length: 33 }, (_, y) => y < 11 || y >= 22),
  )
})

test('the odd row or column of grey lies at the bottom or the right', async () => {
  const boxed = await prepare(plain(8, 5, [250, 250, 250]), 8, { fit: 'letterbox' })
  const rows = Array.from({ length: 8 }, (_, y) => boxed[y * 8])
  assert.deepEqual(rows, [127, 250, 250, 250, 250, 250, 127, 127])
})

/** The part of a square that the picture fills, as [columns, rows]. */
const filled: Record<Fit, (width: number, height: number, side: number) => [number, number]> = {
  crop: (_width, _height, side) => [side, side],
  squash: (_width, _height, side) => [side, side],
  letterbox: (width, height, side) => {
    const part = (length: number) => Math.max(1, Math.floor((length * side) / Math.max(width, height) + 0.5))
    return [part(width), part(height)]
  },
}

test('one pixel, lines of five thousand and of a million and twelve megapixels keep their colour, and none takes long', async () => {
  for (const fit of Fit.options)
    for (const [width, height] of [
      [1, 1],
      [5000, 1],
      [1, 5000],
      [1, 1_000_000],
      [20_000, 10],
      [4000, 3000],
    ] as const) {
      const picture = plain(width, height, [200, 100, 50])
      const began = performance.now()
      const ours = await prepare(picture, 96, { threads: 2, fit })
      const [columns, rows] = filled[fit](width, height, 96)
      for (const [channel, value] of [200, 100, 50].entries()) {
        const plane = ours.subarray(channel * 96 * 96, (channel + 1) * 96 * 96)
        assert.equal(plane.filter(v => v === value).length, columns * rows, `${fit} ${width} × ${height}`)
        assert.equal(plane.filter(v => v === LETTERBOX_GREY).length, 96 * 96 - columns * rows, `${fit} ${width} × ${height}`)
      }
      assert.ok(performance.now() - began < 2000, `${fit} ${width} × ${height} took ${performance.now() - began} ms`)
    }
})

test('whatever its shape, a letterboxed picture is in the middle and no larger than the square', async () => {
  const preprocessor = await createPreprocessor(32, { threads: 1, fit: 'letterbox' })
  try {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 300 }), async (width, height) => {
        const plane = (await preprocessor.run(plain(width, height, [255, 255, 255]))).subarray(0, 32 * 32)
        const [columns, rows] = filled.letterbox(width, height, 32)
        const [left, top] = [(32 - columns) >> 1, (32 - rows) >> 1]
        for (let y = 0; y < 32; y++)
          for (let x = 0; x < 32; x++) {
            const inside = x >= left && x < left + columns && y >= top && y < top + rows
            assert.equal(plane[y * 32 + x], inside ? 255 : LETTERBOX_GREY, `${width} × ${height} at ${x}, ${y}`)
          }
      }),
      { numRuns: 60 },
    )
  } finally {
    await preprocessor.close()
  }
})

test('a picture whose bytes do not fit its size is refused', async () => {
  await assert.rejects(prepare({ width: 4, height: 4, data: new Uint8Array(47) }, 32), { code: 'shape_mismatch' })
  await assert.rejects(prepare({ width: 0, height: 4, data: new Uint8Array(0) }, 32), { code: 'shape_mismatch' })
})

test("PyTorch's antialiased interpolation of the same square agrees to one level", t => {
  const venv = python()
  if (!venv) return t.skip('no Python peer')
  return withFolder(async folder => {
    const sizes = [
      [28, 28, 96],
      [640, 480, 96],
      [480, 640, 224],
      [97, 131, 96],
      [1920, 1080, 224],
      [3, 7, 96],
    ] as const
    for (const [width, height, side] of sizes) {
      writeFileSync(join(folder, `in_${width}_${height}_${side}`), noise(width, height).data)
      writeFileSync(join(folder, `out_${width}_${height}_${side}`), await prepare(noise(width, height), side))
    }
    const program = `
import os, sys, numpy, torch
os.chdir(sys.argv[1])
for name in sorted(os.listdir()):
    if not name.startswith('in_'): continue
    w, h, s = map(int, name.split('_')[1:])
    x = torch.from_numpy(numpy.fromfile(name, numpy.uint8).reshape(h, w, 3).copy()).permute(2, 0, 1)[None].double()
    n = min(w, h); top, left = (h - n) // 2, (w - n) // 2
    y = torch.nn.functional.interpolate(x[:, :, top:top + n, left:left + n], (s, s), mode='bilinear', antialias=True, align_corners=False)
    ours = numpy.fromfile(name.replace('in_', 'out_'), numpy.uint8).reshape(1, 3, s, s)
    print(float(numpy.abs(y.numpy() - ours).max()))
`
    const differences = execFileSync(venv, ['-c', program, folder], { encoding: 'utf8' }).trim().split('\n').map(Number)
    assert.equal(differences.length, sizes.length)
    for (const difference of differences) assert.ok(difference <= 1.01, String(differences))
  })
})

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'plinth-preprocessing-'))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Planar, half-pixel centres, edges repeated, unrounded. */
function bilinear({ width, height, data }: PictureLike, side: number): Float64Array {
  const planes = new Float64Array(3 * side * side)
  const tap = (i: number, size: number) => {
    const at = Math.min(size - 1, Math.max(0, ((i + 0.5) * size) / side - 0.5))
    const low = Math.floor(at)
    return { low, high: Math.min(size - 1, low + 1), part: at - low }
  }
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      const v = tap(y, height)
      const h = tap(x, width)
      for (let c = 0; c < 3; c++) {
        const at = (row: number, column: number) => data[(row * width + column) * 3 + c]!
        const top = at(v.low, h.low) * (1 - h.part) + at(v.low, h.high) * h.part
        const bottom = at(v.high, h.low) * (1 - h.part) + at(v.high, h.high) * h.part
        planes[(c * side + y) * side + x] = top * (1 - v.part) + bottom * v.part
      }
    }
  return planes
}
