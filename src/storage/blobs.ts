/** Files by content: the name is the sha256, so nothing is stored twice and nothing stored changes. */
import { createHash, randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { access, copyFile, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { makeFolder, storageFailure, temporaryMark } from './disk.ts'

export interface Blobs {
  readonly folder: string
  /** Answers the sha256 in hex. Idempotent; safe with many writers. */
  put(bytes: Uint8Array): Promise<string>
  putFile(path: string): Promise<string>
  path(sha256: string): string
  has(sha256: string): Promise<boolean>
  /** throws blob_missing */
  get(sha256: string): Promise<Uint8Array>
}

export function openBlobs(folder: string): Blobs {
  const folderOf = (digest: string) => join(folder, digest.slice(0, 2))
  const pathOf = (digest: string) => {
    if (!/^[0-9a-f]{64}$/.test(digest)) throw new Failure('blob_missing', { digest })
    return join(folderOf(digest), digest)
  }
  const has = (digest: string) =>
    access(pathOf(digest)).then(
      () => true,
      () => false,
    )
  const made = new Set<string>()

  /** Brings a finished temporary file to its name. Not flushed one by one: 2,000 small files would take minutes on some disks. After a power cut a blob may be short; `get` of a dataset would say so by its digest. */
  async function place(digest: string, write: (part: string) => Promise<void>): Promise<string> {
    if (await has(digest)) return digest
    const parent = folderOf(digest)
    if (!made.has(parent)) made.add(await makeFolder(parent))
    const part = join(parent, `${digest}${temporaryMark}${randomUUID()}`)
    try {
      await write(part)
      await rename(part, pathOf(digest))
    } catch (error) {
      await rm(part, { force: true })
      throw storageFailure(error, pathOf(digest))
    }
    return digest
  }

  return {
    folder,
    put: bytes => place(sha256(bytes), part => writeFile(part, bytes, { mode: 0o600, flush: false })),
    async putFile(path) {
      const digest = await sha256OfFile(path)
      return place(digest, part => copyFile(path, part, constants.COPYFILE_FICLONE))
    },
    path: pathOf,
    has,
    async get(digest) {
      try {
        return await readFile(pathOf(digest))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new Failure('blob_missing', { digest }, { cause: error })
        throw storageFailure(error, pathOf(digest))
      }
    },
  }
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  const file = await open(path, 'r').catch(error => {
    throw storageFailure(error, path)
  })
  for await (const chunk of file.createReadStream()) hash.update(chunk as Uint8Array)
  return hash.digest('hex')
}
