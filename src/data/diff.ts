/** What changed between two dataset versions, picture by picture: known by its pixels, so that a new name or another format is no new picture. Pure. */
import type { Manifest, ManifestRow } from '../sdk/shapes.ts'
import { byCodePoint } from './source.ts'

export interface DatasetDiff {
  added: string[]
  removed: string[]
  /** The same pixels with other labels, wherever they lie now. */
  relabelled: { path: string; before: string; from: string[]; to: string[] }[]
  /** The same pixels and labels under another name. */
  renamed: { from: string; to: string }[]
  /** The same name with other pixels. */
  changed: string[]
  /** The same picture on another side of the user's own split, or in another group. */
  moved: { path: string; from: string; to: string }[]
  same: number
  classes: { added: string[]; removed: string[] }
}

type Part = Pick<Manifest, 'rows' | 'classes'>

export function diffDatasets(before: Part, after: Part): DatasetDiff {
  const diff: DatasetDiff = {
    added: [],
    removed: [],
    relabelled: [],
    renamed: [],
    changed: [],
    moved: [],
    same: 0,
    classes: {
      added: after.classes.filter(label => !before.classes.includes(label)),
      removed: before.classes.filter(label => !after.classes.includes(label)),
    },
  }
  const old = new Map(before.rows.map(row => [row.path, row]))
  const left: ManifestRow[] = []
  for (const row of after.rows) {
    const earlier = old.get(row.path)
    if (earlier?.pixels === row.pixels) {
      old.delete(row.path)
      compare(earlier, row, diff)
    } else left.push(row)
  }
  // what has a name of its own in one of the two only, or other pixels under its name: matched by pixels, copies in the order of their names
  const byPixels = Map.groupBy(old.values(), row => row.pixels)
  for (const row of left) {
    const candidates = byPixels.get(row.pixels) ?? []
    const index = Math.max(
      0,
      candidates.findIndex(each => nameOf(each) === nameOf(row)),
    )
    const [earlier] = candidates.splice(index, 1)
    if (earlier) {
      old.delete(earlier.path)
      compare(earlier, row, diff)
    } else diff.added.push(row.path)
  }
  const added = new Set(diff.added)
  for (const path of old.keys()) (added.has(path) ? diff.changed : diff.removed).push(path)
  diff.added = diff.added.filter(path => !old.has(path))
  diff.relabelled.sort((a, b) => byCodePoint(a.path, b.path))
  diff.renamed.sort((a, b) => byCodePoint(a.to, b.to))
  return diff
}

const nameOf = ({ path }: ManifestRow) => path.slice(path.lastIndexOf('/') + 1)

function compare(before: ManifestRow, after: ManifestRow, diff: DatasetDiff): void {
  const { path } = after
  if (before.labels.join('\n') !== after.labels.join('\n'))
    diff.relabelled.push({ path, before: before.path, from: before.labels, to: after.labels })
  else if (before.path !== path) diff.renamed.push({ from: before.path, to: path })
  else if (before.side !== after.side) diff.moved.push({ path, from: before.side ?? 'no side', to: after.side ?? 'no side' })
  else diff.same++
}
