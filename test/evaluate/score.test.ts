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

test('fewer than ten pictures say nothing, and that is said first', () => {
  const [accuracy, first] = verdicts(evaluationOf(['cat', 'dog'], 4, () => true, null))
  assert.match(accuracy!, /Right on 4 of 4/)
  assert.match(first!, /^4 test pictures say next to nothing about a model: its true accuracy may lie anywhere from 51 % to 100 %/)
  assert.match(said(evaluationOf(['cat', 'dog'], 1, () => true, null)), /One test picture says next to nothing/)
  assert.doesNotMatch(said(evaluationOf(['cat', 'dog'], 10, () => true, null)), /next to nothing/)
})

test('a class without test pictures is named: nothing is said about it', () => {
  const labels = ['cat', 'dog', 'bird']
  const numbers = Array.from({ length: 40 }, (_, i) => i)
  const evaluation = score({
    labels,
    truth: numbers.map(i => i % 2),
    probabilities: numbers.map(i => [i % 2 ? 0.1 : 0.8, i % 2 ? 0.8 : 0.1, 0.1]),
    trainTruth: [0, 1, 2],
    linearProbeProbabilities: null,
    paths: numbers.map(String),
    calibration: { temperature: 1 },
  })
  assert.match(said(evaluation), /No test picture of “bird”: nothing is said about it\./)
})

test('groups widen the interval, and the sentence says what the pictures count for', () => {
  const labels = ['cat', 'dog']
  const numbers = Array.from({ length: 100 }, (_, i) => i)
  const input = {
    labels,
    truth: numbers.map(i => i % 2),
    probabilities: numbers.map(i => ((i % 2 === 0) === i < 80 ? [0.9, 0.1] : [0.1, 0.9])),
    trainTruth: [0, 1],
    linearProbeProbabilities: null,
    paths: numbers.map(String),
    calibration: { temperature: 1 },
  }
  const alone = score(input)
  const grouped = score({ ...input, groups: numbers.map(i => `${Math.floor(i / 10)}`) })
  assert.deepEqual(
    [alone.interval, grouped.interval],
    [
      { method: 'wilson', groups: 100 },
      { method: 'grouped-wilson', groups: 10 },
    ],
  )
  assert.equal(alone.accuracy, grouped.accuracy)
  assert.ok(grouped.high - grouped.low > 2 * (alone.high - alone.low))
  assert.match(said(grouped), /copies and groups count as what they are worth \(100 pictures in 10 groups\)/)
  assert.throws(() => score({ ...input, groups: [null] }), { code: 'shape_mismatch' })
  assert.throws(() => score({ ...input, origins: [{}] }), { code: 'shape_mismatch' })
})

test('what else was tested is said in a sentence each', () => {
  const evaluation: Evaluation = {
    ...evaluationOf(['cat', 'dog'], 100, i => i % 10 > 0, null),
    crossValidation: { folds: 5, repeats: 3, n: 500, groups: 450, accuracy: 0.88, low: 0.85, high: 0.91 },
    randomSplit: { grouped: 0.753, random: 0.845, repeats: 3, n: 100 },
    slices: [
      { by: 'camera', value: 'Broken', n: 30, accuracy: 0.6, low: 0.42, high: 0.75, stands: 'worse' },
      { by: 'camera', value: 'Sound', n: 70, accuracy: 0.97, low: 0.9, high: 0.99, stands: 'better' },
    ],
  }
  assert.match(said(evaluation), /Cross-validation of the head on all 500 pictures \(450 groups\): 88\.0 %/)
  assert.match(said(evaluation), /A split by chance would have flattered by 9\.2 points: 84\.5 % instead of 75\.3 %/)
  assert.match(said(evaluation), /Worse than elsewhere: camera “Broken”, 60 % of 30 right/)
  assert.doesNotMatch(said(evaluation), /Better than elsewhere/, 'that is the same said twice')
  const same = {
    ...evaluation,
    randomSplit: { grouped: 0.75, random: 0.752, repeats: 3, n: 100 },
    slices: evaluation.slices!.map(slice => ({ ...slice, stands: 'not told apart' as const })),
  }
  assert.match(said(same), /A split by chance would have said about the same/)
  assert.match(said(same), /None of 2 parts of the test pictures \(camera\) differs/)
})
