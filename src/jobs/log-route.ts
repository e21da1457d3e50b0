/**
 * GET /api/jobs/:job/log?attempt&offset&follow: the lines of a job's log as they are written. One JSON object a line, or server-sent events for
 * who asks for those:
 *
 *     {"attempt":1,"lines":[{"next":31,"time":1764072000000,"stream":"o","text":"epoch 1"}]}
 *     {"attempt":1,"end":true,"next":31}
 *
 * Who was cut off asks again from the last `next` (as an event: from its id). With an attempt it ends when that one has; without, it goes on with
 * the attempts that follow until the job has ended.
 */
import type { ServerResponse } from 'node:http'
import { asAnswer } from '../api/app.ts'
import type { ForeignRoute } from '../api/route.ts'
import { Failure } from '../failure.ts'
import { hasEnded } from '../sdk/shapes.ts'
import { createLineReader } from './log-lines.ts'
import type { JobParts } from './routes.ts'
import { attemptsOf, jobRow } from './store.ts'

const chunk = 256 * 1024
/** Milliseconds after which something is sent, so that a proxy does not take a quiet job for a dead one. */
const quiet = 15_000
/** Milliseconds between two looks for the next attempt, and for one that has a row and no log. */
const between = 250
const starting = 50

export const logRoute = ({ db, host, closing }: Pick<JobParts, 'db' | 'host' | 'closing'>): ForeignRoute => ({
  method: 'GET',
  path: '/api/jobs/:job/log',
  right: 'viewer',
  body: 'none',
  failed: asAnswer,
  async answer({ params, query, raw, response }, { project, signal: gone }) {
    const signal = AbortSignal.any([gone, closing])
    const { backends } = await host()
    const job = numberIn(params['job'], 'job') ?? 0
    const row = await jobRow(db, project, job)
    const [, lastAttempt, lastOffset] = /^(\d{1,9}):(\d{1,15})$/.exec(String(raw.headers['last-event-id'] ?? '')) ?? []
    const wanted = numberIn(query.get('attempt') ?? undefined, 'attempt')
    const follow = query.get('follow') === 'true'
    let offset = lastOffset !== undefined ? Number(lastOffset) : (numberIn(query.get('offset') ?? undefined, 'offset') ?? 0)
    let attempt = lastAttempt !== undefined ? Number(lastAttempt) : (wanted ?? (follow ? row.attempt : Math.max(1, row.attempt)))
    if (wanted !== null && wanted > row.attempt) throw new Failure('job_attempt_not_found', { job, attempt: wanted })

    const events = /\btext\/event-stream\b/.test(raw.headers.accept ?? '')
    const say = writer(response, events)
    const pulse = setInterval(() => void say(null, null), quiet)
    try {
      for (;;) {
        if (attempt > 0) {
          await sendAttempt(attempt, offset, { follow, signal, say })
          if (wanted !== null || !follow) break
        }
        offset = 0
        const now = await jobRow(db, project, job).catch(() => null)
        if (now === null || signal.aborted || (hasEnded(now.status) && now.attempt <= attempt)) break
        if (now.attempt > attempt) attempt++
        else await pause(between, signal)
      }
    } catch (error) {
      // the answer has begun: what went wrong is its last line, and who reads it asks again
      if (!signal.aborted) await say({ error: asAnswer(error).body.error }, null)
    } finally {
      clearInterval(pulse)
      response.end()
    }
    return null

    async function sendAttempt(
      number: number,
      from: number,
      how: { follow: boolean; signal: AbortSignal; say: ReturnType<typeof writer> },
    ): Promise<void> {
      const rowOf = async () => (await attemptsOf(db, job)).find(each => each.attempt === number)
      const engine = (await rowOf())?.engine
      const backend = engine === undefined ? undefined : backends.get(engine)
      let at = from
      if (backend) {
        const lines = createLineReader()
        for (let over = false; !over && !how.signal.aborted; ) {
          const read = await backend.readLog(job, number, { offset: at, limit: chunk, follow: how.follow, signal: how.signal })
          const whole = lines.read(at, read)
          over = how.follow ? read.end : read.end || read.bytes.length === 0
          at = read.next
          if (whole.length > 0) await how.say({ attempt: number, lines: whole }, `${number}:${whole.at(-1)!.next}`)
          // an engine knows nothing yet of what is only about to be started
          if (over && how.follow && (await rowOf())?.ended === null) {
            over = false
            await pause(starting, how.signal)
          }
        }
      }
      if (!how.signal.aborted) await how.say({ attempt: number, end: true, next: at }, `${number}:${at}`)
    }
  },
})

function numberIn(text: string | undefined, name: string): number | null {
  if (text === undefined) return null
  if (!/^\d{1,15}$/.test(text)) throw new Failure('api_request_invalid', { problem: `${name}: expected a whole number` })
  return Number(text)
}

/** Waits where the reader is slower than the log. Nothing: a sign of life. */
function writer(response: ServerResponse, events: boolean) {
  response.writeHead(200, {
    'content-type': events ? 'text/event-stream; charset=utf-8' : 'application/x-ndjson; charset=utf-8',
    'x-accel-buffering': 'no',
  })
  response.flushHeaders()
  return async (what: object | null, id: string | null): Promise<void> => {
    if (response.destroyed || response.writableEnded) return
    const json = what === null ? '' : JSON.stringify(what)
    const text = events ? (what === null ? ':\n\n' : `${id === null ? '' : `id: ${id}\n`}data: ${json}\n\n`) : `${json}\n`
    if (response.write(text)) return
    await new Promise<void>(resolve => {
      const done = () => {
        response.off('drain', done).off('close', done)
        resolve()
      }
      response.once('drain', done).once('close', done)
    })
  }
}

const pause = (milliseconds: number, signal: AbortSignal) =>
  new Promise<void>(resolve => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    signal.addEventListener('abort', done, { once: true })
  })
