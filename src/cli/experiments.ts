import { connect } from '../control-plane.ts'
import { defineCommand } from './command.ts'
import { day } from './tokens.ts'

export default defineCommand({
  name: 'experiments list',
  summary: 'list experiments, newest first',
  where: 'server',
  options: { last: { type: 'integer', minimum: 1, maximum: 1000, default: 100, summary: 'how many to show' } },
  async run({ last }, { table, result }) {
    const { plinth, close } = await connect()
    try {
      const { items } = await plinth.listExperiments({ limit: last })
      table(
        [{ title: 'id', align: 'right' }, 'name', 'made'],
        items.map(each => [each.experiment, each.name, each.created === 0 ? '' : day(each.created)]),
      )
      result({ experiments: items })
    } finally {
      await close()
    }
  },
})
