/** Networks layer by layer: the same losses as PyTorch, saved and loaded, refused with a code where the rows do not fit. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  type Activation,
  adam,
  crossEntropy,
  type DenseLayer,
  dense,
  type EpochLoss,
  type FitOptions,
  loadModel,
  mse,
  type SequentialModel,
  sequential,
  sgd,
} from '../../src/engine/index.ts'
import { type Dimension, encodeModel } from '../../src/engine/onnx.ts'
import { decodeModel } from '../../src/engine/onnx-read.ts'
import { COLOURS, plain, tinyArtefact } from '../models/tiny-model.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
let state = 7
const random = () => {
  state = (state * 16807) % 2147483647
  return state / 2147483647 - 0.5
}
const table = (rows: number, columns: number, scale = 1) =>
  Array.from({ length: rows }, () => Array.from({ length: columns }, () => random() * scale))

const golden = JSON.parse(readFileSync(join(root, 'test/golden/engine/dense.json'), 'utf8')) as Record<string, number[]>

/** The brief asks for 1e-3; float32 stays a hundred times closer, and 1e-5 also sees a short last batch that is weighed wrongly. */
function assertCurve(history: readonly EpochLoss[], expected: readonly number[]): void {
  assert.equal(history.length, expected.length)
  for (const [i, { loss }] of history.entries())
    assert.ok(Math.abs(loss - expected[i]!) < 1e-5, `epoch ${i + 1}: ${loss} and ${expected[i]}`)
  assert.ok(expected.at(-1)! < expected[0]! * 0.9, 'the curve goes down')
}
function startFrom(model: SequentialModel, matrices: readonly number[][][]): void {
  const weights = model.weights()
  for (const [i, matrix] of matrices.entries()) weights.set(`dense.${i}.weight`, Float32Array.from(matrix.flat()))
  model.setWeights(weights)
}
function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'plinth-sequential-'))
  t.after(() => rmSync(folder, { recursive: true }))
  return folder
}

test('two networks lose, epoch by epoch, what PyTorch loses from the same weights', async t => {
  // the generator is shared: the order is that of scripts/golden-dense.py
  await t.test('Dense 64, 64, 1 with Adam and mean squares', async () => {
    const start = [table(10, 64, 0.5), table(64, 64, 0.3), table(64, 1, 0.3)]
    const rows = table(64, 10)
    const targets = rows.map(row => [row[0]! * row[1]! * 4 - row[2]!])
    const model = sequential([dense(64, { activation: 'relu', inputShape: [10] }), dense(64, { activation: 'relu' }), dense(1)])
    startFrom(model, start)
    assertCurve(
      await model.fit(rows, targets, { loss: mse(), optimizer: adam(), epochs: 10, batchSize: 20, shuffle: false }),
      golden['adamMse']!,
    )
  })
  await t.test('Dense 12, 3 with Nesterov momentum and cross-entropy', async () => {
    const start = [table(5, 12, 0.8), table(12, 3, 0.8)]
    const rows = table(64, 5)
    const targets = rows.map(row => [0, 1, 2].map(i => (row[i] === Math.max(...row.slice(0, 3)) ? 1 : 0)))
    const model = sequential([dense(12, { activation: 'tanh', inputShape: [5] }), dense(3)])
    startFrom(model, start)
    const optimizer = sgd({ learningRate: 0.05, momentum: 0.9, nesterov: true })
    assertCurve(
      await model.fit(rows, targets, { loss: crossEntropy(), optimizer, epochs: 10, batchSize: 20, shuffle: false }),
      golden['sgdCrossEntropy']!,
    )
  })
})

test('the same seeds give the same weights bit for bit, other seeds others', async () => {
  const rows = table(50, 4)
  const targets = rows.map(row => [row[0]! - row[1]!])
  const train = async (start: number, order: number) => {
    const model = sequential([dense(8, { activation: 'relu', inputShape: [4] }), dense(1)], { seed: start })
    await model.fit(rows, targets, { loss: mse(), epochs: 3, batchSize: 16, seed: order })
    return model.weights()
  }
  const first = await train(1, 2)
  assert.deepEqual(await train(1, 2), first)
  assert.notDeepEqual(await train(5, 2), first)
  assert.notDeepEqual(await train(1, 5), first)
})

