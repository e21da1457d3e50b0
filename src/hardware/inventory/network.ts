/** Network cards with the speed they were told, and the ports of RDMA that fast clusters have. What really gets through is measured (bandwidth.ts). */
import { networkInterfaces } from 'node:os'
import { basename } from 'node:path'
import { type Provenance, recorded, type System } from '../system.ts'

export interface Interface {
  name: string
  up: boolean
  /** Bits a second; null: not told (virtual cards). */
  speed: number | null
  mtu: number | null
  /** Bridges, tunnels and the like, without a device below. */
  virtual: boolean
  driver: string | null
  addresses: string[]
}
export interface RdmaPort {
  device: string
  port: number
  /** ACTIVE, DOWN … */
  state: string
  /** As the kernel writes it: `100 Gb/sec (4X EDR)`. */
  rate: string
  link: string | null
}
export interface Network {
  interfaces: Interface[]
  rdma: RdmaPort[]
  /** Bytes that this process may lock in memory; null: no limit. RDMA registers its buffers there. */
  lockable: number | null
  provenance: Provenance
}

export async function readNetwork(system: System): Promise<Network> {
  const { system: noting, provenance } = recorded(system, { verified: system.platform === 'linux' })
  const addresses = networkInterfaces()
  const names = (await noting.list('/sys/class/net')).filter(name => name !== 'lo' && name !== 'bonding_masters')
  const interfaces = await Promise.all(
    names.map(async (name): Promise<Interface> => {
      const folder = `/sys/class/net/${name}`
      const megabits = Number(noting.read(`${folder}/speed`)?.trim() || -1)
      const driver = await noting.link(`${folder}/device/driver`)
      return {
        name,
        up: noting.read(`${folder}/operstate`)?.trim() === 'up' || noting.read(`${folder}/carrier`)?.trim() === '1',
        // "-1", and 4294967295 on old kernels, say that nobody knows
        speed: megabits > 0 && megabits < 1e7 ? megabits * 1e6 : null,
        mtu: Number(noting.read(`${folder}/mtu`)?.trim()) || null,
        virtual: (await noting.link(`${folder}/device`)) === null,
        driver: driver && basename(driver),
        addresses: (addresses[name] ?? []).map(({ address }) => address),
      }
    }),
  )
  const rdma: RdmaPort[] = []
  for (const device of await noting.list('/sys/class/infiniband'))
    for (const port of await noting.list(`/sys/class/infiniband/${device}/ports`)) {
      const folder = `/sys/class/infiniband/${device}/ports/${port}`
      const [, state = ''] = /^\d+:\s*(.*)$/.exec(noting.read(`${folder}/state`)?.trim() ?? '') ?? []
      rdma.push({
        device,
        port: Number(port),
        state: state || 'unknown',
        rate: noting.read(`${folder}/rate`)?.trim() ?? 'unknown',
        link: noting.read(`${folder}/link_layer`)?.trim() ?? null,
      })
    }
  return { interfaces, rdma, lockable: lockableBytes(noting.read('/proc/self/limits')), provenance }
}

/** `Max locked memory  8388608  8388608  bytes` of /proc/self/limits: the soft limit; null: unlimited, or not told. */
export function lockableBytes(limits: string | null): number | null {
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits ?? '')?.[1]
  return soft === undefined || soft === 'unlimited' ? null : Number(soft)
}
