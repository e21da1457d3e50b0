/**
 * NVIDIA: what nvidia-smi says, one group of fields at a time, since its text is not promised to stay (its man page says so) and an older one
 * refuses the whole query for one field it does not know; else what the driver shows in /proc.
 */
import { basename } from 'node:path'
import { canonicalName, knownAccelerator } from '../accelerators.ts'
import type { Answer, System } from '../system.ts'
import { type Device, device, type FoundDevices, type Holder, numberOf, type Obstacle, wordOf } from './device.ts'
import { cardObstacles, deviceObstacles, saidByTool, toolAbsent } from './nvidia-obstacles.ts'
import { busAddress, type Card } from './pci.ts'

/** One query each; uuid is the key that joins them. */
export const groups = {
  place: ['uuid', 'index', 'pci.bus_id', 'name'],
  memory: ['uuid', 'memory.total', 'memory.used'],
  load: ['uuid', 'utilization.gpu', 'temperature.gpu'],
  driver: ['uuid', 'driver_version'],
  capability: ['uuid', 'compute_cap'],
  mig: ['uuid', 'mig.mode.current'],
  link: ['uuid', 'pcie.link.gen.max', 'pcie.link.width.max'],
  power: ['uuid', 'power.limit'],
  errors: ['uuid', 'ecc.errors.uncorrected.volatile.total'],
  mode: ['uuid', 'compute_mode', 'persistence_mode'],
} as const
type Group = keyof typeof groups

export async function readNvidia(system: System, cards: readonly Card[]): Promise<FoundDevices> {
  const mine = cards.filter(card => card.vendor === 'nvidia')
  const node = await system.access('/dev/nvidiactl')
  const subsystem = (await system.access('/dev/dxg')) !== 'missing'
  const tool = await toolOf(system)
  const loaded = system.read('/proc/driver/nvidia/version')
  if (mine.length === 0 && node === 'missing' && !subsystem && loaded === null && !(await system.run(tool, '-L')))
    return { devices: [], obstacles: [] }
  const place = await system.run(tool, ...query(groups.place))
  const rows = place && place.code === 0 && !place.late ? parseTable(place.output, groups.place) : []
  const devices = rows.length > 0 ? await described(system, tool, rows, mine) : await fromProc(system, loaded, mine.length > 0)
  const said = place && rows.length === 0 ? saidByTool(place, system) : null
  const all =
    devices.length > 0 && rows.length === 0
      ? devices.map(each => device({ ...each, obstacles: said ? [said] : [toolAbsent(system)] }))
      : devices
  const unknown = mine.filter(card => !devices.some(({ address }) => address === card.address))
  const rest = await Promise.all(unknown.map(card => unknownCard(card, said, system)))
  return {
    devices: [...all, ...rest],
    obstacles: all.length + rest.length === 0 && said ? [said] : [],
  }
}

/** Below Windows the tool is not on the path. */
export const toolOf = async (system: System): Promise<string> =>
  (await system.access('/dev/dxg')) !== 'missing' ? '/usr/lib/wsl/lib/nvidia-smi' : 'nvidia-smi'

