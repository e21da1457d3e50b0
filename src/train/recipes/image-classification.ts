/**
 * From labelled pictures to an honest, deployable classifier:
 * features of every picture → split → head on the features → fine-tune the whole network → keep the better on validation →
 * calibrate → one ONNX file → test it, once.
 */
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { type PreparedPictures, preparePictures } from '../../data/features.ts'
import { splitDataset } from '../../data/split.ts'
import type { Weights } from '../../engine/index.ts'
import { calibrate, percent, renderReport, reportJson, score } from '../../evaluate/index.ts'
import { Failure } from '../../failure.ts'
import { decodePicture } from '../../images/decode.ts'
import { encodePng, thumbnail } from '../../images/encode.ts'
import { composeArtefact, openArtefact, readArtefact, recordGolden } from '../../models/artefact.ts'
import { type Backbone, backbone as backboneById } from '../../models/catalogue.ts'
import { fitLogisticRegression, type LogisticRegression } from '../../models/logistic-regression.ts'
import type {
  ArtefactMetadata,
  DatasetReference,
  Device,
  Evaluation,
  Manifest,
  ModelVersion,
  RecipeEvent,
  RunReporter,
  Side,
  Split,
  TrainResult,
} from '../../sdk/index.ts'
import { writeFileAtomic } from '../../storage/disk.ts'
import { type FineTuned, type FineTuneSettings, fineTune, headBias, headWeight, interrupted, logitsOf } from '../finetune.ts'

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
const goldenPictures = 8
const goldenSide = 256

/** About 350 optimiser steps, but every picture at least three times and at most twenty. */
export const defaultEpochs = (trainPictures: number): number => Math.min(Math.max(Math.round((350 * batchSize) / trainPictures), 3), 20)

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
  /** Seconds already spent on the import, for the budget and the total. */
  secondsBefore: number
  forecastSeconds: number
  plan: readonly string[]
  /** Of one picture's forward pass, for the rates that the next forecast uses. */
  multiplyAdds: number
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
  stopRequested(): boolean
}

