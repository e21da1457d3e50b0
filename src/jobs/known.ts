/** Specs that were read already, as the scheduler wants them: a spec never changes, and there may be ten thousand. */
import type { Db } from '../db/open.ts'
import { type Demand, demandOf } from './demand.ts'
import type { JobSpec } from './spec.ts'
import { specsOf } from './store.ts'

export interface Known {
  spec: JobSpec
  demand: Demand
  /** Milliseconds since 1970 from when it could have started. */
  ready: number | null
}

export interface KnownJobs {
  /** Those of these jobs that are there are known afterwards; others may be forgotten. */
  read(jobs: readonly number[]): Promise<void>
  get(job: number): Known
  find(job: number): Known | undefined
  forget(job: number): void
}

export function createKnown(db: Db): KnownJobs {
  const known = new Map<number, Known>()
  const demands = new Map<string, Demand>()
  return {
    async read(jobs) {
      if (known.size > 2 * jobs.length + 10_000) {
        const wanted = new Set(jobs)
        for (const job of known.keys()) if (!wanted.has(job)) known.delete(job)
      }
      const missing = jobs.filter(job => !known.has(job))
      if (missing.length === 0) return
      for (const [job, spec] of await specsOf(db, missing)) {
        const demand = demandOf(spec)
        const text = JSON.stringify(demand)
        // the scheduler looks for a place once for all that need the same
        const same = demands.get(text) ?? demand
        if (demands.size > 20_000) demands.clear()
        demands.set(text, same)
        known.set(job, { spec, demand: same, ready: null })
      }
    },
    get: job => known.get(job)!,
    find: job => known.get(job),
    forget: job => void known.delete(job),
  }
}