export const query = (fields: readonly string[]) => [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader,nounits']

/**
 * Rows of `--format=csv,noheader,nounits`. A line with another number of fields is none (a message in its place); a first field that is no
 * id neither.
 */
export function parseTable(text: string, fields: readonly string[]): Record<string, string>[] {
  return text.split('\n').flatMap(line => {
    const values = line.split(',').map(value => value.trim())
    if (values.length !== fields.length || !/^(GPU|MIG)-[\w/-]+$/.test(values[0]!)) return []
    return [Object.fromEntries(fields.map((field, i) => [field, values[i]!]))]
  })
}

async function described(system: System, tool: string, places: Record<string, string>[], cards: readonly Card[]): Promise<Device[]> {
  const names = (Object.keys(groups) as Group[]).filter(name => name !== 'place')
  const [listing, matrix, header, apps, ...tables] = await Promise.all([
    system.run(tool, '-L'),
    system.run(tool, 'topo', '-m'),
    system.run(tool),
    system.run(tool, '--query-compute-apps=gpu_uuid,pid,used_memory', '--format=csv,noheader,nounits'),
    ...names.map(name => system.run(tool, ...query(groups[name]))),
  ])
  const facts = new Map(places.map(place => [place['uuid']!, { ...place }]))
  names.forEach((name, i) => {
    for (const row of answered(tables[i]) ? parseTable(tables[i]!.output, groups[name]) : [])
      Object.assign(facts.get(row['uuid']!) ?? {}, row)
  })
  const slices = answered(listing) ? parseListing(listing!.output) : []
  const links = answered(matrix) ? parseTopology(matrix!.output) : []
  const holders = answered(apps) ? parseApps(apps!.output) : null
  const cuda = answered(header) ? cudaVersion(header!.output) : null
  const whole = await Promise.all(
    [...facts.values()].map(async fact => {
      const address = busAddress(fact['pci.bus_id'] ?? '')
      const index = numberOf(fact['index'])
      const card = cards.find(each => each.address === address)
      const minor = await minorOf(system, address, index)
      const mig = wordOf(fact['mig.mode.current'])
      const nodes = ['/dev/nvidiactl', ...(minor === null ? [] : [`/dev/nvidia${minor}`]), '/dev/nvidia-uvm']
      const memory = bytes(fact['memory.total'])
      const mine = slices.filter(slice => slice.of === fact['uuid'])
      const held = holders?.filter(each => each.gpu === fact['uuid']) ?? null
      const parent = {
        id: fact['uuid']!,
        vendor: 'nvidia' as const,
        index,
        name: canonicalName(fact['name'] ?? ''),
        model: fact['name'] ?? '',
        memory,
        integrated: memory === null && /\b(GB10|Orin|Thor|Xavier|Tegra)\b/i.test(fact['name'] ?? ''),
        driver: wordOf(fact['driver_version']) && `nvidia ${fact['driver_version']}`,
        address,
        nodes,
        numa: card?.numa ?? links.find(link => link.index === index)?.numa ?? null,
        used: bytes(fact['memory.used']),
        utilisation: share(fact['utilization.gpu']),
        holders: held?.map(({ pid, memory: taken }): Holder => ({ pid, memory: taken })) ?? null,
        details: details({
          capability: numberOf(fact['compute_cap']) === null ? null : fact['compute_cap']!,
          cuda,
          mig,
          'link generation': numberOf(fact['pcie.link.gen.max']),
          'link width': numberOf(fact['pcie.link.width.max']),
          'power limit (W)': numberOf(fact['power.limit']),
          'temperature (°C)': numberOf(fact['temperature.gpu']),
          'memory errors': numberOf(fact['ecc.errors.uncorrected.volatile.total']),
          'compute mode': wordOf(fact['compute_mode']),
          persistence: wordOf(fact['persistence_mode']),
          links: links.find(link => link.index === index)?.links.join(' ') || null,
        }),
      }
      const obstacles = await deviceObstacles({ ...parent, slices: mine.length, words: Object.values(fact) }, system)
      return [device({ ...parent, obstacles }), ...mine.map(slice => sliceOf(slice, device(parent)))]
    }),
  )
  return whole.flat().toSorted((a, b) => (a.index ?? 0) - (b.index ?? 0))
}

export const answered = (answer: Answer | null | undefined): boolean => answer?.code === 0 && !answer.late
export const bytes = (mebibytes: string | undefined): number | null => {
  const number = numberOf(mebibytes)
  return number === null ? null : number * 2 ** 20
}
export const share = (percent: string | undefined): number | null => {
  const number = numberOf(percent)
  return number === null ? null : Math.min(1, Math.max(0, number / 100))
}
const details = (all: Record<string, string | number | null>): Device['details'] =>
  Object.fromEntries(Object.entries(all).filter((entry): entry is [string, string | number] => entry[1] !== null))

// ── slices of a card (MIG) ──────────────────────────────────────────────────────────────────────────────────────────────────

export interface Slice {
  id: string
  /** Id of the card. */
  of: string
  /** 1g.10gb, 2c.4g.20gb, 1g.10gb+me */
  profile: string
}

/** `nvidia-smi -L`: a line a card, and indented below it a line a slice. */
export function parseListing(text: string): Slice[] {
  const slices: Slice[] = []
  let of = ''
  for (const line of text.split('\n')) {
    of = /^GPU \d+:.*\(UUID: (GPU-[\w-]+)\)/.exec(line)?.[1] ?? of
    const [, profile, id] = /^\s+MIG (\S+)\s+Device\s+\d+:\s*\(UUID: (MIG-[\w/-]+)\)/.exec(line) ?? []
    if (profile && id && of) slices.push({ id, of, profile })
  }
  return slices
}

/** A slice is used like a card of its own; its memory is in the name of its profile. Who computes on it nvidia-smi tells for the card only. */
function sliceOf({ id, profile }: Slice, card: Device): Device {
  const gigabytes = /\.(\d+)gb/.exec(profile)?.[1]
  return device({
    ...card,
    id,
    name: card.name,
    model: `${card.model}, slice ${profile}`,
    memory: gigabytes === undefined ? null : Number(gigabytes) * 1e9,
    used: null,
    utilisation: null,
    holders: null,
    details: { ...card.details, slice: profile, card: card.id },
    obstacles: [],
    usable: true,
  })
}

// ── how cards are connected ─────────────────────────────────────────────────────────────────────────────────────────────────

export interface Links {
  index: number
  /** To each card in order, X to itself: NV12, PIX, PXB, PHB, NODE, SYS. */
  links: string[]
  cores: string | null
  numa: number | null
}

/** `nvidia-smi topo -m`: tabs between columns, some of them empty, network cards among the rows and columns. */
export function parseTopology(text: string): Links[] {
  const lines = text.replaceAll(/\x1b\[[\d;]*m/g, '').split('\n')
  const head = lines.findIndex(line => /\bGPU0\b/.test(line) && /CPU Affinity/.test(line))
  if (head < 0) return []
  const columns = lines[head]!.split('\t').map(cell => cell.trim())
  const at = (title: string) => columns.indexOf(title)
  return lines.slice(head + 1).flatMap(line => {
    const cells = line.split('\t').map(cell => cell.trim())
    const index = /^GPU(\d+)$/.exec(cells[0] ?? '')?.[1]
    if (index === undefined) return []
    const links = columns.flatMap((title, i) => (/^GPU\d+$/.test(title) && cells[i] ? [cells[i]] : []))
    return [{ index: Number(index), links, cores: wordOf(cells[at('CPU Affinity')]), numa: numberOf(cells[at('NUMA Affinity')]) }]
  })
}

// ── who computes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Rows of `--query-compute-apps=gpu_uuid,pid,used_memory`; memory is [N/A] in containers and on Windows. */
export function parseApps(text: string): { gpu: string; pid: number; memory: number | null }[] {
  return parseTable(text, ['gpu', 'pid', 'memory']).flatMap(({ gpu, pid, memory }) => {
    const number = numberOf(pid)
    return number === null ? [] : [{ gpu: gpu!, pid: number, memory: bytes(memory) }]
  })
}

/** The newest CUDA that the driver runs, of the header of `nvidia-smi`. */
export const cudaVersion = (text: string): string | null => /CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)/.exec(text)?.[1] ?? null

// ── without nvidia-smi ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function minorOf(system: System, address: string, index: number | null): Promise<number | null> {
  const folder = (await system.list('/proc/driver/nvidia/gpus')).find(name => busAddress(name) === address)
  const text = folder === undefined ? null : system.read(`/proc/driver/nvidia/gpus/${folder}/information`)
  return numberOf(/^Device Minor:\s*(\d+)/m.exec(text ?? '')?.[1]) ?? index
}

