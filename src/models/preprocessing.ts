/**
 * The one implementation of preprocessing: a standard ONNX graph (opset 18) that turns a picture of any size into the square that
 * a network looks at. Training, evaluation, serving, Python and the browser run this graph and nothing else.
 *
 *     image uint8 [height, width, 3] → fitted into S × S → uint8 [1, 3, S, S]
 *
 * | fit       | what becomes of a picture that is not square                                                      |
 * |-----------|---------------------------------------------------------------------------------------------------|
 * | crop      | the square in its centre is kept, what lies beyond is cut off                                     |
 * | squash    | both sides become S: everything is kept, shapes are distorted                                     |
 * | letterbox | the long side becomes S, the rest of the square is grey: everything and all shapes kept, but smaller |
 *
 * Whichever it is, the work is bounded by the pixels that are there: a strip of 1 × 5,000 never grows along its long side first.
 *
 * Scaling is Pillow's BILINEAR with its triangle widened when shrinking: Resize with `antialias`, and `exclude_outside` because
 * Pillow and PyTorch leave out what lies beyond the edge instead of repeating the edge pixel (without it, edges are up to 12
 * levels off). On uint8 the runtime computes in whole numbers, so Node, Python and WebAssembly agree to the last bit; sizes are
 * worked out in int64 for the same reason.
 */
import { type GraphBuilder, graphBuilder, type OnnxGraph } from '../engine/onnx.ts'
import type { Fit } from '../sdk/index.ts'

/** Name of the input: uint8 [height, width, 3], RGB. */
export const IMAGE = 'image'
/** Name of the tensor where pictures have reached model size: uint8 [1, 3, S, S] in front, [N, 3, S, S] behind. */
export const MODEL_SIZE = 'model_size'

/** What surrounds a letterboxed picture: the grey that is nearest to nothing once a network has subtracted its mean. */
export const LETTERBOX_GREY = 127

/**
 * Adds the nodes that fit a picture into the square. `image`: uint8 [height, width, 3], `size`: its int64 [height, width]
 * → uint8 [1, S, S, 3]. Channels last, as they come: turning the whole picture first would cost a second copy of it.
 */
type Fitting = (b: GraphBuilder, image: string, size: string, side: number) => string

const fittings: Record<Fit, Fitting> = {
  /**
   * The square is cut out first and scaled afterwards: the same picture as scaling the short side and cutting then, but the scale is
   * the same along both sides to the last bit, where rounding the long side distorts by up to half a pixel.
   */
  crop(b, image, size, side) {
    const short = b.node('ReduceMin', [size], { keepdims: 1 })
    const from = b.node('Div', [b.node('Sub', [size, short]), b.ints([2])]) // rounds down: an odd surplus is cut at the end
    const square = b.node('Slice', [image, from, b.node('Add', [from, short]), b.ints([0, 1])])
    return scale(b, batchOfOne(b, square), b.ints([1, side, side, 3]))
  },

  /** Shrunk first and enlarged afterwards: a side that grows while the other is still thousands of pixels long would cost S × thousands. */
  squash(b, image, size, side) {
    const shrunk = scale(b, batchOfOne(b, image), shape(b, b.node('Min', [size, b.ints([side, side])])))
    return scale(b, shrunk, b.ints([1, side, side, 3]))
  },

  /** Sides round half up, and no side vanishes. An odd rest of the grey goes to the right and the bottom. */
  letterbox(b, image, size, side) {
    const long = b.node('ReduceMax', [size], { keepdims: 1 })
    const rounded = b.node('Div', [b.node('Add', [b.node('Mul', [size, b.ints([2 * side])]), long]), b.node('Mul', [long, b.ints([2])])])
    const fitted = b.node('Max', [rounded, b.ints([1, 1])])
    const scaled = scale(b, batchOfOne(b, image), shape(b, fitted))
    const rest = b.node('Sub', [b.ints([side, side]), fitted])
    const before = b.node('Div', [rest, b.ints([2])])
    const pads = b.node('Concat', [b.ints([0]), before, b.ints([0, 0]), b.node('Sub', [rest, before]), b.ints([0])], { axis: 0 })
    return b.node('Pad', [scaled, pads, b.constant(Uint8Array.of(LETTERBOX_GREY), [])])
  },
}

const batchOfOne = (b: GraphBuilder, image: string) => b.node('Unsqueeze', [image, b.ints([0])])
/** int64 [height, width] → [1, height, width, 3] */
const shape = (b: GraphBuilder, size: string) => b.node('Concat', [b.ints([1]), size, b.ints([3])], { axis: 0 })
const scale = (b: GraphBuilder, batch: string, to: string) =>
  b.node('Resize', [batch, undefined, undefined, to], {
    mode: 'linear',
    antialias: 1,
    exclude_outside: 1,
    coordinate_transformation_mode: 'half_pixel',
  })

/** @param imageSize S, the side of the square in pixels. */
export function preprocessingGraph(imageSize: number, fit: Fit = 'crop'): OnnxGraph {
  const b = graphBuilder(undefined, 'preprocess/')
  const image = b.input(IMAGE, ['height', 'width', 3], 'uint8')
  const size = b.node('Shape', [image], { start: 0, end: 2 })
  const square = fittings[fit](b, image, size, imageSize)
  b.node('Transpose', [square], { perm: [0, 3, 1, 2] }, { output: MODEL_SIZE })
  b.output(MODEL_SIZE, [1, 3, imageSize, imageSize], 'uint8')
  return b.graph
}
