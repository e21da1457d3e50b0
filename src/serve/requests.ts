/** Taking a picture out of a request: bounded, whatever the sender claims. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Busboy } from '@fastify/busboy'
import { Failure } from '../failure.ts'

export interface BodyLimits {
  /** Bytes of one request. */
  request: number
  /** Bytes of all requests that are being read or answered. */
  together: number
}
/** Bytes held by all requests at this moment. */
export interface Held {
  bytes: number
}

/**
 * The whole body. Give `held.bytes` back what came when the answer is out.
 * throws body_too_large, body_encoded, body_missing, overloaded, request_invalid
 */
export async function readBody(request: IncomingMessage, response: ServerResponse, limits: BodyLimits, held: Held): Promise<Buffer> {
  const encoding = request.headers['content-encoding']
  if (encoding && encoding !== 'identity') throw new Failure('body_encoded', { encoding: encoding.slice(0, 40) })
  const declared = Number(request.headers['content-length'] ?? 0)
  if (declared > limits.request) throw new Failure('body_too_large', { limit: limits.request })
  if (held.bytes + declared > limits.together) throw new Failure('overloaded', { seconds: 1 })
  // curl asks before it sends a megabyte
  if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue()

  const parts: Buffer[] = []
  let length = 0
  const giveBack = () => (held.bytes -= length)
  response.once('close', giveBack)
  try {
    for await (const part of request as AsyncIterable<Buffer>) {
      length += part.length
      held.bytes += part.length
      if (length > limits.request) throw new Failure('body_too_large', { limit: limits.request })
      if (held.bytes > limits.together) throw new Failure('overloaded', { seconds: 1 })
      parts.push(part)
    }
  } catch (error) {
    throw error instanceof Failure ? error : new Failure('request_invalid', {}, { cause: error })
  }
  if (length === 0) throw new Failure('body_missing')
  return Buffer.concat(parts, length)
}

/** The picture in a body: the first file of a form, else the body itself, whatever type it is said to have. throws multipart_invalid, body_missing */
export async function pictureIn(body: Buffer, contentType: string | undefined): Promise<Uint8Array> {
  if (!/^multipart\//i.test(contentType ?? '')) return body
  if (!/^multipart\/form-data\s*;/i.test(contentType!)) throw new Failure('multipart_invalid', { problem: 'it is not multipart/form-data' })
  const boundary = /;\s*boundary=(?:"([^"]*)"|([^;\s]*))/i.exec(contentType!)
  const length = (boundary?.[1] ?? boundary?.[2] ?? '').length
  if (length < 1 || length > 70) throw new Failure('multipart_invalid', { problem: 'its boundary has no allowed length' })
  const file = await firstFile(body, contentType!)
  if (!file?.length) throw new Failure('body_missing')
  return file
}

function firstFile(body: Buffer, contentType: string): Promise<Buffer | null> {
  return new Promise((resolve, reject) => {
    const broken = (problem: string) => reject(new Failure('multipart_invalid', { problem }))
    let form: InstanceType<typeof Busboy>
    try {
      form = new Busboy({
        headers: { 'content-type': contentType },
        limits: { files: 1, fields: 16, parts: 17, fileSize: body.length, fieldSize: 64 * 1024, fieldNameSize: 100, headerPairs: 32 },
      })
    } catch {
      return broken('its header makes no sense')
    }
    const parts: Buffer[] = []
    let found = false
    let ended = false
    form.on('file', (_name, stream) => {
      found = true
      stream.on('data', (part: Buffer) => parts.push(part))
      stream.on('end', () => (ended = true))
      stream.on('error', () => broken('it ends too early'))
    })
    form.on('filesLimit', () => broken('it has more than one file'))
    form.on('partsLimit', () => broken('it has too many parts'))
    form.on('fieldsLimit', () => broken('it has too many fields'))
    form.on('error', () => broken('it ends too early or has a wrong boundary'))
    form.on('finish', () => (found && !ended ? broken('it ends too early') : resolve(found ? Buffer.concat(parts) : null)))
    form.end(body)
  })
}
