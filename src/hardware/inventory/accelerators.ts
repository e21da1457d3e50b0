/**
 * All accelerators of all vendors. Unambiguous device files come first: /dev/accel* may be several makers', and the graphics of an AMD processor
 * must not hide an NVIDIA card (dstack#4085). Every vendor is read, whatever was found before.
 */
import { recorded, type System } from '../system.ts'
import { readAmd } from './amd.ts'
import { readApple } from './apple.ts'
import type { FoundDevices, Reading, Vendor } from './device.ts'
import { readIntel } from './intel.ts'
import { readNvidia } from './nvidia.ts'
import { readGaudi, readNeuron, readTenstorrent, readTpu } from './others.ts'
import { type Card, cardsOnBus } from './pci.ts'

/** `verified`: the reader was run on such a device. None was at hand, so all of them know theirs from documentation only. */
const readers: readonly { vendor: Vendor; verified: boolean; read(system: System, cards: readonly Card[]): Promise<FoundDevices> }[] = [
  { vendor: 'nvidia', verified: false, read: readNvidia },
  { vendor: 'tenstorrent', verified: false, read: readTenstorrent },
  { vendor: 'amd', verified: false, read: readAmd },
  { vendor: 'intel', verified: false, read: readIntel },
  { vendor: 'habana', verified: false, read: readGaudi },
  { vendor: 'google', verified: false, read: readTpu },
  { vendor: 'aws', verified: false, read: readNeuron },
  { vendor: 'apple', verified: false, read: readApple },
]

/** One reading a vendor of which anything was found. */
export async function readAccelerators(system: System): Promise<Reading[]> {
  const readings = await Promise.all(
    readers.map(async ({ vendor, verified, read }): Promise<Reading> => {
      const { system: noting, provenance } = recorded(system, { verified })
      const { devices, obstacles } = await read(noting, await cardsOnBus(noting))
      return { vendor, provenance, devices: devices.map(device => ({ ...device, verified })), obstacles }
    }),
  )
  return readings.filter(({ devices, obstacles }) => devices.length > 0 || obstacles.length > 0)
}
