/** Fair share: of equal jobs, the one goes first whose project has least of whatever it has most of (dominant resource fairness, Ghodsi 2011). */
import type { Allocation } from './attempt.ts'
import type { EngineNode } from './demand.ts'

export interface Shares {
  /** 0 … 1: the greatest of its shares of cores, memory and accelerators. */
  of(project: string): number
  add(project: string, allocation: Allocation): void
}

export function createShares(nodes: readonly EngineNode[]): Shares {
  const total = { cpus: 0, memory: 0, devices: 0 }
  for (const { cpus, memory, devices } of nodes) {
    total.cpus += cpus
    total.memory += memory
    total.devices += devices.length
  }
  const used = new Map<string, { cpus: number; memory: number; devices: number }>()
  const part = (of: number, all: number) => (all > 0 ? of / all : 0)
  return {
    of(project) {
      const own = used.get(project)
      if (!own) return 0
      return Math.max(part(own.cpus, total.cpus), part(own.memory, total.memory), part(own.devices, total.devices))
    },
    add(project, allocation) {
      const own = used.get(project) ?? { cpus: 0, memory: 0, devices: 0 }
      for (const { cpus, memory, devices } of allocation.nodes) {
        own.cpus += cpus
        own.memory += memory
        for (const { share } of devices) own.devices += share
      }
      used.set(project, own)
    },
  }
}

interface InLine {
  job: number
  project: string
  priority: number
  /** Milliseconds since 1970 that it waits from. */
  since: number
}

/**
 * Those who have waited longer than `patience` (milliseconds) first, in the order they came; then by priority, and among equals those whose turn
 * it was before (`promised`), then the project with the smallest share, whose jobs go in the order they came. Shares are looked up as they are
 * when the next one is asked for; a turn is kept because they go up and down, and a job that needs much has to wait for others to end.
 */
export function* inOrder<Job extends InLine>(
  queued: readonly Job[],
  { shares, promised, now, patience }: { shares: Shares; promised: readonly number[]; now: number; patience: number },
): Generator<Job> {
  const turns = new Map(promised.map((job, turn) => [job, turn]))
  const came = (a: InLine, b: InLine) => a.since - b.since || a.job - b.job
  const sorted = queued.toSorted(came)
  const levels = new Map<number, Map<string, Job[]>>()
  const first = new Map<number, Job[]>()
  for (const job of sorted) {
    if (now - job.since >= patience) {
      yield job
      continue
    }
    if (turns.has(job.job)) {
      const own = first.get(job.priority)
      if (own) own.push(job)
      else first.set(job.priority, [job])
      continue
    }
    const level = levels.get(job.priority) ?? new Map<string, Job[]>()
    if (level.size === 0) levels.set(job.priority, level)
    const own = level.get(job.project)
    if (own) own.push(job)
    else level.set(job.project, [job])
  }
  for (const priority of [...new Set([...levels.keys(), ...first.keys()])].sort((a, b) => b - a)) {
    yield* (first.get(priority) ?? []).sort((a, b) => turns.get(a.job)! - turns.get(b.job)!)
    const level = levels.get(priority)
    if (!level) continue
    if (level.size === 1) {
      yield* [...level.values()][0]!
      continue
    }
    const heap = createHeap<{ jobs: Job[]; at: number; share: number }>((a, b) => a.share - b.share || came(a.jobs[a.at]!, b.jobs[b.at]!))
    for (const [project, jobs] of level) heap.push({ jobs, at: 0, share: shares.of(project) })
    for (let head = heap.pop(); head; head = heap.pop()) {
      const job = head.jobs[head.at]!
      yield job
      if (head.at + 1 < head.jobs.length) heap.push({ jobs: head.jobs, at: head.at + 1, share: shares.of(job.project) })
    }
  }
}

/** A binary heap: the least first. */
function createHeap<T>(compare: (a: T, b: T) => number) {
  const items: T[] = []
  const swap = (a: number, b: number) => {
    ;[items[a], items[b]] = [items[b]!, items[a]!]
  }
  return {
    push(item: T) {
      items.push(item)
      for (let at = items.length - 1; at > 0; ) {
        const parent = (at - 1) >> 1
        if (compare(items[at]!, items[parent]!) >= 0) break
        swap(at, parent)
        at = parent
      }
    },
    pop(): T | undefined {
      const first = items[0]
      const last = items.pop()
      if (items.length === 0) return first
      items[0] = last!
      for (let at = 0; ; ) {
        const [left, right] = [2 * at + 1, 2 * at + 2]
        let least = at
        if (left < items.length && compare(items[left]!, items[least]!) < 0) least = left
        if (right < items.length && compare(items[right]!, items[least]!) < 0) least = right
        if (least === at) return first
        swap(at, least)
        at = least
      }
    },
  }
}
