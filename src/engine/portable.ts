/**
 * The portable lowering: every operation as standard ONNX operations of opset 18, nothing of a vendor's. It is what exported
 * files hold, what runs in browsers, and what training falls back on where the blocked convolutions are missing.
 */
import { Failure } from '../failure.ts'
import { type ConvolutionWindow, elements, is, type Node, type Operation, type Shape, topologicalOrder, type Window } from './graph.ts'
import { type Lowered, type LoweringOptions, type ParameterLayout, plainLayout, type Weights } from './lowering.ts'
import { elementTypes, emptyGraph, type GraphBuilder, graphBuilder } from './onnx.ts'

export type Leaf = 'Input' | 'Parameter' | 'Constant'
/**
 * Emits one node whose inputs are the tensors named in `inputs`, and returns the name of the tensor that holds its value.
 * `batchAxis`: the axis of the node that must stay open for any size, in exported files; null when all sizes are fixed.
 */
export type Emit<O extends Operation> = (b: GraphBuilder, node: Node<O>, inputs: readonly string[], batchAxis: number | null) => string

/** Written for any node, in the plain layout. blocked.ts takes from here what it has no better form for. */
export const portable: { readonly [O in Exclude<Operation, Leaf>]: Emit<O> } = {
  Add: simple('Add'),
  Sub: simple('Sub'),
  Mul: simple('Mul'),
  Div: simple('Div'),
  Neg: simple('Neg'),
  Exp: simple('Exp'),
  Log: simple('Log'),
  Sqrt: simple('Sqrt'),
  Reciprocal: simple('Reciprocal'),
  Tanh: simple('Tanh'),
  Sigmoid: simple('Sigmoid'),
  Relu: simple('Relu'),
  Clip: (b, node, [x]) => b.node('Clip', [x, b.scalar(node.attributes.minimum), b.scalar(node.attributes.maximum)]),
  Inside: (b, node, [x]) => {
    const { minimum, maximum } = node.attributes
    const above = minimum > -Infinity ? step(b, minimum === 0 ? x! : b.node('Sub', [x, b.scalar(minimum)])) : undefined
    const below = maximum < Infinity ? step(b, b.node('Sub', [b.scalar(maximum), x])) : undefined
    if (above && below) return b.node('Mul', [above, below])
    return above ?? below ?? b.node('Expand', [b.scalar(1), b.node('Shape', [x])])
  },
  Equal: (b, _, inputs) => b.node('Cast', [b.node('Equal', inputs)], { to: elementTypes.float32 }),

  MatMul: (b, node, [a, c]) => {
    const { transposeA, transposeB } = node.attributes
    if (node.shape.length === 2) return b.node('Gemm', [a, c], { transA: Number(transposeA), transB: Number(transposeB) })
    const swapped = node.shape.map((_, axis) => axis)
    swapped.push(...swapped.splice(-2).reverse())
    const side = (tensor: string, transposed: boolean) => (transposed ? b.node('Transpose', [tensor], { perm: swapped }) : tensor)
    return b.node('MatMul', [side(a!, transposeA), side(c!, transposeB)])
  },
  Reshape: (b, node, [x], batchAxis) => b.node('Reshape', [x, b.ints(batchAxis === null ? node.shape : node.shape.with(batchAxis, -1))]),
  Transpose: (b, node, [x]) => b.node('Transpose', [x], { perm: node.attributes.permutation }),
  Concat: (b, node, inputs) => b.node('Concat', inputs, { axis: node.attributes.axis }),
  Slice: (b, node, [x]) => {
    const { starts, ends, steps } = node.attributes
    const axes = [...node.inputs[0]!.shape.entries()].flatMap(([axis, size]) =>
      starts[axis] === 0 && ends[axis] === size && steps[axis] === 1 ? [] : [axis],
    )
    const chosen = (values: readonly number[]) => b.ints(axes.map(axis => values[axis]!))
    return axes.length ? b.node('Slice', [x, chosen(starts), chosen(ends), b.ints(axes), chosen(steps)]) : b.node('Identity', [x])
  },
  Pad: (b, node, [x]) => b.node('Pad', [x, b.ints([...node.attributes.before, ...node.attributes.after])]),
  // a 1 in Expand's argument keeps what is there
  Expand: (b, node, [x], batchAxis) => b.node('Expand', [x, b.ints(batchAxis === null ? node.shape : node.shape.with(batchAxis, 1))]),
  ReduceSum: reduction('ReduceSum'),
  ReduceMax: reduction('ReduceMax'),
  Softmax: (b, node, [x]) => b.node('Softmax', [x], { axis: node.attributes.axis }),
  LogSoftmax: (b, node, [x]) => b.node('LogSoftmax', [x], { axis: node.attributes.axis }),
  OneHot: (b, node, [labels]) =>
    b.node('OneHot', [labels, b.constant(BigInt64Array.of(BigInt(node.attributes.depth)), []), b.constant(Float32Array.of(0, 1), [2])], {
      axis: -1,
    }),
  Cast: (b, node, [x]) => b.node('Cast', [x], { to: elementTypes[node.type] }),

  Conv: (b, node, inputs) => b.node('Conv', inputs, { ...windowAttributes(node.attributes), kernel_shape: node.inputs[1]!.shape.slice(2) }),
  ConvInputGradient: convInputGradient,
  ConvWeightGradient: convWeightGradient,
  MaxPool: (b, node, [x]) => b.node('MaxPool', [x], { ...windowAttributes(node.attributes), kernel_shape: node.attributes.kernel }),
  // The runtime's indices count through the whole tensor and name the first of equal maxima, as we promise.
  MaxPoolGradient: (b, node, [dy, , x]) => {
    const [, indices] = b.nodes('MaxPool', [x], 2, { ...windowAttributes(node.attributes), kernel_shape: node.attributes.kernel })
    const flat = b.ints([-1])
    const zeros = b.node('ConstantOfShape', [b.ints([elements(node.shape)])])
    const filled = b.node('ScatterElements', [zeros, b.node('Reshape', [indices, flat]), b.node('Reshape', [dy, flat])], {
      axis: 0,
      reduction: 'add',
    })
    return b.node('Reshape', [filled, b.ints(node.shape)])
  },
  GlobalAveragePool: simple('GlobalAveragePool'),
}

