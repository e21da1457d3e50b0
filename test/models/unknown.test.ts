import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { compile, input, matMul, parameter, type Weights } from '../../src/engine/index.ts'
import { encodeModel, type OnnxModel } from '../../src/engine/onnx.ts'
import { Failure } from '../../src/failure.ts'
import { encodePng } from '../../src/images/encode.ts'
import {
  type Classifier,
  composeArtefact,
  openArtefact,
  prediction,
  readArtefact,
  recordGolden,
  withGolden,
} from '../../src/models/artefact.ts'
import { normalise } from '../../src/models/artefact-format.ts'
import { backbone } from '../../src/models/catalogue.ts'
import { fitFeatureSpace, measure } from '../../src/models/feature-space.ts'
import { softmax } from '../../src/models/logistic-regression.ts'
import { distancesOf, entropies, scalesOf } from '../../src/models/unknown.ts'
import { COLOURS, decode, finishedArtefact, knownColours, noise, plain, randomNumbers, tinyArtefact } from './tiny-model.ts'

async function using<T>(bytes: Uint8Array | string, body: (model: Classifier) => Promise<T>): Promise<T> {
  const model = await openArtefact(bytes, { threads: 2 })
  try {
    return await body(model)
  } finally {
    await model.close()
  }
}
const largest = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0)
const sum = (values: ArrayLike<number>) => Array.from(values).reduce((total, value) => total + value, 0)
const pictures = [noise(28, 28), noise(300, 200), plain(5, 5, [200, 40, 90]), noise(64, 500)]

// ── why ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

for (const id of ['efficientnet-lite0', 'resnet18'])
  test(`${id}: what the places of a picture add is the score, to 1e-4, in the whole file and in the cut one`, async () => {
    const network = backbone(id)
    const side = 96
    const classes = 7
    const next = randomNumbers(5)
    const weights = id === 'resnet18' ? madeUp(id, next) : await network.loadWeights({ offline: true })
    const head = {
      weight: Float32Array.from({ length: classes * network.features }, () => (next() - 0.5) * 0.3),
      bias: Float32Array.from({ length: classes }, () => next() - 0.5),
    }
    const temperature = 1.6
    const labels = Array.from({ length: classes }, (_, k) => `class ${k}`)
    const lineage = { run: null, dataset: null, parent: null, plinth: '0', commit: null, created: '2026-11-25' }
    const metadata = { labels, temperature, threshold: 0.5, backbone: id, imageSize: side, lineage, licence: '' }
    const bytes = composeArtefact({ backbone: network, weights, head, metadata })

    const square = input('square', [1, 3, side, side], 'uint8')
    const weight = parameter('w', [classes, network.features])
    const plainly = await compile(
      { logits: matMul(network.build(normalise(square, network)).features, weight, { transposeB: true }) },
      new Map([...weights, ['w', head.weight]]),
      { threads: 2 },
    )
    const whole = await InferenceSession.create(bytes)
    await using(bytes, async model => {
      for (const picture of pictures) {
        const { probabilities, activation, distance } = await model.explain(picture)
        const { logits } = await plainly.run({ square: await model.prepare(picture) })
        assert.equal(distance, null)
        assert.deepEqual([activation!.rows, activation!.columns, activation!.values.length], [3, 3, classes])
        const sums = activation!.values.map(sum)
        const scores = Array.from(logits as Float32Array, (z, k) => (z + head.bias[k]!) / temperature)
        assert.ok(largest(sums, scores) < 1e-4 * Math.max(1, ...scores.map(Math.abs)), `${sums} and ${scores}`)
        assert.ok(largest(softmax(sums, classes), probabilities) < 1e-4)

        const all = await whole.run({ image: new Tensor('uint8', picture.data, [picture.height, picture.width, 3]) })
        assert.deepEqual(all['activation']!.dims, [1, classes, 3, 3])
        const flat = activation!.values.flatMap(values => Array.from(values))
        assert.ok(largest(all['activation']!.data as Float32Array, flat) < 1e-4 * Math.max(1, ...flat.map(Math.abs)))
      }
    })
    await plainly.close()
    await whole.release()
  })

/** Numbers of the right shapes: variances above zero, small weights. */
function madeUp(id: string, next: () => number): Weights {
  return new Map(
    parametersOf(id).map(({ name, length }) => [
      name,
      Float32Array.from({ length }, () =>
        name.endsWith('running_var') ? 0.5 + next() : (next() - 0.5) * (name.includes('bn') ? 1 : 0.12),
      ),
    ]),
  )
}
function parametersOf(id: string): { name: string; length: number }[] {
  const found = new Map<string, number>()
  const stack = [backbone(id).build(input('picture', [1, 3, 32, 32])).features]
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (node.operation === 'Parameter')
      found.set(
        node.name!,
        node.shape.reduce((product, d) => product * d, 1),
      )
    stack.push(...node.inputs)
  }
  return [...found].map(([name, length]) => ({ name, length }))
}

