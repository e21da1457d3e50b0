/** The control plane's HTTP: one Fastify application, a closed table of routes, and the same checks in front of each of them. */
import { randomBytes } from 'node:crypto'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { z } from 'zod'
import { Failure, forOthers } from '../failure.ts'
import { sendAnswer } from './answers.ts'
import { checkOrigin, headersFor } from './guards.ts'
import { refuseConnection } from './http.ts'
import { firstProblem, readInput } from './input.ts'
import { checkRight, type Principal } from './principal.ts'
import { createDoor, type Door, type RateLimits, usualLimits } from './rate-limit.ts'
import type { Context, ForeignRoute, Route } from './route.ts'

export interface AppOptions {
  routes: readonly Route[]
  foreign: readonly ForeignRoute[]
  /** Who a request's token belongs to; null where it carries none. throws token_required for one that is wrong, expired or revoked */
  authenticate(authorization: string | undefined): Promise<Principal | null>
  limits?: RateLimits
  /** Only names of this machine are answered. */
  loopback: boolean
  /** Addresses of proxies whose X-Forwarded headers are believed. */
  trustProxy?: readonly string[]
  /** Certificate and key as PEM: then HTTPS is spoken, and nothing else. */
  tls?: { cert: string; key: string }
  /** A request that ended, for logs and metrics. */
  onAnswered?(what: Answered): void
}
export interface Answered {
  /** Also in the answer's header x-request-id. */
  id: string
  method: string
  /** The pattern, never text from outside. */
  route: string
  status: number
  milliseconds: number
  user: string | null
  /** The peer, or, behind a proxy that is believed, who that says it asks for. */
  address: string
  /** What went wrong, where something did. */
  error: unknown
}

const jsonLimit = 16 * 2 ** 20
const limits = { headersTimeout: 20_000, maxHeaderSize: 16 * 1024 }

export function createApp(options: AppOptions): FastifyInstance {
  const app = Fastify({
    logger: false,
    bodyLimit: jsonLimit,
    requestTimeout: 0, // uploads take as long as they take; headers and idle connections are bounded by the server below
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    routerOptions: { maxParamLength: 2000, ignoreTrailingSlash: false, caseSensitive: true },
    ...(options.trustProxy && { trustProxy: [...options.trustProxy] }),
    // an address that cannot be decoded reaches no route and no hook
    frameworkErrors: (error, request, reply: FastifyReply) => {
      const { status, body } = asAnswer(error)
      reply.headers(headersFor(request.protocol)).code(status).send(body)
    },
    // what is not HTTP, or has too long headers, reaches neither
    clientErrorHandler: refuseConnection,
    genReqId: requestIds(),
    ...(options.tls ? { https: { ...limits, ...options.tls } } : { http: limits }),
  }) as FastifyInstance
  const door = createDoor(options.limits ?? usualLimits, options.authenticate)
  app.decorateRequest('principal', null)
  app.decorateRequest('problem', null)
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(headersFor(request.protocol))
    reply.header('x-request-id', request.id)
    checkOrigin(request.raw, { loopback: options.loopback })
    door.knock(request.ip)
  })
  app.addHook('onResponse', async (request, reply) => {
    const { principal, problem } = request as Asked
    options.onAnswered?.({
      id: request.id,
      method: request.method,
      route: request.routeOptions.url ?? '(none)',
      status: reply.statusCode,
      milliseconds: reply.elapsedTime,
      user: principal?.user ?? null,
      address: request.ip,
      error: problem ?? null,
    })
  })
  app.setErrorHandler((error, request, reply) => {
    ;(request as Asked).problem = error
    const { status, body } = asAnswer(error)
    reply.code(status).headers(headersOf(error)).send(body)
  })
  app.setNotFoundHandler((request, reply) => {
    const { status, body } = asAnswer(new Failure('api_route_not_found', { path: request.url.split('?', 1)[0]!.slice(0, 200) }))
    reply.code(status).send(body)
  })
  for (const route of options.routes) mount(app, route, door)
  // bodies that are not JSON are nobody's in this scope; foreign routes that stream take theirs raw
  const kinds = Map.groupBy(options.foreign, ({ body }) => body)
  for (const [body, routes] of kinds)
    app.register(async scope => {
      if (body !== 'json') {
        scope.removeAllContentTypeParsers()
        if (body === 'text') scope.addContentTypeParser('*', { parseAs: 'string' }, (_, text, done) => done(null, text))
        else scope.addContentTypeParser('*', (_, payload, done) => done(null, body === 'stream' ? payload : undefined))
      }
      for (const route of routes) mountForeign(scope, route, door)
    })
  return app
}

