/**
 * What is to be looked at by a person, worst first, as plain data: pictures that carry two labels (certain: one of them is wrong), labels that
 * look wrong (proposals), copies (harmless, but they count twice). Pure: from a manifest and what was found about it.
 */
import type { Copies, Manifest, ManifestRow, Mislabels, ReviewVerdict, Side } from '../../sdk/shapes.ts'
import { joinGroups } from '../groups.ts'
import { byCodePoint, sha256 } from '../source.ts'
import { bestToKeep } from './keep.ts'
import { percentWords } from './words.ts'

export const reviewKinds = ['conflict', 'mislabel', 'copy'] as const
export type ReviewKind = (typeof reviewKinds)[number]

export interface ReviewPicture
  extends Pick<
    ManifestRow,
    'path' | 'content' | 'pixels' | 'labels' | 'width' | 'height' | 'flags' | 'format' | 'bytes' | 'captured' | 'camera'
  > {
  /** Where the run that is reviewed had it, else where the user's own folders have it. */
  side: Side | null
}

export interface ReviewItem {
  /** The same for the same pictures and question, in every session. */
  id: string
  kind: ReviewKind
  /** One sentence: what is asked. */
  question: string
  /** Sentences: why it is asked. */
  because: string[]
  /** conflict, copy: all that show the same thing. mislabel: the picture, then its copies under the same label; a verdict is for all of them. */
  pictures: ReviewPicture[]
  /** Labels that may be the right ones, the likeliest first. */
  suggestions: string[]
  /** copy: place in `pictures` of the one to keep; null elsewhere. */
  keep: number | null
  /** Equal pixels: nobody has to look whether it is the same picture. */
  exact: boolean
  evidence: Evidence | null
}
export interface Evidence {
  pile: Mislabels['listed'][number]['pile']
  score: number
  probabilityOfLabel: number
  probabilityOfSuggestion: number
  neighbours: { path: string; label: string; similarity: number; content: string }[]
}

export interface ReviewInput {
  manifest: Pick<Manifest, 'rows'>
  /** null: only equal pixels are known to be copies. */
  copies: Pick<Copies, 'samePicture'> | null
  mislabels: Pick<Mislabels, 'listed'> | null
  /** Sides that a run gave the rows, by path. */
  sides?: ReadonlyMap<string, Side>
}

/** Conflicts, then likely mislabels, then copies; within each the worst first. */
export function reviewQueue({ manifest: { rows }, copies, mislabels, sides }: ReviewInput): ReviewItem[] {
  const groups = samePictures(rows, copies)
  const listed = new Map(mislabels?.listed.map(each => [each.path, each]))
  const picture = (index: number): ReviewPicture => {
    const { path, content, pixels, labels, width, height, flags, format, bytes, captured, camera, side } = rows[index]!
    const known = { ...(format && { format }), ...(bytes && { bytes }), ...(captured && { captured }), ...(camera && { camera }) }
    return { path, content, pixels, labels, width, height, flags, ...known, side: sides?.get(path) ?? side }
  }
  const contentOf = new Map(rows.map(row => [row.path, row.content]))
  const evidenceOf = (found: Mislabels['listed'][number]): Evidence => ({
    pile: found.pile,
    score: found.score,
    probabilityOfLabel: found.probabilityOfLabel,
    probabilityOfSuggestion: found.probabilityOfSuggestion,
    neighbours: found.neighbours.flatMap(each => {
      const content = contentOf.get(each.path)
      return content ? [{ ...each, content }] : []
    }),
  })

  const conflicts: ReviewItem[] = []
  const duplicates: ReviewItem[] = []
  const contested = new Set<number>()
  for (const group of groups) {
    const pictures = group.map(picture)
    if (new Set(group.map(index => labelKey(rows[index]!))).size > 1) {
      for (const index of group) contested.add(index)
      const found = group.map(index => listed.get(rows[index]!.path)).find(each => each !== undefined)
      conflicts.push(conflictItem(pictures, found && evidenceOf(found), found?.suggestion ?? null))
    } else duplicates.push(copyItem(pictures))
  }

  const groupOf = new Map(groups.flatMap(group => group.map(index => [index, group] as const)))
  const indexOf = new Map([...rows.entries()].map(([index, row]) => [row.path, index]))
  const taken = new Set<number>()
  const wrong: ReviewItem[] = []
  for (const found of [...(mislabels?.listed ?? [])].sort((a, b) => b.score - a.score)) {
    const index = indexOf.get(found.path)
    if (index === undefined || contested.has(index) || taken.has(index)) continue
    // a label corrected on one copy only would be a conflict afterwards
    const twins = (groupOf.get(index) ?? []).filter(other => other !== index)
    for (const each of [index, ...twins]) taken.add(each)
    wrong.push(mislabelItem([index, ...twins].map(picture), found, evidenceOf(found)))
  }

  conflicts.sort((a, b) => Number(b.exact) - Number(a.exact) || b.pictures.length - a.pictures.length || byPath(a, b))
  duplicates.sort((a, b) => Number(isSplit(b)) - Number(isSplit(a)) || b.pictures.length - a.pictures.length || byPath(a, b))
  return [...conflicts, ...wrong, ...duplicates]
}

