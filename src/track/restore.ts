/**
 * A home from a backup, into a folder that is new or empty. Everything is read, checked against the manifest and written aside first; only
 * a whole and sound one takes the place. A backup may come from a stranger: paths are ours or refused, links and pipes are never followed,
 * and of its database only rows are taken over (db/backup.ts).
 */
import { createHash } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { lstat, mkdir, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { copies, restoreDatabase } from '../db/backup.ts'
import { isPostgres } from '../db/dialect.ts'
import { Failure } from '../failure.ts'
import { makeFolder, storageFailure, syncFolder, temporaryPath, writeFileAtomic } from '../storage/disk.ts'
import { readTar } from '../storage/tar.ts'
import { backupsIn, damaged, type FileLine, manifestName, placeInHome, readManifest } from './backup-format.ts'

export interface Restored {
  files: number
  bytes: number
  /** ISO 8601: when the backup was made. */
  created: string
}
export interface RestoreOptions {
  /** postgres://…: an empty database for the records. Without it they go where a new home has them. */
  database?: string | undefined
  onProgress?(progress: { files: number; bytes: number }): void
  signal?: AbortSignal
}

/** `from`: a backup's folder, a folder of backups (the newest is taken) or a .tar. throws restore_place, backup_missing, archive_unsafe … */
export async function restore(from: string, home: string, { database, ...options }: RestoreOptions = {}): Promise<Restored> {
  const target = resolve(home)
  const there = await readdir(target).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw storageFailure(error, target)
  })
  if (there !== null && there.length > 0) throw new Failure('restore_place', { path: target })
  await makeFolder(dirname(target))
  const part = temporaryPath(target)
  try {
    await mkdir(part, { mode: 0o700 })
    const restored = await check(await filesIn(from), { into: part, ...options })
    const copy = join(part, (await exists(join(part, copies.sqlite))) ? copies.sqlite : copies.dump)
    await restoreDatabase(copy, database ?? join(part, 'plinth.db'))
    for (const name of await readdir(part)) if (name.startsWith('database.')) await rm(join(part, name))
    if (database !== undefined && isPostgres(database)) await writeFileAtomic(join(part, 'database'), `${database}\n`)
    if (there !== null) await rmdir(target)
    await rename(part, target)
    await syncFolder(dirname(target))
    return restored
  } catch (error) {
    await rm(part, { recursive: true, force: true }).catch(() => {})
    throw options.signal?.aborted ? options.signal.reason : storageFailure(error, target)
  }
}

/**
 * Only the records, into an empty database: from the copy that an upgrade of PostgreSQL leaves in the home (`database.before-….jsonl.gz`),
 * or the one inside of a backup. The home is not touched. throws dump_damaged, database_not_empty
 */
export async function restoreRecords(copy: string, database: string): Promise<void> {
  if (!(await exists(copy))) throw new Failure('backup_missing', { path: resolve(copy) })
  await restoreDatabase(copy, database)
}

/** Reads all of it and compares, writes nothing. */
export const verify = async (from: string, options: Omit<RestoreOptions, 'database'> = {}): Promise<Restored> =>
  await check(await filesIn(from), { into: null, ...options })

interface Entry {
  path: string
  content: AsyncIterable<Uint8Array>
}

