/**
 * The review as a local page: loopback only, every request with the token of this start, pictures only as thumbnails written anew and only those
 * of the dataset. Nothing here decides anything: session.ts does.
 */
import { randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { z } from 'zod'
import { checkOrigin, checkToken, securityHeaders } from '../../api/guards.ts'
import { json, listen, refuse, refuseConnection, send } from '../../api/http.ts'
import { loadPage } from '../../api/page.ts'
import { version } from '../../config.ts'
import { Failure } from '../../failure.ts'
import type { MadeVersion, Review } from './session.ts'
import { createThumbnails } from './thumbnails.ts'
import { estimateSentence } from './words.ts'

export interface ReviewServerOptions {
  review: Review
  blobs: { get(content: string): Promise<Uint8Array> }
  /** 0 for any free port. */
  port: number
  /** A version was made on the page. */
  onVersion?(made: MadeVersion): void
  /** A line for whoever started it. */
  onNotice?(text: string): void
  limits?: Partial<ReviewLimits>
}
export interface ReviewLimits {
  /** Bytes of one request. */
  request: number
  /** Items of one answer. */
  items: number
}
const defaults: ReviewLimits = { request: 4 * 2 ** 20, items: 100 }

export interface RunningReview {
  /** Where the page is, with the token behind the #: browsers keep that part to themselves. */
  url: string
  port: number
  token: string
  /** The page's address with a ticket instead of the token: good once, for a minute. For the arguments of another program, which others may read. */
  ticketUrl(): string
  /** Takes no more requests; answers when those under way are out. */
  close(): Promise<void>
}

const Answers = z.strictObject({
  item: z.string().max(100),
  answers: z
    .array(
      z.strictObject({
        path: z.string().max(10_000),
        verdict: z.enum(['keep', 'relabel', 'drop']),
        to: z.array(z.string().max(1000)).min(1).max(20).optional(),
      }),
    )
    .min(1),
})
const Nothing = z.strictObject({})
const Ticket = z.strictObject({ ticket: z.string().max(200) })
const ticketLife = 60_000

/** throws port_taken, port_refused */
export async function startReviewServer({ review, blobs, port, ...options }: ReviewServerOptions): Promise<RunningReview> {
  const limits = { ...defaults, ...options.limits }
  const host = '127.0.0.1'
  const token = randomBytes(32).toString('base64url')
  const tickets = new Map<string, number>()
  const page = await loadPage(new URL('./page.html', import.meta.url))
  const known = new Set(review.manifest.rows.map(row => row.content))
  const thumbnails = createThumbnails(blobs)
  const server = createServer({
    maxHeaderSize: 16 * 1024,
    headersTimeout: 10_000,
    requestTimeout: 30_000,
    keepAliveTimeout: 15_000,
    insecureHTTPParser: false,
  })
  server.maxConnections = 64

  /** The whole surface. Only the page itself, which says nothing about the dataset, needs no token. */
  const routes: Record<string, Route> = {
    '/': { GET: (_, response) => send(response, 200, 'text/html; charset=utf-8', page.html, page.headers), open: true },
    '/session': { POST: redeem, open: true },
    '/review': { GET: async (_, response) => json(response, 200, await describe()) },
    '/items': { GET: items },
    '/changes': { GET: changes },
    '/verdicts': { POST: answer },
    '/undo': { POST: undo },
    '/versions': { POST: makeVersion },
    '/pictures/*': { GET: picture },
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      for (const [header, value] of Object.entries(securityHeaders)) response.setHeader(header, value)
      checkOrigin(request, { loopback: true })
      const path = request.url?.split('?', 1)[0] ?? ''
      const pattern = path.startsWith('/pictures/') ? '/pictures/*' : path
      const route = Object.hasOwn(routes, pattern) ? routes[pattern] : undefined
      if (route && !route.open) checkToken(request, token)
      if (!route) throw new Failure('review_not_found')
      const method = request.method === 'HEAD' ? 'GET' : request.method
      const action = method === 'GET' || method === 'POST' ? route[method] : undefined
      if (!action) {
        const allowed = [route.GET && 'GET', route.POST && 'POST'].filter(Boolean).join(', ')
        response.setHeader('allow', allowed)
        throw new Failure('method_not_allowed', { method: request.method?.slice(0, 20) ?? '', allowed })
      }
      await action(request, response)
    } catch (error) {
      if (!response.destroyed) await refuse(request, response, tellable(error)) // else nobody waits for it any more
    }
  }

  async function describe() {
    const { reference, earlier, estimate, kinds, manifest } = review
    return {
      plinth: version,
      dataset: { name: reference.name, version: reference.version, images: manifest.rows.length },
      earlier,
      estimate: estimate && estimateSentence(estimate),
      kinds,
      labels: await review.labels(),
      tally: await review.tally(),
    }
  }
  async function items(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = new URLSearchParams(request.url!.split('?', 2)[1])
    const [from, count] = [Number(asked.get('from') ?? 0), Number(asked.get('count') ?? limits.items)]
    if (!Number.isSafeInteger(from) || from < 0 || !Number.isSafeInteger(count) || count < 1 || count > limits.items)
      throw new Failure('review_request_invalid', { problem: `from and count are whole numbers, count at most ${limits.items}` })
    json(response, 200, { from, items: await review.list(from, count) })
  }
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { item, answers } = await bodyOf(request, response, Answers, limits.request)
    const { warnings } = await review.answer(
      item,
      answers.map(({ path, verdict, to }) => ({ path, verdict, ...(to && { to }) })),
    )
    json(response, 200, { warnings, labels: await review.labels(), tally: await review.tally() })
  }
  async function undo(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await bodyOf(request, response, Nothing, limits.request)
    const undone = await review.undo()
    json(response, 200, { undone, labels: await review.labels(), tally: await review.tally() })
  }
  async function changes(_: IncomingMessage, response: ServerResponse): Promise<void> {
    const { changes, refusal } = await review.preview()
    const { relabelled, dropped, kept, outdated, newClasses, goneClasses } = changes
    json(response, 200, {
      relabelled: { count: relabelled.length, first: relabelled.slice(0, 200) },
      dropped: { count: dropped.length, first: dropped.slice(0, 200) },
      kept,
      outdated: outdated.length,
      newClasses,
      goneClasses,
      refusal,
    })
  }
  async function makeVersion(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await bodyOf(request, response, Nothing, limits.request)
    const made = await review.makeVersion()
    if (made.made) options.onVersion?.(made)
    json(response, 200, { made: made.made, dataset: made.dataset, parent: review.reference, images: made.manifest.rows.length })
  }
  /** By the digest of its file, and only if the dataset has it: there is no path in an address. */
  async function picture(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, content = '', side = ''] = /^\/pictures\/([0-9a-f]{64})\/(160|800)$/.exec(request.url!) ?? []
    if (!known.has(content)) throw new Failure('review_not_found')
    send(response, 200, 'image/webp', await thumbnails(content, Number(side)))
  }
  async function redeem(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { ticket } = await bodyOf(request, response, Ticket, 1000)
    const ends = tickets.get(ticket) ?? 0
    tickets.delete(ticket)
    if (ends < Date.now()) throw new Failure('token_required')
    json(response, 200, { token })
  }

  /** What may leave the process: no path of this machine, no stack. */
  function tellable(error: unknown): Failure {
    if (!(error instanceof Failure)) {
      options.onNotice?.(`A request of the page failed unexpectedly: ${error instanceof Error ? (error.stack ?? error.message) : error}`)
      return new Failure('internal', { problem: 'the terminal where the review was started says what' })
    }
    if (!('path' in error.details)) return error
    options.onNotice?.(`${error.message} ${error.next}`)
    return Failure.received({ code: error.code, details: { ...error.details, path: 'the home of Plinth' } })
  }

  server.on('request', (request, response) => void handle(request, response))
  server.on('clientError', refuseConnection)
  const { port: listening } = await listen(server, port, host)
  const url = `http://${host}:${listening}/`
  return {
    url: `${url}#token=${token}`,
    port: listening,
    token,
    ticketUrl() {
      const ticket = randomBytes(32).toString('base64url')
      tickets.set(ticket, Date.now() + ticketLife)
      return `${url}#ticket=${ticket}`
    },
    async close() {
      const closed = new Promise<void>(resolve => server.close(() => resolve()))
      server.closeIdleConnections()
      const limit = setTimeout(() => server.closeAllConnections(), 2000)
      await closed
      clearTimeout(limit)
    },
  }
}

