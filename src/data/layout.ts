/**
 * Reads the meaning of folders: which folder is a class, which is a side of a split, what is left out and why. Pure: names in, verdicts out;
 * a list of pictures (listed.ts) gives the same verdicts in its place.
 *
 *   photos/cat/1.jpg                    folder per class; deeper folders belong to the class above them
 *   photos/train/cat/1.jpg, photos/test/cat/2.jpg    sides above classes, in any case; a class may be missing from a side
 *   photos.zip = photos/photos/cat/1.jpg             one folder around everything is looked through
 */
import type { Side, Unreadable } from '../sdk/shapes.ts'
import { byCodePoint, type Ignored } from './source.ts'

export type LayoutFile = { path: string; picture: boolean }
export type Placed = { index: number; label: string; side: Side | null; group: string | null }
export type Layout = {
  /** Folders around everything, with a slash at the end; '' mostly. */
  wrapper: string
  placed: Placed[]
  ignored: Ignored[]
  /** What was named and cannot be had. */
  unreadable: Unreadable[]
  /** Pictures that lie where no class can be told from their folder. */
  unlabelled: number
  /** How the labels were found, to print behind "8 pictures in 2 classes, ". */
  understood: string
}

const sideNames: Record<string, Side> = {
  train: 'train',
  training: 'train',
  val: 'validation',
  valid: 'validation',
  validation: 'validation',
  test: 'test',
  testing: 'test',
  dev: 'validation',
}
export const sideOf = (folder: string): Side | undefined =>
  Object.hasOwn(sideNames, folder.toLowerCase()) ? sideNames[folder.toLowerCase()] : undefined

/** `files`: everything below the root, sorted or not; `folders`: every folder, empty ones too. */
export function readLayout(files: readonly LayoutFile[], folders: readonly string[]): Layout {
  const ignored: Ignored[] = []
  const pictures = files.map((file, index) => ({ index, path: file.path })).filter(({ index }) => files[index]!.picture)
  const wrapper = findWrapper(pictures.map(({ path }) => path))
  const below = pictures.map(({ index, path }) => ({ index, path, parts: path.slice(wrapper.length).split('/') }))
  const top = topFolders(below.map(({ parts }) => parts))

  const training = [...top].find(([name, { direct }]) => name.toLowerCase() === 'runs' && direct === 0)?.[0]
  const outputs = training !== undefined && top.size > 1 ? training : undefined // where YOLO puts its drawings
  if (outputs !== undefined) {
    top.delete(outputs)
    ignored.push({ path: wrapper + outputs, reason: 'outputs of a training tool' })
  }
  const sided = sidesAboveClasses(top)

  const placed: Placed[] = []
  let unlabelled = 0
  const stray = new Map<string, { count: number; reason: string; example: string }>()
  const leave = (path: string, folder: string, reason: string) => {
    const already = stray.get(folder)
    if (already) already.count++
    else stray.set(folder, { count: 1, reason, example: path })
  }
  for (const { index, path, parts } of below) {
    if (parts[0] === outputs && parts.length > 1) continue
    const side = sided ? sideOf(parts[0]!) : undefined
    if (parts.length === 1) {
      unlabelled++
      leave(path, wrapper, 'beside the class folders, so it has no label')
    } else if (!sided) placed.push({ index, label: parts[0]!.normalize('NFC'), side: null, group: null })
    else if (side === undefined) leave(path, wrapper + parts[0], 'beside the folders train, validation and test')
    else if (parts.length === 2) {
      unlabelled++
      leave(path, `${wrapper + parts[0]}/`, 'no class folder around it, so it has no label')
    } else placed.push({ index, label: parts[1]!.normalize('NFC'), side, group: null })
  }
  for (const [folder, { count, reason, example }] of stray) {
    if (count === 1) ignored.push({ path: example, reason })
    else ignored.push({ path: folder.endsWith('/') || folder === '' ? `${folder}*` : folder, reason: `${reason} (${count} pictures)` })
  }
  ignored.push(...notPictures(files, outputs === undefined ? null : `${wrapper + outputs}/`), ...emptyFolders(files, folders))
  return { wrapper, placed, ignored, unreadable: [], unlabelled, understood: saidOf(wrapper, placed) }
}

