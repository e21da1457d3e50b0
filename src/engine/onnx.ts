/**
 * The ONNX model as plain data, a builder for graphs of it, and its encoding to bytes. (onnx-read.ts is the way back.)
 * Source: onnx.proto3 of ONNX 1.16; the field numbers below are its.
 */
import { Failure } from '../failure.ts'
import type { TensorData } from './graph.ts'

/** ONNX's element types that Plinth reads, with their number in TensorProto.DataType. */
export const elementTypes = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 16,
} as const
export type ElementType = keyof typeof elementTypes

/** float16 and bfloat16 are kept as their 16 bits, bool as bytes. */
export type TensorArray =
  | Float32Array
  | Float64Array
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | BigInt64Array
  | BigUint64Array

export interface OnnxTensor {
  name: string
  type: ElementType
  shape: readonly number[]
  data: TensorArray | readonly string[]
}
/** A string is a symbolic dimension ("batch"), null one about which nothing is said. */
export type Dimension = number | string | null
export interface ValueInfo {
  name: string
  type: ElementType
  /** Absent when even the rank is unknown. */
  shape?: readonly Dimension[]
}

/** A whole number is an int, `{ float }` a float: ONNX tells them apart, JavaScript does not. */
export type Attribute =
  | number
  | string
  | readonly number[]
  | { float: number }
  | { floats: readonly number[] }
  | { strings: readonly string[] }
  | { tensor: OnnxTensor }
  | { graph: OnnxGraph }
export type Attributes = Record<string, Attribute>

export interface OnnxNode {
  name: string
  operation: string
  /** '' is ONNX's own domain. */
  domain: string
  /** '' stands for an optional input that is left out. */
  inputs: readonly string[]
  outputs: readonly string[]
  attributes: Attributes
}
export interface OnnxGraph {
  name: string
  nodes: OnnxNode[]
  inputs: ValueInfo[]
  outputs: ValueInfo[]
  initializers: OnnxTensor[]
}
export interface OnnxModel {
  irVersion: number
  producer: string
  /** Version by domain; '' is ONNX's own. */
  opsets: Record<string, number>
  metadata: Record<string, string>
  graph: OnnxGraph
}

// ── building ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface GraphBuilder {
  readonly graph: OnnxGraph
  /** Adds a node and returns the name of its (first) output. `undefined` attributes and trailing missing inputs are left out. */
  node(operation: string, inputs: readonly (string | undefined)[], attributes?: Loose, options?: NodeOptions): string
  /** The same for nodes with several outputs. */
  nodes(operation: string, inputs: readonly (string | undefined)[], outputs: number, attributes?: Loose, options?: NodeOptions): string[]
  /** An initialiser; equal small ones are shared. */
  constant(data: TensorData, shape: readonly number[], name?: string): string
  /** A one-dimensional int64 constant, as Reshape, Slice, Pad … want their arguments. */
  ints(values: readonly number[]): string
  /** A float32 constant of rank 0. */
  scalar(value: number): string
  input(name: string, shape: readonly Dimension[], type?: ElementType): string
  output(name: string, shape: readonly Dimension[], type?: ElementType): string
}
type Loose = Record<string, Attribute | undefined>
export interface NodeOptions {
  domain?: string
  /** Name of the first output; made up when absent. */
  output?: string
}

export const emptyGraph = (name = 'plinth'): OnnxGraph => ({ name, nodes: [], inputs: [], outputs: [], initializers: [] })

