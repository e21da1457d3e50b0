/** Small parts that the sections of a page share. */
import { type Html, html } from '../../data/html.ts'
import { type Method, methods } from '../methods.ts'

/** A number, or whatever is given, as a link to how it was computed. */
export const how = (method: Method, content: Html | string): Html => html`<a class="how" href="#how-${method}">${content}</a>`

/** The list that `how` links to. */
export function methodsSection(used: readonly Method[]): Html {
  return html`<section aria-labelledby="methods"><h2 id="methods">How each number was computed</h2>
<dl class="facts">${used.map(key => html`<dt id="how-${key}">${methods[key][0]}</dt><dd>${methods[key][1]}</dd>`)}</dl></section>`
}

export type PictureOf = (path: string) => Promise<string | null>

/** Whatever is no inline picture is not shown. */
export async function thumbnail(pictures: PictureOf, path: string, description: string): Promise<Html> {
  // one missing picture must not cost the report of a whole training
  const source = await pictures(path).catch(() => null)
  return source === null ? nothing : shown(source, description)
}

export function shown(source: string, description: string): Html {
  if (!/^data:image\/(png|jpeg|webp|gif|avif);base64,[A-Za-z0-9+/=]+$/.test(source)) return nothing
  return html`<div class="picture"><img src="${source}" alt="${description}"></div>`
}
const nothing = html`<div class="picture">no picture</div>`

/** Shown at once; the others go into a fold. */
export function folded(items: readonly Html[], most: number, list: (items: readonly Html[]) => Html): Html {
  return html`${list(items.slice(0, most))}
${items.length > most && html`<details><summary>The next ${items.length - most}</summary>${list(items.slice(most))}</details>`}`
}

export const scrolling = (label: string, content: Html): Html =>
  html`<div class="scroll" tabindex="0" role="region" aria-label="${label}">${content}</div>`

const plurals: Record<string, string> = { class: 'classes' }
export const counted = (n: number, noun: string): string => `${n.toLocaleString('en')} ${n === 1 ? noun : (plurals[noun] ?? `${noun}s`)}`
