/**
 * The safetensors format: eight bytes of header length, a JSON header, one buffer. Data only; the reader believes no length before it
 * has checked it against the bytes that are there. Source: github.com/huggingface/safetensors, README "Format".
 */
import { Failure } from '../failure.ts'
import { elements, type Shape } from './graph.ts'

export interface StoredTensor {
  /** As in the file; `data` is always widened to float32. */
  type: string
  shape: Shape
  data: Float32Array
}
export interface Safetensors {
  tensors: Map<string, StoredTensor>
  metadata: Map<string, string>
}

/** A longer header is refused, as the reference implementation does. */
const longestHeader = 100_000_000
const mostTensors = 100_000
const bytesOf: Readonly<Record<string, number>> = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 }

/** @throws safetensors_malformed */
export function readSafetensors(bytes: Uint8Array): Safetensors {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length < 8) throw malformed('it is shorter than its first field')
  const headerLength = Number(view.getBigUint64(0, true))
  if (headerLength > longestHeader || 8 + headerLength > bytes.length) throw malformed(`its header claims ${headerLength} bytes`)
  const header = parseHeader(bytes.subarray(8, 8 + headerLength))
  const buffer = bytes.subarray(8 + headerLength)

  const metadata = new Map<string, string>()
  const entries: { name: string; type: string; shape: Shape; from: number; to: number }[] = []
  for (const [name, value] of header) {
    if (name === '__metadata__') {
      for (const [key, text] of fields(value, 'the metadata')) {
        if (typeof text !== 'string') throw malformed(`the metadata ${quoted(key)} is not text`)
        metadata.set(key, text)
      }
    } else entries.push(readEntry(name, value, buffer.length))
  }
  if (entries.length > mostTensors) throw malformed(`it claims ${entries.length} tensors`)
  entries.sort((a, b) => a.from - b.from || a.to - b.to)
  let end = 0
  for (const { name, from, to } of entries) {
    if (from !== end) throw malformed(`the bytes of ${quoted(name)} ${from < end ? 'overlap others' : 'leave a gap'}`)
    end = to
  }
  if (end !== buffer.length) throw malformed(`${buffer.length - end} bytes belong to no tensor`)
  const tensors = new Map(
    entries.map(({ name, type, shape, from, to }) => [name, { type, shape, data: widen(type, buffer.subarray(from, to)) }]),
  )
  return { tensors, metadata }
}

function parseHeader(bytes: Uint8Array): [string, unknown][] {
  try {
    return fields(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)), 'the header')
  } catch (error) {
    if (error instanceof Failure) throw error
    throw malformed('its header is not JSON')
  }
}

function readEntry(name: string, value: unknown, available: number) {
  const entry = new Map(fields(value, quoted(name)))
  const type = entry.get('dtype')
  const shape = entry.get('shape')
  const offsets = entry.get('data_offsets')
  const isCount = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) >= 0
  if (typeof type !== 'string' || !Object.hasOwn(bytesOf, type))
    throw malformed(`${quoted(name)} has the unknown type ${typeof type === 'string' ? quoted(type) : `(${typeof type})`}`)
  if (!Array.isArray(shape) || shape.length > 16 || !shape.every(isCount)) throw malformed(`${quoted(name)} has no sound shape`)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) throw malformed(`${quoted(name)} has no sound place`)
  const [from, to] = offsets as [number, number]
  const size = elements(shape as number[]) * bytesOf[type]!
  if (!Number.isSafeInteger(size) || from > to || to > available || to - from !== size)
    throw malformed(`${quoted(name)} should hold ${size} bytes, but has the place from ${from} to ${to} of ${available}`)
  return { name, type, shape: shape as Shape, from, to }
}

/** Entries of a JSON object; JSON.parse makes `__proto__` a plain key, so nothing is inherited. */
function fields(value: unknown, what: string): [string, unknown][] {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw malformed(`${what} is not an object`)
  return Object.entries(value)
}

function widen(type: string, bytes: Uint8Array): Float32Array {
  // a copy also aligns: a tensor may begin anywhere
  const { buffer } = new Uint8Array(bytes) // not slice(): a Buffer's is a view
  switch (type) {
    case 'F32':
      return new Float32Array(buffer)
    case 'F16':
      return Float32Array.from(new Uint16Array(buffer), halfToFloat)
    case 'BF16': {
      const words = Uint32Array.from(new Uint16Array(buffer), bits => bits << 16)
      return new Float32Array(words.buffer)
    }
    case 'F64':
      return Float32Array.from(new Float64Array(buffer))
    case 'I64':
      return Float32Array.from(new BigInt64Array(buffer), Number)
    case 'I32':
      return Float32Array.from(new Int32Array(buffer))
    case 'I16':
      return Float32Array.from(new Int16Array(buffer))
    case 'I8':
      return Float32Array.from(new Int8Array(buffer))
    default:
      return Float32Array.from(new Uint8Array(buffer))
  }
}

export interface WrittenTensor {
  shape: Shape
  data: Float32Array
}

/** `as`: how numbers are stored. float16 rounds to the nearest, ties to even. */
export function writeSafetensors(
  tensors: ReadonlyMap<string, WrittenTensor>,
  metadata: Readonly<Record<string, string>> = {},
  as: 'F32' | 'F16' = 'F32',
): Uint8Array {
  const entries: [string, unknown][] = Object.keys(metadata).length ? [['__metadata__', metadata]] : []
  let end = 0
  for (const [name, { shape, data }] of tensors) {
    const from = end
    end += data.length * bytesOf[as]!
    entries.push([name, { dtype: as, shape, data_offsets: [from, end] }])
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries))) // fromEntries: a tensor called __proto__ is a key like others
  const headerLength = Math.ceil(json.length / 8) * 8 // spaces behind it keep the tensors aligned
  const file = new Uint8Array(8 + headerLength + end)
  new DataView(file.buffer).setBigUint64(0, BigInt(headerLength), true)
  file.fill(32, 8, 8 + headerLength)
  file.set(json, 8)
  let at = 8 + headerLength
  for (const { data } of tensors.values()) {
    const stored = as === 'F32' ? data : Uint16Array.from(data, floatToHalf)
    file.set(new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength), at)
    at += stored.byteLength
  }
  return file
}

// ── half precision (IEEE 754 binary16) ──────────────────────────────────────────────────────────────────────────────────────

export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

const word = new Uint32Array(1)
const real = new Float32Array(word.buffer)

export function floatToHalf(value: number): number {
  real[0] = value
  const bits = word[0]!
  const sign = (bits >>> 16) & 0x8000
  const magnitude = Math.abs(real[0])
  if (Number.isNaN(magnitude)) return sign | 0x7e00
  if (magnitude >= 65520) return sign | 0x7c00
  if (magnitude < 2 ** -14) return sign | roundToEven(magnitude * 2 ** 24)
  const exponent = ((bits >>> 23) & 255) - 127
  // a fraction that rounds up to 1024 carries into the exponent, which is what adding does
  return sign | (((exponent + 15) << 10) + roundToEven((magnitude / 2 ** exponent - 1) * 1024))
}

function roundToEven(x: number): number {
  const low = Math.floor(x)
  const rest = x - low
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low
}

const quoted = (text: string) => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
const malformed = (problem: string) => new Failure('safetensors_malformed', { problem })
