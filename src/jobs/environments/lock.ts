/**
 * A lock between processes that the kernel gives up when its holder dies, however it dies: an exclusive transaction of SQLite on an empty file
 * (fcntl locks below). A number in a file would have to be believed, and numbers of processes are used again.
 */
import { closeSync, openSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { storageFailure } from '../../storage/disk.ts'

export interface Lock {
  release(): void
}

/** Milliseconds between two tries. */
const pause = 100

/** Null: another holds it. */
export async function tryLock(path: string): Promise<Lock | null> {
  const { DatabaseSync } = await importQuietly()
  try {
    closeSync(openSync(path, 'ax', 0o600)) // only where it is new: closing a descriptor of a locked file would drop this process's locks
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw storageFailure(error, path)
  }
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    database.exec('pragma journal_mode = memory; begin exclusive') // no journal file beside it: nothing is ever written
  } catch (error) {
    database.close()
    const { errcode, message } = error as { errcode?: number; message: string }
    if (errcode !== undefined && (errcode & 0xff) === busy) return null
    throw storageFailure(new Error(message), path)
  }
  return { release: () => database.close() }
}
const busy = 5

/** Waits for it; `waiting` is called once where that takes time. */
export async function lock(path: string, { waiting, signal }: { waiting?: () => void; signal?: AbortSignal } = {}): Promise<Lock> {
  for (let tries = 0; ; tries++) {
    const held = await tryLock(path)
    if (held) return held
    if (tries === 1) waiting?.()
    await wait(pause, undefined, { signal })
  }
}

/** node:sqlite says on every start that it is experimental; that is not for the reader of a job's log. */
async function importQuietly(): Promise<typeof import('node:sqlite')> {
  const { emitWarning } = process
  process.emitWarning = () => {}
  try {
    return await import('node:sqlite')
  } finally {
    process.emitWarning = emitWarning
  }
}
