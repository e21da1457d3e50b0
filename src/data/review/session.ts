/** One review of one dataset version: what is asked, what was answered, and the version that comes of it. */
import type { Home as WholeHome } from '../../db/home.ts'
import { Failure } from '../../failure.ts'
import type { Copies, DatasetReference, Manifest, ManifestRow, Mislabels, ReviewVerdict, Side } from '../../sdk/shapes.ts'
import { saveDataset } from '../versions.ts'
import { applyVerdicts, type Changes, changesAnything, questionOf, refuseUntrainable } from './apply.ts'
import { checkLabel } from './labels.ts'
import { type Act, openVerdictLog } from './log.ts'
import { byPixels, isJudged, labelKey, type ReviewItem, type ReviewKind, reviewQueue } from './queue.ts'
import { counted } from './words.ts'

type Home = Pick<WholeHome, 'path' | 'db'>

export interface ReviewOptions {
  reference: DatasetReference
  manifest: Manifest
  copies: Copies | null
  mislabels: Mislabels | null
  /** Sides that a run gave the pictures, by path. */
  sides?: ReadonlyMap<string, Side>
  /** Ask also what was answered in an earlier review. */
  again?: boolean
  only?: ReviewKind
}

/** What somebody says about one picture of an item; `to` with 'relabel'. */
export interface Answer {
  path: string
  verdict: ReviewVerdict['verdict']
  to?: string[]
}
export interface ListedItem extends ReviewItem {
  /** What holds for each of its pictures by now. */
  verdicts: (Pick<ReviewVerdict, 'verdict' | 'to'> | null)[]
  answered: boolean
}
export interface Tally {
  items: number
  answered: number
  relabelled: number
  dropped: number
}

export interface MadeVersion {
  /** false: the verdicts change nothing, and `dataset` is the version that was reviewed. */
  made: boolean
  dataset: DatasetReference
  manifest: Manifest
  changes: Changes
  /** Changed pictures that were on the test side of the run that is reviewed. */
  tested: number
}

export interface Review {
  readonly reference: DatasetReference
  readonly manifest: Manifest
  /** Items that are not asked because they were answered in an earlier review. */
  readonly earlier: number
  /** How many labels are wrong, as far as a search can tell: fewer than are asked about. */
  readonly estimate: (Mislabels['estimate'] & { n: number }) | null
  /** How many of each kind are asked. */
  readonly kinds: Readonly<Record<ReviewKind, number>>
  list(from?: number, count?: number): Promise<ListedItem[]>
  tally(): Promise<Tally>
  /** Labels there are and that were typed, in order. */
  labels(): Promise<string[]>
  /** On disk when it answers. Warnings are sentences. throws review_item_unknown, review_answer_invalid, review_label_invalid, disk_full … */
  answer(item: string, answers: readonly Answer[]): Promise<{ act: string; warnings: string[] }>
  /** Verdicts that belong to no item, from a file. Labels are checked by whoever read it. */
  record(verdicts: readonly ReviewVerdict[]): Promise<void>
  /** Takes the newest answer back, of an earlier session too; answers the place of its item in the list, -1 if it is not there. */
  undo(): Promise<{ item: string | null; place: number } | null>
  /** What the next version would be; `refusal` says why it cannot be made. */
  preview(): Promise<{ manifest: Manifest; changes: Changes; refusal: Failure | null }>
  /** Saves it. throws review_class_too_small, review_one_class, disk_full … */
  makeVersion(): Promise<MadeVersion>
  close(): Promise<void>
}

