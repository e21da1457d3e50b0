/**
 * Features of another kind: how alike a picture is to each of a few hundred pictures of the set. A linear head on them draws curved borders, and it is
 * not impressed by what a single wrong label far away says, which finds wrong labels that the plain head accepts (docs/inside/mislabels.md).
 *
 * Two pictures are alike by exp(cosine − 1) of their standardised features, a Gaussian kernel on the sphere. The coordinates given are those whose
 * products are these numbers, exactly where every picture is a landmark and as nearly as the landmarks allow else (the Nyström method:
 * C. Williams, M. Seeger, NIPS 13 (2001) 682).
 */
import { compile, input, matMul } from '../engine/index.ts'
import { permutation, randomFrom } from '../engine/random.ts'

export interface LikenessTask {
  /** [n, width]: standardised features as unit vectors. */
  unit: Float32Array
  width: number
  /** Pictures that the others are compared with. */
  landmarks: number
  seed: number
  threads: number
}

/** Rows of one product. */
const block = 512
/** Added to a landmark's likeness to itself, so that equal landmarks do no harm. */
const ridge = 1e-3
/** Mean square of a row of the result: as if it had so many standardised features, so that the usual strengths of the head fit. */
const squaredLength = 1000

/** [n, width], centred. */
export async function likenessFeatures({
  unit,
  width,
  landmarks,
  seed,
  threads,
}: LikenessTask): Promise<{ features: Float32Array; width: number }> {
  const n = unit.length / width
  const m = Math.min(landmarks, n)
  const chosen = permutation(n, randomFrom(seed, n)).slice(0, m)
  const marks = new Float32Array(m * width)
  for (const [at, row] of chosen.entries()) marks.set(unit.subarray(row * width, (row + 1) * width), at * width)

  const between = await likenesses(marks, marks, width, threads)
  const projection = inverseOfCholesky(between, m)
  const alike = await likenesses(unit, marks, width, threads)
  const out = await product(alike, projection, m, threads)
  centre(out, m)
  return { features: out, width: m }
}

/** exp(cosine − 1) of unit vectors a [n, width] with b [m, width] → [n, m]. */
async function likenesses(a: Float32Array, b: Float32Array, width: number, threads: number): Promise<Float32Array> {
  const cosines = await product(a, b, width, threads)
  for (let i = 0; i < cosines.length; i++) cosines[i] = Math.exp(cosines[i]! - 1)
  return cosines
}

/** a [n, width] · bᵀ, b [m, width] → [n, m]. */
async function product(a: Float32Array, b: Float32Array, width: number, threads: number): Promise<Float32Array> {
  const [n, m] = [a.length / width, b.length / width]
  const rows = Math.min(block, n)
  const [left, right] = [input('a', [rows, width]), input('b', [m, width])]
  const program = await compile({ out: matMul(left, right, { transposeB: true }) }, new Map(), { threads })
  try {
    const out = new Float32Array(n * m)
    for (let from = 0; from < n; from += rows) {
      const first = Math.min(from, n - rows)
      out.set((await program.run({ a: a.subarray(first * width, (first + rows) * width), b }))['out'] as Float32Array, first * m)
    }
    return out
  } finally {
    await program.close()
  }
}

/** L⁻¹ [m, m] of K + ridge = L · Lᵀ: rows of K · L⁻ᵀ then multiply to K. In float64, given as float32. */
function inverseOfCholesky(k: Float32Array, m: number): Float32Array {
  const lower = Float64Array.from(k)
  for (let j = 0; j < m; j++) {
    lower[j * m + j]! += ridge
    for (let i = j; i < m; i++) {
      let sum = lower[i * m + j]!
      for (let s = 0; s < j; s++) sum -= lower[i * m + s]! * lower[j * m + s]!
      lower[i * m + j] = i === j ? Math.sqrt(sum) : sum / lower[j * m + j]!
    }
  }
  const inverse = new Float64Array(m * m)
  for (let i = 0; i < m; i++) {
    const row = inverse.subarray(i * m, (i + 1) * m)
    for (let s = 0; s < i; s++) {
      const factor = lower[i * m + s]!
      for (let j = 0; j <= s; j++) row[j]! -= factor * inverse[s * m + j]!
    }
    for (let j = 0; j < i; j++) row[j]! /= lower[i * m + i]!
    row[i] = 1 / lower[i * m + i]!
  }
  return Float32Array.from(inverse)
}

/** In place: columns get the mean 0, rows the mean square `squaredLength`. */
function centre(values: Float32Array, width: number): void {
  const n = values.length / width
  const mean = new Float64Array(width)
  for (let at = 0; at < values.length; at += width) for (let f = 0; f < width; f++) mean[f]! += values[at + f]! / n
  let squares = 0
  for (let at = 0; at < values.length; at += width) for (let f = 0; f < width; f++) squares += (values[at + f]! - mean[f]!) ** 2 / n
  const scale = squares > 0 ? Math.sqrt(squaredLength / squares) : 0
  for (let at = 0; at < values.length; at += width) for (let f = 0; f < width; f++) values[at + f] = (values[at + f]! - mean[f]!) * scale
}

/** Divides each row by its length, in place: at 100,000 pictures another copy would be half a gigabyte. Rows of zeros stay. Answers the lengths. */
export function makeUnitVectors(values: Float32Array, width: number): Float64Array {
  const lengths = lengthsOf(values, width)
  for (let at = 0; at < values.length; at++) values[at]! /= lengths[Math.floor(at / width)]! || 1
  return lengths
}

function lengthsOf(values: Float32Array, width: number): Float64Array {
  return Float64Array.from({ length: values.length / width }, (_, row) => {
    let squares = 0
    for (let at = row * width; at < (row + 1) * width; at++) squares += values[at]! * values[at]!
    return Math.sqrt(squares)
  })
}
