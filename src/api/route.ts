/** A call of the contract and the function that answers it, as plain data: what the application mounts, and what tests walk. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { z } from 'zod'
import type { Call, Right } from '../sdk/contract.ts'
import type { JsonText } from './answers.ts'
import type { Principal } from './principal.ts'

export interface Context {
  /** Null only for public calls. */
  principal: Principal
  /** Everything a call touches lies in this project; what lies elsewhere is not found. */
  project: string
  /** Aborted when the client has gone. */
  signal: AbortSignal
}

export interface Route {
  call: Call
  answer(input: unknown, context: Context): unknown
}

/** What the call says it answers; as JSON where it is long. */
type Answer<C extends Call> = z.input<C['output']> | JsonText

/** `route(calls.getRun, ({ run }, { project }) => getRun(db, project, run))`: two functions from request to SQL. */
export const route = <C extends Call>(
  call: C,
  answer: (input: z.output<C['input']>, context: Context) => Answer<C> | Promise<Answer<C>>,
): Route => ({ call, answer: answer as Route['answer'] })

/**
 * A route of a foreign protocol (MLflow's REST, files in and out), which brings its own validation and its own answers. It stands in the
 * closed route table with its right like every other.
 */
export interface ForeignRoute {
  method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE' | 'HEAD'
  /** `:name` for one segment, `*` at the end for the rest of the path. */
  path: string
  right: Right
  /** How the body arrives: parsed JSON, as text, not at all, or as the stream that it is. */
  body: 'json' | 'text' | 'none' | 'stream'
  /** What is returned is sent as JSON, a string as it is; null means that the response was written. */
  answer(request: ForeignRequest, context: Context): unknown
  /** How this protocol says that something went wrong. */
  failed(error: unknown): { status: number; body: unknown }
}
export interface ForeignRequest {
  params: Readonly<Record<string, string>>
  /** Repeated parameters keep their order. */
  query: URLSearchParams
  body: unknown
  raw: IncomingMessage
  response: ServerResponse
}
