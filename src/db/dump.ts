/**
 * A database as lines of JSON, the same for SQLite and PostgreSQL: a head with the migrations that made the schema, then each table's
 * name and columns and its rows as lists, then the number of rows. Nothing in it is run: the tables are made by our own migrations, the
 * rows are bound values. So it may come from a stranger, from another version of PostgreSQL, or from SQLite on the way to PostgreSQL.
 */
import { createReadStream } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip } from 'node:zlib'
import { CompiledQuery, sql, type Transaction } from 'kysely'
import { z } from 'zod'
import { Failure } from '../failure.ts'
import { storageFailure, temporaryPath } from '../storage/disk.ts'
import type { Schema } from './schema.ts'
import { migrations } from './schema.ts'
import type { Db } from './sqlite.ts'

type Transacted = Db | Transaction<Schema>
interface Table {
  name: string
  columns: string[]
}

const Head = z.strictObject({ plinth_database: z.literal(1), migrations: z.array(z.string().max(100)).min(1).max(1000) })
const TableLine = z.strictObject({ table: z.string().max(100), columns: z.array(z.string().max(100)).min(1).max(100) })
const Row = z.array(z.union([z.string(), z.number(), z.null()]))
const End = z.strictObject({ rows: z.int().min(0) })

/** The tables that hold something of ours, those that others refer to first. */
export async function tablesOf(db: Transacted): Promise<Table[]> {
  const made = migrations.flatMap(({ up }) =>
    up.flatMap(statement => (typeof statement === 'string' ? (/^create table (\w+)/.exec(statement)?.[1] ?? []) : [])),
  )
  const found = await db.introspection.getTables()
  return found
    .filter(({ name }) => name !== 'migrations')
    .map(({ name, columns }) => ({ name, columns: columns.map(column => column.name) }))
    .sort((a, b) => made.lastIndexOf(a.name) - made.lastIndexOf(b.name))
}

// ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** As a compressed file, whole or not there. `db`: a transaction that sees one moment. Answers the number of rows. throws disk_full … */
export async function writeDump(db: Transacted, applied: readonly string[], to: string): Promise<number> {
  const part = temporaryPath(to)
  let rows = 0
  async function* lines() {
    yield `${JSON.stringify({ plinth_database: 1, migrations: [...applied] } satisfies z.infer<typeof Head>)}\n`
    for (const table of await tablesOf(db)) {
      yield `${JSON.stringify({ table: table.name, columns: table.columns })}\n`
      for await (const some of rowsOf(db, table)) {
        rows += some.length
        yield some.map(row => `${JSON.stringify(table.columns.map(name => row[name]))}\n`).join('')
      }
    }
    yield `${JSON.stringify({ rows })}\n`
  }
  try {
    const file = await open(part, 'wx', 0o600)
    try {
      await pipeline(Readable.from(lines()), createGzip({ level: 1 }), async source => {
        for await (const chunk of source) await file.writeFile(chunk as Uint8Array)
      })
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(part, to)
    return rows
  } catch (error) {
    await rm(part, { force: true }).catch(() => {})
    throw storageFailure(error, to)
  }
}

/** In constant memory: by a cursor where the rows would otherwise arrive all at once. */
async function* rowsOf(db: Transacted, { name, columns }: Table): AsyncGenerator<Record<string, unknown>[]> {
  if (!db.getExecutor().adapter.supportsTransactionalDdl) {
    const some: Record<string, unknown>[] = []
    for await (const row of db
      .selectFrom(name as 'projects')
      .select(columns as 'id'[])
      .stream()) {
      some.push(row)
      if (some.length >= atOnce) yield some.splice(0)
    }
    return yield some
  }
  const select = `select ${columns.map(column => `"${column}"`).join(', ')} from "${name}"`
  await sql.raw(`declare dumping no scroll cursor for ${select}`).execute(db)
  for (;;) {
    const { rows } = await sql.raw<Record<string, unknown>>(`fetch ${atOnce} from dumping`).execute(db)
    if (rows.length === 0) break
    yield rows
  }
  await sql.raw('close dumping').execute(db)
}
const atOnce = 5000

// ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The names of the migrations that a dump was made after. throws dump_damaged */
export async function dumpedMigrations(path: string): Promise<string[]> {
  for await (const line of linesOf(path)) return parsed(Head, line).migrations
  throw new Failure('dump_damaged', { problem: 'it is empty' })
}

/** Fills the tables of a schema that the dump's migrations made, in the caller's transaction. What is in them goes. throws dump_damaged */
export async function readDump(db: Transaction<Schema>, path: string): Promise<number> {
  const tables = await tablesOf(db)
  for (const { name } of tables.toReversed()) await sql.raw(`delete from "${name}"`).execute(db)
  let into: Table | null = null
  let waiting: unknown[][] = []
  let rows = 0
  let ended = false
  let first = true
  const write = async () => {
    if (into) await insert(db, into, waiting)
    waiting = []
  }
  for await (const line of linesOf(path)) {
    if (ended) throw new Failure('dump_damaged', { problem: 'there is something after its end' })
    const value = parseLine(line)
    if (first) parsed(Head, value)
    else if (Array.isArray(value)) {
      const row = parsed(Row, value)
      if (!into || row.length !== into.columns.length) throw new Failure('dump_damaged', { problem: 'a row does not fit its table' })
      waiting.push(row)
      rows++
      if (waiting.length * into.columns.length >= 20_000) await write()
    } else if (typeof value === 'object' && value !== null && 'table' in value) {
      await write()
      const named = parsed(TableLine, value)
      const known = tables.find(({ name }) => name === named.table)
      if (!known || new Set(named.columns).size !== named.columns.length || !named.columns.every(column => known.columns.includes(column)))
        throw new Failure('dump_damaged', { problem: `there is no such table: ${named.table}` })
      into = { name: known.name, columns: named.columns }
    } else {
      await write()
      if (parsed(End, value).rows !== rows) throw new Failure('dump_damaged', { problem: 'rows are missing' })
      ended = true
    }
    first = false
  }
  if (!ended) throw new Failure('dump_damaged', { problem: 'it ends too early' })
  await continueNumbers(db)
  return rows
}

async function insert(db: Transacted, { name, columns }: Table, rows: readonly unknown[][]): Promise<void> {
  if (rows.length === 0) return
  const marks = rows.map((_, i) => `(${columns.map((_, j) => `$${i * columns.length + j + 1}`).join(',')})`).join(',')
  const text = `insert into "${name}" (${columns.map(column => `"${column}"`).join(', ')}) values ${marks}`
  try {
    await db.executeQuery(CompiledQuery.raw(text, rows.flat()))
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure('dump_damaged', { problem: `a row of ${name} is refused: ${(error as Error).message}` }, { cause: error })
  }
}

/** PostgreSQL numbers new rows from a counter of its own; SQLite looks at the table. */
async function continueNumbers(db: Transacted): Promise<void> {
  if (!db.getExecutor().adapter.supportsTransactionalDdl) return
  const { rows } = await sql<{ table_name: string; column_name: string }>`
    select table_name, column_name from information_schema.columns
    where table_schema = current_schema() and is_identity = 'YES'`.execute(db)
  for (const { table_name: table, column_name: column } of rows)
    await sql`select setval(pg_get_serial_sequence(${table}, ${column}), coalesce((select max(${sql.ref(column)}) from ${sql.table(table)}), 0) + 1, false)`.execute(
      db,
    )
}

const longestLine = 64 * 2 ** 20

/** Readline would not tell of a damaged archive. */
async function* linesOf(path: string): AsyncGenerator<string> {
  const source = createReadStream(path)
  const unpacked = source.pipe(createGunzip()).setEncoding('utf8')
  source.once('error', error => unpacked.destroy(error))
  let rest = ''
  try {
    for await (const chunk of unpacked as AsyncIterable<string>) {
      const lines = (rest + chunk).split('\n')
      rest = lines.pop()!
      if (rest.length > longestLine) throw new Failure('dump_damaged', { problem: 'a line is too long' })
      yield* lines
    }
    if (rest !== '') throw new Failure('dump_damaged', { problem: 'it ends too early' })
  } catch (error) {
    if (error instanceof Failure) throw error
    const { code = '' } = error as NodeJS.ErrnoException
    if (code.startsWith('Z_')) throw new Failure('dump_damaged', { problem: 'it cannot be unpacked' }, { cause: error })
    throw storageFailure(error, path)
  } finally {
    source.destroy()
    unpacked.destroy()
  }
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch (error) {
    throw new Failure('dump_damaged', { problem: 'a line is no JSON' }, { cause: error })
  }
}
function parsed<T>(shape: z.ZodType<T>, value: unknown): T {
  const result = shape.safeParse(typeof value === 'string' ? parseLine(value) : value)
  if (!result.success) throw new Failure('dump_damaged', { problem: 'a line is not of this kind' }, { cause: result.error })
  return result.data
}
