/**
 * What in the home can go: found first, shown, and deleted only when asked. Nothing of a run that is at work is ever listed. Between
 * finding and deleting the world may change (another process trains, imports, registers), so each is looked at again just before.
 */
import { readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../db/home.ts'
import { Manifest, type Run } from '../sdk/index.ts'
import { isTemporary, removeFolder, storageFailure, temporaryPath } from '../storage/disk.ts'
import { type DeletedThings, deletedThings } from './gc-tracked.ts'
import { isOpen, listRuns } from './runs.ts'

export interface Garbage {
  path: string
  bytes: number
  reason: string
  /** Deletes it if it still may go; answers the bytes that freed. Safe to be killed in, and to be called for what is gone. */
  remove(): Promise<number>
}

/** A file younger than this may be of a writer that is at work, in milliseconds. */
const young = 60 * 60 * 1000

/** How long what was deleted can be restored, and copies of before an upgrade are kept, in days. */
export const usualDays = 30

export const findGarbage = async (home: Home): Promise<Garbage[]> => (await lookForGarbage(home)).garbage

/** `held`: what was deleted and stays, because a version of a model came from it. */
export async function lookForGarbage(home: Home, { days = usualDays }: { days?: number } = {}): Promise<DeletedThings> {
  const before = Date.now() - days * 24 * 60 * 60 * 1000
  const deleted = await deletedThings(home, before)
  return { garbage: [...(await filesToSpare(home, before)), ...deleted.garbage], held: deleted.held }
}

async function filesToSpare(home: Home, before: number): Promise<Garbage[]> {
  const runs = await listRuns(home)
  return [
    ...(await featureCaches(home, runs)),
    ...(await checkpoints(home, runs)),
    ...(await unnamedBlobs(home)),
    ...(await unnamedModels(home)),
    ...(await halfRuns(home)),
    ...(await leftovers(home)),
    ...(await copiesOfBefore(home, before)),
    ...(await oldFindings(home)),
  ]
}

/** Deletes what `findGarbage` found. Answers the bytes freed: less than was found, where something is in use by now. */
export async function collectGarbage(garbage: readonly Garbage[]): Promise<number> {
  let bytes = 0
  for (const item of garbage) bytes += await item.remove()
  return bytes
}

// ── the kinds ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Which run uses which is not written down: none goes while any is at work. */
async function featureCaches(home: Home, runs: readonly Run[]): Promise<Garbage[]> {
  if (runs.some(isOpen)) return []
  const found = await sized((await inside(join(home.path, 'features'))).filter(path => !isTemporary(path)))
  return found.map(item => ({
    ...item,
    reason: 'features of pictures; the next training computes them again',
    async remove() {
      if ((await listRuns(home)).some(isOpen)) return 0
      return (await removeFolder(item.path)) ? item.bytes : 0
    },
  }))
}

/** Only of runs that succeeded: a stopped or lost one can be gone on with. */
async function checkpoints(home: Home, runs: readonly Run[]): Promise<Garbage[]> {
  const files = runs
    .filter(run => run.status === 'succeeded')
    .flatMap(run => ['checkpoint.safetensors', 'best.safetensors', 'model.onnx'].map(name => join(home.path, 'runs', run.run, name)))
  const found = await sized(files)
  return found.map(item => ({
    ...item,
    reason: 'checkpoint of a finished run; its model is registered',
    remove: () => removeFile(item.path, item.bytes),
  }))
}

/** Pictures that no dataset version names: left by an import that was stopped, or by an evaluation. */
async function unnamedBlobs(home: Home): Promise<Garbage[]> {
  const named = new Set<string>()
  for (const { name, version } of await home.db.selectFrom('dataset_versions').select(['name', 'version']).execute()) {
    const manifest = await readManifest(join(home.path, 'datasets', name, `${version}.json`))
    if (!manifest) return [] // a version that cannot be read may name anything
    for (const row of manifest.rows) named.add(row.content)
  }
  const files: string[] = []
  for (const folder of await inside(home.blobs.folder))
    for (const path of await inside(folder)) if (/[/\\][0-9a-f]{64}$/.test(path) && !named.has(path.slice(-64))) files.push(path)
  const found = await sized(files)
  return found.filter(isOld).map(item => ({
    ...item,
    reason: 'picture that no dataset version names',
    remove: () => removeUnlessTouched(item.path, item.bytes),
  }))
}

async function unnamedModels(home: Home): Promise<Garbage[]> {
  const isNamed = async (path: string) => {
    const digest = /([0-9a-f]{64})\.onnx$/.exec(path)![1]!
    const row = home.db.selectFrom('model_versions').select('name').where('digest', '=', digest).where('deleted', 'is', null)
    return (await row.executeTakeFirst()) !== undefined
  }
  const files = (await inside(join(home.path, 'models'))).filter(path => /[/\\][0-9a-f]{64}\.onnx$/.test(path))
  const named = await Promise.all(files.map(isNamed))
  const found = await sized(files.filter((_, i) => !named[i]))
  return found.filter(isOld).map(item => ({
    ...item,
    reason: 'model file without a version',
    remove: async () => ((await isNamed(item.path)) ? 0 : removeUnlessTouched(item.path, item.bytes)),
  }))
}

/** Folders of runs that were being made when their process was killed. */
async function halfRuns(home: Home): Promise<Garbage[]> {
  const folders = (await inside(join(home.path, 'runs'))).filter(path => /[/\\][0-9a-f]{32}$/.test(path))
  const halves: string[] = []
  for (const folder of folders) if (!(await exists(join(folder, 'run.json')))) halves.push(folder)
  const found = await sized(halves)
  return found.filter(isOld).map(item => ({
    ...item,
    reason: 'half a run of a process that was killed',
    async remove() {
      if (await exists(join(item.path, 'run.json'))) return 0
      return (await removeFolder(item.path)) ? item.bytes : 0
    },
  }))
}

/** Where `temporaryPath` leaves names: beside every file and folder of ours. */
async function leftovers(home: Home): Promise<Garbage[]> {
  const names = await readdir(home.path, { recursive: true })
  const outermost = names.filter(name => {
    const parts = name.split(/[/\\]/)
    return isTemporary(parts.at(-1)!) && !parts.slice(0, -1).some(isTemporary)
  })
  const found = await sized(outermost.map(name => join(home.path, name)))
  return found.filter(isOld).map(item => ({
    ...item,
    reason: 'half a file of a writer that was killed',
    remove: () => removeFile(item.path, item.bytes),
  }))
}

/** What an upgrade left, the way back. */
async function copiesOfBefore(home: Home, before: number): Promise<Garbage[]> {
  const files = (await inside(home.path)).filter(path => /[/\\](plinth\.db|database)\.before-[\w-]+(\.jsonl\.gz)?$/.test(path))
  return (await sized(files))
    .filter(({ modified }) => modified < before)
    .map(item => ({
      ...item,
      reason: 'copy of the database from before an upgrade',
      remove: () => removeFile(item.path, item.bytes),
    }))
}

/** What reviews found out about dataset versions that are gone. */
async function oldFindings(home: Home): Promise<Garbage[]> {
  const isNamed = async (path: string) => {
    const digest = /([\w-]+)\.json$/.exec(path)?.[1] ?? ''
    return (await home.db.selectFrom('dataset_versions').select('name').where('digest', '=', digest).executeTakeFirst()) !== undefined
  }
  const files = (await inside(join(home.path, 'reviews', 'found'))).filter(path => path.endsWith('.json'))
  const named = await Promise.all(files.map(isNamed))
  const found = await sized(files.filter((_, i) => !named[i]))
  return found.filter(isOld).map(item => ({
    ...item,
    reason: 'what a review found in a dataset version that is gone',
    remove: async () => ((await isNamed(item.path)) ? 0 : removeFile(item.path, item.bytes)),
  }))
}

// ── below ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Found {
  path: string
  bytes: number
  modified: number
}

