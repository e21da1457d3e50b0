import assert from 'node:assert/strict'
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { sql } from 'kysely'
import { goBackBefore, migrate } from '../../src/db/migrate.ts'
import { type Db, openDatabase } from '../../src/db/open.ts'
import { type Migration, migrations } from '../../src/db/schema.ts'
import { temporaryFolder } from '../track/homes.ts'

const tables = async (db: Db) =>
  (await sql<{ name: string }>`select name from sqlite_schema where type = 'table' order by name`.execute(db)).rows.map(row => row.name)
const addNotes: Migration = { name: '002-notes', up: ['create table notes (text text not null) strict'], down: ['drop table notes'] }
const broken: Migration = { name: '003-broken', up: ['create table half (text text) strict', 'create tabel'], down: [] }
const version = { name: 'birds', version: 1, digest: 'd', images: 1, classes: 1, created: '' }

test('every migration goes up, down and up again', async t => {
  const db = await openDatabase(':memory:')
  t.after(() => db.destroy())
  const up = await tables(db)
  assert.ok(up.includes('runs') && up.includes('model_versions') && up.includes('dataset_versions'))
  for (const { name } of migrations.toReversed()) await goBackBefore(db, ':memory:', name)
  assert.deepEqual(await tables(db), ['migrations'])
  await migrate(db, ':memory:')
  assert.deepEqual(await tables(db), up)
})

test('what is there survives a new migration, with a copy of before; going back leaves the rest as it was', async t => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'plinth.db')
  const db = await openDatabase(path)
  t.after(() => db.destroy())
  await db.insertInto('dataset_versions').values(version).execute()
  const known = [...migrations, addNotes]
  await migrate(db, path, { known })
  assert.ok((await tables(db)).includes('notes'))
  const backup = `${path}.before-002-notes`
  assert.ok(existsSync(backup))
  const before = await openDatabase(backup)
  assert.equal((await tables(before)).includes('notes'), false)
  assert.equal((await before.selectFrom('dataset_versions').selectAll().execute()).length, 1)
  await before.destroy()

  await migrate(db, path, { known }) // nothing left to do
  await goBackBefore(db, path, '002-notes', known)
  assert.equal((await tables(db)).includes('notes'), false)
  assert.equal((await db.selectFrom('dataset_versions').selectAll().execute()).length, 1)
})

test('a migration that fails leaves nothing of itself or of those with it', async t => {
  const db = await openDatabase(':memory:')
  t.after(() => db.destroy())
  const before = await tables(db)
  await assert.rejects(migrate(db, ':memory:', { known: [...migrations, addNotes, broken] }))
  assert.deepEqual(await tables(db), before)
})

test('a database with a migration that is not known here is a newer one’s', async t => {
  const path = join(temporaryFolder(t), 'plinth.db')
  const db = await openDatabase(path)
  await migrate(db, path, { known: [...migrations, addNotes] })
  await db.destroy()
  await assert.rejects(openDatabase(path), { code: 'home_too_new' })
})

test('a file that is no database is told, and not touched', async t => {
  const path = join(temporaryFolder(t), 'plinth.db')
  writeFileSync(path, 'not a database, '.repeat(1000))
  const { size } = statSync(path)
  await assert.rejects(openDatabase(path), { code: 'home_damaged' })
  assert.equal(statSync(path).size, size)
})

test('the database is readable for its user alone, and its tables check what goes in', async t => {
  const folder = temporaryFolder(t)
  const db = await openDatabase(join(folder, 'plinth.db'))
  t.after(() => db.destroy())
  if (process.platform !== 'win32') for (const name of readdirSync(folder)) assert.equal(statSync(join(folder, name)).mode & 0o077, 0, name)
  await db.insertInto('dataset_versions').values(version).execute()
  await assert.rejects(db.insertInto('dataset_versions').values(version).execute(), /UNIQUE/)
  await assert.rejects(
    db
      .insertInto('dataset_versions')
      .values({ ...version, version: 'two' as never })
      .execute(),
    /cannot store TEXT/,
  )
})
