/** The scheduler, on plain data: what holds for any state, and a week of simulated time. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Decision, decide, type Leased, patience, type Queued } from '../../src/jobs/decide.ts'
import { type Demand, type EngineNode, matches } from '../../src/jobs/demand.ts'
import type { DeviceRequest } from '../../src/jobs/spec.ts'
import { missingText, waitText } from '../../src/jobs/waits.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const now = 1_764_000_000_000
const hour = 3_600_000

const device = (node: string, index: number, { name = 'H100', vendor = 'nvidia', free = true } = {}) => ({
  ...{ id: `${node}-${index}`, vendor, name, memory: 80e9, free, why: free ? null : 'process 7 of someone else computes on it' },
})
const machine = (name: string, { cpus = 8, memory = 64e9, devices = 0, apart = true, usable = true } = {}): EngineNode => ({
  ...{ name, engine: 'fake', cpus, memory, usable, apart },
  devices: Array.from({ length: devices }, (_, i) => device(name, i)),
})
const need = (given: Partial<Demand> = {}): Demand => ({ nodes: 1, cpus: 1, memory: 0, devices: [], engine: null, ...given })
const h100 = (count: number): DeviceRequest => ({ vendor: null, name: 'H100', count, memory: null })
const waiting = (job: number, demand: Demand, given: Partial<Queued> = {}): Queued => ({
  ...{ job, project: 'a', priority: 0, since: now - 1000 + job, limit: null, demand, group: null, parallel: null },
  ...given,
})
const holding = (job: number, node: string, cpus: number, given: Partial<Leased> & { devices?: string[]; share?: number } = {}): Leased => {
  const { devices = [], share = 1, ...rest } = given
  return {
    ...{ job, project: 'a', engine: 'fake', priority: 0, since: now - hour, preemptible: false, stopping: false, group: null, until: null },
    allocation: { nodes: [{ node, cpus, memory: 0, devices: devices.map(id => ({ id, vendor: 'nvidia', name: 'H100', share })) }] },
    ...rest,
  }
}
const started = ({ start }: Decision) => start.map(({ job }) => job)
const why = (decision: Decision, job: number) => waitText(decision.waits.get(job)!, decision)

// ── what holds for any state ────────────────────────────────────────────────────────────────────────────────────────────────

const amount = fc.constantFrom(0.5, 1, 2, 3, 4, 8, 16)
const anyRequest = fc.record({
  vendor: fc.constantFrom(null, 'nvidia' as const, 'amd' as const),
  name: fc.constantFrom(null, 'H100', 'A100'),
  count: fc.constantFrom(0.25, 0.5, 1, 2, 4),
  memory: fc.constantFrom(null, 40e9, 100e9),
})
const anyNodes = fc.array(
  fc.record({
    cpus: fc.constantFrom(2, 4, 8, 16),
    memory: fc.constantFrom(8e9, 32e9),
    apart: fc.boolean(),
    usable: fc.constantFrom(true, true, true, false),
    devices: fc.array(fc.record({ name: fc.constantFrom('H100', 'A100'), free: fc.constantFrom(true, true, false) }), { maxLength: 4 }),
  }),
  { minLength: 1, maxLength: 8 },
)
const anyDemand = fc.record({
  nodes: fc.constantFrom(1, 1, 1, 2, 3),
  cpus: amount,
  memory: fc.constantFrom(0, 4e9, 16e9),
  devices: fc.array(anyRequest, { maxLength: 2 }),
  engine: fc.constantFrom(null, null, 'fake', 'other'),
})
const anyJobs = fc.array(
  fc.record({
    project: fc.constantFrom('a', 'b', 'c'),
    priority: fc.constantFrom(-10, 0, 0, 10),
    age: fc.integer({ min: 0, max: 2 * patience }),
    limit: fc.constantFrom(null, 60, 3600),
    demand: fc.nat({ max: 9 }),
    preemptible: fc.boolean(),
    stopping: fc.constantFrom(false, false, true),
    until: fc.constantFrom(null, -5000, 60_000, 3_600_000),
    group: fc.constantFrom(null, null, 'g'),
    parallel: fc.constantFrom(null, 1, 2),
  }),
  { maxLength: 30 },
)
const anyState = fc
  .tuple(anyNodes, fc.array(anyDemand, { minLength: 10, maxLength: 10 }), anyJobs, fc.nat({ max: 15 }))
  .map(([machines, demands, jobs, running]) => {
    const nodes = machines.map(({ devices, ...rest }, i): EngineNode => {
      const name = `n${i}`
      return { ...rest, name, engine: i % 3 === 2 ? 'other' : 'fake', devices: devices.map((each, k) => device(name, k, each)) }
    })
    const queued = jobs.map(({ demand, age, until: _, stopping: __, preemptible: ___, ...rest }, i) =>
      waiting(i + 1, demands[demand]!, { ...rest, since: now - age }),
    )
    // what runs was placed by the scheduler itself, so that it is a state that there can be
    const first = decide({ now, nodes, leased: [], queued: queued.slice(0, running) })
    const leased = first.start.map(({ job, engine, allocation }): Leased => {
      const { preemptible, stopping, until, priority, project, group } = jobs[job - 1]!
      return {
        ...{ job, project, priority, engine, allocation, preemptible, stopping, group, since: now - hour },
        until: until === null ? null : now + until,
      }
    })
    const busy = new Set(leased.map(({ job }) => job))
    return { now, nodes, leased, queued: queued.filter(({ job }) => !busy.has(job)) }
  })
const runs = { numRuns: long ? 20_000 : 400 }

test('nothing is given away twice, and each job gets what it asked for, all of it', () => {
  fc.assert(
    fc.property(anyState, state => {
      const { start } = decide(state)
      const nodeOf = new Map(state.nodes.map(node => [`${node.engine}/${node.name}`, node]))
      const free = new Map([...nodeOf].map(([key, { cpus, memory }]) => [key, { cpus, memory, used: new Map<string, number>() }]))
      for (const { engine, allocation } of [...state.leased, ...start])
        for (const { node, cpus, memory, devices } of allocation.nodes) {
          const left = free.get(`${engine}/${node}`)!
          left.cpus -= cpus
          left.memory -= memory
          for (const { id, share } of devices) left.used.set(id, (left.used.get(id) ?? 0) + share)
        }
      for (const { cpus, memory, used } of free.values())
        assert.ok(cpus > -1e-6 && memory > -1e-6 && [...used.values()].every(share => share < 1 + 1e-6))
      for (const { job, engine, allocation } of start) {
        const { demand } = state.queued.find(each => each.job === job)!
        assert.equal(allocation.nodes.length, demand.nodes)
        if (demand.engine !== null) assert.equal(engine, demand.engine)
        const names = allocation.nodes.map(({ node }) => node)
        const request = demand.devices.find(each =>
          allocation.nodes.every(({ node, devices }) => {
            const own = nodeOf.get(`${engine}/${node}`)!.devices
            const given = devices.map(({ id, share }) => ({ share, device: own.find(one => one.id === id)! }))
            return (
              given.length === Math.ceil(each.count) &&
              given.every(one => one.device.free && matches(one.device, each) && one.share === Math.min(1, each.count))
            )
          }),
        )
        assert.ok(demand.devices.length === 0 ? allocation.nodes.every(({ devices }) => devices.length === 0) : request)
        for (const { node, cpus, memory } of allocation.nodes) {
          const { usable, apart } = nodeOf.get(`${engine}/${node}`)!
          assert.ok(usable && cpus === demand.cpus && memory === demand.memory)
          if (apart) assert.equal(names.filter(name => name === node).length, 1)
        }
      }
    }),
    runs,
  )
})

test('of a group no more run than it says', () => {
  fc.assert(
    fc.property(anyState, state => {
      const { start } = decide(state)
      const ran = state.leased.filter(({ group }) => group === 'g').length
      // each by its own word: the last one that started saw at most that many before it
      const began = start.map(({ job }) => state.queued.find(each => each.job === job)!).filter(({ group }) => group === 'g')
      for (const [i, { parallel }] of began.entries()) assert.ok(parallel === null || ran + i < parallel)
    }),
    runs,
  )
})

test('the same state gives the same answer, in whatever order it is told', () => {
  fc.assert(
    fc.property(anyState, fc.infiniteStream(fc.nat()), (state, stream) => {
      const shuffled = <T>(list: readonly T[]): T[] => {
        const keyed = list.map(item => ({ item, key: stream.next().value as number }))
        return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item)
      }
      const { board: _, waits, ...one } = decide(state)
      const {
        board: __,
        waits: again,
        ...other
      } = decide({
        ...{ now, nodes: shuffled(state.nodes), leased: shuffled(state.leased), queued: shuffled(state.queued) },
      })
      assert.deepEqual({ ...one, waits: [...waits].sort() }, { ...other, waits: [...again].sort() })
    }),
    runs,
  )
})

test('nothing stands idle that a waiting job could use, unless it is kept for one that came before', () => {
  fc.assert(
    fc.property(anyState, state => {
      const { waits, board } = decide(state)
      const places = board.engines.flatMap(engine => engine.places)
      for (const [job, wait] of waits) {
        if (wait.for !== 'room') continue
        const { demand } = state.queued.find(each => each.job === job)!
        if (demand.nodes > 1) continue
        for (const { node, cpus, memory, slots, kept } of places) {
          if (kept !== null || (demand.engine !== null && node.engine !== demand.engine)) continue
          const devices =
            demand.devices.length === 0 ||
            demand.devices.some(request => {
              const usable = slots.filter(({ device: each }) => each.free && matches(each, request))
              return request.count < 1
                ? usable.some(({ used }) => used + request.count <= 1 + 1e-9)
                : usable.filter(({ used }) => used === 0).length >= request.count
            })
          assert.ok(!(cpus >= demand.cpus && memory >= demand.memory && devices), `job ${job} fits on ${node.name}`)
        }
      }
    }),
    runs,
  )
})

test('whoever is stopped matters less than whom it is stopped for, and may be', () => {
  fc.assert(
    fc.property(anyState, state => {
      const { preempt } = decide(state)
      for (const { job, for: whom } of preempt) {
        const victim = state.leased.find(each => each.job === job)!
        assert.ok(victim.preemptible && !victim.stopping && victim.priority < state.queued.find(each => each.job === whom)!.priority)
      }
      assert.equal(new Set(preempt.map(({ job }) => job)).size, preempt.length)
    }),
    runs,
  )
})

// ── a week ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Simulated extends Queued {
  /** Milliseconds that it takes. */
  takes: number
  preemptible: boolean
}

