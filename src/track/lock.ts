/**
 * One process keeps a home: `plinth up` runs its loops (lost runs are told, what recipes log is brought to where runs are searched) and
 * answers for it. Who that is stands in the file `server`. A process that is gone keeps nothing: the next one takes over.
 */
import { rm, utimes } from 'node:fs/promises'
import type { Home } from '../db/home.ts'
import { exclusively } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { type Keeper, keeperFile, keeperOf, readKeeper } from './keeper.ts'
import { withReserve } from './reserve.ts'
import { heartbeat, thisProcess } from './worker.ts'

export { Keeper, keeperOf } from './keeper.ts'

export interface Keeping {
  /** Says where this process answers. */
  announce(url: string): Promise<void>
  release(): Promise<void>
}

/** This process keeps the home until it says otherwise or ends. throws home_held while another one does */
export async function keepHome(home: Home): Promise<Keeping> {
  const file = keeperFile(home.path)
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
      const kept = await readKeeper(file)
      if (kept?.worker.pid === keeper.worker.pid && kept.worker.birth === keeper.worker.birth) await rm(file, { force: true })
    },
  }
}
