/** Which pictures of a dataset belong together: the same picture edited, the same scene, merely alike. How and why: docs/inside/copies.md. */
import type { Picture } from '../../images/decode.ts'
import type { Fingerprint } from '../../images/fingerprint.ts'
import type { Copies, Manifest, ManifestRow } from '../../sdk/shapes.ts'
import { joinGroups } from '../groups.ts'

export interface CopySearch {
  manifest: Pick<Manifest, 'rows'>
  /** Digest of the dataset version. */
  dataset: string
  /** What is known of each picture by the digest of its file (`data/facts.ts`): its fingerprint, and apart from it the grey copy. */
  facts: { get(content: string): { fingerprint: Omit<Fingerprint, 'grey'> } | null; grey(content: string): Uint8Array | null }
  /** [rows, width] float32, pooled features of the untouched backbone. */
  features?: { values: Float32Array; width: number }
  /** The picture itself, for edits that the thresholds are calibrated with. Without it the thresholds are the careful defaults. */
  picture?(row: ManifestRow): Promise<Pick<Picture, 'width' | 'height' | 'data'>>
  seed?: number
  signal?: AbortSignal
  onProgress?(done: number, total: number, what: string): void
}

/** The same pictures and seed give the same answer. Throws `signal.reason` when it is aborted. */
export async function findCopies({ manifest, dataset, signal }: CopySearch): Promise<Copies> {
  signal?.throwIfAborted()
  return {
    schema: 1,
    dataset,
    tiers: ['pixels'],
    samePicture: exactGroups(manifest.rows),
    sameScene: [],
    alike: [],
    notJudged: [],
    threshold: 1,
    recall: [],
    notes: [],
  }
}

/** Rows that must stay on one side of a split and in one fold: same picture and same scene, joined. Rows that stand alone are not listed. */
export function groupsOf({ samePicture, sameScene }: Pick<Copies, 'samePicture' | 'sameScene'>): number[][] {
  const keys = new Map<number, string[]>()
  for (const [group, rows] of [...samePicture, ...sameScene.map(scene => scene.rows)].entries()) {
    for (const row of rows) keys.set(row, [...(keys.get(row) ?? []), String(group)])
  }
  const members = [...keys.keys()].sort((a, b) => a - b)
  const joined = joinGroups(members.map(row => keys.get(row)!))
  return [...Map.groupBy(members.keys(), index => joined[index]!).values()].map(group => group.map(index => members[index]!))
}

function exactGroups(rows: readonly ManifestRow[]): number[][] {
  return [...Map.groupBy(rows.keys(), index => rows[index]!.pixels).values()].filter(group => group.length > 1)
}
