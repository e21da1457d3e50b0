import { listDatasets, openHome } from '../server.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'data list',
  summary: 'list datasets and their versions',
  async run(_, { out, table, result }) {
    const home = await openHome()
    try {
      const datasets = await listDatasets(home)
      if (datasets.length === 0) out('No datasets yet. Make one with plinth data import ./photos')
      else
        table(
          ['dataset', { title: 'pictures', align: 'right' }, { title: 'classes', align: 'right' }, 'made'],
          datasets.map(set => [
            `${set.name}@${set.version}`,
            String(set.images),
            String(set.classes),
            set.created.slice(0, 16).replace('T', ' '),
          ]),
        )
      result({ datasets })
    } finally {
      await home.close()
    }
  },
})
