/**
 * Takes up what dead processes left in `spool/`: `plinth up` does so all the time, `plinth spool send` once. A living process sends its
 * own; who sends another's holds the lock beside it.
 */
import { randomBytes } from 'node:crypto'
import { link, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { Failure } from '../failure.ts'
import { findServer, isThisMachine, loginToken, publicId } from './find-server.ts'
import {
  type By,
  besides,
  endOf,
  type Head,
  headOf,
  linesOf,
  readSent,
  removeSpool,
  type Spool,
  spoolFolder,
  spoolsIn,
  sweepSpools,
} from './spool.ts'
import { connectSpool, createDelivery, type Delivery, type SpoolServer } from './spool-send.ts'
import { isAlive, thisProcess, Worker } from './worker.ts'

/** How a spool is brought to where it belongs; null: it belongs elsewhere. */
export type Connect = (by: By) => Promise<SpoolServer | null>

/** Whether the server of this home may be the one that is meant: without a token of its own, what names another machine is another's. */
export function mayBelongHere({ url, token }: By): boolean {
  if (url === null || token !== null) return true
  return URL.canParse(url) && isThisMachine(new URL(url))
}

export interface SpoolReplay {
  /** Ids of the runs whose end is read from their log here, so that nobody guesses it. */
  judges(): Promise<ReadonlySet<string>>
  stop(): Promise<void>
}

/** Milliseconds between looks into the folder; the longest pause after a spool could not be sent. */
const look = 2_000
const longestPause = 60_000

/** Starts the loop. `onError` hears what will not be taken, and what keeps a spool from being sent, once for each reason. */
export function startSpoolReplay(home: string, connect: Connect, onError: (error: unknown) => void): SpoolReplay {
  const folder = spoolFolder(home)
  const held = new Map<string, { failures: number; until: number; code: string }>()
  let stopped = false
  let timer: NodeJS.Timeout | undefined

  const turn = async () => {
    const spools = await spoolsIn(folder)
    for (const name of held.keys()) if (!spools.some(spool => spool.name === name)) held.delete(name)
    const due = spools.filter(({ name }) => (held.get(name)?.until ?? 0) <= Date.now())
    await takeUp(due, connect, {
      stopped: () => stopped,
      onRefused: (_, failure) => onError(failure),
      onHeld(spool, error) {
        if (stopped) return
        const { failures = 0, code: before = '' } = held.get(spool.name) ?? {}
        const code = error instanceof Failure ? error.code : 'internal'
        held.set(spool.name, { failures: failures + 1, until: Date.now() + Math.min(longestPause, look * 2 ** failures), code })
        if (code !== before) onError(error)
      },
      onSent: spool => held.delete(spool.name),
    })
    await sweepSpools(folder)
  }
  const loop = (): Promise<void> =>
    turn()
      .catch(onError)
      .then(() => {
        if (!stopped) timer = setTimeout(() => (working = loop()), look).unref()
      })
  let working = loop()
  return {
    async judges() {
      const spools = await spoolsIn(folder)
      return new Set(spools.filter(({ name, run }) => name === run && !held.has(name)).map(({ run }) => run))
    },
    async stop() {
      stopped = true
      clearTimeout(timer)
      await working
    },
  }
}

export interface TakeUp {
  stopped(): boolean
  /** The server will never take something of it. */
  onRefused(spool: Spool, failure: Failure): void
  /** It could not be sent now. */
  onHeld(spool: Spool, error: unknown): void
  /** All of it has arrived, and it is gone. */
  onSent(spool: Spool): void
}

/** Sends those whose writer is dead. First each run's end, so that no status waits for a million points; then the rest. */
export async function takeUp(spools: readonly Spool[], connect: Connect, { stopped, onRefused, onHeld, onSent }: TakeUp): Promise<void> {
  const taken: { spool: Spool; delivery: Delivery; unlock: () => Promise<void> }[] = []
  try {
    for (const spool of spools) {
      if (stopped()) return
      try {
        const head = await headOf(spool)
        if (!head) {
          await removeEmpty(spool)
          continue
        }
        if (isAlive(head.by.worker, await lastSign(spool))) continue
        const server = await connect(head.by)
        if (!server) continue
        const unlock = await lock(spool)
        if (!unlock) continue
        const delivery = createDelivery(spool, server, { alive: false, onRefused: failure => onRefused(spool, failure) })
        taken.push({ spool, delivery, unlock })
        if ('start' in head) await delivery.settle((await endOf(spool)) ?? (await lost(spool)))
      } catch (error) {
        await give(taken, spool)
        onHeld(spool, error)
      }
    }
    for (const { spool, delivery } of [...taken]) {
      if (stopped()) return
      try {
        await delivery.send()
        await removeSpool(spool)
        onSent(spool)
      } catch (error) {
        onHeld(spool, error)
      }
    }
  } finally {
    for (const { unlock } of taken) await unlock()
  }
}

async function give(taken: { spool: Spool; unlock: () => Promise<void> }[], spool: Spool): Promise<void> {
  const at = taken.findIndex(each => each.spool === spool)
  if (at >= 0) for (const { unlock } of taken.splice(at, 1)) await unlock()
}

/** Its writer touches the file while it lives. */
const lastSign = async (spool: Spool): Promise<number> => Math.round((await stat(besides(spool, 'jsonl'))).mtimeMs)

const lost = async (spool: Spool) => ({ status: 'failed', reason: 'lost', at: await lastSign(spool) }) as const

/** Its writer died between making the file and its first line, of which nobody was told; or it is about to write it. */
async function removeEmpty(spool: Spool): Promise<void> {
  if (Date.now() - (await lastSign(spool)) > 60_000) await removeSpool(spool)
}

export interface SentSpool {
  run: string
  file: string
  /** What kept it from being sent; null: all of it has arrived. */
  problem: { code: string; message: string; next: string } | null
}

/**
 * Sends, once, what dead processes left in the home, each log to the server that it was meant for; `url`: to this one instead. Those that
 * living processes write are theirs to send.
 */
export async function sendSpools(home: string, { url, token, run }: { url?: string; token?: string; run?: string }): Promise<SentSpool[]> {
  const results: SentSpool[] = []
  const connect: Connect = async by => {
    const target = url ?? by.url
    const found = await findServer({ home, url: target, token: token ?? (target === null ? null : await loginToken(target)) })
    if (!found) throw new Failure('spool_no_server')
    // it would land in the project of another token
    const used = found.token === undefined ? null : publicId(found.token)
    if (by.token !== null && by.token !== used) throw new Failure('spool_other_token', { token: by.token })
    return connectSpool(found)
  }
  const spools = (await spoolsIn(spoolFolder(home))).filter(spool => spool.run.startsWith(run ?? ''))
  if (run !== undefined && spools.length === 0) throw new Failure('spool_not_found', { run })
  const note = ({ run, ...spool }: Spool, problem: SentSpool['problem']) =>
    results.push({ run, file: besides({ run, ...spool }, 'jsonl'), problem })
  await takeUp(spools, connect, {
    stopped: () => false,
    onRefused: () => {}, // counted in the list, and kept in the file .refused
    onHeld: (spool, error) => {
      if (!(error instanceof Failure)) throw error
      note(spool, error.toJSON())
    },
    onSent: spool => note(spool, null),
  })
  return results
}

// ── one at a time ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Null: another living process sends it. The lock of a dead one counts for nothing. */
async function lock(spool: Spool): Promise<(() => Promise<void>) | null> {
  const file = besides(spool, 'lock')
  const own = `${file}.${randomBytes(6).toString('hex')}`
  await writeFile(own, JSON.stringify(thisProcess()), { mode: 0o600 })
  try {
    for (let tries = 0; tries < 2; tries++) {
      // a link appears with its content or not at all, and never in the place of another
      const made = await link(own, file).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code === 'EEXIST') return false
          throw error
        },
      )
      if (made) return () => rm(file, { force: true })
      const [text, since] = await Promise.all([
        readFile(file, 'utf8').catch(() => ''),
        stat(file).then(
          ({ mtimeMs }) => mtimeMs,
          () => 0,
        ),
      ])
      if (isHeld(text, since)) return null
      // out of the way under a name of our own; should it be another's by now, it goes back
      const aside = `${own}.old`
      await rename(file, aside).catch(() => {})
      if ((await readFile(aside, 'utf8').catch(() => text)) !== text) await link(aside, file).catch(() => {})
      await rm(aside, { force: true })
    }
    return null
  } finally {
    await rm(own, { force: true })
  }
}
function isHeld(text: string, since: number): boolean {
  try {
    return isAlive(Worker.parse(JSON.parse(text)), since)
  } catch {
    return false
  }
}

