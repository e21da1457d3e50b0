/**
 * Optimisers as ONNX nodes behind a gradient: element by element, so the layout of the weight does not matter.
 * Sources: Loshchilov & Hutter 2019 (AdamW, decoupled weight decay, arXiv 1711.05101), Sutskever et al. 2013 (momentum, Nesterov);
 * the update rules are PyTorch's `torch.optim.AdamW` and `torch.optim.SGD` to the rounding.
 */
import type { GraphBuilder } from './onnx.ts'

interface Common {
  /** Multiplier of the learning rate for a parameter; 0 freezes it. Default 1. */
  scaleOf?(parameter: string): number
  /** Whether weight decay applies to a parameter. Default: to all. */
  decays?(parameter: string): boolean
}
export interface AdamW extends Common {
  kind: 'adamw'
  beta1: number
  beta2: number
  epsilon: number
  weightDecay: number
}
export interface Sgd extends Common {
  kind: 'sgd'
  momentum: number
  nesterov: boolean
  weightDecay: number
}
export type Optimizer = AdamW | Sgd

export const adamW = (options: Partial<Omit<AdamW, 'kind'>> = {}): AdamW => ({
  kind: 'adamw',
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0.01,
  ...options,
})
export const sgdMomentum = (options: Partial<Omit<Sgd, 'kind'>> = {}): Sgd => ({
  kind: 'sgd',
  momentum: 0.9,
  nesterov: false,
  weightDecay: 0,
  ...options,
})

/** Names of the state kept for each parameter, in front of the parameter's own name. */
export function stateOf(optimizer: Optimizer): readonly string[] {
  if (optimizer.kind === 'adamw') return ['optimizer.m.', 'optimizer.v.']
  return optimizer.momentum ? ['optimizer.momentum.'] : []
}

/** Scalars of one step, as tensor names; made once for all parameters. */
export interface StepScalars {
  learningRate: string
  /** Only AdamW: 1 / (1 − β₁ᵗ) and 1 / (1 − β₂ᵗ). */
  corrections: readonly [string, string] | null
}

/** `learningRate`: input, scalar; `corrections`: input, [2]. */
export function stepScalars(b: GraphBuilder, optimizer: Optimizer): StepScalars {
  const learningRate = b.input('step.learning_rate', [])
  if (optimizer.kind === 'sgd') return { learningRate, corrections: null }
  const both = b.input('step.corrections', [2])
  const pick = (i: number) => b.node('Reshape', [b.node('Slice', [both, b.ints([i]), b.ints([i + 1]), b.ints([0])]), b.ints([])])
  return { learningRate, corrections: [pick(0), pick(1)] }
}

/** What the input `step.corrections` holds at optimiser step t, counted from 1. In float64: β₂ᵗ is near 1 for long. */
export const corrections = ({ beta1, beta2 }: AdamW, t: number): Float32Array => Float32Array.of(1 / (1 - beta1 ** t), 1 / (1 - beta2 ** t))

/** Emits the update; answers the new weight and the new state, in the order of `stateOf`. */
export function emitUpdate(
  b: GraphBuilder,
  optimizer: Optimizer,
  { learningRate, corrections: bias }: StepScalars,
  { name, weight, gradient, state }: { name: string; weight: string; gradient: string; state: readonly string[] },
): { weight: string; state: string[] } {
  const scale = optimizer.scaleOf?.(name) ?? 1
  const rate = scale === 1 ? learningRate : b.node('Mul', [learningRate, b.scalar(scale)])
  const decay = (optimizer.decays?.(name) ?? true) ? optimizer.weightDecay : 0
  const times = (x: string, value: number) => b.node('Mul', [x, b.scalar(value)])

  if (optimizer.kind === 'sgd') {
    const slope = decay ? b.node('Add', [gradient, times(weight, decay)]) : gradient
    if (!optimizer.momentum) return { weight: b.node('Sub', [weight, b.node('Mul', [slope, rate])]), state: [] }
    const velocity = b.node('Add', [times(state[0]!, optimizer.momentum), slope])
    const direction = optimizer.nesterov ? b.node('Add', [slope, times(velocity, optimizer.momentum)]) : velocity
    return { weight: b.node('Sub', [weight, b.node('Mul', [direction, rate])]), state: [velocity] }
  }
  const { beta1, beta2, epsilon } = optimizer
  const m = b.node('Add', [times(state[0]!, beta1), times(gradient, 1 - beta1)])
  const v = b.node('Add', [times(state[1]!, beta2), b.node('Mul', [times(gradient, 1 - beta2), gradient])])
  const spread = b.node('Add', [b.node('Sqrt', [b.node('Mul', [v, bias![1]])]), b.scalar(epsilon)])
  const step = b.node('Mul', [b.node('Div', [m, spread]), b.node('Mul', [rate, bias![0]])])
  const shrunk = decay ? b.node('Mul', [weight, b.node('Sub', [b.scalar(1), times(rate, decay)])]) : weight
  return { weight: b.node('Sub', [shrunk, step]), state: [m, v] }
}
