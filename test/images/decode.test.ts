import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32, deflateSync } from 'node:zlib'
import fc from 'fast-check'
import sharp from 'sharp'
import { Failure } from '../../src/failure.ts'
import { decodePicture, type Picture, pixelDigest } from '../../src/images/decode.ts'
import { encodePng, thumbnail } from '../../src/images/encode.ts'
import { formatOf } from '../../src/images/format.ts'
import { createRoom } from '../../src/images/room.ts'
import { bitmap, blue, corners, fromRgb, green, paint, type Rgb, red, scene, tiff, yellow } from './make.ts'

const local = (bytes: Uint8Array) => decodePicture(bytes, { formats: 'local' })
const upload = (bytes: Uint8Array) => decodePicture(bytes, { formats: 'upload' })
const at = ({ width, data }: Picture, x: number, y: number) => [...data.subarray(3 * (width * y + x), 3 * (width * y + x) + 3)]
const near = (actual: readonly number[], wanted: readonly number[], within: number, what = '') =>
  assert.ok(
    actual.length === wanted.length && actual.every((value, index) => Math.abs(value - wanted[index]!) <= within),
    `${what} ${actual} is not ${wanted}`,
  )
const photo = (width = 64, height = 48) => fromRgb(scene(width, height), width, height)

// ── which way is up ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Where the upper left, upper right, lower left and lower right corner as stored are seen (EXIF 2.32, tag 274). */
const orientations: Record<number, [Rgb, Rgb, Rgb, Rgb]> = {
  1: [red, green, blue, yellow],
  2: [green, red, yellow, blue],
  3: [yellow, blue, green, red],
  4: [blue, yellow, red, green],
  5: [red, blue, green, yellow],
  6: [blue, red, yellow, green],
  7: [yellow, green, blue, red],
  8: [green, yellow, red, blue],
}
const cornersOf = (picture: Picture) => {
  const [right, bottom] = [picture.width - 3, picture.height - 3]
  return [at(picture, 2, 2), at(picture, right, 2), at(picture, 2, bottom), at(picture, right, bottom)].flat()
}

for (const format of ['jpeg', 'png', 'webp', 'tiff'] as const) {
  test(`${format}: all eight EXIF orientations are turned upright, once`, async () => {
    for (const [orientation, seen] of Object.entries(orientations)) {
      const image = fromRgb(corners(), 32, 16).withMetadata({ orientation: Number(orientation) })
      const bytes = await image.toFormat(format, { quality: 100, chromaSubsampling: '4:4:4', lossless: true } as object).toBuffer()
      const picture = await upload(bytes)
      assert.deepEqual([picture.width, picture.height], Number(orientation) < 5 ? [32, 16] : [16, 32], orientation)
      near(cornersOf(picture), seen.flat(), 6, `orientation ${orientation}:`)
      assert.equal(picture.flags.includes('exif-turned'), orientation !== '1')
      const small = await upload(await thumbnail(bytes, 16))
      near(cornersOf({ ...small, width: small.width, height: small.height }), seen.flat(), 40, `thumbnail ${orientation}:`)
      assert.equal(small.flags.includes('exif-turned'), false)
    }
  })
}

// ── colours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a CMYK JPEG shows the colours it means', async () => {
  const flat = fromRgb(
    paint(32, 32, () => [180, 110, 90]),
    32,
    32,
  )
  const picture = await upload(await flat.toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer())
  assert.deepEqual(picture.flags, ['cmyk'])
  near(at(picture, 9, 9), [180, 110, 90], 12)
})

