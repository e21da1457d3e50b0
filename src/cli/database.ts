/** How commands are told of a PostgreSQL database, so that no password stands where others can read it. */
import { readFileSync, statSync } from 'node:fs'
import { Failure } from '../failure.ts'
import type { OptionSpecs } from './arguments.ts'

export const databaseOptions = {
  database: { type: 'string', value: 'URL', summary: 'keep the records in PostgreSQL: postgres://user@host/name' },
  'database-file': { type: 'string', value: 'FILE', summary: 'the same, from the first line of a file' },
} as const satisfies OptionSpecs

/** throws database_address, secret_open, usage */
export function databaseOf(
  command: string,
  { database, databaseFile }: { database: string | undefined; databaseFile: string | undefined },
): string | undefined {
  if (database !== undefined && databaseFile !== undefined)
    throw new Failure('usage', { problem: '--database and --database-file say the same thing.', command })
  if (database !== undefined && URL.canParse(database) && new URL(database).password !== '')
    throw new Failure('database_address', { problem: 'every user of this machine can read a password in a command line' })
  if (databaseFile === undefined) return database
  try {
    // what a container or systemd hands over lies below /run, open to everybody in there
    if (!databaseFile.startsWith('/run/') && statSync(databaseFile).mode & 0o077) throw new Failure('secret_open', { path: databaseFile })
    return readFileSync(databaseFile, 'utf8').split('\n', 1)[0]!.trim()
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure('database_address', { problem: `${databaseFile}: ${(error as NodeJS.ErrnoException).code}` }, { cause: error })
  }
}
