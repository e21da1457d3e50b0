/**
 * Fits the distance behind “none of these” and says what it is worth.
 *
 * The threshold comes from pictures that neither the network nor the measure learned from: features of a fine-tuned network lie tighter
 * around its own training pictures than around new ones, and a threshold taken from those would call half of all new pictures unknown.
 * Where the network was not fine-tuned, every picture can take that part in turn (out of fold, look-alikes together).
 */
import { type FeatureSpace, measure } from '../models/feature-space.ts'
import { softmax } from '../models/logistic-regression.ts'
import { distancesOf, entropies, scalesOf, type UnknownParts } from '../models/unknown.ts'
import type { Unknown } from '../sdk/index.ts'
import {
  type Chosen,
  conformal,
  enough,
  falseAlarmRate,
  folds,
  headsWithout,
  labelsOf,
  picked,
  places,
  spaceOf,
  type UnknownTask,
} from './held-back.ts'
import { leaveClassesOut, mostLeftOut } from './left-out.ts'

export { falseAlarmRate, type UnknownTask }

/** The fewest pictures that a threshold can be taken from: of fewer, one in twenty is none. */
const fewestForThreshold = Math.ceil(1 / falseAlarmRate) - 1

export interface FittedUnknown {
  /** For composeArtefact; null where there are too few pictures, and the file calls pictures unknown by their probability. */
  parts: UnknownParts | null
  /** `falseAlarmsOnTest` is for whoever has a test side (falseAlarms). */
  unknown: Unknown | null
  /** Sentences for the user. */
  notes: string[]
}

/** @throws bad_scores for features that are not numbers, shape_mismatch */
export async function fitUnknown(task: UnknownTask): Promise<FittedUnknown> {
  const chosen = enough(task)
  const steps = progress(task, chosen)
  const fitted = task.untouched ? await onFresh(chosen, task.fresh) : await outOfFold(chosen, steps.done)
  if (!fitted || fitted.distances.length < fewestForThreshold)
    return {
      parts: null,
      unknown: null,
      notes: [
        `Only ${fitted?.distances.length ?? 0} pictures to choose a limit for “none of these” on: too few. A picture is called unknown when no class is probable.`,
      ],
    }
  const { space, scales, distances } = fitted
  const threshold = conformal(distances, falseAlarmRate)
  const parts: UnknownParts = { space, scales, metadata: { threshold, falseAlarmRate, ladder: ladderOf(distances) } }
  steps.done()
  const left = await leaveClassesOut(chosen, steps.done)
  return {
    parts,
    unknown: { threshold, falseAlarmRate, falseAlarmsOnTest: null, ...left.summary, perClass: left.perClass },
    notes: left.notes,
  }
}

/** Share of pictures of known classes whose distance is beyond the threshold; null without any. */
export function falseAlarms(distances: readonly (number | null)[], threshold: number): number | null {
  return distances.length === 0
    ? null
    : distances.filter(distance => distance === null || !(distance <= threshold)).length / distances.length
}

function progress({ untouched, onProgress }: UnknownTask, { classes }: Chosen) {
  const total = (untouched ? 0 : folds) + 1 + Math.min(classes.length, mostLeftOut)
  let done = 0
  return { done: () => onProgress?.(++done, total) }
}

// ── the measure and its threshold ───────────────────────────────────────────────────────────────────────────────────────────

interface Fitted {
  space: FeatureSpace
  scales: UnknownParts['scales']
  /** Of pictures that were not fitted on. */
  distances: Float64Array
}

/** Fitted on what the network learned from, scaled by what it did not. */
async function onFresh(chosen: Chosen, fresh: readonly number[]): Promise<Fitted | null> {
  const { features, width, temperature, classes } = chosen
  const isFresh = new Set(fresh)
  const space = await spaceOf(
    chosen,
    features,
    chosen.rows.filter(row => !isFresh.has(row)),
  )
  if (!space || fresh.length === 0) return null
  const measures = {
    ...(await measure(space, { features, width, rows: fresh }, chosen.threads)),
    entropy: entropies(softmax(headLogits(chosen, fresh), classes.length, temperature), classes.length),
  }
  const scales = scalesOf(measures)
  return { space, scales, distances: distancesOf(measures, scales) }
}