interface Route {
  GET?: Action
  POST?: Action
  open?: boolean
}
type Action = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>

/** throws review_request_invalid, body_too_large, body_encoded */
async function bodyOf<T>(request: IncomingMessage, response: ServerResponse, shape: z.ZodType<T>, limit: number): Promise<T> {
  const invalid = (problem: string) => new Failure('review_request_invalid', { problem })
  const encoding = request.headers['content-encoding']
  if (encoding && encoding !== 'identity') throw new Failure('body_encoded', { encoding: encoding.slice(0, 40) })
  // a form of another site cannot send this type
  if (!/^application\/json(;|$)/i.test(request.headers['content-type'] ?? '')) throw invalid('it is not application/json')
  if (Number(request.headers['content-length'] ?? 0) > limit) throw new Failure('body_too_large', { limit })
  if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue()
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > limit) throw new Failure('body_too_large', { limit })
    parts.push(part)
  }
  let value: unknown
  try {
    value = JSON.parse(Buffer.concat(parts).toString('utf8'))
  } catch {
    throw invalid('its body is not JSON')
  }
  const { data, error } = shape.safeParse(value)
  if (error) throw invalid(error.issues.map(({ path, message }) => `${path.join('.')} ${message}`.trim())[0]!.slice(0, 200))
  return data
}