export async function trainImageClassifier(context: Context): Promise<TrainResult> {
  const { run, settings, manifest, say } = context
  const began = performance.now()
  const elapsed = () => context.secondsBefore + (performance.now() - began) / 1000
  const base = backboneById(settings.backbone)
  const weights = context.from
    ? await weightsOf(context.from, base)
    : await base.loadWeights(settings.weights ? { file: settings.weights } : {})
  const { classes } = manifest
  const labelOf = (row: number) => classes.indexOf(manifest.rows[row]!.labels[0]!)
  const truth = (rows: readonly number[]) => Int32Array.from(rows, labelOf)

  say({ kind: 'stage', title: 'Looking at every picture once' })
  const pictures = await preparePictures({
    folder: context.featuresFolder,
    dataset: context.dataset.digest,
    rows: manifest.rows,
    blob: context.blob,
    backbone: base,
    weights,
    side: settings.imageSize,
    threads: settings.threads,
    onProgress: (done, total) => say({ kind: 'progress', label: 'features', done, total, unit: 'pictures' }),
    stopRequested: context.stopRequested,
  })
  try {
    if (context.stopRequested()) throw interrupted(run)
    const split = splitDataset(manifest, {
      seed: settings.seed,
      dataset: context.dataset.digest,
      ...(context.earlier !== undefined && { earlier: context.earlier }),
    })
    await writeFileAtomic(join(run.directory, 'split.json'), JSON.stringify(split))

    say({ kind: 'stage', title: 'Fitting a head on the untouched network' })
    const head = await fitHead(pictures, split, truth, classes.length, settings.threads)
    await run.logMetrics(0, { 'head/validation_accuracy': head.validationAccuracy })
    say({
      kind: 'note',
      text: `First number after ${elapsed().toFixed(0)} s: ${percent(head.validationAccuracy)} on ${split.validation.length} validation pictures (the test pictures stay closed until the end).`,
    })

    const tuned = settings.epochs === 0 ? null : await fineTuneNetwork(context, base, weights, head, pictures, split, labelOf, elapsed)
    const chosen = tuned && isBetter(tuned, head, split.validation.length) ? 'finetune' : 'head'

    say({ kind: 'stage', title: 'Testing, once, on pictures it has never seen' })
    const winner = chosen === 'finetune' ? tuned! : { weights, head }
    const { classifier, file, calibration } = await makeArtefact(context, base, winner, pictures, split, truth)
    const probabilities: Float32Array[] = []
    try {
      for (const [i, row] of split.test.entries()) {
        const picture = await decodePicture(await context.blob(manifest.rows[row]!.content), { formats: 'local' })
        probabilities.push(...(await classifier.classify([picture])))
        say({ kind: 'progress', label: 'test', done: i + 1, total: split.test.length, unit: 'pictures' })
      }
    } finally {
      await classifier.close()
    }
    const test = score({
      labels: classes,
      truth: truth(split.test),
      probabilities,
      trainTruth: truth(split.train),
      linearProbeProbabilities: head.probabilities(featureRows(pictures, split.test)),
      paths: split.test.map(row => manifest.rows[row]!.path),
      calibration,
    })

    const { n, accuracy, low, high } = test
    const model = await context.register({ file, labels: classes, accuracy: { n, accuracy, low, high } })
    const result: TrainResult = {
      run: run.run.run,
      ...(tuned?.resumedFrom && { resumedFrom: { step: tuned.resumedFrom } }),
      model: { name: model.name, version: model.version, path: model.path, labels: model.labels },
      dataset: {
        ...context.dataset,
        images: manifest.rows.length,
        classes: classes.length,
        unreadable: manifest.unreadable.map(({ path, reason }) => ({ path, reason })),
        exactDuplicates: manifest.exactDuplicates,
        split: { train: split.train.length, validation: split.validation.length, test: split.test.length },
      },
      test,
      chosen,
      validation: { head: head.validationAccuracy, finetune: tuned?.validationAccuracy ?? null },
      device: context.device,
      seconds: Math.round(elapsed() * 10) / 10,
      forecastSeconds: context.forecastSeconds,
      report: join(run.directory, 'report.html'),
    }
    await writeReport(context, result, test, split, tuned, calibration)
    await run.logMetrics(tuned?.steps ?? 0, {
      'test/accuracy': accuracy,
      'test/linear_probe': test.linearProbe!,
      ...(tuned?.secondsPerStep && {
        'finetune/seconds_per_step': tuned.secondsPerStep,
        'rate/step': (context.multiplyAdds * batchSize) / (tuned.secondsPerStep * settings.threads),
      }),
      ...(pictures.computed.rows > 200 && {
        'rate/features': (context.multiplyAdds * pictures.computed.rows) / (pictures.computed.seconds * settings.threads),
      }),
      'memory/peak_bytes': process.resourceUsage().maxRSS * 1024,
    })
    await writeFileAtomic(join(run.directory, 'result.json'), JSON.stringify(result))
    return result
  } finally {
    pictures.close()
  }
}

/** Stage A: logistic regression on the untouched network's features; also the baseline that fine-tuning has to beat. */
function fitHead(
  pictures: PreparedPictures,
  split: Split,
  truth: (rows: readonly number[]) => Int32Array,
  classes: number,
  threads: number,
): Promise<LogisticRegression> {
  const side = (rows: readonly number[]) => ({ features: featureRows(pictures, rows), labels: truth(rows) })
  return fitLogisticRegression({ train: side(split.train), validation: side(split.validation), width: pictures.width, classes, threads })
}

