/**
 * Networks for pictures that scripts and our recipe name, with what one picture costs. Parameters, multiply-adds and activations (elements that
 * convolutions and matrix products put out) of one forward pass as timm's benchmark counted them: huggingface/pytorch-image-models,
 * results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv (Apache-2.0).
 */
import type { Range } from './estimate.ts'

export interface Network {
  name: string
  /** As Keras, torchvision and our catalogue write it. */
  also: readonly string[]
  /** Pixels a side that the counts are for. */
  size: number
  /** Millions of parameters, 10⁹ multiply-adds, millions of activations. */
  parameters: number
  multiplyAdds: number
  activations: number
}

const row = (name: string, size: number, parameters: number, multiplyAdds: number, activations: number, ...also: string[]): Network => ({
  name,
  also,
  size,
  parameters,
  multiplyAdds,
  activations,
})

export const networks: readonly Network[] = [
  row('resnet18', 224, 11.69, 1.82, 2.48),
  row('resnet34', 224, 21.8, 3.67, 3.74),
  row('resnet50', 224, 25.56, 4.11, 11.11),
  row('resnet101', 224, 44.55, 7.83, 16.23),
  row('resnet152', 224, 60.19, 11.56, 22.56),
  row('wide_resnet50_2', 224, 68.88, 11.43, 14.4),
  row('resnext50_32x4d', 224, 25.03, 4.26, 14.4),
  row('efficientnet_lite0', 224, 4.65, 0.4, 6.74, 'efficientnet-lite0'),
  row('efficientnet_b0', 224, 5.29, 0.4, 6.75, 'efficientnetb0'),
  row('efficientnet_b1', 240, 7.79, 0.71, 10.88, 'efficientnetb1'),
  row('efficientnet_b2', 288, 9.11, 1.12, 16.2, 'efficientnetb2'),
  row('efficientnet_b3', 320, 12.23, 2.01, 26.52, 'efficientnetb3'),
  row('efficientnet_b4', 384, 19.34, 4.51, 50.04, 'efficientnetb4'),
  row('mobilenetv2_100', 224, 3.5, 0.31, 6.68, 'mobilenet_v2', 'mobilenetv2'),
  row('mobilenetv3_small_100', 224, 2.54, 0.06, 1.42, 'mobilenet_v3_small', 'mobilenetv3small'),
  row('mobilenetv3_large_100', 224, 5.48, 0.23, 4.41, 'mobilenet_v3_large', 'mobilenetv3large'),
  row('convnext_tiny', 224, 28.59, 4.47, 13.44, 'convnexttiny'),
  row('convnext_small', 224, 50.22, 8.71, 21.56, 'convnextsmall'),
  row('convnext_base', 224, 88.59, 15.38, 28.75, 'convnextbase'),
  row('vit_tiny_patch16_224', 224, 5.72, 1.26, 5.97),
  row('vit_small_patch16_224', 224, 22.05, 4.61, 11.95, 'deit_small_patch16_224'),
  row('vit_base_patch16_224', 224, 86.57, 17.58, 23.9, 'vit_b_16'),
  row('vit_large_patch16_224', 224, 304.33, 61.6, 63.52, 'vit_l_16'),
  row('swin_tiny_patch4_window7_224', 224, 28.29, 4.51, 17.06, 'swin_t'),
  row('swin_base_patch4_window7_224', 224, 87.77, 15.47, 36.63, 'swin_b'),
  row('densenet121', 224, 7.98, 2.87, 6.9),
  row('vgg16', 224, 138.36, 15.47, 13.56),
  row('inception_v3', 299, 23.83, 5.73, 8.97, 'inceptionv3'),
  row('regnety_016', 224, 11.2, 1.63, 8.04, 'regnet_y_1_6gf'),
]

/** By name, however the dashes are written; undefined where we do not know it. */
export function networkCalled(name: string): Network | undefined {
  const plain = (text: string) => text.toLowerCase().replaceAll(/[-_ ]/g, '')
  return networks.find(each => [each.name, ...each.also].some(known => plain(known) === plain(name)))
}

/** Multiply-adds and activations of one picture of `size` pixels a side: both grow with its area. */
export function costOf(network: Network, size: number): { multiplyAdds: number; activations: number } {
  const area = (size / network.size) ** 2
  return { multiplyAdds: network.multiplyAdds * 1e9 * area, activations: network.activations * 1e6 * area }
}

/**
 * What a network for pictures of so many parameters costs if it is like those of the table: a line through their logarithms, with two standard
 * deviations to either side.
 */
export function likeKnown(parameters: number, size: number): { multiplyAdds: Range; activations: Range } {
  const area = (size / 224) ** 2
  const at224 = networks.map(each => ({ parameters: each.parameters * 1e6, ...costOf(each, 224) }))
  const range = (cost: 'multiplyAdds' | 'activations') => {
    const x = at224.map(each => Math.log(each.parameters))
    const y = at224.map(each => Math.log(each[cost]))
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    const [mx, my] = [mean(x), mean(y)]
    const slope = x.reduce((sum, each, i) => sum + (each - mx) * (y[i]! - my), 0) / x.reduce((sum, each) => sum + (each - mx) ** 2, 0)
    const deviation = Math.sqrt(mean(x.map((each, i) => (y[i]! - my - slope * (each - mx)) ** 2)))
    const likely = my + slope * (Math.log(parameters) - mx)
    return {
      low: Math.exp(likely - 2 * deviation) * area,
      likely: Math.exp(likely) * area,
      high: Math.exp(likely + 2 * deviation) * area,
    }
  }
  return { multiplyAdds: range('multiplyAdds'), activations: range('activations') }
}
