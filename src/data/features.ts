/**
 * Every picture once through decoding, preprocessing and the untouched backbone, kept on disk: model-size pictures for fine-tuning
 * and pooled features for the head, the baseline, look-alikes and likely mislabels. Two flat files that only grow, so that a killed
 * training goes on where it was; a row counts only when it is whole in both. Pictures that another dataset's files hold are taken from there.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { compile, input, type Weights } from '../engine/index.ts'
import { Failure } from '../failure.ts'
import { decodePicture, decoderVersion } from '../images/decode.ts'
import { createPreprocessor } from '../models/artefact.ts'
import { normalise } from '../models/artefact-format.ts'
import type { Backbone } from '../models/catalogue.ts'
import type { Fit, ManifestRow } from '../sdk/index.ts'
import { removeFolder, storageFailure } from '../storage/disk.ts'
import { isProcessAlive } from '../storage/process.ts'

export interface PreparedPictures {
  /** Side of the square pictures, in pixels. */
  side: number
  /** Copies picture `row` (uint8, planar [3, side, side]) into `target` at `offset`. */
  read(row: number, target: Uint8Array, offset?: number): void
  /** [rows, width], row-major. */
  features: Float32Array
  width: number
  /** What had to be computed now, the rest was there already. */
  computed: { rows: number; seconds: number }
  close(): void
}

export interface Preparation {
  /** Folder of all feature caches; each lives in a folder named after what it was computed from. */
  folder: string
  /** Digest of the dataset version that the rows are, or another name for exactly these rows in this order. */
  dataset: string
  rows: readonly Pick<ManifestRow, 'content'>[]
  /** The bytes of a picture, by its content digest. */
  blob(content: string): Promise<Uint8Array>
  backbone: Backbone
  weights: Weights
  /** Of the square that the network sees, in pixels. */
  side: number
  /** How pictures that are not square reach it; crop where nothing is said. */
  fit?: Fit
  threads: number
  onProgress?(done: number, total: number): void
  stopRequested?(): boolean
}

const BATCH = 16

/** Goes on where an earlier call was stopped; where `stopRequested` says so it comes back early, with the rows it has. */
export async function preparePictures(what: Preparation): Promise<PreparedPictures> {
  const { rows, backbone, side } = what
  const kind = kindOf(what)
  const folder = await claimFolder(join(what.folder, `${kind}${digest(what.dataset).slice(0, 16)}`))
  const own = openRows(folder, 3 * side * side, backbone.features * 4)
  const { pictures, features } = own
  let done = Math.min(own.whole(), rows.length)
  pictures.truncate(done)
  features.truncate(done)
  listContents(folder, rows)

  const began = performance.now()
  let computed = 0
  if (done < rows.length) {
    const there = openThere(what.folder, kind, own, rows)
    const missing = new Map(rows.filter(({ content }) => !there.has(content)).map(row => [row.content, row]))
    const computer = await openComputer(what, [...missing.values()])
    try {
      for (; done < rows.length && !what.stopRequested?.(); done++) {
        const { content } = rows[done]!
        const row = there.read(content) ?? (await computer.next(content))
        pictures.append(row.picture)
        features.append(row.features)
        there.learn(content, done)
        what.onProgress?.(done + 1, rows.length)
      }
      computed = computer.computed()
    } finally {
      there.close()
      await computer.close()
    }
  }
  const result = new Float32Array(done * backbone.features)
  features.readAll(new Uint8Array(result.buffer))
  features.close()
  return {
    side,
    read: (row, target, offset = 0) => pictures.read(row, target, offset),
    features: result,
    width: backbone.features,
    computed: { rows: computed, seconds: (performance.now() - began) / 1000 },
    close: () => pictures.close(),
  }
}

/** A square of one picture, planar [3, side, side], and the bytes of its features. */
interface Prepared {
  picture: Uint8Array
  features: Uint8Array
}

