/**
 * What the server says about itself: one JSON object a line, in UTC, for programs; short lines on a terminal. Secrets are masked here and
 * nowhere else. Keeping a log never holds a request up and never stops the server: what cannot be written is counted and left out.
 */
import { type FileHandle, open, rename, stat } from 'node:fs/promises'
import { Failure } from '../failure.ts'

export type Level = 'info' | 'warn' | 'error'
export type Fields = Readonly<Record<string, unknown>>

export interface Log {
  info(event: string, fields?: Fields): void
  warn(event: string, fields?: Fields): void
  error(event: string, fields?: Fields): void
  /** Lines that could not be written. */
  readonly dropped: number
  /** Everything said so far is written when it resolves. */
  close(): Promise<void>
}

/** Where lines go. `write` answers at once, and false for a line that had to be left out. */
export interface Sink {
  write(line: string): boolean
  close(): Promise<void>
}

export function createLog(sink: Sink, { plain = false } = {}): Log {
  let dropped = 0
  const say = (level: Level, event: string, fields: Fields = {}) => {
    const line = plain ? plainLine(level, event, fields) : jsonLine(level, event, fields)
    if (!sink.write(`${line}\n`)) dropped++
  }
  return {
    info: (event, fields) => say('info', event, fields),
    warn: (event, fields) => say('warn', event, fields),
    error: (event, fields) => say('error', event, fields),
    get dropped() {
      return dropped
    },
    close: () => sink.close(),
  }
}

export const silentLog: Log = createLog({ write: () => true, close: async () => {} })

/** To `file`, or to stderr: short lines for somebody who watches, JSON for programs, nothing with `quiet`. */
export async function openLog({ file, quiet = false }: { file?: string | undefined; quiet?: boolean }): Promise<Log> {
  if (file !== undefined) {
    try {
      return createLog(await fileSink(file))
    } catch (error) {
      throw new Failure('log_file', { path: file, problem: (error as NodeJS.ErrnoException).code ?? String(error) }, { cause: error })
    }
  }
  return quiet ? silentLog : createLog(streamSink(process.stderr), { plain: process.stderr.isTTY === true })
}

// ── lines ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** {"time":"2026-11-25T10:31:02.123Z","level":"info","event":"request","request":"9f…","method":"GET",…} */
export function jsonLine(level: Level, event: string, fields: Fields, now = new Date()): string {
  return JSON.stringify({ time: now.toISOString(), level, event, ...fields }, withoutSecrets)
}

const withoutSecrets = (key: string, value: unknown) =>
  secretKey.test(key) ? '…' : value instanceof Error ? aboutError(value) : typeof value === 'string' ? masked(value) : value

/** 10:31:02 GET /api/runs/:run 200 3 ms owner */
export function plainLine(level: Level, event: string, fields: Fields, now = new Date()): string {
  const { error, request, method, route, status, ms, user, address, ...rest } = fields
  const time = now.toTimeString().slice(0, 8)
  const what =
    event === 'request' ? [method, route, status, `${Math.round(Number(ms))} ms`, user ?? ''].join(' ').trimEnd() : `${level} ${event}`
  const shown = (value: unknown) =>
    typeof value === 'object' && !(value instanceof Error) ? JSON.stringify(value, withoutSecrets) : String(value)
  const more = Object.entries(rest).map(([key, value]) => `${key}=${secretKey.test(key) ? '…' : shown(value)}`)
  const problem = error instanceof Error ? [`— ${error.message}`] : []
  return masked([time, what, ...more, ...problem].join(' ')).replace(/[\0-\x1f\x7f-\x9f]/g, ' ')
}

const aboutError = (error: Error) => ({
  code: (error as NodeJS.ErrnoException).code,
  message: error.message,
  stack: error.stack
    ?.split('\n')
    .slice(1, 12)
    .map(line => line.trim()),
  cause: error.cause instanceof Error ? error.cause.message : undefined,
})

const secretKey = /^(authorization|cookie|password|secret|token)$/i

/** Our tokens keep their public half, so that a line can be led back to one; passwords in addresses and other bearers go. */
export const masked = (text: string): string =>
  text
    .replace(/\b(plinth_[0-9a-f]{12}_)[\w-]+/g, '$1…')
    .replace(/\b(Bearer|Basic) +[^\s"']+/gi, '$1 …')
    .replace(/(\w:\/\/[^\s/:@]*):[^\s/@]*@/g, '$1:…@')

// ── where they go ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** To a stream that nobody may be reading: what waits is bounded. */
export function streamSink(stream: NodeJS.WritableStream & { writableLength: number }, { most = 4 * 2 ** 20 } = {}): Sink {
  stream.on('error', () => {}) // closed by who read it
  return {
    write(line) {
      if (stream.writableLength > most) return false
      stream.write(line)
      return true
    },
    close: async () => {},
  }
}

/**
 * To a file, for its user alone, gathered for a fraction of a second. When it is as large as `bytes` it becomes `path.1`, that one
 * `path.2`, … and the oldest of `keep` goes. throws the system's error where the file cannot be opened
 */
export async function fileSink(path: string, { bytes = 16 * 2 ** 20, keep = 5, every = 200 } = {}): Promise<Sink> {
  let file: FileHandle = await open(path, 'a', 0o600)
  let size = (await stat(path)).size
  let waiting: string[] = []
  let waitingBytes = 0
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> = Promise.resolve()

  const rotate = async () => {
    await file.close()
    for (let i = keep - 1; i >= 1; i--) await rename(i === 1 ? path : `${path}.${i - 1}`, `${path}.${i}`).catch(() => {})
    file = await open(path, keep > 1 ? 'a' : 'w', 0o600)
    size = (await stat(path)).size
  }
  const flush = async () => {
    const text = waiting.join('')
    waiting = []
    waitingBytes = 0
    if (text === '') return
    if (size > 0 && size + text.length > bytes) await rotate()
    await file.appendFile(text)
    size += Buffer.byteLength(text)
  }
  const start = () => {
    clearTimeout(timer)
    timer = undefined
    writing = writing.then(flush).catch(() => {}) // a full disk: the lines are gone, the server goes on
  }
  return {
    write(line) {
      if (waitingBytes > 4 * 2 ** 20) return false
      waiting.push(line)
      waitingBytes += line.length
      if (waitingBytes > 64 * 1024) start()
      else timer ??= setTimeout(start, every).unref()
      return true
    },
    async close() {
      start()
      await writing
      await file.close()
    },
  }
}
