/** For database.test.ts: opens the database, adds one to a counter many times over, each time by reading and then writing. */
import { sql } from 'kysely'
import { openDatabase } from '../../src/db/open.ts'

const [, , path, times] = process.argv as unknown as [string, string, string, string]
const db = await openDatabase(path)
for (let i = 0; i < Number(times); i++) {
  await db.transaction().execute(async transaction => {
    const { rows } = await sql<{ n: number }>`select n from counter`.execute(transaction)
    await sql`update counter set n = ${rows[0]!.n + 1}`.execute(transaction)
  })
}
await db.destroy()
