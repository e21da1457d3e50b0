/** Which pictures of a dataset belong together: the same picture edited, the same scene, merely alike. How and why: docs/inside/copies.md. */
import { availableParallelism } from 'node:os'
import type { Picture } from '../../images/decode.ts'
import { type Fingerprint, leastQuality } from '../../images/fingerprint.ts'
import type { Copies, Manifest, ManifestRow } from '../../sdk/shapes.ts'
import { joinGroups } from '../groups.ts'
import { calibrate, pilotThreshold } from './calibrate.ts'
import { fewNeighbours, neighboursAmong, neighboursOf, type Pair, proposals } from './candidates.ts'
import { isSamePicture } from './compare.ts'
import { type Neighbours, nearestNeighbours } from './feature-search.ts'
import { holdTogether } from './grouping.ts'
import { findHashPairs, type HashPair } from './hash-search.ts'
import { namedScenes } from './names.ts'
import { createVerifier, type Verifier } from './verify.ts'

export interface CopySearch {
  manifest: Pick<Manifest, 'rows'>
  /** Digest of the dataset version. */
  dataset: string
  /** What is known of each picture by the digest of its file (`data/facts.ts`): its fingerprint, and apart from it the grey copy. */
  facts: { get(content: string): { fingerprint: Omit<Fingerprint, 'grey'> } | null; grey(content: string): Uint8Array }
  /** [rows, width] float32, pooled features of the untouched backbone. */
  features?: { values: Float32Array; width: number }
  /** The picture itself, for edits that the thresholds are calibrated with. Without it the thresholds are the careful defaults. */
  picture?(row: ManifestRow): Promise<Pick<Picture, 'width' | 'height' | 'data'>>
  seed?: number
  threads?: number
  signal?: AbortSignal
  onProgress?(done: number, total: number, what: string): void
}

/** A picture that was seen; equal pixels are one. */
export interface Distinct {
  /** All rows with these pixels; the first stands for them. */
  rows: number[]
  row: ManifestRow
  hash: Uint8Array
  colour: string
  /** Whether there is enough in it to compare it by more than equal pixels. */
  judged: boolean
  grey(): Uint8Array
}

/**
 * Below so many pixels a shirt and another shirt are as alike as a shirt and its copy (28-px clothes: docs/inside/copies.md), so only equal
 * pixels count, and no time is spent on finding that out.
 */
const leastSide = 32

/** The most alike that are shown, and the score from which pictures are called alike at all. */
const mostAlike = 50
const leastAlike = 0.6

/** The same pictures and seed give the same answer. Throws `signal.reason` when it is aborted. */
export async function findCopies(search: CopySearch): Promise<Copies> {
  const { manifest, dataset, features, signal, onProgress } = search
  signal?.throwIfAborted()
  const notes: string[] = []
  const pictures = distinctPictures(search)

  const hashes = findHashPairs(
    pictures.map(picture => (picture.judged ? picture.hash : null)),
    done => onProgress?.(done, pictures.length, 'look-alikes by fingerprint'),
  )
  const neighbours = features
    ? await nearestNeighbours(
        features.values,
        features.width,
        pictures.map(({ rows }) => rows[0]!),
        search.threads ?? availableParallelism(),
        { signal, onProgress: done => onProgress?.(done, pictures.length, 'look-alikes by features') },
      )
    : null

  const verifier = createVerifier(pictures, signal)
  const share = await compareProposals(hashes.pairs, neighbours, pictures, verifier, onProgress)

  const calibration = await calibrate(search, pictures, verifier, share)
  notes.push(...calibration.notes)
  const { threshold, sceneThreshold, tooSmall } = calibration
  const same = (a: number, b: number) =>
    !tooSmall[a] && !tooSmall[b] && isSamePicture(verifier.compare(a, b), verifier.comparable(a), verifier.comparable(b), threshold)
  const copies = [...verifier.all()].filter(([[a, b], { score }]) => score > 0 && same(a, b)).map(([pair]) => pair)
  const together = holdTogether(copies, same)

  const isScene = (a: number, b: number) => verifier.compare(a, b).scene >= sceneThreshold
  const sceneGroups = holdTogether(
    [...verifier.all()].filter(([, { scene }]) => scene >= sceneThreshold).map(([pair]) => pair),
    isScene,
  ).groups
  const rowsOf = (group: readonly number[]) => group.flatMap(index => pictures[index]!.rows)
  const samePicture = [...together.groups.map(rowsOf), ...exactOnly(pictures, together.groups)]
  const known = new Set(samePicture.map(signature))
  const byPixels = [...together.loose, ...sceneGroups].map(rowsOf).filter(group => !known.has(signature(group)))
  const named = namedScenes(manifest.rows, pictures)
  notes.push(...named.notes)
  const sameScene = [
    ...withoutRepeated(byPixels).map(rows => ({ rows: ordered(rows), evidence: 'pixels' as const })),
    ...named.scenes.map(({ rows, evidence }) => ({ rows: ordered(rows), evidence })),
  ]
  const notJudged = pictures.filter((picture, index) => !picture.judged || tooSmall[index]).flatMap(({ rows }) => rows)
  const tiny = pictures.filter(({ row }) => Math.min(row.width, row.height) < leastSide).length
  if (tiny > 0)
    notes.push(
      `${tiny} ${tiny === 1 ? 'picture is' : 'pictures are'} smaller than ${leastSide} pixels: too small to tell a copy from something alike, so that only equal pixels were called copies.`,
    )
  if (hashes.cut > 0)
    notes.push('Many pictures are nearly alike in parts of their fingerprints; not all of them were compared with each other.')
  notes.push(...largeGroups(manifest.rows, groupsOf({ samePicture, sameScene })))

  return {
    schema: 1,
    dataset,
    tiers: ['pixels', 'hash', ...(features ? (['features'] as const) : []), ...named.tiers],
    samePicture: samePicture.sort((a, b) => a[0]! - b[0]!),
    sameScene: sameScene.sort((a, b) => a.rows[0]! - b.rows[0]!),
    alike: alikePairs(verifier, pictures, threshold),
    notJudged: ordered(notJudged),
    threshold,
    recall: calibration.recall,
    notes,
  }
}