test('16 bits become 8 by their upper half, in grey and in colour', async () => {
  const values = Uint16Array.from({ length: 64 * 3 }, (_, index) => index * 341)
  const upper = [...values].map(value => value >> 8)
  const colour = await upload(
    await sharp(values, { raw: { width: 8, height: 8, channels: 3 } })
      .toColourspace('rgb16')
      .png()
      .toBuffer(),
  )
  assert.deepEqual([...colour.data], upper)
  assert.deepEqual(colour.flags, ['16-bit'])
  const grey = await upload(
    await sharp(values, { raw: { width: 12, height: 16, channels: 1 } })
      .toColourspace('grey16')
      .png()
      .toBuffer(),
  )
  assert.deepEqual(
    [...grey.data],
    upper.flatMap(value => [value, value, value]),
  )
  assert.deepEqual(grey.flags, ['16-bit', 'grey'])
})

test('an instrument that writes 12 or 10 bits into 16 is not shown as night', async () => {
  for (const most of [4095, 1023]) {
    const values = Array.from({ length: 64 }, (_, index) => Math.round((index * most) / 63))
    const picture = await upload(tiff(8, 8, { type: 'uint', bits: 16, channels: 1, values }))
    assert.deepEqual(picture.flags, ['16-bit', 'grey', 'scaled'])
    near(
      [...picture.data.filter((_, index) => index % 3 === 0)],
      values.map(value => (value * 255) / most),
      0.51,
    )
  }
  const black = await upload(tiff(8, 8, { type: 'uint', bits: 16, channels: 1, values: Array(64).fill(0) }))
  assert.ok(black.data.every(value => value === 0) && !black.flags.includes('scaled'))
})

test('floats: 0…1 and 0…255 at their word, any other range stretched and flagged, what is not a number black', async () => {
  const ramp = Array.from({ length: 64 }, (_, index) => index / 63)
  const grey = async (values: number[], bits: 32 | 64 = 32) => {
    const picture = await upload(tiff(8, 8, { type: 'float', bits, channels: 1, values }))
    return { shades: [...picture.data.filter((_, index) => index % 3 === 0)], flags: picture.flags }
  }
  const unit = await grey(ramp)
  near(
    unit.shades,
    ramp.map(value => 255 * value),
    0.51,
  )
  assert.deepEqual(unit.flags, ['grey', 'float'])
  near(
    (await grey(ramp.map(value => 255 * value))).shades,
    ramp.map(value => 255 * value),
    0.51,
  )
  await assert.rejects(grey(ramp, 64), { code: 'image_unreadable' }, 'doubles are beyond libvips')
  const stretched = await grey(ramp.map(value => 3000 * value - 1000))
  near(
    stretched.shades,
    ramp.map(value => 255 * value),
    0.51,
  )
  assert.deepEqual(stretched.flags, ['grey', 'float', 'scaled'])
  const holes = await grey([Number.NaN, Infinity, -Infinity, ...ramp.slice(3)])
  assert.deepEqual(holes.shades.slice(0, 4), [0, 255, 0, 12])
  assert.deepEqual((await grey(Array(64).fill(Number.NaN))).shades, Array(64).fill(0))
  const colour = await upload(tiff(1, 2, { type: 'float', bits: 32, channels: 3, values: [1, 0.5, 0, 0, 0.25, 1] }))
  near([...colour.data], [255, 128, 0, 0, 64, 255], 0.6)
})

test('signed and 32-bit TIFFs are stretched to what they hold', async () => {
  const values = Array.from({ length: 64 }, (_, index) => index * 600 - 20_000)
  const shades = async (bits: 16 | 32) => {
    const picture = await upload(tiff(8, 8, { type: 'int', bits, channels: 1, values }))
    assert.ok(picture.flags.includes('scaled'))
    return [0, 21, 42, 63].map(index => picture.data[3 * index]!)
  }
  near(await shades(32), [0, 85, 170, 255], 1)
  near(await shades(16), [0, 0, 74, 255], 1) // libvips cuts what is below zero in 16 bits
  const unsigned = await upload(tiff(8, 8, { type: 'uint', bits: 32, channels: 1, values: values.map(value => value + 20_000) }))
  near([unsigned.data[0]!, unsigned.data.at(-1)!], [0, 255 * (37_800 / 65_535)], 1)
})

