/**
 * The check as one self-contained page: no script, no network, so it can be mailed to whoever took the pictures. Findings worst first, pictures side by
 * side, each number with a link to how it was computed. Names of files and classes are foreign text: html.ts escapes them.
 */
import type { DataCheck, Manifest, ManifestRow } from '../../sdk/shapes.ts'
import { type Html, html, page, unbroken } from '../html.ts'
import { counted, type Evidence, type Finding, type Level, percent } from './findings.ts'
import { type MethodName, methods } from './methods.ts'
import { stylesheet } from './report-style.ts'

export interface CheckReportInput {
  /** What was checked, as the user calls it. */
  title: string
  check: DataCheck
  /** How the labels were told: one folder per class, a list …; null where that is not known. */
  understood?: string | null
  findings: readonly Finding[]
  manifest: Pick<Manifest, 'rows'>
  /** A small WebP of the picture; null where it cannot be had (any more). */
  thumbnail(row: ManifestRow): Promise<Uint8Array | null>
  /** The one next command. */
  next: string
  made: Date
}

/** Pictures on the whole page: about 3 KB each. */
const mostPictures = 400
/** Groups of one finding that are shown at once, and that are on the page at all. */
const groupsShown = 12
const groupsKept = 60
const picturesOfGroup = 8
const words: Record<Level, string> = { wrong: 'Put right', look: 'Look at', known: 'Good to know' }

export async function renderCheckReport(input: CheckReportInput): Promise<string> {
  const { title, check, findings, next, made } = input
  const [wrong, look] = (['wrong', 'look'] as const).map(level => findings.filter(finding => finding.level === level).length) as [
    number,
    number,
  ]
  const verdict =
    wrong + look === 0
      ? `Nothing wrong was found in ${counted(check.images, 'picture')}.`
      : `${[wrong > 0 && counted(wrong, 'thing to put right', 'things to put right'), look > 0 && counted(look, 'thing to look at', 'things to look at')].filter(Boolean).join(', ')} in ${counted(check.images, 'picture')}.`
  const pictures = thumbnails(input)
  const sections: Html[] = []
  for (const finding of findings) sections.push(await findingSection(finding, pictures))
  const body = html`
<main>
<header>
<p class="eyebrow">Plinth · data check</p>
<h1>${title}</h1>
<p class="quiet small">${counted(check.images, 'picture')} in ${counted(check.classes, 'class', 'classes')}${input.understood && html`, ${input.understood}`} · <bdi>${check.version}</bdi> · ${made.toISOString().slice(0, 16).replace('T', ' ')} UTC</p>
<p class="verdict">${verdict}</p>
${
  findings.length > 0 &&
  html`<nav aria-label="Findings"><ol class="contents">${findings.map(
    ({ key, level, title }) =>
      html`<li><a href="#${key}"><span class="level level-${level}">${words[level]}</span><span class="what">${title}</span></a></li>`,
  )}</ol></nav>`
}
</header>
${sections}
${classesSection(check)}
${recallSection(check)}
${check.notes.length > 0 && html`<section aria-labelledby="notes"><h2 id="notes">What else there is to say</h2><p class="how"><a href="#methods">How this was found</a></p><ul class="findings">${check.notes.map(note => html`<li>${unbroken(note)}</li>`)}</ul></section>`}
<section aria-labelledby="next"><h2 id="next">Next</h2><pre>${next}</pre></section>
${methodsSection(findings)}
<footer>Made by Plinth from pictures that never left this machine. This page loads nothing and runs nothing.</footer>
</main>`
  return page({ title: `${title}: data check`, stylesheet, body })
}

// ── findings ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function findingSection(
  { key, level, title, meaning, next, method, evidence, bars = [] }: Finding,
  pictures: Pictures,
): Promise<Html> {
  return html`<section aria-labelledby="${key}"><p class="level level-${level}">${words[level]}</p>
<h2 id="${key}">${title}</h2>
<p>${withCommands(meaning)}</p>
${bars.length > 0 && barsOf(bars)}
<p class="todo"><b>What to do.</b> ${withCommands(next)}</p>
<p class="how"><a href="#how-${method}">How this was found</a></p>
${await evidenceOf(evidence, method, pictures)}</section>`
}

