import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomFrom } from '../../src/engine/random.ts'
import { score, verdicts } from '../../src/evaluate/index.ts'
import { softmax } from '../../src/models/logistic-regression.ts'
import { Evaluation } from '../../src/sdk/index.ts'

/** `right` of `n` answers right, spread evenly over the classes. */
function evaluationOf(
  labels: readonly string[],
  n: number,
  right: (i: number) => boolean,
  probeRight: ((i: number) => boolean) | null,
  sure = 0.9,
): Evaluation {
  const classes = labels.length
  const answer = (i: number, ok: boolean) =>
    Float32Array.from({ length: classes }, (_, k) => (k === (i + Number(!ok)) % classes ? sure : (1 - sure) / (classes - 1)))
  const numbers = Array.from({ length: n }, (_, i) => i)
  return score({
    labels,
    truth: numbers.map(i => i % classes),
    probabilities: numbers.map(i => answer(i, right(i))),
    trainTruth: [...labels.keys()],
    linearProbeProbabilities: probeRight && numbers.map(i => answer(i, probeRight(i))),
    paths: numbers.map(i => `${i}.jpg`),
    calibration: { temperature: 1 },
  })
}
const said = (evaluation: Evaluation) => verdicts(evaluation).join('\n')

test('an evaluation is what the SDK describes, to the last field', () => {
  const evaluation = evaluationOf(
    ['cat', 'dog', 'bird'],
    300,
    i => i % 10 > 0,
    i => i % 5 > 0,
  )
  assert.deepEqual(Evaluation.parse(JSON.parse(JSON.stringify(evaluation))), evaluation)
  assert.equal(evaluation.n, 300)
  assert.equal(evaluation.accuracy, 0.9)
  assert.equal(evaluation.linearProbe, 0.8)
  assert.deepEqual([evaluation.versusLinearProbe!.onlyA, evaluation.versusLinearProbe!.onlyB], [30, 0])
  assert.equal(evaluation.worstMistakes.length, 24)
  const alone = evaluationOf(['cat', 'dog'], 10, () => true, null)
  assert.deepEqual([alone.linearProbe, 'versusLinearProbe' in alone], [null, false])
})

test('the calibration error before the temperature is that of the untempered logits', () => {
  const random = randomFrom(8)
  const [n, classes, temperature] = [400, 5, 2.5]
  const logits = Float32Array.from({ length: n * classes }, () => 12 * random())
  const truth = Array.from({ length: n }, (_, i) => {
    const row = logits.subarray(i * classes, (i + 1) * classes)
    return random() < 0.9 ? row.indexOf(Math.max(...row)) : Math.floor(classes * random())
  })
  const common = { labels: ['a', 'b', 'c', 'd', 'e'], truth, trainTruth: truth, linearProbeProbabilities: null, paths: truth.map(String) }
  const tempered = score({
    ...common,
    probabilities: Float32Array.from(softmax(logits, classes, temperature)),
    calibration: { temperature },
  })
  const plain = score({ ...common, probabilities: softmax(logits, classes), calibration: { temperature: 1 } })
  assert.ok(Math.abs(tempered.calibration.expectedCalibrationErrorBefore - plain.calibration.expectedCalibrationErrorAfter) < 1e-5)
  assert.ok(Math.abs(tempered.calibration.expectedCalibrationErrorBefore - tempered.calibration.expectedCalibrationErrorAfter) > 0.05)
})

test('better than the linear probe is said only when the same pictures show it', () => {
  const labels = ['cat', 'dog']
  const clear = said(
    evaluationOf(
      labels,
      400,
      i => i % 10 > 0,
      i => i % 4 > 0,
    ),
  )
  assert.match(clear, /Better than the linear probe.*95 % interval \+\d/)
  const unclear = said(
    evaluationOf(
      labels,
      400,
      i => i % 20 > 0,
      i => i % 20 > 0 !== i % 133 < 1,
    ),
  )
  assert.match(unclear, /Not told apart from the linear probe.*can be luck/)
  assert.match(
    said(
      evaluationOf(
        labels,
        400,
        i => i % 4 > 0,
        i => i % 10 > 0,
      ),
    ),
    /Worse than the linear probe.*−\d/,
  )
  assert.match(
    said(
      evaluationOf(
        labels,
        40,
        i => i > 3,
        i => i > 3,
      ),
    ),
    /exactly the same pictures/,
  )
})

