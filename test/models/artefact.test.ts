import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { encodeModel, type OnnxModel, type OnnxNode } from '../../src/engine/onnx.ts'
import { Failure } from '../../src/failure.ts'
import { encodePng } from '../../src/images/encode.ts'
import { openArtefact, type PictureLike, prediction, readArtefact, recordGolden, withGolden } from '../../src/models/artefact.ts'
import { cut } from '../../src/models/artefact-format.ts'
import { COLOURS, decode, finishedArtefact, noise, plain, tinyArtefact } from './tiny-model.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const classify = async (bytes: Uint8Array, pictures: readonly PictureLike[]) => {
  const model = await openArtefact(bytes, { threads: 1 })
  try {
    return await model.classify(pictures)
  } finally {
    await model.close()
  }
}
const largest = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0)

// ── what it is for ──────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a picture of any size gets probabilities, and the right label', async () => {
  const pictures = [plain(50, 20, [250, 0, 0]), plain(3, 200, [0, 250, 0]), plain(1, 1, [0, 0, 250])]
  const rows = await classify(tinyArtefact(), pictures)
  for (const [i, row] of rows.entries()) {
    assert.equal(row.length, 3)
    assert.ok(Math.abs(row.reduce((sum, p) => sum + p, 0) - 1) < 1e-6)
    assert.equal(prediction({ labels: COLOURS, threshold: 0.5 }, row).label, COLOURS[i])
  }
})

test('the file is one standard model: the plain runtime gives the same from `image` as the two halves do', async () => {
  const bytes = tinyArtefact({ random: true, imageSize: 64 })
  const session = await InferenceSession.create(bytes)
  assert.deepEqual(session.inputNames, ['image'])
  assert.deepEqual(session.outputNames, ['probabilities', 'activation'])
  const picture = noise(123, 77)
  const whole = await session.run({ image: new Tensor('uint8', picture.data, [77, 123, 3]) })
  assert.deepEqual(whole['probabilities']!.dims, [1, 3])
  const [halves] = await classify(bytes, [picture])
  assert.ok(largest(halves!, whole['probabilities']!.data as Float32Array) < 1e-6)
  await session.release()
})

test('pictures of different sizes go through the network together and answer as they do alone', async () => {
  const bytes = tinyArtefact({ random: true })
  const pictures = Array.from({ length: 41 }, (_, i) => noise(20 + i * 3, 90 - i))
  const together = await classify(bytes, pictures)
  for (const i of [0, 20, 40]) {
    const [alone] = await classify(bytes, [pictures[i]!])
    assert.ok(largest(alone!, together[i]!) < 1e-6)
  }
  assert.deepEqual(await classify(bytes, []), [])
})

test('the temperature divides the logits', async () => {
  const picture = noise(40, 40)
  const [hot] = await classify(tinyArtefact({ random: true, temperature: 2.5 }), [picture])
  const [plainRow] = await classify(tinyArtefact({ random: true }), [picture])
  const logits = Array.from(plainRow!, p => Math.log(p) / 2.5)
  const total = logits.reduce((sum, l) => sum + Math.exp(l), 0)
  const expected = logits.map(l => Math.exp(l) / total)
  assert.ok(largest(hot!, expected) < 1e-5)
})

test('an answer lists the most probable label first, and is unknown under the threshold', () => {
  const answer = prediction({ labels: ['a', 'b', 'c'], threshold: 0.6 }, Float32Array.of(0.25, 0.5, 0.25))
  assert.equal(answer.label, 'b')
  assert.equal(answer.unknown, true)
  assert.deepEqual(
    answer.probabilities.map(row => row.label),
    ['b', 'a', 'c'],
  )
  assert.equal(prediction({ labels: ['a', 'b'], threshold: 0.5 }, Float32Array.of(0.5, 0.5)).unknown, false)
})

test('metadata comes back as it was written, whatever the labels are called', () => {
  const labels = ['__proto__', 'übel "quoted"', '日本\n', '']
  const { metadata } = readArtefact(tinyArtefact({ random: true, labels, temperature: 1.25, threshold: 0.4 }))
  assert.deepEqual(metadata.labels, labels)
  assert.equal(metadata.temperature, 1.25)
  assert.equal(metadata.threshold, 0.4)
  assert.equal(metadata.schema, 1)
  assert.equal(metadata.lineage.created, '2026-11-25T00:00:00.000Z')
})

test('golden predictions are replayed exactly, and a changed one is noticed', async () => {
  const bytes = await finishedArtefact({ random: true })
  const model = await openArtefact(bytes, { threads: 2 })
  const replayed = await model.replayGolden(decode)
  assert.equal(replayed.pictures, 3)
  assert.ok(replayed.largestDifference < 1e-6)

  const [first, ...others] = model.metadata.golden
  await model.close()
  const moved = [first!.probabilities[0]! + 0.01, ...first!.probabilities.slice(1)]
  const changed = await openArtefact(withGolden(bytes, [{ ...first!, probabilities: moved }, ...others]), { threads: 1 })
  assert.ok(Math.abs((await changed.replayGolden(decode)).largestDifference - 0.01) < 1e-5)
  await changed.close()
})

