/**
 * ResNet-18, -34 and -50 (with the stride in the 3×3 convolution, "v1.5"), with torchvision's parameter names, which timm's plain
 * ResNets share. Papers: arXiv 1512.03385; code for comparison: torchvision/models/resnet.py (BSD-3-Clause).
 */
import { add, globalAveragePool, maxPool, type Node, relu, reshape } from '../engine/graph.ts'
import { normalisedConvolution } from './batch-norm.ts'

export interface ResNet {
  block: 'basic' | 'bottleneck'
  /** Blocks in each of the four stages. */
  blocks: readonly [number, number, number, number]
  /** Channels of the stem; 64 in every published one. */
  width?: number
}
export const resnet18: ResNet = { block: 'basic', blocks: [2, 2, 2, 2] }
export const resnet34: ResNet = { block: 'basic', blocks: [3, 4, 6, 3] }
export const resnet50: ResNet = { block: 'bottleneck', blocks: [3, 4, 6, 3] }

const expansion = { basic: 1, bottleneck: 4 } as const
const epsilon = 1e-5

export const resnetFeatures = ({ block, width = 64 }: ResNet): number => width * 8 * expansion[block]

/** picture: [N, 3, S, S], already normalised → { features: [N, resnetFeatures(net)] } */
export function resnet(net: ResNet, picture: Node): { features: Node } {
  const width = net.width ?? 64
  let x: Node = relu(normal(picture, { convolution: 'conv1', norm: 'bn1', outputs: width, kernel: 7, stride: 2 }))
  x = maxPool(x, 3, { stride: 2, padding: 1 })
  for (const [stage, blocks] of net.blocks.entries())
    for (let i = 0; i < blocks; i++)
      x = residualBlock(x, `layer${stage + 1}.${i}`, net.block, width * 2 ** stage, stage > 0 && i === 0 ? 2 : 1)
  return { features: reshape(globalAveragePool(x), [x.shape[0]!, x.shape[1]!]) }
}

/** Where a parameter sits, 0 for the stem and 1 for the last block and what follows it. */
export function resnetDepth({ blocks }: ResNet, name: string): number {
  const [, stage, block] = /^layer([1-4])\.(\d+)\./.exec(name) ?? []
  if (stage !== undefined) {
    const before = blocks.slice(0, Number(stage) - 1).reduce((sum, n) => sum + n, 0)
    return (before + Number(block) + 1) / blocks.reduce((sum, n) => sum + n, 0)
  }
  return name.startsWith('conv1.') || name.startsWith('bn1.') ? 0 : 1
}

function residualBlock(x: Node, name: string, block: ResNet['block'], channels: number, stride: number): Node {
  const outputs = channels * expansion[block]
  const layer = (input: Node, index: number, outputs: number, kernel: number, stride: number) =>
    normal(input, { convolution: `${name}.conv${index}`, norm: `${name}.bn${index}`, outputs, kernel, stride })
  const y =
    block === 'basic'
      ? layer(relu(layer(x, 1, channels, 3, stride)), 2, outputs, 3, 1)
      : layer(relu(layer(relu(layer(x, 1, channels, 1, 1)), 2, channels, 3, stride)), 3, outputs, 1, 1)
  const shortcut =
    stride === 1 && x.shape[1] === outputs
      ? x
      : normal(x, { convolution: `${name}.downsample.0`, norm: `${name}.downsample.1`, outputs, kernel: 1, stride })
  return relu(add(y, shortcut))
}

const normal = (x: Node, layer: { convolution: string; norm: string; outputs: number; kernel: number; stride: number }): Node =>
  normalisedConvolution(x, { ...layer, epsilon, padding: (layer.kernel - 1) / 2 })
