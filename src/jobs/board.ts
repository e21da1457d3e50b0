/**
 * Machines while the scheduler decides: what is free on each, what is kept for a job that came earlier, and who holds what until when.
 * Within one decision there is only ever less: whatever does not fit once does not fit later, so that nobody looks twice.
 */
import type { Allocation } from './attempt.ts'
import type { NodeDevice } from './backend.ts'
import { alternatives, couldHold, type Demand, type EngineNode, matches, tiny } from './demand.ts'
import type { DeviceRequest } from './spec.ts'

/** Who holds part of a machine. `until`: when it will have ended at the latest, milliseconds since 1970; null: nobody knows. */
export interface Holder {
  job: number
  until: number | null
}

export interface Slot {
  device: NodeDevice
  /** The share that is leased. */
  used: number
  kept: boolean
}
interface Holding {
  holder: Holder
  cpus: number
  memory: number
  devices: { slot: Slot; share: number }[]
}
export interface Place {
  node: EngineNode
  cpus: number
  memory: number
  slots: Slot[]
  /** Devices that nobody holds any part of: no more than these are looked through for whole ones. */
  open: number
  holdings: Holding[]
  /** For whom part of it is kept, from when on it is needed (-Infinity: it could be at any moment), and what is left for those who stay longer. */
  kept: { job: number; from: number; cpus: number; memory: number } | null
}

export interface Engine {
  name: string
  places: Place[]
  /** Those with accelerators. */
  equipped: Place[]
  /** Places before this one have too little for any job. */
  first: number
  /** No place has more cores or memory than this free; found out when nothing fits. */
  most: { cpus: number; memory: number }
}
export interface Board {
  engines: Engine[]
  now: number
  /** Cores that every job needs at least. */
  least: number
}

export interface Lease extends Holder {
  engine: string
  allocation: Allocation
}

export function createBoard(nodes: readonly EngineNode[], leases: readonly Lease[], now: number, least = 0): Board {
  const all = new Map<string, Place>()
  for (const node of nodes) {
    const slots = node.devices.map(device => ({ device, used: 0, kept: false }))
    const { cpus, memory } = node
    all.set(keyOf(node.engine, node.name), { node, cpus, memory, slots, open: 0, holdings: [], kept: null })
  }
  for (const lease of leases)
    for (const part of lease.allocation.nodes) {
      const place = all.get(keyOf(lease.engine, part.node))
      if (place) hold(place, lease, part)
    }
  const places = [...all.values()].filter(({ node }) => node.usable)
  for (const place of places) place.open = place.slots.filter(({ device, used }) => device.free && used === 0).length
  // the fullest first, so that large jobs find whole machines; those with accelerators last, so that they are there for who needs them
  places.sort((a, b) => a.open - b.open || a.cpus - b.cpus || (a.node.name < b.node.name ? -1 : 1))
  const engines = [...Map.groupBy(places, ({ node }) => node.engine)].sort(([a], [b]) => (a < b ? -1 : 1))
  const unknown = { cpus: Number.POSITIVE_INFINITY, memory: Number.POSITIVE_INFINITY }
  return {
    engines: engines.map(([name, own]) => ({
      ...{ name, places: own, equipped: own.filter(({ slots }) => slots.length > 0) },
      ...{ first: 0, most: { ...unknown } },
    })),
    now,
    least,
  }
}
const keyOf = (engine: string, node: string) => `${engine}/${node}`

type Part = Allocation['nodes'][number]
function hold(place: Place, { job, until }: Holder, part: Part): void {
  const devices = part.devices.flatMap(({ id, share }) => {
    const slot = place.slots.find(({ device }) => device.id === id)
    return slot ? [{ slot, share }] : []
  })
  for (const { slot, share } of devices) {
    if (slot.used === 0 && slot.device.free) place.open--
    slot.used += share
  }
  place.cpus -= part.cpus
  place.memory -= part.memory
  place.holdings.push({ holder: { job, until }, cpus: part.cpus, memory: part.memory, devices })
}

/** Whether it fits where nothing is kept for anybody: what does not will not in this decision. */
const fitsFree = (place: Place, { cpus, memory }: Demand) => cpus <= place.cpus + tiny && memory <= place.memory + tiny

