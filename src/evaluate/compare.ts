/** Is model A better than model B? Asked of the same pictures, which is far sharper than two scores side by side. */
import { Failure } from '../failure.ts'
import type { Answer, Classifier } from '../models/artefact.ts'
import type { Comparison, Manifest } from '../sdk/index.ts'
import { answersTo, type Learned, type Pictures, rightOf, seenAmong, truthOf } from './evaluate-model.ts'
import { gathered, groupedPairedDifference } from './grouped.ts'
import { shareTrue } from './metrics.ts'
import { seenSentence } from './test-sets.ts'
import { chance, type Finding, listed, luck, percent, points, quoted } from './verdicts.ts'

export interface Compared {
  /** How it is called in what is printed: name@version or the file's name. */
  name: string
  classifier: Classifier
  learned: Learned
}

/**
 * Pictures of classes that only one of the two knows are left out and named; each model answers with all of its own labels, so the one
 * that knows more classes has the harder task. `set`: what the pictures are called.
 * Throws classes_unknown where neither knows a class, labels_apart where nothing is left to compare, evaluation_empty.
 */
export async function compareModels(a: Compared, b: Compared, set: string, pictures: Pictures): Promise<Comparison> {
  const [labelsA, labelsB] = [a.classifier.metadata.labels, b.classifier.metadata.labels]
  if (pictures.manifest.rows.length === 0) throw new Failure('evaluation_empty')
  const strangers = pictures.manifest.classes.filter(label => !labelsA.includes(label) && !labelsB.includes(label))
  if (strangers.length > 0)
    throw new Failure('classes_unknown', {
      strangers: strangers.join(', '),
      labels: [...new Set([...labelsA, ...labelsB])].join(', '),
    })
  const foreign = pictures.manifest.classes.filter(label => !labelsA.includes(label) || !labelsB.includes(label))
  const manifest = without(pictures.manifest, foreign)
  const { rows } = manifest
  if (rows.length === 0)
    throw new Failure('labels_apart', { a: a.name, b: b.name, labelsA: labelsA.join(', '), labelsB: labelsB.join(', ') })

  const [answersA, answersB] = (await answersTo([a.classifier, b.classifier], { ...pictures, manifest })) as [Answer[], Answer[]]
  const rightA = rightOf(answersA, truthOf(manifest, labelsA), labelsA.length)
  const rightB = rightOf(answersB, truthOf(manifest, labelsB), labelsB.length)
  const groups = rows.map(row => row.group)
  const { members, together } = gathered(rows.length, groups)
  const { n, onlyA, onlyB, difference, low, high, p } = groupedPairedDifference(rightA, rightB, groups)
  return {
    a: a.name,
    b: b.name,
    set,
    n,
    accuracyA: shareTrue(rightA),
    accuracyB: shareTrue(rightB),
    onlyA,
    onlyB,
    difference,
    low,
    high,
    p,
    verdict: p >= luck ? 'not told apart' : difference > 0 ? 'A is better' : 'B is better',
    ...(together && { groups: members.length }),
    ...(foreign.length > 0 && { leftOut: { classes: foreign, pictures: pictures.manifest.rows.length - n } }),
    seenByA: a.learned && seenAmong(manifest, rightA, a.learned),
    seenByB: b.learned && seenAmong(manifest, rightB, b.learned),
    differing: rows
      .flatMap((row, i) => {
        if (rightA[i] === rightB[i]) return []
        const [ofA, ofB] = [best(labelsA, answersA[i]!.probabilities), best(labelsB, answersB[i]!.probabilities)]
        return [
          {
            path: row.path,
            label: row.labels[0]!,
            a: ofA.label,
            b: ofB.label,
            probabilityA: ofA.probability,
            probabilityB: ofB.probability,
          },
        ]
      })
      .sort((one, other) => sureness(other) - sureness(one) || (one.path < other.path ? -1 : 1)),
  }
}

type Differing = Comparison['differing'][number]

/** Of the two answers, the probability of the wrong one. */
const sureness = ({ label, a, probabilityA, probabilityB }: Differing) => (a === label ? probabilityB : probabilityA)

function without(manifest: Manifest, classes: readonly string[]): Manifest {
  return {
    ...manifest,
    classes: manifest.classes.filter(label => !classes.includes(label)),
    rows: manifest.rows.filter(row => !classes.includes(row.labels[0]!)),
  }
}

function best(labels: readonly string[], probabilities: Float32Array): { label: string; probability: number } {
  const at = probabilities.indexOf(Math.max(...probabilities))
  return { label: labels[at]!, probability: probabilities[at]! }
}

// ── in words ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Below so many disagreements even a clean sweep can be luck: 5 of 5 has p = 0.06. */
const fewestTold = 6

/** The verdict first, then what to know before acting on it. */
export function comparisonFindings(comparison: Comparison): Finding[] {
  const { a, b, n, onlyA, onlyB, groups, leftOut, seenByA = null, seenByB = null } = comparison
  const disagreements = onlyA + onlyB
  const few = `Only ${disagreements} of ${n} pictures speak for one of the two: no difference can be shown on so few. More pictures would help.`
  const together = `Some pictures belong together (copies, bursts): ${n} pictures in ${groups} groups, each counted as what it is worth.`
  const foreign = leftOut && {
    which: leftOut.classes.length === 1 ? 'a class' : 'classes',
    names: listed(leftOut.classes.map(quoted)),
    pictures: leftOut.pictures === 1 ? 'One picture' : `${leftOut.pictures} pictures`,
  }
  return [
    { sentence: verdictSentence(comparison), how: 'paired' },
    ...say('paired', disagreements > 0 && disagreements < fewestTold && few),
    ...say('groups', groups !== undefined && together),
    ...say('paired', foreign && `${foreign.pictures} of ${foreign.which} that only one of the two knows left out: ${foreign.names}.`),
    ...seenSentence(seenByA, n, a).flatMap(sentence => say('seen', sentence)),
    ...seenSentence(seenByB, n, b).flatMap(sentence => say('seen', sentence)),
    ...say('seen', (seenByA === null || seenByB === null) && unknownPast(comparison)),
  ]
}
const say = (how: Finding['how'], sentence: string | false | undefined): Finding[] => (sentence ? [{ sentence, how }] : [])
export const comparisonVerdicts = (comparison: Comparison): string[] => comparisonFindings(comparison).map(({ sentence }) => sentence)

function verdictSentence({ a, b, n, accuracyA, accuracyB, onlyA, onlyB, difference, low, high, p, verdict }: Comparison): string {
  const scores = `${a} ${percent(accuracyA)}, ${b} ${percent(accuracyB)} on the same ${n} ${n === 1 ? 'picture' : 'pictures'}`
  if (onlyA + onlyB === 0) return `Not told apart: right and wrong on exactly the same pictures (${scores}).`
  const size = `${points(difference)}, 95 % interval ${points(low)} to ${points(high)}, ${chance(p)}`
  if (verdict === 'not told apart') return `Not told apart: ${scores} (${size}); a difference of this size can be luck.`
  const [winner, wins] = verdict === 'A is better' ? [a, onlyA] : [b, onlyB]
  return `${winner} is better: ${scores} (${size}). Of the ${onlyA + onlyB} pictures that exactly one of them gets right, it gets ${wins}.`
}

function unknownPast({ a, b, seenByA, seenByB }: Comparison): string {
  const whose = [...new Set([...(seenByA ? [] : [a]), ...(seenByB ? [] : [b])])].join(' and ')
  return `Which pictures ${whose} learned from is not known here: if some of these are among them, the comparison is not fair.`
}
