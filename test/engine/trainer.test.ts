/** Training steps against PyTorch in float64 (test/golden/engine/trainer.json, made by scripts/golden-engine.py), in both lowerings. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { probeBlocked } from '../../src/engine/blocked-probe.ts'
import { readCheckpoint, writeCheckpoint } from '../../src/engine/checkpoint.ts'
import {
  add,
  clip,
  conv,
  exp,
  globalAveragePool,
  input,
  logSoftmax,
  matMul,
  mul,
  type Node,
  neg,
  oneHot,
  parameter,
  reduceMean,
  reduceSum,
  reshape,
  scalar,
} from '../../src/engine/graph.ts'
import { adamW, type Optimizer, sgdMomentum } from '../../src/engine/optimiser.ts'
import { compile } from '../../src/engine/session.ts'
import { createTrainer, type Trainer, type TrainerOptions, type TrainerState } from '../../src/engine/trainer.ts'
import { normalisedConvolution } from '../../src/models/batch-norm.ts'
import { formulaWeight, uniform } from '../models/formula.ts'

interface Curve {
  losses: number[]
  gradientNorms: Record<string, number>
  /** Sum and Euclidean norm after the last step. */
  after: Record<string, [number, number]>
}
const golden = JSON.parse(readFileSync(new URL('../golden/engine/trainer.json', import.meta.url), 'utf8')) as {
  shapes: Record<string, number[]>
  curves: Record<string, Curve>
}

// ── the same small network as in the script ─────────────────────────────────────────────────────────────────────────────────

const [batch, side, classes] = [4, 12, 5]
const weights = new Map(Object.entries(golden.shapes).map(([name, shape]) => [name, formulaWeight(name, shape)]))
const weight = (name: string) => parameter(name, golden.shapes[name]!)
const relu6 = (x: Node) => clip(x, 0, 6)

function network() {
  const picture = input('picture', [batch, 3, side, side])
  const target = input('target', [batch], 'int64')
  let x: Node = relu6(mul(conv(picture, weight('stem.weight'), { padding: 1, bias: weight('stem.bias') }), scalar(4)))
  const norm = { convolution: 'depthwise', norm: 'norm', outputs: 16, kernel: 3, epsilon: 1e-3, groups: 16, padding: 1 }
  const y = conv(relu6(normalisedConvolution(x, norm)), weight('pointwise.weight'), { bias: weight('pointwise.bias') })
  x = add(x, y)
  x = relu6(conv(x, weight('down.weight'), { stride: 2, padding: 1, bias: weight('down.bias') }))
  const pooled = reshape(globalAveragePool(x), [batch, 24])
  const logits = add(matMul(pooled, weight('head.weight'), { transposeB: true }), weight('head.bias'))
  const loss = neg(reduceMean(reduceSum(mul(oneHot(target, classes), logSoftmax(logits)), [1]), [0]))
  return { loss, logits }
}

const feeds = (step: number) => ({
  picture: uniform(`picture ${step}`, batch * 3 * side * side),
  target: BigInt64Array.from({ length: batch }, (_, i) => BigInt((step + 2 * i) % classes)),
})

const optimisers: Record<string, { optimizer: Optimizer; learningRate: number }> = {
  'sgd with momentum': { optimizer: sgdMomentum({ momentum: 0.9, weightDecay: 0.01 }), learningRate: 0.05 },
  'sgd with nesterov momentum': { optimizer: sgdMomentum({ momentum: 0.9, nesterov: true, weightDecay: 0.01 }), learningRate: 0.05 },
  'plain sgd': { optimizer: sgdMomentum({ momentum: 0 }), learningRate: 0.05 },
  adamw: { optimizer: adamW({ weightDecay: 0.05 }), learningRate: 0.003 },
}
const lowerings = ['portable', 'blocked'] as const
const missing = async (lowering: (typeof lowerings)[number]) =>
  lowering === 'blocked' && !(await probeBlocked()) ? 'this runtime has no blocked convolutions' : null

