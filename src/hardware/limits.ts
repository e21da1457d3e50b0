/** What of the machine this process may use: its cores by affinity, and what its control group grants (containers, batch systems). */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** Text of a file of the system, null where there is none. Tests pass recorded trees. */
export type Read = (path: string) => string | null

/** How many threads a computation may use here. */
export function defaultThreads(read: Read = readText): number {
  return Math.max(1, Math.min(affinity(read)?.length ?? availableParallelism(), Math.ceil(cpuQuota(read) ?? Number.POSITIVE_INFINITY)))
}

/** Numbers of the cores that the scheduler may put this process on; null where the system does not say. */
export function affinity(read: Read = readText): number[] | null {
  const list = /^Cpus_allowed_list:\s*([\d,-]+)$/m.exec(read('/proc/self/status') ?? '')?.[1]
  if (!list) return null
  return list.split(',').flatMap(range => {
    const [from, to = from] = range.split('-').map(Number) as [number, number?]
    return Array.from({ length: to - from + 1 }, (_, i) => from + i)
  })
}

/** Cores' worth of time that the control groups grant, the tightest of all levels; null where there is no limit. */
export function cpuQuota(read: Read = readText): number | null {
  const v2 = controlGroups(null, read).map(folder => {
    const [quota, period] = (read(`${folder}/cpu.max`) ?? '').trim().split(/\s+/).map(Number)
    return quota! / period! // "max" is no number
  })
  const v1 = controlGroups('cpu', read).map(folder => {
    return Number(read(`${folder}/cpu.cfs_quota_us`) ?? Number.NaN) / Number(read(`${folder}/cpu.cfs_period_us`) ?? Number.NaN)
  })
  return tightest([...v2, ...v1])
}

/** Bytes that the control groups allow, the tightest of all levels; null where there is no limit. */
export function memoryLimit(read: Read = readText): number | null {
  const v2 = controlGroups(null, read).map(folder => Number(read(`${folder}/memory.max`) ?? Number.NaN))
  const v1 = controlGroups('memory', read).map(folder => Number(read(`${folder}/memory.limit_in_bytes`) ?? Number.NaN))
  return tightest([...v2, ...v1].filter(bytes => bytes < 2 ** 60)) // version 1 writes "no limit" as a huge number
}

const tightest = (limits: readonly number[]): number | null => {
  const real = limits.filter(limit => limit > 0 && Number.isFinite(limit))
  return real.length === 0 ? null : Math.min(...real)
}

/**
 * Folders of the groups this process is in, from its own up to the root. `controller`: one of version 1; null: version 2.
 * In a container without a namespace of its own the path of /proc leads nowhere below the mount; the root then is its group.
 */
function controlGroups(controller: string | null, read: Read): string[] {
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (controllers === undefined || (controller === null ? controllers !== '' : !controllers.split(',').includes(controller))) continue
    const mounts = controller === null ? ['/sys/fs/cgroup'] : [`/sys/fs/cgroup/${controllers}`, `/sys/fs/cgroup/${controller}`]
    return mounts.flatMap(mount => [...ancestors(path!).map(at => `${mount}${at}`), mount])
  }
  return []
}

/** `/a/b` → `/a/b`, `/a`. */
function ancestors(path: string): string[] {
  const parts = path.split('/').filter(part => part !== '' && part !== '..')
  return parts.map((_, i) => `/${parts.slice(0, parts.length - i).join('/')}`)
}

export function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null // not on this system
  }
}
