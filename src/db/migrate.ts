/** Brings a database from one schema to the next and back, whole or not at all. */
import { rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql, type Transaction } from 'kysely'
import { Failure } from '../failure.ts'
import { storageFailure, temporaryPath } from '../storage/disk.ts'
import { forPostgres, forSqlite, isPostgres, showTarget } from './dialect.ts'
import { tablesOf, writeDump } from './dump.ts'
import { type Migration, migrations, type Schema } from './schema.ts'
import { connect, type Db } from './sqlite.ts'

export interface MigrateOptions {
  known?: readonly Migration[]
  /** Where the copy of a PostgreSQL database goes; without it none is made. */
  backups?: string
}

/**
 * Applies what is missing, in one transaction; processes that start together apply it once. A database that holds anything is copied
 * first, while nobody can write: a file beside itself, as `plinth.db.before-002-…`, PostgreSQL into `backups`. throws home_too_new
 */
export async function migrate(db: Db, target: string, { known = migrations, backups }: MigrateOptions = {}): Promise<void> {
  if (missing(await appliedTo(db), known, target).length === 0) return
  await db.transaction().execute(async transaction => {
    if (isPostgres(target)) await sql`select pg_advisory_xact_lock(7005)`.execute(transaction) // processes that start together
    const applied = await appliedTo(transaction)
    const next = missing(applied, known, target)
    if (next.length > 0 && applied.length > 0) {
      if (!isPostgres(target)) await copyFile(target, `${target}.before-${next[0]!.name}`)
      else if (backups) await copyPostgres(transaction, applied, join(backups, `database.before-${next[0]!.name}.jsonl.gz`))
    }
    await apply(transaction, target, next)
  })
}

/** Makes the schema that these migrations make, in a database that has none yet; in the caller's transaction. */
export async function apply(transaction: Transaction<Schema>, target: string, next: readonly Migration[]): Promise<void> {
  const speak = isPostgres(target) ? forPostgres : forSqlite
  const table = 'create table if not exists migrations (id integer primary key, name text not null unique, applied text not null) strict'
  await sql.raw(speak(table)).execute(transaction)
  for (const migration of next) {
    for (const statement of migration.up) await sql.raw(speak(statement)).execute(transaction)
    await transaction.insertInto('migrations').values({ name: migration.name, applied: new Date().toISOString() }).execute()
  }
}

/** Takes the newest migrations back, down to and without `name`: for a return to the Plinth before it. What they added is lost. */
export async function goBackBefore(db: Db, target: string, name: string, known: readonly Migration[] = migrations): Promise<void> {
  const speak = isPostgres(target) ? forPostgres : forSqlite
  await db.transaction().execute(async transaction => {
    const applied = new Set(await appliedTo(transaction))
    for (const migration of known.slice(known.findIndex(migration => migration.name === name)).toReversed()) {
      if (!applied.has(migration.name)) continue
      for (const statement of migration.down) await sql.raw(speak(statement)).execute(transaction)
      await transaction.deleteFrom('migrations').where('name', '=', migration.name).execute()
    }
  })
}

/** Names of the migrations that made this schema, oldest first. */
export async function appliedTo(db: Db | Transaction<Schema>): Promise<string[]> {
  const tables = await db.introspection.getTables()
  if (!tables.some(({ name }) => name === 'migrations')) return []
  return (await db.selectFrom('migrations').select('name').orderBy('id').execute()).map(row => row.name)
}

/** throws home_too_new for one that is not known here */
export function missing(applied: readonly string[], known: readonly Migration[], target: string): Migration[] {
  const stranger = applied.find(name => !known.some(migration => migration.name === name))
  if (stranger) throw new Failure('home_too_new', { path: showTarget(target), found: stranger, known: known.at(-1)!.name })
  return known.filter(migration => !applied.includes(migration.name))
}

/** By a second connection: the first one is in its transaction, and keeps every other writer out. */
async function copyFile(path: string, to: string): Promise<void> {
  if (path === ':memory:') return
  const reader = await connect(path)
  try {
    await vacuumInto(reader, to)
  } finally {
    await reader.destroy()
  }
}

/** A whole copy of a SQLite database while others write, as of one moment. throws disk_full … */
export async function vacuumInto(db: Db, to: string): Promise<void> {
  const part = temporaryPath(to)
  try {
    await writeFile(part, '', { mode: 0o600, flag: 'wx' }) // SQLite would make it readable for everybody
    await sql`vacuum into ${part}`.execute(db)
    await rename(part, to)
  } catch (error) {
    await rm(part, { force: true }).catch(() => {})
    throw storageFailure(error, to)
  }
}

/** Readers go on, writers wait. */
async function copyPostgres(transaction: Transaction<Schema>, applied: readonly string[], to: string): Promise<void> {
  const tables = await tablesOf(transaction)
  await sql.raw(`lock table ${tables.map(({ name }) => `"${name}"`).join(', ')} in exclusive mode`).execute(transaction)
  await writeDump(transaction, applied, to)
}
