/**
 * Fits the distance behind “none of these” and says what it is worth.
 *
 * The threshold comes from pictures that neither the network nor the measure learned from: features of a fine-tuned network lie tighter
 * around its own training pictures than around new ones, and a threshold taken from those would call half of all new pictures unknown.
 * Where the network was not fine-tuned, every picture can take that part in turn (out of fold, look-alikes together).
 *
 * What it is worth is tested by leaving each class out in turn: measure and head are fitted without it, and its pictures are shown beside
 * pictures of the other classes that were held back. The features for that are the *untouched* network's, because a fine-tuned one has
 * learned to tell the left-out class from the others, and would flatter itself.
 */
import { groupedFolds } from '../data/folds.ts'
import { permutation, randomFrom } from '../engine/random.ts'
import { type FeatureSpace, fitFeatureSpace, measure } from '../models/feature-space.ts'
import { softmax } from '../models/logistic-regression.ts'
import { fitManyHeads, type ManyHeads } from '../models/many-heads.ts'
import { distancesOf, entropies, type Measures, scalesOf, type UnknownParts } from '../models/unknown.ts'
import type { Unknown } from '../sdk/index.ts'
import { scaled, usualStrength } from './out-of-fold.ts'

/** Share of pictures of known classes that may be called unknown by mistake. */
export const falseAlarmRate = 0.05
const folds = 5
/** The fewest pictures that a threshold can be taken from: of fewer, one in twenty is none. */
const fewestForThreshold = Math.ceil(1 / falseAlarmRate) - 1
/** More are drawn from: the measure has enough of them, and 100,000 would not fit in memory twice. */
const mostPictures = 12_000
/** Numbers of logits at once, 64 MB: with many classes fewer pictures are looked at. */
const mostLogits = 16e6
/** More classes are left out several at a time, so that a thousand take no longer than twelve. */
const mostLeftOut = 12
/** A class with fewer pictures says nothing about how well such a class is found. */
const fewestStrangers = 3

export interface UnknownTask {
  /** [n, width], row-major: features of training and validation pictures by the network that goes into the file. */
  features: Float32Array
  width: number
  /** [n] class numbers. */
  labels: Int32Array
  classes: readonly string[]
  /** Rows (of these n) that must not be torn apart. */
  groups: readonly (readonly number[])[] | null
  /** Of the file, for the network's features; and what its logits are divided by. */
  head: { weight: Float32Array; bias: Float32Array }
  temperature: number
  /** Rows that neither the network nor the head learned from: the validation side. */
  fresh: readonly number[]
  /** Only where the network was fine-tuned: features [n, width] of the same pictures by the network before that. */
  untouched?: Float32Array | undefined
  /** Strength of the head's regularisation. */
  c?: number
  seed: number
  threads: number
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

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

// ── which pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Chosen extends Omit<UnknownTask, 'c' | 'groups'> {
  c: number
  /** In no order; all of them where there are not too many. */
  rows: readonly number[]
  /** Of each of the `rows`. */
  fold: Int32Array
}

function enough(task: UnknownTask): Chosen {
  const { labels, classes, groups, seed, c = usualStrength } = task
  const n = labels.length
  const most = Math.max(folds * classes.length, Math.min(mostPictures, Math.floor(mostLogits / 2 / classes.length)))
  const rows = n <= most ? Array.from({ length: n }, (_, row) => row) : permutation(n, randomFrom(seed, n)).slice(0, most)
  const place = new Map(rows.map((row, i) => [row, i]))
  const together = groups?.map(group => group.flatMap(row => place.get(row) ?? [])).filter(group => group.length > 1) ?? null
  const fold = groupedFolds({ labels: Int32Array.from(rows, row => labels[row]!), groups: together, folds, seed })
  return { ...task, c, rows, fold }
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
  const { features, width, head, temperature, classes } = chosen
  const isFresh = new Set(fresh)
  const space = await spaceOf(
    chosen,
    features,
    chosen.rows.filter(row => !isFresh.has(row)),
  )
  if (!space || fresh.length === 0) return null
  const K = classes.length
  const logits = new Float32Array(fresh.length * K)
  for (const [i, row] of fresh.entries())
    for (let k = 0; k < K; k++) {
      let sum = head.bias[k]!
      for (let f = 0; f < width; f++) sum += features[row * width + f]! * head.weight[k * width + f]!
      logits[i * K + k] = sum
    }
  const measures = {
    ...(await measure(space, { features, width, rows: fresh }, chosen.threads)),
    entropy: entropies(softmax(logits, K, temperature), K),
  }
  const scales = scalesOf(measures)
  return { space, scales, distances: distancesOf(measures, scales) }
}

