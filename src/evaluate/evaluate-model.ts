/** Models against one set of labelled pictures, through the very files that are deployed. */
import { Failure } from '../failure.ts'
import { decodePicture } from '../images/decode.ts'
import type { Answer, Classifier } from '../models/artefact.ts'
import type { Evaluation, Manifest, Seen, Side } from '../sdk/index.ts'
import { groupedShare } from './grouped.ts'
import { agreements, answers, probabilityTable } from './metrics.ts'
import { score } from './score.ts'

export interface Pictures {
  manifest: Manifest
  blob(content: string): Promise<Uint8Array>
  signal: AbortSignal
  onProgress(done: number, total: number): void
}

/**
 * What a model learned from: by pixel digest, the side each picture was on when it, and those it went on from, were made; `copy`: the
 * same picture, edited, as one on the training or validation side. null = not known.
 */
export type Learned = ReadonlyMap<string, Side | 'copy'> | null

export interface ModelEvaluation extends Pictures {
  classifier: Classifier
  /** Labels of the pictures it was trained on, for the majority baseline; null = unknown, then the set's own labels stand in. */
  trainTruth: readonly string[] | null
  learned: Learned
}

/** What the model said of each picture, whether that was right, and what follows. `seen` null: which pictures it learned from is not known.
 * Throws classes_unknown where the set has classes that the model does not know. */
export async function evaluateModel({ classifier, trainTruth, learned, ...pictures }: ModelEvaluation): Promise<{
  evaluation: Evaluation
  seen: Seen | null
  answers: Answer[]
  right: boolean[]
}> {
  const { manifest } = pictures
  const { labels, temperature } = classifier.metadata
  const strangers = manifest.classes.filter(label => !labels.includes(label))
  if (strangers.length) throw new Failure('classes_unknown', { strangers: strangers.join(', '), labels: labels.join(', ') })
  const [answers] = (await answersTo([classifier], pictures)) as [Answer[]]
  const probabilities = answers.map(answer => answer.probabilities)
  const truth = truthOf(manifest, labels)
  const groups = manifest.rows.map(row => row.group)
  const evaluation = score({
    labels,
    truth,
    probabilities,
    trainTruth: trainTruth?.map(label => labels.indexOf(label)) ?? truth,
    linearProbeProbabilities: null,
    paths: manifest.rows.map(row => row.path),
    groups,
    origins: manifest.rows,
    calibration: { temperature },
  })
  const right = rightOf(answers, truth, labels.length)
  return { evaluation, seen: learned && seenAmong(manifest, right, learned), answers, right }
}

/** [model][picture] → what that model says. Each picture is read and decoded once, however many models look at it. */
export async function answersTo(
  classifiers: readonly Classifier[],
  { manifest: { rows }, blob, signal, onProgress }: Pictures,
): Promise<Answer[][]> {
  const said = classifiers.map((): Answer[] => [])
  const batch = 16
  for (let at = 0; at < rows.length; at += batch) {
    signal.throwIfAborted()
    const pictures = await Promise.all(
      rows.slice(at, at + batch).map(async row => decodePicture(await blob(row.content), { formats: 'local' })),
    )
    for (const [model, classifier] of classifiers.entries()) said[model]!.push(...(await classifier.answer(pictures)))
    onProgress(at + pictures.length, rows.length)
  }
  return said
}

/** Number of each picture's label among `labels`; −1 for a class that is not there. */
export const truthOf = ({ rows }: Manifest, labels: readonly string[]): Int32Array =>
  Int32Array.from(rows, row => labels.indexOf(row.labels[0]!))

export function rightOf(said: readonly Answer[], truth: Int32Array, classes: number): boolean[] {
  const probabilities = said.map(answer => answer.probabilities)
  return agreements(truth, answers(probabilityTable(probabilities, classes, 'the answers')))
}

/** How many of the pictures the model has met when it was made, and its score on the others. */
export function seenAmong({ rows }: Manifest, right: readonly boolean[], learned: NonNullable<Learned>): Seen {
  const on = (side: Side | 'copy') => rows.filter(row => learned.get(row.pixels) === side).length
  const fresh = [...rows.keys()].filter(row => (learned.get(rows[row]!.pixels) ?? 'test') === 'test')
  const without = () => {
    const { share, low, high } = groupedShare(
      fresh.map(row => right[row]!),
      fresh.map(row => rows[row]!.group),
    )
    return { n: fresh.length, accuracy: share, low, high }
  }
  return { trained: on('train'), chosenOn: on('validation'), copies: on('copy'), without: fresh.length === 0 ? null : without() }
}
