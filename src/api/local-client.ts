/** The contract's client without a network: the same calls, validated the same way, answered in this process for whoever `principal` is. */
import { Failure } from '../failure.ts'
import type { Client } from '../sdk/client.ts'
import type { Call } from '../sdk/contract.ts'
import { jsonOf } from './answers.ts'
import { readInput } from './input.ts'
import { checkRight, type Principal } from './principal.ts'
import type { Route } from './route.ts'

export function localClient<const Calls extends Record<string, Call>>(
  calls: Calls,
  routes: readonly Route[],
  principal: Principal,
): Client<Calls> {
  const answerers = new Map(routes.map(({ call, answer }) => [call, answer]))
  const ask = async (call: Call, input: unknown, signal = new AbortController().signal): Promise<unknown> => {
    const answer = answerers.get(call)
    if (!answer) throw new Failure('api_route_not_found', { path: call.path })
    checkRight(principal, call.right)
    const read = readInput(call, inQueryOf(call, input))
    // through JSON, as everybody else gets it
    return call.output.parse(
      JSON.parse(Buffer.from(jsonOf(await answer(read, { principal, project: principal.project, signal }))).toString()),
    )
  }
  return Object.fromEntries(
    Object.entries(calls).map(([name, call]) => [
      name,
      (input: unknown = {}, options?: { signal?: AbortSignal }) => ask(call, input, options?.signal),
    ]),
  ) as unknown as Client<Calls>
}

/** What stands in a query arrives as text. */
const inQueryOf = ({ method }: Call, input: unknown): unknown =>
  method !== 'GET' && method !== 'DELETE'
    ? input
    : Object.fromEntries(
        Object.entries(input as object).flatMap(([name, value]) => (value === undefined || value === null ? [] : [[name, String(value)]])),
      )
