/**
 * The evaluation as one self-contained page: no script, no network, nothing but this file (a content security policy says so to the
 * browser), so it can be mailed, archived and opened in ten years. Everything foreign (file names, labels, notes) is escaped in html.ts.
 */
import { html, page, unbroken } from '../data/html.ts'
import type { Evaluation, Mislabels, TrainResult } from '../sdk/shapes.ts'
import { accuracyBars, type EpochRecord, shareText } from './charts.ts'
import type { Method } from './methods.ts'
import { confusionSection, perClassSection } from './report/classes.ts'
import { dataSection, originSection } from './report/data.ts'
import { mislabelsSection, strangersSection, worstMistakesSection } from './report/mistakes.ts'
import { counted, how, methodsSection } from './report/parts.ts'
import { choicesSection, chosenSection } from './report/training.ts'
import { calibrationSection, otherSplitsSection, slicesSection, unknownSection } from './report/trust.ts'
import { stylesheet } from './stylesheet.ts'
import { type Finding, furtherFindings, trainingFindings, unseen, verdicts } from './verdicts.ts'

export interface ReportInput {
  title: string
  /** The training behind the model; null where a model is evaluated on other pictures later. */
  result: Omit<TrainResult, 'report' | 'test'> | null
  evaluation: Evaluation
  /** Class names in the order of the confusion matrix. */
  classes: readonly string[]
  /** What to know before believing any number here (pictures that the model knows, a test set that is worn), said first. */
  warnings?: readonly Finding[]
  /** More to say, after the test's own sentences. */
  further?: readonly Finding[]
  /** Pictures that were called unknown, the farthest first. */
  strangers?: readonly string[]
  /** Labels of the pictures that look wrong, where no training says so. */
  mislabels?: Mislabels
  /** Rows of pictures as `data:image/…`, for example what the network sees of one and how it was altered. */
  contactSheets?: readonly { title: string; text: string; pictures: readonly string[] }[]
  /** Where in a picture the score of the given answer comes from, as `data:image/…` of the same shape; null where it cannot be had. */
  activation?(path: string): Promise<string | null>
  /** What import, split and calibration had to say, in sentences. */
  notes: readonly string[]
  /** What was planned before the work, line by line. */
  plan: readonly string[]
  /** A picture as `data:image/…;base64,…` (a thumbnail will do); null where it cannot be had. Anything else is not shown. */
  pictures(path: string): Promise<string | null>
  /** A few pictures to show what the data looks like. */
  examples?: readonly { path: string; label: string }[]
  history: readonly EpochRecord[]
  /** Identical pictures under different labels. */
  conflicts?: readonly (readonly string[])[]
  /** Probability under which an answer is marked unknown, where the model goes by that. */
  threshold?: number
  /** Commands that make the model again. */
  reproduce?: readonly string[]
  /** More lines for "Where it comes from": commit, backbone, licence … */
  lineage?: Readonly<Record<string, string>>
}

/** The page, complete. */
export async function renderReport(input: ReportInput): Promise<string> {
  const { title, result, evaluation, history, warnings = [] } = input
  const { name, version } = result?.dataset ?? { name: null, version: null }
  const of = result
    ? html`<bdi>${name}</bdi>@${version} · ${how('data', counted(result.dataset.images, 'picture'))} in ${counted(result.dataset.classes, 'class')} · model <bdi>${result.model.name}</bdi>@${result.model.version}`
    : html`${how('data', counted(evaluation.n, 'picture'))} in ${counted(input.classes.length, 'class')}`
  const findings = [
    ...warnings,
    ...furtherFindings(evaluation),
    ...trainingFindings({ unknown: result?.unknown, mislabels: result?.mislabels }),
    ...(input.further ?? []),
  ]
  const grouped = evaluation.interval?.method === 'grouped-wilson'
  const body = html`
<main>
<header>
<p class="eyebrow">Plinth · evaluation</p>
<h1>${title}</h1>
<p class="quiet small">${of}</p>
<div class="headline">
<div><p class="figure">${how('accuracy', html`${(100 * evaluation.accuracy).toFixed(1)}<small> %</small>`)}</p><p>of the answers on ${counted(evaluation.n, 'test picture')}${unseen(evaluation) && html` ${how('test', unseen(evaluation).trim())}`} are right${grouped && html` (${how('groups', `${counted(evaluation.interval!.groups, 'group')}`)})`}. On more pictures like these, expect ${how('interval', html`<b>${shareText(evaluation.low)} to ${shareText(evaluation.high)}</b>`)}.</p></div>
${accuracyBars(evaluation)}
</div>
</header>
<section aria-labelledby="findings"><h2 id="findings">What can be said</h2><ul class="findings">${findings.map(({ sentence, how: key }, i) => html`<li${i < warnings.length && html` class="warning"`}>${unbroken(sentence)} ${how(key, 'How?')}</li>`)}</ul></section>
${result && chosenSection(result, history)}
${choicesSection(input)}
${await worstMistakesSection(input)}
${perClassSection(evaluation)}
${confusionSection(evaluation, input.classes)}
${slicesSection(evaluation)}
${otherSplitsSection(evaluation)}
${calibrationSection(evaluation, limitOf(input))}
${unknownSection(result?.unknown)}
${await strangersSection(input)}
${await mislabelsSection(input)}
${await dataSection(input)}
${originSection(input)}
${methodsSection(methodsOf(input))}
<footer>Made by Plinth. This page loads nothing and runs nothing; keep it with the model.</footer>
</main>`
  return page({ title, stylesheet, body })
}

/** A model that knows an “unknown” by distance does not go by the probability. */
const limitOf = ({ result, threshold }: ReportInput) => (result?.unknown ? undefined : threshold)

/** Those that something on the page links to, in the order of the table. */
function methodsOf(input: ReportInput): Method[] {
  const { evaluation, result, warnings = [], further = [], activation } = input
  const mislabels = result?.mislabels ?? input.mislabels
  const said = new Set([...warnings, ...further].map(finding => finding.how))
  const used: [Method, boolean][] = [
    ['accuracy', true],
    ['test', evaluation.linearProbe !== null],
    ['interval', true],
    ['groups', evaluation.interval?.method === 'grouped-wilson'],
    ['majority', true],
    ['probe', evaluation.linearProbe !== null],
    ['paired', evaluation.linearProbe !== null],
    ['validation', result !== null],
    ['random', evaluation.randomSplit !== undefined],
    ['folds', evaluation.crossValidation !== undefined],
    ['classes', true],
    ['confusion', true],
    ['slices', (evaluation.slices ?? []).length > 0],
    ['calibration', true],
    ['probability', evaluation.worstMistakes.length > 0 || (mislabels?.listed ?? []).length > 0],
    ['temperature', evaluation.calibration.temperature !== 1],
    ['threshold', (limitOf(input) ?? 0) > 0],
    ['unknown', result?.unknown !== undefined],
    ['stranger', result?.unknown !== undefined],
    ['strangers', said.has('strangers')],
    ['mislabels', mislabels !== undefined],
    ['maps', activation !== undefined && evaluation.worstMistakes.length > 0],
    ['choices', (result?.choices ?? []).length > 0],
    ['data', true],
    ['time', result !== null],
    ['seen', said.has('seen')],
    ['looks', said.has('looks')],
  ]
  return used.filter(([, linked]) => linked).map(([key]) => key)
}

/** The evaluation as it is written beside the page, with the sentences that go with it. */
export const reportJson = (evaluation: Evaluation): string =>
  `${JSON.stringify({ schema: 1, ...evaluation, verdicts: verdicts(evaluation) }, null, 2)}\n`
