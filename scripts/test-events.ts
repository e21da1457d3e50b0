/** A reporter for node:test that writes what scripts/test.ts counts: one JSON line for each test that ended. */
import { inspect } from 'node:util'

interface Event {
  type: string
  data: {
    name: string
    nesting: number
    skip?: string | boolean
    todo?: string | boolean
    details?: { duration_ms: number; type?: string; error?: Error }
  }
}
export interface Ended {
  name: string
  outcome: 'passed' | 'failed' | 'skipped'
  /** Why it was skipped, or how it failed. */
  detail: string
  milliseconds: number
}

export default async function* report(events: AsyncIterable<Event>) {
  const path: string[] = []
  for await (const { type, data } of events) {
    if (type === 'test:start') path.splice(data.nesting, Number.POSITIVE_INFINITY, data.name)
    if ((type !== 'test:pass' && type !== 'test:fail') || data.details?.type === 'suite') continue
    const set = data.skip ?? data.todo
    const failed = type === 'test:fail' && set === undefined
    const error = data.details?.error
    const ended: Ended = {
      name: [...path.slice(0, data.nesting), data.name].join(' › '),
      outcome: failed ? 'failed' : set === undefined ? 'passed' : 'skipped',
      detail: failed ? describe(error?.cause ?? error) : typeof set === 'string' ? set : '',
      milliseconds: data.details?.duration_ms ?? 0,
    }
    yield `${JSON.stringify(ended)}\n`
  }
}

/** Message, difference and where: without the test runner's own frames, and without an assertion's fields, which say the message again. */
function describe(error: unknown): string {
  const text = error instanceof Error && error.name === 'AssertionError' ? (error.stack ?? error.message) : inspect(error)
  return text
    .split('\n')
    .filter(line => !/^\s+at .*\(?node:(internal|async_hooks)/.test(line))
    .join('\n')
}
