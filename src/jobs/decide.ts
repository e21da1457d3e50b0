/**
 * What starts now, what is stopped for what matters more, and what waits: decided from plain data, so that the same state gives the same
 * answer and a week can be simulated. The loop acts on it.
 *
 * In order of the line (share.ts) each job that fits starts. For the first ones that do not, machines are kept: what would still be there when
 * such a job can start, because it has no time limit or too late a one, may not use what is kept (conservative backfilling). So nobody is passed
 * over for ever, and nothing stands idle that nobody is waiting for.
 */
import { type Board, type Cursors, createBoard, keep, type Lease, type Placed, place, whomToStop } from './board.ts'
import { createPossible, type Demand, type EngineNode } from './demand.ts'
import { createShares, inOrder } from './share.ts'

export interface Queued {
  job: number
  project: string
  priority: number
  /** Milliseconds since 1970 that it waits from. */
  since: number
  /** The most seconds that it can take once it has started; null: no limit. */
  limit: number | null
  demand: Demand
  /** Of these jobs `parallel` run at once; null where there is no such limit. */
  group: string | null
  parallel: number | null
}

/** An attempt that has not ended. */
export interface Leased extends Lease {
  project: string
  priority: number
  /** Since when its job waited before it ran. */
  since: number
  preemptible: boolean
  /** It has been asked to end. */
  stopping: boolean
  group: string | null
}

export interface Cluster {
  /** Milliseconds since 1970. */
  now: number
  nodes: readonly EngineNode[]
  leased: readonly Leased[]
  /** Those that could start: their time has come, and what they depend on has happened. */
  queued: readonly Queued[]
  /** `promised` of the decision before: whose turn it was then still has it. */
  promised?: readonly number[]
}

export interface Decision {
  start: ({ job: number } & Placed)[]
  /** Running jobs that end for another one. */
  preempt: { job: number; for: number }[]
  /** What no machine here could hold if it were empty. */
  impossible: number[]
  /** Those at the head of the line that could not start. */
  promised: number[]
  /** The others, and what is in the way of each. */
  waits: Map<number, Wait>
  /** How it looks once everything has started: for saying in words why a job waits. */
  board: Board
}
export type Wait =
  | { for: 'room'; demand: Demand }
  | { for: 'its group'; running: number }
  | { for: 'preempted'; jobs: number[]; demand: Demand }

/** Milliseconds after which a job that waits goes before all that came later, whatever their priority, and is preempted no more: a day. */
export const patience = 86_400_000
/** So many jobs have machines kept for them, and so many look at whom they could stop: each looks at every machine. */
const most = { kept: 8, tries: 16, promised: 64 }

export function decide({ now, nodes, leased, queued, promised = [] }: Cluster): Decision {
  const decision: Decision = {
    start: [],
    preempt: [],
    impossible: [],
    promised: [],
    waits: new Map(),
    board: createBoard(
      nodes,
      leased,
      now,
      queued.reduce((least, { demand }) => Math.min(least, demand.cpus), Number.POSITIVE_INFINITY),
    ),
  }
  const { board, waits } = decision
  const shares = createShares(nodes)
  const inGroup = new Map<string, number>()
  for (const { project, allocation, group } of leased) {
    shares.add(project, allocation)
    if (group !== null) inGroup.set(group, (inGroup.get(group) ?? 0) + 1)
  }
  const stopping = new Set(leased.filter(each => each.stopping).map(({ job }) => job))
  const isPossible = createPossible(nodes)
  const possible = new Map<Demand, boolean>()
  const failed = createFailed()
  const cursors: Cursors = new Map()
  const left = { ...most }
  for (const job of inOrder(queued, { shares, promised, now, patience })) {
    const { demand, group, parallel } = job
    if (group !== null && parallel !== null && (inGroup.get(group) ?? 0) >= parallel) {
      waits.set(job.job, { for: 'its group', running: inGroup.get(group)! })
      continue
    }
    const ends = job.limit === null ? Number.POSITIVE_INFINITY : now + job.limit * 1000
    const placed = failed.has(demand, ends) ? null : place(board, job.job, demand, ends, cursors)
    if (placed) {
      decision.start.push({ job: job.job, ...placed })
      shares.add(job.project, placed.allocation)
      if (group !== null) inGroup.set(group, (inGroup.get(group) ?? 0) + 1)
      continue
    }
    failed.add(demand, ends)
    if (!possible.has(demand)) possible.set(demand, isPossible(demand))
    if (!possible.get(demand)) {
      decision.impossible.push(job.job)
      continue
    }
    if (decision.promised.length < most.promised) decision.promised.push(job.job)
    const victims = left.kept > 0 && left.tries > 0 ? victimsOf(job, leased, now) : null
    const stop = victims && victims.size > 0 && left.tries-- > 0 ? whomToStop(board, demand, victims, stopping) : null
    for (const victim of stop ?? []) {
      decision.preempt.push({ job: victim, for: job.job })
      stopping.add(victim)
    }
    if (left.kept > 0 && keep(board, job.job, demand, stopping)) left.kept--
    waits.set(job.job, stop && stop.length > 0 ? { for: 'preempted', jobs: stop, demand } : { for: 'room', demand })
  }
  return decision
}

/** Those of lower priority that may be stopped, by how little they matter. Whoever waited long enough to go first is not sent back again. */
function victimsOf({ priority }: Queued, leased: readonly Leased[], now: number): Map<number, number> {
  const victims = new Map<number, number>()
  for (const each of leased)
    if (each.preemptible && !each.stopping && each.priority < priority && now - each.since < patience) victims.set(each.job, each.priority)
  return victims
}

/** What did not fit in this decision will not fit later in it, nor will what needs no less and stays no shorter. */
function createFailed() {
  const exact = new Map<Demand, number>()
  let small: { cpus: number; memory: number; ends: number }[] = []
  /** Told by cores and memory alone, on any engine. */
  const isPlain = ({ nodes, devices, engine }: Demand) => nodes === 1 && devices.length === 0 && engine === null
  return {
    has(demand: Demand, ends: number): boolean {
      const at = exact.get(demand)
      if (at !== undefined && ends >= at) return true
      return small.some(each => demand.cpus >= each.cpus && demand.memory >= each.memory && ends >= each.ends)
    },
    add(demand: Demand, ends: number) {
      exact.set(demand, Math.min(ends, exact.get(demand) ?? ends))
      if (!isPlain(demand)) return
      const { cpus, memory } = demand
      if (small.some(each => cpus >= each.cpus && memory >= each.memory && ends >= each.ends)) return
      small = small.filter(each => !(each.cpus >= cpus && each.memory >= memory && each.ends >= ends))
      small.push({ cpus, memory, ends })
    },
  }
}
