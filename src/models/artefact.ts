/**
 * Running the artefact: pictures in, probabilities out, through the very graph that is in the file.
 * (artefact-format.ts says what is in the file, preprocessing.ts what happens to a picture first.)
 */
import { readFile, stat } from 'node:fs/promises'
import type { InferenceSession } from 'onnxruntime-node'
import type { OnnxGraph } from '../engine/onnx.ts'
import { openSession, tensorOf } from '../engine/session.ts'
import { Failure } from '../failure.ts'
import type { ArtefactMetadata, Fit, Prediction } from '../sdk/index.ts'
import { type Artefact, composeArtefact, cut, invalid, MAX_BYTES, PROBABILITIES, readArtefact, withGolden } from './artefact-format.ts'
import { IMAGE, MODEL_SIZE, preprocessingGraph } from './preprocessing.ts'

export { composeArtefact, readArtefact, withGolden }

/** Decoded RGB: `data` holds height × width × 3 bytes, row by row. */
export interface PictureLike {
  width: number
  height: number
  data: Uint8Array
}
export type Decode = (bytes: Uint8Array) => Promise<PictureLike>

export interface Preprocessor {
  /** A picture of any size → 3 · S · S bytes, one plane a channel. */
  run(picture: PictureLike): Promise<Uint8Array>
  close(): Promise<void>
}
export interface Classifier {
  readonly metadata: ArtefactMetadata
  /** Probabilities for each picture, in the order of `metadata.labels`. */
  classify(pictures: readonly PictureLike[]): Promise<Float32Array[]>
  /** The first half of `classify`: one picture at model size, 3 · S · S bytes. */
  prepare(picture: PictureLike): Promise<Uint8Array>
  /** The second half, all pictures in one run of the network. */
  classifyPrepared(pictures: readonly Uint8Array[]): Promise<Float32Array[]>
  /** Runs the golden pictures again. The difference is the largest of any probability from the one in the file; 0 without any. */
  replayGolden(decode: Decode): Promise<{ pictures: number; largestDifference: number }>
  close(): Promise<void>
}
export interface RunOptions {
  /** Processor threads for one run. */
  threads: number
}

/** Preprocessing alone, before there is an artefact. @param imageSize S, the side in pixels. */
export async function createPreprocessor(imageSize: number, { threads, fit }: RunOptions & { fit?: Fit }): Promise<Preprocessor> {
  const session = await openSession(preprocessingGraph(imageSize, fit), { threads, purpose: 'inference' })
  return preprocessor(session, MODEL_SIZE, imageSize)
}

/**
 * Opens an artefact from a file or its bytes, checked as `readArtefact` does.
 * throws artefact_missing, artefact_cut_short, artefact_newer, artefact_invalid, artefact_too_large
 */
export async function openArtefact(source: string | Uint8Array, { threads }: RunOptions): Promise<Classifier> {
  const artefact = readArtefact(typeof source === 'string' ? await readArtefactFile(source) : source)
  const halves = cut(artefact)
  const front = await open(halves.front, threads)
  const back = await open(halves.back, threads).catch(async error => {
    await front.release()
    throw error
  })
  return classifier(artefact, front, back)
}

async function readArtefactFile(path: string): Promise<Uint8Array> {
  try {
    const found = await stat(path)
    // a pipe or device would be waited for, or never end
    if (!found.isFile()) throw new Failure('artefact_missing', { path, problem: 'it is not a file' })
    const { size } = found
    if (size > MAX_BYTES) throw new Failure('artefact_too_large', { bytes: size, limit: MAX_BYTES })
    return await readFile(path)
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure('artefact_missing', { path, problem: (error as NodeJS.ErrnoException).code ?? String(error) }, { cause: error })
  }
}

/** Most pictures that go through the network at once; larger requests are cut into pieces, so memory stays bounded. */
const MAX_BATCH = 32

