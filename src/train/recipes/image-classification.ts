/**
 * From labelled pictures to an honest, deployable classifier:
 * features of every picture → what belongs together → split → choices on training and validation pictures → head on the features →
 * fine-tune the whole network → keep the better on validation → calibrate → one ONNX file → test it, once → look back at the labels.
 */
import { join } from 'node:path'
import { z } from 'zod'
import type { Facts } from '../../data/facts.ts'
import { type PreparedPictures, preparePictures } from '../../data/features.ts'
import { splitDataset } from '../../data/split.ts'
import type { Weights } from '../../engine/index.ts'
import { percent, score } from '../../evaluate/index.ts'
import { falseAlarms } from '../../evaluate/unknown.ts'
import { decodePicture } from '../../images/decode.ts'
import type { Answer, Classifier } from '../../models/artefact.ts'
import { type Backbone, backbone as backboneById } from '../../models/catalogue.ts'
import type {
  DatasetReference,
  Device,
  Fit,
  Manifest,
  ModelVersion,
  RecipeEvent,
  RunReporter,
  Side,
  Split,
  TrainResult,
} from '../../sdk/index.ts'
import { writeFileAtomic } from '../../storage/disk.ts'
import { lookBack } from '../afterwards.ts'
import { makeArtefact, weightsOf } from '../artefact.ts'
import { rowsOf } from '../choices/evidence.ts'
import { type Belonging, findBelonging } from '../copies.ts'
import { decideAlterations, decideClassWeights, decideFit, headOrFineTune } from '../decide.ts'
import { type Decisions, openDecisions } from '../decisions.ts'
import { type FineTuned, type FineTuneSettings, fineTune, interrupted } from '../finetune.ts'
import { featuresRate } from '../forecast.ts'
import { fitHead, type Head } from '../head.ts'
import type { Plan } from '../plan.ts'
import { writeReport } from '../report.ts'

// ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const Settings = z.strictObject({
  /** Name of the model to register. */
  name: z.string(),
  backbone: z.string(),
  /** An earlier model to go on from instead of the published weights: name@version, or the path of a file that is not in the registry. */
  from: z.string().nullable(),
  /** A file of pretrained weights for the backbone (.safetensors, .pth) in place of the published ones. */
  weights: z.string().nullable(),
  imageSize: z.int().min(32).max(512),
  /** null: as many as `budgetSeconds` allows, or `defaultEpochs`. */
  epochs: z.int().min(0).max(1000).nullable(),
  /** Wall-clock limit for the whole training, import included. */
  budgetSeconds: z.number().positive().nullable(),
  /** Pictures whose paths give this pattern the same text belong together. */
  groupBy: z.string().nullable().default(null),
  /** Whether every class weighs alike; auto: where it pays. */
  classWeights: z.enum(['auto', 'none', 'balanced']).default('auto'),
  seed: z.int().min(0),
  threads: z.int().positive(),
})
export type Settings = z.infer<typeof Settings>

const fineTuneSettings: Omit<FineTuneSettings, 'seed' | 'batchSize'> = {
  peakLearningRate: 5e-4,
  headScale: 3,
  stemScale: 0.5,
  weightDecay: 0.01,
  labelSmoothing: 0.1,
  warmUp: 0.3,
  augmentation: { flip: true, shift: 0.07, zoom: 0.1, light: 0.1 },
  patience: 3,
  checkpointSeconds: 15,
}
export const batchSize = 16
/** Of the labels that look wrong; all of them are in mislabels.json. */
const mislabelsInResult = 100

/** About 350 optimiser steps, but every picture at least three times and at most twenty. */
export const defaultEpochs = (trainPictures: number): number => Math.min(Math.max(Math.round((350 * batchSize) / trainPictures), 3), 20)

/** As many epochs as fit into so many seconds, but one at least. */
export const epochsWithin = (seconds: number, secondsPerEpoch: number): number =>
  Math.min(Math.max(Math.floor(seconds / secondsPerEpoch), 1), 50)

/** Small pictures gain nothing from a large input, and a step costs with the square of the side. */
export function defaultImageSize(manifest: Pick<Manifest, 'rows'>): number {
  const sides = manifest.rows.map(row => Math.min(row.width, row.height)).sort((a, b) => a - b)
  const median = sides[sides.length >> 1] ?? 224
  return median <= 64 ? 96 : median <= 128 ? 128 : 160
}

