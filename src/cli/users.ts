/** The verbs of `users` and `projects`: who may do what, where. */
import { connect } from '../control-plane.ts'
import { defineCommand } from './command.ts'
import { day } from './tokens.ts'

const project = { type: 'string', summary: 'the project (otherwise yours)' } as const
const user = { summary: 'the name of the user' } as const
const given = (project: string | undefined) => (project === undefined ? {} : { project })

export const add = defineCommand({
  name: 'users add',
  summary: 'give somebody a role in the project; makes the user where there is none',
  where: 'server',
  arguments: { user, role: { summary: 'what they may do', choices: ['viewer', 'editor', 'admin'] } },
  options: { project },
  examples: ['plinth users add ada editor', 'plinth tokens create laptop --user ada'],
  async run({ user, role, project }, { out, say, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const added = await plinth.addUser({ user, role, ...given(project) })
      out(`${user} is ${role} now.`)
      say(`A token for them: plinth tokens create NAME --user ${user}${project ? ` --project ${project}` : ''}`)
      result({ user: added })
    } finally {
      await close()
    }
  },
})

export const list = defineCommand({
  name: 'users list',
  summary: 'list who has a role in the project',
  where: 'server',
  options: { project },
  async run({ project }, { table, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const { items } = await plinth.listUsers(given(project))
      table(
        ['user', 'role', 'since', 'state'],
        items.map(each => [
          each.user,
          each.owner ? 'owner' : Object.values(each.roles).join(', '),
          day(each.created),
          each.disabled ? `disabled ${day(each.disabled)}` : '',
        ]),
      )
      result({ users: items })
    } finally {
      await close()
    }
  },
})

export const remove = defineCommand({
  name: 'users remove',
  summary: 'take somebody’s role in the project away; their tokens for it stop working',
  where: 'server',
  arguments: { user },
  options: { project },
  async run({ user, project }, { out, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      await plinth.removeUser({ user, ...given(project) })
      out(`${user} has no role here any more.`)
      result({ user })
    } finally {
      await close()
    }
  },
})

const switching = (verb: 'disable' | 'enable', summary: string, said: string) =>
  defineCommand({
    name: `users ${verb}`,
    summary,
    where: 'server',
    arguments: { user },
    async run({ user }, { out, result }) {
      const { plinth, close } = await connect({ owner: true })
      try {
        const changed = await (verb === 'disable' ? plinth.disableUser({ user }) : plinth.enableUser({ user }))
        out(`${user} ${said}`)
        result({ user: changed })
      } finally {
        await close()
      }
    },
  })
export const disable = switching('disable', 'close an account everywhere, at once', 'can do nothing any more, in no project.')
export const enable = switching('enable', 'open a closed account again', 'may do again what their roles say.')

export const createProject = defineCommand({
  name: 'projects create',
  summary: 'make a project: what is in it is seen only by those who have a role there',
  where: 'server',
  arguments: { project: { summary: 'lower-case letters, digits and -' } },
  async run({ project }, { out, say, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const made = await plinth.createProject({ project })
      out(`The project ${project} is there.`)
      say(`People: plinth users add NAME editor --project ${project}. A token for yourself: plinth tokens create NAME --project ${project}`)
      result(made)
    } finally {
      await close()
    }
  },
})

export const listProjects = defineCommand({
  name: 'projects list',
  summary: 'list projects that you have a role in',
  where: 'server',
  async run(_, { table, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const { items } = await plinth.listProjects({})
      table(
        ['project', 'your role', 'made'],
        items.map(each => [each.project, each.role, day(each.created)]),
      )
      result({ projects: items })
    } finally {
      await close()
    }
  },
})

export const audit = defineCommand({
  name: 'audit',
  summary: 'list what was done in the project, newest first: rights, tokens, aliases, deletions',
  where: 'server',
  options: {
    project,
    action: { type: 'string', summary: 'only this one, for example models.promote' },
    of: { type: 'string', value: 'NAME', summary: 'only of this model, version (photos@3), user or token' },
    last: { type: 'integer', minimum: 1, maximum: 1000, default: 20, summary: 'how many to show' },
  },
  examples: ['plinth audit --last 50', 'plinth audit --of photos'],
  async run({ project, action, of, last }, { table, result }) {
    const { plinth, close } = await connect({ owner: true })
    try {
      const { items } = await plinth.listAudit({
        limit: last,
        ...given(project),
        ...(action !== undefined && { action }),
        ...(of !== undefined && { subject: of }),
      })
      table(
        ['when', 'who', 'what', 'of', 'why'],
        items.map(({ at, user, action, subject, details }) => [
          at.slice(0, 16).replace('T', ' '),
          user,
          details['forced'] === true ? `${action} (forced)` : action,
          typeof details['place'] === 'string' ? `${subject}, ${details['place']}` : subject,
          typeof details['reason'] === 'string' ? details['reason'] : '',
        ]),
      )
      result({ entries: items })
    } finally {
      await close()
    }
  },
})
