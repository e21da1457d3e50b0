/** Lays pairs on each other, each once, with as many prepared pictures in memory as fit; lets others have the event loop now and then. */
import { setImmediate as breathe } from 'node:timers/promises'
import type { ManifestRow } from '../../sdk/shapes.ts'
import type { Pair } from './candidates.ts'
import { type Coloured, type Comparable, type Comparison, coloursOf, comparable, comparer } from './compare.ts'

/** 42 KB each. */
const mostKept = 1500
const breath = 30 // milliseconds

export interface Verifier {
  /** null: not compared yet. */
  known(a: number, b: number): Comparison | null
  compare(a: number, b: number): Comparison
  compareAll(pairs: readonly Pair[], onProgress?: (done: number) => void): Promise<void>
  /** Asks for no grey copy. */
  coloured(picture: number): Coloured
  /** All pairs compared so far. */
  all(): Iterable<readonly [Pair, Comparison]>
}

interface Seen {
  row: ManifestRow
  colour: string
  grey(): Uint8Array
}

/** `earlier`: what is known of a pair from another time. */
export function createVerifier(
  pictures: readonly Seen[],
  signal: AbortSignal | undefined,
  earlier: (a: number, b: number) => Comparison | null = () => null,
): Verifier {
  const kept = new Map<number, Comparable>()
  const done = new Map<number, Comparison>()
  const keyOf = (a: number, b: number) => Math.min(a, b) * pictures.length + Math.max(a, b)

  const get = (index: number): Comparable => {
    const there = kept.get(index)
    if (there) return there
    const { row, colour, grey } = pictures[index]!
    const made = comparable(grey(), colour, row.width, row.height)
    if (kept.size >= mostKept) kept.delete(kept.keys().next().value!) // the oldest: pairs come in the order of their pictures
    kept.set(index, made)
    return made
  }
  const compareWith = (other: number) => {
    let with_: ReturnType<typeof comparer> | null = null
    return (picture: number) => {
      const key = keyOf(picture, other)
      let result = done.get(key) ?? earlier(picture, other)
      if (!result) {
        with_ ??= comparer(get(other))
        result = with_(get(picture))
      }
      done.set(key, result)
      return result
    }
  }
  return {
    known: (a, b) => done.get(keyOf(a, b)) ?? null,
    compare: (a, b) => compareWith(Math.max(a, b))(Math.min(a, b)),
    async compareAll(pairs, onProgress) {
      let [count, last] = [0, performance.now()]
      for (const [other, group] of Map.groupBy(pairs, ([a, b]) => Math.max(a, b))) {
        const one = compareWith(other)
        for (const [a, b] of group) {
          one(Math.min(a, b))
          count++
        }
        if (performance.now() - last < breath) continue
        onProgress?.(count)
        await breathe()
        signal?.throwIfAborted()
        last = performance.now()
      }
    },
    coloured: index => kept.get(index) ?? { colours: coloursOf(pictures[index]!.colour) },
    *all() {
      for (const [key, comparison] of done) yield [[Math.floor(key / pictures.length), key % pictures.length], comparison]
    },
  }
}
