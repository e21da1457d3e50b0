/** What is here, what of it Plinth can use, why not, and what to do about it. Reads the system; starts one tool at most, with a time limit. */
import { access, constants, statfs } from 'node:fs/promises'
import { cpus, freemem, tmpdir, totalmem } from 'node:os'
import { dirname } from 'node:path'
import type { Check } from './check.ts'
import { examineGpus } from './gpus.ts'
import { affinity, cpuQuota, defaultThreads, memoryLimit, type Read, readText } from './limits.ts'

/** `home`, `cache`: folders, there or not. `runtime`: version of onnxruntime-node; it is not loaded here. */
export async function examine({ home, cache, runtime }: { home: string; cache: string; runtime: string }): Promise<Check[]> {
  return [
    processor(),
    memory(),
    ...(await examineGpus()),
    node(process.versions.node),
    { name: 'runtime', status: 'ok', found: `onnxruntime-node ${runtime}, on the processor` },
    await disk('home', home, 'Set PLINTH_HOME to a folder of your own.'),
    await disk('cache', cache, 'Set PLINTH_CACHE to a folder of your own.'),
    await disk('temporary', tmpdir(), 'Set TMPDIR to a folder of your own.'),
  ]
}

function processor(): Check {
  const vectors = simd(readText('/proc/cpuinfo'))
  return {
    name: 'processor',
    status: 'ok',
    found: `${cpus()[0]?.model.trim() || process.arch}, ${usableCores(cpus().length)}${vectors ? `, ${vectors}` : ''}`,
  }
}

/** `all`: the cores of the machine. */
export function usableCores(all: number, read: Read = readText): string {
  const threads = defaultThreads(read)
  if (threads >= all) return `${all} cores`
  const bound = affinity(read)?.length ?? all
  const quota = cpuQuota(read)
  const reasons = [
    ...(bound < all ? [`this process is bound to ${bound}`] : []),
    ...(quota !== null && quota < all ? [`the container grants the time of ${Number(quota.toFixed(2))}`] : []),
  ]
  return `${threads} of ${all} cores usable${reasons.length ? ` (${reasons.join('; ')})` : ''}`
}

/** The widest vector instructions of /proc/cpuinfo. */
export function simd(cpuinfo: string | null): string | null {
  const line = /^(?:flags|Features)\s*:(.*)$/m.exec(cpuinfo ?? '')?.[1] ?? ''
  const flags = new Set(line.trim().split(/\s+/))
  if (flags.has('avx512f')) return flags.has('avx512_vnni') ? 'AVX-512 with VNNI' : 'AVX-512'
  if (flags.has('avx2')) return 'AVX2'
  if (flags.has('sse4_2')) return 'SSE4.2'
  if (flags.has('sve')) return 'SVE'
  return flags.has('asimd') ? 'NEON' : null
}

function memory(): Check {
  const limit = memoryLimit()
  const limited = limit !== null && limit < totalmem()
  const total = limited ? limit : totalmem()
  const available = Math.min(availableMemory(readText('/proc/meminfo')) ?? freemem(), total)
  const found = `${gigabytes(available)} of ${gigabytes(total)} available${limited ? ` (the container's limit; the machine has ${gigabytes(totalmem())})` : ''}`
  if (available > 1e9) return { name: 'memory', status: 'ok', found }
  return {
    name: 'memory',
    status: 'warning',
    found,
    next: 'Training needs about 1 GB: close other programs, or train with a smaller --image-size.',
  }
}

/** Bytes that can be had without swapping, of the text of /proc/meminfo. */
export function availableMemory(meminfo: string | null): number | null {
  const kilobytes = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo ?? '')?.[1]
  return kilobytes ? Number(kilobytes) * 1024 : null
}

/** The release that package.json asks for; an older one could not have started this. */
export function node(version: string): Check {
  const found = `${version} on ${process.platform}-${process.arch}`
  if (Number(version.split('.')[0]) >= 24) return { name: 'Node', status: 'ok', found }
  return { name: 'Node', status: 'problem', found, next: 'Install Node 24 or newer, or run it by npx, which brings its own.' }
}

// statfs(2): file systems over a network, where SQLite's write-ahead mode is not safe between machines
const network: Record<number, string> = { 26985: 'NFS', 4283649346: 'CIFS', 4266872130: 'SMB' }

/** The space where `path` is or will be. */
export async function disk(name: string, path: string, elsewhere: string): Promise<Check> {
  const there = await nearest(path)
  const { bavail, bsize, files, ffree, type } = await statfs(there)
  const writable = await access(there, constants.W_OK).then(
    () => true,
    () => false,
  )
  if (!writable) return { name, status: 'problem', found: `${path} cannot be written`, next: elsewhere }
  const free = bavail * bsize
  const found = `${path}, ${gigabytes(free)} free`
  if (name === 'home' && network[type])
    return {
      name,
      status: 'warning',
      found: `${found}, on a network disk (${network[type]})`,
      next: 'Use the home from one machine only, or set PLINTH_HOME to a local disk: the database does not bear two machines.',
    }
  if (files > 0 && ffree === 0) return { name, status: 'problem', found: `${path} has no room for another file`, next: elsewhere }
  if (free > 2e9) return { name, status: 'ok', found }
  return { name, status: 'warning', found, next: 'Free some space; plinth gc shows what Plinth can spare.' }
}

/** The folder itself, or the closest above it that exists. */
async function nearest(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    const exists = await access(at).then(
      () => true,
      () => false,
    )
    if (exists || at === dirname(at)) return at
  }
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`
