/**
 * Reverse-mode differentiation: walks the graph from a loss back to its inputs and adds up what each rule says.
 * A rule gets the gradient with respect to a node's value (`dy`), the node and its inputs, and answers one gradient an input, as new
 * nodes. Rules answer functions, so that nothing is built for inputs that nobody asked about.
 */
import { Failure } from '../failure.ts'
import {
  add,
  constant,
  div,
  elements,
  equal,
  exp,
  expand,
  inside,
  matMul,
  mul,
  type Node,
  neg,
  node,
  type Operation,
  pad,
  reduceSum,
  reshape,
  type Shape,
  scalar,
  slice,
  sub,
  topologicalOrder,
  transpose,
} from './graph.ts'

type Lazy = () => Node
/** null: the operation has no derivative (or is flat almost everywhere) with respect to that input. */
export type Rule<O extends Operation> = (dy: Node, y: Node<O>, ...inputs: Node[]) => (Lazy | null)[]

const leaf = () => []
/** Integers in or out, or a step function: no gradient goes through. */
const flat = (_: Node, y: Node) => y.inputs.map(() => null)

export const rules: { readonly [O in Operation]: Rule<O> } = {
  Input: leaf,
  Parameter: leaf,
  Constant: leaf,

  Add: (dy, _, a, b) => [() => unbroadcast(dy, a!.shape), () => unbroadcast(dy, b!.shape)],
  Sub: (dy, _, a, b) => [() => unbroadcast(dy, a!.shape), () => unbroadcast(neg(dy), b!.shape)],
  Mul: (dy, _, a, b) => [() => unbroadcast(mul(dy, b!), a!.shape), () => unbroadcast(mul(dy, a!), b!.shape)],
  Div: (dy, y, a, b) => [() => unbroadcast(div(dy, b!), a!.shape), () => unbroadcast(neg(mul(dy, div(y, b!))), b!.shape)], // −a/b² = −y/b
  Neg: dy => [() => neg(dy)],
  Exp: (dy, y) => [() => mul(dy, y)],
  Log: (dy, _, x) => [() => div(dy, x!)],
  Sqrt: (dy, y) => [() => div(dy, mul(y, scalar(2)))],
  Reciprocal: (dy, y) => [() => neg(mul(dy, mul(y, y)))],
  Tanh: (dy, y) => [() => mul(dy, sub(scalar(1), mul(y, y)))],
  Sigmoid: (dy, y) => [() => mul(dy, mul(y, sub(scalar(1), y)))],
  Relu: (dy, y) => [() => mul(dy, inside(y, 0, Number.POSITIVE_INFINITY))],
  Clip: (dy, y) => [() => mul(dy, inside(y, y.attributes.minimum, y.attributes.maximum))],
  Inside: flat,
  Equal: flat,

  MatMul: (dy, { attributes: { transposeA, transposeB } }, a, b) => [
    () => (transposeA ? matMul(b!, dy, { transposeA: transposeB, transposeB: true }) : matMul(dy, b!, { transposeB: !transposeB })),
    () => (transposeB ? matMul(dy, a!, { transposeA: true, transposeB: transposeA }) : matMul(a!, dy, { transposeA: !transposeA })),
  ],
  Reshape: (dy, _, x) => [() => reshape(dy, x!.shape)],
  Transpose: (dy, { attributes: { permutation } }) => [
    () =>
      transpose(
        dy,
        permutation.map((_, axis) => permutation.indexOf(axis)),
      ),
  ],
  Concat: (dy, { attributes: { axis } }, ...parts) => {
    let from = 0
    return parts.map(part => {
      const start = from
      from += part.shape[axis]!
      const zeros = part.shape.map(() => 0)
      return () => slice(dy, zeros.with(axis, start), part.shape.with(axis, start + part.shape[axis]!))
    })
  },
  Slice: (dy, { attributes: { starts, steps } }, x) => [
    () => {
      const spread = spreadOut(dy, steps)
      return pad(
        spread,
        starts,
        x!.shape.map((d, i) => d - starts[i]! - spread.shape[i]!),
      )
    },
  ],
  Pad: (dy, { attributes: { before } }, x) => [
    () =>
      slice(
        dy,
        before,
        x!.shape.map((d, i) => d + before[i]!),
      ),
  ],
  Expand: (dy, _, x) => [() => unbroadcast(dy, x!.shape)],
  ReduceSum: (dy, { attributes: { axes } }, x) => [() => expand(reshape(dy, kept(x!.shape, axes)), x!.shape)],
  // among equal maxima each receives its share
  ReduceMax: (dy, y, x) => [
    () => {
      const { axes } = y.attributes
      const shape = kept(x!.shape, axes)
      const mask = equal(x!, reshape(y, shape))
      return mul(mask, div(reshape(dy, shape), reduceSum(mask, axes, { keepDimensions: true })))
    },
  ],
  Softmax: (dy, y) => [() => mul(y, sub(dy, reduceSum(mul(dy, y), [y.attributes.axis], { keepDimensions: true })))],
  LogSoftmax: (dy, y) => [() => sub(dy, mul(exp(y), reduceSum(dy, [y.attributes.axis], { keepDimensions: true })))],
  OneHot: flat,
  Cast: (dy, y, x) => [x!.type === 'float32' && y.type === 'float32' ? () => dy : null],

  // The three convolutions are one trilinear form in (x, weight, dy): each one's gradients are the other two.
  Conv: (dy, { attributes }, x, weight, bias) => [
    () => node('ConvInputGradient', [dy, weight!], attributes, x!.shape),
    () => node('ConvWeightGradient', [dy, x!], attributes, weight!.shape),
    ...(bias ? [() => reduceSum(dy, [0, 2, 3])] : []),
  ],
  ConvInputGradient: (dx, { attributes }, dy, weight) => [
    () => node('Conv', [dx, weight!], attributes, dy!.shape),
    () => node('ConvWeightGradient', [dy!, dx], attributes, weight!.shape),
  ],
  ConvWeightGradient: (dw, { attributes }, dy, x) => [
    () => node('Conv', [x!, dw], attributes, dy!.shape),
    () => node('ConvInputGradient', [dy!, dw], attributes, x!.shape),
  ],
  MaxPool: (dy, y, x) => [() => node('MaxPoolGradient', [dy, y, x!], y.attributes, x!.shape)],
  // linear in dy, but its own gradient would need the chosen places again: second derivatives through pooling are not offered
  MaxPoolGradient: flat,
  GlobalAveragePool: (dy, _, x) => [() => expand(mul(dy, scalar(1 / (x!.shape[2]! * x!.shape[3]!))), x!.shape)],
}

