/**
 * Batch normalisation with frozen statistics, the way both backbones use it: the running mean and variance of ImageNet stay, the
 * scale and shift are trained. As it is then a linear map per channel, it is written into the convolution before it:
 *   y = gamma·(conv(x, W) − mean)/√(var + ε) + beta = conv(x, W·s) + (beta − mean·s),   s = gamma/√(var + ε)
 * which costs one small product a step instead of two passes over every activation.
 */
import { add, type ConvolutionOptions, conv, mul, type Node, parameter, reciprocal, reshape, scalar, sqrt, sub } from '../engine/graph.ts'

export interface Normalised extends Omit<ConvolutionOptions, 'bias'> {
  /** Names of the source library: `<convolution>.weight`, `<norm>.weight`, `.bias`, `.running_mean`, `.running_var`. */
  convolution: string
  norm: string
  outputs: number
  kernel: number
  epsilon: number
}

/** x: [N, C, H, W] → [N, outputs, H', W'] */
export function normalisedConvolution(x: Node, { convolution, norm, outputs, kernel, epsilon, ...options }: Normalised): Node {
  const weight = parameter(`${convolution}.weight`, [outputs, x.shape[1]! / (options.groups ?? 1), kernel, kernel])
  const gamma = parameter(`${norm}.weight`, [outputs])
  const beta = parameter(`${norm}.bias`, [outputs])
  const mean = parameter(`${norm}.running_mean`, [outputs], { trainable: false })
  const variance = parameter(`${norm}.running_var`, [outputs], { trainable: false })
  const scale = mul(gamma, reciprocal(sqrt(add(variance, scalar(epsilon)))))
  return conv(x, mul(weight, reshape(scale, [outputs, 1, 1, 1])), { ...options, bias: sub(beta, mul(mean, scale)) })
}
