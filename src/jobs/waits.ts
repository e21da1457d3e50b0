/** In words, why a job waits. */
import type { Board, Place } from './board.ts'
import type { Decision, Wait } from './decide.ts'
import { alternatives, type Demand, type EngineNode, hasDevices, matches, tiny } from './demand.ts'
import type { DeviceRequest } from './spec.ts'

export function waitText(wait: Wait, { board }: Pick<Decision, 'board'>): string {
  if (wait.for === 'its group') return `waits for one of its group: ${wait.running} run, as many as may at once`
  if (wait.for === 'preempted')
    return `waits for ${listed(wait.jobs.map(job => `job ${job}`))}, which ${wait.jobs.length === 1 ? 'is' : 'are'} stopped for it`
  return roomText(wait.demand, board)
}

function roomText(demand: Demand, board: Board): string {
  const places = board.engines.filter(({ name }) => demand.engine === null || demand.engine === name).flatMap(each => each.places)
  if (places.length === 0) return 'waits for a machine: none can be used now'
  if (demand.nodes > 1) return gangText(demand, places)
  const one = demand.devices[0] ?? null
  const free = (place: Place) => (one ? freeDevices(place, one) : 0)
  // told of the machine that comes nearest
  const nearest = places.reduce((best, place) => (nearness(place, demand, free(place)) > nearness(best, demand, free(best)) ? place : best))
  const where = places.length > 1 ? ` on ${nearest.node.name}` : ''
  const missing: string[] = []
  if (one && free(nearest) + tiny < one.count)
    missing.push(`${deviceText(one)}, ${number(free(nearest))} free${where}${heldText(places, one)}`)
  if (demand.cpus > nearest.cpus + tiny) missing.push(`${coresText(demand.cpus)}, ${number(Math.max(0, nearest.cpus))} free${where}`)
  if (demand.memory > nearest.memory + tiny)
    missing.push(`${bytesText(demand.memory)} of memory, ${bytesText(Math.max(0, nearest.memory))} free${where}`)
  if (missing.length > 0) return `waits for ${missing.join(', and for ')}`
  return nearest.kept ? `waits: what is free is kept for job ${nearest.kept.job}, which came before it` : 'waits for its turn'
}

function gangText(demand: Demand, places: readonly Place[]): string {
  const each = [
    coresText(demand.cpus),
    ...(demand.memory > 0 ? [`${bytesText(demand.memory)} of memory`] : []),
    ...(demand.devices[0] ? [deviceText(demand.devices[0])] : []),
  ]
  const free = places.filter(place => alternatives(demand).some(request => roomNow(place, demand, request))).length
  const kept = places.find(place => place.kept !== null)?.kept
  if (free >= demand.nodes && kept) return `waits: what is free is kept for job ${kept.job}, which came before it`
  return `waits for ${demand.nodes} nodes at once with ${listed(each)} each; ${free} ${free === 1 ? 'is' : 'are'} free`
}

const roomNow = (place: Place, { cpus, memory }: Demand, request: DeviceRequest | null) =>
  cpus <= place.cpus + tiny && memory <= place.memory + tiny && (request === null || freeDevices(place, request) + tiny >= request.count)

const nearness = (place: Place, { cpus, memory, devices }: Demand, free: number) =>
  (devices[0] ? Math.min(1, free / devices[0].count) * 4 : 0) +
  Math.min(1, Math.max(0, place.cpus) / cpus) +
  (memory > 0 ? Math.min(1, Math.max(0, place.memory) / memory) : 0) -
  (place.kept ? 0.01 : 0)

const freeDevices = ({ slots }: Place, request: DeviceRequest): number => {
  const usable = slots.filter(({ device }) => device.free && matches(device, request))
  if (request.count < 1) return Math.max(0, ...usable.map(({ used }) => 1 - used))
  return usable.filter(({ used }) => used === 0).length
}

/** Devices that somebody else holds are named, with what holds them. */
function heldText(places: readonly Place[], request: DeviceRequest): string {
  const held = places.flatMap(({ slots }) => slots.filter(({ device }) => !device.free && matches(device, request)))
  if (held.length === 0) return ''
  const [{ device }] = held as [(typeof held)[number]]
  return ` (${device.name} ${device.id}: ${device.why ?? 'in use by others'}${held.length > 1 ? `, and ${held.length - 1} more` : ''})`
}

// ── what there is, for a job that fits nowhere ──────────────────────────────────────────────────────────────────────────────

/** Whether it is the accelerators that are missing, and what is wanted and there, in words. */
export function missingText(demand: Demand, nodes: readonly EngineNode[]): { device: boolean; wanted: string; there: string } {
  const own = nodes.filter(({ engine }) => demand.engine === null || engine === demand.engine)
  const device = demand.devices.length > 0 && !own.some(node => demand.devices.some(request => hasDevices(node, request)))
  if (device) return { device, wanted: demand.devices.map(deviceText).join(' or '), there: devicesThere(own) }
  const each = [
    coresText(demand.cpus),
    ...(demand.memory > 0 ? [`${bytesText(demand.memory)} of memory`] : []),
    ...(demand.devices.length > 0 ? [demand.devices.map(deviceText).join(' or ')] : []),
  ]
  const wanted = `${demand.nodes > 1 ? `${demand.nodes} nodes with ` : ''}${listed(each)}`
  return { device, wanted, there: machinesThere(own) }
}

function devicesThere(nodes: readonly EngineNode[]): string {
  const counts = new Map<string, number>()
  for (const { devices } of nodes)
    for (const { name, memory } of devices) {
      const text = `${name}${memory > 0 ? ` (${bytesText(memory)})` : ''}`
      counts.set(text, (counts.get(text) ?? 0) + 1)
    }
  return counts.size === 0 ? 'no accelerator' : listed([...counts].map(([name, count]) => `${count} × ${name}`))
}

/** Machines of one size together. */
function machinesThere(nodes: readonly EngineNode[]): string {
  const sizes = new Map<string, number>()
  for (const node of nodes) {
    const text = `${coresText(node.cpus)} and ${bytesText(node.memory)} of memory${node.devices.length > 0 ? ` and ${devicesThere([node])}` : ''}`
    sizes.set(text, (sizes.get(text) ?? 0) + 1)
  }
  if (sizes.size === 0) return 'no machine'
  const shown = [...sizes].sort(([, a], [, b]) => b - a).slice(0, 5)
  return listed(shown.map(([size, count]) => `${count} with ${size}`)) + (sizes.size > shown.length ? ', and others' : '')
}

export const deviceText = ({ vendor, name, count, memory }: DeviceRequest): string =>
  `${number(count)} ${name ?? (vendor ? `accelerator of ${vendor}` : count > 1 ? 'accelerators' : 'accelerator')}${memory === null ? '' : ` with ${bytesText(memory)}`}`
const coresText = (cores: number) => `${number(cores)} ${cores === 1 ? 'core' : 'cores'}`
export const bytesText = (bytes: number): string => (bytes >= 1e9 ? `${number(bytes / 1e9)} GB` : `${number(bytes / 1e6)} MB`)
const number = (value: number) => String(Math.round(value * 100) / 100)
const listed = (texts: readonly string[]) => (texts.length > 1 ? `${texts.slice(0, -1).join(', ')} and ${texts.at(-1)}` : (texts[0] ?? ''))
