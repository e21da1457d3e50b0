/**
 * The layouts that the blocked lowering keeps values in, and the ways between them.
 *
 * plain          [N, C, H, W], and whatever is not a picture
 * blocked        the runtime's NCHWc: [N, ⌈C/B⌉, H, W, B], declared as [N, ⌈C/B⌉·B, H, W]. The added channels hold finite numbers that
 *                nobody reads: weights have zeros for them, and every way out of the layout leaves them behind.
 * channelsLast   [N, H, W, C]; for the weights of a convolution [O, kH, kW, I]
 */
import type { Shape } from './graph.ts'
import type { ParameterLayout } from './lowering.ts'
import type { Attribute, GraphBuilder } from './onnx.ts'

export type Layout = 'plain' | 'blocked' | 'channelsLast'
export type Four = readonly [number, number, number, number]

/** A builder of ONNX nodes that knows the block size of this machine. */
export interface BlockedBuilder {
  readonly b: GraphBuilder
  /** Channels in a block: 16 with AVX-512, 8 elsewhere. */
  readonly block: number
  /** Channels in the blocked layout: the next multiple of the block. */
  up(channels: number): number
  /** A node of the runtime's blocked domain. */
  nchwc(operation: string, inputs: readonly (string | undefined)[], attributes?: Record<string, Attribute | undefined>): string
  reshape(x: string, shape: Shape): string
  /** Zeros behind the last entry of each axis, up to `to`. */
  padTo(x: string, from: Shape, to: Shape): string
}

export function blockedBuilder(b: GraphBuilder, block: number): BlockedBuilder {
  return {
    b,
    block,
    up: channels => Math.ceil(channels / block) * block,
    nchwc: (operation, inputs, attributes) => b.node(operation, inputs, attributes, { domain: 'com.microsoft.nchwc' }),
    reshape: (x, shape) => b.node('Reshape', [x, b.ints(shape)]),
    padTo: (x, from, to) =>
      from.every((d, i) => d === to[i]) ? x : b.node('Pad', [x, b.ints([...from.map(() => 0), ...from.map((d, i) => to[i]! - d)])]),
  }
}

// ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

const toLast = [0, 2, 3, 1] as const
const toFirst = [0, 3, 1, 2] as const
export const channelsLastShape = ([n, c, h, w]: Four): Four => [n, h, w, c]

/** From one layout to another; `shape` is the plain one. */
export function convert(e: BlockedBuilder, x: string, shape: Four, from: Layout, to: Layout): string {
  const [n, c, h, w] = shape
  // One pixel a picture: the three layouts are the same numbers in the same order.
  const onePixel = h * w === 1 && c % e.block === 0
  if (from === to) return x
  if (onePixel) {
    const last = (layout: Layout) => layout === 'channelsLast'
    return last(from) === last(to) ? x : e.reshape(x, last(to) ? channelsLastShape(shape) : shape)
  }
  if (to === 'blocked') {
    const four = Math.ceil(c / 4) * 4 // ReorderInput wants whole groups of four, and fills up to the block itself
    const padded: Four = [n, four, h, w]
    if (from === 'plain') return e.nchwc('ReorderInput', [e.padTo(x, shape, padded)])
    return e.nchwc('ReorderInput', [e.padTo(x, channelsLastShape(shape), channelsLastShape(padded))], { channels_last: 1 })
  }
  if (from === 'blocked') return e.nchwc('ReorderOutput', [x], { channels: c, channels_last: Number(to === 'channelsLast') })
  return e.b.node('Transpose', [x], { perm: to === 'channelsLast' ? toLast : toFirst })
}

/** [R, S] → [⌈R/B⌉, S, B]: every block of rows turned on its side. Rows are filled up with zeros. */
export function blockRows(e: BlockedBuilder, x: string, rows: number, columns: number): string {
  const four = Math.ceil(rows / 4) * 4
  const padded = e.padTo(e.reshape(x, [rows, columns]), [rows, columns], [four, columns])
  return e.nchwc('ReorderInput', [e.reshape(padded, [1, four, columns, 1])])
}

/** [R, S] → [⌈S/B⌉, R, B]: columns cut into strips of a block. Columns are filled up with zeros. */
export function blockColumns(e: BlockedBuilder, x: string, rows: number, columns: number): string {
  const four = Math.ceil(columns / 4) * 4
  const padded = e.padTo(e.reshape(x, [rows, columns]), [rows, columns], [rows, four])
  return e.nchwc('ReorderInput', [e.reshape(padded, [1, rows, 1, four])], { channels_last: 1 })
}

// ── weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** [O, I, kH, kW] kept as [O, kH, kW, I]: gradients of convolutions come out of their matrix products like this. */
export function channelsLastLayout([o, i, kh, kw]: Four): ParameterLayout {
  const taps = kh * kw
  const move = (from: Float32Array, plainToPhysical: boolean): Float32Array => {
    const to = new Float32Array(from.length)
    for (let out = 0; out < o; out++)
      for (let tap = 0; tap < taps; tap++)
        for (let channel = 0; channel < i; channel++) {
          const plain = (out * i + channel) * taps + tap
          const physical = (out * taps + tap) * i + channel
          if (plainToPhysical) to[physical] = from[plain]!
          else to[plain] = from[physical]!
        }
    return to
  }
  return { shape: [o, kh, kw, i], toPhysical: plain => move(plain, true), toPlain: physical => move(physical, false) }
}
