/**
 * Networks layer by layer, for tables of numbers: describe, fit, evaluate, predict, save.
 *
 *     const model = sequential([dense(64, { activation: 'relu', inputShape: [10] }), dense(1)])
 *     await model.fit(rows, targets, { loss: mse(), optimizer: adam(), epochs: 20 })
 */
import { Failure } from '../failure.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { toOnnx } from './export.ts'
import {
  add,
  input,
  logSoftmax,
  matMul,
  mul,
  type Node,
  neg,
  parameter,
  reduceSum,
  relu,
  scalar,
  sigmoid,
  softmax,
  sub,
  tanh,
} from './graph.ts'
import { encodeModel } from './onnx.ts'
import { adamW, type Optimizer, sgdMomentum } from './optimiser.ts'
import { compile } from './session.ts'
import { createTrainer } from './trainer.ts'

export type Activation = 'linear' | 'relu' | 'tanh' | 'sigmoid' | 'softmax'
/** Rows of numbers, all of one length. */
export type Rows = readonly (readonly number[] | Float32Array)[]

export interface DenseLayer {
  kind: 'dense'
  units: number
  activation: Activation
  inputShape: readonly number[] | null
}
/** A fully connected layer: y = activation(x · W + b). `inputShape`, [columns], is needed on the first layer only. */
export const dense = (
  units: number,
  { activation = 'linear', inputShape }: { activation?: Activation; inputShape?: readonly number[] } = {},
): DenseLayer => ({
  kind: 'dense',
  units,
  activation,
  inputShape: inputShape ?? null,
})

export interface OptimizerChoice {
  learningRate: number
  optimizer: Optimizer
}
/** Kingma & Ba 2015, arXiv 1412.6980; PyTorch's defaults. */
export const adam = ({ learningRate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 } = {}): OptimizerChoice => ({
  learningRate,
  optimizer: adamW({ beta1, beta2, epsilon, weightDecay: 0 }),
})
export const sgd = ({ learningRate = 1e-2, momentum = 0, nesterov = false } = {}): OptimizerChoice => ({
  learningRate,
  optimizer: sgdMomentum({ momentum, nesterov }),
})

/** The loss of each row: [n, columns] twice → [n]. */
export interface Loss {
  name: string
  perRow(predicted: Node, target: Node): Node
}
/** Mean over the columns of the squared difference. */
export const mse = (): Loss => ({
  name: 'mse',
  perRow: (predicted, target) => {
    const difference = sub(predicted, target)
    return mul(reduceSum(mul(difference, difference), [1]), scalar(1 / predicted.shape[1]!))
  },
})
/** −Σ target · log softmax(predicted): the last layer gives logits (activation 'linear'), targets are one-hot or shares. */
export const crossEntropy = (): Loss => ({
  name: 'crossEntropy',
  perRow: (predicted, target) => neg(reduceSum(mul(target, logSoftmax(predicted)), [1])),
})

export interface FitOptions {
  loss?: Loss
  optimizer?: OptimizerChoice
  /** Default 1. */
  epochs?: number
  /** Default 32. */
  batchSize?: number
  /** Share of the rows, from the end, that is only looked at. Default 0. */
  validationSplit?: number
  /** Default true. */
  shuffle?: boolean
  /** Default 0. */
  seed?: number
  /** Default 1: small networks lose more by sharing a step than they gain. */
  threads?: number
  onEpoch?(record: EpochLoss): void
}
export interface EpochLoss {
  epoch: number
  /** Mean over the training rows, as the weights were when each was seen. */
  loss: number
  validationLoss: number | null
}
export interface SequentialModel {
  /** Goes on from the weights there are; what fails within an epoch leaves those of the epoch before. @throws rows_invalid, input_not_finite, loss_unknown, loss_not_finite, option_invalid */
  fit(rows: Rows, targets: Rows, options?: FitOptions): Promise<EpochLoss[]>
  evaluate(rows: Rows, targets: Rows, options?: { loss?: Loss }): Promise<{ loss: number }>
  predict(rows: Rows): Promise<number[][]>
  /** A standard ONNX file: input `input` [batch, columns], output `output` [batch, units], float32. */
  save(path: string): Promise<void>
  /** By name: `dense.0.weight` [columns, units], `dense.0.bias` [units] … */
  weights(): Map<string, Float32Array>
  setWeights(weights: ReadonlyMap<string, Float32Array>): void
}

