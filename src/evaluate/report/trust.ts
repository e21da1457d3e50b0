/** How far the numbers and the answers can be believed: calibration, pictures of something else, other splits, parts of the test set. */
import { type Html, html } from '../../data/html.ts'
import type { Evaluation, TrainResult } from '../../sdk/shapes.ts'
import { reliabilityDiagram, shareBar, shareText } from '../charts.ts'
import { counted, how, scrolling } from './parts.ts'

export function calibrationSection({ calibration, n }: Evaluation, threshold: number | undefined): Html {
  const { temperature, expectedCalibrationErrorBefore: before, expectedCalibrationErrorAfter: after, bins } = calibration
  const off = (error: number) => `${(100 * error).toFixed(1)} points`
  return html`<section aria-labelledby="calibration"><h2 id="calibration">Can the probabilities be believed?</h2>
<div class="pair"><div>
<p>When the model says 80 %, it should be right eight times out of ten. Each dot is a group of answers given with about the same probability, its area their number; on the dashed line the model knows itself, below it is too sure. The stroke is how far luck alone may move the dot.</p>
<p>On ${counted(n, 'test picture')} the probabilities are off by ${how('calibration', html`<b>${off(after)}</b>`)} on average${temperature === 1 ? '; they are used as the model gives them' : html` (${off(before)} before the ${how('temperature', `temperature ${temperature.toFixed(2)}`)}, fitted on validation)`}.</p>
${threshold !== undefined && thresholdText(threshold)}
</div>${bins && html`<figure>${reliabilityDiagram(bins)}</figure>`}</div></section>`
}

function thresholdText(threshold: number): Html {
  if (threshold <= 0) return html`<p>No answer is marked <i>too unsure</i>: there were too few validation pictures to choose a limit.</p>`
  return html`<p>An answer the model is less than ${how('threshold', html`<b>${shareText(threshold)}</b>`)} sure of is marked <i>unknown</i>: chosen on validation so that about one right answer in twenty is. That catches answers the model doubts; a network can be sure of nonsense.</p>`
}

/** In words for whoever has never heard of it, then how well it works. */
export function unknownSection(unknown: TrainResult['unknown']): Html {
  if (!unknown) return html``
  const { falseAlarmRate, falseAlarmsOnTest, auroc, aurocOfProbability, detected = null, detectedByProbability = null, perClass } = unknown
  const of100 = (share: number) => `${(100 * share).toFixed(0)} of 100`
  return html`<section aria-labelledby="unknown"><h2 id="unknown">What it does with a picture of something else</h2>
<div class="pair"><div>
<p>A classifier always names one of its classes. Shown a cat, a model that knows only cars would still say which car, and it may be quite sure of it. So this one also measures how far a picture lies from everything it has learned. Beyond a limit it answers <i>unknown</i>: “this looks like none of my classes; do not rely on my answer”.</p>
<p>The limit is a trade. Set tighter, it would find more strangers and also doubt more pictures that are fine. Here about ${how('unknown', html`<b>${shareText(falseAlarmRate, 0)}</b>`)} of pictures that belong to a class may be called unknown by mistake${falseAlarmsOnTest !== null && html`; on the test pictures it was ${how('unknown', shareText(falseAlarmsOnTest))}`}.</p>
</div><div>
${
  auroc === null
    ? html`<p>How well it finds strangers could not be tested: that takes more classes, or more pictures of each.</p>`
    : html`<p>Tested with pictures it was never taught: each class was left out in turn, and its pictures were shown as strangers. Beside a picture of a class it knows, it picked the stranger in ${how('stranger', html`<b>${of100(auroc)}</b>`)} cases. Guessing would give 50${aurocOfProbability !== null && html`; going by how unsure the answer is, ${how('stranger', of100(aurocOfProbability))}`}.</p>${detected !== null && html`<p>With the limit as it is, ${how('stranger', html`<b>${of100(detected)}</b>`)} such strangers are called unknown${detectedByProbability !== null && html` (going by doubt alone: ${how('stranger', of100(detectedByProbability))})`}. The others get the name of a class.</p>`}`
}
</div></div>
${
  perClass.length > 0 &&
  scrolling(
    'How well each class is found when it was never taught',
    html`<table class="scores"><thead><tr><th scope="col">Class left out</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">${how('stranger', 'Found by distance')}</th><th scope="col"><span class="hidden">as a bar</span></th><th scope="col" class="number wide">by doubt alone</th></tr></thead>
<tbody>${perClass
      .toSorted((a, b) => a.auroc - b.auroc)
      .map(
        each =>
          html`<tr><th scope="row"><bdi>${each.label}</bdi></th><td class="number">${each.n}</td><td class="number">${of100(each.auroc)}</td><td class="bar">${shareBar(each.auroc, null)}</td><td class="number wide">${of100(each.aurocOfProbability)}</td></tr>`,
      )}</tbody></table>`,
  )
}</section>`
}

