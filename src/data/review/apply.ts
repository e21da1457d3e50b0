/** From verdicts to the manifest of the next version. Pure; the old one stays as it is. */
import { Failure } from '../../failure.ts'
import type { DatasetReference, Manifest, ManifestRow, ReviewVerdict } from '../../sdk/shapes.ts'
import { joinGroups } from '../groups.ts'
import { byCodePoint } from '../source.ts'
import { labelKey } from './queue.ts'

export interface Changes {
  relabelled: { path: string; from: string[]; to: string[] }[]
  dropped: { path: string; labels: string[]; reason: ReviewVerdict['reason'] }[]
  /** Pictures that were looked at and stay as they are. */
  kept: number
  /** Verdicts about pictures whose labels are others by now, in this version: they are left alone. */
  outdated: ReviewVerdict[]
  newClasses: string[]
  goneClasses: string[]
}

/**
 * `verdicts`: of all reviews of the dataset, oldest first; the newest on a picture and question holds. They are found again by path and pixels. Where the
 * path is gone, pixels and labels are enough to relabel; never to drop, for the picture may be the copy that was meant to stay.
 */
export function applyVerdicts(
  manifest: Manifest,
  parent: DatasetReference,
  verdicts: readonly ReviewVerdict[],
): { manifest: Manifest; changes: Changes } {
  const find = finder(manifest.rows, verdicts)
  const changes: Changes = { relabelled: [], dropped: [], kept: 0, outdated: [], newClasses: [], goneClasses: [] }
  const already = new Set(manifest.verdicts?.map(verdict => JSON.stringify(verdict)))
  const used: ReviewVerdict[] = []
  const rows = manifest.rows.flatMap(row => {
    const { label, copy } = find(row)
    const given = [label, copy].filter(verdict => verdict !== undefined)
    const fitting = given.filter(verdict => verdict.reason === 'copy' || labelKey({ labels: verdict.from }) === labelKey(row))
    const isDone = (verdict: ReviewVerdict) => verdict.to !== undefined && labelKey({ labels: verdict.to }) === labelKey(row)
    changes.outdated.push(...given.filter(verdict => !fitting.includes(verdict) && !isDone(verdict)))
    const use = (verdict: ReviewVerdict) => {
      if (!already.has(JSON.stringify(verdict))) used.push(verdict)
    }
    const drop = fitting.find(verdict => verdict.verdict === 'drop')
    if (drop) {
      changes.dropped.push({ path: row.path, labels: row.labels, reason: drop.reason })
      used.push(drop)
      return []
    }
    for (const verdict of fitting) use(verdict)
    const to = fitting.find(verdict => verdict.verdict === 'relabel')?.to
    if (!to || labelKey({ labels: to }) === labelKey(row)) {
      if (fitting.length > 0) changes.kept++
      return [row]
    }
    changes.relabelled.push({ path: row.path, from: row.labels, to })
    return [{ ...row, labels: to }]
  })
  const described = describeRows(rows)
  changes.newClasses = described.classes.filter(label => !manifest.classes.includes(label))
  changes.goneClasses = manifest.classes.filter(label => !described.classes.includes(label))
  const { unreadable, ignored } = manifest
  return { manifest: { schema: 1, ...described, unreadable, ignored, parent, verdicts: used }, changes }
}

/** Whether a new version would differ from the old one. */
export const changesAnything = ({ relabelled, dropped }: Changes): boolean => relabelled.length + dropped.length > 0

const smallestClass = 3

/**
 * What cannot be trained any more is not made. A class that was too small before may stay so, and one that goes altogether may go.
 * throws review_class_too_small, review_one_class
 */
