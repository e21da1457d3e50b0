import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import sharp, { type Exif } from 'sharp'
import { decodePicture } from '../../src/images/decode.ts'
import { readExif } from '../../src/images/exif.ts'

const camera = {
  IFD0: { Make: 'Canon', Model: 'Canon EOS 80D' },
  IFD2: { DateTimeOriginal: '2026:05:01 12:30:59', SubSecTimeOriginal: '25', BodySerialNumber: '0042' },
}
const blank = () => sharp({ create: { width: 8, height: 6, channels: 3, background: '#369' } })
const exifOf = async (bytes: Uint8Array) => (await decodePicture(bytes, { formats: 'local' })).exif!

test('time, camera and serial number are read from what libexif writes, in JPEG, PNG and WebP', async () => {
  for (const file of [blank().jpeg(), blank().png(), blank().webp()]) {
    const bytes = await file.withExif(camera).toBuffer()
    assert.deepEqual(readExif(await exifOf(bytes)), { captured: '2026-05-01T12:30:59.250', camera: 'Canon EOS 80D (0042)' })
  }
})

test('a picture without EXIF, or with one that says nothing, says nothing', async () => {
  assert.equal((await decodePicture(await blank().jpeg().toBuffer(), { formats: 'local' })).exif, undefined)
  const other = await blank()
    .jpeg()
    .withExif({ IFD0: { Software: 'Paint' } })
    .toBuffer()
  assert.deepEqual(readExif(await exifOf(other)), {})
  assert.deepEqual(readExif(new Uint8Array()), {})
})

test('the maker is named once, a clock that was never set counts as none, and control characters stay out', async () => {
  const says = async (exif: Exif) => readExif(await exifOf(await blank().jpeg().withExif(exif).toBuffer()))
  assert.deepEqual(await says({ IFD0: { Make: 'Apple', Model: 'iPhone 15' } }), { camera: 'Apple iPhone 15' })
  assert.deepEqual(await says({ IFD0: { Make: 'NIKON CORPORATION', Model: 'NIKON D750' } }), { camera: 'NIKON D750' })
  assert.deepEqual(await says({ IFD0: { Make: '\u001b[31mred', Model: 'x\ny' } }), { camera: '[31mred x y' })
  assert.equal((await says({ IFD0: { Make: 'm'.repeat(5000) } })).camera, 'm'.repeat(64))
  for (const never of ['0000:00:00 00:00:00', '    :  :     :  :  ', '2026:02:30 10:00:00', '2026:13:01 10:00:00', 'yesterday']) {
    assert.deepEqual(await says({ IFD2: { DateTimeOriginal: never } }), {}, never)
  }
  const digitised = { IFD2: { DateTimeDigitized: '2026:05:01 12:30:59', SubSecTimeOriginal: 'x' } }
  assert.deepEqual(await says(digitised), { captured: '2026-05-01T12:30:59' })
})

/** Big-endian, by hand: `entries` are [tag, type, count, value]. */
function block(entries: [number, number, number, number][], tail: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(10)
  head.write('MM\0*', 'latin1')
  head.writeUInt32BE(8, 4)
  head.writeUInt16BE(entries.length, 8)
  const rows = entries.map(([tag, type, count, value]) => {
    const row = Buffer.alloc(12)
    row.writeUInt16BE(tag, 0)
    row.writeUInt16BE(type, 2)
    row.writeUInt32BE(count, 4)
    row.writeUInt32BE(value, 8)
    return row
  })
  return Buffer.concat([head, ...rows, Buffer.alloc(4), tail])
}

test('big-endian blocks are read, with values of four bytes or fewer in their place', () => {
  assert.deepEqual(readExif(block([[0x0110, 2, 4, 0x58503100]])), { camera: 'XP1' })
  assert.deepEqual(readExif(block([[0x0110, 2, 8, 26]], Buffer.from('CYBER 1\0'))), { camera: 'CYBER 1' })
})

test('pointers into themselves, counts of four billion and places outside of the block end nowhere', () => {
  assert.deepEqual(readExif(block([[0x8769, 4, 1, 8]])), {}, 'the inner directory is the outer one')
  assert.deepEqual(readExif(block([[0x8769, 4, 1, 0xffffffff]])), {})
  assert.deepEqual(readExif(block([[0x0110, 2, 0xffffffff, 26]], Buffer.from('X'))), { camera: 'X' })
  assert.deepEqual(readExif(block([[0x0110, 2, 100, 0xfffffff0]])), {})
  const endless = block([])
  endless.writeUInt16BE(0xffff, 8)
  assert.deepEqual(readExif(endless), {})
})

test('whatever the bytes, nothing is thrown and nothing but short plain text comes out', async () => {
  const honest = await exifOf(await blank().jpeg().withExif(camera).toBuffer())
  const damaged = fc.array(fc.tuple(fc.nat(honest.length - 1), fc.nat(255)), { minLength: 1, maxLength: 12 }).map(changes => {
    const copy = Uint8Array.from(honest)
    for (const [at, value] of changes) copy[at] = value
    return copy
  })
  const cut = fc.nat(honest.length).map(end => honest.subarray(0, end))
  const wild = fc.uint8Array({ maxLength: 400 }).map(bytes => Buffer.concat([Buffer.from('Exif\0\0II*\0\x08\0\0\0', 'latin1'), bytes]))
  const runs = process.env['PLINTH_TEST'] === 'long' ? 100_000 : 5000
  fc.assert(
    fc.property(fc.oneof(damaged, cut, wild), bytes => {
      // the block lies within a larger buffer full of a secret: reading outside would show it
      const around = Buffer.alloc(bytes.length + 2000, 'S')
      around.set(bytes, 1000)
      const read = readExif(around.subarray(1000, 1000 + bytes.length))
      assert.deepEqual(read, readExif(Uint8Array.from(bytes)))
      const { captured, camera: name, ...rest } = read
      assert.deepEqual(rest, {})
      if (captured !== undefined) assert.match(captured, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?$/)
      if (name !== undefined) assert.ok(name.length > 0 && name.length <= 400 && !/[\p{Cc}\p{Cf}]/u.test(name), JSON.stringify(name))
    }),
    { numRuns: runs },
  )
})
