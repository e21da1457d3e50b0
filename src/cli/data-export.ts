import { exportVersion } from '../server.ts'
import { defineCommand } from './command.ts'
import { shellWord } from './text.ts'

export default defineCommand({
  name: 'data export',
  summary: 'write a dataset version out as files: one folder per class, and labels.csv',
  details: `Original bytes under their own names, below train, validation and test where the dataset has such sides. The folder has to be new or empty;
nothing in it is ever written over, and an export that was stopped is completed by the same command. Importing the folder gives the same dataset.`,
  arguments: { dataset: { summary: 'a dataset: name or name@version' }, folder: { summary: 'a new folder' } },
  options: {
    'keep-paths': { type: 'boolean', summary: 'every file where it lay when it was imported, even where its folder is not its label' },
  },
  examples: ['plinth data export birds@2 ./birds'],
  async run({ dataset, folder, keepPaths }, { out, progress, result, signal }) {
    let bar: ReturnType<typeof progress> | undefined
    const exported = await exportVersion(dataset, folder, {
      keepPaths,
      signal,
      onProgress(done, total) {
        bar ??= progress('writing', total, { unit: 'pictures' })
        bar.update(done)
      },
    })
    bar?.end()
    const { reference, files, renamed, labels } = exported
    out(`${files.toLocaleString('en-US')} pictures of ${reference.name}@${reference.version} in ${folder}, with ${labels}`)
    if (renamed > 0)
      out(
        `${renamed.toLocaleString('en-US')} of them lie elsewhere than they did: their folders were not their labels, or their names not safe`,
      )
    out(`Next: plinth data check ${shellWord(folder)}`)
    result({ dataset: reference, folder, ...exported })
  },
})
