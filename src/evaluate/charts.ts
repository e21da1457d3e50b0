/** The report's drawings, as inline SVG without scripts or style attributes. Each says in words what it shows to whoever cannot see it. */

import { type Html, html, unbroken } from '../data/html.ts'
import type { Evaluation } from '../sdk/shapes.ts'
import { wilson } from './intervals.ts'
import type { Method } from './methods.ts'
import type { CalibrationBin } from './metrics.ts'
import { how } from './report/parts.ts'
import { percent } from './verdicts.ts'

/** One epoch of fine-tuning. */
export interface EpochRecord {
  epoch: number
  trainLoss: number
  validationLoss?: number
  validationAccuracy: number
}

/** A percentage that no line break tears from its sign. */
export const shareText = (share: number, digits?: number): string => unbroken(percent(share, digits))

/** Coordinates with two decimals: smaller pages, and equal ones for equal numbers. */
const at = (value: number) => Number(value.toFixed(2))

/** A share from 0 to 1 as a bar, with its interval drawn as a band where it has one. */
export function shareBar(share: number, interval: readonly [number, number] | null, quiet = false): Html {
  const [low, high] = interval ?? [share, share]
  return html`<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="10" rx="0.6"/><rect class="${quiet ? 'fill-quiet' : 'fill'}" width="${at(100 * (interval ? low : share))}" height="10"/>${interval && html`<rect class="interval" x="${at(100 * low)}" width="${at(100 * (high - low))}" height="10"/><rect class="mark" x="${at(Math.min(99.6, 100 * share - 0.2))}" width="0.4" y="-1.5" height="13"/>`}</svg>`
}

/** The model's accuracy with its interval over the baselines, on one scale. */
export function accuracyBars({ accuracy, low, high, linearProbe, majority }: Evaluation): Html {
  const row = (title: string, remark: string, key: Method, share: number, interval: readonly [number, number] | null) =>
    html`<div${interval && html` class="us"`}><dt>${title} <span>${remark}</span></dt><dd class="number">${how(key, shareText(share))}</dd><dd class="drawing">${shareBar(share, interval, !interval)}</dd></div>`
  return html`<div><dl class="bars">
${row('This model', '', 'accuracy', accuracy, [low, high])}
${linearProbe !== null && row('Linear probe', 'the same backbone, not trained further', 'probe', linearProbe, null)}
${row('Always the same', 'the most frequent class', 'majority', majority, null)}
</dl><div class="axis" aria-hidden="true"><span>0</span><span>25</span><span>50</span><span>75</span><span>100 %</span></div>
<p class="quiet small">The pale band is the ${how('interval', '95 % interval')}, ${shareText(low)} to ${shareText(high)}.</p></div>`
}

/** Training loss, and validation accuracy beside the head that was fitted before. */
export function learningCurves(history: readonly EpochRecord[], headAccuracy: number | null): Html {
  const best = history.reduce((most, epoch) => (epoch.validationAccuracy > most.validationAccuracy ? epoch : most))
  const losses = [
    { name: 'train', warm: false, values: history.map(epoch => epoch.trainLoss) },
    ...(history.every(epoch => epoch.validationLoss !== undefined)
      ? [{ name: 'validation', warm: true, values: history.map(epoch => epoch.validationLoss!) }]
      : []),
  ]
  const accuracies = [{ name: 'fine-tuning', warm: false, values: history.map(epoch => epoch.validationAccuracy) }]
  const epochs = history.map(epoch => epoch.epoch)
  return html`<div class="pair">
<figure><h3>Accuracy on validation</h3>${lineChart(epochs, accuracies, {
    title: `Validation accuracy by epoch, from ${shareText(history[0]!.validationAccuracy)} to ${shareText(history.at(-1)!.validationAccuracy)}; best ${shareText(best.validationAccuracy)} in epoch ${best.epoch}.`,
    format: (value, decimals) => `${(100 * value).toFixed(Math.max(0, decimals - 2))} %`,
    reference: headAccuracy === null ? null : { value: headAccuracy, name: 'head alone' },
    best: history.indexOf(best),
    within: [0, 1],
  })}<figcaption>Best: ${shareText(best.validationAccuracy)} in epoch ${best.epoch}${headAccuracy !== null && html`; the dashed line is the head on the untouched backbone, ${shareText(headAccuracy)}`}.</figcaption></figure>
<figure><h3>Loss</h3>${lineChart(epochs, losses, {
    title: `Training loss by epoch, from ${history[0]!.trainLoss.toFixed(2)} to ${history.at(-1)!.trainLoss.toFixed(2)}.`,
    format: (value, decimals) => value.toFixed(decimals),
    reference: null,
    best: null,
    within: [0, Number.POSITIVE_INFINITY],
  })}<figcaption>What training lowers${losses.length > 1 && html`: solid on the training pictures, dashed on validation`}. It counts label smoothing, where that is used.</figcaption></figure>
</div>`
}

interface Line {
  name: string
  warm: boolean
  values: readonly number[]
}
interface LineChart {
  title: string
  format(value: number, decimals: number): string
  reference: { value: number; name: string } | null
  /** Index of the point to ring. */
  best: number | null
  within: readonly [number, number]
}
function lineChart(xs: readonly number[], lines: readonly Line[], { title, format, reference, best, within }: LineChart): Html {
  const width = 340
  const height = 190
  const edge = { left: 46, right: 12, top: 10, bottom: 28 }
  const all = lines.flatMap(line => line.values).concat(reference ? [reference.value] : [])
  const { ticks, low, high, decimals } = niceScale(Math.min(...all), Math.max(...all), within)
  const first = xs[0]!
  const last = xs.at(-1)!
  const x = (value: number) =>
    last === first
      ? (edge.left + width - edge.right) / 2
      : edge.left + ((value - first) / (last - first)) * (width - edge.left - edge.right)
  const y = (value: number) => height - edge.bottom - ((value - low) / (high - low)) * (height - edge.top - edge.bottom)
  const shown = xs.filter((_, i) => i === 0 || i === xs.length - 1 || (xs.length <= 10 && i < xs.length - 1))
  return html`<svg class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">
${ticks.map(tick => html`<line class="grid" x1="${edge.left}" x2="${width - edge.right}" y1="${at(y(tick))}" y2="${at(y(tick))}"/><text x="${edge.left - 6}" y="${at(y(tick) + 4)}" text-anchor="end">${format(tick, decimals)}</text>`)}
${shown.map(tick => html`<text x="${at(x(tick))}" y="${height - 10}" text-anchor="middle">${tick}</text>`)}
<text x="${edge.left - 6}" y="${height - 10}" text-anchor="end">epoch</text>
${reference && html`<line class="ideal" x1="${edge.left}" x2="${width - edge.right}" y1="${at(y(reference.value))}" y2="${at(y(reference.value))}"/>`}
${lines.map(line => html`<polyline class="line${line.warm ? '-warm' : ''}" points="${line.values.map((value, i) => `${at(x(xs[i]!))},${at(y(value))}`).join(' ')}"/>${line.values.length <= 30 && line.values.map((value, i) => html`<circle class="dot${line.warm ? '-warm' : ''}" cx="${at(x(xs[i]!))}" cy="${at(y(value))}" r="2.6"/>`)}`)}
${best !== null && html`<circle class="best" cx="${at(x(xs[best]!))}" cy="${at(y(lines[0]!.values[best]!))}" r="5"/>`}
</svg>`
}

/** About four round numbers around [low, high], and the decimals that tell them apart. */
function niceScale(low: number, high: number, [floor, ceiling]: readonly [number, number]) {
  const rough = (high - low || Math.abs(high) * 0.1 || 1) / 3
  const magnitude = 10 ** Math.floor(Math.log10(rough))
  const step = magnitude * ([1, 2, 5].find(factor => factor * magnitude >= rough) ?? 10)
  const first = Math.floor(Math.max(floor, low) / step + 1e-9)
  const last = Math.max(first + 1, Math.ceil(Math.min(ceiling, high) / step - 1e-9))
  return {
    ticks: Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step),
    low: first * step,
    high: last * step,
    decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)),
  }
}

/** How often answers given with a certain probability were right; the distance to the diagonal is what is wrong. */
export function reliabilityDiagram(bins: readonly CalibrationBin[]): Html {
  const size = 300
  const edge = { left: 42, right: 8, top: 8, bottom: 40 }
  const x = (share: number) => edge.left + share * (size - edge.left - edge.right)
  const y = (share: number) => size - edge.bottom - share * (size - edge.top - edge.bottom)
  const filled = bins.filter(bin => bin.n > 0)
  const words = filled.map(bin => `${shareText(bin.confidence!, 0)} sure: ${shareText(bin.accuracy!, 0)} right of ${bin.n}`).join('; ')
  return html`<svg class="chart square" viewBox="0 0 ${size} ${size}" role="img" aria-label="Reliability: ${words}.">
${[0, 0.25, 0.5, 0.75, 1].map(tick => html`<line class="grid" x1="${at(x(0))}" x2="${at(x(1))}" y1="${at(y(tick))}" y2="${at(y(tick))}"/><text x="${at(x(0) - 6)}" y="${at(y(tick) + 4)}" text-anchor="end">${100 * tick}</text><text x="${at(x(tick))}" y="${at(y(0) + 16)}" text-anchor="middle">${100 * tick}</text>`)}
<line class="ideal" x1="${at(x(0))}" y1="${at(y(0))}" x2="${at(x(1))}" y2="${at(y(1))}"/>
${filled.map(bin => {
  const [low, high] = wilson(Math.round(bin.accuracy! * bin.n), bin.n)
  // the dot's area is the number of pictures, so that a far-off bin of two pictures does not look like a finding
  const radius = Math.max(2, 9 * Math.sqrt(bin.n / Math.max(...filled.map(other => other.n))))
  return html`<line class="whisker" x1="${at(x(bin.confidence!))}" x2="${at(x(bin.confidence!))}" y1="${at(y(low))}" y2="${at(y(high))}"/><circle class="bin" cx="${at(x(bin.confidence!))}" cy="${at(y(bin.accuracy!))}" r="${at(radius)}"/>`
})}
<text x="${at(x(0.5))}" y="${size - 6}" text-anchor="middle">how sure the model was, %</text>
<text transform="translate(11 ${at(y(0.5))}) rotate(-90)" text-anchor="middle">how often it was right, %</text>
</svg>`
}
