/**
 * Windows bitmaps, which libvips as shipped cannot read: all header generations from OS/2 1.x to version 5, 1 to 32 bits a pixel, palettes,
 * bit masks, run lengths, either row order. Written for hostile bytes: every read is inside the file, and nothing is allocated before
 * the size was checked. Layout: Microsoft's BITMAPFILEHEADER and BITMAPV5HEADER pages; run lengths: "Bitmap Compression" there.
 */
import { Failure } from '../failure.ts'

const damaged = (reason: string) => new Failure('image_unreadable', { reason })
const compressions = { none: 0, rle8: 1, rle4: 2, masks: 3, masksWithAlpha: 6 } as const

type Header = {
  width: number
  height: number
  topDown: boolean
  bits: number
  compression: number
  /** Where pixels begin. */
  offset: number
  /** RGB triples. */
  palette: Uint8Array
  /** red, green, blue, alpha */
  masks: readonly [number, number, number, number]
}

/** Returns RGB [height, width, 3] on white. Throws image_unreadable, image_too_large. */
export function decodeBitmap(bytes: Uint8Array, maxPixels: number): { width: number; height: number; data: Uint8Array; flags: string[] } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const header = readHeader(view, maxPixels)
  const data =
    header.compression === compressions.rle8 || header.compression === compressions.rle4
      ? runLengths(view, header)
      : header.bits <= 8
        ? palettePixels(view, header)
        : maskedPixels(view, header)
  const flags: string[] = []
  if (header.bits <= 8) flags.push('palette')
  if (data.alpha) flags.push('alpha')
  return { width: header.width, height: header.height, data: data.rgb, flags }
}

function readHeader(view: DataView, maxPixels: number): Header {
  if (view.byteLength < 26) throw damaged('the bitmap ends within its header')
  const size = view.getUint32(14, true)
  const old = size === 12 // OS/2 1.x: 16-bit sizes, palette of three bytes
  if (view.byteLength < 14 + size) throw damaged('the bitmap ends within its header')
  const width = old ? view.getUint16(18, true) : view.getInt32(18, true)
  const signedHeight = old ? view.getUint16(20, true) : view.getInt32(22, true)
  const height = Math.abs(signedHeight)
  if (width <= 0 || height === 0) throw damaged('the bitmap says it has no size')
  if (width * height > maxPixels) throw new Failure('image_too_large', { size: `${width}×${height} pixels`, limit: `${maxPixels} pixels` })
  const bits = view.getUint16(old ? 24 : 28, true)
  const compression = size >= 20 && !old ? view.getUint32(30, true) : compressions.none
  const fits: Record<number, number[]> = { 0: [1, 2, 4, 8, 16, 24, 32], 1: [8], 2: [4], 3: [16, 32], 6: [16, 32] }
  if (!fits[compression]?.includes(bits)) throw damaged(`a bitmap of ${bits} bits with compression ${compression} is not known`)

  const offset = view.getUint32(10, true)
  let behind = 14 + size
  let masks: Header['masks'] = bits === 16 ? [0x7c00, 0x3e0, 0x1f, 0] : [0xff0000, 0xff00, 0xff, 0]
  if (compression === compressions.masks || compression === compressions.masksWithAlpha) {
    // header version 2 and later hold the masks, version 1 is followed by them: the same place
    const withAlpha = size >= 56 || compression === compressions.masksWithAlpha
    if (view.byteLength < 54 + (withAlpha ? 16 : 12)) throw damaged('the bitmap ends within its masks')
    const mask = (index: number) => view.getUint32(54 + 4 * index, true)
    masks = [mask(0), mask(1), mask(2), withAlpha ? mask(3) : 0]
    if (size === 40) behind += withAlpha ? 16 : 12
  }

  const entry = old ? 3 : 4
  const said = size >= 40 ? view.getUint32(46, true) : 0
  const count =
    bits > 8 ? 0 : Math.min(1 << bits, said || 1 << bits, Math.max(0, Math.floor((Math.min(offset, view.byteLength) - behind) / entry)))
  const palette = new Uint8Array(3 * (bits > 8 ? 0 : 1 << bits)) // entries that are not there are black
  for (let index = 0; index < count; index++) {
    const at = behind + entry * index
    palette[3 * index] = view.getUint8(at + 2)
    palette[3 * index + 1] = view.getUint8(at + 1)
    palette[3 * index + 2] = view.getUint8(at)
  }
  return { width, height, topDown: signedHeight < 0, bits, compression, offset, palette, masks }
}

type Pixels = { rgb: Uint8Array; alpha: boolean }
const rowOf = ({ topDown, height }: Header, line: number) => (topDown ? line : height - 1 - line)

