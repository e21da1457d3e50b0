/** What a training will need, said before it starts and compared afterwards. Rates are measured here by earlier runs where there are any. */
import { elements, is, type Node, topologicalOrder } from '../engine/index.ts'

export interface Rates {
  /** Multiply-adds of the forward pass that one thread gets through in a second when features are computed. */
  features: number
  /** The same count, a second and thread of fine-tuning: its forward pass, backward pass and update together. */
  step: number
  /** How many times as long as expected here everything besides takes. */
  besides: number
  source: 'default' | 'measured'
}

/** EfficientNet-Lite0 on a 2026 server core; replaced by what this home has measured. */
export const defaultRates: Rates = { features: 30e9, step: 7e9, besides: 1, source: 'default' }

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
  /** Of all pictures together. */
  pixels: number
  /** Pictures among which edited copies are looked for; 0 where all are too small. */
  searched: number
  trainPictures: number
  testPictures: number
  classes: number
  /** Width of the backbone's features. */
  features: number
  epochs: number
  multiplyAdds: number
  threads: number
  /** Pictures that are looked at in all fits, 0 where that is no question. */
  fitSample: number
  /** Pictures that alterations are tried on. */
  alterationSample: number
}

/** Seconds. */
export interface Forecast {
  /** Reading, decoding, and the untouched network. */
  features: number
  /** From there to fine-tuning: look-alikes, head, choices. */
  before: number
  /** With its evaluations. */
  finetune: number
  /** From there to the end: calibration, “none of these”, test, labels, report. */
  after: number
  /** `before` and `after` together on a typical processor, that is without `rates.besides`. */
  besides: number
}

export function forecast(work: Work, rates: Rates): Forecast {
  const {
    pictures,
    searched,
    trainPictures,
    testPictures,
    classes,
    epochs,
    multiplyAdds: cost,
    threads,
    fitSample,
    alterationSample,
  } = work
  const passes = (count: number) => (count * cost) / (rates.features * threads)
  // steps of a head: two products of the features of so many pictures with its weights
  const headSteps = (n: number, steps: number) => (steps * 4 * n * work.features * classes) / (20e9 * threads)
  const decoding = decodingSeconds(work)
  const before =
    1 +
    (searched && 4 + searched * 6e-3) / threads + // edits of a sample made and found; look-alikes compared, as many as drawings have
    headSteps(trainPictures, 300) +
    (epochs > 0 ? passes(5 * alterationSample) + headSteps(2 * alterationSample, 2000) : 0) +
    passes(2 * fitSample) +
    (decoding * fitSample) / pictures
  const after = 2 + passes(trainPictures + 2 * testPictures) + (decoding * testPictures) / pictures + headSteps(pictures, 1500)
  const epoch = (trainPictures * cost) / (rates.step * threads) + passes(0.2 * trainPictures)
  return {
    features: passes(pictures) + decoding,
    before: before * rates.besides,
    finetune: epochs && epochs * epoch + 2,
    after: after * rates.besides,
    besides: before + after,
  }
}

/** Reading and decoding all pictures once: 12 ns a pixel, as JPEG takes, and 0.3 ms a file. */
export const decodingSeconds = ({ pictures, pixels, threads }: Pick<Work, 'pictures' | 'pixels' | 'threads'>): number =>
  (pixels * 12e-9 + pictures * 3e-4) / threads

/** `rates.features` as it must have been for features of all pictures to take so long; at most half of the time is put down to decoding. */
export const featuresRate = (work: Pick<Work, 'pictures' | 'pixels' | 'multiplyAdds' | 'threads'>, seconds: number): number =>
  (work.pictures * work.multiplyAdds) / (Math.max(seconds - decodingSeconds(work), seconds / 2) * work.threads)
