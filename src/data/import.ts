/** From a folder or zip of somebody's pictures to a manifest: every file decoded once, copied by content, described, or named with the reason why not. */
import { availableParallelism } from 'node:os'
import { Failure } from '../failure.ts'
import { formatOf } from '../images/format.ts'
import { createRoom } from '../images/room.ts'
import type { Manifest, ManifestRow, Unreadable } from '../sdk/shapes.ts'
import type { Facts, PictureFacts } from './facts.ts'
import { groupsBy, joinGroups } from './groups.ts'
import { pictureNames } from './ignore.ts'
import { type Layout, type Placed, readLayout } from './layout.ts'
import { listedLayout } from './listed.ts'
import { type Lookers, openLookers } from './lookers.ts'
import { openSource } from './open-source.ts'
import { byCodePoint, checkStopped, type Ignored, plainName, type Source, type SourceFile, sha256 } from './source.ts'

export type ImportOptions = {
  /** Where the files go, named by their sha256; null: they are only looked at. */
  blobs: { put(bytes: Uint8Array): Promise<string> } | null
  /** What is known of these very files is not found out again. */
  facts?: Pick<Facts, 'get' | 'put'>
  /** Pictures looked at so far, and all there are. */
  onProgress?: (progress: { done: number; total: number }) => void
  signal?: AbortSignal
  /** How the labels were found, before the pictures are read; see `describeImport`. */
  onUnderstood?: (text: string) => void
  /** Pictures in whose path this finds the same text (its first group, else all that it matches) stay on one side of every split. */
  groupBy?: RegExp
  /** `trainable` (the default) refuses what no classifier can be made of: one class, or a class with fewer than three different pictures. */
  accept?: 'trainable' | 'anything'
}

/**
 * `source`: a folder or a .zip. The same pictures under the same names give the same manifest, wherever they lie and in whatever order
 * the disk lists them. Throws source_…, archive_…, no_pictures, no_classes, nothing_readable, one_class, class_too_small, interrupted.
 */
export async function importPictures(source: string, options: ImportOptions): Promise<Manifest> {
  const opened = await openSource(source, options.signal)
  try {
    const candidates = await tellPictures(opened, options.signal)
    const { layout: listed, passedOver, failure } = await listedLayout(opened, candidates)
    const layout = listed ?? readLayout(candidates, opened.folders)
    if (layout.placed.length === 0 && failure) throw failure
    refuseWithoutClasses(source, layout)
    // a zip of a folder is the same dataset as the folder; a folder's paths are those its owner sees
    const strip = opened.archive ? layout.wrapper.length : 0
    options.onUnderstood?.(layout.understood)
    const paths = layout.placed.map(({ index }) => opened.files[index]!.path.slice(strip))
    const names = new Map(options.groupBy && groupsBy(options.groupBy, paths).map((name, row) => [paths[row]!, name]))
    const { rows, unreadable } = await readPictures(opened.files, layout.placed, strip, options)
    const missing = layout.unreadable.map(each => ({ ...each, path: each.path.slice(strip) }))
    const manifest = assemble(
      rows,
      [...unreadable, ...missing].sort((a, b) => byCodePoint(a.path, b.path)),
      [...opened.ignored, ...reworded(layout.ignored, passedOver)],
      names,
    )
    if (options.accept !== 'anything') refuseUntrainable(manifest, layout.placed)
    return manifest
  } finally {
    await opened.close()
  }
}

/** 32 hex digits over what matters for training: classes and rows. What was left out does not change a dataset. */
export function manifestDigest(manifest: Manifest): string {
  return sha256(canonical({ classes: manifest.classes, rows: manifest.rows })).slice(0, 32)
}

