/**
 * Reads the tensors of a PyTorch weights file (.pth, .pt, .bin of torch.save), the zip container of PyTorch 1.6 and later and
 * the older one alike, without executing anything in it: see pickle.ts. Only dictionaries of tensors come out; a file that holds
 * a whole module, or code, is refused.
 *
 * Source of the formats: PyTorch, torch/serialization.py (`_save`, `_legacy_save`). Nothing is allocated on the word of a header:
 * a storage is a range of the given bytes, and a tensor may not be larger than the storage it looks at.
 */
import {
  malformed,
  PickleDictionary,
  type PickleHost,
  PickleList,
  PickleObject,
  PickleTuple,
  type PickleValue,
  quoted,
  readPickle,
  refused,
  setItem,
} from './pickle.ts'
import { readStoredZip } from './stored-zip.ts'

export interface TorchTensor {
  shape: readonly number[]
  /** Whatever it was in the file: half, bfloat16, double and whole numbers become float32 (whole numbers beyond 2²⁴ are rounded). */
  data: Float32Array
}

/**
 * Tensors by name. A checkpoint that keeps its weights under `state_dict`, `model_state_dict`, `model` or `state_dict_ema` gives
 * those; other values beside tensors (epoch, arguments) are left out.
 * @throws torch_file_refused when the file asks for more than data, torch_file_malformed when it is broken
 */
export function readTorchFile(bytes: Uint8Array): Map<string, TorchTensor> {
  const { root, storageBytes } = startsWith(bytes, [0x50, 0x4b, 3, 4]) ? readZip(bytes) : readLegacy(bytes)
  const result = new Map<string, TorchTensor>()
  let budget = 2 * bytes.length // elements; sharing one storage among many tensors must not multiply a small file
  for (const [name, view] of tensorsOf(root)) {
    budget -= view.elements
    if (budget < 0) throw refused('its tensors share their storages so often that they would fill the memory')
    result.set(name, { shape: view.shape, data: materialise(name, view, storageBytes(view.storage)) })
  }
  return result
}

// ── what the pickles may name ───────────────────────────────────────────────────────────────────────────────────────────────

/** Element types by storage class: bytes an element, and how one is read. */
const storageTypes = {
  FloatStorage: { size: 4, read: (v: DataView, at: number) => v.getFloat32(at, true) },
  DoubleStorage: { size: 8, read: (v: DataView, at: number) => v.getFloat64(at, true) },
  HalfStorage: { size: 2, read: (v: DataView, at: number) => v.getFloat16(at, true) },
  BFloat16Storage: { size: 2, read: (v: DataView, at: number) => fromBits(v.getUint16(at, true) << 16) },
  LongStorage: { size: 8, read: (v: DataView, at: number) => Number(v.getBigInt64(at, true)) },
  IntStorage: { size: 4, read: (v: DataView, at: number) => v.getInt32(at, true) },
  ShortStorage: { size: 2, read: (v: DataView, at: number) => v.getInt16(at, true) },
  CharStorage: { size: 1, read: (v: DataView, at: number) => v.getInt8(at) },
  ByteStorage: { size: 1, read: (v: DataView, at: number) => v.getUint8(at) },
  BoolStorage: { size: 1, read: (v: DataView, at: number) => (v.getUint8(at) ? 1 : 0) },
} as const
type StorageType = keyof typeof storageTypes

const bits = new DataView(new ArrayBuffer(4))
function fromBits(value: number): number {
  bits.setInt32(0, value)
  return bits.getFloat32(0)
}

class Storage {
  readonly key: string
  readonly type: StorageType
  readonly elements: number
  constructor(key: string, type: StorageType, elements: number) {
    this.key = key
    this.type = type
    this.elements = elements
  }
}
class TensorView {
  readonly storage: Storage
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
  readonly elements: number
  constructor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage
    this.offset = offset
    this.shape = shape
    this.strides = strides
    this.elements = checkedElements(this)
  }
}
/** A class of storages, as the pickle names it. The functions it names are plain words here. */
class StorageClass {
  readonly type: StorageType
  constructor(type: StorageType) {
    this.type = type
  }
}

function torchHost(idLength: 5 | 6): PickleHost & { storages: Map<string, Storage> } {
  const storages = new Map<string, Storage>()
  return {
    storages,
    global(module, name) {
      if (module === 'collections' && name === 'OrderedDict') return new PickleObject(name)
      if (module === 'torch._utils' && (name === '_rebuild_tensor_v2' || name === '_rebuild_parameter')) return new PickleObject(name)
      if ((module === 'torch' || module === 'torch.cuda') && Object.hasOwn(storageTypes, name))
        return new PickleObject(new StorageClass(name as StorageType))
      throw refused(`it asks for ${quoted(`${module}.${name}`)}, which is not needed for weights`)
    },
    call(callable, { items }) {
      switch (callable.value) {
        case 'OrderedDict':
          return orderedDictionary(items)
        case '_rebuild_tensor_v2':
          return rebuildTensor(items)
        case '_rebuild_parameter': // (data, requires_grad, backward_hooks)
          if (items.length !== 3 || !isObject(items[0], TensorView)) throw malformed('a parameter in it is not made of a tensor')
          return items[0]
        default:
          throw refused('a pickle in it calls something that is not a function')
      }
    },
    persistent({ items }) {
      const [kind, type, key, location, elements, view = null] = items
      if (
        items.length !== idLength ||
        kind !== 'storage' ||
        !isObject(type, StorageClass) ||
        typeof key !== 'string' ||
        typeof location !== 'string'
      )
        throw refused('a pickle in it refers to outside data in a way torch.save never does')
      if (!isCount(elements)) throw malformed('a storage in it has an impossible size')
      if (view !== null) throw refused('a storage in it is a view of another one')
      const known = storages.get(key)
      if (known && (known.type !== type.value.type || known.elements !== elements)) throw malformed('a storage in it has two descriptions')
      const storage = known ?? new Storage(key, type.value.type, elements)
      storages.set(key, storage)
      return new PickleObject(storage)
    },
  }
}

/** `OrderedDict()`, or `OrderedDict([[key, value], …])` as Python 2 pickled it. */
function orderedDictionary(items: readonly PickleValue[]): PickleDictionary {
  const dictionary = new PickleDictionary()
  if (!items.length) return dictionary
  const [pairs] = items
  if (items.length !== 1 || !(pairs instanceof PickleList)) throw malformed('an OrderedDict in it is made in an unknown way')
  for (const pair of pairs.items) {
    if (!(pair instanceof PickleList || pair instanceof PickleTuple) || pair.items.length !== 2)
      throw malformed('an OrderedDict in it is made in an unknown way')
    setItem(dictionary, pair.items[0]!, pair.items[1]!)
  }
  return dictionary
}

/** (storage, offset, size, stride, requires_grad, backward_hooks[, metadata]) */
function rebuildTensor(items: readonly PickleValue[]): PickleObject<TensorView> {
  const [storage, offset, size, stride] = items
  if (items.length < 6 || items.length > 7 || !isObject(storage, Storage)) throw malformed('a tensor in it is not made of a storage')
  if (!isCount(offset) || !isCounts(size) || !isCounts(stride) || size.items.length !== stride.items.length)
    throw malformed('a tensor in it has an impossible shape')
  return new PickleObject(new TensorView(storage.value, offset, size.items, stride.items))
}

const isCount = (value: PickleValue | undefined): value is number => Number.isSafeInteger(value) && (value as number) >= 0
const isCounts = (value: PickleValue | undefined): value is PickleTuple & { items: readonly number[] } =>
  value instanceof PickleTuple && value.items.length <= 32 && value.items.every(isCount)
const isObject = <T>(value: PickleValue | undefined, type: new (...of: never[]) => T): value is PickleObject<T> =>
  value instanceof PickleObject && value.value instanceof type

/** The number of elements, after making sure that the view lies inside its storage and is not larger than it. */
function checkedElements({ storage, offset, shape, strides }: TensorView): number {
  if (shape.includes(0)) return 0
  let elements = 1
  let last = offset
  for (const [axis, size] of shape.entries()) {
    elements *= size
    last += (size - 1) * strides[axis]!
    if (elements > storage.elements || last >= storage.elements) throw refused('a tensor in it reaches beyond its storage')
  }
  if (last >= storage.elements) throw refused('a tensor in it reaches beyond its storage')
  return elements
}

// ── the two containers ──────────────────────────────────────────────────────────────────────────────────────────────────────

interface Contents {
  root: PickleValue
  storageBytes(storage: Storage): Uint8Array
}

/** PyTorch 1.6 and later: a zip of stored entries; `<folder>/data.pkl`, `<folder>/data/<key>`. */
function readZip(bytes: Uint8Array): Contents {
  const entries = readStoredZip(bytes)
  const pickles = [...entries.keys()].filter(name => name.endsWith('/data.pkl') || name === 'data.pkl')
  if (pickles.length !== 1) throw malformed(pickles.length ? 'it holds more than one data.pkl' : 'it is a zip without data.pkl')
  const folder = pickles[0]!.slice(0, -'data.pkl'.length)
  if (folder.indexOf('/') !== folder.length - 1) throw malformed('its data.pkl is not where torch.save puts it')
  if ([...entries.keys()].some(name => name.startsWith(`${folder}code/`) || name === `${folder}constants.pkl`))
    throw refused('it holds a TorchScript program')
  const order = entries.get(`${folder}byteorder`)
  if (order && new TextDecoder('latin1').decode(order.subarray(0, 16)) !== 'little') throw refused('it was written on a big-endian machine')

  const host = torchHost(5)
  const pickle = entries.get(pickles[0]!)!
  const { value, end } = readPickle(pickle, 0, host)
  if (end !== pickle.length) throw malformed('something follows the pickle in data.pkl')
  return {
    root: value,
    storageBytes(storage) {
      const data = entries.get(`${folder}data/${storage.key}`)
      if (data?.length !== storage.elements * storageTypes[storage.type].size)
        throw malformed('a storage is missing or has the wrong length')
      return data
    },
  }
}

