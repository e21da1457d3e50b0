import { describeImport, importDataset, openHome } from '../server.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'data import',
  summary: 'keep labelled pictures as an immutable dataset version',
  details: `The same pictures under the same names give the same version again. What is given is only read. An import that was stopped
goes on where it was with the same command.`,
  arguments: {
    source: { summary: 'a folder with one subfolder per class, a list (CSV, JSON lines) with path and label, or a zip of either' },
  },
  options: {
    name: { ...common.name, summary: 'the name of the dataset (otherwise the name of the folder)' },
    'group-by': {
      type: 'string',
      value: 'PATTERN',
      summary: 'pictures whose paths have the same text where this regular expression finds it stay on one side of every split',
    },
  },
  examples: [
    'plinth data import ./photos --name birds',
    "plinth data import ./photos --group-by '^(.*)__'",
    'plinth data import photos.csv',
  ],
  async run({ source, name, groupBy }, { out, progress, result, signal }) {
    const home = await openHome()
    try {
      let understood: string | undefined
      let bar: ReturnType<typeof progress> | null = null
      const { reference, manifest } = await importDataset(home, source, {
        ...(name && { name }),
        ...(groupBy && { groupBy }),
        onUnderstood: text => {
          understood = text
        },
        onProgress: ({ done, total }) => {
          bar ??= progress('reading', total, { unit: 'pictures' })
          bar.update(done)
        },
        signal,
      })
      ;(bar as ReturnType<typeof progress> | null)?.end()
      for (const line of describeImport(manifest, understood)) out(line)
      out(`Dataset ${reference.name}@${reference.version}`)
      result({
        dataset: { ...reference, images: manifest.rows.length, classes: manifest.classes.length },
        ...(understood && { understood }),
        unreadable: manifest.unreadable,
        ignored: manifest.ignored,
        exactDuplicates: manifest.exactDuplicates,
        conflicts: manifest.conflicts,
      })
    } finally {
      await home.close()
    }
  },
})
