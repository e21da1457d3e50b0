import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareScores, compareShares, gateSentence } from '../../src/models/gates.ts'
import type { TestSetScore } from '../../src/sdk/shapes.ts'

const set = (name: string, version: number) => ({ name, version, digest: `${name}${version}` })
const score = (where: TestSetScore['set'], accuracy: number, change: Partial<TestSetScore> = {}): TestSetScore => ({
  ...{
    set: where,
    model: 'm',
    n: 100,
    accuracy,
    low: accuracy - 0.05,
    high: accuracy + 0.05,
    balancedAccuracy: accuracy,
    seen: null,
    at: '',
  },
  ...change,
})

test('the interval of a difference is the one that Newcombe published', () => {
  // table II of the paper, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339, from Wilson’s intervals of both
  const wilson = (right: number, n: number) => {
    const [z, p] = [1.959964, right / n]
    const middle = (p + (z * z) / (2 * n)) / (1 + (z * z) / n)
    const half = (z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n))) / (1 + (z * z) / n)
    return { n, accuracy: p, low: middle - half, high: middle + half }
  }
  const { low, high, worse } = compareShares('s', wilson(48, 80), wilson(56, 70))
  assert.deepEqual([low.toFixed(4), high.toFixed(4), worse], ['0.0524', '0.3339', false])
  const turned = compareShares('s', wilson(56, 70), wilson(48, 80))
  assert.deepEqual([turned.low.toFixed(4), turned.high.toFixed(4), turned.worse], ['-0.3339', '-0.0524', true])
})

test('only the same pictures are compared, in the newest version that both know', () => {
  const before = [score(set('a', 1), 0.9), score(set('a', 2), 0.8), score(set('b', 1), 0.9)]
  const after = [score(set('a', 1), 0.5), score(set('a', 2), 0.8), score(set('b', 2), 0.1), score(set('c', 1), 0.1)]
  assert.deepEqual(
    compareScores(before, after).map(({ set, worse }) => [set, worse]),
    [['a@2', false]],
  )
  assert.deepEqual(compareScores(before, []), [])
  const same = { ...set('a', 2), digest: 'other pictures' }
  assert.deepEqual(compareScores([score(set('a', 2), 0.9)], [score(same, 0.1)]), [])
})

test('pictures that a model has met do not speak for it', () => {
  const seen = { trained: 40, chosenOn: 0, copies: 0, without: { n: 60, accuracy: 0.6, low: 0.5, high: 0.7 } }
  const flattered = score(set('a', 1), 0.95, { seen })
  const [comparison] = compareScores([flattered], [score(set('a', 1), 0.8)])
  assert.equal(comparison?.before.accuracy, 0.6)
  assert.equal(comparison?.worse, false)
  assert.deepEqual(compareScores([score(set('a', 1), 0.95, { seen: { ...seen, without: null } })], [score(set('a', 1), 0.1)]), [])
  assert.match(
    gateSentence(compareShares('a@1', { n: 1, accuracy: 0.9, low: 0.88, high: 0.92 }, { n: 1, accuracy: 0.7, low: 0.67, high: 0.73 })),
    /70\.0 % instead of 90\.0 % on a@1 \(−20\.0 points, 95 % interval −23\.6 to −16\.4\)/,
  )
})
