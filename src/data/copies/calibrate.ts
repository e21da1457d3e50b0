/**
 * From which agreement on two pictures are the same, on these very pictures. What is alike without being a copy is there already: the neighbours
 * that were compared. Their scores thin out upwards, and where one in a thousand pictures would find a false copy, the threshold lies: low where
 * pictures differ, high in a domain where all look alike. What that costs is measured: known edits are made of a sample, and those found are counted.
 */
import { createHash } from 'node:crypto'
import { setImmediate as breathe } from 'node:timers/promises'
import { knownEdits, shrunk } from '../../images/edits.ts'
import { fingerprint } from '../../images/fingerprint.ts'
import type { Copies } from '../../sdk/shapes.ts'
import { comparable, comparer, isSamePicture } from './compare.ts'
import { components } from './grouping.ts'
import { orientedDistance, radiusAmong } from './hash-search.ts'
import type { CopySearch, Distinct } from './pictures.ts'
import type { Verifier } from './verify.ts'

export interface Calibration {
  threshold: number
  /** For two views of one scene; above 1 where pictures are too alike to tell. */
  sceneThreshold: number
  /** Pictures so small, in a domain so alike, that nothing but equal pixels says anything. */
  tooSmall: boolean[]
  recall: Copies['recall']
  notes: string[]
}

const [lowest, highest] = [0.86, 0.995]
/** Below this many pictures there is nothing to calibrate with. */
const least = 20
/** Pictures that edits are made of: at ten edits each, five hundred in all. */
const sampled = 50
const falseAmong = 1 / 1000
const littleSide = 48

/** `share`: the part of the pairs that was compared; 1 but where the first of them said that nothing can be told. */
export async function calibrate(
  search: CopySearch,
  pictures: readonly Distinct[],
  verifier: Verifier,
  share: number,
): Promise<Calibration> {
  const judged = pictures.filter(picture => picture.judged)
  const threshold = thresholdFor(verifier, judged.length, share)
  const unclear = threshold === highest
  const tooSmall = pictures.map(({ row }) => unclear && Math.min(row.width, row.height) < littleSide)
  const result: Calibration = {
    threshold: Math.round(threshold * 1e4) / 1e4,
    sceneThreshold: threshold > 0.93 ? 2 : threshold - 0.1,
    tooSmall,
    recall: [],
    notes: [],
  }
  if (judged.length < least) {
    if (judged.length > 0)
      result.notes.push(`Fewer than ${least} pictures to calibrate with: a careful threshold was taken for edited copies.`)
    return result
  }
  if (unclear && tooSmall.includes(true)) {
    result.notes.push(
      'Many different pictures here are as alike as copies would be, and they are too small to tell the two apart: only equal pixels were called copies.',
    )
  } else if (threshold > 0.95) {
    result.notes.push(
      'Many different pictures here are very alike, so that only closely agreeing ones were called copies: cropped, turned and captioned ones may be missed.',
    )
  }
  result.recall = await recallOfEdits(search, judged, pictures.length, result)
  return result
}

/** What a first part of the pairs says, before all are compared. */
export function pilotThreshold(verifier: Verifier, pictures: readonly Distinct[], share: number): { dense: boolean; hopeless: boolean } {
  const judged = pictures.filter(picture => picture.judged)
  const threshold = thresholdFor(verifier, judged.length, share)
  const small = judged.every(({ row }) => Math.min(row.width, row.height) < littleSide)
  return { dense: threshold > 0.95, hopeless: small && threshold === highest }
}

// ── the threshold ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Scores are spread out (Fisher's z) so that the best of them are not crowded below 1. */
const spread = (score: number) => Math.atanh(Math.min(score, 0.99999))
const [from, to] = [spread(0.6), spread(0.85)]
/** What is expected before anything was seen, and how many pairs that counts for: few scores must not decide much. */
const prior = { pairs: 100, rate: 6 }

/**
 * Peaks over a threshold (Pickands 1975), the tail being exponential: its rate from scores between 0.6 and 0.85, where copies are rare and strangers
 * are not. Several copies of the same two pictures are one pair of strangers, not many. `share`: how much of the pairs was compared.
 */
