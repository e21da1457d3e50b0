/**
 * Tokens of jobs: one for each attempt, for its own run alone, dead with the end of the attempt. The token is derived from a key of the home, so
 * that a start that is tried again hands out the same one; as for all tokens only its hash is kept.
 */
import { createHash } from 'node:crypto'
import type { Db } from '../db/open.ts'

export interface JobToken {
  job: number
  attempt: number
  user: string
  project: string
  run: string
}
/** The same 32 bytes for the same words, which nobody else can make. */
type Derived = (words: string) => Buffer

const idOf = (derived: Derived, job: number, attempt: number) => derived(`token id ${job}/${attempt}`).toString('hex', 0, 6)

/** Answers the token itself. Asking again answers the same, also when it is dead. */
export async function giveJobToken(db: Db, derived: Derived, { job, attempt, user, project, run }: JobToken): Promise<string> {
  const id = idOf(derived, job, attempt)
  const token = `plinth_${id}_${derived(`token secret ${job}/${attempt} ${run}`).toString('base64url')}`
  await db
    .insertInto('tokens')
    .values({
      ...{ id, user, project, run, scope: 'track', name: `job ${job}, attempt ${attempt}`, expires: null, revoked: null },
      hash: createHash('sha256').update(token).digest('hex'),
      created: new Date().toISOString(),
    })
    .onConflict(conflict => conflict.column('id').doNothing())
    .execute()
  return token
}

/** Its row stays until `gc`: what its processes logged while the server was away is taken up under it. */
export async function takeJobToken(db: Db, derived: Derived, job: number, attempt: number): Promise<void> {
  await db
    .updateTable('tokens')
    .set({ revoked: new Date().toISOString() })
    .where('id', '=', idOf(derived, job, attempt))
    .where('revoked', 'is', null)
    .execute()
}
