/**
 * Writes zip archives, byte for byte the same for the same entries: for the samples in the repository, and, because every field can be
 * overruled, for the hostile archives of the tests. Layout: PKWARE APPNOTE.TXT 6.3, sections 4.3.7 to 4.3.16.
 */
import { crc32, deflateRawSync } from 'node:zlib'

export type ZipEntry = {
  name: string | Buffer
  data: Uint8Array
  /** Default: stored, as pictures are packed already. */
  deflate?: boolean
  /** Unix mode with type bits; default a regular file, or a folder where the name ends in a slash. */
  mode?: number
  /** Fields that lie, in both headers or in one. */
  lie?: Partial<Fields>
  lieInLocal?: Partial<Fields & { name: string | Buffer }>
  /** Let the directory point at the local header of another entry. */
  sharesHeaderOf?: number
}
type Fields = { crc: number; packed: number; size: number; method: number; flags: number }

const unicodeNames = 0x800
const date = (2020 - 1980) * 512 + 32 + 1 // 1 January 2020

export function writeZip(entries: readonly ZipEntry[]): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  const offsets: number[] = []
  let at = 0
  for (const entry of entries) {
    const name = Buffer.from(entry.name as string)
    const packed = entry.deflate ? deflateRawSync(entry.data, { level: 9 }) : Buffer.from(entry.data)
    const truth: Fields = {
      crc: crc32(entry.data),
      packed: packed.length,
      size: entry.data.length,
      method: entry.deflate ? 8 : 0,
      flags: unicodeNames,
    }
    const central = { ...truth, ...entry.lie }
    const { name: localName = name, ...local } = { ...central, ...entry.lieInLocal }
    const shared = entry.sharesHeaderOf
    if (shared === undefined) {
      const nameBytes = Buffer.from(localName as string)
      const header = Buffer.concat([signature('PK\x03\x04'), half(20), fields(local), half(nameBytes.length, 0), nameBytes])
      offsets.push(at)
      parts.push(header, packed)
      at += header.length + packed.length
    } else offsets.push(offsets[shared]!)
    const folder = name.at(-1) === 0x2f
    const mode = entry.mode ?? (folder ? 0o040755 : 0o100644)
    const attributes = Buffer.alloc(4)
    attributes.writeUInt32LE(((mode << 16) | (folder ? 0x10 : 0)) >>> 0)
    const version = half(20 + 3 * 256, 20) // made by Unix
    directory.push(
      Buffer.concat([
        signature('PK\x01\x02'),
        version,
        fields(central),
        half(name.length, 0, 0, 0, 0),
        attributes,
        whole(offsets.at(-1)!),
        name,
      ]),
    )
  }
  const central = Buffer.concat(directory)
  const end = Buffer.concat([signature('PK\x05\x06'), half(0, 0, entries.length, entries.length), whole(central.length, at), half(0)])
  return Buffer.concat([...parts, central, end])
}

const signature = (text: string) => Buffer.from(text, 'latin1')
const half = (...values: number[]) => Buffer.from(Uint16Array.from(values).buffer)
const whole = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer)
const fields = ({ flags, method, crc, packed, size }: Fields) => Buffer.concat([half(flags, method, 0, date), whole(crc, packed, size)])
