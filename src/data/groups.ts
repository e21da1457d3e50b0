/** Joins pictures that must stay together, whatever the reason: same pixels, or a name the user gave. */
import { createContext, runInContext } from 'node:vm'
import { Failure } from '../failure.ts'

/** The pattern of `--group-by`. throws group_pattern_invalid */
export function groupPattern(text: string): RegExp {
  try {
    return new RegExp(text, 'u') // dots match whole emoji
  } catch {
    try {
      return new RegExp(text) // says more freely what to escape
    } catch (error) {
      const problem = (error as Error).message.replace(/^Invalid regular expression: /, '')
      throw new Failure('group_pattern_invalid', { problem })
    }
  }
}

const patience = 2000 // milliseconds for all paths; 10⁵ of them take about 50

/**
 * For each path the text that its group is called by: the first capture group of the pattern, else all that it matches; null where it does not match.
 * A pattern that backtracks without end (`(a+)+$`) is stopped by the engine's own interrupt, which no list of forbidden patterns could do as surely.
 * throws group_pattern_slow
 */
export function groupsBy(pattern: RegExp, paths: readonly string[], milliseconds = patience): (string | null)[] {
  const search = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, '')) // no memory of the last match
  const work = () =>
    paths.map(path => {
      const match = search.exec(path)
      return (match && (match[1] ?? match[0])) || null
    })
  try {
    return runInContext('work()', createContext({ work }), { timeout: milliseconds })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    throw new Failure('group_pattern_slow', { pattern: pattern.source, seconds: milliseconds / 1000 }, { cause: error })
  }
}

/**
 * `keys[i]`: the names of the bands picture i wears; pictures that share one, directly or through others, end up in one group.
 * Returns for each picture the first of its group's keys in order of first appearance of `keys`, or null where it is alone.
 */
export function joinGroups(keys: readonly (readonly string[])[]): (string | null)[] {
  const parent = keys.map((_, index) => index)
  const root = (index: number): number => {
    while (parent[index] !== index) {
      parent[index] = parent[parent[index]!]!
      index = parent[index]!
    }
    return index
  }
  const first = new Map<string, number>()
  for (const [index, own] of keys.entries()) {
    for (const key of own) {
      const other = first.get(key)
      if (other === undefined) first.set(key, index)
      else {
        const [a, b] = [root(index), root(other)]
        parent[Math.max(a, b)] = Math.min(a, b)
      }
    }
  }
  const size = new Map<number, number>()
  for (const index of keys.keys()) size.set(root(index), (size.get(root(index)) ?? 0) + 1)
  return keys.map((_, index) => (size.get(root(index))! > 1 ? keys[root(index)]![0]! : null))
}