/** Version of the driver in /proc/driver/nvidia/version, of the closed and the open module. */
export const driverVersion = (text: string | null): string | null =>
  /Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)/.exec(text ?? '')?.[1] ?? null

/** One card a folder of /proc/driver/nvidia/gpus; where a container hides that and the bus, device files are counted. */
async function fromProc(system: System, loaded: string | null, onBus: boolean): Promise<Device[]> {
  const version = driverVersion(loaded)
  const found = await Promise.all(
    (await system.list('/proc/driver/nvidia/gpus')).map(async (folder, index) => {
      const text = system.read(`/proc/driver/nvidia/gpus/${folder}/information`) ?? ''
      const value = (key: string) => new RegExp(`^${key}:\\s*(.+)$`, 'm').exec(text)?.[1]?.trim()
      const model = wordOf(value('Model')) ?? 'NVIDIA graphics'
      const minor = numberOf(value('Device Minor')) ?? index
      const memory = knownAccelerator(model)?.memory
      return device({
        id: /^GPU-[\da-f-]+$/.test(value('GPU UUID') ?? '') ? value('GPU UUID')! : `nvidia-${minor}`,
        vendor: 'nvidia',
        index,
        name: canonicalName(model),
        model,
        memory: memory?.length === 1 ? memory[0]! * 1e9 : null,
        driver: version && `nvidia ${version}`,
        address: busAddress(value('Bus Location') ?? folder),
        nodes: ['/dev/nvidiactl', `/dev/nvidia${minor}`, '/dev/nvidia-uvm'],
      })
    }),
  )
  if (found.length > 0 || onBus) return found
  const numbers = (await system.list('/dev')).flatMap(name => /^nvidia(\d+)$/.exec(name)?.[1] ?? []).map(Number)
  return numbers
    .toSorted((a, b) => a - b)
    .map((minor, index) =>
      device({
        id: `nvidia-${minor}`,
        vendor: 'nvidia',
        index,
        name: 'NVIDIA graphics',
        model: 'NVIDIA graphics',
        driver: version && `nvidia ${version}`,
        nodes: ['/dev/nvidiactl', `/dev/nvidia${minor}`, '/dev/nvidia-uvm'],
      }),
    )
}

/** On the bus, but no tool or driver speaks of it. */
async function unknownCard(card: Card, said: Obstacle | null, system: System): Promise<Device> {
  const version = system.read('/sys/module/nvidia/version')?.trim()
  return device({
    id: `nvidia-${card.address}`,
    vendor: 'nvidia',
    name: 'NVIDIA graphics',
    model: `NVIDIA graphics, device ${card.device || 'unknown'}`,
    driver: card.driver && (version && card.driver === 'nvidia' ? `nvidia ${version}` : basename(card.driver)),
    address: card.address,
    numa: card.numa,
    nodes: ['/dev/nvidiactl', '/dev/nvidia-uvm'],
    obstacles: await cardObstacles(card, said, system),
  })
}