function simple<O extends Operation>(operation: string): Emit<O> {
  return (b, _, inputs) => b.node(operation, inputs)
}
function reduction<O extends 'ReduceSum' | 'ReduceMax'>(operation: O): Emit<O> {
  return (b, node, [x]) => {
    const { axes, keepDimensions } = node.attributes as { axes: readonly number[]; keepDimensions: boolean }
    if (!axes.length) return b.node('Identity', [x]) // ONNX reads an empty list as "all axes"
    return b.node(operation, [x, b.ints(axes)], { keepdims: Number(keepDimensions) })
  }
}

/** 1 where x > 0, else 0, in one pass: max(0, min(1, 3e38·x)) is exact for every normal number. (Greater and Cast take four times as long.) */
const step = (b: GraphBuilder, x: string) => b.node('HardSigmoid', [x], { alpha: { float: 3e38 }, beta: { float: 0 } })

function windowAttributes({ strides, padding, dilations, ...rest }: Window & { groups?: number }) {
  return { strides, pads: padding, dilations, group: rest.groups }
}

// ── gradients of convolutions ───────────────────────────────────────────────────────────────────────────────────────────────

type Four = readonly [number, number, number, number]
/** Pixels that a kernel of `size` taps spans. */
const span = (size: number, dilation: number) => dilation * (size - 1) + 1

/**
 * ConvTranspose is this gradient by definition. It is slow with groups, so those go another way: a plain convolution of dy with
 * the turned kernel, after dy was spread out by the stride.
 */
function convInputGradient(b: GraphBuilder, node: Node<'ConvInputGradient'>, [dy, weight]: readonly string[]): string {
  const { strides, padding, dilations, groups } = node.attributes
  const [n, , h, w] = node.shape as Four
  const [, o, oh, ow] = node.inputs[0]!.shape as Four
  const [, , kh, kw] = node.inputs[1]!.shape as Four
  const [sh, sw] = [span(kh, dilations[0]), span(kw, dilations[1])]
  // Rows and columns of x behind the last window: they get no gradient.
  const [restH, restW] = [
    h + padding[0] + padding[2] - sh - (oh - 1) * strides[0],
    w + padding[1] + padding[3] - sw - (ow - 1) * strides[1],
  ]
  const turnedPadding = [sh - 1 - padding[0], sw - 1 - padding[1], sh - 1 - padding[2] + restH, sw - 1 - padding[3] + restW]

  if (groups > 1 && turnedPadding.every(p => p >= 0)) {
    const turned = turnKernel(b, weight!, node.inputs[1]!.shape as Four, groups)
    const spread = spreadOut(b, dy!, [n, o, oh, ow], strides)
    return b.node('Conv', [spread, turned], { kernel_shape: [kh, kw], strides: [1, 1], dilations, group: groups, pads: turnedPadding })
  }
  // Rows behind the last window come from cropping less, and zeros where that is not enough; output_padding has to stay below the stride.
  const made = b.node('ConvTranspose', [dy, weight], {
    kernel_shape: [kh, kw],
    strides,
    dilations,
    group: groups,
    pads: [padding[0], padding[1], padding[2] - Math.min(padding[2], restH), padding[3] - Math.min(padding[3], restW)],
  })
  const missing = [Math.max(0, restH - padding[2]), Math.max(0, restW - padding[3])]
  return missing[0] || missing[1] ? b.node('Pad', [made, b.ints([0, 0, 0, 0, 0, 0, missing[0]!, missing[1]!])]) : made
}

