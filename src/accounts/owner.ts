/** The first account: made once, at the first start, with its token in a file that only this user of the machine can read. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../db/home.ts'
import { writeFileAtomic } from '../storage/disk.ts'
import { createToken } from './tokens.ts'

export const ownerName = 'owner'
const fileOf = (home: Pick<Home, 'path'>) => join(home.path, 'token')

/** The owner's token: as the file says, or a new one where there is no owner yet or the file is gone. */
export async function ownerToken(home: Home): Promise<string> {
  const kept = await readFile(fileOf(home), 'utf8').catch(() => null)
  if (kept?.trim()) return kept.trim()
  return await resetOwnerToken(home)
}

/** A new token in the file; those made for it before are revoked. The way back in. */
export async function resetOwnerToken(home: Home): Promise<string> {
  const now = new Date().toISOString()
  const token = await home.db.transaction().execute(async db => {
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
    return (await createToken(db, { user: ownerName, name: 'home', project: 'default', scope: 'all', expires: null })).token
  })
  await writeFileAtomic(fileOf(home), `${token}\n`, { mode: 0o600 })
  return token
}
