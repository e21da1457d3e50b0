/** The log of a job as it is written, from a server: GET /api/jobs/:job/log, gone on with after a connection that broke. For Node and browsers. */
import { z } from 'zod'
import { Failure } from '../failure.ts'
import { ErrorAnswer } from './contract.ts'

export const LogLine = z.strictObject({
  /** Where a reader goes on behind it. */
  next: z.int(),
  /** Milliseconds since 1970. */
  time: z.number(),
  /** Standard output, standard error, Plinth. */
  stream: z.enum(['o', 'e', 'p']),
  text: z.string(),
})
export type LogLine = z.infer<typeof LogLine>

const Part = z.union([
  z.strictObject({ attempt: z.int(), lines: z.array(LogLine) }),
  z.strictObject({ attempt: z.int(), end: z.literal(true), next: z.int() }),
  ErrorAnswer,
])

export interface LogWanted {
  job: number
  attempt: number
  /** Bytes, as `next` of a line says. */
  offset?: number
  /** Until the attempt has ended. */
  follow?: boolean
  signal?: AbortSignal
}

/** How often, and after how many milliseconds, a broken connection is made again. */
const patience = { tries: 40, pause: 250 }

/** throws the failure the server answered with; server_unreachable, server_answer */
export async function* readJobLog(
  { url, token, fetch = globalThis.fetch }: { url: string; token: string; fetch?: typeof globalThis.fetch },
  { job, attempt, offset = 0, follow = false, signal }: LogWanted,
): AsyncGenerator<LogLine> {
  let at = offset
  for (let tries = 0; ; tries++) {
    try {
      const target = new URL(`/api/jobs/${job}/log?attempt=${attempt}&offset=${at}&follow=${follow}`, url)
      const response = await fetch(target, { headers: { authorization: `Bearer ${token}` }, redirect: 'error', ...(signal && { signal }) })
      if (!response.ok || !response.body) {
        const failed = ErrorAnswer.safeParse(await response.json().catch(() => null))
        throw failed.success
          ? Failure.told(failed.data.error, response.status)
          : new Failure('server_answer', { url, problem: String(response.status) })
      }
      for await (const text of linesOf(response.body)) {
        const part = Part.parse(JSON.parse(text))
        if ('error' in part) throw Failure.told(part.error, 500)
        if ('end' in part) return
        tries = 0
        for (const line of part.lines) {
          at = line.next
          yield line
        }
      }
      // the answer ended without saying so: the server went
    } catch (error) {
      if (signal?.aborted) return
      if (error instanceof Failure || tries >= patience.tries) {
        if (error instanceof Failure) throw error
        throw new Failure('server_unreachable', { url }, { cause: error })
      }
    }
    if (tries >= patience.tries) throw new Failure('server_unreachable', { url })
    await new Promise(resolve => setTimeout(resolve, patience.pause))
  }
}

async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  const reader = body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const parts = (rest + decoder.decode(value, { stream: true })).split('\n')
      rest = parts.pop()!
      for (const part of parts) if (part !== '') yield part
    }
  } finally {
    void reader.cancel().catch(() => {})
  }
}