test('what a place adds lies where the colour is', async () => {
  const half = plain(64, 64, [0, 0, 0])
  for (let y = 0; y < 64; y++) for (let x = 0; x < 32; x++) half.data.set([250, 0, 0], (y * 64 + x) * 3)
  await using(tinyArtefact({ imageSize: 64 }), async model => {
    const { rows, columns, values } = (await model.explain(half)).activation!
    const side = (from: number, to: number) =>
      sum(values[COLOURS.indexOf('red')]!.filter((_, at) => at % columns >= from && at % columns < to))
    assert.deepEqual([rows, columns], [32, 32])
    assert.ok(side(0, 15) > 1 && Math.abs(side(17, 32)) < 1e-6, `${side(0, 15)} left, ${side(17, 32)} right`)
  })
})

// ── none of these ───────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a picture unlike the known ones is far away, and called unknown with its nearest label', async () => {
  await using(tinyArtefact({ unknown: await knownColours(), threshold: 0 }), async model => {
    const [red, yellow, grey] = await model.answer([plain(9, 9, [250, 10, 10]), plain(9, 9, [250, 250, 10]), plain(9, 9, [190, 200, 190])])
    const said = [red, yellow, grey].map(answer => prediction(model.metadata, answer!.probabilities, answer!.distance))
    assert.deepEqual(
      said.map(({ unknown }) => unknown),
      [false, true, true],
      `distances ${[red, yellow, grey].map(answer => answer!.distance)}`,
    )
    assert.ok(COLOURS.includes(said[1]!.label))
  })
})

test('the distance decides alone where there is one, the probability where there is none', () => {
  const known = { threshold: 3, falseAlarmRate: 0.05, ladder: Array.from({ length: 101 }, () => 1) }
  const sure = Float32Array.of(0.99, 0.01)
  const unsure = Float32Array.of(0.51, 0.49)
  const asked = (row: Float32Array, distance: number | null, unknown?: typeof known) =>
    prediction({ labels: ['a', 'b'], threshold: 0.6, ...(unknown && { unknown }) }, row, distance).unknown
  assert.deepEqual([asked(sure, 3.1, known), asked(sure, 3, known), asked(unsure, 2, known)], [true, false, false])
  assert.equal(asked(sure, Number.NaN, known), true, 'what cannot be measured is not known')
  assert.deepEqual([asked(sure, null), asked(unsure, null)], [false, true])
})

test('the distance in the file is the one that was fitted: the graph computes what the fit computed', async () => {
  const network = backbone('efficientnet-lite0')
  const weights = await network.loadWeights({ offline: true })
  const side = 64
  const square = input('square', [1, 3, side, side], 'uint8')
  const program = await compile({ features: network.build(normalise(square, network)).features }, weights, { threads: 2 })
  const seen = Array.from({ length: 60 }, (_, i) => noise(20 + i, 90 - i))
  const width = network.features
  const features = new Float32Array(seen.length * width)
  const next = randomNumbers(9)
  const head = { weight: Float32Array.from({ length: 4 * width }, () => (next() - 0.5) * 0.4), bias: new Float32Array(4) }
  const rows = [...seen.keys()]
  const logits = new Float64Array(seen.length * 4)
  await using(tinyArtefact({ imageSize: side }), async tiny => {
    for (const [i, picture] of seen.entries())
      features.set((await program.run({ square: await tiny.prepare(picture) }))['features'] as Float32Array, i * width)
  })
  await program.close()
  for (const i of rows)
    for (let k = 0; k < 4; k++)
      logits[i * 4 + k] = sum(features.subarray(i * width, (i + 1) * width).map((f, at) => f * head.weight[k * width + at]!))
  const space = (await fitFeatureSpace({ features, width, rows }, { labels: rows.map(i => i % 4), threads: 2, seed: 1 }))!
  const measures = { ...(await measure(space, { features, width, rows }, 2)), entropy: entropies(softmax(logits, 4, 2), 4) }
  const scales = scalesOf(measures)
  const fitted = distancesOf(measures, scales)
  assert.ok(new Set(Array.from(fitted, d => d.toFixed(2))).size > 20, 'the distances differ')

  const labels = ['a', 'b', 'c', 'd']
  const ladder = Array.from({ length: 101 }, () => 1)
  const lineage = { run: null, dataset: null, parent: null, plinth: '0', commit: null, created: '2026-11-25' }
  const bytes = composeArtefact({
    backbone: network,
    weights,
    head,
    unknown: { space, scales, metadata: { threshold: 2, falseAlarmRate: 0.05, ladder } },
    metadata: { labels, temperature: 2, threshold: 0.5, backbone: network.id, imageSize: side, lineage, licence: '' },
  })
  const answered = await using(bytes, model => model.answer(seen))
  const distances = answered.map(({ distance }) => distance!)
  assert.ok(largest(distances, fitted) < 1e-3, `${largest(distances, fitted)}`)
  const numbers = (space.dimensions * (width + 2 * space.dimensions) + 4 * space.dimensions + width) * 4
  const without = composeArtefact({
    backbone: network,
    weights,
    head,
    metadata: { labels, temperature: 2, threshold: 0.5, backbone: network.id, imageSize: side, lineage, licence: '' },
  })
  assert.ok(bytes.length - without.length < numbers + 10_000, `${bytes.length - without.length} bytes more for ${numbers}`)
})

