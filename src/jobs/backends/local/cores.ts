/** Which cores of this machine an attempt is bound to. */
import { readFileSync } from 'node:fs'

/** Cores that this process may use, from /proc/self/status; none: the system does not say. */
export function readCores(): number[] {
  try {
    return parseList(/^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '')
  } catch {
    return []
  }
}

/** `0-2,5` → 0 1 2 5 */
export const parseList = (text: string): number[] =>
  text.split(',').flatMap(range => {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(range.trim()) ?? []
    return first === undefined ? [] : Array.from({ length: Number(last) - Number(first) + 1 }, (_, i) => Number(first) + i)
  })

/**
 * As many as it takes for `cpus`, those that the fewest others are bound to, in order. `taken`: each core as often as somebody has it.
 * Null: it may use them all.
 */
export function chooseCores(all: readonly number[], taken: readonly number[], cpus: number): number[] | null {
  const wanted = Math.ceil(cpus)
  if (wanted >= all.length) return null
  const users = (core: number) => taken.filter(each => each === core).length
  return all
    .toSorted((a, b) => users(a) - users(b) || a - b)
    .slice(0, wanted)
    .sort((a, b) => a - b)
}
