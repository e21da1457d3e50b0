/**
 * API tokens: `plinth_<id>_<secret>`. The secret is 32 random bytes, kept only as its SHA-256 (it has too much entropy to be guessed, so a
 * slow hash would buy nothing); the id finds the row without comparing secrets.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { allows, type Principal, type Role, type Scope } from '../api/principal.ts'
import { record } from '../db/audit.ts'
import type { Db } from '../db/open.ts'
import { Failure } from '../failure.ts'
import type { Token } from '../sdk/calls/accounts.ts'

export interface NewToken {
  user: string
  name: string
  project: string
  scope: Scope
  /** ISO 8601; null = never. */
  expires: string | null
}

/** Answers the token itself, which nobody can read again. */
export async function createToken(db: Db, { user, name, project, scope, expires }: NewToken): Promise<{ id: string; token: string }> {
  const id = randomBytes(6).toString('hex')
  const token = `plinth_${id}_${randomBytes(32).toString('base64url')}`
  const row = {
    id,
    hash: sha256(token).toString('hex'),
    user,
    name,
    project,
    scope,
    created: new Date().toISOString(),
    expires,
    revoked: null,
  }
  await db.insertInto('tokens').values(row).execute()
  return { id, token }
}

/** `Bearer TOKEN` → who that is; null without a header. MLflow's clients may also send it as the password of Basic. throws token_wrong, job_over */
export async function authenticate(db: Db, authorization: string | undefined): Promise<Principal | null> {
  if (!authorization) return null
  // what is wrong about a token is never told, and every wrong one takes the same way: a look-up, a hash and a comparison
  const given = tokenIn(authorization) ?? ''
  const [, id = ''] = /^plinth_([0-9a-f]{12})_[\w-]{43}$/.exec(given) ?? []
  const row = await db
    .selectFrom('tokens')
    .innerJoin('users', 'users.name', 'tokens.user')
    .leftJoin('memberships', join => join.onRef('memberships.user', '=', 'tokens.user').onRef('memberships.project', '=', 'tokens.project'))
    .select([
      'tokens.hash',
      'tokens.user',
      'tokens.project',
      'tokens.scope',
      'tokens.expires',
      'tokens.revoked',
      'tokens.run',
      'users.owner',
      'users.disabled',
      'memberships.role',
    ])
    .where('tokens.id', '=', id)
    .executeTakeFirst()
  const right = timingSafeEqual(row ? Buffer.from(row.hash, 'hex') : noHash, sha256(given))
  // of a right one it may be told: who goes on in the name of an attempt that is over should hear why, and end
  if (row?.run && right && row.revoked) throw new Failure('job_over')
  if (!row || !right || row.revoked || row.disabled || (row.expires && row.expires <= new Date().toISOString()))
    throw new Failure('token_wrong')
  return {
    user: row.user,
    owner: row.owner === 1,
    project: row.project,
    role: (row.role as Role | null) ?? null,
    scope: row.scope as Scope,
    token: id,
    ...(row.run !== null && confinedTo(row.run, row)),
  }
}

/** Of the owner's rights a job gets those that it needs. */
const confinedTo = (run: string, { owner, role }: { owner: 0 | 1; role: string | null }) => ({
  run,
  owner: false,
  role: owner === 1 ? ('editor' as const) : (role as Role | null),
})

function tokenIn(authorization: string): string | null {
  const [kind = '', value = ''] = authorization.split(' ', 2)
  if (/^bearer$/i.test(kind)) return value
  if (!/^basic$/i.test(kind)) return null
  const text = Buffer.from(value, 'base64').toString('utf8')
  return text.slice(text.indexOf(':') + 1)
}

const noHash = Buffer.alloc(32)
const sha256 = (text: string) => createHash('sha256').update(text).digest()

// ── what people do with tokens ──────────────────────────────────────────────────────────────────────────────────────────────

/** With what its user may: a token of somebody who was shut out is worth nothing, whatever it says itself. */
const tokensIn = (db: Db) =>
  db
    .selectFrom('tokens')
    .innerJoin('users', 'users.name', 'tokens.user')
    .leftJoin('memberships', join => join.onRef('memberships.user', '=', 'tokens.user').onRef('memberships.project', '=', 'tokens.project'))
    .select(['id', 'tokens.user', 'tokens.name', 'tokens.project', 'scope', 'tokens.created', 'expires', 'revoked'])
    .select(['users.disabled', 'users.owner', 'memberships.role'])
type Row = Awaited<ReturnType<ReturnType<typeof tokensIn>['executeTakeFirstOrThrow']>>
const asToken = ({ owner, role, ...row }: Row) => ({ ...row, role: owner === 1 ? 'owner' : role }) as Token

/** A token never may more than who makes it. throws forbidden, user_not_found */
export async function makeToken(
  db: Db,
  principal: Principal,
  { name, scope, days, user = principal.user }: { name: string; scope: Scope; days?: number | undefined; user?: string | undefined },
): Promise<{ token: string; about: Token }> {
  const { project } = principal
  if (user !== principal.user && !allows(principal, 'admin')) throw new Failure('forbidden', { user: principal.user, right: 'admin' })
  if (principal.scope !== 'all' && scope !== principal.scope) throw new Failure('scope_too_wide', { scope: principal.scope })
  const expires = days === undefined ? null : new Date(Date.now() + days * 86_400_000).toISOString()
  return await db.transaction().execute(async transaction => {
    const known = await transaction.selectFrom('users').select('owner').where('name', '=', user).executeTakeFirst()
    if (!known) throw new Failure('user_not_found', { user })
    if (known.owner === 1 && !principal.owner) throw new Failure('owner_untouchable', { user })
    const { id, token } = await createToken(transaction, { user, name, project, scope, expires })
    await record(transaction, {
      project,
      user: principal.user,
      action: 'tokens.create',
      subject: id,
      details: { for: user, name, scope, expires },
    })
    return { token, about: asToken(await tokensIn(transaction).where('id', '=', id).executeTakeFirstOrThrow()) }
  })
}

/** Newest first. */
export async function listTokens(db: Db, principal: Principal): Promise<Token[]> {
  let query = tokensIn(db).where('tokens.project', '=', principal.project).where('tokens.run', 'is', null) // those of jobs come and go by themselves
  if (!allows(principal, 'admin')) query = query.where('tokens.user', '=', principal.user)
  return (await query.orderBy('tokens.created', 'desc').execute()).map(asToken)
}

/** throws token_not_found, also for somebody else's where the asker is no admin */
export async function revokeToken(db: Db, principal: Principal, id: string): Promise<Token> {
  const { project, user } = principal
  return await db.transaction().execute(async transaction => {
    const row = await tokensIn(transaction).where('id', '=', id).where('tokens.project', '=', project).executeTakeFirst()
    if (!row || (row.user !== user && !allows(principal, 'admin'))) throw new Failure('token_not_found', { id })
    if (row.revoked) return asToken(row)
    const revoked = new Date().toISOString()
    await transaction.updateTable('tokens').set({ revoked }).where('id', '=', id).execute()
    await record(transaction, { project, user, action: 'tokens.revoke', subject: id, details: { of: row.user } })
    return asToken({ ...row, revoked })
  })
}
