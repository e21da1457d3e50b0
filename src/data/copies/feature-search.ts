/**
 * The nearest neighbours of every picture in the features of the backbone: centred, brought to at most 128 directions of their own (principal
 * components) and evened out there, so that what all pictures of a data set share does not drown what tells them apart. All products are
 * computed, in blocks, by the runtime; half of them, because a product serves both of its pictures.
 */
import { compile, input, matMul } from '../../engine/index.ts'

export const neighboursKept = 10
const mostDirections = 128
const sampleRows = 4096
const block = 1024

export interface Neighbours {
  /** [n, 10] row numbers, the nearest first; −1 where there are fewer pictures. */
  rows: Int32Array
  /** [n, 10] cosines of the evened-out features. */
  cosines: Float32Array
}

/**
 * `values`: [rows, width]; `chosen`: the rows that are looked at, and what the numbers of the answer count. 10⁵ pictures of 1,280 features: under a
 * minute on two cores, 51 MB beside the features themselves. Rows that are not finite have no neighbours.
 */
export async function nearestNeighbours(
  values: Float32Array,
  width: number,
  chosen: readonly number[],
  threads: number,
  { signal, onProgress }: { signal?: AbortSignal | undefined; onProgress?: ((done: number) => void) | undefined } = {},
): Promise<Neighbours> {
  const n = chosen.length
  const { reduced, directions } = await evenOut(values, width, chosen, threads)
  const rows = new Int32Array(n * neighboursKept).fill(-1)
  const cosines = new Float32Array(n * neighboursKept).fill(-2)
  const side = Math.min(block, n)
  const product = await compile(
    { products: matMul(input('a', [side, directions]), input('b', [side, directions]), { transposeB: true }) },
    new Map(),
    { threads },
  )
  try {
    const blocks = Math.ceil(n / side)
    // the last block is moved back to be whole; rows it shares with the one before are skipped
    const start = (index: number) => Math.min(index * side, n - side)
    const part = (index: number) => reduced.subarray(start(index) * directions, (start(index) + side) * directions)
    for (let i = 0; i < blocks; i++) {
      for (let j = i; j < blocks; j++) {
        signal?.throwIfAborted()
        const { products } = await product.run({ a: part(i), b: part(j) })
        takeBlock(products as Float32Array, side, start(i), i * side, start(j), j * side, rows, cosines)
      }
      onProgress?.(Math.min(n, (i + 1) * side))
    }
  } finally {
    await product.close()
  }
  return { rows, cosines }
}

/** Puts the products of one block into the lists of both pictures; `from` and `firstNew` tell rows that an earlier block has seen. */
function takeBlock(
  products: Float32Array,
  side: number,
  fromI: number,
  newI: number,
  fromJ: number,
  newJ: number,
  rows: Int32Array,
  cosines: Float32Array,
): void {
  const last = neighboursKept - 1
  for (let a = newI - fromI; a < side; a++) {
    const i = fromI + a
    const line = a * side
    for (let b = Math.max(newJ, i + 1) - fromJ; b < side; b++) {
      const cosine = products[line + b]!
      const j = fromJ + b
      if (cosine > cosines[i * neighboursKept + last]!) insert(rows, cosines, i, j, cosine)
      if (cosine > cosines[j * neighboursKept + last]!) insert(rows, cosines, j, i, cosine)
    }
  }
}

function insert(rows: Int32Array, cosines: Float32Array, row: number, other: number, cosine: number): void {
  const first = row * neighboursKept
  let at = first + neighboursKept - 1
  while (at > first && cosines[at - 1]! < cosine) {
    cosines[at] = cosines[at - 1]!
    rows[at] = rows[at - 1]!
    at--
  }
  cosines[at] = cosine
  rows[at] = other
}

