/** Runs whose process is gone are not believed: looked for every few seconds by whoever runs the home's loops. */
import type { Home } from '../db/home.ts'
import { settleRuns } from './runs.ts'
import { isAlive, isHere, silence, Worker } from './worker.ts'

/** How often, in milliseconds: a dead process on this machine is told within twice that. */
export const reapEvery = 4_000

export interface ReaperOptions {
  /** Whether a run elsewhere, whose process cannot be looked up, has been silent too long. */
  isSilent?: (run: number, heartbeat: number | null) => boolean
  /** Runs that somebody else judges, by id: their log is here and may say how they ended. */
  except?: () => Promise<ReadonlySet<string>>
}

/** Marks tracked runs whose worker is gone as failed, reason lost, ended when they were last heard of. Answers how many. */
export async function reapLostRuns(home: Pick<Home, 'db'>, { isSilent, except }: ReaperOptions = {}): Promise<number> {
  const open = await home.db
    .selectFrom('tracked_runs')
    .select(['id', 'number', 'worker', 'heartbeat'])
    .where('worker', 'is not', null)
    .where('status', 'in', ['queued', 'starting', 'setting_up', 'running', 'stopping'])
    .execute()
  let lost = 0
  let judged: ReadonlySet<string> | undefined
  for (const { id, number, worker, heartbeat } of open) {
    const { data } = Worker.safeParse(JSON.parse(worker!))
    const lives = data && (isSilent && !isHere(data) ? !isSilent(number, heartbeat) : isAlive(data, heartbeat ?? 0))
    if (lives) continue
    judged ??= (await except?.()) ?? new Set()
    if (judged.has(id)) continue
    const { numUpdatedRows } = await home.db
      .updateTable('tracked_runs')
      .set({ status: 'failed', reason: 'lost', ended: heartbeat })
      .where('number', '=', number)
      .where('heartbeat', '=', heartbeat) // one that speaks up in this moment lives
      .where('status', 'in', ['queued', 'starting', 'setting_up', 'running', 'stopping'])
      .executeTakeFirst()
    lost += Number(numUpdatedRows)
  }
  return lost
}

/**
 * Silence is measured by this process's own clock from the moment a heartbeat was first seen, and not by the times that are written: clocks
 * jump, those of two machines differ, and while nobody listened nobody could be heard.
 */
export function listener(now: () => number = () => performance.now()): (run: number, heartbeat: number | null) => boolean {
  const heard = new Map<number, { heartbeat: number | null; at: number }>()
  return (run, heartbeat) => {
    const last = heard.get(run)
    if (last?.heartbeat === heartbeat) return now() - last.at >= silence
    if (heard.size > 100_000) heard.clear()
    heard.set(run, { heartbeat, at: now() })
    return false
  }
}

/** Starts the loop; what it answers ends it and waits for what is under way. */
export function startReaper(
  home: Home,
  onError: (error: unknown) => void,
  { except }: Pick<ReaperOptions, 'except'> = {},
): () => Promise<void> {
  const isSilent = listener()
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  let working: Promise<unknown> = Promise.resolve()
  const turn = () => {
    working = Promise.all([reapLostRuns(home, { isSilent, ...(except && { except }) }), settleRuns(home)])
      .catch(onError)
      .then(() => {
        if (!stopped) timer = setTimeout(turn, reapEvery).unref()
      })
  }
  turn()
  return async () => {
    stopped = true
    clearTimeout(timer)
    await working
  }
}
