/**
 * The evaluation as one self-contained page: no script, no network, nothing but this file (a content security policy says so to the
 * browser), so it can be mailed, archived and opened in ten years. Everything foreign (file names, labels, notes) is escaped in html.ts.
 */
import { type Html, html, page, unbroken } from '../data/html.ts'
import type { Evaluation, TrainResult } from '../sdk/shapes.ts'
import { accuracyBars, type EpochRecord, learningCurves, reliabilityDiagram, shareBar, shareText } from './charts.ts'
import { wilson } from './intervals.ts'
import { calibrationBins, weakestFirst } from './metrics.ts'
import { stylesheet } from './stylesheet.ts'
import { furtherVerdicts, points, unseen, verdicts } from './verdicts.ts'

export interface ReportInput {
  title: string
  /** The training behind the model; null where a model is evaluated on other pictures later. */
  result: Omit<TrainResult, 'report' | 'test'> | null
  evaluation: Evaluation
  /** Class names in the order of the confusion matrix. */
  classes: readonly string[]
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
  /** Probability under which an answer is marked unknown. */
  threshold?: number
  /** Commands that make the model again. */
  reproduce?: readonly string[]
  /** More lines for "Where it comes from": commit, backbone, licence … */
  lineage?: Readonly<Record<string, string>>
}

/** The page, complete. */
export async function renderReport(input: ReportInput): Promise<string> {
  const { title, result, evaluation, history } = input
  const { name, version } = result?.dataset ?? { name: null, version: null }
  const body = html`
<main>
<header>
<p class="eyebrow">Plinth · evaluation</p>
<h1>${title}</h1>
<p class="quiet small">${result && html`<bdi>${name}</bdi>@${version} · ${counted(result.dataset.images, 'picture')} in ${counted(result.dataset.classes, 'class')} · model <bdi>${result.model.name}</bdi>@${result.model.version}`}${!result && html`${counted(evaluation.n, 'picture')} in ${counted(input.classes.length, 'class')}`}</p>
<div class="headline">
<div><p class="figure">${(100 * evaluation.accuracy).toFixed(1)}<small> %</small></p><p>of the answers on ${counted(evaluation.n, 'test picture')}${unseen(evaluation)} are right. On more pictures like these, expect <b>${shareText(evaluation.low)} to ${shareText(evaluation.high)}</b>.</p></div>
${accuracyBars(evaluation)}
</div>
</header>
<section aria-labelledby="findings"><h2 id="findings">What can be said</h2><ul class="findings">${furtherVerdicts(evaluation).map(sentence => html`<li>${unbroken(sentence)}</li>`)}</ul></section>
${result && chosenSection(result, history)}
${await worstMistakesSection(input)}
${perClassSection(evaluation)}
${confusionSection(evaluation, input.classes)}
${calibrationSection(evaluation, input.threshold)}
${await dataSection(input)}
${originSection(input)}
${methodsSection(evaluation)}
<footer>Made by Plinth. This page loads nothing and runs nothing; keep it with the model.</footer>
</main>`
  return page({ title, stylesheet, body })
}

/** The evaluation as it is written beside the page, with the sentences that go with it. */
export const reportJson = (evaluation: Evaluation): string =>
  `${JSON.stringify({ schema: 1, ...evaluation, verdicts: verdicts(evaluation) }, null, 2)}\n`

// ── sections, in the order of the page ──────────────────────────────────────────────────────────────────────────────────────

function chosenSection(
  { chosen, validation, device, seconds, forecastSeconds, resumedFrom }: NonNullable<ReportInput['result']>,
  history: readonly EpochRecord[],
): Html {
  const { head, finetune } = validation
  // an epoch that diverged has no place on a scale
  const epochs = history.filter(epoch => Number.isFinite(epoch.trainLoss) && Number.isFinite(epoch.validationAccuracy))
  const gain = finetune === null ? null : finetune - head
  return html`<section aria-labelledby="chosen"><h2 id="chosen">${chosen === 'finetune' ? 'Fine-tuning won' : finetune === null ? 'The head on the untouched backbone' : 'The head alone won'}</h2>
<p class="lead">${
    gain === null
      ? html`The backbone was left as it came and only the head was fitted: ${shareText(head)} on validation.`
      : html`Decided on the validation pictures: fine-tuned ${shareText(finetune!)}, head on the untouched backbone ${shareText(head)} (${unbroken(points(gain))}). ${chosen === 'finetune' ? 'The fine-tuned network is the model.' : 'More training did not help, so the simpler model was kept.'}`
  } ${took(seconds)} on ${device.name}, ${counted(device.threads, 'thread')}; the plan said ${took(forecastSeconds)}.${resumedFrom && html` Resumed from step ${resumedFrom.step}.`}</p>
${epochs.length > 1 && learningCurves(epochs, head)}</section>`
}

