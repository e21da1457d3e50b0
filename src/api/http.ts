/** Answering over node:http the same way everywhere: what is sent, how a request is refused, where it listens. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { Failure } from '../failure.ts'
import { securityHeaders } from './guards.ts'

export function send(
  response: ServerResponse,
  status: number,
  type: string,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
): void {
  if (response.headersSent || response.destroyed) return
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  response.writeHead(status, { 'content-type': type, 'content-length': bytes.length, ...headers })
  response.end(bytes)
}
export const json = (response: ServerResponse, status: number, value: unknown): void =>
  send(response, status, 'application/json; charset=utf-8', JSON.stringify(value))

/** What is still coming of a refused request is read and thrown away for a moment, so that the sender gets to see the answer. */
const LINGER = { bytes: 64 * 2 ** 20, milliseconds: 2000 }

export async function refuse(request: IncomingMessage, response: ServerResponse, failure: Failure): Promise<void> {
  if (response.headersSent || response.destroyed) return
  const body = Buffer.from(JSON.stringify({ error: failure }))
  const seconds = failure.details['seconds']
  if (failure.status === 503 && seconds) response.setHeader('retry-after', String(seconds))
  if (failure.status === 401) response.setHeader('www-authenticate', 'Bearer')
  if (!request.complete) response.setHeader('connection', 'close')
  response.writeHead(failure.status, { 'content-type': 'application/json; charset=utf-8', 'content-length': body.length })
  response.write(body)
  if (!request.complete) await discardRest(request)
  response.end()
}

function discardRest(request: IncomingMessage): Promise<void> {
  return new Promise(resolve => {
    let bytes = 0
    const limit = setTimeout(resolve, LINGER.milliseconds)
    const done = () => {
      clearTimeout(limit)
      resolve()
    }
    request.on('data', (part: Buffer) => {
      bytes += part.length
      if (bytes > LINGER.bytes) done()
    })
    request.once('end', done).once('close', done).once('error', done)
    request.resume()
  })
}

/** What is not HTTP, came too slowly or has too long headers never reaches a route: for the server's `clientError`. */
export function refuseConnection(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const codes = { ERR_HTTP_REQUEST_TIMEOUT: 'request_too_slow', HPE_HEADER_OVERFLOW: 'headers_too_large' } as const
  const failure = new Failure(codes[error.code as keyof typeof codes] ?? 'request_invalid')
  const body = JSON.stringify({ error: failure })
  const reason = { 400: 'Bad Request', 408: 'Request Timeout', 431: 'Request Header Fields Too Large' }[failure.status] ?? 'Error'
  const headers = {
    ...securityHeaders,
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  socket.end(`HTTP/1.1 ${failure.status} ${reason}\r\n${lines.join('\r\n')}\r\n\r\n${body}`)
}

/** throws port_taken, port_refused, host_unknown */
export function listen(server: Server, port: number, host: string): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenFailure(error, port, host)))
    server.listen({ port, host }, () => resolve(server.address() as AddressInfo))
  })
}
function listenFailure(error: NodeJS.ErrnoException, port: number, host: string): Error {
  const problem = error.code ?? error.message
  if (error.code === 'EADDRINUSE') return new Failure('port_taken', { port, host }, { cause: error })
  if (error.code === 'EACCES') return new Failure('port_refused', { port, host, problem }, { cause: error })
  if (error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN')
    return new Failure('host_unknown', { host, problem }, { cause: error })
  return error
}
/** What to type into a browser for an address that was listened on. */
export const urlHost = (host: string): string =>
  host === '0.0.0.0' || host === '::' ? 'localhost' : host.includes(':') ? `[${host}]` : host
