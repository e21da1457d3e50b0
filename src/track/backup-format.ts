/**
 * What a backup is made of: `database.sqlite` or `database.jsonl.gz`, the files of the home below `home/`, and `manifest.jsonl`, which
 * lists them all with their digests and is written last: without it, it is no backup.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { copies } from '../db/backup.ts'
import { Failure } from '../failure.ts'
import { isTemporary } from '../storage/disk.ts'
import { checkObjectName } from '../storage/objects.ts'

export const manifestName = 'manifest.jsonl'

export const Head = z.strictObject({
  plinth_backup: z.literal(1),
  /** Version of the program that made it. */
  plinth: z.string().max(100),
  /** ISO 8601 */
  created: z.string().max(40),
})
export type Head = z.infer<typeof Head>
export const FileLine = z.strictObject({
  path: z.string().max(2500),
  bytes: z.int().min(0),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  /** Milliseconds since 1970: with path and size, what says that a file did not change since the backup before. */
  modified: z.number(),
})
export type FileLine = z.infer<typeof FileLine>
export const End = z.strictObject({ files: z.int().min(0), bytes: z.int().min(0) })
export type End = z.infer<typeof End>

/** Made anew, or true only for this machine: locks, the owner's token, where the database is, what can be computed again. */
const left = /^(reserve|server|token|database|features|plinth\.db.*|database\..*)$/

const ofJobs = /^jobs\/\d+\/((\d+\/)?secrets\.json|\d+\/(venv|python)(\/|$))/

/**
 * Whether a file of a home, by its path in it with slashes, is part of a backup. Secrets of jobs are not, nor what an attempt only runs in: it
 * is made again.
 */
export const isKept = (path: string): boolean => {
  const segments = path.split('/')
  return !left.test(segments[0]!) && !segments.some(isTemporary) && !/^spool\/[^/]+\.lock$/.test(path) && !ofJobs.test(path)
}

/** The path inside the home for a path of a backup; null for the database and the manifest. throws archive_unsafe */
export function placeInHome(path: string): string | null {
  if (path === copies.sqlite || path === copies.dump || path === manifestName) return null
  try {
    checkObjectName(path)
  } catch (error) {
    throw new Failure('archive_unsafe', { problem: 'it names a file where none of Plinth’s can be' }, { cause: error })
  }
  const place = path.startsWith('home/') ? path.slice('home/'.length) : ''
  if (place === '' || !isKept(place)) throw new Failure('archive_unsafe', { problem: 'it names a file where none of Plinth’s can be' })
  return place
}

// ── where backups lie ──

/** 2026-11-25T10-31-02-123Z: sorts by time, and is a name on every disk. */
export const isBackupName = (name: string) => /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z$/.test(name)

/** The complete backups in a folder, oldest first. */
export async function backupsIn(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter(isBackupName).toSorted()
  const whole = await Promise.all(
    names.map(name =>
      stat(join(folder, name, manifestName)).then(
        () => true,
        () => false,
      ),
    ),
  )
  return names.filter((_, i) => whole[i]).map(name => join(folder, name))
}

// ── the manifest ──

/** The files that a manifest lists, one by one. throws backup_damaged */
export async function* readManifest(source: AsyncIterable<Uint8Array>, ended?: (head: Head) => void): AsyncGenerator<FileLine> {
  let head: Head | null = null
  let end: End | null = null
  let files = 0
  for await (const line of linesOf(source)) {
    if (end) throw damaged('its manifest goes on after its end')
    if (!head) head = parsed(Head, line)
    else if (line.startsWith('{"files"')) end = parsed(End, line)
    else {
      files++
      yield parsed(FileLine, line)
    }
  }
  if (!head || end?.files !== files) throw damaged('its manifest ends too early')
  ended?.(head)
}

export const damaged = (problem: string) => new Failure('backup_damaged', { problem })

function parsed<T>(shape: z.ZodType<T>, line: string): T {
  try {
    return shape.parse(JSON.parse(line))
  } catch (error) {
    throw new Failure('backup_damaged', { problem: 'its manifest cannot be read' }, { cause: error })
  }
}

const longestLine = 16 * 1024

async function* linesOf(source: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of source) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop()!
    if (rest.length > longestLine) throw damaged('its manifest cannot be read')
    yield* lines
  }
  if (rest !== '') throw damaged('its manifest ends too early')
}
