/**
 * Writes the log of an attempt (format: log-file.ts) from the raw bytes that processes print, in constant memory whatever they print.
 * A `\r` ends a line too, but of lines that were overwritten this way only one a second is kept: a progress bar is no novel.
 */
import { isUtf8 } from 'node:buffer'
import { closeSync, fstatSync, ftruncateSync, openSync, readdirSync, readFileSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { indexEntry, indexEvery, lineLimit, readEntries, segmentPath, segmentsAmong } from '../../log-file.ts'

export interface LogWriter {
  /** For one stream of one process. `prefix` says which process, where there are several. */
  sink(stream: 'o' | 'e', prefix: () => string): Sink
  /** What Plinth says. */
  say(text: string): void
  /** Called about once a second: progress that was held back becomes visible. */
  tick(): void
  /** Lines that could not be written so far, and the system's code for why. */
  lost(): { lines: number; code: string } | null
  /** The last lines of standard error, for a message. */
  lastErrors(): readonly string[]
  close(): void
}
export interface Sink {
  /** The bytes may be overwritten after the call. */
  feed(bytes: Buffer): void
  /** What stands without a line end becomes a line. */
  end(): void
}
export interface LogOptions {
  /** Bytes that are kept: the first half is the beginning, the rest the end. */
  limit: number
  /** Values that are replaced by ***. */
  secrets: readonly string[]
  /** Sees whole lines, secrets taken out; one byte a character. */
  inspect(text: string, lines: number): void
}

/** Milliseconds between two kept lines that `\r` ended. */
const overwriteEvery = 1000
/** A secret shorter than this would blacken half the log. */
export const shortestSecret = 4
/** Pieces that the end of a long log consists of; the oldest goes when another begins. */
const tailPieces = 4

export function openLog(folder: string, options: LogOptions): LogWriter {
  const { limit, inspect } = options
  const { redact, longest } = redactor(options.secrets)
  const sinks: { tick(): void }[] = []
  const index = openSync(join(folder, 'log.index'), 'a', 0o600)
  let { start, lines, indexed } = resume(folder, index)
  let file = openSync(segmentPath(folder, start), 'a', 0o600)
  let size = fstatSync(file).size
  const gone = { lines: 0, told: 0, code: '' }
  let errors: string[] = []

  const before = readEnd(segmentPath(folder, start), size)
  if (size > 0 && !before.endsWith('\n')) append('\n', 1) // whoever wrote before was killed in the middle
  const said = before.split('\n').flatMap(line => /^\d+ [oe] .*$/.exec(line)?.[0].slice(14) ?? [])
  inspect(said.map(line => line.slice(2)).join('\n'), said.length)
  errors = said
    .filter(line => line.startsWith('e '))
    .map(line => Buffer.from(line.slice(2), 'latin1').toString())
    .slice(-20)

  function append(text: string, count: number): void {
    if (size >= (start === 0 ? limit / 2 : limit / 2 / tailPieces)) nextSegment()
    if (gone.lines > gone.told && write(`${Date.now()} p ${gone.lines - gone.told} lines are missing here: ${gone.code}\n`)) {
      gone.told = gone.lines
      lines++
    }
    if (lines >= indexed + indexEvery) {
      const entry = Buffer.alloc(indexEntry)
      entry.writeBigUInt64LE(BigInt(lines))
      entry.writeBigUInt64LE(BigInt(start + size), 8)
      try {
        writeSync(index, entry)
      } catch {} // a full disk: the next entry is further away
      indexed = lines
    }
    if (write(text)) lines += count
    else gone.lines += count
  }

  /** All of it or nothing; one byte a character. */
  function write(text: string): boolean {
    let done = 0
    try {
      while (done < text.length) done += writeSync(file, done === 0 ? text : text.slice(done), null, 'latin1')
      size += done
      return true
    } catch (error) {
      gone.code = (error as NodeJS.ErrnoException).code ?? String(error)
      if (done > 0) ftruncateSync(file, size)
      return false
    }
  }

  function nextSegment(): void {
    try {
      const next = openSync(segmentPath(folder, start + size), 'a', 0o600)
      closeSync(file)
      file = next
      start += size
      size = 0
      const tail = segmentsAmong(folder, readdirSync(folder)).slice(1)
      for (const { path } of tail.slice(0, -tailPieces)) unlinkSync(path)
    } catch (error) {
      gone.code = (error as NodeJS.ErrnoException).code ?? String(error) // the piece grows on until there is room for another
    }
  }

  /** `body`: lines, the last one without its end. */
  function addLines(stream: 'o' | 'e', prefix: string, body: Buffer): void {
    const valid = isUtf8(body) ? body : Buffer.from(body.toString()) // � for what is no UTF-8
    const text = redact(valid.toString('latin1'))
    const head = `${Date.now()} ${stream} ${prefix}`
    const out = `${head}${text.replaceAll('\n', `\n${head}`)}\n`
    const count = (out.length - text.length - 1) / head.length
    inspect(text, count)
    if (stream === 'e') errors = [...errors, ...Buffer.from(text.slice(-4000), 'latin1').toString().split('\n')].slice(-20)
    append(out, count)
  }

  return {
    sink(stream, prefix) {
      const sink = createSink(body => addLines(stream, prefix(), body), redact, longest)
      sinks.push(sink)
      return sink
    },
    say: text => append(`${Date.now()} p ${redact(Buffer.from(text.replaceAll('\n', ' ')).toString('latin1'))}\n`, 1),
    tick() {
      for (const sink of sinks) sink.tick()
    },
    lost: () => (gone.lines > 0 ? { lines: gone.lines, code: gone.code } : null),
    lastErrors: () => errors,
    close() {
      closeSync(file)
      closeSync(index)
    },
  }
}

/** Where the log ends: its last piece, its lines, and the line of the last entry of its index. */
function resume(folder: string, index: number): { start: number; lines: number; indexed: number } {
  const segments = segmentsAmong(folder, readdirSync(folder))
  const start = segments.at(-1)?.start ?? 0
  const entries = readFileSync(join(folder, 'log.index'))
  if (entries.length % indexEntry) ftruncateSync(index, entries.length - (entries.length % indexEntry))
  const last = readEntries(entries).at(-1) ?? { line: 0, offset: 0 }
  let lines = last.line
  for (const segment of segments) lines += newlines(segment.path, Math.max(0, last.offset - segment.start))
  return { start, lines, indexed: last.line }
}

function newlines(path: string, from: number): number {
  const file = openSync(path, 'r')
  const buffer = Buffer.allocUnsafe(1 << 20)
  let count = 0
  for (let at = from; ; ) {
    const read = readSync(file, buffer, 0, buffer.length, at)
    if (read === 0) break
    at += read
    for (let i = buffer.indexOf(10); i >= 0 && i < read; i = buffer.indexOf(10, i + 1)) count++
  }
  closeSync(file)
  return count
}

/** What stands at the end of a log already, one byte a character: as much as is needed to go on. */
function readEnd(path: string, size: number): string {
  const file = openSync(path, 'r')
  const end = Buffer.alloc(Math.min(size, lineLimit))
  readSync(file, end, 0, end.length, size - end.length)
  closeSync(file)
  return end.toString('latin1')
}

/** Cuts a stream of bytes into lines. `longest`: bytes that a cut leaves in hand, so that no secret is cut in two. */
function createSink(addLines: (body: Buffer) => void, redact: (text: string) => string, longest: number): Sink & { tick(): void } {
  let carry = Buffer.allocUnsafe(4096)
  let carried = 0
  /** A line that \r ended, held back because another was shown just now. */
  let held: Buffer | null = null
  let shown = Number.NEGATIVE_INFINITY
  let returned = false // the last byte was \r: the next one says whether a line ended with \r\n
  /** Lines of one feed, written together. */
  let batch = Buffer.allocUnsafe(4096)
  let batched = 0

  function add(line: Buffer): void {
    if (batched + line.length + 1 > batch.length) batch = enlarged(batch, batched, line.length + 1)
    line.copy(batch, batched)
    batched += line.length
    batch[batched++] = 10
  }

  function flush(): void {
    if (batched > 0) addLines(batch.subarray(0, batched - 1))
    batched = 0
  }

  function hold(bytes: Buffer): void {
    if (carried + bytes.length > carry.length) carry = enlarged(carry, carried, bytes.length)
    bytes.copy(carry, carried)
    carried += bytes.length
    while (carried > lineLimit + longest) cut()
  }

  /** The first part of a line that is too long; the rest stays in hand. */
  function cut(): void {
    const text = Buffer.from(redact(carry.toString('latin1', 0, carried)), 'latin1')
    let end = Math.min(lineLimit, text.length)
    while (end > lineLimit - 4 && end < text.length && (text[end]! & 0xc0) === 0x80) end-- // not within a character
    add(text.subarray(0, end))
    text.copy(carry, 0, end)
    carried = text.length - end
  }

  function finish(): void {
    if (carried > 0 || held === null) add(carry.subarray(0, carried))
    else add(held)
    carried = 0
    held = null
  }

  function overwritten(): void {
    if (carried === 0) return
    if (performance.now() - shown >= overwriteEvery) {
      add(carry.subarray(0, carried))
      shown = performance.now()
      held = null
    } else held = Buffer.from(carry.subarray(0, carried))
    carried = 0
  }

  function feedSlowly(bytes: Buffer): void {
    let at = 0
    if (returned) {
      returned = false
      if (bytes[0] === 10) {
        at = 1
        finish()
      } else overwritten()
    }
    let newline = bytes.indexOf(10, at)
    let back = bytes.indexOf(13, at)
    while (at < bytes.length) {
      if (newline >= 0 && newline < at) newline = bytes.indexOf(10, at)
      if (back >= 0 && back < at) back = bytes.indexOf(13, at)
      const end = newline < 0 ? back : back < 0 ? newline : Math.min(newline, back)
      hold(bytes.subarray(at, end < 0 ? bytes.length : end))
      if (end < 0) return
      at = end + 1
      if (end === newline) finish()
      else if (at === bytes.length) returned = true
      else if (bytes[at] === 10) {
        at++
        finish()
      } else overwritten()
    }
  }

  return {
    feed(bytes) {
      const first = bytes.indexOf(10)
      const short = bytes.length <= lineLimit && carried + first <= lineLimit
      const plain = first >= 0 && short && !returned && held === null && !bytes.includes(13)
      if (!plain) {
        feedSlowly(bytes)
        flush()
        return
      }
      const last = bytes.lastIndexOf(10)
      if (carried > 0) {
        hold(bytes.subarray(0, first))
        finish()
        if (last > first) add(bytes.subarray(first + 1, last))
        flush()
      } else addLines(bytes.subarray(0, last))
      hold(bytes.subarray(last + 1))
    },
    end() {
      if (returned) overwritten()
      returned = false
      if (carried > 0 || held !== null) finish()
      flush()
    },
    tick() {
      if (held === null || performance.now() - shown < overwriteEvery) return
      add(held)
      flush()
      held = null
      shown = performance.now()
    },
  }
}

function enlarged(buffer: Buffer, used: number, more: number): Buffer<ArrayBuffer> {
  const larger = Buffer.allocUnsafe(2 * (used + more))
  buffer.copy(larger, 0, 0, used)
  return larger
}

/** Every secret in each form that it is commonly printed in becomes ***; of one with several lines each line. Takes and gives latin1. */
export function redactor(secrets: readonly string[]): { redact(text: string): string; longest: number } {
  const forms = secrets
    .flatMap(secret => [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1), ...secret.split(/\r?\n/)])
    .filter(form => form.length >= shortestSecret && !/[\r\n]/.test(form))
  const needles = [...new Set(forms)].sort((a, b) => b.length - a.length).map(form => Buffer.from(form).toString('latin1'))
  return {
    longest: needles[0]?.length ?? 0,
    redact(text) {
      for (const needle of needles) if (text.includes(needle)) text = text.replaceAll(needle, '***')
      return text
    },
  }
}
