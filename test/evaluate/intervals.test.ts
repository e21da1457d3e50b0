import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomFrom } from '../../src/engine/random.ts'
import { exactMcNemar, normalQuantile, pairedDifference, pairedDifferenceOfCounts, wilson } from '../../src/evaluate/intervals.ts'
import { golden } from './golden.ts'

const close = (actual: number, expected: number, tolerance: number, what: string) =>
  assert.ok(Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${what}: ${actual}, expected ${expected}`)

test('the Wilson interval equals statsmodels at three confidences, also at the ends', () => {
  for (const [k, n, confidence, low, high] of golden.intervals.wilson) {
    const ours = wilson(k, n, confidence)
    close(ours[0], low, 1e-12, `low of ${k}/${n} at ${confidence}`)
    close(ours[1], high, 1e-12, `high of ${k}/${n} at ${confidence}`)
  }
})

test('no pictures say nothing, none right starts at exactly 0, all right ends at exactly 1', () => {
  assert.deepEqual(wilson(0, 0), [0, 1])
  assert.equal(wilson(0, 7)[0], 0)
  assert.equal(wilson(7, 7)[1], 1)
  for (const [k, n] of [
    [-1, 5],
    [6, 5],
    [1.5, 5],
    [Number.NaN, 5],
    [1, Number.POSITIVE_INFINITY],
  ] as const)
    assert.throws(() => wilson(k, n), { code: 'bad_scores' })
})

test('the interval holds the share, lies within [0, 1], mirrors, and shrinks with n', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100000 }), fc.double({ min: 0, max: 1, noNaN: true }), (n, share) => {
      const k = Math.round(share * n)
      const [low, high] = wilson(k, n)
      assert.ok(0 <= low && low <= k / n && k / n <= high && high <= 1)
      const [mirroredLow, mirroredHigh] = wilson(n - k, n)
      close(mirroredLow, 1 - high, 1e-12, 'mirrored low')
      close(mirroredHigh, 1 - low, 1e-12, 'mirrored high')
      const [low4, high4] = wilson(4 * k, 4 * n)
      assert.ok(high4 - low4 < high - low)
    }),
  )
})

test('a 95 % interval holds 95 %: exact coverage over all outcomes, 30 to 2,000 pictures, accuracies from 5 to 95 %', () => {
  const coverages: number[] = []
  for (const n of [30, 45, 100, 300, 2000]) {
    const intervals = Array.from({ length: n + 1 }, (_, k) => wilson(k, n))
    for (let p = 0.05; p < 0.951; p += 0.01) {
      let covered = 0
      let logTerm = n * Math.log1p(-p)
      for (let k = 0; k <= n; k++) {
        const [low, high] = intervals[k]!
        if (low <= p && p <= high) covered += Math.exp(logTerm)
        logTerm += Math.log(((n - k) / (k + 1)) * (p / (1 - p)))
      }
      coverages.push(covered)
    }
  }
  const mean = coverages.reduce((a, b) => a + b) / coverages.length
  assert.ok(Math.min(...coverages) > 0.92, `worst coverage ${Math.min(...coverages)}`)
  assert.ok(mean > 0.945 && mean < 0.96, `mean coverage ${mean}`)
})

test('the interval of a small test drawn from many pictures holds their accuracy in at least 93 % of the draws', () => {
  const random = randomFrom(1)
  let held = 0
  const draws = 4000
  for (let draw = 0; draw < draws; draw++) {
    const accuracy = 0.5 + 0.45 * random()
    const n = 30 + Math.floor(300 * random())
    let k = 0
    for (let i = 0; i < n; i++) k += Number(random() < accuracy)
    const [low, high] = wilson(k, n)
    held += Number(low <= accuracy && accuracy <= high)
  }
  assert.ok(held / draws >= 0.93 && held / draws <= 0.97, `held in ${held} of ${draws}`)
})

test('the quantile of the normal distribution equals SciPy from 1e-20 to 0.999999', () => {
  for (const [p, z] of golden.intervals.normalQuantile) close(normalQuantile(p), z, 1e-14, `z of ${p}`)
  for (const p of [0, 1, -0.1, Number.NaN]) assert.throws(() => normalQuantile(p), { code: 'bad_scores' })
})

test('the exact McNemar test equals statsmodels, symmetric, and 1 without disagreement', () => {
  for (const [b, c, p] of golden.intervals.mcnemar) {
    close(exactMcNemar(b, c), p, 1e-12, `p of ${b}, ${c}`)
    assert.equal(exactMcNemar(c, b), exactMcNemar(b, c))
  }
  assert.equal(exactMcNemar(0, 0), 1)
})

test('the paired interval follows Newcombe’s method 10, worked by hand for 36 both, 12 only A, 2 only B, 0 neither', () => {
  // A 48/50: Wilson 0.865399 to 0.988961; B 38/50: 0.625873 to 0.857026
  // correlation: (36·0 − 12·2) / √(48·2·38·12) = −24 / 209.2271 = −0.114708 (negative: no continuity correction)
  // low:  0.2 − √(0.094601² + 2·0.114708·0.094601·0.097026 + 0.097026²) = 0.2 − 0.143070
  // high: 0.2 + √(0.028961² + 2·0.114708·0.028961·0.134127 + 0.134127²) = 0.2 + 0.140428
  const { difference, low, high, n, p } = pairedDifferenceOfCounts(36, 12, 2, 0)
  assert.equal(n, 50)
  close(difference, 0.2, 1e-12, 'difference')
  close(low, 0.05693, 2e-6, 'low')
  close(high, 0.340428, 2e-6, 'high')
  close(p, 0.012939453125, 1e-12, 'p')
})

test('the paired interval of the difference holds what it promises, from 40 to 300 pictures', () => {
  const random = randomFrom(2)
  let held = 0
  let separate = 0
  let called = 0
  const draws = 3000
  for (let draw = 0; draw < draws; draw++) {
    const n = 40 + Math.floor(260 * random())
    const gain = 0.1 * random()
    const loss = 0.1 * random()
    const both = 0.6 + 0.2 * random()
    const counts = [0, 0, 0, 0] as [number, number, number, number]
    for (let i = 0; i < n; i++) {
      const u = random()
      counts[u < both ? 0 : u < both + gain ? 1 : u < both + gain + loss ? 2 : 3]++
    }
    const { low, high } = pairedDifferenceOfCounts(...counts)
    held += Number(low <= gain - loss && gain - loss <= high)
    const half = (k: number) => (wilson(k, n)[1] - wilson(k, n)[0]) / 2
    separate += Number(high - low < half(counts[0] + counts[1]) * 2 + half(counts[0] + counts[2]) * 2)
    // two equally good models: how often is a difference called that is none?
    let a = 0
    let b = 0
    for (let i = 0; i < n; i++) {
      const u = random()
      a += Number(u < gain)
      b += Number(u > 1 - gain)
    }
    called += Number(exactMcNemar(a, b) < 0.05)
  }
  assert.ok(held / draws >= 0.94, `held in ${held} of ${draws}`)
  assert.equal(separate, draws, 'pairing must never be wider than two separate intervals')
  assert.ok(called / draws <= 0.05, `called a difference in ${called} of ${draws} cases without one`)
})

test('swapping the two models turns difference and interval around; counting pairs gives the same as counts', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.boolean()), { maxLength: 60 }), pairs => {
      const a = pairs.map(pair => pair[0])
      const b = pairs.map(pair => pair[1])
      const forth = pairedDifference(a, b)
      const back = pairedDifference(b, a)
      close(back.difference, -forth.difference, 1e-12, 'difference')
      close(back.low, -forth.high, 1e-12, 'low')
      close(back.high, -forth.low, 1e-12, 'high')
      assert.equal(back.p, forth.p)
      assert.ok(forth.low <= forth.difference && forth.difference <= forth.high)
      assert.ok(forth.low >= -1 && forth.high <= 1, `${forth.low} to ${forth.high}`)
      assert.ok(forth.p > 0 && forth.p <= 1)
    }),
  )
  assert.throws(() => pairedDifference([true], []), { code: 'shape_mismatch' })
})