/** What the file's head says of these rows, before the temperature. */
function headLogits({ features, width, head }: Chosen, rows: readonly number[]): Float64Array {
  const classes = head.bias.length
  const logits = new Float64Array(rows.length * classes)
  for (const [i, row] of rows.entries())
    for (let k = 0; k < classes; k++) {
      let sum = head.bias[k]!
      for (let f = 0; f < width; f++) sum += features[row * width + f]! * head.weight[k * width + f]!
      logits[i * classes + k] = sum
    }
  return logits
}

/** Each fifth measured by the other four. The scales and the measure that go into the file are those of all. */
async function outOfFold(chosen: Chosen, done: () => void): Promise<Fitted | null> {
  const { rows, fold, features, labels } = chosen
  const K = chosen.classes.length
  const own = labelsOf(chosen, rows)
  const heads = await headsWithout(
    chosen,
    features,
    Array.from({ length: folds }, (_, held) => (i: number) => fold[i] !== held),
  )
  if (!heads) return null
  const logits = await heads.logits(fold)
  const entropy = entropies(softmax(logits, K, asUnsureAs(chosen, logits)), K)
  const all = { relative: new Float64Array(rows.length), rest: new Float64Array(rows.length), entropy }
  const judged: number[] = []
  for (let held = 0; held < folds; held++) {
    const inside = places(rows, i => fold[i] === held)
    const space = await spaceOf(
      chosen,
      features,
      places(rows, i => fold[i] !== held).map(i => rows[i]!),
    )
    done()
    if (!space) continue
    const there = new Set(places(rows, i => fold[i] !== held).map(i => labels[rows[i]!]!))
    const { relative, rest } = await measure(space, { features, width: chosen.width, rows: inside.map(i => rows[i]!) }, chosen.threads)
    for (const [at, i] of inside.entries()) {
      all.relative[i] = relative[at]!
      all.rest[i] = rest[at]!
      // the only picture of its class was no known class while it was held back
      if (there.has(own[i]!)) judged.push(i)
    }
  }
  const space = await spaceOf(chosen, features, rows)
  if (!space || judged.length === 0) return null
  const measures = picked(all, judged)
  const scales = scalesOf(measures)
  return { space, scales, distances: distancesOf(measures, scales) }
}

/**
 * The temperature with which the heads of the folds are as unsure as the file's own head with its temperature, on pictures that neither
 * learned from: the two were fitted with other strengths, perhaps other class weights.
 */
function asUnsureAs(chosen: Chosen, logits: Float32Array): number {
  const { rows, fresh, temperature } = chosen
  const K = chosen.classes.length
  const isFresh = new Set(fresh)
  const both = places(rows, i => isFresh.has(rows[i]!))
  if (both.length === 0) return temperature
  const own = new Float64Array(both.length * K)
  for (const [at, i] of both.entries()) own.set(logits.subarray(i * K, (i + 1) * K), at * K)
  const mean = (of: ArrayLike<number>, t: number) => entropies(softmax(of, K, t), K).reduce((sum, e) => sum + e, 0)
  const goal = mean(
    headLogits(
      chosen,
      both.map(i => rows[i]!),
    ),
    temperature,
  )
  let [low, high] = [temperature / 100, temperature * 100]
  // entropy only rises with the temperature
  for (let i = 0; i < 40; i++) {
    const middle = Math.sqrt(low * high)
    if (mean(own, middle) < goal) low = middle
    else high = middle
  }
  return Math.sqrt(low * high)
}

/** The distances that 0, 1, 2 … 100 % of the pictures do not exceed. */
function ladderOf(distances: Float64Array): number[] {
  const sorted = distances.toSorted()
  return Array.from({ length: 101 }, (_, percent) => sorted[Math.round((percent / 100) * (sorted.length - 1))]!)
}