/** Before PyTorch 1.6: five pickles (magic number, version, machine, data, storage keys), then the storages: length, bytes. */
function readLegacy(bytes: Uint8Array): Contents {
  const nothing: PickleHost = {
    global: (module, name) => torchHost(6).global(module, name),
    call: () => {
      throw refused('it calls something before its data begin')
    },
    persistent: () => {
      throw refused('it refers to storages before its data begin')
    },
  }
  if (bytes[0] !== 0x80) throw malformed('it starts like neither kind of PyTorch file')
  const magic = readPickle(bytes, 0, nothing)
  if (magic.value !== 0x1950a86a20f9469cfc6cn) throw malformed('it starts like neither kind of PyTorch file')
  const version = readPickle(bytes, magic.end, nothing)
  if (version.value !== 1001) throw refused('it has an unknown version of the older format')
  const machine = readPickle(bytes, version.end, nothing)
  if (!(machine.value instanceof PickleDictionary)) throw malformed('it does not say on what machine it was written')
  if (machine.value.entries.get('little_endian') !== true) throw refused('it was written on a big-endian machine')

  const host = torchHost(6)
  const data = readPickle(bytes, machine.end, host)
  const keys = readPickle(bytes, data.end, nothing)
  if (!(keys.value instanceof PickleList)) throw malformed('it has no list of storages')

  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const ranges = new Map<string, Uint8Array>()
  let at = keys.end
  for (const key of keys.value.items) {
    const storage = typeof key === 'string' && !ranges.has(key) ? host.storages.get(key) : undefined
    if (!storage) throw malformed('its list of storages does not fit its data')
    if (bytes.length - at < 8 || view.getBigInt64(at, true) !== BigInt(storage.elements)) throw malformed('a storage has the wrong length')
    const length = storage.elements * storageTypes[storage.type].size
    if (length > bytes.length - at - 8) throw malformed('it ends in the middle of a storage')
    ranges.set(storage.key, bytes.subarray(at + 8, at + 8 + length))
    at += 8 + length
  }
  if (at !== bytes.length) throw malformed('something follows its last storage')
  return {
    root: data.value,
    storageBytes(storage) {
      const range = ranges.get(storage.key)
      if (!range) throw malformed('a storage is missing')
      return range
    },
  }
}

const startsWith = (bytes: Uint8Array, start: readonly number[]) => start.every((b, i) => bytes[i] === b)

// ── from views to numbers ───────────────────────────────────────────────────────────────────────────────────────────────────

function tensorsOf(root: PickleValue): [string, TensorView][] {
  const whole = directTensors(root)
  if (whole.length) return whole
  if (root instanceof PickleDictionary)
    for (const key of ['state_dict', 'model_state_dict', 'model', 'state_dict_ema']) {
      const inner = directTensors(root.entries.get(key))
      if (inner.length) return inner
    }
  throw refused('it holds no dictionary of tensors')
}
const directTensors = (value: PickleValue | undefined): [string, TensorView][] =>
  value instanceof PickleDictionary
    ? [...value.entries].flatMap(([name, item]) =>
        typeof name === 'string' && isObject(item, TensorView) ? [[name, item.value] as [string, TensorView]] : [],
      )
    : []

function materialise(name: string, { storage, offset, shape, strides, elements }: TensorView, bytes: Uint8Array): Float32Array {
  const { size, read } = storageTypes[storage.type]
  if (bytes.length !== storage.elements * size) throw malformed(`the storage of ${quoted(name)} has the wrong length`)
  const data = new Float32Array(elements)
  if (!elements) return data
  if (storage.type === 'FloatStorage' && isContiguous(shape, strides)) {
    // one copy instead of one read a number (the bytes need not be aligned, so no view)
    new Uint8Array(data.buffer).set(bytes.subarray(offset * 4, (offset + elements) * 4))
    return data
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const index = shape.map(() => 0)
  let at = offset
  for (let i = 0; i < elements; i++) {
    data[i] = read(view, at * size)
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!
      if (++index[axis]! < shape[axis]!) break
      at -= strides[axis]! * shape[axis]!
      index[axis] = 0
    }
  }
  return data
}

/** Row by row without gaps; the stride of an axis of length 1 says nothing. */
function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false
    expected *= shape[axis]!
  }
  return true
}
