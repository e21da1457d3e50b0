/**
 * AMD: amd-smi (an array up to ROCm 6, `{gpu_data: […]}` since 7, fields that move between versions), else rocm-smi, else what the kernel shows
 * in /sys/class/kfd. The graphics that are part of a processor are named as such: they have little memory of their own.
 */
import { basename } from 'node:path'
import { canonicalName } from '../accelerators.ts'
import { install } from '../packages.ts'
import type { System } from '../system.ts'
import { type Device, device, type FoundDevices, numberOf, type Obstacle, printed, wordOf } from './device.ts'
import { nodeObstacle } from './nodes.ts'
import { addressOfLocation, busAddress, type Card } from './pci.ts'

const handIn = 'docker run --device /dev/kfd --device /dev/dri --group-add video --group-add render …'

/** What one source says about a device. */
interface Fact {
  address: string | null
  model: string | null
  memory: number | null
  driver: string | null
  target: string | null
  used?: number | null
  integrated?: boolean
  renderMinor?: number | null
}

export async function readAmd(system: System, cards: readonly Card[]): Promise<FoundDevices> {
  const mine = cards.filter(card => card.vendor === 'amd')
  if (mine.length === 0 && (await system.access('/dev/kfd')) === 'missing') return { devices: [], obstacles: [] }
  const { facts, late } = await askTools(system)
  const kernel = await kfdFacts(system)
  const known = facts.length > 0 ? facts : kernel
  const devices = await Promise.all(
    known.map(async (fact, index) => {
      const card = mine.find(({ address }) => address === fact.address)
      const node = kernel.find(({ address }) => address === fact.address) ?? kernel[index]
      return amdDevice(
        { ...fact, renderMinor: node?.renderMinor ?? null, integrated: fact.integrated ?? node?.integrated ?? false },
        index,
        card ?? null,
        system,
      )
    }),
  )
  const rest = mine.filter(card => !known.some(({ address }) => address === card.address))
  const unknown = await Promise.all(
    rest.map((card, i) =>
      amdDevice({ address: card.address, model: null, memory: null, driver: null, target: null }, known.length + i, card, system),
    ),
  )
  const obstacles: Obstacle[] = late
    ? [
        {
          code: 'tool_late',
          says: 'amd-smi does not answer in time',
          next: 'sudo dmesg | grep -i amdgpu | tail; a restart usually helps',
          effect: 'warns',
        },
      ]
    : []
  return { devices: [...devices, ...unknown], obstacles }
}

async function amdDevice(fact: Fact, index: number, card: Card | null, system: System): Promise<Device> {
  const model = fact.model ?? 'AMD graphics'
  const render = fact.renderMinor ? `/dev/dri/renderD${fact.renderMinor}` : null
  const nodes = ['/dev/kfd', ...(render ? [render] : [])]
  const obstacles: Obstacle[] = []
  if (card && card.driver === null)
    obstacles.push({ code: 'driver_missing', says: 'no driver is loaded for it', next: install('amd-driver', system), effect: 'stops' })
  else if (card?.driver === 'vfio-pci')
    obstacles.push({
      code: 'set_aside',
      says: 'it is set aside for virtual machines (driver vfio-pci)',
      next: 'Give it back to amdgpu, or use it in the virtual machine.',
      effect: 'stops',
    })
  else if (card?.driver === 'radeon')
    obstacles.push({
      code: 'driver_other',
      says: 'its driver is radeon; ROCm needs amdgpu',
      next: 'It is too old for ROCm: use another card.',
      effect: 'stops',
    })
  else {
    const node = await nodeObstacle(nodes, { groups: 'render,video', handIn }, system)
    if (node) obstacles.push(node)
  }
  return device({
    id: `amd-${index}`,
    vendor: 'amd',
    index,
    name: fact.model ? canonicalName(fact.model) : model,
    model,
    memory: fact.integrated ? null : fact.memory,
    integrated: fact.integrated ?? false,
    driver: fact.driver ?? (card?.driver ? basename(card.driver) : null),
    address: fact.address,
    nodes,
    numa: card?.numa ?? null,
    used: fact.used ?? null,
    details: fact.target ? { target: fact.target } : {},
    obstacles,
  })
}

