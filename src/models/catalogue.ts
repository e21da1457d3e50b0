/** The backbones Plinth knows: what each is, what it wants to see, whose weights it starts from and under which licence. */
import { elements, input, type Node, topologicalOrder } from '../engine/graph.ts'
import type { Weights } from '../engine/lowering.ts'
import { Failure } from '../failure.ts'
import { efficientNetLite0, efficientNetLiteDepth, efficientNetLiteFeatures } from './efficientnet-lite.ts'
import { type ResNet, resnet, resnet18, resnet34, resnet50, resnetDepth, resnetFeatures } from './resnet.ts'
import { type LoadOptions, loadWeights, type WeightsSource } from './weights.ts'

export interface Backbone {
  id: string
  title: string
  /** Of the weights, as SPDX writes it; where the sources differ, both. */
  licence: string
  /** Numbers trained in `build`: without the source's own classifier and without running statistics. */
  parameters: number
  /** Length of the feature vector. */
  features: number
  /** The side the weights were trained at, in pixels; any multiple of 32 from 32 to 1024 works. */
  imageSize: number
  /** On 0…255 RGB: (x − mean) / scale. */
  normalise: { mean: readonly [number, number, number]; scale: readonly [number, number, number] }
  /** Where its weights come from, in the order they are tried. */
  weights: readonly WeightsSource[]
  /** picture: normalised float32 [N, 3, S, S] → { features: [N, F] }. @throws image_size_unsupported, shape_mismatch */
  build(picture: Node): { features: Node }
  /** 0 for parameters of the stem, 1 for those of the last block: for learning rates that grow with depth. */
  depthOf(parameterName: string): number
  /**
   * The weights `build` needs, by parameter name, checked for names, shapes and finite numbers.
   * @throws weights_unreachable, weights_corrupt, weights_file_unreadable, weights_unsuitable, torch_file_refused …
   */
  loadWeights(options?: LoadOptions): Promise<Weights>
}

type Described = Omit<Backbone, 'parameters' | 'loadWeights'>

const imageNet = { mean: [123.675, 116.28, 103.53], scale: [58.395, 57.12, 57.375] } as const
const sizes = { multiple: 32, smallest: 32, largest: 1024 }

/**
 * Revisions are git commits of the hub's repositories and never move. The sha256 values were copied from the hub's own pages
 * ("Git LFS Details"); a source without one is trusted at first use and held to it from then on (docs/backbones.md).
 */
const known: readonly Described[] = [
  {
    id: 'efficientnet-lite0',
    title: 'EfficientNet-Lite0, ImageNet-1k',
    licence: 'Apache-2.0',
    features: efficientNetLiteFeatures,
    imageSize: 224,
    normalise: { mean: [127, 127, 127], scale: [128, 128, 128] },
    weights: [
      {
        kind: 'bundled',
        file: 'efficientnet-lite0.safetensors',
        licence: 'Apache-2.0',
        sha256: 'bef61e1810867193d8102d37cfd970e9eac9b06c2fd3f52ee396c8849c40c0de',
        size: 9_410_760,
      },
    ],
    build: efficientNetLite0,
    depthOf: efficientNetLiteDepth,
  },
  residual('resnet18', 'ResNet-18', resnet18, [
    {
      kind: 'hub',
      repository: 'timm/resnet18.a1_in1k',
      revision: 'b9c542640ca04a6acab6e1ecff124a2d6ef1951d',
      file: 'model.safetensors',
      licence: 'Apache-2.0',
      sha256: '80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612',
    },
    { kind: 'address', url: 'https://download.pytorch.org/models/resnet18-f37072fd.pth', licence: 'BSD-3-Clause', sha256: 'f37072fd' },
  ]),
  residual('resnet34', 'ResNet-34', resnet34, [
    {
      kind: 'hub',
      repository: 'timm/resnet34.a1_in1k',
      revision: '601ed8a5ae6a24ba8ed1048847d860900c32273b',
      file: 'model.safetensors',
      licence: 'Apache-2.0',
    },
    {
      kind: 'address',
      url: 'https://download.pytorch.org/models/resnet34-b627a593.pth',
      licence: 'BSD-3-Clause',
      sha256: 'b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f',
    },
  ]),
  residual('resnet50', 'ResNet-50', resnet50, [
    {
      kind: 'hub',
      repository: 'timm/resnet50.a1_in1k',
      revision: '93271f4677dbf7b4d7f7e7d9d7811bd66c327e56',
      file: 'model.safetensors',
      licence: 'Apache-2.0',
      sha256: '773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb',
    },
    {
      kind: 'address',
      url: 'https://download.pytorch.org/models/resnet50-0676ba61.pth',
      licence: 'BSD-3-Clause',
      sha256: '0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a',
      size: 102_530_333,
    },
  ]),
]

function residual(id: string, title: string, net: ResNet, weights: readonly WeightsSource[]): Described {
  return {
    id,
    title: `${title}, ImageNet-1k`,
    licence: weights.map(source => `${source.licence} (${source.kind === 'hub' ? 'timm' : 'torchvision'})`).join(' or '),
    features: resnetFeatures(net),
    imageSize: 224,
    normalise: imageNet,
    weights,
    build: picture => resnet(net, picture),
    depthOf: name => resnetDepth(net, name),
  }
}

export const backbones = (): Backbone[] => known.map(complete)

/** @throws backbone_unknown */
export function backbone(id: string): Backbone {
  const found = known.find(entry => entry.id === id)
  if (!found) throw new Failure('backbone_unknown', { id, known: known.map(entry => entry.id).join(', ') })
  return complete(found)
}

const parametersOf = (features: Node): Node<'Parameter'>[] =>
  topologicalOrder([features]).filter((node): node is Node<'Parameter'> => node.operation === 'Parameter')

function complete(entry: Described): Backbone {
  const build = (picture: Node) => {
    const [, channels, height, width] = picture.shape
    const fits = (side = 0) => side % sizes.multiple === 0 && side >= sizes.smallest && side <= sizes.largest
    if (channels !== 3 || picture.shape.length !== 4)
      throw new Failure('shape_mismatch', { operation: entry.id, a: `[${picture.shape.join(', ')}]`, b: '[N, 3, S, S]' })
    if (!fits(height) || !fits(width)) throw new Failure('image_size_unsupported', { id: entry.id, size: `${width}×${height}`, ...sizes })
    return entry.build(picture)
  }
  // shapes of parameters do not depend on the picture's size, so the smallest picture tells them all
  const parameters = parametersOf(entry.build(input('picture', [1, 3, 32, 32])).features)
  return {
    ...entry,
    build,
    parameters: parameters.filter(p => p.attributes.trainable).reduce((sum, p) => sum + elements(p.shape), 0),
    loadWeights: options => loadWeights({ id: entry.id, sources: entry.weights, parameters }, options),
  }
}
