/** What is asked once the model is made, on the cached features of all pictures: how good it would be called elsewhere, and which labels look wrong. */
import type { PreparedPictures } from '../data/features.ts'
import { type CrossValidation, crossValidate } from '../evaluate/cross-validation.ts'
import { findMislabels } from '../evaluate/mislabels.ts'
import { type ProbeUnderSplits, probeUnderSplits } from '../evaluate/random-split.ts'
import type { Manifest, Mislabels, RecipeEvent } from '../sdk/index.ts'

/** Below so many pictures the test side says little, and cross-validation of the head stands beside it. */
export const fewForOneTest = 1000

export interface AfterwardsTask {
  manifest: Manifest
  /** Of all rows, by the untouched network. */
  pictures: Pick<PreparedPictures, 'features' | 'width'>
  labels: Int32Array
  groups: readonly (readonly number[])[]
  seed: number
  threads: number
  signal: AbortSignal
  say(event: RecipeEvent): void
}

export interface Afterwards {
  crossValidation?: CrossValidation
  randomSplit?: ProbeUnderSplits
  mislabels: Mislabels
}

export async function lookBack(task: AfterwardsTask): Promise<Afterwards> {
  const { manifest, pictures, labels, groups, seed, threads, signal, say } = task
  const { features, width } = pictures
  const n = manifest.rows.length
  const crossValidation =
    n < fewForOneTest
      ? await crossValidate({ features, width, labels, classes: manifest.classes.length, groups, seed, threads, signal })
      : undefined
  // without groups both splits are the same kind
  const randomSplit = groups.length > 0 ? await probeUnderSplits({ manifest, features, width, groups, seed, threads, signal }) : undefined
  const mislabels = await findMislabels({
    features,
    width,
    labels,
    classes: manifest.classes,
    paths: manifest.rows.map(row => row.path),
    groups: groups.map(group => [...group]),
    threads,
    seed,
    signal,
    onProgress: (done, total) => say({ kind: 'progress', label: 'labels', done, total, unit: 'heads' }),
  })
  return { ...(crossValidation && { crossValidation }), ...(randomSplit && { randomSplit }), mislabels }
}
