/** The evaluation for a terminal: aligned columns that need neither colour nor a wide window. */

import { visible } from '../data/html.ts'
import type { Comparison, Evaluation } from '../sdk/shapes.ts'
import { comparisonVerdicts } from './compare.ts'
import { weakestFirst } from './metrics.ts'
import { percent, verdicts as sentencesOf } from './verdicts.ts'

export interface TextOptions {
  /** Columns of the terminal. */
  width?: number
  /** Most classes and mistakes to list. */
  classes?: number
  mistakes?: number
}

/** Several lines without a final line break. `verdicts`: the sentences to end with. */
export function renderText(
  evaluation: Evaluation,
  verdicts: readonly string[] = sentencesOf(evaluation),
  options: TextOptions = {},
): string {
  const { width = 100, classes = 12, mistakes = 5 } = options
  const blocks = [
    accuracyLines(evaluation, width),
    classLines(evaluation, classes, width),
    sliceLines(evaluation, width),
    mistakeLines(evaluation, mistakes, width),
    verdicts.flatMap(sentence => wrapped(`· ${sentence}`, width, 2)),
  ]
  return blocks
    .filter(lines => lines.length > 0)
    .map(lines => lines.join('\n'))
    .join('\n\n')
}

/** `━` up to the share, `─` over its interval, on a scale from 0 to 100 %. */
function accuracyLines(evaluation: Evaluation, width: number): string[] {
  const { accuracy, low, high, linearProbe, majority, n, interval, crossValidation } = evaluation
  const groups = interval?.method === 'grouped-wilson' ? ` in ${interval.groups} groups` : ''
  const cells = Math.min(40, Math.max(10, width - 60))
  const place = (share: number) => Math.min(cells - 1, Math.floor(share * cells))
  const bar = (share: number, from = share, to = share) =>
    Array.from({ length: cells }, (_, i) =>
      i === place(share) ? '●' : i >= place(from) && i <= place(to) ? '━' : i < place(share) ? '─' : ' ',
    ).join('')
  const row = (name: string, share: number, drawn: string, remark = '') =>
    `${name.padEnd(16)}${percent(share).padStart(7)}  ${drawn}${remark && `  ${remark}`}`.trimEnd()
  return [
    row('this model', accuracy, bar(accuracy, low, high), `95 %: ${percent(low)} – ${percent(high)}, n = ${n}${groups}`),
    ...(linearProbe === null ? [] : [row('linear probe', linearProbe, bar(linearProbe))]),
    row('always the same', majority, bar(majority)),
    ...(crossValidation
      ? [
          row(
            'cross-validated',
            crossValidation.accuracy,
            bar(crossValidation.accuracy, crossValidation.low, crossValidation.high),
            `95 %: ${percent(crossValidation.low)} – ${percent(crossValidation.high)}, n = ${crossValidation.n}, head alone`,
          ),
        ]
      : []),
  ]
}

function classLines({ perClass }: Evaluation, most: number, width: number): string[] {
  const order = weakestFirst(perClass)
  const shown = order.slice(0, most)
  const name = Math.min(Math.max(5, ...shown.map(({ label }) => displayWidth(visible(label)))), Math.max(10, width - 40))
  const share = (value: number | null) => (value === null ? '–' : percent(value, 0)).padStart(10)
  return [
    `${fitted('class', name)}${'pictures'.padStart(10)}${'precision'.padStart(10)}${'recall'.padStart(10)}${'F1'.padStart(8)}`,
    ...shown.map(
      ({ label, n, precision, recall, f1 }) =>
        `${fitted(visible(label), name)}${String(n).padStart(10)}${share(precision)}${share(recall)}${share(f1).slice(2)}`,
    ),
    ...(order.length > most ? [`and ${order.length - most} more in the report`] : []),
  ]
}

/** Only where a part stands out, and then beside the largest others. */
function sliceLines({ slices = [] }: Evaluation, width: number): string[] {
  if (slices.every(({ stands }) => stands === 'not told apart')) return []
  const shown = slices.slice(0, 8).map(slice => ({ ...slice, name: `${slice.by} ${visible(slice.value)}` }))
  const name = Math.min(Math.max(...shown.map(slice => displayWidth(slice.name))), Math.max(16, width - 50))
  const share = (value: number) => percent(value, 0).padStart(6)
  return [
    `${fitted('where from', name)}${'pictures'.padStart(10)}${'right'.padStart(8)}  95 % interval`,
    ...shown.map(
      slice =>
        `${fitted(slice.name, name)}${String(slice.n).padStart(10)}  ${share(slice.accuracy)}  ${share(slice.low)} – ${percent(slice.high, 0)}${slice.stands === 'not told apart' ? '' : `  ${slice.stands} than the rest`}`,
    ),
    ...(slices.length > shown.length ? [`and ${slices.length - shown.length} more in the report`] : []),
  ]
}

function mistakeLines({ worstMistakes, n, accuracy }: Evaluation, most: number, width: number): string[] {
  if (worstMistakes.length === 0) return []
  const wrong = n - Math.round(accuracy * n)
  const shown = worstMistakes
    .slice(0, most)
    .map(mistake => ({ ...mistake, change: `${visible(mistake.label)} → ${visible(mistake.predicted)}` }))
  const change = Math.min(Math.max(...shown.map(mistake => displayWidth(mistake.change))), Math.max(20, Math.floor(width / 2)))
  // file names are never cut: they are what the reader will look for
  return [
    `surest of ${wrong} wrong answers (label → answer)`,
    ...shown.map(mistake => `${percent(mistake.probability, 0).padStart(6)}  ${fitted(mistake.change, change)}  ${visible(mistake.path)}`),
  ]
}

// ── two models ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The verdict, then the pictures where they differ. `notes`: more sentences to end with. */
export function renderComparison(
  comparison: Comparison,
  notes: readonly string[] = [],
  { width = 100, mistakes = 10 }: TextOptions = {},
): string {
  const { a, b, differing, onlyA, onlyB } = comparison
  const [verdict, ...further] = comparisonVerdicts(comparison)
  const rows = differing.slice(0, mistakes).map(each => {
    const answer = (label: string, probability: number) => `${visible(label)} ${percent(probability, 0)}`
    return { ...each, label: visible(each.label), ofA: answer(each.a, each.probabilityA), ofB: answer(each.b, each.probabilityB) }
  })
  const column = (title: string, values: readonly string[]) =>
    Math.min(Math.max(...[title, ...values].map(displayWidth)), Math.max(12, Math.floor(width / 4)))
  const widths = [
    column(
      'label',
      rows.map(row => row.label),
    ),
    column(
      a,
      rows.map(row => row.ofA),
    ),
    column(
      b,
      rows.map(row => row.ofB),
    ),
  ] as const
  const line = (cells: readonly [string, string, string], path: string) =>
    `${cells.map((cell, i) => fitted(cell, widths[i as 0 | 1 | 2])).join('  ')}  ${path}`.trimEnd()
  const blocks = [
    wrapped(verdict!, width, 0),
    rows.length === 0
      ? []
      : [
          `they differ on ${onlyA + onlyB}: ${onlyA} right only by ${a}, ${onlyB} only by ${b}`,
          line(['label', a, b], 'picture'),
          ...rows.map(row => line([row.label, row.ofA, row.ofB], visible(row.path))),
          ...(differing.length > rows.length ? [`and ${differing.length - rows.length} more; see them with --report compare.html`] : []),
        ],
    [...further, ...notes].flatMap(sentence => wrapped(`· ${sentence}`, width, 2)),
  ]
  return blocks
    .filter(lines => lines.length > 0)
    .map(lines => lines.join('\n'))
    .join('\n\n')
}

/** Cut or filled with spaces to exactly `width` columns. */
function fitted(text: string, width: number): string {
  if (displayWidth(text) <= width) return text + ' '.repeat(width - displayWidth(text))
  let cut = ''
  for (const { segment } of graphemes.segment(text)) {
    if (displayWidth(cut + segment) > width - 1) break
    cut += segment
  }
  return `${cut}…${' '.repeat(width - 1 - displayWidth(cut))}`
}

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })
/** East Asian wide characters and emoji take two columns; marks take none by being part of their grapheme. */
const wide =
  /\p{Emoji_Presentation}|\ufe0f|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u
const displayWidth = (text: string) =>
  Array.from(graphemes.segment(text)).reduce((sum, { segment }) => sum + (wide.test(segment) ? 2 : 1), 0)

function wrapped(text: string, width: number, indent: number): string[] {
  const lines: string[] = []
  let line = ''
  // a no-break space before % and the like keeps a number and its unit together
  for (const word of text.replace(/(\d) (%|points?|pictures?)/g, '$1\u00a0$2').split(' ')) {
    if (line && displayWidth(line) + 1 + displayWidth(word) > width) {
      lines.push(line)
      line = ' '.repeat(indent) + word
    } else line = line ? `${line} ${word}` : word
  }
  return [...lines, line].map(each => each.replaceAll('\u00a0', ' '))
}
