/**
 * From what was found to what is said: each finding with its number, what it means to somebody who has never trained a model, and what to do. Worst first.
 * Text, page and notes all say it with these words.
 */
import type { DataCheck } from '../../sdk/shapes.ts'
import type { MethodName } from './methods.ts'
import type { ShortcutExamples } from './shortcuts.ts'

export type Level =
  /** A number that is measured on these pictures would be wrong, or a label is. */
  | 'wrong'
  /** Somebody should look at it and may well decide that it is right as it is. */
  | 'look'
  /** Good to know; nothing to do. */
  | 'known'

export interface Finding {
  /** Also the anchor on the page. */
  key: string
  level: Level
  /** With its number, without a full stop. */
  title: string
  /** What it means, in sentences; commands in backticks, as in `next`. */
  meaning: string
  /** What to do now. */
  next: string
  method: MethodName
  evidence: Evidence[]
  /** Shares to compare, as bars. */
  bars?: { name: string; share: number }[]
}

/** Pictures to show together, and what there is to say about them. */
export interface Evidence {
  paths: readonly string[]
  /** `same`: one picture stands for all, they cannot be told apart. `kin`: different pictures. `others`: the first is meant, the others are its neighbours. */
  show: 'each' | 'same' | 'kin' | 'others'
  caption?: string
}

export interface FindingsOptions {
  /** What the user typed, quoted for a shell. */
  source: string
  deep: boolean
  /** The side that the user's numbers come from. */
  measured: 'test' | 'validation' | null
  /** Pictures to show beside each shortcut. */
  shortcutExamples?: readonly ShortcutExamples[]
}

/** Class sizes farther apart than this are said. */
const lopsided = 5
/** With fewer different pictures a class can hardly be tested: two in ten on the test side say nothing. */
const fewPictures = 10

export function findingsOf(check: DataCheck, options: FindingsOptions): Finding[] {
  const found = [
    acrossSplit(check, options),
    conflicts(check),
    ...shortcuts(check, options),
    mislabels(check),
    unreadable(check),
    nearCopies(check),
    exactCopies(check),
    oneClass(check),
    smallClasses(check),
    balance(check),
    ...quality(check),
    scenes(check),
    alike(check),
    notJudged(check),
    ignored(check),
  ].filter(finding => finding !== null)
  const order: Level[] = ['wrong', 'look', 'known']
  return found.toSorted((a, b) => order.indexOf(a.level) - order.indexOf(b.level))
}

export const counted = (n: number, one: string, many = `${one}s`): string => `${n.toLocaleString('en-US')} ${n === 1 ? one : many}`
export const percent = (share: number, digits = 0): string => `${(100 * share).toFixed(digits)} %`
const each = (paths: readonly string[]): Evidence => ({ paths, show: 'each' })

function acrossSplit({ acrossSplit: across }: DataCheck, { source, deep, measured }: FindingsOptions): Finding | null {
  if (!across || across.leaked === 0) return null
  const { leaked, testPictures, accuracyAsGiven: given, accuracyWithout: without } = across
  const rest = testPictures - leaked
  const side = measured ?? 'test'
  const learned = side === 'test' ? 'train or choose on' : 'train on'
  const score =
    given === null
      ? ''
      : ` A simple model that learns from your train folder is right on ${percent(given, 1)} of your ${side} folder as it is${
          without === null
            ? `; without the copies no ${side} picture is left.`
            : `, and on ${percent(without, 1)} of the ${counted(rest, `${side} picture`)} that ${rest === 1 ? 'is' : 'are'} no copy: ${pointsApart(given, without)}.${rest < 200 ? ' So few pictures are a direction, not a measurement.' : ''}`
        }`
  return {
    key: 'across-split',
    level: 'wrong',
    title: `${counted(leaked, `${side} picture`)} of ${testPictures.toLocaleString('en-US')} (${percent(leaked / testPictures)}) ${leaked === 1 ? 'is a copy' : 'are copies'} of pictures that you ${learned}`,
    meaning: `What has been learned by heart is no test. Numbers measured on this folder are better than the model is on new pictures.${score}`,
    next:
      given === null && !deep
        ? `What the accuracy would be without them: \`plinth data check ${source} --deep\`. \`plinth train\` leaves them out by itself.`
        : `Take the copies out of your ${side} folder and measure again. \`plinth train\` leaves them out by itself.`,
    method: 'across-split',
    evidence: across.groups.map(each),
    ...(given !== null &&
      without !== null && {
        bars: [
          { name: `your ${side} folder as it is`, share: given },
          { name: `without the ${counted(leaked, 'copy', 'copies')}`, share: without },
        ],
      }),
  }
}

