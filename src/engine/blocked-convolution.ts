/**
 * Convolutions in the blocked layout: forward, with respect to the input and with respect to the weight, each as the runtime's own
 * NCHWc convolution or as matrix products, whichever is faster for the shape. Weights change every step, so their filters are
 * made from the trained tensor in the graph, once a step.
 *
 * B below is the block size, K the output channels, C the input channels, k·k the taps, L the pixels of a picture.
 */

import { type BlockedBuilder, blockColumns, blockRows, type Four, type Layout } from './blocked-layout.ts'
import type { ConvolutionWindow, Node, Shape } from './graph.ts'
import type { Attribute } from './onnx.ts'

/** Reads the value of a node in a layout, converting where it must. */
export type Want = (node: Node, layout: Layout) => string

export interface ConvolutionGeometry extends ConvolutionWindow {
  /** Pictures, input channels and size. */
  input: Four
  output: Four
  kernel: readonly [number, number]
  depthwise: boolean
}

export function geometryOf(x: Shape, weight: Shape, y: Shape, window: ConvolutionWindow): ConvolutionGeometry {
  const [kh, kw] = weight.slice(2) as [number, number]
  const depthwise = window.groups > 1 && window.groups === x[1] && window.groups === weight[0]
  return { ...window, input: x as unknown as Four, output: y as unknown as Four, kernel: [kh, kw], depthwise }
}

/** What stands behind a convolution and is done by it in the same pass: y = activation(conv + bias + sum). */
export interface Epilogue {
  /** [K], plain. */
  bias?: string
  /** Blocked, like y. */
  sum?: string
  activation?: { activation: string; activation_params?: Attribute }
}

// ── filters ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * The trained tensor of a convolution lies as [K, k·k, C] (channelsLast; a 1×1 kernel is that in the plain layout too). Returns the filter
 * [K/B][C/B][k·k][B of C][B of K] that the blocked convolution wants.
 */
export function forwardFilter(e: BlockedBuilder, weight: string, k: number, c: number, [kh, kw]: readonly [number, number]): string {
  const taps = kh * kw
  const [kUp, cUp] = [e.up(k), e.up(c)]
  const rows = blockRows(e, e.padTo(e.reshape(weight, [k, taps, c]), [k, taps, c], [k, taps, cUp]), k, taps * cUp)
  if (taps === 1) return e.reshape(rows, [kUp, cUp, 1, 1])
  const [kBlocks, cBlocks] = [kUp / e.block, cUp / e.block]
  const tiles = e.reshape(rows, [kBlocks * taps * cBlocks, e.block * e.block])
  const order: number[] = []
  for (let kb = 0; kb < kBlocks; kb++)
    for (let cb = 0; cb < cBlocks; cb++) for (let tap = 0; tap < taps; tap++) order.push((kb * taps + tap) * cBlocks + cb)
  return e.reshape(e.b.node('Gather', [tiles, e.b.ints(order)], { axis: 0 }), [kUp, cUp, kh, kw])
}

/** The same tensor as the filter of the input gradient, [C/B][K/B][taps][B of K][B of C], with the chosen taps in the given order. */
export function turnedFilter(
  e: BlockedBuilder,
  weight: string,
  k: number,
  c: number,
  taps: number,
  chosen: readonly number[],
  size: readonly [number, number],
): string {
  const [kUp, cUp] = [e.up(k), e.up(c)]
  if (taps === 1) return e.reshape(blockColumns(e, e.padTo(e.reshape(weight, [k, c]), [k, c], [kUp, c]), kUp, c), [cUp, kUp, 1, 1])
  const [kBlocks, cBlocks] = [kUp / e.block, cUp / e.block]
  const padded = e.padTo(e.reshape(weight, [k, taps, c]), [k, taps, c], [kUp, taps, cUp])
  // [K/B, B, taps, C/B, B] → [C/B, K/B, taps, B of K, B of C], strip by strip of one block
  const strips = e.reshape(padded, [kUp * taps * cBlocks, e.block])
  const order: number[] = []
  for (let cb = 0; cb < cBlocks; cb++)
    for (let kb = 0; kb < kBlocks; kb++)
      for (const tap of chosen) for (let row = 0; row < e.block; row++) order.push(((kb * e.block + row) * taps + tap) * cBlocks + cb)
  return e.reshape(e.b.node('Gather', [strips, e.b.ints(order)], { axis: 0 }), [cUp, kUp, ...size])
}