/** JSON with sorted keys and no spaces. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, inner]) => `${JSON.stringify(key)}:${canonical(inner)}`).join(',')}}`
}

/** What was understood, what is left out and why, in lines to print; `understood` is what `onUnderstood` was told. */
export function describeImport(manifest: Manifest, understood?: string): string[] {
  const { classes, rows, unreadable, ignored, exactDuplicates, conflicts } = manifest
  const sides = [...new Set(rows.map(row => row.side))].filter(side => side !== null)
  const said = understood ?? (sides.length > 0 ? `in your own folders for ${sides.join(', ')}` : 'one folder per class')
  const copies = exactDuplicates.reduce((sum, group) => sum + group.length - 1, 0)
  return [
    `${counted(rows.length, 'picture')} in ${counted(classes.length, 'class', 'classes')}, ${said}`,
    ...named(
      unreadable.map(({ path, reason }) => `${path}: ${reason}`),
      `${counted(unreadable.length, 'file')} could not be read and ${unreadable.length === 1 ? 'is' : 'are'} left out:`,
    ),
    ...named(
      exactDuplicates.map(group => group.join(' = ')),
      `${counted(copies, 'exact copy', 'exact copies')} of other pictures, kept on one side of the split:`,
    ),
    ...named(
      conflicts.map(group => group.join(', ')),
      `${counted(conflicts.length, 'picture')} with different labels, of which at most one is right:`,
    ),
    ...named(
      ignored
        .toSorted((a, b) => Number(expected.test(a.reason)) - Number(expected.test(b.reason)))
        .map(({ path, reason }) => `${path}: ${reason}`),
      `left out on purpose: ${counted(ignored.length, 'file or folder', 'files and folders')}:`,
    ),
  ]
}

const counted = (count: number, one: string, many = `${one}s`) => `${count.toLocaleString('en-US')} ${count === 1 ? one : many}`

/** What every folder holds is told last. */
const expected = /^(hidden|file of the system|folder of a tool|not a picture)/

const namedOneByOne = 5
function named(each: readonly string[], title: string): string[] {
  if (each.length === 0) return []
  const more = each.length - namedOneByOne
  return [
    title,
    ...each.slice(0, namedOneByOne).map(text => `  ${plainName(text)}`),
    ...(more > 0 ? [`  … and ${more.toLocaleString('en-US')} more (--json lists all)`] : []),
  ]
}

// ── which files are pictures ────────────────────────────────────────────────────────────────────────────────────────────────

async function tellPictures(source: Source, signal: AbortSignal | undefined) {
  const told: { path: string; picture: boolean }[] = []
  for (const file of source.files) {
    checkStopped(signal)
    const picture = pictureNames.test(file.path) || (file.size > 0 && formatOf(await file.head().catch(() => Buffer.alloc(1))) !== null)
    told.push({ path: file.path, picture })
  }
  return told
}

/** What a table in the folder was passed over for says more than "not a picture". */
function reworded(ignored: readonly Ignored[], passedOver: readonly Ignored[]): Ignored[] {
  const paths = new Set(passedOver.map(({ path }) => path))
  return [...ignored.filter(({ path }) => !paths.has(path)), ...passedOver]
}

function refuseWithoutClasses(path: string, { placed, unlabelled }: Layout): void {
  if (placed.length > 0) return
  if (unlabelled > 0) throw new Failure('no_classes', { path, pictures: unlabelled })
  throw new Failure('no_pictures', { path })
}

// ── reading them ────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Read = { rows: ManifestRow[]; unreadable: Unreadable[] }

async function readPictures(files: readonly SourceFile[], placed: readonly Placed[], strip: number, options: ImportOptions): Promise<Read> {
  const rows: ManifestRow[] = []
  const unreadable: Unreadable[] = []
  let next = 0
  let done = 0
  let broken = false // another worker failed for good
  const lookers = openLookers(placed.length)
  const worker = async () => {
    while (next < placed.length && !broken) {
      checkStopped(options.signal)
      const { index, label, side, group } = placed[next++]!
      const file = files[index]!
      const path = file.path.slice(strip)
      try {
        rows.push({ ...(await readPicture(file, options, lookers)), path, labels: [label], group, side })
      } catch (error) {
        const reason = pictureProblem(error)
        if (reason === null) throw error
        unreadable.push({ path, ...reason })
      }
      options.onProgress?.({ done: ++done, total: placed.length })
    }
  }
  const parallel = Math.min(128, 3 * availableParallelism()) // some wait for the disk while others decode
  const outcomes = await Promise.allSettled(
    Array.from({ length: parallel }, () =>
      worker().catch(error => {
        broken = true
        throw error
      }),
    ),
  )
  await lookers.close()
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  rows.sort((a, b) => byCodePoint(a.path, b.path))
  unreadable.sort((a, b) => byCodePoint(a.path, b.path))
  return { rows, unreadable }
}

