/**
 * The home folder: `format`, `plinth.db`, and beside the database `blobs/`, `datasets/`, `runs/`, `models/`, `features/`.
 * Files are the truth about what is under way; the database answers questions.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../db/home.ts'
import { openDatabase } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { openBlobs } from '../storage/blobs.ts'
import { makeFolder, writeFileAtomic } from '../storage/disk.ts'

/** Grows when an older Plinth could no longer read what a newer one writes. */
const format = 1

/** Opens it, and makes it on first use. Any number of processes may have it open. throws home_too_new, read_only, not_permitted, disk_full */
export async function openHome(path: string): Promise<Home> {
  await makeFolder(path)
  await checkFormat(path)
  await Promise.all(['blobs', 'datasets', 'runs', 'models', 'features'].map(name => makeFolder(path, name)))
  const db = await openDatabase(join(path, 'plinth.db'))
  return { path, db, blobs: openBlobs(join(path, 'blobs')), close: () => db.destroy() }
}

async function checkFormat(path: string): Promise<void> {
  const file = join(path, 'format')
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (text === null) return writeFileAtomic(file, `${format}\n`)
  const found = Number(text.trim())
  if (!Number.isInteger(found) || found < 1) throw new Failure('home_damaged', { path: file })
  if (found > format) throw new Failure('home_too_new', { path, found, known: format })
}
