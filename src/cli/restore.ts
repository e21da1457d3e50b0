import { home as homePath } from '../config.ts'
import { restore, restoreRecords, verifyBackup } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import { defineCommand } from './command.ts'
import { databaseOf, databaseOptions } from './database.ts'

export default defineCommand({
  name: 'restore',
  summary: 'make a home from a backup, or verify one',
  details: `Into the folder that PLINTH_HOME names, which must be new or empty. Every file is compared with its digest first; if one is
missing or different, nothing is restored. With --database-file the records go into an empty PostgreSQL database, also those of a backup
that was made with SQLite: that is how a home moves to PostgreSQL. The next plinth up makes a new owner's token.

A file that ends in .jsonl.gz (what an upgrade leaves in the home beside PostgreSQL) holds records only: it fills the empty database that
--database-file names, and leaves the home alone.`,
  arguments: { from: { summary: 'what plinth backup wrote: a folder of backups (the newest is taken), one of them, or a .tar' } },
  options: { verify: { type: 'boolean', summary: 'only read it all and compare' }, ...databaseOptions },
  examples: ['plinth restore /mnt/backups/plinth --verify', 'PLINTH_HOME=/srv/plinth plinth restore ./plinth.tar'],
  async run({ from, verify, ...options }, { out, say, result, progress, signal }) {
    const database = databaseOf('restore', options)
    if (from.endsWith('.jsonl.gz')) {
      if (verify || database === undefined)
        throw new Failure('usage', { problem: 'Records alone are restored into a database: say --database-file.', command: 'restore' })
      await restoreRecords(from, database)
      out('The database is filled. Use it with: plinth up --database-file FILE')
      return result({ home: null, records: true })
    }
    const bar = progress(verify ? 'Reading' : 'Restoring', null, { unit: 'files' })
    const follow = { signal, onProgress: ({ files }: { files: number }) => bar.update(files) }
    const done = await (verify ? verifyBackup(from, follow) : restore(from, homePath(), { database, ...follow })).finally(() => bar.end())
    const what = `${done.files} files, ${(done.bytes / 1e6).toFixed(1)} MB, of ${done.created}`
    out(verify ? `Whole and sound: ${what}` : `Restored into ${homePath()}: ${what}`)
    if (!verify) say(`Start it with: PLINTH_HOME=${homePath()} plinth up. Its owner gets a new token; those of others go on working.`)
    result({ ...done, verified: true, home: verify ? null : homePath() })
  },
})
