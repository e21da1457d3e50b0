/**
 * Fine-tuning of a whole backbone with a new head, one optimiser step at a time.
 * Everything that decides what the next step does (weights, moments, step, schedule, the runtime's kernel choices) is in the
 * checkpoint, and every random draw depends on (seed, epoch, picture) alone: a killed training goes on bit for bit.
 */
import { join } from 'node:path'
import type { PreparedPictures } from '../data/features.ts'
import {
  adamW,
  add,
  compile,
  constant,
  createTrainer,
  div,
  input,
  logSoftmax,
  matMul,
  mul,
  type Node,
  neg,
  parameter,
  readCheckpoint,
  reduceSum,
  scalar,
  type Trainer,
  type Weights,
  writeCheckpoint,
} from '../engine/index.ts'
import { permutation, randomFrom } from '../engine/random.ts'
import type { EpochRecord } from '../evaluate/index.ts'
import { Failure } from '../failure.ts'
import { normalise } from '../models/artefact-format.ts'
import type { Backbone } from '../models/catalogue.ts'
import type { RunReporter } from '../sdk/index.ts'
import { type Augmentation, augment } from './augment.ts'
import { oneCycle } from './schedule.ts'

export const headWeight = 'plinth.head.weight'
export const headBias = 'plinth.head.bias'

export interface FineTuneSettings {
  seed: number
  batchSize: number
  peakLearningRate: number
  /** Head's learning rate as a multiple of the last block's. */
  headScale: number
  /** The stem's learning rate as a multiple of the last block's; blocks between follow geometrically. */
  stemScale: number
  weightDecay: number
  labelSmoothing: number
  warmUp: number
  augmentation: Augmentation
  /** Epochs without a better validation loss before it stops. */
  patience: number
  checkpointSeconds: number
}

export interface FineTuneTask {
  backbone: Backbone
  /** Backbone weights to start from. */
  weights: Weights
  head: { weight: Float32Array; bias: Float32Array }
  classes: number
  pictures: PreparedPictures
  /** Class index of a picture. */
  labelOf(row: number): number
  /** Logarithm of each class's share of the training pictures, where classes weigh alike: it is added back inside the loss (choices/class-weights.ts). */
  logShares: Float64Array | null
  train: readonly number[]
  validation: readonly number[]
  settings: FineTuneSettings
  threads: number
  /** Number of epochs, or how to decide it from the measured seconds of one; asked once, kept in the checkpoint. */
  epochs: number | ((secondsPerEpoch: number) => number)
  run: RunReporter
  stopRequested(): boolean
  onProgress(progress: { step: number; steps: number; epoch: number; epochs: number; loss: number; accuracy: number | null }): void
}

/**
 * What the report shows of an epoch, with what decides: the score picks the best epoch, the loss when to stop.
 * Score: accuracy, or balanced accuracy where classes weigh alike; the loss weighs pictures in the same way.
 */
type ScoredEpoch = EpochRecord & { validationScore: number; validationLoss: number }
export interface FineTuned {
  weights: Weights
  head: { weight: Float32Array; bias: Float32Array }
  /** Of the best epoch. */
  epoch: number
  validationAccuracy: number
  validationScore: number
  validationLoss: number
  history: ScoredEpoch[]
  epochs: number
  steps: number
  resumedFrom: number | null
  secondsPerStep: number
  /** Of the whole, in this process. */
  seconds: number
}

/** Kept in the checkpoint beside the tensors. */
interface Progress {
  epochs: number
  history: ScoredEpoch[]
  /** Sum of the losses of the current epoch so far. */
  lossSum: number
  bestEpoch: number
  choices: Trainer['choices']
}

const checkpointFile = (directory: string) => join(directory, 'checkpoint.safetensors')
const bestFile = (directory: string) => join(directory, 'best.safetensors')