function wholeRows(view: DataView, { width, height, bits, offset }: Header): number {
  const stride = Math.ceil((width * bits) / 32) * 4
  // the padding of the last row is often left out
  if (offset + stride * (height - 1) + Math.ceil((width * bits) / 8) > view.byteLength) throw damaged('the file is cut short')
  return stride
}

function palettePixels(view: DataView, header: Header): Pixels {
  const { width, height, bits, offset, palette } = header
  const stride = wholeRows(view, header)
  const rgb = new Uint8Array(3 * width * height)
  const perByte = 8 / bits
  for (let line = 0; line < height; line++) {
    let to = 3 * width * rowOf(header, line)
    for (let x = 0; x < width; x++) {
      const byte = view.getUint8(offset + stride * line + Math.floor(x / perByte))
      const index = 3 * ((byte >> (8 - bits - bits * (x % perByte))) & ((1 << bits) - 1))
      rgb[to++] = palette[index]!
      rgb[to++] = palette[index + 1]!
      rgb[to++] = palette[index + 2]!
    }
  }
  return { rgb, alpha: false }
}

function maskedPixels(view: DataView, header: Header): Pixels {
  const { width, height, bits, offset } = header
  const stride = wholeRows(view, header)
  const [red, green, blue, alpha] = header.masks.map(channel) as [Channel, Channel, Channel, Channel]
  const bytes = bits / 8
  const pixel = (line: number, x: number) => {
    const at = offset + stride * line + bytes * x
    if (bits === 16) return view.getUint16(at, true)
    return bits === 32 ? view.getUint32(at, true) : view.getUint16(at, true) | (view.getUint8(at + 2) << 16)
  }
  // an alpha channel that is zero everywhere was never written: programs show such pictures opaque
  let translucent = false
  if (header.masks[3] !== 0) {
    let seen = false
    for (let line = 0; line < height && !seen; line++) for (let x = 0; x < width && !seen; x++) seen = alpha(pixel(line, x)) > 0
    translucent = seen
  }
  const rgb = new Uint8Array(3 * width * height)
  for (let line = 0; line < height; line++) {
    let to = 3 * width * rowOf(header, line)
    for (let x = 0; x < width; x++) {
      const value = pixel(line, x)
      const opacity = translucent ? alpha(value) / 255 : 1
      for (const part of [red, green, blue]) rgb[to++] = Math.round(part(value) * opacity + 255 * (1 - opacity))
    }
  }
  return { rgb, alpha: translucent }
}

type Channel = (value: number) => number
/** Takes the bits of a mask out of a pixel and stretches them to 0…255. */
function channel(mask: number): Channel {
  if (mask === 0) return () => 0
  const shift = 31 - Math.clz32(mask & -mask)
  const most = mask >>> shift
  return value => Math.min(255, Math.round((((value & mask) >>> shift) * 255) / most))
}

/** Pixels that no run reaches stay palette entry 0, as Windows draws them. */
function runLengths(view: DataView, header: Header): Pixels {
  const { width, height, bits, palette } = header
  // two bytes make 255 pixels at most: whoever claims more wants memory
  if (width * height > 128 * view.byteLength) throw damaged('the file is cut short')
  const indices = new Uint8Array(width * height)
  let at = header.offset
  let x = 0
  let line = 0
  const next = () => {
    if (at >= view.byteLength) throw damaged('the file is cut short')
    return view.getUint8(at++)
  }
  const put = (index: number) => {
    if (x < width && line < height) indices[width * rowOf(header, line) + x] = index
    x++
  }
  for (;;) {
    if (line >= height && at >= view.byteLength) break // the end mark is missing, the picture is not
    const count = next()
    const value = next()
    if (count > 0) {
      for (let index = 0; index < count; index++) put(bits === 8 ? value : index % 2 === 0 ? value >> 4 : value & 15)
    } else if (value === 0) {
      x = 0
      line++
    } else if (value === 1) break
    else if (value === 2) {
      x += next()
      line += next()
    } else {
      let byte = 0
      for (let index = 0; index < value; index++) {
        if (bits === 8 || index % 2 === 0) byte = next()
        put(bits === 8 ? byte : index % 2 === 0 ? byte >> 4 : byte & 15)
      }
      if (Math.ceil((value * bits) / 8) % 2 === 1 && at < view.byteLength) at++ // runs of single pixels end on even bytes
    }
  }
  const rgb = new Uint8Array(3 * width * height)
  for (let pixel = 0; pixel < indices.length; pixel++) {
    const index = 3 * indices[pixel]!
    rgb[3 * pixel] = palette[index]!
    rgb[3 * pixel + 1] = palette[index + 1]!
    rgb[3 * pixel + 2] = palette[index + 2]!
  }
  return { rgb, alpha: false }
}
