/**
 * Facts on disk: one file that only grows, whole records only. Appending to a file is one step for the operating system, so several processes
 * write side by side; a kill or a full disk can leave a torn record, and then the next whole one is looked for. A record:
 *
 *   8 bytes mark · u32 length of the JSON · u32 CRC-32 of JSON and grey copy · 32 bytes content digest · JSON · 4,096 bytes grey copy
 */
import { closeSync, fstatSync, openSync, readdirSync, readSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { Failure } from '../failure.ts'
import { greySide } from '../images/fingerprint.ts'
import { makeFolder } from '../storage/disk.ts'
import type { Facts, PictureFacts } from './facts.ts'

const mark = Buffer.from('plinthF1', 'latin1')
const headBytes = 48
const greyBytes = greySide * greySide
const longestJson = 65_536
/** Past this the file becomes the older of two, and the older one goes: more than 400,000 pictures are remembered. */
const fullAt = 1024 ** 3
const forgottenAfter = 30 * 24 * 3600 * 1000 // milliseconds, for caches of other versions of the program

/**
 * `version`: facts of another one are not looked at. Where the disk does not let us write, or no longer, facts are remembered in memory for as long
 * as this lasts: a cache is no reason to end anybody's work.
 */
export async function openFactsFile(folder: string, version: string): Promise<Facts> {
  const files = await openFiles(folder, version).catch((error: NodeJS.ErrnoException) => {
    if (!error.code) throw error
    return [] // no right, no room, something in the way
  })
  const newest = files.at(-1)
  const known = new Map<string, PictureFacts>()
  const unsaved = new Map<string, Uint8Array>() // grey copies

  const find = (content: string) => {
    for (const file of files.toReversed()) {
      const found = file.read(content)
      if (found) return found
    }
    return null
  }
  return {
    get(content) {
      const remembered = known.get(content)
      if (remembered) return remembered
      const found = find(content)
      if (!found) return null
      known.set(content, found.facts)
      return found.facts
    },
    grey(content) {
      const remembered = unsaved.get(content)
      if (remembered) return remembered
      let found = find(content)
      if (!found && newest?.list()) found = find(content) // what this process and others have put since
      if (!found) throw new Failure('internal', { problem: 'the grey copy of a picture was asked for that nobody has looked at' })
      return found.grey
    },
    put({ grey, ...facts }) {
      if (known.has(facts.content)) return
      known.set(facts.content, facts)
      try {
        if (newest) newest.append(recordOf(facts, grey))
        else unsaved.set(facts.content, grey)
      } catch (error) {
        if (!(error as NodeJS.ErrnoException).code) throw error
        unsaved.set(facts.content, grey)
      }
    },
    close() {
      for (const file of files) file.close()
    },
  }
}

async function openFiles(folder: string, version: string): Promise<Records[]> {
  await makeFolder(folder)
  const path = join(folder, `${version}.facts`)
  const older = join(folder, `${version}.older.facts`)
  const files: Records[] = []
  try {
    forgetOthers(folder, version)
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > fullAt) renameSync(path, older)
    if (statSync(older, { throwIfNoEntry: false })) files.push(openRecords(openSync(older, 'r')))
    files.push(openRecords(openSync(path, 'a+', 0o600)))
    return files
  } catch (error) {
    for (const file of files) file.close()
    throw error
  }
}

/** Other versions were right for another program, which may still be in use: they go when nobody has added to them for a month. */
function forgetOthers(folder: string, version: string): void {
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.facts') || name.startsWith(version)) continue
    const path = join(folder, name)
    const status = statSync(path, { throwIfNoEntry: false })
    if (status && Date.now() - status.mtimeMs > forgottenAfter) rmSync(path, { force: true })
  }
}

// ── one file of records ─────────────────────────────────────────────────────────────────────────────────────────────────────

type Records = ReturnType<typeof openRecords>

function openRecords(descriptor: number) {
  const places = new Map<string, { at: number; json: number }>()
  let listed = 0
  const records = {
    /** Learns of all whole records that came since the last call; true where there were any. */
    list(): boolean {
      const before = listed
      const end = fstatSync(descriptor).size
      const head = Buffer.alloc(headBytes)
      while (listed < end) {
        const length = recordLength(descriptor, listed, end, head)
        if (length === null) {
          const next = nextMark(descriptor, listed + 1, end)
          if (next === null) break // the last one is still being written, or was never finished
          listed = next
          continue
        }
        places.set(head.toString('latin1', 16, 48), { at: listed, json: head.readUInt32LE(8) })
        listed += length
      }
      return listed > before
    },
    /** null: not here, or damaged. */
    read(content: string): { facts: PictureFacts; grey: Uint8Array } | null {
      const key = keyOf(content)
      const place = places.get(key)
      if (!place) return null
      const record = Buffer.alloc(headBytes + place.json + greyBytes)
      const whole = readSync(descriptor, record, 0, record.length, place.at) === record.length
      const body = record.subarray(headBytes)
      if (!whole || crc32(body) !== record.readUInt32LE(12)) {
        places.delete(key)
        return null
      }
      return { facts: fromStored(content, body.toString('utf8', 0, place.json)), grey: new Uint8Array(body.subarray(place.json)) }
    },
    append(record: Buffer): void {
      if (writeSync(descriptor, record) < record.length) throw Object.assign(new Error('the record was cut short'), { code: 'ENOSPC' })
    },
    close: () => closeSync(descriptor),
  }
  records.list()
  return records
}

/** Reads the head at `at` into `head`; null where no whole record begins there, which shows in what follows it too. */
function recordLength(descriptor: number, at: number, end: number, head: Buffer): number | null {
  if (readSync(descriptor, head, 0, headBytes, at) < headBytes || !head.subarray(0, 8).equals(mark)) return null
  const json = head.readUInt32LE(8)
  const length = headBytes + json + greyBytes
  if (json > longestJson || at + length > end) return null
  if (at + length === end) return length
  const following = Buffer.alloc(8)
  const there = readSync(descriptor, following, 0, 8, at + length)
  return following.subarray(0, there).equals(mark.subarray(0, there)) ? length : null
}

function nextMark(descriptor: number, from: number, end: number): number | null {
  const window = Buffer.alloc(65_536)
  for (let at = from; at < end; at += window.length - mark.length + 1) {
    const there = readSync(descriptor, window, 0, window.length, at)
    const found = window.subarray(0, there).indexOf(mark)
    if (found >= 0) return at + found
  }
  return null
}

const keyOf = (content: string) => Buffer.from(content, 'hex').toString('latin1')

// ── one record ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

function recordOf(facts: PictureFacts, grey: Uint8Array): Buffer {
  const { content, fingerprint, ...rest } = facts
  const hash = Buffer.from(fingerprint.hash).toString('hex')
  const json = Buffer.from(JSON.stringify({ ...rest, fingerprint: { ...fingerprint, hash } }))
  const record = Buffer.concat([mark, Buffer.alloc(8), Buffer.from(content, 'hex'), json, grey])
  record.writeUInt32LE(json.length, 8)
  record.writeUInt32LE(crc32(record.subarray(headBytes)), 12)
  return record
}

/** Ours, and its CRC was right: not checked again. */
function fromStored(content: string, json: string): PictureFacts {
  const { fingerprint, ...rest } = JSON.parse(json)
  return { content, ...rest, fingerprint: { ...fingerprint, hash: new Uint8Array(Buffer.from(fingerprint.hash, 'hex')) } }
}
