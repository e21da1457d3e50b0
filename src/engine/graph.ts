/**
 * The engine's intermediate representation: a graph of immutable nodes with static shapes, written with plain functions.
 * Each node is one value. What a node *means* is said three times, each time in a table that must be complete to compile:
 * its gradient (gradient.ts), its standard ONNX form (portable.ts) and, where it pays, its blocked form (blocked.ts).
 *
 * Layouts here are always the plain ones: pictures [N, C, H, W], convolution weights [O, I/groups, kH, kW].
 */
import { Failure } from '../failure.ts'

export type DataType = 'float32' | 'uint8' | 'int64'
export type Shape = readonly number[]
export type TensorData = Float32Array | Uint8Array | BigInt64Array

/** Geometry of a convolution or pooling window. `padding` is [top, left, bottom, right]. */
export interface Window {
  strides: readonly [number, number]
  padding: readonly [number, number, number, number]
  dilations: readonly [number, number]
}
export interface ConvolutionWindow extends Window {
  groups: number
}
export interface PoolingWindow extends Window {
  kernel: readonly [number, number]
}

/** Every operation and the attributes it carries. Adding a line here makes each table that lacks it fail to compile. */
export interface OperationAttributes {
  Input: Record<never, never>
  Parameter: { trainable: boolean }
  Constant: { data: TensorData }

  Add: Record<never, never>
  Sub: Record<never, never>
  Mul: Record<never, never>
  Div: Record<never, never>
  Neg: Record<never, never>
  Exp: Record<never, never>
  Log: Record<never, never>
  Sqrt: Record<never, never>
  Reciprocal: Record<never, never>
  Tanh: Record<never, never>
  Sigmoid: Record<never, never>
  Relu: Record<never, never>
  Clip: { minimum: number; maximum: number }
  /** 1 where minimum < x < maximum, else 0. */
  Inside: { minimum: number; maximum: number }
  /** 1 where a = b, else 0. */
  Equal: Record<never, never>

  /** Last two axes are multiplied; leading axes must agree. */
  MatMul: { transposeA: boolean; transposeB: boolean }
  Reshape: Record<never, never>
  Transpose: { permutation: readonly number[] }
  Concat: { axis: number }
  Slice: { starts: readonly number[]; ends: readonly number[]; steps: readonly number[] }
  /** Zeros around; one entry an axis. */
  Pad: { before: readonly number[]; after: readonly number[] }
  /** Broadcast to the node's own shape. */
  Expand: Record<never, never>
  ReduceSum: { axes: readonly number[]; keepDimensions: boolean }
  ReduceMax: { axes: readonly number[]; keepDimensions: boolean }
  Softmax: { axis: number }
  LogSoftmax: { axis: number }
  /** int64 [...] to float32 [..., depth]. */
  OneHot: { depth: number }
  Cast: Record<never, never>

  /** inputs x [N, C, H, W], weight [O, C/groups, kH, kW] and, optionally, bias [O]. */
  Conv: ConvolutionWindow
  /** inputs dy, weight → gradient with respect to x (the node's shape). */
  ConvInputGradient: ConvolutionWindow
  /** inputs dy, x → gradient with respect to the weight (the node's shape). */
  ConvWeightGradient: ConvolutionWindow
  MaxPool: PoolingWindow
  /** inputs dy, y, x → gradient with respect to x; among equal maxima the first of the window (row by row) receives it. */
  MaxPoolGradient: PoolingWindow
  /** [N, C, H, W] to [N, C, 1, 1]. */
  GlobalAveragePool: Record<never, never>
}
export type Operation = keyof OperationAttributes

export interface Node<O extends Operation = Operation> {
  readonly operation: O
  readonly inputs: readonly Node[]
  readonly attributes: OperationAttributes[O]
  readonly shape: Shape
  readonly type: DataType
  /** Inputs and parameters are named; other nodes may be, to be seen in a profile or an exported file. */
  readonly name?: string
}

export function node<O extends Operation>(
  operation: O,
  inputs: readonly Node[],
  attributes: OperationAttributes[O],
  shape: Shape,
  type: DataType = 'float32',
  name?: string,
): Node<O> {
  return name === undefined ? { operation, inputs, attributes, shape, type } : { operation, inputs, attributes, shape, type, name }
}

export const is = <O extends Operation>(x: Node, operation: O): x is Node<O> => x.operation === operation
export const elements = (shape: Shape): number => shape.reduce((product, d) => product * d, 1)

// ── leaves ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const input = (name: string, shape: Shape, type: DataType = 'float32'): Node<'Input'> => node('Input', [], {}, shape, type, name)

/** A weight. Its value is kept outside the graph, under `name` and in the plain layout, by whoever runs the graph. */
export const parameter = (name: string, shape: Shape, { trainable = true } = {}): Node<'Parameter'> =>
  node('Parameter', [], { trainable }, shape, 'float32', name)

