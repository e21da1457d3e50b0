/** SQLite inside this process, in write-ahead mode, so that commands and trainings read and write at the same time. */
import { copyFileSync, existsSync } from 'node:fs'
import { CompiledQuery, Kysely, SqliteDialect, sql } from 'kysely'
import { storageFailure } from '../storage/disk.ts'
import { type Migration, migrations, type Schema } from './schema.ts'

export type Db = Kysely<Schema>

/** `path`: a file, or `:memory:`. Brings the schema up to date, after a copy of the file beside it. */
export async function openDatabase(path: string): Promise<Db> {
  const { DatabaseSync } = await importQuietly()
  let database: InstanceType<typeof DatabaseSync>
  try {
    database = new DatabaseSync(path, { enableDoubleQuotedStringLiterals: false, allowExtension: false, timeout: 10_000 })
    database.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma trusted_schema = off')
  } catch (error) {
    throw sqliteFailure(error, path)
  }
  const db = new Kysely<Schema>({
    dialect: new SqliteDialect({
      database: {
        prepare: text => {
          const statement = database.prepare(text)
          return {
            reader: statement.columns().length > 0,
            all: parameters => statement.all(...(parameters as never[])),
            run: parameters => {
              const { changes, lastInsertRowid } = statement.run(...(parameters as never[]))
              return { changes: BigInt(changes), lastInsertRowid: BigInt(lastInsertRowid) }
            },
            iterate: parameters => statement.iterate(...(parameters as never[])) as IterableIterator<never>,
          }
        },
        close: () => database.close(),
      },
    }),
  })
  await migrate(db, path)
  return db
}

/** node:sqlite announces itself as experimental on every start; users can do nothing with that line. */
async function importQuietly() {
  const { emitWarning } = process
  process.emitWarning = (warning, ...rest) => {
    if (!String(warning).startsWith('SQLite is an experimental feature')) Reflect.apply(emitWarning, process, [warning, ...rest])
  }
  try {
    return await import('node:sqlite')
  } finally {
    process.emitWarning = emitWarning
  }
}

async function migrate(db: Db, path: string): Promise<void> {
  await sql`create table if not exists migrations (id integer primary key, name text not null unique, applied text not null) strict`.execute(
    db,
  )
  const applied = new Set((await db.selectFrom('migrations').select('name').execute()).map(row => row.name))
  const missing = migrations.filter(migration => !applied.has(migration.name))
  if (missing.length === 0) return
  if (applied.size > 0 && existsSync(path)) {
    await sql`pragma wal_checkpoint(truncate)`.execute(db)
    copyFileSync(path, `${path}.before-${missing[0]!.name}`)
  }
  for (const migration of missing) await apply(db, migration, 'up')
}

/** One migration, whole or not at all; two processes that start together apply it once. */
export async function apply(db: Db, migration: Migration, direction: 'up' | 'down'): Promise<void> {
  await db.connection().execute(async connection => {
    await connection.executeQuery(CompiledQuery.raw('begin immediate'))
    try {
      const known = await connection.selectFrom('migrations').select('id').where('name', '=', migration.name).executeTakeFirst()
      if ((direction === 'up') === (known === undefined)) {
        for (const statement of migration[direction]) await connection.executeQuery(CompiledQuery.raw(statement))
        if (direction === 'up')
          await connection.insertInto('migrations').values({ name: migration.name, applied: new Date().toISOString() }).execute()
        else await connection.deleteFrom('migrations').where('name', '=', migration.name).execute()
      }
      await connection.executeQuery(CompiledQuery.raw('commit'))
    } catch (error) {
      await connection.executeQuery(CompiledQuery.raw('rollback'))
      throw error
    }
  })
}

/** SQLite's own words for a full or write-protected disk. */
export function sqliteFailure(error: unknown, path: string) {
  const number = (error as { errcode?: number }).errcode ?? 0
  const code = { 13: 'ENOSPC', 8: 'EROFS', 14: 'EACCES' }[number & 0xff]
  return storageFailure(code ? Object.assign(new Error(String(error), { cause: error }), { code }) : error, path)
}
