/**
 * A list of pictures with their labels: CSV (commas, semicolons, tabs or bars) or JSON lines, in UTF-8 or the UTF-16 of spreadsheets.
 * Pure: bytes in, rows with their line numbers out. What would shift a label or a side without a word (a comma too many, a word for a split
 * that is not known, two labels for one picture) refuses the whole list and names the lines; what concerns one picture is left to its row.
 */
import { type CsvError, parse } from 'csv-parse/sync'
import { Failure } from '../failure.ts'
import type { Side } from '../sdk/shapes.ts'
import { pictureNames } from './ignore.ts'
import { sideOf } from './layout.ts'
import { plainName } from './source.ts'

/** One line, with the first line it stands on (from 1). */
export type ListRow = {
  line: number
  /** As it is written. */
  path: string
  /** '' where it has none. */
  label: string
  group: string | null
  side: Side | null
}
export type PictureList = {
  rows: ListRow[]
  /** Which column was taken for what, in a sentence. */
  understood: string
}

const listNames = /\.(csv|tsv|jsonl|ndjson)$/i
export const isListName = (name: string): boolean => listNames.test(name)

/** In a folder or zip only these names, at the top, are lists; the first of them counts. */
export const listsInFolders = ['manifest', 'labels', 'metadata', 'annotations'].flatMap(stem =>
  ['.csv', '.jsonl', '.tsv', '.ndjson'].map(ending => stem + ending),
)

/** Names of columns, in any case; the first that is there counts. */
const columnNames = {
  path: ['path', 'file', 'filename', 'file_name', 'filepath', 'file_path', 'image', 'image_path', 'imagepath', 'picture'],
  label: ['label', 'class', 'category', 'classname', 'class_name', 'label_name', 'species'],
  group: ['group', 'group_id', 'groupid'],
  split: ['split', 'side', 'subset', 'partition'],
} as const
type Field = keyof typeof columnNames
const fields = Object.keys(columnNames) as Field[]

/** `name`: of the file, for messages. Throws list_unreadable, list_columns, list_ragged, list_split_unknown, list_contradiction. */
export function readList(bytes: Uint8Array, name: string): PictureList {
  const text = decoded(bytes, name)
  const { records, understood } = /\.(jsonl|ndjson)$/i.test(name) ? readJsonLines(text, name) : readCsv(text, name)
  if (records.length === 0) throw new Failure('list_unreadable', { list: name, problem: 'it names no picture' })
  return { rows: placedOnSides(withoutRepeats(records, name), name), understood }
}

/** `3, 7, 9 and 12 more`. */
export function linesOf(lines: readonly number[]): string {
  const shown = lines.slice(0, 5).join(', ')
  return lines.length > 5 ? `${shown} and ${lines.length - 5} more` : shown.replace(/, (\d+)$/, ' and $1')
}

// ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function decoded(bytes: Uint8Array, list: string): string {
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : bytes[0] === 0xfe && bytes[1] === 0xff ? 'utf-16be' : 'utf-8'
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes) // without the byte order mark
    if (text.includes('\0')) throw new Failure('list_unreadable', { list, problem: 'it holds zero bytes, so it is no text' })
    return text
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure('list_unreadable', { list, problem: `it is not ${encoding.toUpperCase()}` }, { cause: error })
  }
}

/** Before repeats are joined and splits are read. */
type Written = { line: number; path: string; label: string; group: string; split: string }

// ── CSV ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type CsvRecord = { line: number; fields: string[] }

function readCsv(text: string, list: string): { records: Written[]; understood: string } {
  const announced = /^sep=(.)\r?\n/i.exec(text) // Excel's own way to say it
  const body = announced ? text.slice(announced[0].length) : text
  const delimiter = announced?.[1] ?? delimiterOf(body)
  const [first, ...others] = parseCsv(body, delimiter, announced ? 1 : 0, list)
  if (!first) throw new Failure('list_unreadable', { list, problem: 'it is empty' })
  const { columns, headed } = columnsOf(first.fields, list)
  const rows = headed ? others : [first, ...others]
  refuseRagged(rows, first.fields.length, columns, list)
  const at = ({ fields }: CsvRecord, field: Field) => (columns[field] === undefined ? '' : (fields[columns[field]] ?? '').trim())
  return {
    records: rows.map(row => ({
      line: row.line,
      path: at(row, 'path'),
      label: at(row, 'label'),
      group: at(row, 'group'),
      split: at(row, 'split'),
    })),
    understood: headed ? said(columns, first.fields) : 'it has no line of column names: taken for path, label, group, split, in this order',
  }
}

