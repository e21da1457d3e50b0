import { isPostgres } from './dialect.ts'
import { migrate } from './migrate.ts'
import { connect, type Db } from './sqlite.ts'

export type { Db } from './sqlite.ts'

/**
 * `target`: a file, made on first use, `:memory:`, or postgres://… Brings the schema up to date, after a copy of the file beside it.
 * throws home_too_new, home_damaged, home_busy, disk_full, read_only, not_permitted, database_unreachable
 */
export async function openDatabase(target: string): Promise<Db> {
  const db = isPostgres(target) ? (await import('./postgres.ts')).connectPostgres(target) : await connect(target)
  try {
    await migrate(db, target)
    return db
  } catch (error) {
    await db.destroy()
    throw error
  }
}