/** Plays jobs that arrive over time; answers when each started first. */
function simulate(nodes: readonly EngineNode[], arrivals: readonly Simulated[], { until, every }: { until: number; every: number }) {
  const began = new Map<number, number>()
  let queued: Simulated[] = []
  let running: (Leased & { of: Simulated; ends: number })[] = []
  let at = 0
  let promised: readonly number[] = []
  for (let time = now; time <= now + until; time += every) {
    running = running.filter(({ ends }) => ends > time)
    for (; at < arrivals.length && arrivals[at]!.since <= time; at++) queued.push(arrivals[at]!)
    const decision = decide({ now: time, nodes, leased: running, queued, promised })
    const { start, preempt } = decision
    promised = decision.promised
    const going = new Set(start.map(({ job }) => job))
    for (const { job, engine, allocation } of start) {
      const of = queued.find(each => each.job === job)!
      began.set(job, began.get(job) ?? time)
      const { project, priority, since, group, limit, preemptible } = of
      const until = limit === null ? null : time + limit * 1000
      running.push({
        job,
        project,
        priority,
        since,
        group,
        preemptible,
        engine,
        allocation,
        until,
        stopping: false,
        of,
        ends: time + of.takes,
      })
    }
    queued = queued.filter(({ job }) => !going.has(job))
    for (const { job } of preempt) {
      const victim = running.find(each => each.job === job)!
      running = running.filter(each => each !== victim)
      queued.push(victim.of)
    }
  }
  return { began, left: queued.map(({ job }) => job) }
}

