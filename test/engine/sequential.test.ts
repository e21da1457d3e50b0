/** Networks layer by layer: the same losses as PyTorch, saved and loaded, refused with a code where the rows do not fit. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { adam, crossEntropy, dense, loadModel, mse, sequential } from '../../src/engine/index.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
let state = 7
const random = () => {
  state = (state * 16807) % 2147483647
  return state / 2147483647 - 0.5
}
const table = (rows: number, columns: number, scale = 1) =>
  Array.from({ length: rows }, () => Array.from({ length: columns }, () => random() * scale))

test('ten epochs of the Dense 64-64-1 network lose what PyTorch loses from the same weights', async () => {
  const golden = JSON.parse(readFileSync(join(root, 'test/golden/engine/dense.json'), 'utf8')) as number[]
  const start = [table(10, 64, 0.5), table(64, 64, 0.3), table(64, 1, 0.3)]
  const rows = table(64, 10)
  const targets = rows.map(row => [row[0]! * row[1]! * 4 - row[2]!])
  const model = sequential([dense(64, { activation: 'relu', inputShape: [10] }), dense(64, { activation: 'relu' }), dense(1)])
  const weights = model.weights()
  for (const [i, matrix] of start.entries()) weights.set(`dense.${i}.weight`, Float32Array.from(matrix.flat()))
  model.setWeights(weights)
  const history = await model.fit(rows, targets, { loss: mse(), optimizer: adam(), epochs: 10, batchSize: 20, shuffle: false })
  assert.equal(history.length, golden.length)
  for (const [i, { loss }] of history.entries()) assert.ok(Math.abs(loss - golden[i]!) < 1e-3, `epoch ${i + 1}: ${loss} and ${golden[i]}`)
  assert.ok(golden.at(-1)! < golden[0]! * 0.9, 'the curve goes down')
})

test('a saved model answers the same when it is loaded', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'plinth-sequential-'))
  t.after(() => rmSync(folder, { recursive: true }))
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

test('rows that do not fit are refused with a code', async () => {
  const model = sequential([dense(1, { inputShape: [2] })])
  const fit = (rows: number[][], targets: number[][]) => model.fit(rows, targets, { loss: mse() })
  await assert.rejects(fit([[1]], [[1]]), { code: 'rows_invalid' })
  await assert.rejects(fit([[1, 2]], []), { code: 'rows_invalid' })
  await assert.rejects(fit([[1, Number.NaN]], [[1]]), { code: 'input_not_finite' })
  await assert.rejects(model.fit([[1, 2]], [[1]]), { code: 'loss_unknown' })
  await assert.rejects(model.fit([[1e30, 1e30]], [[1]], { loss: mse() }), { code: 'loss_not_finite' })
  assert.throws(() => sequential([dense(1)]), { code: 'layers_invalid' })
})

test('the example runs and says what it did', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'examples/dense.ts')], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assert.match(stdout, /loss [\d.]+ → 0\.0\d+/)
})
