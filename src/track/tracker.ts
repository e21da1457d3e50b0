/**
 * `plinth/track`: what a training in TypeScript logs. Each call is in a file of the home when it returns (track/spool.ts) and on its way to
 * the server a moment later. Nothing here throws into a training, waits for a network or keeps a process alive; an outage of the server,
 * however long, costs nothing.
 *
 *     const run = await startRun({ experiment: 'digits', params: { lr: 0.1 } })
 *     for (let step = 0; step < 1000 && !run.stopRequested; step++) run.metric('loss', train(), { step })
 *     await run.end()
 */
import { hostname, userInfo } from 'node:os'
import { basename } from 'node:path'
import { home as homePath, serverToken, serverUrl } from '../config.ts'
import { Failure } from '../failure.ts'
import { findServer, loginToken, publicId, type ServerChoice } from './find-server.ts'
import {
  type By,
  besides,
  type End,
  type Line,
  newRunId,
  openSpool,
  removeSpool,
  type SpoolWriter,
  spoolFolder,
  spoolFormat,
  spoolsIn,
} from './spool.ts'
import { takeUp } from './spool-replay.ts'
import { connectSpool, createDelivery, type Delivery, type SpoolServer } from './spool-send.ts'
import { thisProcess } from './worker.ts'

export interface RunOptions {
  /** Its name; made where there is none. */
  experiment?: string
  name?: string
  params?: Readonly<Record<string, unknown>>
  tags?: Readonly<Record<string, unknown>>
  /** Where the server is; otherwise $PLINTH_URL, otherwise the one that keeps the home. */
  url?: string
  /** Otherwise $PLINTH_TOKEN, otherwise what `plinth login` keeps for the server; for that of the home, the home's. */
  token?: string
  /** The home; otherwise $PLINTH_HOME, otherwise ~/.plinth. */
  directory?: string
}

export type EndStatus = 'succeeded' | 'failed' | 'cancelled'