/** Fewer input channels than a block: the runtime reads the picture plainly, with the filter [K/B][C][k·k][B]. The weight is plain here. */
export function stemFilter(e: BlockedBuilder, weight: string, k: number, c: number, [kh, kw]: readonly [number, number]): string {
  return e.reshape(blockRows(e, weight, k, c * kh * kw), [e.up(k), c, kh, kw])
}

/** [C, 1, kH, kW], plain → [C/B][taps][B], with the chosen taps in the given order. */
export function depthwiseFilter(
  e: BlockedBuilder,
  weight: string,
  c: number,
  taps: number,
  chosen: readonly number[],
  size: readonly [number, number],
): string {
  const rows = blockRows(e, weight, c, taps)
  if (chosen.every((tap, i) => tap === i) && chosen.length === taps) return e.reshape(rows, [e.up(c), 1, ...size])
  const picked = e.b.node('Gather', [e.reshape(rows, [e.up(c) / e.block, taps, e.block]), e.b.ints(chosen)], { axis: 1 })
  return e.reshape(picked, [e.up(c), 1, ...size])
}

// ── forward ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Placement {
  strides?: readonly [number, number]
  dilations?: readonly [number, number]
  /** [top, left, bottom, right] */
  pads: readonly number[]
  kernel: readonly [number, number]
  group?: number
}
/** One NCHWc convolution. `bias` has to be filled up to whole blocks. */
export function blockedConvolution(e: BlockedBuilder, x: string, filter: string, at: Placement, { bias, sum, activation }: Epilogue = {}) {
  return e.nchwc('Conv', [x, filter, bias, sum], {
    kernel_shape: at.kernel,
    pads: at.pads,
    strides: at.strides ?? [1, 1],
    dilations: at.dilations ?? [1, 1],
    group: at.group ?? 1,
    ...activation,
  })
}

/** A bias of [K] as the blocked convolution wants it. */
export const blockedBias = (e: BlockedBuilder, bias: string, k: number) => e.padTo(bias, [k], [e.up(k)])

// ── with respect to the input ───────────────────────────────────────────────────────────────────────────────────────────────

/** Makes the filter of some taps, row by row in the given order. */
export type FilterOf = (taps: readonly number[], size: readonly [number, number]) => string

/** Padding of the convolution of dy with the turned kernel that gives dx where the stride is 1. [top, left, bottom, right] */
export const turnedPadding = (g: ConvolutionGeometry) => g.padding.map((p, i) => g.dilations[i % 2]! * (g.kernel[i % 2]! - 1) - p)

/** dx, blocked, from dy, blocked, for stride 1 and a turned padding that is not negative. */
export function turnedConvolution(e: BlockedBuilder, dy: string, g: ConvolutionGeometry, filter: FilterOf, epilogue: Epilogue): string {
  const taps = g.kernel[0] * g.kernel[1]
  const turned = Array.from({ length: taps }, (_, i) => taps - 1 - i)
  const group = g.depthwise ? e.up(g.input[1]) : 1
  const at = { pads: turnedPadding(g), kernel: g.kernel, dilations: g.dilations, group }
  return blockedConvolution(e, dy, filter(turned, g.kernel), at, epilogue)
}

/** dx, blocked, from dy, blocked, for larger strides. Null: no blocked form for this window. */
export function stridedInputGradient(e: BlockedBuilder, dy: string, g: ConvolutionGeometry, filter: FilterOf): string | null {
  if (g.dilations[0] !== 1 || g.dilations[1] !== 1) return null
  // A small depthwise kernel is bound by memory: four times the products cost less than laying four parts between each other.
  const spread = g.depthwise && g.kernel[0] * g.kernel[1] <= 9
  return (
    (spread ? spreadInputGradient(e, dy, g, filter) : null) ??
    phasedInputGradient(e, dy, g, filter) ??
    spreadInputGradient(e, dy, g, filter)
  )
}

