/** What a model that knows an “unknown” makes of pictures it is tested on: how many it calls unknown, and how right it is on those and on the others. */
import type { Answer } from '../models/artefact.ts'
import type { ArtefactMetadata, Manifest, Unknown } from '../sdk/index.ts'
import { groupedShare } from './grouped.ts'
import { type Finding, percent } from './verdicts.ts'

export interface Strangers {
  /** Distance beyond which a picture is called unknown. */
  threshold: number
  /** Share of pictures like those that the model has learned that lie beyond it. */
  falseAlarmRate: number
  /** From the model's training: how often a picture of a class it was never taught lies farther away than one of the others; null = not known here. */
  auroc: number | null
  /** Pictures of this set that are called unknown; their share with its 95 % interval. */
  called: number
  share: number
  low: number
  high: number
  /** Right answers among those called unknown, and among the others. */
  rightAmongCalled: number
  rightAmongOthers: number
  /** Of those called unknown, the farthest first. */
  paths: string[]
}

const mostPaths = 100

/** null for a model without a distance. `auroc`: of the training, where it is known. */
export function strangersAmong(
  { unknown }: Pick<ArtefactMetadata, 'unknown'>,
  answers: readonly Answer[],
  right: readonly boolean[],
  { rows }: Pick<Manifest, 'rows'>,
  auroc: Unknown['auroc'],
): Strangers | null {
  if (!unknown) return null
  const strange = answers.map(({ distance }) => !(distance! <= unknown.threshold)) // NaN is strange, as in an answer
  const { share, low, high } = groupedShare(
    strange,
    rows.map(row => row.group),
  )
  const called = [...rows.keys()].filter(row => strange[row])
  const rightWhere = (called: boolean) => right.filter((each, i) => each && strange[i] === called).length
  return {
    threshold: unknown.threshold,
    falseAlarmRate: unknown.falseAlarmRate,
    auroc,
    called: called.length,
    share,
    low,
    high,
    rightAmongCalled: rightWhere(true),
    rightAmongOthers: rightWhere(false),
    paths: called
      .toSorted((a, b) => answers[b]!.distance! - answers[a]!.distance!)
      .slice(0, mostPaths)
      .map(row => rows[row]!.path),
  }
}

/** Whether more are called unknown than there would be, beyond luck, if the pictures were like those that the model has learned. */
export const areForeign = ({ low, falseAlarmRate }: Strangers): boolean => low > falseAlarmRate

export function strangersFinding(strangers: Strangers | null, n: number): Finding[] {
  if (!strangers) return []
  const { falseAlarmRate, called, share, rightAmongCalled, rightAmongOthers } = strangers
  const usual = `of pictures like those it has learned, ${percent(falseAlarmRate, 0)} would be`
  const right =
    called > 0 && called < n
      ? ` It is right on ${rightAmongCalled} of these ${called}, and on ${rightAmongOthers} of the other ${n - called}.`
      : ''
  const foreign = areForeign(strangers)
    ? ' So these pictures are of another kind (another camera, place or subject): train on some of them before you rely on the answers.'
    : ''
  const sentence = `${called === 0 ? 'None' : called} of ${n} pictures ${called <= 1 ? 'is' : 'are'} called “unknown”${called === 0 ? '' : ` (${percent(share)})`}; ${usual}.${right}${foreign}`
  return [{ sentence, how: 'strangers' }]
}