export async function fineTune(task: FineTuneTask): Promise<FineTuned> {
  const { settings, run, train } = task
  const began = performance.now()
  const saved = await readCheckpoint<Progress>(checkpointFile(run.directory))
  const trainer = await createTrainer({ ...trainingGraph(task), threads: task.threads, ...(saved && { choices: saved.manifest.choices }) })
  try {
    if (saved) trainer.restore(saved.state)
    const perEpoch = Math.ceil(train.length / settings.batchSize)
    const epochs = saved?.manifest.epochs ?? (await decideEpochs(task, trainer, perEpoch))
    const progress: Progress = saved?.manifest ?? { epochs, history: [], lossSum: 0, bestEpoch: -1, choices: trainer.choices }
    const schedule = {
      steps: epochs * perEpoch,
      peak: settings.peakLearningRate,
      warmUp: settings.warmUp,
      startDivisor: 25,
      endDivisor: 1e4,
    }
    const resumedFrom = saved && saved.state.step > 0 ? saved.state.step : null
    const save = async () => {
      await writeCheckpoint(checkpointFile(run.directory), trainer.state(), progress)
      await run.recordCheckpoint(trainer.steps)
      lastSave = performance.now()
    }

    let lastSave = performance.now() - settings.checkpointSeconds * 1000 + 2000 // the first one soon: a kill in the first minute loses little
    let stepTime = 0
    let stepsTimed = 0
    while (trainer.steps < schedule.steps && !shouldStop(progress.history, settings.patience)) {
      const epoch = Math.floor(trainer.steps / perEpoch)
      const order = permutation(train.length, randomFrom(settings.seed, 1, epoch))
      for (let at = trainer.steps - epoch * perEpoch; at < perEpoch; at++) {
        const began = performance.now()
        const batch = order.slice(at * settings.batchSize, (at + 1) * settings.batchSize).map(i => train[i]!)
        const { loss } = await trainer.step(batchOf(task, batch, epoch), { learningRate: oneCycle(schedule, trainer.steps) })
        if (!Number.isFinite(loss)) throw new Failure('loss_not_finite', { loss: String(loss), step: trainer.steps })
        progress.lossSum += loss
        stepTime += performance.now() - began
        stepsTimed++
        await run.logMetrics(trainer.steps, { 'train/loss': loss })
        task.onProgress({
          step: trainer.steps,
          steps: schedule.steps,
          epoch: epoch + 1,
          epochs,
          loss: progress.lossSum / (at + 1),
          accuracy: progress.history.at(-1)?.validationAccuracy ?? null,
        })
        const last = at === perEpoch - 1
        if (task.stopRequested() && !last) {
          await save()
          throw interrupted(run)
        }
        if (!last && performance.now() - lastSave > settings.checkpointSeconds * 1000) await save()
      }
      const reached = trainer.weights()
      const scored = await scoreValidation(task, reached)
      progress.history.push({ epoch: epoch + 1, trainLoss: progress.lossSum / perEpoch, ...scored })
      progress.lossSum = 0
      if (isBest(progress.history)) {
        progress.bestEpoch = epoch + 1
        await writeCheckpoint(bestFile(run.directory), { step: trainer.steps, tensors: asTensors(reached) }, null)
      }
      await run.logMetrics(trainer.steps, {
        'validation/accuracy': scored.validationAccuracy,
        'validation/loss': scored.validationLoss,
        epoch: epoch + 1,
      })
      await save()
      if (task.stopRequested()) throw interrupted(run)
    }

    const best = await readCheckpoint<null>(bestFile(run.directory))
    const record = progress.history.find(({ epoch }) => epoch === progress.bestEpoch)
    if (!best || !record) throw new Failure('internal', { problem: 'fine-tuning ended without a scored epoch' })
    const weights = new Map([...best.state.tensors].map(([name, tensor]) => [name, tensor.data]))
    const head = { weight: weights.get(headWeight)!, bias: weights.get(headBias)! }
    weights.delete(headWeight)
    weights.delete(headBias)
    return {
      weights,
      head,
      epoch: record.epoch,
      validationAccuracy: record.validationAccuracy,
      validationScore: record.validationScore,
      validationLoss: record.validationLoss,
      history: progress.history,
      epochs,
      steps: trainer.steps,
      resumedFrom,
      secondsPerStep: stepsTimed ? stepTime / stepsTimed / 1000 : 0,
      seconds: (performance.now() - began) / 1000,
    }
  } finally {
    await trainer.close()
  }
}

/** What a training that was asked to stop ends with, after its checkpoint. */
export const interrupted = (run: RunReporter) => new Failure('interrupted', { next: `Go on with: plinth train --resume ${run.run.run}` })

/** Loss over soft targets: −Σ target · log softmax. A row of zeros (padding of the last batch) adds nothing. */
function trainingGraph({ backbone, weights, head, classes, logShares, pictures, settings }: FineTuneTask) {
  const images = input('pictures', [settings.batchSize, 3, pictures.side, pictures.side], 'uint8')
  const targets = input('targets', [settings.batchSize, classes])
  const answers = classify(backbone, images, classes)
  const logits = logShares ? add(answers, constant(Float32Array.from(logShares), [classes])) : answers
  const loss = div(neg(reduceSum(mul(logSoftmax(logits), targets), [0, 1])), scalar(settings.batchSize))
  const start: Weights = new Map(weights).set(headWeight, head.weight).set(headBias, head.bias)
  const optimizer = adamW({
    weightDecay: settings.weightDecay,
    scaleOf: name => (name.startsWith('plinth.head.') ? settings.headScale : settings.stemScale ** (1 - backbone.depthOf(name))),
    decays: name => !name.endsWith('.bias') && !isNormalisation(name, start),
  })
  return { loss, weights: start, optimizer }
}

export function classify(backbone: Backbone, images: Node, classes: number): Node {
  const { features } = backbone.build(normalise(images, backbone))
  const weight = parameter(headWeight, [classes, backbone.features])
  return add(matMul(features, weight, { transposeB: true }), parameter(headBias, [classes]))
}

/** A norm's scale has a running mean beside it. */
const isNormalisation = (name: string, weights: Weights) => weights.has(name.replace(/\.weight$/, '.running_mean'))