test('transparency lies on white, and colour under nothing is nothing', async () => {
  const rgba = Buffer.from([255, 0, 0, 0, 255, 0, 0, 128, 255, 0, 0, 255, 0, 0, 0, 0])
  const image = () => sharp(rgba, { raw: { width: 4, height: 1, channels: 4 } })
  for (const bytes of [
    await image().png().toBuffer(),
    await image().webp({ lossless: true, exact: true }).toBuffer(),
    await image().tiff({ compression: 'lzw' }).toBuffer(),
  ]) {
    const picture = await upload(bytes)
    near([...picture.data], [255, 255, 255, 255, 127, 127, 255, 0, 0, 255, 255, 255], 1)
    assert.ok(picture.flags.includes('alpha'))
  }
  const greyAlpha = await upload(
    await sharp(Buffer.from([0, 255, 0, 0]), { raw: { width: 2, height: 1, channels: 2 } })
      .toColourspace('b-w')
      .png()
      .toBuffer(),
  )
  assert.deepEqual([...greyAlpha.data], [0, 0, 0, 255, 255, 255])
  assert.deepEqual(greyAlpha.flags, ['grey', 'alpha'])
  const wide = Uint16Array.from([65535, 0, 0, 0, 65535, 0, 0, 65535])
  const alpha16 = await upload(
    await sharp(wide, { raw: { width: 2, height: 1, channels: 4 } })
      .toColourspace('rgb16')
      .png()
      .toBuffer(),
  )
  near([...alpha16.data], [255, 255, 255, 255, 0, 0], 1)
  const night = Uint16Array.from([4000, 2000, 0, 65535, 1000, 0, 0, 65535])
  const dark16 = await upload(
    await sharp(night, { raw: { width: 2, height: 1, channels: 4 } })
      .toColourspace('rgb16')
      .png()
      .toBuffer(),
  )
  near([...dark16.data], [15, 7, 0, 3, 0, 0], 1, 'who writes transparency is no instrument:')
})

test('palettes, one bit, grey: all come out as RGB', async () => {
  const flat = fromRgb(
    paint(16, 16, x => (x < 8 ? red : blue)),
    16,
    16,
  )
  const gif = await upload(await flat.clone().gif().toBuffer())
  near([...at(gif, 2, 2), ...at(gif, 12, 2)], [...red, ...blue], 8)
  const palette = await upload(await flat.clone().png({ palette: true }).toBuffer())
  assert.ok(palette.flags.includes('palette'))
  near([...at(palette, 2, 2), ...at(palette, 12, 2)], [...red, ...blue], 2)
  const grey = await upload(await photo().toColourspace('b-w').jpeg().toBuffer())
  assert.deepEqual(grey.flags, ['grey'])
  assert.equal(grey.data.length, 3 * 64 * 48)
  const oneBit = await upload(await photo().threshold(128).toColourspace('b-w').tiff({ bitdepth: 1, compression: 'ccittfax4' }).toBuffer())
  assert.deepEqual([...new Set(oneBit.data)].sort(), [0, 255])
})

test('of an animation the first frame is the picture', async () => {
  const frames = [red, green, blue].map(colour => ({
    create: { width: 20, height: 10, channels: 3 as const, background: `rgb(${colour})` },
  }))
  const pngs = await Promise.all(frames.map(frame => sharp(frame).png().toBuffer()))
  // the decoder module allows PNG but the test joins frames through it too
  for (const bytes of [
    await sharp(pngs, { join: { animated: true } })
      .gif()
      .toBuffer(),
    await sharp(pngs, { join: { animated: true } })
      .webp({ lossless: true })
      .toBuffer(),
  ]) {
    const picture = await upload(bytes)
    assert.deepEqual([picture.width, picture.height], [20, 10])
    near(at(picture, 5, 5), red, 2)
    assert.ok(picture.flags.includes('animated'))
  }
})

