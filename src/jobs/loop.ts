/**
 * The controller: one loop in the process that keeps the home. Each turn looks at what runs, decides what starts, and sets both going; what takes
 * long (starting, keeping outputs) goes on beside the turns, one thing at a time for each job. Rows and the engines' own records are the truth:
 * what is kept in memory here only spares looking.
 */
import type { Db } from '../db/open.ts'
import { Failure, forOthers } from '../failure.ts'
import type { DeviceWatch } from '../hardware/device-use.ts'
import type { Allocation } from './attempt.ts'
import { type AttemptParts, createAttempts } from './attempts.ts'
import type { Backend } from './backend.ts'
import { type Machine, watchDevices } from './beside.ts'
import { type Decision, decide, type Leased, type Queued } from './decide.ts'
import { createPossible, demandOf, type EngineNode } from './demand.ts'
import { dependencyOf } from './dependencies.ts'
import { createKnown } from './known.ts'
import { createMachines } from './machines.ts'
import { poll } from './poll.ts'
import type { JobSecrets } from './secrets.ts'
import type { JobReason, JobSpec } from './spec.ts'
import { type ActiveRow, activeJobs, type QueuedRow, queuedJobs, statesOf } from './store.ts'
import { findStrays, type Stray } from './strays.ts'
import type { JobTracking } from './tracking.ts'
import { missingText, waitText } from './waits.ts'

export interface ControllerOptions {
  db: Db
  backends: readonly Backend[]
  secrets: JobSecrets
  /** Null: jobs are not tracked. */
  tracking: JobTracking | null
  /** Of attempts on this machine a record is made, and their accelerators are watched. */
  machine?: Machine
  /** Milliseconds since 1970. */
  now?: () => number
  /** Milliseconds of a clock that only goes forward. */
  tick?: () => number
  onError?(error: unknown): void
}

export interface Controller {
  start(): void
  /** Something has changed: somebody submitted, stopped, retried. */
  wake(): void
  /** One look at everything. What it sets going goes on; `settled` waits for that. Called by the loop, and by tests. */
  turn(): Promise<void>
  settled(): Promise<void>
  /** Why it waits, in words; null where it does not, or that is not known yet. */
  why(job: number): string | null
  nodes(): Promise<EngineNode[]>
  leased(): Promise<Leased[]>
  /** throws job_device_missing, job_too_large, job_engine_unknown: what could never run here is told at once */
  checkPossible(spec: JobSpec): Promise<void>
  /** What is under way is waited for; jobs go on. */
  close(): Promise<void>
}

/** Milliseconds. A machine that is not there for a moment is no reason to refuse what was taken. */
const impossibleFor = 60_000
const nodesAge = { withDevices: 2_000, else: 15_000 }
/** Milliseconds between two looks at the queue while nobody says that something has changed: other processes write to it, too. */
const lookAtQueue = 5_000
/** Starts under way at once. */
const mostStarts = 64
/** Seconds over its time limit after which the controller stops a job that its engine should have stopped. */
const overdue = 60

/** The most seconds that an attempt takes; null: no limit. Building an environment is not counted: it may make a job later than was planned. */
const limitOf = ({ timeouts: { run, stop } }: JobSpec): number | null => (run === null ? null : run + stop)
const groupOf = ({ project, group }: { project: string; group: string | null }) => (group === null ? null : `${project}/${group}`)

