/**
 * Reads a zip archive from a stranger. Nothing is ever unpacked to disk: entries are read into memory one by one, so no name can lead
 * anywhere. All the same the whole directory of the archive is checked before the first entry is read, and one lie refuses all of it:
 * escaping, absolute or malformed names, links, duplicates, entries that share bytes, headers that contradict each other, bombs.
 * yauzl reads the directory; it passes most of these, so they are checked here. Format: PKWARE APPNOTE.TXT 6.3.
 */
import { closeSync, fstatSync, openSync, read, readSync } from 'node:fs'
import { promisify } from 'node:util'
import { crc32, inflateRaw, constants as zlib } from 'node:zlib'
import yauzl from 'yauzl'
import { Failure } from '../failure.ts'
import { ignoredFile, ignoredFolder } from './ignore.ts'
import { byCodePoint, checkStopped, type Ignored, maxFileBytes, type Source, type SourceFile } from './source.ts'

export const archiveLimits = {
  entries: 1_000_000,
  /** Bytes of all entries together, unpacked. */
  total: 256 * 1024 ** 3,
  /** Unpacked over packed, once the unpacked side passes `ratioFrom`; deflate itself cannot pass 1,032. */
  ratio: 100,
  ratioFrom: 256 * 1024 ** 2,
  nameBytes: 1024,
  partBytes: 255,
  depth: 32,
} as const
export type ArchiveLimits = { [K in keyof typeof archiveLimits]: number }

const stored = 0
const deflated = 8
const unsafe = (problem: string) => new Failure('archive_unsafe', { problem })
const damaged = (problem: string) => new Failure('archive_damaged', { problem })

/** Throws source_not_a_folder (not a zip), source_forbidden, archive_unsafe, archive_damaged, interrupted. */
export async function openArchive(path: string, signal?: AbortSignal, limits: ArchiveLimits = archiveLimits): Promise<Source> {
  const descriptor = openForReading(path)
  try {
    const start = Buffer.alloc(4)
    readSync(descriptor, start, 0, 4, 0)
    if (!['PK\x03\x04', 'PK\x05\x06'].includes(start.toString('latin1'))) throw new Failure('source_not_a_folder', { path })
    const entries = await readDirectory(descriptor, limits, signal)
    checkNoSharedBytes(entries)
    return sourceOf(descriptor, entries)
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

function openForReading(path: string): number {
  try {
    return openSync(path, 'r')
  } catch {
    throw new Failure('source_forbidden', { path })
  }
}

type Entry = {
  name: string
  folder: boolean
  method: number
  encrypted: boolean
  crc: number
  packed: number
  size: number
  /** Where the local header begins, where the data begins. */
  header: number
  data: number
}

// ── the directory ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The fields of yauzl 3 that its types, still of version 2, do not know. */
type YauzlEntry = yauzl.Entry & { fileNameRaw: Buffer }

async function readDirectory(descriptor: number, limits: ArchiveLimits, signal: AbortSignal | undefined): Promise<Entry[]> {
  const size = fstatSync(descriptor).size
  const archive = await openDirectory(descriptor, size)
  if (archive.entryCount > limits.entries) throw unsafe(`it has ${archive.entryCount} entries`)

  const entries: Entry[] = []
  const names = new Set<string>()
  let total = 0
  await new Promise<void>((done, failed) => {
    archive.on('error', (error: Error) => failed(damaged(plain(error))))
    archive.on('end', done)
    archive.on('entry', (raw: YauzlEntry) => {
      try {
        checkStopped(signal)
        const entry = checkedEntry(descriptor, raw, size, limits)
        const key = entry.name.normalize('NFC')
        if (names.has(key)) throw unsafe(`two entries are called ${shown(entry.name)}`)
        names.add(key)
        total += entry.size
        if (total > limits.total) throw unsafe(`it unpacks to more than ${limits.total} bytes`)
        if (total > limits.ratioFrom && total > limits.ratio * size) {
          throw unsafe(`it unpacks to more than ${limits.ratio} times its own size`)
        }
        entries.push(entry)
        archive.readEntry()
      } catch (error) {
        failed(error)
      }
    })
    archive.readEntry()
  })
  return entries
}

function openDirectory(descriptor: number, size: number): Promise<yauzl.ZipFile> {
  const options = { lazyEntries: true, validateEntrySizes: true, strictFileNames: true, decodeStrings: false, autoClose: false }
  return new Promise((done, failed) => {
    yauzl.fromRandomAccessReader(new WindowReader(descriptor), size, options, (error, archive) =>
      error ? failed(damaged(plain(error))) : done(archive),
    )
  })
}

function checkedEntry(descriptor: number, raw: YauzlEntry, archiveSize: number, limits: ArchiveLimits): Entry {
  const name = nameOf(raw, limits)
  const kind = (raw.externalFileAttributes >>> 16) & 0o170000
  if (kind !== 0 && kind !== 0o100000 && kind !== 0o040000) throw unsafe(`${shown(name)} is a link or a device, not a file`)
  const folder = name.endsWith('/')
  if (folder && raw.uncompressedSize > 0) throw unsafe(`the folder ${shown(name)} holds bytes`)
  const data = checkLocalHeader(descriptor, raw, name)
  if (data + raw.compressedSize > archiveSize) throw damaged('it ends before its entries do')
  return {
    name: folder ? name.slice(0, -1) : name,
    folder,
    method: raw.compressionMethod,
    encrypted: (raw.generalPurposeBitFlag & 1) !== 0,
    crc: raw.crc32,
    packed: raw.compressedSize,
    size: raw.uncompressedSize,
    header: raw.relativeOffsetOfLocalHeader,
    data,
  }
}

/** Names have to be plain relative paths in Unicode (or, in old archives, code page 437). */
function nameOf(raw: YauzlEntry, limits: ArchiveLimits): string {
  const bytes = raw.fileNameRaw
  if (bytes.length > limits.nameBytes) throw unsafe(`a name has ${bytes.length} bytes`)
  const saysUnicode = (raw.generalPurposeBitFlag & 0x800) !== 0
  let name: string
  try {
    name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) // many programs write UTF-8 without saying so
  } catch {
    if (saysUnicode) throw unsafe('a name is not the Unicode it says it is')
    name = oldName(raw, bytes)
  }
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(name)) throw unsafe(`a name holds control characters: ${shown(name)}`)
  if (name.includes('\\')) throw unsafe(`a name holds a backslash: ${shown(name)}`)
  if (name.startsWith('/') || /^[A-Za-z]:/.test(name)) throw unsafe(`${shown(name)} is an absolute path`)
  const parts = (name.endsWith('/') ? name.slice(0, -1) : name).split('/')
  if (parts.includes('..')) throw unsafe(`${shown(name)} leads out of the archive`)
  if (parts.some(part => part === '' || part === '.')) throw unsafe(`${shown(name)} is not a plain path`)
  if (parts.length > limits.depth) throw unsafe(`${shown(name)} is more than ${limits.depth} folders deep`)
  if (parts.some(part => Buffer.byteLength(part) > limits.partBytes)) throw unsafe(`a name is longer than ${limits.partBytes} bytes`)
  return name
}