// ── evened-out features ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** [n, directions], length 1 each: along the principal components, divided by √(variance + mean variance), which evens out without blowing up noise. */
async function evenOut(values: Float32Array, width: number, chosen: readonly number[], threads: number) {
  const n = chosen.length
  const finite = new Uint8Array(n)
  const mean = new Float64Array(width)
  let counted = 0
  for (let row = 0; row < n; row++) {
    const from = chosen[row]! * width
    finite[row] = values.subarray(from, from + width).every(Number.isFinite) ? 1 : 0
    if (!finite[row]) continue
    counted++
    for (let column = 0; column < width; column++) mean[column]! += values[from + column]!
  }
  for (let column = 0; column < width; column++) mean[column]! /= Math.max(1, counted)

  /** Row `row` of those chosen, centred. */
  const centre = (row: number, target: Float32Array) => {
    const from = chosen[row]! * width
    if (!finite[row]) target.fill(0)
    else for (let column = 0; column < width; column++) target[column] = values[from + column]! - mean[column]!
  }

  const directions = Math.max(1, Math.min(mostDirections, width, n - 1))
  const { basis, variances } = await principalDirections(sampleOf(centre, n, width), width, directions, threads)
  const average = variances.reduce((sum, value) => sum + value, 0) / directions
  for (let column = 0; column < directions; column++) {
    const scale = 1 / Math.sqrt(variances[column]! + average + 1e-12)
    for (let row = 0; row < width; row++) basis[row * directions + column]! *= scale
  }

  const side = Math.min(block, n)
  const project = await compile({ out: matMul(input('x', [side, width]), input('basis', [width, directions])) }, new Map(), { threads })
  const reduced = new Float32Array(n * directions)
  try {
    const centred = new Float32Array(side * width)
    for (let from = 0; from < n; from += side) {
      const rows = Math.min(side, n - from)
      for (let row = 0; row < rows; row++) centre(from + row, centred.subarray(row * width, (row + 1) * width))
      const { out } = await project.run({ x: centred, basis })
      reduced.set((out as Float32Array).subarray(0, rows * directions), from * directions)
    }
  } finally {
    await project.close()
  }
  for (let row = 0; row < n; row++) {
    const own = reduced.subarray(row * directions, (row + 1) * directions)
    const length = Math.hypot(...own)
    for (let column = 0; column < directions; column++) own[column]! /= length || 1
  }
  return { reduced, directions }
}

/** Up to 4,096 rows, evenly chosen. */
function sampleOf(centre: (row: number, target: Float32Array) => void, n: number, width: number): Float32Array {
  const count = Math.min(n, sampleRows)
  const sample = new Float32Array(count * width)
  for (let row = 0; row < count; row++) centre(Math.floor((row * n) / count), sample.subarray(row * width, (row + 1) * width))
  return sample
}

/** The leading eigenvectors of the sample's covariance by orthogonal iteration (Golub and Van Loan, Matrix Computations, 8.2.4): enough where only a subspace is wanted. */
async function principalDirections(sample: Float32Array, width: number, directions: number, threads: number) {
  const count = sample.length / width
  const x = input('x', [count, width])
  const step = await compile({ next: matMul(x, matMul(x, input('basis', [width, directions])), { transposeA: true }) }, new Map(), {
    threads,
  })
  let basis = new Float32Array(width * directions)
  for (let at = 0, state = 1; at < basis.length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0 // a fixed start: the same features give the same neighbours
    basis[at] = state / 2 ** 32 - 0.5
  }
  const variances = new Float32Array(directions)
  try {
    for (let round = 0; round < 8; round++) {
      orthonormalise(basis, width, directions)
      const { next } = await step.run({ x: sample, basis })
      for (let column = 0; column < directions; column++) {
        let product = 0 // of a unit vector with what became of it: its eigenvalue
        for (let row = 0; row < width; row++)
          product += basis[row * directions + column]! * (next as Float32Array)[row * directions + column]!
        variances[column] = Math.max(0, product / count)
      }
      if (round < 7) basis = Float32Array.from(next as Float32Array)
    }
  } finally {
    await step.close()
  }
  return { basis, variances }
}

/** Modified Gram–Schmidt on the columns; one that is nothing but a mixture of those before becomes 0. */
function orthonormalise(basis: Float32Array, width: number, directions: number): void {
  const columns = Array.from({ length: directions }, (_, column) =>
    Float64Array.from({ length: width }, (_, row) => basis[row * directions + column]!),
  )
  for (const [index, own] of columns.entries()) {
    const before = Math.hypot(...own)
    for (let earlier = 0; earlier < index; earlier++) {
      const other = columns[earlier]!
      let product = 0
      for (let row = 0; row < width; row++) product += own[row]! * other[row]!
      for (let row = 0; row < width; row++) own[row]! -= product * other[row]!
    }
    const length = Math.hypot(...own)
    const scale = length > 1e-6 * before && length > 0 ? 1 / length : 0
    for (let row = 0; row < width; row++) own[row]! *= scale
  }
  for (const [column, own] of columns.entries()) for (let row = 0; row < width; row++) basis[row * directions + column] = own[row]!
}
