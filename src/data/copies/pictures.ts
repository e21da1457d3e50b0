/** What a search for copies is given, and its pictures: equal pixels are one. */
import type { Picture } from '../../images/decode.ts'
import { type Fingerprint, leastQuality } from '../../images/fingerprint.ts'
import type { Manifest, ManifestRow } from '../../sdk/shapes.ts'

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
  /** Folder in the cache where what was found is remembered (`remembered.ts`). */
  cache?: string
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
  /** Why it is not judged, where that is its size in a data set of small pictures. */
  tooSmall: boolean
  grey(): Uint8Array
}

/**
 * Pictures so small look like their neighbours as much as like their copies where the whole data set is of them (28-px clothes: docs/inside/copies.md):
 * then only equal pixels count, and no time is spent on finding that out. Few small ones among larger pictures are compared like these.
 */
export const smallSide = 32
const isSmall = ({ width, height }: Pick<ManifestRow, 'width' | 'height'>) => width * height < smallSide * smallSide

export function distinctPictures({ manifest: { rows }, facts }: CopySearch): Distinct[] {
  const distinct = [...Map.groupBy(rows.keys(), index => rows[index]!.pixels).values()]
  const small = distinct.map(([first]) => isSmall(rows[first!]!))
  const allSmall = small.filter(Boolean).length > distinct.length / 2
  return distinct.map((own, index) => {
    const row = rows[own[0]!]!
    const print = facts.get(row.content)?.fingerprint
    const tooSmall = allSmall && small[index]!
    return {
      rows: own,
      row,
      hash: print?.hash ?? new Uint8Array(32),
      colour: print?.colour ?? '',
      judged: (print?.quality ?? 0) >= leastQuality && !tooSmall,
      tooSmall,
      grey: () => facts.grey(row.content),
    }
  })
}
