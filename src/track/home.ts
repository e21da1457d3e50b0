/**
 * The home folder: `format`, `reserve`, `plinth.db`, and beside the database `blobs/`, `datasets/`, `runs/`, `models/`, `artifacts/`,
 * `features/`. Files are the truth about what is under way; the database answers questions. It may be PostgreSQL: then the file
 * `database` says where, readable for this user alone because a password may stand in it.
 */
import { existsSync } from 'node:fs'
import { access, constants, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { database as databaseSetting } from '../config.ts'
import { isPostgres, showTarget } from '../db/dialect.ts'
import type { Home } from '../db/home.ts'
import { openDatabase } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { openBlobs } from '../storage/blobs.ts'
import { makeFolder, storageFailure, writeFileAtomic } from '../storage/disk.ts'
import { keepReserve, withReserve } from './reserve.ts'

/** Grows when an older Plinth could no longer read what a newer one writes. */
const format = 1

/**
 * Opens it, and makes it on first use, readable for this user alone. Any number of processes may have it open. `database`: where its
 * records are to be from now on, as postgres://…; otherwise as PLINTH_DATABASE says, else as the home remembers.
 * throws home_too_new, home_damaged, read_only, not_permitted, path_in_the_way, disk_full, database_…
 */
export async function openHome(path: string, { database }: { database?: string | undefined } = {}): Promise<Home> {
  await makeFolder(path)
  await checkFormat(path)
  await access(path, constants.W_OK).catch(error => {
    throw storageFailure(error, path)
  })
  await Promise.all(['blobs', 'datasets', 'runs', 'models', 'features'].map(name => makeFolder(path, name)))
  const remembered = await rememberedDatabase(path)
  const target = checkDatabase(path, database ?? databaseSetting() ?? remembered, remembered)
  const db = await withReserve(path, () => openDatabase(target, { backups: path }))
  try {
    const kept = database ?? (remembered === null && isPostgres(target) ? withoutPassword(target) : remembered)
    if (kept !== null && kept !== remembered) await writeFileAtomic(join(path, 'database'), `${kept}\n`)
  } catch (error) {
    await db.destroy()
    throw error
  }
  await keepReserve(path)
  return { path, db, target, blobs: openBlobs(join(path, 'blobs')), close: () => db.destroy() }
}

/** What only the environment said is remembered so far that no command makes a second, empty database beside it. */
function withoutPassword(target: string): string {
  const url = new URL(target)
  url.password = ''
  return url.href
}

async function rememberedDatabase(path: string): Promise<string | null> {
  const file = join(path, 'database')
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw storageFailure(error, file)
  })
  return text === null ? null : text.trim()
}

/** throws database_address, database_other */
function checkDatabase(path: string, wanted: string | null, remembered: string | null): string {
  const own = join(path, 'plinth.db')
  if (wanted === null) return own
  if (!isPostgres(wanted) || !URL.canParse(wanted) || new URL(wanted).pathname.length < 2)
    throw new Failure('database_address', { problem: 'it does not begin with postgres:// or names no database' })
  if (remembered === null && existsSync(own)) throw new Failure('database_other', { database: showTarget(wanted) })
  return wanted
}

/** Before anything else is touched: a newer home is left as it is. */
async function checkFormat(path: string): Promise<void> {
  const file = join(path, 'format')
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw storageFailure(error, file)
  })
  if (text === null) return writeFileAtomic(file, `${format}\n`)
  const found = /^\d{1,6}\s*$/.test(text) ? Number(text) : 0
  if (found < 1) throw new Failure('home_damaged', { path: file })
  if (found > format) throw new Failure('home_too_new', { path, found: `format ${found}`, known: `format ${format}` })
}