/** The score beside what other ways of testing say. */
export function otherSplitsSection({ accuracy, low, high, n, randomSplit, crossValidation }: Evaluation): Html {
  if (!randomSplit && !crossValidation) return html``
  const row = (name: string, remark: string, share: number, interval: [number, number] | null, key: Parameters<typeof how>[0]) =>
    html`<tr><th scope="row">${name}<span class="remark small quiet">${remark}</span></th><td class="number">${how(key, shareText(share))}</td><td class="bar">${shareBar(share, interval, !interval)}</td></tr>`
  const range = (from: number, to: number) => `95 % interval ${shareText(from)} to ${shareText(to)}`
  const folds =
    crossValidation &&
    `${counted(crossValidation.n, 'picture')}${crossValidation.groups < crossValidation.n ? ` in ${counted(crossValidation.groups, 'group')}` : ''}, ${crossValidation.folds} parts, ${crossValidation.repeats} times; ${range(crossValidation.low, crossValidation.high)}`
  return html`<section aria-labelledby="splits"><h2 id="splits">What other ways of testing would say</h2>
<p class="lead">The same pictures, divided differently. A number far above the first one is too good to be true.</p>
${scrolling(
  'Scores by way of testing',
  html`<table class="scores"><thead><tr><th scope="col">Tested</th><th scope="col" class="number">Accuracy</th><th scope="col"><span class="hidden">as a bar</span></th></tr></thead><tbody>
${row('This model, on its test side', `${counted(n, 'picture')}; ${range(low, high)}`, accuracy, [low, high], 'interval')}
${crossValidation && row('Head alone, cross-validation', folds!, crossValidation.accuracy, [crossValidation.low, crossValidation.high], 'folds')}
${randomSplit && row('Head alone, copies kept together', `mean of ${randomSplit.repeats} splits of about ${counted(randomSplit.n, 'test picture')}`, randomSplit.grouped, null, 'random')}
${randomSplit && row('Head alone, split by chance', 'the same, but copies and groups are torn apart: what most tools report', randomSplit.random, null, 'random')}
</tbody></table>`,
)}</section>`
}

const slicesShown = 12

const standing = { worse: 'worse', better: 'better', 'not told apart': 'not told apart' } as const

/** Where the pictures come from, and whether it matters. */
export function slicesSection({ slices = [], accuracy }: Evaluation): Html {
  if (slices.length === 0) return html``
  const rows = slices.map(
    ({ by, value, n, accuracy: share, low, high, stands }) =>
      html`<tr class="${stands === 'worse' ? 'worse' : ''}"><th scope="row"><span class="quiet">${by}</span> <bdi>${value}</bdi></th><td class="number">${n}</td><td class="number">${how('interval', shareText(share, 0))}</td><td class="bar roomy">${shareBar(share, [low, high])}<span class="hidden">between ${shareText(low, 0)} and ${shareText(high, 0)}</span></td><td class="verdict">${how('slices', standing[stands])}</td></tr>`,
  )
  const list = (items: readonly Html[]) =>
    scrolling(
      'Scores by where pictures come from',
      html`<table class="scores"><thead><tr><th scope="col">Part</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">Accuracy</th><th scope="col" class="roomy">95 % interval</th><th scope="col">Beside the rest</th></tr></thead><tbody>${items}</tbody></table>`,
    )
  return html`<section aria-labelledby="slices"><h2 id="slices">Where the pictures come from</h2>
<p class="lead">Parts of the test set by folder, camera, month and file format; all together ${shareText(accuracy, 0)}. “Worse” and “better” are said only where ${how('slices', 'luck and the mix of classes')} do not explain it.</p>
${list(rows.slice(0, slicesShown))}
${rows.length > slicesShown && html`<details><summary>The other ${rows.length - slicesShown} parts</summary>${list(rows.slice(slicesShown))}</details>`}</section>`
}
