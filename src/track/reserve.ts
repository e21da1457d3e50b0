/**
 * Room that is kept for the moment when the disk is full. Without it nothing could be opened any more, not even to see what may be
 * deleted (SQLite needs some 40 KB for that), and a training that fails for want of space could not say so.
 */
import { randomBytes } from 'node:crypto'
import { access, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../failure.ts'

const size = 256 * 1024
const fileOf = (home: string) => join(home, 'reserve')

/** Makes it where it is missing and there is room. Random, because zeros take no room on some disks. */
export async function keepReserve(home: string): Promise<void> {
  try {
    await access(fileOf(home))
  } catch {
    await writeFile(fileOf(home), randomBytes(size), { mode: 0o600, flag: 'wx' }).catch(async error => {
      if (error.code !== 'EEXIST') await rm(fileOf(home), { force: true }).catch(() => {}) // no half one
    })
  }
}

/** Does `work`, and where the disk is full does it again in the room of the reserve. */
export async function withReserve<T>(home: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'disk_full') throw error
    const freed = await rm(fileOf(home)).then(
      () => true,
      () => false,
    )
    if (!freed) throw error
    return await work()
  }
}
