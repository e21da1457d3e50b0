/**
 * EfficientNet-Lite0: inverted bottlenecks with ReLU6 and without squeeze-and-excitation, made for small devices.
 * Parameter names and arithmetic are those of the PyPI package efficientnet-lite-pytorch, which follows Google's
 * efficientnet_lite_builder.py (Apache-2.0); paper: arXiv 1905.11946.
 */
import { add, clip, globalAveragePool, type Node, reshape } from '../engine/graph.ts'
import { normalisedConvolution } from './batch-norm.ts'

interface Stage {
  blocks: number
  kernel: number
  stride: number
  expansion: number
  channels: number
}
const stages: readonly Stage[] = [
  { blocks: 1, kernel: 3, stride: 1, expansion: 1, channels: 16 },
  { blocks: 2, kernel: 3, stride: 2, expansion: 6, channels: 24 },
  { blocks: 2, kernel: 5, stride: 2, expansion: 6, channels: 40 },
  { blocks: 3, kernel: 3, stride: 2, expansion: 6, channels: 80 },
  { blocks: 3, kernel: 5, stride: 1, expansion: 6, channels: 112 },
  { blocks: 4, kernel: 5, stride: 2, expansion: 6, channels: 192 },
  { blocks: 1, kernel: 3, stride: 1, expansion: 6, channels: 320 },
]
const blockCount = stages.reduce((sum, stage) => sum + stage.blocks, 0)
const stemChannels = 32
export const efficientNetLiteFeatures = 1280
const epsilon = 1e-3

/** picture: [N, 3, S, S], already normalised → { features: [N, 1280] } */
export function efficientNetLite0(picture: Node): { features: Node } {
  let x = relu6(normal(picture, { convolution: '_conv_stem', norm: '_bn0', outputs: stemChannels, kernel: 3, stride: 2 }))
  let index = 0
  for (const stage of stages)
    for (let i = 0; i < stage.blocks; i++) {
      x = invertedBottleneck(x, `_blocks.${index}`, { ...stage, stride: i === 0 ? stage.stride : 1 })
      index++
    }
  x = relu6(normal(x, { convolution: '_conv_head', norm: '_bn1', outputs: efficientNetLiteFeatures, kernel: 1, stride: 1 }))
  return { features: reshape(globalAveragePool(x), [x.shape[0]!, efficientNetLiteFeatures]) }
}

/** Where a parameter sits, 0 for the stem and 1 for the last block and what follows it. */
export function efficientNetLiteDepth(name: string): number {
  const block = /^_blocks\.(\d+)\./.exec(name)?.[1]
  if (block !== undefined) return (Number(block) + 1) / blockCount
  return name.startsWith('_conv_stem.') || name.startsWith('_bn0.') ? 0 : 1
}

function invertedBottleneck(x: Node, name: string, { kernel, stride, expansion, channels }: Omit<Stage, 'blocks'>): Node {
  const inputs = x.shape[1]!
  const hidden = inputs * expansion
  let y = x
  if (expansion !== 1)
    y = relu6(normal(y, { convolution: `${name}._expand_conv`, norm: `${name}._bn0`, outputs: hidden, kernel: 1, stride: 1 }))
  const depthwise = { convolution: `${name}._depthwise_conv`, norm: `${name}._bn1`, outputs: hidden, kernel, stride, groups: hidden }
  y = relu6(normal(y, depthwise))
  y = normal(y, { convolution: `${name}._project_conv`, norm: `${name}._bn2`, outputs: channels, kernel: 1, stride: 1 })
  return stride === 1 && inputs === channels ? add(y, x) : y
}

type Layer = { convolution: string; norm: string; outputs: number; kernel: number; stride: number; groups?: number }
const normal = (x: Node, layer: Layer): Node =>
  normalisedConvolution(x, { ...layer, epsilon, padding: samePadding(x.shape[2]!, x.shape[3]!, layer.kernel, layer.stride) })

const relu6 = (x: Node): Node => clip(x, 0, 6)

/** TensorFlow's SAME: the output is ⌈size/stride⌉, and where the padding is odd the extra row goes to the bottom and right. */
function samePadding(height: number, width: number, kernel: number, stride: number): [number, number, number, number] {
  const total = (size: number) => Math.max((Math.ceil(size / stride) - 1) * stride + kernel - size, 0)
  const [vertical, horizontal] = [total(height), total(width)]
  const [top, left] = [Math.floor(vertical / 2), Math.floor(horizontal / 2)]
  return [top, left, vertical - top, horizontal - left]
}
