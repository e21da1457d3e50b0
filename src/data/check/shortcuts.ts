/**
 * Something besides the subject that gives the class away. If every “defect” was saved as PNG and everything else as JPEG, a network learns JPEG blocks,
 * scores brilliantly and fails on the first day. Nothing of the picture's content is looked at here: only its file and its light.
 *
 * How a picture was made and saved should say little about its class: said aloud from a moderate effect on. How light or colourful it is may be what
 * the class is about (night and day): said only where one number nearly decides, and as a question. Both have to be more than luck.
 */
import type { ManifestRow, Shortcut } from '../../sdk/shapes.ts'
import type { PictureFacts } from '../facts.ts'
import { unitsOf } from '../folds.ts'
import { type Coded, codeCategories, codeQuantities, dealFolds, guessFrom, type OneAgainstRest, oneAgainstRest } from './probe.ts'
import { type Category, isQuantity, type Property, properties, type Quantity } from './properties.ts'

export interface ShortcutTask {
  rows: readonly ManifestRow[]
  /** `facts[i]` belongs to `rows[i]`. */
  facts: readonly PictureFacts[]
  classes: readonly string[]
  /** Copies and scenes: a hundred frames of one clip are one witness. */
  groups: readonly (readonly number[])[]
  seed: number
}

/** hit − false alarms, of 1, from which one class against the rest is told. */
const alarming = { file: 0.6, look: 0.85 } as const
/** Chance that luck gives one such alarm or more in the whole set; shared among all comparisons (Bonferroni). */
const mayBeLuck = 0.01
/** (balanced accuracy − chance) / (1 − chance) from which all properties of the file together are told. */
const alarmingTogether = 0.25
/** Fewer independent pictures of a class are no evidence of anything. */
const fewest = 5

interface Probed {
  property: Property
  coded: Coded & { names?: string[]; edges?: number[] }
  against: OneAgainstRest[]
  /** From here on it is no luck. */
  mostLuck: number
}

/** A few pictures of the class that is given away, and of the others; both empty where it is no single class. */
export interface ShortcutExamples {
  paths: string[]
  others: string[]
}

/** `examples[i]` belongs to `found[i]`. */
export function findShortcuts(task: ShortcutTask): { found: Shortcut[]; examples: ShortcutExamples[]; notes: string[] } {
  const witnesses = independent(task)
  const classes = [...new Set(witnesses.map(({ label }) => label))].sort((a, b) => a - b)
  if (classes.length < 2) return { found: [], examples: [], notes: [] }
  const labels = Int32Array.from(witnesses, ({ label }) => classes.indexOf(label))
  const foldOf = dealFolds(labels, task.seed)
  const chance = 1 / classes.length

  const probed = properties.flatMap((property): Probed[] => {
    const coded = code(property, task, witnesses)
    const varies = coded.codes.some(each => each !== coded.codes[0])
    return varies ? [{ property, coded, against: oneAgainstRest(coded, labels, classes.length, foldOf), mostLuck: 0 }] : []
  })
  for (const each of probed) each.mostLuck = mayBeLuck / (probed.length * classes.length)
  const score = (some: readonly Probed[]) =>
    guessFrom(
      some.map(({ coded }) => coded),
      labels,
      classes.length,
      foldOf,
    )
  const names = classes.map(label => task.classes[label]!)
  const input: Sentences = { names, labels, task, witnesses }

  const found = [...categoriesByClass(probed, names.length)].map(({ parts, told }): Shortcut & { about: number | null } => {
    const clearest = clearestClass(parts, told, input)
    return {
      about: clearest.k,
      property: parts.map(({ property }) => property.name).join(' and '),
      accuracy: score(parts).accuracy,
      majority: chance,
      sentence: sentenceOfCategories(parts, told, clearest, input),
    }
  })
  for (const each of probed) {
    if (!isQuantity(each.property)) continue
    const told = toldClasses(each)
    if (told.length === 0 || explained(each.property, found)) continue
    found.push({
      about: told[0]!,
      property: each.property.name,
      accuracy: score([each]).accuracy,
      majority: chance,
      sentence: sentenceOfQuantity(each, each.property, told[0]!, input),
    })
  }
  found.sort((a, b) => b.accuracy - a.accuracy)

  const ofFile = probed.filter(({ property }) => property.kind === 'file')
  const together = ofFile.length > 1 ? score(ofFile) : null
  if (together && clearly(together, chance) && together.accuracy > Math.max(0, ...found.map(({ accuracy }) => accuracy)) + 0.05)
    found.push({
      about: null,
      property: 'all of them together',
      accuracy: together.accuracy,
      majority: chance,
      sentence: `What is known of the files alone (${ofFile.map(({ property }) => property.name).join(', ')}) is enough to guess the class of ${share(together.accuracy)} of the pictures, each class counted alike; chance is ${share(chance)}. A model can learn that instead of the subject.`,
    })
  return {
    found: found.map(({ about, ...shortcut }) => shortcut),
    examples: found.map(({ about }) => examplesOf(about, input)),
    notes: found.length > 0 || probed.length === 0 ? [] : [baseline(score(probed).accuracy, chance)],
  }
}

