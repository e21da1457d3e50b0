/** From the trained network to the one file that is tested, registered and deployed. */
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { openFeatureNetwork, type PreparedPictures } from '../data/features.ts'
import type { Weights } from '../engine/index.ts'
import { type Calibration, calibrate } from '../evaluate/index.ts'
import { type FittedUnknown, fitUnknown } from '../evaluate/unknown.ts'
import { Failure } from '../failure.ts'
import { decodePicture } from '../images/decode.ts'
import { encodePng, thumbnail } from '../images/encode.ts'
import { type Classifier, composeArtefact, openArtefact, readArtefact, recordGolden } from '../models/artefact.ts'
import type { Backbone } from '../models/catalogue.ts'
import type { ArtefactMetadata, DatasetReference, Fit, Manifest, RecipeEvent, RunReporter, Split } from '../sdk/index.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { groupsWithin, rowsOf } from './choices/evidence.ts'
import { headBias, headWeight, logitsOf } from './finetune.ts'

const goldenPictures = 8
const goldenSide = 256
/** Pictures read before they go through the network. */
const batch = 64

export interface ArtefactTask {
  run: RunReporter
  settings: { imageSize: number; threads: number; seed: number; from: string | null }
  dataset: DatasetReference
  manifest: Manifest
  version: string
  commit: string | null
  blob(content: string): Promise<Uint8Array>
  backbone: Backbone
  winner: { weights: Weights; head: { weight: Float32Array; bias: Float32Array } }
  fit: Fit
  pictures: PreparedPictures
  split: Split
  labelOf(row: number): number
  /** Whether the winner's backbone has learned, or is as it came. */
  tuned: boolean
  groups: readonly (readonly number[])[]
  signal: AbortSignal
  say(event: RecipeEvent): void
}

export interface Made {
  file: string
  calibration: Calibration
  unknown: FittedUnknown['unknown']
  /** Of the fit of “none of these”, in sentences for the user. */
  notes: string[]
  classifier: Classifier
}

/** Whoever asks closes the classifier. */
export async function makeArtefact(task: ArtefactTask): Promise<Made> {
  const { settings, manifest, run, backbone, winner, fit, pictures, split, labelOf } = task
  const classes = manifest.classes.length
  const complete: Weights = new Map([...winner.weights, [headWeight, winner.head.weight], [headBias, winner.head.bias]])
  const logits = await logitsOf({ backbone, classes, pictures, threads: settings.threads }, complete, split.validation)
  const calibration = calibrate(logits, Int32Array.from(split.validation, labelOf), classes)
  const known = await fitNoneOfThese(task, calibration.temperature)
  const metadata: Omit<ArtefactMetadata, 'golden' | 'modelSizeTensor' | 'schema' | 'unknown'> = {
    labels: manifest.classes,
    temperature: calibration.temperature,
    threshold: calibration.threshold,
    backbone: backbone.id,
    imageSize: settings.imageSize,
    fit,
    lineage: {
      run: run.run.run,
      dataset: task.dataset,
      parent: settings.from && basename(settings.from), // of a path, not where on this machine it lies
      plinth: task.version,
      commit: task.commit,
      created: new Date().toISOString(),
    },
    licence: backbone.licence,
  }
  const bytes = composeArtefact({ backbone, weights: winner.weights, head: winner.head, unknown: known.parts, metadata })
  const golden = await Promise.all(
    split.validation.slice(0, goldenPictures).map(async row => {
      const small = await thumbnail(await task.blob(manifest.rows[row]!.content), goldenSide)
      return encodePng(await decodePicture(small, { formats: 'local' }))
    }),
  )
  const finished = await recordGolden(bytes, golden, png => decodePicture(png, { formats: 'upload' }))
  const file = join(run.directory, 'model.onnx')
  await writeFileAtomic(file, finished)
  return {
    file,
    calibration,
    unknown: known.unknown,
    notes: known.notes,
    classifier: await openArtefact(finished, { threads: settings.threads }),
  }
}

/** How far a picture is from everything the model knows, measured by the winner's own features of training and validation pictures. */
async function fitNoneOfThese(task: ArtefactTask, temperature: number): Promise<FittedUnknown> {
  const { split, pictures, manifest, labelOf, groups, settings, winner, tuned, signal, say } = task
  const rows = [...split.train, ...split.validation]
  const untouched = rowsOf(pictures.features, pictures.width, rows)
  return fitUnknown({
    features: tuned ? await featuresOf(task, rows) : untouched,
    width: pictures.width,
    labels: Int32Array.from(rows, labelOf),
    classes: manifest.classes,
    groups: groupsWithin(groups, rows),
    head: winner.head,
    temperature,
    fresh: split.validation.map((_, i) => split.train.length + i),
    ...(tuned && { untouched }),
    seed: settings.seed,
    threads: settings.threads,
    signal,
    onProgress: (done, total) => say({ kind: 'progress', label: 'none of these', done, total, unit: 'tries' }),
  })
}

async function featuresOf({ backbone, winner, pictures, settings, signal }: ArtefactTask, rows: readonly number[]): Promise<Float32Array> {
  const { side, width } = pictures
  const network = await openFeatureNetwork({ backbone, weights: winner.weights, side, threads: settings.threads })
  const out = new Float32Array(rows.length * width)
  const size = 3 * side * side
  try {
    for (let at = 0; at < rows.length; at += batch) {
      signal.throwIfAborted()
      const part = rows.slice(at, at + batch)
      const squares = new Uint8Array(part.length * size)
      for (const [i, row] of part.entries()) pictures.read(row, squares, i * size)
      out.set(await network.features(squares), at * width)
    }
  } finally {
    await network.close()
  }
  return out
}

/** A backbone's weights out of an earlier model of ours. */
export async function weightsOf(file: string, backbone: Backbone): Promise<Weights> {
  const { model, metadata } = readArtefact(await readFile(file))
  if (metadata.backbone !== backbone.id)
    throw new Failure('usage', { problem: `${file} was made with ${metadata.backbone}, not ${backbone.id}`, command: 'train' })
  return new Map(
    model.graph.initializers.flatMap(tensor => (tensor.data instanceof Float32Array ? [[tensor.name, tensor.data] as const] : [])),
  )
}
