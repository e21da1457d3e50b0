import { home as homePath } from '../config.ts'
import { backUp, openHome } from '../control-plane.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'backup',
  summary: 'copy the whole home, while it is in use',
  details: `Into a folder each backup becomes a folder of its own; what has not changed since the one before takes no room and is not read
again. A file that ends in .tar holds one backup, to be carried elsewhere. Files that nobody changes are hard links where the disk is the
same: a backup on the disk of the home survives mistakes, not the loss of the disk.

What can be computed again, the owner's token and the database's address are left out.`,
  arguments: { to: { summary: 'a folder for backups, or a new file that ends in .tar' } },
  examples: ['plinth backup /mnt/backups/plinth', 'plinth backup ./plinth.tar'],
  async run({ to }, { out, result, progress, signal }) {
    const home = await openHome()
    const bar = progress('Backing up', null, { unit: 'files' })
    try {
      const done = await backUp(home, to, { signal, onProgress: ({ files }) => bar.update(files) })
      out(`${done.path}: ${done.files} files, ${megabytes(done.bytes)}, of which ${megabytes(done.copied)} were copied.`)
      for (const path of done.damaged) out(`Damaged on this disk: ${path}`)
      out(`Restore it into a new home with: PLINTH_HOME=${homePath()}-restored plinth restore ${done.path}`)
      result(done)
    } finally {
      bar.end()
      await home.close()
    }
  },
})

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
