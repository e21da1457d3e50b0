/**
 * Many heads on the same features at once, each taught by other pictures: what cross-validation needs. One product of the features with the weights of
 * all heads does the work of each step, which keeps the processor busy where a single head waits for memory.
 *
 * Each head minimises what fitLogisticRegression minimises, for one C. One difference, which is not felt where every class has pictures: biases are
 * held back a little, so that the bias of a class that a head never sees stays finite.
 */
import { add, compile, gradient, input, logSoftmax, matMul, mul, neg, reduceSum, reshape } from '../engine/index.ts'
import { minimise, type Parameters } from './logistic-regression.ts'

export interface ManyHeadsTask {
  /** [n, width], row-major; the penalty is the same for each column, so scale them before. */
  features: Float32Array
  width: number
  /** [n] class numbers. */
  labels: ArrayLike<number>
  classes: number
  /** For each head [n]: how much a picture counts, 0 = it is not learned from. */
  weights: readonly Float32Array[]
  /** Strength of the regularisation, as in fitLogisticRegression. */
  c: number
  threads: number
  /** Stops when no slope of the mean loss is steeper. */
  tolerance?: number
  /** Most steps of L-BFGS. */
  iterations?: number
  signal?: AbortSignal | undefined
  /** Called after each batch of heads. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface ManyHeads {
  /** [n] which head answers each row → logits [n, classes]. */
  logits(head: Int32Array): Promise<Float32Array>
}

/** Penalty of a squared bias: a class without pictures ends near a probability of 1 in 1,000. */
const biasPenalty = 1e-4
/** Logits of one product: 16 MB. Rows are taken in blocks that fit. */
const largestProduct = 4e6
/** Columns (heads · classes) that are fitted in one go. */
const mostColumns = 4096

/** Finite features and labels in range are taken for granted. Throws what `signal` was aborted with. */
export async function fitManyHeads(task: ManyHeadsTask): Promise<ManyHeads> {
  const { width, classes, weights } = task
  const weight = new Float32Array(weights.length * classes * width)
  const bias = new Float32Array(weights.length * classes)
  const each = Math.max(1, Math.min(weights.length, Math.floor(mostColumns / classes)))
  for (let from = 0; from < weights.length; from += each) {
    const fitted = await fitTogether(task, weights.slice(from, from + each))
    for (const [at, parameters] of fitted.entries()) {
      weight.set(parameters.subarray(0, classes * width), (from + at) * classes * width)
      bias.set(parameters.subarray(classes * width), (from + at) * classes)
    }
    task.onProgress?.(Math.min(weights.length, from + each), weights.length)
  }
  return answering(task, weight, bias)
}

/** Heads that are fitted: weight [heads · classes, width], bias [heads · classes]. */
export function answering(
  { features, width, classes, threads }: Pick<ManyHeadsTask, 'features' | 'width' | 'classes' | 'threads'>,
  weight: Float32Array,
  bias: Float32Array,
): ManyHeads {
  const n = features.length / width
  return {
    async logits(head) {
      const all = new Float32Array(n * classes)
      const rows = Math.max(1, Math.min(n, Math.floor(largestProduct / classes)))
      const [x, w, b] = [input('x', [rows, width]), input('w', [classes, width]), input('b', [classes])]
      const answer = await compile({ logits: add(matMul(x, w, { transposeB: true }), b) }, new Map(), { threads })
      try {
        for (const one of new Set(head)) {
          const own = [...head.keys()].filter(row => head[row] === one)
          const feeds = {
            w: weight.subarray(one * classes * width, (one + 1) * classes * width),
            b: bias.subarray(one * classes, (one + 1) * classes),
          }
          for (let from = 0; from < own.length; from += rows) {
            const part = own.slice(from, from + rows)
            const block = new Float32Array(rows * width)
            for (const [at, row] of part.entries()) block.set(features.subarray(row * width, (row + 1) * width), at * width)
            const logits = (await answer.run({ x: block, ...feeds }))['logits'] as Float32Array
            for (const [at, row] of part.entries()) all.set(logits.subarray(at * classes, (at + 1) * classes), row * classes)
          }
        }
      } finally {
        await answer.close()
      }
      return all
    },
  }
}

