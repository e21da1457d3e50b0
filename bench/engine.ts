/**
 * The engine against PyTorch and against the bare runtime, in one run on one machine.
 *
 *     npm run peers && npm run bench:engine        (about three minutes)
 *
 * A fine-tuning step is forward, backward and AdamW over all layers with frozen batch statistics, batch 16. Features are the frozen backbone
 * alone. Rounds of the contestants alternate and the fastest of each counts: other work on the machine only ever makes a round slower, so
 * the ratios hold where the milliseconds do not. Ratio = their time / ours; above 1 means Plinth is faster.
 */
import { cpus } from 'node:os'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import {
  adamW,
  add,
  compile,
  createTrainer,
  div,
  encodeModel,
  input,
  logSoftmax,
  matMul,
  mul,
  type Node,
  neg,
  parameter,
  reduceSum,
  scalar,
  toOnnx,
  topologicalOrder,
  type Weights,
} from '../src/engine/index.ts'
import { backbone } from '../src/models/catalogue.ts'
import { startTorch } from './torch.ts'

const BATCH = 16
const CLASSES = 10
const ROUNDS = 8
const threads = Math.min(2, cpus().length)
const workloads = [
  { network: 'efficientnet-lite0', size: 96 },
  { network: 'efficientnet-lite0', size: 224 },
  { network: 'resnet18', size: 96 },
  { network: 'resnet18', size: 224 },
] as const

const torch = startTorch(threads)
console.log(`${threads} threads, ${cpus()[0]?.model.trim()}, Node ${process.version}, batch ${BATCH}, fastest of ${ROUNDS} rounds\n`)
console.log('network              side  what      Plinth   portable  raw runtime  PyTorch eager      channels last')
for (const { network, size } of workloads) {
  await measureFeatures(network, size)
  await measureStep(network, size)
}
const { peakMegabytes } = await torch.ask({ op: 'memory' })
console.log(
  `\nPeak memory over all of it: Plinth ${Math.round(process.resourceUsage().maxRSS / 1e3)} MB, PyTorch ${Math.round(peakMegabytes!)} MB`,
)
torch.end()

type Contestant = () => Promise<number>

async function measureFeatures(network: string, size: number): Promise<void> {
  const picture = input('x', [BATCH, 3, size, size])
  const { features } = backbone(network).build(picture)
  const weights = randomWeights([features])
  const x = randomNumbers(BATCH * 3 * size * size, 1)
  const program = await compile({ features }, weights, { threads })
  const raw = await InferenceSession.create(encodeModel(toOnnx({ features }, weights, { dynamicBatch: false })), {
    intraOpNumThreads: threads,
  })
  const times = await race({
    plinth: timed(() => program.run({ x })),
    raw: timed(() => raw.run({ x: new Tensor('float32', x, [BATCH, 3, size, size]) })),
    eager: await torchContestant(network, size, 'features', false),
    channelsLast: await torchContestant(network, size, 'features', true),
  })
  print(network, size, 'features', times)
  await Promise.all([program.close(), raw.release()])
}

async function measureStep(network: string, size: number): Promise<void> {
  const base = backbone(network)
  const picture = input('x', [BATCH, 3, size, size])
  const targets = input('targets', [BATCH, CLASSES])
  const head = parameter('head.weight', [CLASSES, base.features])
  const logits = add(matMul(base.build(picture).features, head, { transposeB: true }), parameter('head.bias', [CLASSES]))
  const loss = div(neg(reduceSum(mul(logSoftmax(logits), targets), [0, 1])), scalar(BATCH))
  const weights = randomWeights([loss])
  const feeds = {
    x: randomNumbers(BATCH * 3 * size * size, 1),
    targets: Float32Array.from({ length: BATCH * CLASSES }, (_, i) => (i % CLASSES === Math.floor(i / CLASSES) % CLASSES ? 0.91 : 0.01)),
  }
  const trainer = (lowering: 'auto' | 'portable') => createTrainer({ loss, weights, optimizer: adamW(), threads, lowering })
  const [blocked, portable] = [await trainer('auto'), await trainer('portable')]
  const times = await race({
    plinth: timed(() => blocked.step(feeds, { learningRate: 1e-4 })),
    portable: timed(() => portable.step(feeds, { learningRate: 1e-4 })),
    eager: await torchContestant(network, size, 'train', false),
    channelsLast: await torchContestant(network, size, 'train', true),
  })
  print(network, size, 'step', times)
  await Promise.all([blocked.close(), portable.close()])
}

/** The fastest round of each, after one that does not count. */
async function race<K extends string>(contestants: Record<K, Contestant>): Promise<Record<K, number>> {
  const names = Object.keys(contestants) as K[]
  const best = Object.fromEntries(names.map(name => [name, Number.POSITIVE_INFINITY])) as Record<K, number>
  for (let round = 0; round <= ROUNDS; round++)
    for (const name of names) {
      await contestants[name]() // caches and threads belong to the one that runs now
      const milliseconds = await contestants[name]()
      if (round > 0) best[name] = Math.min(best[name], milliseconds)
    }
  return best
}

function timed(work: () => Promise<unknown>): Contestant {
  return async () => {
    const start = performance.now()
    await work()
    return performance.now() - start
  }
}

async function torchContestant(network: string, size: number, mode: 'train' | 'features', channelsLast: boolean): Promise<Contestant> {
  const id = `${network}-${size}-${mode}-${channelsLast}`
  await torch.ask({ op: 'make', id, network, batch: BATCH, size, classes: CLASSES, mode, channelsLast })
  return async () => (await torch.ask({ op: 'run', id })).milliseconds!
}

function print(
  network: string,
  size: number,
  what: string,
  times: { plinth: number; eager: number; channelsLast: number; raw?: number; portable?: number },
) {
  const ms = (value: number | undefined) => (value === undefined ? '' : `${value.toFixed(0)} ms`)
  const against = (value: number) => `${ms(value)} (${(value / times.plinth).toFixed(2)})`.padStart(15)
  const cells = [ms(times.plinth).padStart(7), ms(times.portable).padStart(9), ms(times.raw).padStart(11)]
  console.log(
    `${network.padEnd(19)} ${String(size).padStart(5)}  ${what.padEnd(8)} ${cells.join('  ')}  ${against(times.eager)}  ${against(times.channelsLast)}`,
  )
}

/** Of a sensible size, so that activations neither vanish nor overflow. */
function randomWeights(outputs: readonly Node[]): Weights {
  const weights = new Map<string, Float32Array>()
  for (const { operation, name, shape } of topologicalOrder(outputs)) {
    if (operation !== 'Parameter') continue
    const count = shape.reduce((product, d) => product * d, 1)
    const fanIn = count / shape[0]!
    const isNorm = shape.length === 1 && !name!.endsWith('.bias') && !name!.endsWith('running_mean')
    weights.set(name!, isNorm ? new Float32Array(count).fill(1) : randomNumbers(count, shape.length === 1 ? 0.01 : Math.sqrt(2 / fanIn)))
  }
  return weights
}

function randomNumbers(count: number, scale: number): Float32Array {
  let state = count % 2147483647
  return Float32Array.from({ length: count }, () => {
    state = (state * 16807 + 1) % 2147483647
    return (state / 2147483647 - 0.5) * 3.46 * scale
  })
}
