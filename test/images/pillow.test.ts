import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { decodePicture } from '../../src/images/decode.ts'
import { python } from '../peers.ts'

/** Writes pictures in many modes, and beside each what Pillow itself reads from it, turned and as RGB. */
const program = `
import sys, os
import numpy as np
from PIL import Image, ImageOps
os.chdir(sys.argv[1])
y, x = np.mgrid[0:40, 0:56]
rgb = np.stack([128 + 90 * np.sin(x / 7), 128 + 90 * np.cos(y / 5), 128 + 60 * np.sin((x + y) / 9)], -1).astype(np.uint8)
im = Image.fromarray(rgb)
exif = Image.Exif(); exif[0x0112] = 6
files = {
  'rgb.bmp': (im, {}), 'grey.bmp': (im.convert('L'), {}), 'one.bmp': (im.convert('1'), {}), 'palette.bmp': (im.quantize(16), {}), 'rgba.bmp': (im.convert('RGBA'), {}),
  'rgb.png': (im, {}), 'grey.png': (im.convert('L'), {}), 'one.png': (im.convert('1'), {}), 'palette.png': (im.quantize(16), {}),
  'rgb.tif': (im, {}), 'packbits.tif': (im, {'compression': 'packbits'}), 'lzw.tif': (im.convert('L'), {'compression': 'tiff_lzw'}), 'fax.tif': (im.convert('1'), {'compression': 'group4'}),
  'palette.gif': (im.quantize(16), {}), 'lossless.webp': (im, {'lossless': True}), 'lossy.webp': (im, {'quality': 80}),
  'rgb.jpg': (im, {'quality': 90}), 'full.jpg': (im, {'quality': 90, 'subsampling': 0}), 'progressive.jpg': (im, {'progressive': True}), 'grey.jpg': (im.convert('L'), {}),
  'turned.jpg': (im, {'exif': exif, 'quality': 95}),
}
for name, (picture, options) in files.items():
  picture.save(name, **options)
  with Image.open(name) as read:
    ImageOps.exif_transpose(read).convert('RGB').save(name + '.ppm')
`

test('pixels are those of Pillow: exactly where nothing is lost, within two levels where libraries round apart', async t => {
  const interpreter = python()
  if (!interpreter) return t.skip('no Python with Pillow here')
  const folder = mkdtempSync(join(tmpdir(), 'plinth-pillow-'))
  t.after(() => rmSync(folder, { recursive: true }))
  execFileSync(interpreter, ['-c', program, folder])
  const names = readdirSync(folder).filter(name => !name.endsWith('.ppm'))
  assert.ok(names.length >= 20)
  for (const name of names) {
    const picture = await decodePicture(readFileSync(join(folder, name)), { formats: 'local' })
    const theirs = readFileSync(join(folder, `${name}.ppm`))
    const header = /^P6\s(\d+)\s(\d+)\s255\s/.exec(theirs.toString('latin1', 0, 40))!
    assert.deepEqual([picture.width, picture.height], [Number(header[1]), Number(header[2])], name)
    const pixels = theirs.subarray(header[0].length)
    const difference = picture.data.reduce((most, value, index) => Math.max(most, Math.abs(value - pixels[index]!)), 0)
    const lossy = /\.jpg$|^lossy/.test(name)
    assert.ok(difference <= (lossy ? 2 : 0), `${name} differs by ${difference}`)
  }
})
