/** Where pictures come from: a folder or a zip archive. */
import { stat } from 'node:fs/promises'
import { Failure } from '../failure.ts'
import { openArchive } from './archive.ts'
import { openFolder } from './folder.ts'
import { isListName } from './list.ts'
import { openListed } from './listed.ts'
import type { Source } from './source.ts'

/** Throws source_not_found, source_not_a_folder, source_forbidden, archive_unsafe, archive_damaged, list_…. */
export async function openSource(path: string, signal?: AbortSignal): Promise<Source> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EACCES' || error.code === 'EPERM') throw new Failure('source_forbidden', { path })
    throw new Failure('source_not_found', { path })
  })
  if (found.isDirectory()) return await openFolder(path, signal)
  if (found.isFile()) return isListName(path) ? await openListed(path, signal) : await openArchive(path, signal)
  throw new Failure('source_not_a_folder', { path })
}
