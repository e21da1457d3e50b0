/**
 * Many heads by least squares: each class is a line through the features that is 1 on its pictures and 0 on the others, held back by a ridge. The equations are solved
 * at once, whatever the number of classes, where logistic heads of a thousand classes would take minutes. What they say is not a probability yet: a temperature makes it one.
 */
import { compile, input, matMul } from '../engine/index.ts'
import { answering, type ManyHeads, type ManyHeadsTask } from './many-heads.ts'

/** For features of a mean square of 1,000 a row, chosen on emoji and clothes. */
const ridge = 300
/** Lines differ by less than one, logits by many. */
const steepness = 20
/** Rows of one product. */
const block = 4096

/** The same as fitManyHeads, from the same features and weights; `c` and what steers the steps are not used. Throws what `signal` was aborted with. */
export async function fitRidgeHeads(task: Omit<ManyHeadsTask, 'c'>): Promise<ManyHeads> {
  const { features, width, labels, classes, weights, signal } = task
  const n = labels.length
  const weight = new Float32Array(weights.length * classes * width)
  const bias = new Float32Array(weights.length * classes)
  for (const [head, own] of weights.entries()) {
    signal?.throwIfAborted()
    const factor = cholesky(await gram(task, own), width)
    const sums = new Float64Array(classes * width)
    const shares = new Float64Array(classes)
    const middle = new Float64Array(width)
    const total = own.reduce((sum, w) => sum + w, 0)
    for (let i = 0; i < n; i++) {
      if (own[i] === 0) continue
      shares[labels[i]!]! += own[i]! / total
      for (let f = 0; f < width; f++) {
        const value = own[i]! * features[i * width + f]!
        sums[labels[i]! * width + f]! += value
        middle[f]! += value
      }
    }
    for (let k = 0; k < classes; k++) {
      const slope = sums.subarray(k * width, (k + 1) * width)
      for (let f = 0; f < width; f++) slope[f]! -= shares[k]! * middle[f]! // the target is 1 − share on its pictures and −share on the others
      solve(factor, width, slope)
      for (let f = 0; f < width; f++) weight[(head * classes + k) * width + f] = steepness * slope[f]!
      bias[head * classes + k] = steepness * shares[k]!
    }
    task.onProgress?.(head + 1, weights.length)
  }
  return answering(task, weight, bias)
}

/** Σ w · x · xᵀ + ridge, [width, width]. */
async function gram({ features, width, threads }: Omit<ManyHeadsTask, 'c'>, weights: Float32Array): Promise<Float64Array> {
  const n = weights.length
  const rows = Math.min(block, n)
  const [a, b] = [input('a', [rows, width]), input('b', [rows, width])]
  const product = await compile({ out: matMul(a, b, { transposeA: true }) }, new Map(), { threads })
  const sum = new Float64Array(width * width)
  try {
    for (let from = 0; from < n; from += rows) {
      const part = new Float32Array(rows * width)
      part.set(features.subarray(from * width, Math.min(n, from + rows) * width))
      const weighted = part.map((value, at) => value * (weights[from + Math.floor(at / width)] ?? 0))
      const out = (await product.run({ a: weighted, b: part }))['out']!
      for (let at = 0; at < sum.length; at++) sum[at]! += Number(out[at])
    }
  } finally {
    await product.close()
  }
  for (let f = 0; f < width; f++) sum[f * width + f]! += ridge
  return sum
}

/** L of A = L · Lᵀ below the diagonal and Lᵀ above it, in the place of A. */
function cholesky(a: Float64Array, width: number): Float64Array {
  for (let j = 0; j < width; j++)
    for (let i = j; i < width; i++) {
      let sum = a[i * width + j]!
      for (let s = 0; s < j; s++) sum -= a[i * width + s]! * a[j * width + s]!
      a[i * width + j] = i === j ? Math.sqrt(sum) : sum / a[j * width + j]!
    }
  for (let j = 0; j < width; j++) for (let i = 0; i < j; i++) a[i * width + j] = a[j * width + i]!
  return a
}

/** x of L · Lᵀ · x = b, in the place of b. */
function solve(factor: Float64Array, width: number, b: Float64Array): void {
  for (let i = 0; i < width; i++) {
    let sum = b[i]!
    for (let j = 0; j < i; j++) sum -= factor[i * width + j]! * b[j]!
    b[i] = sum / factor[i * width + i]!
  }
  for (let i = width - 1; i >= 0; i--) {
    let sum = b[i]!
    for (let j = i + 1; j < width; j++) sum -= factor[i * width + j]! * b[j]!
    b[i] = sum / factor[i * width + i]!
  }
}