type LowLevelName = (flags: number, name: Buffer, extraFields: unknown, strict: boolean) => string
function oldName(raw: YauzlEntry, bytes: Buffer): string {
  try {
    return (yauzl as unknown as { getFileNameLowLevel: LowLevelName }).getFileNameLowLevel(0, bytes, raw.extraFields, true)
  } catch {
    throw unsafe('a name cannot be read')
  }
}

/** The header in front of the data has to say what the directory says; returns where the data begins. */
function checkLocalHeader(descriptor: number, raw: YauzlEntry, name: string): number {
  const at = raw.relativeOffsetOfLocalHeader
  const header = readAt(descriptor, at, 30)
  if (header.length < 30 || header.readUInt32LE(0) !== 0x04034b50) throw damaged(`${shown(name)} is not where the directory says`)
  const nameLength = header.readUInt16LE(26)
  const contradicts = (what: string) => unsafe(`the two headers of ${shown(name)} give different ${what}`)
  if (!readAt(descriptor, at + 30, nameLength).equals(raw.fileNameRaw)) throw contradicts('names')
  if (header.readUInt16LE(8) !== raw.compressionMethod) throw contradicts('kinds of packing')
  const flags = header.readUInt16LE(6)
  if ((flags & 1) !== (raw.generalPurposeBitFlag & 1)) throw contradicts('statements on encryption')
  const sizesFollow = (flags & 8) !== 0 // written as a stream: the sizes stand behind the data and here are zeros
  const differ = (here: number, there: number, unset: number) => here !== there && here !== unset && !(sizesFollow && here === 0)
  if (differ(header.readUInt32LE(14), raw.crc32, raw.crc32)) throw contradicts('checksums')
  if (differ(header.readUInt32LE(18), raw.compressedSize, 0xffffffff)) throw contradicts('sizes') // 0xffffffff: zip64 field
  if (differ(header.readUInt32LE(22), raw.uncompressedSize, 0xffffffff)) throw contradicts('sizes')
  return at + 30 + nameLength + header.readUInt16LE(28)
}

/** Bombs of David Fifield's kind let thousands of entries share one block of data. */
function checkNoSharedBytes(entries: readonly Entry[]): void {
  const inOrder = [...entries].sort((a, b) => a.header - b.header)
  for (let index = 1; index < inOrder.length; index++) {
    const before = inOrder[index - 1]!
    if (before.data + before.packed > inOrder[index]!.header) {
      throw unsafe(`${shown(before.name)} and ${shown(inOrder[index]!.name)} share their bytes`)
    }
  }
}

// ── the entries ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

