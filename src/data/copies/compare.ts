/**
 * Whether two pictures are the same one, edited: laid on each other as `align.ts` finds it, do their details agree? Outlines alone do not tell
 * (two trousers, two faces), so what is compared is each point's difference from its surroundings; large differences are damped, so that a caption
 * counts for the area it covers and not for how loud it is.
 */
import { colourSide } from '../../images/fingerprint.ts'
import { type Affine, asTheyAre, coarseMaps, leastOverlap, overlay, type Pyramid, pyramid, refine, type Views, viewsOf } from './align.ts'

type Side = 64 | 32
export interface Comparable {
  pyramid: Pyramid
  details: Record<Side, Float32Array>
  /** [8, 8, 2] Cb and Cr around 0; null where the picture has no colours. */
  colours: Float32Array | null
}

export interface Comparison {
  /** Correlation of the details over the common part, −1 … 1; −1 where the two could not be laid on each other as a copy lies on its original. */
  score: number
  /** The same without the lower fifth of one of the two, where dates and captions stand. */
  uncaptioned: number
  /** As `score`, where they only overlap, as two views of one scene do. */
  scene: number
  /** Difference of the colours: copies have at most 1; null where one of the two has none, as a grey copy of a coloured picture. */
  colours: number | null
}
const nothing: Comparison = { score: -1, uncaptioned: -1, scene: -1, colours: null }

/** Correlation at 16×16 below which nothing is tried: of 2,160 true copies in docs/inside/copies.md three were lower. */
const leastCoarse = 0.7
const startsTried = 3
const leastStraight = 0.3
/** Agreement of the details at 32×32 below which 64×64 is not looked at. */
const leastAtHalf = 0.4
const asItIs: Affine = [1, 0, 0, 0, 1, 0]

export function comparable(grey: Uint8Array, colour: string, width: number, height: number): Comparable {
  const own = pyramid(grey, width / height)
  const details = { 64: detailsOf(own.levels[64], everywhere[64], 64), 32: detailsOf(own.levels[32], everywhere[32], 32) }
  return { pyramid: own, details, colours: coloursOf(colour) }
}

export type Coloured = Pick<Comparable, 'colours'>

/** A copy without colours must agree all the better in the rest. */
const leastOfGrey = 0.93

/** How much of the agreement a caption may cost, and what must be left of it above. */
const mostOfCaption = 0.25
const leastUncaptioned = 0.96

export function isSamePicture({ score, uncaptioned, colours }: Comparison, a: Coloured, b: Coloured, threshold: number): boolean {
  const captioned = score >= threshold - mostOfCaption && uncaptioned >= Math.max(leastUncaptioned, threshold)
  if (score < threshold && !captioned) return false
  if (colours !== null) return colours <= 1
  return (a.colours === null) === (b.colours === null) || score >= leastOfGrey
}

/** One picture against several: what is looked up for the first is used for all. */
export function comparer(other: Comparable): (picture: Comparable) => Comparison {
  let views: Views | null = null
  return picture => {
    views ??= viewsOf(other.pyramid)
    return compare(picture, other, views)
  }
}

function compare(picture: Comparable, other: Comparable, views: Views): Comparison {
  const promising = coarseMaps(picture.pyramid, views, startsTried).filter(start => start.correlation >= leastCoarse)
  // as they are comes with less: a loud caption on a faint picture spoils the correlation, but moves nothing
  const straight = promising.length === 0 && asTheyAre(picture.pyramid, views) >= leastStraight ? [asItIs] : []
  const maps = [...straight, ...promising.map(({ map }) => map)].flatMap(start => {
    const map = refine(picture.pyramid, other.pyramid, start, 32, 8)
    if (!map) return []
    const { score, inside } = seenThrough(map, picture, other, 32)
    return score >= leastAtHalf && isContained(map, inside, 0.8) ? [{ map, score }] : [] // not yet exact
  })
  let best = nothing
  for (const { map: start } of maps.sort((a, b) => b.score - a.score).slice(0, 2)) {
    // looked at through the one that shows less: then all of it is compared, and a border around the other is never seen
    const swap = Math.abs(start[0] * start[4] - start[1] * start[3]) > 1
    const [inner, outer] = swap ? [other, picture] : [picture, other]
    const map = refine(inner.pyramid, outer.pyramid, swap ? inverse(start) : start, 64, 6)
    if (!map) continue
    const { score: agreed, seen, inside } = seenThrough(map, inner, outer, 64)
    const cost = stretchCost(map, inner.pyramid.aspect)
    const score = agreed - cost
    const contained = isContained(map, inside, 0.95)
    if (score <= (contained ? best.score : best.scene)) continue
    const colours = colourDifference(inner.colours, outer.colours, map)
    const mayBeCaptioned = contained && score > leastUncaptioned - mostOfCaption && score < leastUncaptioned
    const uncaptioned = mayBeCaptioned ? withoutCaption(map, inner.details[64], seen, inside) - cost : score
    best = contained ? { score, uncaptioned, scene: Math.max(score, best.scene), colours } : { ...best, scene: score, colours }
    if (best.score > 0.9) break // the other one found the same place
  }
  return best
}

