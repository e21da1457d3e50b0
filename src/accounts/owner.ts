/** The first account: made once, at the first start, with its token in a file that only this user of the machine can read. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Principal } from '../api/principal.ts'
import { record } from '../db/audit.ts'
import type { Home } from '../db/home.ts'
import { type Db, exclusively } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { authenticate, createToken } from './tokens.ts'

export const ownerName = 'owner'
const fileOf = (home: Pick<Home, 'path'>) => join(home.path, 'token')

/** Whoever can write into the home: rights cannot be kept from him that he could take. */
export const ownerAtHome: Principal = { user: ownerName, owner: true, project: 'default', role: null, scope: 'all', token: 'home' }

/**
 * The owner's token: as the file says, or a new one where there is no owner yet, the file is gone, or what it says is worth nothing any
 * more. Of several processes that start at once one makes it, and all answer the same.
 */
export async function ownerToken(home: Home): Promise<string> {
  return (
    (await keptToken(home, home.db)) ?? (await exclusively(home.db, async db => (await keptToken(home, db)) ?? (await newToken(home, db))))
  )
}

/** A new token in the file; those made for it before are revoked. The way back in. */
export async function resetOwnerToken(home: Home): Promise<string> {
  return await exclusively(home.db, db => newToken(home, db))
}

async function keptToken(home: Home, db: Db): Promise<string | null> {
  const token = (await readFile(fileOf(home), 'utf8').catch(() => '')).trim()
  if (token === '') return null
  const principal = await authenticate(db, `Bearer ${token}`).catch(error => {
    if (error instanceof Failure && error.code === 'token_wrong') return null
    throw error
  })
  return principal?.owner ? token : null
}

/** The file is written before the transaction ends: a kill between the two leaves a token that is not known, and the next start makes another. */
async function newToken(home: Home, db: Db): Promise<string> {
  const now = new Date().toISOString()
  await db
    .insertInto('projects')
    .values({ id: 'default', created: now })
    .onConflict(conflict => conflict.doNothing())
    .execute()
  await db
    .insertInto('users')
    .values({ name: ownerName, owner: 1, created: now, disabled: null })
    .onConflict(conflict => conflict.doNothing())
    .execute()
  await db
    .updateTable('tokens')
    .set({ revoked: now })
    .where('user', '=', ownerName)
    .where('name', '=', 'home')
    .where('revoked', 'is', null)
    .execute()
  const { id, token } = await createToken(db, { user: ownerName, name: 'home', project: 'default', scope: 'all', expires: null })
  await record(db, { project: 'default', user: ownerName, action: 'tokens.reset', subject: id })
  await writeFileAtomic(fileOf(home), `${token}\n`, { mode: 0o600 })
  return token
}
