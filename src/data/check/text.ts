/** The check for a terminal: what is wrong first, each with a few examples and the next step; the one next command last. */
import type { DataCheck } from '../../sdk/shapes.ts'
import { unbroken, visible } from '../html.ts'
import type { Evidence, Finding, Level } from './findings.ts'
import { counted } from './findings.ts'

export interface TextOptions {
  width: number
  /** How the labels were told, to follow behind the number of classes. */
  understood?: string | null
  /** Colour, where the terminal wants it. */
  style(format: 'bold' | 'red' | 'yellow' | 'dim', text: string): string
}

const marks: Record<Level, string> = { wrong: '✗', look: '?', known: '·' }
const colours = { wrong: 'red', look: 'yellow', known: 'dim' } as const
const examples = 3

/** Backticks are for the page. */
const plain = (text: string) => visible(text.replaceAll('`', ''))

export function checkText(check: DataCheck, findings: readonly Finding[], { width, understood, style }: TextOptions): string {
  const blocks = findings.map(({ level, title, meaning, next, evidence }) => {
    const head = wrapped(`${marks[level]} ${visible(title)}`, width, 2).map((line, index) =>
      index === 0 ? style(colours[level], line.slice(0, 1)) + style('bold', line.slice(1)) : style('bold', line),
    )
    const shown = evidence.slice(0, examples).map(each => `    ${described(each)}`)
    const more = evidence.length > examples ? [`    … and ${(evidence.length - examples).toLocaleString('en-US')} more`] : []
    const said = level === 'wrong' ? wrapped(`  ${plain(meaning)}`, width, 2) : []
    const then = level === 'known' ? [] : wrapped(`  → ${plain(next)}`, width, 4)
    return [...head, ...[...shown, ...more].map(line => style('dim', line)), ...said, ...then].join('\n')
  })
  const [wrong, look] = (['wrong', 'look'] as const).map(level => findings.filter(finding => finding.level === level).length) as [
    number,
    number,
  ]
  const verdict =
    wrong + look === 0
      ? 'Nothing wrong was found.'
      : [
          wrong > 0 && counted(wrong, 'thing to put right', 'things to put right'),
          look > 0 && counted(look, 'thing to look at', 'things to look at'),
        ]
          .filter(Boolean)
          .join(', ')
  const notes = [...check.notes, ...recallNote(check)].flatMap(note => wrapped(`· ${visible(note)}`, width, 2))
  return [
    wrapped(
      `${counted(check.images, 'picture')} in ${counted(check.classes, 'class', 'classes')}${understood ? `, ${visible(understood)}` : ''}`,
      width,
      2,
    ).join('\n'),
    style('bold', verdict),
    ...blocks,
    ...(notes.length > 0 ? [notes.join('\n')] : []),
  ].join('\n\n')
}

/** How good the search for copies was on these very pictures, and what it is worst at. */
function recallNote({ recallOnOwnEdits: edits }: DataCheck): string[] {
  const made = edits.reduce((sum, edit) => sum + edit.made, 0)
  if (made === 0) return []
  const found = edits.reduce((sum, edit) => sum + edit.found, 0)
  const worst = edits
    .filter(edit => edit.made > 0)
    .reduce((least, edit) => (edit.found / edit.made < least.found / least.made ? edit : least))
  const fewest = worst.found < worst.made ? `; of “${worst.edit}” ${worst.found} of ${worst.made}` : ''
  return [
    `Of ${made.toLocaleString('en-US')} copies made of your own pictures to try the search, ${found.toLocaleString('en-US')} were found${fewest}.`,
  ]
}

function described({ paths: all, show, caption }: Evidence): string {
  const paths = show === 'others' ? all.slice(0, 1) : all
  const names = paths
    .slice(0, 4)
    .map(visible)
    .join(show === 'kin' ? ', ' : '  =  ')
  return `${names}${paths.length > 4 ? `  and ${paths.length - 4} more` : ''}${caption ? `  (${visible(caption)})` : ''}`
}

/** Lines of at most `width` columns, all but the first indented. Names longer than that stay whole. */
function wrapped(text: string, width: number, indent: number): string[] {
  const lines: string[] = []
  const lead = text.match(/^ */)![0]
  let line = ''
  for (const word of unbroken(text).trim().split(' ')) {
    if (line !== '' && lead.length + line.length + 1 + word.length > width) {
      lines.push(lead + line)
      line = ' '.repeat(Math.max(0, indent - lead.length)) + word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, lead + line]
}
