/** What an attempt left in its output folder: regular files that lie there themselves. What a link leads to is none of them. */
import type { Dirent } from 'node:fs'
import { constants, open, readdir, readlink, realpath } from 'node:fs/promises'
import { join, sep } from 'node:path'

export interface Output {
  /** Relative to the output folder, with slashes. */
  path: string
  bytes: number
  /** throws what the system says when it is a link or gone by now */
  open(): Promise<NodeJS.ReadableStream>
}

export async function listOutputs(root: string): Promise<Output[]> {
  const outputs: Output[] = []
  const walk = async (below: string) => {
    const entries = await readdir(join(root, below), { withFileTypes: true }).catch((): Dirent[] => []) // gone meanwhile
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = below === '' ? entry.name : `${below}/${entry.name}`
      if (entry.isDirectory()) await walk(path)
      if (!entry.isFile()) continue
      const file = await openInside(root, path).catch(() => null)
      if (!file) continue
      outputs.push({ path, bytes: (await file.stat()).size, open: async () => (await openInside(root, path)).createReadStream() })
      await file.close()
    }
  }
  await walk('')
  return outputs
}

/** Checked on what was opened: between listing and opening, a file or a folder above it may have become a link. */
async function openInside(root: string, path: string) {
  const file = await open(join(root, path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    if (!(await file.stat()).isFile()) throw new Error(`${path} is no file`)
    const really = process.platform === 'linux' ? await readlink(`/proc/self/fd/${file.fd}`) : await realpath(join(root, path))
    if (!really.startsWith((await realpath(root)) + sep)) throw new Error(`${path} lies elsewhere`)
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}
