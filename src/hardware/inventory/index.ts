/** The inventory: one record of what this machine is, each part with where it was read, when, and what the source said. */
import { hostname } from 'node:os'
import { readLoad, withLoad } from '../load.ts'
import { distribution } from '../packages.ts'
import { type Provenance, recorded, type System, thisSystem } from '../system.ts'
import { type GraphicsRuntimes, readGraphicsRuntimes, readTools, type Tool, type ToolName } from '../tools.ts'
import { readAccelerators } from './accelerators.ts'
import type { Device, Reading } from './device.ts'
import { type Disk, readDisks } from './disks.ts'
import { type Memory, readMemory } from './memory.ts'
import { type Network, readNetwork } from './network.ts'
import { readOverride, withOverride } from './override.ts'
import { type Processor, readProcessor } from './processor.ts'

export interface Inventory {
  version: 1
  host: string
  /** Changes when the machine starts anew; null where the system does not say. */
  boot: string | null
  time: string
  system: { title: string; platform: string; provenance: Provenance }
  accelerators: Reading[]
}

export interface InventoryOptions {
  /** `hardware.yaml` of the home, or the file that PLINTH_HARDWARE names. */
  override: { path: string; named: boolean }
  system?: System
}

/** throws hardware_file */
export async function readInventory({ override, system = thisSystem }: InventoryOptions): Promise<Inventory> {
  const said = await readOverride(override.path, { required: override.named })
  const noting = recorded(system, { verified: true })
  const accelerators = withOverride(await readAccelerators(system), said, override.path)
  return {
    version: 1,
    host: hostname(),
    boot: bootId(system),
    time: new Date().toISOString(),
    system: { title: distribution(noting.system).title, platform: `${system.platform}-${process.arch}`, provenance: noting.provenance },
    accelerators,
  }
}

/** Everything, for people and for `plinth doctor --json`. */
export interface WholeInventory extends Inventory {
  processor: Processor
  memory: Memory
  disks: { disks: Disk[]; provenance: Provenance }
  network: Network
  tools: { tools: Record<ToolName, Tool>; provenance: Provenance }
  graphics: GraphicsRuntimes
}

/** `folders`: their disks are listed whatever they are. `runtime`: folder of onnxruntime-node. throws hardware_file */
export async function readWholeInventory({
  folders,
  runtime,
  ...options
}: InventoryOptions & { folders: readonly string[]; runtime: string | null }): Promise<WholeInventory> {
  const { system = thisSystem } = options
  const [inventory, processor, memory, disks, network, tools, graphics] = await Promise.all([
    readInventory(options),
    readProcessor(system),
    readMemory(system),
    readDisks(system, folders),
    readNetwork(system),
    readTools(system),
    readGraphicsRuntimes(system, runtime),
  ])
  return { ...inventory, processor, memory, disks, network, tools, graphics }
}

export const devicesOf = (inventory: Pick<Inventory, 'accelerators'>): Device[] => inventory.accelerators.flatMap(({ devices }) => devices)

export const bootId = (system: System): string | null => system.read('/proc/sys/kernel/random/boot_id')?.trim() || null

export interface KeptInventory {
  current(): Promise<Inventory>
  close(): void
}

/** Milliseconds after which everything is read again, and what devices do now. */
const age = { record: 600_000, load: 10_000 }

interface Kept {
  reading: Promise<Inventory>
  since: number
  boot: string | null
}

/**
 * An inventory that is read again when it is old, after a new boot (a machine that was moved while it slept), and on SIGHUP; who computes on
 * which device is asked more often.
 */
export function keepInventory(options: InventoryOptions): KeptInventory {
  const system = options.system ?? thisSystem
  let record: Kept | null = null
  let loaded: Kept | null = null
  const forget = () => {
    record = null
    loaded = null
  }
  const fresh = (kept: Kept | null, boot: string | null, most: number): kept is Kept =>
    kept !== null && kept.boot === boot && performance.now() - kept.since < most
  const keep = (reading: Promise<Inventory>, boot: string | null): Kept => {
    reading.catch(forget)
    return { reading, since: performance.now(), boot }
  }
  process.on('SIGHUP', forget)
  return {
    current() {
      const boot = bootId(system)
      if (!fresh(record, boot, age.record)) {
        record = keep(readInventory(options), boot)
        // tools have just said who computes; of fake devices nobody has
        loaded = keep(
          record.reading.then(reading => (devicesOf(reading).some(({ fake }) => fake) ? loadedNow(reading, system) : reading)),
          boot,
        )
      } else if (!fresh(loaded, boot, age.load))
        loaded = keep(
          record.reading.then(reading => loadedNow(reading, system)),
          boot,
        )
      return loaded!.reading
    },
    close: () => void process.off('SIGHUP', forget),
  }
}

async function loadedNow(inventory: Inventory, system: System): Promise<Inventory> {
  const load = await readLoad(system, devicesOf(inventory))
  return {
    ...inventory,
    accelerators: inventory.accelerators.map(each => ({
      ...each,
      devices: each.devices.map(device => withLoad(device, load.get(device.id))),
    })),
  }
}
