/** Who keeps a home: what the file `server` says, for those who only look (track/lock.ts writes it). */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { storageFailure } from '../storage/disk.ts'
import { heartbeat, isAlive, isHere, Worker } from './worker.ts'

export const Keeper = z.strictObject({
  worker: Worker,
  /** Where it answers; null while it is starting. */
  url: z.string().nullable(),
  /** ISO 8601 */
  since: z.string(),
})
export type Keeper = z.infer<typeof Keeper>

/** Milliseconds without a sign after which a keeper that cannot be looked up is gone: a container that crashed should be back soon. */
const silence = 3 * heartbeat

export const keeperFile = (path: string): string => join(path, 'server')

/** Who keeps the home; null where nobody alive does. */
export async function keeperOf(path: string): Promise<Keeper | null> {
  const file = keeperFile(path)
  const keeper = await readKeeper(file)
  if (!keeper) return null
  const lastSign = await stat(file).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  )
  const alive = isHere(keeper.worker) ? isAlive(keeper.worker, lastSign) : Date.now() - lastSign < silence
  return alive ? keeper : null
}

/** Null too where it is not what this version writes: whoever wrote it is not believed. */
export async function readKeeper(file: string): Promise<Keeper | null> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw storageFailure(error, file)
  })
  try {
    return Keeper.parse(JSON.parse(text))
  } catch {
    return null
  }
}