/** Weights start Glorot-uniform from `seed`, biases at zero (Glorot & Bengio 2010). @throws layers_invalid */
export function sequential(layers: readonly DenseLayer[], { seed = 0 } = {}): SequentialModel {
  const columns = checkLayers(layers)
  const units = layers.at(-1)!.units
  let weights = initialWeights(layers, columns, seed)
  let lastLoss: Loss | null = null

  async function forward(rows: Rows): Promise<Float32Array> {
    const flat = flatten(rows, columns, 'input')
    const program = await compile({ output: network(input('input', [rows.length, columns]), layers) }, weights, { threads: 1 })
    try {
      return (await program.run({ input: flat }))['output'] as Float32Array
    } finally {
      await program.close()
    }
  }
  async function meanLoss(rows: Rows, targets: Rows, loss: Loss): Promise<number> {
    const predicted = input('predicted', [rows.length, units])
    const target = input('target', [rows.length, units])
    const total = mul(reduceSum(loss.perRow(predicted, target), [0]), scalar(1 / rows.length))
    const program = await compile({ total }, new Map(), { threads: 1 })
    try {
      const out = await program.run({ predicted: await forward(rows), target: flatten(targets, units, 'target', rows.length) })
      return (out['total'] as Float32Array)[0]!
    } finally {
      await program.close()
    }
  }

  return {
    async fit(rows, targets, options = {}) {
      const {
        loss,
        optimizer = adam(),
        epochs = 1,
        batchSize = 32,
        validationSplit = 0,
        shuffle = true,
        seed: order = 0,
        threads = 1,
      } = options
      if (!loss) throw new Failure('loss_unknown')
      checkOption(
        'learningRate',
        optimizer.learningRate,
        'a number above 0',
        Number.isFinite(optimizer.learningRate) && optimizer.learningRate > 0,
      )
      checkOption('epochs', epochs, 'a whole number from 1', isCount(epochs))
      checkOption('batchSize', batchSize, 'a whole number from 1', isCount(batchSize))
      checkOption('validationSplit', validationSplit, 'from 0 to less than 1', validationSplit >= 0 && validationSplit < 1)
      const x = flatten(rows, columns, 'input')
      const y = flatten(targets, units, 'target', rows.length)
      const held = Math.floor(rows.length * validationSplit)
      const n = rows.length - held // at least one: the share held back is less than 1
      lastLoss = loss
      const size = Math.min(batchSize, n)
      const batch = input('input', [size, columns])
      const target = input('target', [size, units])
      // the share of each row in the mean: a short last batch is filled up with rows that count nothing
      const share = input('share', [size])
      const total = reduceSum(mul(loss.perRow(network(batch, layers), target), share), [0])
      const trainer = await createTrainer({ loss: total, weights, optimizer: optimizer.optimizer, threads, lowering: 'portable' })
      const random = generator(order)
      const history: EpochLoss[] = []
      try {
        const permutation = Array.from({ length: n }, (_, i) => i)
        for (let epoch = 1; epoch <= epochs; epoch++) {
          if (shuffle) shuffleInPlace(permutation, random)
          let sum = 0
          for (let at = 0; at < n; at += size) {
            const part = permutation.slice(at, at + size)
            const feeds = {
              input: new Float32Array(size * columns),
              target: new Float32Array(size * units),
              share: new Float32Array(size).fill(1 / part.length, 0, part.length),
            }
            for (const [i, row] of part.entries()) {
              feeds.input.set(x.subarray(row * columns, (row + 1) * columns), i * columns)
              feeds.target.set(y.subarray(row * units, (row + 1) * units), i * units)
            }
            const result = await trainer.step(feeds, { learningRate: optimizer.learningRate })
            if (!Number.isFinite(result.loss)) throw new Failure('loss_not_finite', { loss: String(result.loss), step: trainer.steps })
            sum += result.loss * part.length
          }
          const reached = trainer.weights()
          // the last step of an epoch may break what no loss has seen yet
          if ([...reached.values()].some(values => !values.every(Number.isFinite)))
            throw new Failure('loss_not_finite', { loss: 'NaN', step: trainer.steps })
          weights = reached
          const validationLoss = held ? await meanLoss(rows.slice(n), targets.slice(n), loss) : null
          const record = { epoch, loss: sum / n, validationLoss }
          history.push(record)
          options.onEpoch?.(record)
        }
      } finally {
        await trainer.close()
      }
      return history
    },
    async evaluate(rows, targets, options = {}) {
      const loss = options.loss ?? lastLoss
      if (!loss) throw new Failure('loss_unknown')
      return { loss: await meanLoss(rows, targets, loss) }
    },
    predict: async rows => (rows.length ? asRows(await forward(rows), units) : []),
    async save(path) {
      const graph = toOnnx({ output: network(input('input', [1, columns]), layers) }, weights, { dynamicBatch: true })
      await writeFileAtomic(path, encodeModel(graph, { metadata: { 'plinth.kind': 'sequential' } }))
    },
    weights: () => new Map(weights),
    setWeights(given) {
      for (const [name, value] of weights) {
        const next = given.get(name)
        if (!next) throw new Failure('weights_missing', { name })
        if (next.length !== value.length) throw new Failure('weights_mismatch', { name, found: next.length, expected: value.length })
      }
      weights = new Map([...weights.keys()].map(name => [name, Float32Array.from(given.get(name)!)]))
    },
  }
}

