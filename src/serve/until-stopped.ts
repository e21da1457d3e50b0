/** Serving from a terminal: until Ctrl-C or SIGTERM, then gracefully; a second Ctrl-C ends at once. */
import type { RunningServer } from './gateway.ts'
import type { ServerStats } from './metrics.ts'

/** Resolves when a signal has come and the last request is answered. */
export async function untilStopped(server: RunningServer): Promise<ServerStats> {
  const signals = ['SIGINT', 'SIGTERM'] as const
  await new Promise<void>(resolve => {
    for (const signal of signals) process.once(signal, () => resolve())
  })
  // the second one meets no listener any more and ends the process as if there had never been one
  for (const signal of signals) process.removeAllListeners(signal)
  return server.close()
}
