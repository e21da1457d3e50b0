/**
 * Which alterations of training pictures are safe here. A mirrored shoe is a shoe, but a mirrored arrow to the left is an arrow to the right, and a
 * network that is shown it under the old label learns to tell nothing apart. So that is tried: heads that learn from pictures *and* their altered copies
 * against heads that learn from the pictures alone, both asked about pictures they have not seen. Where the copies do harm beyond luck, the alteration is
 * switched off. (Where answers to altered pictures go is no evidence alone: an untrained head gets shaky, and with two classes shaky looks like exchanged.)
 */
import type { FeatureNetwork, PreparedPictures } from '../../data/features.ts'
import { groupedFolds } from '../../data/folds.ts'
import { scaled, usualStrength } from '../../evaluate/out-of-fold.ts'
import { percent, points, quoted } from '../../evaluate/verdicts.ts'
import { fitManyHeads } from '../../models/many-heads.ts'
import { type Alteration, type Augmentation, alter } from '../augment.ts'
import { type Choice, count, meanDifference, rowsOf, type Sample, sampleOf } from './evidence.ts'

/** Pictures that each alteration is tried on. */
export const sampleSize = (classes: number): number => Math.min(Math.max(200, 8 * classes), 600)
/** Classes that are tried; the largest, where there are more. */
const mostClasses = 75
const folds = 5
/** What harm must be at least, in accuracy, besides being beyond luck. */
const smallestHarm = 0.02

export interface AugmentationQuestion {
  augmentation: Augmentation
  /** With the features of the untouched network, which is `network`. */
  pictures: Pick<PreparedPictures, 'read' | 'side' | 'features'>
  network: FeatureNetwork
  labels: readonly string[]
  labelOf(row: number): number
  /** Rows of the training and validation sides. */
  among: readonly number[]
  groups: readonly (readonly number[])[]
  seed: number
  threads: number
  signal?: AbortSignal
}

/** What an alteration does at its strongest, as `alter` wants it; two kinds for those that go both ways. */
const strongest: Record<keyof Augmentation, { name: string; done: string; how(limit: number): Partial<Alteration>[] }> = {
  flip: { name: 'mirror', done: 'mirrored', how: () => [{ flip: true }] },
  shift: {
    name: 'shift',
    done: 'shifted',
    how: limit => [
      { dx: limit, dy: limit },
      { dx: -limit, dy: -limit },
      { dx: limit, dy: -limit },
      { dx: -limit, dy: limit },
    ],
  },
  zoom: { name: 'zoom', done: 'zoomed', how: limit => [{ zoom: 1 + limit }, { zoom: 1 - limit }] },
  light: {
    name: 'light',
    done: 'in another light',
    how: limit => [
      { brightness: limit, contrast: 1 + limit },
      { brightness: -limit, contrast: 1 - limit },
    ],
  },
}

type Tried = Sample & {
  /** Of the classes in it. */
  names: string[]
}

export interface SafeAugmentation {
  /** With what is not safe switched off. */
  augmentation: Augmentation
  choices: Choice[]
}

export async function chooseAugmentation(question: AugmentationQuestion): Promise<SafeAugmentation> {
  const { augmentation } = question
  const sample = sampled(question)
  const plain = rowsOf(question.pictures.features, question.network.width, sample.rows)
  const safe: Augmentation = { ...augmentation }
  const choices: Choice[] = []
  const kept: string[] = []
  for (const [kind, { name, done, how }] of Object.entries(strongest) as [keyof Augmentation, (typeof strongest)['flip']][]) {
    const limit = Number(augmentation[kind])
    if (limit === 0) continue
    const ways = how(limit)
    const altered = await featuresOf(question, sample, i => ways[i % ways.length]!)
    const { without, with: withCopies, harm, exchanged } = await learnFromBoth(question, sample, plain, altered)
    const right = `${percent(without, 0)} without such copies, ${percent(withCopies, 0)} with them`
    if (harm.low <= 0 || harm.mean < smallestHarm) {
      kept.push(`${name} ${points(-harm.mean)}`)
      continue
    }
    if (kind === 'flip') safe.flip = false
    else safe[kind] = 0
    const example =
      exchanged &&
      `, and of ${exchanged.n} pictures of ${quoted(sample.names[exchanged.from]!)} ${exchanged.count} are taken for ${quoted(sample.names[exchanged.to]!)} when they are ${done}`
    choices.push({
      what: `augmentation: ${name}`,
      chosen: 'off',
      sentence: `Training pictures are not ${done}, because that changes what they show: right on unseen pictures ${right}${example ?? ''}.`,
    })
  }
  if (kept.length > 0)
    choices.push({
      what: 'augmentation',
      chosen: (Object.keys(strongest) as (keyof Augmentation)[])
        .filter(kind => Number(safe[kind]) !== 0)
        .map(kind => strongest[kind].name)
        .join(', '),
      sentence: `Training pictures are altered a little each time they are shown. That is safe here: a head that learns from altered copies too answers as well on ${count(sample.rows.length)} unseen pictures, within luck (${kept.join(', ')}).`,
    })
  return { augmentation: safe, choices }
}