/** Whether one that ends at `ends` is there when the machine is needed by whom it is kept for. */
const staysInTheWay = ({ kept }: Place, ends: number) => kept !== null && ends > kept.from

/** Slots for one of the demand's nodes; null where it does not fit. */
function fit(place: Place, demand: Demand, request: DeviceRequest | null, ends: number): Slot[] | null {
  if (!fitsFree(place, demand)) return null
  const inTheWay = staysInTheWay(place, ends)
  if (inTheWay && (demand.cpus > place.kept!.cpus + tiny || demand.memory > place.kept!.memory + tiny)) return null
  return request === null ? noSlots : slotsFor(place, request, inTheWay)
}
const noSlots: Slot[] = []

function slotsFor(place: Place, request: DeviceRequest, inTheWay: boolean): Slot[] | null {
  if (request.count >= 1 && request.count > place.open + tiny) return null
  const usable = place.slots.filter(({ device, kept }) => device.free && !(kept && inTheWay) && matches(device, request))
  if (request.count < 1) {
    // beside others on a device that is shared already, before another one is opened
    let best: Slot | null = null
    for (const slot of usable) if (slot.used + request.count <= 1 + tiny && (best === null || slot.used > best.used)) best = slot
    return best && [best]
  }
  const whole = usable.filter(({ used }) => used === 0)
  const count = Math.ceil(request.count - tiny)
  return whole.length < count ? null : whole.slice(0, count)
}

function take(place: Place, holder: Holder, demand: Demand, slots: readonly Slot[], request: DeviceRequest | null, ends: number): Part {
  const share = request !== null && request.count < 1 ? request.count : 1
  const part: Part = {
    node: place.node.name,
    cpus: demand.cpus,
    memory: demand.memory,
    devices: slots.map(({ device: { id, vendor, name } }) => ({ id, vendor, name, share })),
  }
  if (staysInTheWay(place, ends)) {
    place.kept!.cpus -= demand.cpus
    place.kept!.memory -= demand.memory
  }
  hold(place, holder, part)
  return part
}

/** Everything as it was before the last `take` of this place. */
function giveBack(place: Place, ends: number): void {
  const { cpus, memory, devices } = place.holdings.pop()!
  place.cpus += cpus
  place.memory += memory
  if (staysInTheWay(place, ends)) {
    place.kept!.cpus += cpus
    place.kept!.memory += memory
  }
  for (const { slot, share } of devices) {
    slot.used -= share
    if (slot.used < tiny) slot.used = 0
    if (slot.used === 0 && slot.device.free) place.open++
  }
}

export interface Placed {
  engine: string
  allocation: Allocation
}

/** Where the first places of an engine are full, the next one that needs the same begins behind them. */
export type Cursors = Map<Demand, Map<string, number>>

/** All of its nodes or none, on one engine. `ends`: milliseconds since 1970; Infinity where it has no limit. */
export function place(board: Board, job: number, demand: Demand, ends: number, cursors: Cursors): Placed | null {
  for (const request of alternatives(demand))
    for (const engine of board.engines) {
      if (demand.engine !== null && demand.engine !== engine.name) continue
      const nodes = placeOn(board, engine, job, demand, request, ends, cursors)
      if (nodes) return { engine: engine.name, allocation: { nodes } }
    }
  return null
}

function placeOn(
  board: Board,
  engine: Engine,
  job: number,
  demand: Demand,
  request: DeviceRequest | null,
  ends: number,
  cursors: Cursors,
): Part[] | null {
  const { most } = engine
  if (demand.cpus > most.cpus + tiny || demand.memory > most.memory + tiny) return null
  const candidates = request === null ? engine.places : engine.equipped
  while (engine.first < engine.places.length && engine.places[engine.first]!.cpus + tiny < board.least) engine.first++
  const cursor = request === null ? Math.max(engine.first, cursors.get(demand)?.get(engine.name) ?? 0) : 0
  let first = cursor
  let [cpus, memory] = [0, 0]
  const taken: Place[] = []
  const parts: Part[] = []
  for (let i = first; i < candidates.length && parts.length < demand.nodes; i++) {
    const candidate = candidates[i]!
    if (candidate.cpus > cpus) cpus = candidate.cpus
    if (candidate.memory > memory) memory = candidate.memory
    if (demand.cpus > candidate.cpus + tiny || demand.memory > candidate.memory + tiny) {
      if (first === i) first++
      continue
    }
    do {
      const slots = fit(candidate, demand, request, ends)
      if (slots === null) break
      parts.push(take(candidate, { job, until: Number.isFinite(ends) ? ends : null }, demand, slots, request, ends))
      taken.push(candidate)
    } while (parts.length < demand.nodes && candidate.node.apart !== true)
  }
  if (request === null && first > cursor) {
    const own = cursors.get(demand) ?? new Map<string, number>()
    cursors.set(demand, own.set(engine.name, first))
  }
  if (parts.length === demand.nodes) return parts
  // seen before anything was taken, and nothing was: nobody asks for more than there is again
  if (request === null && cursor === engine.first && taken.length === 0) Object.assign(most, { cpus, memory })
  for (const each of taken.toReversed()) giveBack(each, ends)
  return null
}

