/** Transactions that are not worth a flush of the disk each: many small writes, of which a power cut may cost the last moment. */
import { open } from 'node:fs/promises'
import { CompiledQuery, sql } from 'kysely'
import { type Db, speaksPostgres } from './open.ts'

/** Milliseconds until what was written is flushed: as much as a power cut may cost. */
const flushAfter = 100

export interface RelaxedTransactions {
  /**
   * Like `db.transaction()`. Once it resolves, no kill of this process loses anything, since the system has what was written; a power cut
   * within the next 100 ms may. Nothing is ever half there. PostgreSQL flushes as it is configured to.
   */
  execute<T>(work: (db: Db) => Promise<T>): Promise<T>
  /** Resolves when everything is on disk. */
  close(): Promise<void>
}

export function relaxedTransactions(db: Db): RelaxedTransactions {
  if (speaksPostgres(db)) return { execute: work => db.transaction().execute(work), close: async () => {} }
  let timer: NodeJS.Timeout | undefined
  let flushing: Promise<void> = Promise.resolve()
  const flush = () => {
    timer = undefined
    // a disk that refuses is told by the next transaction, which flushes the same file or writes to it
    flushing = flushing.then(() => flushLog(db)).catch(() => {})
  }
  return {
    execute: work =>
      db.connection().execute(async connection => {
        await connection.executeQuery(relax)
        try {
          return await connection.transaction().execute(work)
        } finally {
          await connection.executeQuery(strict)
          timer ??= setTimeout(flush, flushAfter).unref()
        }
      }),
    async close() {
      if (timer) {
        clearTimeout(timer)
        flush()
      }
      await flushing
    },
  }
}

// other transactions use the same connection, and are on disk when they are answered
const relax = CompiledQuery.raw('pragma synchronous = normal')
const strict = CompiledQuery.raw('pragma synchronous = full')

/**
 * What was committed in write-ahead mode is in the file -wal, and SQLite syncs that before it moves anything into the database itself
 * (sqlite.org/wal.html). So it is enough to sync it from outside, where the main thread does not wait. SQLite holds no lock on this file
 * that closing it here would drop.
 */
async function flushLog(db: Db): Promise<void> {
  const { rows } = await sql<{ file: string }>`select file from pragma_database_list where name = 'main'`.execute(db)
  if (!rows[0]?.file) return // in memory
  const file = await open(`${rows[0].file}-wal`, 'r+').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null // all of it was moved
    throw error
  })
  try {
    await file?.datasync()
  } finally {
    await file?.close()
  }
}
