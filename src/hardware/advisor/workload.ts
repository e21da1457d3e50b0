/** What a computation asks of a machine, said in a few numbers, and what one sample of it costs. */
import { exactly, plus, type Range, times } from './estimate.ts'
import { costOf, likeKnown, type Network } from './networks.ts'

export const precisions = ['float32', 'mixed', 'bfloat16', 'float16'] as const
export type Precision = (typeof precisions)[number]
export const optimisers = ['adam', 'adam8bit', 'momentum', 'sgd'] as const
export type Optimiser = (typeof optimisers)[number]
export const shardings = ['none', 'zero1', 'zero2', 'zero3'] as const
export type Sharding = (typeof shardings)[number]

export type Shape =
  /** Pictures, `size` pixels a side; a network of the table, or one like those. */
  | { kind: 'picture'; size: number; network: Network | null }
  /** Transformers over tokens. What is null is worked out from the number of parameters. */
  | { kind: 'sequence'; length: number; layers: number | null; hidden: number | null; heads: number | null; vocabulary: number | null }
  /** Every parameter is used once a sample: dense layers; nothing else is known. */
  | { kind: 'dense' }
  /** A table that is learned from as a whole, as scikit-learn, XGBoost and the like do. */
  | { kind: 'table'; rows: number; columns: number }

export interface Workload {
  training: boolean
  parameters: number
  /** Those that are trained: all, or adapters (LoRA), or a head. */
  trained: number
  precision: Precision
  optimiser: Optimiser
  /** Samples a step, on all devices together. */
  batch: number
  shape: Shape
  /** Activations are computed again on the way back. */
  recompute: boolean
  sharding: Sharding
  /** Samples a round; null: not said. */
  samples: number | null
  epochs: number
}

/** Bytes of a number as it flows through the network. */
export const elementBytes = (precision: Precision): number => (precision === 'float32' ? 4 : 2)

export interface Cost {
  /** Of one sample's forward pass. */
  multiplyAdds: Range
  /** Elements that one sample's layers put out. */
  activations: Range
  /** Bytes of one sample that a training step keeps for the way back. */
  kept: Range
  /** In words. */
  how: string
}

/**
 * Elements that are kept for each that a layer puts out: the output itself, and what normalisation and activation functions after it need of
 * their own (in-place functions share theirs).
 */
const keptPerOutput: Range = { low: 1.6, likely: 2.3, high: 3.4 }

export function costOfSample(workload: Workload): Cost {
  const { shape, parameters, precision, recompute } = workload
  const bytes = elementBytes(precision)
  if (shape.kind === 'picture') {
    const { multiplyAdds, activations } = shape.network ? ranged(costOf(shape.network, shape.size)) : likeKnown(parameters, shape.size)
    return {
      multiplyAdds,
      activations,
      kept: times(activations, times(recompute ? { low: 0.2, likely: 0.4, high: 0.8 } : keptPerOutput, bytes)),
      how: shape.network
        ? `${shape.network.name} at ${shape.size} pixels, counted`
        : `networks for pictures with as many parameters, at ${shape.size} pixels`,
    }
  }
  if (shape.kind === 'sequence') return costOfSequence(workload, shape)
  // a layer of width w has w² parameters and w outputs: a few wide layers, or many narrow ones
  const outputs: Range = { low: 2 * Math.sqrt(parameters), likely: 6 * Math.sqrt(parameters), high: 64 * Math.sqrt(parameters) }
  return {
    // convolutions use a parameter up to hundreds of times a sample (the table's largest: 360)
    multiplyAdds: { low: parameters, likely: parameters, high: 4 * parameters },
    activations: outputs,
    kept: times(outputs, 2 * bytes),
    how: 'every parameter used once a sample; for pictures give --image-size, for text --sequence',
  }
}

const ranged = ({ multiplyAdds, activations }: { multiplyAdds: number; activations: number }) => ({
  multiplyAdds: exactly(multiplyAdds),
  activations: exactly(activations),
})

/** Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models": bytes a layer for 16-bit numbers. */
function costOfSequence({ parameters, precision, recompute }: Workload, shape: Extract<Shape, { kind: 'sequence' }>): Cost {
  const { length: s } = shape
  const vocabulary = shape.vocabulary ?? 0
  const { layers, hidden } = transformerOf(parameters, shape)
  const scale = elementBytes(precision) / 2
  const layerOutputs = times(times(layers, hidden), s)
  // with the scores of every pair of tokens kept, or not (flash attention): not known which, so the ends are these
  const heads = shape.heads ?? Math.max(1, hidden.likely / 64)
  const pairs = recompute ? 0 : 5 * heads * s * s * layers.likely
  const plain = times(layerOutputs, recompute ? { low: 2, likely: 4, high: 8 } : { low: 30, likely: 34, high: 38 })
  const logits = s * vocabulary * 6
  const multiplyAdds = plus(
    exactly(Math.max(0, parameters - vocabulary * hidden.likely) * s),
    times(times(layers, hidden), 2 * s * s),
    exactly(s * vocabulary * hidden.likely),
  )
  return {
    multiplyAdds,
    activations: times(layerOutputs, 8),
    kept: {
      low: (plain.low + logits / 3) * scale,
      likely: (plain.likely + pairs / 4 + logits) * scale,
      high: (plain.high + pairs + logits) * scale,
    },
    how: `a transformer of ${range(layers)} layers, ${range(hidden)} wide, over ${s} tokens`,
  }
}

const range = ({ low, likely, high }: Range) => (low === high ? `${Math.round(likely)}` : `about ${Math.round(likely)}`)

/**
 * Layers and width: as said, else of P = 12·L·h². Published models are 64 (GPT-2, BERT) to 128 (Llama, GPT-3) times as wide as deep, the larger
 * ones wider; a half and twice of that are the ends.
 */
export function transformerOf(
  parameters: number,
  { layers, hidden, vocabulary }: Pick<Extract<Shape, { kind: 'sequence' }>, 'layers' | 'hidden' | 'vocabulary'>,
): {
  layers: Range
  hidden: Range
} {
  if (layers !== null && hidden !== null) return { layers: exactly(layers), hidden: exactly(hidden) }
  const ratio = Math.min(128, Math.max(48, 64 * (parameters / 1e8) ** 0.15))
  // the table of words is not in the layers; its width is not known before theirs is, so it counts for a third of the model at most
  const inside = Math.max(parameters - (vocabulary ?? 0) * Math.cbrt((parameters * ratio) / 12), parameters * (2 / 3))
  if (hidden !== null) return { layers: exactly(Math.max(1, inside / (12 * hidden * hidden))), hidden: exactly(hidden) }
  if (layers !== null) return { layers: exactly(layers), hidden: exactly(Math.sqrt(inside / (12 * layers))) }
  // layers × width = h²/r falls with r: the ends are named by what they cost
  const at = (width: number) => {
    const h = Math.cbrt((inside * width) / 12)
    return { h, l: Math.max(1, h / width) }
  }
  const [wide, usual, deep] = [at(2 * ratio), at(ratio), at(ratio / 2)]
  const as = ({ h, l }: { h: number; l: number }) => (l * h) / usual.h
  return {
    hidden: exactly(usual.h),
    // of a very small one there is no less than a layer
    layers: { low: Math.min(as(wide), usual.l), likely: usual.l, high: Math.max(as(deep), usual.l) },
  }
}