export function createController({
  db,
  backends: engines,
  secrets,
  tracking,
  machine,
  now = Date.now,
  tick = () => performance.now(),
  onError = () => {},
}: ControllerOptions): Controller {
  const backends = new Map(engines.map(backend => [backend.name, backend]))
  const closing = new AbortController()
  const known = createKnown(db)
  const machines = createMachines(engines, { tick, onError })
  const busy = new Map<number, Promise<void>>()
  const launching = new Map<number, Leased>()
  /** Attempts that this process has begun, as `job/attempt`; what it has told them to do; when each is looked at next. */
  const begun = new Set<string>()
  const told = new Map<string, number>()
  const looksAt = new Map<string, number>()
  const doubts = new Map<number, string>()
  /** From when on this process has seen it run: clocks jump, so that times which others wrote end nothing. */
  const ranSince = new Map<string, number>()
  /** Null: begun, or there is nothing to watch. */
  const watches = new Map<string, DeviceWatch | null>()
  const besides = new Set<Promise<unknown>>()
  const impossible = new Map<number, number>()
  const notBefore = new Map<number, number>()
  const holds = new Map<number, string>()
  let strays: Stray[] | null = null
  let strayLook = 0
  let decision: Decision | null = null
  let dirty = true
  let decideAt = 0
  let next = 0

  const parts: AttemptParts = {
    ...{ db, backends, secrets, tracking, now, onError, machine: machine ?? null },
    signal: closing.signal,
    processorOf: machines.processorOf,
    coresOf: machines.coresOf,
  }
  const attempts = createAttempts(parts)

  /** One thing at a time for each job; a failure is told and leaves it to the next turn. */
  const work = (job: number, what: () => Promise<unknown>) => {
    if (busy.has(job) || closing.signal.aborted) return
    const working = what()
      .catch(error => {
        if (closing.signal.aborted) return
        onError(error)
        notBefore.set(job, tick() + 2_000)
      })
      .then(() => {
        busy.delete(job)
        if (dirty) wake()
      })
    busy.set(job, working)
  }

  // ── what runs ──

  async function tend(row: ActiveRow): Promise<void> {
    const key = `${row.id}/${row.attempt}`
    const { spec } = known.get(row.id)
    if (row.ended !== null) {
      await attempts.finish(row)
      forget(row.id, key)
      return
    }
    const backend = backends.get(row.engine)
    if (!backend) {
      doubts.set(row.id, `the engine ${row.engine} is not set up here`)
      return
    }
    if (row.stop !== null) await tellToStop(backend, row, { grace: row.grace ?? spec.timeouts.stop, reason: 'cancelled' })
    else if (row.attemptStatus === 'starting' && !begun.has(key)) {
      const outcome = await attempts.begin(row, spec)
      if (outcome === 'begun') hasBegun(row, spec)
      else if (outcome === 'unknown') notBefore.set(row.id, tick() + 2_000)
      else {
        machines.mayHaveChanged()
        dirty = true
      }
      return
    }
    const seen = await backend.observe(row.id, row.attempt)
    if (seen.status === 'unknown') {
      doubts.set(row.id, seen.why)
      return
    }
    doubts.delete(row.id)
    if (seen.status === 'ended') {
      await attempts.end(row, spec, seen.exit, seen)
      watches.get(key)?.stop()
      if (seen.exit.reason !== null) machines.mayHaveChanged()
      dirty = true
    } else if (seen.status === 'lost') {
      // what was to be stopped before it was ever begun
      const never = row.attemptStatus === 'starting' && row.stop !== null && !begun.has(key)
      const reason: JobReason = never ? 'cancelled' : 'lost'
      await attempts.end(row, spec, { exitCode: null, signal: null, reason, message: seen.why, phase: 'run', ended: now() })
      machines.mayHaveChanged()
      dirty = true
    } else {
      await attempts.moveOn(row, seen)
      if (seen.status === 'running') await watch(backend, row, spec)
      const { run } = spec.timeouts
      if (seen.status === 'running' && !ranSince.has(key)) ranSince.set(key, tick())
      if (run !== null && tick() > (ranSince.get(key) ?? Number.POSITIVE_INFINITY) + (run + overdue) * 1000)
        await tellToStop(backend, row, { grace: spec.timeouts.stop, reason: 'timeout' })
    }
  }

  function hasBegun(row: ActiveRow, spec: JobSpec): void {
    begun.add(`${row.id}/${row.attempt}`)
    beside(attempts.record(row, spec))
  }
  function beside(work: Promise<unknown>): void {
    const working: Promise<unknown> = work.catch(onError).then(() => besides.delete(working))
    besides.add(working)
  }

  /** A job that computes without the accelerator that it asked for is told so, or stopped where it wants that. */
  async function watch(backend: Backend, row: ActiveRow, spec: JobSpec): Promise<void> {
    const key = `${row.id}/${row.attempt}`
    if (!machine || watches.has(key)) return
    watches.set(key, null)
    let before: string | null = null
    const found = await watchDevices(
      machine,
      { engine: row.engine, job: row.id, attempt: row.attempt, allocation: JSON.parse(row.allocation) },
      {
        onError,
        onDoubt: doubt => {
          const text = doubt?.text ?? null
          beside(attempts.warn(row, text, before))
          before = text
          if (!doubt?.notUsed) return
          if (spec.requireDevice) beside(tellToStop(backend, row, { grace: spec.timeouts.stop, reason: 'device_missing' }))
          if (tracking && row.run !== null) beside(tracking.tagRun(row.project, row.run, { 'plinth.device.used': 'false' }))
        },
      },
    )
    watches.set(key, found)
  }

  /** Again only with less grace: the engine shortens what it was told. */
  async function tellToStop(
    backend: Backend,
    row: ActiveRow,
    how: { grace: number; reason: 'cancelled' | 'timeout' | 'preempted' | 'device_missing' },
  ): Promise<void> {
    const key = `${row.id}/${row.attempt} ${how.reason}`
    if ((told.get(key) ?? Number.POSITIVE_INFINITY) <= how.grace) return
    await backend.stop(row.id, row.attempt, how)
    told.set(key, how.grace)
  }

  function forget(job: number, key: string): void {
    begun.delete(key)
    looksAt.delete(key)
    ranSince.delete(key)
    watches.get(key)?.stop()
    watches.delete(key)
    for (const each of told.keys()) if (each.startsWith(`${key} `)) told.delete(each)
    known.forget(job)
    doubts.delete(job)
    notBefore.delete(job)
    dirty = true
  }

  // ── what waits ──

  async function decideAndAct(actives: readonly ActiveRow[]): Promise<void> {
    dirty = false
    decideAt = tick() + lookAtQueue
    const queue = (await queuedJobs(db)).filter(({ id }) => !busy.has(id))
    if (queue.length === 0) {
      decision = null
      holds.clear()
      return
    }
    await known.read([...queue, ...actives].map(({ id }) => id))
    const nodes = await machines.current(
      queue.some(({ id }) => known.get(id).demand.devices.length > 0) ? nodesAge.withDevices : nodesAge.else,
    )
    const ready = await readyJobs(queue)
    const running = new Set(actives.map(({ id }) => id))
    const leases = [
      ...actives.flatMap(row => leaseOf(row)),
      ...[...launching.values()].filter(({ job }) => !running.has(job)),
      ...(strays ?? []).map(strayLease),
    ]
    decision = decide({ now: now(), nodes, leased: leases, queued: ready.map(asQueued), promised: decision?.promised ?? [] })
    const rows = new Map(queue.map(row => [row.id, row]))
    for (const job of impossible.keys()) if (!decision.impossible.includes(job)) impossible.delete(job)
    for (const job of decision.impossible) refuseIfStillImpossible(job, nodes)
    for (const { job, ...placed } of decision.start) {
      if (launching.size >= mostStarts) {
        dirty = true
        break
      }
      launch(rows.get(job)!, placed)
    }
    for (const { job } of decision.preempt) {
      const row = actives.find(({ id }) => id === job)
      if (row) work(job, () => preempt(row))
    }
  }

  function launch(row: QueuedRow, placed: { engine: string; allocation: Allocation }): void {
    const { spec } = known.get(row.id)
    launching.set(row.id, { ...asLeased(row, spec, placed, now()), stopping: false })
    work(row.id, async () => {
      try {
        if (!(await attempts.lease(row, spec, placed))) return
        const active = (await activeJobs(db, row.id))[0]
        if (active && (await attempts.begin(active, spec)) === 'begun') hasBegun(active, spec)
      } catch (error) {
        // its run cannot be made (the experiment was deleted): it never will, and its owner is told
        if (!(error instanceof Failure) || error.status >= 500) throw error
        await attempts.giveUp(row.id, 'failed', 'start_failed', forOthers(error).message)
      } finally {
        launching.delete(row.id)
        dirty = true
      }
    })
  }

  async function preempt(row: ActiveRow): Promise<void> {
    const backend = backends.get(row.engine)
    const { spec } = known.get(row.id)
    if (!backend) return
    await tellToStop(backend, row, { grace: spec.timeouts.stop, reason: 'preempted' })
    const seen = await backend.observe(row.id, row.attempt)
    if (seen.status !== 'ended' && seen.status !== 'lost' && seen.status !== 'unknown')
      await attempts.moveOn(row, { ...seen, status: 'stopping' })
  }

  function refuseIfStillImpossible(job: number, nodes: readonly EngineNode[]): void {
    const { demand } = known.get(job)
    const { device, wanted, there } = missingText(demand, nodes)
    const text = `no machine here has ${wanted}; there is: ${there}`
    holds.set(job, `waits: ${text}`)
    const since = impossible.get(job) ?? tick()
    impossible.set(job, since)
    if (tick() - since >= impossibleFor) work(job, () => attempts.giveUp(job, 'failed', device ? 'device_missing' : 'start_failed', text))
  }

  /** Those whose time has come and whose dependencies are met; the others are told why not, or given up. */
  async function readyJobs(queue: readonly QueuedRow[]): Promise<QueuedRow[]> {
    const time = now()
    const others = [...new Set(queue.flatMap(({ id }) => known.get(id).spec.dependsOn.map(({ job }) => Number(job))))]
    const states = others.length > 0 ? await statesOf(db, others) : new Map()
    holds.clear()
    const ready: QueuedRow[] = []
    for (const row of queue) {
      const job = known.get(row.id)
      const { pending } = job.spec.timeouts
      const deadline = pending === null ? Number.POSITIVE_INFINITY : Math.max(row.submitted, row.due) + pending * 1000
      // longer than any pause: the clock was put back
      const left = row.attempt === 0 ? 0 : row.due - time
      const pause = left <= job.spec.retry.backoff.max * 1000 ? left : 0
      for (const wait of [deadline - time, pause]) if (wait > 0) decideAt = Math.min(decideAt, tick() + wait)
      const dependency = job.spec.dependsOn.length > 0 ? dependencyOf(job.spec.dependsOn, states) : null
      if (dependency?.never) work(row.id, () => attempts.giveUp(row.id, 'cancelled', 'cancelled', dependency.text))
      else if (time >= deadline) {
        const why = controller.why(row.id)
        const text = `it could not start within ${pending} s${why ? `: it ${why}` : ''}`
        work(row.id, () => attempts.giveUp(row.id, 'failed', 'timeout', text))
      } else if (dependency) holds.set(row.id, dependency.text)
      else if (pause > 0) holds.set(row.id, `waits ${Math.ceil(pause / 1000)} s before attempt ${row.attempt + 1}`)
      else if ((notBefore.get(row.id) ?? 0) <= tick()) {
        job.ready ??= job.spec.dependsOn.length > 0 ? time : row.submitted
        ready.push(row)
      }
    }
    return ready
  }

  function asQueued(row: QueuedRow): Queued {
    const { spec, demand, ready } = known.get(row.id)
    const { priority, parallel } = spec
    return { job: row.id, project: row.project, priority, since: ready!, limit: limitOf(spec), demand, group: groupOf(row), parallel }
  }

  const leaseOf = (row: ActiveRow): Leased[] => {
    const spec = known.find(row.id)?.spec
    if (row.ended !== null || !spec) return []
    const placed = { engine: row.engine, allocation: JSON.parse(row.allocation) as Allocation }
    const lease = asLeased(row, spec, placed, row.started ?? now())
    return [{ ...lease, stopping: row.status === 'stopping' || told.has(`${row.id}/${row.attempt} preempted`) }]
  }

  function asLeased(row: QueuedRow | ActiveRow, spec: JobSpec, placed: { engine: string; allocation: Allocation }, started: number) {
    const limit = limitOf(spec)
    const { id: job, project, priority, submitted } = row
    return {
      ...{ job, project, priority, since: submitted, preemptible: spec.preemptible, group: groupOf(row), ...placed },
      until: limit === null ? null : started + limit * 1000,
    }
  }

  const strayLease = (stray: Stray): Leased => ({
    ...{ job: stray.job, project: '', priority: 1000, since: 0, preemptible: false, stopping: false, group: null, until: null },
    ...{ engine: stray.engine, allocation: stray.allocation },
  })

  // ── the loop ──

  let running = false
  let turning: Promise<void> | null = null
  let timer: NodeJS.Timeout | undefined
  let again = false
  let cost = 0

  function wake(): void {
    dirty = true
    if (!running) return
    if (turning) again = true
    else plan(0)
  }
  function plan(milliseconds: number): void {
    clearTimeout(timer)
    if (running) timer = setTimeout(run, milliseconds)
  }
  function run(): void {
    again = false
    const before = performance.now()
    turning = controller
      .turn()
      .catch(onError)
      .then(() => {
        cost = performance.now() - before
        turning = null
        // a long queue is not gone through again at once for each job that ends: at most a fifth of the time
        plan(again ? (cost > 5 ? 4 * cost : 0) : Math.max(next, 1))
      })
  }

  const controller: Controller = {
    start() {
      running = true
      run()
    },
    wake,
    async turn() {
      if (closing.signal.aborted) return
      strays ??= await takeOver()
      strays = await stillThere(strays)
      const actives = await activeJobs(db)
      await known.read(actives.map(({ id }) => id))
      const [time, wall] = [tick(), now()]
      let soonest = Number.POSITIVE_INFINITY
      for (const row of actives) {
        const key = `${row.id}/${row.attempt}`
        const waits = notBefore.get(row.id) ?? 0
        const at = Math.max(looksAt.get(key) ?? 0, waits)
        const urgent = waits <= time && (row.ended !== null || (row.stop !== null && !told.has(`${key} cancelled`)))
        if (at <= time || urgent) {
          const following = time + poll(wall - (row.started ?? wall), actives.length)
          looksAt.set(key, following)
          soonest = Math.min(soonest, following)
          work(row.id, () => tend(row))
        } else soonest = Math.min(soonest, at)
      }
      if (dirty || time >= decideAt) await decideAndAct(actives)
      next = Math.min(soonest, decideAt) - tick()
    },
    async settled() {
      while (busy.size + besides.size > 0) await Promise.all([...busy.values(), ...besides])
    },
    why(job) {
      const held = holds.get(job)
      if (held) return held
      const wait = decision?.waits.get(job)
      if (wait) return waitText(wait, decision!)
      const doubt = doubts.get(job)
      return doubt ? `cannot be asked now: ${doubt}` : null
    },
    nodes: () => machines.current(nodesAge.withDevices),
    async leased() {
      const actives = await activeJobs(db)
      await known.read(actives.map(({ id }) => id))
      return [...actives.flatMap(leaseOf), ...(strays ?? []).map(strayLease)]
    },
    async checkPossible(spec) {
      const demand = demandOf(spec)
      if (demand.engine !== null && !backends.has(demand.engine))
        throw new Failure('job_engine_unknown', { engine: demand.engine, known: [...backends.keys()].join(', ') })
      const nodes = await machines.current(nodesAge.withDevices)
      if (createPossible(nodes)(demand)) return
      const { device, wanted, there } = missingText(demand, nodes)
      throw new Failure(device ? 'job_device_missing' : 'job_too_large', { wanted, there })
    },
    async close() {
      running = false
      clearTimeout(timer)
      closing.abort()
      for (const each of watches.values()) each?.stop()
      await turning
      await controller.settled()
    },
  }
  return controller

  // ── after another process ──

  /** What engines know and rows do not say is accounted for; secrets of jobs that have ended meanwhile are forgotten. */
  async function takeOver(): Promise<Stray[]> {
    const actives = new Set((await activeJobs(db)).map(({ id }) => id))
    const kept = await secrets.kept()
    const states = await statesOf(db, kept)
    for (const job of kept) {
      const status = states.get(job)?.status
      if (!actives.has(job) && status !== 'queued') await secrets.forget(job)
    }
    return await findStrays(db, engines, { onError })
  }

  async function stillThere(found: Stray[]): Promise<Stray[]> {
    if (found.length === 0 || tick() < strayLook) return found
    strayLook = tick() + 5_000
    const left: Stray[] = []
    for (const stray of found) {
      const backend = backends.get(stray.engine)!
      if (stray.over) await backend.stop(stray.job, stray.attempt, { grace: 0, reason: 'cancelled' }).catch(onError)
      const seen = await backend.observe(stray.job, stray.attempt).catch(() => null)
      if (seen === null || (seen.status !== 'ended' && seen.status !== 'lost')) left.push(stray)
    }
    if (left.length < found.length) dirty = true
    return left
  }
}