// ── the recipe ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Context {
  run: RunReporter
  settings: Settings
  device: Device
  dataset: DatasetReference
  manifest: Manifest
  /** What is known of each picture by looking at it; filled where something is missing. */
  facts: Facts
  /** Seconds already spent on the import, for the budget and the total. */
  secondsBefore: number
  plan: Plan
  /** The file of `settings.from`. */
  from: string | null
  /** With `from`: which side the earlier model's pictures were on, by pixel digest; null where that is not known. */
  earlier?: ReadonlyMap<string, Side> | null
  /** Folder of the feature caches. */
  featuresFolder: string
  commit: string | null
  version: string
  blob(content: string): Promise<Uint8Array>
  /** Copies the file into the registry as the next version; asked twice for one run, it answers the same version twice. */
  register(model: { file: string; labels: string[]; accuracy: ModelVersion['accuracy'] }): Promise<ModelVersion>
  say(event: RecipeEvent): void
  /** Aborted: it stops at the next step, with all that is needed to go on. */
  signal: AbortSignal
}

/** What is known from the beginning, for every part. */
export interface Work extends Context {
  base: Backbone
  /** Of the backbone, before it learns. */
  weights: Weights
  classes: readonly string[]
  labelOf(row: number): number
  decisions: Decisions
  /** Seconds since the import began. */
  elapsed(): number
}

/** throws interrupted when `signal` is aborted */
export async function trainImageClassifier(context: Context): Promise<TrainResult> {
  const open: { close(): void | Promise<void> }[] = []
  try {
    return await steps(context, open)
  } catch (error) {
    throw context.signal.aborted && error === context.signal.reason ? interrupted(context.run) : error
  } finally {
    for (const each of open.reverse()) await each.close()
  }
}

