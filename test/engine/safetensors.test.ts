import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { floatToHalf, halfToFloat, readSafetensors, type WrittenTensor, writeSafetensors } from '../../src/engine/safetensors.ts'
import { Failure } from '../../src/failure.ts'

const isMalformed = (file: Uint8Array, problem: RegExp) =>
  assert.throws(
    () => readSafetensors(file),
    (error: unknown) => {
      assert.ok(error instanceof Failure, String(error))
      assert.equal(error.code, 'safetensors_malformed')
      assert.match(error.message, problem)
      return true
    },
  )
/** A file with any header, sound or not. */
function fileWith(header: unknown, data: Uint8Array = new Uint8Array(), claimed?: bigint): Uint8Array {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(claimed ?? BigInt(json.length))
  return Buffer.concat([length, json, data])
}
const bytesOf = (data: ArrayBufferView) => Buffer.from(data.buffer, data.byteOffset, data.byteLength)

// ── there and back ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const tensor: fc.Arbitrary<WrittenTensor> = fc
  .array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 })
  .chain(shape =>
    fc
      .float32Array({ minLength: shape.reduce((a, b) => a * b, 1), maxLength: shape.reduce((a, b) => a * b, 1) })
      .map(data => ({ shape, data })),
  )
const name = fc.oneof(fc.string({ unit: 'binary', maxLength: 12 }), fc.constantFrom('__proto__', 'constructor', 'toString', '0', '-1', ''))
const strings = fc.array(fc.tuple(name, fc.string()), { maxLength: 4 })

test('what is written is read again, bit for bit, with any names: also __proto__, numbers, nothing', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(name, tensor), { maxLength: 6 }), strings, (entries, metadata) => {
      const tensors = new Map(entries.filter(([key]) => key !== '__metadata__'))
      const file = writeSafetensors(tensors, Object.fromEntries(metadata))
      const read = readSafetensors(file)
      assert.deepEqual(new Set(read.tensors.keys()), new Set(tensors.keys()))
      for (const [key, { shape, data }] of tensors) {
        const found = read.tensors.get(key)!
        assert.equal(found.type, 'F32')
        assert.deepEqual(found.shape, shape)
        assert.ok(bytesOf(found.data).equals(bytesOf(data)), key)
      }
      assert.deepEqual(read.metadata, new Map(metadata))
    }),
    { examples: [[[['__proto__', { shape: [2], data: Float32Array.of(1, 2) }]], [['__proto__', 'text']]]] },
  )
})

test('a file in the middle of a Buffer, at any place, gives the same tensors, and they do not share its memory', () => {
  const tensors = new Map([
    ['a', { shape: [3], data: Float32Array.of(1, 2, 3) }],
    ['b', { shape: [2, 1], data: Float32Array.of(-4, 5) }],
  ])
  const file = writeSafetensors(tensors)
  for (const at of [0, 1, 3, 8, 1001]) {
    const around = Buffer.alloc(file.length + 2000, 0xff)
    around.set(file, at)
    const { tensors: found } = readSafetensors(around.subarray(at, at + file.length))
    around.fill(0)
    for (const [key, { data }] of tensors) assert.deepEqual(found.get(key)!.data, data)
  }
})

test('every number type is widened to float32, from places that are not aligned', () => {
  const stored: [string, ArrayBufferView, number[]][] = [
    ['BOOL', Uint8Array.of(0, 1, 1), [0, 1, 1]],
    ['F64', Float64Array.of(0.5, -1e300), [0.5, Number.NEGATIVE_INFINITY]],
    ['F32', Float32Array.of(1.5, -2), [1.5, -2]],
    ['F16', Uint16Array.of(0x3c00, 0xc100, 0x0001), [1, -2.5, 2 ** -24]],
    ['BF16', Uint16Array.of(0x3f80, 0xc020), [1, -2.5]],
    ['I64', BigInt64Array.of(-3n, 7n), [-3, 7]],
    ['I32', Int32Array.of(-3, 2 ** 30), [-3, 2 ** 30]],
    ['I16', Int16Array.of(-300), [-300]],
    ['I8', Int8Array.of(-128, 127), [-128, 127]],
    ['U8', Uint8Array.of(255), [255]],
  ]
  let end = 0
  const header = Object.fromEntries(
    stored.map(([dtype, data, values]) => {
      const from = end
      end += data.byteLength
      return [dtype, { dtype, shape: [values.length], data_offsets: [from, end] }]
    }),
  )
  const { tensors } = readSafetensors(fileWith(header, Buffer.concat(stored.map(([, data]) => bytesOf(data)))))
  for (const [dtype, , values] of stored) {
    assert.equal(tensors.get(dtype)!.type, dtype)
    assert.deepEqual([...tensors.get(dtype)!.data], values, dtype)
  }
})

test('half precision: all 65,536 patterns survive, and rounding goes to the nearest, ties to even', () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = halfToFloat(bits)
    if (Number.isNaN(value)) assert.ok(Number.isNaN(halfToFloat(floatToHalf(value))))
    else assert.equal(floatToHalf(value), bits, bits.toString(16))
  }
  // between neighbours: below the middle down, above it up, in the middle to the even one
  for (let bits = 0; bits < 0x7bff; bits++) {
    const [low, high] = [halfToFloat(bits), halfToFloat(bits + 1)]
    const middle = (low + high) / 2
    assert.equal(floatToHalf(middle), bits % 2 ? bits + 1 : bits)
    assert.equal(floatToHalf(-(middle - (high - low) / 8)), 0x8000 + bits)
    assert.equal(floatToHalf(middle + (high - low) / 8), bits + 1)
  }
  assert.equal(halfToFloat(floatToHalf(65519.99)), 65504)
  assert.equal(halfToFloat(floatToHalf(65520)), Number.POSITIVE_INFINITY)
})

