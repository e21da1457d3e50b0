/** Objects as files in a folder, under their own names, so that an owner can look at them with any tool. */
import { constants, createReadStream } from 'node:fs'
import { lstat, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'
import { isTemporary, storageFailure, syncFolder, temporaryPath } from './disk.ts'
import { checkObjectName, type Objects, type StoredObject } from './objects.ts'

export function diskObjects(root: string): Objects {
  const pathOf = (name: string) => join(root, ...checkObjectName(name).split('/'))
  const failure = (error: unknown, name: string) => {
    const { code } = error as NodeJS.ErrnoException
    // a file where a folder is needed, or the other way round
    if (code === 'ENOTDIR' || code === 'EEXIST' || code === 'EISDIR' || code === 'ENOTEMPTY')
      return new Failure('object_in_the_way', { name }, { cause: error })
    if (code === 'ENAMETOOLONG') return new Failure('object_name', { name: name.slice(0, 200) }, { cause: error })
    return storageFailure(error, name)
  }
  return {
    async put(name, content) {
      const path = pathOf(name)
      const part = temporaryPath(path)
      try {
        await mkdir(dirname(path), { recursive: true, mode: 0o700 })
        const file = await open(part, 'wx', 0o600)
        try {
          for await (const chunk of content) await file.writeFile(chunk)
          await file.sync()
        } finally {
          await file.close()
        }
        await rename(part, path)
        await syncFolder(dirname(path))
      } catch (error) {
        await rm(part, { force: true }).catch(() => {})
        throw failure(error, name)
      }
      return (await head(path))!
    },
    async get(name, range) {
      const path = pathOf(name)
      try {
        const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
        const { size, mtimeMs } = await file.stat()
        const object = { bytes: size, modified: Math.trunc(mtimeMs) }
        if (!(await file.stat()).isFile()) {
          await file.close()
          return null
        }
        const empty = range ? range.to <= range.from : size === 0
        if (empty) {
          await file.close()
          return { object, content: nothing() }
        }
        return { object, content: createReadStream(path, { fd: file, ...(range && { start: range.from, end: range.to - 1 }) }) }
      } catch (error) {
        if (isMissing(error)) return null
        throw failure(error, name)
      }
    },
    head: name => head(pathOf(name)),
    async list(folder) {
      try {
        const entries = await readdir(folder === '' ? root : pathOf(folder), { withFileTypes: true })
        const seen = entries.filter(entry => (entry.isFile() || entry.isDirectory()) && !isTemporary(entry.name))
        const listed = await Promise.all(
          seen.map(async entry => ({
            name: entry.name,
            bytes: entry.isDirectory() ? null : ((await head(join(entry.parentPath, entry.name)))?.bytes ?? 0),
          })),
        )
        return listed.sort((a, b) => (a.name < b.name ? -1 : 1))
      } catch (error) {
        if (isMissing(error)) return []
        throw failure(error, folder)
      }
    },
    async remove(name) {
      const path = pathOf(name)
      const found = await lstat(path).catch(() => null)
      if (!found) return false
      const aside = temporaryPath(path) // gone at once, however long the files take
      await rename(path, aside).catch(error => {
        throw failure(error, name)
      })
      await rm(aside, { recursive: true, force: true })
      return true
    },
  }
}

async function head(path: string): Promise<StoredObject | null> {
  const found = await lstat(path).catch(() => null)
  return found?.isFile() ? { bytes: found.size, modified: Math.trunc(found.mtimeMs) } : null
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** ELOOP: a link, which none of ours is. */
const isMissing = (error: unknown) => ['ENOENT', 'ENOTDIR', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? '')