export interface ActiveRun extends AsyncDisposable {
  readonly id: string
  /** The file that everything is written to first. */
  readonly log: string
  /** Somebody has stopped the run: a good moment to save and end it. */
  readonly stopRequested: boolean
  /** `step`: otherwise how many of this name there were before. `time`: milliseconds since 1970, otherwise now. */
  metric(name: string, value: number, options?: { step?: number; time?: number }): void
  metrics(values: Readonly<Record<string, number>>, options?: { step?: number; time?: number }): void
  /** A param keeps its first value; another one is warned of and not taken. Anything but text is written as JSON. */
  params(values: Readonly<Record<string, unknown>>): void
  tags(values: Readonly<Record<string, unknown>>): void
  /** Once; later calls change nothing. Resolves when the server knows, or after `wait` milliseconds: then it learns later. Never rejects. */
  end(status?: EndStatus, options?: { reason?: string; wait?: number }): Promise<void>
  /** Resolves when all so far has arrived (true), or cannot for now (false). Never rejects. */
  flush(wait?: number): Promise<boolean>
  /** `await using`: a run that was not ended before has failed, since only its last line knows that it went well. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Milliseconds: how often the server hears that the run lives; between a line and its sending; the longest pause after failures. */
const beat = 3_000
const gather = 200
const longestPause = 30_000

const longest = { key: 250, param: 6_000, tag: 8_000, name: 500, reason: 200 }
/** Points of one line at most. */
const mostInLine = 500

/** Never rejects: without a server, a home or a disk the training goes on, and stderr says once what is missing. */
export async function startRun(options: RunOptions = {}): Promise<ActiveRun> {
  const id = newRunId()
  const home = options.directory ?? homePath()
  const folder = spoolFolder(home)
  const warn = warner(id)
  const writer = openSpool(folder, id, error =>
    warn(
      'disk',
      `its log cannot be written (${error.code ?? error.message}): what it logs is kept in memory until it can, the newest 10,000 lines`,
    ),
  )
  const url = addressIn(options.url || serverUrl() || null, warn)
  const token = options.token || serverToken() || (url === null ? null : await loginToken(url))
  const recorder = createRecorder(writer, warn)
  const name = options.name === undefined ? null : text(options.name, longest.name)
  recorder.write({
    start: {
      run: id,
      experiment: { name: text(options.experiment ?? 'Default', longest.name) || 'Default' },
      name: name === '' ? null : name,
      started: Date.now(),
      tags: { ...context(), ...recorder.pairs(options.tags ?? {}, longest.tag) },
    },
    by: { worker: thisProcess(), url, token: token === null ? null : publicId(token) },
    format: spoolFormat,
  })
  if (options.params) recorder.params(options.params)
  const sender = createSender({
    writer,
    choice: { home, url, token },
    warn,
    log: besides(writer.spool, 'jsonl'),
    onDone: () => open.delete(run),
  })

  const end = (status: EndStatus, reason: string | null): boolean => {
    if (!recorder.end({ status, reason: reason === null ? null : text(reason, longest.reason), at: Date.now() })) return false
    return true
  }
  const run: ActiveRun & Ending = {
    id,
    log: besides(writer.spool, 'jsonl'),
    get stopRequested() {
      return sender.stopRequested
    },
    metric(name, value, options) {
      recorder.metrics([[name, value]], options)
      sender.wake()
    },
    metrics(values, options) {
      recorder.metrics(values, options)
      sender.wake()
    },
    params(values) {
      recorder.params(values)
      sender.wake()
    },
    tags(values) {
      recorder.tags(values)
      sender.wake()
    },
    async end(status = 'succeeded', { reason, wait = 5_000 } = {}) {
      if (end(status, reason ?? null)) await sender.flush(wait)
    },
    flush: (wait = 5_000) => sender.flush(wait),
    [Symbol.asyncDispose]: () => run.end('failed', { reason: 'not ended' }),
    endNow: end,
    sayWhereItIs: sender.sayWhereItIs,
  }
  watch(run)
  sender.wake()
  return run
}

// ── what is written ─────────────────────────────────────────────────────────────────────────────────────────────────────────

type Warn = (about: string, problem: string) => void

/** Each kind of problem is said once a run; the training's own output stays readable. */
function warner(run: string): Warn {
  const said = new Set<string>()
  return (about, problem) => {
    if (said.has(about) || said.size > 20) return
    said.add(about)
    try {
      process.stderr.write(`plinth: run ${run.slice(0, 8)}: ${problem.replace(/[\0-\x1f\x7f]/g, ' ')}\n`)
    } catch {
      // nobody listens
    }
  }
}

/** What no database keeps is replaced: halves of letters, and NUL. */
const text = (value: unknown, most: number): string => asText(value).toWellFormed().replaceAll('\0', '\ufffd').slice(0, most).toWellFormed()

function asText(value: unknown): string {
  if (typeof value === 'string') return value
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return typeof value === 'bigint' ? String(value) : Object.prototype.toString.call(value) // it contains itself, or will not be looked at
  }
}