/**
 * Whether its question has been answered for every picture in it, here or in an earlier version: a label by pixels, so a moved file counts. An answer
 * about other labels than the picture has by now does not. `verdicts`: by pixels.
 */
export function isJudged({ kind, pictures }: ReviewItem, verdicts: ReadonlyMap<string, readonly ReviewVerdict[]>): boolean {
  return pictures.every(picture =>
    verdicts.get(picture.pixels)?.some(verdict => {
      const same = [verdict.from, verdict.to ?? verdict.from].some(labels => labelKey({ labels }) === labelKey(picture))
      const answers = (verdict.reason === 'copy') === (kind === 'copy')
      // pixels do not tell which of several copies was meant, or that one more came; nor that what comes back was to be dropped here, too
      const here = verdict.path === picture.path
      return same && (verdict.verdict === 'drop' ? here : answers && (here || kind !== 'copy'))
    }),
  )
}

export const byPixels = (verdicts: readonly ReviewVerdict[]): Map<string, ReviewVerdict[]> =>
  Map.groupBy(verdicts, verdict => verdict.pixels)

/** Labels as one text to compare; they cannot hold line breaks. */
export const labelKey = ({ labels }: Pick<ManifestRow, 'labels'>): string => [...labels].sort(byCodePoint).join('\n')

/** Rows that show the same picture, by equal pixels and by what was verified; those that stand alone are not listed. */
function samePictures(rows: readonly ManifestRow[], copies: ReviewInput['copies']): number[][] {
  const keys = rows.map(row => [row.pixels])
  for (const [number, group] of (copies?.samePicture ?? []).entries()) for (const index of group) keys[index]?.push(`copies ${number}`)
  const joined = joinGroups(keys)
  const members = [...rows.keys()].filter(index => joined[index] !== null)
  return [...Map.groupBy(members, index => joined[index]!).values()]
}

// ── one item of each kind ───────────────────────────────────────────────────────────────────────────────────────────────────

function conflictItem(pictures: ReviewPicture[], evidence: Evidence | undefined, suggestion: string | null): ReviewItem {
  const labels = pictures.flatMap(picture => picture.labels)
  const count = (label: string) => labels.filter(each => each === label).length
  // copies of a wrong label are no witnesses for it, a model that saw none of them is
  const suggestions = [...new Set(labels)].sort(
    (a, b) => Number(b === suggestion) - Number(a === suggestion) || count(b) - count(a) || byCodePoint(a, b),
  )
  const exact = isExact(pictures)
  const votes = suggestions.map(label => `${count(label)} ${count(label) === 1 ? 'file says' : 'files say'} “${label}”`)
  return {
    id: idOf('conflict', pictures),
    kind: 'conflict',
    question: `The same picture under ${suggestions.length === 1 ? 'different' : suggestions.length} labels: which is right?`,
    because: [
      exact
        ? `${pictures.length} files hold exactly the same pixels.`
        : `${pictures.length} files show the same picture, at least one of them edited.`,
      `${votes.join(', ')}.`,
      ...(suggestion && suggestions.includes(suggestion) ? [`A model that did not learn from them would say “${suggestion}”.`] : []),
    ],
    pictures,
    suggestions,
    keep: null,
    exact,
    evidence: evidence ?? null,
  }
}

