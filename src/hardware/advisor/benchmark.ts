/**
 * Two seconds of measuring what this machine really does, since data sheets say nothing about it: a float32 matrix product on all threads (by the
 * runtime that Plinth computes with, handed in), and copying memory. Kept in the cache until the processor or the runtime changes; for an hour where the machine was busy meanwhile.
 */
import { createHash } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { dirname, join } from 'node:path'
import { z } from 'zod'

const Measured = z.strictObject({
  version: z.literal(1),
  time: z.string(),
  processor: z.string(),
  threads: z.int().positive(),
  runtime: z.string(),
  /** Operations a second: 2·n³ for a product of two n × n matrices. */
  operations: z.number().positive(),
  /** Bytes a second that one thread copies. */
  bandwidth: z.number().positive(),
  /** Programs that wanted to compute then (load average over a minute): more than threads, and the figures may be too low. */
  load: z.number().nonnegative(),
})
export type Measured = z.infer<typeof Measured>

export interface BenchmarkOptions {
  /** Folder of caches. */
  cache: string
  threads: number
  /** Name and version of what multiplies. */
  runtime: string
  /** A product of two n × n matrices of float32; answers once it is done. Opened for one measurement. */
  open(n: number): Promise<{ multiply(): Promise<void>; close(): Promise<void> }>
  /** Measures whatever is kept. */
  anew?: boolean
  /** Milliseconds of each of the two measurements. */
  each?: number
}

const side = 1024

/** What is kept, or measured now. */
export async function benchmark({ cache, threads, runtime, open, anew = false, each = 700 }: BenchmarkOptions): Promise<Measured> {
  const processor = cpus()[0]?.model.trim() || process.arch
  const key = createHash('sha256')
    .update(JSON.stringify([processor, threads, runtime]))
    .digest('hex')
    .slice(0, 16)
  const file = join(cache, 'hardware', `speed-${key}.json`)
  const kept = anew ? null : await readKept(file)
  if (kept) return kept
  const { multiply, close } = await open(side)
  let seconds: number
  try {
    await multiply() // threads and memory are made
    seconds = await fastest(multiply, threads, each)
  } finally {
    await close()
  }
  const measured: Measured = {
    version: 1,
    time: new Date().toISOString(),
    processor,
    threads,
    runtime,
    operations: (2 * side ** 3) / seconds,
    bandwidth: await copySpeed(each),
    load: loadavg()[0]!,
  }
  await keep(file, measured)
  return measured
}

/**
 * Seconds of the best of many rounds, since the others were disturbed: by the clock, or by the processor's time over the threads where other
 * programs keep the processor from them.
 */
async function fastest(work: () => Promise<void> | void, threads: number, each: number): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  const end = performance.now() + each
  do {
    const before = process.cpuUsage()
    const began = performance.now()
    await work()
    const clock = (performance.now() - began) / 1000
    const { user, system } = process.cpuUsage(before)
    const computed = (user + system) / 1e6 / threads
    // the processor's time is counted in steps; a round shorter than that has none
    best = Math.min(best, clock, computed > clock / 20 ? computed : clock)
  } while (performance.now() < end)
  return best
}

/** 64 MiB, which no cache holds twice. */
async function copySpeed(each: number): Promise<number> {
  const from = new Uint8Array(64 << 20).fill(1)
  const to = new Uint8Array(from.length)
  return from.length / (await fastest(() => to.set(from), 1, each))
}

async function readKept(file: string): Promise<Measured | null> {
  try {
    const kept = Measured.parse(JSON.parse(await readFile(file, 'utf8')))
    const old = Date.now() - Date.parse(kept.time) > 3_600_000
    return kept.load > kept.threads && old ? null : kept
  } catch {
    return null // none yet, or of another version
  }
}

async function keep(file: string, measured: Measured): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true })
    await writeFile(`${file}.${process.pid}`, JSON.stringify(measured))
    await rename(`${file}.${process.pid}`, file)
  } catch {
    // a cache that cannot be written is measured again
  }
}
