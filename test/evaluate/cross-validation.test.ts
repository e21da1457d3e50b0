import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomFrom } from '../../src/engine/random.ts'
import { crossValidate } from '../../src/evaluate/cross-validation.ts'
import { wilson } from '../../src/evaluate/intervals.ts'
import { probeUnderSplits } from '../../src/evaluate/random-split.ts'
import { fitLogisticRegression } from '../../src/models/logistic-regression.ts'
import { Evaluation, type Manifest } from '../../src/sdk/shapes.ts'
import { clouds } from './clouds.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const classes = 4
const width = 16

/** `n` pictures in groups of `size` near-copies of one picture. */
function bursts(n: number, size: number, apart: number, seed: number) {
  const sources = clouds(n / size, width, classes, apart, seed)
  const random = randomFrom(seed, 21)
  const features = new Float32Array(n * width)
  const labels = new Int32Array(n)
  for (let row = 0; row < n; row++) {
    const source = Math.floor(row / size)
    labels[row] = sources.labels[source]!
    for (let f = 0; f < width; f++) features[row * width + f] = sources.features[source * width + f]! + 0.1 * (random() - 0.5)
  }
  const groups = Array.from({ length: n / size }, (_, g) => Array.from({ length: size }, (_, c) => g * size + c))
  return { features, labels, width, groups }
}

test('answers with the accuracy of heads that never saw the picture, to the bit again with the same seed', async () => {
  const some = clouds(200, width, classes, 2.5, 1)
  const task = { ...some, classes, groups: null, seed: 1, threads: 2 }
  const [a, b] = [await crossValidate(task), await crossValidate(task)]
  assert.deepEqual(a, b)
  assert.deepEqual(Evaluation.shape.crossValidation.parse(a), a)
  assert.deepEqual([a.folds, a.repeats, a.n, a.groups], [5, 3, 200, 200])
  assert.ok(a.low < a.accuracy && a.accuracy < a.high)
  // features without any relation to the class: chance, whatever the heads learned by heart
  const nothing = await crossValidate({ ...task, features: clouds(200, width, 1, 0, 2).features })
  assert.ok(nothing.low < 0.25 && nothing.high < 0.45, JSON.stringify(nothing))
})

test('copies that are not known as such flatter the score, and groups widen the interval', async () => {
  const some = bursts(240, 6, 1.2, 3)
  const task = { ...some, classes, seed: 1, threads: 2 }
  const honest = await crossValidate(task)
  const flattered = await crossValidate({ ...task, groups: null })
  assert.ok(flattered.accuracy > honest.accuracy + 0.1, `${flattered.accuracy} and ${honest.accuracy}`)
  assert.ok(honest.high - honest.low > 1.5 * (flattered.high - flattered.low))
  assert.deepEqual([honest.groups, flattered.groups], [40, 240])
})

test('the interval is narrower than that of the test side, and holds what a large test would say', async () => {
  const draws = long ? 200 : 12
  for (const { n, size, apart } of [
    { n: 100, size: 1, apart: 2 },
    { n: 240, size: 4, apart: 2.5 },
  ]) {
    const large = clouds(long ? 8000 : 3000, width, classes, apart, 999)
    let held = 0
    for (let seed = 1; seed <= draws; seed++) {
      const some = bursts(n, size, apart, seed)
      const found = await crossValidate({ ...some, classes, seed, threads: 1 })
      const nothing = { features: new Float32Array(0), labels: [] }
      const head = await fitLogisticRegression({ train: some, validation: nothing, width, classes, threads: 1 })
      const probabilities = head.probabilities(large.features)
      let right = 0
      for (let i = 0; i < large.labels.length; i++) {
        const row = probabilities.subarray(i * classes, (i + 1) * classes)
        right += Number(row.indexOf(Math.max(...row)) === large.labels[i])
      }
      const truth = right / large.labels.length
      held += Number(found.low <= truth && truth <= found.high)
      const tested = Math.round((0.15 * n) / size)
      const [low, high] = wilson(Math.round(found.accuracy * tested), tested)
      assert.ok(found.high - found.low < 0.75 * (high - low), `${found.high - found.low} and ${high - low}`)
    }
    const [least, most] = long ? [0.92 * draws, 0.98 * draws] : [10, 12]
    assert.ok(held >= least && held <= most, `${n} pictures in groups of ${size}: held ${held} of ${draws}`)
  }
})

test('all right, or too few to say anything, still gives an interval that is not empty', async () => {
  const sure = await crossValidate({ ...clouds(40, width, classes, 30, 5), classes, groups: null, seed: 1, threads: 1 })
  assert.deepEqual([sure.accuracy, sure.high], [1, 1])
  assert.ok(sure.low > 0.8 && sure.low < 0.95, `${sure.low}`)
  const few = await crossValidate({ ...clouds(8, width, 2, 3, 6), classes: 2, groups: null, seed: 1, threads: 1 })
  assert.ok(few.high - few.low > 0.3)
  const features = clouds(40, width, classes, 3, 7).features
  features[0] = Number.NaN
  await assert.rejects(crossValidate({ ...clouds(40, width, classes, 3, 7), features, classes, groups: null, seed: 1, threads: 1 }), {
    code: 'bad_scores',
  })
})

test('a split by chance scores higher where copies are torn apart, and the same where there are none', async () => {
  const manifest = (labels: Int32Array): Manifest => ({
    schema: 1,
    classes: Array.from({ length: classes }, (_, k) => `class-${k}`),
    rows: Array.from(labels, (label, row) => ({
      path: `class-${label}/${row}.png`,
      content: String(row).padStart(64, '0'),
      pixels: String(row).padStart(64, '0'),
      labels: [`class-${label}`],
      group: null,
      side: row % 2 ? ('train' as const) : null,
      width: 10,
      height: 10,
      flags: [],
    })),
    unreadable: [],
    ignored: [],
    exactDuplicates: [],
    conflicts: [],
  })
  const torn = bursts(480, 6, 1.2, 8)
  const scores = await probeUnderSplits({ manifest: manifest(torn.labels), ...torn, seed: 1, threads: 2 })
  assert.ok(scores.random > scores.grouped + 0.1, JSON.stringify(scores))
  assert.deepEqual(Evaluation.shape.randomSplit.parse(scores), scores)
  assert.ok(scores.n > 60 && scores.n < 84 && scores.repeats === 3)

  const alone = clouds(480, width, classes, 2.5, 9)
  const even = await probeUnderSplits({ manifest: manifest(alone.labels), ...alone, groups: [], seed: 1, threads: 2, repeats: 5 })
  assert.ok(Math.abs(even.random - even.grouped) < 0.05, JSON.stringify(even))

  const stop = new AbortController()
  stop.abort(new Error('enough'))
  await assert.rejects(
    probeUnderSplits({ manifest: manifest(alone.labels), ...alone, groups: [], seed: 1, threads: 2, signal: stop.signal }),
    {
      message: 'enough',
    },
  )
})
