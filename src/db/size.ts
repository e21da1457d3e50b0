import { stat } from 'node:fs/promises'
import { sql } from 'kysely'
import { isPostgres } from './dialect.ts'
import type { Home } from './home.ts'

/** Bytes on disk, with what is not yet in its place (SQLite's write-ahead log). */
export async function databaseBytes({ db, target }: Pick<Home, 'db' | 'target'>): Promise<number> {
  if (isPostgres(target)) {
    const { rows } = await sql<{ bytes: number }>`select pg_database_size(current_database()) as bytes`.execute(db)
    return rows[0]!.bytes
  }
  const sizes = await Promise.all(
    [target, `${target}-wal`].map(path =>
      stat(path).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}
