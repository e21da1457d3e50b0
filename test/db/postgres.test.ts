import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { sql } from 'kysely'
import { connectTo, exclusively, openDatabase } from '../../src/db/open.ts'
import { newDatabase, postgresMissing, startPostgres } from './databases.ts'

const skip = postgresMissing ?? false
let server: ReturnType<typeof startPostgres> | null = null
const fresh = async () => {
  server ??= startPostgres()
  return await newDatabase(await server)
}
async function opened(t: TestContext) {
  const db = await openDatabase(await fresh())
  t.after(() => db.destroy())
  return db
}

test('a server that is not there, a user and a database that are not: each is told, without the password', { skip }, async () => {
  const url = new URL(await fresh())
  const addresses = [
    `postgres://plinth:hidden@127.0.0.1:9${url.pathname}`,
    `postgres://nobody:hidden@${url.host}${url.pathname}`,
    `postgres://plinth:hidden@${url.host}/nowhere`,
  ]
  for (const address of addresses)
    await assert.rejects(openDatabase(address), (error: { code: string; message: string; next: string }) => {
      assert.equal(error.code, 'database_unreachable')
      assert.match(error.message, /postgres:\/\/\w+@127/)
      assert.doesNotMatch(JSON.stringify(error), /hidden/)
      return true
    })
})

test('after a restart of the server the same pool works again; in between it says that nobody answers', { skip }, async t => {
  const own = await startPostgres()
  const db = await openDatabase(await newDatabase(own))
  t.after(() => db.destroy())
  const count = async () => (await db.selectFrom('projects').selectAll().execute()).length
  assert.equal(await count(), 1)
  const holding = db.transaction().execute(async transaction => {
    await transaction.selectFrom('projects').selectAll().execute()
    await own.stop()
    await transaction.selectFrom('projects').selectAll().execute()
  })
  await assert.rejects(holding, { code: 'database_unreachable' })
  await assert.rejects(count(), { code: 'database_unreachable' })
  await own.start()
  assert.equal(await count(), 1)
  await own.stop()
})

test('a statement that takes too long is given up, and whoever was refused the right is told', { skip }, async t => {
  const db = await opened(t)
  await assert.rejects(
    db.transaction().execute(async transaction => {
      await sql`set local statement_timeout = 20`.execute(transaction)
      await sql`select pg_sleep(20)`.execute(transaction)
    }),
    { code: 'database_slow' },
  )
  await sql`create role reader`.execute(db)
  await assert.rejects(
    db.transaction().execute(async transaction => {
      await sql`set local role reader`.execute(transaction)
      await transaction.selectFrom('tokens').selectAll().execute()
    }),
    { code: 'not_permitted' },
  )
  await assert.rejects(
    db
      .transaction()
      .setAccessMode('read only')
      .execute(transaction => transaction.insertInto('projects').values({ id: 'x', created: '' }).execute()),
    { code: 'read_only' },
  )
  await assert.rejects(sql`selec`.execute(db), /syntax error/)
})

test('two that wait for each other: one is told to try again', { skip }, async t => {
  const db = await opened(t)
  for (const id of ['a', 'b']) await db.insertInto('projects').values({ id, created: '' }).execute()
  const met = Array.from({ length: 2 }, () => Promise.withResolvers<void>())
  const lock = (mine: string, theirs: string, at: number) =>
    db.transaction().execute(async transaction => {
      const touch = (id: string) => transaction.updateTable('projects').set({ created: mine }).where('id', '=', id).execute()
      await touch(mine)
      met[at]!.resolve()
      await met[1 - at]!.promise
      await touch(theirs)
    })
  const [one, other] = await Promise.allSettled([lock('a', 'b', 0), lock('b', 'a', 1)])
  const failed = [one, other].filter(each => each.status === 'rejected')
  assert.equal(failed.length, 1)
  assert.equal((failed[0] as PromiseRejectedResult).reason.code, 'database_busy')
})

test('what runs exclusively does so from every connection', { skip }, async () => {
  const target = await fresh()
  const pools = await Promise.all([openDatabase(target), openDatabase(target)])
  await sql`create table counter (n bigint not null)`.execute(pools[0])
  await sql`insert into counter values (0)`.execute(pools[0])
  await Promise.all(
    Array.from({ length: 40 }, (_, i) =>
      exclusively(pools[i % 2]!, async db => {
        const { rows } = await sql<{ n: number }>`select n from counter`.execute(db)
        await sql`update counter set n = ${rows[0]!.n + 1}`.execute(db)
      }),
    ),
  )
  assert.equal((await sql<{ n: number }>`select n from counter`.execute(pools[0])).rows[0]!.n, 40)
  for (const pool of pools) await pool.destroy()
})

test('an address that is none is refused before anybody is asked', { skip }, async () => {
  const db = await connectTo('postgres://127.0.0.1:9/x')
  await assert.rejects(db.selectFrom('projects').selectAll().execute(), { code: 'database_unreachable' })
  await db.destroy()
})
