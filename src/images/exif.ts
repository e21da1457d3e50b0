/**
 * When and with what a picture was taken, from its EXIF block (Exif 2.32, TIFF 6.0 inside). A few fields of the first directory and of the one
 * it points to; no other pointer is followed, so that nothing can loop, and nothing outside of the block is read. What is damaged is not there.
 */

export interface Taken {
  /** By the camera's own clock, without a zone, to the millisecond where the camera says it: 2026-05-01T12:00:00.250. */
  captured?: string
  /** Make, model and, where given, serial number. */
  camera?: string
}

const tags = {
  make: 0x010f,
  model: 0x0110,
  orientation: 0x0112,
  exif: 0x8769,
  original: 0x9003,
  digitised: 0x9004,
  fraction: 0x9291,
  serial: 0xa431,
} as const
const mostEntries = 1000
const longestText = 64 // characters kept of a name
const shortestValue = 4 // bytes; longer ones stand elsewhere

/** `bytes`: an EXIF block with or without its "Exif\0\0", or a whole TIFF file. Never throws. */
export function readExif(bytes: Uint8Array): Taken {
  const opened = open(bytes)
  if (!opened) return {}
  const { block, read, first } = opened
  const pointer = first.get(tags.exif)
  const inner = pointer?.long ? directory(read, pointer.long) : new Map<number, Value>()
  const text = (value: Value | undefined) => (value ? textOf(block, value) : '')

  const taken: Taken = {}
  const captured = timeOf(text(inner.get(tags.original)) || text(inner.get(tags.digitised)), text(inner.get(tags.fraction)))
  const camera = cameraOf(text(first.get(tags.make)), text(first.get(tags.model)), text(inner.get(tags.serial)))
  if (captured) taken.captured = captured
  if (camera) taken.camera = camera
  return taken
}

/** 1 … 8; 1, upright, where the block says nothing or nonsense. Never throws. */
export function exifOrientation(bytes: Uint8Array): number {
  const orientation = open(bytes)?.first.get(tags.orientation)?.long ?? 1
  return orientation >= 1 && orientation <= 8 ? orientation : 1
}

function open(bytes: Uint8Array): { block: Buffer; read: Numbers; first: Map<number, Value> } | null {
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(6, bytes.length)).toString('latin1') === 'Exif\0\0' ? 6 : 0
  const block = Buffer.from(bytes.buffer, bytes.byteOffset + start, bytes.length - start)
  const order = block.toString('latin1', 0, 4)
  if (block.length < 14 || (order !== 'II*\0' && order !== 'MM\0*')) return null
  const read = numbersOf(block, order === 'II*\0')
  return { block, read, first: directory(read, read.long(4)) }
}

/** Text (`length` bytes at `at`) or a number (`long`). */
type Value = { at: number; length: number; long: number | null }
type Numbers = { short(at: number): number | null; long(at: number): number | null }

/** null instead of what lies outside. */
function numbersOf(block: Buffer, little: boolean): Numbers {
  return {
    short: at => (at + 2 > block.length ? null : little ? block.readUInt16LE(at) : block.readUInt16BE(at)),
    long: at => (at + 4 > block.length ? null : little ? block.readUInt32LE(at) : block.readUInt32BE(at)),
  }
}

/** Of twelve bytes each: tag, type, count, value or where it stands. Of two entries with one tag the first counts. */
function directory(read: Numbers, at: number | null): Map<number, Value> {
  const found = new Map<number, Value>()
  const entries = at === null ? null : read.short(at)
  if (at === null || entries === null) return found
  for (let entry = at + 2, left = Math.min(entries, mostEntries); left > 0; entry += 12, left--) {
    const [tag, type, count, value] = [read.short(entry), read.short(entry + 2), read.long(entry + 4), read.long(entry + 8)]
    if (tag === null || type === null || count === null || value === null) break
    if (found.has(tag)) continue
    if (type === 2) found.set(tag, { at: count > shortestValue ? value : entry + 8, length: count, long: null })
    if (type === 3 && count === 1) found.set(tag, { at: entry + 8, length: 2, long: read.short(entry + 8) })
    if (type === 4 && count === 1) found.set(tag, { at: entry + 8, length: 4, long: value })
  }
  return found
}

/** Up to the first NUL; control characters are dropped, spaces joined. A length that leads out of the block is cut at its end. */
function textOf(block: Buffer, { at, length }: Value): string {
  const bytes = block.subarray(Math.min(at, block.length), Math.min(at + Math.min(length, 4 * longestText), block.length))
  const end = bytes.indexOf(0)
  const text = bytes.toString('utf8', 0, end < 0 ? bytes.length : end)
  return Array.from(text.replace(/[\p{Cc}\p{Cf}\u2028\u2029\ufffd\s]+/gu, ' ').trim())
    .slice(0, longestText)
    .join('')
}

/** `2026:05:01 12:00:00` and `25` become 2026-05-01T12:00:00.250; clocks that were never set say zeros or spaces and count as none. */
function timeOf(text: string, fraction: string): string | null {
  const parts = /^(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)$/.exec(text)
  if (!parts) return null
  const [, year, month, day, hour, minute, second] = parts as unknown as string[]
  const date = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  if (Number.isNaN(date.getTime()) || date.getUTCDate() !== Number(day) || Number(year) < 1900) return null
  const part = /^\d{1,9}$/.test(fraction) ? `.${fraction.slice(0, 3).padEnd(3, '0')}` : ''
  return `${year}-${month}-${day}T${hour}:${minute}:${second}${part}`
}

/** Many makers repeat their name in the model: "Canon", "Canon EOS 80D". */
function cameraOf(make: string, model: string, serial: string): string | null {
  const repeated = make !== '' && model.toLowerCase().startsWith(make.split(' ')[0]!.toLowerCase())
  const name = [repeated ? '' : make, model].filter(Boolean).join(' ')
  if (name === '') return null
  return serial === '' ? name : `${name} (${serial})`
}
