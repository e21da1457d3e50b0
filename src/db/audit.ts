/** What was done, by whom, when and why: only ever appended to. The database refuses to change or delete entries (triggers in schema.ts). */
import type { Db } from './open.ts'

export interface Deed {
  project: string
  user: string
  /** `noun.verb`. */
  action: string
  subject: string
  details?: Record<string, unknown>
}

/** Who does it, and where. */
export interface Actor {
  user: string
  project: string
}

/** In the transaction of the deed itself, so that neither is there without the other. */
export async function record(db: Db, { project, user, action, subject, details = {} }: Deed): Promise<void> {
  await db
    .insertInto('audit')
    .values({ at: new Date().toISOString(), project, user, action, subject, details: JSON.stringify(details) })
    .execute()
}

/** A deed that knows nothing of the log, and its entry: both or neither. */
export const recorded = <T>(db: Db, deed: Deed, work: (db: Db) => Promise<T>): Promise<T> =>
  db.transaction().execute(async transaction => {
    const done = await work(transaction)
    await record(transaction, deed)
    return done
  })
