/**
 * What a run logs, written down before anybody is told: one file a run in the folder `spool/` of the home, one line of JSON a call, only
 * appended to. What is in the file survives the death of its writer and any outage of the server; src/track/spool-send.ts brings it there.
 * The same format is written by Python (python/plinth-spool).
 *
 *     {"start":{"run":"3f…","experiment":{"name":"digits"},…},"by":{"worker":{…},"url":null,"token":null},"format":1}
 *     {"metrics":{"loss":0.5},"step":3,"at":1764000000000}
 *     {"end":{"status":"succeeded","reason":null,"at":1764000001000}}
 */
import { randomBytes } from 'node:crypto'
import { closeSync, fsync, fsyncSync, ftruncateSync, futimesSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { RunId } from '../sdk/calls/runs.ts'
import { AnyNumber } from '../sdk/contract.ts'
import { temporaryPath } from '../storage/disk.ts'
import { Worker } from './worker.ts'

export const spoolFolder = (home: string): string => join(home, 'spool')

/** Grows when an older reader could no longer understand what a newer writer says. */
export const spoolFormat = 1

const Pairs = z.record(z.string(), z.string())
const time = z.int().min(0)

/** Who writes, so that nobody else sends it while that process lives, and whom it is for: `url` null means the server of this home. */
export const By = z.object({
  worker: Worker,
  url: z.string().nullable(),
  /** The public id of the token that is used, never the token. */
  token: z.string().nullable(),
})
export type By = z.infer<typeof By>

/** The kinds of lines; the first word of a line says which it is. */
const kinds = {
  /** The first line of the process that began the run. */
  start: z.object({
    start: z.object({
      run: RunId,
      experiment: z.union([z.object({ name: z.string() }), z.object({ id: z.string() })]),
      name: z.string().nullable(),
      started: time,
      tags: Pairs,
    }),
    by: By,
    format: z.int(),
  }),
  /** The first line of any other process that logs to the run. */
  join: z.object({ join: z.object({ run: RunId }), by: By, format: z.int() }),
  /** Its writer works on the run from now on. */
  resume: z.object({ resume: z.literal(true) }),
  metrics: z.object({
    metrics: z.record(z.string(), AnyNumber),
    step: z.int(),
    at: time,
    model: z.string().optional(),
    dataset: z.object({ name: z.string(), digest: z.string() }).optional(),
  }),
  params: z.object({ params: Pairs }),
  tags: z.object({ tags: Pairs }),
  /** A file of the run or of a model (`of`), whose content lies beside the log under the name `part`. */
  file: z.object({ file: z.object({ of: z.string(), path: z.string(), part: z.string().regex(/^\w[\w.-]{0,99}$/), bytes: z.int() }) }),
  /** What only MLflow's API has a word for; `path` is below /api/2.0/mlflow/. */
  call: z.object({
    call: z.object({
      method: z.enum(['POST', 'PATCH', 'DELETE']),
      path: z.string().regex(/^(?!.*\.\.)[\w/.~%-]{1,1000}$/),
      body: z.record(z.string(), z.unknown()),
    }),
  }),
  end: z.object({ end: z.object({ status: z.enum(['succeeded', 'failed', 'cancelled']), reason: z.string().nullable(), at: time }) }),
}
type Kinds = typeof kinds
export type Line = { [Kind in keyof Kinds]: z.infer<Kinds[Kind]> }[keyof Kinds]
export type Head = z.infer<Kinds['start']> | z.infer<Kinds['join']>
export type End = z.infer<Kinds['end']>['end']

/** Null where it is no line of this format: half of one, or of a newer writer. */
export function readLine(text: string): Line | null {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return null
    const kind = Object.keys(value).find((key): key is keyof Kinds => Object.hasOwn(kinds, key))
    return (kind && kinds[kind].safeParse(value).data) ?? null
  } catch {
    return null
  }
}

// ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `<run>.jsonl`, and for other processes that log to it `<run>-<8 hex>.jsonl`; beside them .sent, .refused, .lock and the folder .files. */
const named = /^([0-9a-f]{32})(-[0-9a-f]{8})?\.jsonl$/

