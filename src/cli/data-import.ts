import { describeImport, nameFrom, openDataset, openHome } from '../server.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'data import',
  summary: 'keep a folder of labelled pictures as an immutable dataset version',
  details: 'The same pictures under the same names give the same version again. The folder is only read.',
  arguments: { source: { summary: 'a folder with one subfolder per class, or a zip of one' } },
  options: { name: { ...common.name, summary: 'the name of the dataset (otherwise the name of the folder)' } },
  examples: ['plinth data import ./photos --name birds'],
  async run({ source, name }, { out, progress, result, signal }) {
    const home = await openHome()
    try {
      const bar = progress('reading', null, { unit: 'pictures' })
      const { reference, manifest } = await openDataset(home, source, {
        name: name ?? nameFrom(source),
        onProgress: ({ done, total }) => bar.update(done, `of ${total}`),
        signal,
      })
      bar.end()
      for (const line of describeImport(manifest)) out(line)
      out(`Dataset ${reference.name}@${reference.version}`)
      result({
        dataset: { ...reference, images: manifest.rows.length, classes: manifest.classes.length },
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
