/**
 * A dataset version as files again: the original bytes under their own names, one folder per class (below train, validation and test where it has sides),
 * and labels.csv. Nothing is ever written over; what a killed export left is completed by the same call.
 */
import { createHash } from 'node:crypto'
import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'
import type { Manifest, ManifestRow } from '../sdk/shapes.ts'
import { isTemporary, storageFailure, temporaryPath } from '../storage/disk.ts'
import { readLayout } from './layout.ts'
import { readList } from './list.ts'
import { sha256 } from './source.ts'

export interface ExportTask {
  manifest: Manifest
  /** A folder that is new, empty, or holds part of this very export. */
  directory: string
  blob(content: string): Promise<Uint8Array>
  /** Every file where it was when it was imported, even where its folder does not say its label. */
  keepPaths?: boolean
  signal?: AbortSignal
  onProgress?(done: number, total: number): void
}

export interface Exported {
  files: number
  /** What was there already, from an earlier call. */
  found: number
  /** Files that have another path than in the dataset. */
  renamed: number
  labels: string
}

/** throws export_folder_taken, blob_missing, blob_damaged, interrupted, and what the disk says */
export async function exportDataset({ manifest, directory, blob, keepPaths = false, signal, onProgress }: ExportTask): Promise<Exported> {
  const paths = placesFor(manifest, keepPaths)
  const list = labelsFile(manifest.rows, paths)
  await refuseOthers(directory, new Set([...paths, list.name]))
  for (const folder of new Set(paths.map(path => dirname(path))))
    await mkdir(join(directory, folder), { recursive: true }).catch(refused(directory))
  let [next, done, found] = [0, 0, 0]
  const worker = async () => {
    while (next < paths.length) {
      signal?.throwIfAborted()
      const at = next++
      const row = manifest.rows[at]!
      const target = join(directory, paths[at]!)
      if (await holds(target, row.content)) found++
      else await place(target, await blob(row.content))
      onProgress?.(++done, paths.length)
    }
  }
  const outcomes = await Promise.allSettled(Array.from({ length: Math.min(8, paths.length) }, worker))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  const labels = join(directory, list.name)
  if (!(await holds(labels, sha256(list.text)))) await place(labels, Buffer.from(list.text))
  return {
    files: paths.length,
    found,
    renamed: paths.filter((path, index) => path !== manifest.rows[index]!.path).length,
    labels: list.name,
  }
}

// ── where each file goes ────────────────────────────────────────────────────────────────────────────────────────────────────

function placesFor({ rows }: Manifest, keepPaths: boolean): string[] {
  const wanted =
    keepPaths || foldersSayIt(rows)
      ? rows.map(row => row.path)
      : rows.map(row => [row.side, ...row.labels.slice(0, 1), nameOf(row.path)].filter(Boolean).join('/'))
  const safe = wanted.map(safePath)
  const taken = new Set(safe.flatMap(foldersOf)) // a made-up name may be that of a folder
  return safe.map((path, index) => {
    const free = taken.has(path) ? withMark(path, rows[index]!.content.slice(0, 8), taken) : path
    taken.add(free)
    return free
  })
}

const foldersOf = (path: string) =>
  path
    .split('/')
    .slice(0, -1)
    .map((_, index, parts) => parts.slice(0, index + 1).join('/'))
const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1)

/** Whether a folder with these paths would be understood as what the rows say. */
function foldersSayIt(rows: readonly ManifestRow[]): boolean {
  const { placed } = readLayout(
    rows.map(({ path }) => ({ path, picture: true })),
    [],
  )
  return (
    placed.length === rows.length &&
    placed.every(
      ({ index, label, side }) => rows[index]!.labels.length === 1 && rows[index]!.labels[0] === label && rows[index]!.side === side,
    )
  )
}

const reserved = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i
const longest = 240 // bytes of UTF-8 in one name; most file systems end at 255
const mostControl = /[\u0000-\u001f\u007f]/g

