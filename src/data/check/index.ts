/**
 * The doctor: what is wrong with a set of labelled pictures, before anything is trained on it. Reads, never writes; every finding has its evidence
 * in paths of the user's own pictures. How each is found, and why the thresholds are where they are: docs/inside/check.md.
 */
import { availableParallelism } from 'node:os'
import { Failure } from '../../failure.ts'
import { decodePicture } from '../../images/decode.ts'
import type { Copies, DataCheck, Manifest, ManifestRow, Mislabels } from '../../sdk/shapes.ts'
import { findCopies, groupsOf } from '../copies/index.ts'
import { type Facts, lookAt, type PictureFacts } from '../facts.ts'
import { copiesAcross, scoreAcross } from './across-split.ts'
import { judgeQuality } from './quality.ts'
import { findShortcuts, type ShortcutExamples } from './shortcuts.ts'

export interface CheckTask {
  manifest: Manifest
  /** `name@version` of a dataset, else the digest that an import would give it. */
  version: string
  digest: string
  /** What is known of the pictures; what is not there is found out and put in. */
  facts: Pick<Facts, 'get' | 'grey' | 'put'>
  /** The file of a picture, once more. */
  bytes(row: ManifestRow): Promise<Uint8Array>
  /** Lists pictures that are merely alike, too. */
  alike?: boolean
  /** Features [rows, width] of the untouched backbone: copies that were cropped or turned, likely mislabels, the score across the user's own split. */
  features?: { values: Float32Array; width: number }
  /** Lies above this folder, so it is handed in. */
  findMislabels?(task: { features: Float32Array; width: number; labels: Int32Array; groups: number[][] }): Promise<Mislabels>
  /** Folder where the search for copies remembers what it found. */
  copiesCache?: string
  threads: number
  seed: number
  signal?: AbortSignal
  onProgress?(what: string, done: number, total: number): void
}

export interface Checked {
  check: DataCheck
  /** Pictures to look at beside each of `check.shortcuts`. */
  shortcutExamples: ShortcutExamples[]
  copies: Copies
}

export async function checkPictures(task: CheckTask): Promise<Checked> {
  const { manifest, features } = task
  const { rows } = manifest
  const facts = await allFacts(task)
  const copies = await findCopies({
    manifest,
    dataset: task.digest,
    facts: task.facts,
    ...(features && { features }),
    picture: async row => await decodePicture(await task.bytes(row), { formats: 'local' }),
    seed: task.seed,
    ...(task.copiesCache !== undefined && { cache: task.copiesCache }),
    ...(task.signal && { signal: task.signal }),
    onProgress: (done, total, what) => task.onProgress?.(what, done, total),
  })
  const groups = groupsOf(copies)
  const named = [...Map.groupBy(rows.keys(), row => rows[row]!.group).entries()].flatMap(([group, members]) =>
    group === null ? [] : [members],
  )
  const { notes, ...quality } = judgeQuality(rows, facts)
  const shortcuts = findShortcuts({ rows, facts, classes: manifest.classes, groups: [...groups, ...named], seed: task.seed })
  const mislabels =
    features && isEnough(manifest)
      ? await task.findMislabels?.({
          features: features.values,
          width: features.width,
          labels: labelNumbers(manifest),
          groups: [...groups, ...named],
        })
      : null
  const paths = (group: readonly number[]) => group.map(row => rows[row]!.path)
  const check: DataCheck = {
    version: task.version,
    images: rows.length,
    classes: manifest.classes.length,
    unreadable: manifest.unreadable,
    ignored: manifest.ignored,
    exactDuplicates: manifest.exactDuplicates,
    nearDuplicateGroups: copies.samePicture.filter(group => new Set(group.map(row => rows[row]!.pixels)).size > 1).map(paths),
    sameSceneGroups: copies.sameScene.map(scene => ({ paths: paths(scene.rows), evidence: scene.evidence })),
    alike: task.alike ? copies.alike.map(({ rows: [a, b], score }) => ({ paths: [rows[a]!.path, rows[b]!.path], score })) : [],
    notJudged: paths(copies.notJudged),
    conflicts: conflictsIn(manifest, copies),
    shortcuts: shortcuts.found,
    ...quality,
    perClass: perClass(manifest, copies),
    recallOnOwnEdits: copies.recall,
    acrossSplit: await acrossSplit(task, copies),
    mislabels: mislabels ?? null,
    notes: [...notes, ...shortcuts.notes, ...copies.notes],
    report: null,
  }
  return { check, copies, shortcutExamples: shortcuts.examples }
}

