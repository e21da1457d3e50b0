import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomFrom } from '../../src/engine/random.ts'
import { calibrate, falseUnknowns, fewestForTemperature, fitTemperature, negativeLogLikelihood } from '../../src/evaluate/calibration.ts'
import { expectedCalibrationError, reliability } from '../../src/evaluate/metrics.ts'
import { softmax } from '../../src/models/logistic-regression.ts'
import { golden } from './golden.ts'

test('the temperature is the one SciPy finds for the same logits', () => {
  const { logits, truth, classes, temperature, loss } = golden.temperature
  const ours = fitTemperature(logits, truth, classes)
  assert.ok(Math.abs(ours / temperature - 1) < 1e-6, `${ours}, SciPy ${temperature}`)
  assert.ok(negativeLogLikelihood(logits.flat(), truth, classes, ours) <= loss + 1e-12)
})

/** Labels drawn from softmax(z), logits z · scale handed out: the right temperature is `scale`. */
function overconfident(n: number, classes: number, scale: number, seed: number) {
  const random = randomFrom(seed)
  const gauss = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const logits = new Float32Array(n * classes)
  const truth = Int32Array.from({ length: n }, (_, i) => {
    const z = Float64Array.from({ length: classes }, () => 2 * gauss())
    logits.set(
      z.map(value => value * scale),
      i * classes,
    )
    const u = random()
    let sum = 0
    const label = softmax(z, classes).findIndex(p => {
      sum += p
      return u < sum
    })
    return Math.max(0, label)
  })
  return { logits, truth }
}

test('a model that is three times too sure is found out, and its probabilities become true on other pictures', () => {
  const classes = 5
  const fitted = overconfident(4000, classes, 3, 1)
  const temperature = fitTemperature(fitted.logits, fitted.truth, classes)
  assert.ok(Math.abs(temperature - 3) < 0.2, `temperature ${temperature}`)
  const other = overconfident(4000, classes, 3, 2)
  const errorAt = (t: number) =>
    expectedCalibrationError(reliability({ n: 4000, classes, values: softmax(other.logits, classes, t) }, other.truth))
  assert.ok(errorAt(1) > 0.1 && errorAt(temperature) < 0.03, `${errorAt(1)} before, ${errorAt(temperature)} after`)
})

test('no other temperature on a fine grid has a smaller loss, and scaling the logits scales the temperature', () => {
  fc.assert(
    fc.property(fc.nat(1e6), fc.integer({ min: 2, max: 6 }), fc.double({ min: 0.5, max: 3, noNaN: true }), (seed, classes, scale) => {
      const { logits, truth } = overconfident(60, classes, scale, seed)
      const temperature = fitTemperature(logits, truth, classes)
      const best = negativeLogLikelihood(logits, truth, classes, temperature)
      for (let t = 0.05; t < 20; t *= 1.15)
        assert.ok(best <= negativeLogLikelihood(logits, truth, classes, t) + 1e-12, `T = ${t} is better than ${temperature}`)
      const doubled = fitTemperature(
        logits.map(z => 2 * z),
        truth,
        classes,
      )
      if (temperature < 9) assert.ok(Math.abs(doubled / (2 * temperature) - 1) < 1e-5, `${doubled}, ${temperature}`)
    }),
    { numRuns: 60 },
  )
})

test('perfect separation, constant logits, chance, and too few pictures keep temperature 1 and say why', () => {
  const n = 40
  const truth = Int32Array.from({ length: n }, (_, i) => i % 2)
  const separated = calibrate(
    Array.from(truth, label => [label === 0 ? 4 : -4, label === 1 ? 4 : -4]),
    truth,
    2,
  )
  assert.equal(separated.temperature, 1)
  assert.match(separated.notes.join(), /every validation picture is answered right/i)

  const huge = calibrate(
    Array.from(truth, label => [label === 0 ? 4e4 : -4e4, label === 1 ? 4e4 : -4e4]),
    truth,
    2,
  )
  assert.equal(huge.temperature, 1, 'also where the softmax has run out of digits')

  const constant = calibrate(new Float32Array(2 * n).fill(3), truth, 2)
  assert.equal(constant.temperature, 1)
  assert.match(constant.notes.join(), /same score/)

  const wrong = calibrate(
    Array.from(truth, label => [label === 1 ? 2 : -2, label === 0 ? 2 : -2]),
    truth,
    2,
  )
  assert.equal(wrong.temperature, 1)
  assert.match(wrong.notes.join(), /no more than chance/)

  const few = calibrate(new Float32Array(2 * (fewestForTemperature - 1)), truth.slice(0, fewestForTemperature - 1), 2)
  assert.equal(few.temperature, 1)
  assert.match(few.notes.join(), /Only 19 validation pictures/)
  const none = calibrate(new Float32Array(0), [], 3)
  assert.deepEqual([none.temperature, none.threshold, none.n], [1, 0, 0])
})

