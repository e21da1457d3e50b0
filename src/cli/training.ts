/** What `train` and `quickstart` share: start the training's process, show how it goes, tell how it went. */
import { fork } from 'node:child_process'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../failure.ts'
import { formatForecast, formatSeconds, type TrainResult } from '../sdk/index.ts'
import { renderText, verdicts } from '../server.ts'
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
  const { test, validation, chosen, forecastSeconds: plannedSeconds } = result
  out()
  out(renderText(test, verdicts(test)))
  out()
  const finetune = validation.finetune
  if (finetune !== null) {
    const difference = (finetune - validation.head) * 100
    out(
      chosen === 'finetune'
        ? `Kept: the fine-tuned network (${difference.toFixed(1)} points better than the head alone on validation).`
        : `Kept: the head on the untouched network (fine-tuning was ${difference === 0 ? 'no better' : `${(-difference).toFixed(1)} points worse`} on validation).`,
    )
  }
  const error = ((result.seconds - plannedSeconds) / plannedSeconds) * 100
  out(
    `Took ${formatSeconds(result.seconds)}; the plan said ${formatForecast(plannedSeconds)} (${error >= 0 ? '+' : ''}${error.toFixed(0)} %).`,
  )
  out()
  out(`Model   ${style('bold', `${result.model.name}@${result.model.version}`)}  ${result.model.path}`)
  out(`Report  ${result.report}`)
}