const pointsApart = (given: number, without: number) => {
  const points = 100 * (given - without)
  if (Math.abs(points) < 0.05) return 'no difference here'
  return points > 0
    ? `${points.toFixed(1)} points of it were memory`
    : `${(-points).toFixed(1)} points more: here the copies happen to be the hard ones`
}

function conflicts({ conflicts: found }: DataCheck): Finding | null {
  if (found.length === 0) return null
  return {
    key: 'conflicts',
    level: 'wrong',
    title: `${counted(found.length, 'picture lies', 'pictures lie')} under more than one label`,
    meaning:
      'The same picture, edited or not, has different labels. One of them is wrong, or the two classes overlap; either way no model can be right on both.',
    next: 'Keep the right one and delete the other, or say in one sentence how the two classes differ and sort again.',
    method: 'conflicts',
    evidence: found.map(({ paths, labels }) => ({ paths, show: 'each', caption: labels.join(' or ') })),
  }
}

function shortcuts({ shortcuts: found }: DataCheck, { shortcutExamples = [] }: FindingsOptions): Finding[] {
  return found.map(({ accuracy, majority, sentence }, index) => {
    const end = sentence.indexOf('. ')
    const [title, rest] = end < 0 ? [sentence.replace(/\.$/, ''), ''] : [sentence.slice(0, end), `${sentence.slice(end + 2)} `]
    // what the light of a picture tells may be what the class is about: then it is a question
    const asked = /\?|If /.test(rest)
    return {
      key: `shortcut-${index + 1}`,
      level: asked ? 'look' : 'wrong',
      title,
      meaning: `${rest}Guessing the class from that alone is right for ${percent(accuracy)}, each class counted alike; chance is ${percent(majority)}. A model may learn that instead of the subject, and fail on pictures that come from elsewhere.`,
      next: asked
        ? 'Ask whether this will be so in use, too. If not, add pictures of each class that do not have it.'
        : 'Make all pictures the same way (same camera, program and size), or mix the ways within each class.',
      method: 'shortcuts',
      evidence: evidenceOf(shortcutExamples[index]),
    }
  })
}

const evidenceOf = (examples?: ShortcutExamples): Evidence[] =>
  examples && examples.paths.length > 0
    ? [
        { paths: examples.paths, show: 'kin', caption: 'some of them' },
        { paths: examples.others, show: 'kin', caption: 'some of the others' },
      ]
    : []

function mislabels({ mislabels: found }: DataCheck): Finding | null {
  if (!found || found.listed.length === 0) return null
  const { estimate, n, listed, exchanged } = found
  const most = exchanged.slice(0, 2).map(({ label, suggestion }) => `${label} for ${suggestion}`)
  const some = Math.round(estimate.count)
  return {
    key: 'mislabels',
    level: 'look',
    title: `About ${some} of ${n.toLocaleString('en-US')} labels look wrong (${Math.floor(estimate.low)} to ${Math.ceil(estimate.high)})`,
    meaning: `A simple model that never saw the picture disagrees with its label, and so do the pictures that look most like it${most.length > 0 ? `; mostly ${most.join(', ')}` : ''}. They are proposals: a good part of such a list is usually right as it is, and unusual.`,
    next: 'Look through them, the most suspicious first. `plinth data import`, then `plinth data review`, make a new version of what you decide.',
    method: 'mislabels',
    evidence: listed.map(({ path, label, pile, suggestion, neighbours }) => ({
      paths: [path, ...neighbours.map(neighbour => neighbour.path)],
      show: 'others',
      caption:
        pile === 'none'
          ? `labelled ${label}; looks like none of the classes`
          : pile === 'two'
            ? `labelled ${label}; looks like ${suggestion ?? 'another class'} as well`
            : `labelled ${label}; looks like ${suggestion ?? 'another class'}`,
    })),
  }
}

const remedies: Record<string, string> = {
  image_empty: 'copy them again from where they came from',
  image_unreadable: 'open them in an image program and save them again, or delete them',
  image_format: 'convert them to JPEG or PNG',
  image_too_large: 'scale them down',
  image_timeout: 'open them in an image program and save them again, or delete them',
  file_unreadable: 'check the files and your rights to read them',
}

function unreadable({ unreadable: found, images }: DataCheck): Finding | null {
  if (found.length === 0) return null
  const codes = [...Map.groupBy(found, ({ code }) => code)]
  return {
    key: 'unreadable',
    level: images === 0 ? 'wrong' : 'look',
    title: images === 0 ? 'Not one picture can be read' : `${counted(found.length, 'file')} cannot be read`,
    meaning: `They are left out of training${codes.length > 1 ? `: ${codes.map(([code, files]) => `${files.length} ${code}`).join(', ')}` : ''}. Where all of them are of one class, that class is smaller than it seems.`,
    next: `${capital(codes.map(([code, files]) => `${codes.length > 1 ? `${counted(files.length, 'file')}: ` : ''}${remedies[code] ?? 'open them in an image program'}`).join('; '))}.`,
    method: 'reading',
    evidence: found.map(({ path, code, reason }) => ({ paths: [path], show: 'each', caption: `${code}: ${reason}` })),
  }
}