/** throws home_damaged, not_permitted … */
export async function openReview(home: Home, options: ReviewOptions): Promise<Review> {
  const { reference, manifest, again = false, only } = options
  const log = await openVerdictLog(home, reference.name)
  const queue = reviewQueue(options).filter(item => !only || item.kind === only)
  const before = byPixels((await log.acts()).flatMap(act => act.verdicts))
  const hidden = new Set(again ? [] : queue.filter(item => isJudged(item, before)).map(item => item.id))
  const earlier = hidden.size
  let listed = queue.filter(item => !hidden.has(item.id))
  const itemOf = new Map(queue.map(item => [item.id, item]))
  const rowOf = new Map(manifest.rows.map(row => [row.path, row]))
  const rowsOf = new Map(manifest.classes.map(label => [label, [] as ManifestRow[]]))
  for (const row of manifest.rows) for (const label of row.labels) rowsOf.get(label)?.push(row)
  const opened = new Set((await log.acts()).map(act => act.id))

  /** What holds by now about the pictures of this version. With `--again` the page shows only what was said since: the rest is asked anew. */
  const holding = (acts: readonly Act[]): Holding => {
    const held: Holding = { label: new Map(), copy: new Map() }
    for (const { verdicts } of acts)
      for (const verdict of verdicts)
        if (rowOf.get(verdict.path)?.pixels === verdict.pixels) held[questionOf(verdict)].set(verdict.path, verdict)
    return held
  }
  const all = async () => holding(await log.acts())
  const shown = async () => (again ? holding((await log.acts()).filter(act => !opened.has(act.id))) : all())
  const told = (item: ReviewItem, held: Holding): ListedItem => {
    const verdicts = item.pictures.map(({ path }) => {
      const given = verdictFor(item.kind, held.label.get(path), held.copy.get(path))
      return given ? { verdict: given.verdict, ...(given.to && { to: given.to }) } : null
    })
    return { ...item, verdicts, answered: verdicts.every(verdict => verdict !== null) }
  }

  /** Different pictures that a class would be left with. */
  function left(label: string, held: Holding): number {
    const moved = [...held.label.values()].filter(verdict => verdict.to?.includes(label)).map(verdict => rowOf.get(verdict.path)!)
    const rows = [...(rowsOf.get(label) ?? []), ...moved]
    return new Set(rows.filter(row => labelsNow(row, held).includes(label)).map(row => row.pixels)).size
  }

  /** Pictures under a new name that an earlier verdict relabels all the same. */
  async function renamed(): Promise<number> {
    const verdicts = (await log.acts()).flatMap(act => act.verdicts)
    if (!verdicts.some(({ path, pixels, to }) => to && rowOf.get(path)?.pixels !== pixels)) return 0
    const { label } = await all()
    return applyVerdicts(manifest, reference, verdicts).changes.relabelled.filter(({ path }) => !label.has(path)).length
  }
  let relabelledUnderNewNames = await renamed()

  const preview = async () => {
    const { manifest: next, changes } = applyVerdicts(
      manifest,
      reference,
      (await log.acts()).flatMap(act => act.verdicts),
    )
    return { manifest: next, changes, refusal: refusalOf(() => refuseUntrainable(manifest, next)) }
  }

  let making: Promise<unknown> = Promise.resolve()
  return {
    reference,
    manifest,
    earlier,
    estimate: options.mislabels && { ...options.mislabels.estimate, n: options.mislabels.n },
    get kinds() {
      const kinds = { conflict: 0, mislabel: 0, copy: 0 }
      for (const { kind } of listed) kinds[kind]++
      return kinds
    },
    async list(from = 0, count = listed.length) {
      const held = await shown()
      return listed.slice(from, from + count).map(item => told(item, held))
    },
    async tally() {
      const [asked, held] = [await shown(), await all()]
      const answered = listed.filter(({ kind, pictures }) =>
        pictures.every(({ path }) => verdictFor(kind, asked.label.get(path), asked.copy.get(path))),
      )
      const counts = { relabelled: relabelledUnderNewNames, dropped: 0 }
      for (const path of new Set([...held.label.keys(), ...held.copy.keys()])) {
        const row = rowOf.get(path)!
        const labels = labelsNow(row, held)
        if (labels.length === 0) counts.dropped++
        else if (labelKey({ labels }) !== labelKey(row)) counts.relabelled++
      }
      return { items: listed.length, answered: answered.length, ...counts }
    },
    async labels() {
      const typed = new Set([...(await all()).label.values()].flatMap(verdict => verdict.to ?? []))
      for (const label of manifest.classes) typed.delete(label)
      return [...manifest.classes, ...typed]
    },
    async answer(id, answers) {
      const item = itemOf.get(id)
      if (!item) throw new Failure('review_item_unknown')
      const verdicts = verdictsOf(item, answers)
      const act = await log.give(id, verdicts)
      const after = await all()
      const labels = new Set(
        verdicts.filter(verdict => verdict.verdict !== 'keep').flatMap(verdict => [...verdict.from, ...(verdict.to ?? [])]),
      )
      const small = [...labels].map(label => ({ label, count: left(label, after) })).filter(({ count }) => count === 1 || count === 2)
      return { act: act.id, warnings: small.map(({ label, count }) => smallWarning(label, count, !rowsOf.has(label))) }
    },
    async record(verdicts) {
      await log.give(null, verdicts)
    },
    async undo() {
      const act: Act | null = await log.undo()
      if (!act) return null
      if (opened.has(act.id)) relabelledUnderNewNames = await renamed()
      if (act.item && hidden.delete(act.item)) listed = queue.filter(item => !hidden.has(item.id))
      return { item: act.item, place: listed.findIndex(item => item.id === act.item) }
    },
    preview,
    makeVersion() {
      // one after the other: who asks twice at once gets the same number
      const made = making.then(async () => {
        const { manifest: next, changes, refusal } = await preview()
        if (!changesAnything(changes)) return { made: false, dataset: reference, manifest, changes, tested: 0 }
        if (refusal) throw refusal
        const tested = [...changes.relabelled, ...changes.dropped].filter(({ path }) => options.sides?.get(path) === 'test').length
        return { made: true, dataset: await saveDataset(home, reference.name, next), manifest: next, changes, tested }
      })
      making = made.catch(() => {})
      return made
    },
    close: log.close,
  }
}