/** [O, I/g, kH, kW] → [I, O/g, kH, kW] with rows and columns reversed. */
function turnKernel(b: GraphBuilder, weight: string, [o, i, kh, kw]: Four, groups: number): string {
  let turned = weight
  if (i > 1 || o > groups) {
    const grouped = b.node('Reshape', [weight, b.ints([groups, o / groups, i, kh * kw])])
    const swapped = b.node('Transpose', [grouped], { perm: [0, 2, 1, 3] })
    turned = b.node('Reshape', [swapped, b.ints([groups * i, o / groups, kh, kw])])
  }
  if (kh * kw === 1) return turned
  return b.node('Slice', [turned, b.ints([-1, -1]), b.ints([-1 - kh, -1 - kw]), b.ints([2, 3]), b.ints([-1, -1])])
}

/** stride − 1 zeros between neighbours: [N, C, H, W] → [N, C, (H − 1)·s + 1, (W − 1)·s + 1]. */
function spreadOut(b: GraphBuilder, x: string, [n, c, h, w]: Four, [sh, sw]: readonly [number, number]): string {
  if (sh === 1 && sw === 1) return x
  const apart = b.node('Reshape', [x, b.ints([n * c, h, 1, w, 1])])
  const padded = b.node('Pad', [apart, b.ints([0, 0, 0, 0, 0, 0, 0, sh - 1, 0, sw - 1])])
  const joined = b.node('Reshape', [padded, b.ints([n, c, h * sh, w * sw])])
  return b.node('Slice', [joined, b.ints([0, 0]), b.ints([(h - 1) * sh + 1, (w - 1) * sw + 1]), b.ints([2, 3])])
}

/** dW[o, i, a, b] = Σ over n, y, x of dy[n, o, y, x] · x̂[n, i, y·s + a·d, x·s + b·d], x̂ being x with its padding. */
function convWeightGradient(b: GraphBuilder, node: Node<'ConvWeightGradient'>, [dy, x]: readonly string[]): string {
  const window = node.attributes
  const perChannel = node.shape[1] === 1 && window.groups > 1
  return perChannel ? depthwiseWeightGradient(b, node, dy!, x!) : gatheredWeightGradient(b, node, dy!, x!, window)
}

/** Depthwise: each channel of each picture is convolved with its own dy as the kernel; stride and dilation change places. */
function depthwiseWeightGradient(b: GraphBuilder, node: Node<'ConvWeightGradient'>, dy: string, x: string): string {
  const { strides, padding, dilations } = node.attributes
  const [o, , kh, kw] = node.shape as Four
  const [n, , oh, ow] = node.inputs[0]!.shape as Four
  const [, c, h, w] = node.inputs[1]!.shape as Four
  // Taps beyond the kernel appear when windows do not reach the last row: cut the input there.
  const cut = [
    Math.max(0, h + padding[0] + padding[2] - span(oh, strides[0]) - (kh - 1) * dilations[0]),
    Math.max(0, w + padding[1] + padding[3] - span(ow, strides[1]) - (kw - 1) * dilations[1]),
  ] as const
  const pads = [padding[0], padding[1], padding[2] - cut[0], padding[3] - cut[1]]
  let pictures = b.node('Reshape', [x, b.ints([1, n * c, h, w])])
  const crop = pads.map(p => Math.min(0, p))
  if (crop.some(p => p < 0)) pictures = b.node('Pad', [pictures, b.ints([0, 0, 0, 0, 0, 0, crop[2]!, crop[3]!])])
  const kernels = b.node('Reshape', [dy, b.ints([n * o, 1, oh, ow])])
  const each = b.node('Conv', [pictures, kernels], {
    kernel_shape: [oh, ow],
    strides: dilations,
    dilations: strides,
    group: n * c,
    pads: pads.map(p => Math.max(0, p)),
  })
  const sum = b.node('ReduceSum', [b.node('Reshape', [each, b.ints([n, o, kh, kw])]), b.ints([0])], { keepdims: 0 })
  return b.node('Reshape', [sum, b.ints(node.shape)])
}

