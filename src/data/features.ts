/**
 * Every picture once through decoding, preprocessing and the untouched backbone, kept on disk: model-size pictures for fine-tuning
 * and pooled features for the head, the baseline and (later) look-alikes. Two flat files that only grow, so that a killed
 * training goes on where it was; a row counts only when it is whole in both.
 */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { compile, input, type Program, type Weights } from '../engine/index.ts'
import { decodePicture } from '../images/decode.ts'
import { createPreprocessor } from '../models/artefact.ts'
import { normalise } from '../models/artefact-format.ts'
import type { Backbone } from '../models/catalogue.ts'
import type { ManifestRow } from '../sdk/index.ts'
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
  dataset: string
  rows: readonly ManifestRow[]
  blob(content: string): Promise<Uint8Array>
  backbone: Backbone
  weights: Weights
  side: number
  threads: number
  onProgress?(done: number, total: number): void
  stopRequested?(): boolean
}

const BATCH = 16

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
    const preprocessor = await createPreprocessor(side, { threads: what.threads })
    const network = await featureProgram(backbone, what.weights, side, what.threads)
    try {
      // decoding runs in libvips' threads while the runtime holds this one: keep the next batch under way
      const decode = (from: number) =>
        rows.slice(from, from + BATCH).map(async row => decodePicture(await what.blob(row.content), { formats: 'local' }))
      let next = decode(done)
      while (done < rows.length && !what.stopRequested?.()) {
        const decoded = await Promise.all(next)
        next = decode(done + BATCH)
        for (const pending of next) pending.catch(() => {}) // reported when it is awaited
        const batch = new Uint8Array(BATCH * 3 * side * side)
        for (const [i, picture] of decoded.entries()) batch.set(await preprocessor.run(picture), i * 3 * side * side)
        const pooled = await network.run({ pictures: batch })
        pictures.append(batch.subarray(0, decoded.length * 3 * side * side))
        features.append(pooled['features']!.subarray(0, decoded.length * backbone.features) as Float32Array)
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

function featureProgram(backbone: Backbone, weights: Weights, side: number, threads: number): Promise<Program> {
  const pictures = input('pictures', [BATCH, 3, side, side], 'uint8')
  return compile({ features: backbone.build(normalise(pictures, backbone)).features }, weights, { threads })
}

function cacheKey({ dataset, backbone, weights, side }: Preparation): string {
  const hash = createHash('sha256').update(JSON.stringify({ dataset, backbone: backbone.id, side, format: 1 }))
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
