/** What a job needs of machines, as the scheduler counts it, and what machines have. */
import type { Node, NodeDevice } from './backend.ts'
import type { DeviceRequest, JobSpec } from './spec.ts'

/** Of each of `nodes` nodes. Jobs that need the same share one object: the scheduler looks for a place only once. */
export interface Demand {
  nodes: number
  cpus: number
  /** Bytes; 0: not limited, and counted as nothing. */
  memory: number
  /** Any one of them will do, the first that can be had; empty: no accelerator. */
  devices: readonly DeviceRequest[]
  /** The engine that it has to run on; null: any. */
  engine: string | null
}

export interface EngineNode extends Node {
  engine: string
}

export function demandOf({ nodes, resources: { cpus, memory, devices, infra } }: Pick<JobSpec, 'nodes' | 'resources'>): Demand {
  return { nodes, cpus: cpus?.amount ?? 1, memory: memory?.amount ?? 0, devices, engine: infra?.split('/', 1)[0] || null }
}

/** Amounts are sums of decimals: what differs by less is equal. */
export const tiny = 1e-9

export const matches = (device: NodeDevice, { vendor, name, memory }: DeviceRequest): boolean =>
  (vendor === null || device.vendor === vendor) &&
  (name === null || device.name.toLowerCase() === name.toLowerCase()) &&
  (memory === null || device.memory >= memory)

/** One of the demand's nodes on this machine if nothing else ran there; `devices: null` without an accelerator. */
export const couldHold = (node: Node, { cpus, memory }: Demand, devices: DeviceRequest | null): boolean =>
  cpus <= node.cpus + tiny && memory <= node.memory + tiny && (devices === null || hasDevices(node, devices))

export const hasDevices = (node: Node, request: DeviceRequest): boolean => {
  let found = 0
  for (const device of node.devices) if (matches(device, request)) found++
  return found >= Math.ceil(request.count - tiny)
}

export const alternatives = ({ devices }: Demand): readonly (DeviceRequest | null)[] => (devices.length === 0 ? [null] : devices)

/** Whether a job could ever run on these machines, all of them empty: asked of many jobs. */
export function createPossible(nodes: readonly EngineNode[]): (demand: Demand) => boolean {
  const engines = [...Map.groupBy(nodes, ({ engine }) => engine)]
  const holds = (own: readonly EngineNode[], demand: Demand, devices: DeviceRequest | null) => {
    let found = 0
    for (const node of own) {
      if (node.apart !== true && demand.nodes > 1) found += roomIn(node, demand, devices)
      else if (couldHold(node, demand, devices)) found++
      if (found >= demand.nodes) return true
    }
    return false
  }
  return demand =>
    engines.some(
      ([engine, own]) =>
        (demand.engine === null || demand.engine === engine) && alternatives(demand).some(devices => holds(own, demand, devices)),
    )
}

/** How many of the demand's nodes an empty machine holds at once, where they may share it. */
function roomIn(node: Node, { nodes, cpus, memory }: Demand, devices: DeviceRequest | null): number {
  let room = Math.min(nodes, Math.floor((node.cpus + tiny) / cpus))
  if (memory > 0) room = Math.min(room, Math.floor((node.memory + tiny) / memory))
  if (devices !== null) {
    const matching = node.devices.filter(device => matches(device, devices)).length
    room = Math.min(
      room,
      devices.count < 1 ? matching * Math.floor((1 + tiny) / devices.count) : Math.floor(matching / Math.ceil(devices.count - tiny)),
    )
  }
  return room
}
