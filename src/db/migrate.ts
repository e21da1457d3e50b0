/** Brings a database from one schema to the next and back, whole or not at all. */
import { rename, rm } from 'node:fs/promises'
import { sql, type Transaction } from 'kysely'
import { Failure } from '../failure.ts'
import { storageFailure, temporaryPath } from '../storage/disk.ts'
import { forPostgres, forSqlite, isPostgres } from './dialect.ts'
import { type Migration, migrations, type Schema } from './schema.ts'
import { connect, type Db } from './sqlite.ts'

/**
 * Applies what is missing, in one transaction; processes that start together apply it once. A database that holds anything is
 * first copied beside itself, as `plinth.db.before-002-…`, while nobody can write. throws home_too_new
 */
export async function migrate(db: Db, path: string, known: readonly Migration[] = migrations): Promise<void> {
  if (missing(await appliedTo(db), known, path).length === 0) return
  const speak = isPostgres(path) ? forPostgres : forSqlite
  await db.transaction().execute(async transaction => {
    if (isPostgres(path)) await sql`select pg_advisory_xact_lock(7005)`.execute(transaction) // processes that start together
    const table = 'create table if not exists migrations (id integer primary key, name text not null unique, applied text not null) strict'
    await sql.raw(speak(table)).execute(transaction)
    const applied = await appliedTo(transaction)
    const next = missing(applied, known, path)
    if (next.length > 0 && applied.length > 0 && path !== ':memory:' && !isPostgres(path))
      await backUp(path, `${path}.before-${next[0]!.name}`)
    for (const migration of next) {
      for (const statement of migration.up) await sql.raw(speak(statement)).execute(transaction)
      await transaction.insertInto('migrations').values({ name: migration.name, applied: new Date().toISOString() }).execute()
    }
  })
}

/** Takes the newest migrations back, down to and without `name`: for a return to the Plinth before it. What they added is lost. */
export async function goBackBefore(db: Db, name: string, known: readonly Migration[] = migrations): Promise<void> {
  await db.transaction().execute(async transaction => {
    const applied = new Set(await appliedTo(transaction))
    for (const migration of known.slice(known.findIndex(migration => migration.name === name)).toReversed()) {
      if (!applied.has(migration.name)) continue
      for (const statement of migration.down) await sql.raw(forSqlite(statement)).execute(transaction)
      await transaction.deleteFrom('migrations').where('name', '=', migration.name).execute()
    }
  })
}

async function appliedTo(db: Db | Transaction<Schema>): Promise<string[]> {
  const tables = await db.introspection.getTables()
  if (!tables.some(({ name }) => name === 'migrations')) return []
  return (await db.selectFrom('migrations').select('name').orderBy('id').execute()).map(row => row.name)
}

function missing(applied: readonly string[], known: readonly Migration[], path: string): Migration[] {
  const stranger = applied.find(name => !known.some(migration => migration.name === name))
  if (stranger) throw new Failure('home_too_new', { path, found: stranger, known: known.at(-1)!.name })
  return known.filter(migration => !applied.includes(migration.name))
}

/** By a second connection: the first one is in its transaction, and keeps every other writer out. */
async function backUp(path: string, to: string): Promise<void> {
  const part = temporaryPath(to)
  const reader = await connect(path)
  try {
    await sql`vacuum into ${part}`.execute(reader)
    await rename(part, to)
  } catch (error) {
    await rm(part, { force: true }).catch(() => {})
    throw storageFailure(error, to)
  } finally {
    await reader.destroy()
  }
}
