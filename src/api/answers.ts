/** How what a call answers is sent: as JSON, compressed where that pays. */
import { promisify } from 'node:util'
import { constants, gzip } from 'node:zlib'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isLoopback } from './guards.ts'

/** An answer that is JSON already, in UTF-8: what is long is written as text where it is read, not as objects that are then written. */
export class JsonText {
  readonly bytes: Uint8Array<ArrayBuffer>
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes
  }
}

/** JSON in parts, as one. Joined as strings first, megabytes would be copied twice. */
export function jsonText(parts: readonly string[]): JsonText {
  // enough for ASCII, with room behind it for whether the last part is
  let bytes = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, 0) + 2 * parts.reduce((most, { length }) => Math.max(most, length), 0),
  )
  let at = 0
  for (const part of parts) {
    const most = 3 * part.length // a letter beyond ASCII takes up to three
    if (bytes.length - at < most) {
      const larger = new Uint8Array(at + most + (bytes.length >> 2))
      larger.set(bytes.subarray(0, at))
      bytes = larger
    }
    at += encoder.encodeInto(part, bytes.subarray(at)).written
  }
  return new JsonText(bytes.subarray(0, at))
}
const encoder = new TextEncoder()

export const jsonOf = (answer: unknown): string | Uint8Array => (answer instanceof JsonText ? answer.bytes : JSON.stringify(answer))

/** Below this, in letters or bytes, compressing saves no packet worth the time. */
const worthIt = 16 * 1024
const compress = promisify(gzip)

/** Within one machine copying is cheaper than compressing; a proxy there compresses for others. */
export async function sendAnswer(request: FastifyRequest, reply: FastifyReply, answer: unknown): Promise<string | Uint8Array> {
  const json = jsonOf(answer)
  reply.header('content-type', 'application/json; charset=utf-8')
  if (json.length < worthIt || isLoopback(request.ip) || !acceptsGzip(request.headers['accept-encoding'])) return json
  reply.headers({ 'content-encoding': 'gzip', vary: 'accept-encoding' })
  return await compress(json, { level: constants.Z_BEST_SPEED })
}

/** `gzip, deflate`, `gzip;q=0.5`, `*`; not `gzip;q=0`. */
const acceptsGzip = (accepted: string | string[] | undefined) =>
  String(accepted ?? '')
    .split(',')
    .some(each => /^\s*(gzip|x-gzip|\*)\s*(;\s*q=(?!0(\.0*)?\s*$).*)?$/i.test(each))
