/** What the score would have been called elsewhere: the linear probe under the split that keeps copies together, and under one by chance that tears them apart. */
import { splitDataset } from '../data/split.ts'
import { fitLogisticRegression } from '../models/logistic-regression.ts'
import type { Manifest } from '../sdk/shapes.ts'

export interface ProbeTask {
  manifest: Manifest
  /** [rows of the manifest, width] */
  features: Float32Array
  width: number
  /** Rows that belong together. */
  groups: readonly (readonly number[])[]
  seed: number
  threads: number
  repeats?: number
  signal?: AbortSignal | undefined
}

export interface ProbeUnderSplits {
  /** Mean accuracy on the test side, over the repeats. */
  grouped: number
  random: number
  repeats: number
  /** Test pictures of one repeat. */
  n: number
}

/** The user's own sides are left aside: both splits are by chance, one over groups, one over pictures. */
export async function probeUnderSplits({
  manifest,
  features,
  width,
  groups,
  seed,
  threads,
  repeats = 3,
  signal,
}: ProbeTask): Promise<ProbeUnderSplits> {
  const rows = manifest.rows.map(row => ({ ...row, side: null }))
  const alone: Manifest = { ...manifest, rows: rows.map((row, i) => ({ ...row, group: null, pixels: `${i}` })) }
  const labels = rows.map(row => manifest.classes.indexOf(row.labels[0]!))
  const side = (chosen: readonly number[]) => {
    const own = new Float32Array(chosen.length * width)
    for (const [at, row] of chosen.entries()) own.set(features.subarray(row * width, (row + 1) * width), at * width)
    return { features: own, labels: chosen.map(row => labels[row]!) }
  }
  const classes = manifest.classes.length
  async function accuracy(split: { train: number[]; validation: number[]; test: number[] }): Promise<number> {
    signal?.throwIfAborted()
    const probe = await fitLogisticRegression({ train: side(split.train), validation: side(split.validation), width, classes, threads })
    const test = side(split.test)
    const probabilities = probe.probabilities(test.features)
    const right = test.labels.filter((label, i) => {
      const row = probabilities.subarray(i * classes, (i + 1) * classes)
      return row.indexOf(Math.max(...row)) === label
    })
    return right.length / test.labels.length
  }
  let [grouped, random, n] = [0, 0, 0]
  for (let repeat = 0; repeat < repeats; repeat++) {
    const options = { seed: seed + repeat, dataset: 'any' }
    const honest = splitDataset({ ...manifest, rows }, { ...options, groups })
    grouped += (await accuracy(honest)) / repeats
    random += (await accuracy(splitDataset(alone, options))) / repeats
    n = honest.test.length
  }
  return { grouped, random, repeats, n }
}
