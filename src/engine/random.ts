/**
 * Random numbers that depend on nothing but their keys: a resumed training draws what an uninterrupted one would have drawn.
 * The generator is sfc32 (PractRand, C. Doty-Humphrey), seeded by mixing the keys with murmur3's finaliser.
 */
export type Random = () => number

/** Uniform in [0, 1), from integer keys such as (seed, epoch, picture). */
export function randomFrom(...keys: readonly number[]): Random {
  let a = 0x9e3779b9
  let b = 0x243f6a88
  let c = 0xb7e15162
  for (const key of keys) {
    a = mix(a ^ key)
    b = mix(b + a)
    c = mix(c ^ b)
  }
  let counter = 1
  const next = () => {
    const t = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + t) | 0
    return (t >>> 0) / 4294967296
  }
  for (let i = 0; i < 12; i++) next()
  return next
}

function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
  return (x ^ (x >>> 16)) | 0
}

/** A new order of 0 … n−1 (Fisher–Yates). */
export function permutation(n: number, random: Random): number[] {
  const order = Array.from({ length: n }, (_, i) => i)
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  return order
}
