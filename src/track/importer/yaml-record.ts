/**
 * The small YAML in which MLflow's folder describes things (PyYAML's safe_dump of one record): names with a scalar, or with a map of
 * scalars; long scalars go on in the next lines. Anything else is refused: no anchors, tags, or lists with something in them.
 */
import { damaged } from './source.ts'

export type Scalar = string | number | null
export type YamlRecord = ReadonlyMap<string, Scalar | ReadonlyMap<string, Scalar>>

/** throws import_source_damaged */
export function readRecord(text: string, of: string): YamlRecord {
  const lines = text.split('\n')
  const record = new Map<string, Scalar | Map<string, Scalar>>()
  let at = 0
  while (at < lines.length) {
    if (lines[at]!.trim() === '' || lines[at]!.startsWith('#')) {
      at++
      continue
    }
    const { key, rest } = named(lines[at]!, 0)
    at++
    if (rest === '' && /^ +[^ ]/.test(lines[at] ?? '')) record.set(key, mapBelow())
    else if (rest === '' || rest === '[]' || rest === '{}') {
      while (/^- /.test(lines[at] ?? '')) at++ // lists: runs of old versions have their tags in one, and again as files
      record.set(key, rest === '{}' ? new Map() : null)
    } else record.set(key, scalar(rest, 0))
  }
  return record

  function mapBelow(): Map<string, Scalar> {
    const indent = /^ */.exec(lines[at]!)![0].length
    const map = new Map<string, Scalar>()
    while (at < lines.length && lines[at]!.startsWith(' '.repeat(indent)) && lines[at]![indent] !== ' ') {
      const line = lines[at]!.slice(indent)
      if (line.startsWith('? ')) {
        // a name that is too long for its line
        at++
        const key = scalar(line.slice(2), indent)
        const value = lines[at]?.slice(indent) ?? ''
        if (!/^:( |$)/.test(value)) throw damaged(`${of} has a name without a value`)
        at++
        map.set(String(key), scalar(value.slice(2), indent))
        continue
      }
      const { key, rest } = named(lines[at]!, indent)
      at++
      map.set(key, scalar(rest, indent))
    }
    return map
  }

  /** `name: rest`, where the name may be quoted. */
  function named(line: string, indent: number): { key: string; rest: string } {
    const [, single, double, plain, rest] =
      /^(?:'((?:[^']|'')*)'|"((?:[^"\\]|\\.)*)"|((?![-?:] )[^\s'"#&*!|>%@`[\]{},](?:(?! #).)*?)):(?: (.*))?$/s.exec(line.slice(indent)) ??
      []
    if (line.slice(0, indent).trim() !== '' || (single ?? double ?? plain) === undefined)
      throw damaged(`${of} has a line that is no name and value`)
    return {
      key: single !== undefined ? single.replaceAll("''", "'") : double !== undefined ? unescaped(double) : plain!,
      rest: rest ?? '',
    }
  }

  /** With the lines that it goes on in, which stand further to the right. */
  function scalar(first: string, indent: number): Scalar {
    const quote = first[0]
    if (quote === "'" || quote === '"') return quoted(first, quote)
    const block = /^([|>])([+-]?)\d?$/.exec(first)
    const more: string[] = []
    while (at < lines.length && (lines[at]!.trim() === '' || lines[at]!.startsWith(' '.repeat(indent + 1)))) more.push(lines[at++]!)
    while (more.at(-1)?.trim() === '') {
      more.pop()
      at--
    }
    if (block) return blockOf(more, block[1] === '|', block[2]!)
    if (/^[&*!%@`[\]{},?]/.test(first) || /^- /.test(first)) throw damaged(`${of} has a value that is no plain text`)
    return plain(folded([first, ...more]))
  }

  function quoted(first: string, quote: string): string {
    const parts = [first.slice(1)]
    const ends = (part: string) => (quote === "'" ? /^(?:[^']|'')*'\s*$/s : /^(?:[^"\\]|\\.)*"\s*$/s).test(part)
    // a line that ends in a backslash goes on without a space
    const joined = () => (quote === '"' ? foldedDouble(parts) : folded(parts))
    for (let text = joined(); ; text = joined()) {
      if (ends(text)) {
        const inner = text.replace(/\s*$/, '').slice(0, -1)
        return quote === "'" ? inner.replaceAll("''", "'") : unescaped(inner)
      }
      if (at >= lines.length) throw damaged(`${of} has a text that does not end`)
      parts.push(lines[at++]!)
    }
  }

  function unescaped(text: string): string {
    const letters: Record<string, string> = {
      n: '\n',
      t: '\t',
      r: '\r',
      '0': '',
      b: '\b',
      a: '\x07',
      v: '\v',
      f: '\f',
      e: '\x1b',
      _: '\u00a0',
      N: '\u0085',
      L: '\u2028',
      P: '\u2029',
    }
    return text.replace(
      /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))/gs,
      (_, x?: string, u?: string, long?: string, letter?: string) => {
        const hex = x ?? u ?? long
        if (hex === undefined) return letters[letter!] ?? letter!
        const code = Number.parseInt(hex, 16)
        if (code > 0x10ffff) throw damaged(`${of} has a character that is none`)
        return String.fromCodePoint(code)
      },
    )
  }
}

/** A line break is a space; each empty line is a break. */
function folded(lines: readonly string[]): string {
  let text = lines[0]!
  let empty = 0
  for (const line of lines.slice(1)) {
    const trimmed = line.trim()
    if (trimmed === '') empty++
    else {
      text = text.trimEnd() + (empty > 0 ? '\n'.repeat(empty) : ' ') + trimmed
      empty = 0
    }
  }
  return text
}
function foldedDouble(lines: readonly string[]): string {
  let text = lines[0]!
  let empty = 0
  for (const line of lines.slice(1)) {
    const trimmed = line.replace(/^\s+/, '')
    if (trimmed === '') empty++
    else {
      const goesOn = /(?:^|[^\\])(?:\\\\)*\\$/.test(text)
      text = goesOn ? text.slice(0, -1) + trimmed : text.trimEnd() + (empty > 0 ? '\n'.repeat(empty) : ' ') + trimmed
      empty = 0
    }
  }
  return text
}

function blockOf(lines: readonly string[], literal: boolean, chomp: string): string {
  const indent = Math.min(...lines.filter(line => line.trim() !== '').map(line => /^ */.exec(line)![0].length))
  const cut = lines.map(line => line.slice(Number.isFinite(indent) ? indent : 0))
  return (literal ? cut.join('\n') : folded(cut)) + (chomp === '-' ? '' : '\n')
}

function plain(text: string): Scalar {
  const trimmed = text.replace(/\s+#.*$/s, '').trim()
  if (/^(~|null|Null|NULL)$/.test(trimmed)) return null
  return /^-?(0|[1-9]\d{0,15})$/.test(trimmed) ? Number(trimmed) : trimmed
}
