/**
 * The one implementation of preprocessing: a standard ONNX graph (opset 18) that turns a picture of any size into the square that
 * a network looks at. Training, evaluation, serving, Python and the browser run this graph and nothing else.
 *
 *     image uint8 [height, width, 3] → the square in its centre → scaled to S × S → uint8 [1, 3, S, S]
 *
 * The square is cut out first and scaled afterwards. That is the same picture as scaling the short side to S and cutting then,
 * but the work is bounded by the pixels that are there (a strip of 1 × 5,000 would otherwise grow to 224 × 1,120,000), and the
 * scale is the same along both sides to the last bit, where rounding the long side distorts by up to half a pixel.
 *
 * Scaling is Pillow's BILINEAR with its triangle widened when shrinking: Resize with `antialias`, and `exclude_outside` because
 * Pillow and PyTorch leave out what lies beyond the edge instead of repeating the edge pixel (without it, edges are up to 12
 * levels off). On uint8 the runtime computes in whole numbers, so Node, Python and WebAssembly agree to the last bit.
 */
import { graphBuilder, type OnnxGraph } from '../engine/onnx.ts'

/** Name of the input: uint8 [height, width, 3], RGB. */
export const IMAGE = 'image'
/** Name of the tensor where pictures have reached model size: uint8 [1, 3, S, S] in front, [N, 3, S, S] behind. */
export const MODEL_SIZE = 'model_size'

/** @param imageSize S, the side of the square in pixels. */
export function preprocessingGraph(imageSize: number): OnnxGraph {
  const b = graphBuilder(undefined, 'preprocess/')
  const image = b.input(IMAGE, ['height', 'width', 3], 'uint8')
  const size = b.node('Shape', [image], { start: 0, end: 2 })
  const side = b.node('ReduceMin', [size], { keepdims: 1 })
  const from = b.node('Div', [b.node('Sub', [size, side]), b.ints([2])]) // rounds down: an odd surplus is cut at the end
  const square = b.node('Slice', [image, from, b.node('Add', [from, side]), b.ints([0, 1])])
  const batch = b.node('Unsqueeze', [square, b.ints([0])])
  // channels last, as they come: turning the whole picture first would cost a second copy of it
  const scaled = b.node('Resize', [batch, undefined, undefined, b.ints([1, imageSize, imageSize, 3])], {
    mode: 'linear',
    antialias: 1,
    exclude_outside: 1,
    coordinate_transformation_mode: 'half_pixel',
  })
  b.node('Transpose', [scaled], { perm: [0, 3, 1, 2] }, { output: MODEL_SIZE })
  b.output(MODEL_SIZE, [1, 3, imageSize, imageSize], 'uint8')
  return b.graph
}
