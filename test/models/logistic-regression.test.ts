import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomFrom } from '../../src/engine/random.ts'
import {
  fitLogisticRegression,
  type LabelledFeatures,
  type LogisticRegressionTask,
  softmax,
  strengths,
} from '../../src/models/logistic-regression.ts'
import { golden } from '../evaluate/golden.ts'

const nothing: LabelledFeatures = { features: new Float32Array(0), labels: [] }
const fit = (task: Pick<LogisticRegressionTask, 'train' | 'width' | 'classes'> & Partial<LogisticRegressionTask>) =>
  fitLogisticRegression({ validation: nothing, threads: 2, ...task })

/** Classes around centres of their own, as far apart as `apart` standard deviations. */
function clouds(n: number, width: number, classes: number, apart: number, seed: number): { features: Float32Array; labels: Int32Array } {
  const random = randomFrom(seed)
  const gauss = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const place = randomFrom(classes, width)
  const centres = Float32Array.from({ length: classes * width }, () => place() - 0.5)
  const scale = (apart * Math.sqrt(12)) / Math.sqrt(width)
  const labels = Int32Array.from({ length: n }, (_, i) => i % classes)
  const features = Float32Array.from(
    { length: n * width },
    (_, i) => scale * centres[labels[Math.floor(i / width)]! * width + (i % width)]! + gauss(),
  )
  return { features, labels }
}

test('weights and probabilities are scikit-learn’s: four problems, one wider than it has pictures, one balanced, one of two classes', async () => {
  for (const { n, features: width, classes, classWeights, x, truth, fits } of golden.logisticRegression)
    for (const { c, weight, bias, probabilities } of fits) {
      const features = Float32Array.from(x)
      const train = { features, labels: truth }
      const ours = await fit({ train, validation: train, width, classes, classWeights, grid: [c], tolerance: 1e-7 })
      const what = `${n} × ${width}, ${classes} classes, C = ${c}`
      assert.equal(ours.c, c)
      const largest = Math.max(...weight.flat().map(Math.abs))
      weight.flat().forEach((theirs, i) => {
        assert.ok(Math.abs(ours.weight[i]! - theirs) < 1e-3 * largest, `${what}: weight ${i} is ${ours.weight[i]}, scikit-learn ${theirs}`)
      })
      const mean = ours.bias.reduce((sum, b) => sum + b, 0) / classes
      bias.forEach((theirs, k) => {
        assert.ok(
          Math.abs(ours.bias[k]! - mean - theirs) < 1e-3 * Math.max(1, ...bias.map(Math.abs)),
          `${what}: bias ${k} is ${ours.bias[k]! - mean}, scikit-learn ${theirs}`,
        )
      })
      const p = ours.probabilities(features.subarray(0, 10 * width))
      probabilities.flat().forEach((theirs, i) => {
        assert.ok(Math.abs(p[i]! - theirs) < 2e-4, `${what}: probability ${i} is ${p[i]}, scikit-learn ${theirs}`)
      })
    }
})

test('the head is in terms of raw features: weight · x + bias gives the probabilities it promises', async () => {
  const train = clouds(120, 10, 3, 2, 1)
  const head = await fit({ train, validation: clouds(60, 10, 3, 2, 2), width: 10, classes: 3 })
  const logits = Float64Array.from({ length: 120 * 3 }, (_, i) => {
    const [row, k] = [Math.floor(i / 3), i % 3]
    let sum = head.bias[k]!
    for (let f = 0; f < 10; f++) sum += head.weight[k * 10 + f]! * train.features[row * 10 + f]!
    return sum
  })
  const promised = head.probabilities(train.features)
  for (const [i, p] of softmax(logits, 3).entries()) assert.ok(Math.abs(p - promised[i]!) < 1e-9)
})

test('C is the one with the lowest validation loss, and all that were tried are reported', async () => {
  const validation = clouds(90, 30, 3, 1.5, 4)
  const head = await fit({ train: clouds(60, 30, 3, 1.5, 3), validation, width: 30, classes: 3 })
  assert.deepEqual(
    head.tried.map(({ c }) => c),
    strengths,
  )
  assert.equal(head.validationLoss, Math.min(...head.tried.map(tried => tried.validationLoss)))
  assert.equal(head.validationAccuracy, head.tried.find(({ c }) => c === head.c)!.validationAccuracy)
  const p = head.probabilities(validation.features)
  const right = Array.from(validation.labels).filter((label, i) => {
    const row = p.subarray(3 * i, 3 * i + 3)
    return row.indexOf(Math.max(...row)) === label
  }).length
  assert.equal(right / 90, head.validationAccuracy)
})

test('with a handful of validation pictures C is the one that is right most often, equal ones by loss', async () => {
  const head = await fit({ train: clouds(60, 30, 3, 1.5, 3), validation: clouds(30, 30, 3, 1.5, 4), width: 30, classes: 3 })
  const most = Math.max(...head.tried.map(tried => tried.validationAccuracy))
  const tied = head.tried.filter(tried => tried.validationAccuracy === most)
  assert.equal(head.validationAccuracy, most)
  assert.equal(head.validationLoss, Math.min(...tied.map(tried => tried.validationLoss)))
})

test('the same pictures give the same head, to the bit', async () => {
  const task = { train: clouds(200, 50, 4, 2, 5), validation: clouds(80, 50, 4, 2, 6), width: 50, classes: 4 }
  const [a, b] = [await fit(task), await fit(task)]
  assert.deepEqual(a.weight, b.weight)
  assert.deepEqual(a.bias, b.bias)
})