/** The character that cuts the first line into most parts, outside of quotes. */
function delimiterOf(text: string): string {
  const line = /^(?:"(?:[^"]|"")*"|[^"\r\n])*/.exec(text.trimStart())![0].replace(/"(?:[^"]|"")*"/g, '')
  const counts = [',', ';', '\t', '|'].map(each => ({ each, count: line.split(each).length }))
  return counts.reduce((best, one) => (one.count > best.count ? one : best)).each
}

const longestRecord = 65_536 // characters; a quote that is never closed is found after so many

function parseCsv(text: string, delimiter: string, skipped: number, list: string): CsvRecord[] {
  let next = skipped + 1 // the line that the next record begins in, or an empty one before it
  let twice = 0 // the library counts a line break of two characters within quotes as two
  const onRecord = (fields: string[], { lines }: { lines: number }): CsvRecord | null => {
    const characters = count(fields, /[\r\n]/g)
    const line = lines + skipped - twice - characters
    twice += characters - count(fields, /\r\n|\n|\r/g)
    next = lines + skipped - twice + 1
    return fields.every(field => field.trim() === '') ? null : { line, fields } // `,,,` is what spreadsheets make of an empty line
  }
  try {
    return parse(text, {
      delimiter,
      trim: true,
      relax_column_count: true,
      skip_empty_lines: true,
      record_delimiter: ['\r\n', '\n', '\r'],
      max_record_size: longestRecord,
      on_record: onRecord as never,
    }) as unknown as CsvRecord[]
  } catch (error) {
    const { code } = error as CsvError
    const problem =
      code === 'CSV_QUOTE_NOT_CLOSED' || code === 'CSV_MAX_RECORD_SIZE'
        ? `a double quote that opens in line ${next} or soon after is never closed`
        : `in line ${next} or soon after a double quote stands where none may be`
    throw new Failure('list_unreadable', { list, problem }, { cause: error })
  }
}

const count = (fields: readonly string[], pattern: RegExp) => fields.reduce((sum, field) => sum + (field.match(pattern)?.length ?? 0), 0)

type Columns = Partial<Record<Field, number>> & { path: number; label: number }

function columnsOf(first: readonly string[], list: string): { columns: Columns; headed: boolean } {
  const names = first.map(name => name.trim().toLowerCase())
  const found: Partial<Record<Field, number>> = {}
  for (const field of fields) {
    const name = columnNames[field].find(each => names.includes(each))
    if (name === undefined) continue
    if (names.indexOf(name) !== names.lastIndexOf(name)) {
      throw new Failure('list_unreadable', { list, problem: `two of its columns are called ${shown(name)}` })
    }
    found[field] = names.indexOf(name)
  }
  const { path, label } = found
  if (path !== undefined && label !== undefined) return { columns: { ...found, path, label }, headed: true }
  const others = names.map((_, index) => index).filter(index => !Object.values(found).includes(index))
  if (path !== undefined && others.length === 1) return { columns: { ...found, path, label: others[0]! }, headed: true } // filename,breed
  if (path === undefined && pictureNames.test(first[0]!.trim()) && first.length >= 2 && first.length <= 4) {
    const places = Object.fromEntries(fields.slice(0, first.length).map((field, index) => [field, index]))
    return { columns: { path: 0, label: 1, ...places }, headed: false }
  }
  const missing = path === undefined && label === undefined ? 'path and label' : path === undefined ? 'path' : 'label'
  throw new Failure('list_columns', { list, missing, columns: shown(first.join(', ')) })
}

function said(columns: Partial<Record<Field, number>>, header: readonly string[]): string {
  const parts = fields.flatMap(field => {
    const at = columns[field]
    return at === undefined ? [] : [header[at]!.trim().toLowerCase() === field ? field : `${field} from "${shown(header[at]!.trim())}"`]
  })
  return `columns ${parts.join(', ')}`
}