/** The newest verdicts on each of the two questions, by path. */
type Holding = Record<'label' | 'copy', Map<string, ReviewVerdict>>

/** Which of the two answers a question of this kind; a picture that is dropped needs no other answer. */
function verdictFor(kind: ReviewKind, label: ReviewVerdict | undefined, copy: ReviewVerdict | undefined): ReviewVerdict | undefined {
  if (label?.verdict === 'drop') return label
  if (copy?.verdict === 'drop') return copy
  return kind !== 'copy' ? label : copy && label?.to ? label : copy
}

/** The labels that the next version gives a row: as applyVerdicts does it, for one. None: it is dropped. */
function labelsNow(row: ManifestRow, { label, copy }: Holding): string[] {
  if (copy.get(row.path)?.verdict === 'drop') return []
  const about = label.get(row.path)
  if (!about || labelKey({ labels: about.from }) !== labelKey(row)) return row.labels
  return about.verdict === 'drop' ? [] : (about.to ?? row.labels)
}

const smallWarning = (label: string, count: number, isNew: boolean) =>
  isNew
    ? `“${label}” is a new class with ${counted(count, 'picture')} so far; it needs 3 different ones before a version can be made.`
    : `“${label}” would have ${counted(count, 'different picture')} left, and needs 3; a version cannot be made like this.`

/** What a person answered about an item, as verdicts. throws review_answer_invalid, review_label_invalid */
function verdictsOf(item: ReviewItem, answers: readonly Answer[]): ReviewVerdict[] {
  const at = new Date().toISOString()
  const invalid = (problem: string) => new Failure('review_answer_invalid', { problem })
  if (answers.length === 0) throw invalid('it says nothing')
  if (new Set(answers.map(answer => answer.path)).size < answers.length) throw invalid('it names a picture twice')
  return answers.flatMap(({ path, verdict, to }): ReviewVerdict[] => {
    const picture = item.pictures.find(each => each.path === path)
    if (!picture) throw invalid('it names a picture that is not in question')
    if ((verdict === 'relabel') !== (to !== undefined)) throw invalid('a new label goes with “relabel” and with nothing else')
    const labels = to && [...new Set(to.map(checkLabel))]
    if (labels?.length === 0) throw invalid('it relabels to nothing')
    const about = { path, pixels: picture.pixels, from: picture.labels, at }
    // the label that is there is no new one: then it is kept
    const given = labels && labelKey({ labels }) !== labelKey(picture) ? ({ verdict, to: labels } as const) : null
    if (item.kind !== 'copy')
      return [{ ...about, ...(given ?? { verdict: verdict === 'drop' ? verdict : ('keep' as const) }), reason: item.kind }]
    if (!given) return [{ ...about, verdict: verdict === 'drop' ? verdict : ('keep' as const), reason: 'copy' as const }]
    return [
      { ...about, ...given, reason: 'other' as const },
      { ...about, verdict: 'keep' as const, reason: 'copy' as const },
    ]
  })
}

function refusalOf(check: () => void): Failure | null {
  try {
    check()
    return null
  } catch (error) {
    if (error instanceof Failure) return error
    throw error
  }
}
