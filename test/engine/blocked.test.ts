/** The blocked lowering answers what the portable one answers: convolutions of every geometry with their gradients, and whole small networks. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { InferenceSession } from 'onnxruntime-node'
import { lowerBlocked, probeBlocked } from '../../src/engine/blocked.ts'
import { gradient } from '../../src/engine/gradient.ts'
import {
  add,
  clip,
  conv,
  elements,
  globalAveragePool,
  input,
  matMul,
  maxPool,
  mul,
  type Node,
  parameter,
  reduceSum,
  relu,
  reshape,
  topologicalOrder,
} from '../../src/engine/graph.ts'
import type { Lowered } from '../../src/engine/lowering.ts'
import { encodeModel, graphBuilder } from '../../src/engine/onnx.ts'
import { lowerPortable } from '../../src/engine/portable.ts'
import { tensorOf } from '../../src/engine/session.ts'

const support = await probeBlocked()
const skip = support ? false : 'the runtime has no blocked convolutions on this machine'

function numbers(count: number, seed: number): Float32Array {
  let state = seed * 7919 + 17
  return Float32Array.from({ length: count }, () => {
    state = (state * 16807) % 2147483647
    return state / 2147483647 - 0.5
  })
}

/** All outputs of a lowering in the plain layout, on numbers that depend on names alone. */
async function run(outputs: Record<string, Node>, gradientOf: Map<string, string>, lowered: Lowered): Promise<Map<string, Float32Array>> {
  const b = graphBuilder(lowered.graph)
  const names = Object.entries(outputs).map(([name, node]) => {
    const tensor = b.node('Identity', [lowered.tensor(name)])
    const of = gradientOf.get(name)
    b.output(tensor, of ? lowered.parameters.get(of)!.shape : node.shape)
    return [name, tensor, of] as const
  })
  const feeds: Record<string, ReturnType<typeof tensorOf>> = {}
  for (const { operation, name, shape } of topologicalOrder(Object.values(outputs))) {
    if (operation === 'Input') feeds[name!] = tensorOf('float32', numbers(elements(shape), name!.length), shape)
    if (operation !== 'Parameter') continue
    const layout = lowered.parameters.get(name!)!
    feeds[name!] = tensorOf('float32', Float32Array.from(layout.toPhysical(numbers(elements(shape), name!.length + 100))), layout.shape)
  }
  const session = await InferenceSession.create(encodeModel(lowered.graph), { graphOptimizationLevel: 'basic', intraOpNumThreads: 1 })
  try {
    const results = await session.run(feeds)
    return new Map(
      names.map(([name, tensor, of]) => {
        const data = results[tensor]!.data as Float32Array
        return [name, Float32Array.from(of ? lowered.parameters.get(of)!.toPlain(data) : data)]
      }),
    )
  } finally {
    await session.release()
  }
}

/** Largest difference between the two lowerings, as a share of the largest value of each output. */
async function compare(loss: Node, more: Record<string, Node> = {}): Promise<void> {
  const parameters = topologicalOrder([loss]).filter(node => node.operation === 'Parameter')
  const gradients = gradient(loss, parameters)
  const outputs: Record<string, Node> = { loss, ...more }
  const gradientOf = new Map<string, string>()
  for (const node of parameters) {
    outputs[`gradient.${node.name}`] = gradients.get(node)!
    gradientOf.set(`gradient.${node.name}`, node.name!)
  }
  const plain = await run(outputs, gradientOf, lowerPortable(outputs, { gradientOf }))
  const blocked = await run(outputs, gradientOf, lowerBlocked(outputs, { gradientOf, support: support! }))
  for (const [name, expected] of plain) {
    const found = blocked.get(name)!
    assert.equal(found.length, expected.length, name)
    // the loss is a sum of thousands of numbers of both signs: next to nothing may be left of it, but not of the rounding
    const least = name === 'loss' ? 1 : 1e-6
    const largest = expected.reduce((most, v) => Math.max(most, Math.abs(v)), least)
    const worst = expected.reduce((most, v, i) => Math.max(most, Math.abs(v - found[i]!)), 0)
    assert.ok(worst <= 1e-3 * largest, `${name}: off by ${worst} of ${largest}`)
  }
}

