/** The classes one by one, and what is taken for what. */
import { type Html, html } from '../../data/html.ts'
import type { Evaluation } from '../../sdk/shapes.ts'
import { shareBar, shareText } from '../charts.ts'
import { wilson } from '../intervals.ts'
import { weakestFirst } from '../metrics.ts'
import { mixUp } from './mistakes.ts'
import { how } from './parts.ts'

/** Rows shown at once; a thousand classes go into a fold. */
const rowsShown = 40

export function perClassSection({ perClass }: Evaluation): Html {
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
<thead><tr><th scope="col">Class</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">${how('classes', 'Precision')}</th><th scope="col" class="number">${how('classes', 'Recall')}</th><th scope="col"><span class="hidden">Recall with its </span>${how('interval', '95 % interval')}</th><th scope="col" class="number wide">${how('classes', 'F1')}</th></tr></thead>
<tbody>${rows(some)}</tbody></table></div>`
  return html`<section class="per-class" aria-labelledby="classes"><h2 id="classes">Class by class</h2>
<p class="lead">Those that are surely weak first. <b>Recall</b>: of the pictures of a class, the share that was found; its interval is wide where there are few pictures. <b>Precision</b>: of the answers with this class, the share that was right.</p>
${scores(order.slice(0, rowsShown))}
${order.length > rowsShown && html`<details><summary>The other ${order.length - rowsShown} classes</summary>${scores(order.slice(rowsShown))}</details>`}</section>`
}

/** Above this many classes a matrix is wallpaper: the frequent confusions are listed instead. */
const largestMatrix = 30

export function confusionSection({ confusion, worstMistakes }: Evaluation, classes: readonly string[]): Html {
  const pictured = new Set(worstMistakes.map(({ label, predicted }) => mixUp(classes.indexOf(label), classes.indexOf(predicted))))
  /** A count that leads to its pictures, as far as they are on the page. */
  const counted = (count: number, truth: number, answer: number) =>
    pictured.has(mixUp(truth, answer)) ? html`<a class="how" href="#${mixUp(truth, answer)}">${count}</a>` : count
  const mixed = confusion
    .flatMap((row, truth) => row.map((count, answer) => ({ truth, answer, count, of: row.reduce((sum, n) => sum + n, 0) })))
    .filter(({ truth, answer, count }) => truth !== answer && count > 0)
    .sort((a, b) => b.count - a.count || b.count / b.of - a.count / a.of)
  const small = classes.length <= largestMatrix
  const listed = mixed.slice(0, small ? 8 : 40)
  const list = html`<div class="scroll" tabindex="0" role="region" aria-label="Most frequent mix-ups"><table class="scores"><thead><tr><th scope="col">True class</th><th scope="col">taken for</th><th scope="col" class="number">${how('confusion', 'Pictures')}</th></tr></thead>
<tbody>${listed.map(({ truth, answer, count, of }) => html`<tr><th scope="row"><bdi>${classes[truth]}</bdi></th><td class="name"><bdi>${classes[answer]}</bdi></td><td class="number">${counted(count, truth, answer)} <span class="quiet">of ${of}</span></td></tr>`)}</tbody></table></div>`
  return html`<section aria-labelledby="confusion"><h2 id="confusion">What is taken for what</h2>
<p class="lead">${
    small
      ? html`${how('confusion', 'Counts')}: one row a true class, one column an answer; right answers on the diagonal, each cell shaded by its share of the row.${pictured.size > 0 && ' Underlined counts lead to their pictures, as far as they are among the worst mistakes.'}`
      : html`The ${how('confusion', 'most frequent mix-ups')}; the whole matrix is in the JSON file beside this page.`
  }</p>
<div class="${classes.length <= 12 ? 'mixed' : ''}">${small && matrix(confusion, classes, counted)}${listed.length > 0 ? list : html`<p>No class was taken for another.</p>`}</div></section>`
}

function matrix(
  confusion: Evaluation['confusion'],
  classes: readonly string[],
  counted: (count: number, truth: number, answer: number) => Html | number,
): Html {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="confusion">
<thead><tr><th scope="col"><span class="hidden">True class, then answers:</span></th>${classes.map(label => html`<th scope="col" title="${label}"><span><bdi>${label}</bdi></span></th>`)}</tr></thead>
<tbody>${confusion.map((row, truth) => {
    const n = row.reduce((sum, count) => sum + count, 0)
    return html`<tr><th scope="row" title="${classes[truth]}"><bdi>${classes[truth]}</bdi></th>${row.map((count, answer) => {
      const step = n === 0 ? 0 : Math.ceil((10 * count) / n)
      const kind = count === 0 ? 'none' : `${truth === answer ? 'right' : 'wrong'}-${step}`
      return html`<td class="${kind}">${counted(count, truth, answer)}</td>`
    })}</tr>`
  })}</tbody></table></div>`
}
