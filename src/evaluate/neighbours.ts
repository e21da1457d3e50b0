/** The pictures most like each picture, by the angle between their standardised features, leaving out its own copies. */
import { compile, input, matMul } from '../engine/index.ts'

export interface Neighbours {
  /** Neighbours for each row; fewer where there are not so many outside its group. */
  k: number
  /** [n, k] rows, the most similar first; −1 where there is none. */
  rows: Int32Array
  /** [n, k] cosine of the angle, −1 … 1; −∞ where there is none. */
  similarity: Float32Array
}

export interface NeighbourTask {
  /** [n, width]: standardised features as unit vectors. What all pictures share says nothing about which are alike, so it must be gone. */
  unit: Float32Array
  width: number
  /** [n] the group of each row: neighbours come from other groups. */
  group: Int32Array
  k: number
  threads: number
  signal?: AbortSignal | undefined
}

/** Rows compared with all others in one product. */
const block = 256

/** Exact, by products of blocks: n² · width multiplications. */
export async function nearestNeighbours({ unit, width, group, k, threads, signal }: NeighbourTask): Promise<Neighbours> {
  const n = group.length
  const rows = new Int32Array(n * k).fill(-1)
  const similarity = new Float32Array(n * k).fill(Number.NEGATIVE_INFINITY)
  const [a, b] = [input('a', [block, width]), input('b', [n, width])]
  const product = await compile({ cosines: matMul(a, b, { transposeB: true }) }, new Map(), { threads })
  try {
    for (let from = 0; from < n; from += block) {
      signal?.throwIfAborted()
      const part = new Float32Array(block * width)
      part.set(unit.subarray(from * width, Math.min(n, from + block) * width))
      const cosines = (await product.run({ a: part, b: unit }))['cosines'] as Float32Array
      for (let i = from; i < Math.min(n, from + block); i++) {
        const own = cosines.subarray((i - from) * n, (i - from + 1) * n)
        for (let j = 0; j < n; j++) {
          const value = own[j]!
          if (value <= similarity[i * k + k - 1]! || group[j] === group[i]) continue
          let place = i * k + k - 1
          for (; place > i * k && similarity[place - 1]! < value; place--) {
            similarity[place] = similarity[place - 1]!
            rows[place] = rows[place - 1]!
          }
          similarity[place] = value
          rows[place] = j
        }
      }
    }
  } finally {
    await product.close()
  }
  return { k, rows, similarity }
}
