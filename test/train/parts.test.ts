/** The small parts of a training: the schedule is PyTorch's, random draws depend on their keys alone, augmentation keeps what it should. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { permutation, randomFrom } from '../../src/engine/random.ts'
import { formatForecast, formatSeconds } from '../../src/sdk/index.ts'
import { augment } from '../../src/train/augment.ts'
import { smoothedOver } from '../../src/train/finetune.ts'
import { defaultRates, featuresRate, forecast, type Work } from '../../src/train/forecast.ts'
import { epochsWithin } from '../../src/train/recipes/image-classification.ts'
import { oneCycle } from '../../src/train/schedule.ts'

test('the learning rate is that of torch.optim.lr_scheduler.OneCycleLR', () => {
  // OneCycleLR(optimizer, max_lr=1e-3, total_steps=10), torch 2.15: get_last_lr() before each step
  const schedule = { steps: 10, peak: 1e-3, warmUp: 0.3, startDivisor: 25, endDivisor: 1e4 }
  assert.ok(Math.abs(oneCycle(schedule, 0) - 4e-5) < 1e-12)
  assert.ok(Math.abs(oneCycle(schedule, 1) - 5.2e-4) < 1e-12)
  assert.ok(Math.abs(oneCycle(schedule, 2) - 1e-3) < 1e-12)
  assert.ok(Math.abs(oneCycle(schedule, 9) - 4e-9) < 1e-12)
})

test('the same keys draw the same numbers, other keys others, evenly', () => {
  const draw = (...keys: number[]) => Array.from({ length: 1000 }, randomFrom(...keys))
  assert.deepEqual(draw(1, 2, 3), draw(1, 2, 3))
  assert.notDeepEqual(draw(1, 2, 3), draw(1, 3, 2))
  const mean = draw(5).reduce((sum, v) => sum + v, 0) / 1000
  assert.ok(Math.abs(mean - 0.5) < 0.03, `mean ${mean}`)
  assert.deepEqual(
    permutation(50, randomFrom(9)).toSorted((a, b) => a - b),
    Array.from({ length: 50 }, (_, i) => i),
  )
})

test('augmentation that is switched off changes nothing, a flip mirrors', () => {
  const side = 8
  const picture = Uint8Array.from({ length: 3 * side * side }, (_, i) => (i * 37) % 256)
  const none = { flip: false, shift: 0, zoom: 0, light: 0 }
  const out = new Uint8Array(picture.length)
  augment(picture, side, out, 0, randomFrom(1), none)
  assert.deepEqual(out, picture)
  const mirrored = picture.map((_, i) => picture[i - (i % side) + (side - 1 - (i % side))]!)
  let flips = 0
  for (let seed = 0; seed < 40; seed++) {
    augment(picture, side, out, 0, randomFrom(seed), { ...none, flip: true })
    const flipped = Buffer.compare(out, mirrored) === 0
    assert.ok(flipped || Buffer.compare(out, picture) === 0)
    if (flipped) flips++
  }
  assert.ok(flips > 8 && flips < 32, `${flips} of 40`)
})

test('label smoothing leaves the right answer highest where the loss adds uneven shares back', () => {
  const shares = [0.8, 0.16, 0.04]
  const logShares = Float64Array.from(shares, Math.log)
  const smoothed = smoothedOver({ classes: 3, logShares })
  assert.deepEqual(smoothedOver({ classes: 4, logShares: null }), new Float64Array(4).fill(0.25))
  for (const label of [0, 1, 2]) {
    const target = Array.from(smoothed, (share, k) => 0.1 * share + (k === label ? 0.9 : 0))
    // the loss is least where softmax(answer + log share) is the target
    const answer = target.map((probability, k) => Math.log(probability) - logShares[k]!)
    assert.equal(answer.indexOf(Math.max(...answer)), label, `${answer}`)
  }
})

test('a forecast made with the rates of a training says how long that training took', () => {
  const work: Work = {
    pictures: 2000,
    pixels: 2000 * 640 * 480,
    searched: 2000,
    trainPictures: 1400,
    testPictures: 300,
    classes: 10,
    features: 1280,
    epochs: 4,
    multiplyAdds: 2e8,
    threads: 2,
    fitSample: 400,
    alterationSample: 200,
  }
  const first = forecast(work, defaultRates)
  const took = { features: 2.3 * first.features, besides: 1.7 * first.besides }
  const withFeatures = forecast(work, { ...defaultRates, features: featuresRate(work, took.features) })
  assert.ok(Math.abs(withFeatures.features - took.features) < 1e-9)
  const withBesides = forecast(work, { ...defaultRates, besides: took.besides / first.besides })
  assert.ok(Math.abs(withBesides.before + withBesides.after - took.besides) < 1e-9)
  assert.ok(forecast({ ...work, epochs: 0 }, defaultRates).finetune === 0)
  assert.ok(forecast({ ...work, searched: 0 }, defaultRates).before < first.before - 4, 'no search for copies among tiny pictures')
  assert.equal(epochsWithin(100, 30), 3)
  assert.equal(epochsWithin(-5, 30), 1)
})

test('durations are written as people read them, forecasts with no more digits than they deserve', () => {
  assert.deepEqual([0.42, 12.4, 60, 185, 3600, 7800].map(formatSeconds), ['0.4 s', '12 s', '1 min', '3 min 05 s', '1 h', '2 h 10 min'])
  assert.deepEqual([0, 4.4, 43, 92, 400, 8000].map(formatForecast), ['1 s', '4 s', '45 s', '1 min 30 s', '7 min', '2 h 10 min'])
})
