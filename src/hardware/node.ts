/**
 * This machine as a place for jobs: cores, memory, devices that are free, and why the others are not. Plain data in the shape that jobs/
 * places attempts on (hardware/ imports nothing of ours).
 */
import { cpus, hostname, totalmem } from 'node:os'
import type { Device } from './inventory/device.ts'
import { devicesOf, type Inventory, type InventoryOptions, keepInventory } from './inventory/index.ts'
import { cpuQuota, defaultThreads, memoryLimit, readText } from './limits.ts'

export interface LocalNode {
  name: string
  cpus: number
  /** Bytes. */
  memory: number
  devices: LocalDevice[]
  usable: boolean
  /** Of the processor, for people. */
  processor: string
}
export interface LocalDevice {
  id: string
  vendor: string
  name: string
  /** Bytes; 0 where it is not known. */
  memory: number
  free: boolean
  why: string | null
  /** From an override file: said so wherever it is shown. */
  fake: boolean
  /** Number among its vendor's devices; null: not known. */
  index: number | null
}

export interface NodeOptions {
  /** Whether this process is one of ours; other people's keep a device from being free. */
  ours?: (pid: number) => boolean
}

/** From an inventory, purely. */
export function nodeOf(inventory: Inventory, { ours = () => false }: NodeOptions = {}): LocalNode {
  const quota = cpuQuota(readText)
  const threads = defaultThreads(readText)
  return {
    name: hostname(),
    // 1.5 cores of time are 1.5, though two threads may use them
    cpus: quota === null ? threads : Math.min(threads, quota),
    memory: Math.min(totalmem(), memoryLimit(readText) ?? Number.POSITIVE_INFINITY),
    devices: devicesOf(inventory)
      .filter(({ integrated, vendor }) => !integrated || vendor === 'apple' || vendor === 'nvidia')
      .map(each => localDevice(each, ours)),
    usable: true,
    processor: cpus()[0]?.model.trim() || process.arch,
  }
}

function localDevice(each: Device, ours: (pid: number) => boolean): LocalDevice {
  const why = whyNotFree(each, ours)
  return {
    id: each.id,
    vendor: each.vendor,
    name: each.name,
    memory: each.memory ?? (each.integrated ? totalmem() : 0),
    free: why === null,
    why,
    fake: each.fake,
    index: each.index,
  }
}

/** Null: a job may have it. */
export function whyNotFree(each: Device, ours: (pid: number) => boolean): string | null {
  const stop = each.obstacles.find(({ effect }) => effect === 'stops')
  if (stop) return stop.says
  const others = (each.holders ?? []).filter(({ pid }) => !ours(pid))
  if (others.length > 0)
    return `${others.length === 1 ? 'process' : 'processes'} ${others.map(({ pid }) => pid).join(', ')} of someone else ${others.length === 1 ? 'computes' : 'compute'} on it`
  // what is held and cannot be seen is not ours: we see our own
  const held = each.obstacles.find(({ code }) => code === 'memory_held')
  return held && (each.holders?.length ?? 0) === 0 ? held.says : null
}

export interface NodeKeeper {
  /** Cheap: read at most every ten seconds. */
  node(options?: NodeOptions): Promise<LocalNode>
  inventory(): Promise<Inventory>
  close(): void
}

/** The node of a program that goes on running: read again by age, on another boot, and on SIGHUP. */
export function keepNode(options: InventoryOptions): NodeKeeper {
  const kept = keepInventory(options)
  return {
    node: async (how = {}) => nodeOf(await kept.current(), how),
    inventory: () => kept.current(),
    close: kept.close,
  }
}

/** Once. throws hardware_file */
export async function localNode(options: InventoryOptions & NodeOptions): Promise<LocalNode> {
  const keeper = keepNode(options)
  try {
    return await keeper.node(options)
  } finally {
    keeper.close()
  }
}