/**
 * Gradients of the scalar `loss` with respect to each of `of`, as nodes of the same shapes; zeros where the loss does not depend on it.
 * Only what lies between the two is differentiated.
 * @throws loss_not_scalar
 */
export function gradient(loss: Node, of: readonly Node[]): Map<Node, Node> {
  if (elements(loss.shape) !== 1) throw new Failure('loss_not_scalar', { shape: `[${loss.shape.join(', ')}]` })
  const order = topologicalOrder([loss])
  const wanted = new Set<Node>(of)
  const onPath = new Set<Node>(of)
  for (const each of order) if (each.inputs.some(x => onPath.has(x))) onPath.add(each)

  const gradients = new Map<Node, Node>([[loss, constant(new Float32Array(1).fill(1), loss.shape)]])
  for (const y of order.reverse()) {
    const dy = gradients.get(y)
    if (!dy || !onPath.has(y) || (wanted.has(y) && y.inputs.length === 0)) continue
    const rule = rules[y.operation] as Rule<Operation> // one row for each operation, but TypeScript cannot see that row and node belong together
    const parts = rule(dy, y, ...y.inputs)
    for (const [i, x] of y.inputs.entries()) {
      const part = parts[i]
      if (!part || !onPath.has(x)) continue
      const sofar = gradients.get(x)
      gradients.set(x, sofar ? add(sofar, part()) : part())
    }
  }
  return new Map(of.map(x => [x, gradients.get(x) ?? constant(new Float32Array(elements(x.shape)), x.shape)]))
}

/** Sums a gradient over the axes along which its value had been repeated. */
export function unbroadcast(dy: Node, shape: Shape): Node {
  const extra = dy.shape.length - shape.length
  const axes = dy.shape.flatMap((d, i) => (i < extra || (shape[i - extra] === 1 && d !== 1) ? [i] : []))
  return axes.length === 0 && extra === 0 ? dy : reshape(reduceSum(dy, axes), shape)
}

/** The shape with 1 in place of the reduced axes. */
const kept = (shape: Shape, axes: readonly number[]): Shape => shape.map((d, i) => (axes.includes(i) ? 1 : d))

/** Zeros between the elements, `steps − 1` of them along each axis: what a strided slice left out. */
function spreadOut(x: Node, steps: readonly number[]): Node {
  let result = x
  for (const [axis, step] of steps.entries()) {
    if (step === 1) continue
    const { shape } = result
    const apart = reshape(result, [...shape.slice(0, axis + 1), 1, ...shape.slice(axis + 1)])
    const none = apart.shape.map(() => 0)
    const wide = pad(apart, none, none.with(axis + 1, step - 1))
    const joined = reshape(wide, shape.with(axis, shape[axis]! * step))
    const starts = shape.map(() => 0)
    result = slice(joined, starts, shape.with(axis, (shape[axis]! - 1) * step + 1)) // no zeros behind the last
  }
  return result
}

/** Which operations pass a gradient on to some input. */
export const isDifferentiable = (operation: Operation): boolean => rules[operation] !== flat && rules[operation] !== leaf
