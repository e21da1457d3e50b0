/** What a JPEG says of itself before its pixels: read here because asking libvips for it costs a tenth of a whole decoding. */
import { exifOrientation } from './exif.ts'

export interface JpegHeader {
  width: number
  height: number
  /** Bits of a sample, 8 mostly. */
  precision: number
  /** 1 is grey, 3 is colour, 4 is CMYK. */
  components: number
  /** The EXIF block with its "Exif\0\0", where there is one. */
  exif?: Uint8Array
  /** 1 … 8, as EXIF says it. */
  orientation: number
}

/** Steps over segments up to the first frame header (ITU T.81, B.1.1.3); null where there is none in order. Never throws. */
export function jpegHeader(bytes: Uint8Array): JpegHeader | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return null
  let exif: Uint8Array | undefined
  for (let at = 2; at + 10 <= view.byteLength; ) {
    if (view.getUint8(at) !== 0xff) return null
    const marker = view.getUint8(at + 1)
    if (marker === 0xff) {
      at++ // fill
      continue
    }
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd9) || marker === 0xda) return null
    const length = view.getUint16(at + 2)
    if (length < 2) return null
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      const frame = {
        precision: view.getUint8(at + 4),
        height: view.getUint16(at + 5),
        width: view.getUint16(at + 7),
        components: view.getUint8(at + 9),
      }
      return exif ? { ...frame, exif, orientation: exifOrientation(exif) } : { ...frame, orientation: 1 }
    }
    if (marker === 0xe1 && !exif && isExif(bytes, at + 4)) exif = bytes.subarray(at + 4, Math.min(bytes.length, at + 2 + length))
    at += 2 + length
  }
  return null
}

const isExif = (bytes: Uint8Array, at: number) => [0x45, 0x78, 0x69, 0x66, 0, 0].every((byte, index) => bytes[at + index] === byte)

/** Whether a JPEG goes on to its end mark. Within a picture's data no byte ff is followed by d9, so that the mark can be searched for. */
export function hasEndMark(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 2
  while (at + 4 <= view.byteLength && view.getUint8(at) === 0xff && view.getUint8(at + 1) !== 0xda)
    at += view.getUint8(at + 1) === 0xff ? 1 : 2 + view.getUint16(at + 2) // fill, or a segment with a length
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf('ffd9', Math.min(at, bytes.length), 'hex') >= 0
}
