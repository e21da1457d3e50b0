/**
 * Many heads on the same features at once, each taught by other pictures: what cross-validation needs. One product of all features with the weights of
 * all heads does the work of each step, which keeps the processor busy where a single head waits for memory: 15 heads cost about as much as two.
 *
 * Each head minimises what fitLogisticRegression minimises, for one C, with two differences that cost nothing where every class has pictures:
 * the features are standardised over all rows (no label is looked at), and biases are held back a little, so that the bias of a class that a head never
 * sees stays finite.
 */
import { add, compile, gradient, input, logSoftmax, matMul, mul, neg, reduceSum, reshape } from '../engine/index.ts'
import { Failure } from '../failure.ts'
import { minimise, type Parameters, standardisation, standardised } from './logistic-regression.ts'

export interface ManyHeadsTask {
  /** [n, width], row-major, raw. */
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
  iterations?: number
  signal?: AbortSignal | undefined
  /** Called after each batch of heads. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

/** Penalty of a squared bias: a class without pictures ends near a probability of 1 in 1,000. */
const biasPenalty = 1e-4
/** Numbers that one product may give: 64 MB. More heads than fit are done one batch after the other. */
const largestProduct = 16e6

/** Logits [n, classes] of each head for all rows. @throws bad_scores, shape_mismatch */
export async function fitManyHeads(task: ManyHeadsTask): Promise<Float32Array[]> {
  const { features, width, labels, classes, weights } = task
  const n = labels.length
  checkFeatures(features, width, n)
  const x = standardised(features, standardisation(features, width))
  const targets = new Float32Array(n * classes)
  for (let i = 0; i < n; i++) targets[i * classes + labels[i]!] = 1
  const each = Math.max(1, Math.min(weights.length, Math.floor(largestProduct / (n * classes))))
  const results: Float32Array[] = []
  for (let from = 0; from < weights.length; from += each) {
    results.push(...(await fitBatch(task, x, targets, weights.slice(from, from + each))))
    task.onProgress?.(results.length, weights.length)
  }
  return results
}

function checkFeatures(features: Float32Array, width: number, n: number): void {
  const what = 'the features'
  if (features.length !== n * width)
    throw new Failure('shape_mismatch', { operation: what, a: `[${features.length}]`, b: `[${n}, ${width}]` })
  const bad = features.findIndex(value => !Number.isFinite(value))
  if (bad >= 0)
    throw new Failure('bad_scores', { what, problem: `picture ${Math.floor(bad / width)} has ${features[bad]} at feature ${bad % width}` })
}

async function fitBatch(
  { width, classes, labels, c, threads, tolerance = 1e-5, iterations = 100, signal }: ManyHeadsTask,
  features: Float32Array,
  targets: Float32Array,
  weights: readonly Float32Array[],
): Promise<Float32Array[]> {
  const n = labels.length
  const heads = weights.length
  const share = new Float32Array(n * heads)
  const learned = weights.map(weight => weight.reduce((sum, w) => sum + w, 0))
  for (let j = 0; j < heads; j++) for (let i = 0; i < n; i++) share[i * heads + j] = weights[j]![i]! / learned[j]!

  const x = input('x', [n, width])
  const y = input('y', [n, 1, classes])
  const s = input('s', [n, heads])
  const w = input('w', [heads * classes, width])
  const b = input('b', [heads * classes])
  const logits = reshape(add(matMul(x, w, { transposeB: true }), b), [n, heads, classes])
  const terms = mul(neg(reduceSum(mul(logSoftmax(logits), y), [2])), s)
  const slopes = gradient(reduceSum(terms, [0, 1]), [w, b])
  const step = await compile({ terms, w: slopes.get(w)!, b: slopes.get(b)! }, new Map(), { threads })
  const weight = new Float32Array(heads * classes * width)
  const bias = new Float32Array(heads * classes)

  const evaluate = async (asked: ReadonlyMap<number, Parameters>) => {
    signal?.throwIfAborted()
    for (const [j, parameters] of asked) {
      weight.set(parameters.subarray(0, classes * width), j * classes * width)
      bias.set(parameters.subarray(classes * width), j * classes)
    }
    const out = await step.run({ x: features, y: targets, s: share, w: weight, b: bias })
    const each = out['terms'] as Float32Array
    return new Map(
      [...asked].map(([j, parameters]) => {
        const penalty = 1 / (c * learned[j]!)
        let loss = 0
        for (let i = 0; i < n; i++) loss += each[i * heads + j]!
        const slope = new Float64Array(parameters.length)
        slope.set((out['w'] as Float32Array).subarray(j * classes * width, (j + 1) * classes * width))
        slope.set((out['b'] as Float32Array).subarray(j * classes, (j + 1) * classes), classes * width)
        for (let i = 0; i < parameters.length; i++) {
          const held = i < classes * width ? penalty : biasPenalty
          loss += (held / 2) * parameters[i]! * parameters[i]!
          slope[i]! += held * parameters[i]!
        }
        return [j, { loss, slope }]
      }),
    )
  }
  try {
    const ask = inStep(heads, evaluate)
    await Promise.all(
      weights.map((_, j) =>
        minimise(new Float64Array(classes * (width + 1)), at => ask.at(j, at), { tolerance, iterations }).then(({ parameters }) => {
          weight.set(parameters.subarray(0, classes * width), j * classes * width)
          bias.set(parameters.subarray(classes * width), j * classes)
          ask.done()
        }),
      ),
    )
  } finally {
    await step.close()
  }
  const answer = await compile({ logits }, new Map(), { threads })
  try {
    const all = (await answer.run({ x: features, w: weight, b: bias }))['logits'] as Float32Array
    return weights.map((_, j) => {
      const own = new Float32Array(n * classes)
      for (let i = 0; i < n; i++) own.set(all.subarray((i * heads + j) * classes, (i * heads + j + 1) * classes), i * classes)
      return own
    })
  } finally {
    await answer.close()
  }
}

type Answer = { loss: number; slope: Float64Array }

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
