/** Two models on one page: the verdict, and every picture that exactly one of them gets right. */
import { basename } from 'node:path'
import { type Html, html, page, unbroken } from '../data/html.ts'
import type { Comparison } from '../sdk/shapes.ts'
import { shareBar, shareText } from './charts.ts'
import { comparisonFindings } from './compare.ts'
import type { Method } from './methods.ts'
import { counted, folded, how, methodsSection, type PictureOf, thumbnail } from './report/parts.ts'
import { stylesheet } from './stylesheet.ts'
import { chance, points } from './verdicts.ts'

export interface ComparisonReport {
  comparison: Comparison
  pictures: PictureOf
  /** More sentences for what can be said. */
  notes?: readonly string[]
}

const shownAtOnce = 24
/** Pictures beyond are in the JSON: a page of ten thousand opens nowhere. */
const most = 200

export async function renderComparisonReport({ comparison, pictures, notes = [] }: ComparisonReport): Promise<string> {
  const { a, b, set, n, accuracyA, accuracyB, onlyA, onlyB, difference, low, high, p, verdict, differing } = comparison
  const findings = [...comparisonFindings(comparison), ...notes.map(sentence => ({ sentence, how: 'looks' as const }))]
  const bar = (name: string, share: number, loses: boolean) =>
    html`<div class="us"><dt><bdi>${name}</bdi></dt><dd class="number">${how('accuracy', shareText(share))}</dd><dd class="drawing">${shareBar(share, null, loses)}</dd></div>`
  const title = `${a} or ${b}?`
  const said = new Set<Method>(findings.map(finding => finding.how))
  const methods: Method[] = (['accuracy', 'paired', 'groups', 'probability', 'seen', 'looks'] as const).filter(
    key => ['accuracy', 'paired'].includes(key) || said.has(key) || (key === 'probability' && differing.length > 0),
  )
  const body = html`
<main>
<header>
<p class="eyebrow">Plinth · comparison</p>
<h1><bdi>${a}</bdi> or <bdi>${b}</bdi>?</h1>
<p class="quiet small">${counted(n, 'picture')} of <bdi>${basename(set)}</bdi></p>
<div class="headline">
<div><p class="figure">${how('paired', html`${points(difference).replace(/ points$/, '')}<small> points</small>`)}</p><p>from <bdi>${b}</bdi> to <bdi>${a}</bdi>; 95 % interval ${how('paired', html`<b>${unbroken(`${points(low)} to ${points(high)}`)}</b>`)}, ${unbroken(chance(p))}.</p></div>
<dl class="bars">
${bar(a, accuracyA, verdict === 'B is better')}
${bar(b, accuracyB, verdict === 'A is better')}
</dl>
</div>
</header>
<section aria-labelledby="findings"><h2 id="findings">What can be said</h2><ul class="findings">
${findings.map(({ sentence, how: key }, i) => html`<li${i > 0 && html` class="warning"`}>${unbroken(sentence)} ${how(key, 'How?')}</li>`)}
</ul></section>
${await differingSection(
  `Right only by ${a}`,
  'only-a',
  differing.filter(each => each.a === each.label),
  onlyA,
  comparison,
  pictures,
)}
${await differingSection(
  `Right only by ${b}`,
  'only-b',
  differing.filter(each => each.b === each.label),
  onlyB,
  comparison,
  pictures,
)}
${methodsSection(methods)}
<footer>Made by Plinth. This page loads nothing and runs nothing.</footer>
</main>`
  return page({ title, stylesheet, body })
}

async function differingSection(
  title: string,
  id: string,
  differing: Comparison['differing'],
  count: number,
  { a, b }: Comparison,
  pictures: PictureOf,
): Promise<Html> {
  const cards: Html[] = []
  for (const { path, label, a: answerA, b: answerB, probabilityA, probabilityB } of differing.slice(0, most)) {
    const answer = (name: string, answer: string, probability: number) =>
      html`<p class="answer small${answer === label && ' right'}"><span class="quiet"><bdi>${name}</bdi></span> ${answer === label ? '✓' : '✗'} <b><bdi>${answer}</bdi></b> ${how('probability', shareText(probability, 0))}</p>`
    cards.push(
      html`<li>${await thumbnail(pictures, path, `${path}: labelled ${label}; ${a} says ${answerA}, ${b} says ${answerB}`)}${answer(a, answerA, probabilityA)}${answer(b, answerB, probabilityB)}<p class="path"><bdi>${path}</bdi></p></li>`,
    )
  }
  return html`<section class="worst" aria-labelledby="${id}"><h2 id="${id}">${title}</h2>
<p class="lead">${count === 0 ? 'None.' : html`${how('paired', counted(count, 'picture'))}, the surest mistake of the other first.${differing.length > most && ` The first ${most} are shown.`}`}</p>
${cards.length > 0 && folded(cards, shownAtOnce, items => html`<ol class="cards wide">${items}</ol>`)}</section>`
}