function inverse([a, b, c, d, e, f]: Affine): Affine {
  const determinant = a * e - b * d
  const [p, q, r, s] = [e / determinant, -b / determinant, -d / determinant, a / determinant]
  return [p, q, -(p * c + q * f), r, s, -(r * c + s * f)]
}

function seenThrough(map: Affine, picture: Comparable, other: Comparable, side: Side) {
  const { seen: values, inside } = overlay(other.pyramid, map, side)
  const seen = detailsOf(values, inside, side)
  return { score: agreement(picture.details[side], seen, inside, side), seen, inside }
}

/** The better of the agreements without the lower fifth of either picture. */
function withoutCaption([, , , d, e, f]: Affine, own: Float32Array, seen: Float32Array, inside: Float32Array): number {
  const [ofOwn, ofOther] = [Float32Array.from(inside), Float32Array.from(inside)]
  for (let at = 0; at < inside.length; at++) {
    const [x, y] = [((at & 63) - 31.5) / 64, ((at >> 6) - 31.5) / 64]
    if (y > 0.3) ofOwn[at] = 0
    if (d * x + e * y + f > 0.3) ofOther[at] = 0
  }
  return Math.max(agreement(own, seen, ofOwn, 64), agreement(own, seen, ofOther, 64))
}

// ── details ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const everywhere = { 64: new Float32Array(64 * 64).fill(1), 32: new Float32Array(32 * 32).fill(1) }
const surroundings = 3
/** What a point is: itself at half size, the mean of 3×3 at 64×64, where single points are noise. */
const points = { 64: 1, 32: 0 }

/** Each point minus the mean of the 7×7 around it, over what is inside. */
function detailsOf(values: Float32Array, inside: Float32Array, side: Side): Float32Array {
  const sums = integral(values, inside, side)
  const counts = integral(inside, everywhere[side], side)
  const result = new Float32Array(side * side)
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (!inside[y * side + x]) continue
      result[y * side + x] = boxMean(sums, counts, side, x, y, points[side]) - boxMean(sums, counts, side, x, y, surroundings)
    }
  }
  return result
}

/** Sums over everything above and to the left (a summed-area table), of values where `weights` is 1. */
function integral(values: Float32Array, weights: Float32Array, side: Side): Float64Array {
  const line = side + 1
  const sums = new Float64Array(line * line)
  for (let y = 0; y < side; y++) {
    for (let x = 0, sum = 0; x < side; x++) {
      sum += values[y * side + x]! * weights[y * side + x]!
      sums[(y + 1) * line + x + 1] = sums[y * line + x + 1]! + sum
    }
  }
  return sums
}

function boxMean(sums: Float64Array, counts: Float64Array, side: Side, x: number, y: number, radius: number): number {
  const line = side + 1
  const left = Math.max(0, x - radius)
  const right = Math.min(side, x + radius + 1)
  const top = Math.max(0, y - radius) * line
  const bottom = Math.min(side, y + radius + 1) * line
  const count = counts[bottom + right]! - counts[top + right]! - counts[bottom + left]! + counts[top + left]!
  return count > 0 ? (sums[bottom + right]! - sums[top + right]! - sums[bottom + left]! + sums[top + left]!) / count : 0
}

/** Correlation of the damped details: d / √(d² + k²), k being what nine tenths of the picture's own details amount to. */
function agreement(a: Float32Array, b: Float32Array, inside: Float32Array, side: Side): number {
  const pixels = side * side
  const mask = eroded(inside, side)
  const [scaleA, scaleB] = [usual(a, mask), usual(b, mask)]
  let [n, sumA, sumB, squaresA, squaresB, product] = [0, 0, 0, 0, 0, 0]
  for (let at = 0; at < pixels; at++) {
    if (!mask[at]) continue
    const x = a[at]! / Math.sqrt(a[at]! * a[at]! + scaleA)
    const y = b[at]! / Math.sqrt(b[at]! * b[at]! + scaleB)
    n++
    sumA += x
    sumB += y
    squaresA += x * x
    squaresB += y * y
    product += x * y
  }
  if (n < 0.7 * leastOverlap * pixels) return -1 // the rim is not counted
  const spread = (squaresA - (sumA * sumA) / n) * (squaresB - (sumB * sumB) / n)
  return spread > 1e-9 ? (product - (sumA * sumB) / n) / Math.sqrt(spread) : -1
}

/** Mean square of the smallest nine tenths, plus a little for pictures that are empty but for a tenth. */
function usual(details: Float32Array, mask: Uint8Array): number {
  const squares = new Float32Array(mask.length)
  let n = 0
  for (let at = 0; at < mask.length; at++) if (mask[at]) squares[n++] = details[at]! * details[at]!
  const sorted = squares.subarray(0, n).sort()
  const until = Math.floor(0.9 * n)
  let sum = 0
  for (let at = 0; at < until; at++) sum += sorted[at]!
  return sum / Math.max(1, until) + 1e-4
}