function createRecorder(writer: SpoolWriter, warn: Warn) {
  const steps = new Map<string, number>()
  const known = new Map<string, string>()
  let ended = false

  const write = (line: Line) => {
    if (ended) return warn('ended', 'logged to after its end; that is not kept')
    writer.append(line)
  }
  const nameOf = (key: string): string | undefined => {
    const name = text(key, Number.POSITIVE_INFINITY)
    if (name !== '' && name.length <= longest.key) return name
    warn('name', `the name ${JSON.stringify(name.slice(0, 60))} is empty or longer than ${longest.key} characters; it is not kept`)
    return undefined
  }
  const pairs = (values: Readonly<Record<string, unknown>>, most: number): Record<string, string> =>
    Object.fromEntries(
      Object.entries(values).flatMap(([key, value]) => {
        const name = nameOf(key)
        return name === undefined || value === undefined ? [] : [[name, text(value, most)]]
      }),
    )
  /** Nothing that somebody logs may stop a training, whatever it is. */
  const guarded =
    <Args extends unknown[]>(work: (...args: Args) => void) =>
    (...args: Args) => {
      try {
        work(...args)
      } catch (error) {
        warn('unexpected', `something could not be logged: ${(error as Error)?.message}`)
      }
    }
  return {
    write,
    pairs,
    metrics: guarded((values: Readonly<Record<string, number>> | [string, number][], given?: { step?: number; time?: number }) => {
      const { step, time } = given ?? {}
      const at = time === undefined ? Date.now() : Math.trunc(time)
      if (!(Number.isSafeInteger(at) && at >= 0))
        return warn('time', `${asText(time)} is no time in milliseconds since 1970; that is not kept`)
      if (step !== undefined && !Number.isSafeInteger(step))
        return warn('step', `the step ${asText(step)} is no whole number; that is not kept`)
      /** By step: names that were not given one count for themselves. */
      const lines = new Map<number, Record<string, number | 'NaN' | 'Infinity' | '-Infinity'>[]>()
      for (const [key, given] of Array.isArray(values) ? values : Object.entries(values)) {
        const value = typeof given === 'bigint' || typeof given === 'boolean' ? Number(given) : given
        const name = nameOf(key)
        if (typeof value !== 'number') warn('value', `the value of ${asText(key)} is no number; that is not kept`)
        else if (name !== undefined) {
          const own = step ?? steps.get(name) ?? 0
          steps.set(name, own + 1)
          const parts = lines.get(own) ?? [{}]
          if (Object.keys(parts.at(-1)!).length >= mostInLine) parts.push({})
          parts.at(-1)![name] = Number.isFinite(value) ? value : (String(value) as 'NaN')
          lines.set(own, parts)
        }
      }
      for (const [step, parts] of lines) for (const part of parts) if (Object.keys(part).length > 0) write({ metrics: part, step, at })
    }),
    params: guarded((values: Readonly<Record<string, unknown>>) => {
      const fresh = Object.entries(pairs(values, longest.param)).filter(([key, value]) => {
        const before = known.get(key)
        if (before !== undefined && before !== value) warn(`param ${key}`, `the param ${key} stays ${before}; ${value} is not taken`)
        if (before === undefined) known.set(key, value)
        return before === undefined
      })
      for (let at = 0; at < fresh.length; at += 100) write({ params: Object.fromEntries(fresh.slice(at, at + 100)) })
    }),
    tags: guarded((values: Readonly<Record<string, unknown>>) => {
      const entries = Object.entries(pairs(values, longest.tag))
      for (let at = 0; at < entries.length; at += 100) write({ tags: Object.fromEntries(entries.slice(at, at + 100)) })
    }),
    /** Answers whether it was the first end. */
    end(end: End): boolean {
      if (ended) return false
      if (writer.lost > 0) write({ tags: { 'plinth.lost_lines': String(writer.lost) } })
      write({ end })
      ended = true
      writer.flush()
      return true
    },
  }
}

/** A training is not stopped by a mistyped address: its log goes to the server of the home. */
function addressIn(url: string | null, warn: Warn): string | null {
  if (url === null || (URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) return url
  warn('url', `${asText(url).slice(0, 200)} is no address of a server; the one of this home is used`)
  return null
}

/** Who and what ran, under the names that MLflow gives them. */
function context(): Record<string, string> {
  const tags: Record<string, string> = { 'mlflow.source.type': 'LOCAL', 'plinth.host': hostname() }
  if (process.argv[1]) tags['mlflow.source.name'] = basename(process.argv[1])
  try {
    tags['mlflow.user'] = userInfo().username
  } catch {
    // a container's user may have no name
  }
  return tags
}

// ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Sender {
  wake(): void
  flush(wait: number): Promise<boolean>
  readonly stopRequested: boolean
  /** For a process that ends before all has arrived. */
  sayWhereItIs(): void
}

interface SenderOptions {
  writer: SpoolWriter
  choice: ServerChoice
  warn: Warn
  log: string
  onDone(): void
}

function createSender({ writer, choice, warn, log, onDone }: SenderOptions): Sender {
  let delivery: Delivery | null = null
  let server: SpoolServer | null = null
  let address: { url: string; token: string | undefined } | null = null
  let failures = 0
  let stopRequested = false
  let done = false
  let timer: NodeJS.Timeout | undefined
  let due = Number.POSITIVE_INFINITY
  let working: Promise<boolean> | null = null
  let asked = false
  let leftTaken = false

  const schedule = (pause: number) => {
    const at = Date.now() + pause
    if (done || at >= due) return
    clearTimeout(timer)
    due = at
    timer = setTimeout(() => void turn(), pause).unref()
  }

  const connect = async (): Promise<Delivery | null> => {
    const found = await findServer(choice)
    if (!found) {
      const kept = writer.waiting.length > 0 ? 'is kept in memory only' : `is written to ${log}; plinth up will take it up`
      warn('server', `no server keeps this home, so what it logs ${kept}`)
      return null
    }
    if (found.url !== address?.url || found.token !== address?.token || !delivery) {
      address = found
      server = connectSpool(found)
      delivery = createDelivery(writer.spool, server, {
        alive: true,
        memory: writer,
        onRefused: ({ code, message }) => warn(code, `the server does not take something: ${message}`),
      })
    }
    return delivery
  }

  /** Answers whether all has arrived. */
  const work = async (): Promise<boolean> => {
    asked = false
    try {
      const delivery = await connect()
      if (!delivery) {
        schedule(jittered(2_000))
        return false
      }
      await delivery.send()
      failures = 0
      if (!leftTaken && choice.url !== null) {
        leftTaken = true
        void takeUpLeft(server!)
      }
      if (delivery.ended) {
        done = true
        clearInterval(pulse)
        writer.close()
        await removeSpool(writer.spool)
        onDone()
      }
      return true
    } catch (error) {
      failures++
      if (error instanceof Failure) explain(error)
      schedule(jittered(Math.min(longestPause, gather * 2 ** failures)))
      return false
    }
  }
  /** No `plinth up` looks after logs for a server elsewhere: the next run for it sends what dead ones left. */
  const takeUpLeft = async (server: SpoolServer) => {
    const id = address?.token === undefined ? null : publicId(address.token)
    const connect = async ({ url, token }: By) => (url === choice.url && (token === null || token === id) ? server : null)
    const quiet = { stopped: () => false, onRefused() {}, onHeld() {}, onSent() {} } // plinth spool list tells of them
    await takeUp(await spoolsIn(writer.spool.folder), connect, quiet).catch(() => {})
  }
  const explain = ({ code, status, message, next }: Failure) => {
    if (status === 401 || status === 403) warn(code, `the server does not let it in: ${message} ${next} What is logged is in ${log}`)
    else if (code === 'server_unreachable') warn(code, `${message} What is logged is in ${log} and is sent when it is back`)
    else if (failures > 2) warn(code, `what is logged is in ${log}; the server says: ${message} ${next}`)
  }
  const turn = (): Promise<boolean> => {
    clearTimeout(timer)
    due = Number.POSITIVE_INFINITY
    working ??= work().finally(() => {
      working = null
      if (asked && failures === 0 && !done) schedule(gather)
    })
    return working
  }
  const pulse = setInterval(() => {
    writer.touch()
    if (!delivery?.started || failures > 0) return
    server!.calls.beat({ run: writer.spool.run }).then(
      ({ status }) => {
        stopRequested ||= status === 'stopping' || status === 'cancelled'
      },
      () => {}, // the next turn says what is wrong
    )
  }, beat).unref()

  return {
    wake() {
      asked = true
      if (!working && failures === 0) schedule(gather)
    },
    flush(wait) {
      const { promise, resolve } = Promise.withResolvers<boolean>()
      const limit = setTimeout(resolve, wait, false) // keeps the process alive for as long
      const arrive = async () => {
        await working // it may have read the log before the last line
        return done || (await turn())
      }
      void arrive().then(resolve)
      return promise.finally(() => clearTimeout(limit))
    },
    get stopRequested() {
      return stopRequested
    },
    sayWhereItIs() {
      if (done) return
      const who = choice.url === null ? 'plinth up' : 'the next run for that server, or plinth spool send,'
      warn('server', `not all of it has arrived; it is in ${log}, and ${who} will take it up`)
    },
  }
}

const jittered = (pause: number): number => pause * (0.5 + Math.random() / 2)

// ── ends that nobody wrote ──────────────────────────────────────────────────────────────────────────────────────────────────

interface Ending {
  endNow(status: EndStatus, reason: string | null): boolean
  sayWhereItIs(): void
}
const open = new Set<Ending>()
let watching = false

/** A process that still can says how its runs ended; what it could not send is taken up by the server of the home. */
function watch(run: Ending): void {
  open.add(run)
  if (watching) return
  watching = true
  const endAll = (status: EndStatus, reason: string | null) => {
    for (const run of open) run.endNow(status, reason)
  }
  process.on('uncaughtExceptionMonitor', error => endAll('failed', error?.name ?? 'exception'))
  process.on('exit', code => {
    endAll(code === 0 ? 'succeeded' : 'failed', code === 0 ? null : `exit ${code}`)
    for (const run of open) run.sayWhereItIs()
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    const ours = () => {
      // somebody else listens too: that program decides what the signal means, and ends its runs
      if (process.listenerCount(signal) > 1) return
      endAll('cancelled', signal)
      for (const run of open) run.sayWhereItIs()
      process.removeListener(signal, ours)
      process.kill(process.pid, signal)
    }
    process.on(signal, ours)
  }
}