test('recording golden predictions changes nothing else in the file', async () => {
  const bytes = tinyArtefact()
  const finished = await recordGolden(bytes, [await encodePng(plain(9, 9, [1, 2, 3]))], decode)
  assert.deepEqual(readArtefact(finished).model.graph, readArtefact(bytes).model.graph)
  assert.deepEqual({ ...readArtefact(finished).metadata, golden: [] }, readArtefact(bytes).metadata)
})

// ── files from strangers ────────────────────────────────────────────────────────────────────────────────────────────────────

const refused = (bytes: Uint8Array, code: string, problem = /./) =>
  assert.throws(
    () => readArtefact(bytes),
    (error: unknown) => {
      assert.ok(error instanceof Failure, String(error))
      assert.equal(error.code, code, error.message)
      assert.match(error.message, problem)
      return true
    },
  )
/** The tiny artefact with something changed. */
function changed(change: (model: OnnxModel) => void): Uint8Array {
  const { model } = readArtefact(tinyArtefact())
  change(model)
  return encodeModel(model.graph, { opset: model.opsets['']!, metadata: model.metadata })
}
const operation = (name: string, change: Partial<OnnxNode> = {}): OnnxNode => ({
  name: 'added',
  operation: name,
  domain: '',
  inputs: [],
  outputs: ['added'],
  attributes: {},
  ...change,
})

test('a file that ends too early is said to be cut short, wherever it ends', () => {
  const bytes = tinyArtefact()
  const step = long ? 1 : 37
  for (let length = 0; length < bytes.length; length += step) refused(bytes.subarray(0, length), 'artefact_cut_short')
})

test('what is no ONNX file at all is refused', () => {
  refused(new TextEncoder().encode('<!doctype html><title>Not found</title>'), 'artefact_invalid')
  refused(Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0, 0]), 'artefact_invalid')
  refused(new Uint8Array(1000), 'artefact_invalid')
})

test('an ONNX file of somebody else is told from one of ours', () => {
  const { model } = readArtefact(tinyArtefact())
  const foreign = Buffer.from(encodeModel(model.graph))
  foreign.set(Buffer.from('torch!'), foreign.indexOf('plinth'))
  refused(foreign, 'artefact_invalid', /not made by Plinth/)
})

test('a newer schema asks for a newer Plinth', () => {
  refused(
    changed(model => {
      model.metadata['plinth.schema'] = '2'
    }),
    'artefact_newer',
  )
})

test('metadata that lies is refused, and the message says which', () => {
  const lies: [string, string, RegExp][] = [
    ['labels', '["a","b"]', /2 labels for 3/],
    ['labels', '["a","b","c","d"]', /4 labels for 3/],
    ['labels', '["a","a","b"]', /same label twice/],
    ['labels', '"red"', /plinth.*labels/],
    ['labels', '[', /not JSON/],
    ['temperature', '0', /temperature/],
    ['temperature', '"NaN"', /temperature/],
    ['threshold', '7', /threshold/],
    ['imageSize', '1000000', /1000000 pixels/],
    ['imageSize', '-3', /imageSize/],
    ['modelSizeTensor', '"nowhere"', /nowhere/],
    ['modelSizeTensor', '"image"', /image/],
    ['golden', '[{"png":"","probabilities":[1]}]', /golden/],
    ['schema', '"1"', /schema/],
    ['surprise', '1', /./],
  ]
  for (const [key, value, problem] of lies)
    refused(
      changed(model => {
        model.metadata[`plinth.${key}`] = value
      }),
      'artefact_invalid',
      problem,
    )
})

test('a size in the metadata that the graph does not keep is found when the first picture comes', async () => {
  const bytes = changed(model => {
    model.metadata['plinth.imageSize'] = '64'
  })
  await assert.rejects(classify(bytes, [plain(4, 4, [0, 0, 0])]), { code: 'artefact_invalid' })
})

test('operations of a vendor, and graphs within operations, are refused', () => {
  refused(
    changed(({ graph }) => void graph.nodes.push(operation('FusedMatMul', { domain: 'com.microsoft', inputs: ['image', 'image'] }))),
    'artefact_invalid',
    /not a standard one/,
  )
  const body = { name: 'body', nodes: [], inputs: [], outputs: [], initializers: [] }
  refused(
    changed(({ graph }) => void graph.nodes.push(operation('Loop', { attributes: { body: { graph: body } } }))),
    'artefact_invalid',
    /loops/,
  )
})

test('other inputs and outputs than ours are refused', () => {
  refused(
    changed(({ graph }) => void graph.inputs.push({ name: 'more', type: 'float32', shape: [1] })),
    'artefact_invalid',
  )
  refused(
    changed(({ graph }) => void graph.outputs.splice(0, 1, { ...graph.outputs[0]!, name: 'scores' })),
    'artefact_invalid',
    /probabilities/,
  )
  refused(
    changed(({ graph }) => void graph.inputs.splice(0, 1, { ...graph.inputs[0]!, type: 'float32' })),
    'artefact_invalid',
    /uint8/,
  )
})

