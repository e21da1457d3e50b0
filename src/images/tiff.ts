/** Camera raw files pass for TIFF; libvips would return the thumbnail that lies first in them. */

const newSubfileType = 254
const dngVersion = 50706

/** True for DNG and for the raw files of makers whose first image is a reduced one. Looks at the first directory only; never throws. */
export function looksLikeRaw(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const little = bytes[0] === 0x49
  if (bytes.length < 8 || view.getUint16(2, little) !== 42) return false
  const at = view.getUint32(4, little)
  if (at + 2 > bytes.length) return false
  const entries = view.getUint16(at, little)
  for (let index = 0, entry = at + 2; index < entries && entry + 12 <= bytes.length; index++, entry += 12) {
    const tag = view.getUint16(entry, little)
    if (tag === dngVersion) return true
    if (tag === newSubfileType && view.getUint32(entry + 8, little) & 1) return true
  }
  return false
}