test('1×1 and 20,000×10 pictures are pictures', async () => {
  assert.equal((await upload(await fromRgb(Buffer.from(red), 1, 1).png().toBuffer())).data.length, 3)
  const long = await upload(
    await sharp({ create: { width: 20_000, height: 10, channels: 3, background: '#123456' } })
      .png()
      .toBuffer(),
  )
  assert.deepEqual([long.width, long.height], [20_000, 10])
})

// ── what a picture is, by content ───────────────────────────────────────────────────────────────────────────────────────────

test('the same pixels have the same digest whatever file they come from, and other sizes another', async () => {
  const [png, webp, tif] = [
    await photo().png().toBuffer(),
    await photo().webp({ lossless: true }).toBuffer(),
    await photo().tiff({ compression: 'lzw' }).toBuffer(),
  ]
  const digests = await Promise.all([png, webp, tif].map(async bytes => pixelDigest(await upload(bytes))))
  assert.deepEqual(new Set(digests), new Set([digests[0]]))
  assert.match(digests[0]!, /^[0-9a-f]{64}$/)
  const data = scene(64, 48)
  assert.notEqual(pixelDigest({ width: 48, height: 64, data }), pixelDigest({ width: 64, height: 48, data }))
  assert.equal(pixelDigest(await upload(await encodePng({ width: 64, height: 48, data }))), digests[0])
})

const svg =
  '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/hostname"/><rect width="9" height="9"/></svg>'
test('an SVG is refused in every disguise', async () => {
  const disguises = [
    svg,
    `\ufeff${svg}`,
    `\n\n  ${svg}`,
    `<?xml version="1.0"?>\n${svg}`,
    `<!-- GIF89a -->${svg}`,
    `<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>${svg}`,
    svg.replaceAll('svg', 's:svg').replace('xmlns=', 'xmlns:s='),
  ]
  for (const text of disguises) {
    await assert.rejects(upload(Buffer.from(text)), { code: 'image_format' }, text.slice(0, 30))
    await assert.rejects(local(Buffer.from(text)), { code: 'image_format' })
  }
  await assert.rejects(upload(Buffer.from(`\ufeff${svg}`, 'utf16le')), { code: 'image_format' })
  // whoever got past the first look would find no loader: it is off in libvips itself, for this whole process
  await assert.rejects(sharp(Buffer.from(svg)).png().toBuffer(), /unsupported image format/)
  // behind another format's first bytes it is never drawn either
  for (const start of ['\xff\xd8\xff', '\x89PNG\r\n\x1a\n', 'GIF89a', 'II*\0', 'RIFF\0\0\0\0WEBP']) {
    await assert.rejects(upload(Buffer.concat([Buffer.from(start, 'latin1'), Buffer.from(svg)])), { code: 'image_unreadable' })
  }
})

test('formats that are not read are called by name, with the way out', async () => {
  const heads: Record<string, [string, RegExp]> = {
    heic: ['\0\0\0\x18ftypheic\0\0\0\0mif1heic', /HEIC/],
    jxl: ['\xff\x0a\0\0\0\0\0\0', /JPEG XL/],
    jp2: ['\0\0\0\x0cjP  \r\n\x87\n', /JPEG 2000/],
    pdf: ['%PDF-1.7', /PDF/],
    psd: ['8BPS\0\x01', /Photoshop/],
    ico: ['\0\0\x01\0\x01\0\x10\x10', /icon/],
    cr2: ['II*\0\x10\0\0\0CR\x02\0', /raw/],
  }
  for (const [name, [head, called]] of Object.entries(heads)) {
    await assert.rejects(local(Buffer.from(head.padEnd(40, '\0'), 'latin1')), (error: Failure) => {
      assert.equal(error.code, 'image_format', name)
      assert.match(error.message, called)
      assert.match(error.next, /Convert it to JPEG or PNG first: \w/)
      return true
    })
  }
  const raw = tiff(8, 8, { type: 'uint', bits: 8, channels: 1, values: Array(64).fill(9) }, [[254, 4, 1]])
  await assert.rejects(local(raw), { code: 'image_format' }, 'the thumbnail in front of a raw file is not the photo')
  const dng = tiff(8, 8, { type: 'uint', bits: 8, channels: 1, values: Array(64).fill(9) }, [[50_706, 4, 0x0401]])
  await assert.rejects(local(dng), { code: 'image_format', message: /raw/ }, 'a DNG says its version, wherever its thumbnail lies')
})

