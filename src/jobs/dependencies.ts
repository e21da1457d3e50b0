/** Whether what a job waits for has happened, can still happen, or never will. */

import { hasEnded } from '../sdk/shapes.ts'
import type { JobSpec } from './spec.ts'

export interface OpenDependency {
  /** It can never be met any more. */
  never: boolean
  text: string
}

/** Null: all are met. The first that can never be is told before any that is only not met yet. */
export function dependencyOf(
  dependsOn: JobSpec['dependsOn'],
  states: ReadonlyMap<number, { status: string; name: string }>,
): OpenDependency | null {
  let open: OpenDependency | null = null
  for (const { job, when } of dependsOn) {
    const other = states.get(Number(job))
    if (!other) return { never: true, text: `it was to start when job ${job} had ${words[when]}, and that job was deleted` }
    const called = `job ${job} (${other.name})`
    if (!hasEnded(other.status)) open ??= { never: false, text: `waits for ${called} to ${wishes[when]}` }
    else if (when !== 'ended' && other.status !== when)
      return {
        never: true,
        text: `it was to start when ${called} had ${words[when]}, and that one ${outcomes[other.status] ?? other.status}`,
      }
  }
  return open
}

const words = { succeeded: 'succeeded', ended: 'ended', failed: 'failed' } as const
const wishes = { succeeded: 'succeed', ended: 'end', failed: 'fail' } as const
const outcomes: Record<string, string> = { succeeded: 'succeeded', failed: 'failed', cancelled: 'was cancelled' }
