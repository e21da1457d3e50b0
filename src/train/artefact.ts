/** From the trained network to the one file that is tested, registered and deployed. */
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { PreparedPictures } from '../data/features.ts'
import type { Weights } from '../engine/index.ts'
import { type Calibration, calibrate } from '../evaluate/index.ts'
import { Failure } from '../failure.ts'
import { decodePicture } from '../images/decode.ts'
import { encodePng, thumbnail } from '../images/encode.ts'
import { type Classifier, composeArtefact, openArtefact, readArtefact, recordGolden } from '../models/artefact.ts'
import type { Backbone } from '../models/catalogue.ts'
import type { ArtefactMetadata, DatasetReference, Fit, Manifest, RunReporter, Split } from '../sdk/index.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { headBias, headWeight, logitsOf } from './finetune.ts'

const goldenPictures = 8
const goldenSide = 256

export interface ArtefactTask {
  run: RunReporter
  settings: { imageSize: number; threads: number; from: string | null }
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
}

/** Whoever asks closes the classifier. */
export async function makeArtefact(task: ArtefactTask): Promise<{ file: string; calibration: Calibration; classifier: Classifier }> {
  const { settings, manifest, run, backbone, winner, fit, pictures, split, labelOf } = task
  const classes = manifest.classes.length
  const complete: Weights = new Map([...winner.weights, [headWeight, winner.head.weight], [headBias, winner.head.bias]])
  const logits = await logitsOf({ backbone, classes, pictures, threads: settings.threads }, complete, split.validation)
  const calibration = calibrate(logits, Int32Array.from(split.validation, labelOf), classes)
  const metadata: Omit<ArtefactMetadata, 'golden' | 'modelSizeTensor' | 'schema'> = {
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
  const bytes = composeArtefact({ backbone, weights: winner.weights, head: winner.head, metadata })
  const golden = await Promise.all(
    split.validation.slice(0, goldenPictures).map(async row => {
      const small = await thumbnail(await task.blob(manifest.rows[row]!.content), goldenSide)
      return encodePng(await decodePicture(small, { formats: 'local' }))
    }),
  )
  const finished = await recordGolden(bytes, golden, png => decodePicture(png, { formats: 'upload' }))
  const file = join(run.directory, 'model.onnx')
  await writeFileAtomic(file, finished)
  return { file, calibration, classifier: await openArtefact(finished, { threads: settings.threads }) }
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