test('AVIF and bitmaps are read from a folder of one’s own, not from strangers', async () => {
  const avif = await photo().avif({ quality: 90 }).toBuffer()
  const bmp = bitmap({ width: 1, height: 1, bits: 24, rows: [[1, 2, 3]] })
  await assert.rejects(upload(avif), { code: 'image_format' })
  await assert.rejects(upload(bmp), { code: 'image_format' })
  const picture = await local(avif)
  assert.deepEqual([picture.width, picture.height, picture.format], [64, 48, 'avif'])
  near(at(picture, 20, 20), [...scene(64, 48).subarray(3 * (64 * 20 + 20), 3 * (64 * 20 + 20) + 3)], 12)
  assert.deepEqual([...(await local(bmp)).data], [3, 2, 1])
  await assert.rejects(upload(avif), { code: 'image_format' }, 'also after one was read')
})

test('nothing, text, and markup are not pictures', async () => {
  await assert.rejects(upload(Buffer.alloc(0)), { code: 'image_empty' })
  for (const text of ['not an image', 'BM is how this sentence begins, and it goes on', '<html><body>404', '\0'.repeat(64)]) {
    await assert.rejects(upload(Buffer.from(text)), { code: 'image_unreadable' }, text)
  }
})

// ── broken pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a JPEG without its end mark is whole, and says so', async () => {
  const whole = await photo(320, 240).jpeg().toBuffer()
  const picture = await upload(whole.subarray(0, -2))
  assert.deepEqual(picture.flags, ['truncated'])
  assert.deepEqual(Buffer.from(picture.data), Buffer.from((await upload(whole)).data))
})

test('a JPEG that lacks a few bytes of its last rows is kept and flagged; one that lacks more is refused', async () => {
  const whole = await photo(320, 480).jpeg({ quality: 95 }).toBuffer()
  const little = await upload(whole.subarray(0, -40))
  assert.deepEqual(little.flags, ['truncated'])
  const complete = await upload(whole)
  const rows = Math.floor(480 * (31 / 32)) - 16
  near([...little.data.subarray(0, 3 * 320 * rows)], [...complete.data.subarray(0, 3 * 320 * rows)], 0)
  for (const share of [0.9, 0.5, 0.1]) {
    await assert.rejects(upload(whole.subarray(0, Math.round(whole.length * share))), { code: 'image_unreadable', message: /cut short/ })
  }
  const progressive = await photo(320, 480).jpeg({ progressive: true, mozjpeg: false }).toBuffer()
  await assert.rejects(
    upload(progressive.subarray(0, Math.round(progressive.length * 0.6))),
    { code: 'image_unreadable' },
    'half the scans give a blur',
  )
  assert.deepEqual((await upload(progressive.subarray(0, -2))).flags, ['truncated'])
})

test('a damaged JPEG comes out the same whatever is decoded beside it', async () => {
  const whole = await photo(96, 96).jpeg().toBuffer()
  const [cut, smeared] = [whole.subarray(0, -2), Buffer.from(whole)]
  for (let at = 700; at < smeared.length - 2; at += 97) smeared[at]! ^= 0x5a
  const outcomes = new Set<string>()
  for (let round = 0; round < 12; round++) {
    const beside = Array.from({ length: 12 }, (_, i) => upload(i % 4 ? whole : smeared).catch(error => error.message as string))
    const [ofCut, ofSmeared] = await Promise.allSettled([upload(cut), upload(smeared), ...beside])
    outcomes.add(ofCut!.status === 'fulfilled' ? `kept: ${(ofCut.value as Picture).flags}` : ofCut!.reason.message)
    outcomes.add(ofSmeared!.status === 'fulfilled' ? 'smeared, kept' : ofSmeared!.reason.code)
  }
  assert.deepEqual([...outcomes].toSorted(), ['image_unreadable', 'kept: truncated'])
})

