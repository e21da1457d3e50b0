/** Copies across the user's own folders: which, and what a simple model scores with and without them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { copiesAcross, measuredSide, scoreAcross } from '../../../src/data/check/across-split.ts'
import { randomFrom } from '../../../src/engine/random.ts'
import type { Side } from '../../../src/sdk/shapes.ts'
import { noCopies, picture } from './made.ts'

const set = (...rows: [side: Side | null, label: string][]) => ({
  rows: rows.map(([side, label]) => picture({ label, side }).row),
  classes: [...new Set(rows.map(([, label]) => label))].sort(),
})

test('the measured side is test, or validation where there is no test; folders without sides are no split', () => {
  const sides = (...each: (Side | null)[]) => measuredSide(each.map(side => ({ side })))
  assert.equal(sides('train', 'validation', 'test'), 'test')
  assert.equal(sides('train', 'validation'), 'validation')
  assert.equal(sides('validation', 'test'), 'test')
  assert.equal(sides(null, null), null)
  assert.equal(sides('train'), null)
  assert.equal(sides(), null)
})

test('copies and bursts across sides count, groups within a side and by names alone do not', () => {
  const data = set(
    ['train', 'a'],
    ['test', 'a'],
    ['test', 'b'],
    ['test', 'b'],
    ['train', 'b'],
    ['test', 'a'],
    ['validation', 'a'],
    ['test', 'b'],
  )
  const copies = {
    ...noCopies,
    samePicture: [
      [0, 1],
      [2, 3],
    ],
    sameScene: [
      { rows: [4, 3], evidence: 'time' as const },
      { rows: [5, 6], evidence: 'names' as const },
    ],
  }
  const across = copiesAcross(data, copies)!
  assert.deepEqual(across.groups, [
    [0, 1],
    [2, 3, 4],
  ])
  assert.deepEqual(across.leaked, [1, 2, 3], '2 is a copy of 3, which is of the same burst as a train picture')
  assert.deepEqual(across.test, [1, 2, 3, 5, 7])
  assert.equal(copiesAcross(set([null, 'a'], [null, 'b']), noCopies), null)
  assert.deepEqual(copiesAcross(set(['train', 'a'], ['test', 'b']), noCopies), { groups: [], leaked: [], test: [1] })
})

test('a test side of copies and of noise: right on the copies, a coin on the rest', async () => {
  const random = randomFrom(5)
  const width = 40
  const n = 120
  const rows = Array.from({ length: n }, (_, index): [Side, string] => ['train', 'ab'[index % 2]!])
  const data = set(
    ...rows,
    ...rows.slice(0, 60).map(([, label]): [Side, string] => ['test', label]),
    ...Array.from({ length: 60 }, (_, index): [Side, string] => ['test', 'ab'[index % 2]!]),
  )
  const values = Float32Array.from({ length: data.rows.length * width }, random)
  values.set(values.slice(0, 60 * width), n * width) // the first half of the test side is copied from train, label and all
  const leaked = Array.from({ length: 60 }, (_, index) => n + index)
  const testSide = Array.from({ length: 120 }, (_, index) => n + index)
  const { accuracyAsGiven, accuracyWithout } = await scoreAcross(data, { leaked, test: testSide }, { values, width }, 1)
  assert.ok(accuracyWithout! > 0.25 && accuracyWithout! < 0.75, String(accuracyWithout))
  assert.ok(accuracyAsGiven! > accuracyWithout! + 0.05, `${accuracyAsGiven} and ${accuracyWithout}`)

  const all = await scoreAcross(data, { leaked: testSide, test: testSide }, { values, width }, 1)
  assert.equal(all.accuracyWithout, null)
  const oneClass = set(['train', 'a'], ['test', 'b'])
  assert.deepEqual(await scoreAcross(oneClass, { leaked: [], test: [1] }, { values, width }, 1), {
    accuracyAsGiven: null,
    accuracyWithout: null,
  })
})
