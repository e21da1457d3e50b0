/** `fetch` into an application of this process: no socket, no certificate, no proxy in between; the same checks as for everybody. */
import { Readable } from 'node:stream'
import type { ReadableStream as WebStream } from 'node:stream/web'
import type { FastifyInstance } from 'fastify'

/** `authorization` takes the place of the header that the caller sends. */
export const injectedFetch =
  (app: FastifyInstance, authorization: string): typeof fetch =>
  async (input, init = {}) => {
    const { pathname, search } = new URL(input instanceof Request ? input.url : input)
    const { body } = init
    const answer = await app.inject({
      method: (init.method ?? 'GET') as 'GET',
      url: `${pathname}${search}`,
      headers: { ...(init.headers as Record<string, string>), authorization },
      ...(body instanceof ReadableStream
        ? { payload: Readable.fromWeb(body as WebStream) }
        : typeof body === 'string'
          ? { payload: body }
          : {}),
    })
    return new Response(new Uint8Array(answer.rawPayload), { status: answer.statusCode })
  }