/** Rows that must stay on one side of a split and in one fold: same picture and same scene, joined. Rows that stand alone are not listed. */
export function groupsOf({ samePicture, sameScene }: Pick<Copies, 'samePicture' | 'sameScene'>): number[][] {
  const keys = new Map<number, string[]>()
  for (const [group, rows] of [...samePicture, ...sameScene.map(scene => scene.rows)].entries()) {
    for (const row of rows) keys.set(row, [...(keys.get(row) ?? []), String(group)])
  }
  const members = ordered([...keys.keys()])
  const joined = joinGroups(members.map(row => keys.get(row)!))
  return [...Map.groupBy(members.keys(), index => joined[index]!).values()].map(group => group.map(index => members[index]!))
}

// ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function distinctPictures({ manifest: { rows }, facts }: CopySearch): Distinct[] {
  return [...Map.groupBy(rows.keys(), index => rows[index]!.pixels).values()].map(own => {
    const row = rows[own[0]!]!
    const print = facts.get(row.content)?.fingerprint
    return {
      rows: own,
      row,
      hash: print?.hash ?? new Uint8Array(32),
      colour: print?.colour ?? '',
      judged: (print?.quality ?? 0) >= leastQuality && Math.min(row.width, row.height) >= leastSide,
      grey: () => facts.grey(row.content),
    }
  })
}

/** Part of the pairs that is compared first, to see what kind of pictures these are. */
const pilotPairs = 1000

/** Answers which part of the pairs was compared: all of them, but where a first part says that nothing can be told apart. */
async function compareProposals(
  hashPairs: readonly HashPair[],
  neighbours: Neighbours | null,
  pictures: readonly Distinct[],
  verifier: Verifier,
  onProgress: CopySearch['onProgress'],
): Promise<number> {
  const judged = (index: number) => pictures[index]!.judged
  const told = (total: number) => (done: number) => onProgress?.(done, total, 'look-alikes compared')
  const few = proposals(hashPairs, neighbours, judged, fewNeighbours)
  const step = Math.max(1, Math.floor(few.length / pilotPairs))
  const pilot = few.filter((_, index) => index % step === 0)
  await verifier.compareAll(pilot, told(few.length))
  const { dense, hopeless } = pilotThreshold(verifier, pictures, 1 / step)
  if (hopeless) return 1 / step
  const all = dense ? few : proposals(hashPairs, neighbours, judged, neighboursAmong(pictures.length))
  await verifier.compareAll(all, told(all.length))
  if (!neighbours) return 1
  for (let round = 0; round < 3; round++) {
    const more = aroundCopies(verifier, neighbours, judged)
    if (more.length === 0) break
    await verifier.compareAll(more, told(more.length))
  }
  return 1
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
  for (const a of ordered([...copied])) {
    for (const b of neighboursOf(a, neighbours)) {
      if (judged(b) && !verifier.known(a, b)) pairs.set(`${Math.min(a, b)} ${Math.max(a, b)}`, a < b ? [a, b] : [b, a])
    }
  }
  return [...pairs.values()]
}

// ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const ordered = (rows: readonly number[]) => [...rows].sort((a, b) => a - b)
const signature = (rows: readonly number[]) => ordered(rows).join()

/** Equal pixels that no group of edited copies holds. */
function exactOnly(pictures: readonly Distinct[], groups: readonly number[][]): number[][] {
  const grouped = new Set(groups.flat())
  return [...pictures.entries()].flatMap(([index, { rows }]) => (rows.length > 1 && !grouped.has(index) ? [rows] : []))
}

function withoutRepeated(groups: readonly number[][]): number[][] {
  return [...new Map(groups.map(group => [signature(group), group])).values()]
}

function alikePairs(verifier: Verifier, pictures: readonly Distinct[], threshold: number): Copies['alike'] {
  return [...verifier.all()]
    .filter(([, { score }]) => score >= leastAlike && score < threshold)
    .sort(([x, { score: s }], [y, { score: t }]) => t - s || x[0] - y[0] || x[1] - y[1])
    .slice(0, mostAlike)
    .map(([[a, b], { score }]) => ({ rows: [pictures[a]!.rows[0]!, pictures[b]!.rows[0]!], score: Math.round(score * 1e4) / 1e4 }))
}

/** A group of more than a twentieth of its class decides a lot about the split: that is said, never decided in silence. */
function largeGroups(rows: readonly ManifestRow[], groups: readonly number[][]): string[] {
  const ofClass = new Map<string, number>()
  for (const { labels } of rows) ofClass.set(labels[0]!, (ofClass.get(labels[0]!) ?? 0) + 1)
  return groups.flatMap(group => {
    const { path, labels } = rows[group[0]!]!
    const share = group.length / ofClass.get(labels[0]!)!
    if (group.length < 5 || share <= 0.05) return []
    return [
      `${group.length} pictures belong together with ${path}: ${Math.round(100 * share)} % as many as “${labels[0]}” has. They all stay on one side of a split; --group-by PATTERN decides otherwise.`,
    ]
  })
}
