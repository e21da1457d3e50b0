import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Attribute, type ElementType, elementTypes, encodeModel, type OnnxGraph, type OnnxTensor } from '../../src/engine/onnx.ts'
import { decodeModel } from '../../src/engine/onnx-read.ts'
import { Failure, type FailureCode } from '../../src/failure.ts'

const isRefused = (file: Uint8Array, code: FailureCode, problem: RegExp) =>
  assert.throws(
    () => decodeModel(file),
    (error: unknown) => {
      assert.ok(error instanceof Failure, String(error))
      assert.equal(error.code, code, error.message)
      assert.match(error.message, problem)
      return true
    },
  )

// ── there and back ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 10 }), fc.constantFrom('__proto__', 'constructor', ''))
const key = fc.oneof(fc.string({ unit: 'binary', minLength: 1, maxLength: 10 }), fc.constantFrom('__proto__', 'toString'))
const whole = fc.maxSafeInteger()
const float = fc.float({ noDefaultInfinity: false })
const record = <T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(fields, { noNullPrototype: true }) as fc.Arbitrary<T>
const exactly = (n: number) => ({ minLength: n, maxLength: n })
const arrays: Record<ElementType, (n: number) => fc.Arbitrary<OnnxTensor['data']>> = {
  float32: n => fc.float32Array(exactly(n)),
  float64: n => fc.float64Array(exactly(n)),
  uint8: n => fc.uint8Array(exactly(n)),
  int8: n => fc.int8Array(exactly(n)),
  uint16: n => fc.uint16Array(exactly(n)),
  int16: n => fc.int16Array(exactly(n)),
  uint32: n => fc.uint32Array(exactly(n)),
  int32: n => fc.int32Array(exactly(n)),
  int64: n => fc.bigInt64Array(exactly(n)),
  uint64: n => fc.bigUint64Array(exactly(n)),
  bool: n => fc.uint8Array({ ...exactly(n), max: 1 }),
  float16: n => fc.uint16Array(exactly(n)),
  bfloat16: n => fc.uint16Array(exactly(n)),
  string: n => fc.array(text, exactly(n)),
}
const tensor: fc.Arbitrary<OnnxTensor> = fc
  .tuple(text, fc.constantFrom(...(Object.keys(elementTypes) as ElementType[])), fc.array(fc.nat(3), { maxLength: 3 }))
  .chain(([name, type, shape]) => arrays[type](shape.reduce((a, b) => a * b, 1)).map(data => ({ name, type, shape, data })))
const value = record({
  name: text,
  type: fc.constantFrom(...(Object.keys(elementTypes) as ElementType[])),
  shape: fc.option(fc.array(fc.oneof(fc.nat(), text, fc.constant(null)), { maxLength: 4 }), { nil: undefined }),
}).map(({ shape, ...rest }) => (shape ? { ...rest, shape } : rest))

const graph: fc.Arbitrary<OnnxGraph> = fc.letrec<{ graph: OnnxGraph; attribute: Attribute }>(tie => ({
  attribute: fc.oneof(
    { depthSize: 'small' },
    whole,
    text,
    fc.array(whole, { maxLength: 4 }),
    float.map(v => ({ float: v })),
    fc.array(float, { maxLength: 4 }).map(floats => ({ floats })),
    fc.array(text, { maxLength: 3 }).map(strings => ({ strings })),
    tensor.map(t => ({ tensor: t })),
    tie('graph').map(g => ({ graph: g })),
  ),
  graph: record({
    name: text,
    nodes: fc.array(
      record({
        name: text,
        operation: text,
        domain: text,
        inputs: fc.array(text, { maxLength: 3 }),
        outputs: fc.array(text, { maxLength: 2 }),
        attributes: fc.array(fc.tuple(key, tie('attribute')), { maxLength: 3 }).map(entries => Object.fromEntries(entries)),
      }),
      { maxLength: 3 },
    ),
    inputs: fc.array(value, { maxLength: 2 }),
    outputs: fc.array(value, { maxLength: 2 }),
    initializers: fc.array(tensor, { maxLength: 3 }),
  }),
})).graph

test('a graph that is encoded is decoded to the same, with every element type, every attribute, any names', () => {
  fc.assert(
    fc.property(graph, fc.array(fc.tuple(text, text), { maxLength: 3 }), (given, metadata) => {
      const notes = Object.fromEntries(metadata)
      const model = decodeModel(encodeModel(given, { opset: 18, domains: { 'com.example': 3 }, metadata: notes }))
      assert.deepEqual(model.graph, given)
      assert.deepEqual(model.metadata, notes)
      assert.equal(model.opsets[''], 18)
      assert.equal(model.opsets['com.example'], 3)
      assert.equal(model.producer, 'plinth')
    }),
    { numRuns: 400 },
  )
})

