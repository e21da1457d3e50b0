/**
 * Every picture once through decoding, preprocessing and the untouched backbone, kept on disk: model-size pictures for fine-tuning
 * and pooled features for the head, the baseline, look-alikes and likely mislabels. Two flat files that only grow, so that a killed
 * training goes on where it was; a row counts only when it is whole in both.
 */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { compile, input, type Weights } from '../engine/index.ts'
import { decodePicture } from '../images/decode.ts'
import { createPreprocessor } from '../models/artefact.ts'
import { normalise } from '../models/artefact-format.ts'
import type { Backbone } from '../models/catalogue.ts'
import type { Fit, ManifestRow } from '../sdk/index.ts'
import { storageFailure } from '../storage/disk.ts'
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
  const folder = await claimFolder(join(what.folder, cacheKey(what)))
  const pictures = flatFile(join(folder, 'pictures.u8'), 3 * side * side)
  const features = flatFile(join(folder, 'features.f32'), backbone.features * 4)
  let done = Math.min(pictures.rows(), features.rows(), rows.length)
  pictures.truncate(done)
  features.truncate(done)

  const [found, began] = [done, performance.now()]
  if (done < rows.length) {
    const preprocessor = await createPreprocessor(side, { threads: what.threads, ...(what.fit && { fit: what.fit }) })
    const network = await openFeatureNetwork(what)
    try {
      // decoding runs in libvips' threads while the runtime holds this one: keep the next batch under way
      const decode = (from: number) =>
        rows.slice(from, from + BATCH).map(async row => decodePicture(await what.blob(row.content), { formats: 'local' }))
      let next = decode(done)
      while (done < rows.length && !what.stopRequested?.()) {
        const decoded = await Promise.all(next)
        next = decode(done + BATCH)
        for (const pending of next) pending.catch(() => {}) // reported when it is awaited
        const batch = new Uint8Array(decoded.length * 3 * side * side)
        for (const [i, picture] of decoded.entries()) batch.set(await preprocessor.run(picture), i * 3 * side * side)
        const pooled = await network.features(batch)
        pictures.append(batch)
        features.append(pooled)
        done += decoded.length
        what.onProgress?.(done, rows.length)
      }
    } finally {
      await Promise.all([preprocessor.close(), network.close()])
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
    computed: { rows: done - found, seconds: (performance.now() - began) / 1000 },
    close: () => pictures.close(),
  }
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

function cacheKey({ dataset, backbone, weights, side, fit = 'crop' }: Preparation): string {
  const hash = createHash('sha256').update(JSON.stringify({ dataset, backbone: backbone.id, side, fit, format: 1 }))
  for (const [name, values] of weights) hash.update(name).update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
  return hash.digest('hex').slice(0, 32)
}

function flatFile(path: string, rowBytes: number) {
  const file = openSync(path, 'a+')
  return {
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
