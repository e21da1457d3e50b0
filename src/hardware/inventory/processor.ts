/** The processor: what it is, what it can, and what of it this process may use. */
import { cpus } from 'node:os'
import { affinity, cpuQuota, defaultThreads } from '../limits.ts'
import { type Provenance, recorded, type System } from '../system.ts'

export interface Processor {
  model: string
  sockets: number | null
  /** Physical cores; null: not told (virtual machines often do not). */
  cores: number | null
  /** Of the machine. */
  threads: number
  /** That this process may be put on, cut by what its control groups grant. */
  usable: number
  /** Numbers it is bound to, and cores' worth of time its groups grant; null: no limit. */
  affinity: number | null
  quota: number | null
  /** Instructions that matter to training, of those that there are. */
  instructions: string[]
  /** Memory nodes: the threads that are near to each, and its bytes. */
  numa: { node: number; threads: string; memory: number | null }[]
  provenance: Provenance
}

/** Flags of /proc/cpuinfo and what they are called. */
const instructions: Readonly<Record<string, string>> = {
  sse4_2: 'SSE4.2',
  avx2: 'AVX2',
  avx_vnni: 'AVX-VNNI',
  avx512f: 'AVX-512',
  avx512_vnni: 'AVX-512 VNNI',
  avx512_bf16: 'AVX-512 BF16',
  avx512_fp16: 'AVX-512 FP16',
  amx_tile: 'AMX',
  amx_bf16: 'AMX BF16',
  amx_int8: 'AMX INT8',
  asimd: 'NEON',
  asimddp: 'NEON dot product',
  sve: 'SVE',
  sve2: 'SVE2',
  bf16: 'BF16',
  i8mm: 'I8MM',
  sme: 'SME',
}

// parts of ARM that servers and boards are made of (MIDR_EL1, as lscpu names them)
const armParts: Readonly<Record<string, string>> = {
  '0x41 0xd08': 'Cortex-A72',
  '0x41 0xd0b': 'Cortex-A76',
  '0x41 0xd0c': 'Neoverse N1',
  '0x41 0xd40': 'Neoverse V1',
  '0x41 0xd49': 'Neoverse N2',
  '0x41 0xd4f': 'Neoverse V2',
  '0xc0 0xac3': 'Ampere-1',
  '0xc0 0xac4': 'Ampere-1A',
}

export async function readProcessor(system: System): Promise<Processor> {
  const { system: noting, provenance } = recorded(system, { verified: system.platform === 'linux' })
  const text = noting.read('/proc/cpuinfo') ?? ''
  const value = (key: string) => new RegExp(`^${key}\\s*:\\s*(.*)$`, 'm').exec(text)?.[1]?.trim()
  const blocks = text.split('\n\n').filter(block => /^processor\s*:/m.test(block))
  const of = (block: string, key: string) => new RegExp(`^${key}\\s*:\\s*(\\d+)`, 'm').exec(block)?.[1]
  const sockets = new Set(blocks.map(block => of(block, 'physical id')))
  const cores = new Set(blocks.map(block => `${of(block, 'physical id')} ${of(block, 'core id')}`))
  const told = blocks.length > 0 && !sockets.has(undefined)
  const bound = affinity(noting.read)
  const threads = blocks.length || cpus().length
  const numa = (await noting.list('/sys/devices/system/node')).filter(name => /^node\d+$/.test(name))
  return {
    model: value('model name') ?? armParts[`${value('CPU implementer')} ${value('CPU part')}`] ?? cpus()[0]?.model.trim() ?? process.arch,
    sockets: told ? sockets.size : null,
    cores: told ? cores.size : null,
    threads,
    usable: system.platform === 'linux' ? defaultThreads(noting.read) : threads,
    affinity: bound && bound.length < threads ? bound.length : null,
    quota: cpuQuota(noting.read),
    instructions: instructionsOf(text),
    numa: numa
      .map(name => ({
        node: Number(name.slice(4)),
        threads: noting.read(`/sys/devices/system/node/${name}/cpulist`)?.trim() ?? '',
        memory: kilobytes(noting.read(`/sys/devices/system/node/${name}/meminfo`), 'MemTotal'),
      }))
      .toSorted((a, b) => a.node - b.node),
    provenance,
  }
}

/** In the order of the table. */
export function instructionsOf(cpuinfo: string): string[] {
  const line = /^(?:flags|Features)\s*:(.*)$/m.exec(cpuinfo)?.[1] ?? ''
  const flags = new Set(line.trim().split(/\s+/))
  return Object.entries(instructions).flatMap(([flag, name]) => (flags.has(flag) ? [name] : []))
}

/** Bytes, of a line `MemTotal: 123 kB`, with whatever stands before the name. */
export function kilobytes(text: string | null, key: string): number | null {
  const found = new RegExp(`\\b${key}:\\s+(\\d+) kB`).exec(text ?? '')?.[1]
  return found === undefined ? null : Number(found) * 1024
}
