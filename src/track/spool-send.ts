/**
 * Brings what a spool holds to the server, in order, so that sending any part of it again changes nothing: the run has the id that its
 * client made, a point is known by its run, name, step, time and value, a param keeps its first value. How far it came is written down
 * only after the server has answered.
 */
import { createReadStream } from 'node:fs'
import { appendFile, stat } from 'node:fs/promises'
import http from 'node:http'
import https from 'node:https'
import { join } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import type { ReadableStream as WebStream } from 'node:stream/web'
import { Failure } from '../failure.ts'
import { calls as experimentCalls } from '../sdk/calls/experiments.ts'
import { calls as runCalls } from '../sdk/calls/runs.ts'
import { type Client, createClient } from '../sdk/client.ts'
import type { InputOf } from '../sdk/contract.ts'
import { besides, type End, type Head, headOf, type Line, linesOf, readLine, readSent, type Sent, type Spool, writeSent } from './spool.ts'

const calls = { ...experimentCalls, ...runCalls }

/** The server, as far as spools need it. */
export interface SpoolServer {
  calls: Client<typeof calls>
  /** A call of MLflow's REST; `path` is below /api/2.0/mlflow/. throws like calls */
  mlflow(method: string, path: string, body: object): Promise<Record<string, unknown>>
  /** `place`: below /api/2.0/mlflow-artifacts/artifacts/. throws like calls */
  upload(place: string, file: string): Promise<void>
}

export interface ServerAddress {
  url: string
  token?: string | undefined
  fetch?: typeof fetch
}

/** Milliseconds. A server that takes longer is asked again later. */
const timeout = 30_000
/** Bytes a millisecond that an upload makes at least. */
const slowest = 50

export function connectSpool({ url, token, fetch = quietFetch }: ServerAddress): SpoolServer {
  const ask = async (method: string, path: string, init: RequestInit): Promise<Record<string, unknown>> => {
    const target = new URL(path, url)
    const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(init.headers as Record<string, string>) }
    const response = await fetch(target, { method, redirect: 'error', ...init, headers }).catch(error => {
      throw new Failure('server_unreachable', { url: target.origin }, { cause: error })
    })
    const text = await response.text()
    let answer: Record<string, unknown> | null = null
    try {
      answer = JSON.parse(text) as Record<string, unknown>
    } catch {
      // told below
    }
    if (response.ok && answer) return answer
    if (typeof answer?.['error_code'] !== 'string')
      throw new Failure('server_answer', { url: target.origin, problem: `${response.status}` })
    const told = { code: answer['error_code'].toLowerCase(), message: String(answer['message'] ?? ''), next: '' }
    throw Failure.told(told, response.status)
  }
  return {
    calls: createClient(calls, { url, timeout, fetch, ...(token && { token }) }),
    mlflow: (method, path, body) =>
      ask(method, `/api/2.0/mlflow/${path}`, {
        ...(method !== 'GET' && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(timeout),
      }),
    async upload(place, file) {
      const path = place.split('/').map(encodeURIComponent).join('/')
      const { size } = await stat(file)
      await ask('PUT', `/api/2.0/mlflow-artifacts/artifacts/${path}`, {
        headers: { 'content-type': 'application/octet-stream', 'content-length': String(size) },
        body: Readable.toWeb(createReadStream(file)) as ReadableStream,
        duplex: 'half',
        signal: AbortSignal.timeout(timeout + Math.ceil(size / slowest)),
      } as RequestInit)
    },
  }
}

const agents = { 'http:': new http.Agent({ keepAlive: true }), 'https:': new https.Agent({ keepAlive: true }) }

/** `fetch` that keeps no process alive: a training that is done ends, whatever its server does. */
export const quietFetch: typeof fetch = (input, init = {}) =>
  new Promise((resolve, reject) => {
    const url = new URL(input instanceof Request ? input.url : input)
    const protocol = url.protocol as 'http:' | 'https:'
    const { request: open } = protocol === 'https:' ? https : http
    const request = open(
      url,
      { method: init.method ?? 'GET', headers: init.headers as http.OutgoingHttpHeaders, agent: agents[protocol], signal: init.signal! },
      response => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.once('error', reject)
        response.once('end', () => resolve(new Response(Buffer.concat(parts), { status: response.statusCode ?? 500 })))
      },
    )
    request.once('socket', socket => socket.unref())
    request.once('error', reject)
    const { body } = init
    if (body instanceof ReadableStream)
      pipeline(Readable.fromWeb(body as WebStream), request, error => {
        if (error) reject(error)
      })
    else request.end(body as string | undefined)
  })

