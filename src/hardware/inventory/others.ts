/**
 * Accelerators known by their presence: TPU, Gaudi, Neuron, Tenstorrent. /dev/accel* may be any of them, or the NPU of a laptop: the driver
 * below /sys/class/accel tells.
 */
import { basename } from 'node:path'
import { canonicalName, knownAccelerator } from '../accelerators.ts'
import { inContainer } from '../packages.ts'
import type { System } from '../system.ts'
import { type Device, device, type FoundDevices, numberOf, type Obstacle, printed, wordOf } from './device.ts'
import { nodeObstacle } from './nodes.ts'
import type { Card } from './pci.ts'

const none: FoundDevices = { devices: [], obstacles: [] }

// ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `/dev/accel0` of TPU machines, `/dev/accel/accel0` of the kernel's accel subsystem, each with the module that made it. */
async function accelNodes(system: System): Promise<{ file: string; driver: string | null }[]> {
  const flat = (await system.list('/dev')).filter(name => /^accel\d+$/.test(name)).map(name => `/dev/${name}`)
  const nested = (await system.list('/dev/accel')).filter(name => /^accel\d+$/.test(name)).map(name => `/dev/accel/${name}`)
  return Promise.all(
    [...flat, ...nested].map(async file => {
      const driver = await system.link(`/sys/class/accel/${basename(file)}/device/driver`)
      return { file, driver: driver && basename(driver) }
    }),
  )
}

// ── TPU ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const metadata = 'http://metadata.google.internal/computeMetadata/v1/instance/attributes/accelerator-type'

/** A chip a file. On machines that pass it through by VFIO the files are numbers in /dev/vfio, which others use too: the bus decides. */
export async function readTpu(system: System, cards: readonly Card[]): Promise<FoundDevices> {
  const onBus = cards.filter(card => card.vendor === 'google').length
  const google = /Google/.test(system.read('/sys/class/dmi/id/product_name') ?? system.read('/sys/class/dmi/id/sys_vendor') ?? '')
  const given = wordOf(system.variable('TPU_ACCELERATOR_TYPE'))
  const nodes = (await accelNodes(system))
    .filter(({ driver }) => driver === null || /gasket|apex|tpu|google/i.test(driver))
    .map(({ file }) => file)
  const files =
    nodes.length > 0 ? nodes : (await system.list('/dev/vfio')).filter(name => /^\d+$/.test(name)).map(name => `/dev/vfio/${name}`)
  if (onBus === 0 && given === null && !(google && files.length > 0)) return none
  const type = given ?? (google ? wordOf((await system.get(metadata, { 'Metadata-Flavor': 'Google' })) ?? undefined) : null)
  if (onBus === 0 && type === null) return none // a Google machine with other devices behind VFIO
  const model = type ? `TPU ${type}` : 'TPU'
  const memory = knownAccelerator(type ?? '')?.memory[0]
  const chips = files.length > 0 ? files : Array.from({ length: Math.max(1, onBus) }, () => null)
  return {
    obstacles: [],
    devices: await Promise.all(
      chips.map(async (file, index) => {
        const obstacle: Obstacle | null =
          file === null
            ? {
                code: 'node_missing',
                says: `there is no /dev/accel* and no /dev/vfio/<number>${inContainer(system) ? ' in this container' : ''}`,
                next: inContainer(system)
                  ? 'docker run --privileged --net=host …'
                  : 'sudo modprobe vfio-pci; the images of TPU VMs bring the driver',
                effect: 'stops',
              }
            : await nodeObstacle([file], { groups: 'root', handIn: 'docker run --privileged --net=host …' }, system)
        return device({
          id: `google-${index}`,
          vendor: 'google',
          index,
          name: canonicalName(type ?? 'TPU'),
          model,
          memory: memory === undefined ? null : memory * 1e9,
          nodes: file === null ? [] : [file],
          obstacles: obstacle ? [obstacle] : [],
        })
      }),
    ),
  }
}

// ── Gaudi ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export async function readGaudi(system: System, cards: readonly Card[]): Promise<FoundDevices> {
  const mine = cards.filter(card => card.vendor === 'habana')
  const nodes = (await accelNodes(system)).filter(({ driver }) => driver === 'habanalabs').map(({ file }) => file)
  if (mine.length === 0 && nodes.length === 0) return none
  const answer = await system.run('hl-smi', '-Q', 'index,uuid,name,memory.total', '-f', 'csv,noheader')
  const told = answer && answer.code === 0 ? parseHlSmi(answer.output) : []
  const missing: Obstacle[] = mine.some(({ driver }) => driver === null)
    ? [
        {
          code: 'driver_missing',
          says: 'no driver is loaded for it',
          next: 'Install habanalabs-dkms (docs.habana.ai), then: sudo modprobe habanalabs',
          effect: 'stops',
        },
      ]
    : []
  const count = Math.max(told.length, nodes.length, mine.length)
  const devices = Array.from({ length: count }, (_, index): Device => {
    const fact = told[index]
    return device({
      id: `habana-${fact?.index ?? index}`,
      vendor: 'habana',
      index: fact?.index ?? index,
      name: canonicalName(fact?.model ?? 'Gaudi'),
      model: fact?.model ?? 'Gaudi',
      memory: fact?.memory ?? null,
      details: fact ? { uuid: fact.id } : {},
      nodes: nodes[index] ? [nodes[index]] : [],
      driver: mine[index]?.driver ?? null,
      address: mine[index]?.address ?? null,
      obstacles: missing,
    })
  })
  return { devices, obstacles: [] }
}

