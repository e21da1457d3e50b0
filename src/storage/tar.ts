/**
 * Tar archives of regular files and nothing else (POSIX.1-2017 pax interchange format), written and read as streams. What is read may come
 * from a stranger: links, devices, folders and everything unknown are refused, sizes are believed only as far as bytes arrive.
 */
import { Failure } from '../failure.ts'

const block = 512
/** Of an extended header: a path and a size need a few hundred. */
const longestHeader = 64 * 1024

export interface TarFile {
  name: string
  bytes: number
  /** Milliseconds since 1970. */
  modified: number
}

/** The bytes of one file, its header in front. `content` must yield exactly `bytes`. */
export async function* tarred({ name, bytes, modified }: TarFile, content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const plain = Buffer.byteLength(name) <= 100 && /^[\x20-\x7e]+$/.test(name) && bytes < 8 ** 11
  if (!plain) {
    const records = Buffer.from(`${record('path', name)}${record('size', String(bytes))}`)
    yield header({ name: 'pax', bytes: records.length, modified }, 'x')
    yield padded(records)
  }
  yield header(plain ? { name, bytes, modified } : { name: 'file', bytes: bytes < 8 ** 11 ? bytes : 0, modified }, '0')
  let written = 0
  for await (const chunk of content) {
    written += chunk.length
    yield chunk
  }
  if (written !== bytes) throw new Error(`${name} has ${written} bytes instead of ${bytes}`)
  if (bytes % block > 0) yield Buffer.alloc(block - (bytes % block))
}

export const tarEnd = (): Uint8Array => Buffer.alloc(2 * block)

/** `27 path=some/name\n`: the length counts itself. */
function record(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`)
  let length = rest + 1
  while (length !== rest + String(length).length) length = rest + String(length).length
  return `${length} ${key}=${value}\n`
}

function header({ name, bytes, modified }: TarFile, type: '0' | 'x'): Buffer {
  const head = Buffer.alloc(block)
  const octal = (value: number, width: number) => `${value.toString(8).padStart(width - 1, '0')}\0`
  head.write(name, 0, 100, 'utf8')
  head.write(octal(0o600, 8), 100)
  head.write(octal(0, 8), 108)
  head.write(octal(0, 8), 116)
  head.write(octal(bytes, 12), 124)
  head.write(octal(Math.max(0, Math.floor(modified / 1000)), 12), 136)
  head.write('        ', 148)
  head.write(type, 156)
  head.write('ustar\x0000', 257)
  head.write(
    `${head
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  )
  return head
}

const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((block - (bytes.length % block)) % block)])

/** Each file in turn; its content has to be read to the end before the next. throws archive_unsafe, archive_damaged */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<{ file: TarFile; content: AsyncIterable<Uint8Array> }> {
  const input = reader(source)
  let extended: { path?: string; size?: number } = {}
  for (;;) {
    const head = await input.exactly(block)
    if (head.every(byte => byte === 0)) return
    checkSum(head)
    const type = String.fromCharCode(head[156]!)
    const size = readOctal(head.subarray(124, 136))
    if (type === 'x') {
      if (size > longestHeader) throw unsafe('a header is too long')
      extended = readRecords(await input.exactly(size))
      await input.exactly((block - (size % block)) % block)
      continue
    }
    if (type !== '0' && type !== '\0') throw unsafe('it holds something that is no plain file')
    const prefix = text(head.subarray(345, 500))
    const name = extended.path ?? (prefix === '' ? text(head.subarray(0, 100)) : `${prefix}/${text(head.subarray(0, 100))}`)
    const bytes = extended.size ?? size
    extended = {}
    yield { file: { name, bytes, modified: readOctal(head.subarray(136, 148)) * 1000 }, content: input.some(bytes) }
    await input.exactly((block - (bytes % block)) % block)
  }
}

const unsafe = (problem: string) => new Failure('archive_unsafe', { problem })
const damaged = (problem: string) => new Failure('archive_damaged', { problem })
const text = (bytes: Uint8Array) => {
  const end = bytes.indexOf(0)
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8')
}

function readOctal(field: Uint8Array): number {
  const digits = text(field).trim()
  if (!/^[0-7]{0,12}$/.test(digits)) throw damaged('a header is not sound')
  return digits === '' ? 0 : Number.parseInt(digits, 8)
}

function checkSum(head: Uint8Array): void {
  const sum = head.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 32 : byte), 0)
  if (readOctal(head.subarray(148, 156)) !== sum) throw damaged('a header is not sound')
}

function readRecords(bytes: Buffer): { path?: string; size?: number } {
  const found: { path?: string; size?: number } = {}
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(0x20, at)
    const length = Number(bytes.toString('latin1', at, space))
    if (space < 0 || !Number.isInteger(length) || length < space - at + 3 || at + length > bytes.length)
      throw damaged('a header is not sound')
    const [, key, value = ''] = /^([^=]*)=(.*)\n$/s.exec(bytes.toString('utf8', space + 1, at + length)) ?? []
    if (key === 'path') found.path = value
    if (key === 'size') {
      if (!/^\d{1,15}$/.test(value)) throw damaged('a header is not sound')
      found.size = Number(value)
    }
    at += length
  }
  return found
}

function reader(source: AsyncIterable<Uint8Array>) {
  const chunks = source[Symbol.asyncIterator]()
  let rest: Uint8Array = Buffer.alloc(0)
  /** What is there, up to so many bytes; at least one. */
  const next = async (most: number): Promise<Uint8Array> => {
    while (rest.length === 0) {
      const { value, done } = await chunks.next()
      if (done) throw damaged('it ends too early')
      rest = value
    }
    const taken = rest.subarray(0, most)
    rest = rest.subarray(taken.length)
    return taken
  }
  return {
    /** Only for few: they are held in memory. */
    async exactly(bytes: number): Promise<Buffer> {
      const parts: Uint8Array[] = []
      for (let left = bytes; left > 0; left -= parts.at(-1)!.length) parts.push(await next(left))
      return Buffer.concat(parts)
    },
    async *some(bytes: number): AsyncGenerator<Uint8Array> {
      for (let left = bytes; left > 0; ) {
        const chunk = await next(left)
        left -= chunk.length
        yield chunk
      }
    },
  }
}