test('a temperature out of all bounds is held at the bound, with a note', () => {
  const truth = Int32Array.from({ length: 100 }, (_, i) => (i < 60 ? 0 : 1))
  const tooSure = calibrate(
    Array.from(truth, () => [1e4, 0]),
    truth,
    2,
  )
  assert.equal(tooSure.temperature, 20)
  assert.match(tooSure.notes.join(), /far too sure/)
  const faint = calibrate(
    Array.from(truth, (label, i) => (i === 0 ? [0, 1e-5] : [label === 0 ? 1e-3 : 0, label === 1 ? 1e-3 : 0])),
    truth,
    2,
  )
  assert.equal(faint.temperature, 0.05)
  assert.match(faint.notes.join(), /less sure/)
})

test('the threshold marks at most one in twenty right answers, on the validation pictures and on average on new ones', () => {
  const random = randomFrom(5)
  let marked = 0
  let right = 0
  for (let trial = 0; trial < 200; trial++) {
    const classes = 3
    const n = 60 + Math.floor(200 * random())
    const { logits, truth } = overconfident(n, classes, 1, 100 + trial)
    const { temperature, threshold } = calibrate(logits, truth, classes)
    const share = (values: Float64Array, labels: Int32Array) => {
      const tops = Array.from(labels, (label, i) => {
        const row = values.subarray(i * classes, (i + 1) * classes)
        return { right: row.indexOf(Math.max(...row)) === label, top: Math.max(...row) }
      }).filter(top => top.right)
      return { right: tops.length, marked: tops.filter(({ top }) => top < threshold).length }
    }
    const seen = share(softmax(logits, classes, temperature), truth)
    assert.ok(seen.marked <= falseUnknowns * seen.right, `${seen.marked} of ${seen.right}`)
    const fresh = overconfident(300, classes, 1, 1000 + trial)
    const unseen = share(softmax(fresh.logits, classes, temperature), fresh.truth)
    marked += unseen.marked
    right += unseen.right
  }
  const rate = marked / right
  assert.ok(rate > 0.03 && rate < 0.055, `${rate} of new right answers are marked unknown`)
})

test('too few right answers mean no threshold at all, saturated ones stay below one, and never NaN', () => {
  const eighteen = Array.from({ length: 18 }, () => [9, 0])
  assert.equal(calibrate(eighteen, new Array(18).fill(0), 2).threshold, 0)
  assert.match(calibrate(eighteen, new Array(18).fill(0), 2).notes.join(), /Only 18 right answers/)
  const sure = calibrate(
    Array.from({ length: 50 }, () => [900, 0]),
    new Array(50).fill(0),
    2,
  )
  assert.equal(sure.threshold, 0.99)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 3, maxLength: 3 }), fc.nat(2)), {
        maxLength: 60,
      }),
      rows => {
        const { temperature, threshold } = calibrate(
          rows.map(row => row[0]),
          rows.map(row => row[1]),
          3,
        )
        assert.ok(temperature >= 0.05 && temperature <= 20, String(temperature))
        assert.ok(threshold >= 0 && threshold <= 0.99, String(threshold))
      },
    ),
    { numRuns: 300 },
  )
})

test('logits that are not numbers are refused', () => {
  assert.throws(() => calibrate(Float32Array.of(0, Number.NaN), [0], 2), { code: 'bad_scores' })
  assert.throws(() => fitTemperature(Float32Array.of(0, Number.POSITIVE_INFINITY), [0], 2), { code: 'bad_scores' })
  assert.throws(() => fitTemperature(Float32Array.of(0, 1), [2], 2), { code: 'bad_scores' })
})
