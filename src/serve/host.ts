/**
 * A model host: a process of its own that decodes pictures and runs one model. The runtime blocks its thread while it works and a
 * hostile file could take the process down; nothing that must go on answering shares a process with it.
 *
 * Pictures are decoded as they arrive, next to each other. Whatever is ready when the network falls free goes through it together:
 * nobody waits for a batch to fill, and under load the batches fill by themselves.
 */
import { Failure, type SentFailure } from '../failure.ts'
import { decodePicture } from '../images/decode.ts'
import { thumbnail } from '../images/encode.ts'
import { type Classifier, openArtefact, prediction } from '../models/artefact.ts'
import { explanation } from '../models/explanation.ts'
import type { FromHost, OpenedModel, ToHost } from './messages.ts'

/** More pixels are refused before decoding: 64 megapixels are 192 MB of RGB, and two pictures are decoded at once. */
const MAX_PIXELS = 64e6
const DECODERS = 2
/** Pictures in one run of the network. On processors a larger batch makes everybody wait longer and hardly raises the rate. */
const MAX_BATCH = 8
/** Most that a probability may differ from the golden one: processors round differently, and by far less than this. */
const GOLDEN_TOLERANCE = 1e-3

type Asked = Extract<ToHost, { kind: 'predict' | 'explain' }>
interface Prepared extends Pick<Asked, 'kind' | 'id'> {
  picture: Uint8Array
}

function start(): void {
  let classifier: Classifier | undefined
  const undecoded: Asked[] = []
  const prepared: Prepared[] = []
  let decoding = 0
  let answering = false

  process.on('message', (message: ToHost) => {
    if (message.kind === 'open') void open(message)
    else if (message.kind === 'thumbnail') void shrink(message)
    else {
      undecoded.push(message)
      decodeNext()
    }
  })
  process.on('disconnect', () => process.exit(0)) // the gateway is gone, however it went
  // Ctrl-C reaches the whole group; the gateway decides when this process ends, after the last answer
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

  async function open({ path, model, threads }: Extract<ToHost, { kind: 'open' }>): Promise<void> {
    try {
      classifier = await openArtefact(path, { threads })
      send({ kind: 'ready', model: await proven(classifier, model) })
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error)
      send({ kind: 'refused', failure: sendable(error instanceof Failure ? error : new Failure('model_not_started', { model, problem })) })
    }
  }

  function decodeNext(): void {
    while (decoding < DECODERS) {
      const next = undecoded.shift()
      if (!next) return
      decoding++
      void prepare(next).finally(() => {
        decoding--
        decodeNext()
      })
    }
  }
  async function prepare({ kind, id, picture, formats }: Asked): Promise<void> {
    try {
      prepared.push({ kind, id, picture: await classifier!.prepare(await decode(picture, formats)) })
      void answer()
    } catch (error) {
      send({ kind: 'failed', id, failure: sendable(error) })
    }
  }

  async function answer(): Promise<void> {
    if (answering) return
    answering = true
    while (prepared.length) {
      const explained = prepared.findIndex(({ kind }) => kind === 'explain')
      if (explained === 0) await explain(prepared.shift()!)
      else await classify(prepared.splice(0, explained < 0 ? MAX_BATCH : Math.min(MAX_BATCH, explained)))
    }
    answering = false
  }
  async function classify(batch: readonly Prepared[]): Promise<void> {
    try {
      const answers = await classifier!.answerPrepared(batch.map(({ picture }) => picture))
      for (const [i, { id }] of batch.entries()) {
        const { probabilities, distance } = answers[i]!
        send({ kind: 'answer', id, prediction: prediction(classifier!.metadata, probabilities, distance), batch: batch.length })
      }
    } catch (error) {
      if (batch.length === 1) send({ kind: 'failed', id: batch[0]!.id, failure: sendable(error) })
      else for (const one of batch) await classify([one]) // one bad picture must not fail the others
    }
  }

  /** Alone: the map is another network to the runtime, opened when it is first asked for. */
  async function explain({ id, picture }: Prepared): Promise<void> {
    try {
      const explained = await classifier!.explainPrepared(picture)
      const { metadata } = classifier!
      const answer = prediction(metadata, explained.probabilities, explained.distance)
      send({ kind: 'answer', id, prediction: answer, batch: 1, explanation: explanation(metadata, explained) })
    } catch (error) {
      send({ kind: 'failed', id, failure: sendable(error) })
    }
  }
}

const decode = (bytes: Uint8Array, formats: 'upload' | 'local' = 'upload') => decodePicture(bytes, { formats, maxPixels: MAX_PIXELS })

/** The golden predictions, made again on this machine and through this very path. */
async function proven(classifier: Classifier, model: string): Promise<OpenedModel> {
  const golden = await classifier.replayGolden(png => decode(png))
  if (golden.pictures === 0) throw new Failure('golden_missing', { model })
  if (!(golden.largestDifference <= GOLDEN_TOLERANCE))
    throw new Failure('golden_mismatch', { model, difference: golden.largestDifference.toPrecision(3), allowed: GOLDEN_TOLERANCE })
  const { labels, threshold, unknown = null, backbone, imageSize, lineage } = classifier.metadata
  const limit = unknown && { threshold: unknown.threshold, falseAlarmRate: unknown.falseAlarmRate }
  return { labels, threshold, unknown: limit, backbone, imageSize, created: lineage.created, golden }
}

async function shrink({ id, picture, side }: Extract<ToHost, { kind: 'thumbnail' }>): Promise<void> {
  try {
    send({ kind: 'picture', id, bytes: await thumbnail(picture, side) })
  } catch (error) {
    send({ kind: 'failed', id, failure: sendable(error) })
  }
}

/** What is not one of our own failures is told to the log, not to whoever sent the picture. */
function sendable(error: unknown): SentFailure {
  if (error instanceof Failure) return { code: error.code, details: error.details }
  console.error(error)
  return { code: 'internal', details: { problem: 'the model host failed; its log says how' } }
}

function send(message: FromHost): void {
  if (process.connected) process.send!(message)
}

start()
