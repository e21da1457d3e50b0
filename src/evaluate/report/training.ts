/** How the model came about: head or fine-tuning, the choices made on validation, and what the network saw. */
import { type Html, html, unbroken } from '../../data/html.ts'
import { formatForecast, formatSeconds } from '../../sdk/index.ts'
import { type EpochRecord, learningCurves, shareText } from '../charts.ts'
import type { ReportInput } from '../report.ts'
import { points } from '../verdicts.ts'
import { counted, how, shown } from './parts.ts'

type Training = NonNullable<ReportInput['result']>

export function chosenSection(
  { chosen, validation, device, seconds, forecastSeconds, resumedFrom }: Training,
  history: readonly EpochRecord[],
): Html {
  const { head, finetune } = validation
  // an epoch that diverged has no place on a scale
  const epochs = history.filter(epoch => Number.isFinite(epoch.trainLoss) && Number.isFinite(epoch.validationAccuracy))
  const gain = finetune === null ? null : finetune - head
  return html`<section aria-labelledby="chosen"><h2 id="chosen">${chosen === 'finetune' ? 'Fine-tuning won' : finetune === null ? 'The head on the untouched backbone' : 'The head alone won'}</h2>
<p class="lead">${
    gain === null
      ? html`The backbone was left as it came and only the head was fitted: ${how('validation', shareText(head))} on validation.`
      : html`Decided on the validation pictures: fine-tuned ${how('validation', shareText(finetune!))}, head on the untouched backbone ${how('validation', shareText(head))} (${unbroken(points(gain))}). ${chosen === 'finetune' ? 'The fine-tuned network is the model.' : 'More training did not help, so the simpler model was kept.'}`
  } ${how('time', formatSeconds(seconds))} on ${device.name}, ${counted(device.threads, 'thread')}; the plan said ${how('time', formatForecast(forecastSeconds))}.${resumedFrom && html` Resumed from step ${resumedFrom.step}.`}</p>
${epochs.length > 1 && learningCurves(epochs, head)}</section>`
}

/** What was decided, and rows of pictures as the network sees them. */
export function choicesSection({ result, contactSheets = [] }: ReportInput): Html {
  const choices = result?.choices ?? []
  if (choices.length + contactSheets.length === 0) return html``
  const fewEach = contactSheets.every(({ pictures }) => pictures.length <= 3)
  return html`<section aria-labelledby="choices"><h2 id="choices">${choices.length === 0 ? 'What the network sees' : contactSheets.length === 0 ? 'What was chosen' : 'What was chosen, and what the network sees'}</h2>
${
  choices.length > 0 &&
  html`<p class="lead">Decided on training and validation pictures, ${how('choices', 'never on the test')}.</p>
<dl class="facts">${choices.map(({ what, chosen, sentence }) => html`<dt>${what}</dt><dd><b>${chosen}</b><br>${unbroken(sentence)}</dd>`)}</dl>`
}
${
  contactSheets.length > 0 &&
  html`<div class="${fewEach ? 'sheets' : ''}">${contactSheets.map(
    ({ title, text, pictures }) => html`<div class="sheet"><h3><bdi>${title}</bdi></h3>${text && html`<p class="quiet small">${text}</p>`}
<ul class="cards strip">${pictures.map(picture => html`<li>${shown(picture, title)}</li>`)}</ul></div>`,
  )}</div>`
}</section>`
}