test('a graph whose second half goes around the model-size tensor cannot be cut', async () => {
  const bytes = changed(({ graph }) => {
    graph.nodes.push(operation('Identity', { inputs: ['image'] }))
    graph.nodes.find(node => node.outputs.includes('probabilities'))!.inputs = ['added']
  })
  await assert.rejects(openArtefact(bytes, { threads: 1 }), { code: 'artefact_invalid' })
})

test('data in another file is refused in every position, and nothing is opened', () => {
  const secret = externalTensor('../../../etc/passwd')
  const model = tinyArtefact()
  for (const [where, extra] of Object.entries({
    initializer: field(7, field(5, secret)),
    attribute: field(
      7,
      field(1, [...field(2, 'x'), ...field(4, 'Constant'), ...field(5, [...field(1, 'value'), ...field(5, secret), ...field(20, 4)])]),
    ),
    sparse: field(7, field(15, field(1, secret))),
    absolute: field(7, field(5, externalTensor('/etc/passwd'))),
    memory: field(7, field(5, externalTensor('*/_ORT_MEM_ADDR_/*'))),
    nul: field(7, field(5, externalTensor('model.bin\0/../../x'))),
    // a location without the mark that says it is used
    unmarked: field(
      7,
      field(5, [...field(1, 4), ...field(2, 1), ...field(8, 'x'), ...field(13, [...field(1, 'location'), ...field(2, 'x')])]),
    ),
    training: field(20, field(1, field(5, secret))),
    function: field(25, [...field(1, 'f'), ...field(7, field(5, [...field(1, 'value'), ...field(5, secret)]))]),
  }))
    assert.throws(
      () => readArtefact(Buffer.concat([model, Uint8Array.from(extra)])),
      (error: unknown) => error instanceof Failure && /^artefact_(invalid|cut_short)$/.test(error.code),
      where,
    )
})

test('sizes that lie are refused before memory is taken', () => {
  const model = tinyArtefact()
  const before = process.memoryUsage().rss
  for (const dimensions of [[2 ** 40], [2 ** 31, 2 ** 31], [-1], [2 ** 53, 4]]) {
    const tensor = [...dimensions.flatMap(d => field(1, d)), ...field(2, 1), ...field(8, 'huge'), ...field(9, [1, 2, 3, 4])]
    const bytes = Buffer.concat([model, Uint8Array.from(field(7, field(5, tensor)))])
    assert.throws(() => readArtefact(bytes), Failure, String(dimensions))
  }
  assert.ok(process.memoryUsage().rss - before < 100 * 2 ** 20)
})

test('a file that is not there is named', async () => {
  await assert.rejects(openArtefact('/nowhere/model.onnx', { threads: 1 }), { code: 'artefact_missing', message: /nowhere/ })
  await assert.rejects(openArtefact('/', { threads: 1 }), { code: 'artefact_missing', message: /not a file/ })
  await assert.rejects(openArtefact('/dev/zero', { threads: 1 }), { code: 'artefact_missing', message: /not a file/ })
})

test('a weight that does not fit its operation is refused by name of the runtime, not by a crash', async () => {
  const bytes = changed(({ graph }) => {
    const weight = graph.initializers.find(tensor => tensor.name === 'first')!
    weight.shape = [9, 1, 3, 3]
  })
  await assert.rejects(classify(bytes, [plain(4, 4, [0, 0, 0])]), { code: 'artefact_invalid' })
})

test('whatever bytes are changed, the answer is a model or a coded refusal', () => {
  const bytes = tinyArtefact()
  const spot = fc.record({ at: fc.nat(bytes.length - 1), value: fc.nat(255) })
  fc.assert(
    fc.property(fc.array(spot, { minLength: 1, maxLength: 6 }), spots => {
      const mutant = bytes.slice()
      for (const { at, value } of spots) mutant[at] = value
      reads(mutant)
    }),
    { numRuns: long ? 100_000 : 3000 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), noise => reads(noise)),
    { numRuns: long ? 100_000 : 2000 },
  )
})
function reads(bytes: Uint8Array): void {
  try {
    cut(readArtefact(bytes))
  } catch (error) {
    assert.ok(error instanceof Failure && error.code.startsWith('artefact_'), String(error))
  }
}

// ── protocol buffers by hand ────────────────────────────────────────────────────────────────────────────────────────────────

function field(number: number, value: number | string | readonly number[]): number[] {
  if (typeof value === 'number') return [...varint(number * 8), ...varint(value)]
  const bytes = typeof value === 'string' ? [...Buffer.from(value)] : value
  return [...varint(number * 8 + 2), ...varint(bytes.length), ...bytes]
}
function varint(value: number): number[] {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128)
  return [...bytes, Number(rest)]
}
const externalTensor = (location: string) => [
  ...field(1, 4),
  ...field(2, 1),
  ...field(8, 'secret'),
  ...field(13, [...field(1, 'location'), ...field(2, location)]),
  ...field(14, 1),
]
