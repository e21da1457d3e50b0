/** Proposes pairs and has them compared, until what there is to find is among them. */
import { availableParallelism } from 'node:os'
import { pilotThreshold } from './calibrate.ts'
import { fewNeighbours, neighboursAmong, neighboursOf, type Pair, proposals } from './candidates.ts'
import { type Neighbours, nearestNeighbours } from './feature-search.ts'
import { findHashPairs, hashRadius } from './hash-search.ts'
import type { CopySearch, Distinct } from './pictures.ts'
import type { Verifier } from './verify.ts'

export interface Searched {
  /** The part of the pairs that was compared: all of them, but where a first part says that nothing can be told apart. */
  share: number
  /** Whether some pictures have so many look-alikes by fingerprint that not all were compared. */
  cut: boolean
}

/** Part of the pairs that is compared first, to see what kind of pictures these are. */
const pilotPairs = 1000

export async function comparePairs(search: CopySearch, pictures: readonly Distinct[], verifier: Verifier): Promise<Searched> {
  const { signal, onProgress } = search
  const judged = (index: number) => pictures[index]!.judged
  const told = (what: string, total: number) => (done: number) => onProgress?.(done, total, what)
  const { pairs: hashPairs, cut } = await findHashPairs(
    pictures.map(picture => (picture.judged ? picture.hash : null)),
    { signal, onProgress: told('look-alikes by fingerprint', pictures.length) },
  )
  const neighbours = await neighboursByFeatures(search, pictures)

  const few = proposals(hashPairs, neighbours, judged, fewNeighbours)
  const step = Math.max(1, Math.floor(few.length / pilotPairs))
  const pilot = few.filter((_, index) => index % step === 0)
  await verifier.compareAll(pilot, told('look-alikes compared', few.length))
  const { dense, hopeless } = pilotThreshold(verifier, pictures, 1 / step)
  if (hopeless) return { share: 1 / step, cut: cut > 0 }
  // where all are alike, only the nearest have a chance to be told from the rest
  const near = hashPairs.filter(({ distance }) => distance <= hashRadius)
  const all = dense
    ? proposals(near, neighbours, judged, fewNeighbours)
    : proposals(hashPairs, neighbours, judged, neighboursAmong(pictures.length))
  await verifier.compareAll(all, told('look-alikes compared', all.length))
  for (let round = 0; neighbours && round < 3; round++) {
    const more = aroundCopies(verifier, neighbours, judged)
    if (more.length === 0) break
    await verifier.compareAll(more, told('look-alikes compared', more.length))
  }
  return { share: 1, cut: cut > 0 }
}

async function neighboursByFeatures(
  { features, threads, signal, onProgress }: CopySearch,
  pictures: readonly Distinct[],
): Promise<Neighbours | null> {
  if (!features) return null
  return await nearestNeighbours(
    features.values,
    features.width,
    pictures.map(({ rows }) => rows[0]!),
    threads ?? availableParallelism(),
    { signal, onProgress: done => onProgress?.(done, pictures.length, 'look-alikes by features') },
  )
}

/** Pairs not compared yet in which one has a copy already, or nearly. */
function aroundCopies(verifier: Verifier, neighbours: Neighbours, judged: (index: number) => boolean): Pair[] {
  const copied = new Set<number>()
  for (const [[a, b], { scene }] of verifier.all()) {
    if (scene < 0.8) continue
    copied.add(a)
    copied.add(b)
  }
  const pairs = new Map<string, Pair>()
  for (const a of [...copied].sort((x, y) => x - y)) {
    for (const b of neighboursOf(a, neighbours)) {
      if (judged(b) && !verifier.known(a, b)) pairs.set(`${Math.min(a, b)} ${Math.max(a, b)}`, a < b ? [a, b] : [b, a])
    }
  }
  return [...pairs.values()]
}
