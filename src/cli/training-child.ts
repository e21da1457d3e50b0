/**
 * The process that trains. It shares nothing with the command that started it but the run's folder and a channel for messages:
 * a crash of the runtime takes no terminal with it, and a lost terminal takes no training with it (it stops at the next step,
 * with a checkpoint).
 */
import { Failure, type SentFailure } from '../failure.ts'
import type { RecipeEvent, TrainResult } from '../sdk/index.ts'
import { openHome, train } from '../server.ts'

export type Message =
  | { kind: 'event'; event: RecipeEvent }
  | { kind: 'result'; result: TrainResult }
  | ({ kind: 'failure'; stack?: string } & SentFailure)

const stop = new AbortController()
const askToStop = () => stop.abort()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, askToStop)
process.on('disconnect', askToStop)
process.on('message', askToStop)

const tell = (message: Message) =>
  new Promise<void>(resolve => {
    if (process.connected) process.send!(message, undefined, undefined, () => resolve())
    else resolve()
  })

const home = await openHome()
try {
  const result = await train(home, process.argv[2]!, {
    say: event => void tell({ kind: 'event', event }),
    signal: stop.signal,
  })
  await tell({ kind: 'result', result })
} catch (error) {
  const failure =
    error instanceof Failure ? error : new Failure('internal', { problem: error instanceof Error ? error.message : String(error) })
  const stack = error instanceof Error && error.stack
  await tell({ kind: 'failure', code: failure.code, details: failure.details, ...(stack && { stack }) })
  process.exitCode = 1
} finally {
  await home.close()
  if (process.connected) process.disconnect()
}
