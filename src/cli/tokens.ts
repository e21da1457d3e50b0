/** The verbs of `tokens`: what programs, and commands at other machines, say who they are with. */
import { serverUrl } from '../config.ts'
import { connect, openHome, resetToken } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import { defineCommand } from './command.ts'

const project = { type: 'string', summary: 'the project that it falls into (otherwise yours)' } as const
export const day = (time: string | number | null) => (time === null ? '' : new Date(time).toISOString().slice(0, 10))

export const create = defineCommand({
  name: 'tokens create',
  summary: 'make a token; it is shown this once',
  where: 'server',
  details: `With the scope track it can do what a training script needs: make experiments, runs and model versions and log to them, and nothing else.
With read it changes nothing. It never may more than the user it is for.`,
  arguments: { name: { summary: 'what it is for, so that you know it again' } },
  options: {
    scope: { type: 'string', choices: ['all', 'read', 'track'], default: 'all', summary: 'what it may be used for' },
    days: { type: 'integer', minimum: 1, maximum: 3650, summary: 'how long it is good (otherwise until it is revoked)' },
    user: { type: 'string', summary: 'who it is for (otherwise you); admins only' },
    project,
  },
  examples: ['plinth tokens create laptop', 'plinth tokens create nightly --scope track --days 90 --user ada'],
  async run({ name, scope, days, user, project }, { out, say, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const { token, about } = await plinth.createToken({
        ...{ name, scope },
        ...(days !== undefined && { days }),
        ...(user !== undefined && { user }),
        ...(project !== undefined && { project }),
      })
      say(
        `For ${about.user} in the project ${about.project}, ${about.expires ? `until ${day(about.expires)}` : 'until it is revoked'}. Shown once:`,
      )
      out(token)
      if (about.role === null)
        say(`${about.user} has no role in ${about.project} yet: plinth users add ${about.user} editor --project ${about.project}`)
      result({ token, about })
    } finally {
      await close()
    }
  },
})

export const list = defineCommand({
  name: 'tokens list',
  summary: 'list tokens: yours, for admins everybody’s',
  where: 'server',
  options: { project },
  async run({ project }, { table, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const { items } = await plinth.listTokens({ ...(project !== undefined && { project }) })
      const state = ({ revoked, expires, disabled, role }: (typeof items)[number]) => {
        if (revoked) return `revoked ${day(revoked)}`
        if (expires !== null && expires <= new Date().toISOString()) return `expired ${day(expires)}`
        if (disabled) return 'user disabled'
        if (role === null) return 'user without a role'
        return expires === null ? 'good' : `until ${day(expires)}`
      }
      table(
        ['token', 'user', 'name', 'scope', 'made', 'state'],
        items.map(token => [token.id, token.user, token.name, token.scope, day(token.created), state(token)]),
      )
      result({ tokens: items })
    } finally {
      await close()
    }
  },
})

export const revoke = defineCommand({
  name: 'tokens revoke',
  summary: 'make a token worthless, at once',
  where: 'server',
  arguments: { id: { summary: 'its id, as plinth tokens list shows it' } },
  options: { project },
  async run({ id, project }, { out, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const token = await plinth.revokeToken({ id, ...(project !== undefined && { project }) })
      out(`The token ${token.id} (${token.name}, of ${token.user}) is worth nothing any more.`)
      result({ token })
    } finally {
      await close()
    }
  },
})

export const reset = defineCommand({
  name: 'tokens reset',
  summary: 'make a new token for the owner of this home; the way back in',
  details: 'It is written into the file token in the home, and not shown. The one that was there is worth nothing any more.',
  async run(_, { out, result }) {
    if (serverUrl() !== undefined) throw new Failure('home_only', { command: 'tokens reset' })
    const home = await openHome()
    try {
      await resetToken(home)
      out(`The owner has a new token, in ${home.path}/token.`)
      result({ file: `${home.path}/token` })
    } finally {
      await home.close()
    }
  },
})
