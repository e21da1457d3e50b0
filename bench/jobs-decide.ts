/**
 * How long the scheduler takes to decide over 10,000 queued jobs and 1,000 machines, in the states that it meets: empty machines, full ones, jobs
 * that all need something else, large jobs that machines are kept for, many projects. Milliseconds on one core.
 */
import { pathToFileURL } from 'node:url'
import { decide, type Leased, type Queued } from '../src/jobs/decide.ts'
import { type Demand, demandOf, type EngineNode } from '../src/jobs/demand.ts'
import { plainSpec } from '../src/jobs/spec.ts'

export interface DecideFigure {
  state: string
  queued: number
  nodes: number
  started: number
  /** Of the rounds: processor time in the median, and by the clock, which other work on the machine lengthens. */
  processor: number
  milliseconds: { median: number; slowest: number }
}

export function benchDecide({ queued = 10_000, nodes = 1_000, rounds = 9 } = {}): DecideFigure[] {
  return Object.entries(states(queued, nodes)).map(([state, cluster]) => {
    const times: number[] = []
    const processor: number[] = []
    let started = 0
    for (let round = 0; round <= rounds; round++) {
      const before = performance.now()
      const used = process.cpuUsage()
      started = decide(cluster).start.length
      const { user, system } = process.cpuUsage(used)
      if (round === 0) continue // it is compiled meanwhile
      times.push(performance.now() - before)
      processor.push((user + system) / 1000)
    }
    times.sort((a, b) => a - b)
    processor.sort((a, b) => a - b)
    return {
      state,
      queued,
      nodes,
      started,
      processor: processor[processor.length >> 1]!,
      milliseconds: { median: times[times.length >> 1]!, slowest: times.at(-1)! },
    }
  })
}

const now = 1_764_000_000_000

function states(count: number, nodeCount: number) {
  const random = generator(7)
  const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!
  const nodes: EngineNode[] = Array.from({ length: nodeCount }, (_, i) => ({
    ...{ name: `node-${String(i).padStart(4, '0')}`, engine: 'fake', cpus: 64, memory: 256e9, usable: true, apart: true },
    // a quarter of them with eight accelerators
    devices: i % 4 > 0 ? [] : Array.from({ length: 8 }, (_, k) => ({ ...h100, id: `GPU-${i}-${k}` })),
  }))
  const shapes = new Map<string, Demand>()
  const demand = (resources: Partial<ReturnType<typeof plainSpec>['resources']>, gang = 1): Demand => {
    const made = demandOf(plainSpec('job', { argv: ['true'] }, { nodes: gang, resources: { ...plain, ...resources } }))
    const key = JSON.stringify(made)
    const known = shapes.get(key) ?? made
    shapes.set(key, known)
    return known
  }
  const usual = () =>
    demand({
      cpus: { amount: pick([1, 2, 4, 8, 16]), exact: true },
      memory: { amount: pick([4, 8, 16, 32, 64]) * 1e9, exact: true },
      devices: random() < 0.3 ? [{ vendor: null, name: 'H100', count: pick([0.5, 1, 2, 4, 8]), memory: null }] : [],
    })
  const queue = (demandOfJob: () => Demand, projects = 5): Queued[] =>
    Array.from({ length: count }, (_, i) => ({
      ...{ job: i + 1, project: `project-${i % projects}`, priority: pick([0, 0, 0, 100, 500]), since: now - (count - i) * 1000 },
      ...{ limit: pick([null, 600, 3600]), demand: demandOfJob(), group: null, parallel: null },
    }))
  const full: Leased[] = nodes.map((node, i) => ({
    ...{ job: 100_000 + i, project: `project-${i % 5}`, engine: 'fake', priority: 0, since: now - 1e6, group: null, stopping: false },
    ...{ preemptible: i % 3 === 0, until: i % 2 === 0 ? now + 1e6 + i * 1000 : null },
    allocation: {
      nodes: [
        { node: node.name, cpus: 63, memory: 200e9, devices: node.devices.map(({ id, vendor, name }) => ({ id, vendor, name, share: 1 })) },
      ],
    },
  }))
  let serial = 0
  const different = () => {
    serial++
    return demand({
      cpus: { amount: 2 + (serial % 997) / 50, exact: true },
      memory: { amount: 1e9 * (1 + (serial % 991) / 10), exact: true },
    })
  }
  const gangs = () => demand({ cpus: { amount: pick([32, 48, 64]), exact: true } }, pick([2, 16, 64, 256]))
  return {
    'empty machines': { now, nodes, leased: [], queued: queue(usual) },
    'full machines': { now, nodes, leased: full, queued: queue(usual) },
    'full machines, each job needs something else': { now, nodes, leased: full, queued: queue(different) },
    'empty machines, each job needs something else': { now, nodes, leased: [], queued: queue(different) },
    'gangs of up to 256 nodes': { now, nodes, leased: [], queued: queue(gangs) },
    '500 projects': { now, nodes, leased: full.slice(0, nodeCount / 2), queued: queue(usual, 500) },
  }
}

const h100 = { vendor: 'nvidia', name: 'H100', memory: 80e9, free: true, why: null }
const plain = plainSpec('', { argv: [''] }).resources

/** The same numbers each time (mulberry32). */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href)
  for (const { state, queued, nodes, started, processor, milliseconds } of benchDecide())
    console.log(
      `${state}: ${processor.toFixed(1)} ms of a processor, ${milliseconds.median.toFixed(1)} by the clock (slowest ${milliseconds.slowest.toFixed(1)}), for ${queued} jobs on ${nodes} machines, ${started} start`,
    )