function batchOf(task: FineTuneTask, rows: readonly number[], epoch: number) {
  const { classes, pictures, settings } = task
  const size = 3 * pictures.side * pictures.side
  const images = new Uint8Array(settings.batchSize * size)
  const targets = new Float32Array(settings.batchSize * classes)
  const original = new Uint8Array(size)
  const smoothed = smoothedOver(task)
  const whole = settings.batchSize / rows.length // a short last batch weighs as much as its pictures
  for (const [i, row] of rows.entries()) {
    pictures.read(row, original)
    augment(original, pictures.side, images, i * size, randomFrom(settings.seed, 2, epoch, row), settings.augmentation)
    for (let k = 0; k < classes; k++) targets[i * classes + k] = settings.labelSmoothing * smoothed[k]! * whole
    targets[i * classes + task.labelOf(row)]! += (1 - settings.labelSmoothing) * whole
  }
  return { pictures: images, targets }
}

/**
 * Where label smoothing puts what it takes from the label: on all classes alike, or by their shares where the loss adds these back. Alike would then
 * ask of a common picture that a rare class be as probable as a common one, which takes a higher answer for the rare class than for the right one.
 */
export function smoothedOver({ classes, logShares }: Pick<FineTuneTask, 'classes' | 'logShares'>): Float64Array {
  const spread = logShares ? Float64Array.from(logShares, Math.exp) : new Float64Array(classes).fill(1)
  const whole = spread.reduce((sum, share) => sum + share, 0)
  return spread.map(share => share / whole)
}

/** Logits [rows, classes] of pictures as they are, without augmentation. */
export async function logitsOf(
  task: Pick<FineTuneTask, 'backbone' | 'classes' | 'pictures' | 'threads'>,
  weights: Weights,
  rows: readonly number[],
): Promise<Float32Array> {
  const batch = 16
  const size = 3 * task.pictures.side * task.pictures.side
  const images = input('pictures', [batch, 3, task.pictures.side, task.pictures.side], 'uint8')
  const program = await compile({ logits: classify(task.backbone, images, task.classes) }, weights, { threads: task.threads })
  const logits = new Float32Array(rows.length * task.classes)
  try {
    for (let at = 0; at < rows.length; at += batch) {
      const part = rows.slice(at, at + batch)
      const feed = new Uint8Array(batch * size)
      for (const [i, row] of part.entries()) task.pictures.read(row, feed, i * size)
      const out = await program.run({ pictures: feed })
      logits.set((out['logits'] as Float32Array).subarray(0, part.length * task.classes), at * task.classes)
    }
  } finally {
    await program.close()
  }
  return logits
}

async function scoreValidation(task: FineTuneTask, weights: Weights) {
  const { validation, classes, labelOf, logShares } = task
  const logits = await logitsOf(task, weights, validation)
  const truth = validation.map(labelOf)
  const share = shares(truth, logShares !== null)
  let [correct, score, loss] = [0, 0, 0]
  for (const [i, label] of truth.entries()) {
    const z = logits.subarray(i * classes, (i + 1) * classes)
    const highest = Math.max(...z)
    const right = Number(z.indexOf(highest) === label)
    correct += right
    score += right * share(label)
    loss += (highest + Math.log(z.reduce((sum, v) => sum + Math.exp(v - highest), 0)) - z[label]!) * share(label)
  }
  const validationAccuracy = correct / validation.length
  return { validationAccuracy, validationScore: logShares ? score : validationAccuracy, validationLoss: loss }
}

/** How much a picture of a class counts: all alike, or every class alike. Over all pictures they add up to 1. */
export function shares(truth: readonly number[], balanced: boolean): (label: number) => number {
  if (!balanced) return () => 1 / truth.length
  const counts = Map.groupBy(truth, label => label)
  return label => 1 / (counts.size * counts.get(label)!.length)
}

/** Better = the higher score; among equals the lower loss. */
function isBest(history: readonly ScoredEpoch[]): boolean {
  const last = history.at(-1)!
  return history
    .slice(0, -1)
    .every(
      h =>
        last.validationScore > h.validationScore || (last.validationScore === h.validationScore && last.validationLoss < h.validationLoss),
    )
}

function shouldStop(history: readonly ScoredEpoch[], patience: number): boolean {
  const best = history.reduce((low, h, i) => (h.validationLoss < history[low]!.validationLoss ? i : low), 0)
  return history.length > 0 && history.length - 1 - best >= patience
}

/** Times a few steps and takes them back. */
async function decideEpochs(task: FineTuneTask, trainer: Trainer, perEpoch: number): Promise<number> {
  if (typeof task.epochs === 'number') return task.epochs
  const before = trainer.state()
  const rows = task.train.slice(0, task.settings.batchSize)
  let fastest = Infinity
  for (let i = 0; i < 4; i++) {
    const began = performance.now()
    await trainer.step(batchOf(task, rows, 0), { learningRate: 0 })
    if (i > 0) fastest = Math.min(fastest, (performance.now() - began) / 1000)
  }
  trainer.restore(before)
  return task.epochs(fastest * perEpoch)
}

const asTensors = (weights: Weights) => new Map([...weights].map(([name, data]) => [name, { shape: [data.length], data }]))
