/**
 * Pictures that a list names: opened one by one where the list itself was given (`photos.csv`), or looked up among the files of a folder or zip
 * that has a list at its top. Either way a path leads into the folder of the list or is refused.
 */
import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, posix, sep } from 'node:path'
import { Failure } from '../failure.ts'
import type { Unreadable } from '../sdk/shapes.ts'
import { readRegular } from './folder.ts'
import { ignoredFile, ignoredFolder } from './ignore.ts'
import { type Layout, type LayoutFile, notPictures, type Placed } from './layout.ts'
import { type ListRow, linesOf, listsInFolders, type PictureList, readList, shown } from './list.ts'
import { byCodePoint, checkStopped, type Ignored, maxFileBytes, type Source, type SourceFile } from './source.ts'

// ── a list given by itself ──────────────────────────────────────────────────────────────────────────────────────────────────

/** `path`: of the list. Only the files that it names are looked at. Throws list_…, source_forbidden. */
export async function openListed(path: string, signal?: AbortSignal): Promise<Source> {
  const name = basename(path)
  const root = await realpath(dirname(path))
  if ((await stat(path)).size > maxFileBytes) throw new Failure('list_unreadable', { list: name, problem: 'it is larger than 256 MB' })
  const bytes = await readFile(path).catch(() => {
    throw new Failure('source_forbidden', { path })
  })
  const list = readList(bytes, name)
  const paths = relativePaths(list.rows, name, root)
  const prefix = await prefixOnDisk(root, paths)

  const found: (SourceFile | Ignored)[] = []
  const atOnce = 64
  for (let from = 0; from < paths.length; from += atOnce) {
    checkStopped(signal)
    found.push(
      ...(await Promise.all(paths.slice(from, from + atOnce).map(path => openNamed(root, prefix, path)))).filter(each => each !== null),
    )
  }
  const files = found.filter(each => 'read' in each).sort((a, b) => byCodePoint(a.path, b.path))
  const ignored = found.filter(each => 'reason' in each)
  return { files, folders: [], ignored, archive: false, list: { name, list }, root, close: async () => {} }
}

/** null: nothing is there. */
async function openNamed(root: string, prefix: string, path: string): Promise<SourceFile | Ignored | null> {
  for (const spelling of spellings(prefix + path)) {
    const real = await realpath(join(root, spelling)).catch(() => null)
    if (real === null) continue
    const shownPath = spelling.normalize('NFC')
    const parts = spelling.split('/')
    const reason = parts.slice(0, -1).map(ignoredFolder).find(Boolean) ?? ignoredFile(parts.at(-1)!)
    if (reason) return { path: shownPath, reason }
    if (!real.startsWith(root.endsWith(sep) ? root : root + sep)) return { path: shownPath, reason: 'a link out of the folder' }
    const status = await stat(real).catch(() => null)
    if (!status?.isFile()) return { path: shownPath, reason: status?.isDirectory() ? 'a folder' : 'not a file (a pipe, socket or device)' }
    return { path: shownPath, size: status.size, read: () => readRegular(real), head: () => readRegular(real, 4096) }
  }
  return null
}

const tried = 50 // rows that decide about the folder that all paths begin in

/** `images/` where the list lies beside that folder and names what is in it. */
async function prefixOnDisk(root: string, paths: readonly string[]): Promise<string> {
  const entries = await readdir(root, { withFileTypes: true })
  const folders = entries.filter(entry => entry.isDirectory() && !ignoredFolder(entry.name)).map(entry => `${entry.name}/`)
  const sample = paths.slice(0, tried)
  const count = async (prefix: string) => (await Promise.all(sample.map(path => openNamed(root, prefix, path)))).filter(Boolean).length
  if ((await count('')) > 0) return ''
  for (const folder of folders.sort(byCodePoint)) if ((await count(folder)) > sample.length / 2) return folder
  return ''
}

// ── a list within a folder or zip ───────────────────────────────────────────────────────────────────────────────────────────

export type Listed = {
  /** null: there is no list that means these pictures, and the folders speak. */
  layout: Layout | null
  /** Files that are called like a list and are none for these pictures, and what to say where the folders say nothing either. */
  passedOver: Ignored[]
  failure: Failure | null
}

/** Throws list_ragged, list_split_unknown, list_contradiction, list_outside; with a list that was given by itself, list_… of any kind. */
export async function listedLayout(source: Source, files: readonly LayoutFile[]): Promise<Listed> {
  if (source.list) return { layout: layoutOf('', source.list.name, source.list.list, source, files), passedOver: [], failure: null }
  const passedOver: Ignored[] = []
  let failure: Failure | null = null
  for (const index of listsAround(files)) {
    const { path } = files[index]!
    const name = posix.basename(path)
    try {
      const layout = layoutOf(path.slice(0, -name.length), name, readList(await source.files[index]!.read(), name), source, files)
      return { layout, passedOver, failure: null }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      const reason = meansOthers[error.code]
      if (reason === undefined) throw error
      passedOver.push({ path, reason })
      failure ??= error
    }
  }
  return { layout: null, passedOver, failure }
}

/** Many folders hold a table for something else; only what is a list of these very pictures may stop an import. */
const meansOthers: Partial<Record<Failure['code'], string>> = {
  file_unreadable: 'a list that cannot be read; the folders were taken for classes',
  image_too_large: 'a list too large to read; the folders were taken for classes',
  list_unreadable: 'not a list of pictures; the folders were taken for classes',
  list_columns: 'a table without columns for path and label; the folders were taken for classes',
  list_matches_nothing: 'a list of other pictures; the folders were taken for classes',
}