/** Files in memory at once, in bytes; their pixels are bounded by the decoder. */
const fileRoom = createRoom(512 * 1024 * 1024)

const readPicture = (file: SourceFile, { blobs, facts }: ImportOptions, lookers: Lookers) =>
  fileRoom.within(file.size, async () => {
    const bytes = await file.read()
    const content = sha256(bytes)
    let seen: PictureFacts | null = facts?.get(content) ?? null
    if (!seen) {
      const fresh = await lookers.lookAt(bytes, content)
      facts?.put(fresh)
      seen = fresh
    }
    await blobs?.put(bytes)
    return described(seen)
  })

const described = ({ content, pixels, width, height, flags, format, bytes, captured, camera }: PictureFacts) => ({
  content,
  pixels,
  width,
  height,
  flags,
  format,
  bytes,
  ...(captured !== undefined && { captured }),
  ...(camera !== undefined && { camera }),
})

/** What is wrong with one file is reported with it; what is wrong with the disk or with us ends the import. */
function pictureProblem(error: unknown): { code: string; reason: string } | null {
  if (!(error instanceof Failure)) return null
  if (!error.code.startsWith('image_') && error.code !== 'file_unreadable') return null
  return { code: error.code, reason: error.code === 'image_format' ? `${error.message} ${error.next}` : error.message }
}

// ── putting it together ─────────────────────────────────────────────────────────────────────────────────────────────────────

function assemble(rows: ManifestRow[], unreadable: Unreadable[], ignored: Ignored[], names: ReadonlyMap<string, string | null>): Manifest {
  const classes = [...new Set(rows.flatMap(row => row.labels))].sort(byCodePoint)
  const groups = joinGroups(
    rows.map(row => {
      const name = names.get(row.path) ?? null
      return [
        `pixels:${row.pixels.slice(0, 16)}`,
        ...(row.group === null ? [] : [`list:${row.group}`]),
        ...(name === null ? [] : [`name:${name}`]),
      ]
    }),
  )
  const copies = [...Map.groupBy(rows, row => row.pixels).values()].filter(group => group.length > 1)
  const pathsOf = (group: ManifestRow[]) => group.map(row => row.path)
  return {
    schema: 1,
    classes,
    rows: rows.map((row, index) => ({ ...row, group: groups[index]! })),
    unreadable,
    ignored: ignored.sort((a, b) => byCodePoint(a.path, b.path)),
    exactDuplicates: copies.map(pathsOf),
    conflicts: copies.filter(group => new Set(group.map(row => row.labels.join('\n'))).size > 1).map(pathsOf),
  }
}

const smallestClass = 3
function refuseUntrainable({ rows, classes, unreadable }: Manifest, placed: readonly Placed[]): void {
  if (rows.length === 0) {
    const { path, reason } = unreadable[0]!
    throw new Failure('nothing_readable', { pictures: unreadable.length, path, reason })
  }
  const different = new Map(placed.map(({ label }) => [label, new Set<string>()]))
  for (const row of rows) for (const label of row.labels) different.get(label)?.add(row.pixels)
  if (different.size === 1) throw new Failure('one_class', { label: classes[0]! })
  for (const [label, pictures] of different) {
    if (pictures.size < smallestClass) throw new Failure('class_too_small', { label, different: pictures.size })
  }
}