/** Builds on `graph`, which may already hold nodes. Made-up names start with `prefix` and never meet existing ones. */
export function graphBuilder(graph: OnnxGraph = emptyGraph(), prefix = ''): GraphBuilder {
  const taken = new Set<string>()
  for (const value of [...graph.inputs, ...graph.initializers]) taken.add(value.name)
  for (const node of graph.nodes) for (const output of node.outputs) taken.add(output)
  const shared = new Map<string, string>()
  let count = 0

  const fresh = (operation: string): string => {
    for (;;) {
      const name = `${prefix}${operation}_${count++}`
      if (!taken.has(name)) return name
    }
  }
  const claim = (name: string): string => {
    if (taken.has(name)) throw new Failure('onnx_duplicate_name', { name })
    taken.add(name)
    return name
  }

  const nodes: GraphBuilder['nodes'] = (operation, inputs, outputs, attributes = {}, { domain = '', output } = {}) => {
    const first = claim(output ?? fresh(operation))
    const names = [first, ...Array.from({ length: outputs - 1 }, (_, i) => claim(`${first}_${i + 1}`))]
    const given = inputs.map(name => name ?? '')
    while (given.at(-1) === '') given.pop()
    const kept = Object.fromEntries(Object.entries(attributes).filter((entry): entry is [string, Attribute] => entry[1] !== undefined))
    graph.nodes.push({ name: first, operation, domain, inputs: given, outputs: names, attributes: kept })
    return names
  }
  const constant: GraphBuilder['constant'] = (data, shape, name) => {
    // Object.is semantics: 0 and -0 are different constants
    const key =
      name === undefined && data.length <= 16
        ? `${typeOf(data)} ${shape} ${Array.from(data as ArrayLike<number | bigint>, v => (Object.is(v, -0) ? '-0' : v))}`
        : ''
    const known = key && shared.get(key)
    if (known) return known
    const unique = claim(name ?? fresh('constant'))
    graph.initializers.push({ name: unique, type: typeOf(data), shape, data })
    if (key) shared.set(key, unique)
    return unique
  }
  return {
    graph,
    nodes,
    node: (operation, inputs, attributes, options) => nodes(operation, inputs, 1, attributes, options)[0]!,
    constant,
    ints: values => constant(BigInt64Array.from(values, BigInt), [values.length]),
    scalar: value => constant(Float32Array.of(value), []),
    input(name, shape, type = 'float32') {
      graph.inputs.push({ name: claim(name), type, shape })
      return name
    },
    output(name, shape, type = 'float32') {
      graph.outputs.push({ name, type, shape })
      return name
    },
  }
}

const typeOf = (data: TensorData): ElementType =>
  data instanceof Float32Array ? 'float32' : data instanceof Uint8Array ? 'uint8' : 'int64'

// ── encoding ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface EncodeOptions {
  /** Version of ONNX's own operations. Default 18. */
  opset?: number
  /** Versions of other domains. A domain that the graph uses and that is not named here is version 1. */
  domains?: Readonly<Record<string, number>>
  metadata?: Readonly<Record<string, string>>
}

/** A ModelProto. IR version 9, the one that goes with opset 18 to 20. */
export function encodeModel(graph: OnnxGraph, { opset = 18, domains = {}, metadata = {} }: EncodeOptions = {}): Uint8Array {
  const used = Object.fromEntries(graph.nodes.filter(n => n.domain).map(n => [n.domain, 1]))
  const model = message()
  model.int(1, 9)
  model.text(2, 'plinth')
  model.message(7, encodeGraph(graph))
  for (const [domain, version] of Object.entries({ ...used, ...domains, '': opset })) {
    const entry = message()
    if (domain) entry.text(1, domain)
    entry.int(2, version)
    model.message(8, entry)
  }
  for (const [key, value] of Object.entries(metadata)) {
    const entry = message()
    entry.text(1, key)
    entry.text(2, value)
    model.message(14, entry)
  }
  return model.finish()
}

function encodeGraph(graph: OnnxGraph): Message {
  const m = message()
  for (const node of graph.nodes) m.message(1, encodeNode(node))
  m.text(2, graph.name)
  for (const tensor of graph.initializers) m.message(5, encodeTensor(tensor))
  for (const value of graph.inputs) m.message(11, encodeValueInfo(value))
  for (const value of graph.outputs) m.message(12, encodeValueInfo(value))
  return m
}

function encodeNode(node: OnnxNode): Message {
  const m = message()
  for (const name of node.inputs) m.text(1, name)
  for (const name of node.outputs) m.text(2, name)
  m.text(3, node.name)
  m.text(4, node.operation)
  for (const [name, value] of Object.entries(node.attributes)) m.message(5, encodeAttribute(name, value))
  if (node.domain) m.text(7, node.domain)
  return m
}