// ── tools ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function askTools(system: System): Promise<{ facts: Fact[]; late: boolean }> {
  for (const tool of ['amd-smi', '/opt/rocm/bin/amd-smi']) {
    const sections = ['static', '--json', '--asic', '--vram', '--bus']
    // --driver is not known to all versions, which then refuse everything
    let answer = await system.run(tool, ...sections, '--driver')
    if (answer && answer.code !== 0 && !answer.late) answer = await system.run(tool, ...sections)
    if (answer?.late) return { facts: [], late: true }
    const facts = answer ? parseAmdSmi(answer.output) : []
    if (facts.length > 0) return { facts, late: false }
  }
  for (const tool of ['rocm-smi', '/opt/rocm/bin/rocm-smi']) {
    const answer = await system.run(tool, '--showproductname', '--showmeminfo', 'vram', '--showbus', '--showdriverversion', '--json')
    if (answer?.late) return { facts: [], late: true }
    const facts = answer ? parseRocmSmi(answer.output) : []
    if (facts.length > 0) return { facts, late: false }
  }
  return { facts: [], late: false }
}

type Json = { readonly [key: string]: unknown }
const object = (value: unknown): Json => (typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {})
/** Keys are lower case in some versions and upper case in others. */
const field = (value: unknown, ...names: string[]): unknown => {
  const entries = Object.entries(object(value))
  for (const name of names) {
    const found = entries.find(
      ([key, each]) => key.toLowerCase() === name && (typeof each === 'object' ? each !== null : wordOf(printed(each)) !== null),
    )
    if (found) return found[1]
  }
  return undefined
}
const text = (value: unknown): string | null => (typeof value === 'string' || typeof value === 'number' ? wordOf(String(value)) : null)

