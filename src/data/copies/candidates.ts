/** Which pairs are worth laying on each other: neighbours by hash, by features, and the neighbours of those that turned out to be copies. */
import { type Neighbours, neighboursKept } from './feature-search.ts'
import type { HashPair } from './hash-search.ts'

/** How far a neighbour by features stands out from the fifth to tenth: in a domain where all pictures are alike, none does. */
const standsOut = 0.15
/** Neighbours that are looked at however little they stand out: all ten in a small data set, two in a large one or where all pictures are alike. */
export const fewNeighbours = 2
export const neighboursAmong = (pictures: number) => Math.max(fewNeighbours, Math.min(neighboursKept, Math.floor(25_000 / pictures)))
const leastCosine = 0.2

export type Pair = readonly [a: number, b: number]

/** Pairs a < b without repetition. `always`: neighbours by features that need not stand out. Past a budget the most outstanding are taken. */
export function proposals(
  hashPairs: readonly HashPair[],
  neighbours: Neighbours | null,
  isJudged: (row: number) => boolean,
  always: number,
): Pair[] {
  const found = new Map<string, Pair>()
  const add = (a: number, b: number) => {
    if (a !== b && isJudged(a) && isJudged(b)) found.set(keyOf(a, b), a < b ? [a, b] : [b, a])
  }
  for (const { a, b } of hashPairs) add(a, b)
  if (neighbours) for (const [a, b] of outstanding(neighbours, always)) add(a, b)
  return [...found.values()]
}

export const keyOf = (a: number, b: number) => (a < b ? `${a} ${b}` : `${b} ${a}`)

function outstanding({ rows, cosines }: Neighbours, always: number): Pair[] {
  const pairs: { pair: Pair; contrast: number }[] = []
  const pictures = rows.length / neighboursKept
  for (let row = 0; row < pictures; row++) {
    const from = row * neighboursKept
    const ordinary = meanOf(cosines.subarray(from + 4, from + neighboursKept).filter(cosine => cosine > -2))
    for (let rank = 0; rank < neighboursKept; rank++) {
      const other = rows[from + rank]!
      if (other < 0 || cosines[from + rank]! < leastCosine) break
      const contrast = cosines[from + rank]! - ordinary
      if (rank < always || contrast >= standsOut) pairs.push({ pair: [row, other], contrast })
    }
  }
  const budget = 20_000 + 2 * pictures
  if (pairs.length > budget) pairs.sort((x, y) => y.contrast - x.contrast || x.pair[0] - y.pair[0] || x.pair[1] - y.pair[1])
  return pairs.slice(0, budget).map(({ pair }) => pair)
}

/** Where a picture has one copy it may have more: all neighbours of it that were not compared yet. */
export function neighboursOf(row: number, { rows, cosines }: Neighbours): number[] {
  const from = row * neighboursKept
  return [...rows.subarray(from, from + neighboursKept)].filter((other, rank) => other >= 0 && cosines[from + rank]! >= leastCosine)
}

const meanOf = (values: Float32Array) => (values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length)
