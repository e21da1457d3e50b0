/** What of jobs nobody may read but their processes: values of secrets, and the key that cookies and tokens of attempts are made with. */
import { createHmac, randomBytes } from 'node:crypto'
import { readdir, readFile, rm, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { makeFolder, storageFailure, writeFileAtomic } from '../storage/disk.ts'

export interface JobSecrets {
  /** Safe on disk when it resolves, for this user alone. */
  keep(job: number, values: Readonly<Record<string, string>>): Promise<void>
  read(job: number): Promise<Record<string, string>>
  forget(job: number): Promise<void>
  /** Jobs that have had values here for a minute: a job that is being submitted is not known to others yet. */
  kept(): Promise<number[]>
  /** The same text for the same words, which nobody else can make: so a start that is tried again is the same start. */
  derived(words: string): Buffer
}

const minute = 60_000
const Values = z.record(z.string(), z.string())

/** `folder`: `jobs` in the home. */
export async function openJobSecrets(folder: string): Promise<JobSecrets> {
  const key = await keyIn(folder)
  const fileOf = (job: number) => join(folder, String(job), 'secrets.json')
  return {
    async keep(job, values) {
      await makeFolder(folder, String(job))
      await writeFileAtomic(fileOf(job), JSON.stringify(values))
    },
    async read(job) {
      const text = await readFile(fileOf(job), 'utf8').catch(error => {
        if (error.code === 'ENOENT') return '{}'
        throw storageFailure(error, fileOf(job))
      })
      return Values.parse(JSON.parse(text))
    },
    async forget(job) {
      await rm(fileOf(job), { force: true })
      await rmdir(join(folder, String(job))).catch(() => {}) // there is more in it, or nothing
    },
    async kept() {
      const names = await readdir(folder).catch((): string[] => [])
      const found: number[] = []
      for (const name of names) {
        if (!/^\d+$/.test(name)) continue
        const file = await stat(fileOf(Number(name))).catch(() => null)
        if (file && Date.now() - file.mtimeMs > minute) found.push(Number(name))
      }
      return found
    },
    derived: words => createHmac('sha256', key).update(words).digest(),
  }
}

/** Made at first use. Two processes that make it at once: the home has one keeper, and only that one starts jobs. */
async function keyIn(folder: string): Promise<Buffer> {
  const file = join(folder, 'key')
  const known = await readFile(file, 'utf8').catch(error => {
    if (error.code === 'ENOENT') return ''
    throw storageFailure(error, file)
  })
  if (/^[0-9a-f]{64}\s*$/.test(known)) return Buffer.from(known.trim(), 'hex')
  const key = randomBytes(32)
  await makeFolder(folder)
  await writeFileAtomic(file, `${key.toString('hex')}\n`)
  return key
}