// ── what is kept for whom ───────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Keeps machines for a job that does not fit now, those that are ready first. `stopping`: holders that are asked to end already, and do not
 * count. Answers whether there were any that nothing is kept on yet.
 */
export function keep(board: Board, job: number, demand: Demand, stopping: ReadonlySet<number>): boolean {
  for (const request of alternatives(demand))
    for (const engine of board.engines) {
      if (demand.engine !== null && demand.engine !== engine.name) continue
      const ready: Ready[] = []
      for (const candidate of engine.places) {
        if (candidate.kept !== null) continue
        const shared = candidate.node.apart !== true
        const whole = shared && demand.nodes > 1 ? times(demand, demand.nodes) : demand
        const wanted = shared && request !== null && demand.nodes > 1 ? { ...request, count: request.count * demand.nodes } : request
        const found = couldHold(candidate.node, whole, wanted) ? readyAt(board, candidate, whole, wanted, stopping) : null
        if (found) ready.push({ ...found, nodes: shared ? demand.nodes : 1 })
      }
      ready.sort((a, b) => a.unknown - b.unknown || a.at - b.at) // stable: the order of the places decides between equals
      const chosen: Ready[] = []
      let nodes = 0
      for (const each of ready) {
        if (nodes >= demand.nodes) break
        chosen.push(each)
        nodes += each.nodes
      }
      if (nodes < demand.nodes) continue
      const from = chosen.some(({ unknown }) => unknown > 0) ? Number.NEGATIVE_INFINITY : Math.max(...chosen.map(({ at }) => at))
      for (const each of chosen) {
        each.place.kept = { job, from, cpus: each.cpus - each.demand.cpus, memory: each.memory - each.demand.memory }
        for (const slot of each.slots) slot.kept = true
      }
      return true
    }
  return false
}

const times = (demand: Demand, nodes: number): Demand => ({ ...demand, cpus: demand.cpus * nodes, memory: demand.memory * nodes })

interface Ready {
  place: Place
  demand: Demand
  /** When it fits at the latest; how many it waits for of whom nobody knows when they end. */
  at: number
  unknown: number
  /** What is free then. */
  cpus: number
  memory: number
  slots: Slot[]
  nodes: number
}

/** Holders go, those whose end is known first, until it fits. */
function readyAt(
  { now }: Board,
  from: Place,
  demand: Demand,
  request: DeviceRequest | null,
  stopping: ReadonlySet<number>,
): Omit<Ready, 'nodes'> | null {
  let { cpus, memory } = from
  let [at, unknown] = [now, 0]
  const freed = new Map<Slot, number>()
  const slots = (): Slot[] | null => {
    if (demand.cpus > cpus + tiny || demand.memory > memory + tiny) return null
    return request === null ? [] : slotsOnceFreed(from, request, freed)
  }
  let found = slots()
  const known = ({ holder: { job, until } }: Holding) => (stopping.has(job) ? now : until !== null && until > now ? until : null)
  const order = from.holdings.toSorted(
    (a, b) => (known(a) ?? Number.MAX_VALUE) - (known(b) ?? Number.MAX_VALUE) || a.holder.job - b.holder.job,
  )
  for (const holding of order) {
    if (found) break
    const end = known(holding)
    if (end === null) unknown++
    else if (end > at) at = end
    cpus += holding.cpus
    memory += holding.memory
    for (const { slot, share } of holding.devices) freed.set(slot, (freed.get(slot) ?? 0) + share)
    found = slots()
  }
  // no holder of ours is in the way: a device that others hold, which may come back at any moment
  if (!found && request !== null) {
    found = slotsOnceFreed(from, request, freed, true)
    unknown++
  }
  return found && { place: from, demand, at, unknown, cpus, memory, slots: found }
}