test('weights start Glorot-uniform, biases at zero', () => {
  const weights = sequential([dense(200, { inputShape: [100] })]).weights()
  const limit = Math.sqrt(6 / 300)
  const w = weights.get('dense.0.weight')!
  assert.ok(w.every(value => Math.abs(value) <= limit))
  const variance = w.reduce((sum, value) => sum + value * value, 0) / w.length
  assert.ok(Math.abs(variance / (limit ** 2 / 3) - 1) < 0.05, `variance ${variance}`)
  assert.ok(weights.get('dense.0.bias')!.every(value => value === 0))
})

test('rows held back for validation are the last ones, and are not learnt from', async () => {
  const rows = table(40, 2)
  const targets = rows.map(row => [row[0]! + row[1]!])
  const train = async (tail: number) => {
    const model = sequential([dense(1, { inputShape: [2] })])
    const seen: EpochLoss[] = []
    const options = { loss: mse(), epochs: 4, validationSplit: 0.25, onEpoch: (record: EpochLoss) => void seen.push(record) }
    const history = await model.fit(rows, [...targets.slice(0, 30), ...targets.slice(30).map(([y]) => [y! + tail])], options)
    assert.deepEqual(seen, history)
    return { weights: model.weights(), history, model }
  }
  const plain = await train(0)
  const moved = await train(5)
  assert.deepEqual(moved.weights, plain.weights)
  assert.ok(moved.history.at(-1)!.validationLoss! > 10)
  const { loss } = await plain.model.evaluate(rows.slice(30), targets.slice(30))
  assert.ok(Math.abs(loss - plain.history.at(-1)!.validationLoss!) < 1e-6)
})

test('a saved model answers the same when it is loaded', async t => {
  const folder = folderFor(t)
  const rows = table(50, 3)
  const classes = rows.map(row => (row[0]! > 0 ? [1, 0] : [0, 1]))
  const model = sequential([dense(8, { activation: 'tanh', inputShape: [3] }), dense(2)], { seed: 3 })
  const history = await model.fit(rows, classes, {
    loss: crossEntropy(),
    optimizer: adam({ learningRate: 0.02 }),
    epochs: 20,
    validationSplit: 0.2,
  })
  assert.ok(history.at(-1)!.loss < history[0]!.loss && history.at(-1)!.validationLoss! < 0.69)
  const file = join(folder, 'model.onnx')
  await model.save(file)
  const loaded = await loadModel(file)
  assert.deepEqual(await loaded.predict(rows.slice(0, 7)), await model.predict(rows.slice(0, 7)))
  await loaded.close()
})

test('a saved model is plain ONNX with an open batch, and says what it is', async t => {
  const file = join(folderFor(t), 'model.onnx')
  const activations = ['relu', 'tanh', 'sigmoid', 'softmax', 'linear'] as const
  await sequential(activations.map((activation, i) => dense(4, { activation, ...(i === 0 && { inputShape: [3] }) }))).save(file)
  const { graph, opsets, metadata } = decodeModel(readFileSync(file))
  assert.deepEqual(Object.keys(opsets), [''])
  assert.deepEqual(graph.inputs, [{ name: 'input', type: 'float32', shape: ['batch', 3] }])
  assert.deepEqual(graph.outputs, [{ name: 'output', type: 'float32', shape: ['batch', 4] }])
  assert.equal(metadata['plinth.kind'], 'sequential')
})

test('the model of a training opens in a program: pictures to probabilities', async t => {
  const file = join(folderFor(t), 'model.onnx')
  writeFileSync(file, tinyArtefact())
  const model = await loadModel(file)
  t.after(() => model.close())
  assert.deepEqual(model.labels, COLOURS)
  const rows = await model.predict([plain(50, 20, [250, 0, 0]), plain(3, 200, [0, 250, 0])])
  for (const [i, row] of rows.entries()) {
    assert.equal(row.indexOf(Math.max(...row)), i)
    assert.ok(Math.abs(row.reduce((sum, p) => sum + p, 0) - 1) < 1e-6)
  }
  for (const picture of [
    { width: 2, height: 2, data: new Uint8Array(11) },
    { width: 0, height: 0, data: new Uint8Array(0) },
  ])
    await assert.rejects(model.predict([picture]), { code: 'feed_mismatch' })
  await assert.rejects(model.predict([[1, 2, 3]]), { code: 'feed_mismatch' })
})

