/**
 * How jobs stand where nobody keeps the home: rows say what the last keeper saw, the engines know what happened since. Nothing is written;
 * the next keeper does that.
 */
import type { Db } from '../db/open.ts'
import type { Job } from '../sdk/calls/jobs.ts'
import { hasEnded } from '../sdk/shapes.ts'
import { comesAgain, endOf } from './after.ts'
import type { Backend } from './backend.ts'
import type { JobSpec } from './spec.ts'

const noKeeper = 'Nothing runs on this home now that would start it: plinth up does, and plinth run while it lasts.'

export async function asSeen(db: Db, jobs: readonly Job[], backends: ReadonlyMap<string, Backend>): Promise<Job[]> {
  const seen: Job[] = []
  for (const job of jobs) {
    if (hasEnded(job.state)) seen.push(job)
    else if (job.state === 'queued') seen.push({ ...job, message: job.message ?? noKeeper })
    else seen.push(await lookAt(db, job, backends))
  }
  return seen
}

async function lookAt(db: Db, job: Job, backends: ReadonlyMap<string, Backend>): Promise<Job> {
  const attempt = job.attempts.at(-1)
  const backend = attempt && backends.get(attempt.engine)
  if (!attempt || !backend || attempt.ended !== null) return job
  const observed = await backend.observe(job.job, attempt.attempt)
  if (observed.status === 'unknown') return { ...job, message: observed.why }
  const { stop, retries } = await db.selectFrom('jobs').select(['stop', 'retries']).where('id', '=', job.job).executeTakeFirstOrThrow()
  const others = job.attempts.slice(0, -1)
  if (observed.status !== 'ended' && observed.status !== 'lost') {
    const status = stop === null ? observed.status : ('stopping' as const)
    return { ...job, state: status, attempts: [...others, { ...attempt, status }] }
  }
  // it never began: the next keeper begins it
  if (observed.status === 'lost' && attempt.status === 'starting') return { ...job, message: noKeeper }
  const exit =
    observed.status === 'ended'
      ? observed.exit
      : { exitCode: null, signal: null, reason: 'lost' as const, message: observed.why, ended: null }
  const { exitCode, signal, message, ended } = exit
  const { status, reason } = endOf(exit.reason, stop !== null)
  const over = { ...attempt, status, reason: exit.reason, message, exitCode, signal, ended }
  if (comesAgain(job.spec as unknown as JobSpec, exit, { retries, stopped: stop !== null }))
    return { ...job, state: 'queued', reason: exit.reason, message: noKeeper, attempts: [...others, over] }
  return { ...job, state: status, reason, message, exitCode, ended, attempts: [...others, over] }
}