// ── looking ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface SpoolState {
  run: string
  name: string | null
  experiment: string | null
  /** Its server; null: that of the home. */
  url: string | null
  /** The process that writes it lives, and sends it. */
  alive: boolean
  /** How it ended, where its process came to say so. */
  end: string | null
  /** What is not with the server yet. */
  lines: number
  bytes: number
  /** Lines that the server will never take: they are in the file .refused. */
  refused: number
  /** When something was last written, milliseconds since 1970. */
  written: number
  file: string
}

export async function listSpools(home: string): Promise<SpoolState[]> {
  const states: SpoolState[] = []
  for (const spool of await spoolsIn(spoolFolder(home))) {
    const head = await headOf(spool)
    const written = await lastSign(spool).catch(() => null)
    if (!head || written === null) continue
    const { bytes: from } = await readSent(spool)
    const left = { lines: 0, bytes: 0 }
    for await (const { end } of linesOf(spool, from)) {
      left.lines++
      left.bytes = end - from
    }
    states.push({
      run: spool.run,
      ...named(head),
      url: head.by.url,
      alive: isAlive(head.by.worker, written),
      end: (await endOf(spool))?.status ?? null,
      ...left,
      refused: await refusedLines(spool),
      written,
      file: besides(spool, 'jsonl'),
    })
  }
  return states
}

function named(head: Head): { name: string | null; experiment: string | null } {
  if ('join' in head) return { name: null, experiment: null }
  const { name, experiment } = head.start
  return { name, experiment: 'name' in experiment ? experiment.name : experiment.id }
}

async function refusedLines(spool: Spool): Promise<number> {
  const text = await readFile(besides(spool, 'refused'), 'utf8').catch(() => '')
  return text.split('\n').length - 1
}
