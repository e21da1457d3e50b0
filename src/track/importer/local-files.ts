/**
 * Files of runs on this machine. Only below folders that the owner of the import named (or that the database lies in): a record from a
 * stranger must not make us copy whatever this user can read. Links are not followed.
 */
import { constants, createReadStream } from 'node:fs'
import { lstat, open, readdir, realpath } from 'node:fs/promises'
import { isAbsolute, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Owner, type SourceFile, shown } from './source.ts'

interface Where {
  location: string
  roots: readonly string[]
  /** The folder behind `mlflow-artifacts:/`. */
  artifacts: string | null
}

/** Null for what lies in another place than this machine's disk, or outside of the folders that were named. */
export function localFiles(_: Owner, { location, roots, artifacts }: Where): AsyncIterable<SourceFile> | null {
  const path = pathOf(location, artifacts)
  if (path === null || !roots.some(root => isBelow(resolve(root), path))) return null
  return below(path, roots)
}

function pathOf(location: string, artifacts: string | null): string | null {
  if (/^mlflow-artifacts:\/(?!\/)/.test(location))
    return artifacts && resolve(artifacts, location.slice('mlflow-artifacts:/'.length).replace(/^\/+/, ''))
  if (/^file:\/\//i.test(location)) {
    try {
      return fileURLToPath(location)
    } catch {
      return null
    }
  }
  if (/^file:/i.test(location)) return resolve(location.slice('file:'.length))
  return isAbsolute(location) ? resolve(location) : null
}

const isBelow = (root: string, path: string) => {
  const way = relative(root, path)
  return way === '' || (!way.startsWith('..') && !isAbsolute(way))
}

async function* below(folder: string, roots: readonly string[]): AsyncGenerator<SourceFile> {
  const real = await realpath(folder).catch(() => null)
  if (real === null) return // a run without files has no folder
  const realRoots = await Promise.all(roots.map(root => realpath(root).catch(() => resolve(root))))
  if (!realRoots.some(root => isBelow(root, real))) throw new Error(`${shown(folder)} leads out of the folder that was named`)
  yield* walk(real, '')
}

async function* walk(folder: string, at: string): AsyncGenerator<SourceFile> {
  const entries = await readdir(join(folder, at), { withFileTypes: true })
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = at === '' ? entry.name : `${at}/${entry.name}`
    if (entry.isDirectory()) yield* walk(folder, path)
    else if (entry.isFile()) {
      const whole = join(folder, path)
      yield {
        path,
        bytes: (await lstat(whole)).size,
        open: async () => {
          const file = await open(whole, constants.O_RDONLY | constants.O_NOFOLLOW)
          return createReadStream(whole, { fd: file })
        },
      }
    }
  }
}
