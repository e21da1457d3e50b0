/** Pictures made for tests, among them what image programs and instruments write but sharp cannot. */
import sharp from 'sharp'

export type Rgb = readonly [number, number, number]
export const red: Rgb = [255, 0, 0]
export const green: Rgb = [0, 255, 0]
export const blue: Rgb = [0, 0, 255]
export const yellow: Rgb = [255, 255, 0]

/** RGB [height, width, 3] from a function of the position. */
export function paint(width: number, height: number, colour: (x: number, y: number) => readonly number[]): Buffer {
  const pixels: number[] = []
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) pixels.push(...colour(x, y))
  return Buffer.from(pixels)
}

/** Four colours in the corners of a 32×16 picture: upper left, upper right, lower left, lower right. */
export const corners = () => paint(32, 16, (x, y) => (y < 8 ? (x < 16 ? red : green) : x < 16 ? blue : yellow))

/** Something with the structure of a photo, the same for the same seed. */
export const scene = (width: number, height: number, seed = 1) =>
  paint(width, height, (x, y) => {
    const wave = (a: number, b: number) => 128 + 60 * Math.sin((x * a + seed) / 9) + 60 * Math.cos((y * b - seed * 3) / 7)
    return [wave(1, 2), wave(2, 1), wave(0.5, 0.3)].map(value => Math.max(0, Math.min(255, Math.round(value))))
  })

export const fromRgb = (data: Buffer, width: number, height: number) => sharp(data, { raw: { width, height, channels: 3 } })

export type TiffSamples = { type: 'uint' | 'int' | 'float'; bits: 8 | 16 | 32 | 64; channels: number; values: readonly number[] }

/** Uncompressed baseline TIFF (revision 6.0) with any sample format; `tags` are added as [tag, type, value]. */
export function tiff(
  width: number,
  height: number,
  { type, bits, channels, values }: TiffSamples,
  tags: readonly [number, number, number][] = [],
): Buffer {
  const bytes = bits / 8
  const data = Buffer.alloc(values.length * bytes)
  for (const [index, value] of values.entries()) {
    if (type === 'float') bits === 32 ? data.writeFloatLE(value, 4 * index) : data.writeDoubleLE(value, 8 * index)
    else if (type === 'int') data.writeIntLE(value, bytes * index, bytes)
    else data.writeUIntLE(value, bytes * index, bytes)
  }
  const short = 3
  const long = 4
  const entries: [number, number, number][] = [
    [256, long, width],
    [257, long, height],
    [258, short, bits],
    [259, short, 1],
    [262, short, channels >= 3 ? 2 : 1],
    [273, long, 8],
    [277, short, channels],
    [278, long, height],
    [279, long, data.length],
    [339, short, { uint: 1, int: 2, float: 3 }[type]],
    ...tags,
  ]
  entries.sort((a, b) => a[0] - b[0])
  // samples of three channels need their bits and formats three times, outside the entry
  const extra = Buffer.alloc(2 * channels * 2)
  for (let channel = 0; channel < channels; channel++) {
    extra.writeUInt16LE(bits, 2 * channel)
    extra.writeUInt16LE({ uint: 1, int: 2, float: 3 }[type], 2 * (channels + channel))
  }
  const at = 8 + data.length
  const directory = Buffer.alloc(2 + 12 * entries.length + 4)
  directory.writeUInt16LE(entries.length)
  for (const [index, [tag, kind, value]] of entries.entries()) {
    const spread = channels > 2 && (tag === 258 || tag === 339)
    const from = 2 + 12 * index
    directory.writeUInt16LE(tag, from)
    directory.writeUInt16LE(kind, from + 2)
    directory.writeUInt32LE(spread ? channels : 1, from + 4)
    directory.writeUInt32LE(spread ? at + (tag === 258 ? 0 : 2 * channels) : value, from + 8)
  }
  const header = Buffer.from('II*\0\0\0\0\0', 'latin1')
  header.writeUInt32LE(at + extra.length, 4)
  return Buffer.concat([header, data, extra, directory])
}

export type BitmapParts = {
  width: number
  height: number
  bits: number
  /** Rows as they stand in the file. */
  rows: readonly (readonly number[])[]
  headerSize?: 12 | 40 | 108 | 124
  compression?: number
  palette?: readonly Rgb[]
  masks?: readonly number[]
  /** Rows from the top, which a negative height says. */
  topDown?: boolean
  padded?: boolean
}

/** A Windows bitmap, field by field. */
export function bitmap({
  width,
  height,
  bits,
  rows,
  headerSize = 40,
  compression = 0,
  palette = [],
  masks = [],
  topDown = false,
  padded = true,
}: BitmapParts): Buffer {
  const header = Buffer.alloc(headerSize)
  header.writeUInt32LE(headerSize, 0)
  if (headerSize === 12) {
    header.writeUInt16LE(width, 4)
    header.writeUInt16LE(height, 6)
    header.writeUInt16LE(1, 8)
    header.writeUInt16LE(bits, 10)
  } else {
    header.writeInt32LE(width, 4)
    header.writeInt32LE(topDown ? -height : height, 8)
    header.writeUInt16LE(1, 12)
    header.writeUInt16LE(bits, 14)
    header.writeUInt32LE(compression, 16)
    header.writeUInt32LE(palette.length, 32)
    if (headerSize > 40) for (const [index, mask] of masks.entries()) header.writeUInt32LE(mask >>> 0, 40 + 4 * index)
  }
  const after = headerSize === 40 ? Buffer.concat(masks.map(mask => uint32(mask))) : Buffer.alloc(0)
  const colours = Buffer.concat(palette.map(([r, g, b]) => Buffer.from(headerSize === 12 ? [b, g, r] : [b, g, r, 0])))
  const data = Buffer.concat(rows.map(row => Buffer.from(padded ? [...row, ...Array(-row.length & 3).fill(0)] : row)))
  const offset = 14 + header.length + after.length + colours.length
  const file = Buffer.concat([Buffer.from('BM'), uint32(offset + data.length), uint32(0), uint32(offset)])
  return Buffer.concat([file, header, after, colours, data])
}

const uint32 = (value: number) => {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value >>> 0)
  return buffer
}
