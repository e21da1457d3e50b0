import { collectGarbage, lookForGarbage, openHome } from '../control-plane.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'gc',
  summary: 'show what can be deleted from the home, and delete it with --yes',
  details: `Feature caches, checkpoints of finished runs, files that nothing names; runs, experiments and logged models that were deleted long
ago, with their metrics and files; old tokens; environments that no job has used for long; copies of the database from before an upgrade. Datasets, models and reports are never
touched, nor is a run that a version of a model came from.`,
  options: {
    yes: { type: 'boolean', summary: 'really delete' },
    days: {
      type: 'integer',
      minimum: 0,
      maximum: 36500,
      default: 30,
      summary: 'what was deleted longer ago than this can be restored no more',
    },
  },
  examples: ['plinth gc', 'plinth gc --days 7 --yes'],
  async run({ yes, days }, { out, table, result }) {
    const home = await openHome()
    try {
      const { garbage, held } = await lookForGarbage(home, { days })
      const bytes = garbage.reduce((sum, item) => sum + item.bytes, 0)
      const reasons = Map.groupBy(garbage, item => item.reason)
      if (garbage.length === 0) out('Nothing to delete.')
      else
        table(
          ['what', { title: 'how many', align: 'right' }, { title: 'size', align: 'right' }],
          [...reasons].map(([reason, items]) => [reason, String(items.length), megabytes(items.reduce((sum, i) => sum + i.bytes, 0))]),
        )
      for (const { what, by } of held) out(`Deleted, but kept: ${what}, because ${by} came from it.`)
      const freed = yes ? await collectGarbage(home, garbage) : 0
      if (garbage.length)
        out(yes ? `Deleted: ${megabytes(freed)} freed.` : `Delete it with: plinth gc --yes${days === 30 ? '' : ` --days ${days}`}`)
      const items = garbage.map(({ path, bytes: size, reason }) => ({ path, bytes: size, reason }))
      result({ deleted: Boolean(yes), bytes, freed, items, held })
    } finally {
      await home.close()
    }
  },
})

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
