/**
 * How two pictures lie on each other, if one is a copy of the other: mirrored, turned, cropped, squeezed. Both are grey copies of 64×64, so a
 * stretched picture needs nothing; all else is an affine map from one square to the other. It is looked for from coarse to fine:
 *
 * 1. at 16×16 with every orientation, some angles and some scales, by correlation (one table of transformed versions serves a whole list);
 * 2. from the best few of those on by Gauss–Newton on six numbers of the map and two of light (gain, offset), at 32×32 and then 64×64:
 *    Lucas and Kanade's image registration (1981) as Baker and Matthews lay it out (2004).
 */
import { greySide } from '../../images/fingerprint.ts'

/** A grey copy in three sizes, slightly smoothed, mean 0 and deviation 1 each. */
export interface Pyramid {
  levels: Record<Side, Float32Array>
  /** Width by height of the picture itself: a turn by 10° looks different in a squeezed copy. */
  aspect: number
}
type Side = 64 | 32 | 16

/** x' = a·x + b·y + c, y' = d·x + e·y + f, in units of the side, from the middle: ±0.5 is the rim. */
export type Affine = [a: number, b: number, c: number, d: number, e: number, f: number]

export function pyramid(grey: Uint8Array, aspect: number): Pyramid {
  const full = smooth(Float32Array.from(grey), greySide)
  const half = halve(full, 64)
  const quarter = halve(half, 32)
  return { levels: { 64: standardise(full), 32: standardise(half), 16: standardise(quarter) }, aspect }
}

/** Binomial 1-2-1 in both directions: pixels of tiny pictures are blocks in a grey copy, and blocks have no useful slopes. */
function smooth(values: Float32Array, side: number): Float32Array {
  const across = new Float32Array(values.length)
  const result = new Float32Array(values.length)
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const at = y * side + x
      across[at] = (values[at - (x > 0 ? 1 : 0)]! + 2 * values[at]! + values[at + (x + 1 < side ? 1 : 0)]!) / 4
    }
  }
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const at = y * side + x
      result[at] = (across[at - (y > 0 ? side : 0)]! + 2 * across[at]! + across[at + (y + 1 < side ? side : 0)]!) / 4
    }
  }
  return result
}

function halve(values: Float32Array, side: number): Float32Array {
  const half = side / 2
  const result = new Float32Array(half * half)
  for (let y = 0; y < half; y++) {
    for (let x = 0; x < half; x++) {
      const at = 2 * y * side + 2 * x
      result[y * half + x] = (values[at]! + values[at + 1]! + values[at + side]! + values[at + side + 1]!) / 4
    }
  }
  return result
}

function standardise(values: Float32Array): Float32Array {
  let sum = 0
  let squares = 0
  for (const value of values) {
    sum += value
    squares += value * value
  }
  const mean = sum / values.length
  const deviation = Math.sqrt(Math.max(squares / values.length - mean * mean, 1e-6))
  return values.map(value => (value - mean) / deviation)
}

// ── coarse: every orientation ───────────────────────────────────────────────────────────────────────────────────────────────

const coarse = 16
const coarsePixels = coarse * coarse
const angles = [0, -8, 8, -16, 16, -24, 24]
const scales = [1, 0.87, 1.15, 0.76, 1.32]
/** Part of the square that must lie on the other one. */
export const leastOverlap = 0.5

/** All maps that are tried on pictures of one shape, and where each of them leads out of the picture. */
interface Attempts {
  maps: Affine[]
  /** [maps, 256]: 1 inside, 0 outside; and how many are inside. */
  inside: Float32Array
  counts: Int32Array
}

/** A picture as it would look through each map. */
export interface Views extends Attempts {
  /** [maps, 256]: 0 where the map leads out of the picture; with their sums, and the sums of their squares. */
  values: Float32Array
  sums: Float64Array
  squares: Float64Array
}

export function viewsOf(picture: Pyramid): Views {
  const attempts = attemptsFor(picture.aspect)
  const { maps, inside } = attempts
  const views = {
    ...attempts,
    values: new Float32Array(inside.length),
    sums: new Float64Array(maps.length),
    squares: new Float64Array(maps.length),
  }
  for (const [index, map] of maps.entries()) {
    const own = views.values.subarray(index * coarsePixels, (index + 1) * coarsePixels)
    look(picture.levels[16], coarse, map, own, null)
    for (const value of own) {
      views.sums[index]! += value
      views.squares[index]! += value * value
    }
  }
  return views
}

