import { CompiledQuery, type RawBuilder, sql } from 'kysely'
import { isPostgres } from './dialect.ts'
import { migrate } from './migrate.ts'
import { asLists, connect, type Db } from './sqlite.ts'

export type { Db } from './sqlite.ts'

/**
 * `target`: a file, made on first use, `:memory:`, or postgres://… Brings the schema up to date, after a copy: of a file beside it, of
 * PostgreSQL into the folder `backups`.
 * throws home_too_new, home_damaged, home_busy, disk_full, read_only, not_permitted, database_unreachable
 */
export async function openDatabase(target: string, { backups }: { backups?: string } = {}): Promise<Db> {
  const db = await connectTo(target)
  try {
    await migrate(db, target, { ...(backups && { backups }) })
    return db
  } catch (error) {
    await db.destroy()
    throw error
  }
}

/** The database as it is, whatever its schema. */
export const connectTo = async (target: string): Promise<Db> =>
  isPostgres(target) ? (await import('./postgres.ts')).connectPostgres(target) : await connect(target)

/** A transaction that no other one of these runs beside, in any process: SQLite has one writer anyway, PostgreSQL is given a lock. */
export const exclusively = <T>(db: Db, work: (db: Db) => Promise<T>): Promise<T> =>
  db.transaction().execute(async transaction => {
    if (speaksPostgres(db)) await sql`select pg_advisory_xact_lock(7006)`.execute(transaction)
    return await work(transaction)
  })

/** Rows as lists of their values, in the order of the columns. */
export async function selectLists<Row extends readonly unknown[]>(db: Db, query: RawBuilder<unknown>): Promise<Row[]> {
  const { sql: text, parameters } = query.compile(db)
  if (!speaksPostgres(db)) return (await db.executeQuery(CompiledQuery.raw(`${asLists}${text}`, [...parameters]))).rows as Row[]
  const { rows } = await query.execute(db)
  return rows.map(row => Object.values(row as object) as unknown as Row)
}

/** In the caller's transaction, where there is one. */
export const inTransaction = <T>(db: Db, work: (db: Db) => Promise<T>): Promise<T> =>
  db.isTransaction ? work(db) : db.transaction().execute(work)

/** By the dialect it was made with: the one of PostgreSQL changes schemas inside transactions. */
export const speaksPostgres = (db: Db): boolean => db.getExecutor().adapter.supportsTransactionalDdl === true
