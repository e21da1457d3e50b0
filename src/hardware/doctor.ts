/** What is here, what of it Plinth can use, why not, and what to do about it. Reads the system; starts one tool at most, with a time limit. */
import { execFile } from 'node:child_process'
import { access, constants, readdir, statfs } from 'node:fs/promises'
import { cpus, freemem, totalmem } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { cpuQuota, defaultThreads, readText } from './threads.ts'

export interface Check {
  name: string
  status: 'ok' | 'warning' | 'problem'
  found: string
  /** What to do; absent where there is nothing to do. */
  next?: string
}

export async function examine({ home, cache, runtime }: { home: string; cache: string; runtime: string }): Promise<Check[]> {
  return [
    processor(),
    memory(),
    ...(await graphics()),
    node(),
    { name: 'runtime', status: 'ok', found: `onnxruntime-node ${runtime}, on the processor` },
    await disk('home', home),
    await disk('cache', cache),
  ]
}

function processor(): Check {
  const threads = defaultThreads()
  const all = cpus().length
  const quota = cpuQuota()
  const limit = threads < all ? ` of ${all}${quota ? ` (the container grants ${quota})` : ''}` : ''
  const vectors = simd(readText('/proc/cpuinfo'))
  return {
    name: 'processor',
    status: 'ok',
    found: `${cpus()[0]?.model.trim() ?? process.arch}, ${threads}${limit} usable cores${vectors ? `, ${vectors}` : ''}`,
  }
}

/** The widest vector instructions of /proc/cpuinfo. */
export function simd(cpuinfo: string | null): string | null {
  const flags = new Set(
    /^flags\s*:(.*)$/m
      .exec(cpuinfo ?? '')?.[1]
      ?.trim()
      .split(/\s+/),
  )
  if (flags.has('avx512f')) return 'AVX-512'
  if (flags.has('avx2')) return 'AVX2'
  return flags.has('sse4_2') ? 'SSE4.2' : null
}

function memory(): Check {
  const limit = memoryLimit()
  const total = Math.min(totalmem(), limit ?? Number.POSITIVE_INFINITY)
  const available = Math.min(availableMemory(readText('/proc/meminfo')) ?? freemem(), total)
  const found = `${gigabytes(available)} of ${gigabytes(total)} available${limit && limit < totalmem() ? ' (limit of the container)' : ''}`
  if (available > 1e9) return { name: 'memory', status: 'ok', found }
  return {
    name: 'memory',
    status: 'warning',
    found,
    next: 'Training needs about 1 GB: close other programs, or train with a smaller --image-size.',
  }
}

/** Bytes that the control group allows; null where there is no limit. */
export function memoryLimit(read: (path: string) => string | null = readText): number | null {
  for (const path of ['/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes']) {
    const limit = Number(read(path)?.trim())
    if (limit > 0 && limit < 2 ** 60) return limit
  }
  return null
}

export function availableMemory(meminfo: string | null): number | null {
  const kilobytes = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo ?? '')?.[1]
  return kilobytes ? Number(kilobytes) * 1024 : null
}

// ── graphics processors ─────────────────────────────────────────────────────────────────────────────────────────────────────

const notYet = 'The embedded engine trains on the processor; a GPU is for PyTorch and TensorFlow jobs, which come later.'

async function graphics(): Promise<Check[]> {
  const cards = await pciDisplays()
  const nvidia = await nvidiaDevices()
  if (nvidia.length) return nvidia.map(found => ({ name: 'GPU', status: 'ok' as const, found: `${found} (not used yet)`, next: notYet }))
  const visible = cards.filter(card => card.vendor !== 'other')
  if (visible.length === 0) return [{ name: 'GPU', status: 'ok', found: 'none found; not needed' }]
  return Promise.all(
    visible.map(async ({ vendor }) => ({
      name: 'GPU',
      status: 'warning' as const,
      found: `${vendor}, not usable: ${await whyNot(vendor)}`,
      next: notYet,
    })),
  )
}

const vendors: Record<string, string> = { '0x10de': 'NVIDIA', '0x1002': 'AMD', '0x8086': 'Intel' }

/** Display and accelerator functions on the PCI bus (class 03xx and 12xx). */
async function pciDisplays(): Promise<{ vendor: string }[]> {
  const bus = '/sys/bus/pci/devices'
  const devices = await readdir(bus).catch(() => [])
  return devices.flatMap(device => {
    const kind = readText(join(bus, device, 'class'))?.trim() ?? ''
    if (!/^0x(03|12)/.test(kind)) return []
    return [{ vendor: vendors[readText(join(bus, device, 'vendor'))?.trim() ?? ''] ?? 'other' }]
  })
}

async function nvidiaDevices(): Promise<string[]> {
  try {
    const { stdout } = await promisify(execFile)(
      'nvidia-smi',
      ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader,nounits'],
      { timeout: 5000 },
    )
    return parseNvidia(stdout)
  } catch {
    return [] // no such tool, no driver, or it hangs
  }
}

/** Lines of `nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits`. */
export const parseNvidia = (text: string): string[] =>
  text
    .split('\n')
    .map(line => line.split(',').map(part => part.trim()))
    .flatMap(([name, mebibytes, driver]) =>
      name && Number(mebibytes) > 0 ? [`${name}, ${gigabytes(Number(mebibytes) * 2 ** 20)}, driver ${driver}`] : [],
    )

async function whyNot(vendor: string): Promise<string> {
  const device = vendor === 'NVIDIA' ? '/dev/nvidia0' : '/dev/dri/renderD128'
  try {
    await access(device, constants.R_OK | constants.W_OK)
    return 'the driver does not answer'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
      ? 'no driver is loaded (or the container was started without the device)'
      : `no permission on ${device}`
  }
}

// ── the rest ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const node = (): Check => ({ name: 'Node', status: 'ok', found: `${process.version} on ${process.platform}-${process.arch}` })

async function disk(name: string, path: string): Promise<Check> {
  for (let at = path; ; at = join(at, '..')) {
    const info = await statfs(at).catch(() => null)
    if (!info && at !== join(at, '..')) continue
    const free = info ? info.bavail * info.bsize : 0
    const found = `${path}, ${gigabytes(free)} free`
    if (
      info &&
      !(await access(at, constants.W_OK).then(
        () => true,
        () => false,
      ))
    )
      return {
        name,
        status: 'problem',
        found: `${path} cannot be written`,
        next: `Set PLINTH_${name.toUpperCase()} to a folder of your own.`,
      }
    return free > 2e9
      ? { name, status: 'ok', found }
      : { name, status: 'warning', found, next: 'Free some space; plinth gc shows what Plinth can spare.' }
  }
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`
