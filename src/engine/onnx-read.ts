/**
 * Reads an ONNX file that anyone may have made. It follows only the fields that Plinth uses, opens no other file, allocates nothing
 * that the bytes do not hold, and refuses instead of guessing. Field numbers: onnx.proto3 of ONNX 1.16.
 */
import { Failure } from '../failure.ts'
import {
  type Attribute,
  type Dimension,
  type ElementType,
  elementTypes,
  type OnnxGraph,
  type OnnxModel,
  type OnnxNode,
  type OnnxTensor,
  type TensorArray,
  type ValueInfo,
} from './onnx.ts'

const limits = { depth: 8, nodes: 200_000, rank: 32, name: 4096 }

/** @throws onnx_malformed, onnx_external_data, onnx_unsupported */
export function decodeModel(bytes: Uint8Array): OnnxModel {
  const model: OnnxModel = { irVersion: 0, producer: '', opsets: {}, metadata: {}, graph: emptyRead() }
  const opsets = new Map<string, number>()
  const metadata = new Map<string, string>()
  let graphs = 0
  for (const f of fields(bytes)) {
    if (f.number === 1) model.irVersion = int(f)
    else if (f.number === 2) model.producer = text(f)
    else if (f.number === 7) {
      if (graphs++) throw malformed('it holds two graphs')
      model.graph = readGraph(message(f), 0)
    } else if (f.number === 8) {
      let [domain, version] = ['', 0]
      for (const g of fields(message(f))) {
        if (g.number === 1) domain = text(g)
        if (g.number === 2) version = int(g)
      }
      opsets.set(domain === 'ai.onnx' ? '' : domain, version)
    } else if (f.number === 14) {
      const [key, value] = readEntry(message(f))
      if (metadata.has(key)) throw malformed(`its metadata ${shown(key)} stands twice`)
      metadata.set(key, value)
    } else if (f.number === 20) throw unsupported('training information')
    else if (f.number === 25) throw unsupported('functions of its own')
  }
  if (!graphs) throw malformed('there is no graph in it')
  // fromEntries defines own properties: a key called __proto__ stays a key
  return { ...model, opsets: Object.fromEntries(opsets), metadata: Object.fromEntries(metadata) }
}

const emptyRead = (): OnnxGraph => ({ name: '', nodes: [], inputs: [], outputs: [], initializers: [] })

function readGraph(bytes: Uint8Array, depth: number): OnnxGraph {
  if (depth > limits.depth) throw malformed('graphs are nested too deeply')
  const graph = emptyRead()
  for (const f of fields(bytes)) {
    if (f.number === 1) graph.nodes.push(readNode(message(f), depth))
    else if (f.number === 2) graph.name = text(f)
    else if (f.number === 5) graph.initializers.push(readTensor(message(f)))
    else if (f.number === 11) graph.inputs.push(readValueInfo(message(f)))
    else if (f.number === 12) graph.outputs.push(readValueInfo(message(f)))
    else if (f.number === 15) throw unsupported('sparse tensors')
    if (graph.nodes.length > limits.nodes) throw malformed(`it has more than ${limits.nodes} nodes`)
  }
  return graph
}

function readNode(bytes: Uint8Array, depth: number): OnnxNode {
  const inputs: string[] = []
  const outputs: string[] = []
  const attributes = new Map<string, Attribute>()
  let [name, operation, domain] = ['', '', '']
  for (const f of fields(bytes)) {
    if (f.number === 1) inputs.push(text(f))
    else if (f.number === 2) outputs.push(text(f))
    else if (f.number === 3) name = text(f)
    else if (f.number === 4) operation = text(f)
    else if (f.number === 7) domain = text(f)
    else if (f.number === 5) {
      const [key, value] = readAttribute(message(f), depth)
      if (attributes.has(key)) throw malformed(`an attribute ${shown(key)} stands twice`)
      attributes.set(key, value)
    }
  }
  return { name, operation, domain: domain === 'ai.onnx' ? '' : domain, inputs, outputs, attributes: Object.fromEntries(attributes) }
}

