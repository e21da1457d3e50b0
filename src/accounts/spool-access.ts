/**
 * How the server of a home sends itself what dead processes left there: in the project and under the name of the token that they used,
 * with the rights of a training script, by a word that only this process knows. Who can write into the home could read the owner's token.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { Principal } from '../api/principal.ts'
import type { Db } from '../db/open.ts'
import { ownerName } from './owner.ts'

export interface SpoolAccess {
  /** The header for what was logged with the token of this public id, or with none; null where this server has not made that token. */
  authorize(token: string | null): Promise<string | null>
  /** Null for a header that is not of that kind. */
  principal(authorization: string | undefined): Principal | null
}

export function createSpoolAccess(db: Db): SpoolAccess {
  const secret = randomBytes(32).toString('base64url')
  const known = new Map<string, Principal>()
  return {
    async authorize(token) {
      const id = token ?? ''
      if (!known.has(id)) {
        const row =
          token === null
            ? { user: ownerName, project: 'default', run: null }
            : await db.selectFrom('tokens').select(['user', 'project', 'run']).where('id', '=', token).executeTakeFirst()
        if (!row) return null
        known.set(id, {
          ...{ user: row.user, project: row.project, owner: false, role: 'editor', scope: 'track', token: 'spool' },
          ...(row.run !== null && { run: row.run }),
        })
      }
      return `Spool ${secret} ${id}`
    },
    principal(authorization) {
      const [, given = '', id = ''] = /^Spool ([\w-]{43}) ([0-9a-f]*)$/.exec(authorization ?? '') ?? []
      if (given === '' || !timingSafeEqual(Buffer.from(given), Buffer.from(secret))) return null
      return known.get(id) ?? null
    },
  }
}