/** What is shown under a worse heading is not shown again. */
const saidBefore = ({ conflicts: found, acrossSplit: across }: DataCheck) =>
  new Set([...found.flatMap(({ paths }) => paths), ...(across?.groups.flat() ?? [])])

function nearCopies(check: DataCheck): Finding | null {
  const said = saidBefore(check)
  const groups = check.nearDuplicateGroups.filter(group => !group.every(path => said.has(path)))
  if (groups.length === 0) return null
  const more = groups.reduce((sum, group) => sum + group.length - 1, 0)
  return {
    key: 'near-copies',
    level: 'look',
    title: `${counted(more, 'picture is an edited copy', 'pictures are edited copies')} of another (${counted(groups.length, 'group')})`,
    meaning:
      'The same picture saved again, scaled, cropped, turned, lightened or written on. Each counts as one more picture though nothing new can be learned from it, and one on each side of a split makes a test worthless.',
    next: 'Nothing has to be done: training keeps each group on one side. Delete all but one of each where they are not meant.',
    method: 'copies',
    evidence: groups.map(each),
  }
}

function exactCopies(check: DataCheck): Finding | null {
  const said = new Set([...check.nearDuplicateGroups.flat(), ...saidBefore(check)])
  const groups = check.exactDuplicates.filter(group => !group.every(path => said.has(path)))
  if (groups.length === 0) return null
  const more = groups.reduce((sum, group) => sum + group.length - 1, 0)
  return {
    key: 'exact-copies',
    level: 'look',
    title: `${counted(more, 'picture is', 'pictures are')} there twice or more, pixel by pixel`,
    meaning: 'Whatever the names and formats of the files: nobody can tell these pictures apart.',
    next: 'Nothing has to be done: training keeps them on one side. Delete all but one of each where they are not meant.',
    method: 'exact',
    evidence: groups.map(paths => ({ paths, show: 'same' })),
  }
}

const evidences: Record<string, string> = {
  pixels: 'the same scene',
  time: 'taken within moments by one camera',
  names: 'by their names',
}

function scenes({ sameSceneGroups: groups }: DataCheck): Finding | null {
  if (groups.length === 0) return null
  const pictures = groups.reduce((sum, { paths }) => sum + paths.length, 0)
  return {
    key: 'scenes',
    level: 'known',
    title: `${counted(groups.length, 'scene')} with more than one picture (${counted(pictures, 'picture')})`,
    meaning:
      'Bursts, frames of one clip, several views of one thing. They are worth keeping, but together they are closer to one witness than to many.',
    next: 'Nothing has to be done: training keeps each on one side. If the guess is wrong, `--group-by` says how names are meant.',
    method: 'scenes',
    evidence: groups.map(({ paths, evidence }) => ({ paths, show: 'kin', caption: evidences[evidence] ?? evidence })),
  }
}

function oneClass({ perClass }: DataCheck): Finding | null {
  if (perClass.length !== 1) return null
  return {
    key: 'one-class',
    level: 'wrong',
    title: `All pictures belong to one class, “${perClass[0]!.label}”`,
    meaning: 'There is nothing to tell apart.',
    next: 'Add a second folder of pictures beside it; with nothing else at hand, a folder called other with pictures of anything else.',
    method: 'classes',
    evidence: [],
  }
}

/** Whether `plinth train` would refuse these pictures. */
export const isTrainable = ({ perClass }: DataCheck): boolean => perClass.length > 1 && perClass.every(({ different }) => different >= 3)

function smallClasses({ perClass }: DataCheck): Finding | null {
  const small = perClass.filter(({ different }) => different < fewPictures).toSorted((a, b) => a.different - b.different)
  if (small.length === 0) return null
  const impossible = small.filter(({ different }) => different < 3)
  const named = small.slice(0, 5).map(({ label, different }) => `${label} (${different})`)
  return {
    key: 'small-classes',
    level: impossible.length > 0 ? 'wrong' : 'look',
    title: `${counted(small.length, 'class has', 'classes have')} fewer than ${fewPictures} different pictures`,
    meaning: `${named.join(', ')}${small.length > named.length ? ` and ${small.length - named.length} more` : ''}. ${impossible.length > 0 ? 'With fewer than three a class cannot be trained at all. ' : ''}One or two test pictures say nothing about a class.`,
    next: 'Add pictures (some dozens make sense), join the class with a similar one, or leave it out.',
    method: 'classes',
    evidence: [],
  }
}