const geometry = fc.record({
  kernel: fc.constantFrom(1, 3, 5, 7),
  stride: fc.constantFrom(1, 2),
  height: fc.integer({ min: 7, max: 14 }),
  width: fc.integer({ min: 7, max: 14 }),
  channels: fc.constantFrom(3, 16, 24, 40),
  outputs: fc.constantFrom(8, 16, 24, 40),
  depthwise: fc.boolean(),
  bias: fc.boolean(),
  before: fc.integer({ min: 0, max: 3 }),
  after: fc.integer({ min: 0, max: 3 }),
})

test('a convolution and its gradients are the same in both lowerings, whatever the geometry', { skip }, async () => {
  await fc.assert(
    fc.asyncProperty(geometry, async g => {
      const [before, after] = [Math.min(g.before, g.kernel - 1), Math.min(g.after, g.kernel - 1)]
      const x = parameter('x', [2, g.channels, g.height, g.width])
      const outputs = g.depthwise ? g.channels : g.outputs
      const weight = parameter('weight', [outputs, g.depthwise ? 1 : g.channels, g.kernel, g.kernel])
      const y = conv(x, weight, {
        stride: g.stride,
        padding: [before, before, after, after],
        groups: g.depthwise ? g.channels : 1,
        ...(g.bias && { bias: parameter('the bias', [outputs]) }),
      })
      await compare(reduceSum(mul(y, input('slopes', y.shape)), [0, 1, 2, 3]), { y })
    }),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 1000 : 60, seed: 1 },
  )
})

test('a small EfficientNet-like network: expand, depthwise with uneven padding, project, residual, frozen norm', { skip }, async () => {
  const x = input('picture', [2, 3, 20, 20])
  const norm = (weight: Node, name: string) =>
    mul(weight, reshape(parameter(`${name}.scale`, [weight.shape[0]!]), [weight.shape[0]!, 1, 1, 1]))
  const layer = (value: Node, name: string, shape: readonly number[], options: Parameters<typeof conv>[2] = {}) =>
    conv(value, norm(parameter(name, shape), name), { ...options, bias: parameter(`${name}.shift`, [shape[0]!]) })
  let h: Node = clip(layer(x, 'stem', [24, 3, 3, 3], { stride: 2, padding: [0, 0, 1, 1] }), 0, 6)
  const expanded = clip(layer(h, 'expand', [48, 24, 1, 1]), 0, 6)
  const deep = clip(layer(expanded, 'deep.1', [48, 1, 3, 3], { groups: 48, padding: 1 }), 0, 6)
  h = add(layer(deep, 'project', [24, 48, 1, 1]), h)
  h = clip(layer(h, 'deep.stride', [24, 1, 5, 5], { groups: 24, stride: 2, padding: [1, 1, 2, 2] }), 0, 6)
  const pooled = reshape(globalAveragePool(h), [2, 24])
  const out = matMul(pooled, parameter('head', [24, 5]))
  await compare(reduceSum(mul(out, input('slope', out.shape)), [0, 1]), { out })
})

test('a small ResNet-like network: stem of seven, max pooling, residual blocks with a strided shortcut', { skip }, async () => {
  const x = input('picture', [2, 3, 32, 32])
  const stem = relu(conv(x, parameter('stem', [16, 3, 7, 7]), { stride: 2, padding: 3 }))
  const pooled = maxPool(stem, 3, { stride: 2, padding: 1 })
  const first = relu(conv(pooled, parameter('block.a', [32, 16, 3, 3]), { stride: 2, padding: 1 }))
  const second = conv(first, parameter('block.bb', [32, 32, 3, 3]), { padding: 1 })
  const h = relu(add(second, conv(pooled, parameter('shortcut', [32, 16, 1, 1]), { stride: 2 })))
  const out = reshape(globalAveragePool(h), [2, 32])
  await compare(reduceSum(mul(out, input('slope', out.shape)), [0, 1]), { out })
})

test('what a lowering chose can be given back and gives the same graph', { skip }, () => {
  const x = input('picture', [2, 16, 14, 14])
  const y = conv(x, parameter('weight', [32, 16, 3, 3]), { padding: 1 })
  const loss = reduceSum(mul(y, y), [0, 1, 2, 3])
  const [weight] = topologicalOrder([loss]).filter(node => node.operation === 'Parameter')
  const outputs = { loss, 'gradient.weight': gradient(loss, [weight!]).get(weight!)! }
  const options = { gradientOf: new Map([['gradient.weight', 'weight']]), support: support! }
  const first = lowerBlocked(outputs, options)
  const again = lowerBlocked(outputs, { ...options, choices: JSON.parse(JSON.stringify(first.choices)) })
  assert.deepEqual(encodeModel(again.graph), encodeModel(first.graph))
})