function classifier({ metadata }: Artefact, front: InferenceSession, back: InferenceSession): Classifier {
  const { imageSize: side, labels, modelSizeTensor } = metadata
  const preprocess = preprocessor(front, modelSizeTensor, side)

  async function classifyPrepared(pictures: readonly Uint8Array[]): Promise<Float32Array[]> {
    const answers: Float32Array[] = []
    for (let from = 0; from < pictures.length; from += MAX_BATCH) {
      const part = pictures.slice(from, from + MAX_BATCH)
      const batch = new Uint8Array(part.length * 3 * side * side)
      for (const [i, picture] of part.entries()) batch.set(picture, i * 3 * side * side)
      const rows = await run(back, modelSizeTensor, batch, [part.length, 3, side, side], PROBABILITIES)
      if (!(rows instanceof Float32Array) || rows.length !== part.length * labels.length)
        throw invalid(`it answered ${rows.length} numbers for ${part.length} × ${labels.length} probabilities`)
      for (const i of part.keys()) answers.push(rows.slice(i * labels.length, (i + 1) * labels.length))
    }
    return answers
  }
  const classify: Classifier['classify'] = async pictures => {
    const prepared: Uint8Array[] = []
    for (const picture of pictures) prepared.push(await preprocess.run(picture))
    return classifyPrepared(prepared)
  }
  return {
    metadata,
    classify,
    classifyPrepared,
    prepare: preprocess.run,
    async replayGolden(decode) {
      let largestDifference = 0
      for (const { png, probabilities } of metadata.golden) {
        const [now] = await classify([await decode(Buffer.from(png, 'base64'))])
        // NaN compares as the largest difference, not as none
        for (const [i, value] of probabilities.entries()) {
          const difference = Math.abs(now![i]! - value)
          if (!(difference <= largestDifference)) largestDifference = Number.isNaN(difference) ? Infinity : difference
        }
      }
      return { pictures: metadata.golden.length, largestDifference }
    },
    async close() {
      await Promise.all([front.release(), back.release()])
    },
  }
}

function preprocessor(session: InferenceSession, output: string, side: number): Preprocessor {
  return {
    async run({ width, height, data }) {
      if (!(width > 0 && height > 0) || data.length !== width * height * 3)
        throw new Failure('shape_mismatch', { operation: 'preprocessing', a: `[${height}, ${width}, 3]`, b: `[${data.length}]` })
      const planes = await run(session, IMAGE, data, [height, width, 3], output)
      if (!(planes instanceof Uint8Array) || planes.length !== 3 * side * side)
        throw invalid(`pictures come out of its preprocessing with ${planes.length} bytes instead of 3 × ${side} × ${side}`)
      return planes
    },
    close: () => session.release(),
  }
}

/** The answer for one picture, most probable label first. */
export function prediction({ labels, threshold }: Pick<ArtefactMetadata, 'labels' | 'threshold'>, row: Float32Array): Prediction {
  const probabilities = labels.map((label, i) => ({ label, probability: row[i]! })).sort((a, b) => b.probability - a.probability)
  const [best] = probabilities
  return { label: best!.label, probability: best!.probability, unknown: best!.probability < threshold, probabilities }
}

/**
 * The file with golden predictions: what this very file answers for these pictures now.
 * @param pngs small pictures, as PNG files
 */
export async function recordGolden(bytes: Uint8Array, pngs: readonly Uint8Array[], decode: Decode): Promise<Uint8Array> {
  const model = await openArtefact(bytes, { threads: 1 })
  try {
    const golden = []
    for (const png of pngs) {
      const [probabilities] = await model.classify([await decode(png)])
      golden.push({ png: Buffer.from(png).toString('base64'), probabilities: Array.from(probabilities!) })
    }
    return withGolden(bytes, golden)
  } finally {
    await model.close()
  }
}

// ── the runtime ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function open(graph: OnnxGraph, threads: number): Promise<InferenceSession> {
  try {
    return await openSession(graph, { threads, purpose: 'inference' })
  } catch (error) {
    throw new Failure('artefact_invalid', { problem: runtimeText(error) }, { cause: error })
  }
}

async function run(session: InferenceSession, input: string, data: Uint8Array, shape: readonly number[], output: string) {
  try {
    const results = await session.run({ [input]: tensorOf('uint8', data, shape) }, [output])
    return results[output]!.data as Uint8Array | Float32Array
  } catch (error) {
    throw new Failure('artefact_invalid', { problem: runtimeText(error) }, { cause: error })
  }
}

/** The runtime's messages quote names from the file at any length. */
const runtimeText = (error: unknown) => `the runtime says: ${error instanceof Error ? error.message.slice(0, 300) : String(error)}`
