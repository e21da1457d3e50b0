/** Files that are whole or not there: write aside, flush, rename; and one place that says what a disk's refusal means. */
import { randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, constants, copyFile, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'

/** Leftovers of writers that were killed carry this in their name; `gc` removes them. */
export const temporaryMark = '.plinth-part-'

/** A name beside `path`, on the same disk, that nobody else uses. */
export const temporaryPath = (path: string): string => `${path}${temporaryMark}${randomBytes(6).toString('hex')}`

/** Whether `temporaryPath` made this name. */
export const isTemporary = (name: string): boolean => /\.plinth-part-[0-9a-f]{12}$/.test(name)

/** A reader of `path` sees the old content or the new, never half of it; after a power cut too. throws disk_full, read_only, not_permitted … */
export async function writeFileAtomic(path: string, content: string | Uint8Array, { mode = 0o600 } = {}): Promise<void> {
  await placeFile(path, async part => {
    const file = await open(part, 'wx', mode)
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
  })
}

/**
 * A whole copy or none, flushed; replaces what is at `to`. Blocks are shared where the file system can (`COPYFILE_FICLONE`).
 * `'stream'` copies the bytes instead: the copy gets the rights of any new file of this user, not those of `from`.
 */
export async function copyFileAtomic(from: string, to: string, how: 'clone' | 'stream' = 'clone'): Promise<void> {
  await placeFile(to, async part => {
    if (how === 'clone') {
      await copyFile(from, part, constants.COPYFILE_FICLONE)
      await chmod(part, 0o600) // the rights of `from` came along, and may be read-only
    }
    const file = await open(part, how === 'clone' ? 'r+' : 'wx')
    try {
      if (how === 'stream') await file.writeFile(createReadStream(from)) // a pipeline would wait for a close that never comes
      await file.sync()
    } finally {
      await file.close()
    }
  })
}

async function placeFile(path: string, write: (part: string) => Promise<void>): Promise<void> {
  const part = temporaryPath(path)
  try {
    await write(part)
    await rename(part, path)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(part, { force: true }).catch(() => {}) // the first refusal is the one to tell
    throw storageFailure(error, path)
  }
}

/** Makes a rename in it last. Windows cannot open folders, some network disks cannot flush them. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } catch (error) {
    if (!['EINVAL', 'ENOTSUP', 'EISDIR'].includes((error as NodeJS.ErrnoException).code!)) throw error
  } finally {
    await folder.close()
  }
}

/** With its parents, for this user alone (0700); what is there keeps its rights. */
export async function makeFolder(...parts: string[]): Promise<string> {
  const path = join(...parts)
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    return path
  } catch (error) {
    throw storageFailure(await refusal(path, error), path)
  }
}

/** Node's recursive mkdir says ENOENT where the system said EROFS: the first missing folder alone is refused with the true reason. */
async function refusal(path: string, error: unknown): Promise<unknown> {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return error
  const parent = dirname(path)
  if (parent === path) return error
  return mkdir(path, { mode: 0o700 }).then(
    () => error,
    again => refusal(parent, again),
  )
}

/** First out of sight under a name that `gc` knows, then gone: a kill in between leaves no half folder. Answers whether it was there. */
export async function removeFolder(path: string): Promise<boolean> {
  const aside = temporaryPath(path)
  try {
    await rename(path, aside)
    await rm(aside, { recursive: true, force: true })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
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
      return new Failure(
        'storage',
        { path, problem: code === 'ENOENT' ? 'it, or a folder on the way to it, is missing' : code || message },
        { cause: error },
      )
  }
}
