import { collectGarbage, findGarbage, openHome } from '../server.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'gc',
  summary: 'show what can be deleted from the home, and delete it with --yes',
  details: 'Feature caches, checkpoints of finished runs, files that nothing names. Datasets, models and reports are never touched.',
  options: { yes: { type: 'boolean', summary: 'really delete' } },
  async run({ yes }, { out, table, result }) {
    const home = await openHome()
    try {
      const garbage = await findGarbage(home)
      const bytes = garbage.reduce((sum, item) => sum + item.bytes, 0)
      const reasons = Map.groupBy(garbage, item => item.reason)
      if (garbage.length === 0) out('Nothing to delete.')
      else
        table(
          ['what', { title: 'files', align: 'right' }, { title: 'size', align: 'right' }],
          [...reasons].map(([reason, items]) => [
            reason,
            String(items.length),
            `${(items.reduce((sum, i) => sum + i.bytes, 0) / 1e6).toFixed(1)} MB`,
          ]),
        )
      if (yes) await collectGarbage(garbage)
      if (garbage.length) out(yes ? `Deleted: ${(bytes / 1e6).toFixed(1)} MB freed.` : `Delete it with: plinth gc --yes`)
      result({ deleted: Boolean(yes), bytes, items: garbage.map(({ path, bytes: size, reason }) => ({ path, bytes: size, reason })) })
    } finally {
      await home.close()
    }
  },
})