test('a model in the middle of a Buffer keeps its tensors, at any place, and shares no memory with it', () => {
  const data = Float32Array.of(1, -2, 3)
  const file = encodeModel({
    name: 'g',
    nodes: [],
    inputs: [],
    outputs: [],
    initializers: [{ name: 'w', type: 'float32', shape: [3], data }],
  })
  for (const at of [0, 1, 2, 7, 999]) {
    const around = Buffer.alloc(file.length + 1000, 0xff)
    around.set(file, at)
    const { graph } = decodeModel(around.subarray(at, at + file.length))
    around.fill(0)
    assert.deepEqual(graph.initializers[0]!.data, data)
  }
})

// ── files of others: written here byte by byte, after onnx.proto3 ───────────────────────────────────────────────────────────

const varint = (value: number | bigint): number[] => {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128)
  return [...bytes, Number(rest)]
}
const number = (field: number, n: number | bigint) => Buffer.from([...varint(field * 8), ...varint(n)])
const part = (field: number, ...content: (Uint8Array | string)[]) => {
  const bytes = Buffer.concat(content.map(c => Buffer.from(c as Uint8Array)))
  return Buffer.concat([Buffer.from([...varint(field * 8 + 2), ...varint(bytes.length)]), bytes])
}
const model = (...inGraph: Uint8Array[]) => part(7, ...inGraph)
const initializer = (...fields: Uint8Array[]) => model(part(5, ...fields))
const attribute = (...fields: Uint8Array[]) => model(part(1, part(5, ...fields)))

test('numbers may come packed or one by one, in the typed fields, a million of them too', () => {
  const read = (...fields: Uint8Array[]) => decodeModel(initializer(...fields)).graph.initializers[0]!
  assert.deepEqual(read(number(1, 2), number(2, 7), number(7, -1), number(7, 5)).data, BigInt64Array.of(-1n, 5n))
  assert.deepEqual(read(part(1, Buffer.from([2])), number(2, 7), part(7, Buffer.from([...varint(-1), 5]))).data, BigInt64Array.of(-1n, 5n))
  assert.deepEqual(read(number(1, 2), number(2, 6), number(5, -7), number(5, 8)).data, Int32Array.of(-7, 8))
  assert.deepEqual(read(number(1, 1), number(2, 12), number(11, 2 ** 32 - 1)).data, Uint32Array.of(2 ** 32 - 1))
  assert.deepEqual(read(number(1, 1), number(2, 13), number(11, 2n ** 64n - 1n)).data, BigUint64Array.of(2n ** 64n - 1n))
  assert.deepEqual(read(number(1, 1), number(2, 11), part(10, Buffer.from(Float64Array.of(0.1).buffer))).data, Float64Array.of(0.1))

  const million = Float32Array.from({ length: 1_000_000 }, (_, i) => i)
  assert.deepEqual(read(number(1, million.length), number(2, 1), part(4, Buffer.from(million.buffer))).data, million)
  assert.equal(read(number(1, million.length), number(2, 7), part(7, Buffer.alloc(million.length, 3))).data.at(-1), 3n)
})

test('tensors in other files are refused wherever they stand', () => {
  const outside = [
    [number(1, 1), number(2, 1), part(8, 'w'), part(13, part(1, 'location'), part(2, '../../secret'))],
    [number(1, 1), number(2, 1), part(8, 'w'), number(14, 1)],
    // also with the numbers there as well
    [number(1, 1), number(2, 1), part(8, 'w'), part(9, Buffer.alloc(4)), number(14, 1)],
    [part(13), number(1, 1), number(2, 1), part(8, 'w'), part(9, Buffer.alloc(4)), number(14, 0)],
  ]
  for (const tensorFields of outside) {
    isRefused(initializer(...tensorFields), 'onnx_external_data', /w/)
    isRefused(attribute(part(1, 'value'), number(20, 4), part(5, ...tensorFields)), 'onnx_external_data', /w/)
    // hidden in an attribute that claims to be a number
    isRefused(attribute(part(1, 'value'), number(20, 2), part(5, ...tensorFields)), 'onnx_external_data', /w/)
    // in the branch of an If
    isRefused(attribute(part(1, 'then_branch'), number(20, 5), part(6, part(5, ...tensorFields))), 'onnx_external_data', /w/)
  }
  for (const hidden of [
    attribute(part(1, 'values'), number(20, 9), part(10, ...outside[0]!)),
    attribute(part(1, 'graphs'), number(20, 10), part(11)),
  ])
    isRefused(hidden, 'onnx_unsupported', /lists of/)
  isRefused(model(part(15)), 'onnx_unsupported', /sparse/)
  isRefused(Buffer.concat([model(), part(20)]), 'onnx_unsupported', /training/)
  isRefused(Buffer.concat([model(), part(25)]), 'onnx_unsupported', /functions/)
  isRefused(initializer(number(1, 1), number(2, 1), part(3)), 'onnx_unsupported', /segments/)
})