/** Each fifth measured by the other four. The scales and the measure that go into the file are those of all. */
async function outOfFold(chosen: Chosen, done: () => void): Promise<Fitted | null> {
  const { rows, fold, features, labels, temperature } = chosen
  const K = chosen.classes.length
  const own = labelsOf(chosen, rows)
  const heads = await headsWithout(
    chosen,
    features,
    Array.from({ length: folds }, (_, held) => (i: number) => fold[i] !== held),
  )
  if (!heads) return null
  const entropy = entropies(softmax(await heads.logits(fold), K, temperature), K)
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

const labelsOf = ({ labels }: Chosen, rows: readonly number[]) => Int32Array.from(rows, row => labels[row]!)
const places = (rows: readonly number[], holds: (i: number) => boolean): number[] => [...rows.keys()].filter(holds)
const picked = (measures: Measures, at: readonly number[]): Measures => ({
  relative: at.map(i => measures.relative[i]!),
  rest: at.map(i => measures.rest[i]!),
  entropy: at.map(i => measures.entropy[i]!),
})

function spaceOf({ width, labels, threads, seed, signal }: Chosen, features: Float32Array, rows: readonly number[]) {
  signal?.throwIfAborted()
  return fitFeatureSpace({ features, width, rows }, { labels, threads, seed })
}

/** One head for each of `learns`, which says whether it learns from the i-th of the rows; null where one of them would learn from none. */
async function headsWithout(
  chosen: Chosen,
  features: Float32Array,
  learns: readonly ((i: number) => boolean)[],
): Promise<ManyHeads | null> {
  const { rows, width, classes, c, threads, signal } = chosen
  const own = new Float32Array(rows.length * width)
  for (const [i, row] of rows.entries()) own.set(features.subarray(row * width, (row + 1) * width), i * width)
  const weights = learns.map(learn => Float32Array.from(rows, (_, i) => Number(learn(i))))
  if (weights.some(weight => !weight.includes(1))) return null
  return fitManyHeads({
    features: scaled(own, width, rows.length),
    width,
    labels: labelsOf(chosen, rows),
    classes: classes.length,
    weights,
    c,
    threads,
    signal,
  })
}

/**
 * The smallest distance such that a new picture of a known class, alike to these, is beyond it with at most this probability: the
 * ⌈(1 − rate) · (n + 1)⌉-th of n (split conformal prediction; Vovk et al. 2005).
 */
export function conformal(distances: Float64Array, rate: number): number {
  const sorted = distances.toSorted()
  return sorted[Math.min(sorted.length, Math.ceil((1 - rate) * (sorted.length + 1))) - 1]!
}

/** The distances that 0, 1, 2 … 100 % of the pictures do not exceed. */
function ladderOf(distances: Float64Array): number[] {
  const sorted = distances.toSorted()
  return Array.from({ length: 101 }, (_, percent) => sorted[Math.round((percent / 100) * (sorted.length - 1))]!)
}

// ── what it is worth ────────────────────────────────────────────────────────────────────────────────────────────────────────

interface LeftOut {
  summary: Pick<Unknown, 'auroc' | 'aurocOfProbability' | 'detected' | 'detectedByProbability'>
  perClass: Unknown['perClass']
  notes: string[]
}

async function leaveClassesOut(chosen: Chosen, done: () => void): Promise<LeftOut> {
  const { rows, fold, classes, labels, seed } = chosen
  const features = chosen.untouched ?? chosen.features
  const K = classes.length
  const counts = new Int32Array(K)
  for (const row of rows) counts[labels[row]!]!++
  const present = [...counts.keys()].filter(k => counts[k]! > 0)
  const asked = present.filter(k => counts[k]! >= fewestStrangers)
  const none = { auroc: null, aurocOfProbability: null, detected: null, detectedByProbability: null }
  // a head needs two classes that stay
  if (present.length < 3 || asked.length === 0) {
    const why = present.length < 3 ? 'leaving one out needs three classes' : 'no class has enough pictures'
    return { summary: none, perClass: [], notes: [`How well pictures of something else are found could not be tested: ${why}.`] }
  }

  const parties = partiesOf(asked, seed)
  const perClass: (Unknown['perClass'][number] & { detected: number; detectedByProbability: number; k: number })[] = []
  const heads = await headsWithout(
    chosen,
    features,
    parties.map((party, at) => i => fold[i] !== at % folds && !party.has(labels[rows[i]!]!)),
  )
  for (const [at, party] of heads ? parties.entries() : []) {
    const held = at % folds
    const stay = (i: number) => !party.has(labels[rows[i]!]!)
    const learned = places(rows, i => fold[i] !== held && stay(i))
    const space = await spaceOf(
      chosen,
      features,
      learned.map(i => rows[i]!),
    )
    const known = places(rows, i => fold[i] === held && stay(i))
    done()
    if (!space || known.length < 2) continue
    const { relative, rest } = await measure(space, { features, width: chosen.width, rows }, chosen.threads)
    const { entropy, best } = withoutParty(await heads!.logits(new Int32Array(rows.length).fill(at)), K, party)
    const measures = { relative, rest, entropy }
    const distances = distancesOf(measures, scalesOf(picked(measures, known)))
    const doubt = best.map(probability => -probability)
    const limits = [distances, doubt].map(scores => conformal(pick(scores, known), falseAlarmRate))
    for (const k of party) {
      const strangers = places(rows, i => labels[rows[i]!] === k)
      const beyond = (scores: Float64Array, limit: number) => strangers.filter(i => scores[i]! > limit).length / strangers.length
      perClass.push({
        k,
        label: classes[k]!,
        n: strangers.length,
        auroc: auroc(pick(distances, known), pick(distances, strangers)),
        aurocOfProbability: auroc(pick(doubt, known), pick(doubt, strangers)),
        detected: beyond(distances, limits[0]!),
        detectedByProbability: beyond(doubt, limits[1]!),
      })
    }
  }
  perClass.sort((a, b) => a.k - b.k)
  const mean = (of: (each: (typeof perClass)[number]) => number) =>
    perClass.length ? perClass.reduce((sum, each) => sum + of(each), 0) / perClass.length : null
  const alone = parties.every(party => party.size === 1)
  return {
    summary: {
      auroc: mean(each => each.auroc),
      aurocOfProbability: mean(each => each.aurocOfProbability),
      detected: mean(each => each.detected),
      detectedByProbability: mean(each => each.detectedByProbability),
    },
    perClass: perClass.map(({ label, n, auroc, aurocOfProbability }) => ({ label, n, auroc, aurocOfProbability })),
    notes: alone
      ? []
      : [
          `There are ${present.length} classes: to test pictures of something else they were left out ${parties.length} parts at a time, not one by one.`,
        ],
  }
}

const pick = (scores: Float64Array, at: readonly number[]) => Float64Array.from(at, i => scores[i]!)

/** Each class alone, or dealt by chance into so many parties where there are more. */
function partiesOf(classes: readonly number[], seed: number): Set<number>[] {
  if (classes.length <= mostLeftOut) return classes.map(k => new Set([k]))
  const order = permutation(classes.length, randomFrom(seed, classes.length, 1))
  return Array.from(
    { length: mostLeftOut },
    (_, party) => new Set(order.filter((_, at) => at % mostLeftOut === party).map(at => classes[at]!)),
  )
}

/** Entropy and largest probability of each row among the classes that were not left out. */
function withoutParty(logits: Float32Array, classes: number, party: ReadonlySet<number>): { entropy: Float64Array; best: Float64Array } {
  const stayed = Array.from({ length: classes }, (_, k) => k).filter(k => !party.has(k))
  const n = logits.length / classes
  const own = new Float64Array(n * stayed.length)
  for (let i = 0; i < n; i++) for (const [at, k] of stayed.entries()) own[i * stayed.length + at] = logits[i * classes + k]!
  const probabilities = softmax(own, stayed.length)
  const best = Float64Array.from({ length: n }, (_, i) => {
    let most = 0
    for (let k = 0; k < stayed.length; k++) most = Math.max(most, probabilities[i * stayed.length + k]!)
    return most
  })
  return { entropy: entropies(probabilities, stayed.length), best }
}

/** How often one of `strangers` has a higher score than one of `known`; equal ones count half (the Mann–Whitney statistic). */
export function auroc(known: Float64Array, strangers: Float64Array): number {
  const all = [...Array.from(known, score => ({ score, stranger: false })), ...Array.from(strangers, score => ({ score, stranger: true }))]
  all.sort((a, b) => a.score - b.score)
  let below = 0
  let sum = 0
  for (let from = 0; from < all.length; ) {
    let to = from
    while (to < all.length && all[to]!.score === all[from]!.score) to++
    const same = all.slice(from, to)
    const knownHere = same.filter(({ stranger }) => !stranger).length
    sum += (same.length - knownHere) * (below + knownHere / 2)
    below += knownHere
    from = to
  }
  return sum / (known.length * strangers.length)
}
