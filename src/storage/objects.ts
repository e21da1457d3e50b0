/**
 * Where files of runs and models go: a small interface that a disk, memory and later object stores share, and one suite of tests that all
 * of them pass (test/storage/objects.test.ts). An object is whole or not there; a name is a path of plain segments.
 */
import type { Readable } from 'node:stream'
import { Failure } from '../failure.ts'
import { isTemporary } from './disk.ts'

export interface StoredObject {
  bytes: number
  /** Milliseconds since 1970. */
  modified: number
}
export interface Listed {
  /** One segment, without the folder it is in. */
  name: string
  /** Null for a folder. */
  bytes: number | null
}

export interface Objects {
  /**
   * Whole and safe on disk when it resolves, replacing what was there; in constant memory. Where `content` fails, so does this, with the
   * same error, and nothing has changed. throws object_name, object_in_the_way, disk_full
   */
  put(name: string, content: AsyncIterable<Uint8Array>): Promise<StoredObject>
  /** Null where there is none. `from`, `to`: bytes, `to` excluded. Whoever does not read the content to its end destroys it. */
  get(name: string, range?: { from: number; to: number }): Promise<{ object: StoredObject; content: Readable } | null>
  head(name: string): Promise<StoredObject | null>
  /** What lies directly in a folder, by name; nothing where there is no such folder: one is there as long as something is in it. '' is the root. */
  list(folder: string): Promise<Listed[]>
  /** Whether there was something; a folder goes with everything in it. */
  remove(name: string): Promise<boolean>
}

/** Segments that no file system or browser takes for anything else. throws object_name */
export function checkObjectName(name: string): string {
  const segments = name.split('/')
  const sound =
    Buffer.byteLength(name) <= 2000 && segments.every(segment => segment !== '' && segment !== '.' && segment !== '..' && isPlain(segment))
  if (!sound) throw new Failure('object_name', { name: name.slice(0, 200) })
  return name
}
/** No control characters, no backslash, no lone half of a surrogate pair, and nothing that `gc` takes for a leftover. */
const isPlain = (segment: string) =>
  !/[\0-\x1f\x7f\\]/.test(segment) && segment.isWellFormed() && Buffer.byteLength(segment) <= 255 && !isTemporary(segment)

/** Everything below a folder, with the whole names; for counting and copying. */
export async function* walk(objects: Objects, folder: string): AsyncGenerator<{ name: string; bytes: number }> {
  for (const { name, bytes } of await objects.list(folder)) {
    const whole = folder === '' ? name : `${folder}/${name}`
    if (bytes === null) yield* walk(objects, whole)
    else yield { name: whole, bytes }
  }
}