/** Any groups: all shifted copies of x beside each other, multiplied with dy picture by picture. */
function gatheredWeightGradient(
  b: GraphBuilder,
  node: Node<'ConvWeightGradient'>,
  dy: string,
  x: string,
  { strides, padding, dilations, groups }: ConvolutionWindow,
): string {
  const [o, i, kh, kw] = node.shape as Four
  const [n, , oh, ow] = node.inputs[0]!.shape as Four
  const pixels = oh * ow
  const padded = padding.some(p => p > 0) ? b.node('Pad', [x, b.ints([0, 0, padding[0], padding[1], 0, 0, padding[2], padding[3]])]) : x
  const taps: string[] = []
  for (let row = 0; row < kh; row++)
    for (let column = 0; column < kw; column++) {
      const [top, left] = [row * dilations[0], column * dilations[1]]
      const shifted = b.node('Slice', [
        padded,
        b.ints([top, left]),
        b.ints([top + span(oh, strides[0]), left + span(ow, strides[1])]),
        b.ints([2, 3]),
        b.ints(strides),
      ])
      taps.push(b.node('Reshape', [shifted, b.ints([n, groups, i, pixels])]))
    }
  const columns = taps.length === 1 ? taps[0]! : b.node('Concat', taps, { axis: 2 })
  const slopes = b.node('Transpose', [b.node('Reshape', [dy, b.ints([n, groups, o / groups, pixels])])], { perm: [0, 1, 3, 2] })
  const each = b.node('MatMul', [columns, slopes]) // [N, g, taps·I, O/g]
  const sum = b.node('ReduceSum', [each, b.ints([0])], { keepdims: 0 })
  const apart = b.node('Reshape', [sum, b.ints([groups, kh, kw, i, o / groups])])
  return b.node('Reshape', [b.node('Transpose', [apart], { perm: [0, 4, 3, 1, 2] }), b.ints(node.shape)])
}

// ── whole graphs ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `batchAxis` and `prefix` are for exported files (export.ts). */
export interface PortableOptions extends LoweringOptions {
  batchAxis?(node: Node): number | null
  prefix?: string
}

export function lowerPortable(outputs: Readonly<Record<string, Node>>, options: PortableOptions = {}): Lowered {
  const b = graphBuilder(emptyGraph(), options.prefix)
  const tensors = new Map<Node, string>()
  const parameters = new Map<string, ParameterLayout>()
  for (const node of topologicalOrder(Object.values(outputs))) {
    const batchAxis = options.batchAxis?.(node) ?? null
    if (is(node, 'Input')) {
      b.input(node.name!, batchAxis === null ? node.shape : (node.shape as (number | string)[]).with(batchAxis, 'batch'), node.type)
      tensors.set(node, node.name!)
    } else if (is(node, 'Parameter')) {
      const layout = plainLayout(node.shape)
      parameters.set(node.name!, layout)
      tensors.set(node, emitParameter(b, node, layout, options.weights))
    } else if (is(node, 'Constant')) tensors.set(node, b.constant(node.attributes.data, node.shape))
    else {
      const inputs = node.inputs.map(input => tensors.get(input)!)
      // The table has one row for each operation, but TypeScript cannot see that row and node belong together.
      const emit = portable[node.operation as Exclude<Operation, Leaf>] as Emit<Operation>
      tensors.set(node, emit(b, node, inputs, batchAxis))
    }
  }
  return {
    graph: b.graph,
    tensor: output => tensors.get(outputs[output]!)!,
    parameters,
  }
}

/** A parameter as an input of the ONNX graph or, given `weights`, as an initialiser, in its physical layout. */
export function emitParameter(b: GraphBuilder, { name, shape }: Node, layout: ParameterLayout, weights?: Weights): string {
  if (!weights) return b.input(name!, layout.shape)
  return b.constant(layout.toPhysical(weightOf(weights, name!, shape)), layout.shape, name)
}

/** @throws weights_missing · weights_mismatch */
export function weightOf(weights: Weights, name: string, shape: Shape): Float32Array {
  const plain = weights.get(name)
  if (!plain) throw new Failure('weights_missing', { name })
  if (plain.length !== elements(shape)) throw new Failure('weights_mismatch', { name, found: plain.length, expected: elements(shape) })
  return plain
}
