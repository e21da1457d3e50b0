/** A run's metrics: one JSON line a log call, only appended to, so that a kill can at most tear the last line. */
import { closeSync, fdatasyncSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { Failure } from '../failure.ts'
import type { Run } from '../sdk/index.ts'
import { storageFailure } from '../storage/disk.ts'

export interface MetricPoint {
  step: number
  /** Milliseconds since 1970. */
  time: number
  values: Run['metrics']
}

export interface MetricLog {
  /** Bytes of whole lines so far. */
  readonly bytes: number
  /** In the file when it returns: a kill of this process loses nothing. Answers what was written. throws metric_invalid, disk_full */
  append(step: number, values: Readonly<Record<string, number>>): Run['metrics']
  /** Makes what was appended survive a power cut too. */
  flush(): void
  close(): void
}

/** For the one process that works on the run. Ends a line that an earlier one left torn. */
export function openMetricLog(file: string): MetricLog {
  const handle = opened(file)
  let bytes = fstatSync(handle).size
  const write = (text: string) => {
    const line = Buffer.from(text)
    try {
      for (let done = 0; done < line.length; ) done += writeSync(handle, line, done)
      bytes += line.length
    } catch (error) {
      ftruncateSync(handle, bytes) // a full disk takes half a line before it refuses
      throw storageFailure(error, file)
    }
  }
  if (bytes > 0) {
    const last = Buffer.alloc(1)
    readSync(handle, last, 0, 1, bytes - 1)
    if (last[0] !== 10) write('\n')
  }
  return {
    get bytes() {
      return bytes
    },
    append(step, values) {
      check(step, values)
      const written = asJson(values)
      write(`${JSON.stringify({ step, time: Date.now(), values: written })}\n`)
      return written
    },
    flush: () => fdatasyncSync(handle),
    close: () => closeSync(handle),
  }
}

function opened(file: string): number {
  try {
    return openSync(file, 'a+', 0o600)
  } catch (error) {
    throw storageFailure(error, file)
  }
}

function check(step: number, values: Readonly<Record<string, number>>): void {
  const refuse = (problem: string) => new Failure('metric_invalid', { problem })
  if (!Number.isSafeInteger(step)) throw refuse(`the step ${step} is not a whole number`)
  for (const [name, value] of Object.entries(values)) {
    if (!/^[^\p{Cc}\u2028\u2029]{1,250}$/u.test(name) || name === '__proto__') throw refuse(`the name ${JSON.stringify(name.slice(0, 60))}`)
    if (typeof value !== 'number') throw refuse(`${name} is not a number`)
  }
}

/** Whole lines from byte `from` on, in the order they were logged; a torn line is left out, it was never acknowledged. */
export async function readMetricLog(file: string, from = 0): Promise<MetricPoint[]> {
  return (await textFrom(file, from))
    .split('\n')
    .slice(0, -1)
    .flatMap(line => {
      try {
        const point = JSON.parse(line) as MetricPoint
        return Number.isSafeInteger(point?.step) && typeof point.time === 'number' && isObject(point.values) ? [point] : []
      } catch {
        return [] // torn by a kill, ended by the next start
      }
    })
}

async function textFrom(file: string, from: number): Promise<string> {
  const handle = await open(file, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null // nothing was logged
    throw storageFailure(error, file)
  })
  if (!handle) return ''
  try {
    const { size } = await handle.stat()
    const bytes = Buffer.alloc(Math.max(size - from, 0))
    let read = 0
    while (read < bytes.length) {
      const { bytesRead } = await handle.read(bytes, read, bytes.length - read, from + read)
      if (bytesRead === 0) break
      read += bytesRead
    }
    return bytes.toString('utf8', 0, read)
  } finally {
    await handle.close()
  }
}

/** The newest value of each metric. */
export const newestOf = (points: readonly MetricPoint[]): Run['metrics'] =>
  Object.fromEntries(points.flatMap(point => Object.entries(point.values)))

/** One metric by step. A resumed run logs some steps again: what was logged last counts. */
export function seriesOf(points: readonly MetricPoint[], name: string): { step: number; time: number; value: number }[] {
  const byStep = new Map<number, { step: number; time: number; value: number }>()
  for (const { step, time, values } of points)
    if (Object.hasOwn(values, name)) byStep.set(step, { step, time, value: Number(values[name]) })
  return [...byStep.values()].sort((a, b) => a.step - b.step)
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value)

const asJson = (values: Readonly<Record<string, number>>): Run['metrics'] =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number.isFinite(value) ? value : (String(value) as 'NaN')]))
