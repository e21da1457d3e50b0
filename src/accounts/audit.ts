/** The log of deeds, as it is read; db/audit.ts writes it. */
import { type SqlBool, sql } from 'kysely'
import { numberInPage } from '../api/input.ts'
import type { Db } from '../db/open.ts'
import type { AuditEntry } from '../sdk/calls/accounts.ts'

/** Newest first. */
export async function listAudit(
  db: Db,
  project: string,
  {
    limit,
    after,
    action,
    subject,
  }: { limit: number; after?: string | undefined; action?: string | undefined; subject?: string | undefined },
) {
  let query = db.selectFrom('audit').selectAll().where('project', '=', project)
  if (after !== undefined) query = query.where('id', '<', numberInPage(after))
  if (action !== undefined) query = query.where('action', '=', action)
  if (subject !== undefined) {
    const versions = `${subject}@`
    query = query.where(sql<SqlBool>`(subject = ${subject} or substr(subject, 1, ${[...versions].length}) = ${versions})`)
  }
  const rows = await query
    .orderBy('id', 'desc')
    .limit(limit + 1)
    .execute()
  const items = rows.slice(0, limit).map(row => ({ ...row, details: JSON.parse(row.details) as AuditEntry['details'] }))
  return { items, next: rows.length > limit ? String(items.at(-1)!.id) : null }
}