export function constant(data: TensorData, shape: Shape): Node<'Constant'> {
  if (data.length !== elements(shape)) throw mismatch('constant', shape, [data.length])
  return node('Constant', [], { data }, shape, data instanceof Float32Array ? 'float32' : data instanceof Uint8Array ? 'uint8' : 'int64')
}
export const scalar = (value: number): Node<'Constant'> => constant(Float32Array.of(value), [])

// ── element by element, with NumPy's broadcasting ───────────────────────────────────────────────────────────────────────────

export function broadcastShape(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length)
  return Array.from({ length: rank }, (_, i) => {
    const da = a[i - rank + a.length] ?? 1
    const db = b[i - rank + b.length] ?? 1
    if (da !== db && da !== 1 && db !== 1) throw mismatch('broadcast', a, b)
    return da === 1 ? db : da
  })
}
const binary =
  <O extends 'Add' | 'Sub' | 'Mul' | 'Div' | 'Equal'>(operation: O) =>
  (a: Node, b: Node): Node<O> =>
    node(operation, [a, b], {} as OperationAttributes[O], broadcastShape(a.shape, b.shape))
const unary =
  <O extends 'Neg' | 'Exp' | 'Log' | 'Sqrt' | 'Reciprocal' | 'Tanh' | 'Sigmoid' | 'Relu'>(operation: O) =>
  (x: Node): Node<O> =>
    node(operation, [x], {} as OperationAttributes[O], x.shape)

export const add = binary('Add')
export const sub = binary('Sub')
export const mul = binary('Mul')
export const div = binary('Div')
export const equal = binary('Equal')
export const neg = unary('Neg')
export const exp = unary('Exp')
export const log = unary('Log')
export const sqrt = unary('Sqrt')
export const reciprocal = unary('Reciprocal')
export const tanh = unary('Tanh')
export const sigmoid = unary('Sigmoid')
export const relu = unary('Relu')
export const clip = (x: Node, minimum: number, maximum: number) => node('Clip', [x], { minimum, maximum }, x.shape)
export const inside = (x: Node, minimum: number, maximum: number) => node('Inside', [x], { minimum, maximum }, x.shape)
export const cast = (x: Node, type: DataType) => node('Cast', [x], {}, x.shape, type)

// ── shape ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export function reshape(x: Node, shape: Shape): Node {
  if (elements(shape) !== elements(x.shape)) throw mismatch('reshape', x.shape, shape)
  return node('Reshape', [x], {}, shape, x.type)
}
export const transpose = (x: Node, permutation: readonly number[]) =>
  node(
    'Transpose',
    [x],
    { permutation },
    permutation.map(axis => x.shape[axis]!),
    x.type,
  )
export function expand(x: Node, shape: Shape): Node {
  if (broadcastShape(x.shape, shape).some((d, i) => d !== shape[i])) throw mismatch('expand', x.shape, shape)
  return node('Expand', [x], {}, shape, x.type)
}
export function concat(parts: readonly Node[], axis: number): Node {
  const [first] = parts
  if (!first) throw mismatch('concat', [], [])
  const total = parts.reduce((sum, part) => sum + part.shape[axis]!, 0)
  for (const part of parts)
    if (part.shape.length !== first.shape.length || part.shape.some((d, i) => i !== axis && d !== first.shape[i]))
      throw mismatch('concat', first.shape, part.shape)
  return node('Concat', parts, { axis }, first.shape.with(axis, total), first.type)
}
/** One start, end and step (> 0) an axis. */
export function slice(x: Node, starts: readonly number[], ends: readonly number[], steps: readonly number[] = starts.map(() => 1)): Node {
  const shape = x.shape.map((_, i) => Math.ceil((ends[i]! - starts[i]!) / steps[i]!))
  if (x.shape.some((d, i) => starts[i]! < 0 || ends[i]! > d || !(shape[i]! > 0))) throw mismatch('slice', x.shape, shape)
  return node('Slice', [x], { starts, ends, steps }, shape, x.type)
}
export const pad = (x: Node, before: readonly number[], after: readonly number[]) =>
  node(
    'Pad',
    [x],
    { before, after },
    x.shape.map((d, i) => d + before[i]! + after[i]!),
    x.type,
  )

// ── reductions and products ─────────────────────────────────────────────────────────────────────────────────────────────────

const reduced = (shape: Shape, axes: readonly number[], keepDimensions: boolean): Shape =>
  shape.flatMap((d, i) => (axes.includes(i) ? (keepDimensions ? [1] : []) : [d]))
export const reduceSum = (x: Node, axes: readonly number[], { keepDimensions = false } = {}) =>
  node('ReduceSum', [x], { axes, keepDimensions }, reduced(x.shape, axes, keepDimensions))
export const reduceMax = (x: Node, axes: readonly number[], { keepDimensions = false } = {}) =>
  node('ReduceMax', [x], { axes, keepDimensions }, reduced(x.shape, axes, keepDimensions))
export const reduceMean = (x: Node, axes: readonly number[], options: { keepDimensions?: boolean } = {}) =>
  mul(reduceSum(x, axes, options), scalar(1 / axes.reduce((n, axis) => n * x.shape[axis]!, 1)))
export const softmax = (x: Node, axis = x.shape.length - 1) => node('Softmax', [x], { axis }, x.shape)
export const logSoftmax = (x: Node, axis = x.shape.length - 1) => node('LogSoftmax', [x], { axis }, x.shape)
export const oneHot = (labels: Node, depth: number) => node('OneHot', [labels], { depth }, [...labels.shape, depth])

export function matMul(a: Node, b: Node, { transposeA = false, transposeB = false } = {}): Node<'MatMul'> {
  const rank = a.shape.length
  if (rank < 2 || b.shape.length !== rank || a.shape.slice(0, -2).some((d, i) => d !== b.shape[i]))
    throw mismatch('matMul', a.shape, b.shape)
  const [rows, inner] = transposeA ? [a.shape[rank - 1]!, a.shape[rank - 2]!] : [a.shape[rank - 2]!, a.shape[rank - 1]!]
  const [inner2, columns] = transposeB ? [b.shape[rank - 1]!, b.shape[rank - 2]!] : [b.shape[rank - 2]!, b.shape[rank - 1]!]
  if (inner !== inner2) throw mismatch('matMul', a.shape, b.shape)
  return node('MatMul', [a, b], { transposeA, transposeB }, [...a.shape.slice(0, -2), rows, columns])
}

// ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface ConvolutionOptions {
  stride?: number
  padding?: number | Window['padding']
  dilation?: number
  groups?: number
  bias?: Node
}
const outputSize = (size: number, kernel: number, w: Window, axis: 0 | 1) =>
  Math.floor((size + w.padding[axis] + w.padding[axis + 2]! - (w.dilations[axis] * (kernel - 1) + 1)) / w.strides[axis]) + 1
const windowOf = ({ stride = 1, padding = 0, dilation = 1 }: ConvolutionOptions): Window => ({
  strides: [stride, stride],
  padding: typeof padding === 'number' ? [padding, padding, padding, padding] : padding,
  dilations: [dilation, dilation],
})

/** x: [N, C, H, W], weight: [O, C/groups, kH, kW] → [N, O, H', W']. ONNX Conv. */
export function conv(x: Node, weight: Node, options: ConvolutionOptions = {}): Node<'Conv'> {
  const window = { ...windowOf(options), groups: options.groups ?? 1 }
  const [n, c, h, w] = x.shape as [number, number, number, number]
  const [o, i, kh, kw] = weight.shape as [number, number, number, number]
  if (x.shape.length !== 4 || weight.shape.length !== 4 || i * window.groups !== c) throw mismatch('conv', x.shape, weight.shape)
  const shape = [n, o, outputSize(h, kh, window, 0), outputSize(w, kw, window, 1)]
  if (shape.some(d => d < 1)) throw mismatch('conv', x.shape, weight.shape)
  return node('Conv', options.bias ? [x, weight, options.bias] : [x, weight], window, shape)
}
export function maxPool(x: Node, kernel: number, options: { stride?: number; padding?: number | Window['padding'] } = {}): Node<'MaxPool'> {
  const window = { ...windowOf({ stride: kernel, ...options }), kernel: [kernel, kernel] as const }
  const [n, c, h, w] = x.shape as [number, number, number, number]
  return node('MaxPool', [x], window, [n, c, outputSize(h, kernel, window, 0), outputSize(w, kernel, window, 1)])
}
export const globalAveragePool = (x: Node) => node('GlobalAveragePool', [x], {}, [x.shape[0]!, x.shape[1]!, 1, 1])

// ── walking ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Every node that the outputs need, inputs before users, each once. Iterative: graphs are deeper than the stack is. */
export function topologicalOrder(outputs: readonly Node[]): Node[] {
  const order: Node[] = []
  const seen = new Set<Node>()
  const stack: { at: Node; next: number }[] = []
  for (const output of outputs) {
    if (!seen.has(output)) stack.push({ at: output, next: 0 })
    seen.add(output)
    while (stack.length) {
      const top = stack[stack.length - 1]!
      const child = top.at.inputs[top.next++]
      if (!child) order.push(stack.pop()!.at)
      else if (!seen.has(child)) {
        seen.add(child)
        stack.push({ at: child, next: 0 })
      }
    }
  }
  return order
}

const mismatch = (operation: string, a: Shape, b: Shape) =>
  new Failure('shape_mismatch', { operation, a: `[${a.join(', ')}]`, b: `[${b.join(', ')}]` })
