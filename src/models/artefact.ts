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
import {
  ACTIVATION,
  type Artefact,
  composeArtefact,
  cut,
  DISTANCE,
  invalid,
  MAX_BYTES,
  type Parts,
  PROBABILITIES,
  readArtefact,
  withGolden,
} from './artefact-format.ts'
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
/** What the network says about a picture. */
export interface Answer {
  /** In the order of `metadata.labels`. */
  probabilities: Float32Array
  /** How far it is from everything the model knows; null in files without that output. */
  distance: number | null
}
export interface Explained extends Answer {
  /** Null in files without that output. */
  activation: ActivationMap | null
}
/**
 * What each place of the picture adds to each class: `values[k]` holds rows × columns numbers, row by row, whose sum is what the softmax sees
 * of class k. The places are those of the square at model size (`metadata.fit` says how the picture reached it).
 */
export interface ActivationMap {
  rows: number
  columns: number
  values: Float32Array[]
}

export interface Classifier {
  readonly metadata: ArtefactMetadata
  /** For each picture, in order. */
  answer(pictures: readonly PictureLike[]): Promise<Answer[]>
  /** The probabilities alone. */
  classify(pictures: readonly PictureLike[]): Promise<Float32Array[]>
  /** The first half of `answer`: one picture at model size, 3 · S · S bytes. */
  prepare(picture: PictureLike): Promise<Uint8Array>
  /** The second half, all pictures in one run of the network. */
  answerPrepared(pictures: readonly Uint8Array[]): Promise<Answer[]>
  /** The answer with what each place adds to it. The first call opens the network once more, with that output. */
  explain(picture: PictureLike): Promise<Explained>
  explainPrepared(picture: Uint8Array): Promise<Explained>
  /**
   * Runs the golden pictures again. The difference is the largest of any probability from the one in the file, or of any distance
   * (in parts of the recorded one where that is above 1); 0 without any.
   */
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
  const parts = cut(artefact)
  const front = await open(parts.front, threads)
  const back = await open(parts.back, threads).catch(async error => {
    await front.release()
    throw error
  })
  return classifier(artefact, front, back, parts, threads)
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

function classifier(
  { metadata }: Artefact,
  front: InferenceSession,
  back: InferenceSession,
  { explaining }: Parts,
  threads: number,
): Classifier {
  const { imageSize: side, labels, modelSizeTensor, unknown } = metadata
  const preprocess = preprocessor(front, modelSizeTensor, side)
  const outputs = unknown ? [PROBABILITIES, DISTANCE] : [PROBABILITIES]
  let explainer: Promise<InferenceSession> | null = null

  const batchOf = (pictures: readonly Uint8Array[]) => {
    const batch = new Uint8Array(pictures.length * 3 * side * side)
    for (const [i, picture] of pictures.entries()) batch.set(picture, i * 3 * side * side)
    return { data: batch, shape: [pictures.length, 3, side, side] }
  }
  const answersIn = (results: Results, n: number): Answer[] => {
    const rows = floats(results, PROBABILITIES, n * labels.length)
    const distances = unknown ? floats(results, DISTANCE, n) : null
    return Array.from({ length: n }, (_, i) => ({
      probabilities: rows.slice(i * labels.length, (i + 1) * labels.length),
      distance: distances ? distances[i]! : null,
    }))
  }

  async function answerPrepared(pictures: readonly Uint8Array[]): Promise<Answer[]> {
    const answers: Answer[] = []
    for (let from = 0; from < pictures.length; from += MAX_BATCH) {
      const part = pictures.slice(from, from + MAX_BATCH)
      const { data, shape } = batchOf(part)
      answers.push(...answersIn(await run(back, modelSizeTensor, data, shape, outputs), part.length))
    }
    return answers
  }
  async function answer(pictures: readonly PictureLike[]): Promise<Answer[]> {
    const prepared: Uint8Array[] = []
    for (const picture of pictures) prepared.push(await preprocess.run(picture))
    return answerPrepared(prepared)
  }
  async function explainPrepared(picture: Uint8Array): Promise<Explained> {
    if (!explaining) return { ...(await answerPrepared([picture]))[0]!, activation: null }
    explainer ??= open(explaining, threads)
    const { data, shape } = batchOf([picture])
    const results = await run(await explainer, modelSizeTensor, data, shape, [...outputs, ACTIVATION])
    const [, , rows, columns] = explaining.outputs.find(({ name }) => name === ACTIVATION)!.shape as number[]
    const places = rows! * columns!
    const all = floats(results, ACTIVATION, labels.length * places)
    const values = labels.map((_, k) => all.slice(k * places, (k + 1) * places))
    return { ...answersIn(results, 1)[0]!, activation: { rows: rows!, columns: columns!, values } }
  }
  return {
    metadata,
    answer,
    answerPrepared,
    classify: async pictures => (await answer(pictures)).map(({ probabilities }) => probabilities),
    prepare: preprocess.run,
    explain: async picture => explainPrepared(await preprocess.run(picture)),
    explainPrepared,
    async replayGolden(decode) {
      let largestDifference = 0
      const compare = (now: number, then: number, unit = 1) => {
        // NaN compares as the largest difference, not as none
        const difference = Math.abs(now - then) / unit
        if (!(difference <= largestDifference)) largestDifference = Number.isNaN(difference) ? Infinity : difference
      }
      for (const { png, probabilities, distance } of metadata.golden) {
        const [now] = await answer([await decode(Buffer.from(png, 'base64'))])
        for (const [i, value] of probabilities.entries()) compare(now!.probabilities[i]!, value)
        if (distance !== undefined) compare(now!.distance ?? NaN, distance, Math.max(1, Math.abs(distance)))
      }
      return { pictures: metadata.golden.length, largestDifference }
    },
    async close() {
      const opened = await explainer?.catch(() => null)
      await Promise.all([front.release(), back.release(), opened?.release()])
    },
  }
}

function preprocessor(session: InferenceSession, output: string, side: number): Preprocessor {
  return {
    async run({ width, height, data }) {
      if (!(width > 0 && height > 0) || data.length !== width * height * 3)
        throw new Failure('shape_mismatch', { operation: 'preprocessing', a: `[${height}, ${width}, 3]`, b: `[${data.length}]` })
      const planes = (await run(session, IMAGE, data, [height, width, 3], [output]))[output]?.data
      if (!(planes instanceof Uint8Array) || planes.length !== 3 * side * side)
        throw invalid(`pictures come out of its preprocessing as something else than 3 × ${side} × ${side} bytes`)
      return planes
    },
    close: () => session.release(),
  }
}

/**
 * The answer for one picture, most probable label first. It is `unknown` where the picture is farther away than the file's threshold; by
 * its probability only in files that know no distance. Not by both: each of the two rules has its own false alarms (docs/unknown.md).
 */
export function prediction(
  { labels, threshold, unknown }: Pick<ArtefactMetadata, 'labels' | 'threshold' | 'unknown'>,
  row: Float32Array,
  distance: number | null = null,
): Prediction {
  const probabilities = labels.map((label, i) => ({ label, probability: row[i]! })).sort((a, b) => b.probability - a.probability)
  const [best] = probabilities
  const strange = unknown && distance !== null ? !(distance <= unknown.threshold) : best!.probability < threshold
  return { label: best!.label, probability: best!.probability, unknown: strange, probabilities }
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
      const [answer] = await model.answer([await decode(png)])
      const { probabilities, distance } = answer!
      golden.push({
        png: Buffer.from(png).toString('base64'),
        probabilities: Array.from(probabilities),
        ...(distance !== null && { distance }),
      })
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

type Results = InferenceSession.OnnxValueMapType

async function run(
  session: InferenceSession,
  input: string,
  data: Uint8Array,
  shape: readonly number[],
  outputs: readonly string[],
): Promise<Results> {
  try {
    return await session.run({ [input]: tensorOf('uint8', data, shape) }, outputs)
  } catch (error) {
    throw new Failure('artefact_invalid', { problem: runtimeText(error) }, { cause: error })
  }
}

/** A file may say one thing about its outputs and compute another. */
function floats(results: Results, output: string, expected: number): Float32Array {
  const data = results[output]?.data
  if (!(data instanceof Float32Array) || data.length !== expected)
    throw invalid(`it answered ${(data as Float32Array | undefined)?.length ?? 'no'} numbers as "${output}" instead of ${expected}`)
  return data
}

/** The runtime's messages quote names from the file at any length. */
const runtimeText = (error: unknown) => `the runtime says: ${error instanceof Error ? error.message.slice(0, 300) : String(error)}`
