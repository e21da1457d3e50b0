import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomFrom } from '../../src/engine/random.ts'
import {
  agreements,
  answers,
  balancedAccuracy,
  calibrationErrorByLuck,
  classNumbers,
  confusionMatrix,
  expectedCalibrationError,
  majorityBaseline,
  perClass,
  probabilityTable,
  reliability,
  shareTrue,
  table,
  worstMistakes,
} from '../../src/evaluate/metrics.ts'
import { golden } from './golden.ts'

test('confusion, precision, recall, F1 and balanced accuracy equal scikit-learn, with a class that is absent and one never answered', () => {
  const { classes, truth, answer, ...expected } = golden.metrics
  const labelled = classNumbers(truth, classes, 'truth')
  const answered = classNumbers(answer, classes, 'answer')
  const confusion = confusionMatrix(labelled, answered, classes)
  assert.deepEqual(confusion, expected.confusion)
  const scores = perClass(confusion)
  assert.deepEqual(
    scores.map(score => score.n),
    expected.n,
  )
  for (const metric of ['precision', 'recall', 'f1'] as const)
    scores.forEach((score, k) => {
      const [ours, theirs] = [score[metric], expected[metric][k]!]
      assert.ok(ours === theirs || Math.abs(ours! - theirs) < 1e-12, `${metric} of class ${k}: ${ours}, scikit-learn ${theirs}`)
    })
  assert.ok(Math.abs(balancedAccuracy(scores) - expected.balancedAccuracy) < 1e-12)
  assert.ok(Math.abs(shareTrue(agreements(labelled, answered)) - expected.accuracy) < 1e-12)
  assert.equal(scores[3]!.recall, null, 'a class without pictures has no recall')
  assert.equal(scores[4]!.precision, null, 'a class that was never answered has no precision')
})

/** n rows of probabilities with true classes, classes from 2 to 6. */
const problem = fc.integer({ min: 2, max: 6 }).chain(classes =>
  fc.record({
    classes: fc.constant(classes),
    rows: fc.array(
      fc
        .tuple(fc.array(fc.double({ min: 1e-6, max: 1, noNaN: true }), { minLength: classes, maxLength: classes }), fc.nat(classes - 1))
        .map(([weights, truth]) => ({ probabilities: weights.map(w => w / weights.reduce((a, b) => a + b)), truth })),
      { minLength: 1, maxLength: 50 },
    ),
  }),
)

test('counts add up, shares stay within [0, 1], and the order of the pictures does not matter', () => {
  fc.assert(
    fc.property(problem, ({ classes, rows }) => {
      const measure = (some: typeof rows) => {
        const probabilities = probabilityTable(
          some.map(row => row.probabilities),
          classes,
          'test',
        )
        const truth = classNumbers(
          some.map(row => row.truth),
          classes,
          'test',
        )
        const confusion = confusionMatrix(truth, answers(probabilities), classes)
        const bins = reliability(probabilities, truth)
        return {
          confusion,
          scores: perClass(confusion),
          bins,
          ece: expectedCalibrationError(bins),
          accuracy: shareTrue(agreements(truth, answers(probabilities))),
        }
      }
      const { confusion, scores, bins, ece, accuracy } = measure(rows)
      const sum = (counts: readonly number[]) => counts.reduce((a, b) => a + b, 0)
      assert.equal(sum(confusion.map(sum)), rows.length)
      assert.equal(sum(bins.map(bin => bin.n)), rows.length)
      assert.ok(Math.abs(sum(confusion.map((row, k) => row[k]!)) / rows.length - accuracy) < 1e-12)
      for (const { precision, recall, f1 } of scores)
        for (const share of [precision, recall, f1]) assert.ok(share === null || (share >= 0 && share <= 1))
      assert.ok(ece >= 0 && ece <= 1)
      const balanced = balancedAccuracy(scores)
      assert.ok(balanced >= 0 && balanced <= 1)
      // with as many pictures in every class that occurs, balanced accuracy is accuracy
      const occurring = scores.filter(score => score.n > 0)
      if (occurring.every(score => score.n === occurring[0]!.n)) assert.ok(Math.abs(balanced - accuracy) < 1e-12)

      const turned = measure(rows.toReversed())
      assert.deepEqual(turned.confusion, confusion)
      assert.ok(Math.abs(turned.ece - ece) < 1e-12)
    }),
  )
})

test('renaming the classes permutes the scores and changes nothing else', () => {
  fc.assert(
    fc.property(problem, ({ classes, rows }) => {
      const confusionOf = (rename: (k: number) => number) =>
        confusionMatrix(
          Int32Array.from(rows, row => rename(row.truth)),
          Int32Array.from(rows, row => rename(row.probabilities.indexOf(Math.max(...row.probabilities)))),
          classes,
        )
      const turned = perClass(confusionOf(k => classes - 1 - k)).toReversed()
      assert.deepEqual(turned, perClass(confusionOf(k => k)))
    }),
  )
})

