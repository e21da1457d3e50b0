import { migrate } from './migrate.ts'
import { connect, type Db } from './sqlite.ts'

export type { Db } from './sqlite.ts'

/**
 * `path`: a file, made on first use, or `:memory:`. Brings the schema up to date, after a copy of the file beside it.
 * throws home_too_new, home_damaged, home_busy, disk_full, read_only, not_permitted
 */
export async function openDatabase(path: string): Promise<Db> {
  const db = await connect(path)
  try {
    await migrate(db, path)
    return db
  } catch (error) {
    await db.destroy()
    throw error
  }
}
