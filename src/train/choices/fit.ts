/** Crop, squash or letterbox: how a picture that is not square reaches the square that the network sees. */
import type { FeatureNetwork } from '../../data/features.ts'
import { outOfFold, scaled } from '../../evaluate/out-of-fold.ts'
import { percent } from '../../evaluate/verdicts.ts'
import { decodePicture } from '../../images/decode.ts'
import { createPreprocessor } from '../../models/artefact.ts'
import type { Fit, ManifestRow } from '../../sdk/index.ts'
import { type Choice, count, meanDifference, rowsOf, type Sample, sampleOf } from './evidence.ts'

/** Below this share of its area, lost on average, a crop is no question. */
const negligibleLoss = 0.05
/** Pictures that are looked at in the three ways. */
export const fitSample = 400
const BATCH = 16

/** Share of each picture's area that the square in its centre leaves out, on average. */
export function lostByCrop(rows: readonly Pick<ManifestRow, 'width' | 'height'>[]): number {
  const lost = rows.map(({ width, height }) => 1 - Math.min(width, height) / Math.max(width, height))
  return lost.reduce((sum, share) => sum + share, 0) / Math.max(1, lost.length)
}

export const fitIsAQuestion = (rows: readonly Pick<ManifestRow, 'width' | 'height'>[]): boolean => lostByCrop(rows) > negligibleLoss

export interface FitQuestion {
  rows: readonly ManifestRow[]
  /** Rows of the training and validation sides. */
  among: readonly number[]
  labelOf(row: number): number
  classes: number
  groups: readonly (readonly number[])[]
  /** [rows, width] as cropped. */
  cropped: Float32Array
  network: FeatureNetwork
  /** Side of the square. */
  side: number
  blob(content: string): Promise<Uint8Array>
  seed: number
  threads: number
  signal?: AbortSignal
  onProgress?(done: number, total: number): void
}

/**
 * Crop stays unless another fit is better beyond luck: a lower out-of-fold loss, with the whole 95 % interval of the difference on its side, and
 * no fewer right answers. Between two that are, the lower loss.
 */
export async function chooseFit(question: FitQuestion): Promise<{ fit: Fit; choice: Choice } | null> {
  const { rows, among, labelOf, classes, groups, network, cropped, seed, threads, signal } = question
  if (!fitIsAQuestion(among.map(row => rows[row]!))) return null
  const sample = sampleOf(among, labelOf, groups, fitSample, seed)
  const others = await featuresOf(question, sample, ['squash', 'letterbox'])
  const features: Record<Fit, Float32Array> = { crop: rowsOf(cropped, network.width, sample.rows), ...others }
  const judged = {} as Record<Fit, { right: number; losses: Float64Array }>
  for (const fit of ['crop', 'squash', 'letterbox'] as const) {
    const repeats = await outOfFold({
      features: scaled(features[fit], network.width, sample.rows.length),
      folds: 5,
      repeats: 3,
      width: network.width,
      labels: sample.labels,
      classes,
      groups: sample.groups,
      seed,
      threads,
      signal,
    })
    judged[fit] = judge(
      repeats.map(({ probabilities }) => probabilities),
      sample.labels,
      classes,
    )
  }
  const better = (['squash', 'letterbox'] as const).filter(fit => {
    const gain = judged.crop.losses.map((loss, i) => loss - judged[fit].losses[i]!)
    return judged[fit].right >= judged.crop.right && meanDifference(gain, sample, { seed }).low > 0
  })
  const total = (fit: Fit) => judged[fit].losses.reduce((sum, loss) => sum + loss, 0)
  const fit: Fit = better.toSorted((a, b) => total(a) - total(b)).at(0) ?? 'crop'
  const right = (of: Fit) => percent(judged[of].right, 0)
  const lost = percent(lostByCrop(sample.rows.map(row => rows[row]!)), 0)
  const measured = `measured on ${count(sample.rows.length)} training and validation pictures, each by a head that had not seen it`
  return {
    fit,
    choice: {
      what: 'fit',
      chosen: fit,
      sentence:
        fit === 'crop'
          ? `The network sees the square in the middle of each picture, although that cuts off ${lost} of it: the whole picture was not better beyond luck (right: crop ${right('crop')}, squashed ${right('squash')}, with grey borders ${right('letterbox')}; ${measured}).`
          : `The network sees the whole picture, ${described[fit]}: cutting out the square in the middle, which loses ${lost} of a picture, got ${right('crop')} right, this gets ${right(fit)} (${fit === 'squash' ? `with grey borders ${right('letterbox')}` : `squashed ${right('squash')}`}; ${measured}).`,
    },
  }
}

const described: Record<Exclude<Fit, 'crop'>, string> = { squash: 'squashed into a square', letterbox: 'with grey borders (letterbox)' }

/** Share of right answers and each picture's loss, in nats, both averaged over the repeats. */
function judge(repeats: readonly Float64Array[], labels: Int32Array, classes: number) {
  let right = 0
  const losses = new Float64Array(labels.length)
  for (const probabilities of repeats)
    for (let i = 0; i < labels.length; i++) {
      const row = probabilities.subarray(i * classes, (i + 1) * classes)
      right += Number(row.indexOf(Math.max(...row)) === labels[i]) / (labels.length * repeats.length)
      losses[i]! -= Math.log(Math.max(row[labels[i]!]!, 1e-6)) / repeats.length // one hopeless picture must not decide alone
    }
  return { right, losses }
}

/** Each picture is decoded once, for all the fits. */
async function featuresOf<F extends Fit>(
  { rows, network, side, blob, threads, signal, onProgress }: FitQuestion,
  sample: Sample,
  fits: readonly F[],
): Promise<Record<F, Float32Array>> {
  const preprocessors = await Promise.all(fits.map(fit => createPreprocessor(side, { threads, fit })))
  const out = Object.fromEntries(fits.map(fit => [fit, new Float32Array(sample.rows.length * network.width)])) as Record<F, Float32Array>
  try {
    for (let at = 0; at < sample.rows.length; at += BATCH) {
      signal?.throwIfAborted()
      const part = sample.rows.slice(at, at + BATCH)
      const pictures = await Promise.all(part.map(async row => decodePicture(await blob(rows[row]!.content), { formats: 'local' })))
      for (const [f, fit] of fits.entries()) {
        const squares = new Uint8Array(part.length * 3 * side * side)
        for (const [i, picture] of pictures.entries()) squares.set(await preprocessors[f]!.run(picture), i * 3 * side * side)
        out[fit].set(await network.features(squares), at * network.width)
      }
      onProgress?.(at + part.length, sample.rows.length)
    }
  } finally {
    await Promise.all(preprocessors.map(preprocessor => preprocessor.close()))
  }
  return out
}