const activations: Record<Activation, (x: Node) => Node> = { linear: x => x, relu, tanh, sigmoid, softmax: x => softmax(x) }

/** The number of columns the first layer takes. @throws layers_invalid */
function checkLayers(layers: readonly DenseLayer[]): number {
  const invalid = (problem: string) => new Failure('layers_invalid', { problem })
  const shape = layers[0]?.inputShape
  if (shape?.length !== 1 || !isCount(shape[0]!)) throw invalid('the first layer needs inputShape: [columns]')
  for (const [i, { units, activation, inputShape }] of layers.entries()) {
    if (!isCount(units)) throw invalid(`layer ${i} has ${units} units; they must be a whole number from 1`)
    if (!Object.hasOwn(activations, activation))
      throw invalid(`layer ${i} has the activation ${activation}; there are ${Object.keys(activations).join(', ')}`)
    const before = layers[i - 1]?.units
    if (before && inputShape && (inputShape.length !== 1 || inputShape[0] !== before))
      throw invalid(`layer ${i} has inputShape [${inputShape.join(', ')}] behind a layer of ${before} units`)
  }
  return shape[0]!
}

const isCount = (value: number) => Number.isInteger(value) && value >= 1
function checkOption(option: string, value: number, allowed: string, holds: boolean): void {
  if (!holds) throw new Failure('option_invalid', { option, value: String(value), allowed })
}

function network(x: Node, layers: readonly DenseLayer[]): Node {
  return layers.reduce((value, { units, activation }, i) => {
    const weight = parameter(`dense.${i}.weight`, [value.shape[1]!, units])
    return activations[activation](add(matMul(value, weight), parameter(`dense.${i}.bias`, [units])))
  }, x)
}

function initialWeights(layers: readonly DenseLayer[], columns: number, seed: number): Map<string, Float32Array> {
  const random = generator(seed)
  const weights = new Map<string, Float32Array>()
  let from = columns
  for (const [i, { units }] of layers.entries()) {
    const limit = Math.sqrt(6 / (from + units))
    weights.set(
      `dense.${i}.weight`,
      Float32Array.from({ length: from * units }, () => (random() * 2 - 1) * limit),
    )
    weights.set(`dense.${i}.bias`, new Float32Array(units))
    from = units
  }
  return weights
}

/** [n, columns] as one array. Numbers are float32 from here on: what is beyond them (3.4e38) is infinite. @throws rows_invalid, input_not_finite */
export function flatten(rows: Rows, columns: number, name: string, count = rows.length): Float32Array {
  const invalid = (problem: string) => new Failure('rows_invalid', { problem, expected: columns })
  if (rows.length === 0 || rows.length !== count)
    throw invalid(`there are ${rows.length} rows of ${name} where ${count || 'some'} are needed`)
  const flat = new Float32Array(rows.length * columns)
  for (const [i, row] of rows.entries()) {
    if (typeof row !== 'object' || row === null) throw invalid(`row ${i} of ${name} is ${row}, not an array`)
    if (row.length !== columns) throw invalid(`row ${i} of ${name} has ${row.length ?? 'no'} numbers`)
    flat.set(row, i * columns)
    for (let c = 0; c < columns; c++)
      if (!Number.isFinite(flat[i * columns + c])) throw new Failure('input_not_finite', { name, value: String(row[c]), row: i })
  }
  return flat
}

export const asRows = (flat: Float32Array, columns: number): number[][] =>
  Array.from({ length: flat.length / columns }, (_, i) => Array.from(flat.subarray(i * columns, (i + 1) * columns)))

/** Uniform in [0, 1): mulberry32 (T. Ettinger, public domain), enough for initial weights and orders. */
function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

function shuffleInPlace(order: number[], random: () => number): void {
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
}