/** Zeros are laid between the pixels of dy; then it is a convolution of stride 1. */
function spreadInputGradient(e: BlockedBuilder, dy: string, g: ConvolutionGeometry, filter: FilterOf): string | null {
  const [n, k, oh, ow] = g.output
  const [sh, sw] = g.strides
  const kUp = e.up(k)
  const pads = turnedPadding(g)
  pads[2] = g.input[2] - oh * sh - pads[0]! + g.kernel[0] - 1
  pads[3] = g.input[3] - ow * sw - pads[1]! + g.kernel[1] - 1
  if (pads.some(p => p < 0)) return null
  const strips = e.reshape(dy, [(n * kUp * oh) / e.block, 1, ow, e.block])
  const wide = e.b.node('Pad', [strips, e.b.ints([0, 0, 0, 0, 0, sh - 1, 0, (sw - 1) * e.block])])
  const spread = e.reshape(wide, [n, kUp, oh * sh, ow * sw])
  const taps = g.kernel[0] * g.kernel[1]
  const turned = Array.from({ length: taps }, (_, i) => taps - 1 - i)
  return blockedConvolution(e, spread, filter(turned, g.kernel), { pads, kernel: g.kernel, group: g.depthwise ? e.up(g.input[1]) : 1 })
}

/**
 * x has s·s kinds of pixels, by their place between the windows. Each kind sees its own few taps, so each is a small convolution of
 * dy, and the results are laid between each other. Rows of kind φ: x[s·i + φ] = Σ_j dy[i + δ − j] · w[first + s·j], δ = ⌊(φ + top) / s⌋.
 */
function phasedInputGradient(e: BlockedBuilder, dy: string, g: ConvolutionGeometry, filter: FilterOf): string | null {
  const [n, c, h, w] = g.input
  const kw = g.kernel[1]
  const group = g.depthwise ? e.up(c) : 1

  const kinds = (axis: 0 | 1) => {
    const [s, size, out, kernel, before] = [g.strides[axis], g.input[2 + axis]!, g.output[2 + axis]!, g.kernel[axis], g.padding[axis]]
    const length = Math.ceil(size / s)
    return Array.from({ length: s }, (_, phase) => {
      const first = (phase + before) % s
      const taps = Array.from({ length: Math.max(0, Math.ceil((kernel - first) / s)) }, (_, j) => first + s * j).reverse()
      const begin = taps.length - 1 - Math.floor((phase + before) / s)
      return { taps, begin, end: length - out + taps.length - 1 - begin }
    })
  }
  const [rows, columns] = [kinds(0), kinds(1)]
  if ([...rows, ...columns].some(kind => kind.taps.length > 0 && (kind.begin < 0 || kind.end < 0))) return null
  const [hs, ws] = [Math.ceil(h / g.strides[0]), Math.ceil(w / g.strides[1])]
  const strips = (n * e.up(c) * hs) / e.block
  const pixels: Shape = [strips, 1, ws, e.block]
  let zeros: string | undefined
  const part = (row: (typeof rows)[number], column: (typeof columns)[number]) => {
    if (!row.taps.length || !column.taps.length) {
      zeros ??= e.b.node('ConstantOfShape', [e.b.ints(pixels)])
      return zeros
    }
    const size = [row.taps.length, column.taps.length] as const
    const taps = row.taps.flatMap(a => column.taps.map(b => a * kw + b))
    const pads = [row.begin, column.begin, row.end, column.end]
    return e.reshape(blockedConvolution(e, dy, filter(taps, size), { pads, kernel: size, group }), pixels)
  }
  const joined = rows.map(row =>
    join(
      columns.map(column => part(row, column)),
      3,
    ),
  )
  const whole = join(joined, 1) // [strips, s, ws·s·B]
  function join(parts: string[], axis: number) {
    return parts.length === 1 ? parts[0]! : e.b.node('Concat', parts, { axis })
  }
  const made: Four = [n, e.up(c), hs * g.strides[0], ws * g.strides[1]]
  return crop(e, e.reshape(whole, made), made, [h, w])
}