test('cut files of every other format are refused', async () => {
  const files = {
    png: await photo().png().toBuffer(),
    webp: await photo().webp().toBuffer(),
    gif: await photo().gif().toBuffer(),
    tiff: await photo().tiff({ compression: 'lzw' }).toBuffer(),
    avif: await photo().avif().toBuffer(),
  }
  for (const [format, bytes] of Object.entries(files)) {
    for (const share of [0.8, 0.5, 0.1]) {
      await assert.rejects(local(bytes.subarray(0, Math.round(bytes.length * share))), { code: 'image_unreadable' }, `${format} ${share}`)
    }
  }
})

test('harmless oddities of cameras and programs do not cost a picture', async () => {
  const jpeg = await photo().jpeg().toBuffer()
  assert.equal((await upload(Buffer.concat([jpeg, Buffer.from('trailing maker notes')]))).width, 64)
  const png = await photo().png().toBuffer()
  assert.equal((await upload(Buffer.concat([png, Buffer.alloc(100)]))).width, 64)
  const badProfile = pngChunks(png, [
    chunk('iCCP', Buffer.concat([Buffer.from('x\0\0', 'latin1'), deflateSync(Buffer.from('no profile'))])),
  ])
  assert.deepEqual(Buffer.from((await upload(badProfile)).data), scene(64, 48))
})

/** A PNG with more chunks behind its header. */
function pngChunks(png: Buffer, chunks: Buffer[]): Buffer {
  return Buffer.concat([png.subarray(0, 33), ...chunks, png.subarray(33)])
}
function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type), data])
  const crc = Buffer.alloc(4)
  crc.writeUInt32BE(crc32(body))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(data.length)
  return Buffer.concat([length, body, crc])
}

// ── floods ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function pngOfSize(width: number, height: number, data: Buffer): Buffer {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, 2], 8)
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(data)),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

test('a picture that claims 40,000×40,000 pixels is refused at once, in every format, without taking memory', async () => {
  const bombs = {
    png: pngOfSize(40_000, 40_000, Buffer.alloc(1 << 20)),
    gif: Buffer.concat([
      Buffer.from('GIF89a'),
      Buffer.from([0x40, 0x9c, 0x40, 0x9c, 0x80, 0, 0, 0, 0, 0, 255, 255, 255]),
      Buffer.from([0x2c, 0, 0, 0, 0, 0x40, 0x9c, 0x40, 0x9c, 0, 2, 2, 0x4c, 1, 0, 0x3b]),
    ]),
    tiff: tiff(40_000, 40_000, { type: 'uint', bits: 8, channels: 1, values: [1, 2, 3] }),
    bmp: bitmap({ width: 30_000, height: 30_000, bits: 24, rows: [[1, 2, 3]] }),
    jpeg: jpegOfSize(await photo().jpeg().toBuffer(), 40_000, 40_000),
  }
  for (const [format, bytes] of Object.entries(bombs)) {
    const [before, started] = [process.memoryUsage().rss, performance.now()]
    await assert.rejects(local(bytes), { code: 'image_too_large' }, format)
    assert.ok(performance.now() - started < 2000, `${format} took too long`)
    assert.ok(process.memoryUsage().rss - before < 300e6, `${format} took memory`)
  }
})

function jpegOfSize(bytes: Buffer, width: number, height: number): Buffer {
  const copy = Buffer.from(bytes)
  const frame = copy.indexOf(Buffer.from([0xff, 0xc0]))
  copy.writeUInt16BE(height, frame + 5)
  copy.writeUInt16BE(width, frame + 7)
  return copy
}

test('the limit is the caller’s to lower', async () => {
  const bytes = await photo().png().toBuffer()
  await assert.rejects(decodePicture(bytes, { formats: 'upload', maxPixels: 64 * 48 - 1 }), { code: 'image_too_large', message: /64×48/ })
  assert.equal((await decodePicture(bytes, { formats: 'upload', maxPixels: 64 * 48 })).width, 64)
})

