/** Memory: the machine's, what the control groups leave of it, and the shared memory that loaders of training data live on. */
import { freemem, totalmem } from 'node:os'
import { memoryLimit } from '../limits.ts'
import { type Provenance, recorded, type System } from '../system.ts'
import { kilobytes } from './processor.ts'

/** Bytes throughout; null: not told. */
export interface Memory {
  total: number
  /** The tightest limit of the control groups; null: none. */
  limit: number | null
  /** The smaller of both. */
  usable: number
  /** To be had without swapping, within the limit. */
  available: number
  swap: { total: number; free: number } | null
  hugePages: { size: number; total: number; free: number } | null
  /** /dev/shm: containers get 64 MB unless told otherwise, and PyTorch's loaders with workers die there. */
  shared: { total: number; free: number } | null
  provenance: Provenance
}

export async function readMemory(system: System): Promise<Memory> {
  const { system: noting, provenance } = recorded(system, { verified: system.platform === 'linux' })
  const text = noting.read('/proc/meminfo')
  const total = kilobytes(text, 'MemTotal') ?? totalmem()
  const limit = memoryLimit(noting.read)
  const usable = Math.min(total, limit ?? total)
  const free = kilobytes(text, 'MemAvailable') ?? freemem()
  const taken = limit === null ? null : groupUsage(noting)
  const page = kilobytes(text, 'Hugepagesize')
  const count = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)$`, 'm').exec(text ?? '')?.[1] ?? 0)
  const swap = kilobytes(text, 'SwapTotal')
  const shared = await noting.space('/dev/shm')
  return {
    total,
    limit: limit !== null && limit < total ? limit : null,
    usable,
    available: Math.min(free, taken === null ? usable : Math.max(0, usable - taken)),
    swap: swap === null ? null : { total: swap, free: kilobytes(text, 'SwapFree') ?? 0 },
    hugePages: page === null ? null : { size: page, total: count('HugePages_Total'), free: count('HugePages_Free') },
    shared: shared && { total: shared.total, free: shared.free },
    provenance,
  }
}

/** What the innermost group of this process has taken that cannot be given back; null: not told. */
function groupUsage({ read }: Pick<System, 'read'>): number | null {
  const [, path = '/'] = /^0::(.*)$/m.exec(read('/proc/self/cgroup') ?? '') ?? []
  for (const folder of [`/sys/fs/cgroup${path === '/' ? '' : path}`, '/sys/fs/cgroup']) {
    const current = Number(read(`${folder}/memory.current`) ?? Number.NaN)
    const file = Number(/^inactive_file (\d+)$/m.exec(read(`${folder}/memory.stat`) ?? '')?.[1] ?? 0)
    if (current >= 0) return Math.max(0, current - file)
  }
  const legacy = Number(read('/sys/fs/cgroup/memory/memory.usage_in_bytes') ?? Number.NaN)
  const file = Number(/^total_inactive_file (\d+)$/m.exec(read('/sys/fs/cgroup/memory/memory.stat') ?? '')?.[1] ?? 0)
  return legacy >= 0 ? Math.max(0, legacy - file) : null
}