/** The first rows and columns of a blocked picture. */
function crop(e: BlockedBuilder, x: string, [n, c, h, w]: Four, [toH, toW]: readonly [number, number]): string {
  if (h === toH && w === toW) return x
  const rows = e.reshape(x, [(n * c) / e.block, h, w, e.block])
  return e.reshape(e.b.node('Slice', [rows, e.b.ints([0, 0]), e.b.ints([toH, toW]), e.b.ints([1, 2])]), [n, c, toH, toW])
}

// ── with respect to the weight ──────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Depthwise: every channel of every picture is convolved with its own dy as the kernel, stride and dilation having changed places. In
 * the blocked layout both are already the tensors that such a convolution wants. Returns [C, 1, kH, kW], plain.
 */
export function depthwiseWeightGradient(e: BlockedBuilder, dy: string, x: string, g: ConvolutionGeometry): string {
  const [n, c, h, w] = g.input
  const [, , oh, ow] = g.output
  const [kh, kw] = g.kernel
  const [top, left] = g.padding
  const cUp = e.up(c)
  const end = (
    axis: 0 | 1, // rows that the last tap of the last window lies behind the picture
  ) => g.dilations[axis] * (g.kernel[axis] - 1) + g.strides[axis] * (g.output[2 + axis]! - 1) + 1 - g.input[2 + axis]! - g.padding[axis]
  // Rows behind the last window are cut off.
  const used: readonly [number, number] = [h + Math.min(0, end(0)), w + Math.min(0, end(1))]
  const pictures = e.reshape(crop(e, x, [n, cUp, h, w], used), [1, n * cUp, ...used])
  const each = blockedConvolution(e, pictures, e.reshape(dy, [n * cUp, 1, oh, ow]), {
    kernel: [oh, ow],
    pads: [top, left, Math.max(0, end(0)), Math.max(0, end(1))],
    strides: g.dilations,
    dilations: g.strides,
    group: n * cUp,
  })
  const sum = e.b.node('ReduceSum', [e.reshape(each, [n, cUp * kh * kw]), e.b.ints([0])], { keepdims: 0 })
  return e.reshape(e.nchwc('ReorderOutput', [e.reshape(sum, [1, cUp, kh * kw, 1])], { channels: c }), [c, 1, kh, kw])
}

/**
 * The compositions for a dense weight gradient; all give [K, k·k, C], which is channelsLast.
 * rows       dyᵀ[N·L, K] · x[N·L, k·k·C], both channelsLast
 * columns    dy[K, N·L] · x[N·L, k·k·C]
 * taps       the same tap by tap, without gathering x
 * pictures   dy[K, L] · x[C, L]ᵀ picture by picture, both plain
 * strips     dy[K, L] · x[L, B] block by block: x stays blocked, only the narrow dy is converted
 * separable  rows shifted on dy, columns on x, picture by picture
 */
export const weightGradientForms = ['rows', 'columns', 'taps', 'pictures', 'strips', 'separable'] as const
export type WeightGradientForm = (typeof weightGradientForms)[number]

const unitStride = (g: ConvolutionGeometry) => g.strides[0] === 1 && g.strides[1] === 1
const pointwise = (g: ConvolutionGeometry) => g.kernel[0] === 1 && g.kernel[1] === 1 && g.padding.every(p => p === 0)

