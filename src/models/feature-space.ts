/**
 * Where the pictures of the known classes lie in a network's feature space, and how far away another picture is.
 *
 * Features are scaled to length 1 (bright or busy pictures are not far away for that) and centred. A projection onto the `dimensions`
 * directions in which the pictures differ most splits a picture into two parts, measured apart because they find different strangers:
 *
 *   relative   min over classes of ‖W(q − m_k)‖² − ‖T q‖²   how much worse the nearest class explains it than all pictures together do
 *              (relative Mahalanobis distance, Ren et al. 2021, arXiv 2106.09022; W and T whiten the covariance within the classes and of
 *              all): finds what is like the known pictures and yet of no known class
 *   rest       ‖x‖² − ‖q‖²   how much of it lies in directions that no known picture uses: finds pictures from another world
 *
 * The plain Mahalanobis distance to class means, the usual proposal, is left out on purpose: on both samples it found a class that was
 * left out *worse* than the plain softmax does (docs/unknown.md has the numbers).
 */
import { compile, input, matMul } from '../engine/index.ts'
import { randomFrom } from '../engine/random.ts'

/** More directions find no more (256 were tried) and make the file larger: 128 × 1,280 numbers are 0.6 MB. */
const mostDimensions = 128
/** Pictures for each direction at least, or the directions are those of single pictures. */
const rowsForDimension = 3
/** How far the covariances are drawn to a multiple of the identity; 0.1 and 0.5 do about as well. */
const shrinkage = 0.3
/** Of the block power iteration, two products each. The last directions need not be exact: their share of the whole is nearly the same. */
const iterations = 4
/** Squared spread of vectors of length 1 that is only their float32 rounding. */
const rounding = 1e-10
/** Added to the squared length, so that a picture without any feature has a direction: none. */
export const lengthFloor = 1e-12

export interface FeatureSpace {
  width: number
  dimensions: number
  /** [width], the mean of the scaled features. */
  center: Float32Array
  /** [dimensions, width], orthonormal rows. */
  projection: Float32Array
  /** W and T: [dimensions, dimensions], lower triangular. */
  within: Float32Array
  total: Float32Array
  /** [classes that have pictures, dimensions], already whitened: W · mean of q. */
  means: Float32Array
}

export interface FeatureRows {
  /** [n, width], row-major, as the network gives them. */
  features: Float32Array
  width: number
  /** Which of them. */
  rows: readonly number[]
}

/** null where there is nothing to measure by: fewer than two pictures, or all alike. */
export async function fitFeatureSpace(
  { features, width, rows }: FeatureRows,
  { labels, threads, seed }: { labels: ArrayLike<number>; threads: number; seed: number },
): Promise<FeatureSpace | null> {
  const n = rows.length
  const dimensions = Math.min(mostDimensions, width, Math.floor(n / rowsForDimension))
  if (dimensions < 1) return null
  const x = scaled(features, width, rows)
  const sums = new Float64Array(width)
  for (let i = 0; i < n; i++) for (let f = 0; f < width; f++) sums[f]! += x[i * width + f]!
  const center = Float32Array.from(sums, sum => sum / n)
  for (let i = 0; i < n; i++) for (let f = 0; f < width; f++) x[i * width + f]! -= center[f]!

  const projection = await mainDirections(x, n, width, dimensions, { threads, seed })
  const kept = projection.length / width
  if (kept === 0) return null
  const q = await product(x, [n, width], projection, [kept, width], { transposeB: true, threads })

  const present = [...new Set(rows.map(row => labels[row]!))].sort((a, b) => a - b)
  const place = new Map(present.map((label, k) => [label, k]))
  const of = rows.map(row => place.get(labels[row]!)!)
  const means = new Float64Array(present.length * kept)
  const counts = new Float64Array(present.length)
  for (let i = 0; i < n; i++) {
    counts[of[i]!]!++
    for (let d = 0; d < kept; d++) means[of[i]! * kept + d]! += q[i * kept + d]!
  }
  for (let k = 0; k < present.length; k++) for (let d = 0; d < kept; d++) means[k * kept + d]! /= counts[k]!
  const total = covariance(q, n, kept)
  const within = covariance(
    q.map((value, at) => value - means[of[Math.floor(at / kept)]! * kept + (at % kept)]!),
    n,
    kept,
  )
  // where every class is one picture there is no spread within: a thousandth of that between them stands in
  const spread = trace(total, kept)
  if (!(spread > rounding)) return null
  const whitenWithin = whitening(within, kept, Math.max(trace(within, kept), spread / 1000))
  const whitenTotal = whitening(total, kept, spread)
  return {
    width,
    dimensions: kept,
    center,
    projection,
    within: Float32Array.from(whitenWithin),
    total: Float32Array.from(whitenTotal),
    means: Float32Array.from({ length: means.length }, (_, at) => {
      const [k, d] = [Math.floor(at / kept), at % kept]
      let sum = 0
      for (let j = 0; j <= d; j++) sum += whitenWithin[d * kept + j]! * means[k * kept + j]!
      return sum
    }),
  }
}