/** `hl-smi -Q index,uuid,name,memory.total -f csv,noheader`: `0, 01P0-HL2080A0-15-…, HL-225, 98304 MiB`. */
export function parseHlSmi(text: string): { index: number; id: string; model: string; memory: number | null }[] {
  return text.split('\n').flatMap(line => {
    const [index, id, model, memory, ...more] = line.split(',').map(word => word.trim())
    const number = numberOf(index)
    if (number === null || !id || !model || more.length > 0) return []
    const mebibytes = numberOf(memory?.replace(/\s*MiB$/, ''))
    return [{ index: number, id, model, memory: mebibytes === null ? null : mebibytes * 2 ** 20 }]
  })
}

// ── Neuron ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export async function readNeuron(system: System, cards: readonly Card[]): Promise<FoundDevices> {
  const nodes = (await system.list('/dev')).filter(name => /^neuron\d+$/.test(name)).map(name => `/dev/${name}`)
  const mine = cards.filter(card => card.vendor === 'aws')
  if (nodes.length === 0 && mine.length === 0) return none
  const answer = (await system.run('neuron-ls', '--json-output')) ?? (await system.run('/opt/aws/neuron/bin/neuron-ls', '--json-output'))
  const told = answer && answer.code === 0 ? parseNeuronLs(answer.output) : []
  const kind = canonicalName(system.read('/sys/class/dmi/id/product_name')?.trim() ?? '')
  const known = knownAccelerator(kind)
  return {
    obstacles: [],
    devices: await Promise.all(
      Array.from({ length: Math.max(nodes.length, told.length, mine.length) }, async (_, index) => {
        const file = nodes[index]
        const fact = told[index]
        const obstacle: Obstacle | null = file
          ? await nodeObstacle([file], { groups: 'root', handIn: `docker run --device ${file} …` }, system)
          : {
              code: mine.length > 0 ? 'driver_missing' : 'node_missing',
              says: `there is no /dev/neuron${index}`,
              next: 'Install aws-neuronx-dkms (awsdocs-neuron.readthedocs-hosted.com), then: sudo modprobe neuron',
              effect: 'stops',
            }
        return device({
          id: `aws-${index}`,
          vendor: 'aws',
          index,
          name: known?.name ?? 'Neuron',
          model: known?.name ?? 'Neuron device',
          memory: fact?.memory ?? null,
          nodes: file ? [file] : [],
          details: fact?.cores ? { cores: fact.cores } : {},
          obstacles: obstacle ? [obstacle] : [],
        })
      }),
    ),
  }
}

/** `neuron-ls --json-output`: `[{neuron_device: 0, bdf, nc_count, memory_size, neuron_processes: […]}]`. */
export function parseNeuronLs(output: string): { cores: number | null; memory: number | null }[] {
  try {
    const list: unknown = JSON.parse(output)
    return (Array.isArray(list) ? list : []).map((each: Record<string, unknown> | null) => ({
      cores: numberOf(printed(each?.['nc_count'])),
      memory: numberOf(printed(each?.['memory_size'])),
    }))
  } catch {
    return []
  }
}

// ── Tenstorrent, and what is no device for training ─────────────────────────────────────────────────────────────────────────

export async function readTenstorrent(system: System): Promise<FoundDevices> {
  const nodes = (await system.list('/dev/tenstorrent')).filter(name => /^\d+$/.test(name))
  return {
    obstacles: [],
    devices: await Promise.all(
      nodes.map(async (name, index) => {
        const file = `/dev/tenstorrent/${name}`
        const obstacle = await nodeObstacle([file], { groups: 'root', handIn: 'docker run --device /dev/tenstorrent …' }, system)
        return device({
          id: `tenstorrent-${name}`,
          vendor: 'tenstorrent',
          index,
          name: 'Tenstorrent',
          model: 'Tenstorrent device',
          driver: wordOf(system.read('/sys/module/tenstorrent/version') ?? undefined),
          nodes: [file],
          obstacles: obstacle ? [obstacle] : [],
        })
      }),
    ),
  }
}
