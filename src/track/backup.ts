/**
 * A whole copy of a home while it is in use: what trainings have logged and the database may not have yet, the database as of one moment,
 * then the other files, which are there before a row names them. So whatever moves meanwhile is in the copy where it came from or where it
 * went, and a line that is in both counts once (spool-send.ts). What nobody changes in place (pictures, models, artifacts) is linked where the disk allows it, and what did not change since the backup
 * before is neither copied nor read again.
 */
import { createHash } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { link, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { version } from '../config.ts'
import { copyDatabase } from '../db/backup.ts'
import type { Home } from '../db/home.ts'
import { Failure } from '../failure.ts'
import { makeFolder, removeFolder, storageFailure, syncFolder, temporaryPath } from '../storage/disk.ts'
import { tarEnd, tarred } from '../storage/tar.ts'
import { backupsIn, type End, type FileLine, type Head, isBackupName, isKept, manifestName, readManifest } from './backup-format.ts'

export interface BackedUp {
  path: string
  files: number
  bytes: number
  /** Of those, copied now; the others are shared with the home or with the backup before. */
  copied: number
  /** Pictures and models whose content is not what their name says: the disk has lost them. */
  damaged: string[]
}
export interface BackupOptions {
  onProgress?(progress: { files: number; bytes: number }): void
  signal?: AbortSignal
}

/**
 * `to`: a folder, in which the backup becomes a folder of its own named after the time; or a file that ends in .tar. All that was stored
 * when it is called is in it. throws backup_place, disk_full …
 */
export async function backUp(home: Home, to: string, options: BackupOptions = {}): Promise<BackedUp> {
  const path = resolve(to)
  if (!relative(home.path, path).startsWith('..')) throw new Failure('backup_place', { path, problem: 'it is inside of the home' })
  return path.endsWith('.tar') ? await toArchive(home, path, options) : await toFolder(home, path, options)
}

// ── a folder ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function toFolder(home: Home, folder: string, { onProgress, signal }: BackupOptions): Promise<BackedUp> {
  await makeFolder(folder)
  const foreign = (await readdir(folder)).find(name => !isBackupName(name) && !name.endsWith('.tar') && !name.includes('.plinth-part-'))
  if (foreign !== undefined) throw new Failure('backup_place', { path: folder, problem: `it holds something else (${foreign})` })
  const before = await previous(folder)
  const created = new Date()
  const path = join(folder, created.toISOString().replace(/[:.]/g, '-'))
  const part = temporaryPath(path)
  const done = counters(path)
  try {
    await mkdir(part, { mode: 0o700 })
    const manifest = await open(join(part, manifestName), 'wx', 0o600)
    let lines = ''
    const write = async (line: object) => {
      lines += `${JSON.stringify(line)}\n`
      if (lines.length < 64 * 1024) return
      await manifest.appendFile(lines)
      lines = ''
    }
    try {
      await write({ plinth_backup: 1, plinth: version, created: created.toISOString() } satisfies Head)
      const logged: FileLine[] = []
      for await (const source of filesOf(home.path, 'spool')) {
        const line = await place(source, join(part, 'home', source.path), before, done)
        if (line) logged.push(line)
      }
      const database = await copyDatabase(home.db, home.target, part)
      const copied = await digestOf(database)
      await write(done.add({ path: relative(part, database), ...copied }, copied.bytes))
      for (const line of logged) await write(line)
      for await (const source of filesOf(home.path)) {
        signal?.throwIfAborted()
        const line = await place(source, join(part, 'home', source.path), before, done)
        if (line) await write(line)
        onProgress?.(done.state)
      }
      await write(done.end())
      await manifest.appendFile(lines)
      await manifest.sync()
    } finally {
      await manifest.close()
    }
    await rename(part, path)
    await syncFolder(folder)
    return done.state
  } catch (error) {
    await rm(part, { recursive: true, force: true }).catch(() => {})
    throw signal?.aborted ? signal.reason : storageFailure(error, folder)
  }
}

interface Before {
  folder: string
  files: ReadonlyMap<string, FileLine>
}
/** What the newest backup in the folder holds; one that cannot be read is not built upon. */
async function previous(folder: string): Promise<Before | null> {
  const newest = (await backupsIn(folder)).at(-1)
  if (newest === undefined) return null
  try {
    const files = new Map<string, FileLine>()
    for await (const line of readManifest(createReadStream(join(newest, manifestName)))) files.set(line.path, line)
    return { folder: newest, files }
  } catch {
    return null
  }
}

/** Linked where it can be, else copied. Null for a file that has gone meanwhile. */
async function place({ path, full, bytes, modified }: Source, to: string, before: Before | null, done: Counters): Promise<FileLine | null> {
  const name = `home/${path}`
  await mkdir(dirname(to), { recursive: true, mode: 0o700 })
  const known = before?.files.get(name)
  if (known && known.bytes === bytes && known.modified === modified && (await linked(join(before!.folder, name), to)))
    return done.add(known, 0)
  if (isUnchanging(path) && (await linked(full, to))) {
    const line = { path: name, ...(await digestOf(to)), modified }
    return done.add(line, 0, isSound(path, line.sha256))
  }
  const content = await openPlain(full)
  if (!content) return null
  try {
    const copy = await open(to, 'wx', 0o600)
    try {
      const hash = createHash('sha256')
      let copied = 0
      for await (const chunk of content.createReadStream({ autoClose: false })) {
        hash.update(chunk as Uint8Array)
        copied += (chunk as Uint8Array).length
        await copy.writeFile(chunk as Uint8Array)
      }
      await copy.sync()
      const sha256 = hash.digest('hex')
      return done.add({ path: name, bytes: copied, sha256, modified }, copied, isSound(path, sha256))
    } finally {
      await copy.close()
    }
  } finally {
    await content.close()
  }
}