export interface Spool {
  folder: string
  /** Without the ending. */
  name: string
  run: string
}
export const besides = (spool: Spool, ending: 'jsonl' | 'sent' | 'refused' | 'lock' | 'files'): string =>
  join(spool.folder, `${spool.name}.${ending}`)

/** Every log in the folder; none where there is no folder. */
export async function spoolsIn(folder: string): Promise<Spool[]> {
  const files = await readdir(folder).catch(() => [])
  const spools = files.flatMap(file => {
    const [, run, other = ''] = named.exec(file) ?? []
    return run ? [{ folder, name: `${run}${other}`, run }] : []
  })
  // who began a run comes before who joined it
  return spools.toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

/** What killed processes left beside logs that are gone; never what the server refused. */
export async function sweepSpools(folder: string): Promise<void> {
  const files = await readdir(folder).catch(() => [])
  const logs = new Set(files.filter(file => named.test(file)).map(file => file.slice(0, -'.jsonl'.length)))
  for (const file of files) {
    const name = file.split('.', 1)[0]!
    if (logs.has(name) || file.endsWith('.refused')) continue
    const path = join(folder, file)
    const since = await stat(path).then(
      ({ mtimeMs }) => mtimeMs,
      () => Number.POSITIVE_INFINITY,
    )
    if (Date.now() - since > 60_000) await rm(path, { recursive: true, force: true })
  }
}

export const newRunId = (): string => randomBytes(16).toString('hex')

/** With all that lies beside it, but for what the server refused: that is for a person to look at. */
export async function removeSpool(spool: Spool): Promise<void> {
  for (const ending of ['files', 'jsonl', 'sent'] as const)
    await rm(besides(spool, ending), { recursive: true, force: true }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTDIR') throw error // there never was a folder to write into
    })
}

// ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface SpoolWriter {
  readonly spool: Spool
  /**
   * In the file when it returns: a kill of this process loses nothing. Where the disk takes nothing (full, read-only, gone) the line is
   * kept in memory and tried again with the next one. Never throws.
   */
  append(line: Line): void
  /** Lines that are in memory only, oldest first. */
  readonly waiting: readonly { text: string }[]
  /** These lines have reached the server another way. */
  drop(lines: readonly { text: string }[]): void
  /** Lines that were given up because memory is bounded, too. */
  readonly lost: number
  /** Makes what was appended survive a power cut. Never throws. */
  flush(): void
  /** Says that the writer lives, and flushes without waiting. Never throws. */
  touch(): void
  close(): void
}

/** Lines kept while the disk takes none; about 2 MB. */
const mostWaiting = 10_000
/** Milliseconds between tries of a disk that refused. */
const retryDisk = 1_000

/** `onRefused` hears the first refusal of the disk, and of each later series. */
export function openSpool(folder: string, run: string, onRefused: (error: NodeJS.ErrnoException) => void): SpoolWriter {
  const spool = { folder, name: run, run }
  let file: number | null = null
  let bytes = 0
  let torn = false
  let waiting: { text: string }[] = []
  let lost = 0
  let refusedAt: number | null = null

  const write = (text: string) => {
    if (file === null) {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      file = openSync(besides(spool, 'jsonl'), 'ax', 0o600)
      bytes = 0
    }
    const line = Buffer.from(torn ? `\n${text}` : text)
    try {
      for (let done = 0; done < line.length; ) done += writeSync(file, line, done)
      bytes += line.length
      torn = false
    } catch (error) {
      torn = true
      ftruncateSync(file, bytes) // a full disk takes half a line before it refuses
      torn = false
      throw error
    }
  }
  const writeAll = () => {
    while (waiting.length > 0) {
      write(waiting.slice(0, 100).reduce((all, { text }) => all + text, ''))
      waiting = waiting.slice(100)
    }
    refusedAt = null
  }
  return {
    spool,
    append(line) {
      const text = `${JSON.stringify(line)}\n`
      try {
        if (refusedAt === null) return write(text)
      } catch (error) {
        onRefused(error as NodeJS.ErrnoException)
        refusedAt = Date.now()
      }
      waiting.push({ text })
      if (waiting.length > mostWaiting) {
        // numbers go first, the oldest of them: without its start and its end a run is nothing
        const victim = waiting.findIndex(({ text }) => text.startsWith('{"metrics"'))
        waiting.splice(Math.max(victim, 0), 1)
        lost++
      }
      if (Date.now() - refusedAt! < retryDisk) return
      try {
        writeAll()
      } catch {
        refusedAt = Date.now()
      }
    },
    get waiting() {
      return waiting
    },
    drop(lines) {
      const gone = new Set(lines)
      waiting = waiting.filter(each => !gone.has(each))
    },
    get lost() {
      return lost
    },
    flush() {
      try {
        if (waiting.length > 0) writeAll()
        if (file !== null) fsyncSync(file)
      } catch {
        // said when the first line was refused
      }
    },
    touch() {
      try {
        if (file === null) return
        futimesSync(file, new Date(), new Date())
        fsync(file, () => {}) // aside, while the training goes on
      } catch {
        // only who looks from another machine needs it
      }
    },
    close() {
      if (file !== null) closeSync(file)
      file = null
    },
  }
}

// ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The most that is read at once; a longer line is read whole. */
const chunk = 256 * 1024

/** Whole lines from byte `from` on, with where each ends. A torn last line is left out: it was never acknowledged. */
export async function* linesOf(spool: Spool, from: number): AsyncGenerator<{ text: string; end: number }> {
  const file = await open(besides(spool, 'jsonl'), 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null
    throw error
  })
  if (!file) return
  try {
    let at = from
    let rest = Buffer.alloc(0)
    for (;;) {
      const part = Buffer.alloc(chunk)
      const { bytesRead } = await file.read(part, 0, chunk, at + rest.length)
      if (bytesRead === 0) return
      rest = Buffer.concat([rest, part.subarray(0, bytesRead)])
      for (let newline = rest.indexOf(10); newline >= 0; newline = rest.indexOf(10)) {
        at += newline + 1
        yield { text: rest.toString('utf8', 0, newline), end: at }
        rest = rest.subarray(newline + 1)
      }
    }
  } finally {
    await file.close()
  }
}

/** The first line; null where there is none that is whole. */
export async function headOf(spool: Spool): Promise<Head | null> {
  for await (const { text } of linesOf(spool, 0)) {
    const line = readLine(text)
    return line && ('start' in line || 'join' in line) ? line : null
  }
  return null
}

/** How the run ended, where its writer came to say so: nothing is written after that. */
export async function endOf(spool: Spool): Promise<End | null> {
  const file = await open(besides(spool, 'jsonl'), 'r')
  try {
    const { size } = await file.stat()
    const length = Math.min(size, 4096)
    const tail = Buffer.alloc(length)
    await file.read(tail, 0, length, size - length)
    const lines = tail.toString().split('\n').slice(0, -1)
    for (const text of lines.toReversed()) {
      const line = readLine(text)
      if (line && 'end' in line) return line.end
    }
    return null
  } finally {
    await file.close()
  }
}

/** How far it was sent, in bytes, and whether the server knows how the run ended. */
export const Sent = z.object({ bytes: z.int().min(0), settled: z.boolean() })
export type Sent = z.infer<typeof Sent>

/** Nothing, where it was never written or half of it was: sending again changes nothing. */
export async function readSent(spool: Spool): Promise<Sent> {
  try {
    return Sent.parse(JSON.parse(await readFile(besides(spool, 'sent'), 'utf8')))
  } catch {
    return { bytes: 0, settled: false }
  }
}

/** Renamed into its place but not flushed: what a power cut takes away is sent again. */
export async function writeSent(spool: Spool, sent: Sent): Promise<void> {
  const part = temporaryPath(besides(spool, 'sent'))
  try {
    await writeFile(part, JSON.stringify(sent), { mode: 0o600 })
    await rename(part, besides(spool, 'sent'))
  } catch {
    await rm(part, { force: true }).catch(() => {}) // a full disk: then it is sent again
  }
}