const isOld = ({ modified }: Pick<Found, 'modified'>) => Date.now() - modified > young

/** What is there of these, with its size. */
async function sized(paths: readonly string[]): Promise<Found[]> {
  const found: Found[] = []
  for (const path of paths) {
    const entry = await stat(path).catch(() => null)
    if (entry) found.push({ path, bytes: entry.isDirectory() ? await folderBytes(path) : entry.size, modified: entry.mtimeMs })
  }
  return found
}

async function folderBytes(path: string): Promise<number> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => [])
  const files = entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
  return (await sized(files)).reduce((sum, file) => sum + file.bytes, 0)
}

async function removeFile(path: string, bytes: number): Promise<number> {
  if (!(await exists(path))) return 0
  await rm(path, { recursive: true, force: true }).catch(error => {
    throw storageFailure(error, path)
  })
  return bytes
}

/**
 * Whoever needs such a file again makes it young. It steps aside before it is looked at for the last time, so that it is either
 * seen to be young and comes back, or not found by the other one, who then writes it anew.
 */
async function removeUnlessTouched(path: string, bytes: number): Promise<number> {
  const aside = temporaryPath(path)
  try {
    await rename(path, aside)
    const entry = await stat(aside)
    if (isOld({ modified: entry.mtimeMs })) {
      await rm(aside)
      return bytes
    }
    await rename(aside, path)
    return 0
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0
    throw storageFailure(error, path)
  }
}

async function readManifest(path: string): Promise<Manifest | null> {
  try {
    return Manifest.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch {
    return null
  }
}

/** Full paths of what is directly in a folder; nothing where there is none. */
const inside = async (folder: string): Promise<string[]> => (await readdir(folder).catch(() => [])).map(name => join(folder, name))

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )
