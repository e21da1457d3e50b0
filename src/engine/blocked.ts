/**
 * The blocked lowering: whole training graphs on the runtime's NCHWc convolutions, which take changing weights when they are written
 * by name. Activations stay blocked from the first convolution to the last; a value is converted when somebody needs it otherwise, once.
 * What is not known here is emitted plainly from portable.ts, so every graph can be lowered.
 */

import {
  blockedBias,
  blockedConvolution,
  type ConvolutionGeometry,
  denseWeightGradient,
  depthwiseFilter,
  depthwiseWeightGradient,
  type Epilogue,
  type FilterOf,
  formsFor,
  forwardFilter,
  geometryOf,
  shapeKey,
  stemFilter,
  stemWeightGradient,
  stridedInputGradient,
  turnedConvolution,
  turnedFilter,
  turnedPadding,
  type WeightGradientForm,
} from './blocked-convolution.ts'
import { blockedBuilder, channelsLastLayout, convert, type Four, type Layout } from './blocked-layout.ts'
import type { BlockedSupport } from './blocked-probe.ts'
import { elements, is, type Node, type Operation, type Shape, topologicalOrder } from './graph.ts'
import { type Json, type Lowered, type LoweringOptions, type ParameterLayout, plainLayout } from './lowering.ts'
import { emptyGraph, graphBuilder } from './onnx.ts'
import { type Emit, emitParameter, type Leaf, portable } from './portable.ts'

export { type BlockedSupport, probeBlocked } from './blocked-probe.ts'
export interface BlockedOptions extends LoweringOptions {
  support: BlockedSupport
}

/** @throws shape_mismatch, weights_missing, weights_mismatch: as the portable lowering does */
export function lowerBlocked(outputs: Readonly<Record<string, Node>>, options: BlockedOptions): Lowered {
  const lowering = createLowering(outputs, options)
  for (const node of lowering.order) lowering.emit(node)
  const tensors = new Map(Object.entries(outputs).map(([name, node]) => [name, lowering.output(name, node)]))
  return {
    graph: lowering.e.b.graph,
    tensor: output => tensors.get(output)!,
    parameters: lowering.parameters,
    choices: lowering.choices,
  }
}

/** A convolution that waits for what can be done in its pass: bias, sum and activation. */
interface Pending {
  emit(epilogue: Epilogue): string
  sum?: Node
}

function createLowering(outputs: Readonly<Record<string, Node>>, options: BlockedOptions) {
  const e = blockedBuilder(graphBuilder(emptyGraph()), options.support.block)
  const { b } = e
  const order = topologicalOrder(Object.values(outputs))
  const users = new Map<Node, Node[]>(order.map(node => [node, []]))
  for (const node of order) for (const input of new Set(node.inputs)) users.get(input)!.push(node)
  const isOutput = new Set(Object.values(outputs))
  const values = new Map<Node, Partial<Record<Layout, string>>>()
  /** The layout in which a value was made. */
  const homes = new Map<Node, Layout>()
  const pending = new Map<Node, Pending>()
  const parameters = new Map<string, ParameterLayout>()
  /** Inside nodes that only their products emit. */
  const masks = new Set<Node>()
  /** Shapes of the values that were made blocked. */
  const blockedShapes = new Set<string>()
  const filters = new Map<Node, Map<string, string>>()
  const known = (options.choices ?? {}) as Record<string, Json>
  const choices: Record<string, Json> = {}

  const put = (node: Node, layout: Layout, tensor: string) => {
    values.set(node, { [layout]: tensor })
    homes.set(node, layout)
    if (layout === 'blocked') blockedShapes.add(String(node.shape))
  }
  const want = (node: Node, layout: Layout): string => {
    if (pending.has(node)) settle(node)
    const value = values.get(node)!
    const home = homes.get(node)!
    value[layout] ??= convert(e, value[home]!, node.shape as unknown as Four, home, layout)
    return value[layout]
  }
  /** Emits a waiting convolution, with what it has picked up so far and, perhaps, an activation that is `into`. */
  const settle = (node: Node, into: Node = node, activation?: Epilogue['activation']) => {
    const waiting = pending.get(node)!
    pending.delete(node)
    const sum = waiting.sum ? want(waiting.sum, 'blocked') : undefined
    put(into, 'blocked', waiting.emit({ sum, activation }))
  }

  const choose = (g: ConvolutionGeometry): WeightGradientForm => {
    const key = shapeKey(g)
    const possible = formsFor(g)
    const chosen = known[key]
    const form = possible.find(p => p === chosen) ?? possible[0]!
    choices[key] = form
    return form
  }
  const filter = (weight: Node, kind: string, make: () => string): string => {
    const made = filters.get(weight) ?? new Map<string, string>()
    filters.set(weight, made)
    const had = made.get(kind)
    if (had) return had
    const tensor = make()
    made.set(kind, tensor)
    return tensor
  }
  /** Weights lie as [K, taps, C] in both: with one tap or one channel the plain layout is that too. */
  const rows = (weight: Node) => want(weight, lastIsPlain(weight.shape) ? 'plain' : 'channelsLast')

  // ── what has a blocked form ─────────────────────────────────────────────────────────────────────────────────────────────

  const emitters: { readonly [O in Operation]?: (node: Node<O>) => boolean } = {
    Conv(node) {
      const [x, weight, bias] = node.inputs as [Node, Node, Node?]
      const g = geometryOf(x.shape, weight.shape, node.shape, node.attributes)
      if (!isDense(g) && !g.depthwise) return false
      const [, c] = g.input
      const k = g.output[1]
      const taps = g.kernel[0] * g.kernel[1]
      const stem = !g.depthwise && c < e.block && homes.get(x) !== 'blocked' && !pending.has(x)
      const input = want(x, stem ? 'plain' : 'blocked')
      const made = g.depthwise
        ? filter(weight, 'depthwise', () => depthwiseFilter(e, want(weight, 'plain'), c, taps, range(taps), g.kernel))
        : stem
          ? filter(weight, 'stem', () => stemFilter(e, want(weight, 'plain'), k, c, g.kernel))
          : filter(weight, 'forward', () => forwardFilter(e, rows(weight), k, c, g.kernel))
      const at = { kernel: g.kernel, pads: g.padding, strides: g.strides, dilations: g.dilations, group: g.depthwise ? e.up(c) : 1 }
      const shift = bias && blockedBias(e, want(bias, 'plain'), k)
      return wait(node, epilogue => blockedConvolution(e, input, made, at, { ...epilogue, bias: shift }))
    },
    ConvInputGradient(node) {
      const [dy, weight] = node.inputs as [Node, Node]
      const g = geometryOf(node.shape, weight.shape, dy.shape, node.attributes)
      if (!isDense(g) && !g.depthwise) return false
      const [, c] = g.input
      const k = g.output[1]
      const taps = g.kernel[0] * g.kernel[1]
      const make: FilterOf = (chosen, size) =>
        filter(weight, `input ${chosen} ${size}`, () =>
          g.depthwise
            ? depthwiseFilter(e, want(weight, 'plain'), c, taps, chosen, size)
            : turnedFilter(e, rows(weight), k, c, taps, chosen, size),
        )
      if (g.strides.every(s => s === 1)) {
        if (turnedPadding(g).some(p => p < 0)) return false
        const input = want(dy, 'blocked')
        return wait(node, epilogue => turnedConvolution(e, input, g, make, epilogue))
      }
      const made = stridedInputGradient(e, want(dy, 'blocked'), g, make)
      if (made === null) return false
      put(node, 'blocked', made)
      return true
    },
    ConvWeightGradient(node) {
      const [dy, x] = node.inputs as [Node, Node]
      const g = geometryOf(x.shape, node.shape, dy.shape, node.attributes)
      if (g.depthwise) {
        const dw = depthwiseWeightGradient(e, want(dy, 'blocked'), want(x, 'blocked'), g)
        put(node, 'plain', dw)
        return true
      }
      if (!isDense(g)) return false
      if (g.input[1] < e.block && homes.get(x) === 'plain') {
        put(node, 'plain', stemWeightGradient(e, want(dy, 'plain'), want(x, 'plain'), g))
        return true
      }
      const dw = denseWeightGradient(e, want, dy, x, g, choose(g))
      if (lastIsPlain(node.shape)) put(node, 'plain', e.reshape(dw, node.shape))
      else put(node, 'channelsLast', dw)
      return true
    },
    MaxPool(node) {
      const [x] = node.inputs as [Node]
      if (homes.get(x) !== 'blocked' && !pending.has(x)) return false
      const { kernel, padding, strides, dilations } = node.attributes
      const pooled = e.nchwc('MaxPool', [want(x, 'blocked')], { kernel_shape: kernel, pads: padding, strides, dilations })
      put(node, 'blocked', pooled)
      return true
    },
    GlobalAveragePool(node) {
      const [x] = node.inputs as [Node]
      if (homes.get(x) !== 'blocked' && !pending.has(x)) return false
      put(node, 'blocked', e.nchwc('GlobalAveragePool', [want(x, 'blocked')]))
      return true
    },
    Add(node) {
      const [left, right] = node.inputs as [Node, Node]
      for (const [conv, other] of [
        [right, left],
        [left, right],
      ] as const) {
        const waiting = pending.get(conv)
        if (!waiting || waiting.sum || conv === other || !sameShape(other.shape, node.shape) || !sameShape(conv.shape, node.shape)) continue
        if (pending.has(other)) settle(other)
        pending.delete(conv)
        const emit = waiting.emit
        pending.set(node, { emit, sum: other })
        if (!fusesOnward(node, true)) settle(node)
        return true
      }
      return elementwise(node)
    },
    Relu: node => activate(node, { activation: 'Relu' }) || elementwise(node),
    Clip: node => {
      const { minimum, maximum } = node.attributes
      const withZero = minimum <= 0 && maximum >= 0
      const bounds = { floats: [Math.max(minimum, -3e38), Math.min(maximum, 3e38)] }
      return withZero && (activate(node, { activation: 'Clip', activation_params: bounds }) || elementwise(node))
    },
    Sub: elementwise,
    Mul(node) {
      const [left, right] = node.inputs as [Node, Node]
      const [mask, other] = masks.has(right) ? [right, left] : [left, right]
      if (!masks.has(mask) || !sameShape(other.shape, node.shape)) return elementwise(node)
      put(node, 'blocked', masked(want(other, 'blocked'), mask as Node<'Inside'>))
      return true
    },
    Neg: elementwise,
    Sigmoid: elementwise,
    Tanh: elementwise,
    Inside(node) {
      const [x] = node.inputs as [Node]
      const only = users.get(node)!
      // a mask that is only multiplied with: the product takes its two steps itself
      if ((pending.has(x) || homes.get(x) === 'blocked') && only.length && only.every(user => is(user, 'Mul')) && !isOutput.has(node)) {
        masks.add(node)
        return true
      }
      return elementwise(node)
    },
    Equal: elementwise,
    Div: elementwise,
    Exp: elementwise,
    Log: elementwise,
    Sqrt: elementwise,
    Reciprocal: elementwise,
    Expand(node) {
      const [x] = node.inputs as [Node]
      const [n, c, h, w] = node.shape as unknown as Four
      // what global pooling sends back: one number a channel, to every pixel
      if (node.shape.length !== 4 || h * w === 1 || !sameShape(x.shape, [n, c, 1, 1]) || !blockedShapes.has(String(node.shape)))
        return false
      const small = e.reshape(want(x, 'blocked'), [n, e.up(c) / e.block, 1, e.block])
      const wide = b.node('Expand', [small, b.ints([n, e.up(c) / e.block, h * w, e.block])])
      put(node, 'blocked', e.reshape(wide, [n, e.up(c), h, w]))
      return true
    },
    ReduceSum(node) {
      const [x] = node.inputs as [Node]
      const { axes } = node.attributes
      const home = pending.has(x) ? 'blocked' : homes.get(x)
      const is = (...wanted: number[]) => axes.length === wanted.length && wanted.every(axis => axes.includes(axis))
      if (home === 'blocked' && (is(0, 2, 3) || is(2, 3))) {
        const [, c, h, w] = x.shape as unknown as Four
        // global pooling is the runtime's quickest reduction of a blocked picture; it divides by the pixels
        let mean = e.nchwc('GlobalAveragePool', [want(x, 'blocked')])
        if (is(0, 2, 3)) mean = b.node('ReduceSum', [mean, b.ints([0])], { keepdims: 1 })
        let sum = h * w === 1 ? mean : b.node('Mul', [mean, b.scalar(h * w)])
        if (c !== e.up(c)) sum = b.node('Slice', [sum, b.ints([0]), b.ints([c]), b.ints([1])])
        put(node, 'plain', e.reshape(sum, node.shape))
        return true
      }
      if (home === 'channelsLast' && is(1, 2, 3)) {
        const sum = b.node('ReduceSum', [want(x, 'channelsLast'), b.ints([1, 2, 3])], { keepdims: 0 })
        put(node, 'plain', e.reshape(sum, node.shape))
        return true
      }
      return false
    },
  }

  /** Lets a convolution wait for its only user when that user can be done in the same pass; else emits it now. */
  function wait(node: Node, emit: Pending['emit']): true {
    pending.set(node, { emit })
    if (!fusesOnward(node, false)) settle(node)
    return true
  }
  function fusesOnward(node: Node, hasSum: boolean): boolean {
    const [only, ...more] = users.get(node)!
    if (!only || more.length || isOutput.has(node) || !sameShape(only.shape, node.shape)) return false
    if (is(only, 'Add'))
      return !hasSum && only.inputs[0] !== only.inputs[1] && only.inputs.every(input => sameShape(input.shape, node.shape))
    return is(only, 'Relu') || (is(only, 'Clip') && only.attributes.minimum <= 0 && only.attributes.maximum >= 0)
  }
  function activate(node: Node, activation: NonNullable<Epilogue['activation']>): boolean {
    const [x] = node.inputs as [Node]
    if (!pending.has(x)) return false
    settle(x, node, activation)
    return true
  }

  /** x · [minimum < y < maximum], one bound after the other: the intermediate results stay in the cache and take no memory of their own. */
  function masked(x: string, mask: Node<'Inside'>): string {
    const { minimum, maximum } = mask.attributes
    const y = want(mask.inputs[0]!, 'blocked')
    if (minimum > -Infinity) x = b.node('Mul', [x, step(y, minimum, 1)])
    if (maximum < Infinity) x = b.node('Mul', [x, step(y, maximum, -1)])
    return x
  }
  /**
   * [y > bound], or [y < bound] for sign −1, in one pass: max(0, min(1, ±2¹⁰⁰·(y − bound))). A power of two keeps the product exact, so that
   * only equality gives 0.
   */
  function step(y: string, bound: number, sign: 1 | -1): string {
    const steep = sign * 2 ** 100
    return b.node('HardSigmoid', [y], { alpha: { float: steep }, beta: { float: -steep * bound } })
  }

  /** Stays in the layout of its largest input if every other input can be had in it. */
  function elementwise(node: Node): boolean {
    if (node.shape.length !== 4) return false
    const whole = node.inputs.filter(input => sameShape(input.shape, node.shape))
    const layout = (['blocked', 'channelsLast'] as const).find(candidate =>
      whole.some(input => (pending.has(input) ? 'blocked' : homes.get(input)) === candidate),
    )
    if (!layout || (layout === 'blocked' && !finiteOnPadding.has(node.operation))) return false
    const shape = node.shape as unknown as Four
    const spread = node.inputs.some(input => !sameShape(input.shape, shape) && elements(input.shape) > 1)
    const operands = node.inputs.map(input => operand(input, shape, layout, spread))
    if (operands.some(o => o === null)) return false
    const emitNode = portable[node.operation as Exclude<Operation, Leaf>] as Emit<Operation>
    const made = emitNode(b, node, operands as string[], null)
    const [n, c, h, w] = shape
    put(node, layout, spread && layout === 'blocked' ? e.reshape(made, [n, e.up(c), h, w]) : made)
    return true
  }

  /**
   * One input of an elementwise node. `spread`: some input is one number a channel (or picture), so whole ones are seen as
   * [N, C/B, H·W, B] and those as [N, C/B, 1, B].
   */
  function operand(input: Node, shape: Four, layout: 'blocked' | 'channelsLast', spread: boolean): string | null {
    if (elements(input.shape) === 1) return e.reshape(want(input, 'plain'), [])
    const [n, c, h, w] = shape
    if (sameShape(input.shape, shape)) {
      const tensor = want(input, layout)
      return spread && layout === 'blocked' ? e.reshape(tensor, [n, e.up(c) / e.block, h * w, e.block]) : tensor
    }
    const full = [...Array(4 - input.shape.length).fill(1), ...input.shape] as unknown as Four
    const [fn, fc, fh, fw] = full
    if (fh * fw !== 1) return null
    if (layout === 'channelsLast') return e.reshape(want(input, 'plain'), [fn, 1, 1, fc])
    const flat = e.padTo(e.reshape(want(input, 'plain'), [fn, fc]), [fn, fc], [fn, fc === 1 ? 1 : e.up(fc)])
    return e.reshape(flat, fc === 1 ? [fn, 1, 1, 1] : [fn, e.up(fc) / e.block, 1, e.block])
  }

  function emit(node: Node): void {
    if (is(node, 'Input')) put(node, 'plain', b.input(node.name!, node.shape, node.type))
    else if (is(node, 'Constant')) put(node, 'plain', b.constant(node.attributes.data, node.shape))
    else if (is(node, 'Parameter')) {
      const home = parameterLayout(node.shape, e.block)
      const layout = home === 'plain' ? plainLayout(node.shape) : channelsLastLayout(node.shape as unknown as Four)
      parameters.set(node.name!, layout)
      put(node, home, emitParameter(b, node, layout, options.weights))
    } else {
      const emitter = emitters[node.operation] as ((node: Node) => boolean) | undefined
      if (emitter?.(node)) return
      const inputs = node.inputs.map(input => want(input, 'plain'))
      put(node, 'plain', (portable[node.operation as Exclude<Operation, Leaf>] as Emit<Operation>)(b, node, inputs, null))
    }
  }

  function output(name: string, node: Node): string {
    const parameter = options.gradientOf?.get(name)
    return want(node, parameter === undefined ? 'plain' : parameterLayout(node.shape, e.block))
  }

  return { e, order, emit, output, parameters, choices }
}

/** Weights of a convolution over several taps and many channels are trained as [O, kH, kW, I]; everything else plainly. */
function parameterLayout(shape: Shape, block: number): Layout {
  return shape.length === 4 && shape[1]! >= block && shape[2]! * shape[3]! > 1 ? 'channelsLast' : 'plain'
}
const lastIsPlain = (shape: Shape) => shape[1] === 1 || shape[2]! * shape[3]! === 1
const range = (length: number) => Array.from({ length }, (_, i) => i)
const isDense = (g: ConvolutionGeometry) => g.groups === 1
const sameShape = (a: Shape, b: Shape) => a.length === b.length && a.every((d, i) => d === b[i])

/** Operations that make finite numbers of the finite numbers in channels that were only added to fill a block. */
const finiteOnPadding: ReadonlySet<Operation> = new Set(['Add', 'Sub', 'Mul', 'Neg', 'Relu', 'Clip', 'Inside', 'Sigmoid', 'Tanh', 'Equal'])