/** What is opened is put into `open`, for whoever asks to close. */
async function steps(context: Context, open: { close(): void | Promise<void> }[]): Promise<TrainResult> {
  const { run, settings, manifest, say, dataset } = context
  const began = performance.now()
  const base = backboneById(settings.backbone)
  const number = new Map(manifest.classes.map((label, k) => [label, k]))
  const labels = Int32Array.from(manifest.rows, row => number.get(row.labels[0]!)!)
  const work: Work = {
    ...context,
    base,
    weights: context.from
      ? await weightsOf(context.from, base)
      : await base.loadWeights(settings.weights ? { file: settings.weights } : {}),
    classes: manifest.classes,
    labelOf: row => labels[row]!,
    decisions: await openDecisions(run.directory),
    elapsed: () => context.secondsBefore + (performance.now() - began) / 1000,
  }

  say({ kind: 'stage', title: 'Looking at every picture once' })
  let pictures = await prepare(work, 'crop', open)
  const belonging = await findTogether(work, pictures)
  const { groups, nameOf } = belonging
  const split = splitDataset(manifest, {
    seed: settings.seed,
    dataset: dataset.digest,
    groups,
    ...(context.earlier !== undefined && { earlier: context.earlier }),
  })
  await writeFileAtomic(join(run.directory, 'split.json'), JSON.stringify(split))
  const { fit, choices: fitChoices } = await decideFit(work, pictures, split, groups)
  if (fit !== 'crop') pictures = await prepare(work, fit, open)

  say({ kind: 'stage', title: 'Fitting a head on the untouched network' })
  const { head, logShares, choices } = await stageA(work, pictures, split, groups)
  const safe = settings.epochs === 0 ? null : await decideAlterations(work, fineTuneSettings.augmentation, pictures, split, groups)
  const tuned = safe && (await fineTuneNetwork(work, head, logShares, safe.augmentation, pictures, split))
  const chosen = tuned && isBetter(tuned, head) ? 'finetune' : 'head'

  say({ kind: 'stage', title: 'Learning how sure it may be, and what it does not know' })
  const winner = chosen === 'finetune' ? tuned! : { weights: work.weights, head }
  const artefact = await makeArtefact({ ...work, backbone: base, winner, tuned: chosen === 'finetune', fit, pictures, split, groups })
  const { classifier, calibration } = artefact
  open.push(classifier)

  say({ kind: 'stage', title: 'Testing, once, on pictures it has never seen' })
  const answers = await answersOf(work, classifier, split.test)
  const test = score({
    labels: manifest.classes,
    truth: Int32Array.from(split.test, work.labelOf),
    probabilities: answers.map(({ probabilities }) => probabilities),
    trainTruth: Int32Array.from(split.train, work.labelOf),
    linearProbeProbabilities: head.probabilities(rowsOf(pictures.features, pictures.width, split.test)),
    paths: split.test.map(row => manifest.rows[row]!.path),
    groups: split.test.map(row => nameOf[row]!),
    origins: split.test.map(row => manifest.rows[row]!),
    calibration,
  })
  const unknown = artefact.unknown && {
    ...artefact.unknown,
    falseAlarmsOnTest: falseAlarms(
      answers.map(({ distance }) => distance),
      artefact.unknown.threshold,
    ),
  }

  say({ kind: 'stage', title: 'Looking back at the labels' })
  const { mislabels, ...besides } = await lookBack({
    ...work,
    pictures,
    labels,
    groups,
    copies: belonging.copies.samePicture,
    seed: settings.seed,
    threads: settings.threads,
  })
  await writeFileAtomic(join(run.directory, 'mislabels.json'), JSON.stringify(mislabels))

  const { n, accuracy, low, high } = test
  const model = await context.register({ file: artefact.file, labels: manifest.classes, accuracy: { n, accuracy, low, high } })
  const result: TrainResult = {
    run: run.run.run,
    ...(tuned?.resumedFrom && { resumedFrom: { step: tuned.resumedFrom } }),
    model: { name: model.name, version: model.version, path: model.path, labels: model.labels },
    dataset: {
      ...dataset,
      images: manifest.rows.length,
      classes: manifest.classes.length,
      unreadable: manifest.unreadable.map(({ path, reason }) => ({ path, reason })),
      exactDuplicates: manifest.exactDuplicates,
      split: { train: split.train.length, validation: split.validation.length, test: split.test.length },
    },
    test: { ...test, ...besides },
    ...(unknown && { unknown }),
    mislabels: { ...mislabels, listed: mislabels.listed.slice(0, mislabelsInResult) },
    choices: [
      ...fitChoices,
      ...choices,
      ...(safe?.choices ?? []),
      ...(tuned ? [headOrFineTune(tuned, head, chosen, logShares !== null)] : []),
    ],
    chosen,
    validation: { head: head.validationAccuracy, finetune: tuned?.validationAccuracy ?? null },
    device: context.device,
    seconds: Math.round(work.elapsed() * 10) / 10,
    forecastSeconds: Math.round(context.plan.seconds),
    report: join(run.directory, 'report.html'),
  }
  const notes = [...split.notes, ...belonging.copies.notes, ...calibration.notes, ...artefact.notes]
  await writeReport({
    ...work,
    result,
    split,
    tuned,
    augmentation: safe?.augmentation ?? null,
    fit,
    pictures,
    calibration,
    classifier,
    notes,
  })
  await run.logMetrics(tuned?.steps ?? 0, {
    'test/accuracy': accuracy,
    'test/linear_probe': test.linearProbe!,
    ...ratesOf(work, pictures, tuned),
    'memory/peak_bytes': process.resourceUsage().maxRSS * 1024,
  })
  await writeFileAtomic(join(run.directory, 'result.json'), JSON.stringify(result))
  return result
}

/** What the next forecast learns from this training. */
function ratesOf({ plan, elapsed, secondsBefore }: Work, { computed }: PreparedPictures, tuned: FineTuned | null): Record<string, number> {
  const { work, expected } = plan
  const inOneGo = tuned !== null && tuned.resumedFrom === null
  return {
    ...(tuned?.secondsPerStep && {
      'finetune/seconds_per_step': tuned.secondsPerStep,
      'rate/step': (work.multiplyAdds * batchSize) / (tuned.secondsPerStep * work.threads),
    }),
    ...(computed.rows === work.pictures && computed.rows > 200 && { 'rate/features': featuresRate(work, computed.seconds) }),
    ...(inOneGo && { 'rate/besides': (elapsed() - secondsBefore - computed.seconds - tuned.seconds) / expected.besides }),
  }
}

// ── features and what belongs together ──────────────────────────────────────────────────────────────────────────────────────