/** Cards shown at once; the others go into a fold. */
const mistakesShown = 12

async function worstMistakesSection({ evaluation: { worstMistakes, n, accuracy }, pictures }: ReportInput): Promise<Html> {
  const wrong = n - Math.round(accuracy * n)
  if (worstMistakes.length === 0)
    return html`<section aria-labelledby="worst"><h2 id="worst">Worst mistakes</h2><p class="lead">None: every test picture was answered right.</p></section>`
  const cards = await Promise.all(
    worstMistakes.map(async ({ path, label, predicted, probability, probabilityOfLabel }) => {
      const picture = await thumbnail(pictures, path, `${path}: labelled ${label}, answered ${predicted}`)
      return html`<li>${picture}<p class="answer"><b><bdi>${predicted}</bdi></b> ${shareText(probability, 0)}</p>${shareBar(probability, null)}<p class="answer small">labelled <bdi>${label}</bdi> <span class="quiet">${shareText(probabilityOfLabel, 0)}</span></p><p class="path"><bdi>${path}</bdi></p></li>`
    }),
  )
  return html`<section class="worst" aria-labelledby="worst"><h2 id="worst">Worst mistakes</h2>
<p class="lead">${worstMistakes.length < wrong ? `The ${worstMistakes.length} surest of ${wrong} wrong answers` : wrong === 1 ? 'The one wrong answer' : `All ${wrong} wrong answers`}, the surest first. Look twice: some may be right and the label wrong.</p>
<ol class="cards">${cards.slice(0, mistakesShown)}</ol>
${cards.length > mistakesShown && html`<details><summary>The next ${cards.length - mistakesShown}</summary><ol class="cards">${cards.slice(mistakesShown)}</ol></details>`}</section>`
}

/** Rows shown at once; a thousand classes go into a fold. */
const rowsShown = 40

function perClassSection({ perClass }: Evaluation): Html {
  const order = weakestFirst(perClass)
  const cell = (share: number | null) =>
    share === null ? html`<span class="quiet" title="undefined: nothing to divide by">–</span>` : shareText(share, 0)
  const rows = (scores: typeof order) =>
    scores.map(({ label, n, precision, recall, f1 }) => {
      const interval = recall === null ? null : wilson(Math.round(recall * n), n)
      return html`<tr><th scope="row"><bdi>${label}</bdi></th><td class="number">${n}</td><td class="number">${cell(precision)}</td><td class="number">${cell(recall)}</td><td class="bar">${interval && html`${shareBar(recall!, interval)}<span class="hidden">between ${shareText(interval[0], 0)} and ${shareText(interval[1], 0)}</span>`}</td><td class="number wide">${cell(f1)}</td></tr>`
    })
  const scores = (
    some: typeof order,
  ) => html`<div class="scroll" tabindex="0" role="region" aria-label="Scores by class"><table class="scores">
<thead><tr><th scope="col">Class</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">Precision</th><th scope="col" class="number">Recall</th><th scope="col"><span class="hidden">Recall with its </span>95 % interval</th><th scope="col" class="number wide">F1</th></tr></thead>
<tbody>${rows(some)}</tbody></table></div>`
  return html`<section class="per-class" aria-labelledby="classes"><h2 id="classes">Class by class</h2>
<p class="lead">Those that are surely weak first. <b>Recall</b>: of the pictures of a class, the share that was found; its interval is wide where there are few pictures. <b>Precision</b>: of the answers with this class, the share that was right.</p>
${scores(order.slice(0, rowsShown))}
${order.length > rowsShown && html`<details><summary>The other ${order.length - rowsShown} classes</summary>${scores(order.slice(rowsShown))}</details>`}</section>`
}

/** Above this many classes a matrix is wallpaper: the frequent confusions are listed instead. */
const largestMatrix = 30

function confusionSection({ confusion }: Evaluation, classes: readonly string[]): Html {
  const mixed = confusion
    .flatMap((row, truth) => row.map((count, answer) => ({ truth, answer, count, of: row.reduce((sum, n) => sum + n, 0) })))
    .filter(({ truth, answer, count }) => truth !== answer && count > 0)
    .sort((a, b) => b.count - a.count || b.count / b.of - a.count / a.of)
  const small = classes.length <= largestMatrix
  const listed = mixed.slice(0, small ? 8 : 40)
  const list = html`<div class="scroll" tabindex="0" role="region" aria-label="Most frequent mix-ups"><table class="scores"><thead><tr><th scope="col">True class</th><th scope="col">taken for</th><th scope="col" class="number">Pictures</th></tr></thead>
<tbody>${listed.map(({ truth, answer, count, of }) => html`<tr><th scope="row"><bdi>${classes[truth]}</bdi></th><td class="name"><bdi>${classes[answer]}</bdi></td><td class="number">${count} <span class="quiet">of ${of}</span></td></tr>`)}</tbody></table></div>`
  return html`<section aria-labelledby="confusion"><h2 id="confusion">What is taken for what</h2>
<p class="lead">${
    small
      ? 'One row a true class, one column an answer: right answers on the diagonal, each cell shaded by its share of the row.'
      : 'The most frequent mix-ups; the whole matrix is in the JSON file beside this page.'
  }</p>
<div class="${classes.length <= 12 ? 'mixed' : ''}">${small && matrix(confusion, classes)}${listed.length > 0 ? list : html`<p>No class was taken for another.</p>`}</div></section>`
}

