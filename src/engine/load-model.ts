/** Runs a saved model in an app: what `save` wrote, or the image artefact of a training. */
import { readFile } from 'node:fs/promises'
import { InferenceSession } from 'onnxruntime-node'
import { z } from 'zod'
import { Failure } from '../failure.ts'
import { storageFailure } from '../storage/disk.ts'
import { decodeModel } from './onnx-read.ts'
import { asRows, flatten, type Rows } from './sequential.ts'
import { tensorOf } from './session.ts'

/** Decoded RGB: `data` holds height × width × 3 bytes, row by row. */
export interface RgbPicture {
  width: number
  height: number
  data: Uint8Array
}
export interface LoadedModel {
  /** Class names of an image artefact; null for a network of numbers. */
  labels: readonly string[] | null
  /** Rows of numbers → rows of outputs; pictures → one row of probabilities each, in the order of `labels`. @throws rows_invalid, input_not_finite, feed_mismatch, onnx_unsupported */
  predict(rows: Rows | readonly RgbPicture[]): Promise<number[][]>
  close(): Promise<void>
}

/** @throws not_permitted, storage, onnx_malformed, onnx_external_data, onnx_unsupported */
export async function loadModel(path: string, { threads = 1 } = {}): Promise<LoadedModel> {
  const bytes = await readFile(path).catch(error => {
    throw storageFailure(error, path)
  })
  const { graph, metadata } = decodeModel(bytes)
  const [first] = graph.inputs
  const [output] = graph.outputs
  if (!first || !output) throw unsupported('a model without an input or an output')
  const columns = first.type === 'float32' && first.shape?.length === 2 ? first.shape[1] : null
  const takesPictures = first.type === 'uint8' && first.shape?.length === 3 && first.shape[2] === 3
  if (typeof columns !== 'number' && !takesPictures)
    throw unsupported('an input that is neither rows of numbers, float32 [batch, columns], nor a picture, uint8 [height, width, 3]')
  if (output.type !== 'float32') throw unsupported(`an output of ${output.type}`)
  const labels = labelsIn(metadata['plinth.labels'])
  const session = await InferenceSession.create(bytes, {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  }).catch(refused)

  async function run(data: Float32Array | Uint8Array, shape: readonly number[]): Promise<number[][]> {
    const results = await session.run({ [first!.name]: tensorOf(first!.type as 'float32' | 'uint8', data, shape) }).catch(refused)
    const { data: values, dims } = results[output!.name]!
    return asRows(values as Float32Array, dims.at(-1)!)
  }
  return {
    labels,
    async predict(given) {
      if (given.length === 0) return []
      if (typeof columns === 'number') return run(flatten(given as Rows, columns, first.name), [given.length, columns])
      const answers: number[][] = []
      for (const { data, width, height } of given as readonly RgbPicture[]) {
        if (!(data instanceof Uint8Array) || data.length === 0 || data.length !== width * height * 3)
          throw new Failure('feed_mismatch', {
            name: first.name,
            problem: `it has ${data?.length ?? 'no'} bytes`,
            expected: '{ data, width, height } with width × height × 3 bytes of RGB for each picture',
          })
        answers.push(...(await run(data, [height, width, 3])))
      }
      return answers
    },
    close: () => session.release(),
  }
}

function labelsIn(text: string | undefined): string[] | null {
  if (text === undefined) return null
  try {
    return z.array(z.string()).parse(JSON.parse(text))
  } catch (cause) {
    throw new Failure('onnx_unsupported', { problem: 'labels that are not a list of texts' }, { cause })
  }
}

const unsupported = (problem: string) => new Failure('onnx_unsupported', { problem })
/** What the runtime says about a model it does not take. */
const refused = (cause: Error): never => {
  throw new Failure('onnx_unsupported', { problem: cause.message.split('\n')[0]!.replace(/\.$/, '') }, { cause })
}