/** Lists that lie above all pictures, the highest first, then in the order of `listsInFolders`. */
function listsAround(files: readonly LayoutFile[]): number[] {
  const pictures = files.filter(file => file.picture)
  const rank = (path: string) => 100 * path.split('/').length + listsInFolders.indexOf(posix.basename(path).toLowerCase())
  return [...files.keys()]
    .filter(index => {
      const { path } = files[index]!
      const name = posix.basename(path)
      return listsInFolders.includes(name.toLowerCase()) && pictures.every(picture => picture.path.startsWith(path.slice(0, -name.length)))
    })
    .sort((a, b) => rank(files[a]!.path) - rank(files[b]!.path))
}

// ── rows and files ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `base`: the folder of the list within the source, with a slash at its end or ''. */
function layoutOf(base: string, name: string, { rows, understood }: PictureList, source: Source, files: readonly LayoutFile[]): Layout {
  const indexOf = new Map(files.map((file, index) => [file.path, index]))
  const reasonOf = new Map(source.ignored.map(each => [each.path, each.reason]))
  const paths = relativePaths(rows, name, source.root)
  const lookUp = (path: string) => {
    for (const spelling of spellings(path)) {
      const index = indexOf.get(spelling) ?? indexOf.get(spelling.normalize('NFC'))
      if (index !== undefined) return index
    }
    return undefined
  }
  const prefix = source.list ? prefixOf(paths, files, '') : prefixOf(paths, files, base)

  const placed: Placed[] = []
  const ignored: Ignored[] = []
  const unreadable: Unreadable[] = []
  const named = new Set<number>()
  for (const [row, path] of paths.entries()) {
    const { line, label, side, group } = rows[row]!
    const index = lookUp(prefix + path)
    if (index !== undefined) named.add(index)
    if (label === '') ignored.push({ path: prefix + path, reason: `${name} gives it no label (line ${line})` })
    else if (index === undefined) {
      const reason = spellings(prefix + path)
        .map(each => reasonOf.get(each.normalize('NFC')))
        .find(Boolean)
      const why = reason ? `it is left out: ${reason}` : 'it is not there'
      unreadable.push({ path: prefix + path, code: 'file_unreadable', reason: `${name} names it in line ${line}, but ${why}.` })
    } else placed.push({ index, label, side, group })
  }
  if (named.size === 0) throw new Failure('list_matches_nothing', { list: name, pictures: rows.length, path: shown(rows[0]!.path) })
  const within = prefix === base ? '' : `, in ${prefix.slice(base.length)}`
  return {
    wrapper: base,
    placed,
    ignored: [
      ...ignored,
      ...unnamed(files, named, name),
      ...notPictures(
        files.filter(file => file.path !== base + name),
        null,
      ),
    ],
    unreadable,
    unlabelled: 0,
    understood: `as the list ${name} says (${understood}${within})`,
  }
}

/** The folder of the list, or the one folder in it that the paths begin in where they do not begin here. */
function prefixOf(paths: readonly string[], files: readonly LayoutFile[], base: string): string {
  const there = new Set(files.map(file => file.path.normalize('NFC')))
  const count = (prefix: string) =>
    paths.reduce((sum, path) => sum + (spellings(prefix + path).some(each => there.has(each.normalize('NFC'))) ? 1 : 0), 0)
  if (count(base) > 0) return base
  const below = files.flatMap(({ path }) => (path.startsWith(base) ? path.slice(base.length).split('/').slice(0, -1).slice(0, 1) : []))
  const counts = [...new Set(below)].map(folder => ({ prefix: `${base + folder}/`, found: count(`${base + folder}/`) }))
  const best = counts.reduce((most, each) => (each.found > most.found ? each : most), { prefix: base, found: 0 })
  return best.prefix
}

const listedOneByOne = 20
/** Pictures that are there and not in the list, by folder. */
function unnamed(files: readonly LayoutFile[], named: ReadonlySet<number>, list: string): Ignored[] {
  const left = [...files.keys()].filter(index => files[index]!.picture && !named.has(index)).map(index => files[index]!.path)
  const reason = `${list} does not name it`
  return [...Map.groupBy(left, path => path.slice(0, path.lastIndexOf('/') + 1))].flatMap(([folder, paths]) =>
    paths.length > listedOneByOne
      ? [{ path: `${folder}*`, reason: `${list} does not name them (${paths.length} pictures)` }]
      : paths.map(path => ({ path, reason })),
  )
}

/** From the folder of the list. throws list_outside */
function relativePaths(rows: readonly ListRow[], list: string, root: string | undefined): string[] {
  const paths = rows.map(({ path }) => relativePath(path, root))
  const outside = rows.filter((_, index) => paths[index] === null)
  if (outside.length > 0) {
    throw new Failure('list_outside', { list, path: shown(outside[0]!.path), lines: linesOf(outside.map(({ line }) => line)) })
  }
  return paths as string[]
}

/** null: it leads out. */
function relativePath(path: string, root: string | undefined): string | null {
  const inside = root !== undefined && path.startsWith(root + sep) ? path.slice(root.length + 1) : path
  const slashed = inside.replaceAll('\\', '/')
  const leadsOut = [inside, slashed].some(each => /^\.\.(\/|$)/.test(posix.normalize(each)))
  return leadsOut || slashed.startsWith('/') || /^[A-Za-z]:\//.test(slashed) ? null : posix.normalize(inside)
}

/** As it is written, as Windows would mean it, and both in the two forms of Unicode. */
function spellings(path: string): string[] {
  const written = path.includes('\\') ? [path, posix.normalize(path.replaceAll('\\', '/'))] : [path]
  return [...new Set(written.flatMap(each => [each, each.normalize('NFC'), each.normalize('NFD')]))]
}