function matrix(confusion: Evaluation['confusion'], classes: readonly string[]): Html {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="confusion">
<thead><tr><th scope="col"><span class="hidden">True class, then answers:</span></th>${classes.map(label => html`<th scope="col" title="${label}"><span><bdi>${label}</bdi></span></th>`)}</tr></thead>
<tbody>${confusion.map((row, truth) => {
    const n = row.reduce((sum, count) => sum + count, 0)
    return html`<tr><th scope="row" title="${classes[truth]}"><bdi>${classes[truth]}</bdi></th>${row.map((count, answer) => {
      const step = n === 0 ? 0 : Math.ceil((10 * count) / n)
      const kind = count === 0 ? 'none' : `${truth === answer ? 'right' : 'wrong'}-${step}`
      return html`<td class="${kind}">${count}</td>`
    })}</tr>`
  })}</tbody></table></div>`
}

function calibrationSection({ calibration, n }: Evaluation, threshold: number | undefined): Html {
  const { temperature, expectedCalibrationErrorBefore: before, expectedCalibrationErrorAfter: after, bins } = calibration
  const off = (error: number) => `${(100 * error).toFixed(1)} points`
  return html`<section aria-labelledby="calibration"><h2 id="calibration">Can the probabilities be believed?</h2>
<div class="pair"><div>
<p>When the model says 80 %, it should be right eight times out of ten. Each dot is a group of answers given with about the same probability, its area their number; on the dashed line the model knows itself, below it is too sure. The stroke is how far luck alone may move the dot.</p>
<p>On ${counted(n, 'test picture')} the probabilities are off by <b>${off(after)}</b> on average${temperature === 1 ? '; they are used as the model gives them' : ` (${off(before)} before the temperature ${temperature.toFixed(2)}, fitted on validation)`}.</p>
${threshold !== undefined && (threshold > 0 ? html`<p>An answer under <b>${shareText(threshold)}</b> is marked <i>unknown</i>: chosen on validation so that about one right answer in twenty is. It catches unsure answers, not every picture of something else.</p>` : html`<p>No answer is marked <i>unknown</i>: there were too few validation pictures to choose a threshold.</p>`)}
</div>${bins && html`<figure>${reliabilityDiagram(bins)}</figure>`}</div></section>`
}

async function dataSection({ result, notes, conflicts = [], examples = [], pictures }: ReportInput): Promise<Html> {
  const strip = await Promise.all(
    examples.map(
      async ({ path, label }) =>
        html`<li>${await thumbnail(pictures, path, `${label}: ${path}`)}<p class="path"><bdi>${label}</bdi></p></li>`,
    ),
  )
  if (!result && notes.length === 0 && conflicts.length === 0 && strip.length === 0) return html``
  const { unreadable = [], exactDuplicates = [], split = null } = result?.dataset ?? {}
  const fold = (title: string, items: readonly Html[]) =>
    items.length > 0 && html`<details><summary>${title}</summary><ul>${items.map(item => html`<li>${item}</li>`)}</ul></details>`
  const group = (paths: readonly string[]) => paths.map((path, i) => html`${i > 0 && ' = '}<bdi>${path}</bdi>`)
  return html`<section class="data" aria-labelledby="data"><h2 id="data">The data</h2>
<p class="lead">${split && html`${counted(split.train, 'picture')} to learn from, ${split.validation} to make choices on, ${split.test} for the test, looked at once.`}</p>
${strip.length > 0 && html`<ul class="cards strip">${strip}</ul><p></p>`}
${fold(
  `${counted(notes.length, 'note')} from import and split`,
  notes.map(note => html`${note}`),
)}
${fold(
  `${counted(unreadable.length, 'file')} could not be read`,
  unreadable.map(({ path, reason }) => html`<bdi>${path}</bdi> <span class="quiet">${reason}</span>`),
)}
${fold(
  `${counted(exactDuplicates.length, 'group')} of identical pictures, kept on one side of the split`,
  exactDuplicates.map(paths => html`${group(paths)}`),
)}
${fold(
  `${counted(conflicts.length, 'group')} of identical pictures under different labels`,
  conflicts.map(paths => html`${group(paths)}`),
)}
${result && unreadable.length + exactDuplicates.length + conflicts.length + notes.length === 0 && html`<p class="quiet">Every file could be read; no two pictures are identical.</p>`}</section>`
}

function originSection({ result, plan, reproduce = [], lineage = {} }: ReportInput): Html {
  if (!result && plan.length + reproduce.length + Object.keys(lineage).length === 0) return html``
  const facts: [string, string][] = [
    ...(result
      ? ([
          ['Model', `${result.model.name}@${result.model.version}`],
          ['Run', result.run],
          ['Dataset', `${result.dataset.name}@${result.dataset.version}, digest ${result.dataset.digest}`],
          ['Device', `${result.device.name} (${result.device.kind}), ${counted(result.device.threads, 'thread')}`],
        ] as [string, string][])
      : []),
    ...Object.entries(lineage),
  ]
  return html`<section aria-labelledby="origin"><h2 id="origin">Where it comes from, and how to make it again</h2>
<p class="lead">The same data, seed and program give the same model on the same machine.</p>
${facts.length > 0 && html`<dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd><bdi>${value}</bdi></dd>`)}</dl>`}
${
  reproduce.length > 0 &&
  html`<pre>${reproduce
    .join('\n')
    .split('\n')
    .map(
      (line, i) =>
        html`${
          i > 0 &&
          html`
`
        }${line}`,
    )}</pre>`
}
${plan.length > 0 && html`<details><summary>The plan, as it was printed before the work</summary><ul>${plan.map(line => html`<li>${line}</li>`)}</ul></details>`}</section>`
}