// ── delivery ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Delivery {
  /** Sends all there is now, in order. throws what the server or the network said: try again later */
  send(): Promise<void>
  /** For a writer that is gone: the server learns how the run ended before it gets the rest. throws as send */
  settle(end: End): Promise<void>
  /** The server knows the run. */
  readonly started: boolean
  /** Bytes of the log that have arrived. */
  readonly sent: number
  /** The end has arrived, and all before it. */
  readonly ended: boolean
}

export interface DeliveryOptions {
  /** The writer lives: it answers for the run. */
  alive: boolean
  /** What the writer could not put into the file. */
  memory?: { readonly waiting: readonly { text: string }[]; drop(lines: readonly { text: string }[]): void }
  /** Something that the server will never take; it is in the file .refused. */
  onRefused(failure: Failure): void
}

/** Points, params and tags of one request at most. */
const mostPoints = 1_000
const mostPairs = 100
/** Bytes of a request, about. */
const mostBytes = 1_000_000

type LogInput = InputOf<typeof runCalls.logToRun>
type Point = NonNullable<LogInput['metrics']>[number]
/** What one request to log can be cut into. */
type Entry = { point: Point } | { param: [string, string] } | { tag: [string, string] }

export function createDelivery(spool: Spool, server: SpoolServer, { alive, memory, onRefused }: DeliveryOptions): Delivery {
  const { run } = spool
  let head: Head | null = null
  let sent: Sent | null = null
  let started = false
  let ended = false
  /** A run that the server forgot is started once more, from the first line on. */
  let restarted = false
  /** Where files of the run and of its models go. */
  const places = new Map<string, string>()

  const record = async (bytes: number) => {
    if (bytes <= sent!.bytes) return
    sent = { ...sent!, bytes }
    await writeSent(spool, sent)
  }

  const start = async (): Promise<void> => {
    if (started || !head) return
    if ('join' in head) {
      places.set(run, (await server.calls.getRun({ run })).location)
    } else {
      const { experiment, name, started: began, tags } = head.start
      const id = 'id' in experiment ? experiment.id : (await server.calls.getOrCreateExperiment({ name: experiment.name })).experiment
      const { location } = await server.calls.startRun({
        ...{ run, experiment: id, started: began, tags },
        ...(name !== null && { name }),
        ...(alive && { worker: head.by.worker }),
      })
      places.set(run, location)
    }
    started = true
  }

  const refuse = async (what: object, failure: Failure) => {
    const line = `${JSON.stringify({ ...what, refused: { code: failure.code, message: failure.message } })}\n`
    await appendFile(besides(spool, 'refused'), line, { mode: 0o600 }).catch(() => {})
    onRefused(failure)
  }
  /** Answers whether it arrived; what will never be taken is put aside. */
  const tried = async (what: object, act: () => Promise<unknown>): Promise<boolean> => {
    try {
      await act()
      return true
    } catch (error) {
      if (!isRefusal(error)) throw error
      await refuse(what, error)
      return false
    }
  }

  /** All or nothing is the server's rule; halves find what it does not take. */
  const log = async (entries: readonly Entry[]): Promise<void> => {
    if (entries.length === 0) return
    try {
      await server.calls.logToRun({
        run,
        metrics: entries.flatMap(each => ('point' in each ? [each.point] : [])),
        params: Object.fromEntries(entries.flatMap(each => ('param' in each ? [each.param] : []))),
        tags: Object.fromEntries(entries.flatMap(each => ('tag' in each ? [each.tag] : []))),
      })
    } catch (error) {
      if (!isRefusal(error)) throw error
      if (entries.length === 1) return await refuse(entries[0]!, error)
      const half = entries.length >> 1
      await log(entries.slice(0, half))
      await log(entries.slice(half))
    }
  }

  const placeOf = async (of: string): Promise<string> => {
    const known = places.get(of)
    if (known !== undefined) return known
    const { model } = (await server.mlflow('GET', `logged-models/${of}`, {})) as { model?: { info?: { artifact_uri?: string } } }
    const location = String(model?.info?.artifact_uri ?? '')
    places.set(of, location)
    return location
  }

  /** Everything but what is gathered into requests. */
  const act = async (line: Line): Promise<void> => {
    // a dead one too: then whoever looks for lost runs finds it
    if ('resume' in line) await server.calls.resumeRun({ run, ...(head && { worker: head.by.worker }) })
    else if ('end' in line) {
      const { status, reason, at } = line.end
      if (!sent!.settled) await server.calls.endRun({ run, status, reason, ended: at })
      ended = true
    } else if ('call' in line) {
      const { method, path, body } = line.call
      await tried(line, async () => server.mlflow(method, path, await withExperiment(body, server)))
    } else if ('file' in line) {
      const { of, path, part } = line.file
      await tried(line, async () => {
        const [, place] = /^mlflow-artifacts:\/(?!\/)(.+)$/.exec(await placeOf(of)) ?? []
        if (!place) throw new Failure('spool_files_elsewhere', { path })
        await server.upload(`${place}/${path}`, join(besides(spool, 'files'), part)).catch(error => {
          if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new Failure('spool_part_missing', { path }, { cause: error })
          throw error
        })
      })
    }
  }

  const sendLines = async (lines: AsyncIterable<{ text: string; end: number }>, arrived: (end: number) => Promise<void>) => {
    let entries: Entry[] = []
    let [points, bytes, upTo] = [0, 0, -1]
    const params = new Map<string, string>()
    const flush = async () => {
      await log(entries)
      entries = []
      ;[points, bytes] = [0, 0]
      params.clear()
      if (upTo >= 0) await arrived(upTo)
    }
    for await (const { text, end } of lines) {
      const line = readLine(text)
      if (!line) {
        if (text !== '') await refuse({ line: text.slice(0, 10_000) }, new Failure('spool_line'))
      } else if ('start' in line || 'join' in line) {
        head ??= line
      } else {
        await start()
        const more = entriesOf(line)
        if (more) {
          const morePoints = 'metrics' in line ? more.length : 0
          const full =
            bytes + text.length > mostBytes ||
            points + morePoints > mostPoints ||
            entries.length - points + more.length - morePoints > mostPairs ||
            ('params' in line && Object.entries(line.params).some(([key, value]) => (params.get(key) ?? value) !== value))
          if (full) await flush()
          entries.push(...more)
          points += morePoints
          bytes += text.length
          if ('params' in line) for (const [key, value] of Object.entries(line.params)) params.set(key, value)
        } else {
          await flush()
          await act(line)
        }
      }
      upTo = end
    }
    await flush()
    await start()
  }

  async function* inMemory(lines: readonly { text: string }[]) {
    for (const [i, { text }] of lines.entries()) yield { text, end: i + 1 }
  }

  const sendAll = async () => {
    sent ??= await readSent(spool)
    head ??= await headOf(spool)
    await sendLines(linesOf(spool, sent.bytes), record)
    const lines = memory?.waiting.slice() ?? []
    if (lines.length > 0) await sendLines(inMemory(lines), async count => memory!.drop(lines.slice(0, count)))
  }

  const resilient = async (work: () => Promise<void>) => {
    try {
      await work()
      restarted = false
    } catch (error) {
      // a server that was put back to an older copy, or to nothing, gets the run anew
      if (!(error instanceof Failure && error.code === 'tracked_run_not_found') || restarted || !head || 'join' in head) throw error
      restarted = true
      started = false
      places.clear()
      sent = { bytes: 0, settled: false }
      await work()
    }
  }

  return {
    send: () => resilient(sendAll),
    settle: end =>
      resilient(async () => {
        sent ??= await readSent(spool)
        if (sent.settled) return
        head ??= await headOf(spool)
        if (!head || 'join' in head) return
        await start()
        await server.calls.endRun({ run, status: end.status, reason: end.reason, ended: end.at })
        sent = { ...sent, settled: true }
        await writeSent(spool, sent)
      }),
    get started() {
      return started
    },
    get sent() {
      return sent?.bytes ?? 0
    },
    get ended() {
      return ended
    },
  }
}