test('sizes that lie are refused before anything is made of that size', () => {
  isRefused(new Uint8Array(), 'onnx_malformed', /no graph/)
  isRefused(Buffer.concat([model(), model()]), 'onnx_malformed', /two graphs/)
  isRefused(Buffer.from([0x3a, 0x7f]), 'onnx_malformed', /longer than the file/)
  isRefused(Buffer.from([0x3a, ...varint(2n ** 64n - 1n)]), 'onnx_malformed', /longer than the file/)
  isRefused(Buffer.from(Array(11).fill(0xff)), 'onnx_malformed', /more than ten bytes/)
  isRefused(Buffer.from([0x80]), 'onnx_malformed', /ends within a number/)
  isRefused(Buffer.from([0x00, 0x00]), 'onnx_malformed', /number 0/)
  isRefused(Buffer.from([0x0b]), 'onnx_malformed', /unknown encoding 3/)
  isRefused(model(part(2, Buffer.of(0xff))), 'onnx_malformed', /UTF-8/)
  isRefused(model(part(2, Buffer.alloc(4097, 65))), 'onnx_malformed', /4097 bytes/)
  isRefused(model(number(1, 5)), 'onnx_malformed', /encoded as a number/)

  isRefused(initializer(number(1, 2 ** 40), number(2, 1), part(9, Buffer.alloc(4))), 'onnx_malformed', /4 bytes/)
  isRefused(initializer(number(1, 2 ** 40), number(2, 1)), 'onnx_malformed', /0 of 1099511627776 numbers/)
  isRefused(initializer(number(1, -1), number(2, 1)), 'onnx_malformed', /no sound shape/)
  isRefused(initializer(...Array(32).fill(number(1, 2 ** 50)), number(1, 0), number(2, 1)), 'onnx_malformed', /no sound shape/)
  isRefused(initializer(...Array(31).fill(number(1, 2 ** 50)), number(1, 0), number(2, 1)), 'onnx_malformed', /0 of NaN/)
  isRefused(initializer(number(1, 2 ** 40), number(2, 8)), 'onnx_malformed', /0 of 1099511627776 strings/)
  isRefused(initializer(number(2, 99)), 'onnx_unsupported', /element type 99/)
  isRefused(attribute(part(1, 'a'), number(20, 77)), 'onnx_unsupported', /kind 77/)
  isRefused(attribute(part(1, 'a'), number(20, 4)), 'onnx_unsupported', /kind 4/)

  let nested: Buffer = part(6)
  for (let depth = 0; depth < 2000; depth++) nested = part(6, part(1, part(5, number(20, 5), nested)))
  isRefused(attribute(number(20, 5), nested), 'onnx_malformed', /nested too deeply/)
})

test('names that JavaScript treats specially are names', () => {
  const file = attribute(part(1, '__proto__'), number(20, 2), number(3, 7))
  const { attributes } = decodeModel(file).graph.nodes[0]!
  assert.deepEqual(Object.entries(attributes), [['__proto__', 7]])
  assert.equal(Object.getPrototypeOf(attributes), Object.prototype)
  const twice = [part(5, part(1, 'a'), number(20, 2)), part(5, part(1, 'a'), number(20, 2))]
  isRefused(model(part(1, ...twice)), 'onnx_malformed', /"a" stands twice/)
  const note = part(14, part(1, 'k'), part(2, 'v'))
  isRefused(Buffer.concat([model(), note, note]), 'onnx_malformed', /"k" stands twice/)
})

test('any change to a sound file is read or refused, and nothing else happens', () => {
  const file = encodeModel(
    {
      name: 'g',
      nodes: [
        {
          name: 'n',
          operation: 'Conv',
          domain: '',
          inputs: ['x', 'w'],
          outputs: ['y'],
          attributes: { pads: [1, 1, 1, 1], alpha: { float: 0.5 } },
        },
        {
          name: 'c',
          operation: 'Constant',
          domain: 'd',
          inputs: [],
          outputs: ['z'],
          attributes: { value: { tensor: { name: '', type: 'int64', shape: [1], data: BigInt64Array.of(3n) } } },
        },
      ],
      inputs: [{ name: 'x', type: 'float32', shape: ['batch', 3] }],
      outputs: [{ name: 'y', type: 'float32' }],
      initializers: [{ name: 'w', type: 'float32', shape: [2], data: Float32Array.of(1, 2) }],
    },
    { metadata: { a: 'b' } },
  )
  const readOrRefuse = (bytes: Uint8Array) => {
    try {
      decodeModel(bytes)
    } catch (error) {
      assert.ok(error instanceof Failure && error.code.startsWith('onnx_'), String(error))
    }
  }
  for (let length = 0; length < file.length; length++) readOrRefuse(file.subarray(0, length))
  for (let at = 0; at < file.length; at++) for (let bit = 0; bit < 8; bit++) readOrRefuse(file.with(at, file[at]! ^ (1 << bit)))
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { minLength: 2, maxLength: 6 }), changes => {
      const changed = Uint8Array.from(file)
      for (const [at, byte] of changes) changed[at] = byte
      readOrRefuse(changed)
    }),
    { numRuns: 4000 },
  )
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), readOrRefuse), { numRuns: 1000 })
})