/** Stays below the folder, whatever the path says; a sound path stays as it is. */
function safePath(path: string): string {
  const windows = process.platform === 'win32'
  const parts = path.split('/').map(part => {
    if (part === '' || part === '.' || part === '..') return '_'
    let safe = part.replaceAll('\0', '_')
    if (windows)
      safe = safe
        .replace(mostControl, '_')
        .replace(/[<>:"|?*\\]/g, '_')
        .replace(/[. ]+$/, '_')
        .replace(reserved, '_$&')
    if (Buffer.byteLength(safe) <= longest) return safe
    const ending = /\.[^.]{1,10}$/.exec(safe)?.[0] ?? ''
    const mark = createHash('sha256').update(part).digest('hex').slice(0, 8)
    return `${Buffer.from(safe)
      .subarray(0, longest - 40)
      .toString('utf8')
      .replace(/\ufffd+$/, '')}~${mark}${ending}`
  })
  return parts.join('/')
}

function withMark(path: string, mark: string, taken: ReadonlySet<string>): string {
  const dot = path.lastIndexOf('.') > path.lastIndexOf('/') ? path.lastIndexOf('.') : path.length
  for (let count = 1; ; count++) {
    const free = `${path.slice(0, dot)}~${mark}${count > 1 ? `-${count}` : ''}${path.slice(dot)}`
    if (!taken.has(free)) return free
  }
}

// ── labels.csv ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Under a name that an import of the folder takes for its list, if the list says exactly what the rows say; else under another one. */
function labelsFile(rows: readonly ManifestRow[], paths: readonly string[]): { name: string; text: string } {
  const lines = rows.map((row, index) => [paths[index]!, row.labels.join('|'), row.group ?? '', row.side ?? ''])
  const text = [['path', 'label', 'group', 'split'], ...lines].map(fields => `${fields.map(csvField).join(',')}\n`).join('')
  return { name: saysTheSame(text, lines) ? 'labels.csv' : 'labels-of-this-export.csv', text }
}

const csvField = (field: string) => (/[",;\r\n|\t]|^\s|\s$/.test(field) ? `"${field.replaceAll('"', '""')}"` : field)

function saysTheSame(text: string, lines: readonly string[][]): boolean {
  try {
    const read = readList(Buffer.from(text), 'labels.csv').rows
    return (
      read.length === lines.length &&
      read.every(({ path, label, group, side }, index) =>
        [path, label, group ?? '', side ?? ''].every((field, at) => field === lines[index]![at]),
      )
    )
  } catch (error) {
    if (error instanceof Failure) return false
    throw error
  }
}

// ── the disk ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const refused = (path: string) => (error: unknown) => {
  throw storageFailure(error, path)
}

/** Whatever is in the folder must be part of this export; pieces that a kill left are taken away. */
async function refuseOthers(directory: string, planned: ReadonlySet<string>): Promise<void> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error.code === 'ENOTDIR'
      ? new Failure('export_folder_taken', { path: directory, file: directory })
      : storageFailure(error, directory)
  })
  for (const entry of entries) {
    if (entry.isDirectory()) continue
    const path = join(entry.parentPath, entry.name).slice(join(directory, '/').length).replaceAll('\\', '/')
    if (entry.isFile() && isTemporary(entry.name)) await rm(join(directory, path), { force: true })
    else if (!planned.has(path)) throw new Failure('export_folder_taken', { path: directory, file: path })
  }
}

/** Whether the file is there with these bytes. throws export_folder_taken where it has others */
async function holds(path: string, digest: string): Promise<boolean> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw storageFailure(error, path)
  })
  if (bytes === null) return false
  if (sha256(bytes) !== digest) throw new Failure('export_folder_taken', { path: dirname(path), file: path })
  return true
}

/** Whole or not there, and never in the place of something else. */
async function place(path: string, bytes: Uint8Array): Promise<void> {
  const part = temporaryPath(path)
  try {
    await writeFile(part, bytes, { flag: 'wx' })
    await link(part, path).catch(async (error: NodeJS.ErrnoException) => {
      if (!['EPERM', 'ENOTSUP', 'ENOSYS', 'EOPNOTSUPP'].includes(error.code ?? '')) throw error
      await rename(part, path) // a file system without links, as on memory cards
    })
  } catch (error) {
    throw storageFailure(error, path)
  } finally {
    await rm(part, { force: true }).catch(() => {})
  }
}
