/** What was done, by whom, when and why: only ever appended to. The database refuses to change or delete entries (triggers in db/schema.ts). */
import type { Db } from '../db/open.ts'
import type { AuditEntry } from '../sdk/calls/accounts.ts'

export interface Deed {
  project: string
  user: string
  /** `noun.verb`. */
  action: string
  subject: string
  details?: Record<string, unknown>
}

/** In the transaction of the deed itself, so that neither is there without the other. */
export async function record(db: Db, { project, user, action, subject, details = {} }: Deed): Promise<void> {
  await db
    .insertInto('audit')
    .values({ at: new Date().toISOString(), project, user, action, subject, details: JSON.stringify(details) })
    .execute()
}

/** Newest first. */
export async function listAudit(
  db: Db,
  project: string,
  { limit, after, action }: { limit: number; after?: string | undefined; action?: string | undefined },
) {
  let query = db.selectFrom('audit').selectAll().where('project', '=', project)
  if (after !== undefined) query = query.where('id', '<', Number(after) || 0)
  if (action !== undefined) query = query.where('action', '=', action)
  const rows = await query
    .orderBy('id', 'desc')
    .limit(limit + 1)
    .execute()
  const items = rows.slice(0, limit).map(row => ({ ...row, details: JSON.parse(row.details) as AuditEntry['details'] }))
  return { items, next: rows.length > limit ? String(items.at(-1)!.id) : null }
}
