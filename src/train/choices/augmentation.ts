/**
 * Which alterations of training pictures are safe here. A mirrored shoe is a shoe, but a mirrored arrow to the left is an arrow to the right, and a
 * network that is shown it under the old label learns to tell nothing apart. So each alteration is tried on pictures that the head gets right: where
 * the altered pictures of a class are mostly taken for one and the same other class, it carries meaning and is switched off. Answers that merely get
 * shaky are no reason: that is what a network becomes robust to by seeing such pictures.
 */
import type { FeatureNetwork, PreparedPictures } from '../../data/features.ts'
import { permutation, randomFrom } from '../../engine/random.ts'
import { percent, quoted } from '../../evaluate/verdicts.ts'
import type { LogisticRegression } from '../../models/logistic-regression.ts'
import { type Alteration, type Augmentation, alter } from '../augment.ts'
import type { Choice } from './evidence.ts'

/** Pictures that each alteration is tried on. */
const mostPictures = 200
/** Of one class at least so many must move to one other before it is called a pattern, and more than this share of it. */
const fewestMoved = 3
const mostOfAClass = 0.5

export interface AugmentationQuestion {
  augmentation: Augmentation
  pictures: Pick<PreparedPictures, 'read' | 'side'>
  network: FeatureNetwork
  head: Pick<LogisticRegression, 'probabilities'>
  labels: readonly string[]
  labelOf(row: number): number
  validation: readonly number[]
  /** Taken where validation has too few: an altered picture is one that the head has not seen either. */
  train: readonly number[]
  seed: number
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

export interface SafeAugmentation {
  /** With what is not safe switched off. */
  augmentation: Augmentation
  choices: Choice[]
}

export async function chooseAugmentation(question: AugmentationQuestion): Promise<SafeAugmentation> {
  const { augmentation, pictures, network, head, labels, labelOf, signal } = question
  const size = 3 * pictures.side * pictures.side
  const rows = sampled(question)
  const classes = labels.length
  const answersTo = async (alteration: (i: number) => Partial<Alteration>) => {
    const squares = new Uint8Array(rows.length * size)
    const original = new Uint8Array(size)
    for (const [i, row] of rows.entries()) {
      pictures.read(row, original)
      alter(original, pictures.side, squares, i * size, {
        flip: false,
        dx: 0,
        dy: 0,
        zoom: 1,
        brightness: 0,
        contrast: 1,
        ...alteration(i),
      })
    }
    signal?.throwIfAborted()
    const probabilities = head.probabilities(await network.features(squares))
    return rows.map((_, i) => {
      const row = probabilities.subarray(i * classes, (i + 1) * classes)
      return row.indexOf(Math.max(...row))
    })
  }

  const before = await answersTo(() => ({}))
  const right = rows.flatMap((row, i) => (before[i] === labelOf(row) ? [i] : []))
  const safe: Augmentation = { ...augmentation }
  const choices: Choice[] = []
  const kept: string[] = []
  for (const [kind, { name, done, how }] of Object.entries(strongest) as [keyof Augmentation, (typeof strongest)['flip']][]) {
    const limit = Number(augmentation[kind])
    if (limit === 0) continue
    const ways = how(limit)
    const after = await answersTo(i => ways[i % ways.length]!)
    const moved = systematicMove(
      right.map(i => ({ from: before[i]!, to: after[i]! })),
      classes,
    )
    const stay = right.filter(i => after[i] === before[i]).length
    if (moved === null) {
      kept.push(`${done} ${percent(stay / Math.max(1, right.length), 0)}`)
      continue
    }
    if (kind === 'flip') safe.flip = false
    else safe[kind] = 0
    const { from, to, count, n } = moved
    choices.push({
      what: `augmentation: ${name}`,
      chosen: 'off',
      sentence: `Training pictures are not ${done}: of ${n} pictures of ${quoted(labels[from]!)} that the head gets right, ${count} are taken for ${quoted(labels[to]!)} when they are ${done}. It changes what the picture shows.`,
    })
  }
  if (kept.length > 0)
    choices.push({
      what: 'augmentation',
      chosen: Object.entries(strongest)
        .filter(([kind]) => Number(safe[kind as keyof Augmentation]) !== 0)
        .map(([, { name }]) => name)
        .join(', '),
      sentence: `Training pictures are altered a little each time they are shown. Tried on ${right.length} pictures that the head gets right, no class went over to another; the answer stayed the same: ${kept.join(', ')}.`,
    })
  return { augmentation: safe, choices }
}

/** Of the class that loses most of its pictures to one other, if that is a pattern. */
function systematicMove(answers: readonly { from: number; to: number }[], classes: number) {
  let worst: { from: number; to: number; count: number; n: number } | null = null
  for (const [from, own] of Map.groupBy(answers, answer => answer.from)) {
    const counts = new Int32Array(classes)
    for (const { to } of own) if (to !== from) counts[to]!++
    const to = counts.indexOf(Math.max(...counts))
    const found = { from, to, count: counts[to]!, n: own.length }
    if (found.count < fewestMoved || found.count <= mostOfAClass * found.n) continue
    if (!worst || found.count / found.n > worst.count / worst.n) worst = found
  }
  return worst
}

/** One of each class in turn, validation first. */
function sampled({ validation, train, labelOf, seed }: AugmentationQuestion): number[] {
  const shuffled = [validation, train].flatMap((rows, side) => permutation(rows.length, randomFrom(seed, 5, side)).map(i => rows[i]!))
  const queues = [...Map.groupBy(shuffled, labelOf).values()]
  const taken: number[] = []
  for (let turn = 0; taken.length < mostPictures && queues.some(queue => turn < queue.length); turn++)
    for (const queue of queues) if (turn < queue.length && taken.length < mostPictures) taken.push(queue[turn]!)
  return taken
}