function methodsSection({ versusLinearProbe, linearProbe }: Evaluation): Html {
  const inTraining = linearProbe !== null
  const when = (said: boolean, name: string, text: string): [string, string][] => (said ? [[name, text]] : [])
  const methods: [string, string][] = [
    [
      'Accuracy',
      `Right answers divided by test pictures.${inTraining ? ' The test side is drawn before training and used once; no choice was made on it.' : ''}`,
    ],
    [
      'Interval',
      '95 % Wilson score interval: in 95 of 100 such tests it holds the accuracy that endless pictures of this kind would give. It says nothing about pictures of another kind: another camera, another place.',
    ],
    ['Always the same', 'Accuracy of answering every test picture with the class that is most frequent on the training side.'],
    ...when(
      inTraining,
      'Linear probe',
      'Logistic regression on the features of the untouched backbone, fitted on the same training pictures, its regularisation chosen on the same validation pictures.',
    ),
    ...when(
      versusLinearProbe !== undefined,
      'Better or not',
      'Both models answer the same pictures, and only those where exactly one is right count: exact McNemar test, two-sided; interval of the difference by Newcombe’s method 10. “Not told apart” is said from p = 0.05 upwards.',
    ),
    [
      'Precision, recall, F1',
      'By class. F1 = 2·TP / (2·TP + FP + FN). A dash where there is nothing to divide by: a class without test pictures, or one that was never answered.',
    ],
    [
      'Calibration',
      `Expected calibration error: the answers in ${calibrationBins} bins of equal width by their probability; the mean distance between a bin’s mean probability and its share of right answers, weighted by its size. On a small test it is above zero even for a perfect model.`,
    ],
    [
      'Temperature',
      'One number that divides the scores before they become probabilities, chosen on validation for the greatest likelihood. It never changes an answer, only how sure it is.',
    ],
  ]
  return html`<section aria-labelledby="methods"><h2 id="methods">How each number was computed</h2>
<dl class="facts">${methods.map(([name, text]) => html`<dt>${name}</dt><dd>${text}</dd>`)}</dl></section>`
}

// ── small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function thumbnail(pictures: ReportInput['pictures'], path: string, description: string): Promise<Html> {
  // one missing picture must not cost the report of a whole training
  const source = await pictures(path).catch(() => null)
  if (source === null || !/^data:image\/(png|jpeg|webp|gif|avif);base64,[A-Za-z0-9+/=]+$/.test(source))
    return html`<div class="picture">no picture</div>`
  return html`<div class="picture"><img src="${source}" alt="${description}"></div>`
}

const plurals: Record<string, string> = { class: 'classes' }
const counted = (n: number, noun: string) => `${n.toLocaleString('en')} ${n === 1 ? noun : (plurals[noun] ?? `${noun}s`)}`
const took = (seconds: number) =>
  seconds < 90
    ? `${Math.round(seconds)} s`
    : seconds < 5400
      ? `${(seconds / 60).toFixed(1)} minutes`
      : `${(seconds / 3600).toFixed(1)} hours`
