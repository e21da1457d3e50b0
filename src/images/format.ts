/**
 * What a file is, told from its first bytes and never from its name: a picture may be called anything, and so may an attack.
 * Formats that are named here but not read exist so that their owner is told what to do instead of "unreadable".
 */

export type ReadFormat = 'jpeg' | 'png' | 'webp' | 'gif' | 'tiff' | 'avif' | 'bmp'
export type RefusedFormat = 'heic' | 'svg' | 'jpeg-xl' | 'jpeg-2000' | 'pdf' | 'psd' | 'ico' | 'raw'
export type Format = ReadFormat | RefusedFormat

/** How the refused formats are called in a sentence, and how to get rid of them. */
export const refused: Record<RefusedFormat, { name: string; convert: string }> = {
  heic: { name: 'a HEIC picture', convert: ': heif-convert in.heic out.jpg, or on the phone: Settings, Camera, Formats, Most Compatible' },
  svg: { name: 'an SVG drawing', convert: ': rsvg-convert -w 512 in.svg -o out.png' },
  'jpeg-xl': { name: 'a JPEG XL picture', convert: ': djxl in.jxl out.png' },
  'jpeg-2000': { name: 'a JPEG 2000 picture', convert: ': opj_decompress -i in.jp2 -o out.png' },
  pdf: { name: 'a PDF', convert: ': pdftoppm -png in.pdf out' },
  psd: { name: 'a Photoshop file', convert: ': magick "in.psd[0]" out.png' },
  ico: { name: 'an icon file', convert: ': magick in.ico out.png' },
  raw: { name: 'a camera raw file', convert: ': darktable-cli in.raw out.jpg' },
}

/** How many first bytes `formatOf` wants to see; fewer are fine. */
export const headBytes = 4096

/** null: not a picture that anybody here knows. */
export function formatOf(bytes: Uint8Array): Format | null {
  const text = (from: number, to: number) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1', from, to)
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return 'jpeg'
  if (text(0, 8) === '\x89PNG\r\n\x1a\n') return 'png'
  if (text(0, 4) === 'RIFF' && text(8, 12) === 'WEBP') return 'webp'
  if (text(0, 6) === 'GIF87a' || text(0, 6) === 'GIF89a') return 'gif'
  if (['II*\0', 'MM\0*', 'II+\0', 'MM\0+'].includes(text(0, 4))) return text(8, 10) === 'CR' ? 'raw' : 'tiff' // Canon's CR2 is a TIFF with a sign
  if (text(4, 8) === 'ftyp')
    return isoFormat(text(8, 12) + text(16, Math.min(256, new DataView(bytes.buffer, bytes.byteOffset).getUint32(0))))
  if (isBitmap(bytes)) return 'bmp'
  if (text(0, 2) === '\xff\x0a' || text(4, 8) === 'JXL ') return 'jpeg-xl'
  if (text(4, 8) === 'jP  ' || text(0, 4) === '\xff\x4f\xff\x51') return 'jpeg-2000'
  if (text(0, 5) === '%PDF-') return 'pdf'
  if (text(0, 4) === '8BPS') return 'psd'
  if (text(0, 4) === '\0\0\x01\0' && bytes[5] === 0 && bytes[4]! > 0) return 'ico'
  if (text(0, 15) === 'FUJIFILMCCD-RAW' || text(0, 4) === 'IIRO' || text(0, 4) === 'IIU\0') return 'raw'
  if (/^(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*<(\?xml|!--|!doctype|svg|[a-z]+:svg)/i.test(text(0, 512).replaceAll('\0', ''))) {
    return /<([a-z]+:)?svg/i.test(text(0, headBytes).replaceAll('\0', '')) ? 'svg' : null
  }
  return null
}

/** ISO base media files say in their brands what they hold; a HEIF container with both is read as AVIF. */
function isoFormat(brands: string): Format | null {
  if (/avi[fs]/.test(brands)) return 'avif'
  if (/hei[cxms]|hev[cxms]|mif1|msf1/.test(brands)) return 'heic'
  if (/^crx /.test(brands)) return 'raw'
  return null
}

/** "BM" alone begins many texts: the size of the header that follows has to be one that exists. */
function isBitmap(bytes: Uint8Array): boolean {
  if (bytes[0] !== 0x42 || bytes[1] !== 0x4d || bytes.length < 18) return false
  const header = new DataView(bytes.buffer, bytes.byteOffset).getUint32(14, true)
  return [12, 16, 40, 52, 56, 64, 108, 124].includes(header)
}
