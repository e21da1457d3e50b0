/**
 * All pairs of hashes within 31 of 256 bits, in any of the eight orientations, without comparing each with each: a hash is cut into 16 bands
 * of 16 bits, and two hashes that differ in at most 31 bits differ in at most one bit in at least one band (16 × 2 = 32). So a hash is looked up
 * in 16 tables at 17 places each, and everything within the radius is found. (Multi-index hashing: Norouzi, Punjani, Fleet, 2012.)
 */
import { setImmediate } from 'node:timers/promises'
import { hashBytes } from '../../images/fingerprint.ts'

/** What the bands guarantee to find. Small data sets are searched further, hash by hash: there the pixels can decide about more pairs. */
export const hashRadius = 31
export const farRadius = 72
/** Up to so many pictures every orientation is compared with all others to the far radius; up to three times as many as they are. */
const fewHashes = 4000
const bands = 16
const bandValues = 65_536
const words = hashBytes / 4
const sideBits = 16

export interface HashPair {
  a: number
  b: number
  distance: number
}
export interface Pause {
  signal?: AbortSignal | undefined
  onProgress?: ((done: number) => void) | undefined
}
export interface HashSearch {
  pairs: HashPair[]
  /** Look-ups that were cut short because too many hashes share a band: pictures that are nearly alike in it, and then only some of them were compared. */
  cut: number
}

/** Most hashes of one place in a table that are compared: past that they say that the band is alike for half of the data set. */
const mostInBucket = 400
/** Most pairs kept of one picture, the nearest first. */
const mostPairs = 50

/** `hashes[i]`: 32 bytes, or null where there is nothing to find. Pairs have a < b and come in the order of a, then distance, then b. Larger sets: within 31; up to 4,000: within 72. */
export async function findHashPairs(hashes: readonly (Uint8Array | null)[], pause: Pause = {}): Promise<HashSearch> {
  const known = hashes.flatMap((hash, index) => (hash ? [index] : []))
  const flat = new Uint32Array(known.length * words)
  for (const [place, index] of known.entries()) flat.set(wordsOf(hashes[index]!), place * words)
  const tables = Array.from({ length: bands }, (_, band) => bucketsOf(flat, known.length, band))

  if (known.length <= fewHashes) return { pairs: await compareAll(hashes, known, flat, 8, pause), cut: 0 }
  const far = known.length <= 3 * fewHashes ? await compareAll(hashes, known, flat, 1, pause) : []

  const seen = new Int32Array(known.length).fill(-1) // the last query that met this hash: each is compared once an orientation
  const pairs: HashPair[] = []
  let cut = 0
  let round = 0
  for (const [place, index] of known.entries()) {
    const found = new Map<number, number>()
    for (const query of orientationsOf(hashes[index]!)) {
      round++
      for (let band = 0; band < bands; band++) {
        const { starts, members } = tables[band]!
        const value = bandOf(query, 0, band)
        for (let flip = -1; flip < 16; flip++) {
          const at = flip < 0 ? value : value ^ (1 << flip)
          let from = starts[at]!
          const to = starts[at + 1]!
          if (to - from > mostInBucket) {
            cut++
            from = Math.max(from, to - mostInBucket)
          }
          for (let member = to - 1; member >= from; member--) {
            const other = members[member]!
            if (other <= place) break // members are in order, and each pair is found from its first
            if (seen[other] === round) continue
            seen[other] = round
            const distance = distanceOf(query, 0, flat, other * words, hashRadius)
            if (distance <= hashRadius && distance < (found.get(other) ?? 257)) found.set(other, distance)
          }
        }
      }
    }
    pairs.push(...nearestOf(index, found, known))
    if (place % 500 === 499) await breathe(place + 1, pause)
  }
  return { pairs: far.length > 0 ? withoutRepetition([...pairs, ...far]) : pairs, cut }
}

function nearestOf(a: number, found: ReadonlyMap<number, number>, known: readonly number[]): HashPair[] {
  const nearest = [...found].sort(([p, x], [q, y]) => x - y || p - q).slice(0, mostPairs)
  return nearest.map(([other, distance]) => ({ a, b: known[other]!, distance }))
}

async function compareAll(
  hashes: readonly (Uint8Array | null)[],
  known: readonly number[],
  flat: Uint32Array,
  orientations: 1 | 8,
  pause: Pause,
): Promise<HashPair[]> {
  const pairs: HashPair[] = []
  for (const [place, index] of known.entries()) {
    const found = new Map<number, number>()
    for (const query of orientationsOf(hashes[index]!).slice(0, orientations)) {
      for (let other = place + 1; other < known.length; other++) {
        const distance = distanceOf(query, 0, flat, other * words, farRadius)
        if (distance <= farRadius && distance < (found.get(other) ?? 257)) found.set(other, distance)
      }
    }
    pairs.push(...nearestOf(index, found, known))
    if (place % 500 === 499) await breathe(place + 1, pause)
  }
  return pairs
}

