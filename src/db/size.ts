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

/**
 * Gives pages that deletions left empty back to the disk, where that is worth it: SQLite fills them again otherwise. Others wait meanwhile,
 * and the file is written anew beside itself, so nobody calls it under a server. Answers the bytes freed.
 */
export async function shrinkDatabase({ db, target }: Pick<Home, 'db' | 'target'>, { least = 16 * 2 ** 20 } = {}): Promise<number> {
  if (isPostgres(target)) return 0 // autovacuum does it
  const pragma = async (name: string) => Number(Object.values((await sql.raw(`pragma ${name}`).execute(db)).rows[0]!)[0])
  const [empty, pages, size] = [await pragma('freelist_count'), await pragma('page_count'), await pragma('page_size')]
  if (empty * size < least || empty * 5 < pages) return 0
  await sql`vacuum`.execute(db)
  await sql.raw('pragma wal_checkpoint(truncate)').execute(db)
  return empty * size
}
