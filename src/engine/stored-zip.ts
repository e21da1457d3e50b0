/**
 * The zip container of torch.save: entries stored without compression, all of it in memory. Far stricter than a zip reader for
 * people's archives has to be: whatever torch.save does not write is refused, so that two readers can never see two files.
 *
 * Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14–16 (ends), 4.5.3 (zip64).
 */
import { crc32 } from 'node:zlib'
import { malformed, quoted, refused } from './pickle.ts'

const maximumEntries = 1 << 16

/** The entries by name, as ranges of `bytes`. @throws torch_file_refused, torch_file_malformed */
export function readStoredZip(bytes: Uint8Array): Map<string, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const directory = findDirectory(bytes, view)
  const entries = new Map<string, Uint8Array>()
  const ranges: { from: number; to: number }[] = []
  let at = directory.from
  for (let i = 0; i < directory.count; i++) {
    const entry = readCentral(bytes, view, at, directory.to)
    at = entry.next
    if (entries.has(entry.name)) throw refused(`it holds ${quoted(entry.name)} twice`)
    const from = dataStart(bytes, view, entry)
    if (entry.size > directory.from - from) throw malformed(`the entry ${quoted(entry.name)} reaches beyond its end`)
    ranges.push({ from: entry.header, to: from + entry.size })
    const data = bytes.subarray(from, from + entry.size)
    if (crc32(data) !== entry.checksum) throw malformed(`the checksum of ${quoted(entry.name)} is wrong`)
    entries.set(entry.name, data)
  }
  if (at !== directory.to) throw malformed('its directory does not end where it says')
  ranges.sort((a, b) => a.from - b.from)
  if (ranges.some((range, i) => i > 0 && range.from < ranges[i - 1]!.to)) throw refused('two of its entries share bytes')
  return entries
}

/** The end record must be the last thing in the file: no comment, nothing behind it. */
function findDirectory(bytes: Uint8Array, view: DataView): { from: number; to: number; count: number } {
  const end = bytes.length - 22
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) throw malformed('it is a zip that was cut short')
  if (view.getUint32(end + 4, true) !== 0 || view.getUint16(end + 20, true) !== 0) throw refused('it is a zip in several parts')
  let count = view.getUint16(end + 10, true)
  let size = view.getUint32(end + 12, true)
  let from = view.getUint32(end + 16, true)
  let to = end
  const locator = end - 20
  if (locator >= 0 && view.getUint32(locator, true) === 0x07064b50) {
    to = whole(view, locator + 8)
    if (to > locator - 56 || view.getUint32(to, true) !== 0x06064b50) throw malformed('its zip64 end is not where it says')
    count = whole(view, to + 32)
    size = whole(view, to + 40)
    from = whole(view, to + 48)
  }
  if (count > maximumEntries) throw refused(`it holds more than ${maximumEntries} entries`)
  if (from + size !== to) throw malformed('its directory is not where it says')
  return { from, to, count }
}

interface Entry {
  name: string
  size: number
  checksum: number
  /** Offset of the local header. */
  header: number
  /** Offset of the next record of the directory. */
  next: number
}

function readCentral(bytes: Uint8Array, view: DataView, at: number, end: number): Entry {
  if (end - at < 46 || view.getUint32(at, true) !== 0x02014b50) throw malformed('its directory is broken')
  const nameLength = view.getUint16(at + 28, true)
  const extraLength = view.getUint16(at + 30, true)
  const extra = at + 46 + nameLength
  const next = extra + extraLength + view.getUint16(at + 32, true)
  if (next > end) throw malformed('its directory is broken')
  const name = entryName(bytes.subarray(at + 46, extra))
  if (view.getUint16(at + 8, true) & 0x41) throw refused(`the entry ${quoted(name)} is encrypted`)
  if (view.getUint16(at + 10, true) !== 0) throw refused(`the entry ${quoted(name)} is compressed`)

  let packed = view.getUint32(at + 20, true)
  let size = view.getUint32(at + 24, true)
  let header = view.getUint32(at + 42, true)
  // zip64: the extra field 1 holds, in this order, those of the three that say 0xffffffff
  let field = extraField(view, extra, extra + extraLength, 1)
  const wide = (value: number): number => {
    if (value !== 0xffffffff || !field) return value
    if (field.to - field.from < 8) throw malformed('its directory is broken')
    field = { from: field.from + 8, to: field.to }
    return whole(view, field.from - 8)
  }
  size = wide(size)
  packed = wide(packed)
  header = wide(header)
  if (packed !== size) throw malformed(`the entry ${quoted(name)} has two lengths`)
  return { name, size, checksum: view.getUint32(at + 16, true), header, next }
}

/** Where an entry's bytes begin; its own header must tell the same story as the directory. */
function dataStart(bytes: Uint8Array, view: DataView, { name, header }: Entry): number {
  if (bytes.length - header < 30 || view.getUint32(header, true) !== 0x04034b50)
    throw malformed(`the entry ${quoted(name)} is not where it says`)
  const nameEnd = header + 30 + view.getUint16(header + 26, true)
  const start = nameEnd + view.getUint16(header + 28, true)
  if (start > bytes.length) throw malformed(`the entry ${quoted(name)} is not where it says`)
  if (entryName(bytes.subarray(header + 30, nameEnd)) !== name || view.getUint16(header + 8, true) !== 0)
    throw refused(`the entry ${quoted(name)} has two descriptions`)
  return start
}

function entryName(raw: Uint8Array): string {
  if (!raw.length || raw.length > 1024 || raw.some(b => b < 0x20 || b > 0x7e))
    throw refused('an entry of it has a name that torch.save never writes')
  const name = new TextDecoder('latin1').decode(raw)
  if (name.includes('\\') || name.split('/').some(part => part === '..' || part === '.' || part === ''))
    throw refused(`an entry of it is called ${quoted(name)}`)
  return name
}

function extraField(view: DataView, from: number, to: number, id: number): { from: number; to: number } | null {
  for (let at = from; at + 4 <= to; ) {
    const next = at + 4 + view.getUint16(at + 2, true)
    if (next > to) return null
    if (view.getUint16(at, true) === id) return { from: at + 4, to: next }
    at = next
  }
  return null
}

/** A 64-bit length or offset; one that no file in memory can have becomes a number too large for every check. */
const whole = (view: DataView, at: number): number => Number(view.getBigUint64(at, true))
