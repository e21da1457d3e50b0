/** What heads say about each picture when neither the picture nor a copy of it was learned from. */
import { groupedFolds } from '../data/folds.ts'
import { Failure } from '../failure.ts'
import { softmax, standardisation, standardised } from '../models/logistic-regression.ts'
import { fitManyHeads } from '../models/many-heads.ts'
import { fitRidgeHeads } from '../models/ridge-heads.ts'
import { fitTemperature } from './calibration.ts'

export interface OutOfFoldTask {
  /** [n, width], scaled as the heads need them: see `scaled`. */
  features: Float32Array
  width: number
  labels: Int32Array
  classes: number
  /** Rows that are never learned from and judged at once. */
  groups: readonly (readonly number[])[] | null
  folds: number
  repeats: number
  /** [n] how much each picture teaches; 1 for all by default. */
  trust?: Float64Array
  /** `logistic` by default; `ridge` for more classes than those can be fitted for in time. */
  heads?: 'logistic' | 'ridge'
  /** Strength of the regularisation of logistic heads. */
  c?: number
  /** Most steps of the fit. */
  iterations?: number
  seed: number
  threads: number
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface OutOfFoldRepeat {
  /** [n, classes] with the temperature of this repeat. */
  probabilities: Float64Array
  /** 1 where the picture's class was among those learned from, so that the head could have known it. */
  known: Uint8Array
}

/** The C that validation chose for most data that was measured, or next to it: searching it in each fold would only add noise. */
export const usualStrength = 0.003

/**
 * One head a fold and repeat, all fitted together. Throws what `signal` was aborted with.
 *
 * The temperature is one number for the heads of a repeat, fitted on the very answers it is applied to: one number fitted on n answers flatters nobody.
 */
export async function outOfFold(task: OutOfFoldTask): Promise<OutOfFoldRepeat[]> {
  const { labels, classes, groups, folds, repeats, seed, trust, c = usualStrength } = task
  const n = labels.length
  const deals = Array.from({ length: repeats }, (_, repeat) => groupedFolds({ labels, groups, folds, seed: seed * 1009 + repeat }))
  const weights = deals.flatMap(fold =>
    Array.from({ length: folds }, (_, held) => Float32Array.from({ length: n }, (_, i) => (fold[i] === held ? 0 : (trust?.[i] ?? 1)))),
  )
  // a fold with everything in it leaves nothing to learn from: with so few groups nothing is judged
  const empty = weights.findIndex(weight => weight.every(w => w === 0))
  if (empty >= 0) throw new Failure('bad_scores', { what: 'cross-validation', problem: 'all pictures are copies of one another' })

  const heads = await (task.heads === 'ridge' ? fitRidgeHeads({ ...task, weights }) : fitManyHeads({ ...task, weights, c }))
  return Promise.all(
    deals.map(async (fold, repeat) => {
      const logits = await heads.logits(fold.map(own => repeat * folds + own))
      const learned = Array.from({ length: folds }, () => new Uint8Array(classes))
      for (let i = 0; i < n; i++) for (let held = 0; held < folds; held++) if (fold[i] !== held) learned[held]![labels[i]!] = 1
      return {
        probabilities: softmax(logits, classes, temperatureOf(logits, labels, classes)),
        known: Uint8Array.from(labels, (label, i) => learned[fold[i]!]![label]!),
      }
    }),
  )
}

/** Numbers that are enough for one temperature. */
const enoughForTemperature = 1e6

/** Of every so many-th picture where classes are many. */
function temperatureOf(logits: Float32Array, labels: Int32Array, classes: number): number {
  const step = Math.ceil(logits.length / enoughForTemperature)
  const rows = [...labels.keys()].filter(row => row % step === 0)
  const some = new Float32Array(rows.length * classes)
  for (const [at, row] of rows.entries()) some.set(logits.subarray(row * classes, (row + 1) * classes), at * classes)
  return fitTemperature(
    some,
    rows.map(row => labels[row]!),
    classes,
  )
}

/** Standardised features, checked. @throws bad_scores for what is not a number, shape_mismatch */
export function scaled(features: Float32Array, width: number, n: number): Float32Array {
  const what = 'the features'
  if (features.length !== n * width)
    throw new Failure('shape_mismatch', { operation: what, a: `[${features.length}]`, b: `[${n}, ${width}]` })
  const bad = features.findIndex(value => !Number.isFinite(value))
  if (bad >= 0)
    throw new Failure('bad_scores', { what, problem: `picture ${Math.floor(bad / width)} has ${features[bad]} at feature ${bad % width}` })
  return standardised(features, standardisation(features, width))
}