/** Computes pictures in the order of `rows`, a batch at a time, whether or not they follow each other in the dataset. */
async function openComputer(what: Preparation, rows: Preparation['rows']) {
  const size = 3 * what.side * what.side
  const width = what.backbone.features * 4
  const ready = new Map<string, Prepared>()
  let [at, computed] = [0, 0]
  if (rows.length === 0) return { next: async (content: string) => unexpected(content), computed: () => 0, close: async () => {} }
  const preprocessor = await createPreprocessor(what.side, { threads: what.threads, ...(what.fit && { fit: what.fit }) })
  const network = await openFeatureNetwork(what)
  // decoding runs in libvips' threads while the runtime holds this one: keep the next batch under way
  const decode = (from: number) => {
    const pending = rows.slice(from, from + BATCH).map(async row => decodePicture(await what.blob(row.content), { formats: 'local' }))
    for (const each of pending) each.catch(() => {}) // reported when it is awaited
    return pending
  }
  let upcoming = decode(0)
  return {
    async next(content: string): Promise<Prepared> {
      if (!ready.has(content)) {
        const own = rows.slice(at, at + BATCH)
        const decoded = await Promise.all(upcoming)
        at += BATCH
        upcoming = decode(at)
        const squares = new Uint8Array(decoded.length * size)
        for (const [i, picture] of decoded.entries()) squares.set(await preprocessor.run(picture), i * size)
        const pooled = new Uint8Array((await network.features(squares)).buffer)
        ready.clear()
        for (const [i, row] of own.entries())
          ready.set(row.content, {
            picture: squares.subarray(i * size, (i + 1) * size),
            features: pooled.subarray(i * width, (i + 1) * width),
          })
        computed += own.length
      }
      return ready.get(content) ?? unexpected(content)
    },
    computed: () => computed,
    close: () => Promise.all([preprocessor.close(), network.close()]),
  }
}

function unexpected(content: string): never {
  throw new Failure('internal', { problem: `features of ${content} were asked for out of turn` })
}

