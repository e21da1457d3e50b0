/**
 * How well pictures of something else are found, tested by leaving each class out in turn: measure and head are fitted without it, and its
 * pictures are shown beside pictures of the other classes that were held back. The features are the *untouched* network's: a fine-tuned one
 * has learned to tell the left-out class from the others, and would flatter itself.
 */
import { permutation, randomFrom } from '../engine/random.ts'
import { measure } from '../models/feature-space.ts'
import { softmax } from '../models/logistic-regression.ts'
import { distancesOf, entropies, scalesOf } from '../models/unknown.ts'
import type { Unknown } from '../sdk/index.ts'
import { type Chosen, conformal, falseAlarmRate, folds, headsWithout, picked, places, spaceOf } from './held-back.ts'

/** More classes are left out several at a time, so that a thousand take no longer than twelve. */
export const mostLeftOut = 12
/** A class with fewer pictures says nothing about how well such a class is found. */
const fewestStrangers = 3

export interface LeftOut {
  summary: Pick<Unknown, 'auroc' | 'aurocOfProbability' | 'detected' | 'detectedByProbability'>
  perClass: Unknown['perClass']
  notes: string[]
}

export async function leaveClassesOut(chosen: Chosen, done: () => void): Promise<LeftOut> {
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

const pick = (scores: Float64Array, at: readonly number[]) => Float64Array.from(at, i => scores[i]!)