function readAttribute(bytes: Uint8Array, depth: number): [string, Attribute] {
  let name = ''
  let kind = 0
  const found: { float?: number; int?: number; string?: string; tensor?: OnnxTensor; graph?: OnnxGraph } = {}
  const floats: number[] = []
  const ints: number[] = []
  const strings: string[] = []
  for (const f of fields(bytes)) {
    if (f.number === 1) name = text(f)
    else if (f.number === 2) found.float = float(f)
    else if (f.number === 3) found.int = int(f)
    else if (f.number === 4) found.string = text(f)
    else if (f.number === 5) found.tensor = readTensor(message(f))
    else if (f.number === 6) found.graph = readGraph(message(f), depth + 1)
    else if (f.number === 7) append(floats, packed(f, float, 4))
    else if (f.number === 8) append(ints, packed(f, int, 0))
    else if (f.number === 9) strings.push(text(f))
    else if (f.number === 10) throw unsupported('lists of tensors')
    else if (f.number === 11) throw unsupported('lists of graphs')
    else if (f.number === 20) kind = int(f)
    else if (f.number === 22 || f.number === 23) throw unsupported('sparse tensors')
  }
  // proto3 leaves zeros out, so the kind decides what the attribute is
  switch (kind) {
    case 1:
      return [name, { float: found.float ?? 0 }]
    case 2:
      return [name, found.int ?? 0]
    case 3:
      return [name, found.string ?? '']
    case 4:
      if (found.tensor) return [name, { tensor: found.tensor }]
      break
    case 5:
      if (found.graph) return [name, { graph: found.graph }]
      break
    case 6:
      return [name, { floats }]
    case 7:
      return [name, ints]
    case 8:
      return [name, { strings }]
  }
  throw unsupported(`an attribute ${shown(name)} of kind ${kind}`)
}

const typeNames = new Map<number, ElementType>(Object.entries(elementTypes).map(([name, number]) => [number, name as ElementType]))
const arrays: Record<Exclude<ElementType, 'string'>, { new (buffer: ArrayBuffer): TensorArray; BYTES_PER_ELEMENT: number }> = {
  float32: Float32Array,
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
  float16: Uint16Array,
  float64: Float64Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bfloat16: Uint16Array,
}

function readTensor(bytes: Uint8Array): OnnxTensor {
  const shape: number[] = []
  let type = 0
  let name = ''
  let raw: Uint8Array | null = null
  let external = false
  const numbers: number[] = []
  const wide: bigint[] = []
  const strings: string[] = []
  for (const f of fields(bytes)) {
    if (f.number === 1) append(shape, packed(f, int, 0))
    else if (f.number === 2) type = int(f)
    else if (f.number === 3) throw unsupported('tensors in segments')
    else if (f.number === 4) append(numbers, packed(f, float, 4))
    else if (f.number === 5) append(numbers, packed(f, int, 0))
    else if (f.number === 6) strings.push(text(f))
    else if (f.number === 7) append(wide, packed(f, bigint, 0))
    else if (f.number === 8) name = text(f)
    else if (f.number === 9) raw = message(f)
    else if (f.number === 10) append(numbers, packed(f, double, 8))
    else if (f.number === 11) append(wide, packed(f, bigint, 0))
    else if (f.number === 13) external = true
    else if (f.number === 14) external ||= int(f) !== 0
  }
  if (external) throw new Failure('onnx_external_data', { name: name.slice(0, 100) })
  const elementType = typeNames.get(type)
  if (!elementType) throw unsupported(`the element type ${type}`)
  if (shape.length > limits.rank || shape.some(d => d < 0)) throw malformed(`the tensor ${shown(name)} has no sound shape`)
  const count = shape.reduce((product, d) => product * d, 1)
  if (elementType === 'string') {
    if (strings.length !== count) throw malformed(`the tensor ${shown(name)} has ${strings.length} of ${count} strings`)
    return { name, type: elementType, shape, data: strings }
  }
  const array = arrays[elementType]
  if (raw) {
    if (raw.length !== count * array.BYTES_PER_ELEMENT)
      throw malformed(`the tensor ${shown(name)} has ${raw.length} bytes for [${shape.slice(0, 8).join(', ')}] of ${elementType}`)
    return { name, type: elementType, shape, data: new array(new Uint8Array(raw).buffer) }
  }
  const given = elementType === 'int64' || elementType === 'uint64' || elementType === 'uint32' ? wide : numbers
  if (given.length !== count) throw malformed(`the tensor ${shown(name)} has ${given.length} of ${count} numbers`)
  const data = new array(new ArrayBuffer(count * array.BYTES_PER_ELEMENT))
  for (const [i, value] of given.entries()) data[i] = (elementType === 'uint32' ? Number(value) : value) as never
  return { name, type: elementType, shape, data }
}

function readValueInfo(bytes: Uint8Array): ValueInfo {
  let name = ''
  let type: Uint8Array | null = null
  for (const f of fields(bytes)) {
    if (f.number === 1) name = text(f)
    else if (f.number === 2) type = message(f)
  }
  for (const f of fields(type ?? new Uint8Array())) {
    if (f.number !== 1) continue // TypeProto.tensor_type
    let elementType: ElementType | undefined
    let shape: Dimension[] | undefined
    for (const g of fields(message(f))) {
      if (g.number === 1) elementType = typeNames.get(int(g))
      else if (g.number === 2) shape = readShape(message(g))
    }
    if (elementType) return { name, type: elementType, ...(shape && { shape }) }
  }
  throw unsupported(`the value ${shown(name)} is not a tensor of a known type`)
}

