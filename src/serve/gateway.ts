/**
 * The endpoint: HTTP in front of one model host. Routed by hand on node:http, because that is the fastest and because a picture
 * must be taken from any client as it comes: raw with any content type, or as a form.
 */
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { checkOrigin, checkToken, isLoopback, isToken, securityHeaders } from '../api/guards.ts'
import { json, listen, refuse, refuseConnection, send, urlHost } from '../api/http.ts'
import { loadPage } from '../api/page.ts'
import { version } from '../config.ts'
import { Failure } from '../failure.ts'
import type { ExplainAnswer, PredictAnswer } from '../sdk/index.ts'
import { createMetrics, type ServerStats } from './metrics.ts'
import { type ModelHost, type ModelHostOptions, startModelHost } from './model-host.ts'
import { type Held, pictureIn, readBody } from './requests.ts'

export interface ServerOptions {
  /** A model version of the registry, or a file with a name. */
  model: { path: string; name: string; version?: number }
  /** 0 for any free port. */
  port: number
  /** Address to listen on. Default 127.0.0.1; any address beyond loopback wants a token. */
  host?: string
  /** Default beyond loopback: $PLINTH_TOKEN, else one is made (see `RunningServer.token`). On loopback none, unless given. */
  token?: string
  /** Pictures to try on the page, as a rule the worst mistakes of the report. */
  examples?: readonly Example[]
  threads?: number
  limits?: Partial<ServerLimits>
  /** A line for the operator: crashes and restarts of the model. */
  onNotice?(text: string): void
}
export interface Example {
  /** The picture's file on this machine. */
  path: string
  /** What it is called on the page. */
  title: string
  label: string
  predicted: string
  probability: number
}
export interface ServerLimits extends Pick<ModelHostOptions, 'maxWaiting' | 'deadline' | 'patience' | 'startLimit' | 'memoryLimit'> {
  /** Bytes of one request. */
  request: number
  /** Bytes of all requests that are being read or answered. */
  together: number
  /** Milliseconds for the headers and for a whole request. */
  headers: number
  body: number
  connections: number
  /** Milliseconds that `close` waits for requests under way. */
  drain: number
}
const defaults: ServerLimits = {
  request: 20 * 2 ** 20,
  together: 256 * 2 ** 20,
  headers: 10_000,
  body: 30_000,
  connections: 1024,
  drain: 10_000,
}

export interface RunningServer {
  /** Where it answers, without the token. */
  url: string
  port: number
  /** The token that requests need, or null. */
  token: string | null
  /** Whether the token was made just now: print it once, nobody knows it yet. */
  tokenIsNew: boolean
  stats(): ServerStats
  /** What the golden predictions said when the model was opened. */
  golden: { pictures: number; largestDifference: number }
  /** Takes no more requests, finishes those under way, ends the model host. */
  close(): Promise<ServerStats>
}