/** What is gathered into one request with others; null for what is a request of its own. */
function entriesOf(line: Line): Entry[] | null {
  if ('metrics' in line) {
    const { metrics, step, at, model, dataset } = line
    const rest = { step, timestamp: at, ...(model !== undefined && { model }), ...(dataset && { dataset }) }
    return Object.entries(metrics).map(([key, value]) => ({ point: { key, value, ...rest } }))
  }
  if ('params' in line) return Object.entries(line.params).map(param => ({ param }))
  if ('tags' in line) return Object.entries(line.tags).map(tag => ({ tag }))
  return null
}

/** Told by the server for good. What may pass (a token, a limit, a run that is deleted and can be restored) is waited for instead. */
function isRefusal(error: unknown): error is Failure {
  if (!(error instanceof Failure)) return false
  return error.status >= 400 && error.status < 500 && ![401, 403, 408, 429].includes(error.status) && !waitedFor.has(error.code)
}
const waitedFor = new Set<string>([
  'tracked_run_not_found',
  'tracked_run_deleted',
  'experiment_not_found',
  'experiment_deleted',
  'api_route_not_found',
  'endpoint_not_found',
])

/** An experiment that was named while no server was there to number it: `spool-` and its name in base64url. */
export const experimentPlaceholder = /^spool-([\w-]+)$/
async function withExperiment(body: Record<string, unknown>, server: SpoolServer): Promise<Record<string, unknown>> {
  const [, encoded] = experimentPlaceholder.exec(String(body['experiment_id'] ?? '')) ?? []
  if (encoded === undefined) return body
  const name = Buffer.from(encoded, 'base64url').toString()
  return { ...body, experiment_id: (await server.calls.getOrCreateExperiment({ name })).experiment }
}