const random = (seed: number) => {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return state / 2 ** 32
  }
}

test('over a week no large job starves behind a stream of small ones, whatever limits they have', () => {
  const next = random(11)
  const week = 7 * 24 * hour
  const nodes = Array.from({ length: 8 }, (_, i) => machine(`n${i}`, { devices: i < 2 ? 4 : 0 }))
  const arrivals: Simulated[] = []
  const small = [need({ cpus: 1 }), need({ cpus: 2 }), need({ cpus: 4 }), need({ cpus: 2, devices: [h100(1)] })]
  // small jobs ask for two thirds of all cores: some always run, so that without keeping the large ones would never find all machines free
  for (let time = now; time < now + week; time += 6 * 60_000) {
    const takes = (0.5 + 2.5 * next()) * hour
    const demand = small[Math.floor(next() * small.length)]!
    const limit = next() < 0.5 ? null : Math.ceil(takes / 1000) + 60
    arrivals.push({
      ...waiting(arrivals.length + 1, demand, { since: time, limit, project: next() < 0.5 ? 'a' : 'b' }),
      takes,
      preemptible: false,
    })
  }
  const large = [need({ nodes: 8, cpus: 8 }), need({ nodes: 4, cpus: 6 }), need({ cpus: 8, devices: [h100(4)] })]
  const big = new Map<number, number>()
  for (let i = 0; i < 20; i++) {
    const job = 1_000_000 + i
    const since = now + i * 7 * hour
    big.set(job, since)
    arrivals.push({ ...waiting(job, large[i % 3]!, { since, project: 'a' }), takes: hour, preemptible: false })
  }
  arrivals.sort((a, b) => a.since - b.since)
  const { began, left } = simulate(nodes, arrivals, { until: week + 12 * hour, every: 5 * 60_000 })
  assert.deepEqual(left, [], 'everything that was submitted has started')
  const waits = [...big].map(([job, since]) => (began.get(job)! - since) / hour)
  // the longest small job has to end first; three large ones may come one behind the other
  assert.ok(Math.max(...waits) < 12, `${Math.max(...waits)} hours`)
})