/**
 * Opens the model in a process of its own, has its golden predictions made again, and only then listens.
 * throws golden_mismatch, golden_missing, model_not_started, artefact_*, port_taken, port_refused, host_unknown, token_invalid
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { port, host = '127.0.0.1', examples = [] } = options
  const limits = { ...defaults, ...options.limits }
  const { name, version: modelVersion, path } = options.model
  const model = modelVersion === undefined ? name : `${name}@${modelVersion}`
  const loopback = isLoopback(host)
  const known = options.token ?? (loopback ? undefined : process.env['PLINTH_TOKEN'] || undefined)
  if (known !== undefined && !isToken(known)) throw new Failure('token_invalid')
  const token = known ?? (loopback ? null : randomBytes(32).toString('base64url'))

  const { threads, onNotice } = options
  const { maxWaiting, deadline, patience, startLimit, memoryLimit } = limits
  const server = createServer({
    maxHeaderSize: 16 * 1024,
    headersTimeout: limits.headers,
    requestTimeout: limits.body,
    keepAliveTimeout: 15_000,
    connectionsCheckingInterval: Math.min(1000, limits.headers, limits.body),
    insecureHTTPParser: false,
  })
  server.maxConnections = limits.connections
  const page = await loadPage(new URL('./page.html', import.meta.url), { permissions: 'camera=(self), microphone=()' })
  // the port first: a program that is in the way should be found before seconds go into loading a model
  const starting = (request: IncomingMessage, response: ServerResponse) =>
    void refuse(request, response, new Failure('model_restarting', { seconds: 1 }))
  server.on('request', starting)
  const listening = await listen(server, port, host)
  let modelHost: ModelHost
  try {
    modelHost = await startModelHost({ path, model, threads, maxWaiting, deadline, patience, startLimit, memoryLimit, onNotice })
  } catch (error) {
    server.close()
    server.closeAllConnections()
    throw error
  }
  const metrics = createMetrics()
  const held: Held = { bytes: 0 }
  const thumbnails = new Map<number, Promise<Uint8Array>>()
  let closing = false
  let underWay = 0
  /** Browsers open connections ahead of need: what has no request on it when the last answer is out, is closed. */
  const closeWhenDone = () => {
    if (closing && underWay === 0) server.closeAllConnections()
  }

  /** The whole surface. `open` routes need no token: they say nothing about the model's pictures. */
  const routes: Record<string, Route> = {
    '/': { GET: (_, response) => send(response, 200, 'text/html; charset=utf-8', page.html, page.headers), open: true },
    '/healthz': { GET: (_, response) => health(response), open: true },
    '/version': { GET: (_, response) => json(response, 200, { plinth: version, model }), open: true },
    '/model': { GET: (_, response) => json(response, 200, describe()) },
    '/metrics': {
      GET: (_, response) => send(response, 200, 'text/plain; version=0.0.4; charset=utf-8', metrics.text(model, modelHost.state())),
    },
    '/predict': { POST: predict },
    '/explain': { POST: explain },
    '/examples/*': { GET: showExample, POST: predictExample },
    '/examples/*/explain': { POST: explainExample },
  }

  server.off('request', starting)
  server.on('request', (request, response) => void handle(request, response))
  server.on('checkContinue', (request, response) => void handle(request, response))
  server.on('clientError', refuseConnection)

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url?.split('?', 1)[0] ?? ''
    const example = /^\/examples\/(\d{1,4})(\/explain)?$/.exec(path)
    const pattern = example ? `/examples/*${example[2] ?? ''}` : path
    const route = Object.hasOwn(routes, pattern) ? routes[pattern] : undefined
    underWay++
    response.once('close', () => {
      underWay--
      metrics.answered(route ? pattern : 'other', response.headersSent ? response.statusCode : 499)
      closeWhenDone()
    })
    try {
      for (const [header, value] of Object.entries(securityHeaders)) response.setHeader(header, value)
      if (closing) response.setHeader('connection', 'close')
      checkOrigin(request, { loopback })
      if (!route) throw new Failure('route_not_found')
      const method = request.method === 'HEAD' ? 'GET' : request.method
      const action = method === 'GET' || method === 'POST' ? route[method] : undefined
      if (!action) {
        const allowed = [route.GET && 'GET', route.POST && 'POST'].filter(Boolean).join(', ')
        response.setHeader('allow', allowed)
        throw new Failure('method_not_allowed', { method: request.method?.slice(0, 20) ?? '', allowed })
      }
      if (token && !route.open) checkToken(request, token)
      await action(request, response, Number(example?.[1]))
    } catch (error) {
      await refuse(request, response, error instanceof Failure ? error : unexpected(error))
    }
  }

  function health(response: ServerResponse): void {
    const { ready } = modelHost.state()
    json(response, ready && !closing ? 200 : 503, { ready: ready && !closing, model })
  }
  function describe() {
    const { labels, threshold, unknown, backbone, imageSize, created, golden } = modelHost.model
    const shown = examples.map(({ title, label, predicted, probability }) => ({ title, label, predicted, probability }))
    return {
      model,
      plinth: version,
      labels,
      threshold,
      unknown,
      backbone,
      imageSize,
      created,
      golden,
      limits: { bytes: limits.request },
      examples: shown,
    }
  }

  async function predict(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await answer(await pictureOf(request, response), response)
  }
  async function explain(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await answerWithWhy(await pictureOf(request, response), response)
  }
  async function pictureOf(request: IncomingMessage, response: ServerResponse): Promise<Uint8Array> {
    const body = await readBody(request, response, limits, held)
    return pictureIn(body, request.headers['content-type'])
  }
  async function answer(picture: Uint8Array, response: ServerResponse, formats: 'upload' | 'local' = 'upload'): Promise<void> {
    const { answered, milliseconds } = await asked(response, signal => modelHost.predict(picture, { signal, formats }))
    json(response, 200, { ...answered.prediction, model, milliseconds } satisfies PredictAnswer)
  }
  async function answerWithWhy(picture: Uint8Array, response: ServerResponse, formats: 'upload' | 'local' = 'upload'): Promise<void> {
    const { answered, milliseconds } = await asked(response, signal => modelHost.explain(picture, { signal, formats }))
    json(response, 200, { ...answered.prediction, model, milliseconds, ...answered.explanation } satisfies ExplainAnswer)
  }
  async function asked<T extends { batch: number }>(response: ServerResponse, ask: (signal: AbortSignal) => Promise<T>) {
    const started = performance.now()
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    const answered = await ask(gone.signal)
    const milliseconds = performance.now() - started
    metrics.predicted(milliseconds, answered.batch)
    return { answered, milliseconds: Math.max(0.01, Math.round(milliseconds * 100) / 100) }
  }

  /** The worst mistakes are shown from a copy made small; predicted is the original, as in the report. */
  async function showExample(_: IncomingMessage, response: ServerResponse, index: number): Promise<void> {
    const path = exampleAt(index).path
    const thumbnail = thumbnails.get(index) ?? readFile(path).then(bytes => modelHost.thumbnail(bytes, 512))
    thumbnails.set(index, thumbnail)
    thumbnail.catch(() => thumbnails.delete(index))
    send(response, 200, 'image/webp', await thumbnail)
  }
  async function predictExample(_: IncomingMessage, response: ServerResponse, index: number): Promise<void> {
    await answer(await readFile(exampleAt(index).path), response, 'local')
  }
  async function explainExample(_: IncomingMessage, response: ServerResponse, index: number): Promise<void> {
    await answerWithWhy(await readFile(exampleAt(index).path), response, 'local')
  }
  function exampleAt(index: number): Example {
    const example = examples[index]
    if (!example) throw new Failure('route_not_found')
    return example
  }

  function unexpected(error: unknown): Failure {
    onNotice?.(`A request failed unexpectedly: ${error instanceof Error ? (error.stack ?? error.message) : error}`)
    return new Failure('internal', { problem: 'the server log says what' })
  }

  return {
    url: `http://${urlHost(host)}:${listening.port}`,
    port: listening.port,
    token,
    tokenIsNew: known === undefined && token !== null,
    stats: metrics.stats,
    golden: modelHost.model.golden,
    async close() {
      if (!closing) {
        closing = true
        const drained = new Promise<void>(resolve => server.close(() => resolve()))
        closeWhenDone()
        const limit = setTimeout(() => server.closeAllConnections(), limits.drain)
        await drained
        clearTimeout(limit)
        await modelHost.close()
      }
      return metrics.stats()
    },
  }
}

interface Route {
  GET?: Action
  POST?: Action
  open?: boolean
}
type Action = (request: IncomingMessage, response: ServerResponse, index: number) => void | Promise<void>