function sourceOf(descriptor: number, entries: readonly Entry[]): Source {
  const files: SourceFile[] = []
  const folders = new Set<string>()
  const ignored = new Map<string, Ignored>()
  for (const entry of entries) {
    const path = entry.name.normalize('NFC')
    const parts = path.split('/')
    const folderCount = entry.folder ? parts.length : parts.length - 1
    const left = parts.slice(0, folderCount).findIndex(part => ignoredFolder(part) !== null)
    for (let depth = 1; depth <= (left < 0 ? folderCount : left); depth++) folders.add(parts.slice(0, depth).join('/'))
    if (left >= 0) {
      const folder = parts.slice(0, left + 1).join('/')
      ignored.set(folder, { path: folder, reason: ignoredFolder(parts[left]!)! })
    } else if (!entry.folder) {
      const reason = ignoredFile(parts.at(-1)!)
      if (reason) ignored.set(path, { path, reason })
      else files.push({ path, size: entry.size, read: () => readEntry(descriptor, entry), head: () => readHead(descriptor, entry) })
    }
  }
  files.sort((a, b) => byCodePoint(a.path, b.path))
  return { files, folders: [...folders], ignored: [...ignored.values()], archive: true, close: async () => closeSync(descriptor) }
}

const unreadable = (reason: string) => new Failure('file_unreadable', { reason })

async function readEntry(descriptor: number, entry: Entry): Promise<Buffer> {
  checkReadable(entry)
  if (entry.size > maxFileBytes) throw new Failure('image_too_large', { size: `${entry.size} bytes`, limit: `${maxFileBytes} bytes` })
  if (entry.packed > packedRoom(entry.size)) throw unreadable('it takes more room packed than unpacked')
  const packed = await promisify(read)(descriptor, Buffer.alloc(entry.packed), 0, entry.packed, entry.data)
  const bytes = entry.method === stored ? packed.buffer : await unpacked(packed.buffer, entry.size)
  if (bytes.length !== entry.size) throw unreadable('it does not have the size the archive says')
  if (crc32(bytes) !== entry.crc) throw unreadable('its checksum is wrong: the archive was damaged')
  return bytes
}

/** Deflate makes nothing noticeably longer (RFC 1951, 3.2.4: five bytes a block); more would only fill memory that nobody counted. */
const packedRoom = (size: number) => size + size / 8 + 65_536

function checkReadable(entry: Entry): void {
  if (entry.encrypted) throw unreadable('it is encrypted with a password')
  if (entry.method !== stored && entry.method !== deflated) throw unreadable(`it is packed in a way that is not read (${entry.method})`)
}

const inflate = promisify<Buffer, object, Buffer>(inflateRaw)

/** Never more than `size` bytes: an entry that unpacks to more was lying. */
async function unpacked(packed: Buffer, size: number): Promise<Buffer> {
  if (size === 0) return Buffer.alloc(0)
  return await inflate(packed, { maxOutputLength: size }).catch((error: NodeJS.ErrnoException) => {
    throw unreadable(error.code === 'ERR_BUFFER_TOO_LARGE' ? 'it unpacks to more than the archive says' : 'its packed data is damaged')
  })
}

async function readHead(descriptor: number, entry: Entry): Promise<Buffer> {
  checkReadable(entry)
  const packed = readAt(descriptor, entry.data, Math.min(entry.packed, 4096))
  if (entry.method === stored) return packed
  // 4 KiB unpack to 4 MiB at most
  return await inflate(packed, { finishFlush: zlib.Z_SYNC_FLUSH }).catch(() => {
    throw unreadable('its packed data is damaged')
  })
}

// ── bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function readAt(descriptor: number, position: number, length: number): Buffer {
  const buffer = Buffer.alloc(length)
  return buffer.subarray(0, readSync(descriptor, buffer, 0, length, position))
}

/** The directory is read in many tiny steps: a window of it is kept, which makes listing 20 times faster than asking the disk each time. */
class WindowReader extends yauzl.RandomAccessReader {
  #descriptor: number
  #window: Buffer = Buffer.alloc(0)
  #from = 0
  constructor(descriptor: number) {
    super()
    this.#descriptor = descriptor
  }
  override read(buffer: Buffer, offset: number, length: number, position: number, callback: (error: Error | null) => void) {
    if (position < this.#from || position + length > this.#from + this.#window.length) {
      this.#window = readAt(this.#descriptor, position, Math.max(length, 256 * 1024))
      this.#from = position
    }
    const start = position - this.#from
    if (start + length > this.#window.length) return callback(new Error('unexpected end of file'))
    this.#window.copy(buffer, offset, start, start + length)
    setImmediate(callback, null)
  }
}

/** A foreign name in a message: short and without anything that could steer a terminal. */
function shown(name: string): string {
  const plain = JSON.stringify(name).slice(1, -1)
  return plain.length > 80 ? `${plain.slice(0, 77)}…` : plain
}

const plain = (error: Error) => shown(error.message)
