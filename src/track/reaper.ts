/** Runs whose process is gone are not believed: looked for every few seconds by whoever runs the home's loops. */
import type { Home } from '../db/home.ts'
import { listRuns } from './runs.ts'
import { isAlive, Worker } from './worker.ts'

/** How often, in milliseconds: a dead process on this machine is told within twice that. */
export const reapEvery = 4_000

export interface ReaperOptions {
  /** Since when somebody could be heard, in milliseconds since 1970: who was silent because nobody listened is given time to speak up. */
  since?: number
  /** Runs that somebody else judges, by id: their log is here and may say how they ended. */
  except?: () => Promise<ReadonlySet<string>>
}

/** Marks tracked runs whose worker is gone as failed, reason lost, ended when they were last heard of. Answers how many. */
export async function reapLostRuns(home: Pick<Home, 'db'>, { since = 0, except }: ReaperOptions = {}): Promise<number> {
  const open = await home.db
    .selectFrom('tracked_runs')
    .select(['id', 'number', 'worker', 'heartbeat'])
    .where('worker', 'is not', null)
    .where('status', 'in', ['queued', 'starting', 'setting_up', 'running', 'stopping'])
    .execute()
  let lost = 0
  let judged: ReadonlySet<string> | undefined
  for (const { id, number, worker, heartbeat } of open) {
    const parsed = Worker.safeParse(JSON.parse(worker!))
    if (parsed.success && isAlive(parsed.data, Math.max(heartbeat ?? 0, since))) continue
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

/** Starts the loop; what it answers ends it and waits for what is under way. */
export function startReaper(
  home: Home,
  onError: (error: unknown) => void,
  { except }: Pick<ReaperOptions, 'except'> = {},
): () => Promise<void> {
  const since = Date.now()
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  let working: Promise<unknown> = Promise.resolve()
  const turn = () => {
    working = Promise.all([reapLostRuns(home, { since, ...(except && { except }) }), listRuns(home)]) // reading recipes' runs says which of them are lost
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
