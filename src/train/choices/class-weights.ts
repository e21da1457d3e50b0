/**
 * Whether classes weigh alike although some have many more pictures than others. A network that is trained on uneven classes answers with the common
 * ones when in doubt: right more often, at the cost of the rare. The cure is not to weigh pictures but to take the classes' shares out of the answer:
 * logits minus the logarithm of the share, and in fine-tuning the same shares added back inside the loss (Menon et al. 2021, arXiv 2007.07314).
 * Measured beside weights in the loss of the head (docs/inside/train.md), it finds more of the rare classes and needs no second fit.
 */
import { groupedFolds } from '../../data/folds.ts'
import { scaled, usualStrength } from '../../evaluate/out-of-fold.ts'
import { percent, quoted } from '../../evaluate/verdicts.ts'
import type { LogisticRegression } from '../../models/logistic-regression.ts'
import { fitManyHeads } from '../../models/many-heads.ts'
import { type Choice, count, meanDifference, rowsOf, type Sample, sampleOf } from './evidence.ts'

export type ClassWeights = 'auto' | 'none' | 'balanced'

/** From this ratio of the largest to the smallest class on it is a question. */
const uneven = 3
/** In balanced accuracy; below it nobody would notice. */
const smallestGain = 0.01
/** Up to so many pictures and classes the comparison is out of fold on all of them; beyond, validation says enough and the one head is there already. */
const small = { pictures: 4000, classes: 50 }
/** Logits that are compared at once: pictures times classes. */
const mostLogits = 4e6
const folds = 5
const repeats = 3

export interface ClassWeightsQuestion {
  asked: ClassWeights
  labels: readonly string[]
  train: readonly number[]
  validation: readonly number[]
  /** Fitted on the training side, with each picture weighing alike. */
  head: Pick<LogisticRegression, 'probabilities'>
  labelOf(row: number): number
  groups: readonly (readonly number[])[]
  features: Float32Array
  width: number
  seed: number
  threads: number
  signal?: AbortSignal
}

/**
 * Logarithm of each class's share of the training pictures, to be taken out of the answers, or null where answers stay as they are.
 * `auto` takes it out where balanced accuracy rises beyond luck (95 % interval, grouped bootstrap) and at least twice as much as accuracy falls.
 */
export async function chooseClassWeights(question: ClassWeightsQuestion): Promise<{ logShares: number[] | null; choice: Choice | null }> {
  const { asked, labels, train, labelOf } = question
  const counts = new Float64Array(labels.length)
  for (const row of train) counts[labelOf(row)]!++
  const present = [...counts.keys()].filter(k => counts[k]! > 0)
  const most = present.reduce((best, k) => (counts[k]! > counts[best]! ? k : best), present[0]!)
  const least = present.reduce((best, k) => (counts[k]! < counts[best]! ? k : best), present[0]!)
  const ratio = counts[most]! / counts[least]!
  // a class without training pictures cannot be made up for
  const logShares = Array.from(counts, n => Math.log(n > 0 ? n / train.length : 1 / present.length))
  const decided = (chosen: 'none' | 'balanced', sentence: string) => ({
    logShares: chosen === 'balanced' ? logShares : null,
    choice: { what: 'class weights', chosen, sentence },
  })

  if (asked === 'none') return { logShares: null, choice: null }
  if (asked === 'auto' && ratio <= uneven) return { logShares: null, choice: null }
  const sizes = `${count(counts[most]!)} training pictures of ${quoted(labels[most]!)}, ${count(counts[least]!)} of ${quoted(labels[least]!)}`
  const { plain, balanced, gain, measured } = await compare(question, logShares)
  const change = `balanced accuracy (the mean over the classes) ${percent(plain.balanced, 0)} → ${percent(balanced.balanced, 0)}, right answers ${percent(plain.accuracy, 0)} → ${percent(balanced.accuracy, 0)}`
  const traded = `Answers assume that every class is equally frequent; where yours are as uneven as these pictures, rare classes are now named a little too often.`
  if (asked === 'balanced') return decided('balanced', `Classes weigh alike, as you asked (${sizes}): ${change} (${measured}). ${traded}`)
  const beyondLuck = gain.mean >= smallestGain && gain.low > 0
  if (beyondLuck && gain.mean >= 2 * (plain.accuracy - balanced.accuracy))
    return decided('balanced', `Classes weigh alike, because they are uneven (${sizes}) and it pays: ${change} (${measured}). ${traded}`)
  const why = beyondLuck ? 'would cost too much of what it gains' : 'does not pay beyond luck'
  return decided(
    'none',
    `Classes are uneven (${sizes}), but letting them weigh alike ${why}: ${change} (${measured}). To have it all the same: --class-weights balanced.`,
  )
}

async function compare(question: ClassWeightsQuestion, logShares: readonly number[]) {
  const { train, validation, labels, seed } = question
  const classes = labels.length
  const few = train.length + validation.length <= small.pictures && classes <= small.classes
  const { sample, logits } = few ? await outOfFold(question) : onValidation(question)
  /** How often each picture is answered right, over the repeats. */
  const rightness = (taken: (k: number) => number) =>
    Float64Array.from(sample.rows, (_, i) => {
      const right = logits.filter(answers => {
        const row = answers.subarray(i * classes, (i + 1) * classes)
        let best = 0
        for (let k = 1; k < classes; k++) if (row[k]! - taken(k) > row[best]! - taken(best)) best = k
        return best === sample.labels[i]
      })
      return right.length / logits.length
    })
  const plain = rightness(() => 0)
  const balanced = rightness(k => logShares[k]!)
  const both = (right: Float64Array) => ({
    accuracy: meanDifference(right, sample, { seed }).mean,
    balanced: meanDifference(right, sample, { classes, seed }).mean,
  })
  const gain = meanDifference(
    balanced.map((share, i) => share - plain[i]!),
    sample,
    { classes, seed },
  )
  const n = count(sample.rows.length)
  const measured = few
    ? `measured on ${n} training and validation pictures, each by a head that had not seen it`
    : `measured on ${n} validation pictures`
  return { plain: both(plain), balanced: both(balanced), gain, measured }
}

interface Heard {
  sample: Sample
  /** One a repeat: [rows of the sample, classes]. */
  logits: (Float32Array | Float64Array)[]
}

async function outOfFold({
  train,
  validation,
  labels,
  labelOf,
  groups,
  features,
  width,
  seed,
  threads,
  signal,
}: ClassWeightsQuestion): Promise<Heard> {
  const sample = sampleOf([...train, ...validation], labelOf, groups, small.pictures, seed)
  const deals = Array.from({ length: repeats }, (_, repeat) => groupedFolds({ ...sample, folds, seed: seed * 1000 + repeat }))
  const heads = await fitManyHeads({
    features: scaled(rowsOf(features, width, sample.rows), width, sample.rows.length),
    width,
    labels: sample.labels,
    classes: labels.length,
    weights: deals.flatMap(fold => Array.from({ length: folds }, (_, held) => Float32Array.from(fold, own => Number(own !== held)))),
    c: usualStrength,
    threads,
    signal,
  })
  return { sample, logits: await Promise.all(deals.map((fold, repeat) => heads.logits(fold.map(own => repeat * folds + own)))) }
}

function onValidation({ validation, labels, labelOf, groups, features, width, head, seed }: ClassWeightsQuestion): Heard {
  const sample = sampleOf(validation, labelOf, groups, Math.floor(mostLogits / labels.length), seed)
  return {
    sample,
    logits: [head.probabilities(rowsOf(features, width, sample.rows)).map(probability => Math.log(Math.max(probability, 1e-300)))],
  }
}