function saidOf(wrapper: string, placed: readonly Placed[]): string {
  const sides = [...new Set(placed.map(({ side }) => side))].filter(side => side !== null)
  const within = wrapper === '' ? '' : ` in ${wrapper}`
  return sides.length > 0 ? `in your own folders for ${sides.join(', ')}${within}` : `one folder per class${within}`
}

/** Goes down while there is one folder only, no picture beside it, and folders within it; a side is no wrapper. */
function findWrapper(paths: readonly string[]): string {
  let wrapper = ''
  for (;;) {
    const first = paths[0]?.slice(wrapper.length).split('/') ?? []
    if (first.length < 3 || sideOf(first[0]!)) return wrapper
    const deeper = `${wrapper + first[0]}/`
    if (!paths.every(path => path.startsWith(deeper) && path.indexOf('/', deeper.length) > 0)) return wrapper
    wrapper = deeper
  }
}

type Top = Map<string, { direct: number; nested: number }>
function topFolders(paths: readonly string[][]): Top {
  const top: Top = new Map()
  for (const parts of paths) {
    if (parts.length === 1) continue
    const counts = top.get(parts[0]!) ?? { direct: 0, nested: 0 }
    if (parts.length === 2) counts.direct++
    else counts.nested++
    top.set(parts[0]!, counts)
  }
  return top
}

/**
 * A class may well be called "train" (with car and tram beside it). Sides are meant where nothing else stands beside them, or where such
 * folders hold folders and there are two of them. Sides without classes in them are sides all the same: nobody wants to tell train from test.
 */
function sidesAboveClasses(top: Top): boolean {
  const names = [...top.keys()]
  if (names.length > 0 && names.every(name => sideOf(name))) return true
  const withClasses = names.filter(name => sideOf(name) && top.get(name)!.nested > 0)
  if (withClasses.every(name => top.get(name)!.direct > top.get(name)!.nested)) return false
  const sides = new Set(names.map(sideOf).filter(side => side !== undefined))
  return sides.size > 1 && withClasses.some(name => sideOf(name) === 'train')
}

const listedOneByOne = 20
/** Files that are no pictures, one by one or, where there are many of a kind in a folder, as `cat/*.txt`. */
export function notPictures(files: readonly LayoutFile[], except: string | null): Ignored[] {
  const others = files.filter(({ path, picture }) => !picture && !(except !== null && path.startsWith(except)))
  const kinds = Map.groupBy(
    others.map(({ path }) => path),
    path => {
      const name = path.slice(path.lastIndexOf('/') + 1)
      const ending = name.includes('.') ? name.slice(name.lastIndexOf('.')).toLowerCase() : ''
      return `${path.slice(0, path.length - name.length)}*${ending}`
    },
  )
  return [...kinds].flatMap(([kind, paths]) =>
    paths.length > listedOneByOne
      ? [{ path: kind, reason: `not pictures (${paths.length} files)` }]
      : paths.map(path => ({ path, reason: 'not a picture' })),
  )
}

/** The topmost folders in which nothing at all was found. */
function emptyFolders(files: readonly LayoutFile[], folders: readonly string[]): Ignored[] {
  const filled = new Set<string>()
  for (const { path } of files) {
    for (let at = path.lastIndexOf('/'); at > 0; at = path.lastIndexOf('/', at - 1)) {
      const folder = path.slice(0, at)
      if (filled.has(folder)) break
      filled.add(folder)
    }
  }
  const empty = new Set(folders.filter(folder => !filled.has(folder)))
  return [...empty]
    .filter(folder => !empty.has(folder.slice(0, Math.max(0, folder.lastIndexOf('/')))))
    .sort(byCodePoint)
    .map(path => ({ path, reason: 'empty folder' }))
}
