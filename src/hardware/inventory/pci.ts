/** Display controllers and accelerators on the PCI bus, from /sys: lspci is often not there, and tools know only what their driver holds. */
import { basename, join } from 'node:path'
import type { System } from '../system.ts'
import type { Vendor } from './device.ts'

export interface Card {
  vendor: Vendor
  /** 0000:01:00.0 */
  address: string
  /** Four hexadecimal digits. */
  device: string
  /** Module of the kernel that holds it; null: none does. */
  driver: string | null
  numa: number | null
  /** A display controller (class 0x03), or an accelerator (0x12, or 0x0b40 co-processor). */
  display: boolean
}

// the registry of PCI ids (pci-ids.ucw.cz)
const vendors: Record<string, Vendor> = {
  '0x10de': 'nvidia',
  '0x1002': 'amd',
  '0x8086': 'intel',
  '0x1ae0': 'google',
  '0x1da3': 'habana',
  '0x1d0f': 'aws',
  '0x1e52': 'tenstorrent',
}

/** What a virtual machine draws its picture with is none of these. */
export async function cardsOnBus(system: System): Promise<Card[]> {
  const bus = '/sys/bus/pci/devices'
  const cards: Card[] = []
  for (const address of await system.list(bus)) {
    const kind = system.read(join(bus, address, 'class'))?.trim() ?? ''
    const vendor = vendors[system.read(join(bus, address, 'vendor'))?.trim() ?? '']
    // 0x0880: "other system peripheral", as Inferentia and TPUs call themselves
    const accelerator = /^0x(12|0b40)/.test(kind) || (/^0x(088|ff|00)/.test(kind) && (vendor === 'google' || vendor === 'aws'))
    if (!vendor || !(kind.startsWith('0x03') || accelerator)) continue
    const driver = await system.link(join(bus, address, 'driver'))
    const numa = Number(system.read(join(bus, address, 'numa_node'))?.trim() || -1)
    cards.push({
      vendor,
      address,
      device: (system.read(join(bus, address, 'device'))?.trim() ?? '').replace(/^0x/, ''),
      driver: driver && basename(driver),
      numa: numa >= 0 ? numa : null,
      display: kind.startsWith('0x03'),
    })
  }
  return cards
}

/** `00000000:01:00.0`, `0000:01:00.0` and `01:00.0` are one place. */
export function busAddress(text: string): string {
  const parts = text.trim().toLowerCase().split(':')
  const [bus = '', slot = ''] = parts.slice(-2)
  const domain = parts.length > 2 ? parts.at(-3)! : '0'
  return `${domain.replace(/^0+/, '').padStart(4, '0')}:${bus}:${slot}`
}

/** KFD packs bus, slot and function into one number. */
export const addressOfLocation = (domain: number, location: number): string =>
  `${domain.toString(16).padStart(4, '0')}:${(location >> 8).toString(16).padStart(2, '0')}:${((location >> 3) & 31).toString(16).padStart(2, '0')}.${location & 7}`
