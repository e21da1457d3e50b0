/**
 * What is in the artefact, the one file a training ends in: a standard ONNX model from a picture of any size to probabilities,
 * with its labels, temperature, threshold, lineage and golden predictions in the file's metadata under `plinth.`.
 *
 *     image uint8 [height, width, 3] → preprocessing → model_size uint8 [1, 3, S, S] → normalise → backbone → head
 *       → ÷ temperature → softmax → probabilities float32 [1, K]
 *
 * Two more outputs, which older files lack:
 *
 *     distance    float32 [1, 1]        how far the picture is from everything the model knows (unknown.ts)
 *     activation  float32 [1, K, h, w]  the logits ÷ temperature, split over the places of the picture: the sum over h and w of each class
 *                                       is its logit, so the softmax of the sums is `probabilities`
 */

import { toOnnx } from '../engine/export.ts'
import { add, cast, constant, conv, input, is, matMul, mul, type Node, parameter, reshape, scalar, softmax, sub } from '../engine/graph.ts'
import type { Weights } from '../engine/lowering.ts'
import { encodeModel, type OnnxGraph, type OnnxModel } from '../engine/onnx.ts'
import { decodeModel } from '../engine/onnx-read.ts'
import { Failure } from '../failure.ts'
import { ArtefactMetadata } from '../sdk/index.ts'
import { IMAGE, MODEL_SIZE, preprocessingGraph } from './preprocessing.ts'
import { distanceNode, type UnknownParts } from './unknown.ts'

export const PROBABILITIES = 'probabilities'
export const DISTANCE = 'distance'
export const ACTIVATION = 'activation'
/** The newest `plinth.schema` that this program reads. */
export const SCHEMA = 1
/** The version of ONNX's operations that goes with it. */
const OPSET = 18

export interface Trained {
  backbone: Normalised & { build(picture: Node): { features: Node }; features: number }
  /** The backbone's parameters, by name. */
  weights: Weights
  /** weight [K, F] row by row and bias [K]. */
  head: { weight: Float32Array; bias: Float32Array }
  /** For the output `distance`; without it the file has none and calls a picture unknown by its probability. */
  unknown?: UnknownParts | null
  /** `modelSizeTensor` and `unknown` are filled in here. */
  metadata: Omit<ArtefactMetadata, 'golden' | 'modelSizeTensor' | 'schema' | 'unknown'>
}
/** On 0..255 RGB: (x − mean) / scale for each channel. */
interface Normalised {
  normalise: { mean: readonly number[]; scale: readonly number[] }
}

/** The file's bytes, without golden predictions; those come from the file itself (`withGolden`). */
export function composeArtefact({ backbone, weights, head, unknown, metadata }: Trained): Uint8Array {
  const { imageSize, fit, labels, temperature } = metadata
  const pictures = input(MODEL_SIZE, [1, 3, imageSize, imageSize], 'uint8')
  const { features } = backbone.build(normalise(pictures, backbone))
  // head and temperature as one: what comes out is what the softmax sees
  const weight = mul(parameter('plinth.head.weight', [labels.length, backbone.features]), scalar(1 / temperature))
  const bias = mul(parameter('plinth.head.bias', [labels.length]), scalar(1 / temperature))
  const logits = add(matMul(features, weight, { transposeB: true }), bias)
  const known = unknown ? distanceNode(features, logits, unknown) : null
  const activation = activationNode(features, weight, bias)
  const all = new Map([...weights, ['plinth.head.weight', head.weight], ['plinth.head.bias', head.bias], ...(known?.weights ?? [])])
  const outputs = {
    [PROBABILITIES]: softmax(logits),
    ...(known && { [DISTANCE]: known.distance }),
    ...(activation && { [ACTIVATION]: activation }),
  }
  const whole = join(preprocessingGraph(imageSize, fit), toOnnx(outputs, all, { dynamicBatch: true }))
  const described = { ...metadata, ...(unknown && { unknown: unknown.metadata }) }
  return encode(whole, { ...described, schema: SCHEMA, modelSizeTensor: MODEL_SIZE, golden: [] })
}

/**
 * The logits, split over the places that the network looks at. Where features are the mean of a map over its places, the head may as well
 * be applied to each place and the results added up: logit = Σ over places of (w · f(place) + b) / places, exactly (class activation map,
 * Zhou et al. 2016, arXiv 1512.04150). null for a network that ends otherwise.
 */
