/**
 * Lists a folder without being led out of it: no link is followed to the outside, no pipe or device is opened, no folder is entered twice. That holds
 * while somebody changes the folder, too: what was opened is asked where it lies, and only then read.
 */
import { constants, type Dirent, readlinkSync, realpathSync } from 'node:fs'
import { type FileHandle, lstat, open, readdir, realpath } from 'node:fs/promises'
import { join, sep } from 'node:path'
import { Failure } from '../failure.ts'
import { ignoredFile, ignoredFolder } from './ignore.ts'
import { byCodePoint, checkStopped, composedNames, type Ignored, maxFileBytes, type Source, type SourceFile } from './source.ts'

const deepest = 32

export async function openFolder(path: string, signal?: AbortSignal): Promise<Source> {
  const root = await realpath(path)
  const found: { name: string; real: string; size: number }[] = []
  const folders: string[] = []
  const ignored: Ignored[] = []
  const waiting = ['']

  while (waiting.length > 0) {
    checkStopped(signal)
    const folder = waiting.pop()!
    for (const entry of await list(join(root, folder), folder, path, ignored)) {
      const raw = entry.name.toString()
      const name = folder === '' ? raw : `${folder}/${raw}`
      if (raw.includes('\ufffd') && !Buffer.from(raw).equals(entry.name)) {
        ignored.push({ path: name, reason: 'its name is not valid Unicode' })
        continue
      }
      const left = entry.isDirectory() ? ignoredFolder(raw) : ignoredFile(raw)
      if (left) ignored.push({ path: name, reason: left })
      else if (entry.isDirectory()) {
        if (name.split('/').length > deepest) ignored.push({ path: name, reason: `more than ${deepest} folders deep` })
        else {
          folders.push(name)
          waiting.push(name)
        }
      } else {
        const file = await regularFile(root, name, entry)
        if (typeof file === 'string') ignored.push({ path: name, reason: file })
        else found.push({ name, ...file })
      }
    }
  }

  const names = composedNames(found.map(file => file.name))
  const files = found.map(({ real, size }, index): SourceFile => {
    return { path: names[index]!, size, read: () => readRegular(real), head: () => readRegular(real, 4096) }
  })
  files.sort((a, b) => byCodePoint(a.path, b.path))
  return { files, folders: folders.map(folder => folder.normalize('NFC')), ignored, archive: false, root, close: async () => {} }
}

async function list(absolute: string, folder: string, shown: string, ignored: Ignored[]): Promise<Dirent<Buffer>[]> {
  const options = { withFileTypes: true, encoding: 'buffer' } as const
  try {
    if (process.platform !== 'linux') {
      const entries = await readdir(absolute, options)
      if (realpathSync(absolute) !== absolute) throw unreadable(reasons['ELOOP']!)
      return entries
    }
    const handle = await open(absolute, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      if (placeOf(handle, absolute) !== absolute) throw unreadable(reasons['ELOOP']!)
      return await readdir(`/proc/self/fd/${handle.fd}`, options) // the very folder that was opened
    } finally {
      await handle.close()
    }
  } catch (error) {
    if (folder === '') throw new Failure('source_forbidden', { path: shown })
    const { code = '' } = error as NodeJS.ErrnoException
    const changed = error instanceof Failure || ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(code)
    ignored.push({ path: folder, reason: changed ? 'it changed while the folder was read' : 'this folder may not be read' })
    return []
  }
}

/** Where what was opened lies now: a folder on its way may have become a link since it was listed. */
function placeOf(handle: FileHandle, path: string): string {
  try {
    const place = readlinkSync(`/proc/self/fd/${handle.fd}`)
    if (place.startsWith('/')) return place
  } catch {} // not Linux, or no /proc
  return realpathSync(path)
}

/** The real place and size of a file, or why it is left out. */
async function regularFile(root: string, name: string, entry: Dirent<Buffer>): Promise<{ real: string; size: number } | string> {
  let real = join(root, name)
  if (entry.isSymbolicLink()) {
    const target = await realpath(real).catch(() => null)
    if (target === null) return 'a link to nothing'
    if (target === root) return 'a link to a folder'
    if (!target.startsWith(root.endsWith(sep) ? root : root + sep)) return 'a link out of the folder'
    real = target
  }
  const status = await lstat(real).catch(() => null)
  if (status === null) return 'it went away while the folder was read'
  if (status.isDirectory()) return 'a link to a folder'
  if (!status.isFile()) return 'not a file (a pipe, socket or device)'
  return { real, size: status.size }
}

const unreadable = (reason: string) => new Failure('file_unreadable', { reason })
const reasons: Record<string, string> = {
  EACCES: 'there is no right to read it',
  EPERM: 'there is no right to read it',
  ENOENT: 'it went away while the folder was read',
  ELOOP: 'it, or a folder around it, became a link while the folder was read',
  ENOTDIR: 'a folder around it went away while the folder was read',
}

/** Checks and reads one descriptor: what was a file when listed may have become a pipe or a link since. */
export async function readRegular(real: string, first?: number): Promise<Buffer> {
  let handle: FileHandle | undefined
  try {
    handle = await open(real, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0))
    const status = await handle.stat()
    if (!status.isFile()) throw unreadable('it is no longer a file')
    const place = placeOf(handle, real)
    if (place !== real && place !== `${real} (deleted)`) throw unreadable(reasons['ELOOP']!)
    if (first === undefined && status.size > maxFileBytes) {
      throw new Failure('image_too_large', { size: `${status.size} bytes`, limit: `${maxFileBytes} bytes` })
    }
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(Math.min(first ?? status.size, status.size)), 0)
    return buffer.subarray(0, bytesRead)
  } catch (error) {
    if (error instanceof Failure) throw error
    throw unreadable(reasons[(error as NodeJS.ErrnoException).code ?? ''] ?? 'the disk gave an error')
  } finally {
    await handle?.close()
  }
}