/** Weights and biases of each head. */
async function fitTogether(task: ManyHeadsTask, weights: readonly Float32Array[]): Promise<Parameters[]> {
  const { features, width, classes, labels, c, threads, tolerance = 1e-5, iterations = 100, signal } = task
  const n = labels.length
  const heads = weights.length
  const rows = Math.max(1, Math.min(n, Math.floor(largestProduct / (heads * classes))))
  const learned = weights.map(weight => weight.reduce((sum, w) => sum + w, 0))

  const x = input('x', [rows, width])
  const y = input('y', [rows, 1, classes])
  const s = input('s', [rows, heads])
  const w = input('w', [heads * classes, width])
  const b = input('b', [heads * classes])
  const logits = reshape(add(matMul(x, w, { transposeB: true }), b), [rows, heads, classes])
  const terms = mul(neg(reduceSum(mul(logSoftmax(logits), y), [2])), s)
  const slopes = gradient(reduceSum(terms, [0, 1]), [w, b])
  const step = await compile({ terms, w: slopes.get(w)!, b: slopes.get(b)! }, new Map(), { threads })

  const blocks = Array.from({ length: Math.ceil(n / rows) }, (_, block) => {
    const from = Math.min(block * rows, n - rows) // the last block overlaps the one before: what both hold counts once
    const [target, share] = [new Float32Array(rows * classes), new Float32Array(rows * heads)]
    for (let i = 0; i < rows; i++) {
      target[i * classes + labels[from + i]!] = 1
      if (from + i >= block * rows) for (let j = 0; j < heads; j++) share[i * heads + j] = weights[j]![from + i]! / learned[j]!
    }
    return { x: features.subarray(from * width, (from + rows) * width), y: target, s: share }
  })
  const weight = new Float32Array(heads * classes * width)
  const bias = new Float32Array(heads * classes)

  const evaluate = async (asked: ReadonlyMap<number, Parameters>) => {
    signal?.throwIfAborted()
    for (const [j, parameters] of asked) {
      weight.set(parameters.subarray(0, classes * width), j * classes * width)
      bias.set(parameters.subarray(classes * width), j * classes)
    }
    const answers = new Map([...asked].map(([j, parameters]) => [j, penalised(parameters, 1 / (c * learned[j]!), classes * width)]))
    for (const block of blocks) {
      const out = await step.run({ ...block, w: weight, b: bias })
      const [each, slopeW, slopeB] = [out['terms'] as Float32Array, out['w'] as Float32Array, out['b'] as Float32Array]
      for (const [j, answer] of answers) {
        for (let i = 0; i < rows; i++) answer.loss += each[i * heads + j]!
        for (let i = 0, at = j * classes * width; i < classes * width; i++, at++) answer.slope[i]! += slopeW[at]!
        for (let k = 0; k < classes; k++) answer.slope[classes * width + k]! += slopeB[j * classes + k]!
      }
    }
    return answers
  }
  try {
    const ask = inStep(heads, evaluate)
    return await Promise.all(
      weights.map(async (_, j) => {
        const fitted = await minimise(new Float64Array(classes * (width + 1)), at => ask.at(j, at), { tolerance, iterations })
        ask.done()
        return fitted.parameters
      }),
    )
  } finally {
    await step.close()
  }
}

type Answer = { loss: number; slope: Float64Array }

function penalised(parameters: Parameters, penalty: number, weights: number): Answer {
  const slope = new Float64Array(parameters.length)
  let loss = 0
  for (let i = 0; i < parameters.length; i++) {
    const held = i < weights ? penalty : biasPenalty
    loss += (held / 2) * parameters[i]! * parameters[i]!
    slope[i] = held * parameters[i]!
  }
  return { loss, slope }
}

/** Lets `running` searches that know nothing of each other be answered together: when all that still run have asked, all are answered. */
function inStep(running: number, evaluate: (asked: ReadonlyMap<number, Parameters>) => Promise<ReadonlyMap<number, Answer>>) {
  let waiting = new Map<number, { parameters: Parameters; resolve(answer: Answer): void; reject(error: unknown): void }>()
  const answerWhenAllAsked = () => {
    if (running === 0 || waiting.size < running) return
    const round = waiting
    waiting = new Map()
    evaluate(new Map([...round].map(([j, { parameters }]) => [j, parameters]))).then(
      answers => {
        for (const [j, { resolve }] of round) resolve(answers.get(j)!)
      },
      error => {
        for (const { reject } of round.values()) reject(error)
      },
    )
  }
  return {
    at: (j: number, parameters: Parameters) =>
      new Promise<Answer>((resolve, reject) => {
        waiting.set(j, { parameters, resolve, reject })
        answerWhenAllAsked()
      }),
    done: () => {
      running--
      answerWhenAllAsked()
    },
  }
}