const examplesShown = 4
function examplesOf(k: number | null, { labels, task, witnesses }: Sentences): ShortcutExamples {
  const some = (inside: boolean) => {
    const all = witnesses.filter((_, i) => k !== null && (labels[i] === k) === inside)
    const step = Math.max(1, all.length / examplesShown)
    return Array.from({ length: Math.min(examplesShown, all.length) }, (_, i) => task.rows[all[Math.floor(i * step)]!.row]!.path)
  }
  return { paths: some(true), others: some(false) }
}

const clearly = ({ accuracy, error }: { accuracy: number; error: number }, chance: number) =>
  (accuracy - chance) / (1 - chance) >= alarmingTogether && accuracy - 3.5 * error > chance

const baseline = (accuracy: number, chance: number) =>
  `No shortcut stands out. For comparison: size, file and light alone, without looking at what is shown, guess the class of ${share(accuracy)} of the pictures, each class counted alike (chance: ${share(chance)}).`

/** A size has a number of pixels, and a format its way of packing: nothing new is said by the second. */
const explained = ({ name }: Property, found: readonly Shortcut[]) =>
  found.some(
    ({ property }) => (name === 'pixels' && /size|aspect/.test(property)) || (name === 'bytes per pixel' && /format/.test(property)),
  )

// ── witnesses ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Witness {
  row: number
  label: number
}

/** One picture of each group of copies and class; classes with too few of them are left out. */
function independent({ rows, classes, groups }: ShortcutTask): Witness[] {
  const numberOf = new Map(classes.map((label, index) => [label, index]))
  const all = unitsOf(rows.length, groups).flatMap(unit => {
    const first = new Map<number, number>()
    for (const row of unit) {
      const label = numberOf.get(rows[row]!.labels[0]!)!
      if (!first.has(label)) first.set(label, row)
    }
    return [...first].map(([label, row]) => ({ row, label }))
  })
  const count = new Map<number, number>()
  for (const { label } of all) count.set(label, (count.get(label) ?? 0) + 1)
  return all.filter(({ label }) => count.get(label)! >= fewest)
}

function code(property: Property, { rows, facts }: ShortcutTask, witnesses: readonly Witness[]): Probed['coded'] {
  if (isQuantity(property)) return codeQuantities(witnesses.map(({ row }) => property.of(rows[row]!, facts[row]!)))
  return codeCategories(witnesses.map(({ row }) => property.of(rows[row]!, facts[row]!)))
}

/** Classes that this property tells from the rest, the clearest first. */
const toldClasses = ({ property, against, mostLuck }: Probed): number[] =>
  [...against.keys()]
    .filter(k => against[k]!.gain >= alarming[property.kind] && against[k]!.luck < mostLuck)
    .sort((a, b) => against[b]!.gain - against[a]!.gain)

/** Classes given away by the same properties are told together, in one sentence. */
function categoriesByClass(probed: readonly Probed[], classes: number): { parts: Probed[]; told: number[] }[] {
  const categories = probed.filter(({ property }) => !isQuantity(property))
  const toldBy = new Map(categories.map(each => [each, new Set(toldClasses(each))]))
  const byParts = new Map<string, { parts: Probed[]; told: number[] }>()
  for (let k = 0; k < classes; k++) {
    let parts = categories.filter(each => toldBy.get(each)!.has(k))
    // one size has one shape: the size where it is the same for all, else the shape
    const aspect = parts.find(({ property }) => property.name === 'aspect')
    const size = parts.find(({ property }) => property.name === 'size')
    if (aspect && size) parts = parts.filter(each => each !== (size.against[k]!.gain >= aspect.against[k]!.gain ? aspect : size))
    if (parts.length === 0) continue
    const key = parts.map(({ property }) => property.name).join()
    const entry = byParts.get(key)
    if (entry) entry.told.push(k)
    else byParts.set(key, { parts, told: [k] })
  }
  const gain = ({ parts, told }: { parts: Probed[]; told: number[] }) => Math.max(...told.map(k => parts[0]!.against[k]!.gain))
  return [...byParts.values()].sort((a, b) => gain(b) - gain(a))
}

// ── sentences ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Sentences {
  names: readonly string[]
  labels: Int32Array
  task: ShortcutTask
  witnesses: readonly Witness[]
}

