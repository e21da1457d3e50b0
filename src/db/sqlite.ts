/** SQLite inside this process, in write-ahead mode, so that commands and trainings read and write at the same time. */
import { closeSync, openSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import type { DatabaseSync } from 'node:sqlite'
import {
  CompiledQuery,
  type DatabaseConnection,
  Kysely,
  SqliteDialect,
  type SqliteDialectConfig,
  SqliteDriver,
  type SqliteStatement,
} from 'kysely'
import { Failure } from '../failure.ts'
import { storageFailure } from '../storage/disk.ts'
import type { Schema } from './schema.ts'

export type Db = Kysely<Schema>

/** How long a statement waits for another process's transaction, in milliseconds. Transactions here take a few. */
const patience = 10_000
/** Of that, how long at a time without letting anything else in this process happen. */
const standstill = 10

/** Begins a statement whose rows come as lists of their values: for ten thousand rows half of what objects cost. */
export const asLists = '/* as lists */ '

/**
 * Pages that the log in front of the database (-wal) grows to before they are moved into it, 32 MB. With SQLite's own 1,000 half of a busy
 * server's time went into moving: whoever logs changes the same few pages over and over, and the longer the log, the fewer moves a page takes
 * (docs/inside/tracking.md has the numbers). After a kill the log is read again, some tens of milliseconds.
 */
const longestLog = 8_000

/** Compiled statements that are kept: compiling costs more than a small statement does. */
const mostStatements = 500

/** `path`: a file, made on first use, or `:memory:`. The database as it is, whatever its schema; `openDatabase` is what to call. */
export async function connect(path: string): Promise<Db> {
  const { DatabaseSync } = await importQuietly()
  let database: DatabaseSync | null = null
  try {
    if (path !== ':memory:') makeFile(path)
    database = new DatabaseSync(path, {
      timeout: standstill,
      enableForeignKeyConstraints: true,
      enableDoubleQuotedStringLiterals: false,
      allowExtension: false,
    })
    database.exec('pragma trusted_schema = off')
    inWriteAheadMode(database)
    database.exec(`pragma synchronous = full; pragma wal_autocheckpoint = ${longestLog}`)
  } catch (error) {
    database?.close()
    throw sqliteFailure(error, path)
  }
  return new Kysely<Schema>({ dialect: new Dialect({ database: adapter(database, path) }, () => database.isTransaction) })
}

/**
 * SQLite would make it readable for everybody. One that is there is left alone: closing any descriptor of a file drops all locks that this
 * process has on it, also those of its other connections (sqlite.org/howtocorrupt.html, 2.2).
 */
function makeFile(path: string): void {
  try {
    closeSync(openSync(path, 'ax', 0o600))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** Changing the mode does not wait for other processes as statements do: two that open a new home together would fail. */
function inWriteAheadMode(database: DatabaseSync): void {
  const until = Date.now() + patience
  for (;;) {
    try {
      database.exec('pragma journal_mode = wal')
      return
    } catch (error) {
      if (kindOf(error) !== BUSY || Date.now() > until) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
    }
  }
}

/** What Kysely wants of a database, on node:sqlite, with failures of ours. */
function adapter(database: DatabaseSync, path: string): SqliteDialectConfig['database'] {
  const coded = <T>(work: () => T): T => {
    try {
      return work()
    } catch (error) {
      throw sqliteFailure(error, path)
    }
  }
  const prepare = (text: string) => coded(() => database.prepare(text.replace(/\$(\d+)/g, '?$1'))) // PostgreSQL's form is taken too
  const compiled = (text: string): SqliteStatement => {
    const statement = prepare(text)
    if (text.startsWith(asLists)) statement.setReturnArrays(true)
    return {
      reader: statement.columns().length > 0,
      all: parameters => coded(() => statement.all(...(parameters as never[]))),
      run: parameters => coded(() => statement.run(...(parameters as never[]))),
      *iterate(parameters) {
        const rows = coded(() => prepare(text).iterate(...(parameters as never[]))) // one of its own: others may ask the same meanwhile
        for (let row = coded(() => rows.next()); !row.done; row = coded(() => rows.next())) yield row.value
      },
    }
  }
  const kept = new Map<string, SqliteStatement>()
  return {
    prepare(text) {
      const found = kept.get(text)
      if (found) return found
      if (kept.size >= mostStatements) kept.delete(kept.keys().next().value!)
      const statement = compiled(text)
      if (/^\s*(create|alter|drop)\b/i.test(text))
        kept.clear() // a compiled `select *` would go on with the columns of before
      else kept.set(text, statement)
      return statement
    },
    close: () => database.close(),
  }
}

/**
 * A transaction that reads first and writes later would fail, without waiting, when another process wrote in between: it begins by
 * writing. And whoever waits for another process waits aside, so that a server goes on answering.
 */
class Dialect extends SqliteDialect {
  readonly #config: SqliteDialectConfig
  readonly #inTransaction: () => boolean
  constructor(config: SqliteDialectConfig, inTransaction: () => boolean) {
    super(config)
    this.#config = config
    this.#inTransaction = inTransaction
  }
  override createDriver() {
    const inTransaction = this.#inTransaction
    return new (class extends SqliteDriver {
      #connection: DatabaseConnection | null = null
      override async acquireConnection(): Promise<DatabaseConnection> {
        this.#connection ??= patient(await super.acquireConnection())
        return this.#connection
      }
      override async beginTransaction(connection: DatabaseConnection): Promise<void> {
        await connection.executeQuery(CompiledQuery.raw('begin immediate'))
      }
      override async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
        // a full disk has ended it already; saying so would hide why
        if (inTransaction()) await super.rollbackTransaction(connection)
      }
    })(this.#config)
  }
}

/** What another process kept from happening changed nothing, and can be tried again. */
const patient = (connection: DatabaseConnection): DatabaseConnection => ({
  async executeQuery<R>(query: CompiledQuery) {
    const until = Date.now() + patience
    for (;;) {
      try {
        return await connection.executeQuery<R>(query)
      } catch (error) {
        if (!(error instanceof Failure) || error.code !== 'home_busy' || Date.now() > until) throw error
        await new Promise(resolve => setTimeout(resolve, standstill * Math.random()))
      }
    }
  },
  streamQuery: (query, size) => connection.streamQuery(query, size),
})

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

// sqlite.org/rescode.html
const [BUSY, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB] = [5, 8, 10, 11, 13, 14, 26]
const kindOf = (error: unknown) => ((error as { errcode?: number }).errcode ?? 0) & 0xff

/** What SQLite's refusal means to the user. A constraint or a mistake in the SQL is not the user's and stays as it is. */
function sqliteFailure(error: unknown, path: string): unknown {
  const as = (code: string) => storageFailure(Object.assign(new Error(String(error), { cause: error }), { code }), path)
  if ((error as NodeJS.ErrnoException).syscall) return storageFailure(error, path)
  switch (kindOf(error)) {
    case FULL:
      return as('ENOSPC')
    case READONLY:
      return as('EROFS')
    case CANTOPEN:
      return as('EACCES')
    case IOERR:
      return as(isFull(path) ? 'ENOSPC' : 'EIO')
    case BUSY:
      return new Failure('home_busy', { path, seconds: patience / 1000 }, { cause: error })
    case CORRUPT:
    case NOTADB:
      return new Failure('home_damaged', { path }, { cause: error })
    default:
      return error
  }
}

/** For want of room beside the database (its -shm and -wal) SQLite speaks of input and output. */
function isFull(path: string): boolean {
  const { bavail, bsize } = statfsSync(dirname(path))
  return bavail * bsize < 64 * 1024
}