function activationNode(features: Node, weight: Node, bias: Node): Node | null {
  const pooled = is(features, 'Reshape') ? features.inputs[0] : undefined
  const map = pooled && is(pooled, 'GlobalAveragePool') ? pooled.inputs[0] : undefined
  if (!map) return null
  const [classes, width] = weight.shape as [number, number]
  const share = scalar(1 / (map.shape[2]! * map.shape[3]!))
  return conv(map, reshape(mul(weight, share), [classes, width, 1, 1]), { bias: mul(bias, share) })
}

/** uint8 pictures [N, 3, S, S] as the network wants them: (x − mean) / scale, for each channel. */
export function normalise(pictures: Node, { normalise: { mean, scale } }: Normalised): Node {
  const perChannel = (values: readonly number[]) => reshape(constant(Float32Array.from(values), [3]), [1, 3, 1, 1])
  return mul(sub(cast(pictures, 'float32'), perChannel(mean)), perChannel(scale.map(value => 1 / value)))
}

/** The same file with these golden predictions in place of the ones it has. */
export function withGolden(bytes: Uint8Array, golden: ArtefactMetadata['golden']): Uint8Array {
  const { model, metadata } = readArtefact(bytes)
  return encode(model.graph, { ...metadata, golden })
}

/** From `image` to the model-size tensor, and from there on for any number of pictures at once. */
export interface Parts {
  front: OnnxGraph
  /** To the probabilities and, where the file has it, the distance. */
  back: OnnxGraph
  /** The same and the activation; null where the file has none. Apart, because the runtime computes every output of a graph, asked for or not. */
  explaining: OnnxGraph | null
}

/**
 * The same graph in two at the model-size tensor, so that pictures of different sizes are prepared one by one and then run through
 * the network together. All are written anew from what was read: the runtime never sees the bytes of a foreign file.
 */
export function cut({ model, metadata }: Artefact): Parts {
  const { graph } = model
  const meeting = metadata.modelSizeTensor
  const side = metadata.imageSize
  const front = part(graph, [IMAGE], [meeting])
  front.inputs.push(...graph.inputs.filter(value => value.name === IMAGE))
  front.outputs.push({ name: meeting, type: 'uint8', shape: [1, 3, side, side] })
  const offered = new Map(graph.outputs.map(value => [value.name, value]))
  const behind = (outputs: readonly string[]) => {
    const back = part(graph, [meeting], outputs)
    back.inputs.push({ name: meeting, type: 'uint8', shape: ['batch', 3, side, side] })
    for (const name of outputs) back.outputs.push({ name, type: 'float32', shape: ['batch', ...offered.get(name)!.shape!.slice(1)] })
    return back
  }
  const answers = metadata.unknown ? [PROBABILITIES, DISTANCE] : [PROBABILITIES]
  return { front, back: behind(answers), explaining: offered.has(ACTIVATION) ? behind([...answers, ACTIVATION]) : null }
}

/** What is needed to compute `outputs` when `given` is there. */
function part(graph: OnnxGraph, given: readonly string[], outputs: readonly string[]): OnnxGraph {
  const maker = new Map(graph.nodes.flatMap(node => node.outputs.map(name => [name, node] as const)))
  const wanted = [...outputs]
  const seen = new Set(given)
  const nodes = new Set<OnnxGraph['nodes'][number]>()
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    if (name === '' || seen.has(name)) continue
    seen.add(name)
    const node = maker.get(name)
    if (!node) continue
    nodes.add(node)
    wanted.push(...node.inputs)
  }
  const initializers = graph.initializers.filter(tensor => seen.has(tensor.name) && !given.includes(tensor.name))
  const known = new Set([...initializers.map(tensor => tensor.name), ...given])
  for (const name of seen)
    if (!maker.has(name) && !known.has(name))
      throw invalid(`"${name}" is needed for "${outputs.join('", "')}" and nothing in the file makes it`)
  return { name: graph.name, nodes: graph.nodes.filter(node => nodes.has(node)), inputs: [], outputs: [], initializers }
}

