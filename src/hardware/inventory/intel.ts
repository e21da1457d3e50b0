/** Intel graphics: xpu-smi where it is, else what i915 and xe show in /sys. The graphics inside of a processor sit at 0000:00:02.0. */
import { basename } from 'node:path'
import { canonicalName } from '../accelerators.ts'
import { install } from '../packages.ts'
import type { System } from '../system.ts'
import { device, type FoundDevices, numberOf, type Obstacle, printed, wordOf } from './device.ts'
import { nodeObstacle } from './nodes.ts'
import { busAddress, type Card } from './pci.ts'

export async function readIntel(system: System, cards: readonly Card[]): Promise<FoundDevices> {
  const mine = cards.filter(card => card.vendor === 'intel' && card.display)
  if (mine.length === 0) return { devices: [], obstacles: [] }
  const answer = mine.some(({ address }) => !isIntegrated(address)) ? await system.run('xpu-smi', 'discovery', '-j') : null
  const told = answer && answer.code === 0 ? parseXpuSmi(answer.output) : []
  const devices = await Promise.all(
    mine.map(async (card, index) => {
      const fact = told.find(({ address }) => address === card.address)
      const [folder = ''] = (await system.list(`/sys/bus/pci/devices/${card.address}/drm`)).filter(name => /^card\d+$/.test(name))
      const [render] = (await system.list(`/sys/bus/pci/devices/${card.address}/drm`)).filter(name => /^renderD\d+$/.test(name))
      const nodes = [`/dev/dri/${render ?? 'renderD128'}`]
      // of i915, for cards with memory of their own
      const local = numberOf(system.read(`/sys/class/drm/${folder}/lmem_total_bytes`)?.trim())
      const model = fact?.model ?? 'Intel graphics'
      return device({
        id: `intel-${index}`,
        vendor: 'intel',
        index,
        name: fact?.model ? canonicalName(fact.model) : model,
        model,
        memory: isIntegrated(card.address) ? null : (fact?.memory ?? local),
        integrated: isIntegrated(card.address),
        driver: card.driver && basename(card.driver),
        address: card.address,
        nodes,
        numa: card.numa,
        obstacles: await obstaclesOf(card, nodes, system),
      })
    }),
  )
  const late: Obstacle[] = answer?.late
    ? [{ code: 'tool_late', says: 'xpu-smi does not answer in time', next: 'sudo dmesg | grep -iE "i915|xe" | tail', effect: 'warns' }]
    : []
  return { devices, obstacles: late }
}

const isIntegrated = (address: string) => address === '0000:00:02.0'

async function obstaclesOf(card: Card, nodes: readonly string[], system: System): Promise<Obstacle[]> {
  if (card.driver === null)
    return [{ code: 'driver_missing', says: 'no driver is loaded for it', next: install('intel-driver', system), effect: 'stops' }]
  if (card.driver === 'vfio-pci')
    return [
      {
        code: 'set_aside',
        says: 'it is set aside for virtual machines (driver vfio-pci)',
        next: 'Give it back to its driver, or use it in the virtual machine.',
        effect: 'stops',
      },
    ]
  const node = await nodeObstacle(nodes, { groups: 'render,video', handIn: 'docker run --device /dev/dri --group-add render …' }, system)
  return node ? [node] : []
}

/** `xpu-smi discovery -j`: `{device_list: [{device_name, pci_bdf_address, memory_physical_size_byte: "…"}]}`, numbers as words. */
export function parseXpuSmi(output: string): { address: string; model: string | null; memory: number | null }[] {
  let whole: unknown
  try {
    whole = JSON.parse(output)
  } catch {
    return []
  }
  const list = (whole as { device_list?: unknown } | null)?.device_list
  return (Array.isArray(list) ? list : []).flatMap((each: Record<string, unknown> | null) => {
    const address = each?.['pci_bdf_address']
    if (typeof address !== 'string') return []
    const name = each?.['device_name']
    const bytes = numberOf(printed(each?.['memory_physical_size_byte']))
    // "Intel(R) Graphics [0xe211]" is what a driver says that does not know the name
    const model = typeof name === 'string' ? wordOf(name) : null
    return [{ address: busAddress(address), model, memory: bytes || null }]
  })
}