/** The forms that can be had for this window, the presumably fastest first (measured on 2 cores with AVX-512: docs/inside/engine-blocked.md). */
export function formsFor(g: ConvolutionGeometry): WeightGradientForm[] {
  const [c, k, pixels] = [g.input[1], g.output[1], g.output[2] * g.output[3]]
  const first = (...forms: WeightGradientForm[]) => {
    const same = unitStride(g) && g.output[2] === g.input[2] && g.output[3] === g.input[3]
    const possible: WeightGradientForm[] = pointwise(g) ? ['rows', 'columns'] : ['rows', 'columns', 'taps']
    if (pointwise(g) && unitStride(g)) possible.push('pictures', 'strips')
    else if (same) possible.push('separable')
    return [...forms.filter(form => possible.includes(form)), ...possible.filter(form => !forms.includes(form))]
  }
  if (!pointwise(g)) return pixels >= 784 ? first('separable', 'taps', 'columns') : first('taps', 'columns')
  if (k < c && pixels >= 500) return first('strips', 'pictures')
  if (pixels >= 190) return first('pictures', 'columns')
  return k >= c && pixels < 100 ? first('rows', 'columns') : first('columns', 'rows')
}

/** dW as [K, kH, kW, C] from the nodes dy and x, in one of the forms above. */
export function denseWeightGradient(
  e: BlockedBuilder,
  want: Want,
  dyNode: Node,
  xNode: Node,
  g: ConvolutionGeometry,
  form: WeightGradientForm,
) {
  const { b } = e
  const [n, c] = g.input
  const [, k, oh, ow] = g.output
  const [kh, kw] = g.kernel
  const pixels = oh * ow
  const sumOverPictures = (x: string) => b.node('ReduceSum', [x, b.ints([0])], { keepdims: 0 })
  const products = (left: string, right: string) => b.node('FusedMatMul', [left, right], { transB: 1 }, { domain: 'com.microsoft' })
  const whole = (x: string) => e.reshape(x, [k, kh, kw, c])

  if (form === 'pictures') {
    const dw = products(e.reshape(want(dyNode, 'plain'), [n, k, pixels]), e.reshape(want(xNode, 'plain'), [n, c, pixels]))
    return whole(sumOverPictures(dw))
  }
  if (form === 'strips') {
    const blocks = e.up(c) / e.block
    const dy = e.reshape(want(dyNode, 'plain'), [n, 1, k, pixels])
    const each = b.node('MatMul', [dy, e.reshape(want(xNode, 'blocked'), [n, blocks, pixels, e.block])]) // [N, C/B, K, B]
    const dw = e.reshape(sumOverPictures(each), [1, blocks * e.block, k, 1])
    return whole(e.nchwc('ReorderOutput', [dw], { channels: c, channels_last: 1 }))
  }
  if (form === 'separable') {
    // dw[a, b] = Σ dy[y − a, x] · x̂[y, x + b]: rows are shifted on one side, columns on the other: kH + kW copies instead of kH·kW.
    // Pad with negative numbers crops.
    const [top, left] = g.padding
    const [dy, x] = [want(dyNode, 'plain'), want(xNode, 'plain')]
    const shift = (tensor: string, rows: number, columns: number) =>
      rows || columns ? b.node('Pad', [tensor, b.ints([0, 0, rows, columns, 0, 0, -rows, -columns])]) : tensor
    const wide = Array.from({ length: kw }, (_, tap) => shift(x, 0, left - tap))
    const columns = e.reshape(wide.length > 1 ? b.node('Concat', wide, { axis: 1 }) : wide[0]!, [n, kw * c, pixels])
    const rows = Array.from({ length: kh }, (_, tap) => {
      const dw = products(e.reshape(shift(dy, tap - top, 0), [n, k, pixels]), columns)
      return e.reshape(sumOverPictures(dw), [k, 1, kw * c])
    })
    return whole(rows.length > 1 ? b.node('Concat', rows, { axis: 1 }) : rows[0]!)
  }
  const tapsOfX = shiftedRows(e, want, xNode, g)
  if (form === 'rows') {
    const x = tapsOfX.length > 1 ? b.node('Concat', tapsOfX, { axis: 3 }) : tapsOfX[0]!
    const dy = e.reshape(want(dyNode, 'channelsLast'), [n * pixels, k])
    return whole(b.node('Gemm', [dy, e.reshape(x, [n * pixels, kh * kw * c])], { transA: 1 }))
  }
  const dy = e.reshape(b.node('Transpose', [e.reshape(want(dyNode, 'plain'), [n, k, pixels])], { perm: [1, 0, 2] }), [k, n * pixels])
  if (form === 'columns') {
    const x = tapsOfX.length > 1 ? b.node('Concat', tapsOfX, { axis: 3 }) : tapsOfX[0]!
    return whole(b.node('Gemm', [dy, e.reshape(x, [n * pixels, kh * kw * c])]))
  }
  const each = tapsOfX.map(x => e.reshape(b.node('Gemm', [dy, e.reshape(x, [n * pixels, c])]), [k, 1, c]))
  return whole(each.length > 1 ? b.node('Concat', each, { axis: 1 }) : each[0]!)
}

