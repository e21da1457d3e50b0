/** Columns of text that line up, whatever alphabet the names are in. */
import { cut, displayWidth, printable } from './text.ts'

export type Column = string | { title: string; align: 'right' }

interface Layout {
  /** Columns of the terminal; undefined: as wide as it needs. */
  width?: number | undefined
  bold?: (text: string) => string
}

export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  { width, bold = text => text }: Layout = {},
): string {
  const titles = columns.map(column => (typeof column === 'string' ? column : column.title))
  const right = columns.map(column => typeof column !== 'string')
  const cells = rows.map(row => titles.map((_, i) => printable((row[i] ?? '').replaceAll('\n', ' '))))
  const widths = fitWidths(
    titles.map((title, i) => Math.max(displayWidth(title), ...cells.map(row => displayWidth(row[i]!)))),
    titles.map(displayWidth),
    width,
  )
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => pad(cut(cell, widths[i]!), widths[i]!, right[i]!))
      .join('  ')
      .trimEnd()
  return [bold(line(titles)), ...cells.map(line)].join('\n')
}

/** Takes from the widest column, again and again, until the row fits; no column gets narrower than its title. */
function fitWidths(wanted: readonly number[], least: readonly number[], width: number | undefined): number[] {
  const widths = [...wanted]
  const total = () => widths.reduce((sum, each) => sum + each, 2 * (widths.length - 1))
  while (width !== undefined && total() > width) {
    const widest = widths.reduce((best, each, i) => (each > Math.max(least[i]!, 8) && each > (widths[best] ?? 0) ? i : best), -1)
    if (widest < 0) break
    widths[widest]!--
  }
  return widths
}

const pad = (text: string, width: number, right: boolean): string => {
  const space = ' '.repeat(Math.max(0, width - displayWidth(text)))
  return right ? space + text : text + space
}