test('a constant feature takes no part, even when it is not constant later; shifting and scaling features changes no answer', async () => {
  const width = 6
  const plain = clouds(150, width, 3, 3, 7)
  const withConstant = { ...plain, features: plain.features.map((x, i) => (i % width === 2 ? 0.1 : x)) }
  const head = await fit({ train: withConstant, validation: withConstant, width, classes: 3 })
  for (let k = 0; k < 3; k++) assert.equal(head.weight[k * width + 2], 0)

  const moved = { ...plain, features: plain.features.map((x, i) => 100 + x * 10 ** ((i % width) - 3)) }
  const a = (await fit({ train: plain, validation: plain, width, classes: 3, grid: [0.01] })).probabilities(plain.features)
  const b = (await fit({ train: moved, validation: moved, width, classes: 3, grid: [0.01] })).probabilities(moved.features)
  for (const [i, p] of a.entries()) assert.ok(Math.abs(p - b[i]!) < 0.01, `${p} and ${b[i]}`)
})

test('a class without training pictures is never answered on ordinary pictures, costs the others nothing, and stays finite', async () => {
  const some = clouds(150, 8, 3, 4, 8)
  const labels = Int32Array.from(some.labels, label => [0, 2, 3][label]!)
  const head = await fit({ train: { ...some, labels }, validation: { ...some, labels }, width: 8, classes: 5 })
  const p = head.probabilities(some.features)
  assert.ok(p.every(Number.isFinite) && head.bias.every(Number.isFinite))
  for (const absent of [1, 4])
    for (let i = 0; i < 150; i++) assert.ok(p[5 * i + absent]! > 0 && p[5 * i + absent]! < 0.05, `${p[5 * i + absent]}`)
  const without = await fit({ train: some, validation: some, width: 8, classes: 3 })
  assert.equal(head.validationAccuracy, without.validationAccuracy)
})

test('more features than pictures, one picture a class, and wild magnitudes end in finite numbers', async () => {
  for (const [n, width, factor] of [
    [3, 200, 1],
    [12, 500, 1e-8],
    [30, 64, 1e8],
  ] as const) {
    const some = clouds(n, width, 3, 4, 9)
    const train = { ...some, features: some.features.map(x => x * factor) }
    const head = await fit({ train, validation: train, width, classes: 3 })
    assert.equal(head.validationAccuracy, 1, `${n} × ${width}`)
    assert.ok(head.weight.every(Number.isFinite) && head.bias.every(Number.isFinite))
  }
})

test('a rare class counts more when classes are weighted', async () => {
  const cloud = clouds(400, 4, 2, 1, 10)
  const keep = Array.from(cloud.labels.keys()).filter(i => cloud.labels[i] === 0 || i % 20 === 1)
  const train = {
    features: Float32Array.from(keep.flatMap(i => Array.from(cloud.features.subarray(4 * i, 4 * i + 4)))),
    labels: keep.map(i => cloud.labels[i]!),
  }
  const even = clouds(400, 4, 2, 1, 11)
  const recallOfRare = async (classWeights: 'balanced' | null) => {
    const p = (await fit({ train, validation: train, width: 4, classes: 2, grid: [0.1], classWeights })).probabilities(even.features)
    return Array.from(even.labels.keys()).filter(i => even.labels[i] === 1 && p[2 * i + 1]! > 0.5).length / 200
  }
  const [plain, balanced] = [await recallOfRare(null), await recallOfRare('balanced')]
  assert.ok(balanced > plain + 0.2, `recall of the rare class ${plain}, balanced ${balanced}`)
})

test('without validation pictures it still fits, with a C that is usually good, and claims no accuracy', async () => {
  const head = await fit({ train: clouds(60, 10, 3, 3, 12), width: 10, classes: 3 })
  assert.deepEqual([head.c, head.validationAccuracy, head.tried.length], [0.003, 0, 1])
})

test('features that are not numbers, wrong sizes, unknown classes and a single class are refused', async () => {
  const good = clouds(30, 4, 3, 2, 13)
  const task = { train: good, validation: good, width: 4, classes: 3 }
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const features = good.features.slice()
    features[9] = value
    await assert.rejects(fit({ ...task, train: { ...good, features } }), {
      code: 'bad_scores',
      message: /the training features: picture 2 has .* at feature 1/,
    })
    await assert.rejects(fit({ ...task, validation: { ...good, features } }), { code: 'bad_scores' })
  }
  await assert.rejects(fit({ ...task, width: 5 }), { code: 'shape_mismatch' })
  await assert.rejects(fit({ ...task, classes: 2 }), { code: 'bad_scores' })
  await assert.rejects(fit({ ...task, train: { ...good, labels: new Int32Array(30) } }), { code: 'one_class_left' })
})

test('1,400 pictures × 1,280 features × 10 classes and the whole grid take less than 5 seconds', async () => {
  const train = clouds(1400, 1280, 10, 3, 14)
  const validation = clouds(300, 1280, 10, 3, 15)
  const began = performance.now()
  const head = await fit({ train, validation, width: 1280, classes: 10 })
  const seconds = (performance.now() - began) / 1000
  assert.equal(head.tried.length, strengths.length)
  assert.ok(seconds < 5, `${seconds.toFixed(1)} s`)
})
