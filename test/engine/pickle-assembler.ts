/** Writes pickles and torch.save containers byte by byte, so that the tests can make files that Python would never make. */
import { crc32 } from 'node:zlib'

type Part = number | string | Uint8Array | readonly Part[]
/** Numbers are bytes, strings their ASCII bytes. */
export const bytes = (...parts: Part[]): Buffer =>
  Buffer.concat(
    parts.map(part =>
      typeof part === 'number'
        ? Buffer.of(part)
        : typeof part === 'string'
          ? Buffer.from(part, 'latin1')
          : part instanceof Uint8Array
            ? part
            : bytes(...part),
    ),
  )

const u32 = (value: number) => {
  const b = Buffer.alloc(4)
  b.writeUInt32LE(value)
  return b
}
export const op = {
  proto: [0x80, 2],
  mark: '(',
  stop: '.',
  none: 'N',
  true: 0x88,
  emptyTuple: ')',
  emptyList: ']',
  emptyDict: '}',
  tuple: 't',
  tuple1: 0x85,
  tuple2: 0x86,
  tuple3: 0x87,
  append: 'a',
  setItem: 's',
  setItems: 'u',
  reduce: 'R',
  build: 'b',
  persistent: 'Q',
  put: (index: number) => ['q', index],
  get: (index: number) => ['h', index],
  longPut: (index: number) => ['r', u32(index)],
  text: (value: string) => ['X', u32(Buffer.byteLength(value)), Buffer.from(value)],
  int: (value: number) => ['J', u32(value >>> 0)],
  long: (value: bigint, length = 8) => {
    const b = Buffer.alloc(length)
    let rest = BigInt.asUintN(8 * length, value)
    for (let i = 0; i < length; i++, rest >>= 8n) b[i] = Number(rest & 255n)
    return [0x8a, length, b]
  },
  global: (module: string, name: string) => ['c', `${module}\n${name}\n`],
} as const

export interface TensorSpec {
  key?: string
  elements?: number
  offset?: number
  shape?: readonly (number | bigint)[]
  strides?: readonly (number | bigint)[]
  storage?: string
}
const numbers = (values: readonly (number | bigint)[]) => [
  op.mark,
  ...values.map(v => (typeof v === 'bigint' ? op.long(v) : op.int(v))),
  op.tuple,
]

/** The value `torch._utils._rebuild_tensor_v2(storage, …)`; by default a whole storage of two float32. */
export const tensor = (t: TensorSpec = {}, idTail: Part = []): Part => [
  op.global('torch._utils', '_rebuild_tensor_v2'),
  op.mark,
  [
    op.mark,
    op.text('storage'),
    op.global('torch', t.storage ?? 'FloatStorage'),
    op.text(t.key ?? '0'),
    op.text('cpu'),
    op.long(BigInt(t.elements ?? 2)),
    idTail,
    op.tuple,
    op.persistent,
  ],
  op.int(t.offset ?? 0),
  numbers(t.shape ?? [2]),
  numbers(t.strides ?? [1]),
  0x89,
  [op.global('collections', 'OrderedDict'), op.emptyTuple, op.reduce],
  op.tuple,
  op.reduce,
]
export const dictionary = (entries: readonly (readonly [string, Part])[]): Part => [
  op.emptyDict,
  op.mark,
  ...entries.map(([name, value]) => [op.text(name), value]),
  op.setItems,
]
export const pickle = (...value: Part[]): Buffer => bytes(op.proto, ...value, op.stop)

export const twoFloats = Buffer.from(Float32Array.of(1, 2).buffer)

// ── containers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface ZipEntry {
  name: string
  data: Uint8Array
  method?: number
  /** Said in the directory, where it differs from the truth. */
  centralName?: string
  centralSize?: number
  crc?: number
  flags?: number
  /** Bytes of another entry instead of its own. */
  header?: number
}
export function zip(entries: readonly ZipEntry[]): Buffer {
  const locals: Buffer[] = []
  const centrals: Buffer[] = []
  let at = 0
  for (const {
    name,
    data,
    method = 0,
    centralName = name,
    centralSize = data.length,
    crc = crc32(data),
    flags = 0,
    header = at,
  } of entries) {
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(method, 8)
    local.writeUInt16LE(Buffer.byteLength(name), 26)
    const whole = Buffer.concat([local, Buffer.from(name), data])
    const central = Buffer.alloc(46)
    central.writeUInt32LE(0x02014b50, 0)
    central.writeUInt16LE(flags, 8)
    central.writeUInt16LE(method, 10)
    central.writeUInt32LE(crc, 16)
    central.writeUInt32LE(centralSize, 20)
    central.writeUInt32LE(centralSize, 24)
    central.writeUInt16LE(Buffer.byteLength(centralName), 28)
    central.writeUInt32LE(header, 42)
    locals.push(whole)
    centrals.push(central, Buffer.from(centralName))
    at += whole.length
  }
  const directory = Buffer.concat(centrals)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(directory.length, 12)
  end.writeUInt32LE(at, 16)
  return Buffer.concat([...locals, directory, end])
}

/** What torch.save writes today, around a pickle. */
export const zipFile = (
  data: Uint8Array,
  storages: Record<string, Uint8Array> = { 0: twoFloats },
  more: readonly ZipEntry[] = [],
): Buffer =>
  zip([
    { name: 'archive/data.pkl', data },
    { name: 'archive/byteorder', data: Buffer.from('little') },
    ...Object.entries(storages).map(([key, data]) => ({ name: `archive/data/${key}`, data })),
    ...more,
  ])

/** What torch.save wrote before 1.6. */
export function legacyFile(data: Uint8Array, storages: Record<string, Uint8Array> = { 0: twoFloats }, bytesPerElement = 4): Buffer {
  const keys = Object.keys(storages)
  return bytes(
    pickle(op.long(0x1950a86a20f9469cfc6cn, 10)),
    pickle(op.int(1001)),
    pickle(
      dictionary([
        ['protocol_version', op.int(1001)],
        ['little_endian', op.true],
        ['type_sizes', dictionary([['int', op.int(4)]])],
      ]),
    ),
    data,
    pickle(op.emptyList, op.mark, ...keys.map(op.text), 'e'),
    ...keys.map(key => {
      const length = Buffer.alloc(8)
      length.writeBigUInt64LE(BigInt(storages[key]!.length / bytesPerElement))
      return [length, storages[key]!]
    }),
  )
}