function mislabelItem(pictures: ReviewPicture[], found: Mislabels['listed'][number], evidence: Evidence): ReviewItem {
  const own = pictures[0]!.labels
  const near = evidence.neighbours.map(neighbour => neighbour.label).filter(label => !own.includes(label))
  const votes = (label: string) => near.filter(each => each === label).length
  const others = [...new Set(near)].sort((a, b) => votes(b) - votes(a))
  const label = own.join(' and ')
  const { suggestion, pile } = found
  const agree = evidence.neighbours.filter(neighbour => own.includes(neighbour.label)).length
  return {
    id: idOf('mislabel', pictures),
    kind: 'mislabel',
    question: questionsOf[pile](label, suggestion),
    because: [
      `Its label is “${label}”. A model that did not learn from it gives “${label}” ${percentWords(evidence.probabilityOfLabel)}${
        suggestion ? ` and “${suggestion}” ${percentWords(evidence.probabilityOfSuggestion)}` : ''
      }.`,
      ...(evidence.neighbours.length > 0
        ? [
            `Of the ${evidence.neighbours.length} pictures most like it, ${agree === 0 ? 'none is' : agree === 1 ? 'one is' : `${agree} are`} “${label}”.`,
          ]
        : []),
      ...(pictures.length > 1
        ? [
            `${pictures.length - 1 === 1 ? 'A copy of it has' : `${pictures.length - 1} copies of it have`} the same label; your answer holds for all.`,
          ]
        : []),
      ...advice[pile],
    ],
    pictures,
    suggestions: [...new Set([...(suggestion ? [suggestion] : []), ...others])].slice(0, 9),
    keep: null,
    exact: isExact(pictures),
    evidence,
  }
}

const questionsOf: Record<Evidence['pile'], (label: string, suggestion: string | null) => string> = {
  another: (label, suggestion) => (suggestion ? `Is this “${label}”, or “${suggestion}”?` : `Is this “${label}”?`),
  two: (label, suggestion) =>
    suggestion ? `Is this “${label}”, “${suggestion}”, or both at once?` : `Is this “${label}”, or two at once?`,
  none: label => `Is this “${label}”? It looks like none of the classes.`,
}
/** What to do where another label is not the cure. */
const advice: Record<Evidence['pile'], string[]> = {
  another: [],
  two: ['If both are in it: choose by one rule for all such pictures, or drop it.'],
  none: ['If it belongs to none: drop it, or give it a class of its own.'],
}

function copyItem(pictures: ReviewPicture[]): ReviewItem {
  const { index, why } = bestToKeep(pictures)
  const sides = [...new Set(pictures.map(picture => picture.side))].filter(side => side !== null)
  const item: ReviewItem = {
    id: idOf('copy', pictures),
    kind: 'copy',
    question: pictures.length === 2 ? 'The same picture twice: keep both?' : `The same picture ${pictures.length} times: keep them all?`,
    because: [
      isExact(pictures) ? 'The files hold exactly the same pixels.' : 'It is one picture, saved again or edited; the pixels were compared.',
      `Suggested to keep: ${pictures[index]!.path}, ${why}.`,
      ...(sides.length > 1 ? [`They lie on both sides of your own split (${sides.join(', ')}): a test on them says nothing.`] : []),
    ],
    pictures,
    suggestions: [],
    keep: index,
    exact: isExact(pictures),
    evidence: null,
  }
  return item
}

const isExact = (pictures: readonly ReviewPicture[]) => new Set(pictures.map(picture => picture.pixels)).size === 1
const isSplit = ({ pictures }: ReviewItem) => new Set(pictures.map(picture => picture.side)).size > 1
const byPath = (a: ReviewItem, b: ReviewItem) => byCodePoint(a.pictures[0]!.path, b.pictures[0]!.path)

function idOf(kind: ReviewKind, pictures: readonly ReviewPicture[]): string {
  const members = pictures.map(({ path, pixels }) => JSON.stringify([path, pixels])).sort(byCodePoint)
  return `${kind}-${sha256(members.join('\n')).slice(0, 16)}`
}