/** The shared folder, or one of our own while another living process is filling the shared one. */
async function claimFolder(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true })
  const claim = join(folder, 'owner')
  try {
    writeFileSync(claim, String(process.pid), { flag: 'wx' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw storageFailure(error, claim)
    const owner = Number(readFileSync(claim, 'utf8'))
    if (owner !== process.pid && isProcessAlive(owner)) return claimFolder(`${folder}-${process.pid}`)
    writeFileSync(claim, String(process.pid))
  }
  return folder
}

/** A backbone without its head. Whoever opens it closes it. */
export interface FeatureNetwork {
  width: number
  /** `pictures`: any number of squares, uint8, planar [n, 3, side, side] → [n, width]. */
  features(pictures: Uint8Array): Promise<Float32Array>
  close(): Promise<void>
}

export async function openFeatureNetwork({
  backbone,
  weights,
  side,
  threads,
}: Pick<Preparation, 'backbone' | 'weights' | 'side' | 'threads'>): Promise<FeatureNetwork> {
  const size = 3 * side * side
  const pictures = input('pictures', [BATCH, 3, side, side], 'uint8')
  const program = await compile({ features: backbone.build(normalise(pictures, backbone)).features }, weights, { threads })
  return {
    width: backbone.features,
    async features(squares) {
      const n = squares.length / size
      const out = new Float32Array(n * backbone.features)
      for (let at = 0; at < n; at += BATCH) {
        const rows = Math.min(BATCH, n - at)
        const batch = new Uint8Array(BATCH * size)
        batch.set(squares.subarray(at * size, (at + rows) * size))
        const pooled = (await program.run({ pictures: batch }))['features'] as Float32Array
        out.set(pooled.subarray(0, rows * backbone.features), at * backbone.features)
      }
      return out
    },
    close: () => program.close(),
  }
}

/** What a row depends on beside its picture, 16 hex digits: what begins with them can be taken from each other. */
function kindOf({ backbone, weights, side, fit = 'crop' }: Preparation): string {
  const hash = createHash('sha256').update(JSON.stringify({ backbone: backbone.id, side, fit, decoder: decoderVersion, format: 2 }))
  for (const [name, values] of weights) hash.update(name).update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
  return hash.digest('hex').slice(0, 16)
}

const digest = (text: string) => createHash('sha256').update(text).digest('hex')

// ── what is there already ───────────────────────────────────────────────────────────────────────────────────────────────────

/** Content digests of the rows of a folder, one a line. */
const contentsName = 'contents'

function listContents(folder: string, rows: Preparation['rows']): void {
  const path = join(folder, contentsName)
  try {
    writeFileSync(path, rows.map(({ content }) => `${content}\n`).join(''))
  } catch (error) {
    throw storageFailure(error, path)
  }
}

/** More datasets of a kind are not looked through. */
const mostOthers = 32

/** Rows of this dataset and of the latest others of its kind, by content. The folders stay readable while this is open, whoever deletes them. */
function openThere(folder: string, kind: string, own: Opened, ownRows: Preparation['rows']) {
  const opened: Opened[] = []
  const places = new Map<string, { from: Opened; row: number }>()
  const others = readdirSync(folder)
    .filter(name => name.startsWith(kind) && join(folder, name) !== own.folder)
    .map(name => ({ path: join(folder, name), used: statSync(join(folder, name, contentsName), { throwIfNoEntry: false })?.mtimeMs }))
    .filter(({ used }) => used !== undefined)
    .sort((a, b) => b.used! - a.used!)
  for (const { path } of others.slice(0, mostOthers)) {
    const other = openRows(path, own.pictures.rowBytes, own.features.rowBytes)
    opened.push(other)
    const listed = readFileSync(join(path, contentsName), 'latin1').split('\n').slice(0, -1)
    for (let row = Math.min(other.whole(), listed.length) - 1; row >= 0; row--) places.set(listed[row]!, { from: other, row })
  }
  for (let row = own.whole() - 1; row >= 0; row--) places.set(ownRows[row]!.content, { from: own, row })
  return {
    has: (content: string) => places.has(content),
    read(content: string): Prepared | null {
      const place = places.get(content)
      if (!place) return null
      const { pictures, features } = place.from
      const found = { picture: new Uint8Array(pictures.rowBytes), features: new Uint8Array(features.rowBytes) }
      pictures.read(place.row, found.picture, 0)
      features.read(place.row, found.features, 0)
      return found
    },
    /** A row that is in the own files now. */
    learn: (content: string, row: number) => void (places.has(content) || places.set(content, { from: own, row })),
    close() {
      for (const { pictures, features } of opened) {
        pictures.close()
        features.close()
      }
    },
  }
}

type Opened = ReturnType<typeof openRows>

function openRows(folder: string, pictureBytes: number, featureBytes: number) {
  const pictures = flatFile(join(folder, 'pictures.u8'), pictureBytes)
  const features = flatFile(join(folder, 'features.f32'), featureBytes)
  return { folder, pictures, features, whole: () => Math.min(pictures.rows(), features.rows()) }
}

const forgottenAfter = 30 * 24 * 3600 * 1000 // milliseconds

/** Deletes what nobody opened for a month; for a folder that no gc looks into. */
export async function forgetOldFeatures(folder: string): Promise<void> {
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const claimed = statSync(join(folder, name, 'owner'), { throwIfNoEntry: false })
    if (claimed && Date.now() - claimed.mtimeMs > forgottenAfter) await removeFolder(join(folder, name)).catch(() => {}) // it is in nobody's way
  }
}

// ── one file ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function flatFile(path: string, rowBytes: number) {
  const file = openSync(path, 'a+')
  return {
    rowBytes,
    rows: () => Math.floor(fstatSync(file).size / rowBytes),
    truncate: (rows: number) => ftruncateSync(file, rows * rowBytes),
    append(data: Uint8Array | Float32Array) {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      try {
        for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written)
      } catch (error) {
        throw storageFailure(error, path)
      }
    },
    read: (row: number, target: Uint8Array, offset: number) => void readSync(file, target, offset, rowBytes, row * rowBytes),
    readAll: (target: Uint8Array) => {
      let at = 0
      for (let n = 1; n > 0 && at < target.length; at += n) n = readSync(file, target, at, target.length - at, at)
    },
    close: () => closeSync(file),
  }
}
