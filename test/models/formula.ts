/** The numbers of scripts/golden-models.py: weights and pictures from a formula, so that golden files hold only results. */

/** `count` numbers in [−1, 1) that depend on the name and the index alone. */
export function uniform(name: string, count: number): Float32Array {
  let seed = 2166136261
  for (const byte of Buffer.from(name)) seed = Math.imul(seed ^ byte, 16777619)
  return Float32Array.from({ length: count }, (_, i) => {
    let x = (Math.imul(i, 2654435761) + seed) >>> 0
    x = Math.imul(x ^ (x >>> 16), 0x7feb352d)
    x = Math.imul(x ^ (x >>> 15), 0x846ca68b)
    x ^= x >>> 16
    return (x >>> 0) / 2147483648 - 1
  })
}

export function formulaWeight(name: string, shape: readonly number[]): Float32Array {
  const u = uniform(
    name,
    shape.reduce((a, b) => a * b, 1),
  )
  const f = Math.fround
  if (name.endsWith('running_var')) return u.map(v => 1 + f(0.5 * v))
  if (name.endsWith('running_mean') || name.endsWith('.bias')) return u.map(v => f(0.1) * v)
  if (shape.length === 1) return u.map(v => 0.75 + f(0.25 * v))
  const bound = f(Math.sqrt(3 / shape.slice(1).reduce((a, b) => a * b, 1)))
  return u.map(v => v * bound)
}

/** 0…255, [batch, 3, side, side], squares of 8 pixels. */
export function picture(name: string, batch: number, side: number): Float32Array {
  const blocks = Math.ceil(side / 8)
  const values = uniform(name, batch * 3 * blocks * blocks).map(v => Math.floor(Math.fround(Math.fround(v + 1) * 127.5)))
  const data = new Float32Array(batch * 3 * side * side)
  for (let plane = 0, at = 0; plane < batch * 3; plane++)
    for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) data[at++] = values[(plane * blocks + (y >> 3)) * blocks + (x >> 3)]!
  return data
}