/** [rows of the sample, width] */
async function featuresOf(
  { pictures, network, signal }: AugmentationQuestion,
  { rows }: Sample,
  alteration: (i: number) => Partial<Alteration>,
) {
  const { side } = pictures
  const size = 3 * side * side
  const original = new Uint8Array(size)
  const squares = new Uint8Array(rows.length * size)
  for (const [i, row] of rows.entries()) {
    pictures.read(row, original)
    alter(original, side, squares, i * size, { flip: false, dx: 0, dy: 0, zoom: 1, brightness: 0, contrast: 1, ...alteration(i) })
  }
  signal?.throwIfAborted()
  return network.features(squares)
}

/** Heads by folds on the pictures alone, and on pictures and altered copies; a copy is in its picture's fold, and nobody is asked about copies. */
async function learnFromBoth(
  { network, seed, threads, signal }: AugmentationQuestion,
  sample: Tried,
  plain: Float32Array,
  altered: Float32Array,
) {
  const n = sample.rows.length
  const classes = sample.names.length
  const fold = groupedFolds({ ...sample, folds, seed })
  const features = new Float32Array(plain.length + altered.length)
  features.set(plain)
  features.set(altered, plain.length)
  const learning = (copies: boolean) =>
    Array.from({ length: folds }, (_, held) =>
      Float32Array.from({ length: 2 * n }, (_, i) => Number(fold[i % n] !== held && (i < n || copies))),
    )
  const heads = await fitManyHeads({
    features: scaled(features, network.width, 2 * n),
    width: network.width,
    labels: Int32Array.from({ length: 2 * n }, (_, i) => sample.labels[i % n]!),
    classes,
    weights: [...learning(false), ...learning(true)],
    c: usualStrength,
    iterations: 30, // enough to tell harm from none
    threads,
    signal,
  })
  /** What the heads, of the five that begin at `first`, say to pictures and copies that they have not seen. */
  const answersOf = async (first: number) => {
    const logits = await heads.logits(Int32Array.from({ length: 2 * n }, (_, i) => first + fold[i % n]!))
    return Int32Array.from({ length: 2 * n }, (_, i) => {
      const row = logits.subarray(i * classes, (i + 1) * classes)
      return row.indexOf(Math.max(...row))
    })
  }
  const right = (given: Int32Array) => Float64Array.from(given, (answer, i) => Number(answer === sample.labels[i]))
  const alone = await answersOf(0)
  const withCopies = await answersOf(folds)
  const [without, both] = [right(alone.subarray(0, n)), right(withCopies.subarray(0, n))]
  const harm = meanDifference(
    without.map((share, i) => share - both[i]!),
    sample,
    { seed },
  )
  const mean = (shares: Float64Array) => shares.reduce((sum, share) => sum + share, 0) / n
  return {
    without: mean(without),
    with: mean(both),
    harm,
    exchanged: mostExchanged(alone.subarray(0, n), alone.subarray(n), sample.labels),
  }
}

/** The class that loses the largest part of its right answers to one other, when altered; null where none loses half. */
function mostExchanged(before: Int32Array, after: Int32Array, labels: Int32Array) {
  let worst: { from: number; to: number; count: number; n: number } | null = null
  const right = [...labels.keys()].filter(i => before[i] === labels[i])
  for (const [from, own] of Map.groupBy(right, i => labels[i]!)) {
    const moved = Map.groupBy(
      own.filter(i => after[i] !== from),
      i => after[i]!,
    )
    for (const [to, members] of moved)
      if (2 * members.length > own.length && (!worst || members.length * worst.n > worst.count * own.length))
        worst = { from, to, count: members.length, n: own.length }
  }
  return worst
}

/** As many of each class; labels are numbered anew, without the classes that are left out. */
function sampled({ labels, labelOf, among, groups, seed }: AugmentationQuestion): Tried {
  const ofClass = [...Map.groupBy(among, labelOf)].sort(([, a], [, b]) => b.length - a.length).slice(0, mostClasses)
  const each = Math.ceil(sampleSize(labels.length) / ofClass.length)
  const rows = ofClass.flatMap(([, own], k) => sampleOf(own, labelOf, [], each, seed * 1000 + k).rows)
  const number = new Map(ofClass.map(([label], k) => [label, k]))
  const sample = sampleOf(rows, row => number.get(labelOf(row))!, groups, rows.length, seed)
  return { ...sample, names: ofClass.map(([label]) => labels[label]!) }
}
