/** The choices of a training, each asked once, kept in the run's folder, and said. How each is made: choices/. */
import { type FeatureNetwork, openFeatureNetwork, type PreparedPictures } from '../data/features.ts'
import { percent, points } from '../evaluate/verdicts.ts'
import type { Fit, Split } from '../sdk/index.ts'
import type { Augmentation } from './augment.ts'
import { chooseAugmentation, type SafeAugmentation } from './choices/augmentation.ts'
import { chooseClassWeights } from './choices/class-weights.ts'
import { type Choice, rowsOf } from './choices/evidence.ts'
import { chooseFit } from './choices/fit.ts'
import type { FineTuned } from './finetune.ts'
import { type Head, withoutShares } from './head.ts'
import type { Work } from './recipes/image-classification.ts'

type Groups = readonly (readonly number[])[]

/** Asked after the split, so that no test picture has a say. No choice where there was no question. */
export async function decideFit(
  work: Work,
  pictures: PreparedPictures,
  split: Split,
  groups: Groups,
): Promise<{ fit: Fit; choices: Choice[] }> {
  const { settings, manifest, labelOf, blob, say, signal } = work
  const decided = await work.decisions.once('fit', () =>
    withNetwork(work, network =>
      chooseFit({
        rows: manifest.rows,
        among: [...split.train, ...split.validation],
        labelOf,
        classes: manifest.classes.length,
        groups,
        cropped: pictures.features,
        network,
        side: settings.imageSize,
        blob,
        seed: settings.seed,
        threads: settings.threads,
        signal,
        onProgress: (done, total) => say({ kind: 'progress', label: 'crop or not', done, total, unit: 'pictures' }),
      }),
    ),
  )
  if (!decided) return { fit: 'crop', choices: [] }
  say({ kind: 'note', text: decided.choice.sentence })
  return { fit: decided.fit, choices: [decided.choice] }
}

/** The head as it came, or with every class as likely as the others. */
export async function decideClassWeights(
  work: Work,
  { features, width }: PreparedPictures,
  { train, validation }: Split,
  groups: Groups,
  plain: Head,
): Promise<{ head: Head; logShares: Float64Array | null; choices: Choice[] }> {
  const { settings, classes, labelOf, say, signal } = work
  const { logShares: decided, choice } = await work.decisions.once('class weights', () =>
    chooseClassWeights({
      asked: settings.classWeights,
      labels: classes,
      train,
      validation,
      head: plain,
      labelOf,
      groups,
      features,
      width,
      seed: settings.seed,
      threads: settings.threads,
      signal,
    }),
  )
  if (choice) say({ kind: 'note', text: choice.sentence })
  const logShares = decided && Float64Array.from(decided)
  const judged = { features: rowsOf(features, width, validation), labels: validation.map(labelOf) }
  return { head: logShares ? withoutShares(plain, logShares, judged) : plain, logShares, choices: choice ? [choice] : [] }
}

/** `augmentation` with what is not safe here switched off. */
export async function decideAlterations(
  work: Work,
  augmentation: Augmentation,
  pictures: PreparedPictures,
  split: Split,
  groups: Groups,
): Promise<SafeAugmentation> {
  const { settings, classes, labelOf, say, signal } = work
  const safe = await work.decisions.once('augmentation', () =>
    withNetwork(work, network =>
      chooseAugmentation({
        augmentation,
        pictures,
        network,
        labels: classes,
        labelOf,
        among: [...split.train, ...split.validation],
        groups,
        seed: settings.seed,
        threads: settings.threads,
        signal,
      }),
    ),
  )
  for (const choice of safe.choices) if (choice.chosen === 'off') say({ kind: 'note', text: choice.sentence })
  return safe
}

export function headOrFineTune(tuned: FineTuned, head: Head, chosen: 'head' | 'finetune', balanced: boolean): Choice {
  const by = balanced ? 'balanced accuracy' : 'right'
  const compared = `head on the untouched network ${percent(head.validationScore)}, fine-tuned ${percent(tuned.validationScore)} ${by} on validation (${points(tuned.validationScore - head.validationScore)})`
  const sentence =
    chosen === 'finetune'
      ? `The fine-tuned network is the model: ${compared}.`
      : `The head alone is the model, because fine-tuning did not help: ${compared}.`
  return { what: 'head or fine-tune', chosen: chosen === 'finetune' ? 'fine-tuned network' : 'plain head', sentence }
}

/** The untouched network, open while `work` lasts. */
async function withNetwork<T>({ base, weights, settings }: Work, ask: (network: FeatureNetwork) => Promise<T>): Promise<T> {
  const network = await openFeatureNetwork({ backbone: base, weights, side: settings.imageSize, threads: settings.threads })
  try {
    return await ask(network)
  } finally {
    await network.close()
  }
}
