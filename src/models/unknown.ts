/**
 * “None of these”: one number that says how far a picture is from everything the model knows, computed in the artefact's own graph.
 *
 *     near = relative (feature-space.ts) + 1.5 · entropy of the probabilities, each in units of its spread on known pictures
 *     far  = 3 · rest (feature-space.ts) − 4
 *     distance = log(1 + eⁿᵉᵃʳ + eᶠᵃʳ)
 *
 * `near` and `rest` are scaled to 0 for the middle one of known pictures and 1 for one that is farther than nine tenths of them; the larger of
 * near and far decides. The entropy is there because a class the network has never seen often looks half like one class and half like another.
 * `far` speaks up only beyond nearly all known pictures, and then loudly: what is like the known ones in its look is ranked by `near`, and
 * what comes from another world is far whatever `near` says. The three numbers were chosen on the two samples (docs/unknown.md).
 */
import {
  add,
  clip,
  constant,
  exp,
  log,
  logSoftmax,
  matMul,
  mul,
  type Node,
  neg,
  parameter,
  reciprocal,
  reduceMax,
  reduceSum,
  scalar,
  sqrt,
  sub,
  type Weights,
} from '../engine/index.ts'
import type { ArtefactMetadata } from '../sdk/index.ts'
import { type FeatureSpace, lengthFloor } from './feature-space.ts'

/** What has to be measured of a picture before its distance is known. */
export interface Measures {
  relative: ArrayLike<number>
  rest: ArrayLike<number>
  /** Of the probabilities, in nats. */
  entropy: ArrayLike<number>
}

/** near = relative · near.relative + entropy · near.entropy + near.offset; far = rest · far.rest + far.offset */
export interface Scales {
  near: { relative: number; entropy: number; offset: number }
  far: { rest: number; offset: number }
}

/** Everything `composeArtefact` needs to give the file its output `distance`. */
export interface UnknownParts {
  space: FeatureSpace
  scales: Scales
  /** Goes into the file as `plinth.unknown`. */
  metadata: NonNullable<ArtefactMetadata['unknown']>
}

/** Beyond it pictures are equally far away: e⁶⁰ still fits a float. */
const farthest = 60

const entropyWeight = 1.5
const farSlope = 3
const farStart = 4

/** Scales from pictures of known classes that nothing was fitted on. */
export function scalesOf({ relative, rest, entropy }: Measures): Scales {
  const a = spreadAround(relative)
  const b = spreadAround(entropy)
  const unsure = entropyWeight * b.inverse
  const both = Array.from(relative, (value, i) => (value - a.mean) * a.inverse + (entropy[i]! - b.mean) * unsure)
  const n = inTenths(both)
  const f = inTenths(rest)
  return {
    near: {
      relative: a.inverse * n.inverse,
      entropy: unsure * n.inverse,
      offset: (-a.mean * a.inverse - b.mean * unsure - n.middle) * n.inverse,
    },
    far: { rest: farSlope * f.inverse, offset: -farSlope * f.middle * f.inverse - farStart },
  }
}

export function distancesOf({ relative, rest, entropy }: Measures, { near, far }: Scales): Float64Array {
  const bounded = (value: number) => Math.min(farthest, Math.max(-farthest, value))
  return Float64Array.from({ length: rest.length }, (_, i) => {
    const n = bounded(relative[i]! * near.relative + entropy[i]! * near.entropy + near.offset)
    const f = bounded(rest[i]! * far.rest + far.offset)
    return Math.log(1 + Math.exp(n) + Math.exp(f))
  })
}

/** Entropy of each row of probabilities, in nats. */
export function entropies(probabilities: ArrayLike<number>, classes: number): Float64Array {
  return Float64Array.from({ length: probabilities.length / classes }, (_, i) => {
    let sum = 0
    for (let k = 0; k < classes; k++) {
      const p = probabilities[i * classes + k]!
      if (p > 0) sum -= p * Math.log(p)
    }
    return sum
  })
}

const ordered = (values: ArrayLike<number>) => Float64Array.from(values).sort()
const quantile = (sorted: Float64Array, q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0

function spreadAround(values: ArrayLike<number>): { mean: number; inverse: number } {
  const all = Array.from(values)
  const mean = all.reduce((sum, v) => sum + v, 0) / Math.max(1, all.length)
  const deviation = Math.sqrt(all.reduce((sum, v) => sum + (v - mean) ** 2, 0) / Math.max(1, all.length))
  return { mean, inverse: deviation > 1e-9 * Math.abs(mean) && deviation > 1e-12 ? 1 / deviation : 0 }
}
function inTenths(values: ArrayLike<number>): { middle: number; inverse: number } {
  const sorted = ordered(values)
  const middle = quantile(sorted, 0.5)
  const reach = quantile(sorted, 0.9) - middle
  return { middle, inverse: reach > 1e-9 * Math.abs(middle) && reach > 1e-12 ? 1 / reach : 0 }
}

// ── the graph ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

const named = 'plinth.unknown.'

/** features: [1, F], logits: [1, K] as the softmax sees them → distance [1, 1], with the weights it needs. */
export function distanceNode(features: Node, logits: Node, { space, scales }: UnknownParts): { distance: Node; weights: Weights } {
  const { width, dimensions: d } = space
  const classes = space.means.length / d
  const row = { keepDimensions: true }
  const squares = (x: Node) => reduceSum(mul(x, x), [1], row)
  const fixed = (name: string, shape: readonly number[]) => parameter(named + name, shape, { trainable: false })

  const scaled = mul(features, reciprocal(sqrt(add(squares(features), scalar(lengthFloor)))))
  const x = sub(scaled, fixed('center', [1, width]))
  const q = matMul(x, fixed('projection', [d, width]), { transposeB: true })
  const u = matMul(q, fixed('within', [d, d]), { transposeB: true })
  const v = matMul(q, fixed('total', [d, d]), { transposeB: true })
  // ‖u − m‖² = ‖u‖² − (2·u·m − ‖m‖²): the nearest mean has the largest bracket
  const lengths = Float32Array.from({ length: classes }, (_, k) =>
    space.means.subarray(k * d, (k + 1) * d).reduce((sum, value) => sum + value * value, 0),
  )
  const bracket = sub(matMul(mul(u, scalar(2)), fixed('means', [classes, d]), { transposeB: true }), constant(lengths, [1, classes]))
  const relative = sub(sub(squares(u), reduceMax(bracket, [1], row)), squares(v))
  const rest = sub(squares(x), squares(q))
  const logs = logSoftmax(logits)
  const entropy = neg(reduceSum(mul(exp(logs), logs), [1], row))

  const near = add(add(mul(relative, scalar(scales.near.relative)), mul(entropy, scalar(scales.near.entropy))), scalar(scales.near.offset))
  const far = add(mul(rest, scalar(scales.far.rest)), scalar(scales.far.offset))
  const grown = (part: Node) => exp(clip(part, -farthest, farthest))
  return {
    distance: log(add(add(grown(near), grown(far)), scalar(1))),
    weights: new Map([
      [`${named}center`, space.center],
      [`${named}projection`, space.projection],
      [`${named}within`, space.within],
      [`${named}total`, space.total],
      [`${named}means`, space.means],
    ]),
  }
}
