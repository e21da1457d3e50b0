/** Objects as files in a folder, under their own names, so that an owner can look at them with any tool. */
import { constants, createReadStream } from 'node:fs'
import { access, lstat, mkdir, open, readdir, rename, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { Failure } from '../failure.ts'
import { isTemporary, storageFailure, syncFolder, temporaryPath } from './disk.ts'
import { checkObjectName, type Objects, type StoredObject } from './objects.ts'

export function diskObjects(root: string): Objects {
  const pathOf = (name: string) => join(root, ...checkObjectName(name).split('/'))

  /** Folders are there as long as something is in them: the empty ones above `path` go, up to the root. */
  async function prune(path: string): Promise<void> {
    for (let folder = dirname(path); folder.length > root.length; folder = dirname(folder)) {
      const gone = await rmdir(folder).then(
        () => true,
        () => false,
      )
      if (!gone) return
    }
  }

  /** A new file beside `path`, whose folders are made, and lasting. They may be pruned by others before anything is in them. */
  async function openBeside(path: string) {
    const folder = dirname(path)
    for (let attempt = 1; ; attempt++) {
      const first = await mkdir(folder, { recursive: true, mode: 0o700 }).catch(async error => {
        if (error.code === 'ENOENT') await access(root, constants.W_OK) // where the system said EROFS, Node says this
        throw error
      })
      // not beside the whole name: the longest name would be too long with more behind it
      const part = temporaryPath(`${folder}/`)
      try {
        const file = await open(part, 'wx', 0o600)
        if (first) for (let made = folder; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made))
        return { part, file }
      } catch (error) {
        if (!isMissing(error) || attempt === 10) throw error
      }
    }
  }

  return {
    async put(name, content) {
      const path = pathOf(name)
      let part: string | null = null
      try {
        const opened = await openBeside(path)
        part = opened.part
        try {
          for await (const chunk of told(content)) await opened.file.writeFile(chunk)
          await opened.file.sync()
        } finally {
          await opened.file.close()
        }
        await rename(part, path)
        await syncFolder(dirname(path))
      } catch (error) {
        if (part) await rm(part, { force: true }).catch(() => {})
        await prune(path)
        throw error instanceof SourceError ? error.cause : failure(error, name)
      }
      return (await head(path, name)) ?? { bytes: 0, modified: Date.now() } // gone again already
    },
    async get(name, range) {
      const path = pathOf(name)
      try {
        // a pipe would keep us waiting, a link leads elsewhere: neither is ours
        const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
        const found = await file.stat()
        const object = { bytes: found.size, modified: Math.trunc(found.mtimeMs) }
        const from = Math.min(range?.from ?? 0, found.size)
        const to = Math.min(range?.to ?? found.size, found.size)
        if (found.isFile() && from < to) return { object, content: createReadStream(path, { fd: file, start: from, end: to - 1 }) }
        await file.close()
        return found.isFile() ? { object, content: Readable.from([]) } : null
      } catch (error) {
        if (isMissing(error)) return null
        throw failure(error, name)
      }
    },
    head: name => head(pathOf(name), name),
    async list(folder) {
      try {
        const entries = await readdir(folder === '' ? root : pathOf(folder), { withFileTypes: true })
        const seen = entries.filter(entry => (entry.isFile() || entry.isDirectory()) && !isTemporary(entry.name))
        const listed = await Promise.all(
          seen.map(async entry => {
            const { name } = entry
            if (entry.isDirectory()) return { name, bytes: null }
            const found = await head(join(entry.parentPath, name), name)
            return found && { name, bytes: found.bytes }
          }),
        )
        return listed.filter(each => each !== null).sort((a, b) => (a.name < b.name ? -1 : 1))
      } catch (error) {
        if (isMissing(error)) return []
        throw failure(error, folder)
      }
    },
    async remove(name) {
      const path = pathOf(name)
      const aside = temporaryPath(`${dirname(path)}/`) // gone at once, however long the files take
      try {
        await rename(path, aside)
      } catch (error) {
        if (isMissing(error)) return false
        throw failure(error, name)
      }
      await rm(aside, { recursive: true, force: true }).catch(() => {}) // out of sight; gc takes what is left
      await prune(path)
      return true
    },
  }
}

async function head(path: string, name: string): Promise<StoredObject | null> {
  const found = await lstat(path).catch(error => {
    if (isMissing(error)) return null
    throw failure(error, name)
  })
  return found?.isFile() ? { bytes: found.size, modified: Math.trunc(found.mtimeMs) } : null
}

/** What goes wrong with the sender is not the disk's fault, and stays as it is. */
class SourceError extends Error {}
async function* told(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* content
  } catch (cause) {
    throw new SourceError('the source failed', { cause })
  }
}

/** By its name, never by its place on the disk. */
function failure(error: unknown, name: string): Failure {
  const { code } = error as NodeJS.ErrnoException
  // a file where a folder is needed, or the other way round
  if (code === 'ENOTDIR' || code === 'EEXIST' || code === 'EISDIR' || code === 'ENOTEMPTY')
    return new Failure('object_in_the_way', { name }, { cause: error })
  if (code === 'ENAMETOOLONG') return new Failure('object_name', { name: name.slice(0, 200) }, { cause: error })
  return storageFailure(error, name)
}

/** ELOOP: a link, which none of ours is. ENXIO: a socket. */
const isMissing = (error: unknown) => ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? '')