/** Others have the event loop for a moment, an interruption among them. */
async function breathe(done: number, { signal, onProgress }: Pause): Promise<void> {
  onProgress?.(done)
  await setImmediate()
  signal?.throwIfAborted()
}

function withoutRepetition(pairs: readonly HashPair[]): HashPair[] {
  const best = new Map<string, HashPair>()
  for (const pair of pairs) {
    const known = best.get(`${pair.a} ${pair.b}`)
    if (!known || pair.distance < known.distance) best.set(`${pair.a} ${pair.b}`, pair)
  }
  return [...best.values()].sort((x, y) => x.a - y.a || x.distance - y.distance || x.b - y.b)
}

/** Within what distance a search among so many pictures finds a copy in this orientation. */
export function radiusAmong(count: number, turned: boolean): number {
  return count <= fewHashes || (count <= 3 * fewHashes && !turned) ? farRadius : hashRadius
}

/** The smallest distance in any orientation, and in none. */
export function orientedDistance(a: Uint8Array, b: Uint8Array): { straight: number; turned: number } {
  const other = wordsOf(b)
  const distances = orientationsOf(a).map(query => distanceOf(query, 0, other, 0, 256))
  return { straight: distances[0]!, turned: Math.min(...distances) }
}

/** The eight ways to mirror and quarter-turn a picture, done to its hash: a mirror turns the sign of every other frequency, a transposition exchanges u and v. */
export function orientationsOf(hash: Uint8Array): Uint32Array[] {
  const result: Uint32Array[] = []
  for (const transposed of [false, true]) {
    for (const mask of mirrors) {
      const own = new Uint8Array(hashBytes)
      for (let bit = 0; bit < 256; bit++) {
        const from = transposed ? (bit % sideBits) * sideBits + Math.floor(bit / sideBits) : bit
        own[bit >> 3]! |= ((hash[from >> 3]! >> (from & 7)) & 1) << (bit & 7)
      }
      const wide = wordsOf(own)
      result.push(wide.map((word, index) => (word ^ mask[index]!) >>> 0))
    }
  }
  return result
}

/** Bits to turn: none, those of odd frequencies along x, along y, and of exactly one of the two. Frequency u + 1 is odd where u is even. */
const mirrors = [
  [false, false],
  [true, false],
  [false, true],
  [true, true],
].map(([x, y]) => {
  const mask = new Uint8Array(hashBytes)
  for (let bit = 0; bit < 256; bit++) {
    const turns = (x! && (bit % sideBits) % 2 === 0) !== (y! && Math.floor(bit / sideBits) % 2 === 0)
    if (turns) mask[bit >> 3]! |= 1 << (bit & 7)
  }
  return wordsOf(mask)
})

function wordsOf(bytes: Uint8Array): Uint32Array {
  return Uint32Array.from({ length: words }, (_, word) => {
    const at = 4 * word
    return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
  })
}

/** 16 bits, spread over the hash so that each band holds low and high frequencies: neighbouring bits say much the same of a picture. */
function bandOf(hash: Uint32Array, offset: number, band: number): number {
  const word = hash[offset + (band >> 1)]!
  return band & 1 ? word >>> 16 : word & 0xffff
}

/** Which hashes have which value in one band, as one list in the order of values: `members.slice(starts[v], starts[v + 1])`. */
function bucketsOf(flat: Uint32Array, count: number, band: number): { starts: Uint32Array; members: Uint32Array } {
  const starts = new Uint32Array(bandValues + 1)
  for (let index = 0; index < count; index++) starts[bandOf(flat, index * words, band) + 1]!++
  for (let value = 0; value < bandValues; value++) starts[value + 1]! += starts[value]!
  const next = starts.slice()
  const members = new Uint32Array(count)
  for (let index = 0; index < count; index++) members[next[bandOf(flat, index * words, band)]!++] = index
  return { starts, members }
}

function distanceOf(a: Uint32Array, offsetA: number, b: Uint32Array, offsetB: number, enough: number): number {
  let distance = 0
  for (let word = 0; word < words; word++) {
    distance += bitsOf(a[offsetA + word]! ^ b[offsetB + word]!)
    if (distance > enough) return distance
  }
  return distance
}

/** Ones in a word of 32 bits (Warren, Hacker's Delight, 5-1). */
function bitsOf(word: number): number {
  word -= (word >>> 1) & 0x55555555
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333)
  return Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
