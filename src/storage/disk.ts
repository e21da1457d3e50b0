/** Files that are whole or not there: write aside, flush, rename; and one place that says what a disk's refusal means. */
import { randomBytes } from 'node:crypto'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'

/** Leftovers of writers that were killed carry this in their name; `gc` removes them. */
export const temporaryMark = '.plinth-part-'

/** A reader of `path` sees the old content or the new, never half of it; after a power cut too. */
export async function writeFileAtomic(path: string, content: string | Uint8Array, { mode = 0o600 } = {}): Promise<void> {
  const part = temporaryPath(path)
  try {
    const file = await open(part, 'wx', mode)
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(part, path)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(part, { force: true })
    throw storageFailure(error, path)
  }
}

/** A name beside `path`, on the same disk, that nobody else uses. */
export const temporaryPath = (path: string): string => `${path}${temporaryMark}${randomBytes(6).toString('hex')}`

/** Makes a rename in it last. Windows cannot open folders and needs no such call. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

export async function makeFolder(...parts: string[]): Promise<string> {
  const path = join(...parts)
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    return path
  } catch (error) {
    throw storageFailure(error, path)
  }
}

/** What the operating system's refusal means to the user. Failures pass through. */
export function storageFailure(error: unknown, path: string): Failure {
  if (error instanceof Failure) return error
  const { code = '', message = String(error) } = error as NodeJS.ErrnoException
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new Failure('disk_full', { path }, { cause: error })
    case 'EROFS':
      return new Failure('read_only', { path }, { cause: error })
    case 'EACCES':
    case 'EPERM':
      return new Failure('not_permitted', { path }, { cause: error })
    case 'ENOTDIR':
    case 'EEXIST':
    case 'EISDIR':
      return new Failure('path_in_the_way', { path }, { cause: error })
    default:
      return new Failure('storage', { path, problem: code || message }, { cause: error })
  }
}