/** Random once, then counted: unique in the logs of many servers. */
function requestIds(): () => string {
  const server = randomBytes(5).toString('hex')
  let count = 0
  return () => `${server}${(count++).toString(36).padStart(4, '0')}`
}

type Asked = FastifyRequest & { principal?: Principal | null; problem?: unknown }

/** Checked before the body is read. */
const rightOf = (right: Route['call']['right'], door: Door) => async (request: FastifyRequest) => {
  if (right === 'public') return
  const principal = await door.enter(request.ip, request.headers.authorization)
  ;(request as Asked).principal = principal
  checkRight(principal, right)
}

function contextOf(request: FastifyRequest, reply: FastifyReply): Context {
  const { principal } = request as Asked
  let signal: AbortSignal | undefined
  return {
    principal: principal!,
    project: principal?.project ?? 'default',
    // made for the few that ask: most calls are over before anybody could go
    get signal() {
      signal ??= whenGone(reply)
      return signal
    },
  }
}
function whenGone({ raw }: FastifyReply): AbortSignal {
  const gone = new AbortController()
  if (raw.destroyed) gone.abort()
  raw.once('close', () => {
    if (!raw.writableFinished) gone.abort()
  })
  return gone.signal
}

function mount(app: FastifyInstance, { call, answer }: Route, door: Door): void {
  app.route({
    method: call.method,
    url: call.path,
    onRequest: rightOf(call.right, door),
    handler: async (request, reply) => {
      const given = { ...(request.query as object), ...(request.body as object | undefined), ...(request.params as object) }
      return await sendAnswer(request, reply, await answer(readInput(call, given), contextOf(request, reply)))
    },
  })
}

function mountForeign(scope: FastifyInstance, route: ForeignRoute, door: Door): void {
  scope.route({
    method: route.method,
    url: route.path,
    ...(route.body === 'stream' && { bodyLimit: Number.MAX_SAFE_INTEGER }),
    onRequest: rightOf(route.right, door),
    errorHandler: (error, request, reply) => {
      ;(request as Asked).problem = error
      const { status, body } = route.failed(error)
      reply.code(status).headers(headersOf(error)).send(body)
    },
    handler: async (request, reply) => {
      const { raw, body, url } = request
      const at = url.indexOf('?')
      const asked = {
        ...{ params: request.params as Record<string, string>, body, raw },
        query: new URLSearchParams(at < 0 ? '' : url.slice(at + 1)),
        get response() {
          // a route that writes its answer itself still carries the headers of all answers
          for (const [name, value] of Object.entries(reply.getHeaders())) if (value !== undefined) reply.raw.setHeader(name, value)
          return reply.raw
        },
      }
      const answered = await route.answer(asked, contextOf(request, reply))
      if (answered === null) return reply.hijack()
      return typeof answered === 'string' ? answered : await sendAnswer(request, reply, answered)
    },
  })
}

/** When to come back, and which kind of token is wanted: RFC 9110, RFC 6750. */
function headersOf(error: unknown): Record<string, string> {
  if (!(error instanceof Failure)) return {}
  const { status, details } = error
  return {
    ...((status === 429 || status === 503) && details['seconds'] !== undefined && { 'retry-after': String(details['seconds']) }),
    ...(status === 401 && { 'www-authenticate': 'Bearer' }),
  }
}

/** A failure as it is; what Fastify refuses by itself with its status; anything else is ours, and says nothing of the inside. */
export function asAnswer(error: unknown): { status: number; body: { error: { code: string; message: string; next: string } } } {
  const failure = forOthers(error instanceof Failure ? error : translated(error))
  return { status: failure.status, body: { error: failure.toJSON() } }
}

function translated(error: unknown): Failure {
  const { statusCode = 500, code = '', message = '' } = error as { statusCode?: number; code?: string; message?: string }
  if (error instanceof z.ZodError) return new Failure('api_request_invalid', { problem: firstProblem(error) })
  if (statusCode === 413) return new Failure('api_body_too_large', { limit: `${jsonLimit / 2 ** 20} MB` }, { cause: error })
  if (statusCode === 415) return new Failure('api_content_type', {}, { cause: error })
  if (statusCode < 500)
    return new Failure('api_request_invalid', { problem: code.startsWith('FST_') ? message : 'it cannot be read' }, { cause: error })
  return new Failure('internal', { problem: 'see the log of the server' }, { cause: error })
}