/** Each file of the backup into its place in `into`, then all of them against the manifest, wherever that came. */
async function check(
  entries: AsyncIterable<Entry>,
  { into, onProgress, signal }: { into: string | null } & Omit<RestoreOptions, 'database'>,
): Promise<Restored> {
  const found = new Map<string, string>()
  let manifest: FileLine[] | null = null
  let created = ''
  let bytes = 0
  for await (const { path, content } of entries) {
    signal?.throwIfAborted()
    const place = placeInHome(path)
    if (path === manifestName) {
      manifest = []
      const head = (found: { created: string }) => {
        created = found.created
      }
      for await (const line of readManifest(content, head)) manifest.push(line)
      continue
    }
    if (found.has(path)) throw new Failure('archive_unsafe', { problem: 'it holds two files of one name' })
    const written = await write(content, into && join(into, ...(place ?? path).split('/')))
    found.set(path, `${written.bytes} ${written.sha256}`)
    bytes += written.bytes
    onProgress?.({ files: found.size, bytes })
  }
  if (!manifest) throw damaged('it has no manifest, so it was never finished')
  const wrong = manifest.find(line => found.get(line.path) !== `${line.bytes} ${line.sha256}`)
  if (wrong) throw damaged(`${wrong.path} is missing or not what was backed up`)
  if (manifest.length !== found.size) throw damaged('it holds files that its manifest does not list')
  if (!found.has(copies.sqlite) && !found.has(copies.dump)) throw damaged('it holds no database')
  return { files: found.size, bytes, created }
}

async function write(content: AsyncIterable<Uint8Array>, to: string | null): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256')
  let bytes = 0
  if (to !== null) await mkdir(dirname(to), { recursive: true, mode: 0o700 })
  const file = to === null ? null : await open(to, 'wx', 0o600)
  try {
    for await (const chunk of content) {
      hash.update(chunk)
      bytes += chunk.length
      await file?.writeFile(chunk)
    }
    await file?.sync()
  } finally {
    await file?.close()
  }
  return { bytes, sha256: hash.digest('hex') }
}

// ── where a backup lies ─────────────────────────────────────────────────────────────────────────────────────────────────────

async function filesIn(from: string): Promise<AsyncIterable<Entry>> {
  const path = resolve(from)
  const found = await stat(path).catch(() => null)
  if (found?.isFile()) return inArchive(path)
  if (!found?.isDirectory()) throw new Failure('backup_missing', { path })
  if (await exists(join(path, manifestName))) return inFolder(path)
  const newest = (await backupsIn(path)).at(-1)
  if (newest === undefined) throw new Failure('backup_missing', { path })
  return inFolder(newest)
}

async function* inArchive(path: string): AsyncGenerator<Entry> {
  const source = createReadStream(path, { highWaterMark: 1024 * 1024 })
  for await (const { file, content } of readTar(source)) yield { path: file.name, content }
}

async function* inFolder(folder: string): AsyncGenerator<Entry> {
  const plainFolders = new Set([''])
  for await (const { path } of readManifest(await openPlain(folder, manifestName, plainFolders))) {
    placeInHome(path) // before anything is opened
    yield { path, content: await openPlain(folder, path, plainFolders) }
  }
  yield { path: manifestName, content: await openPlain(folder, manifestName, plainFolders) }
}

/** A plain file below real folders; whatever else stands there (a link out, a pipe that never ends) is refused. throws archive_unsafe */
async function openPlain(root: string, path: string, plainFolders: Set<string>): Promise<AsyncIterable<Uint8Array>> {
  const parents = path.split('/').slice(0, -1)
  for (const [i] of parents.entries()) {
    const folder = parents.slice(0, i + 1).join('/')
    if (plainFolders.has(folder)) continue
    const entry = await lstat(join(root, folder)).catch(() => null)
    if (entry && !entry.isDirectory())
      throw new Failure('archive_unsafe', { problem: 'it holds a link or something else that is no plain file' })
    plainFolders.add(folder)
  }
  const file = await open(join(root, path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') throw damaged(`${path} is missing or not what was backed up`)
      if (error.code === 'ELOOP' || error.code === 'ENXIO')
        throw new Failure('archive_unsafe', { problem: 'it holds a link or something else that is no plain file' })
      throw storageFailure(error, path)
    },
  )
  if (!(await file.stat()).isFile()) {
    await file.close()
    throw new Failure('archive_unsafe', { problem: 'it holds a link or something else that is no plain file' })
  }
  return file.createReadStream()
}

// ── below ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )
