/** What the numbers mean, in plain sentences: for the terminal, the report, and whoever has never heard of an interval. */
import type { Evaluation, TrainResult } from '../sdk/shapes.ts'
import type { Method } from './methods.ts'
import { calibrationErrorByLuck, weakestFirst } from './metrics.ts'

/** 0.8675 → "86.8 %". */
export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`
/** 0.021 → "+2.1 points". */
export const points = (difference: number): string => {
  const text = (100 * difference).toFixed(1)
  return `${difference >= 0 ? '+' : '−'}${text.replace('-', '')} points`
}
/** Three digits of chance are more than anyone needs: "p = 0.012", "p < 0.001". */
export const chance = (p: number): string => (p < 0.001 ? 'p < 0.001' : `p = ${p.toFixed(3)}`)

/** A result is called beyond luck when luck would give it less often than this. */
export const luck = 0.05
/** Half the width of the interval above which the test is called small. */
const tooWide = 0.05
/** Below so many test pictures a single class's score says next to nothing. */
const fewOfAClass = 10

/** 19 of 20 perfectly calibrated models stay below this multiple of what luck gives (simulated in test/evaluate/metrics.test.ts). */
const beyondLuck = 1.75

/** Below so many test pictures the calibration error is all luck. */
const fewForCalibration = 30

/** Below so many test pictures no number says anything about a model. */
const tooFew = 10
/** A split by chance that flatters by less than this has torn nothing apart, as a share. */
const flattered = 0.005

/** A sentence, and how its numbers were computed. */
export interface Finding {
  sentence: string
  how: Method
}

/** One sentence a finding, the most important first. */
export const verdicts = (evaluation: Evaluation): string[] => [accuracyVerdict(evaluation), ...furtherFindings(evaluation).map(said)]
const said = ({ sentence }: Finding) => sentence

/** All but the accuracy itself, for a page that shows it large. */
export const furtherFindings = (evaluation: Evaluation): Finding[] => [
  ...withHow('interval', emptyVerdict(evaluation)),
  ...withHow('majority', [majorityVerdict(evaluation)]),
  ...withHow('paired', linearProbeVerdict(evaluation)),
  ...withHow('interval', sizeVerdict(evaluation)),
  ...withHow('folds', crossValidationVerdict(evaluation)),
  ...withHow('random', randomSplitVerdict(evaluation)),
  ...withHow('slices', sliceVerdict(evaluation)),
  ...withHow('classes', weakestClassVerdict(evaluation)),
  ...withHow('calibration', calibrationVerdict(evaluation)),
]
const withHow = (how: Method, sentences: readonly string[]): Finding[] => sentences.map(sentence => ({ sentence, how }))

function accuracyVerdict(evaluation: Evaluation): string {
  const { n, accuracy, low, high, interval } = evaluation
  const pictures = `${n} test ${n === 1 ? 'picture' : 'pictures'}${unseen(evaluation)}`
  const groups =
    interval?.method === 'grouped-wilson'
      ? `; copies and groups count as what they are worth (${n} pictures in ${interval.groups} groups)`
      : ''
  return `Right on ${Math.round(accuracy * n)} of ${pictures}: ${percent(accuracy)}. On more pictures like these expect ${percent(low)} to ${percent(high)} (95 % interval${groups}).`
}

/** Said first where there is nothing to say. */
function emptyVerdict({ n, low, high }: Evaluation): string[] {
  if (n >= tooFew) return []
  const pictures = n === 1 ? 'One test picture says' : `${n} test pictures say`
  return [
    `${pictures} next to nothing about a model: its true accuracy may lie anywhere from ${percent(low, 0)} to ${percent(high, 0)}. Add pictures before you believe any number here.`,
  ]
}

/** Only a training knows that its test pictures were kept apart; whoever evaluates a folder later may hand in anything. */
export const unseen = ({ linearProbe }: Evaluation): string => (linearProbe === null ? '' : ' that it never saw before')

function majorityVerdict({ low, high, majority }: Evaluation): string {
  const always = `always answering the most frequent class (${percent(majority)})`
  if (low > majority) return `Better than ${always}.`
  if (high < majority) return `Worse than ${always}: this model is of no use as it is.`
  return `Not shown to be better than ${always}.`
}

function linearProbeVerdict({ versusLinearProbe, linearProbe }: Evaluation): string[] {
  if (linearProbe === null) return []
  const probe = `the linear probe, a plain classifier on the untouched backbone (${percent(linearProbe)})`
  if (!versusLinearProbe) return [`For comparison: ${probe}.`]
  const { onlyA, onlyB, difference, low, high, p, n } = versusLinearProbe
  if (onlyA === 0 && onlyB === 0) return [`Right and wrong on exactly the same pictures as ${probe}.`]
  const size = `${points(difference)} on the same ${n} pictures, 95 % interval ${points(low)} to ${points(high)}, ${chance(p)}`
  if (p < luck) return [`${difference > 0 ? 'Better' : 'Worse'} than ${probe}: ${size}.`]
  return [`Not told apart from ${probe}: ${size}; a difference of this size can be luck.`]
}

function sizeVerdict({ n, low, high, perClass }: Evaluation): string[] {
  if (n < tooFew) return []
  const half = (high - low) / 2
  const sentences =
    half > tooWide
      ? [
          `The test is small: the accuracy is known to about ±${(100 * half).toFixed(0)} points only. Four times as many pictures would halve that.`,
        ]
      : []
  const none = perClass.filter(score => score.n === 0)
  if (none.length > 0)
    sentences.push(
      `No test picture of ${listed(none.map(({ label }) => quoted(label)))}: nothing is said about ${none.length === 1 ? 'it' : 'them'}.`,
    )
  const few = perClass.filter(score => score.n > 0 && score.n < fewOfAClass)
  if (few.length > 0) {
    const names = listed(few.map(({ label, n }) => `${quoted(label)} (${n})`))
    sentences.push(`Too few test pictures to judge ${few.length === 1 ? 'this class' : 'these classes'} alone: ${names}.`)
  }
  return sentences
}

function crossValidationVerdict({ crossValidation }: Evaluation): string[] {
  if (!crossValidation) return []
  const { accuracy, low, high, n, folds, repeats, groups } = crossValidation
  const together = groups < n ? ` (${groups} groups)` : ''
  return [
    `Cross-validation of the head on all ${n} pictures${together}: ${percent(accuracy)}, 95 % interval ${percent(low)} to ${percent(high)}, ${folds} parts, ${repeats} times. It judges the plain head, on more pictures than the test has.`,
  ]
}

function randomSplitVerdict({ randomSplit }: Evaluation): string[] {
  if (!randomSplit) return []
  const { grouped, random, repeats } = randomSplit
  const both = `${percent(random)} instead of ${percent(grouped)}`
  const how = `linear probe, mean of ${repeats} splits each`
  if (random - grouped >= flattered)
    return [
      `A split by chance would have flattered by ${points(random - grouped).slice(1)}: ${both} (${how}). It tears copies and groups apart, and is what most tools report.`,
    ]
  return [`A split by chance would have said about the same: ${both} (${how}).`]
}

function sliceVerdict({ slices = [] }: Evaluation): string[] {
  const standing = slices.filter(({ stands }) => stands !== 'not told apart')
  if (slices.length > 0 && standing.length === 0)
    return [
      slices.length === 1
        ? `The one part that could be looked at (${sliceName(slices[0]!)}) does not differ from the rest beyond luck.`
        : `None of ${slices.length} parts of the test pictures (${[...new Set(slices.map(({ by }) => by))].join(', ')}) differs from the others beyond luck.`,
    ]
  // the others being better is what “this one is worse” says already
  const worse = standing.filter(({ stands }) => stands === 'worse')
  return (worse.length > 0 ? worse : standing)
    .slice(0, 5)
    .map(
      slice =>
        `${slice.stands === 'worse' ? 'Worse' : 'Better'} than elsewhere: ${sliceName(slice)}, ${percent(slice.accuracy, 0)} of ${slice.n} right (95 % interval ${percent(slice.low, 0)} to ${percent(slice.high, 0)}).${slice.stands === 'worse' ? ' Look at its pictures, and train on more like them.' : ''}`,
    )
}
const sliceName = ({ by, value }: NonNullable<Evaluation['slices']>[number]) => `${by} ${quoted(value)}`

function weakestClassVerdict({ perClass, confusion }: Evaluation): string[] {
  const judged = weakestFirst(perClass.map((score, k) => ({ ...score, k }))).filter(({ n }) => n >= fewOfAClass)
  const [weakest] = judged
  if (judged.length < 2 || !weakest) return []
  if (judged.every(({ recall }) => recall === 1)) return ['No mistake in any class that has enough test pictures.']
  const row = confusion[weakest.k]!
  const missed = weakest.n - row[weakest.k]!
  const [other, most] = row.reduce((best, count, k) => (k !== weakest.k && count > best[1] ? [k, count] : best), [0, 0] as [number, number])
  // one of many is no pattern, and between two classes there is nothing to guess
  const pattern =
    perClass.length > 2 && most > 1
      ? `; ${most === missed ? 'all' : most} of the ${missed} missed were taken for ${quoted(perClass[other]!.label)}`
      : ''
  return [`Weakest class: ${quoted(weakest.label)}, ${row[weakest.k]} of ${weakest.n} found (${percent(weakest.recall!, 0)})${pattern}.`]
}

function calibrationVerdict({ n, calibration: { expectedCalibrationErrorAfter: error, bins } }: Evaluation): string[] {
  if (!bins) return []
  if (n < fewForCalibration) return [`Too few test pictures to say whether the probabilities can be believed.`]
  const byLuck = calibrationErrorByLuck(bins)
  const off = `the probabilities are off by ${(100 * error).toFixed(1)} points on average`
  if (error <= beyondLuck * byLuck + 1e-9)
    return [
      `Calibration: ${off}; luck alone would give ${(100 * byLuck).toFixed(1)} on ${n} ${n === 1 ? 'picture' : 'pictures'}, so nothing speaks against them.`,
    ]
  const mean = (of: 'confidence' | 'accuracy') => bins.reduce((sum, bin) => sum + bin.n * (bin[of] ?? 0), 0) / n
  return [
    `Calibration: ${off}: the model is ${mean('confidence') > mean('accuracy') ? 'surer than it should be' : 'less sure than it could be'}.`,
  ]
}

// ── what a training found beside its test ───────────────────────────────────────────────────────────────────────────────────

/** Choices, unknown pictures and labels that look wrong, as far as the training looked. */
export const trainingFindings = ({
  choices = [],
  unknown,
  mislabels,
}: Pick<TrainResult, 'choices' | 'unknown' | 'mislabels'>): Finding[] => [
  ...withHow('stranger', unknown ? [unknownVerdict(unknown)] : []),
  ...withHow('mislabels', mislabels ? [mislabelVerdict(mislabels)] : []),
  ...withHow(
    'choices',
    choices.map(choice => choice.sentence),
  ),
]
export const trainingVerdicts = (result: Parameters<typeof trainingFindings>[0]): string[] => trainingFindings(result).map(said)

function unknownVerdict({
  falseAlarmRate,
  falseAlarmsOnTest,
  auroc,
  aurocOfProbability,
  detected = null,
}: NonNullable<TrainResult['unknown']>): string {
  const alarms =
    falseAlarmsOnTest === null
      ? `about ${percent(falseAlarmRate, 0)} of right pictures are called unknown by mistake`
      : `${percent(falseAlarmsOnTest)} of the test pictures are called unknown by mistake (${percent(falseAlarmRate, 0)} were allowed)`
  if (auroc === null)
    return `The model says “unknown” to pictures unlike all it has learned; ${alarms}. How well it finds them could not be tested: there are too few classes or pictures.`
  const found = detected === null ? '' : ` At the limit it uses, ${hundredths(detected)} of 100 strangers are called unknown.`
  const beside = aurocOfProbability === null ? '' : `; by how unsure the answer is, ${hundredths(aurocOfProbability)}`
  return `The model says “unknown” to pictures unlike all it has learned. Shown one picture of a class that it was never taught and one of the others, it finds the stranger in ${hundredths(auroc)} of 100 cases (a coin: 50${beside}).${found} ${alarms[0]!.toUpperCase()}${alarms.slice(1)}.`
}
const hundredths = (share: number) => (100 * share).toFixed(0)

function mislabelVerdict({ n, estimate, exchanged, listed: suspects }: NonNullable<TrainResult['mislabels']>): string {
  if (suspects.length === 0) return `None of ${n} labels looks wrong.`
  const { count, low, high } = estimate
  const [pair] = exchanged
  const mostly = pair ? `, mostly ${quoted(pair.label)} ↔ ${quoted(pair.suggestion)}` : ''
  return `About ${count.toFixed(0)} (${low.toFixed(0)} to ${high.toFixed(0)}) of ${n} labels look wrong${mostly}. ${suspects.length} are listed, the most suspicious first: look at them with plinth data review.`
}

/** Foreign names between quotes, so that a sentence cannot be mistaken for part of them, and on one line. */
export const quoted = (name: string): string => `“${name.replace(/\p{C}/gu, '·')}”`
export const listed = (names: readonly string[], most = 5): string =>
  names.length <= most ? names.join(', ') : `${names.slice(0, most).join(', ')} and ${names.length - most} more`
