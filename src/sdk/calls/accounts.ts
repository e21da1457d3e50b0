/** Who may do what: users, their roles in projects, tokens, and the log of what was done. */
import { z } from 'zod'
import { call, page, pageInput } from '../contract.ts'

export const userName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$/, 'expected letters, digits and . _ @ + -')
export const projectName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'expected lower-case letters, digits and -')
/** Another project than the token's: the owner's choice, or where one has a role. */
const elsewhere = { project: projectName.optional() }
export const Role = z.enum(['viewer', 'editor', 'admin'])
export const Scope = z.enum(['all', 'read', 'track'])

export const User = z.strictObject({
  user: userName,
  owner: z.boolean(),
  created: z.string(),
  disabled: z.string().nullable(),
  /** Project → role. */
  roles: z.record(z.string(), Role),
})
export type User = z.infer<typeof User>

export const Token = z.strictObject({
  /** Its public name; the token itself is shown once, when it is made. */
  id: z.string(),
  user: z.string(),
  name: z.string(),
  project: z.string(),
  scope: Scope,
  created: z.string(),
  expires: z.string().nullable(),
  revoked: z.string().nullable(),
  /** Since when its user's account is closed. */
  disabled: z.string().nullable(),
  /** What its user may in its project; null: nothing. */
  role: z.enum([...Role.options, 'owner']).nullable(),
})
export type Token = z.infer<typeof Token>

export const AuditEntry = z.strictObject({
  id: z.int(),
  at: z.string(),
  project: z.string(),
  user: z.string(),
  /** What was done: `tokens.create`, `models.promote` … */
  action: z.string(),
  subject: z.string(),
  details: z.record(z.string(), z.json()),
})
export type AuditEntry = z.infer<typeof AuditEntry>

export const calls = {
  createProject: call({
    method: 'POST',
    path: '/api/projects',
    summary: 'Make a project',
    right: 'owner',
    input: z.strictObject({ project: projectName }),
    output: z.strictObject({ project: z.string(), created: z.string() }),
  }),
  listProjects: call({
    method: 'GET',
    path: '/api/projects',
    summary: 'Projects you have a role in',
    right: 'viewer',
    input: z.strictObject({}),
    output: z.strictObject({ items: z.array(z.strictObject({ project: z.string(), created: z.string(), role: z.string() })) }),
  }),
  addUser: call({
    method: 'POST',
    path: '/api/users',
    summary: 'Give somebody a role in the project; makes the user where there is none',
    right: 'admin',
    input: z.strictObject({ user: userName, role: Role, ...elsewhere }),
    output: User,
  }),
  listUsers: call({
    method: 'GET',
    path: '/api/users',
    summary: 'Who has a role in the project',
    right: 'viewer',
    input: z.strictObject({ ...elsewhere }),
    output: z.strictObject({ items: z.array(User) }),
  }),
  removeUser: call({
    method: 'DELETE',
    path: '/api/users/:user',
    summary: 'Take the role in the project away; tokens for it stop working',
    right: 'admin',
    input: z.strictObject({ user: userName, ...elsewhere }),
    output: z.strictObject({}),
  }),
  disableUser: call({
    method: 'POST',
    path: '/api/users/:user/disable',
    summary: 'Close an account everywhere, at once',
    right: 'owner',
    input: z.strictObject({ user: userName }),
    output: User,
  }),
  enableUser: call({
    method: 'POST',
    path: '/api/users/:user/enable',
    summary: 'Open a closed account again',
    right: 'owner',
    input: z.strictObject({ user: userName }),
    output: User,
  }),
  createToken: call({
    method: 'POST',
    path: '/api/tokens',
    summary: 'Make a token; it is shown this once',
    right: 'viewer',
    input: z.strictObject({
      name: z.string().min(1).max(100),
      scope: Scope.default('all'),
      /** Days until it expires; none never does. */
      days: z.int().min(1).max(3650).optional(),
      /** For somebody else: admins only. */
      user: userName.optional(),
      ...elsewhere,
    }),
    output: z.strictObject({ token: z.string(), about: Token }),
  }),
  listTokens: call({
    method: 'GET',
    path: '/api/tokens',
    summary: 'Your tokens of the project; for admins everybody’s',
    right: 'viewer',
    input: z.strictObject({ ...elsewhere }),
    output: z.strictObject({ items: z.array(Token) }),
  }),
  revokeToken: call({
    method: 'DELETE',
    path: '/api/tokens/:id',
    summary: 'Make a token worthless, at once',
    right: 'viewer',
    input: z.strictObject({ id: z.string().regex(/^[0-9a-f]{12}$/), ...elsewhere }),
    output: Token,
  }),
  listAudit: call({
    method: 'GET',
    path: '/api/audit',
    summary: 'What was done in the project, newest first; nobody can change it',
    right: 'admin',
    input: z.strictObject({
      ...pageInput,
      action: z.string().max(100).optional(),
      /** `photos@3` or, with all its versions, `photos`. */
      subject: z.string().max(300).optional(),
      ...elsewhere,
    }),
    output: page(AuditEntry),
  }),
}