async function prepare(work: Work, fit: Fit, open: { close(): void | Promise<void> }[]): Promise<PreparedPictures> {
  const { settings, dataset, manifest, base, say, signal } = work
  const pictures = await preparePictures({
    folder: work.featuresFolder,
    dataset: dataset.digest,
    rows: manifest.rows,
    blob: work.blob,
    backbone: base,
    weights: work.weights,
    side: settings.imageSize,
    fit,
    threads: settings.threads,
    onProgress: (done, total) => say({ kind: 'progress', label: 'features', done, total, unit: 'pictures' }),
    stopRequested: () => signal.aborted,
  })
  open.push(pictures)
  signal.throwIfAborted()
  return pictures
}

async function findTogether(work: Work, pictures: PreparedPictures): Promise<Belonging> {
  const { settings, dataset, manifest, facts, blob, say, run, signal } = work
  const belonging = await findBelonging({
    manifest,
    dataset: dataset.digest,
    groupBy: settings.groupBy,
    facts,
    features: { values: pictures.features, width: pictures.width },
    blob,
    file: join(run.directory, 'copies.json'),
    seed: settings.seed,
    signal,
    onProgress: (done, total, what) => say({ kind: 'progress', label: what, done, total, unit: 'pictures' }),
  })
  if (belonging.sentence) say({ kind: 'note', text: belonging.sentence })
  return belonging
}

// ── stage A and stage B ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** A head on the features, classes weighing as was decided. */
async function stageA(work: Work, pictures: PreparedPictures, split: Split, groups: readonly number[][]) {
  const { settings, classes, labelOf, say, run, elapsed } = work
  const plain = await fitHead(pictures, split, labelOf, classes.length, settings.threads)
  const { head, logShares, choices } = await decideClassWeights(work, pictures, split, groups, plain)
  await run.logMetrics(0, { 'head/validation_accuracy': head.validationAccuracy })
  say({
    kind: 'note',
    text: `First number after ${elapsed().toFixed(0)} s: ${percent(head.validationAccuracy)} on ${split.validation.length} validation pictures (the test pictures stay closed until the end).`,
  })
  return { head, logShares, choices }
}

/** On an equal score the simpler one stays. */
const isBetter = (tuned: FineTuned, head: Head) => tuned.validationScore > head.validationScore + 1e-9

/** Everything learns, gently below, faster above. */
async function fineTuneNetwork(
  work: Work,
  head: Head,
  logShares: Float64Array | null,
  augmentation: FineTuneSettings['augmentation'],
  pictures: PreparedPictures,
  split: Split,
): Promise<FineTuned> {
  const { run, settings, say, signal, base, weights, labelOf, elapsed } = work
  say({ kind: 'stage', title: 'Fine-tuning the whole network' })
  const { budgetSeconds } = settings
  const withinBudget = (secondsPerEpoch: number) =>
    epochsWithin(budgetSeconds! - elapsed() - work.plan.expected.after, secondsPerEpoch * 1.1)
  const tuned = await fineTune({
    backbone: base,
    weights,
    head,
    classes: head.bias.length,
    pictures,
    labelOf,
    logShares,
    train: split.train,
    validation: split.validation,
    settings: { ...fineTuneSettings, augmentation, seed: settings.seed, batchSize },
    threads: settings.threads,
    epochs: settings.epochs ?? (budgetSeconds ? withinBudget : defaultEpochs(split.train.length)),
    run,
    stopRequested: () => signal.aborted,
    onProgress: ({ step, steps, epoch, epochs, loss, accuracy }) =>
      say({
        kind: 'progress',
        label: `epoch ${epoch}/${epochs}`,
        done: step,
        total: steps,
        unit: 'steps',
        note: `loss ${loss.toFixed(3)}${accuracy === null ? '' : `, validation ${percent(accuracy)}`}`,
      }),
  })
  say({
    kind: 'note',
    text: `Validation: head alone ${percent(head.validationAccuracy)}, fine-tuned ${percent(tuned.validationAccuracy)} (epoch ${tuned.epoch} of ${tuned.epochs}).`,
  })
  return tuned
}

// ── the test ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Through the very file that is deployed. */
async function answersOf({ manifest, blob, say, signal }: Work, classifier: Classifier, rows: readonly number[]): Promise<Answer[]> {
  const answers: Answer[] = []
  for (const [i, row] of rows.entries()) {
    signal.throwIfAborted()
    const picture = await decodePicture(await blob(manifest.rows[row]!.content), { formats: 'local' })
    answers.push(...(await classifier.answer([picture])))
    say({ kind: 'progress', label: 'test', done: i + 1, total: rows.length, unit: 'pictures' })
  }
  return answers
}
