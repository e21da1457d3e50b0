/** The log of deeds cannot be changed, by nobody who has only SQL, on either database. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from 'kysely'
import { listAudit } from '../../src/accounts/audit.ts'
import { record } from '../../src/db/audit.ts'
import { databases } from '../db/databases.ts'

for (const { kind, missing, open } of databases())
  test(`${kind}: what was done stays as it was written`, async t => {
    if (missing) return t.skip(missing)
    const db = await open()
    t.after(() => db.destroy())
    const deed = (subject: string) => ({
      project: 'default',
      user: 'ada',
      action: 'models.promote',
      subject,
      details: { reason: 'better' },
    })
    for (const subject of ['one', 'two', 'three']) await record(db, deed(subject))
    const before = await listAudit(db, 'default', { limit: 10 })
    assert.deepEqual(
      before.items.map(({ subject }) => subject),
      ['three', 'two', 'one'],
    )
    const attempts = [
      sql`update audit set details = '{}'`,
      sql`update audit set "user" = 'eve' where subject = 'two'`,
      sql`delete from audit where subject = 'one'`,
      sql`delete from audit`,
      ...(kind === 'SQLite'
        ? [sql`insert or replace into audit select id, at, project, 'eve', action, subject, details from audit`]
        : [
            sql`truncate audit`,
            sql`insert into audit select id, at, project, 'eve', action, subject, details from audit on conflict (id) do update set "user" = 'eve'`,
          ]),
    ]
    for (const attempt of attempts) await assert.rejects(attempt.execute(db), /only appended to/, attempt.compile(db).sql)
    // a deed whose log entry is tampered with in the same transaction does not happen either
    await assert.rejects(
      db.transaction().execute(async transaction => {
        await record(transaction, deed('four'))
        await sql`delete from audit where subject = 'four'`.execute(transaction)
      }),
      /only appended to/,
    )
    assert.deepEqual(await listAudit(db, 'default', { limit: 10 }), before)
    assert.deepEqual((await listAudit(db, 'other', { limit: 10 })).items, [])
    const page = await listAudit(db, 'default', { limit: 2 })
    const rest = await listAudit(db, 'default', { limit: 2, after: page.next! })
    assert.deepEqual([...page.items, ...rest.items], before.items)
    assert.equal(rest.next, null)
    // of one model with all its versions
    for (const subject of ['one@1', 'one@2', 'one more', 'ONE@3']) await record(db, deed(subject))
    assert.deepEqual(
      (await listAudit(db, 'default', { limit: 10, subject: 'one' })).items.map(({ subject }) => subject),
      ['one@2', 'one@1', 'one'],
    )
  })