/** Shapes within 2 % of each other share their maps: the fine search is exact anyway. */
function attemptsFor(aspect: number): Attempts {
  const step = Math.round(Math.log(aspect) / 0.02)
  const known = shapes.get(step)
  if (known) return known
  const maps = mapsFor(Math.exp(step * 0.02))
  const inside = new Float32Array(maps.length * coarsePixels)
  const counts = new Int32Array(maps.length)
  const nothing = new Float32Array(coarsePixels)
  for (const [index, map] of maps.entries()) {
    const own = inside.subarray(index * coarsePixels, (index + 1) * coarsePixels)
    look(nothing, coarse, map, new Float32Array(coarsePixels), own)
    for (const there of own) counts[index]! += there
  }
  if (shapes.size > 100) shapes.clear() // 290 KB each
  shapes.set(step, { maps, inside, counts })
  return shapes.get(step)!
}
const shapes = new Map<number, Attempts>()

function mapsFor(aspect: number): Affine[] {
  const maps: Affine[] = []
  for (const transposed of [false, true]) {
    // in a picture of width `ratio` and height 1 a turn is a turn; in its square copy it is this
    const ratio = transposed ? 1 / aspect : aspect
    for (const [flipX, flipY] of [
      [1, 1],
      [-1, 1],
      [1, -1],
      [-1, -1],
    ] as const) {
      for (const degrees of angles) {
        const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)]
        for (const scale of scales) {
          const [a, b, d, e] = [scale * cos, (-scale * sin) / ratio, scale * sin * ratio, scale * cos]
          // first the turn, then the flip, then the exchange of x and y
          maps.push(transposed ? [flipX * d, flipX * e, 0, flipY * a, flipY * b, 0] : [flipX * a, flipX * b, 0, flipY * d, flipY * e, 0])
        }
      }
    }
  }
  return maps
}

/** `target[p]` = picture at map(p), by bilinear interpolation, 0 outside; `inside` learns where that is. */
function look(picture: Float32Array, side: number, map: Affine, target: Float32Array, inside: Float32Array | null): void {
  const [a, b, c, d, e, f] = map
  const middle = (side - 1) / 2
  const last = side - 1
  for (let y = 0, at = 0; y < side; y++) {
    for (let x = 0; x < side; x++, at++) {
      const u = a * (x - middle) + b * (y - middle) + c * side + middle
      const v = d * (x - middle) + e * (y - middle) + f * side + middle
      if (u < -0.5 || v < -0.5 || u > last + 0.5 || v > last + 0.5) {
        target[at] = 0
        if (inside) inside[at] = 0
        continue
      }
      const left = Math.min(Math.max(Math.floor(u), 0), last - 1)
      const top = Math.min(Math.max(Math.floor(v), 0), last - 1)
      const [s, t] = [Math.min(Math.max(u - left, 0), 1), Math.min(Math.max(v - top, 0), 1)]
      const corner = top * side + left
      const upper = picture[corner]! + s * (picture[corner + 1]! - picture[corner]!)
      const lower = picture[corner + side]! + s * (picture[corner + side + 1]! - picture[corner + side]!)
      target[at] = upper + t * (lower - upper)
      if (inside) inside[at] = 1
    }
  }
}

/** The best maps from `picture` to the one whose views these are, the best first, with their correlation at 16×16. */
export function coarseMaps(picture: Pyramid, views: Views, count: number): { map: Affine; correlation: number }[] {
  const own = picture.levels[16]
  const best: { map: Affine; correlation: number }[] = []
  for (let index = 0; index < views.maps.length; index++) {
    if (views.counts[index]! < leastOverlap * coarsePixels) continue
    const correlation = correlationThrough(own, views, index)
    if (best.length === count && correlation <= best[count - 1]!.correlation) continue
    best.push({ map: views.maps[index]!, correlation })
    best.sort((a, b) => b.correlation - a.correlation)
    if (best.length > count) best.pop()
  }
  return best
}

function correlationThrough(own: Float32Array, { values, inside, counts, sums, squares }: Views, index: number): number {
  let [sum, square, product] = [0, 0, 0]
  for (let at = 0, from = index * coarsePixels; at < coarsePixels; at++, from++) {
    const value = own[at]! * inside[from]!
    sum += value
    square += value * value
    product += value * values[from]!
  }
  const [n, other] = [counts[index]!, sums[index]!]
  const spread = (square - (sum * sum) / n) * (squares[index]! - (other * other) / n)
  return (product - (sum * other) / n) / Math.sqrt(Math.max(spread, 1e-9))
}

/** How well the two agree as they are. */
export const asTheyAre = (picture: Pyramid, views: Views): number => correlationThrough(picture.levels[16], views, 0)

// ── fine: Gauss–Newton ──────────────────────────────────────────────────────────────────────────────────────────────────────

const unknowns = 8