test('a file that is no model for it is refused with a code', async t => {
  const file = join(folderFor(t), 'model.onnx')
  const open = (bytes: Uint8Array) => {
    writeFileSync(file, bytes)
    return loadModel(file)
  }
  const one = (operation: string, shape: readonly Dimension[], metadata = {}) =>
    encodeModel(
      {
        name: 'one',
        nodes: [{ name: 'one', operation, domain: '', inputs: ['x'], outputs: ['y'], attributes: {} }],
        inputs: [{ name: 'x', type: 'float32', shape }],
        outputs: [{ name: 'y', type: 'float32', shape }],
        initializers: [],
      },
      { metadata },
    )
  await assert.rejects(loadModel(join(file, 'none')), { code: 'storage' })
  await assert.rejects(open(Buffer.from('no model')), { code: 'onnx_malformed' })
  await assert.rejects(open(one('Nonsense', ['batch', 2])), { code: 'onnx_unsupported' })
  await assert.rejects(open(one('Relu', ['batch', 2, 2])), { code: 'onnx_unsupported' })
  await assert.rejects(open(one('Relu', ['batch', null])), { code: 'onnx_unsupported' })
  for (const labels of ['{', '{"a":1}', '[1]'])
    await assert.rejects(open(one('Relu', ['batch', 2], { 'plinth.labels': labels })), { code: 'onnx_unsupported' })
  const fixed = await open(one('Relu', [2, 2]))
  assert.deepEqual(
    await fixed.predict([
      [1, -1],
      [-2, 2],
    ]),
    [
      [1, 0],
      [0, 2],
    ],
  )
  await assert.rejects(fixed.predict([[1, 2]]), { code: 'onnx_unsupported' })
  await fixed.close()
})

test('rows that do not fit are refused with a code', async () => {
  const model = sequential([dense(1, { inputShape: [2] })])
  const fit = (rows: unknown, targets: unknown) => model.fit(rows as number[][], targets as number[][], { loss: mse() })
  await assert.rejects(fit([[1]], [[1]]), { code: 'rows_invalid' })
  await assert.rejects(fit([], []), { code: 'rows_invalid' })
  await assert.rejects(fit([[1, 2]], []), { code: 'rows_invalid' })
  await assert.rejects(fit([[1, 2]], [1]), { code: 'rows_invalid' })
  await assert.rejects(fit([null], [[1]]), { code: 'rows_invalid' })
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 1e300, undefined])
    await assert.rejects(fit([[1, bad]], [[1]]), { code: 'input_not_finite' })
  await assert.rejects(model.predict([[1, Number.NaN]]), { code: 'input_not_finite' })
  await assert.rejects(model.fit([[1, 2]], [[1]]), { code: 'loss_unknown' })
  await assert.rejects(model.evaluate([[1, 2]], [[1]]), { code: 'loss_unknown' })
  assert.deepEqual(await model.predict([]), [])
})

test('a training that runs away stops, and leaves the weights of the epoch before', async () => {
  const model = sequential([dense(1, { inputShape: [2] })])
  const before = model.weights()
  await assert.rejects(model.fit([[1e30, 1e30]], [[1]], { loss: mse() }), { code: 'loss_not_finite' })
  // one step: its loss is sound, what it makes of the weights is not
  const optimizer = sgd({ learningRate: 1e38 })
  await assert.rejects(model.fit([[1e4, 1e4]], [[1]], { loss: mse(), optimizer }), { code: 'loss_not_finite' })
  assert.deepEqual(model.weights(), before)
})

test('options and layers that make no sense are refused with a code', async () => {
  const model = sequential([dense(1, { inputShape: [2] })])
  const wrong: FitOptions[] = [
    { epochs: 0 },
    { epochs: Number.NaN },
    { batchSize: 0 },
    { batchSize: 2.5 },
    { validationSplit: 1 },
    { validationSplit: -0.1 },
    { validationSplit: Number.NaN },
    { optimizer: adam({ learningRate: Number.NaN }) },
    { optimizer: sgd({ learningRate: 0 }) },
  ]
  for (const options of wrong)
    await assert.rejects(model.fit([[1, 2]], [[1]], { loss: mse(), ...options }), { code: 'option_invalid' }, JSON.stringify(options))
  const layers: DenseLayer[][] = [
    [],
    [dense(1)],
    [dense(1, { inputShape: [2, 3] })],
    [dense(1, { inputShape: [2.5] })],
    [dense(0, { inputShape: [2] })],
    [dense(3, { inputShape: [2] }), dense(1, { inputShape: [7] })],
    [dense(1, { inputShape: [2], activation: 'gelu' as Activation })],
    [dense(1, { inputShape: [2], activation: 'constructor' as Activation })],
  ]
  for (const each of layers) assert.throws(() => sequential(each), { code: 'layers_invalid' }, JSON.stringify(each))
})

test('the example runs and says what it did', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'examples/dense.ts')], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assert.match(stdout, /loss [\d.]+ → 0\.0\d+/)
})
