/** What is asked once the model is made, on the cached features of all pictures: how good it would be called elsewhere, and which labels look wrong. */
import type { PreparedPictures } from '../data/features.ts'
import { unitsOf } from '../data/folds.ts'
import { permutation, randomFrom } from '../engine/random.ts'
import { type CrossValidation, crossValidate } from '../evaluate/cross-validation.ts'
import { findMislabels } from '../evaluate/mislabels.ts'
import { type ProbeUnderSplits, probeUnderSplits } from '../evaluate/random-split.ts'
import type { Manifest, Mislabels, RecipeEvent } from '../sdk/index.ts'
import { groupsWithin, rowsOf } from './choices/evidence.ts'

/** Below so many pictures the test side says little, and cross-validation of the head stands beside it. */
export const fewForOneTest = 1000

/** Share of the pictures that must be in groups before a split by chance is worth comparing with: below it the difference is noise. */
const worthComparing = 0.05
/** Pictures that both kinds of split are tried on. */
const mostForSplits = 6000

export interface AfterwardsTask {
  manifest: Manifest
  /** Of all rows, by the untouched network. */
  pictures: Pick<PreparedPictures, 'features' | 'width'>
  labels: Int32Array
  groups: readonly (readonly number[])[]
  /** Those that are one picture: of two labels one is wrong for certain. */
  copies: readonly (readonly number[])[]
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
  const { manifest, pictures, labels, groups, copies, seed, threads, signal, say } = task
  const { features, width } = pictures
  const n = manifest.rows.length
  const crossValidation =
    n < fewForOneTest
      ? await crossValidate({ features, width, labels, classes: manifest.classes.length, groups, seed, threads, signal })
      : undefined
  const randomSplit = await underSplits(task)
  const mislabels = await findMislabels({
    features,
    width,
    labels,
    classes: manifest.classes,
    paths: manifest.rows.map(row => row.path),
    groups: groups.map(group => [...group]),
    copies,
    threads,
    seed,
    signal,
    onProgress: (done, total) => say({ kind: 'progress', label: 'labels', done, total, unit: 'heads' }),
  })
  return { ...(crossValidation && { crossValidation }), ...(randomSplit && { randomSplit }), mislabels }
}

/** On whole groups, by chance, where there are more pictures than needed. */
async function underSplits({ manifest, pictures, groups, seed, threads, signal }: AfterwardsTask): Promise<ProbeUnderSplits | undefined> {
  const n = manifest.rows.length
  if (groups.reduce((sum, group) => sum + group.length, 0) < worthComparing * n) return undefined
  const units = unitsOf(n, groups)
  const rows: number[] = []
  for (const i of permutation(units.length, randomFrom(seed, 6, n))) {
    if (rows.length + units[i]!.length <= mostForSplits) rows.push(...units[i]!)
  }
  rows.sort((a, b) => a - b)
  return probeUnderSplits({
    manifest: { ...manifest, rows: rows.map(row => manifest.rows[row]!) },
    features: rowsOf(pictures.features, pictures.width, rows),
    width: pictures.width,
    groups: groupsWithin(groups, rows),
    seed,
    threads,
    signal,
  })
}
