import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { sql } from 'kysely'
import { type Db, openDatabase } from '../../src/db/open.ts'
import { migrations } from '../../src/db/schema.ts'
import { temporaryFolder } from '../track/homes.ts'

const opener = new URL('./opener.ts', import.meta.url).pathname
const run = promisify(execFile)

const newPath = (t: TestContext) => join(temporaryFolder(t), 'plinth.db')

async function opened(t: TestContext, path: string): Promise<Db> {
  const db = await openDatabase(path)
  t.after(() => db.destroy())
  return db
}

const dataset = { name: 'birds', version: 1, digest: 'd', images: 3, classes: 2, created: '2026-11-25T00:00:00.000Z' }

test('it is durable and trusts nothing in the file', async t => {
  const path = newPath(t)
  const db = await opened(t, path)
  const pragma = async (name: string) => Object.values((await sql.raw(`pragma ${name}`).execute(db)).rows[0]!)[0]
  assert.equal(await pragma('journal_mode'), 'wal')
  assert.equal(await pragma('synchronous'), 2)
  assert.equal(await pragma('foreign_keys'), 1)
  assert.equal(await pragma('trusted_schema'), 0)
  await assert.rejects(sql.raw('select "a text in double quotes"').execute(db), /no such column/)
  await assert.rejects(sql.raw("select load_extension('x')").execute(db), /not authorized|no such function/)
})

test('rows can be streamed, and a statement that is wrong stays the mistake that it is', async t => {
  const db = await opened(t, ':memory:')
  for (const version of [1, 2, 3])
    await db
      .insertInto('dataset_versions')
      .values({ ...dataset, version })
      .execute()
  const seen: number[] = []
  for await (const row of db.selectFrom('dataset_versions').select('version').orderBy('version').stream()) seen.push(row.version)
  assert.deepEqual(seen, [1, 2, 3])
  await assert.rejects(db.insertInto('dataset_versions').values(dataset).execute(), /UNIQUE constraint failed/)
  await assert.rejects(sql.raw('selec').execute(db), /syntax error/)
})

test('eight processes that open a new database together all find it ready', async t => {
  const path = newPath(t)
  const outputs = await Promise.all(Array.from({ length: 8 }, () => run(process.execPath, [opener, path, '0'])))
  for (const { stderr } of outputs) assert.equal(stderr, '', 'and nobody is told that SQLite is experimental')
  const db = await opened(t, path)
  assert.deepEqual(
    (await db.selectFrom('migrations').select('name').execute()).map(row => row.name),
    migrations.map(migration => migration.name),
  )
})

test('other warnings than the one about SQLite still come through', async () => {
  const program = `
    const opened = import(${JSON.stringify(new URL('../../src/db/open.ts', import.meta.url).href)}).then(db => db.openDatabase(':memory:'))
    process.emitWarning('something else')
    await opened`
  const { stderr } = await run(process.execPath, ['--input-type=module', '-e', program])
  assert.match(stderr, /something else/)
  assert.doesNotMatch(stderr, /SQLite/)
})

test('transactions of several processes follow one another, also when they read before they write', async t => {
  const path = newPath(t)
  const db = await opened(t, path)
  await sql`create table counter (n integer not null) strict`.execute(db)
  await sql`insert into counter values (0)`.execute(db)
  await Promise.all(Array.from({ length: 4 }, () => run(process.execPath, [opener, path, '50'])))
  assert.equal((await sql<{ n: number }>`select n from counter`.execute(db)).rows[0]!.n, 200)
})

test('a database that another program holds too long is said to be busy', {
  skip: process.env['PLINTH_TEST'] !== 'long' && 'takes 10 s: PLINTH_TEST=long',
}, async t => {
  const path = newPath(t)
  const db = await opened(t, path)
  const other = await opened(t, path)
  await db.transaction().execute(async () => {
    await assert.rejects(other.insertInto('dataset_versions').values(dataset).execute(), { code: 'home_busy' })
  })
})
