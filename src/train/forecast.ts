/** What a training will need, said before it starts and compared afterwards. Rates are measured here by earlier runs where there are any. */
import { elements, is, type Node, topologicalOrder } from '../engine/index.ts'

export interface Rates {
  /** Multiply-adds of the forward pass that one thread gets through in a second when features are computed. */
  features: number
  /** The same count, a second and thread of fine-tuning: its forward pass, backward pass and update together. */
  step: number
  source: 'default' | 'measured'
}

/** EfficientNet-Lite0 on a 2026 server core; replaced by what this home has measured. */
export const defaultRates: Rates = { features: 25e9, step: 6.5e9, source: 'default' }

/** Multiply-adds of one picture's forward pass through the convolutions and matrix products of a graph built for batch size 1. */
export function multiplyAdds(output: Node): number {
  let total = 0
  for (const node of topologicalOrder([output])) {
    if (is(node, 'Conv')) total += elements(node.shape) * elements(node.inputs[1]!.shape.slice(1))
    else if (is(node, 'MatMul')) total += elements(node.shape) * node.inputs[0]!.shape.at(node.attributes.transposeA ? -2 : -1)!
  }
  return total
}

/** Bytes that a fine-tuning step keeps at once: activations for the way back, gradients in flight, weights with two moments. */
export function stepMemory(output: Node, batch: number): number {
  let activations = 0
  let weights = 0
  for (const node of topologicalOrder([output])) {
    if (is(node, 'Parameter')) weights += elements(node.shape) * 4
    else if (!is(node, 'Constant') && !is(node, 'Reshape')) activations += elements(node.shape) * 4
  }
  return Math.round(activations * batch * 1.6 + weights * 8 + 180e6) // the program itself: 180 MB
}

export interface Work {
  pictures: number
  trainPictures: number
  epochs: number
  multiplyAdds: number
  threads: number
}

/** Seconds for the features and the head, and for fine-tuning with its evaluations. */
export function forecast({ pictures, trainPictures, epochs, multiplyAdds: cost, threads }: Work, rates: Rates) {
  const features = (pictures * cost) / (rates.features * threads) + pictures * 0.0015 // reading and decoding
  const epoch = (trainPictures * cost) / (rates.step * threads) + (0.2 * trainPictures * cost) / (rates.features * threads)
  return { head: features + 2, finetune: epochs && epochs * epoch + 3 }
}
