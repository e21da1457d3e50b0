/** What a folder and a zip archive of pictures have in common: both are listed as a Source, and everything behind it cannot tell them apart. */
import { createHash } from 'node:crypto'
import { Failure } from '../failure.ts'
import type { PictureList } from './list.ts'

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
  /** The list that names the files, where one was given instead of a folder. */
  list?: { name: string; list: PictureList }
  /** Where the folder really lies; absolute paths in a list may begin with it. */
  root?: string
  close(): Promise<void>
}

/** A picture file larger than this is not read into memory. */
export const maxFileBytes = 256 * 1024 * 1024

export function checkStopped(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new Failure('interrupted', { next: 'No version was saved. The same command goes on from the pictures that were looked at so far.' })
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
