/** Runs whose process is gone are not believed: looked for every few seconds by whoever runs the home's loops. */
import type { Home } from '../db/home.ts'
import { listRuns } from './runs.ts'
import { isAlive, Worker } from './worker.ts'

/** How often, in milliseconds: a dead process on this machine is told within twice that. */
export const reapEvery = 4_000

/** Marks tracked runs whose worker is gone as failed, reason lost, ended when they were last heard of. Answers how many. */
export async function reapLostRuns(home: Pick<Home, 'db'>): Promise<number> {
  const open = await home.db
    .selectFrom('tracked_runs')
    .select(['number', 'worker', 'heartbeat'])
    .where('worker', 'is not', null)
    .where('status', 'in', ['queued', 'starting', 'setting_up', 'running', 'stopping'])
    .execute()
  let lost = 0
  for (const { number, worker, heartbeat } of open) {
    const parsed = Worker.safeParse(JSON.parse(worker!))
    if (parsed.success && isAlive(parsed.data, heartbeat ?? 0)) continue
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
export function startReaper(home: Home, onError: (error: unknown) => void): () => Promise<void> {
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  let working: Promise<unknown> = Promise.resolve()
  const turn = () => {
    working = Promise.all([reapLostRuns(home), listRuns(home)]) // reading recipes' runs says which of them are lost
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
