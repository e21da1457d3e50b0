/**
 * What engines know and this database does not: it is a copy from before (a backup was restored), or an attempt that was given up for lost
 * is still there. Leases are rebuilt from it, so that nothing is given away twice.
 */
import type { Db } from '../db/open.ts'
import { hasEnded } from '../sdk/shapes.ts'
import type { Allocation } from './attempt.ts'
import type { Backend } from './backend.ts'
import { passNumbers } from './store.ts'

export interface Stray {
  engine: string
  job: number
  attempt: number
  allocation: Allocation
  /** Its job has ended, or has a newer attempt: it is stopped. One whose job nobody knows is left alone, for people to judge. */
  over: boolean
}

/** An attempt of a job that waits is taken up as its newest one. */
export async function findStrays(db: Db, engines: readonly Backend[], { onError }: { onError(error: unknown): void }): Promise<Stray[]> {
  const strays: Stray[] = []
  for (const engine of engines) {
    const known = await engine.known().catch(error => {
      onError(error)
      return []
    })
    if (known.length === 0) continue
    await passNumbers(db, Math.max(...known.map(({ job }) => job)))
    for (let at = 0; at < known.length; at += 500) {
      const some = known.slice(at, at + 500)
      const numbers = [...new Set(some.map(({ job }) => job))]
      const jobs = await db.selectFrom('jobs').select(['id', 'status', 'attempt', 'project']).where('id', 'in', numbers).execute()
      const rows = await db.selectFrom('job_attempts').select(['job', 'attempt', 'ended', 'reason']).where('job', 'in', numbers).execute()
      const jobOf = new Map(jobs.map(job => [job.id, job]))
      const rowOf = new Map(rows.map(row => [`${row.job}/${row.attempt}`, row]))
      for (const each of some) {
        const job = jobOf.get(each.job)
        const row = rowOf.get(`${each.job}/${each.attempt}`)
        if (row && (row.ended === null || row.reason !== 'lost')) continue
        const seen = await engine.observe(each.job, each.attempt)
        if (seen.status === 'ended' || seen.status === 'lost') continue
        if (job && !row && !hasEnded(job.status) && each.attempt > job.attempt) await takeUp(db, engine.name, each)
        else strays.push({ engine: engine.name, ...each, over: job !== undefined })
        if (!job)
          onError(new Error(`attempt ${each.attempt} of job ${each.job} runs on ${engine.name}, and this database knows no such job`))
      }
    }
  }
  return strays
}

const takeUp = (db: Db, engine: string, { job, attempt, allocation }: { job: number; attempt: number; allocation: Allocation }) =>
  db.transaction().execute(async transaction => {
    const { numUpdatedRows } = await transaction
      .updateTable('jobs')
      .set({ status: 'starting', attempt })
      .where('id', '=', job)
      .where('status', '=', 'queued')
      .executeTakeFirst()
    if (numUpdatedRows === 0n) return
    const started = Date.now()
    await transaction
      .insertInto('job_attempts')
      .values({ job, attempt, engine, status: 'starting', started, allocation: JSON.stringify(allocation) })
      .execute()
  })
