/** What the model was made of, and how to make it again. */
import { type Html, html } from '../../data/html.ts'
import type { ReportInput } from '../report.ts'
import { counted, how, thumbnail } from './parts.ts'

export async function dataSection({ result, notes, conflicts = [], examples = [], pictures }: ReportInput): Promise<Html> {
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
<p class="lead">${split && html`${how('data', counted(split.train, 'picture'))} to learn from, ${split.validation} to make choices on, ${split.test} for the test, looked at once.`}</p>
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

export function originSection({ result, plan, reproduce = [], lineage = {} }: ReportInput): Html {
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
