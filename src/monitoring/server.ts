/** What of the control plane is worth a line in its log, and a number for Prometheus. */
import { statfs } from 'node:fs/promises'
import type { Answered } from '../api/app.ts'
import { version } from '../config.ts'
import type { Home } from '../db/home.ts'
import { databaseBytes } from '../db/size.ts'
import type { Log } from './log.ts'
import type { Gauge } from './metrics.ts'

/** Every request but those of health checks; refused ones as warnings, since somebody may be trying doors. */
export function logRequest(log: Log, { id, method, route, status, milliseconds, user, address, error }: Answered): void {
  if (status < 400 && (route === '/healthz' || route === '/health' || route === '/metrics')) return
  const { code } = (error ?? {}) as { code?: string }
  const ms = Math.round(milliseconds * 10) / 10
  const line = { request: id, method, route, status, ms, user, address, ...(code && { code }) }
  if (status >= 500) log.error('request', { ...line, error })
  else if (status === 401 || status === 403) log.warn('request', line)
  else log.info('request', line)
}

/** Read from the database when somebody asks. `points`: logged since the start. */
export async function gaugesOf(home: Home, { points, dropped }: { points: number; dropped: number }): Promise<Gauge[]> {
  const [runs, bytes, disk] = await Promise.all([
    home.db
      .selectFrom('tracked_runs')
      .select(({ fn }) => ['status', fn.countAll<number>().as('runs')])
      .where('deleted', 'is', null)
      .groupBy('status')
      .execute(),
    databaseBytes(home),
    statfs(home.path),
  ])
  const gauge = (name: string, help: string, value: number, kind: Gauge['kind'] = 'gauge'): Gauge => ({
    name,
    help,
    kind,
    values: [{ value }],
  })
  return [
    { name: 'plinth_info', help: 'The version that runs.', kind: 'gauge', values: [{ labels: { version }, value: 1 }] },
    {
      name: 'plinth_runs',
      help: 'Tracked runs, by status.',
      kind: 'gauge',
      values: runs.map(({ status, runs: value }) => ({ labels: { status }, value: Number(value) })),
    },
    gauge('plinth_points_logged_total', 'Points of metrics logged since the start.', points, 'counter'),
    gauge('plinth_log_lines_dropped_total', 'Lines of the log that could not be written.', dropped, 'counter'),
    gauge('plinth_database_bytes', 'Size of the database.', bytes),
    gauge('plinth_home_free_bytes', 'Room that is left on the disk of the home.', disk.bavail * disk.bsize),
  ]
}
