/** Files by content: the name is the sha256, so nothing is stored twice and nothing stored changes. */
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { access, chmod, copyFile, open, readFile, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { makeFolder, storageFailure, temporaryPath } from './disk.ts'

export interface Blobs {
  readonly folder: string
  /** Answers the sha256 in hex. Idempotent; safe with many writers in many processes. */
  put(bytes: Uint8Array): Promise<string>
  /** The same for a file, in constant memory; blocks are shared where the file system can. */
  putFile(path: string): Promise<string>
  path(sha256: string): string
  has(sha256: string): Promise<boolean>
  /** Exactly what was put. throws blob_missing, blob_damaged (the file is moved aside, so that putting it again mends it) */
  get(sha256: string): Promise<Uint8Array>
  /** Reads it all and compares; false where it is missing or damaged. Changes nothing. */
  verify(sha256: string): Promise<boolean>
}

/** A blob put again counts as new to `gc`, which leaves new ones alone; touched at most this often. */
const touchAfter = 10 * 60 * 1000

export function openBlobs(folder: string): Blobs {
  const folderOf = (digest: string) => join(folder, digest.slice(0, 2))
  const pathOf = (digest: string) => {
    if (!/^[0-9a-f]{64}$/.test(digest)) throw new Failure('blob_missing', { digest: digest.slice(0, 64) })
    return join(folderOf(digest), digest)
  }
  const made = new Set<string>()

  /** Whether a whole file is there. A power cut can leave a shorter one, and `gc` may be about to take it: both are written anew. */
  async function isThere(path: string, bytes: number): Promise<boolean> {
    try {
      const { size, mtimeMs } = await stat(path)
      if (size !== bytes) return false
      if (Date.now() - mtimeMs > touchAfter) await utimes(path, new Date(), new Date())
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
      throw storageFailure(error, path)
    }
  }

  async function inFolder(digest: string): Promise<string> {
    const parent = folderOf(digest)
    if (!made.has(parent)) made.add(await makeFolder(parent))
    return pathOf(digest)
  }

  return {
    folder,
    async put(bytes) {
      const digest = sha256(bytes)
      const path = await inFolder(digest)
      if (await isThere(path, bytes.length)) return digest
      const part = temporaryPath(path)
      try {
        const file = await open(part, 'wx', 0o600)
        try {
          await file.writeFile(bytes)
          await file.sync()
        } finally {
          await file.close()
        }
        await rename(part, path) // the folder is not flushed: whoever names the blob flushes a later rename on the same disk
      } catch (error) {
        await rm(part, { force: true }).catch(() => {})
        throw storageFailure(error, path)
      }
      return digest
    },
    async putFile(from) {
      // copied first, hashed after: a file that changes meanwhile is stored under the name of what was stored
      const part = temporaryPath(join(folder, 'incoming'))
      try {
        await copyFile(from, part, constants.COPYFILE_FICLONE)
        await chmod(part, 0o600)
        const digest = await sha256OfFile(part)
        const path = await inFolder(digest)
        if (await isThere(path, (await stat(part)).size)) {
          await rm(part)
          return digest
        }
        const file = await open(part, 'r+')
        await file.sync().finally(() => file.close())
        await rename(part, path)
        return digest
      } catch (error) {
        await rm(part, { force: true }).catch(() => {})
        throw storageFailure(error, (error as NodeJS.ErrnoException).code === 'ENOENT' ? from : folder)
      }
    },
    path: pathOf,
    has: digest =>
      access(pathOf(digest)).then(
        () => true,
        () => false,
      ),
    async get(digest) {
      const path = pathOf(digest)
      const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
        throw error.code === 'ENOENT' ? new Failure('blob_missing', { digest }, { cause: error }) : storageFailure(error, path)
      })
      if (sha256(bytes) === digest) return bytes
      await rename(path, temporaryPath(path)).catch(() => {}) // not on a read-only disk
      throw new Failure('blob_damaged', { digest })
    },
    async verify(digest) {
      const path = pathOf(digest)
      return await sha256OfFile(path).then(
        found => found === digest,
        () => false,
      )
    },
  }
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** In constant memory. */
export async function sha256OfFile(path: string): Promise<string> {
  try {
    const hash = createHash('sha256')
    const file = await open(path, 'r')
    for await (const chunk of file.createReadStream()) hash.update(chunk as Uint8Array)
    return hash.digest('hex')
  } catch (error) {
    throw storageFailure(error, path)
  }
}