/** For folds: fewer pictures, or one class, say nothing about labels. */
const isEnough = ({ rows, classes }: Manifest) => rows.length >= 20 && classes.length > 1

const labelNumbers = ({ rows, classes }: Manifest) => {
  const numbers = new Map(classes.map((label, index) => [label, index]))
  return Int32Array.from(rows, row => numbers.get(row.labels[0]!)!)
}

/** In the order of the rows; what the cache does not know is looked at. */
async function allFacts({ manifest: { rows }, facts, bytes, signal, onProgress }: CheckTask): Promise<PictureFacts[]> {
  const missing = [...new Map(rows.filter(row => !facts.get(row.content)).map(row => [row.content, row])).values()]
  let next = 0
  let done = 0
  const worker = async () => {
    while (next < missing.length) {
      signal?.throwIfAborted()
      const row = missing[next++]!
      facts.put(await lookAt(await bytes(row), row.content))
      onProgress?.('looking', ++done, missing.length)
    }
  }
  await Promise.all(Array.from({ length: Math.min(missing.length, 3 * availableParallelism()) }, worker))
  return rows.map(row => {
    const known = facts.get(row.content)
    if (!known) throw new Failure('internal', { problem: `nothing is known of ${row.path}, which was just looked at` })
    return known
  })
}

/** Groups of one picture, edited or not, that carry more than one label; the larger group where one lies in the other. */
function conflictsIn({ rows }: Manifest, copies: Copies): DataCheck['conflicts'] {
  const exact = [...Map.groupBy(rows.keys(), row => rows[row]!.pixels).values()].filter(group => group.length > 1)
  const covered = new Set(copies.samePicture.flat())
  const groups = [...copies.samePicture, ...exact.filter(group => !group.every(row => covered.has(row)))]
  return groups.flatMap(group => {
    const labels = [...new Set(group.map(row => rows[row]!.labels.join(', ')))]
    return labels.length > 1 ? [{ paths: group.map(row => rows[row]!.path), labels }] : []
  })
}

/** Pictures of each class, and how many are left when copies count once. */
function perClass({ rows, classes }: Manifest, { samePicture }: Copies): DataCheck['perClass'] {
  const one = new Map<number, number>()
  for (const group of samePicture) for (const row of group) one.set(row, group[0]!)
  const images = new Map(classes.map(label => [label, 0]))
  const different = new Map(classes.map(label => [label, new Set<number>()]))
  for (const [index, row] of rows.entries()) {
    for (const label of row.labels) {
      images.set(label, images.get(label)! + 1)
      different.get(label)!.add(one.get(index) ?? index)
    }
  }
  return classes.map(label => ({ label, images: images.get(label)!, different: different.get(label)!.size }))
}

async function acrossSplit({ manifest, features, threads }: CheckTask, copies: Copies): Promise<DataCheck['acrossSplit']> {
  const across = copiesAcross(manifest, copies)
  if (!across) return null
  const scores = features ? await scoreAcross(manifest, across, features, threads) : { accuracyAsGiven: null, accuracyWithout: null }
  return {
    groups: across.groups.map(group => group.map(row => manifest.rows[row]!.path)),
    testPictures: across.test.length,
    leaked: across.leaked.length,
    ...scores,
  }
}
