/** How what a call answers is sent: as JSON, compressed where that pays. */
import { promisify } from 'node:util'
import { constants, gzip } from 'node:zlib'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isLoopback } from './guards.ts'

/** An answer that is JSON already: what is long is written as text where it is read, not as objects that are then written. */
export class JsonText {
  /** As bytes where it comes from another thread. */
  readonly text: string | Uint8Array
  constructor(text: string | Uint8Array) {
    this.text = text
  }
}

export const jsonOf = (answer: unknown): string | Uint8Array => (answer instanceof JsonText ? answer.text : JSON.stringify(answer))

/** Below this, in characters, compressing saves no packet worth the time. */
const worthIt = 16 * 1024
const compress = promisify(gzip)

/** Within one machine copying is cheaper than compressing; a proxy there compresses for others. */
export async function sendAnswer(request: FastifyRequest, reply: FastifyReply, answer: unknown): Promise<string | Uint8Array> {
  const text = jsonOf(answer)
  reply.header('content-type', 'application/json; charset=utf-8')
  if (text.length < worthIt || isLoopback(request.ip) || !acceptsGzip(request.headers['accept-encoding'])) return text
  reply.headers({ 'content-encoding': 'gzip', vary: 'accept-encoding' })
  return await compress(text, { level: constants.Z_BEST_SPEED })
}

/** `gzip, deflate`, `gzip;q=0.5`, `*`; not `gzip;q=0`. */
const acceptsGzip = (accepted: string | string[] | undefined) =>
  String(accepted ?? '')
    .split(',')
    .some(each => /^\s*(gzip|x-gzip|\*)\s*(;\s*q=(?!0(\.0*)?\s*$).*)?$/i.test(each))
