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
  /** Rows of numbers → rows of outputs; pictures → one row of probabilities each, in the order of `labels`. @throws rows_invalid, input_not_finite */
  predict(rows: Rows | readonly RgbPicture[]): Promise<number[][]>
  close(): Promise<void>
}

/** @throws not_permitted, storage, onnx_malformed, onnx_external_data, onnx_unsupported, feed_missing */
export async function loadModel(path: string, { threads = 1 } = {}): Promise<LoadedModel> {
  const bytes = await readFile(path).catch(error => {
    throw storageFailure(error, path)
  })
  const { graph, metadata } = decodeModel(bytes)
  const [first] = graph.inputs
  const [output] = graph.outputs
  if (!first || !output) throw new Failure('onnx_unsupported', { problem: 'a model without an input or an output' })
  const session = await InferenceSession.create(bytes, { intraOpNumThreads: threads, interOpNumThreads: 1, logSeverityLevel: 3 })
  const labelText = metadata['plinth.labels']
  const labels = labelText ? z.array(z.string()).parse(JSON.parse(labelText)) : null

  async function run(data: Float32Array | Uint8Array, shape: readonly number[]): Promise<number[][]> {
    const results = await session.run({ [first!.name]: tensorOf(data instanceof Uint8Array ? 'uint8' : 'float32', data, shape) })
    const { data: values, dims } = results[output!.name]!
    return asRows(values as Float32Array, dims.at(-1)!)
  }
  return {
    labels,
    async predict(given) {
      if (given.length === 0) return []
      if (first.type === 'float32') {
        const columns = first.shape?.at(-1)
        if (typeof columns !== 'number') throw new Failure('onnx_unsupported', { problem: 'an input of unknown width' })
        return run(flatten(given as Rows, columns, first.name), [given.length, columns])
      }
      const answers: number[][] = []
      for (const { data, width, height } of given as readonly RgbPicture[]) {
        if (data?.length !== width * height * 3)
          throw new Failure('rows_invalid', { problem: 'a picture needs width × height × 3 bytes', expected: 3 })
        answers.push(...(await run(data, [height, width, 3])))
      }
      return answers
    },
    close: () => session.release(),
  }
}