test('golden predictions hold the distance, and one that changed is noticed', async () => {
  const bytes = await finishedArtefact({ unknown: await knownColours() })
  await using(bytes, async model => {
    assert.ok(model.metadata.golden.every(({ distance }) => distance !== undefined))
    assert.ok((await model.replayGolden(decode)).largestDifference < 1e-5)
  })
  const { golden } = readArtefact(bytes).metadata
  const moved = golden.map((one, i) => (i === 1 ? { ...one, distance: one.distance! + 0.5 } : one))
  await using(withGolden(bytes, moved), async model => {
    const { largestDifference } = await model.replayGolden(decode)
    assert.ok(largestDifference > 0.5 / Math.max(1, golden[1]!.distance! + 0.5) - 1e-3, String(largestDifference))
  })
})

test('a file made before there was a distance answers as it did: unknown by its probability', async () => {
  const old = fileURLToPath(new URL('../golden/models/artefact-before-distance.onnx', import.meta.url))
  assert.deepEqual(
    readArtefact(readFileSync(old)).model.graph.outputs.map(({ name }) => name),
    ['probabilities'],
  )
  await using(old, async model => {
    const replayed = await model.replayGolden(decode)
    assert.deepEqual([replayed.pictures, replayed.largestDifference < 1e-6], [3, true])
    const explained = await model.explain(plain(9, 9, [128, 128, 128]))
    assert.deepEqual([explained.distance, explained.activation], [null, null])
    assert.equal(prediction(model.metadata, explained.probabilities, explained.distance).unknown, true)
    const [red] = await model.answer([plain(9, 9, [250, 10, 10])])
    assert.equal(prediction(model.metadata, red!.probabilities, red!.distance).unknown, false)
  })
  await using(await recordGolden(readFileSync(old), [await encodePng(plain(9, 9, [1, 2, 3]))], decode), async model =>
    assert.equal((await model.replayGolden(decode)).pictures, 1),
  )
})

test('pictures that are cropped, squashed and letterboxed are answered by the same file format, and it says which', async () => {
  const wide = plain(90, 30, [250, 250, 250])
  for (let y = 0; y < 30; y++) for (let x = 0; x < 30; x++) wide.data.set([250, 0, 0], (y * 90 + x) * 3)
  const red: Record<string, number> = {}
  for (const fit of ['crop', 'squash', 'letterbox'] as const)
    await using(tinyArtefact({ fit, imageSize: 32 }), async model => {
      assert.equal(model.metadata.fit, fit)
      red[fit] = (await model.classify([wide]))[0]![0]!
    })
  // the red third is beyond the square, a third of it, and a third of the band in the middle
  assert.ok(Math.abs(red['crop']! - 1 / 3) < 1e-3 && red['squash']! > 0.6 && red['letterbox']! > 0.4, JSON.stringify(red))
})

// ── files from strangers ────────────────────────────────────────────────────────────────────────────────────────────────────

const known = await knownColours()
function refused(what: string, change: (model: OnnxModel) => void, problem: RegExp): void {
  const { model } = readArtefact(tinyArtefact({ unknown: known }))
  change(model)
  const bytes = encodeModel(model.graph, { opset: model.opsets['']!, metadata: model.metadata })
  assert.throws(
    () => readArtefact(bytes),
    (error: unknown) => error instanceof Failure && error.code === 'artefact_invalid' && problem.test(error.message),
    what,
  )
}
const output = (model: OnnxModel, name: string) => model.graph.outputs.find(value => value.name === name)!