function join(front: OnnxGraph, back: OnnxGraph): OnnxGraph {
  const taken = new Set([...front.nodes.flatMap(node => node.outputs), ...front.initializers.map(tensor => tensor.name), IMAGE])
  for (const name of [...back.nodes.flatMap(node => node.outputs), ...back.initializers.map(tensor => tensor.name)])
    if (taken.has(name)) throw new Failure('onnx_duplicate_name', { name })
  return {
    name: 'plinth',
    nodes: [...front.nodes, ...back.nodes],
    inputs: front.inputs,
    // one picture in, one row out; who wants more cuts the graph
    outputs: back.outputs.map(value => ({ ...value, shape: value.shape ? [1, ...value.shape.slice(1)] : [1, null] })),
    initializers: [...front.initializers, ...back.initializers],
  }
}

// ── metadata ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const PREFIX = 'plinth.'

function encode(graph: OnnxGraph, { schema, ...others }: ArtefactMetadata): Uint8Array {
  const entries = Object.entries({ ...others, schema }).map(([key, value]) => [PREFIX + key, JSON.stringify(value)])
  return encodeModel(graph, { opset: OPSET, metadata: Object.fromEntries(entries) })
}

export interface Artefact {
  metadata: ArtefactMetadata
  model: OnnxModel
}

/** Larger files are refused before they are parsed. The largest backbone of the catalogue makes about 100 MB. */
export const MAX_BYTES = 512 * 1024 * 1024

/**
 * Reads and checks a file from anywhere. What comes back can be run without reaching for anything outside the file, without loops,
 * and with labels that fit its output.
 * throws artefact_cut_short, artefact_newer, artefact_invalid, artefact_too_large
 */
export function readArtefact(bytes: Uint8Array): Artefact {
  if (bytes.length > MAX_BYTES) throw new Failure('artefact_too_large', { bytes: bytes.length, limit: MAX_BYTES })
  const model = parse(bytes)
  // we write the schema last: where it is missing from a file of ours, the end of the file is
  if (model.producer === 'plinth' && model.metadata[`${PREFIX}schema`] === undefined)
    throw new Failure('artefact_cut_short', { bytes: bytes.length })
  const metadata = readMetadata(model.metadata)
  checkGraph(model, metadata)
  return { model, metadata }
}

function parse(bytes: Uint8Array): OnnxModel {
  if (endsEarly(bytes)) throw new Failure('artefact_cut_short', { bytes: bytes.length })
  try {
    return decodeModel(bytes)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    throw new Failure('artefact_invalid', { problem: error.message }, { cause: error })
  }
}

/** ModelProto's field for the graph, and the byte that a file written field by field begins with. */
const GRAPH = 7
const IR_VERSION = 8

/** Whether the last field of the outermost message is longer than what is left, or the graph is still to come: a download that stopped, a disk that was full. */
function endsEarly(bytes: Uint8Array): boolean {
  if (bytes.length === 0) return true
  let graph = false
  for (let at = 0; at < bytes.length; ) {
    const key = varint(bytes, at)
    if (!key) return true
    const value = varint(bytes, key.next)
    const wire = key.value % 8
    if (key.value >> 3 === GRAPH) graph = true
    if (wire === 2) {
      if (!value || value.next + value.value > bytes.length) return true
      at = value.next + value.value
    } else if (wire === 0) {
      if (!value) return true
      at = value.next
    } else return false // nothing that an ONNX file begins with: the parser will say what is wrong
  }
  return !graph && bytes[0] === IR_VERSION
}

/** null where the bytes end within it. */
function varint(bytes: Uint8Array, at: number): { value: number; next: number } | null {
  let value = 0
  for (let i = 0; i < 10; i++) {
    const byte = bytes[at + i]
    if (byte === undefined) return null
    value += (byte & 127) * 2 ** (7 * i)
    if (byte < 128) return { value, next: at + i + 1 }
  }
  return { value, next: at + 10 }
}

