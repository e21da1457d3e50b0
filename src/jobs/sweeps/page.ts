/** The trials of a sweep as one self-contained page: parallel coordinates, one axis a parameter and the metric at the right, and a table. */
import type { Parameter, SweepDefinition } from './search.ts'
import { bestOf, ranked, type Trial } from './steps.ts'

const [width, height, top, left] = [900, 380, 40, 60]

export function sweepPage(
  name: string,
  sweep: SweepDefinition,
  trials: readonly Trial[],
  parametersOf: (index: number) => Record<string, string>,
): string {
  const order = ranked(sweep, trials)
  const metric = sweep.metric ?? 'metric'
  const rows = order.map((trial, rank) => {
    const value = bestOf(trial, sweep.goal)
    const cells = sweep.parameters.map(({ name }) => escaped(parametersOf(trial.index)[name] ?? ''))
    return `<tr><td>${rank + 1}</td><td>${trial.job}</td>${cells.map(cell => `<td>${cell}</td>`).join('')}<td>${value === null ? '' : Number(value.toPrecision(5))}</td><td>${escaped(stateOf(trial))}</td><td>${trial.seconds.toFixed(0)} s</td></tr>`
  })
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escaped(name)}</title>
<meta name="viewport" content="width=device-width">
<style>
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{max-width:60rem;margin:2rem auto;padding:0 1rem}
svg{width:100%;height:auto}svg text{font-size:13px;fill:currentColor}.axis{stroke:currentColor;opacity:.5}.trial{fill:none;stroke-width:1.6;opacity:.75}
.trial:hover{stroke-width:4;opacity:1}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:.25rem .6rem;text-align:left;border-bottom:1px solid #8884}
.table{overflow-x:auto}.note{opacity:.75}</style>
<h1>${escaped(name)}</h1>
<p>${trials.length} of ${sweep.trials} trials${sweep.metric === null ? '' : `, compared by the ${sweep.goal === 'maximise' ? 'greatest' : 'smallest'} <b>${escaped(sweep.metric)}</b> that each reached`}.</p>
${plot(sweep, order, parametersOf, metric)}
<p class="note">A line is a trial: blue the best, grey the worst, dashed without a value. The metric was chosen among ${trials.length} trials, so the best value is
more hopeful than the model is: measure the winner once on data that no trial saw.</p>
<div class="table"><table><thead><tr><th>rank</th><th>job</th>${sweep.parameters.map(({ name }) => `<th>${escaped(name)}</th>`).join('')}<th>${escaped(metric)}</th><th>state</th><th>computed</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div></html>
`
}

export const stateOf = ({ state, reason, stopped }: Trial): string =>
  stopped !== null ? `given up at step ${stopped}` : reason ? `${state} (${reason.replaceAll('_', ' ')})` : state

function plot(
  sweep: SweepDefinition,
  order: readonly Trial[],
  parametersOf: (index: number) => Record<string, string>,
  metric: string,
): string {
  const values = order.map(trial => bestOf(trial, sweep.goal))
  const numbers = values.filter(value => value !== null)
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)]
  const names = [...sweep.parameters.map(({ name }) => name), metric]
  const x = (axis: number) => left + (axis * (width - 2 * left)) / Math.max(1, names.length - 1)
  const y = (share: number) => top + (1 - share) * (height - 2 * top)
  const ofMetric = (value: number) => (high > low ? (value - low) / (high - low) : 0.5)
  const lines = order.map((trial, rank) => {
    const parameters = parametersOf(trial.index)
    const value = values[rank]!
    const points = sweep.parameters.map((parameter, axis) => [x(axis), y(shareOf(parameter, parameters[parameter.name] ?? ''))])
    if (value !== null) points.push([x(names.length - 1), y(ofMetric(value))])
    const good = order.length > 1 ? 1 - rank / (order.length - 1) : 1
    const colour = value === null ? '#999' : `hsl(215 ${Math.round(80 * good)}% ${Math.round(62 - 12 * good)}%)`
    const path = points.map(([px, py]) => `${px!.toFixed(1)},${py!.toFixed(1)}`).join(' ')
    const told = `job ${trial.job}: ${Object.entries(parameters)
      .map(([key, each]) => `${key} ${each}`)
      .join(', ')}${value === null ? '' : `, ${metric} ${Number(value.toPrecision(5))}`}`
    return `<polyline class="trial" points="${path}" stroke="${colour}"${value === null ? ' stroke-dasharray="4 4"' : ''}><title>${escaped(told)}</title></polyline>`
  })
  const axes = names.map((name, axis) => {
    const parameter = sweep.parameters[axis]
    const [bottom, upper] = parameter
      ? endsOf(parameter)
      : numbers.length
        ? [String(Number(low.toPrecision(4))), String(Number(high.toPrecision(4)))]
        : ['', '']
    return `<line class="axis" x1="${x(axis)}" x2="${x(axis)}" y1="${top}" y2="${height - top}"/>
<text x="${x(axis)}" y="${top - 20}" text-anchor="middle" font-weight="bold">${escaped(name)}</text>
<text x="${x(axis)}" y="${top - 5}" text-anchor="middle">${escaped(upper)}</text><text x="${x(axis)}" y="${height - top + 16}" text-anchor="middle">${escaped(bottom)}</text>`
  })
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Parallel coordinates of ${order.length} trials">${axes.join('')}${lines.toReversed().join('')}</svg>`
}

function shareOf(parameter: Parameter, text: string): number {
  if (parameter.kind === 'choice') return (parameter.values.indexOf(text) + 0.5) / parameter.values.length
  const [from, to, value] = parameter.kind.startsWith('log')
    ? [Math.log(parameter.from), Math.log(parameter.to), Math.log(Number(text))]
    : [parameter.from, parameter.to, Number(text)]
  return Math.min(1, Math.max(0, (value - from) / (to - from)))
}

const endsOf = (parameter: Parameter): [string, string] =>
  parameter.kind === 'choice' ? [parameter.values[0]!, parameter.values.at(-1)!] : [String(parameter.from), String(parameter.to)]

const escaped = (text: string) => text.replace(/[&<>"']/g, letter => `&#${letter.charCodeAt(0)};`)
