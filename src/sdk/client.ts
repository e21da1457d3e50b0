/** The typed client of the contract, for Node and browsers: `createClient(calls, {url, token}).getRun({ run })`. */
import { Failure } from '../failure.ts'
import type { Call, InputOf, OutputOf } from './contract.ts'
import { ErrorAnswer } from './contract.ts'

export type Client<Calls extends Record<string, Call>> = {
  [Name in keyof Calls]: (input: InputOf<Calls[Name]>, options?: { signal?: AbortSignal }) => Promise<OutputOf<Calls[Name]>>
}

export interface ClientOptions {
  /** Where the server is: http://127.0.0.1:6420 */
  url: string
  token?: string
  /** Milliseconds to wait for an answer. */
  timeout?: number
  /** Another way to the server than the network's usual one. */
  fetch?: typeof globalThis.fetch
}

/** throws the failure the server answered with; server_unreachable, server_certificate, server_answer */
export function createClient<const Calls extends Record<string, Call>>(
  calls: Calls,
  { url, token, timeout = 60_000, fetch = globalThis.fetch }: ClientOptions,
): Client<Calls> {
  const ask = async (call: Call, input: Record<string, unknown>, signal?: AbortSignal): Promise<unknown> => {
    const { path, rest } = fill(call.path, input)
    const target = new URL(path, url)
    const inQuery = call.method === 'GET' || call.method === 'DELETE'
    if (inQuery)
      for (const [name, value] of Object.entries(rest))
        if (value !== undefined && value !== null) target.searchParams.set(name, String(value))
    const limit = AbortSignal.timeout(timeout)
    const response = await fetch(target, {
      method: call.method,
      redirect: 'error',
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      headers: { ...(token && { authorization: `Bearer ${token}` }), ...(!inQuery && { 'content-type': 'application/json' }) },
      ...(!inQuery && { body: JSON.stringify(rest) }),
    }).catch(error => {
      const problem = untrusted(error)
      if (problem !== null) throw new Failure('server_certificate', { url: target.origin, problem }, { cause: error })
      throw new Failure('server_unreachable', { url: target.origin }, { cause: error })
    })
    const answer: unknown = await response.json().catch(error => {
      throw new Failure('server_answer', { url: target.origin, problem: `${response.status}, and no JSON` }, { cause: error })
    })
    if (response.ok) return call.output.parse(answer)
    const failed = ErrorAnswer.safeParse(answer)
    if (!failed.success) throw new Failure('server_answer', { url: target.origin, problem: `${response.status}` })
    throw Failure.told(failed.data.error, response.status)
  }
  return Object.fromEntries(
    Object.entries(calls).map(([name, call]) => [
      name,
      (input: Record<string, unknown> = {}, options?: { signal?: AbortSignal }) => ask(call, input, options?.signal),
    ]),
  ) as unknown as Client<Calls>
}

/** What Node says against the server's certificate; null where it is something else, and in browsers, which do not tell. */
function untrusted(error: { cause?: { code?: unknown; message?: unknown } }): string | null {
  const { code, message } = error.cause ?? {}
  return typeof code === 'string' && /CERT|SELF_SIGNED|^UNABLE_TO_(GET_ISSUER|VERIFY)|^ERR_TLS/.test(code) ? String(message) : null
}

/** `/api/runs/:run` with {run: 'x', step: 3} → `/api/runs/x`, {step: 3}. */
function fill(path: string, input: Record<string, unknown>): { path: string; rest: Record<string, unknown> } {
  const rest = { ...input }
  const filled = path.replace(/:(\w+)/g, (_, name: string) => {
    const value = rest[name]
    delete rest[name]
    return encodeURIComponent(String(value))
  })
  return { path: filled, rest }
}