function readMetadata(entries: Readonly<Record<string, string>>): ArtefactMetadata {
  const found = new Map<string, unknown>()
  for (const [key, value] of Object.entries(entries)) {
    if (!key.startsWith(PREFIX)) continue
    try {
      found.set(key.slice(PREFIX.length), JSON.parse(value))
    } catch {
      throw invalid(`its metadata ${shown(key)} is not JSON`)
    }
  }
  const schema = found.get('schema')
  if (schema === undefined) throw invalid('it has no plinth.schema, so it was not made by Plinth')
  if (typeof schema === 'number' && schema > SCHEMA) throw new Failure('artefact_newer', { schema, known: SCHEMA })
  const result = ArtefactMetadata.safeParse(Object.fromEntries(found))
  if (!result.success) {
    const [issue] = result.error.issues
    throw invalid(`plinth.${shown(issue?.path.join('.') ?? '')}: ${shown(issue?.message ?? '')}`)
  }
  const metadata = result.data
  if (new Set(metadata.labels).size !== metadata.labels.length) throw invalid('it has the same label twice')
  for (const golden of metadata.golden) {
    if (golden.probabilities.length !== metadata.labels.length)
      throw invalid(`a golden prediction has ${golden.probabilities.length} probabilities for ${metadata.labels.length} labels`)
    if ((golden.distance === undefined) !== (metadata.unknown === undefined))
      throw invalid('distances stand in its golden predictions or its metadata "unknown", but not in both')
  }
  return metadata
}

/** Largest side a file may ask pictures to be scaled to, and most elements a single tensor in it may have by its declared shape. */
const MAX_SIDE = 2048

function checkGraph({ graph, opsets }: OnnxModel, metadata: ArtefactMetadata): void {
  const { imageSize, modelSizeTensor, labels } = metadata
  if (imageSize > MAX_SIDE) throw invalid(`it wants pictures of ${imageSize} pixels a side; ${MAX_SIDE} is the most`)
  const opset = opsets['']
  if (opset !== OPSET) throw invalid(`it uses ONNX operations of version ${opset ?? 'none'}, not ${OPSET}`)
  for (const node of graph.nodes) {
    if (node.domain !== '') throw invalid(`operation ${shown(node.operation)} is not a standard one (${shown(node.domain)})`)
    if (Object.values(node.attributes).some(value => typeof value === 'object' && 'graph' in value))
      throw invalid(`operation ${shown(node.operation)} has a graph inside; loops and branches are not used in artefacts`)
  }

  const [image] = graph.inputs.filter(value => !graph.initializers.some(tensor => tensor.name === value.name))
  if (graph.inputs.length !== 1 || image?.name !== IMAGE || image.type !== 'uint8' || image.shape?.length !== 3 || image.shape[2] !== 3)
    throw invalid(`its only input must be "${IMAGE}", uint8 [height, width, 3]`)
  const output = (name: string) => {
    const found = graph.outputs.filter(value => value.name === name)
    if (found.length > 1) throw invalid(`it has the output "${name}" twice`)
    if (found[0] && found[0].type !== 'float32') throw invalid(`its output "${name}" is not float32`)
    return found[0]
  }
  const probabilities = output(PROBABILITIES)
  if (!probabilities) throw invalid(`it has no float32 output "${PROBABILITIES}"`)
  const columns = probabilities.shape?.[1]
  if (probabilities.shape?.length !== 2 || columns !== labels.length)
    throw invalid(`it has ${labels.length} labels for ${columns ?? 'an unknown number of'} probabilities`)
  const distance = output(DISTANCE)
  if (!distance !== !metadata.unknown)
    throw invalid(`of its output "${DISTANCE}" and the metadata "unknown", which go together, it has one`)
  if (distance && (distance.shape?.length !== 2 || distance.shape[1] !== 1))
    throw invalid(`its output "${DISTANCE}" is not one number a picture`)
  const activation = output(ACTIVATION)
  if (activation) {
    const [, classes, height, width, ...more] = activation.shape ?? []
    const places = (size: unknown) => typeof size === 'number' && size >= 1 && size <= MAX_SIDE
    if (classes !== labels.length || !places(height) || !places(width) || more.length)
      throw invalid(`its output "${ACTIVATION}" is not a map of known size for each of its ${labels.length} labels`)
  }
  if (!graph.nodes.some(node => node.outputs.includes(modelSizeTensor)))
    throw invalid(`the model-size tensor ${shown(modelSizeTensor)} is not in its graph`)
}

/** Text from a foreign file, short and without control characters. */
const shown = (text: string) => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text)
export const invalid = (problem: string) => new Failure('artefact_invalid', { problem })
