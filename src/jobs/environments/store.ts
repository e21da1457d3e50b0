/**
 * Environments by their content, in the cache: `environments/<first half of the key>/`; the key is a hash of all that decides what is in one.
 *
 *     lock            held while one is built, taken or removed
 *     about.json      what it is made of, for people
 *     resolved.txt    what the installer chose; the same content is built again from this, not resolved again
 *     builds/<id>/    one build; an environment cannot be moved, so each is made where it stays
 *     .complete       which build is whole; written last
 *     leases/         who uses it
 *
 * A build that was killed is a folder that nothing names: neither it nor an installer that outlived its parent is in the way of the next.
 */
import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { access, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { cache } from '../../config.ts'
import { makeFolder, removeFolder, writeFileAtomic } from '../../storage/disk.ts'
import { ProcessIdentity } from '../attempt.ts'
import { isAlive, thisBoot } from '../backends/local/processes.ts'
import { lock, tryLock } from './lock.ts'

const Complete = z.object({
  format: z.literal(1),
  /** Name below builds/. */
  build: z.string().regex(/^[0-9a-f]{12}$/),
  /** Seconds that it took. */
  seconds: z.number(),
  /** Milliseconds since 1970. */
  made: z.number(),
})
type Complete = z.infer<typeof Complete>

export interface Recipe {
  /** All that decides what will be in it, in a fixed order. */
  content: readonly (readonly [name: string, value: string])[]
  /** For about.json: no secrets. */
  about: Readonly<Record<string, unknown>>
  /**
   * Fills the folder. `resolved`: what an earlier build of this content got, null for the first one. Answers what to write down as that;
   * null where the content says it already.
   */
  build(folder: string, resolved: string | null): Promise<string | null>
}

export interface Obtained {
  key: string
  folder: string
  reused: boolean
  /** Of the build, also where it is reused. */
  seconds: number
  /** What the installer chose; null where the content says it already. */
  resolved: string | null
}

export interface ObtainOptions {
  /** The attempt's folder: while it is at work the environment stays. Null: no lease. */
  lease: string | null
  say(line: string): void
  signal: AbortSignal
}

export const environmentsFolder = (): string => join(cache(), 'environments')

/** 64 hex digits. */
export function keyOf(content: Recipe['content']): string {
  return createHash('sha256')
    .update(JSON.stringify([1, ...content]))
    .digest('hex')
}

/** Builds it, or waits for who does, or takes what is there. */
export async function obtain(recipe: Recipe, { lease, say, signal }: ObtainOptions): Promise<Obtained> {
  const key = keyOf(recipe.content)
  const folder = await makeFolder(environmentsFolder(), key.slice(0, 32))
  const held = await lock(join(folder, 'lock'), {
    signal,
    waiting: () => say(`environment ${key.slice(0, 12)}: another job is building it; waiting`),
  })
  try {
    const before = await readComplete(folder)
    const complete = before ?? (await build(folder, recipe, say, key))
    if (lease !== null) await takeLease(folder, lease)
    const now = new Date()
    await utimes(join(folder, '.complete'), now, now) // when it was last used
    const resolved = await readResolved(folder)
    return { key, folder: join(folder, 'builds', complete.build), reused: before !== null, seconds: complete.seconds, resolved }
  } finally {
    held.release()
  }
}

async function build(folder: string, recipe: Recipe, say: (line: string) => void, key: string): Promise<Complete> {
  const began = performance.now()
  await removeBuilds(folder)
  const id = randomBytes(6).toString('hex')
  const into = await makeFolder(folder, 'builds', id)
  const resolved = await readResolved(folder)
  say(`environment ${key.slice(0, 12)}: ${resolved === null ? 'is being built' : 'is being built again, from what it had'}`)
  await writeFileAtomic(join(folder, 'about.json'), `${JSON.stringify({ ...recipe.about, made: new Date().toISOString() }, null, 2)}\n`)
  try {
    const chosen = await recipe.build(into, resolved)
    if (chosen !== null && resolved === null) await writeFileAtomic(join(folder, 'resolved.txt'), chosen)
    flush(into)
  } catch (error) {
    await rm(into, { recursive: true, force: true })
    throw error
  }
  const complete: Complete = { format: 1, build: id, seconds: (performance.now() - began) / 1000, made: Date.now() }
  await writeFileAtomic(join(folder, '.complete'), JSON.stringify(complete))
  return complete
}

const readResolved = (folder: string): Promise<string | null> => readFile(join(folder, 'resolved.txt'), 'utf8').catch(() => null)

/** After a power cut .complete must not stand for files that are not there. One call for the file system: a flush of each of 30,000 files takes minutes. */
function flush(folder: string): void {
  spawnSync('sync', ['--file-system', folder], { stdio: 'ignore', timeout: 60_000 }) // coreutils; elsewhere the system flushes in its own time
}

async function readComplete(folder: string): Promise<Complete | null> {
  try {
    const complete = Complete.parse(JSON.parse(await readFile(join(folder, '.complete'), 'utf8')))
    await access(join(folder, 'builds', complete.build))
    return complete
  } catch {
    return null // not there, or nothing that could be believed: it is built
  }
}

async function removeBuilds(folder: string): Promise<void> {
  await rm(join(folder, '.complete'), { force: true })
  for (const name of await names(join(folder, 'builds'))) await removeFolder(join(folder, 'builds', name))
}

const names = async (folder: string): Promise<string[]> => await readdir(folder).catch(() => [])

// ── leases ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const Lease = z.object({ attempt: z.string(), taken: z.number() })

/** Milliseconds within which an attempt whose processes cannot be seen is taken to be starting. */
const starting = 60 * 60 * 1000

async function takeLease(folder: string, attempt: string): Promise<void> {
  const leases = await makeFolder(folder, 'leases')
  const name = createHash('sha256').update(attempt).digest('hex').slice(0, 24)
  await writeFile(join(leases, `${name}.json`), JSON.stringify({ attempt, taken: Date.now() }), { mode: 0o600 })
}

/** Drops leases of attempts that have ended; answers whether one is left. */
async function isLeased(folder: string): Promise<boolean> {
  let held = false
  for (const name of await names(join(folder, 'leases'))) {
    const path = join(folder, 'leases', name)
    if (await holds(path)) held = true
    else await rm(path, { force: true })
  }
  return held
}

/** An attempt is at work until its exit.json; one that lost its processes without it does not hold for ever. */
async function holds(path: string): Promise<boolean> {
  let lease: z.infer<typeof Lease>
  try {
    lease = Lease.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch {
    return false
  }
  if (!(await exists(lease.attempt)) || (await exists(join(lease.attempt, 'exit.json')))) return false
  if (Date.now() - lease.taken < starting) return true
  return await hasProcess(lease.attempt)
}

/** Its supervisors and its processes, as the local engine writes them down (backends/local/folder.ts). */
async function hasProcess(attempt: string): Promise<boolean> {
  const boot = thisBoot()
  for (const name of await names(attempt)) {
    const text = /^supervisor\.\d+\.json$|\.born$/.test(name) ? await readFile(join(attempt, name), 'utf8').catch(() => '') : ''
    if (name.endsWith('.json')) {
      const supervisor = ProcessIdentity.safeParse(readJson(text))
      if (supervisor.success && supervisor.data.boot === boot && isAlive(supervisor.data)) return true
    } else {
      const [pid, birth] = text.trim().split(/\s+/)
      if (birth && isAlive({ pid: Number(pid), birth })) return true
    }
  }
  return false
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

// ── what can go ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Removable {
  path: string
  bytes: number
  reason: string
  /** Removes it if it still may go; answers the bytes that freed. */
  remove(): Promise<number>
}

/**
 * Environments that no job uses and none has used for `days`. What the installer chose stays (a few kilobytes), so that the same content is
 * built again exactly.
 */
export async function findUnusedEnvironments({ days = 30 }: { days?: number } = {}): Promise<Removable[]> {
  const before = Date.now() - days * 24 * 60 * 60 * 1000
  const found: Removable[] = []
  for (const key of await names(environmentsFolder())) {
    if (!/^[0-9a-f]{32}$/.test(key)) continue
    const folder = join(environmentsFolder(), key)
    const unused = await lastUse(folder)
    if (unused === null || unused > before || (await isLeased(folder))) continue
    found.push({
      path: join(folder, 'builds'),
      bytes: await sizeOf(join(folder, 'builds')),
      reason: 'environment that no job has used for long; made again, the same, when one wants it',
      remove: () => removeUnused(folder, before),
    })
  }
  return found
}

/** Of `.complete`; of the folder of builds where only half a build is there; null where there is none. */
async function lastUse(folder: string): Promise<number | null> {
  const builds = await stat(join(folder, 'builds')).catch(() => null)
  if (!builds || (await names(join(folder, 'builds'))).length === 0) return null
  return (await stat(join(folder, '.complete')).catch(() => builds)).mtimeMs
}

async function removeUnused(folder: string, before: number): Promise<number> {
  const held = await tryLock(join(folder, 'lock'))
  if (!held) return 0 // it is being built or taken
  try {
    const unused = await lastUse(folder)
    if (unused === null || unused > before || (await isLeased(folder))) return 0
    const bytes = await sizeOf(join(folder, 'builds'))
    await removeBuilds(folder)
    return bytes
  } finally {
    held.release()
  }
}

/** Bytes on the disk; a file that several environments share by hard links counts in each. */
async function sizeOf(folder: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []))
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name)).catch(() => null))?.size ?? 0
  return bytes
}
