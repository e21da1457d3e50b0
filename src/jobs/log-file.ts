/**
 * The log of an attempt as files, and how it is read.
 *
 *     log               the beginning; offset 0
 *     log.<offset>      the end, in pieces, each named by the offset of its first byte
 *     log.index         line and offset of about every 1,000th line, two unsigned 64-bit numbers each
 *
 * A line is `<milliseconds since 1970> <o|e|p> <text>\n` in UTF-8: standard output, standard error, Plinth. Lines are cut at 64 KiB; what
 * follows is the next line. Offsets count all bytes that were ever written, so a reader goes on where it was, whatever has been dropped.
 * When a log grows over its limit, its middle goes: what a script says of its settings comes first, what it died of comes last.
 *
 * Only node: modules are imported: the shim writes with it.
 */
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** Bytes of a line's text. */
export const lineLimit = 64 * 1024
/** Lines between two entries of the index, at least. */
export const indexEvery = 1000
/** Bytes of an entry: line, offset. */
export const indexEntry = 16
/** Milliseconds between two looks at a log that somebody follows. */
const pollEvery = 50

export interface Segment {
  start: number
  path: string
}

export const segmentPath = (folder: string, start: number): string => join(folder, start === 0 ? 'log' : `log.${start}`)

/** Of the names in an attempt's folder, those of the log's pieces, in order. */
export const segmentsAmong = (folder: string, names: readonly string[]): Segment[] =>
  names
    .flatMap(name => (name === 'log' ? [0] : /^log\.\d+$/.test(name) ? [Number(name.slice(4))] : []))
    .sort((a, b) => a - b)
    .map(start => ({ start, path: segmentPath(folder, start) }))

export interface LogRead {
  bytes: Uint8Array
  next: number
  end: boolean
}

/**
 * At most about `limit` bytes from `offset`, whole lines where one ends within them. With `follow` it waits until there are some, the log
 * has ended, or `signal` aborts. `ended`: whether the writer is done.
 */
export async function readLogFile(
  folder: string,
  {
    offset,
    limit,
    follow,
    signal,
    ended,
  }: { offset: number; limit: number; follow: boolean; signal: AbortSignal; ended(): Promise<boolean> },
): Promise<LogRead> {
  for (;;) {
    const over = await ended() // asked first: what was written before the end is read after it
    const { bytes, next, last } = await readFrom(folder, offset, limit)
    if (bytes.length > 0 || over || !follow || signal.aborted) return { bytes, next, end: over && last }
    await delay(pollEvery, undefined, { signal }).catch(() => {}) // aborted: the loop looks once more and ends
  }
}

/** `last`: nothing stands behind what was read. */
async function readFrom(folder: string, offset: number, limit: number): Promise<{ bytes: Uint8Array; next: number; last: boolean }> {
  for (;;) {
    const segments = segmentsAmong(
      folder,
      await readdir(folder).catch(() => []), // nothing was started yet
    )
    const at = segments.findLastIndex(({ start }) => start <= offset)
    const segment = segments[at]
    if (!segment) return { bytes: new Uint8Array(), next: 0, last: true }
    const following = segments[at + 1]
    const file = await open(segment.path).catch(() => null)
    if (!file) continue // dropped meanwhile
    try {
      const { size } = await file.stat()
      const within = offset - segment.start
      if (within >= size) {
        if (!following) return { bytes: new Uint8Array(), next: segment.start + size, last: true }
        // between two pieces: nothing, or what was dropped
        const dropped = following.start - Math.max(offset, segment.start + size)
        if (dropped > 0) return { bytes: droppedLine(dropped), next: following.start, last: false }
        offset = following.start
        continue
      }
      const buffer = Buffer.allocUnsafe(Math.min(Math.max(limit, 1), size - within))
      const { bytesRead } = await file.read(buffer, 0, buffer.length, within)
      const whole = within + bytesRead < size ? buffer.lastIndexOf(10, bytesRead - 1) + 1 || bytesRead : bytesRead
      return { bytes: buffer.subarray(0, whole), next: offset + whole, last: !following && within + whole >= size }
    } finally {
      await file.close()
    }
  }
}

const droppedLine = (bytes: number): Uint8Array =>
  Buffer.from(`${Date.now()} p ${bytes} bytes of output stood here: a log keeps its beginning and its end\n`)

/**
 * Where line `line` begins, counted from 0; negative: counted from the end, so that -10 is where the last ten begin. Beyond the log: its
 * end; before it: 0.
 */
export async function offsetOfLine(folder: string, line: number): Promise<number> {
  if (line < 0) line = Math.max(0, (await countLines(folder)) + line)
  const entry = (await readIndex(folder)).findLast(each => each.line <= line) ?? { line: 0, offset: 0 }
  return (await walkLines(folder, entry, line)).offset
}

const countLines = async (folder: string): Promise<number> => {
  const last = (await readIndex(folder)).at(-1) ?? { line: 0, offset: 0 }
  return (await walkLines(folder, last, Number.POSITIVE_INFINITY)).line
}

/** From an entry of the index on to a line, over what is kept. */
async function walkLines(folder: string, { line, offset }: { line: number; offset: number }, to: number) {
  while (line < to) {
    const { bytes, next } = await readFrom(folder, offset, 1 << 20)
    if (bytes.length === 0) break
    // what stands for a dropped part is no line of the log
    if (next - offset === bytes.length)
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, end + 1))
        if (++line === to) return { line, offset: offset + end + 1 }
    offset = next
  }
  return { line, offset }
}

const readIndex = async (folder: string) => readEntries(await readFile(join(folder, 'log.index')).catch(() => Buffer.alloc(0)))

export const readEntries = (bytes: Buffer): { line: number; offset: number }[] =>
  Array.from({ length: Math.floor(bytes.length / indexEntry) }, (_, i) => ({
    line: Number(bytes.readBigUInt64LE(i * indexEntry)),
    offset: Number(bytes.readBigUInt64LE(i * indexEntry + 8)),
  }))