test('a TIFF whose directories point in a circle, and one with a thousand channels, are refused', async () => {
  const circle = tiff(8, 8, { type: 'uint', bits: 8, channels: 1, values: Array(64).fill(9) })
  circle.writeUInt32LE(circle.readUInt32LE(4), circle.length - 4) // next directory: itself
  const started = performance.now()
  await upload(circle).catch(error => assert.ok(error instanceof Failure))
  assert.ok(performance.now() - started < 2000)
  const channels = tiff(2, 2, { type: 'uint', bits: 8, channels: 1000, values: Array(4000).fill(1) })
  await assert.rejects(upload(channels), Failure)
})

test('pictures asked for at once are decoded within the room there is, in order, and none is forgotten', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 15 }), { maxLength: 30 }), async sizes => {
      const room = createRoom(10)
      let [used, most] = [0, 0]
      const order: number[] = []
      await Promise.all(
        sizes.map((size, index) =>
          room.within(size, async () => {
            order.push(index)
            used += size
            most = Math.max(most, size > 10 ? used - size : used)
            await Promise.resolve()
            used -= size
          }),
        ),
      )
      assert.deepEqual(order, [...sizes.keys()])
      assert.ok(most <= 10)
    }),
  )
})

// ── any bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('no bytes make the decoder do anything but answer or refuse, in our own words and in time', async () => {
  const image = () => photo(40, 30)
  const seeds = await Promise.all([
    image().jpeg().toBuffer(),
    image().jpeg({ progressive: true }).toBuffer(),
    image().toColourspace('cmyk').jpeg().toBuffer(),
    image().png().toBuffer(),
    image().png({ palette: true, progressive: true }).toBuffer(),
    image().webp().toBuffer(),
    image().webp({ lossless: true }).toBuffer(),
    image().gif().toBuffer(),
    image().tiff({ compression: 'lzw' }).toBuffer(),
    image().tiff({ compression: 'jpeg' }).toBuffer(),
    image().tiff({ compression: 'deflate', tile: true, tileWidth: 16, tileHeight: 16 }).toBuffer(),
    tiff(8, 8, { type: 'float', bits: 32, channels: 1, values: Array(64).fill(0.5) }),
    tiff(8, 8, { type: 'uint', bits: 16, channels: 1, values: Array(64).fill(500) }),
  ])
  const runs = process.env['PLINTH_TEST'] === 'long' ? 100_000 : 1500
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      fc.boolean(), // near the start, where the headers are, or anywhere
      fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(300)),
      async (seed, changes, early, cut) => {
        const bytes = Buffer.from(seed)
        for (const [position, value] of changes) bytes[position % (early ? Math.min(96, bytes.length) : bytes.length)] = value
        const started = performance.now()
        const outcome = await decodePicture(bytes.subarray(0, Math.max(0, bytes.length - cut)), {
          formats: 'upload',
          maxPixels: 4e6,
        }).catch(error => error)
        assert.ok(performance.now() - started < 2000)
        if (outcome instanceof Error) {
          assert.ok(outcome instanceof Failure, String(outcome))
          assert.match(outcome.code, /^image_/)
          assert.doesNotMatch(outcome.message, /vips|libpng|\.(c|so)\b|\//i)
        } else assert.equal(outcome.data.length, 3 * outcome.width * outcome.height)
      },
    ),
    { numRuns: runs },
  )
})

test('telling formats looks at nothing beyond what is there', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('', '\xff\xd8\xff', 'BM', 'II*\0', '\0\0\0\x18ftyp', 'RIFF', '<?xml ', '\0\0\x01\0'),
      fc.uint8Array({ maxLength: 40 }),
      (start, rest) => {
        formatOf(Buffer.concat([Buffer.from(start, 'latin1'), rest]))
      },
    ),
  )
})
