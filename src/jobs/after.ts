/** What follows the end of an attempt: another one, or the end of the job. */
import type { Exit } from './attempt.ts'
import type { JobReason, JobSpec } from './spec.ts'

/** `wait`: seconds from now; `counts`: against the retries of the job. Null: the job has ended. */
export type Again = { wait: number; counts: boolean }

/**
 * `retries`: attempts that the controller made by itself before. `stopped`: somebody asked the job to end. Whoever is stopped for a more
 * important job comes again however often that is, since it is not to blame.
 */
export function comesAgain(
  { retry, preemptible }: Pick<JobSpec, 'retry' | 'preemptible'>,
  { reason, exitCode, mayRetry = true }: Pick<Exit, 'reason' | 'exitCode' | 'mayRetry'>,
  { retries, stopped }: { retries: number; stopped: boolean },
): Again | null {
  if (reason === null || reason === 'cancelled' || stopped) return null
  if (reason === 'preempted' && preemptible) return { wait: 0, counts: false }
  const again = retry.on.includes(reason) || (exitCode !== null && retry.exitCodes.includes(exitCode))
  if (!again || !mayRetry || retries >= retry.max) return null
  return { wait: Math.min(retry.backoff.max, retry.backoff.min * 2 ** Math.min(retries, 30)), counts: true }
}

/** How a job has ended whose last attempt ended so. What somebody asked to end is cancelled, unless something else ended it before. */
export function endOf(
  reason: JobReason | null,
  stopped: boolean,
): { status: 'succeeded' | 'failed' | 'cancelled'; reason: JobReason | null } {
  if (reason === null) return { status: 'succeeded', reason }
  if (reason === 'cancelled' || (stopped && reason === 'preempted')) return { status: 'cancelled', reason: 'cancelled' }
  return { status: 'failed', reason }
}
