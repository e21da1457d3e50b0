/** An accelerator as plain data, whoever made it: what it is, whether it can be used, and if not, why and what to do. */
import type { Provenance } from '../system.ts'

export const vendors = ['nvidia', 'amd', 'intel', 'apple', 'google', 'habana', 'aws', 'tenstorrent'] as const
export type Vendor = (typeof vendors)[number]

/** How a vendor is written for people. */
export const vendorNames: Record<Vendor, string> = {
  nvidia: 'NVIDIA',
  amd: 'AMD',
  intel: 'Intel',
  apple: 'Apple',
  google: 'Google',
  habana: 'Intel Gaudi',
  aws: 'AWS Neuron',
  tenstorrent: 'Tenstorrent',
}

/** What stands in the way; `code` is stable. */
export interface Obstacle {
  code: ObstacleCode
  says: string
  /** The next command or step on this machine. */
  next: string
  /** `stops`: it cannot be used. `warns`: it can, but somebody should know. */
  effect: 'stops' | 'warns'
}

export const obstacleCodes = [
  'driver_missing',
  'driver_other',
  'driver_mismatch',
  'driver_not_running',
  'device_lost',
  'node_missing',
  'node_refused',
  'tool_missing',
  'tool_late',
  'tool_refused',
  'mig_without_instances',
  'mig_whole',
  'memory_errors',
  'memory_held',
  'set_aside',
  'not_supported',
] as const
export type ObstacleCode = (typeof obstacleCodes)[number]

/** A process that computes on a device. */
export interface Holder {
  pid: number
  /** Bytes; null: not told. */
  memory: number | null
}

export interface Device {
  /** The vendor's own id (GPU-…, MIG-…), else vendor and number. */
  id: string
  vendor: Vendor
  /** Number among the vendor's devices, as its own tools count; null: not known. */
  index: number | null
  /** Canonical: H100, RTX 4090. */
  name: string
  /** As the vendor writes it. */
  model: string
  /** Bytes; null: not known, or shared with the processor. */
  memory: number | null
  /** Part of the processor, with its memory. */
  integrated: boolean
  /** Kernel module and version. */
  driver: string | null
  /** Address on the PCI bus: 0000:01:00.0. */
  address: string | null
  /** Files of /dev that a program opens to use it. */
  nodes: string[]
  numa: number | null
  /** More that only this vendor says: compute capability, power limit, link, links to the other devices. */
  details: Record<string, string | number | boolean>
  /** Bytes that are taken now, by anyone; null: not told. */
  used: number | null
  /** 0…1, "some kernel ran"; null: not told. */
  utilisation: number | null
  /** Who computes on it; null: cannot be seen from here. */
  holders: Holder[] | null
  usable: boolean
  obstacles: Obstacle[]
  /** From an override file. */
  fake: boolean
  /** Whether the reader of this kind was ever run on such a device. */
  verified: boolean
}

export interface FoundDevices {
  devices: Device[]
  /** What stands in the way of more than one, or of none that can be named: a driver without a card. */
  obstacles: Obstacle[]
}

export interface Reading extends FoundDevices {
  vendor: Vendor
  provenance: Provenance
}

type Known = Pick<Device, 'id' | 'vendor' | 'name' | 'model'> & Partial<Device>

/** A device with everything else not known. `usable` follows from its obstacles. */
export function device(known: Known): Device {
  const whole: Device = {
    index: null,
    memory: null,
    integrated: false,
    driver: null,
    address: null,
    nodes: [],
    numa: null,
    details: {},
    used: null,
    utilisation: null,
    holders: null,
    usable: true,
    obstacles: [],
    fake: false,
    verified: false,
    ...known,
  }
  return { ...whole, usable: whole.usable && !whole.obstacles.some(({ effect }) => effect === 'stops') }
}

/** A number that a tool printed, null for [N/A], [Not Supported], ERR! and the like. */
export function numberOf(text: string | undefined): number | null {
  const word = text?.trim() ?? ''
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(word) ? Number(word) : null
}

/** A word that a tool printed, null where it is a way of saying that there is none. */
export function wordOf(text: string | undefined): string | null {
  const word = text?.trim() ?? ''
  return word === '' ||
    /^\[?(n\/?a|not supported|not available|unknown|unknown error|none)\]?$|^ERR!$|^\[.*(permission|reset|lost).*\]$/i.test(word)
    ? null
    : word
}

/** A word or number of foreign JSON as text; anything else is none. */
export const printed = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? String(value) : '')
