/**
 * Which model versions answer somebody right now. Whoever serves one holds a lease, a file in the home's folder `deployments`, so that nobody
 * deletes the model under it; a process that is gone holds nothing.
 */
import { readdir, readFile, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Home } from '../db/home.ts'
import { exclusively } from '../db/open.ts'
import { Failure } from '../failure.ts'
import { makeFolder, writeFileAtomic } from '../storage/disk.ts'
import { heartbeat, isAlive, thisProcess, Worker } from './worker.ts'

export const Deployment = z.strictObject({
  worker: Worker,
  model: z.strictObject({ name: z.string(), version: z.int(), digest: z.string() }),
  since: z.string(),
})
export type Deployment = z.infer<typeof Deployment>

/**
 * `find` and the lease are one: nobody deletes the model in between. Where nothing can be written (a home that is only read, a full disk) it
 * is served without. `release` gives the lease back.
 */
export async function deployed<Model extends Deployment['model']>(
  home: Home,
  find: (home: Home) => Promise<Model>,
): Promise<{ model: Model; release(): Promise<void> }> {
  let file: string | null = null
  const lease = async (db: Home['db']) => {
    const model = await find({ ...home, db })
    const { name, version, digest } = model
    const folder = await makeFolder(home.path, 'deployments')
    file = join(folder, `${process.pid}-${digest.slice(0, 12)}.json`)
    const deployment: Deployment = { worker: thisProcess(), model: { name, version, digest }, since: new Date().toISOString() }
    await writeFileAtomic(file, `${JSON.stringify(deployment)}\n`)
    return model
  }
  const model = await exclusively(home.db, lease).catch(async error => {
    if (error instanceof Failure && ['read_only', 'disk_full', 'not_permitted'].includes(error.code)) return await find(home)
    throw error
  })
  const pulse = setInterval(() => void (file && utimes(file, new Date(), new Date()).catch(() => {})), heartbeat).unref()
  return {
    model,
    async release() {
      clearInterval(pulse)
      if (file) await rm(file, { force: true })
    },
  }
}

/** Those whose process lives; leases of others are swept away. */
export async function runningDeployments(home: string): Promise<Deployment[]> {
  const folder = join(home, 'deployments')
  const names = await readdir(folder).catch(() => [])
  const found: Deployment[] = []
  for (const name of names.filter(name => /^\d+-[0-9a-f]+\.json$/.test(name))) {
    const file = join(folder, name)
    const [text, times] = await Promise.all([readFile(file, 'utf8').catch(() => null), stat(file).catch(() => null)])
    const read = text === null ? null : Deployment.safeParse(parsed(text))
    if (!read?.success || !times) continue
    if (isAlive(read.data.worker, times.mtimeMs)) found.push(read.data)
    else await rm(file, { force: true }).catch(() => {})
  }
  return found
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