/** Without a rim, where the surroundings are not the same in both. */
function eroded(inside: Float32Array, side: Side): Uint8Array {
  const rim = side / 32
  const mask = new Uint8Array(side * side)
  for (let y = rim; y < side - rim; y++) {
    for (let x = rim; x < side - rim; x++) {
      const at = y * side + x
      const all = inside[at]! && inside[at - rim]! && inside[at + rim]! && inside[at - rim * side]! && inside[at + rim * side]!
      mask[at] = all ? 1 : 0
    }
  }
  return mask
}

// ── what else a copy is like ────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * A copy shows a part of its original, or the whole: what lies outside of both must be explained by the corners that a turn cuts off. Two
 * overlapping views of one scene do not pass.
 */
function isContained([a, b, , d, e]: Affine, inside: Float32Array, share: number): boolean {
  let count = 0
  for (const value of inside) count += value
  const covered = count / inside.length
  const ofOther = covered * Math.abs(a * e - b * d)
  return Math.max(covered, Math.min(ofOther, 1)) >= share - 0.6 * turnOf([a, b, 0, d, e, 0])
}

/** The angle of a turn up to mirrors and quarters, 0 … π/4. */
function turnOf([a, b, , d, e]: Affine): number {
  const quarter = Math.PI / 2
  const turned = Math.abs(a * e - b * d < 0 ? Math.atan2(d + b, a - e) : Math.atan2(d - b, a + e))
  return Math.min(turned % quarter, quarter - (turned % quarter))
}

/**
 * A crop cut unevenly stretches a picture by a few per cent, and what squeezes the whole of it is not seen here at all. Strangers fit best when they
 * may be stretched: among pairs that agreed by chance, half were by more than a tenth, of copies none was by more than a twentieth.
 */
function stretchCost([a, b, , d, e]: Affine, aspect: number): number {
  // in a picture as wide as it is, without the exchange of x and y
  const [p, q, r, s] = Math.abs(a) + Math.abs(e) < Math.abs(b) + Math.abs(d) ? [b, a, e, d] : [a, b, d, e]
  const [across, down] = [q * aspect, r / aspect]
  const half = (p * p + across * across + down * down + s * s) / 2
  const determinant = p * s - across * down
  const spread = Math.sqrt(Math.max(half * half - determinant * determinant, 0))
  const stretch = Math.log((half + spread) / Math.max(half - spread, 1e-6)) / 2
  return 0.5 * Math.max(0, stretch - 0.03)
}

export function coloursOf(hex: string): Float32Array | null {
  const colours = Float32Array.from(Buffer.from(hex, 'hex'), value => value - 128)
  if (colours.length !== 2 * colourSide * colourSide) return null // none were taken
  let squares = 0
  for (const value of colours) squares += value * value
  return squares / colours.length < 9 ? null : colours
}

/**
 * What is left of the colours when one is scaled as suits best (a lighter copy has stronger colours), on the whole and in the worst place, as a part
 * of what was seen in true copies: above 1 something has another colour.
 */
function colourDifference(own: Float32Array | null, other: Float32Array | null, [a, b, c, d, e, f]: Affine): number | null {
  if (!own || !other) return null
  const seen = new Float32Array(own.length)
  const weight = new Float32Array(own.length)
  const middle = (colourSide - 1) / 2
  for (let y = 0; y < colourSide; y++) {
    for (let x = 0; x < colourSide; x++) {
      const [px, py] = [(x - middle) / colourSide, (y - middle) / colourSide]
      const u = Math.min(Math.max((a * px + b * py + c) * colourSide + middle, 0), colourSide - 1)
      const v = Math.min(Math.max((d * px + e * py + f) * colourSide + middle, 0), colourSide - 1)
      const [left, top] = [Math.min(Math.floor(u), colourSide - 2), Math.min(Math.floor(v), colourSide - 2)]
      for (let channel = 0; channel < 2; channel++) {
        const value = (row: number, column: number) => other[2 * (row * colourSide + column) + channel]!
        const upper = value(top, left) + (u - left) * (value(top, left + 1) - value(top, left))
        const lower = value(top + 1, left) + (u - left) * (value(top + 1, left + 1) - value(top + 1, left))
        const at = 2 * (y * colourSide + x) + channel
        seen[at] = upper + (v - top) * (lower - upper)
        weight[at] = 1
      }
    }
  }
  let [product, squares] = [0, 0]
  for (let at = 0; at < own.length; at++) {
    product += own[at]! * seen[at]!
    squares += seen[at]! * seen[at]!
  }
  const gain = Math.min(1.5, Math.max(1 / 1.5, squares > 0 ? product / squares : 1))
  let [rest, largest] = [0, 0]
  for (let at = 0; at < own.length; at += 2) {
    const squared = (own[at]! - gain * seen[at]!) ** 2 + (own[at + 1]! - gain * seen[at + 1]!) ** 2
    rest += squared
    largest = Math.max(largest, squared)
  }
  // parts of an eighth fit badly on each other where a picture is turned or enlarged
  const slack = turnOf([a, b, c, d, e, f]) + Math.abs(Math.log(Math.abs(a * e - b * d))) / 2
  return Math.max(Math.sqrt(rest / own.length) / (14 + 25 * slack), Math.sqrt(largest) / (45 + 110 * slack))
}
