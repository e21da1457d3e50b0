/**
 * The gateway's side of a model host: starts the process, hands it pictures, takes answers, and starts it again when it crashes,
 * hangs or eats too much memory. At most `AHEAD` pictures are with the host; the others wait here, where they can be counted,
 * given up and refused.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { Failure } from '../failure.ts'
import type { Explanation, Prediction } from '../sdk/index.ts'
import type { FromHost, OpenedModel, ToHost } from './messages.ts'

export interface ModelHostOptions {
  path: string
  /** What the model is called in answers, `name@3`. */
  model: string
  threads?: number
  /** Requests that may wait; more are refused. */
  maxWaiting?: number
  /** Milliseconds from the arrival of a request to its answer. */
  deadline?: number
  /** Milliseconds without any answer while pictures are with the host, after which it is taken to hang. */
  patience?: number
  /** Milliseconds for opening the model and making its golden predictions again. */
  startLimit?: number
  /** Bytes of resident memory above which the host is ended (watched on Linux). */
  memoryLimit?: number
  /** A line for the operator: crashes and restarts. */
  onNotice?(text: string): void
}
interface AskOptions {
  signal?: AbortSignal
  formats?: 'upload' | 'local'
}
export interface ModelHost {
  readonly model: OpenedModel
  predict(picture: Uint8Array, options?: AskOptions): Promise<{ prediction: Prediction; batch: number }>
  explain(picture: Uint8Array, options?: AskOptions): Promise<{ prediction: Prediction; batch: number; explanation: Explanation }>
  thumbnail(picture: Uint8Array, side: number): Promise<Uint8Array>
  state(): { ready: boolean; waiting: number; running: number; restarts: number; pid: number | undefined }
  close(): Promise<void>
}

/** Two batches: one in the network, one being decoded. */
const AHEAD = 16
const MAX_PAUSE = 30_000
const MEMORY_CHECK = 100

interface Job {
  id: number
  message: ToHost
  /** Times it was with a host that went down. */
  downs: number
  timer: NodeJS.Timeout
  /** Nobody waits for it any more. */
  done: boolean
  resolve(answer: Extract<FromHost, { kind: 'answer' | 'picture' }>): void
  reject(failure: Failure): void
}