/** For each tap the pixels of x that it meets, [N, H', W', C]. */
function shiftedRows(e: BlockedBuilder, want: Want, xNode: Node, g: ConvolutionGeometry): string[] {
  const { b } = e
  const [, , h, w] = g.input
  const [, , oh, ow] = g.output
  const [top, left, bottom, right] = g.padding
  const x = want(xNode, 'channelsLast')
  const padded = g.padding.some(p => p > 0) ? b.node('Pad', [x, b.ints([0, top, left, 0, 0, bottom, right, 0])]) : x
  const taps: string[] = []
  for (let row = 0; row < g.kernel[0]; row++)
    for (let column = 0; column < g.kernel[1]; column++) {
      const [y0, x0] = [row * g.dilations[0], column * g.dilations[1]]
      const [y1, x1] = [y0 + (oh - 1) * g.strides[0] + 1, x0 + (ow - 1) * g.strides[1] + 1]
      const all = y0 === 0 && x0 === 0 && y1 === h + top + bottom && x1 === w + left + right && unitStride(g)
      taps.push(all ? padded : b.node('Slice', [padded, b.ints([y0, x0]), b.ints([y1, x1]), b.ints([1, 2]), b.ints(g.strides)]))
    }
  return taps
}

/**
 * For a picture of few channels, read plainly: columns are gathered first (their strided copies are the slow ones), then rows. Returns
 * [K, C, kH, kW], plain. dy: [N, K, H', W'], plain.
 */
export function stemWeightGradient(e: BlockedBuilder, dy: string, x: string, g: ConvolutionGeometry): string {
  const { b } = e
  const [n, c, h, w] = g.input
  const [, k, oh, ow] = g.output
  const [kh, kw] = g.kernel
  const [top, left, bottom, right] = g.padding
  const [fullH, fullW] = [h + top + bottom, w + left + right]
  const padded = g.padding.some(p => p > 0) ? b.node('Pad', [x, b.ints([0, 0, top, left, 0, 0, bottom, right])]) : x
  const flat = e.reshape(padded, [n * c, 1, fullH, fullW])
  const gather = (tensor: string, axis: number, taps: number, out: number, stride: number, dilation: number) => {
    const parts = Array.from({ length: taps }, (_, tap) =>
      b.node('Slice', [
        tensor,
        b.ints([tap * dilation]),
        b.ints([tap * dilation + (out - 1) * stride + 1]),
        b.ints([axis]),
        b.ints([stride]),
      ]),
    )
    return parts.length > 1 ? b.node('Concat', parts, { axis: 1 }) : parts[0]!
  }
  const wide = gather(flat, 3, kw, ow, g.strides[1], g.dilations[1]) // [N·C, kW, H, W']
  const columns = gather(wide, 2, kh, oh, g.strides[0], g.dilations[0]) // [N·C, kH·kW, H', W']
  const dw = b.node(
    'FusedMatMul',
    [e.reshape(dy, [n, k, oh * ow]), e.reshape(columns, [n, c * kh * kw, oh * ow])],
    { transB: 1 },
    { domain: 'com.microsoft' },
  )
  return e.reshape(b.node('ReduceSum', [dw, b.ints([0])], { keepdims: 0 }), [k, c, kh, kw])
}

/** Key of a choice: everything that its speed depends on. */
export const shapeKey = (g: ConvolutionGeometry) =>
  [g.input.join('x'), g.output[1], g.kernel.join('x'), `s${g.strides.join('x')}`, `p${g.padding.join(',')}`].join(' ')