export function refuseUntrainable(before: Manifest, after: Manifest): void {
  if (after.classes.length < 2 && before.classes.length >= 2)
    throw new Failure('review_one_class', { classes: after.classes.map(label => `“${label}”`).join('') || 'no class' })
  const [was, is] = [differentPictures(before.rows), differentPictures(after.rows)]
  for (const [label, pictures] of is) {
    const count = pictures.size
    if (count < smallestClass && count < (was.get(label)?.size ?? smallestClass))
      throw new Failure('review_class_too_small', { label, pictures: count === 1 ? '1 picture' : `${count} different pictures` })
  }
}

function differentPictures(rows: readonly ManifestRow[]): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>()
  for (const { labels, pixels } of rows) for (const label of labels) found.set(label, (found.get(label) ?? new Set()).add(pixels))
  return found
}

/** Everything in a manifest that follows from its rows. Rows that were one group stay one, as long as there are two of them. */
function describeRows(rows: readonly ManifestRow[]): Pick<Manifest, 'classes' | 'rows' | 'exactDuplicates' | 'conflicts'> {
  const groups = joinGroups(
    rows.map(({ pixels, group }) => [`pixels:${pixels.slice(0, 16)}`, ...(group === null ? [] : [`group:${group}`])]),
  )
  const copies = [...Map.groupBy(rows, row => row.pixels).values()].filter(group => group.length > 1)
  const paths = (group: ManifestRow[]) => group.map(row => row.path)
  return {
    classes: [...new Set(rows.flatMap(row => row.labels))].sort(byCodePoint),
    rows: rows.map((row, index) => ({ ...row, group: groups[index]! })),
    exactDuplicates: copies.map(paths),
    conflicts: copies.filter(group => new Set(group.map(labelKey)).size > 1).map(paths),
  }
}

// ── which verdict is about which row ────────────────────────────────────────────────────────────────────────────────────────

interface Found {
  /** The newest about what it shows. */
  label: ReviewVerdict | undefined
  /** The newest about whether it is wanted beside its copies. */
  copy: ReviewVerdict | undefined
}

/** Two questions are asked about a picture, and “keep it, though there is a copy” does not answer “is the label right?”. */
export const questionOf = ({ reason }: Pick<ReviewVerdict, 'reason'>): 'label' | 'copy' => (reason === 'copy' ? 'copy' : 'label')

/** Of the verdicts on each path with its pixels and each question the newest, in the order in which they were given. */
export function standing(verdicts: readonly ReviewVerdict[]): ReviewVerdict[] {
  const newest = new Map<string, ReviewVerdict>()
  for (const verdict of verdicts) {
    const key = keyOf(verdict.path, verdict.pixels, questionOf(verdict))
    newest.delete(key)
    newest.set(key, verdict)
  }
  return [...newest.values()]
}

function finder(rows: readonly ManifestRow[], verdicts: readonly ReviewVerdict[]): (row: ManifestRow) => Found {
  const there = new Set(rows.map(({ path, pixels }) => JSON.stringify([path, pixels])))
  const exact = new Map<string, ReviewVerdict>()
  const moved = new Map<string, ReviewVerdict>()
  const all = standing(verdicts)
  const dropped = new Set(all.filter(({ verdict }) => verdict === 'drop').map(({ path, pixels }) => JSON.stringify([path, pixels])))
  for (const verdict of all) {
    const { path, pixels, from } = verdict
    if (there.has(JSON.stringify([path, pixels]))) exact.set(keyOf(path, pixels, questionOf(verdict)), verdict)
    else if (verdict.verdict === 'relabel' && !dropped.has(JSON.stringify([path, pixels])))
      moved.set(JSON.stringify([pixels, labelKey({ labels: from })]), verdict)
  }
  return row => ({
    label: exact.get(keyOf(row.path, row.pixels, 'label')) ?? moved.get(JSON.stringify([row.pixels, labelKey(row)])),
    copy: exact.get(keyOf(row.path, row.pixels, 'copy')),
  })
}

const keyOf = (path: string, pixels: string, question: 'label' | 'copy') => JSON.stringify([path, pixels, question])
