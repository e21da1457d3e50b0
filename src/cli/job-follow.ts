/** Shows the log of a job until it has ended, over lost connections and new attempts. */
import type { JobsConnection } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import type { Job } from '../sdk/calls/jobs.ts'
import { hasEnded } from '../sdk/index.ts'
import type { Context } from './output.ts'

/** All jobs of an array or a sweep, by their places in it. */
export async function jobsOfGroup({ plinth }: JobsConnection, group: string): Promise<Job[]> {
  const all: Job[] = []
  for (let after: string | undefined; ; ) {
    const { items, next } = await plinth.listJobs({ group, limit: 1000, ...(after !== undefined && { after }) })
    all.push(...items)
    if (next === null) return all.toSorted((a, b) => (a.index ?? 0) - (b.index ?? 0))
    after = next
  }
}

/** As `docker run`: what is ours to say is 125 to 127, everything else is the job's own. */
export function exitCodeOf({ state, reason, exitCode }: Pick<Job, 'state' | 'reason' | 'exitCode'>): number {
  if (state === 'succeeded') return 0
  if (reason === 'start_failed' || reason === 'infra' || reason === 'lost' || reason === 'node_lost') return 125
  if (reason === 'environment_failed') return 126
  if (reason === 'command_not_found') return 127
  if (exitCode !== null && exitCode !== 0) return exitCode
  return state === 'cancelled' ? 130 : 1
}

/**
 * The job as it ended. `stopOnInterrupt`: Ctrl-C stops the job and waits for it, else it only ends the watching.
 * throws interrupted
 */
export async function followJob(
  connection: JobsConnection,
  job: number,
  context: Context,
  { stopOnInterrupt, from = 0 }: { stopOnInterrupt: boolean; from?: number },
): Promise<Job> {
  const { out, say, style, signal } = context
  let interrupted = false
  const onInterrupt = () => {
    interrupted = true
    if (!stopOnInterrupt) return
    say(`Stopping job ${job}; Ctrl-C again leaves it to itself. With --detach it would go on.`)
    void connection.plinth.stopJob({ job }).catch(error => say(String(error)))
  }
  signal.addEventListener('abort', onInterrupt, { once: true })
  let said = ''
  try {
    let offset = from
    let attempt = 0
    for (;;) {
      const now = await connection.plinth.getJob({ job })
      const newest = now.attempts.at(-1)?.attempt ?? 0
      if (newest > attempt) {
        if (attempt > 0) say(style('dim', `attempt ${newest}`))
        attempt = newest
        offset = 0
      }
      if (attempt > 0)
        for await (const line of connection.log({ job, attempt, offset, follow: true, ...(!stopOnInterrupt && { signal }) })) {
          offset = line.next
          if (line.stream === 'p') say(style('dim', line.text))
          else out(line.text)
        }
      if (hasEnded(now.state)) {
        if (interrupted && stopOnInterrupt) throw new Failure('interrupted', { next: `Run it again with plinth jobs retry ${job}.` })
        return now
      }
      if (interrupted && !stopOnInterrupt) throw new Failure('interrupted', { next: `The job goes on: plinth jobs logs ${job} -f` })
      if (now.state === 'queued' && now.message && now.message !== said) {
        said = now.message
        say(style('dim', said))
      }
      await new Promise(done => setTimeout(done, 100))
    }
  } finally {
    signal.removeEventListener('abort', onInterrupt)
  }
}
