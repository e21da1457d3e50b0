/**
 * Labels that look wrong, ranked, with the evidence beside each. They are proposals: nothing is ever relabelled by itself.
 *
 * Near-copies with different labels come first, because one of them is wrong for certain. The others follow by suspicion (suspicion.ts), in three piles that
 * want different cures. How many are wrong in all is an estimate of its own (label-noise.ts): the list is longer than that on purpose.
 */
import { unitsOf } from '../data/folds.ts'
import { Failure } from '../failure.ts'
import type { Mislabels } from '../sdk/shapes.ts'
import { estimateNoise } from './label-noise.ts'
import { type Suspicion, suspicions } from './suspicion.ts'

export interface MislabelTask {
  /** [n, width] of the untouched backbone. */
  features: Float32Array
  width: number
  /** [n] numbers into `classes`. */
  labels: Int32Array
  classes: readonly string[]
  /** [n] */
  paths: readonly string[]
  /** Copies and scenes, by row: a copy with the same wrong label must not vouch for it. */
  groups: readonly (readonly number[])[]
  /** Verified copies among them (`samePicture`). Without it those of a group whose features are all but equal are taken for copies. */
  copies?: readonly (readonly number[])[]
  threads: number
  seed: number
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

const neighboursShown = 5
const list = { fewest: 20, most: 500, timesEstimate: 2 }
/** A label that is more probable than this is not called likely wrong, however long the list. */
const stillBelieved = 0.5
/** Two at once: label and rival share the picture. */
const two = { each: 0.2, together: 0.75 }
/** Neighbours agree on a class when so many of them have it. */
const agreeing = 0.6
/** Cosine of standardised features from which two members of a group are the same picture for our purpose. */
const sameFeatures = 0.95
/** Members of one group that are compared with one another. */
const mostCompared = 200
const exchangedShown = 10

/** @throws one_class_left, bad_scores for features that are not numbers, shape_mismatch; what `signal` was aborted with */
export async function findMislabels(task: MislabelTask): Promise<Mislabels> {
  const { labels, classes, groups } = task
  const n = labels.length
  const present = new Set(labels)
  if (present.size < 2) throw new Failure('one_class_left', { label: classes[labels[0] ?? -1] ?? 'none' })
  const units = unitsOf(n, groups)
  if (units.length < 2) return nothingToCompare(n)
  const suspicion = await suspicions({ ...task, classes: classes.length })
  const rows = [...labels.keys()].filter(row => suspicion.judged[row])
  const noise = estimate(suspicion, task, rows)

  const certain = conflicts(task, suspicion)
  const length = Math.min(list.most, Math.max(list.fewest, Math.ceil(list.timesEstimate * noise.count)))
  const likely = rows
    .filter(row => !certain.has(row) && suspicion.probabilities[row * classes.length + labels[row]!]! < stillBelieved)
    .sort((a, b) => suspicion.score[b]! - suspicion.score[a]!)
  const isolated = lonely(suspicion, labels)
  const found = [...certain.keys(), ...likely].slice(0, Math.max(length, Math.min(list.most, certain.size)))
  const listed = found.map(row => evidence(row, task, suspicion, isolated, certain.get(row)))
  return {
    n: rows.length,
    estimate: { count: noise.count, low: noise.low, high: noise.high },
    exchanged: noise.exchanged,
    listed,
    notes: notesOf(rows.length, n, units.length, noise, listed, certain.size),
  }
}

/** One picture in many copies: whoever learns from it has seen it. */
function nothingToCompare(n: number): Mislabels {
  const notes = [`The ${n} pictures are copies of one another: no label can be judged by other pictures. Add different pictures.`]
  return { n: 0, estimate: { count: 0, low: 0, high: n }, exchanged: [], listed: [], notes }
}

type Listed = Mislabels['listed'][number]

function estimate({ heads }: Suspicion, { labels, classes, groups, seed }: MislabelTask, rows: readonly number[]) {
  const k = classes.length
  const at = new Map(rows.map((row, place) => [row, place]))
  const logs = new Float64Array(rows.length * k)
  for (const [place, row] of rows.entries()) logs.set(heads.subarray(row * k, (row + 1) * k), place * k)
  const inRows = groups.map(group => group.map(row => at.get(row)).filter(place => place !== undefined)).filter(group => group.length > 0)
  const noise = estimateNoise({
    logProbabilities: logs,
    labels: Int32Array.from(rows, row => labels[row]!),
    classes: k,
    units: unitsOf(rows.length, inRows),
    seed,
  })
  const exchanged = noise.exchanged
    .map(({ from, to, count }) => ({ label: classes[from]!, suggestion: classes[to]!, count: Math.round(count) }))
    .filter(({ count }) => count > 0)
    .slice(0, exchangedShown)
  return { count: noise.count, low: noise.low, high: noise.high, exchanged }
}

// ── the same picture under two labels ───────────────────────────────────────────────────────────────────────────────────────

interface Conflict {
  /** What its copies are called. */
  label: number
  copies: number[]
}

/** Row → its copies with another label, for the rows whose label is the less believed one; the clearest first. */
function conflicts(
  { labels, groups, copies, width, classes }: MislabelTask,
  { probabilities, unit, score }: Suspicion,
): Map<number, Conflict> {
  const mixed = (group: readonly number[]) => group.some(row => labels[row] !== labels[group[0]!])
  const same =
    copies?.filter(mixed) ??
    groups
      .filter(mixed)
      .flatMap(group => alike(group.slice(0, mostCompared), unit, width))
      .filter(mixed)
  const found: [number, Conflict][] = same.flatMap(group => {
    const names = [...Map.groupBy(group, row => labels[row]!)]
    const belief = ([label, own]: (typeof names)[number]) => {
      const said = group.reduce((sum, row) => sum + probabilities[row * classes.length + label]!, 0)
      return own.length + said / group.length
    }
    const [label, holders] = names.reduce((best, name) => (belief(name) > belief(best) ? name : best))
    return group.filter(row => labels[row] !== label).map((row): [number, Conflict] => [row, { label, copies: holders }])
  })
  return new Map(found.sort(([a], [b]) => score[b]! - score[a]!))
}

/** The members of a group joined where their features are all but equal. */
function alike(group: readonly number[], unit: Float32Array, width: number): number[][] {
  const pairs = group.flatMap((a, i) =>
    group.slice(i + 1).flatMap((b, j) => (cosine(unit, width, a, b) >= sameFeatures ? [[i, i + 1 + j]] : [])),
  )
  return unitsOf(group.length, pairs).map(places => places.map(place => group[place]!))
}

function cosine(unit: Float32Array, width: number, a: number, b: number): number {
  let sum = 0
  for (let f = 0; f < width; f++) sum += unit[a * width + f]! * unit[b * width + f]!
  return sum
}

// ── piles and evidence ──────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Whether a picture lies outside all classes: beyond Tukey's outer fence from the nearest picture that is like it, or beyond the inner one
 * while its neighbours do not agree on a class.
 */
function lonely({ near, lengths }: Suspicion, labels: Int32Array): (row: number) => boolean {
  const neighboursOf = (row: number) => [...near.rows.subarray(row * near.k, (row + 1) * near.k)].filter(other => other >= 0)
  const distance = Float64Array.from(lengths, (length, row) =>
    Math.min(
      ...neighboursOf(row).map((other, at) =>
        Math.sqrt(Math.max(0, length ** 2 + lengths[other]! ** 2 - 2 * length * lengths[other]! * near.similarity[row * near.k + at]!)),
      ),
    ),
  )
  const sorted = distance.filter(Number.isFinite).sort()
  const quarter = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0
  const beyond = (fences: number) => quarter(0.75) + fences * (quarter(0.75) - quarter(0.25))
  return row => {
    const voters = neighboursOf(row)
    const most = Math.max(0, ...[...Map.groupBy(voters, other => labels[other]!).values()].map(own => own.length))
    return distance[row]! > beyond(3) || (distance[row]! > beyond(1.5) && most < agreeing * voters.length)
  }
}

function evidence(
  row: number,
  { labels, classes, paths, width }: MislabelTask,
  { score, probabilities, other, near, unit }: Suspicion,
  isolated: ReturnType<typeof lonely>,
  conflict: Conflict | undefined,
): Listed {
  const suggested = conflict?.label ?? other[row]!
  const own = probabilities[row * classes.length + labels[row]!]!
  const rival = probabilities[row * classes.length + suggested]!
  const pile = conflict
    ? 'another'
    : isolated(row)
      ? 'none'
      : Math.min(own, rival) >= two.each && own + rival >= two.together
        ? 'two'
        : 'another'
  const copies = (conflict?.copies ?? []).map(copy => ({ row: copy, similarity: cosine(unit, width, row, copy) }))
  const nearest = [...near.rows.subarray(row * near.k, (row + 1) * near.k)].map((neighbour, at) => ({
    row: neighbour,
    similarity: near.similarity[row * near.k + at]!,
  }))
  return {
    path: paths[row]!,
    label: classes[labels[row]!]!,
    pile,
    suggestion: pile === 'none' ? null : classes[suggested]!,
    score: conflict ? 1 : score[row]!,
    probabilityOfLabel: own,
    probabilityOfSuggestion: rival,
    neighbours: [...copies, ...nearest.filter(({ row: neighbour }) => neighbour >= 0)]
      .slice(0, neighboursShown)
      .map(neighbour => ({ path: paths[neighbour.row]!, label: classes[labels[neighbour.row]!]!, similarity: neighbour.similarity })),
  }
}

// ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Below so many pictures the number is hardly more than a guess. */
const fewestForEstimate = 100

function notesOf(
  judged: number,
  n: number,
  units: number,
  { count, low, high, exchanged }: Pick<Mislabels, 'exchanged'> & { count: number; low: number; high: number },
  listed: readonly Listed[],
  certain: number,
): string[] {
  const [about, from, to] = [count, low, high].map(value => Math.round(value))
  const notes: string[] = []
  const pairs = exchanged.slice(0, 2).map(({ label, suggestion }) => `“${label}” that look like “${suggestion}”`)
  const mostly = about! >= 5 && pairs.length > 0 ? `, most often ${pairs.join(' and ')}` : ''
  notes.push(`About ${about} (${from} to ${to}) of ${judged} labels look wrong${mostly}.`)
  if (certain > 0)
    notes.push(
      `${certain === 1 ? 'One picture has' : `${certain} pictures have`} a copy under another label: one of the two is wrong for certain, so they come first.`,
    )
  if (listed.length > certain)
    notes.push(
      'The others are guesses. Where people checked such lists, about half of what was on them was truly wrong: look at each picture and its neighbours before you change a label.',
    )
  const piles = Map.groupBy(listed, ({ pile }) => pile)
  if (piles.has('none'))
    notes.push('“None of the classes” means unlike everything else here: drop such a picture, or give its kind a class of its own.')
  if (piles.has('two'))
    notes.push('“Two at once” means that both classes fit: decide on a rule for such pictures, and name them all by it.')
  if (judged < n)
    notes.push(
      `${n - judged} of ${n} pictures could not be judged: no other picture of their class exists that is not a copy. Add pictures to those classes.`,
    )
  if (units < fewestForEstimate) notes.push(`With ${units} different pictures the number of wrong labels is hardly more than a guess.`)
  return notes
}