function slotsOnceFreed(place: Place, request: DeviceRequest, freed: ReadonlyMap<Slot, number>, held = false): Slot[] | null {
  const left = (slot: Slot) => Math.max(0, slot.used - (freed.get(slot) ?? 0))
  const usable = place.slots.filter(({ device }) => (device.free || held) && matches(device, request))
  if (request.count < 1) {
    const slot = usable.find(each => left(each) + request.count <= 1 + tiny)
    return slot ? [slot] : null
  }
  const whole = usable.filter(each => left(each) < tiny)
  const count = Math.ceil(request.count - tiny)
  return whole.length < count ? null : whole.slice(0, count)
}

// ── whom to stop ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * The fewest of `victims` (by job, with how little they matter: lower goes first) whose end makes room, all nodes at once; null where even all
 * of them would not. `stopping` goes by itself.
 */
export function whomToStop(
  board: Board,
  demand: Demand,
  victims: ReadonlyMap<number, number>,
  stopping: ReadonlySet<number>,
): number[] | null {
  for (const request of alternatives(demand))
    for (const engine of board.engines) {
      if (demand.engine !== null && demand.engine !== engine.name) continue
      const options: { stop: number[]; nodes: number }[] = []
      for (const candidate of engine.places) {
        if (candidate.kept !== null) continue
        const shared = candidate.node.apart !== true && demand.nodes > 1
        const whole = shared ? times(demand, demand.nodes) : demand
        const wanted = shared && request !== null ? { ...request, count: request.count * demand.nodes } : request
        if (!couldHold(candidate.node, whole, wanted)) continue
        const stop = enough(candidate, whole, wanted, victims, stopping)
        if (stop) options.push({ stop, nodes: shared ? demand.nodes : 1 })
      }
      const worst = ({ stop }: { stop: number[] }) => Math.max(Number.NEGATIVE_INFINITY, ...stop.map(job => victims.get(job)!))
      options.sort((a, b) => worst(a) - worst(b) || a.stop.length - b.stop.length)
      const chosen = new Set<number>()
      let nodes = 0
      for (const option of options) {
        if (nodes >= demand.nodes) break
        for (const job of option.stop) chosen.add(job)
        nodes += option.nodes
      }
      if (nodes >= demand.nodes) return [...chosen]
    }
  return null
}

function enough(
  from: Place,
  demand: Demand,
  request: DeviceRequest | null,
  victims: ReadonlyMap<number, number>,
  stopping: ReadonlySet<number>,
): number[] | null {
  const fitsWithout = (gone: ReadonlySet<number>) => {
    let { cpus, memory } = from
    const freed = new Map<Slot, number>()
    for (const holding of from.holdings) {
      if (!gone.has(holding.holder.job)) continue
      cpus += holding.cpus
      memory += holding.memory
      for (const { slot, share } of holding.devices) freed.set(slot, (freed.get(slot) ?? 0) + share)
    }
    return (
      demand.cpus <= cpus + tiny && demand.memory <= memory + tiny && (request === null || slotsOnceFreed(from, request, freed) !== null)
    )
  }
  const gone = new Set(from.holdings.map(({ holder }) => holder.job).filter(job => stopping.has(job)))
  const order = [...new Set(from.holdings.map(({ holder }) => holder.job))]
    .filter(job => victims.has(job) && !stopping.has(job))
    .sort((a, b) => victims.get(a)! - victims.get(b)! || b - a) // of equals the youngest has least to lose
  const stopped: number[] = []
  while (!fitsWithout(gone)) {
    const next = order.shift()
    if (next === undefined) return null
    gone.add(next)
    stopped.push(next)
  }
  // those that turned out not to matter stay, the most important first
  return stopped.toReversed().filter(job => {
    gone.delete(job)
    if (fitsWithout(gone)) return false
    gone.add(job)
    return true
  })
}