/** Improves a map from `picture` to `other` at one size. null: it ran out of the picture or became one that no copy has. */
export function refine(picture: Pyramid, other: Pyramid, start: Affine, side: 64 | 32, steps: number): Affine | null {
  const own = picture.levels[side]
  const seen = other.levels[side]
  const middle = (side - 1) / 2
  const last = side - 1
  let map = start
  let [gain, offset] = [1, 0]
  const normal = new Float64Array(unknowns * (unknowns + 1)) // with the right side as last column
  const slope = new Float64Array(unknowns)
  for (let step = 0; step < steps; step++) {
    const [a, b, c, d, e, f] = map
    normal.fill(0)
    let n = 0
    for (let y = 1; y < last; y++) {
      for (let x = 1; x < last; x++) {
        const [px, py] = [(x - middle) / side, (y - middle) / side]
        const u = (a * px + b * py + c) * side + middle
        const v = (d * px + e * py + f) * side + middle
        if (u < 0 || v < 0 || u >= last || v >= last) continue
        const [left, top] = [u | 0, v | 0]
        const [s, t] = [u - left, v - top]
        const corner = top * side + left
        const [p, q, r, w] = [seen[corner]!, seen[corner + 1]!, seen[corner + side]!, seen[corner + side + 1]!]
        const value = p + s * (q - p) + t * (r - p + s * (w - r - q + p))
        const dx = (q - p + t * (w - r - q + p)) * side * gain
        const dy = (r - p + s * (w - r - q + p)) * side * gain
        slope[0] = dx * px
        slope[1] = dx * py
        slope[2] = dx
        slope[3] = dy * px
        slope[4] = dy * py
        slope[5] = dy
        slope[6] = value
        slope[7] = 1
        const residual = own[y * side + x]! - gain * value - offset
        // what does not fit at all (a caption, a logo) has little say: Huber's weights
        const size = Math.abs(residual)
        const weight = size > 0.5 ? 0.5 / size : 1
        for (let i = 0; i < unknowns; i++) {
          const weighted = weight * slope[i]!
          const row = i * (unknowns + 1)
          for (let j = i; j < unknowns; j++) normal[row + j]! += weighted * slope[j]!
          normal[row + unknowns]! += weighted * residual
        }
        n++
      }
    }
    if (n < leastOverlap * 0.8 * side * side) return null
    const change = solve(normal)
    if (!change) return null
    map = [a + change[0]!, b + change[1]!, c + change[2]!, d + change[3]!, e + change[4]!, f + change[5]!]
    gain += change[6]!
    offset += change[7]!
    if (!isPlausible(map) || !(gain > 0)) return null
    let largest = 0
    for (let i = 0; i < 6; i++) largest = Math.max(largest, Math.abs(change[i]!))
    if (largest * side < 0.02) break
  }
  return map
}

/** Cholesky on the upper triangle, a little ridge against flat directions; null where even that does not help. */
function solve(normal: Float64Array): Float64Array | null {
  const width = unknowns + 1
  for (let i = 0; i < unknowns; i++) normal[i * width + i]! *= 1 + 1e-4
  for (let i = 0; i < unknowns; i++) {
    for (let k = 0; k < i; k++) {
      const factor = normal[k * width + i]! / normal[k * width + k]!
      for (let j = i; j <= unknowns; j++) normal[i * width + j]! -= factor * normal[k * width + j]!
    }
    if (!(normal[i * width + i]! > 1e-9)) return null
  }
  const result = new Float64Array(unknowns)
  for (let i = unknowns - 1; i >= 0; i--) {
    let sum = normal[i * width + unknowns]!
    for (let j = i + 1; j < unknowns; j++) sum -= normal[i * width + j]! * result[j]!
    result[i] = sum / normal[i * width + i]!
  }
  return result
}

/** Neither shrunk nor stretched beyond 1 : 1.7 in any direction, the middle not at the rim. */
function isPlausible([a, b, c, d, e, f]: Affine): boolean {
  const half = (a * a + b * b + d * d + e * e) / 2
  const determinant = Math.abs(a * e - b * d)
  const spread = Math.sqrt(Math.max(half * half - determinant * determinant, 0))
  const [largest, smallest] = [Math.sqrt(half + spread), Math.sqrt(Math.max(half - spread, 0))]
  return largest < 1.7 && smallest > 1 / 1.7 && Math.abs(c) < 0.35 && Math.abs(f) < 0.35
}

/** `other` seen through the map, and where that is inside of it. */
export function overlay(other: Pyramid, map: Affine, side: 64 | 32): { seen: Float32Array; inside: Float32Array } {
  const seen = new Float32Array(side * side)
  const inside = new Float32Array(side * side)
  look(other.levels[side], side, map, seen, inside)
  return { seen, inside }
}
