/** People and their roles. A role holds in a project; the owner of the installation stands above all of them. */

import { checkRight, type Principal, type Role } from '../api/principal.ts'
import { type Actor, record } from '../db/audit.ts'
import type { Db } from '../db/open.ts'
import { Failure } from '../failure.ts'
import type { User } from '../sdk/calls/accounts.ts'
import type { Right } from '../sdk/contract.ts'

/**
 * Whoever asks as they are in another project than their token's: the owner anywhere, others where they have a role, with that role. A token
 * that is for something only does not reach beyond its project. throws project_not_found, forbidden
 */
export async function inProject(db: Db, principal: Principal, project: string | undefined, right: Right): Promise<Principal> {
  if (project === undefined || project === principal.project) return principal
  const { user, owner, scope } = principal
  const found =
    scope === 'all' &&
    (await db
      .selectFrom('projects')
      .leftJoin('memberships', join => join.onRef('memberships.project', '=', 'projects.id').on('memberships.user', '=', user))
      .select('memberships.role')
      .where('projects.id', '=', project)
      .executeTakeFirst())
  if (!found || (!owner && found.role === null)) throw new Failure('project_not_found', { project })
  const there = { ...principal, project, role: found.role as Role | null }
  checkRight(there, right)
  return there
}

/** Gives `user` this role in the actor's project. throws owner_untouchable */
export async function addUser(db: Db, { user: actor, project }: Actor, user: string, role: Role): Promise<User> {
  await db.transaction().execute(async transaction => {
    const known = await transaction.selectFrom('users').select('owner').where('name', '=', user).executeTakeFirst()
    if (known?.owner === 1) throw new Failure('owner_untouchable', { user })
    if (!known)
      await transaction.insertInto('users').values({ name: user, owner: 0, created: new Date().toISOString(), disabled: null }).execute()
    await transaction
      .insertInto('memberships')
      .values({ project, user, role })
      .onConflict(conflict => conflict.columns(['project', 'user']).doUpdateSet({ role }))
      .execute()
    await record(transaction, { project, user: actor, action: 'users.add', subject: user, details: { role } })
  })
  return getUser(db, user)
}

/** throws user_not_found */
export async function removeUser(db: Db, { user: actor, project }: Actor, user: string): Promise<void> {
  await db.transaction().execute(async transaction => {
    const { numDeletedRows } = await transaction
      .deleteFrom('memberships')
      .where('project', '=', project)
      .where('user', '=', user)
      .executeTakeFirst()
    if (numDeletedRows === 0n) throw new Failure('user_not_found', { user })
    await record(transaction, { project, user: actor, action: 'users.remove', subject: user })
  })
}

/** Every token of a disabled user stops working at once. throws user_not_found, owner_untouchable */
export async function setDisabled(db: Db, { user: actor, project }: Actor, user: string, disabled: boolean): Promise<User> {
  await db.transaction().execute(async transaction => {
    const known = await transaction.selectFrom('users').select('owner').where('name', '=', user).executeTakeFirst()
    if (!known) throw new Failure('user_not_found', { user })
    if (known.owner === 1) throw new Failure('owner_untouchable', { user })
    await transaction
      .updateTable('users')
      .set({ disabled: disabled ? new Date().toISOString() : null })
      .where('name', '=', user)
      .execute()
    await record(transaction, { project, user: actor, action: disabled ? 'users.disable' : 'users.enable', subject: user })
  })
  return getUser(db, user)
}

/** throws user_not_found */
export async function getUser(db: Db, user: string): Promise<User> {
  const [found] = await usersNamed(db, [user])
  if (!found) throw new Failure('user_not_found', { user })
  return found
}

/** Those with a role in the project, and the owner. Only roles in this project are told. */
export async function listUsers(db: Db, project: string): Promise<User[]> {
  const rows = await db
    .selectFrom('users')
    .leftJoin('memberships', join => join.onRef('memberships.user', '=', 'users.name').on('memberships.project', '=', project))
    .select('users.name')
    .where(where => where.or([where('memberships.role', 'is not', null), where('users.owner', '=', 1)]))
    .orderBy('users.name')
    .execute()
  const users = await usersNamed(
    db,
    rows.map(({ name }) => name),
  )
  return users.map(user => ({ ...user, roles: Object.fromEntries(Object.entries(user.roles).filter(([where]) => where === project)) }))
}

async function usersNamed(db: Db, names: readonly string[]): Promise<User[]> {
  if (names.length === 0) return []
  const rows = await db.selectFrom('users').selectAll().where('name', 'in', names).orderBy('name').execute()
  const roles = await db.selectFrom('memberships').selectAll().where('user', 'in', names).execute()
  return rows.map(({ name, owner, created, disabled }) => ({
    user: name,
    owner: owner === 1,
    created,
    disabled,
    roles: Object.fromEntries(roles.filter(({ user }) => user === name).map(({ project, role }) => [project, role as Role])),
  }))
}

/** throws project_exists */
export async function createProject(db: Db, { user }: Actor, project: string): Promise<{ project: string; created: string }> {
  const created = new Date().toISOString()
  await db.transaction().execute(async transaction => {
    const made = await transaction
      .insertInto('projects')
      .values({ id: project, created })
      .onConflict(conflict => conflict.doNothing())
      .returning('id')
      .executeTakeFirst()
    if (!made) throw new Failure('project_exists', { project })
    await record(transaction, { project, user, action: 'projects.create', subject: project })
  })
  return { project, created }
}

/** The owner sees all of them. */
export async function listProjects(db: Db, { user, owner }: Principal): Promise<{ project: string; created: string; role: string }[]> {
  if (owner) {
    const rows = await db.selectFrom('projects').selectAll().orderBy('id').execute()
    return rows.map(({ id, created }) => ({ project: id, created, role: 'owner' }))
  }
  return await db
    .selectFrom('memberships')
    .innerJoin('projects', 'projects.id', 'memberships.project')
    .select(['projects.id as project', 'projects.created', 'memberships.role'])
    .where('memberships.user', '=', user)
    .orderBy('projects.id')
    .execute()
}
