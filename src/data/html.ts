/** HTML that cannot be broken by what is put into it: every value is escaped unless it was made here. */
import { createHash } from 'node:crypto'

export interface Html {
  readonly [markup]: string
}
const markup = Symbol('markup')
export type HtmlValue = string | number | Html | readonly Html[] | null | undefined | false

/** Tagged template: html`<b>${anything}</b>`. Strings are escaped, also inside (quoted) attributes; null, undefined and false are nothing. */
export function html(parts: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  return { [markup]: String.raw({ raw: parts }, ...values.map(written)) }
}
export const markupOf = (part: Html): string => part[markup]

function written(value: HtmlValue): string {
  if (value === null || value === undefined || value === false) return ''
  if (typeof value === 'object') return Array.isArray(value) ? value.map(markupOf).join('') : markupOf(value as Html)
  return escaped(visible(String(value)))
}

/** A whole page that loads nothing and runs nothing: its content security policy says so to the browser. */
export function page({ title, stylesheet, body }: { title: string; stylesheet: string; body: Html }): string {
  const styleHash = createHash('sha256').update(stylesheet).digest('base64')
  const policy = `default-src 'none'; img-src data:; style-src 'sha256-${styleHash}'; base-uri 'none'; form-action 'none'`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
${markupOf(html`<title>${title} · Plinth</title>`)}
<style>${stylesheet}</style>
</head>
<body>${markupOf(body)}
</body>
</html>
`
}

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
const escaped = (text: string) => text.replace(/[&<>"']/g, character => entities[character]!)

/**
 * Makes what cannot be seen visible: a file name may hold line breaks, or marks that turn the reading order around ("gpj.exe" for "exe.jpg").
 * Joiners stay: emoji and several scripts need them.
 */
export function visible(text: string): string {
  return text.toWellFormed().replace(/(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, character => {
    const code = character.codePointAt(0)!
    // Unicode has a picture for each of the old control characters: ␀ to ␟
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `⟨U+${code.toString(16).toUpperCase().padStart(4, '0')}⟩`
  })
}

/** Keeps a number and its unit on one line. For our own sentences: names stay as they are. */
export const unbroken = (sentence: string): string =>
  sentence.replace(/(\d) (%|points)/g, '$1\u00a0$2').replace(/p ([=<]) (?=\d)/g, 'p\u00a0$1\u00a0')
