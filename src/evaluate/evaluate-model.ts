/** One model against one set of labelled pictures, through the very file that is deployed. */
import { Failure } from '../failure.ts'
import { decodePicture } from '../images/decode.ts'
import type { Classifier } from '../models/artefact.ts'
import type { Evaluation, Manifest } from '../sdk/index.ts'
import { score } from './score.ts'

export interface ModelEvaluation {
  classifier: Classifier
  manifest: Manifest
  blob(content: string): Promise<Uint8Array>
  /** Labels of the pictures it was trained on, for the majority baseline; null = unknown, then the set's own labels stand in. */
  trainTruth: readonly string[] | null
  signal: AbortSignal
  onProgress(done: number, total: number): void
}

/** throws classes_unknown where the set has classes that the model does not know */
export async function evaluateModel({ classifier, manifest, blob, trainTruth, signal, onProgress }: ModelEvaluation): Promise<Evaluation> {
  const { labels, temperature } = classifier.metadata
  const strangers = manifest.classes.filter(label => !labels.includes(label))
  if (strangers.length) throw new Failure('classes_unknown', { strangers: strangers.join(', '), labels: labels.join(', ') })
  const probabilities: Float32Array[] = []
  const batch = 16
  for (let at = 0; at < manifest.rows.length; at += batch) {
    signal.throwIfAborted()
    const pictures = await Promise.all(
      manifest.rows.slice(at, at + batch).map(async row => decodePicture(await blob(row.content), { formats: 'local' })),
    )
    probabilities.push(...(await classifier.classify(pictures)))
    onProgress(probabilities.length, manifest.rows.length)
  }
  const index = (label: string) => labels.indexOf(label)
  const truth = manifest.rows.map(row => index(row.labels[0]!))
  return score({
    labels,
    truth,
    probabilities,
    trainTruth: trainTruth?.map(index) ?? truth,
    linearProbeProbabilities: null,
    paths: manifest.rows.map(row => row.path),
    groups: manifest.rows.map(row => row.group),
    origins: manifest.rows,
    calibration: { temperature },
  })
}
