/** Small artefacts that are quick to make and whose answers can be worked out by eye: they tell which colour a picture has most of. */
import { conv, globalAveragePool, type Node, parameter, relu, reshape } from '../../src/engine/graph.ts'
import { decodePicture } from '../../src/images/decode.ts'
import { encodePng } from '../../src/images/encode.ts'
import { composeArtefact, type PictureLike, recordGolden } from '../../src/models/artefact.ts'
import { fitFeatureSpace, measure } from '../../src/models/feature-space.ts'
import { scalesOf, type UnknownParts } from '../../src/models/unknown.ts'
import type { Fit } from '../../src/sdk/index.ts'

export const COLOURS = ['red', 'green', 'blue']
export const decode = (bytes: Uint8Array) => decodePicture(bytes, { formats: 'upload' })

export interface TinyOptions {
  imageSize?: number
  labels?: string[]
  threshold?: number
  temperature?: number
  /** Random filters instead of colours, for comparing numbers between runtimes. */
  random?: boolean
  /** With a distance: `knownColours()`, for the colours. */
  unknown?: UnknownParts
  fit?: Fit
}

/** What is known are mostly red, mostly green and mostly blue pictures: white, black and yellow are far away. */
export async function knownColours(threshold = 4): Promise<UnknownParts> {
  const next = randomNumbers(11)
  const n = 90
  const features = Float32Array.from({ length: n * 3 }, (_, at) => (at % 3 === Math.floor(at / 3) % 3 ? 0.2 + 0.3 * next() : 0.05 * next()))
  const rows = Array.from({ length: n }, (_, i) => i)
  const space = (await fitFeatureSpace({ features, width: 3, rows }, { labels: rows.map(i => i % 3), threads: 1, seed: 0 }))!
  const measures = { ...(await measure(space, { features, width: 3, rows }, 1)), entropy: rows.map(i => 0.01 * (i % 7)) }
  const ladder = Array.from({ length: 101 }, (_, i) => (threshold * i) / 95)
  return { space, scales: scalesOf(measures), metadata: { threshold, falseAlarmRate: 0.05, ladder } }
}

/** Without golden predictions. */
export function tinyArtefact({
  imageSize = 32,
  threshold = 0.5,
  temperature = 1,
  random = false,
  labels = COLOURS,
  unknown,
  fit,
}: TinyOptions = {}) {
  const features = random ? 24 : 3
  const next = randomNumbers(7)
  const fill = (length: number, scale: number) => Float32Array.from({ length }, () => (next() - 0.5) * scale)
  // each colour channel passes through the middle of a 3 × 3 window, or random filters do
  const colours = Float32Array.from({ length: 3 * 3 * 9 }, (_, i) =>
    i % 9 === 4 && Math.floor(i / 27) === Math.floor((i % 27) / 9) ? 1 : 0,
  )
  const first = random ? fill(features * 27, 0.8) : colours
  const weights = new Map([
    ['first', first],
    ['second', random ? fill(features * features * 9, 0.3) : new Float32Array(0)],
  ])
  if (!random) weights.delete('second')
  const pool = (x: Node) => reshape(globalAveragePool(x), [1, features])
  return composeArtefact({
    backbone: {
      features,
      normalise: { mean: [127, 127, 127], scale: [128, 128, 128] },
      build(picture) {
        const x = relu(conv(picture, parameter('first', [features, 3, 3, 3]), { stride: 2, padding: 1 }))
        if (!random) return { features: pool(x) }
        return { features: pool(relu(conv(x, parameter('second', [features, features, 3, 3]), { padding: 1 }))) }
      },
    },
    weights,
    ...(unknown && { unknown }),
    head: {
      weight: random ? fill(labels.length * features, 4) : Float32Array.of(8, 0, 0, 0, 8, 0, 0, 0, 8),
      bias: random ? fill(labels.length, 1) : new Float32Array(3),
    },
    metadata: {
      labels,
      temperature,
      threshold,
      backbone: 'tiny',
      imageSize,
      ...(fit && { fit }),
      lineage: { run: null, dataset: null, parent: null, plinth: '0.0.0', commit: null, created: '2026-11-25T00:00:00.000Z' },
      licence: 'CC0-1.0',
    },
  })
}

/** With golden predictions for a few plain pictures. */
export async function finishedArtefact(options: TinyOptions = {}): Promise<Uint8Array> {
  const pictures = [plain(20, 30, [250, 10, 10]), plain(40, 20, [10, 250, 10]), noise(33, 47)]
  return recordGolden(tinyArtefact(options), await Promise.all(pictures.map(encodePng)), decode)
}

export function plain(width: number, height: number, rgb: readonly [number, number, number]): PictureLike {
  return { width, height, data: Uint8Array.from({ length: width * height * 3 }, (_, i) => rgb[i % 3]!) }
}
/** Waves with noise on top: edges at every scale. */
export function noise(width: number, height: number): PictureLike {
  const next = randomNumbers(width * 7919 + height)
  const data = new Uint8Array(width * height * 3)
  for (let i = 0; i < data.length; i++) {
    const x = Math.floor(i / 3) % width
    const y = Math.floor(i / 3 / width)
    data[i] = Math.max(0, Math.min(255, 128 + 80 * Math.sin(x / 7 + y / 11) + (next() - 0.5) * 64))
  }
  return { width, height, data }
}
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}