test('a large gain on a handful of pictures is not called better', () => {
  const evaluation = evaluationOf(
    ['cat', 'dog'],
    20,
    i => i > 1,
    i => i > 4,
  )
  assert.ok(evaluation.accuracy - evaluation.linearProbe! > 0.14)
  assert.match(said(evaluation), /Not told apart/)
  assert.match(said(evaluation), /The test is small: .*±1\d points only/)
  assert.match(said(evaluation), /Too few test pictures to say whether the probabilities/)
})

test('against the majority it says better, worse or not shown', () => {
  assert.match(said(evaluationOf(['cat', 'dog'], 100, i => i % 10 > 0, null)), /^Better than always/m)
  assert.match(said(evaluationOf(['cat', 'dog'], 100, i => i % 10 === 0, null)), /^Worse than always/m)
  assert.match(said(evaluationOf(['cat', 'dog'], 100, i => (i % 2 === 0) !== i % 10 < 2, null)), /^Not shown to be better/m)
})

test('the weakest class is named with what it is taken for; classes with few pictures are not judged', () => {
  const evaluation = evaluationOf(['cat', 'dog', 'bird'], 90, i => i % 3 !== 1 || i % 2 === 0, null)
  assert.match(said(evaluation), /Weakest class: “dog”, 15 of 30 found \(50 %\); all of the 15 missed were taken for “bird”/)
  const few = said(
    evaluationOf(
      Array.from({ length: 12 }, (_, k) => `class ${k}`),
      60,
      i => i > 5,
      null,
    ),
  )
  assert.match(few, /Too few test pictures to judge these classes alone: “class 0” \(5\), .* and 7 more/)
  assert.doesNotMatch(few, /Weakest/)
})

test('a model that is too sure is told so, and only a training claims that the pictures were unseen', () => {
  assert.match(said(evaluationOf(['cat', 'dog'], 300, i => i % 3 > 0, null, 0.98)), /surer than it should be/)
  assert.match(said(evaluationOf(['cat', 'dog'], 300, i => i % 20 > 0, null, 0.6)), /less sure than it could be/)
  assert.match(said(evaluationOf(['cat', 'dog'], 300, i => i % 10 > 0, null, 0.9)), /nothing speaks against them/)
  assert.doesNotMatch(said(evaluationOf(['cat', 'dog'], 30, () => true, null)), /never saw/)
  assert.match(
    said(
      evaluationOf(
        ['cat', 'dog'],
        30,
        () => true,
        () => true,
      ),
    ),
    /never saw/,
  )
})

test('a class name cannot pass for part of a sentence or break a line', () => {
  const evaluation = evaluationOf(['cat', 'dog\n95 % right\u202e', 'bird'], 90, i => i % 3 !== 1, null)
  for (const sentence of verdicts(evaluation)) assert.ok(!/[\n\u202e]/.test(sentence), sentence)
})

test('nothing to evaluate, and inputs that do not fit together, are refused', () => {
  const good = {
    labels: ['a', 'b'],
    truth: [0],
    probabilities: [[1, 0]],
    trainTruth: [0],
    linearProbeProbabilities: null,
    paths: ['x'],
    calibration: { temperature: 1 },
  }
  assert.throws(() => score({ ...good, truth: [], probabilities: [], paths: [] }), { code: 'evaluation_empty' })
  assert.throws(() => score({ ...good, paths: [] }), { code: 'shape_mismatch' })
  assert.throws(() => score({ ...good, truth: [0, 1] }), { code: 'shape_mismatch' })
  assert.throws(
    () =>
      score({
        ...good,
        linearProbeProbabilities: [
          [1, 0],
          [0, 1],
        ],
      }),
    { code: 'shape_mismatch' },
  )
  assert.throws(() => score({ ...good, probabilities: [[Number.NaN, 1]] }), { code: 'bad_scores' })
  assert.throws(() => score({ ...good, trainTruth: [7] }), { code: 'bad_scores' })
  for (const temperature of [0, -1, Number.NaN, Number.POSITIVE_INFINITY])
    assert.throws(() => score({ ...good, calibration: { temperature } }), { code: 'bad_scores' })
})
