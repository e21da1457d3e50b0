import assert from 'node:assert/strict'
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { sql } from 'kysely'
import { restoreDatabase } from '../../src/db/backup.ts'
import { goBackBefore, migrate } from '../../src/db/migrate.ts'
import { connectTo, type Db, openDatabase } from '../../src/db/open.ts'
import { type Migration, migrations } from '../../src/db/schema.ts'
import { temporaryFolder } from '../track/homes.ts'
import { databases } from './databases.ts'

const shape = async (db: Db) =>
  (await db.introspection.getTables())
    .map(
      ({ name, columns }) => `${name} (${columns.map(column => `${column.name} ${column.isNullable ? 'null' : 'not null'}`).join(', ')})`,
    )
    .sort()
const tables = async (db: Db) => (await shape(db)).map(line => line.split(' ', 1)[0]!)
const addNotes: Migration = { name: '002-notes', up: ['create table notes (text text not null) strict'], down: ['drop table notes'] }
const broken: Migration = { name: '003-broken', up: ['create table half (text text) strict', 'create tabel'], down: [] }
const version = { name: 'birds', version: 1, digest: 'd', images: 1, classes: 1, created: '' }

for (const { kind, missing, target } of databases()) {
  const on = (name: string, work: (t: TestContext, path: string) => Promise<void>) =>
    test(`${kind}: ${name}`, { skip: missing ?? false }, async t => work(t, await target()))
  const opened = async (t: TestContext, path: string, backups?: string) => {
    const db = await openDatabase(path, { ...(backups && { backups }) })
    t.after(() => db.destroy())
    return db
  }

  on('every migration goes up, down and up again', async (t, path) => {
    const db = await opened(t, path)
    const up = await shape(db)
    assert.ok(['runs', 'model_versions', 'dataset_versions', 'tracked_runs'].every(name => up.some(line => line.startsWith(`${name} `))))
    for (const { name } of migrations.toReversed()) await goBackBefore(db, path, name)
    assert.deepEqual(await tables(db), ['migrations'])
    await migrate(db, path)
    assert.deepEqual(await shape(db), up)
  })

  on('each step back leaves the schema that was there before the step', async (t, path) => {
    const db = await connectTo(path)
    t.after(() => db.destroy())
    const before: string[][] = []
    for (const [i] of migrations.entries()) {
      await migrate(db, path, { known: migrations.slice(0, i + 1) })
      before.push(await shape(db))
    }
    for (const { name } of migrations.toReversed()) {
      assert.deepEqual(await shape(db), before.pop(), name)
      await goBackBefore(db, path, name)
    }
  })

  on('what is there survives a new migration, with a copy of before; going back leaves the rest as it was', async (t, path) => {
    const folder = temporaryFolder(t)
    const db = await opened(t, path)
    await db.insertInto('dataset_versions').values(version).execute()
    const known = [...migrations, addNotes]
    await migrate(db, path, { known, backups: folder })
    assert.ok((await tables(db)).includes('notes'))
    const backup = kind === 'SQLite' ? `${path}.before-002-notes` : join(folder, 'database.before-002-notes.jsonl.gz')
    assert.ok(existsSync(backup))
    assert.equal(statSync(backup).mode & 0o077, 0)
    const again = join(folder, 'again.db')
    await restoreDatabase(backup, again)
    const before = await opened(t, again)
    assert.equal((await tables(before)).includes('notes'), false)
    assert.equal((await before.selectFrom('dataset_versions').selectAll().execute()).length, 1)

    await migrate(db, path, { known }) // nothing left to do
    await goBackBefore(db, path, '002-notes', known)
    assert.equal((await tables(db)).includes('notes'), false)
    assert.equal((await db.selectFrom('dataset_versions').selectAll().execute()).length, 1)
  })

  on('a migration that fails leaves nothing of itself or of those with it', async (t, path) => {
    const db = await opened(t, path)
    const before = await shape(db)
    await assert.rejects(migrate(db, path, { known: [...migrations, addNotes, broken] }))
    assert.deepEqual(await shape(db), before)
  })

  on('a database with a migration that is not known here is a newer one’s, and its address is told without a password', async (_, path) => {
    const db = await openDatabase(path)
    await migrate(db, path, { known: [...migrations, addNotes] })
    await db.destroy()
    const withPassword = path.replace('plinth@', 'plinth:hidden@')
    await assert.rejects(openDatabase(withPassword), (error: { code: string; message: string }) => {
      assert.equal(error.code, 'home_too_new')
      assert.doesNotMatch(error.message, /hidden/)
      return true
    })
  })

  on('six that open a new database together all find it ready', async (_, path) => {
    const opened = await Promise.all(Array.from({ length: 6 }, () => openDatabase(path)))
    for (const db of opened) {
      assert.equal((await db.selectFrom('migrations').selectAll().execute()).length, migrations.length)
      await db.destroy()
    }
  })

  on('its tables check what goes in', async (t, path) => {
    const db = await opened(t, path)
    await db.insertInto('dataset_versions').values(version).execute()
    await assert.rejects(db.insertInto('dataset_versions').values(version).execute(), /unique/i)
    const wrong = { ...version, version: 'two' as never }
    await assert.rejects(db.insertInto('dataset_versions').values(wrong).execute(), /cannot store TEXT|invalid input syntax/)
    await sql`select 1`.execute(db)
  })
}

test('a file that is no database is told, and not touched', async t => {
  const path = join(temporaryFolder(t), 'plinth.db')
  writeFileSync(path, 'not a database, '.repeat(1000))
  const { size } = statSync(path)
  await assert.rejects(openDatabase(path), { code: 'home_damaged' })
  assert.equal(statSync(path).size, size)
})

test('the database is readable for its user alone', { skip: process.platform === 'win32' }, async t => {
  const folder = temporaryFolder(t)
  const db = await openDatabase(join(folder, 'plinth.db'))
  t.after(() => db.destroy())
  for (const name of readdirSync(folder)) assert.equal(statSync(join(folder, name)).mode & 0o077, 0, name)
})
