/** What a call was given, checked the same way whether it came over a network or from this process. */
import type { z } from 'zod'
import { Failure } from '../failure.ts'
import type { Call } from '../sdk/contract.ts'

/** throws api_request_invalid, which names the field */
export function readInput<C extends Call>(call: C, given: unknown): z.output<C['input']> {
  const read = call.input.safeParse(given)
  if (!read.success) throw new Failure('api_request_invalid', { problem: firstProblem(read.error) })
  // behind the check, so that nothing is nested deeper than a call describes
  return (isSound(read.data) ? read.data : mended(read.data)) as z.output<C['input']>
}

/** The first thing that is wrong, by its name: `limit: Too big: expected number to be <=1000`. */
export function firstProblem(error: z.ZodError): string {
  const [issue] = error.issues
  return issue ? `${issue.path.length > 0 ? `${issue.path.join('.')}: ` : ''}${issue.message}` : 'it does not fit'
}

/**
 * PostgreSQL keeps no NUL. Both databases would keep half a letter (a lone surrogate) as U+FFFD, so that two names become one behind the back
 * of whoever checked that they differ: it is made U+FFFD here.
 */
function isSound(value: unknown): boolean {
  if (typeof value === 'string') return value.isWellFormed() && !value.includes('\0')
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(isSound)
  // what zod made is plain; pairs made of each of ten thousand points would cost as much as checking them
  for (const name in value) if (!isSound(name) || !isSound((value as Record<string, unknown>)[name])) return false
  return true
}

function mended(value: unknown): unknown {
  if (typeof value === 'string') {
    if (value.includes('\0')) throw new Failure('api_request_invalid', { problem: 'no text may contain the character NUL' })
    return value.toWellFormed()
  }
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(mended)
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [mended(name) as string, mended(each)]))
}

/** The number that a list of numbered things goes on behind. throws page_invalid */
export function numberInPage(after: string): number {
  if (!/^\d{1,15}$/.test(after)) throw new Failure('page_invalid')
  return Number(after)
}