test('under an endless stream of more important jobs, one that matters least starts after a day', () => {
  const next = random(5)
  const nodes = [machine('n0', { cpus: 4 })]
  const arrivals: Simulated[] = []
  for (let time = now; time < now + 3 * patience; time += 10 * 60_000)
    arrivals.push({
      ...waiting(arrivals.length + 1, need({ cpus: 1 }), { since: time, priority: 100 }),
      takes: (0.5 + next()) * hour,
      preemptible: false,
    })
  arrivals.push({ ...waiting(999_999, need({ cpus: 4 }), { since: now + hour, priority: -1000 }), takes: hour, preemptible: true })
  arrivals.sort((a, b) => a.since - b.since)
  const { began } = simulate(nodes, arrivals, { until: 3 * patience, every: 5 * 60_000 })
  const waited = began.get(999_999)! - (now + hour)
  assert.ok(waited >= patience - hour && waited < patience + 3 * hour, `${waited / hour} hours`)
})

// ── one rule at a time ──────────────────────────────────────────────────────────────────────────────────────────────────────

test('the more important goes first, and among equals who came first', () => {
  const queued = [waiting(1, need({ cpus: 4 })), waiting(2, need({ cpus: 4 })), waiting(3, need({ cpus: 4 }), { priority: 5 })]
  assert.deepEqual(started(decide({ now, nodes: [machine('n0')], leased: [], queued })), [3, 1])
})

test('of equal jobs the project goes first that has least', () => {
  const queued = Array.from({ length: 20 }, (_, i) => waiting(i + 1, need({ cpus: 1 }), { project: i < 16 ? 'a' : 'b' }))
  const { start } = decide({ now, nodes: [machine('n0')], leased: [holding(100, 'n0', 2, { project: 'a' })], queued })
  const of = (project: string) => start.filter(({ job }) => queued[job - 1]!.project === project).length
  assert.deepEqual([of('a'), of('b')], [2, 4])
})

test('machines are kept for the first that does not fit: a short job slips in, a long or unlimited one does not', () => {
  const nodes = [machine('n0', { cpus: 4 })]
  const leased = [holding(50, 'n0', 2, { until: now + hour })]
  const first = waiting(1, need({ cpus: 4 }))
  const behind = (limit: number | null) => decide({ now, nodes, leased, queued: [first, waiting(2, need({ cpus: 1 }), { limit })] })
  assert.deepEqual(started(behind(1800)), [2])
  assert.deepEqual(started(behind(7200)), [])
  const unlimited = behind(null)
  assert.deepEqual(started(unlimited), [])
  assert.equal(why(unlimited, 2), 'waits: what is free is kept for job 1, which came before it')
  assert.equal(why(unlimited, 1), 'waits for 4 cores, 2 free')
})

test('where nobody knows when it will be needed, nobody slips in', () => {
  const leased = [holding(50, 'n0', 2)]
  const queued = [waiting(1, need({ cpus: 4 })), waiting(2, need({ cpus: 1 }), { limit: 1 })]
  assert.deepEqual(started(decide({ now, nodes: [machine('n0', { cpus: 4 })], leased, queued })), [])
})

test('what the first in line has no use for goes to others', () => {
  const nodes = [machine('n0', { cpus: 8, devices: 1 })]
  const leased = [holding(50, 'n0', 1, { devices: ['n0-0'] })]
  const queued = [waiting(1, need({ cpus: 4, devices: [h100(1)] })), waiting(2, need({ cpus: 3 })), waiting(3, need({ cpus: 2 }))]
  const decision = decide({ now, nodes, leased, queued })
  assert.deepEqual(started(decision), [2])
  assert.equal(why(decision, 1), 'waits for 1 H100, 0 free')
})