/** throws what the artefact throws, golden_missing, golden_mismatch, model_not_started */
export async function startModelHost(options: ModelHostOptions): Promise<ModelHost> {
  const { maxWaiting = 64, deadline = 30_000, patience = 15_000, onNotice = () => {} } = options
  const waiting: Job[] = []
  const running = new Map<number, Job>()
  let opened = await openHost(options)
  let ready = true
  let closed = false
  let restarts = 0
  /** Crashes since the last answer. */
  let crashes = 0
  let resumesAt = 0
  let nextId = 1
  let watchdog: NodeJS.Timeout | undefined
  let restart: NodeJS.Timeout | undefined
  let millisecondsEach = 100
  let lastAnswer = 0

  attach(opened.child)

  function attach(child: ChildProcess): void {
    child.on('message', (message: FromHost) => settle(message))
    child.once('exit', (code, signal) => down(child, signal ?? `exit code ${code}`))
  }

  function submit(message: (id: number) => ToHost, signal?: AbortSignal): Promise<Extract<FromHost, { kind: 'answer' | 'picture' }>> {
    if (closed) return Promise.reject(new Failure('server_closing'))
    if (!ready && resumesAt > Date.now())
      return Promise.reject(new Failure('model_restarting', { seconds: Math.max(1, Math.ceil((resumesAt - Date.now()) / 1000)) }))
    if (waiting.length >= maxWaiting) {
      const seconds = Math.max(1, Math.ceil((waiting.length * millisecondsEach) / 1000))
      return Promise.reject(new Failure('overloaded', { seconds }))
    }
    return new Promise((resolve, reject) => {
      const id = nextId++
      const timer = setTimeout(() => giveUp(job, new Failure('prediction_timeout', { seconds: deadline / 1000 })), deadline)
      const job: Job = { id, message: message(id), downs: 0, timer, done: false, resolve, reject }
      signal?.addEventListener('abort', () => giveUp(job, new Failure('request_invalid')), { once: true })
      waiting.push(job)
      dispatch()
    })
  }

  /** The host is not told: what it has begun it ends, and its answer finds nobody. */
  function giveUp(job: Job, failure: Failure): void {
    const at = waiting.indexOf(job)
    if (at >= 0) waiting.splice(at, 1)
    finish(job).reject(failure)
  }
  function finish(job: Job): Job {
    clearTimeout(job.timer)
    job.done = true
    return job
  }

  function dispatch(): void {
    while (ready && waiting.length && running.size < AHEAD) {
      // whoever was there when a host went down goes alone: if it is the reason, it takes nobody with it again
      const alone = waiting[0]!.downs > 0 || [...running.values()].some(job => job.downs > 0)
      if (alone && running.size > 0) return
      const job = waiting.shift()!
      running.set(job.id, job)
      if (running.size === 1) {
        lastAnswer = Date.now()
        watch()
      }
      opened.child.send(job.message, error => {
        if (error) opened.child.kill('SIGKILL') // the channel is gone; `exit` puts the work back
      })
    }
  }

  function settle(message: FromHost): void {
    if (message.kind === 'ready' || message.kind === 'refused') return // `openHost` takes these
    const job = running.get(message.id)
    if (!job) return
    running.delete(message.id)
    crashes = 0
    const now = Date.now()
    millisecondsEach += (now - lastAnswer - millisecondsEach) * 0.1
    lastAnswer = now
    finish(job)
    if (message.kind === 'failed') job.reject(Failure.received(message.failure))
    else job.resolve(message)
    watch()
    dispatch()
  }

  function watch(): void {
    clearTimeout(watchdog)
    if (running.size === 0) return
    watchdog = setTimeout(() => {
      onNotice(`The model has not answered for ${patience / 1000} s; it is ended and started again.`)
      opened.child.kill('SIGKILL')
    }, patience)
  }

  function down(child: ChildProcess, reason: string): void {
    if (closed || child !== opened.child) return
    ready = false
    clearTimeout(watchdog)
    crashes++
    const pause = crashes === 1 ? 0 : Math.min(MAX_PAUSE, 250 * 2 ** crashes)
    onNotice(`The model host ended (${reason}); starting it again${pause ? ` in ${pause / 1000} s` : ''}.${opened.lastWords()}`)
    const suspects = [...running.values()].filter(job => !job.done)
    running.clear()
    for (const job of suspects.reverse()) {
      if (++job.downs < 2) waiting.unshift(job)
      else finish(job).reject(new Failure('model_crashed'))
    }
    resumesAt = Date.now() + pause
    if (pause) refuseWaiting(new Failure('model_restarting', { seconds: Math.ceil(pause / 1000) }))
    restart = setTimeout(again, pause)
  }
  function refuseWaiting(failure: Failure): void {
    for (const job of waiting.splice(0)) finish(job).reject(failure)
  }

  async function again(): Promise<void> {
    try {
      const next = await openHost(options)
      if (closed) return void next.child.kill('SIGKILL')
      opened = next
      attach(next.child)
      ready = true
      restarts++
      onNotice('The model answers again.')
      dispatch()
    } catch (error) {
      if (closed) return
      crashes++
      const pause = Math.min(MAX_PAUSE, 250 * 2 ** crashes)
      resumesAt = Date.now() + pause
      onNotice(`The model did not start (${error instanceof Error ? error.message : error}); next try in ${pause / 1000} s.`)
      refuseWaiting(new Failure('model_restarting', { seconds: Math.ceil(pause / 1000) }))
      restart = setTimeout(again, pause)
    }
  }

  return {
    get model() {
      return opened.model
    },
    async predict(picture, { signal, formats = 'upload' } = {}) {
      const answer = await submit(id => ({ kind: 'predict', id, picture, formats }), signal)
      if (answer.kind !== 'answer') throw mixedUp()
      return answer
    },
    async explain(picture, { signal, formats = 'upload' } = {}) {
      const answer = await submit(id => ({ kind: 'explain', id, picture, formats }), signal)
      if (answer.kind !== 'answer' || !answer.explanation) throw mixedUp()
      return { ...answer, explanation: answer.explanation }
    },
    async thumbnail(picture, side) {
      const answer = await submit(id => ({ kind: 'thumbnail', id, picture, side }))
      if (answer.kind !== 'picture') throw mixedUp()
      return answer.bytes
    },
    state: () => ({ ready, waiting: waiting.length, running: running.size, restarts, pid: opened.child.pid }),
    async close() {
      closed = true
      clearTimeout(restart)
      clearTimeout(watchdog)
      for (const job of running.values()) finish(job).reject(new Failure('server_closing'))
      refuseWaiting(new Failure('server_closing'))
      const { child } = opened
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = new Promise(resolve => child.once('exit', resolve))
      child.kill('SIGKILL') // it holds nothing that would have to be written
      await gone
    },
  }
}