/** The JSON in a tool's output, which may begin with warnings. */
function jsonIn(output: string): unknown {
  const begins = [output.search(/^\s*[[{]/m), 0].find(at => at >= 0)!
  try {
    return JSON.parse(output.slice(begins))
  } catch {
    return null
  }
}

const units: Record<string, number> = { b: 1, kb: 2 ** 10, mb: 2 ** 20, gb: 2 ** 30 }

/** `amd-smi static --json`: sizes are `{value, unit}`, a bare number (MB), or words. */
export function parseAmdSmi(output: string): Fact[] {
  const whole = jsonIn(output)
  const list = Array.isArray(whole) ? whole : field(whole, 'gpu_data')
  return (Array.isArray(list) ? list : []).flatMap(each => {
    const asic = field(each, 'asic')
    const size = field(field(each, 'vram'), 'size')
    const [value, unit] = [
      text(field(size, 'value') ?? size)?.split(' ')[0],
      text(field(size, 'unit')) ?? text(size)?.split(' ')[1] ?? 'mb',
    ]
    const megabytes = numberOf(value)
    const bus = text(field(field(each, 'bus'), 'bdf'))
    const driver = field(each, 'driver')
    const version = text(field(driver, 'version')) ?? text(field(driver, 'driver_version'))
    const model = text(field(asic, 'market_name'))
    if (model === null && bus === null && megabytes === null) return []
    return [
      {
        address: bus && busAddress(bus),
        model,
        memory: megabytes && megabytes * (units[unit.toLowerCase()] ?? 2 ** 20),
        driver: version && `amdgpu ${version}`,
        target: text(field(asic, 'target_graphics_version')),
        ...(isIntegrated(model) && { integrated: true }),
      },
    ]
  })
}

/** `rocm-smi --json`: `{card0: {"Card Series": …, "VRAM Total Memory (B)": "…"}, system: {"Driver version": …}}`. */
export function parseRocmSmi(output: string): Fact[] {
  const whole = object(jsonIn(output))
  const driver = text(field(whole['system'], 'driver version'))
  return Object.entries(whole)
    .filter(([name]) => /^card\d+$/.test(name))
    .toSorted(([a], [b]) => Number(a.slice(4)) - Number(b.slice(4)))
    .map(([, card]) => {
      const bus = text(field(card, 'pci bus'))
      // the series was the card's name before ROCm 6, its family since
      const words = [text(field(card, 'card series')), text(field(card, 'card model'))].filter(word => word !== null && !/^0x/i.test(word))
      const model = words.find(word => /MI\d|RX|W\d{4}|Radeon/i.test(word!)) ?? words[0] ?? null
      return {
        address: bus && busAddress(bus),
        model,
        memory: numberOf(text(field(card, 'vram total memory (b)')) ?? undefined),
        used: numberOf(text(field(card, 'vram total used memory (b)')) ?? undefined),
        driver: driver && `amdgpu ${driver}`,
        target: text(field(card, 'gfx version')),
        ...(isIntegrated(model) && { integrated: true }),
      }
    })
}

/** Graphics inside of a Ryzen; MI300A shares its memory too, but is a card for computing. */
const isIntegrated = (model: string | null): boolean =>
  /Radeon(\(TM\)|™)? (?:\d{3}M|Vega \d+|\d+S)?\s*(?:Graphics)?$|\b(Phoenix|Hawk ?Point|Strix|Krackan|Rembrandt|Raphael|Renoir|Cezanne|Lucienne|Barcelo|Raven|Picasso|Granite Ridge|Mendocino)/i.test(
    model ?? '',
  ) && !/MI\d/.test(model ?? '')

// ── the kernel ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** /sys/class/kfd/kfd/topology/nodes/<n>/properties: lines of `name number`; a node with SIMD units is a GPU, one with cores too is both. */
async function kfdFacts(system: System): Promise<(Fact & { renderMinor: number | null })[]> {
  const root = '/sys/class/kfd/kfd/topology/nodes'
  const facts: (Fact & { renderMinor: number | null })[] = []
  for (const node of (await system.list(root)).toSorted((a, b) => Number(a) - Number(b))) {
    const properties = pairs(system.read(`${root}/${node}/properties`))
    if (!properties.get('simd_count')) continue
    const address = addressOfLocation(properties.get('domain') ?? 0, properties.get('location_id') ?? 0)
    let memory = 0
    for (const bank of await system.list(`${root}/${node}/mem_banks`)) {
      const found = pairs(system.read(`${root}/${node}/mem_banks/${bank}/properties`))
      // heap types 1 and 2: the card's own memory, seen by the processor or not (kernel, kfd_topology.h)
      if (found.get('heap_type') === 1 || found.get('heap_type') === 2) memory += found.get('size_in_bytes') ?? 0
    }
    const version = properties.get('gfx_target_version') ?? 0
    const integrated = (properties.get('cpu_cores_count') ?? 0) > 0 || memory === 0
    facts.push({
      address,
      model: system.read(`${root}/${node}/product_name`)?.trim() || null,
      memory: memory || null,
      driver: null,
      // 90010 is gfx90a: the last two digits are hexadecimal in the name
      target: version
        ? `gfx${Math.floor(version / 10000)}${(Math.floor(version / 100) % 100).toString(16)}${(version % 100).toString(16)}`
        : null,
      integrated,
      renderMinor: properties.get('drm_render_minor') || null,
    })
  }
  return facts
}

const pairs = (lines: string | null): Map<string, number> =>
  new Map(
    (lines ?? '').split('\n').flatMap(line => {
      const [name, value] = line.trim().split(/\s+/)
      return name && value && /^\d+$/.test(value) ? [[name, Number(value)] as const] : []
    }),
  )