/** A name with a comma in it and no quotes around it moves the label: nobody would notice. Missing optional fields at the end are fine. */
function refuseRagged(rows: readonly CsvRecord[], width: number, { path, label }: Columns, list: string): void {
  const ragged = rows.filter(
    ({ fields }) => fields.length <= Math.max(path, label) || fields.slice(width).some(field => field.trim() !== ''),
  )
  if (ragged.length > 0) throw new Failure('list_ragged', { list, lines: linesOf(ragged.map(row => row.line)), fields: width })
}

// ── JSON lines ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

function readJsonLines(text: string, list: string): { records: Written[]; understood: string } {
  const used = new Set<string>()
  const records: Written[] = []
  const wrong = (line: number, problem: string) => new Failure('list_unreadable', { list, problem: `line ${line} ${problem}` })
  for (const [index, written] of text.split(/\r\n|\n|\r/).entries()) {
    if (written.trim() === '') continue
    const line = index + 1
    const row = parsedObject(written)
    if (row === null) throw wrong(line, 'is no JSON object')
    const keys = new Map(Object.keys(row).map(key => [key.toLowerCase(), key]))
    const value = (field: Field): string => {
      const name = columnNames[field].find(each => keys.has(each))
      if (name === undefined) return ''
      used.add(name === field ? field : `${field} from "${name}"`)
      const text = plainText(row[keys.get(name)!])
      if (text === null) throw wrong(line, `holds more than one word as its ${field}; one label for each picture is what is learned`)
      return text
    }
    const record = { line, path: value('path'), label: value('label'), group: value('group'), split: value('split') }
    if (record.path === '') throw wrong(line, `names no picture: one of its keys must be ${columnNames.path.slice(0, 4).join(', ')}`)
    records.push(record)
  }
  return { records, understood: `keys ${[...used].join(', ')}` }
}

function parsedObject(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

/** Numbers and booleans are labels too; a list of one word is that word. null: more than a word. */
function plainText(value: unknown): string | null {
  if (value === null || value === undefined) return ''
  if (Array.isArray(value)) return value.length === 1 ? plainText(value[0]) : value.length === 0 ? '' : null
  return typeof value === 'object' ? null : String(value).trim()
}

// ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A line that says again what another said is dropped; one that says something else about the same picture refuses the list. */
function withoutRepeats(records: readonly Written[], list: string): Written[] {
  const byPath = Map.groupBy(
    records.filter(({ path }) => path !== ''),
    ({ path }) => path.normalize('NFC').replace(/^(\.\/)+/, ''),
  )
  const nameless = records.filter(({ path }) => path === '')
  if (nameless.length > 0) {
    const lines = linesOf(nameless.map(({ line }) => line))
    throw new Failure('list_unreadable', { list, problem: `the path is missing in line ${lines}` })
  }
  const kept: Written[] = []
  for (const same of byPath.values()) {
    const first = same[0]!
    const other = same.find(each => each.label !== first.label || each.group !== first.group || each.split !== first.split)
    if (other) {
      throw new Failure('list_contradiction', { list, path: shown(first.path), lines: linesOf([first.line, other.line]) })
    }
    kept.push(first)
  }
  return kept
}

/** Where some rows name a side, those that name none are to be learned from. */
function placedOnSides(records: readonly Written[], list: string): ListRow[] {
  const unknown = records.filter(({ split }) => split !== '' && sideOf(split) === undefined)
  if (unknown.length > 0) {
    throw new Failure('list_split_unknown', { list, word: shown(unknown[0]!.split), lines: linesOf(unknown.map(({ line }) => line)) })
  }
  const sided = records.some(({ split }) => split !== '')
  return records.map(({ line, path, label, group, split }) => ({
    line,
    path,
    label: label.normalize('NFC'),
    group: group === '' ? null : group.normalize('NFC'),
    side: split === '' ? (sided ? 'train' : null) : sideOf(split)!,
  }))
}

/** Foreign text in a message: plain and short. */
export function shown(text: string): string {
  const plain = plainName(text)
  return plain.length > 80 ? `${plain.slice(0, 77)}…` : plain
}