test('metadata and outputs that lie about distance, map and fit are refused', () => {
  const metadata = (key: string, value: string) => (model: OnnxModel) => {
    model.metadata[`plinth.${key}`] = value
  }
  const ladder = (length: number, value = '1') => `[${Array.from({ length }, () => value).join()}]`
  refused('no such fit', metadata('fit', '"stretch"'), /fit/)
  refused(
    'a limit that is no number',
    metadata('unknown', `{"threshold":"NaN","falseAlarmRate":0.05,"ladder":${ladder(101)}}`),
    /threshold/,
  )
  refused('a rate above one', metadata('unknown', `{"threshold":1,"falseAlarmRate":5,"ladder":${ladder(101)}}`), /falseAlarmRate/)
  refused('a short ladder', metadata('unknown', `{"threshold":1,"falseAlarmRate":0.05,"ladder":${ladder(3)}}`), /ladder/)
  refused('an endless step', metadata('unknown', `{"threshold":1,"falseAlarmRate":0.05,"ladder":${ladder(101, '1e999')}}`), /ladder/)
  refused('more than is known', metadata('unknown', `{"threshold":1,"falseAlarmRate":0.05,"ladder":${ladder(101)},"x":1}`), /unknown/)
  refused('no metadata for a distance', model => void delete model.metadata['plinth.unknown'], /go together/)
  refused(
    'no distance for its metadata',
    ({ graph }) =>
      void graph.outputs.splice(
        graph.outputs.findIndex(({ name }) => name === 'distance'),
        1,
      ),
    /go together/,
  )
  refused(
    'two distances a picture',
    model => {
      output(model, 'distance').shape = [1, 2]
    },
    /one number/,
  )
  refused('a distance of no known size', model => void delete output(model, 'distance').shape, /one number/)
  refused(
    'a distance in whole numbers',
    model => {
      output(model, 'distance').type = 'int64'
    },
    /not float32/,
  )
  refused('the same output twice', model => void model.graph.outputs.push({ ...output(model, 'distance') }), /twice/)
  refused(
    'a map for other classes',
    model => {
      output(model, 'activation').shape = [1, 9, 16, 16]
    },
    /each of its 3 labels/,
  )
  refused(
    'a map of any size',
    model => {
      output(model, 'activation').shape = [1, 3, 'height', 16]
    },
    /known size/,
  )
  refused(
    'a map of a billion places',
    model => {
      output(model, 'activation').shape = [1, 3, 1e9, 16]
    },
    /known size/,
  )
})

test('a map that is not as large as it says is found when the first picture comes', async () => {
  const { model } = readArtefact(tinyArtefact())
  output(model, 'activation').shape = [1, 3, 4, 4]
  const bytes = encodeModel(model.graph, { opset: model.opsets['']!, metadata: model.metadata })
  await using(bytes, async lying => {
    await assert.rejects(lying.explain(plain(4, 4, [0, 0, 0])), { code: 'artefact_invalid' })
    assert.equal((await lying.answer([plain(4, 4, [250, 0, 0])])).length, 1, 'what does not need it goes on')
  })
})

// ── the measure ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('nothing to measure by is said, not guessed', async () => {
  const fit = (features: Float32Array, n: number) =>
    fitFeatureSpace(
      { features, width: 4, rows: Array.from({ length: n }, (_, i) => i) },
      { labels: new Int32Array(n), threads: 1, seed: 0 },
    )
  assert.equal(await fit(Float32Array.of(1, 2, 3, 4), 1), null)
  assert.equal(await fit(new Float32Array(40).fill(1), 10), null, 'ten times the same')
  assert.equal(await fit(new Float32Array(40), 10), null, 'no feature at all')
})

test('the measure does not care how bright a picture is, and is finite for a picture without any feature', async () => {
  const next = randomNumbers(21)
  const n = 80
  const features = Float32Array.from({ length: n * 12 }, (_, at) => next() + (Math.floor(at / 12) % 4 === at % 4 ? 2 : 0))
  const rows = Array.from({ length: n }, (_, i) => i)
  const space = (await fitFeatureSpace({ features, width: 12, rows }, { labels: rows.map(i => i % 4), threads: 1, seed: 0 }))!
  const one = await measure(space, { features, width: 12, rows: [3, 7] }, 1)
  const brighter = await measure(space, { features: features.map(f => f * 50), width: 12, rows: [3, 7] }, 1)
  assert.ok(largest(one.relative, brighter.relative) < 1e-3 && largest(one.rest, brighter.rest) < 1e-5)
  const nothing = await measure(space, { features: new Float32Array(12), width: 12, rows: [0] }, 1)
  assert.ok(Number.isFinite(nothing.relative[0]!) && Number.isFinite(nothing.rest[0]!))
})
