/** What `train` and `quickstart` share: start the training's process, show how it goes, tell how it went. */
import { fork } from 'node:child_process'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../failure.ts'
import { formatForecast, formatSeconds, type TrainResult } from '../sdk/index.ts'
import { renderText, trainingVerdicts, verdicts } from '../server.ts'
import type { Context, Progress } from './output.ts'
import type { Message } from './training-child.ts'

/** Runs the training of a prepared run to its end. Ctrl-C asks it to stop at a step; the failure then says how to go on. */
export async function followTraining(run: string, { say, progress, signal }: Context): Promise<TrainResult> {
  const script = fileURLToPath(new URL(`./training-child${extname(import.meta.url)}`, import.meta.url))
  const child = fork(script, [run], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], serialization: 'advanced' })
  let line: { label: string; progress: Progress } | null = null
  let outcome: Message | null = null
  const endLine = () => {
    line?.progress.end()
    line = null
  }
  child.on('message', (message: Message) => {
    if (message.kind !== 'event') {
      outcome = message
      return
    }
    const { event } = message
    if (event.kind === 'progress') {
      // epochs share one line
      const label = event.unit === 'steps' ? 'fine-tuning' : event.label
      if (line?.label !== label) {
        endLine()
        line = { label, progress: progress(label, event.total, { unit: event.unit }) }
      }
      line.progress.update(event.done, [event.unit === 'steps' ? event.label : '', event.note ?? ''].filter(Boolean).join(', '))
      return
    }
    endLine()
    if (event.kind === 'stage') say(`\n${event.title}`)
    else say(event.text)
  })
  const askToStop = () => {
    if (child.connected) child.send('stop')
  }
  signal.addEventListener('abort', askToStop, { once: true })
  if (signal.aborted) askToStop()
  const { code, killedBy } = await new Promise<{ code: number | null; killedBy: string | null }>((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (exitCode, by) => resolve({ code: exitCode, killedBy: by }))
  })
  signal.removeEventListener('abort', askToStop)
  endLine()

  const last = outcome as Message | null
  if (last?.kind === 'result') return last.result
  if (last?.kind === 'failure') {
    if (process.env['PLINTH_DEBUG'] === '1' && last.stack) process.stderr.write(`${last.stack}\n`)
    throw Failure.received(last)
  }
  throw new Failure('training_died', { how: killedBy ? `killed by ${killedBy}` : `exit code ${code}`, run })
}

/** The end of a training, for people. */
export function tellResult(result: TrainResult, { out, style }: Context): void {
  const { test, unknown, mislabels, choices = [], forecastSeconds: plannedSeconds } = result
  out()
  out(renderText(test, [...verdicts(test), ...trainingVerdicts({ unknown, mislabels })]))
  out()
  if (choices.length > 0)
    out(`Chosen on validation: ${choices.map(({ what, chosen }) => `${what}: ${chosen}`).join(' · ')} (why: in the report)`)
  const error = ((result.seconds - plannedSeconds) / plannedSeconds) * 100
  out(
    `Took ${formatSeconds(result.seconds)}; the plan said ${formatForecast(plannedSeconds)} (${error >= 0 ? '+' : ''}${error.toFixed(0)} %).`,
  )
  out()
  out(`Model   ${style('bold', `${result.model.name}@${result.model.version}`)}  ${result.model.path}`)
  out(`Report  ${result.report}`)
  if (mislabels && mislabels.listed.length > 0)
    out(`Labels  plinth data review ${result.run.slice(0, 8)}   (look at those that seem wrong, and decide)`)
}
