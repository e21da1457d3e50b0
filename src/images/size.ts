/** What size a file says it has, from its header alone: to make room for it. The decoder believes nothing of it. */
import { jpegHeader } from './jpeg.ts'

/** Pixels, or null where they are not where we look for them (TIFF, AVIF, damage). Never throws. */
export function claimedPixels(bytes: Uint8Array): number | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.byteLength < 30) return null
  switch (view.getUint16(0)) {
    case 0x8950: // PNG: IHDR comes first
      return Math.min(view.getUint32(16) * view.getUint32(20), Number.MAX_SAFE_INTEGER)
    case 0x4749: // GIF
      return view.getUint16(6, true) * view.getUint16(8, true)
    case 0x424d: // BMP
      return Math.min(Math.abs(view.getInt32(18, true) * view.getInt32(22, true)), Number.MAX_SAFE_INTEGER)
    case 0x5249: // RIFF: WebP
      return webpPixels(view)
    case 0xffd8: {
      const header = jpegHeader(bytes)
      return header && header.width * header.height
    }
    default:
      return null
  }
}

function webpPixels(view: DataView): number | null {
  switch (view.getUint32(12)) {
    case 0x56503858: // VP8X: two sizes of 24 bits, less one
      return ((view.getUint32(24, true) & 0xffffff) + 1) * ((view.getUint32(26, true) >>> 8) + 1)
    case 0x5650384c: {
      // VP8L: two sizes of 14 bits, less one
      const bits = view.getUint32(21, true)
      return ((bits & 0x3fff) + 1) * (((bits >>> 14) & 0x3fff) + 1)
    }
    case 0x56503820: // VP8
      return (view.getUint16(26, true) & 0x3fff) * (view.getUint16(28, true) & 0x3fff)
    default:
      return null
  }
}
