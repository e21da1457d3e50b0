/** One review of one dataset version: what is asked, what was answered, and the version that comes of it. */
import type { Home as WholeHome } from '../../db/home.ts'
import { Failure } from '../../failure.ts'
import type { Copies, DatasetReference, Manifest, ManifestRow, Mislabels, ReviewVerdict, Side } from '../../sdk/shapes.ts'
import { saveDataset } from '../versions.ts'
import { applyVerdicts, type Changes, changesAnything, questionOf, refuseUntrainable, standing } from './apply.ts'
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

  /** What holds by now, found by path, pixels and question. In `--again` only what was said since: the old answers are asked anew. */
  async function known(since: 'ever' | 'opened' = 'ever'): Promise<Map<string, ReviewVerdict>> {
    const acts = (await log.acts()).filter(act => since === 'ever' || !opened.has(act.id))
    return new Map(standing(acts.flatMap(act => act.verdicts)).map(verdict => [placeOf(verdict, questionOf(verdict)), verdict]))
  }
  const told = (item: ReviewItem, verdicts: ReadonlyMap<string, ReviewVerdict>): ListedItem => {
    const own = item.pictures.map(picture => {
      const [label, copy] = [verdicts.get(placeOf(picture, 'label')), verdicts.get(placeOf(picture, 'copy'))]
      const given =
        [label, copy].find(verdict => verdict?.verdict === 'drop') ?? (item.kind === 'copy' ? (copy && label?.to ? label : copy) : label)
      return given ? { verdict: given.verdict, ...(given.to && { to: given.to }) } : null
    })
    return { ...item, verdicts: own, answered: own.every(verdict => verdict !== null) }
  }

  /** Different pictures that a class would be left with. */
  function left(label: string, verdicts: ReadonlyMap<string, ReviewVerdict>): number {
    const now = (row: ManifestRow) => {
      const [about, copy] = [verdicts.get(placeOf(row, 'label')), verdicts.get(placeOf(row, 'copy'))]
      if (about?.verdict === 'drop' || copy?.verdict === 'drop') return []
      return about?.to ?? row.labels
    }
    const moved = [...verdicts.values()].filter(verdict => verdict.to?.includes(label)).map(verdict => rowOf.get(verdict.path))
    const rows = [...(rowsOf.get(label) ?? []), ...moved.filter(row => row !== undefined)]
    return new Set(rows.filter(row => now(row).includes(label)).map(row => row.pixels)).size
  }

  const preview = async () => {
    const { manifest: next, changes } = applyVerdicts(
      manifest,
      reference,
      (await log.acts()).flatMap(act => act.verdicts),
    )
    return { manifest: next, changes, refusal: refusalOf(() => refuseUntrainable(manifest, next)) }
  }

  return {
    reference,
    manifest,
    earlier,
    estimate: options.mislabels && { ...options.mislabels.estimate, n: options.mislabels.n },
    kinds: {
      conflict: listed.filter(item => item.kind === 'conflict').length,
      mislabel: listed.filter(item => item.kind === 'mislabel').length,
      copy: listed.filter(item => item.kind === 'copy').length,
    },
    async list(from = 0, count = listed.length) {
      const verdicts = await known(again ? 'opened' : 'ever')
      return listed.slice(from, from + count).map(item => told(item, verdicts))
    },
    async tally() {
      const [shown, all] = [await known(again ? 'opened' : 'ever'), await known()]
      const changing = new Map<string, 'relabel' | 'drop'>()
      for (const { path, pixels, from, to, verdict } of all.values()) {
        const row = rowOf.get(path)
        if (row?.pixels !== pixels || labelKey({ labels: from }) !== labelKey(row) || verdict === 'keep') continue
        if (verdict === 'drop' || (changing.get(path) !== 'drop' && labelKey({ labels: to! }) !== labelKey(row)))
          changing.set(path, verdict)
      }
      const count = (verdict: 'relabel' | 'drop') => [...changing.values()].filter(each => each === verdict).length
      const answered = listed.filter(item => told(item, shown).answered).length
      return { items: listed.length, answered, relabelled: count('relabel'), dropped: count('drop') }
    },
    async labels() {
      const typed = [...(await known()).values()].flatMap(verdict => verdict.to ?? [])
      return [...manifest.classes, ...new Set(typed.filter(label => !manifest.classes.includes(label)))]
    },
    async answer(id, answers) {
      const item = itemOf.get(id)
      if (!item) throw new Failure('review_item_unknown')
      const verdicts = verdictsOf(item, answers)
      const act = await log.give(id, verdicts)
      const after = await known()
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
      if (act.item && hidden.delete(act.item)) listed = queue.filter(item => !hidden.has(item.id))
      return { item: act.item, place: listed.findIndex(item => item.id === act.item) }
    },
    preview,
    async makeVersion() {
      const { manifest: next, changes, refusal } = await preview()
      if (!changesAnything(changes)) return { made: false, dataset: reference, manifest, changes, tested: 0 }
      if (refusal) throw refusal
      const tested = [...changes.relabelled, ...changes.dropped].filter(({ path }) => options.sides?.get(path) === 'test').length
      return { made: true, dataset: await saveDataset(home, reference.name, next), manifest: next, changes, tested }
    },
    close: log.close,
  }
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

const placeOf = ({ path, pixels }: Pick<ManifestRow, 'path' | 'pixels'>, question: 'label' | 'copy') =>
  JSON.stringify([path, pixels, question])