test('the majority baseline answers what is frequent in training, not in the test', () => {
  const truth = Int32Array.from([0, 0, 0, 1])
  assert.equal(majorityBaseline(truth, Int32Array.from([1, 1, 0]), 2), 0.25)
  assert.equal(majorityBaseline(truth, Int32Array.from([0, 1]), 2), 0.75, 'the first among equals')
})

test('worst mistakes are only mistakes, the surest first, equal ones by path', () => {
  const labels = ['cat', 'dog']
  const probabilities = probabilityTable(
    [
      [0.9, 0.1],
      [0.2, 0.8],
      [0.2, 0.8],
      [0.4, 0.6],
      [0.55, 0.45],
    ],
    2,
    'test',
  )
  const worst = worstMistakes(probabilities, Int32Array.from([0, 0, 0, 0, 1]), labels, ['right', 'b', 'a', 'c', 'd'])
  assert.deepEqual(
    worst.map(mistake => mistake.path),
    ['a', 'b', 'c', 'd'],
  )
  assert.deepEqual(worst[0], { path: 'a', label: 'cat', predicted: 'dog', probability: 0.8, probabilityOfLabel: 0.2 })
  assert.equal(worstMistakes(probabilities, Int32Array.from([0, 0, 0, 0, 1]), labels, ['right', 'b', 'a', 'c', 'd'], 2).length, 2)
})

test('the calibration error of a worked example: two bins, |0.75 − 0.5|·4/6 + |0.95 − 1|·2/6', () => {
  const probabilities = probabilityTable(
    [
      [0.75, 0.25],
      [0.75, 0.25],
      [0.75, 0.25],
      [0.75, 0.25],
      [0.95, 0.05],
      [0.95, 0.05],
    ],
    2,
    'test',
  )
  const bins = reliability(probabilities, Int32Array.from([0, 0, 1, 1, 0, 0]))
  assert.ok(Math.abs(expectedCalibrationError(bins) - (0.25 * 4 + 0.05 * 2) / 6) < 1e-12)
  assert.deepEqual(
    bins.filter(bin => bin.n > 0).map(bin => [bin.low, bin.high, bin.n, bin.accuracy]),
    [
      [0.7, 0.8, 4, 0.5],
      [0.9, 1, 2, 1],
    ],
  )
})

test('a sure and always right model is calibrated; probabilities of exactly 0.1, 0.3, 1 fall into their own bin', () => {
  const sure = probabilityTable(
    [
      [1, 0],
      [1, 0],
    ],
    2,
    'test',
  )
  assert.equal(expectedCalibrationError(reliability(sure, Int32Array.from([0, 0]))), 0)
  const edges = probabilityTable(
    [
      [0.3, 0.25, 0.25, 0.2],
      [1, 0, 0, 0],
    ],
    4,
    'test',
  )
  assert.deepEqual(
    reliability(edges, Int32Array.from([0, 0])).flatMap((bin, i) => (bin.n ? [i] : [])),
    [2, 9],
  )
})

test('what luck gives a perfectly calibrated model is foretold, and 19 of 20 stay below 1.75 times of it', () => {
  const random = randomFrom(3)
  for (const n of [30, 300]) {
    const ratios = Array.from({ length: 600 }, () => {
      const values = new Float64Array(2 * n)
      const truth = Int32Array.from({ length: n }, (_, i) => {
        const p = 0.5 + 0.5 * random()
        values.set([p, 1 - p], 2 * i)
        return random() < p ? 0 : 1
      })
      const bins = reliability({ n, classes: 2, values }, truth)
      return expectedCalibrationError(bins) / calibrationErrorByLuck(bins)
    })
    const mean = ratios.reduce((a, b) => a + b) / ratios.length
    assert.ok(Math.abs(mean - 1) < 0.08, `mean ratio ${mean}`)
    const above = ratios.filter(ratio => ratio > 1.75).length / ratios.length
    assert.ok(above > 0.005 && above < 0.07, `${above} above 1.75`)
  }
})

test('NaN, infinities, logits instead of probabilities, wrong shapes and unknown classes are refused by name', () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
    assert.throws(() => table(Float32Array.of(0.5, 0.5, 0.5, value), 2, 'the test logits'), {
      code: 'bad_scores',
      message: /the test logits: picture 1 has/,
    })
  assert.throws(() => probabilityTable([[2.1, -0.4]], 2, 'the test probabilities'), { code: 'bad_scores' })
  assert.throws(() => probabilityTable([[0.9, 0.9]], 2, 'the test probabilities'), { code: 'bad_scores', message: /add up to 1.8/ })
  assert.throws(() => table([[0.5, 0.5], [1]], 2, 'rows'), { code: 'shape_mismatch' })
  assert.throws(() => table(new Float32Array(5), 2, 'rows'), { code: 'shape_mismatch' })
  for (const label of [-1, 2, 0.5, Number.NaN]) assert.throws(() => classNumbers([0, label], 2, 'labels'), { code: 'bad_scores' })
  assert.throws(() => classNumbers([0], 2, 'labels', 2), { code: 'shape_mismatch' })
})