/** `relative` and `rest` of each row. The artefact computes the same in its graph (unknown.ts). */
export async function measure(
  space: FeatureSpace,
  { features, width, rows }: FeatureRows,
  threads: number,
): Promise<{ relative: Float64Array; rest: Float64Array }> {
  const { dimensions, center, projection, within, total, means } = space
  const n = rows.length
  const relative = new Float64Array(n)
  const rest = new Float64Array(n)
  if (n === 0) return { relative, rest }
  const x = scaled(features, width, rows)
  for (let i = 0; i < n; i++)
    for (let f = 0; f < width; f++) {
      x[i * width + f]! -= center[f]!
      rest[i]! += x[i * width + f]! ** 2
    }
  const q = await product(x, [n, width], projection, [dimensions, width], { transposeB: true, threads })
  const u = await product(q, [n, dimensions], within, [dimensions, dimensions], { transposeB: true, threads })
  const v = await product(q, [n, dimensions], total, [dimensions, dimensions], { transposeB: true, threads })
  const classes = means.length / dimensions
  for (let i = 0; i < n; i++) {
    let nearest = Number.POSITIVE_INFINITY
    for (let k = 0; k < classes; k++) {
      let sum = 0
      for (let d = 0; d < dimensions; d++) sum += (u[i * dimensions + d]! - means[k * dimensions + d]!) ** 2
      nearest = Math.min(nearest, sum)
    }
    relative[i] = nearest
    for (let d = 0; d < dimensions; d++) {
      relative[i]! -= v[i * dimensions + d]! ** 2
      rest[i]! -= q[i * dimensions + d]! ** 2
    }
  }
  return { relative, rest }
}

/** The rows asked for, each divided by its length. */
function scaled(features: Float32Array, width: number, rows: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * width)
  for (const [i, row] of rows.entries()) {
    let squares = 0
    for (let f = 0; f < width; f++) squares += features[row * width + f]! ** 2
    const inverse = 1 / Math.sqrt(squares + lengthFloor)
    for (let f = 0; f < width; f++) out[i * width + f] = features[row * width + f]! * inverse
  }
  return out
}

/** An orthonormal basis [≤ dimensions, width] of the directions in which the rows differ most: block power iteration on XᵀX. */
async function mainDirections(
  x: Float32Array,
  n: number,
  width: number,
  dimensions: number,
  { threads, seed }: { threads: number; seed: number },
): Promise<Float32Array> {
  const gram = await product(x, [n, width], x, [n, width], { transposeA: true, threads })
  const random = randomFrom(seed, width, dimensions)
  let basis: Float32Array = Float32Array.from({ length: dimensions * width }, () => random() - 0.5)
  const left = input('basis', [dimensions, width])
  const right = input('gram', [width, width])
  const program = await compile({ out: matMul(matMul(left, right), right) }, new Map(), { threads })
  try {
    for (let i = 0; i < iterations; i++) {
      const grown = (await program.run({ basis, gram }))['out'] as Float32Array
      basis = orthonormal(grown, width, i === iterations - 1 ? 2 : 1)
    }
  } finally {
    await program.close()
  }
  const found = Array.from({ length: dimensions }, (_, i) => basis.subarray(i * width, (i + 1) * width)).filter(row => row.some(Boolean))
  return Float32Array.from(found.flatMap(row => Array.from(row)))
}