function readShape(bytes: Uint8Array): Dimension[] {
  const shape: Dimension[] = []
  for (const f of fields(bytes)) {
    if (f.number !== 1) continue
    let dimension: Dimension = null
    for (const g of fields(message(f))) {
      if (g.number === 1) dimension = int(g)
      else if (g.number === 2) dimension = text(g)
    }
    if (typeof dimension === 'number' && dimension < 0) throw malformed('a dimension is negative')
    shape.push(dimension)
    if (shape.length > limits.rank) throw malformed(`a shape has more than ${limits.rank} dimensions`)
  }
  return shape
}

function readEntry(bytes: Uint8Array): [string, string] {
  let [key, value] = ['', '']
  for (const f of fields(bytes)) {
    if (f.number === 1) key = text(f)
    else if (f.number === 2) value = decodeText(message(f))
  }
  return [key, value]
}

// ── protocol buffers ────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Field {
  number: number
  /** 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. */
  wire: number
  value: bigint
  bytes: Uint8Array
}

function* fields(bytes: Uint8Array): Generator<Field> {
  const nothing = new Uint8Array()
  for (let at = 0; at < bytes.length; ) {
    const key = varint(bytes, at)
    at = key.next
    const number = Number(key.value >> 3n)
    const wire = Number(key.value & 7n)
    if (number === 0 || number > 536_870_911) throw malformed(`a field has the number ${number}`)
    if (wire === 0) {
      const { value, next } = varint(bytes, at)
      at = next
      yield { number, wire, value, bytes: nothing }
    } else if (wire === 1 || wire === 5) {
      const end = at + (wire === 1 ? 8 : 4)
      if (end > bytes.length) throw malformed('it ends within a number')
      yield { number, wire, value: 0n, bytes: bytes.subarray(at, end) }
      at = end
    } else if (wire === 2) {
      const { value, next } = varint(bytes, at)
      const end = next + Number(value)
      if (end > bytes.length) throw malformed('a field is longer than the file')
      yield { number, wire, value: 0n, bytes: bytes.subarray(next, end) }
      at = end
    } else throw malformed(`a field has the unknown encoding ${wire}`)
  }
}

function varint(bytes: Uint8Array, at: number): { value: bigint; next: number } {
  let value = 0n
  for (let i = 0; i < 10; i++) {
    const byte = bytes[at + i]
    if (byte === undefined) throw malformed('it ends within a number')
    value |= BigInt(byte & 127) << BigInt(7 * i)
    if (byte < 128) return { value: BigInt.asUintN(64, value), next: at + i + 1 }
  }
  throw malformed('a number has more than ten bytes')
}

const bigint = (f: Field): bigint => {
  if (f.wire !== 0) throw malformed('a whole number is encoded as something else')
  return BigInt.asIntN(64, f.value)
}
function int(f: Field): number {
  const value = Number(bigint(f))
  // INT64_MAX and its neighbours mean "to the end" in Slice: the nearest number that a varint of ours can write back
  return Number.isSafeInteger(value) ? value : value > 0 ? Number.MAX_SAFE_INTEGER : Number.MIN_SAFE_INTEGER
}
const view = (f: Field, wire: number) => {
  if (f.wire !== wire) throw malformed('a number is encoded as something else')
  return new DataView(f.bytes.buffer, f.bytes.byteOffset, f.bytes.byteLength)
}
const float = (f: Field): number => view(f, 5).getFloat32(0, true)
const double = (f: Field): number => view(f, 1).getFloat64(0, true)
function message(f: Field): Uint8Array {
  if (f.wire !== 2) throw malformed('a part is encoded as a number')
  return f.bytes
}
const strict = new TextDecoder('utf-8', { fatal: true })
function decodeText(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes)
  } catch {
    throw malformed('a text is not UTF-8')
  }
}
function text(f: Field): string {
  const bytes = message(f)
  if (bytes.length > limits.name) throw malformed(`a name has ${bytes.length} bytes`)
  return decodeText(bytes)
}

/** Not `push(...values)`: a million arguments are more than the stack holds. */
function append<T>(to: T[], values: Iterable<T>): void {
  for (const value of values) to.push(value)
}

/** A repeated number, alone or packed; `size` 0 = varints. */
function* packed<T>(f: Field, read: (f: Field) => T, size: number): Generator<T> {
  if (f.wire !== 2) {
    yield read(f)
    return
  }
  for (let at = 0; at < f.bytes.length; ) {
    const wire = size === 8 ? 1 : size === 4 ? 5 : 0
    if (size) {
      if (at + size > f.bytes.length) throw malformed('it ends within a number')
      yield read({ number: f.number, wire, value: 0n, bytes: f.bytes.subarray(at, at + size) })
      at += size
    } else {
      const { value, next } = varint(f.bytes, at)
      yield read({ number: f.number, wire, value, bytes: f.bytes })
      at = next
    }
  }
}

const shown = (name: string) => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)
const malformed = (problem: string) => new Failure('onnx_malformed', { problem })
const unsupported = (problem: string) => new Failure('onnx_unsupported', { problem })