async function withTrainer<T>(options: Partial<TrainerOptions> & Pick<TrainerOptions, 'optimizer'>, use: (trainer: Trainer) => Promise<T>) {
  const trainer = await createTrainer({ loss: network().loss, weights, threads: 1, ...options })
  try {
    return await use(trainer)
  } finally {
    await trainer.close()
  }
}
const near = (actual: number, expected: number, tolerance: number, what: string) =>
  assert.ok(Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${what}: ${actual}, PyTorch has ${expected}`)
const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0))

// ── against PyTorch ─────────────────────────────────────────────────────────────────────────────────────────────────────────

test('the golden file has a curve for each optimiser, and no other', () => {
  assert.deepEqual(Object.keys(golden.curves).sort(), Object.keys(optimisers).sort())
})

for (const lowering of lowerings) {
  for (const [name, { optimizer, learningRate }] of Object.entries(optimisers))
    test(`${lowering}: five steps of ${name} go PyTorch's way`, async t => {
      const reason = await missing(lowering)
      if (reason) return t.skip(reason)
      const curve = golden.curves[name]!
      await withTrainer({ optimizer, lowering }, async trainer => {
        assert.equal(trainer.choices.lowering, lowering)
        for (const [step, expected] of curve.losses.entries())
          near((await trainer.step(feeds(step), { learningRate })).loss, expected, 1e-3, `loss of step ${step}`)
        assert.equal(trainer.steps, curve.losses.length)
        for (const [parameter, [sum, length]] of Object.entries(curve.after)) {
          const values = trainer.weights().get(parameter)!
          near(
            values.reduce((a, b) => a + b, 0),
            sum,
            2e-3,
            `sum of ${parameter}`,
          )
          near(norm(values), length, 1e-3, `norm of ${parameter}`)
        }
        for (const frozen of ['norm.running_mean', 'norm.running_var'])
          assert.deepEqual(trainer.weights().get(frozen), weights.get(frozen), `${frozen} is not trained`)
      })
    })

  test(`${lowering}: each parameter's gradient is as long as PyTorch's`, async t => {
    const reason = await missing(lowering)
    if (reason) return t.skip(reason)
    await withTrainer({ optimizer: sgdMomentum({ momentum: 0 }), lowering }, async trainer => {
      await trainer.step(feeds(0), { learningRate: 1 })
      const after = trainer.weights()
      for (const [name, expected] of Object.entries(golden.curves['plain sgd']!.gradientNorms)) {
        const before = weights.get(name)!
        const found = norm(after.get(name)!.map((v, i) => before[i]! - v)) // a step of rate 1 is the gradient
        assert.ok(Math.abs(found - expected) <= 1e-3 * expected, `${name}: ${found}, PyTorch has ${expected}`)
      }
    })
  })

  test(`${lowering}: a restored state goes on bit for bit, also through a file`, async t => {
    const reason = await missing(lowering)
    if (reason) return t.skip(reason)
    const folder = mkdtempSync(join(tmpdir(), 'plinth-trainer-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const path = join(folder, 'checkpoint.safetensors')
    const { optimizer, learningRate } = optimisers['adamw']!
    const goOn = async (trainer: Trainer): Promise<{ losses: number[]; state: TrainerState }> => {
      const losses: number[] = []
      for (let step = trainer.steps; step < 5; step++) losses.push((await trainer.step(feeds(step), { learningRate })).loss)
      return { losses, state: trainer.state() }
    }
    const { expected, choices, kept } = await withTrainer({ optimizer, lowering }, async trainer => {
      for (const step of [0, 1]) await trainer.step(feeds(step), { learningRate })
      await writeCheckpoint(path, trainer.state(), { choices: trainer.choices, epoch: 1 })
      const state = trainer.state()
      return { kept: state, choices: trainer.choices, expected: await goOn(trainer) }
    })
    const read = await readCheckpoint<{ choices: Trainer['choices']; epoch: number }>(path)
    assert.ok(read)
    assert.deepEqual(read.manifest, { choices: JSON.parse(JSON.stringify(choices)), epoch: 1 })
    for (const state of [kept, read.state]) {
      assert.equal(state.step, 2)
      const again: Awaited<ReturnType<typeof goOn>> = await withTrainer({ optimizer, choices: read.manifest.choices }, trainer => {
        trainer.restore(state)
        return goOn(trainer)
      })
      assert.deepEqual(again.losses, expected.losses)
      assert.equal(again.state.step, 5)
      assert.deepEqual([...again.state.tensors.keys()].sort(), [...expected.state.tensors.keys()].sort())
      for (const [name, { data, shape }] of expected.state.tensors) {
        assert.deepEqual(again.state.tensors.get(name)!.shape, shape)
        assert.ok(Buffer.from(bytesOf(again.state.tensors.get(name)!.data)).equals(bytesOf(data)), `${name}, bit for bit`)
      }
    }
  })
}

// ── what holds for any trainer ──────────────────────────────────────────────────────────────────────────────────────────────

test('the state is a copy: later steps do not reach into it, nor do changes to it reach the trainer', async () => {
  await withTrainer({ optimizer: sgdMomentum() }, async trainer => {
    await trainer.step(feeds(0), { learningRate: 0.1 })
    const state = trainer.state()
    const before = Float32Array.from(state.tensors.get('head.weight')!.data)
    await trainer.step(feeds(1), { learningRate: 0.1 })
    assert.deepEqual(state.tensors.get('head.weight')!.data, before)
    trainer.restore(state)
    state.tensors.get('head.weight')!.data.fill(Number.NaN)
    assert.deepEqual(trainer.weights().get('head.weight'), before)
    assert.ok(Number.isFinite((await trainer.step(feeds(1), { learningRate: 0.1 })).loss))
  })
})

test('a multiplier of the rate slows a parameter, 0 freezes it and keeps no state for it', async () => {
  const scaleOf = (name: string) => (name.startsWith('head') ? 0.5 : name.startsWith('stem') ? 0 : 1)
  const plain = await withTrainer({ optimizer: sgdMomentum({ momentum: 0 }) }, async trainer => {
    await trainer.step(feeds(0), { learningRate: 0.1 })
    return trainer.weights()
  })
  await withTrainer({ optimizer: sgdMomentum({ momentum: 0.9, scaleOf }) }, async trainer => {
    await trainer.step(feeds(0), { learningRate: 0.1 })
    const after = trainer.weights()
    assert.deepEqual(after.get('stem.weight'), weights.get('stem.weight'))
    assert.equal(trainer.state().tensors.has('optimizer.momentum.stem.weight'), false)
    assert.equal(trainer.state().tensors.has('optimizer.momentum.head.weight'), true)
    for (const [i, start] of weights.get('head.weight')!.entries())
      near(after.get('head.weight')![i]! - start, (plain.get('head.weight')![i]! - start) / 2, 1e-6, `head.weight ${i}`)
  })
})

test('weight decay spares those that are told not to decay', async () => {
  const still = { learningRate: 0.1 }
  const optimizer = adamW({ weightDecay: 0.5, decays: name => name.endsWith('.weight') })
  const x = input('x', [1])
  // a loss that does not depend on the parameters by any slope: only decay moves them
  const loss = reduceSum(add(x, mul(scalar(0), add(parameter('a.weight', [1]), parameter('a.bias', [1])))), [0])
  const start = new Map([
    ['a.weight', Float32Array.of(2)],
    ['a.bias', Float32Array.of(2)],
  ])
  await withTrainer({ loss, weights: start, optimizer }, async trainer => {
    await trainer.step({ x: Float32Array.of(1) }, still)
    near(trainer.weights().get('a.weight')![0]!, 2 * (1 - 0.1 * 0.5), 1e-6, 'a.weight')
    assert.equal(trainer.weights().get('a.bias')![0], 2)
  })
  assert.deepEqual(
    [...start.values()].map(v => v[0]),
    [2, 2],
    'the given weights are copied',
  )
})

test('further outputs come in the plain layout and are those of the weights before the step', async () => {
  const { loss, logits } = network()
  const program = await compile({ logits }, weights, { threads: 1 })
  const expected = (await program.run(feeds(0)))['logits'] as Float32Array
  await program.close()
  await withTrainer({ loss, outputs: { logits }, optimizer: sgdMomentum() }, async trainer => {
    const { outputs } = await trainer.step(feeds(0), { learningRate: 0.1 })
    assert.deepEqual(Object.keys(outputs), ['logits'])
    for (const [i, v] of expected.entries()) near(Number(outputs['logits']![i]), v, 1e-4, `logit ${i}`)
  })
})

test('missing and wrong feeds and weights are named, and cost no step', async () => {
  await withTrainer({ optimizer: sgdMomentum() }, async trainer => {
    const { picture, target } = feeds(0)
    await assert.rejects(trainer.step({ picture }, { learningRate: 0.1 }), { code: 'feed_missing' })
    await assert.rejects(trainer.step({ picture: picture.subarray(1), target }, { learningRate: 0.1 }), { code: 'feed_mismatch' })
    const state = trainer.state()
    const less = new Map(state.tensors)
    less.delete('optimizer.momentum.head.bias')
    assert.throws(() => trainer.restore({ step: 7, tensors: less }), { code: 'weights_missing' })
    const longer = new Map(state.tensors).set('head.bias', { shape: [6], data: new Float32Array(6) })
    assert.throws(() => trainer.restore({ step: 7, tensors: longer }), { code: 'weights_mismatch' })
    assert.equal(trainer.steps, 0)
    assert.deepEqual(trainer.weights(), weights, 'a refused state changes nothing')
  })
  const few = new Map(weights)
  few.delete('stem.bias')
  await assert.rejects(
    withTrainer({ weights: few, optimizer: sgdMomentum() }, async () => {}),
    { code: 'weights_missing' },
  )
  const x = input('x', [2])
  await assert.rejects(
    withTrainer({ loss: exp(x), weights: new Map(), optimizer: sgdMomentum() }, async () => {}),
    {
      code: 'loss_not_scalar',
    },
  )
})

const bytesOf = (data: Float32Array) => Buffer.from(data.buffer, data.byteOffset, data.byteLength)