/** Gram–Schmidt, twice over where the digits matter. Rows that add no direction become zeros: the next product wants as many rows as before. */
function orthonormal(rows: Float32Array, width: number, passes: number): Float32Array {
  const out = Float64Array.from(rows)
  const count = rows.length / width
  let longest = 0
  const kept: number[] = []
  for (let i = 0; i < count; i++) {
    const row = out.subarray(i * width, (i + 1) * width)
    const before = Math.sqrt(dot(row, row))
    longest = Math.max(longest, before)
    for (let pass = 0; pass < passes; pass++)
      for (const j of kept) {
        const other = out.subarray(j * width, (j + 1) * width)
        const share = dot(row, other)
        for (let f = 0; f < width; f++) row[f]! -= share * other[f]!
      }
    const length = Math.sqrt(dot(row, row))
    if (!(length > 1e-6 * before) || !(length > 1e-9 * longest)) row.fill(0)
    else {
      for (let f = 0; f < width; f++) row[f]! /= length
      kept.push(i)
    }
  }
  return Float32Array.from(out)
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}

function covariance(q: Float32Array | Float64Array, n: number, d: number): Float64Array {
  const out = new Float64Array(d * d)
  for (let i = 0; i < n; i++)
    for (let a = 0; a < d; a++) {
      const value = q[i * d + a]! / n
      for (let b = 0; b <= a; b++) out[a * d + b]! += value * q[i * d + b]!
    }
  for (let a = 0; a < d; a++) for (let b = a + 1; b < d; b++) out[a * d + b] = out[b * d + a]!
  return out
}
function trace(matrix: Float64Array, d: number): number {
  let sum = 0
  for (let i = 0; i < d; i++) sum += matrix[i * d + i]!
  return sum
}

/** L⁻¹ for L·Lᵀ = (1 − s)·C + s·spread/d·I: multiplied with it, what has covariance C is round. */
function whitening(matrix: Float64Array, d: number, spread: number): Float64Array {
  const l = matrix.map((value, at) => (1 - shrinkage) * value + (at % (d + 1) === 0 ? (shrinkage * spread) / d : 0))
  for (let i = 0; i < d; i++)
    for (let j = 0; j <= i; j++) {
      let sum = l[i * d + j]!
      for (let k = 0; k < j; k++) sum -= l[i * d + k]! * l[j * d + k]!
      l[i * d + j] = i === j ? Math.sqrt(Math.max(sum, 1e-300)) : sum / l[j * d + j]!
    }
  const inverse = new Float64Array(d * d)
  for (let column = 0; column < d; column++)
    for (let i = column; i < d; i++) {
      let sum = i === column ? 1 : 0
      for (let k = column; k < i; k++) sum -= l[i * d + k]! * inverse[k * d + column]!
      inverse[i * d + column] = sum / l[i * d + i]!
    }
  return inverse
}

async function product(
  a: Float32Array,
  aShape: readonly [number, number],
  b: Float32Array,
  bShape: readonly [number, number],
  { threads, ...transposed }: { threads: number; transposeA?: boolean; transposeB?: boolean },
): Promise<Float32Array> {
  const out = matMul(input('a', aShape), input('b', bShape), transposed)
  const program = await compile({ out }, new Map(), { threads })
  try {
    return (await program.run({ a, b }))['out'] as Float32Array
  } finally {
    await program.close()
  }
}