function thresholdFor(verifier: Verifier, count: number, share = 1): number {
  if (count < least) return 0.9
  const scores = strangers(verifier)
  const excesses = scores.map(score => spread(score) - from)
  const width = to - from
  const mean =
    (excesses.reduce((sum, value) => sum + value, 0) + prior.pairs * truncatedMean(prior.rate, width)) / (scores.length + prior.pairs)
  const rate = rateOf(mean, width)
  const above = ((scores.length / share) * Math.exp(-rate * width)) / (1 - Math.exp(-rate * width)) // expected beyond 0.85
  const allowed = Math.max(0.5, count * falseAmong)
  return Math.min(highest, Math.max(lowest, Math.tanh(to + Math.max(0, Math.log(above / allowed)) / rate)))
}

function strangers(verifier: Verifier): number[] {
  const close = [...verifier.all()].filter(([, { score }]) => score >= 0.95).map(([pair]) => pair)
  const family = new Map<number, number>()
  for (const [index, members] of components(close).entries()) for (const member of members) family.set(member, index)
  const nameOf = (picture: number) => (family.has(picture) ? `f${family.get(picture)}` : `${picture}`)
  const best = new Map<string, number>()
  for (const [[a, b], { score, colours }] of verifier.all()) {
    if (score < 0.6 || (colours !== null && colours > 1)) continue
    const names = [nameOf(a), nameOf(b)].sort()
    if (names[0] === names[1]) continue
    const key = names.join(' ')
    best.set(key, Math.max(best.get(key) ?? 0, score))
  }
  return [...best.values()].filter(score => score < 0.85)
}

const truncatedMean = (rate: number, width: number) => 1 / rate - width / Math.expm1(rate * width)

/** The rate of an exponential on [0, width] with this mean: falls as the mean grows, found by halving. Never flatter than 1. */
function rateOf(mean: number, width: number): number {
  let [low, high] = [1, 50]
  for (let step = 0; step < 40; step++) {
    const middle = (low + high) / 2
    if (truncatedMean(middle, width) > mean) low = middle
    else high = middle
  }
  return low
}

// ── what would be found ─────────────────────────────────────────────────────────────────────────────────────────────────────

async function recallOfEdits(
  search: CopySearch,
  judged: readonly Distinct[],
  total: number,
  calibration: Calibration,
): Promise<Copies['recall']> {
  const { picture, seed = 0, signal, features, onProgress } = search
  if (!picture) return []
  const order = ({ row }: Distinct) => createHash('sha256').update(`${seed} ${row.pixels}`).digest('hex')
  const chosen = judged
    .map(one => ({ one, order: order(one) }))
    .sort((a, b) => (a.order < b.order ? -1 : 1))
    .slice(0, sampled)
    .map(({ one }) => one)
  const made = new Map(Object.keys(knownEdits).map(edit => [edit, { edit, made: 0, found: 0 }]))
  for (const [index, original] of chosen.entries()) {
    const pixels = await picture(original.row).then(shrunk, () => null) // it could be read at import: if not now, then without it
    signal?.throwIfAborted()
    if (!pixels) continue
    const own = comparable(original.grey(), original.colour, original.row.width, original.row.height)
    const compare = comparer(own)
    for (const [edit, make] of Object.entries(knownEdits)) {
      const copy = await make(pixels)
      const print = fingerprint(copy)
      const other = comparable(print.grey, print.colour, copy.width, copy.height)
      const { straight, turned } = orientedDistance(print.hash, original.hash)
      // features find what the fingerprint does not (docs/inside/copies.md has how often), but are not computed for these
      const proposed = features !== undefined || straight <= radiusAmong(total, false) || turned <= radiusAmong(total, true)
      const count = made.get(edit)!
      count.made++
      const small = calibration.tooSmall.includes(true) && Math.min(original.row.width, original.row.height) < littleSide
      if (proposed && !small && isSamePicture(compare(other), other, own, calibration.threshold)) count.found++
    }
    onProgress?.(index + 1, chosen.length, 'edits of your own pictures')
    await breathe()
  }
  return [...made.values()].filter(count => count.made > 0)
}
