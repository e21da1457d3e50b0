/** Predictions for many files, written row by row so that a stopped run goes on where it was. */
import { appendFile, readdir, readFile, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { decodePicture } from '../images/decode.ts'
import { type Classifier, prediction } from '../models/artefact.ts'
import type { FilePrediction } from '../sdk/index.ts'
import { storageFailure } from '../storage/disk.ts'

export interface PredictFilesOptions {
  model: string
  signal: AbortSignal
  /** CSV file to append to; rows that are there already are not computed again. */
  out?: string
  onProgress?(done: number, total: number): void
}

const pictureName = /\.(jpe?g|png|webp|gif|tiff?|avif|bmp)$/i
const header = 'path,label,probability,unknown,probabilities,model,milliseconds,error'
const batch = 16

/** Files as they are named; folders with every picture below them, in order. */
export async function listPictures(paths: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const path of paths) {
    const kind = await stat(path).catch(() => null)
    if (!kind) throw new Failure('source_not_found', { path })
    if (!kind.isDirectory()) {
      found.push(path)
      continue
    }
    const entries = await readdir(path, { recursive: true, withFileTypes: true })
    found.push(
      ...entries
        .filter(entry => entry.isFile() && pictureName.test(entry.name))
        .map(entry => join(entry.parentPath, entry.name))
        .sort(),
    )
  }
  return found
}

/** One prediction a file, in order; a file that cannot be read gets an error instead and stops nothing. */
export async function predictFiles(
  classifier: Classifier,
  paths: readonly string[],
  { model, signal, out, onProgress }: PredictFilesOptions,
): Promise<{ predictions: FilePrediction[]; skipped: number }> {
  const known = out ? await rowsIn(out) : new Set<string>()
  const open = paths.filter(path => !known.has(path))
  const predictions: FilePrediction[] = []
  for (let at = 0; at < open.length; at += batch) {
    if (signal.aborted)
      throw new Failure('interrupted', {
        next: out ? `Run the same command again: it goes on behind the rows in ${out}.` : 'Run the same command again.',
      })
    const began = performance.now()
    const part = open.slice(at, at + batch)
    const decoded = await Promise.all(
      part.map(path =>
        readFile(path)
          .then(bytes => decodePicture(bytes, { formats: 'local' }))
          .catch((error: unknown) => unreadable(error)),
      ),
    )
    const pictures = decoded.filter((picture): picture is Exclude<typeof picture, Failure> => !(picture instanceof Failure))
    const answers = pictures.length ? await classifier.answer(pictures) : []
    let next = 0
    const rows = part.map((path, i): FilePrediction => {
      const picture = decoded[i]!
      if (picture instanceof Failure) return { path, error: picture.toJSON() }
      const { probabilities, distance } = answers[next++]!
      return { path, ...prediction(classifier.metadata, probabilities, distance) }
    })
    predictions.push(...rows)
    if (out) await append(out, rows, model, (performance.now() - began) / part.length)
    onProgress?.(at + part.length, open.length)
  }
  return { predictions, skipped: paths.length - open.length }
}

const unreadable = (error: unknown): Failure =>
  error instanceof Failure ? error : new Failure('image_unreadable', { reason: (error as NodeJS.ErrnoException).code ?? String(error) })

async function append(out: string, rows: readonly FilePrediction[], model: string, milliseconds: number): Promise<void> {
  const lines = rows.map(row =>
    'error' in row
      ? [row.path, '', '', '', '', model, milliseconds.toFixed(1), `${row.error.code}: ${row.error.message}`]
      : [row.path, row.label, row.probability, row.unknown, JSON.stringify(row.probabilities), model, milliseconds.toFixed(1), ''],
  )
  try {
    await appendFile(out, lines.map(cells => `${cells.map(cell).join(',')}\n`).join(''))
  } catch (error) {
    throw storageFailure(error, out)
  }
}

/** RFC 4180; a leading apostrophe keeps a spreadsheet from reading a file name as a formula (OWASP, CSV injection). */
function cell(value: string | number | boolean): string {
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value)
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** Paths of the complete rows of an earlier, stopped run; a torn last line is cut off. */
async function rowsIn(out: string): Promise<Set<string>> {
  const text = await readFile(out, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw storageFailure(error, out)
  })
  if (text === '') {
    await appendFile(out, `${header}\n`).catch((error: unknown) => {
      throw storageFailure(error, out)
    })
    return new Set()
  }
  if (!text.startsWith(`${header}\n`)) throw new Failure('predictions_foreign', { path: out })
  const { rows, complete } = readCsv(text)
  if (complete < text.length) await truncate(out, Buffer.byteLength(text.slice(0, complete)))
  return new Set(rows.slice(1).map(([path = '']) => path.replace(/^'(?=[=+\-@\t\r])/, '')))
}

/** Rows that end in a line break outside quotes, and where the last of them ends. */
function readCsv(text: string): { rows: string[][]; complete: number } {
  const rows: string[][] = []
  let complete = 0
  let row: string[] = []
  let value = ''
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!
    if (quoted) {
      if (c !== '"') value += c
      else if (text[i + 1] === '"') {
        value += '"'
        i++
      } else quoted = false
    } else if (c === '"') quoted = true
    else if (c === ',' || c === '\n') {
      row.push(value)
      value = ''
      if (c === ',') continue
      rows.push(row)
      row = []
      complete = i + 1
    } else value += c
  }
  return { rows, complete }
}
