import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createPreprocessor, type PictureLike } from '../../src/models/artefact.ts'
import { python } from '../peers.ts'
import { noise, plain } from './tiny-model.ts'

const golden = JSON.parse(readFileSync(new URL('../golden/preprocessing.json', import.meta.url), 'utf8')) as {
  cases: { width: number; height: number; side: number; planes: string }[]
}
const prepare = async (picture: PictureLike, side: number, threads = 1) => {
  const preprocessor = await createPreprocessor(side, { threads })
  try {
    return await preprocessor.run(picture)
  } finally {
    await preprocessor.close()
  }
}
const largest = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0)

test('pictures of any shape come out as Pillow scales them, to one level', async () => {
  for (const { width, height, side, planes } of golden.cases) {
    const ours = await prepare(noise(width, height), side)
    const pillow = Buffer.from(planes, 'base64')
    assert.equal(ours.length, pillow.length)
    const differing = ours.filter((value, i) => value !== pillow[i]).length / ours.length
    assert.ok(largest(ours, pillow) <= 1, `${width} × ${height} → ${side}: ${largest(ours, pillow)} levels`)
    assert.ok(differing < 0.05, `${width} × ${height} → ${side}: ${differing} of the values differ`)
  }
})

test('a small picture is enlarged by ordinary bilinear interpolation', async () => {
  const picture = noise(28, 28)
  const ours = await prepare(picture, 96)
  const exact = bilinear(picture, 96)
  // two passes on whole numbers: up to half a level in each
  assert.ok(largest(ours, exact) <= 1.001, `${largest(ours, exact)} levels`)
})

test('a picture that has model size already is not touched', async () => {
  const picture = noise(64, 64)
  const ours = await prepare(picture, 64)
  for (let channel = 0; channel < 3; channel++)
    for (let pixel = 0; pixel < 64 * 64; pixel++) assert.equal(ours[channel * 64 * 64 + pixel], picture.data[pixel * 3 + channel])
})

test('what is cut off is what lies beyond the square in the centre', async () => {
  const wide = plain(300, 100, [0, 0, 0])
  for (let y = 0; y < 100; y++) for (let x = 100; x < 200; x++) wide.data.set([10, 20, 30], (y * 300 + x) * 3)
  const ours = await prepare(wide, 32)
  for (const [channel, value] of [10, 20, 30].entries())
    assert.ok(ours.subarray(channel * 1024, (channel + 1) * 1024).every(v => v === value))
})

test('one pixel, a line of five thousand and twelve megapixels keep their colour', async () => {
  for (const [width, height] of [
    [1, 1],
    [5000, 1],
    [1, 5000],
    [4000, 3000],
  ] as const) {
    const ours = await prepare(plain(width, height, [200, 100, 50]), 96, 2)
    for (const [channel, value] of [200, 100, 50].entries())
      assert.ok(
        ours.subarray(channel * 96 * 96, (channel + 1) * 96 * 96).every(v => v === value),
        `${width} × ${height}`,
      )
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