/** `plinth train` between backticks is set as code. */
const withCommands = (text: string) =>
  html`${unbroken(text)
    .split('`')
    .map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : html`${part}`))}`

const barsOf = (bars: NonNullable<Finding['bars']>) =>
  html`<dl class="shares">${bars.map(({ name, share }) => html`<dt>${name}</dt><dd><svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="6"/><rect class="fill" width="${(100 * share).toFixed(2)}" height="6"/></svg><span>${percent(share, 1)}</span></dd>`)}</dl>`

async function evidenceOf(evidence: readonly Evidence[], method: MethodName, pictures: Pictures): Promise<Html | null> {
  if (evidence.length === 0) return null
  if (method === 'reading') return listOf(evidence)
  const singles = evidence.every(({ paths, show }) => show !== 'others' && (paths.length === 1 || show === 'same'))
  const shown = singles ? 2 * groupsShown : groupsShown
  const groups: Html[] = []
  for (const group of evidence.slice(0, groupsKept)) {
    if (pictures.left() <= 0) break
    groups.push(await groupOf(group, pictures))
  }
  const missing = evidence.length - groups.length
  const list = (some: readonly Html[]) => html`<ol class="groups${singles ? ' singles' : ''}">${some}</ol>`
  return html`${list(groups.slice(0, shown))}
${groups.length > shown && html`<details><summary>The next ${groups.length - shown}</summary>${list(groups.slice(shown))}</details>`}
${missing > 0 && html`<p class="quiet small">… and ${missing.toLocaleString('en-US')} more; plinth data check --json lists all.</p>`}`
}

/** Files that cannot be shown. */
function listOf(evidence: readonly Evidence[]): Html {
  const item = ({ paths, caption }: Evidence) =>
    html`<li><bdi>${paths[0]}</bdi>${caption && html` <span class="quiet">${caption}</span>`}</li>`
  const [first, rest] = [evidence.slice(0, groupsShown), evidence.slice(groupsShown, 500)]
  return html`<ul class="list">${first.map(item)}</ul>
${rest.length > 0 && html`<details><summary>The next ${rest.length}</summary><ul class="list">${rest.map(item)}</ul></details>`}
${evidence.length > 500 && html`<p class="quiet small">… and ${(evidence.length - 500).toLocaleString('en-US')} more; plinth data check --json lists all.</p>`}`
}

async function groupOf({ paths, show, caption }: Evidence, pictures: Pictures): Promise<Html> {
  const said = caption !== undefined && html`<p class="caption">${caption}</p>`
  if (show === 'others') {
    const [first, ...near] = paths
    const neighbours: Html[] = []
    for (const path of near.slice(0, 5))
      neighbours.push(html`<li>${await pictures.show(path)}<p class="path"><bdi>${pictures.labelOf(path)}</bdi></p></li>`)
    return html`<li class="group doubted"><div>${await pictures.card(first!)}</div><div>${said}${neighbours.length > 0 && html`<p class="rest">What looks most like it:</p><ul class="near">${neighbours}</ul>`}</div></li>`
  }
  if (show === 'same') {
    return html`<li class="group">${said}<div class="together alone"><div>${await pictures.show(paths[0]!)}${paths.slice(0, picturesOfGroup).map(path => html`<p class="path"><b><bdi>${pictures.labelOf(path)}</bdi></b> <bdi>${path}</bdi></p>`)}</div></div>${more(paths)}</li>`
  }
  const cards: Html[] = []
  for (const path of paths.slice(0, picturesOfGroup)) cards.push(html`<li>${await pictures.card(path)}</li>`)
  return html`<li class="group">${said}<ul class="together${paths.length === 1 ? ' alone' : ''}">${cards}</ul>${more(paths)}</li>`
}

const more = (paths: readonly string[]) =>
  paths.length > picturesOfGroup &&
  html`<p class="rest">and ${(paths.length - picturesOfGroup).toLocaleString('en-US')} more pictures of this group</p>`

interface Pictures {
  /** The picture alone. */
  show(path: string): Promise<Html>
  /** The picture with its label, side and path. */
  card(path: string): Promise<Html>
  labelOf(path: string): string
  /** How many more pictures the page takes. */
  left(): number
}

function thumbnails({ manifest, thumbnail }: CheckReportInput): Pictures {
  const rowOf = new Map(manifest.rows.map(row => [row.path, row]))
  const made = new Map<string, string | null>()
  let left = mostPictures
  const labelOf = (path: string) => rowOf.get(path)?.labels.join(', ') ?? ''
  const show = async (path: string) => {
    const row = rowOf.get(path)
    if (!row || left <= 0) return html`<div class="picture">no picture</div>`
    left--
    let source = made.get(row.content)
    if (source === undefined) {
      const bytes = await thumbnail(row)
      source = bytes && `data:image/webp;base64,${Buffer.from(bytes).toString('base64')}`
      made.set(row.content, source)
    }
    if (source === null) return html`<div class="picture">no picture any more</div>`
    return html`<div class="picture"><img${Math.max(row.width, row.height) < 64 && html` class="small"`} src="${source}" alt="${`${path}, labelled ${labelOf(path)}`}"></div>`
  }
  return {
    show,
    labelOf,
    left: () => left,
    async card(path) {
      const row = rowOf.get(path)
      return html`${await show(path)}<p class="label"><bdi>${labelOf(path)}</bdi>${row?.side && html` <span class="side">in ${row.side}</span>`}</p><p class="path"><bdi>${path}</bdi></p>`
    },
  }
}

// ── the set as a whole ──────────────────────────────────────────────────────────────────────────────────────────────────────

const classesShown = 40

function classesSection({ perClass }: DataCheck): Html {
  const order = perClass.toSorted((a, b) => b.images - a.images)
  const most = Math.max(1, order[0]?.images ?? 0)
  const table = (
    some: typeof order,
  ) => html`<div class="scroll" tabindex="0" role="region" aria-label="Pictures of each class"><table class="scores balance">
