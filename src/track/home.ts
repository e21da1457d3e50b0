/**
 * The home folder: `format`, `reserve`, `plinth.db`, and beside the database `blobs/`, `datasets/`, `runs/`, `models/`, `features/`.
 * Files are the truth about what is under way; the database answers questions.
 */
import { access, constants, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../db/home.ts'
import { openDatabase } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { openBlobs } from '../storage/blobs.ts'
import { makeFolder, storageFailure, writeFileAtomic } from '../storage/disk.ts'
import { keepReserve, withReserve } from './reserve.ts'

/** Grows when an older Plinth could no longer read what a newer one writes. */
const format = 1

/**
 * Opens it, and makes it on first use, readable for this user alone. Any number of processes may have it open.
 * throws home_too_new, home_damaged, read_only, not_permitted, path_in_the_way, disk_full
 */
export async function openHome(path: string): Promise<Home> {
  await makeFolder(path)
  await checkFormat(path)
  await access(path, constants.W_OK).catch(error => {
    throw storageFailure(error, path)
  })
  await Promise.all(['blobs', 'datasets', 'runs', 'models', 'features'].map(name => makeFolder(path, name)))
  const db = await withReserve(path, () => openDatabase(join(path, 'plinth.db')))
  await keepReserve(path)
  return { path, db, blobs: openBlobs(join(path, 'blobs')), close: () => db.destroy() }
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
