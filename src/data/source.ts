/** Where pictures come from: a folder or a zip archive, listed the same way, so that everything behind it cannot tell them apart. */
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { Failure } from '../failure.ts'
import { openArchive } from './archive.ts'
import { openFolder } from './folder.ts'

export type SourceFile = {
  /** Relative, forward slashes, Unicode NFC unless two names would fall together. */
  path: string
  size: number
  /** All bytes; throws file_unreadable. */
  read(): Promise<Buffer>
  /** At least the first 512 bytes, or all there are; throws file_unreadable. */
  head(): Promise<Buffer>
}
export type Ignored = { path: string; reason: string }
export type Source = {
  files: SourceFile[]
  /** Every folder that was looked into, without the root. */
  folders: string[]
  ignored: Ignored[]
  archive: boolean
  close(): Promise<void>
}

/** A picture file larger than this is not read into memory. */
export const maxFileBytes = 256 * 1024 * 1024

/** Throws source_not_found, source_not_a_folder, source_forbidden, archive_unsafe, archive_damaged. */
export async function openSource(path: string, signal?: AbortSignal): Promise<Source> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EACCES' || error.code === 'EPERM') throw new Failure('source_forbidden', { path })
    throw new Failure('source_not_found', { path })
  })
  if (found.isDirectory()) return await openFolder(path, signal)
  if (found.isFile()) return await openArchive(path, signal)
  throw new Failure('source_not_a_folder', { path })
}

export function checkStopped(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new Failure('interrupted', { next: 'Nothing was saved. Run the same command again to import.' })
}

/** Order by code points: the same on every machine, in every language, and in Python. */
export function byCodePoint(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length)
  for (let at = 0; at < shorter; at++) {
    if (a.charCodeAt(at) !== b.charCodeAt(at)) return a.codePointAt(at)! - b.codePointAt(at)!
  }
  return a.length - b.length
}

/** Names in Unicode's composed form, as macOS and Linux write the same name differently; twins that would fall together keep their own. */
export function composedNames(names: readonly string[]): string[] {
  const taken = new Set(names.filter(name => name === name.normalize('NFC')))
  return names.map(name => {
    const composed = name.normalize('NFC')
    if (composed === name) return name
    if (taken.has(composed)) return name
    taken.add(composed)
    return composed
  })
}

export const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')
