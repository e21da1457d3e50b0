/** What the head says about each picture when neither the picture nor a copy of it was learned from. */
import { groupedFolds } from '../data/folds.ts'
import { softmax } from '../models/logistic-regression.ts'
import { fitManyHeads } from '../models/many-heads.ts'
import { fitTemperature } from './calibration.ts'

export interface OutOfFoldTask {
  /** [n, width] */
  features: Float32Array
  width: number
  labels: Int32Array
  classes: number
  groups: readonly (readonly number[])[] | null
  folds?: number
  repeats?: number
  /** Strength of the regularisation; what validation chooses for most data is the default. */
  c?: number
  seed: number
  threads: number
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface OutOfFold {
  folds: number
  /** One a repeat: the fold of each row, and the calibrated probabilities [n, classes]. */
  repeats: {
    fold: Int32Array
    probabilities: Float64Array
    /** 1 where the picture's class was among those learned from, so that the head could have known it. */
    known: Uint8Array
  }[]
}

/** Chosen by validation on most data sets that were measured, or next to it. */
export const usualStrength = 0.003

/** @throws bad_scores for features that are not numbers, shape_mismatch */
export async function outOfFold(task: OutOfFoldTask): Promise<OutOfFold> {
  const { features, width, labels, classes, groups, seed, threads, signal, onProgress } = task
  const { folds = 5, repeats = 3, c = usualStrength } = task
  const n = labels.length
  const deals = Array.from({ length: repeats }, (_, repeat) => groupedFolds({ labels, groups, folds, seed: seed * 1000 + repeat }))
  const weights = deals.flatMap(fold =>
    Array.from({ length: folds }, (_, held) => Float32Array.from({ length: n }, (_, i) => Number(fold[i] !== held))),
  )
  const logits = await fitManyHeads({ features, width, labels, classes, weights, c, threads, signal, onProgress })
  return {
    folds,
    repeats: deals.map((fold, repeat) => {
      const own = new Float64Array(n * classes)
      for (let i = 0; i < n; i++) own.set(logits[repeat * folds + fold[i]!]!.subarray(i * classes, (i + 1) * classes), i * classes)
      const present = Array.from({ length: folds }, (_, held) => {
        const there = new Uint8Array(classes)
        for (let i = 0; i < n; i++) if (fold[i] !== held) there[labels[i]!] = 1
        return there
      })
      return {
        fold,
        probabilities: softmax(own, classes, fitTemperature(own, labels, classes)),
        known: Uint8Array.from(labels, (label, i) => present[fold[i]!]![label]!),
      }
    }),
  }
}