test('float16 files are half as large', () => {
  const data = Float32Array.of(0.1, 1, -70000)
  const { tensors } = readSafetensors(writeSafetensors(new Map([['w', { shape: [3], data }]]), {}, 'F16'))
  assert.equal(tensors.get('w')!.type, 'F16')
  assert.deepEqual([...tensors.get('w')!.data], [0.0999755859375, 1, Number.NEGATIVE_INFINITY])
})

// ── headers that lie ────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a header is believed only as far as the bytes go', () => {
  const four = new Uint8Array(4)
  const entry = (change: object) => fileWith({ w: { dtype: 'F32', shape: [1], data_offsets: [0, 4], ...change } }, four)
  assert.equal(readSafetensors(entry({})).tensors.size, 1, 'the control loads')

  isMalformed(new Uint8Array(7), /shorter than its first field/)
  isMalformed(fileWith({}, four, 100n), /claims 100 bytes/)
  isMalformed(fileWith({}, four, 2n ** 64n - 1n), /claims/)
  isMalformed(fileWith({}, four, 2n ** 63n), /claims/)
  isMalformed(fileWith('{"a":', four), /not JSON/)
  isMalformed(fileWith(`${'['.repeat(50_000)}${']'.repeat(50_000)}`), /not an object|not JSON/)
  isMalformed(fileWith([]), /not an object/)
  isMalformed(fileWith({ w: null }), /not an object/)
  isMalformed(fileWith({ __metadata__: { a: 1 } }), /not text/)
  isMalformed(fileWith({ __metadata__: 'a' }), /not an object/)
  isMalformed(fileWith({}, four), /4 bytes belong to no tensor/)
  isMalformed(Buffer.concat([fileWith({}, Buffer.of(0xff)).subarray(0, 8), Buffer.of(0xff, 0xfe)]), /not JSON/)

  for (const dtype of ['F8', 'toString', '__proto__', '', 1, null, [], {}, { toString: 1 }, { toJSON: 1 }])
    isMalformed(entry({ dtype }), /unknown type/)
  isMalformed(
    fileWith(`{"w":{"dtype":${'['.repeat(20_000)}${']'.repeat(20_000)},"shape":[1],"data_offsets":[0,4]}}`, four),
    /unknown type|not JSON/,
  )
  for (const shape of [[-1], [0.5], ['1'], {}, null, [2 ** 60], Array(17).fill(1)]) isMalformed(entry({ shape }), /no sound shape/)
  for (const shape of [[2], [0], [], [2 ** 52, 2 ** 52], [2 ** 53 - 1, 0]].filter(s => s.length))
    isMalformed(entry({ shape }), /should hold/)
  for (const offsets of [[0], [0, 4, 8], [-4, 0], ['0', 4], null, [0.5, 4.5]])
    isMalformed(entry({ data_offsets: offsets }), /no sound place/)
  for (const offsets of [
    [4, 0],
    [0, 8],
    [1, 5],
    [2 ** 52, 2 ** 52 + 4],
  ])
    isMalformed(entry({ data_offsets: offsets }), /should hold/)

  const eight = new Uint8Array(8)
  const at = (from: number) => ({ dtype: 'F32', shape: [1], data_offsets: [from, from + 4] })
  isMalformed(fileWith({ a: at(0), b: at(0) }, four), /overlap/)
  isMalformed(fileWith({ a: at(0), b: at(2) }, eight), /overlap/)
  isMalformed(fileWith({ b: at(4) }, eight), /leave a gap/)
})

test('a million claims cost no more than their bytes', () => {
  const none = { dtype: 'F32', shape: [0], data_offsets: [0, 0] }
  isMalformed(fileWith(Object.fromEntries(Array.from({ length: 100_001 }, (_, i) => [`t${i}`, none]))), /claims 100001 tensors/)
  // sixteen dimensions whose product is beyond every number
  isMalformed(fileWith({ w: { dtype: 'F64', shape: Array(16).fill(2 ** 53 - 1), data_offsets: [0, 0] } }), /should hold/)
})

test('any change to a sound file is read or refused, and nothing else happens', () => {
  const file = writeSafetensors(
    new Map([
      ['a.weight', { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) }],
      ['b', { shape: [], data: Float32Array.of(5) }],
    ]),
    { step: '3' },
  )
  const readOrRefuse = (bytes: Uint8Array) => {
    try {
      const { tensors } = readSafetensors(bytes)
      const numbers = [...tensors.values()].reduce((sum, { data }) => sum + data.length, 0)
      assert.ok(numbers <= bytes.length, 'no numbers from nowhere')
    } catch (error) {
      assert.ok(error instanceof Failure && error.code === 'safetensors_malformed', String(error))
    }
  }
  for (let length = 0; length < file.length; length++) isMalformed(file.subarray(0, length), /./)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
      fc.uint8Array({ maxLength: 3 }),
      (changes, tail) => {
        const changed = Buffer.concat([file, tail])
        for (const [at, value] of changes) changed[at] = value
        readOrRefuse(changed)
      },
    ),
    { numRuns: 3000 },
  )
  fc.assert(
    fc.property(fc.json(), fc.uint8Array({ maxLength: 16 }), (json, data) => readOrRefuse(fileWith(json, data))),
    { numRuns: 500 },
  )
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), readOrRefuse), { numRuns: 500 })
})
