/**
 * Pictures that belong together by what is written about them: taken within seconds by one camera, next to each other in a film, made of one source
 * file. Each of these is wrong in some data sets (a camera above a belt takes a picture every second; img_0001 … img_0999 say nothing), so each must
 * show that it means something here, or it is left out and said so. Groups that the user gave (`--group-by`, a list with groups) stand above all.
 */
import { hashDistance } from '../../images/fingerprint.ts'
import type { Copies, ManifestRow } from '../../sdk/shapes.ts'
import type { Distinct } from './pictures.ts'

export interface NamedScenes {
  scenes: { rows: number[]; evidence: 'time' | 'names' }[]
  tiers: Extract<Copies['tiers'][number], 'time' | 'names'>[]
  notes: string[]
}

const burst = 3000 // milliseconds from one picture to the next
/** Files of one source at most; more share a prefix, not a source. */
const mostOfOneSource = 50
const fewStems = 5

export function namedScenes(rows: readonly ManifestRow[], pictures: readonly Pick<Distinct, 'rows' | 'hash' | 'judged'>[]): NamedScenes {
  const result: NamedScenes = { scenes: [], tiers: [], notes: [] }
  const free = [...rows.keys()].filter(row => isFree(rows[row]!))
  const times = bursts(rows, free)
  const sources = [...sourceStems(rows, free), ...frames(rows, free, pictures)]
  if (times.dated) result.tiers.push('time')
  if (free.length > 0) result.tiers.push('names')
  result.scenes.push(...times.groups.map(group => ({ rows: group, evidence: 'time' as const })))
  result.scenes.push(...sources.map(group => ({ rows: group, evidence: 'names' as const })))
  result.notes.push(...times.notes)
  if (sources.length > 0) {
    const example = sources[0]!.map(row => nameOf(rows[row]!.path))
    result.notes.push(
      `${sources.length} ${sources.length === 1 ? 'group' : 'groups'} by file name (such as ${example[0]} and ${example[1]}) ${sources.length === 1 ? 'stays' : 'stay'} on one side of a split. --group-by PATTERN decides otherwise.`,
    )
  }
  return result
}

/** A group that is more than “the same pixels” was given by the user. */
const isFree = ({ group }: ManifestRow) => group === null || group.startsWith('pixels:')

// ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function bursts(rows: readonly ManifestRow[], free: readonly number[]): { groups: number[][]; dated: boolean; notes: string[] } {
  const dated = free.filter(row => rows[row]!.captured !== undefined && rows[row]!.camera !== undefined)
  const groups: number[][] = []
  const notes: string[] = []
  for (const [camera, own] of Map.groupBy(dated, row => rows[row]!.camera!)) {
    const timed = own
      .map(row => ({ row, at: Date.parse(`${rows[row]!.captured}Z`) }))
      .filter(({ at }) => Number.isFinite(at))
      .sort((a, b) => a.at - b.at || a.row - b.row)
    const found = chains(timed, (a, b) => b.at - a.at <= burst).map(chain => chain.map(({ row }) => row))
    const inBursts = found.reduce((sum, group) => sum + group.length, 0)
    // a clock that ticks all the time, or one that stands still, tells no scene from another
    const steady =
      found.some(group => group.length > Math.max(20, timed.length / 5)) ||
      (timed.length >= 20 && inBursts > 0.8 * timed.length && found.length < 3)
    if (steady)
      notes.push(
        `The camera ${camera} took pictures without a pause: when they were taken says nothing about scenes, and was not used. --group-by PATTERN can say what belongs together.`,
      )
    else groups.push(...found)
  }
  return { groups, dated: dated.length > 0, notes }
}

/** Runs of two and more in which each follows the one before. */
function chains<T>(items: readonly T[], follows: (a: T, b: T) => boolean): T[][] {
  const result: T[][] = []
  for (const item of items) {
    const last = result.at(-1)
    if (last && follows(last.at(-1)!, item)) last.push(item)
    else result.push([item])
  }
  return result.filter(chain => chain.length > 1)
}

// ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1).replace(/\.[^.]*$/, '')
const folderOf = (path: string) => path.slice(0, path.lastIndexOf('/') + 1)

/**
 * `name.rf.<hash>` as Roboflow names what it makes of one picture, in whatever folder it ends up; and `<thing>__<variant>` where that is plainly how
 * the files are named: most have it, there are many things, few files of each, and the variants come again.
 */
function sourceStems(rows: readonly ManifestRow[], free: readonly number[]): number[][] {
  const augmented = free.flatMap(row => {
    const stem = /^(.+)\.rf\.[0-9a-zA-Z]{16,}$/.exec(nameOf(rows[row]!.path))?.[1]
    return stem ? [{ row, stem }] : []
  })
  const varied = free.flatMap(row => {
    const parts = /^(.+?)__([^_].*)$/.exec(nameOf(rows[row]!.path))
    return parts ? [{ row, stem: `${rows[row]!.labels[0]}/${parts[1]}`, variant: parts[2]! }] : []
  })
  return [...stems(augmented), ...(isConvention(varied, free.length) ? stems(varied) : [])]
}

function isConvention(varied: readonly { stem: string; variant: string }[], all: number): boolean {
  const things = new Set(varied.map(({ stem }) => stem)).size
  const variants = new Set(varied.map(({ variant }) => variant)).size
  return varied.length >= 0.8 * all && things >= fewStems && variants <= varied.length / 2 && varied.length / things <= 20
}

function stems(named: readonly { row: number; stem: string }[]): number[][] {
  const groups = [...Map.groupBy(named, ({ stem }) => stem).values()].map(group => group.map(({ row }) => row))
  return groups.filter(group => group.length > 1 && group.length <= mostOfOneSource)
}

/**
 * `clip_000123`: numbers that follow each other are pictures of one film where neighbours by number are far more alike than pictures of the same name
 * with other numbers are. Numbers alone are no evidence.
 */
function frames(
  rows: readonly ManifestRow[],
  free: readonly number[],
  pictures: readonly Pick<Distinct, 'rows' | 'hash' | 'judged'>[],
): number[][] {
  const hashOf = new Map<number, Uint8Array>()
  for (const { rows: own, hash, judged } of pictures) if (judged) for (const row of own) hashOf.set(row, hash)
  const numbered = free.flatMap(row => {
    const parts = /^(.*?)(\d{3,})$/.exec(nameOf(rows[row]!.path))
    return parts && hashOf.has(row) ? [{ row, series: folderOf(rows[row]!.path) + parts[1], number: Number(parts[2]) }] : []
  })
  const groups: number[][] = []
  for (const series of Map.groupBy(numbered, ({ series }) => series).values()) {
    if (series.length < 2) continue
    series.sort((a, b) => a.number - b.number || a.row - b.row)
    const distance = (a: number, b: number) => hashDistance(hashOf.get(a)!, hashOf.get(b)!)
    const limit = Math.min(64, 0.6 * apart(series, distance))
    groups.push(
      ...chains(series, (a, b) => b.number - a.number <= 2 && distance(a.row, b.row) <= limit).map(chain => chain.map(({ row }) => row)),
    )
  }
  return groups
}

/** What the tenth of the pairs is apart that is nearest, among pairs of the series that do not follow each other; 128 where there are none. */
function apart(series: readonly { row: number }[], distance: (a: number, b: number) => number): number {
  const distances: number[] = []
  const step = Math.max(7, Math.floor(series.length / 3))
  for (let at = 0; at + step < series.length && distances.length < 500; at++)
    distances.push(distance(series[at]!.row, series[at + step]!.row))
  distances.sort((a, b) => a - b)
  return distances[Math.floor(distances.length / 10)] ?? 128
}
