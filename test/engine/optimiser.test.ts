/** The update rules over many steps against the papers' formulas in float64; the first steps against PyTorch are in trainer.test.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { add, input, mul, parameter, reduceSum, sub } from '../../src/engine/graph.ts'
import { adamW, corrections, type Optimizer, sgdMomentum, stateOf } from '../../src/engine/optimiser.ts'
import { createTrainer } from '../../src/engine/trainer.ts'

const start = [3, -1, 0.5]
const rate = (t: number) => 0.05 / (1 + t / 50)

/** Weights after `steps` steps on Σ (w − x)² + w·x, by the engine. */
async function byEngine(optimizer: Optimizer, steps: number): Promise<Float32Array> {
  const [x, w] = [input('x', [3]), parameter('w', [3])]
  const loss = reduceSum(add(mul(sub(w, x), sub(w, x)), mul(w, x)), [0])
  const trainer = await createTrainer({ loss, weights: new Map([['w', Float32Array.from(start)]]), optimizer, threads: 1 })
  for (let t = 1; t <= steps; t++) await trainer.step({ x: Float32Array.from(at(t)) }, { learningRate: rate(t) })
  const weights = trainer.weights().get('w')!
  await trainer.close()
  return weights
}
const at = (t: number) => [Math.sin(t), Math.cos(3 * t), 1]
const slope = (w: number, x: number) => 2 * (w - x) + x

const close = (actual: Float32Array, expected: number[]) => {
  for (const [i, v] of expected.entries()) assert.ok(Math.abs(actual[i]! - v) < 1e-4, `${i}: ${actual[i]} instead of ${v}`)
}

test('AdamW is Loshchilov and Hutter’s over 300 steps: decay apart from the slope, both moments corrected', async () => {
  const [b1, b2, epsilon, decay] = [0.8, 0.99, 1e-6, 0.1]
  const w = [...start]
  const [m, v] = [
    [0, 0, 0],
    [0, 0, 0],
  ]
  for (let t = 1; t <= 300; t++)
    for (const [i, x] of at(t).entries()) {
      const g = slope(w[i]!, x)
      m[i] = b1 * m[i]! + (1 - b1) * g
      v[i] = b2 * v[i]! + (1 - b2) * g * g
      w[i] = w[i]! * (1 - rate(t) * decay) - (rate(t) * (m[i]! / (1 - b1 ** t))) / (Math.sqrt(v[i]! / (1 - b2 ** t)) + epsilon)
    }
  close(await byEngine(adamW({ beta1: b1, beta2: b2, epsilon, weightDecay: decay }), 300), w)
})

for (const nesterov of [false, true])
  test(`SGD with ${nesterov ? 'Nesterov’s' : 'plain'} momentum over 300 steps`, async () => {
    const [momentum, decay] = [0.9, 0.01]
    const w = [...start]
    const velocity = [0, 0, 0]
    for (let t = 1; t <= 300; t++)
      for (const [i, x] of at(t).entries()) {
        const g = slope(w[i]!, x) + decay * w[i]!
        velocity[i] = momentum * velocity[i]! + g
        w[i] = w[i]! - rate(t) * (nesterov ? g + momentum * velocity[i]! : velocity[i]!)
      }
    close(await byEngine(sgdMomentum({ momentum, nesterov, weightDecay: decay }), 300), w)
  })

test('the corrections of a late step are still told from 1, and those of the first are the largest', () => {
  const first = corrections(adamW(), 1)
  assert.ok(Math.abs(first[0]! - 10) < 1e-5)
  assert.ok(Math.abs(first[1]! - 1000) < 1e-2)
  const late = corrections(adamW(), 5000)
  assert.equal(late[0], 1)
  assert.ok(Math.abs(late[1]! - 1 / (1 - 0.999 ** 5000)) < 1e-6 && late[1]! > 1.006)
})

test('each optimiser keeps as much as it needs for a parameter', () => {
  assert.deepEqual(stateOf(adamW()), ['optimizer.m.', 'optimizer.v.'])
  assert.deepEqual(stateOf(sgdMomentum()), ['optimizer.momentum.'])
  assert.deepEqual(stateOf(sgdMomentum({ momentum: 0 })), [])
})