interface OpenedHost {
  child: ChildProcess
  model: OpenedModel
  /** The end of what it wrote to its standard error, for the operator. */
  lastWords(): string
}

async function openHost(options: ModelHostOptions): Promise<OpenedHost> {
  const { path, model, threads = availableParallelism(), startLimit = 60_000 } = options
  const { memoryLimit = Math.min(4 * 2 ** 30, totalmem() * 0.8) } = options
  // beside this file and with its ending: .ts in the repository, .js in the package
  const program = new URL(import.meta.url.replace(/[^/]*(\.\w+)$/, 'host$1'))
  // decoded pictures make much garbage outside the heap; collectors in threads of their own take the processors from the network:
  // p95 of a 640 × 480 JPEG at 224 on two cores 10.0 → 7.2 ms, p50 the same
  const execArgv = ['--single-threaded-gc']
  const child = fork(program, { serialization: 'advanced', execArgv, env: environment(), stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
  let words = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (words = (words + text).slice(-2000)))
  const tooLarge = watchMemory(child, memoryLimit)
  const lastWords = () => (tooLarge() ? `: ${tooLarge()}` : words.trim() ? `:\n${words.trim()}` : '')

  let limit: NodeJS.Timeout | undefined
  try {
    const opened = await new Promise<OpenedModel>((resolve, reject) => {
      limit = setTimeout(() => reject(notStarted(model, `it did not open within ${startLimit / 1000} s`)), startLimit)
      child.once('message', (message: FromHost) => {
        if (message.kind === 'ready') resolve(message.model)
        else reject(message.kind === 'refused' ? Failure.received(message.failure) : notStarted(model, 'it answered before it was asked'))
      })
      child.once('error', error => reject(notStarted(model, error.message)))
      child.once('exit', (code, signal) => reject(notStarted(model, `its process ended with ${signal ?? `code ${code}`}${lastWords()}`)))
      child.send({ kind: 'open', path, model, threads } satisfies ToHost, error => error && reject(notStarted(model, error.message)))
    })
    return { child, model: opened, lastWords }
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  } finally {
    clearTimeout(limit)
  }
}

/** What a runtime needs and nothing else: a process that reads strangers' pictures has no use for this one's secrets. */
function environment(): NodeJS.ProcessEnv {
  const needed =
    /^(PATH|HOME|TMPDIR|TEMP|TMP|LANG|LC_\w+|LD_LIBRARY_PATH|DYLD_\w+|SYSTEMROOT|WINDIR|NODE_\w+|OMP_\w+|VIPS_\w+|MALLOC_\w+)$/i
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => needed.test(name)))
}

const mixedUp = () => new Failure('internal', { problem: 'the model host mixed up its answers' })
const notStarted = (model: string, problem: string) => new Failure('model_not_started', { model, problem })

/** Ends the process when it holds more than `limit` bytes. What comes back says so, or nothing as long as it has not happened. */
function watchMemory(child: ChildProcess, limit: number): () => string {
  let verdict = ''
  if (process.platform !== 'linux') return () => verdict // elsewhere the system's own limits have to do
  const timer = setInterval(async () => {
    const statm = await readFile(`/proc/${child.pid}/statm`, 'utf8').catch(() => '0 0')
    const bytes = Number(statm.split(' ')[1]) * 4096 // pages
    if (bytes <= limit || child.exitCode !== null || child.signalCode !== null) return
    verdict = `it held ${Math.round(bytes / 2 ** 20)} MiB; ${Math.round(limit / 2 ** 20)} are allowed`
    child.kill('SIGKILL')
  }, MEMORY_CHECK)
  timer.unref()
  child.once('exit', () => clearInterval(timer))
  return () => verdict
}
