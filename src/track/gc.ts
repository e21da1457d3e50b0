/** What in the home can go: found first, shown, and deleted only when asked. Nothing of a run that is at work is ever listed. */
import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../db/home.ts'
import { Manifest } from '../sdk/index.ts'
import { temporaryMark } from '../storage/disk.ts'
import { listRuns } from './runs.ts'

export interface Garbage {
  path: string
  bytes: number
  reason: string
}

/** Files of writers that were killed are old by now; younger ones may be at work. */
const staleAfter = 60 * 60 * 1000

export async function findGarbage(home: Home): Promise<Garbage[]> {
  const runs = await listRuns(home)
  const working = runs.some(run => run.status === 'running' || run.status === 'queued')
  return [
    ...(working ? [] : await featureCaches(home)),
    ...(await checkpoints(home, runs)),
    ...(working ? [] : await unnamedBlobs(home)),
    ...(await unnamedModels(home)),
    ...(await leftovers(home)),
  ]
}

/** Deletes what `findGarbage` found; what is gone already is fine. */
export async function collectGarbage(garbage: readonly Garbage[]): Promise<void> {
  for (const { path } of garbage) await rm(path, { recursive: true, force: true })
}

async function featureCaches(home: Home): Promise<Garbage[]> {
  const folder = join(home.path, 'features')
  const reason = 'features of pictures; the next training computes them again'
  return describe(
    (await readdir(folder)).map(name => join(folder, name)),
    reason,
  )
}

async function checkpoints(home: Home, runs: Awaited<ReturnType<typeof listRuns>>): Promise<Garbage[]> {
  const done = runs.filter(run => run.status === 'succeeded')
  const files = done.flatMap(run =>
    ['checkpoint.safetensors', 'best.safetensors', 'model.onnx'].map(name => join(home.path, 'runs', run.run, name)),
  )
  return describe(files, 'checkpoint of a finished run; its model is registered')
}

/** Pictures that no dataset version names: left by an import that was stopped, or by an evaluation. */
async function unnamedBlobs(home: Home): Promise<Garbage[]> {
  const named = new Set<string>()
  for (const { name, version } of await home.db.selectFrom('dataset_versions').select(['name', 'version']).execute()) {
    const text = await readFile(join(home.path, 'datasets', name, `${version}.json`), 'utf8').catch(() => null)
    if (text === null) return [] // a version that cannot be read may name anything
    for (const row of Manifest.parse(JSON.parse(text)).rows) named.add(row.content)
  }
  const found: string[] = []
  for (const folder of await readdir(home.blobs.folder))
    for (const digest of await readdir(join(home.blobs.folder, folder)))
      if (/^[0-9a-f]{64}$/.test(digest) && !named.has(digest)) found.push(join(home.blobs.folder, folder, digest))
  return (await describe(found, 'picture that no dataset version names')).filter(isOld)
}

async function unnamedModels(home: Home): Promise<Garbage[]> {
  const rows = await home.db.selectFrom('model_versions').select('digest').where('deleted', 'is', null).execute()
  const named = new Set(rows.map(row => `${row.digest}.onnx`))
  const folder = join(home.path, 'models')
  const names = (await readdir(folder)).filter(name => /^[0-9a-f]{64}\.onnx$/.test(name) && !named.has(name))
  return (
    await describe(
      names.map(name => join(folder, name)),
      'model file without a version',
    )
  ).filter(isOld)
}

async function leftovers(home: Home): Promise<Garbage[]> {
  const files = (await readdir(home.path, { recursive: true }))
    .filter(name => name.includes(temporaryMark))
    .map(name => join(home.path, name))
  return (await describe(files, 'half a file of a writer that was killed')).filter(isOld)
}

type Aged = Garbage & { modified: number }
const isOld = ({ modified }: Aged) => Date.now() - modified > staleAfter

async function describe(paths: readonly string[], reason: string): Promise<Aged[]> {
  const found = await Promise.all(
    paths.map(async path => {
      const entry = await stat(path).catch(() => null)
      if (!entry) return []
      return [{ path, bytes: entry.isDirectory() ? await folderBytes(path) : entry.size, reason, modified: entry.mtimeMs }]
    }),
  )
  return found.flat()
}

async function folderBytes(path: string): Promise<number> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true })
  const sizes = await Promise.all(
    entries
      .filter(entry => entry.isFile())
      .map(entry =>
        stat(join(entry.parentPath, entry.name)).then(
          ({ size }) => size,
          () => 0,
        ),
      ),
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}