<thead><tr><th scope="col">Class</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">Different</th><th scope="col"><span class="hidden">As a bar</span></th></tr></thead>
<tbody>${some.map(({ label, images, different }) => html`<tr><th scope="row"><bdi>${label}</bdi></th><td class="number">${images.toLocaleString('en-US')}</td><td class="number">${different.toLocaleString('en-US')}</td><td class="bar"><svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="6"/><rect class="interval" width="${((100 * images) / most).toFixed(2)}" height="6"/><rect class="fill" width="${((100 * different) / most).toFixed(2)}" height="6"/></svg></td></tr>`)}</tbody></table></div>`
  return html`<section aria-labelledby="classes"><h2 id="classes">The classes</h2>
<p class="lead">Pictures in each, and how many are left when copies count once. <a class="small" href="#how-classes">How this was counted</a></p>
${table(order.slice(0, classesShown))}
${order.length > classesShown && html`<details><summary>The other ${order.length - classesShown} classes</summary>${table(order.slice(classesShown))}</details>`}</section>`
}

function recallSection({ recallOnOwnEdits }: DataCheck): Html | null {
  if (recallOnOwnEdits.length === 0) return null
  return html`<section aria-labelledby="recall"><h2 id="recall">What would have been found</h2>
<p class="lead">No search finds every copy. To know how good this one is on your pictures, some of them were copied in known ways and searched for. <a class="small" href="#how-copies">How copies are found</a></p>
<div class="scroll" tabindex="0" role="region" aria-label="Copies made and found"><table class="scores recall"><thead><tr><th scope="col">Copied by</th><th scope="col" class="number">Made</th><th scope="col" class="number">Found</th></tr></thead>
<tbody>${recallOnOwnEdits.map(({ edit, made, found }) => html`<tr><th scope="row">${edit}</th><td class="number">${made}</td><td class="number">${found} <span class="quiet">${made > 0 && percent(found / made)}</span></td></tr>`)}</tbody></table></div></section>`
}

function methodsSection(findings: readonly Finding[]): Html {
  const used = new Set<MethodName>([
    ...findings.map(({ method }) => method),
    'classes',
    'copies',
    'exact',
    'quality',
    'shortcuts',
    'reading',
  ])
  const names = (Object.keys(methods) as MethodName[]).filter(name => used.has(name))
  return html`<section aria-labelledby="methods"><h2 id="methods">How each number was computed</h2>
<dl class="facts">${names.map(name => html`<dt id="how-${name}">${methods[name][0]}</dt><dd>${methods[name][1]}</dd>`)}</dl></section>`
}