const share = (value: number) => `${Math.round(100 * value)} %`

/** “All 120 “defect” pictures are 4:3 PNG; none of the 340 others is.” */
function sentenceOfCategories(
  parts: readonly Probed[],
  told: readonly number[],
  { k, values, inside, outside }: ReturnType<typeof clearestClass>,
  input: Sentences,
): string {
  const { names } = input
  const place = (where: Category['place']) =>
    parts.flatMap(({ property }, index) => {
      const category = property as Category
      return category.place === where ? [category.say(values[index]!)] : []
    })
  const what = [[...place('before'), ...place('noun')].join(' '), ...place('behind')].filter(text => text !== '').join(', ')
  const also = told.filter(each => each !== k)
  const more =
    also.length === 0 || names.length === 2
      ? ''
      : ` The same gives ${also
          .slice(0, 3)
          .map(each => `“${names[each]}”`)
          .join(', ')}${also.length > 3 ? ` and ${also.length - 3} more classes` : ''} away.`
  return `${amount(inside, `“${names[k]}” pictures are ${what}`)}; ${others(outside)}.${more}`
}

/** Of the classes told by these properties the one that is told best by its most frequent values. */
function clearestClass(parts: readonly Probed[], told: readonly number[], input: Sentences) {
  const candidates = told.map(k => ({ k, ...commonValues(parts, k, input) }))
  return candidates.reduce((best, each) => (each.clarity > best.clarity ? each : best))
}

const amount = ({ count, of }: Count, rest: string) =>
  count === of ? `All ${of.toLocaleString('en-US')} ${rest}` : `${share(count / of)} of the ${of.toLocaleString('en-US')} ${rest}`
const others = ({ count, of }: Count) =>
  count === 0
    ? `none of the other ${of.toLocaleString('en-US')} is`
    : `of the other ${of.toLocaleString('en-US')}, ${count === 1 ? '1 is' : `${count.toLocaleString('en-US')} are`}`
interface Count {
  count: number
  of: number
}

/** What most pictures of the class have, property by property, and how many pictures in and outside of it have all of that. */
function commonValues(parts: readonly Probed[], k: number, { labels, task, witnesses }: Sentences) {
  const held = (property: Property, row: number) => (property as Category).of(task.rows[row]!, task.facts[row]!)
  const own = witnesses.filter((_, i) => labels[i] === k)
  const values = parts.map(({ property }) => mostFrequent(own.map(({ row }) => held(property, row))))
  const inside = { count: 0, of: 0 }
  const outside = { count: 0, of: 0 }
  for (const [i, { row }] of witnesses.entries()) {
    const side = labels[i] === k ? inside : outside
    side.of++
    if (parts.every(({ property }, index) => held(property, row) === values[index])) side.count++
  }
  return { values, inside, outside, clarity: inside.count / inside.of - outside.count / outside.of }
}

function mostFrequent(values: readonly string[]): string {
  const counts = new Map<string, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  return [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0]
}

/** “97 % of the 120 “night” pictures are darker than 21 %; of the 340 others, 3 are. …” */
function sentenceOfQuantity({ coded, against }: Probed, property: Quantity, k: number, { names, labels }: Sentences): string {
  // the cut on all pictures, for the sentence; the alarm was found out of fold
  const own = new Float64Array(coded.values)
  const rest = new Float64Array(coded.values)
  for (let i = 0; i < labels.length; i++) (labels[i] === k ? own : rest)[coded.codes[i]!]!++
  const [ofClass, ofRest] = [own, rest].map(counts => counts.reduce((sum, count) => sum + count, 0)) as [number, number]
  let [below, outsideBelow, best, cut] = [0, 0, 0, 1]
  const difference = () => below / ofClass - outsideBelow / ofRest
  let at = { below: 0, outside: 0 }
  for (let code = 1; code < coded.values; code++) {
    if (Math.abs(difference()) > Math.abs(best)) {
      best = difference()
      cut = code
      at = { below, outside: outsideBelow }
    }
    below += own[code]!
    outsideBelow += rest[code]!
  }
  const less = best > 0
  const inside = { count: less ? at.below : below - at.below, of: ofClass }
  const outside = { count: less ? at.outside : outsideBelow - at.outside, of: ofRest }
  const word = less ? property.less : property.more
  const accuracy = (1 + against[k]!.gain) / 2
  return `${amount(inside, `“${names[k]}” pictures are ${word} (${less ? 'under' : 'from'} ${property.say(coded.edges![cut]!)}${less ? '' : ' up'})`)}; ${others(outside)}. That alone tells them apart in ${share(accuracy)}. ${property.question}`
}
