/** How many threads a computation may use here: the cores this process may run on, cut by a container's processor quota. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), Math.ceil(cpuQuota() ?? Number.POSITIVE_INFINITY)))
}

/** Cores' worth of time that the control group grants; null where there is no limit. */
export function cpuQuota(read: (path: string) => string | null = readText): number | null {
  const v2 = read('/sys/fs/cgroup/cpu.max')?.trim().split(/\s+/)
  if (v2) return v2[0] === 'max' ? null : Number(v2[0]) / Number(v2[1])
  const quota = Number(read('/sys/fs/cgroup/cpu/cpu.cfs_quota_us') ?? -1)
  const period = Number(read('/sys/fs/cgroup/cpu/cpu.cfs_period_us') ?? 100_000)
  return quota > 0 ? quota / period : null
}

export function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null // not on this system
  }
}
