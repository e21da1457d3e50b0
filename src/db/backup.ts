/** A database in one file, as of one moment while others write, and back: SQLite as SQLite, PostgreSQL as a dump of ours. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { Failure } from '../failure.ts'
import { forSqlite, isPostgres, showTarget } from './dialect.ts'
import { dumpedMigrations, readDump, tablesOf, writeDump } from './dump.ts'
import { appliedTo, apply, migrate, missing, vacuumInto } from './migrate.ts'
import { connectTo, type Db } from './open.ts'
import { migrations } from './schema.ts'
import { connect } from './sqlite.ts'

/** What the copy is called: the name says how it is read. */
export const copies = { sqlite: 'database.sqlite', dump: 'database.jsonl.gz' } as const

/** Answers the path of the copy in `folder`. throws disk_full … */
export async function copyDatabase(db: Db, target: string, folder: string): Promise<string> {
  if (!isPostgres(target)) {
    const to = join(folder, copies.sqlite)
    await vacuumInto(db, to)
    return to
  }
  const to = join(folder, copies.dump)
  await db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute(async transaction => {
      await sql`set local statement_timeout = 0`.execute(transaction)
      await writeDump(transaction, await appliedTo(transaction), to)
    })
  return to
}

/**
 * Fills `target` from a copy, which may come from a stranger, and brings it up to date. A SQLite copy fills PostgreSQL too, and the other
 * way round. throws dump_damaged, home_too_new, database_not_empty
 */
export async function restoreDatabase(copy: string, target: string): Promise<void> {
  if (!isPostgres(target) && existsSync(target)) throw new Failure('database_not_empty', { database: target })
  if (copy.endsWith('.jsonl.gz')) return await load(copy, target)
  const source = await connect(copy)
  try {
    await checkSqlite(source)
    const applied = await appliedTo(source)
    if (applied.length === 0) throw new Failure('dump_damaged', { problem: 'it is no database of Plinth' })
    missing(applied, migrations, copy)
    if (!isPostgres(target)) return await vacuumInto(source, target).then(() => upToDate(target))
    const dump = `${copy}.${copies.dump}`
    await writeDump(source, applied, dump)
    await load(dump, target)
  } finally {
    await source.destroy()
  }
}

async function upToDate(target: string): Promise<void> {
  const db = await connectTo(target)
  await migrate(db, target).finally(() => db.destroy())
}

async function load(dump: string, target: string): Promise<void> {
  const applied = await dumpedMigrations(dump)
  const then = migrations.filter(({ name }) => applied.includes(name))
  missing(applied, migrations, dump)
  const db = await connectTo(target)
  try {
    await db.transaction().execute(async transaction => {
      if ((await tablesOf(transaction)).length > 0) throw new Failure('database_not_empty', { database: showTarget(target) })
      if (isPostgres(target)) await sql`set local statement_timeout = 0`.execute(transaction)
      await apply(transaction, target, then)
      await readDump(transaction, dump)
    })
    await migrate(db, target)
  } finally {
    await db.destroy()
  }
}

/** Sound, and nothing in it that runs by itself but what our own migrations put there. throws dump_damaged, home_damaged */
async function checkSqlite(db: Db): Promise<void> {
  const known = new Set(migrations.flatMap(({ up }) => up.map(statement => forSqlite(statement).trim())))
  const { rows } = await sql<{ sql: string }>`
    select sql from sqlite_schema where type in ('trigger', 'view') or sql like 'create virtual%'`.execute(db)
  if (rows.some(row => !known.has(row.sql.trim().replace(/^CREATE TRIGGER/, 'create trigger'))))
    throw new Failure('dump_damaged', { problem: 'it holds a trigger, view or virtual table that is not of Plinth' })
  const checked = await sql<{ integrity_check: string }>`pragma integrity_check(1)`.execute(db)
  if (checked.rows[0]?.integrity_check !== 'ok') throw new Failure('dump_damaged', { problem: 'it is not a sound database' })
}