test('a gang starts on all of its nodes or on none', () => {
  const nodes = [machine('n0'), machine('n1'), machine('n2', { cpus: 4 })]
  const gang = waiting(1, need({ nodes: 3, cpus: 4 }))
  assert.equal(decide({ now, nodes, leased: [], queued: [gang] }).start[0]!.allocation.nodes.length, 3)
  const blocked = decide({ now, nodes, leased: [holding(9, 'n2', 1)], queued: [gang] })
  assert.deepEqual(started(blocked), [])
  assert.equal(why(blocked, 1), 'waits for 3 nodes at once with 4 cores each; 2 are free')
})

test('nodes of a job share a machine only where that is a test topology', () => {
  const gang = waiting(1, need({ nodes: 2, cpus: 2 }))
  const { start } = decide({ now, nodes: [machine('here', { apart: false, cpus: 4 })], leased: [], queued: [gang] })
  assert.deepEqual(
    start[0]!.allocation.nodes.map(({ node }) => node),
    ['here', 'here'],
  )
  const alone = decide({ now, nodes: [machine('n0', { cpus: 4 })], leased: [], queued: [gang] })
  assert.deepEqual(alone.impossible, [1])
})

test('the least important are stopped for a more important job, no more of them than it takes', () => {
  const nodes = [machine('n0', { cpus: 8 })]
  const leased = [
    holding(10, 'n0', 2, { preemptible: true, priority: 1 }),
    holding(11, 'n0', 2, { preemptible: true, priority: 0 }),
    holding(12, 'n0', 4, { preemptible: false, priority: 0 }),
  ]
  const decision = decide({ now, nodes, leased, queued: [waiting(1, need({ cpus: 2 }), { priority: 5 })] })
  assert.deepEqual(decision.preempt, [{ job: 11, for: 1 }])
  assert.equal(why(decision, 1), 'waits for job 11, which is stopped for it')
  const stopping = leased.map(each => (each.job === 11 ? { ...each, stopping: true } : each))
  assert.deepEqual(decide({ now, nodes, leased: stopping, queued: [waiting(1, need({ cpus: 2 }), { priority: 5 })] }).preempt, [])
  assert.deepEqual(
    decide({ now, nodes, leased, queued: [waiting(1, need({ cpus: 6 }), { priority: 5 })] }).preempt,
    [],
    'it would not be enough',
  )
})

test('parts of a device go together, whole ones are left whole, and the first alternative that is there is taken', () => {
  const nodes = [machine('n0', { devices: 2 })]
  const half = need({ devices: [h100(0.5)] })
  const { start } = decide({
    now,
    nodes,
    leased: [],
    queued: [waiting(1, half), waiting(2, half), waiting(3, need({ devices: [h100(1)] }))],
  })
  assert.deepEqual(
    start.map(({ allocation }) => allocation.nodes[0]!.devices.map(({ id, share }) => `${id} ${share}`)),
    [['n0-0 0.5'], ['n0-0 0.5'], ['n0-1 1']],
  )
  const b200: DeviceRequest = { vendor: null, name: 'B200', count: 1, memory: null }
  const either = decide({ now, nodes, leased: [], queued: [waiting(1, need({ devices: [b200, h100(2)] }))] })
  assert.equal(either.start[0]!.allocation.nodes[0]!.devices.length, 2)
})

test('a device that somebody else computes on is left alone, and said so', () => {
  const node = { ...machine('n0'), devices: [device('n0', 0, { free: false })] }
  const decision = decide({ now, nodes: [node], leased: [], queued: [waiting(1, need({ devices: [h100(1)] }))] })
  assert.deepEqual([decision.start, decision.impossible], [[], []])
  assert.equal(why(decision, 1), 'waits for 1 H100, 0 free (H100 n0-0: process 7 of someone else computes on it)')
})

test('what no machine could hold is told with what there is', () => {
  const nodes = [machine('n0', { devices: 2 }), machine('n1')]
  const asks = (given: Partial<Demand>) => {
    const demand = need(given)
    assert.deepEqual(decide({ now, nodes, leased: [], queued: [waiting(1, demand)] }).impossible, [1])
    return missingText(demand, nodes)
  }
  const b200: DeviceRequest = { vendor: null, name: 'B200', count: 1, memory: null }
  assert.deepEqual(asks({ devices: [b200] }), { device: true, wanted: '1 B200', there: '2 × H100 (80 GB)' })
  assert.deepEqual(asks({ cpus: 9 }), {
    ...{ device: false, wanted: '9 cores' },
    there: '1 with 8 cores and 64 GB of memory and 2 × H100 (80 GB) and 1 with 8 cores and 64 GB of memory',
  })
  assert.equal(asks({ nodes: 3 }).wanted, '3 nodes with 1 core')
  assert.equal(asks({ engine: 'slurm' }).there, 'no machine')
})