function balance({ perClass }: DataCheck): Finding | null {
  // of very small classes is said what matters
  const sorted = perClass.filter(({ different }) => different >= fewPictures).toSorted((a, b) => b.different - a.different)
  const [largest, smallest] = [sorted[0], sorted.at(-1)]
  if (!largest || !smallest || largest.different < lopsided * smallest.different) return null
  const times = Math.floor(largest.different / smallest.different)
  const all = perClass.reduce((sum, { images }) => sum + images, 0)
  return {
    key: 'balance',
    level: 'look',
    title: `“${largest.label}” has ${times.toLocaleString('en-US')} times as many pictures as “${smallest.label}” (${largest.different.toLocaleString('en-US')} and ${smallest.different.toLocaleString('en-US')})`,
    meaning: `Always answering “${largest.label}” would be right on ${percent(largest.images / all)} of these pictures: accuracy alone says little here, and rare classes are guessed too rarely.`,
    next: 'Read balanced accuracy and the line of each class. More pictures of the rare classes help most; if rare is how it is in use, keep it so.',
    method: 'classes',
    evidence: [],
  }
}

function quality(check: DataCheck): Finding[] {
  const kinds: [key: 'uniform' | 'blurred' | 'dark' | 'tiny' | 'oddShaped', one: string, many: string, meaning: string, next: string][] = [
    [
      'uniform',
      'picture is of one colour',
      'pictures are of one colour',
      'A lens cap, a failed export, an empty frame: whatever the label, there is nothing to learn.',
      'Delete what is empty, unless “nothing” is what the class is about.',
    ],
    [
      'blurred',
      'picture is out of focus',
      'pictures are out of focus',
      'Not one sharp edge, where most pictures of this set have some. Fine if blurred pictures will come in use as well.',
      'Delete those whose class you cannot tell yourself.',
    ],
    [
      'dark',
      'picture is almost black',
      'pictures are almost black',
      'Even the lightest parts are dark, while most pictures of this set are not.',
      'Delete those whose class you cannot tell yourself.',
    ],
    [
      'tiny',
      'picture is much smaller than the others',
      'pictures are much smaller than the others',
      'Enlarged to the size of the others, as a network does it, a small picture is soft. Often it is a thumbnail that got among the originals.',
      'Put the original in its place, or delete it.',
    ],
    [
      'oddShaped',
      'picture is unusually long or tall',
      'pictures are unusually long or tall',
      'A network sees a square: the middle third of such a picture at most, or all of it squeezed.',
      'Crop to the subject, or leave it out.',
    ],
  ]
  return kinds.flatMap(([key, one, many, meaning, next]): Finding[] => {
    const paths = check[key]
    if (paths.length === 0) return []
    return [
      {
        key,
        level: 'look',
        title: counted(paths.length, one, many),
        meaning,
        next,
        method: 'quality',
        evidence: paths.map(path => each([path])),
      },
    ]
  })
}

function alike({ alike: pairs }: DataCheck): Finding | null {
  if (pairs.length === 0) return null
  return {
    key: 'alike',
    level: 'known',
    title: `${counted(pairs.length, 'pair')} of pictures are merely alike`,
    meaning:
      'Different pictures, as far as their pixels tell, that resemble each other. Shown because you asked; nothing is done with them.',
    next: 'Nothing has to be done.',
    method: 'copies',
    evidence: pairs.map(({ paths }) => ({ paths, show: 'kin' })),
  }
}

function notJudged({ notJudged: paths, images }: DataCheck): Finding | null {
  if (paths.length === 0) return null
  return {
    key: 'not-judged',
    level: 'known',
    title: `${counted(paths.length, 'picture is', 'pictures are')} too plain or too small to look for edited copies${paths.length === images ? '' : ' of'}`,
    meaning:
      'There is too little on them: different ones look alike to any comparison. Copies with exactly the same pixels are found all the same.',
    next: 'Nothing has to be done.',
    method: 'copies',
    evidence: paths.map(path => each([path])),
  }
}

function ignored({ ignored: found }: DataCheck): Finding | null {
  if (found.length === 0) return null
  return {
    key: 'ignored',
    level: 'known',
    title: `${counted(found.length, 'file or folder', 'files and folders')} left out on purpose`,
    meaning: 'Hidden files, files of tools, what is no picture, and pictures without a class folder around them.',
    next: 'Read the list once: a picture among them is missing from training.',
    method: 'reading',
    evidence: found.map(({ path, reason }) => ({ paths: [path], show: 'each', caption: reason })),
  }
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1)
