import { home as homePath } from '../config.ts'
import { restore, verifyBackup } from '../control-plane.ts'
import { defineCommand } from './command.ts'
import { databaseOf, databaseOptions } from './database.ts'

export default defineCommand({
  name: 'restore',
  summary: 'make a home from a backup, or verify one',
  details: `Into the folder that PLINTH_HOME names, which must be new or empty. Every file is compared with its digest first; if one is
missing or different, nothing is restored. With --database-file the records go into an empty PostgreSQL database, also those of a backup
that was made with SQLite: that is how a home moves to PostgreSQL. The next plinth up makes a new owner's token.`,
  arguments: { from: { summary: 'what plinth backup wrote: a folder of backups (the newest is taken), one of them, or a .tar' } },
  options: { verify: { type: 'boolean', summary: 'only read it all and compare' }, ...databaseOptions },
  examples: ['plinth restore /mnt/backups/plinth --verify', 'PLINTH_HOME=/srv/plinth plinth restore ./plinth.tar'],
  async run({ from, verify, ...options }, { out, result, progress, signal }) {
    const bar = progress(verify ? 'Reading' : 'Restoring', null, { unit: 'files' })
    const follow = { signal, onProgress: ({ files }: { files: number }) => bar.update(files) }
    const database = databaseOf('restore', options)
    const done = await (verify ? verifyBackup(from, follow) : restore(from, homePath(), { database, ...follow })).finally(() => bar.end())
    const what = `${done.files} files, ${(done.bytes / 1e6).toFixed(1)} MB, of ${done.created}`
    out(verify ? `Whole and sound: ${what}` : `Restored into ${homePath()}: ${what}`)
    result({ ...done, verified: true, home: verify ? null : homePath() })
  },
})