function encodeAttribute(name: string, value: Attribute): Message {
  const m = message()
  m.text(1, name)
  const kind = (number: number) => m.int(20, number) // AttributeProto.AttributeType
  if (typeof value === 'number') {
    m.int(3, value)
    kind(2)
  } else if (typeof value === 'string') {
    m.text(4, value)
    kind(3)
  } else if ('float' in value) {
    m.float(2, value.float)
    kind(1)
  } else if ('tensor' in value) {
    m.message(5, encodeTensor(value.tensor))
    kind(4)
  } else if ('graph' in value) {
    m.message(6, encodeGraph(value.graph))
    kind(5)
  } else if ('floats' in value) {
    for (const v of value.floats) m.float(7, v)
    kind(6)
  } else if ('strings' in value) {
    for (const v of value.strings) m.text(9, v)
    kind(8)
  } else {
    for (const v of value) m.int(8, v)
    kind(7)
  }
  return m
}

function encodeTensor(tensor: OnnxTensor): Message {
  const m = message()
  for (const d of tensor.shape) m.int(1, d)
  m.int(2, elementTypes[tensor.type])
  if (isText(tensor.data)) for (const value of tensor.data) m.text(6, value)
  m.text(8, tensor.name)
  if (!isText(tensor.data)) m.bytes(9, new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength))
  return m
}
const isText = (data: OnnxTensor['data']): data is readonly string[] => Array.isArray(data)

function encodeValueInfo(value: ValueInfo): Message {
  const tensor = message()
  tensor.int(1, elementTypes[value.type])
  if (value.shape) {
    const shape = message()
    for (const d of value.shape) {
      const dimension = message()
      if (typeof d === 'string') dimension.text(2, d)
      else if (d !== null) dimension.int(1, d)
      shape.message(1, dimension)
    }
    tensor.message(2, shape)
  }
  const type = message()
  type.message(1, tensor)
  const m = message()
  m.text(1, value.name)
  m.message(2, type)
  return m
}

// ── protocol buffers, as much as is needed ──────────────────────────────────────────────────────────────────────────────────

interface Message {
  int(field: number, value: number): void
  float(field: number, value: number): void
  text(field: number, value: string): void
  bytes(field: number, value: Uint8Array): void
  message(field: number, value: Message): void
  readonly parts: readonly Uint8Array[]
  readonly length: number
  finish(): Uint8Array
}

const encoder = new TextEncoder()

function message(): Message {
  const parts: Uint8Array[] = []
  let length = 0
  const push = (part: Uint8Array) => {
    parts.push(part)
    length += part.length
  }
  const lengthPrefixed = (field: number, size: number) => push(Uint8Array.from([...varint(field * 8 + 2), ...varint(size)]))
  return {
    parts,
    get length() {
      return length
    },
    int(field, value) {
      push(Uint8Array.from([...varint(field * 8), ...varint(value)]))
    },
    float(field, value) {
      const part = new Uint8Array(5)
      part[0] = field * 8 + 5
      new DataView(part.buffer).setFloat32(1, value, true)
      push(part)
    },
    text(field, value) {
      const bytes = encoder.encode(value)
      lengthPrefixed(field, bytes.length)
      push(bytes)
    },
    bytes(field, value) {
      lengthPrefixed(field, value.length)
      push(value)
    },
    message(field, value) {
      lengthPrefixed(field, value.length)
      for (const part of value.parts) push(part)
    },
    finish() {
      const whole = new Uint8Array(length)
      let at = 0
      for (const part of parts) {
        whole.set(part, at)
        at += part.length
      }
      return whole
    },
  }
}

/** Negative numbers take ten bytes, as int64 does in protocol buffers. */
function varint(value: number): number[] {
  const bytes: number[] = []
  if (value >= 0 && value < 128) return [value]
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128)
  bytes.push(Number(rest))
  return bytes
}
