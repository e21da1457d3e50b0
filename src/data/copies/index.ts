/** Which pictures of a dataset belong together: the same picture edited, the same scene, merely alike. How and why: docs/inside/copies.md. */
import type { Copies, ManifestRow } from '../../sdk/shapes.ts'
import { joinGroups } from '../groups.ts'
import { type Calibration, calibrate } from './calibrate.ts'
import { isSamePicture } from './compare.ts'
import { holdTogether } from './grouping.ts'
import { namedScenes } from './names.ts'
import { type CopySearch, type Distinct, distinctPictures, smallSide } from './pictures.ts'
import { openRemembered } from './remembered.ts'
import { comparePairs } from './search.ts'
import { createVerifier, type Verifier } from './verify.ts'

export type { CopySearch } from './pictures.ts'

/** The most alike that are shown, and the score from which pictures are called alike at all. */
const mostAlike = 50
const leastAlike = 0.6

/** The same pictures and seed give the same answer. Throws `signal.reason` when it is aborted. */
export async function findCopies(search: CopySearch): Promise<Copies> {
  search.signal?.throwIfAborted()
  const pictures = distinctPictures(search)
  const remembered = search.cache === undefined ? null : await openRemembered(search.cache, search, pictures)
  if (remembered?.answer) return remembered.answer
  const verifier = createVerifier(pictures, search.signal, remembered?.comparison)
  try {
    const copies = await searchThrough(search, pictures, verifier)
    await remembered?.keepAnswer(copies)
    return copies
  } finally {
    remembered?.keepComparisons(verifier) // after Ctrl-C, too
  }
}

async function searchThrough(search: CopySearch, pictures: readonly Distinct[], verifier: Verifier): Promise<Copies> {
  const { manifest, dataset, features } = search
  const { share, cut } = await comparePairs(search, pictures, verifier)
  const calibration = await calibrate(search, pictures, verifier, share)
  const { samePicture, scenes } = decide(pictures, verifier, calibration)
  const named = namedScenes(manifest.rows, pictures)
  const sameScene = [...scenes, ...named.scenes].map(({ rows, evidence }) => ({ rows: ordered(rows), evidence }))
  const notJudged = pictures.filter((picture, index) => !picture.judged || calibration.tooSmall[index]).flatMap(({ rows }) => rows)
  return {
    schema: 1,
    dataset,
    tiers: ['pixels', 'hash', ...(features ? (['features'] as const) : []), ...named.tiers],
    samePicture: samePicture.sort((a, b) => a[0]! - b[0]!),
    sameScene: sameScene.sort((a, b) => a.rows[0]! - b.rows[0]!),
    alike: alikePairs(verifier, pictures, calibration.threshold),
    notJudged: ordered(notJudged),
    threshold: calibration.threshold,
    recall: calibration.recall,
    notes: [
      ...calibration.notes,
      ...named.notes,
      ...tinyPictures(pictures),
      ...(cut ? ['Many pictures are nearly alike in parts of their fingerprints; not all of them were compared with each other.'] : []),
      ...largeGroups(manifest.rows, groupsOf({ samePicture, sameScene })),
    ],
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

// ── the verdicts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Scene = Copies['sameScene'][number]

function decide(
  pictures: readonly Distinct[],
  verifier: Verifier,
  { threshold, sceneThreshold, tooSmall }: Calibration,
): { samePicture: number[][]; scenes: Scene[] } {
  const isSame = (a: number, b: number) =>
    !tooSmall[a] && !tooSmall[b] && isSamePicture(verifier.compare(a, b), verifier.coloured(a), verifier.coloured(b), threshold)
  const isScene = (a: number, b: number) => verifier.compare(a, b).scene >= sceneThreshold
  const compared = [...verifier.all()]
  const copies = compared.filter(([[a, b], { score }]) => score > 0 && isSame(a, b)).map(([pair]) => pair)
  const views = compared.filter(([, { scene }]) => scene >= sceneThreshold).map(([pair]) => pair)
  const together = holdTogether(copies, isSame)

  const rowsOf = (group: readonly number[]) => group.flatMap(index => pictures[index]!.rows)
  const samePicture = [...together.groups.map(rowsOf), ...exactOnly(pictures, together.groups)]
  const known = new Set(samePicture.map(signature))
  const scenes = new Map<string, Scene>()
  for (const rows of [...together.loose, ...holdTogether(views, isScene).groups].map(rowsOf)) {
    if (!known.has(signature(rows))) scenes.set(signature(rows), { rows, evidence: 'pixels' })
  }
  return { samePicture, scenes: [...scenes.values()] }
}

// ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const ordered = (rows: readonly number[]) => [...rows].sort((a, b) => a - b)
const signature = (rows: readonly number[]) => ordered(rows).join()

/** Equal pixels that no group of edited copies holds. */
function exactOnly(pictures: readonly Distinct[], groups: readonly number[][]): number[][] {
  const grouped = new Set(groups.flat())
  return [...pictures.entries()].flatMap(([index, { rows }]) => (rows.length > 1 && !grouped.has(index) ? [rows] : []))
}

function alikePairs(verifier: Verifier, pictures: readonly Distinct[], threshold: number): Copies['alike'] {
  return [...verifier.all()]
    .filter(([, { score }]) => score >= leastAlike && score < threshold)
    .sort(([x, { score: s }], [y, { score: t }]) => t - s || x[0] - y[0] || x[1] - y[1])
    .slice(0, mostAlike)
    .map(([[a, b], { score }]) => ({ rows: [pictures[a]!.rows[0]!, pictures[b]!.rows[0]!], score: Math.round(score * 1e4) / 1e4 }))
}

function tinyPictures(pictures: readonly Distinct[]): string[] {
  const tiny = pictures.filter(({ tooSmall }) => tooSmall).length
  if (tiny === 0) return []
  const many = tiny === 1 ? 'picture is' : 'pictures are'
  return [
    `${tiny} ${many} smaller than ${smallSide} × ${smallSide} pixels: too small to tell a copy from something alike, so that only equal pixels were called copies.`,
  ]
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
