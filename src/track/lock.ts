/**
 * One process keeps a home: `plinth up` runs its loops (lost runs are told, what recipes log is brought to where runs are searched) and
 * answers for it. Who that is stands in the file `server`. A process that is gone keeps nothing: the next one takes over.
 */
import { readFile, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Home } from '../db/home.ts'
import { exclusively } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { storageFailure, writeFileAtomic } from '../storage/disk.ts'
import { withReserve } from './reserve.ts'
import { heartbeat, isAlive, isHere, thisProcess, Worker } from './worker.ts'

export const Keeper = z.strictObject({
  worker: Worker,
  /** Where it answers; null while it is starting. */
  url: z.string().nullable(),
  /** ISO 8601 */
  since: z.string(),
})
export type Keeper = z.infer<typeof Keeper>

export interface Keeping {
  /** Says where this process answers. */
  announce(url: string): Promise<void>
  release(): Promise<void>
}

/** This process keeps the home until it says otherwise or ends. throws home_held while another one does */
export async function keepHome(home: Home): Promise<Keeping> {
  const file = fileOf(home.path)
  const keeper: Keeper = { worker: thisProcess(), url: null, since: new Date().toISOString() }
  const write = () => withReserve(home.path, () => writeFileAtomic(file, `${JSON.stringify(keeper)}\n`))
  // two that start together look one after the other
  await exclusively(home.db, async () => {
    const other = await keeperOf(home.path)
    if (other) throw new Failure('home_held', { pid: other.worker.pid, where: other.url ? ` and answers at ${other.url}` : '' })
    await write()
  })
  // only where its number cannot be looked up (another container) is this asked for; elsewhere the process itself is proof
  const pulse = setInterval(() => void utimes(file, new Date(), new Date()).catch(() => {}), heartbeat).unref()
  return {
    async announce(url) {
      keeper.url = url
      await write()
    },
    async release() {
      clearInterval(pulse)
      const kept = await read(file)
      if (kept?.worker.pid === keeper.worker.pid && kept.worker.birth === keeper.worker.birth) await rm(file, { force: true })
    },
  }
}

/** Who keeps the home; null where nobody alive does. */
export async function keeperOf(path: string): Promise<Keeper | null> {
  const file = fileOf(path)
  const keeper = await read(file)
  if (!keeper) return null
  const lastSign = await stat(file).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  )
  const alive = isHere(keeper.worker) ? isAlive(keeper.worker, lastSign) : Date.now() - lastSign < silence
  return alive ? keeper : null
}

/** Milliseconds without a sign after which a keeper that cannot be looked up is gone: a container that crashed should be back soon. */
const silence = 3 * heartbeat

const fileOf = (path: string) => join(path, 'server')

/** Null too where it is not what this version writes: whoever wrote it is not believed. */
async function read(file: string): Promise<Keeper | null> {
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