/** Stage B: everything learns, gently below, faster above. */
async function fineTuneNetwork(
  { run, settings, say, stopRequested }: Context,
  backbone: Backbone,
  weights: Weights,
  head: LogisticRegression,
  pictures: PreparedPictures,
  split: Split,
  labelOf: (row: number) => number,
  elapsed: () => number,
): Promise<FineTuned> {
  say({ kind: 'stage', title: 'Fine-tuning the whole network' })
  const { budgetSeconds } = settings
  const reserve = 6 + split.test.length * 0.01 // for calibration, the test and the report
  const withinBudget = (secondsPerEpoch: number) =>
    Math.min(Math.max(Math.floor((budgetSeconds! - elapsed() - reserve) / (secondsPerEpoch * 1.1)), 1), 50)
  const tuned = await fineTune({
    backbone,
    weights,
    head,
    classes: head.bias.length,
    pictures,
    labelOf,
    train: split.train,
    validation: split.validation,
    settings: { ...fineTuneSettings, seed: settings.seed, batchSize },
    threads: settings.threads,
    epochs: settings.epochs ?? (budgetSeconds ? withinBudget : defaultEpochs(split.train.length)),
    run,
    stopRequested,
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

/** On equal accuracy the simpler one stays. */
const isBetter = (tuned: FineTuned, head: LogisticRegression, n: number) =>
  Math.round(tuned.validationAccuracy * n) > Math.round(head.validationAccuracy * n)

// ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function makeArtefact(
  context: Context,
  backbone: Backbone,
  winner: { weights: Weights; head: { weight: Float32Array; bias: Float32Array } },
  pictures: PreparedPictures,
  split: Split,
  truth: (rows: readonly number[]) => Int32Array,
) {
  const { settings, manifest, run } = context
  const classes = manifest.classes.length
  const complete: Weights = new Map([...winner.weights, [headWeight, winner.head.weight], [headBias, winner.head.bias]])
  const logits = await logitsOf({ backbone, classes, pictures, threads: settings.threads }, complete, split.validation)
  const calibration = calibrate(logits, truth(split.validation), classes)
  const metadata: Omit<ArtefactMetadata, 'golden' | 'modelSizeTensor' | 'schema'> = {
    labels: manifest.classes,
    temperature: calibration.temperature,
    threshold: calibration.threshold,
    backbone: backbone.id,
    imageSize: settings.imageSize,
    lineage: {
      run: run.run.run,
      dataset: context.dataset,
      parent: settings.from && basename(settings.from), // of a path, not where on this machine it lies
      plinth: context.version,
      commit: context.commit,
      created: new Date().toISOString(),
    },
    licence: backbone.licence,
  }
  const bytes = composeArtefact({ backbone, weights: winner.weights, head: winner.head, metadata })
  const golden = await Promise.all(
    split.validation.slice(0, goldenPictures).map(async row => {
      const small = await thumbnail(await context.blob(manifest.rows[row]!.content), goldenSide)
      return encodePng(await decodePicture(small, { formats: 'local' }))
    }),
  )
  const finished = await recordGolden(bytes, golden, png => decodePicture(png, { formats: 'upload' }))
  const file = join(run.directory, 'model.onnx')
  await writeFileAtomic(file, finished)
  return { file, calibration, classifier: await openArtefact(finished, { threads: settings.threads }) }
}

/** A backbone's weights out of an earlier model of ours. */
async function weightsOf(file: string, backbone: Backbone): Promise<Weights> {
  const { model, metadata } = readArtefact(await readFile(file))
  if (metadata.backbone !== backbone.id)
    throw new Failure('usage', { problem: `${file} was made with ${metadata.backbone}, not ${backbone.id}`, command: 'train' })
  return new Map(
    model.graph.initializers.flatMap(tensor => (tensor.data instanceof Float32Array ? [[tensor.name, tensor.data] as const] : [])),
  )
}

// ── the report ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function writeReport(
  { run, manifest, blob, plan, settings }: Context,
  result: TrainResult,
  evaluation: Evaluation,
  split: Split,
  tuned: FineTuned | null,
  calibration: { threshold: number; notes: string[] },
): Promise<void> {
  const contentOf = new Map(manifest.rows.map(row => [row.path, row.content]))
  const examples = manifest.classes.flatMap(label => {
    const row = split.train.find(index => manifest.rows[index]!.labels[0] === label)
    return row === undefined ? [] : [{ path: manifest.rows[row]!.path, label }]
  })
  const page = await renderReport({
    title: result.model.name,
    result,
    evaluation,
    classes: manifest.classes,
    notes: [...split.notes, ...calibration.notes],
    plan,
    pictures: async path => {
      const content = contentOf.get(path)
      if (!content) return null
      return `data:image/webp;base64,${Buffer.from(await thumbnail(await blob(content), 240)).toString('base64')}`
    },
    examples: examples.slice(0, 24),
    history: tuned?.history ?? [],
    conflicts: manifest.conflicts,
    threshold: calibration.threshold,
    reproduce: [
      `plinth train ${result.dataset.name}@${result.dataset.version} --name ${settings.name} --seed ${settings.seed} --image-size ${settings.imageSize} --epochs ${tuned?.epochs ?? 0} --backbone ${settings.backbone} --threads ${settings.threads}${settings.from ? ` --from ${settings.from}` : ''}${settings.weights ? ` --weights ${settings.weights}` : ''}`,
    ],
  })
  await writeFileAtomic(result.report, page)
  await writeFileAtomic(join(run.directory, 'evaluation.json'), reportJson(evaluation))
}

function featureRows({ features, width }: PreparedPictures, rows: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * width)
  for (const [i, row] of rows.entries()) out.set(features.subarray(row * width, (row + 1) * width), i * width)
  return out
}
