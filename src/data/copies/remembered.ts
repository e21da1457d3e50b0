/**
 * What searches for copies found out before, in the cache: the whole answer to the very same search, and each comparison of two pictures, so that a
 * folder in which some files changed compares only what is new. Everything is named after the code that found it: whoever changes the code starts
 * anew without having to think of it. A cache that cannot be read or written costs time and nothing else.
 */
import { createHash } from 'node:crypto'
import { appendFileSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { Failure } from '../../failure.ts'
import { decoderVersion } from '../../images/decode.ts'
import { Copies } from '../../sdk/shapes.ts'
import { makeFolder, writeFileAtomic } from '../../storage/disk.ts'
import type { Comparison } from './compare.ts'
import type { CopySearch, Distinct } from './pictures.ts'
import type { Verifier } from './verify.ts'

export interface Remembered {
  /** The answer to this very search, where it was kept. */
  answer: Copies | null
  /** Of picture `a` laid on picture `b`; null: never compared. */
  comparison(a: number, b: number): Comparison | null
  keepComparisons(verifier: Verifier): void
  keepAnswer(copies: Copies): Promise<void>
}

/** 64 bytes each: past this the file begins anew. */
const mostComparisons = 1_000_000
const forgottenAfter = 30 * 24 * 3600 * 1000 // milliseconds

/** `folder`: of nothing else. null: nothing can be kept there. */
export async function openRemembered(folder: string, search: CopySearch, pictures: readonly Distinct[]): Promise<Remembered | null> {
  try {
    await makeFolder(folder)
  } catch (error) {
    if (error instanceof Failure) return null
    throw error
  }
  const version = codeVersion()
  const answerPath = join(folder, `${version}-${searchKey(search)}.json`)
  const comparisonsPath = join(folder, `${version}.comparisons`)
  forgetOld(folder)
  const answer = readAnswer(answerPath)
  const known = answer ? new Map<number, Comparison>() : readComparisons(comparisonsPath, pictures)
  const keyOf = (a: number, b: number) => a * pictures.length + b
  return {
    answer,
    comparison: (a, b) => known.get(keyOf(a, b)) ?? null,
    keepComparisons(verifier) {
      const fresh = [...verifier.all()].filter(([[a, b]]) => !known.has(keyOf(a, b)))
      if (fresh.length > 0) quietly(() => append(comparisonsPath, fresh, pictures))
    },
    async keepAnswer(copies) {
      await writeFileAtomic(answerPath, JSON.stringify(copies)).catch(error => {
        if (!(error instanceof Failure)) throw error
      })
    },
  }
}

/** The search is its pictures, what is known of them beside their pixels, and whether they may be looked at for calibration. */
function searchKey({ dataset, features, picture, seed = 0 }: CopySearch): string {
  const hash = createHash('sha256').update(
    JSON.stringify({ dataset, width: features?.width ?? null, calibrated: picture !== undefined, seed }),
  )
  if (features) hash.update(new Uint8Array(features.values.buffer, features.values.byteOffset, features.values.byteLength))
  return hash.digest('hex').slice(0, 32)
}

/** A digest of the code that searches and of what it looks at. */
function codeVersion(): string {
  const hash = createHash('sha256').update(decoderVersion)
  for (const folder of [import.meta.dirname, join(import.meta.dirname, '../../images')]) {
    for (const name of readdirSync(folder).sort()) if (/\.[jt]s$/.test(name)) hash.update(name).update(readFileSync(join(folder, name)))
  }
  return hash.digest('hex').slice(0, 16)
}

// ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function readAnswer(path: string): Copies | null {
  const found = quietly(() => Copies.safeParse(JSON.parse(readFileSync(path, 'utf8'))))
  if (!found?.success) return null
  const now = new Date()
  quietly(() => utimesSync(path, now, now)) // in use
  return found.data
}

/** What nobody asked for in a month, of this version or another. */
function forgetOld(folder: string): void {
  quietly(() => {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name)
      const status = statSync(path, { throwIfNoEntry: false })
      if (status?.isFile() && Date.now() - status.mtimeMs > forgottenAfter) rmSync(path, { force: true })
    }
  })
}

/** null where the disk refuses, or what it gives is no JSON. */
function quietly<T>(work: () => T): T | null {
  try {
    return work()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code || error instanceof SyntaxError) return null
    throw error
  }
}

// ── comparisons ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/*
 * Blocks, each appended in one step, so that processes write side by side:
 *   8 bytes mark · u32 number of comparisons · u32 CRC-32 of them · comparisons
 * A comparison: 16 bytes of the pixel digest of each picture · score, uncaptioned, scene, colours as float64 (no colours: NaN).
 */
const mark = Buffer.from('plinthC1', 'latin1')
const headBytes = 16
const digestBytes = 16
const recordBytes = 2 * digestBytes + 4 * 8

const nameOf = (hex: string) => Buffer.from(hex, 'hex').toString('latin1', 0, digestBytes)

/** Those of these pictures. A file that ends in half a block, or holds nonsense, goes: what stands before is used once more. */
function readComparisons(path: string, pictures: readonly Distinct[]): Map<number, Comparison> {
  const known = new Map<number, Comparison>()
  const file = quietly(() => readFileSync(path))
  if (!file) return known
  const indexOf = new Map(pictures.map(({ row }, index) => [nameOf(row.pixels), index]))
  let at = 0
  while (at + headBytes <= file.length && file.subarray(at, at + 8).equals(mark)) {
    const end = at + headBytes + recordBytes * file.readUInt32LE(at + 8)
    const body = file.subarray(at + headBytes, end)
    if (end > file.length || crc32(body) !== file.readUInt32LE(at + 12)) break
    for (let record = 0; record < body.length; record += recordBytes) {
      const a = indexOf.get(body.toString('latin1', record, record + digestBytes))
      const b = indexOf.get(body.toString('latin1', record + digestBytes, record + 2 * digestBytes))
      if (a === undefined || b === undefined) continue
      const value = (index: number) => body.readDoubleLE(record + 2 * digestBytes + 8 * index)
      const colours = value(3)
      known.set(a * pictures.length + b, {
        score: value(0),
        uncaptioned: value(1),
        scene: value(2),
        colours: Number.isNaN(colours) ? null : colours,
      })
    }
    at = end
  }
  if (at < file.length || at > mostComparisons * recordBytes) quietly(() => rmSync(path, { force: true }))
  return known
}

type Compared = readonly (readonly [readonly [a: number, b: number], Comparison])[]

function append(path: string, compared: Compared, pictures: readonly Distinct[]): void {
  const block = Buffer.alloc(headBytes + recordBytes * compared.length)
  mark.copy(block)
  block.writeUInt32LE(compared.length, 8)
  for (const [index, [[a, b], { score, uncaptioned, scene, colours }]] of compared.entries()) {
    let at = headBytes + index * recordBytes
    for (const picture of [a, b]) {
      block.write(nameOf(pictures[picture]!.row.pixels), at, 'latin1')
      at += digestBytes
    }
    for (const [place, value] of [score, uncaptioned, scene, colours ?? Number.NaN].entries()) block.writeDoubleLE(value, at + 8 * place)
  }
  block.writeUInt32LE(crc32(block.subarray(headBytes)), 12)
  appendFileSync(path, block, { mode: 0o600 })
}