/** Whether it became a second name of the file; not across disks, nor where the disk or its rights do not allow it. */
const linked = (from: string, to: string) =>
  link(from, to).then(
    () => true,
    () => false,
  )

// ── one file ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function toArchive(home: Home, path: string, { onProgress, signal }: BackupOptions): Promise<BackedUp> {
  if (await exists(path)) throw new Failure('backup_place', { path, problem: 'there is something already' })
  await makeFolder(dirname(path))
  const part = temporaryPath(path)
  const aside = await makeFolder(`${temporaryPath(path)}`)
  const done = counters(path)
  try {
    const archive = await open(part, 'wx', 0o600)
    try {
      const put = async (chunks: AsyncIterable<Uint8Array>) => {
        for await (const chunk of chunks) await archive.writeFile(chunk)
      }
      /** Of a file that grows, what was there when it was looked at. */
      const add = async (name: string, full: string) => {
        const content = await openPlain(full)
        if (!content) return null
        const { size, mtimeMs } = await content.stat()
        const hash = createHash('sha256')
        async function* hashed() {
          if (size === 0) return
          for await (const chunk of content!.createReadStream({ autoClose: false, end: size - 1 })) {
            hash.update(chunk as Uint8Array)
            yield chunk as Uint8Array
          }
        }
        await put(tarred({ name, bytes: size, modified: mtimeMs }, hashed())).finally(() => content.close())
        return { path: name, bytes: size, sha256: hash.digest('hex'), modified: mtimeMs }
      }
      const lines: string[] = [JSON.stringify({ plinth_backup: 1, plinth: version, created: new Date().toISOString() } satisfies Head)]
      const addAll = async (folder?: string) => {
        for await (const { path: name, full } of filesOf(home.path, folder)) {
          signal?.throwIfAborted()
          const line = await add(`home/${name}`, full)
          if (line) lines.push(JSON.stringify(done.add(line, line.bytes, isSound(name, line.sha256))))
          onProgress?.(done.state)
        }
      }
      await addAll('spool')
      const database = await copyDatabase(home.db, home.target, aside)
      const first = (await add(relative(aside, database), database))!
      lines.push(JSON.stringify(done.add(first, first.bytes)))
      await removeFolder(aside)
      await addAll()
      const manifest = Buffer.from(`${[...lines, JSON.stringify(done.end())].join('\n')}\n`)
      await put(tarred({ name: manifestName, bytes: manifest.length, modified: Date.now() }, whole(manifest)))
      await archive.writeFile(tarEnd())
      await archive.sync()
    } finally {
      await archive.close()
    }
    await rename(part, path)
    await syncFolder(dirname(path))
    return done.state
  } catch (error) {
    await rm(part, { force: true }).catch(() => {})
    throw signal?.aborted ? signal.reason : storageFailure(error, path)
  } finally {
    await rm(aside, { recursive: true, force: true })
  }
}

async function* whole(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

// ── below ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Source {
  /** In the home, with slashes. */
  path: string
  full: string
  bytes: number
  modified: number
}

/** Every file of the home that belongs into a backup, without `folder` all but the spool. Links and pipes are none of ours. */
async function* filesOf(home: string, folder = ''): AsyncGenerator<Source> {
  const entries = await readdir(join(home, folder), { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [] // a run that was deleted meanwhile
    throw error
  })
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = folder === '' ? entry.name : `${folder}/${entry.name}`
    if (!isKept(path) || path === 'spool') continue
    if (entry.isDirectory()) yield* filesOf(home, path)
    else if (entry.isFile()) {
      const full = join(home, ...path.split('/'))
      const found = await stat(full).catch(() => null)
      if (found) yield { path, full, bytes: found.size, modified: found.mtimeMs }
    }
  }
}

/** Written aside and renamed, or named by their content: nobody writes into one that is there. */
const isUnchanging = (path: string) => /^(blobs|models|artifacts)\//.test(path)

/** False for a file that is named by its content and has another one. */
function isSound(path: string, sha256: string): boolean {
  const named = /^(?:blobs\/[0-9a-f]{2}\/|models\/)([0-9a-f]{64})(?:\.onnx)?$/.exec(path)?.[1]
  return named === undefined || named === sha256
}

async function digestOf(path: string): Promise<Omit<FileLine, 'path'>> {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk as Uint8Array)
    bytes += (chunk as Uint8Array).length
  }
  return { bytes, sha256: hash.digest('hex'), modified: (await stat(path)).mtimeMs }
}

async function openPlain(path: string) {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

type Counters = ReturnType<typeof counters>
function counters(path: string) {
  const state: BackedUp = { path: path.split(sep).join('/'), files: 0, bytes: 0, copied: 0, damaged: [] }
  return {
    state,
    add(line: FileLine, copied: number, sound = true): FileLine {
      state.files++
      state.bytes += line.bytes
      state.copied += copied
      if (!sound) state.damaged.push(line.path)
      return line
    },
    end: (): End => ({ files: state.files, bytes: state.bytes }),
  }
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )
