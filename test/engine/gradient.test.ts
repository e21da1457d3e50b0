/**
 * Every differentiable row of the table `rules` against central finite differences: the derivative of a random weighted sum of the
 * operation's result along a random direction, computed by the runtime in float32 and summed here in float64.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gradient, isDifferentiable, rules } from '../../src/engine/gradient.ts'
import {
  add,
  cast,
  clip,
  concat,
  constant,
  conv,
  div,
  elements,
  equal,
  exp,
  expand,
  globalAveragePool,
  input,
  inside,
  log,
  logSoftmax,
  matMul,
  maxPool,
  mul,
  type Node,
  neg,
  node,
  type Operation,
  oneHot,
  pad,
  reciprocal,
  reduceMax,
  reduceMean,
  reduceSum,
  relu,
  reshape,
  type Shape,
  scalar,
  sigmoid,
  slice,
  softmax,
  sqrt,
  sub,
  tanh,
  topologicalOrder,
  transpose,
} from '../../src/engine/graph.ts'
import { compile } from '../../src/engine/session.ts'

/** Where values lie: `apart` keeps any two at least 0.05 from each other and 0.02 from 0, so that no step crosses a kink. */
type Values = 'any' | 'positive' | 'apart'
interface Case {
  inputs: Shape[]
  build(...inputs: Node[]): Node
  values?: Values
}
const one = (shape: Shape, build: (x: Node) => Node, values: Values = 'any'): Case => ({ inputs: [shape], build, values })
const two = (a: Shape, b: Shape, build: (a: Node, b: Node) => Node, values: Values = 'any'): Case => ({ inputs: [a, b], build, values })

/** NumPy's broadcasting: equal, missing in front, 1 against many on either side, scalars. */
const broadcast = (build: (a: Node, b: Node) => Node, values: Values = 'any'): Case[] =>
  (
    [
      [
        [2, 3],
        [2, 3],
      ],
      [[2, 3, 4], [4]],
      [
        [3, 1],
        [2, 1, 4],
      ],
      [[], [2, 3]],
      [[1, 1], [1]],
    ] as [Shape, Shape][]
  ).map(([a, b]) => two(a, b, build, values))

type Four = [number, number, number, number]
const window = (o: { strides?: [number, number]; padding?: Four; dilations?: [number, number]; groups?: number }) => ({
  strides: [1, 1] as [number, number],
  padding: [0, 0, 0, 0] as Four,
  dilations: [1, 1] as [number, number],
  groups: 1,
  ...o,
})
/** x, weight, window, and y's shape, which the formula of ONNX Conv gives. */
const convolutions: { x: Four; weight: Four; window: ReturnType<typeof window> }[] = [
  { x: [2, 3, 5, 6], weight: [4, 3, 3, 3], window: window({ padding: [1, 1, 1, 1] }) },
  { x: [1, 2, 7, 8], weight: [3, 2, 3, 2], window: window({ strides: [2, 3], padding: [0, 1, 2, 0] }) },
  { x: [2, 2, 9, 9], weight: [2, 2, 3, 3], window: window({ dilations: [2, 3], padding: [2, 0, 1, 3] }) },
  { x: [1, 4, 6, 6], weight: [6, 2, 3, 3], window: window({ groups: 2, strides: [2, 2], padding: [0, 0, 1, 1] }) },
  { x: [2, 4, 6, 6], weight: [4, 1, 3, 3], window: window({ groups: 4, padding: [1, 1, 1, 1] }) },
  { x: [1, 3, 8, 8], weight: [6, 1, 5, 5], window: window({ groups: 3, strides: [2, 2], padding: [1, 2, 2, 2] }) },
  { x: [2, 5, 4, 4], weight: [3, 5, 1, 1], window: window({ strides: [2, 2] }) }, // rows and columns that nobody reads
  { x: [1, 1, 3, 4], weight: [1, 1, 3, 4], window: window({}) },
]
const after = ({ x, weight, window: w }: (typeof convolutions)[number]): Four => {
  const size = (axis: 0 | 1) =>
    Math.floor(
      (x[axis + 2]! + w.padding[axis]! + w.padding[axis + 2]! - w.dilations[axis] * (weight[axis + 2]! - 1) - 1) / w.strides[axis],
    ) + 1
  return [x[0], weight[0], size(0), size(1)]
}
const everyConvolution = (build: (c: (typeof convolutions)[number]) => Case) => convolutions.map(build)

const orders = [
  { transposeA: false, transposeB: false },
  { transposeA: true, transposeB: false },
  { transposeA: false, transposeB: true },
  { transposeA: true, transposeB: true },
]
const products = ([[], [3], [2, 3]] as Shape[]).flatMap(batch =>
  orders.map(options =>
    two([...batch, ...(options.transposeA ? [4, 2] : [2, 4])], [...batch, ...(options.transposeB ? [5, 4] : [4, 5])], (a, b) =>
      matMul(a, b, options),
    ),
  ),
)

const cases: Partial<Record<Operation, Case[]>> = {
  Add: broadcast(add),
  Sub: broadcast(sub),
  Mul: [...broadcast(mul), one([3, 4], x => mul(x, x))],
  Div: broadcast(div, 'positive'),
  Neg: [one([3, 4], neg)],
  Exp: [one([3, 4], exp)],
  Log: [one([3, 4], log, 'positive')],
  Sqrt: [one([3, 4], sqrt, 'positive')],
  Reciprocal: [one([3, 4], reciprocal, 'positive')],
  Tanh: [one([3, 4], tanh)],
  Sigmoid: [one([3, 4], sigmoid)],
  Relu: [one([4, 5], relu, 'apart')],
  // limits that stand between the values, which are odd multiples of 0.05
  Clip: [one([4, 5], x => clip(x, -0.3, 0.4), 'apart'), one([4, 5], x => clip(x, 0, 6), 'apart')],
  MatMul: products,
  Reshape: [one([2, 6], x => reshape(x, [3, 4])), one([1, 1], x => reshape(x, []))],
  Transpose: [one([2, 3, 4], x => transpose(x, [2, 0, 1])), one([2, 3, 4, 5], x => transpose(x, [0, 3, 1, 2]))],
  Concat: [two([2, 3], [2, 5], (a, b) => concat([a, b], 1)), two([2, 3, 2], [1, 3, 2], (a, b) => concat([a, b, a], 0))],
  Slice: [
    one([4, 5], x => slice(x, [1, 0], [3, 4])),
    one([7, 8], x => slice(x, [1, 2], [7, 8], [2, 3])), // ends on an element
    one([7, 9, 2], x => slice(x, [0, 1, 1], [6, 9, 2], [3, 5, 1])), // leaves a rest
  ],
  Pad: [one([2, 3], x => pad(x, [0, 1], [2, 0])), one([1, 2, 3], x => pad(x, [1, 1, 1], [0, 2, 1]))],
  Expand: [one([3, 1], x => expand(x, [2, 3, 4])), one([], x => expand(x, [2, 2])), one([2, 3], x => expand(x, [2, 3]))],
  ReduceSum: [
    one([2, 3, 4], x => reduceSum(x, [1])),
    one([2, 3, 4], x => reduceSum(x, [0, 2], { keepDimensions: true })),
    one([2, 3], x => reduceSum(x, [0, 1])),
    one([2, 3, 4], x => reduceMean(x, [2])),
  ],
  ReduceMax: [
    one([2, 3, 4], x => reduceMax(x, [1]), 'apart'),
    one([2, 3, 4], x => reduceMax(x, [0, 2], { keepDimensions: true }), 'apart'),
    one([3, 4], x => reduceMax(x, [0, 1]), 'apart'),
  ],
  Softmax: [one([3, 5], x => softmax(x)), one([3, 5, 2], x => softmax(x, 1))],
  LogSoftmax: [one([3, 5], x => logSoftmax(x)), one([3, 5, 2], x => logSoftmax(x, 1))],
  Cast: [one([3, 4], x => cast(x, 'float32'))],

  Conv: [
    ...everyConvolution(c => two(c.x, c.weight, (x, weight) => node('Conv', [x, weight], c.window, after(c)))),
    { inputs: [[2, 4, 6, 6], [4, 1, 3, 3], [4]], build: (x, weight, bias) => conv(x, weight, { groups: 4, padding: 1, bias: bias! }) },
    { inputs: [[2, 3, 5, 5], [2, 3, 3, 3], [2]], build: (x, weight, bias) => conv(x, weight, { stride: 2, padding: 1, bias: bias! }) },
  ],
  ConvInputGradient: everyConvolution(c => two(after(c), c.weight, (dy, weight) => node('ConvInputGradient', [dy, weight], c.window, c.x))),
  ConvWeightGradient: everyConvolution(c => two(after(c), c.x, (dy, x) => node('ConvWeightGradient', [dy, x], c.window, c.weight))),
  MaxPool: [
    one([2, 3, 6, 6], x => maxPool(x, 2), 'apart'),
    one([1, 2, 7, 7], x => maxPool(x, 3, { stride: 2, padding: 1 }), 'apart'), // windows overlap
    one([1, 2, 6, 5], x => maxPool(x, 3, { stride: 2, padding: [0, 0, 1, 1] }), 'apart'),
    one([1, 2, 7, 5], x => maxPool(x, 2, { stride: 3 }), 'apart'), // gaps between windows
  ],
  GlobalAveragePool: [one([2, 3, 4, 5], globalAveragePool)],
}

for (const operation of Object.keys(rules).filter(name => isDifferentiable(name as Operation)) as Operation[])
  test(`the gradient of ${operation} is what finite differences say`, async () => {
    const all = cases[operation] ?? []
    assert.notEqual(all.length, 0, `${operation} passes a gradient on: it needs a case here`)
    for (const [i, each] of all.entries()) {
      const found = await compare(each, `${operation} ${i}`, operation)
      for (const { name, expected, actual, size } of found)
        assert.ok(Math.abs(expected - actual) <= 1e-2 * size, `case ${i}, input ${name}: differences say ${expected}, the rule ${actual}`)
    }
  })

/** The derivative of Σ r·y along a random direction in each input alone. */
async function compare({ inputs: shapes, build, values = 'any' }: Case, seed: string, operation: Operation) {
  const random = randomNumbers(seed)
  const inputs = shapes.map((shape, i) => input(`x${i}`, shape))
  const y = build(...inputs)
  assert.ok(
    topologicalOrder([y]).some(each => each.operation === operation),
    'the case is about another operation',
  )
  const r = Float32Array.from({ length: elements(y.shape) }, () => random() * 2 - 1)
  const loss = reduceSum(mul(y, constant(r, y.shape)), [...y.shape.keys()])
  const gradients = gradient(loss, inputs)
  const program = await compile({ y, ...Object.fromEntries(inputs.map(x => [`d ${x.name}`, gradients.get(x)!])) }, new Map(), {
    threads: 1,
  })
  try {
    const at = Object.fromEntries(inputs.map(x => [x.name!, valuesOf(values, elements(x.shape), random)]))
    const there = await program.run(at)
    const sum = async (feeds: typeof at) => dot((await program.run(feeds))['y'] as Float32Array, r)
    const results = []
    for (const x of inputs) {
      const name = x.name!
      const direction = at[name]!.map(() => random() * 2 - 1)
      const step = 0.01
      const ahead = await sum({ ...at, [name]: at[name]!.map((v, k) => v + step * direction[k]!) })
      const behind = await sum({ ...at, [name]: at[name]!.map((v, k) => v - step * direction[k]!) })
      const slope = there[`d ${name}`] as Float32Array
      assert.equal(slope.length, elements(x.shape))
      // relative to the length of the gradient: along one direction parts may cancel
      const size = Math.max(norm(slope) * norm(direction) * 0.3, 1e-3)
      results.push({ name, expected: (ahead - behind) / (2 * step), actual: dot(slope, direction), size })
    }
    return results
  } finally {
    await program.close()
  }
}

test('among equal maxima of a reduction each gets its share, of a window the first gets all', async () => {
  const x = input('x', [1, 1, 2, 2])
  const max = gradient(reduceMax(x, [0, 1, 2, 3]), [x]).get(x)!
  const pool = gradient(reduceSum(maxPool(x, 2), [0, 1, 2, 3]), [x]).get(x)!
  const program = await compile({ max, pool }, new Map(), { threads: 1 })
  const answer = await program.run({ x: Float32Array.of(1, 3, 3, 2) })
  await program.close()
  assert.deepEqual([...answer['max']!], [0, 0.5, 0.5, 0])
  assert.deepEqual([...answer['pool']!], [0, 1, 0, 0])
})

test('a value used along several ways gets the sum of what comes back', async () => {
  const x = input('x', [3])
  const loss = reduceSum(add(mul(x, exp(x)), sub(x, mul(x, scalar(3)))), [0]) // x·eˣ − 2x
  const program = await compile({ d: gradient(loss, [x]).get(x)! }, new Map(), { threads: 1 })
  const at = Float32Array.of(-1, 0, 0.5)
  const { d } = await program.run({ x: at })
  await program.close()
  for (const [i, v] of at.entries()) assert.ok(Math.abs(Number(d![i]) - (Math.exp(v) * (1 + v) - 2)) < 1e-5)
})

test('what is a step or a whole number passes nothing on: zeros, in the shape of the input', async () => {
  const x = input('x', [2, 3])
  const labels = input('labels', [2], 'int64')
  const all = [0, 1]
  const losses = {
    inside: reduceSum(inside(x, 0, 1), all),
    equal: reduceSum(equal(x, scalar(1)), all),
    unused: reduceSum(oneHot(labels, 3), all),
  }
  for (const loss of Object.values(losses)) {
    const d = gradient(loss, [x]).get(x)!
    assert.deepEqual(d.shape, x.shape)
    const program = await compile({ d }, new Map(), { threads: 1 })
    const answer = await program.run({ x: Float32Array.of(1, 2, 3, 0.5, 0, 1), labels: BigInt64Array.of(0n, 2n) })
    await program.close()
    assert.deepEqual([...answer['d']!], [0, 0, 0, 0, 0, 0])
  }
})

test('only a scalar can be differentiated', () => {
  const x = input('x', [2])
  assert.throws(() => gradient(exp(x), [x]), { code: 'loss_not_scalar' })
})

// ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function valuesOf(values: Values, length: number, random: () => number): Float32Array {
  if (values === 'any') return Float32Array.from({ length }, () => random() * 2 - 1)
  if (values === 'positive') return Float32Array.from({ length }, () => 0.5 + random())
  const grid = Array.from({ length }, (_, i) => (i - Math.floor(length / 2)) * 0.1 + 0.05)
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[grid[i], grid[j]] = [grid[j]!, grid[i]!]
  }
  return Float32Array.from(grid)
}

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, v, i) => sum + v * b[i]!, 0)
const norm = (a: Float32Array) => Math.sqrt(dot(a, a))

/** xorshift32, seeded by a text. */
function randomNumbers(seed: string): () => number {
  let state = 2166136261
  for (const byte of Buffer.from(seed)) state = Math.imul(state ^ byte, 16777619)
  state |= 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}
