/** Connections of one process keep each other's locks on the file. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { sql } from 'kysely'
import { openDatabase } from '../../src/db/open.ts'
import { connect } from '../../src/db/sqlite.ts'

test('a second connection that comes and goes leaves the first one its locks, so that no other process takes itself for the last', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'locks-')), 'plinth.db')
  const first = await openDatabase(path)
  const add = (key: string) => first.insertInto('metric_keys').values({ key }).execute()
  await add('before')
  const { ino } = statSync(`${path}-wal`)
  const second = await connect(path)
  await second.destroy()
  // whoever closes last moves the -wal into the database and deletes it; with the lock gone this process would write on into a deleted file
  const program = `const { DatabaseSync } = require('node:sqlite'); const db = new DatabaseSync(${JSON.stringify(path)}); db.prepare('select count(*) from metric_keys').get(); db.close()`
  assert.equal(spawnSync(process.execPath, ['--no-warnings', '-e', program], { stdio: 'inherit' }).status, 0)
  assert.equal(statSync(`${path}-wal`).ino, ino)
  await add('after')
  const fresh = await connect(path)
  assert.deepEqual(
    (await fresh.selectFrom('metric_keys').select('key').execute()).map(({ key }) => key),
    ['before', 'after'],
  )
  const { rows } = await sql<{ integrity_check: string }>`pragma integrity_check`.execute(fresh)
  assert.equal(rows[0]?.integrity_check, 'ok')
  await fresh.destroy()
  await first.destroy()
})
