import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { groupedFolds, unitOfRow, unitsOf } from '../../src/data/folds.ts'

const labelled = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 120 }).map(labels => Int32Array.from(labels))
const withGroups = labelled.chain(labels =>
  fc.record({
    labels: fc.constant(labels),
    groups: fc.array(fc.uniqueArray(fc.nat(labels.length - 1), { minLength: 1, maxLength: 8 }), { maxLength: 15 }),
    folds: fc.integer({ min: 2, max: 7 }),
    seed: fc.integer(),
  }),
)
const countIn = (values: ArrayLike<number>, folds: number) => {
  const counts = new Array<number>(folds).fill(0)
  for (const fold of Array.from(values)) counts[fold]!++
  return counts
}

test('every row is in one fold, and no group is on two, however groups overlap', () => {
  fc.assert(
    fc.property(withGroups, ({ labels, groups, folds, seed }) => {
      const fold = groupedFolds({ labels, groups, folds, seed })
      assert.equal(fold.length, labels.length)
      assert.ok(fold.every(f => Number.isInteger(f) && f >= 0 && f < folds))
      for (const group of groups) assert.equal(new Set(group.map(row => fold[row])).size, 1)
      assert.deepEqual(groupedFolds({ labels, groups, folds, seed }), fold, 'the same seed deals the same folds')
    }),
  )
})

test('pictures that are alone are dealt evenly: folds differ by at most one in each class and in all', () => {
  fc.assert(
    fc.property(labelled, fc.integer({ min: 2, max: 7 }), fc.integer(), (labels, folds, seed) => {
      const fold = groupedFolds({ labels, groups: null, folds, seed })
      for (const label of new Set(labels)) {
        const counts = countIn(
          fold.filter((_, i) => labels[i] === label),
          folds,
        )
        assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `class ${label}: ${counts}`)
      }
      const counts = countIn(fold, folds)
      assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${counts}`)
    }),
  )
})

test('with groups no fold outgrows another by more than the largest group of each class', () => {
  fc.assert(
    fc.property(withGroups, ({ labels, groups, folds, seed }) => {
      const units = unitsOf(labels.length, groups)
      const fold = groupedFolds({ labels, groups, folds, seed })
      const counts = countIn(fold, folds)
      const largest = Math.max(...units.map(unit => unit.length))
      assert.ok(Math.max(...counts) - Math.min(...counts) <= largest * new Set(labels).size, `${counts}`)
    }),
  )
  // 200 pictures in 40 bursts of five of the same class: each fold gets eight bursts
  const labels = Int32Array.from({ length: 200 }, (_, i) => Math.floor(i / 5) % 4)
  const bursts = Array.from({ length: 40 }, (_, b) => [0, 1, 2, 3, 4].map(i => 5 * b + i))
  assert.deepEqual(countIn(groupedFolds({ labels, groups: bursts, folds: 5, seed: 3 }), 5), [40, 40, 40, 40, 40])
})

test('another seed deals otherwise', () => {
  const labels = Int32Array.from({ length: 60 }, (_, i) => i % 3)
  const [a, b] = [1, 2].map(seed => groupedFolds({ labels, groups: null, folds: 5, seed }))
  assert.notDeepEqual(a, b)
})

test('1,000 classes of three, and more folds than pictures', () => {
  const labels = Int32Array.from({ length: 3000 }, (_, i) => i % 1000)
  assert.deepEqual(countIn(groupedFolds({ labels, groups: null, folds: 5, seed: 1 }), 5), [600, 600, 600, 600, 600])
  assert.deepEqual(countIn(groupedFolds({ labels: Int32Array.of(0, 1), groups: null, folds: 5, seed: 1 }), 5).sort(), [0, 0, 0, 1, 1])
})

test('groups that share a row are one unit, and rows in no group are alone', () => {
  assert.deepEqual(
    unitsOf(7, [
      [1, 4],
      [4, 6],
      [2, 3],
    ]),
    [[0], [1, 4, 6], [2, 3], [5]],
  )
  assert.deepEqual([...unitOfRow(4, [[0, 2]])], [0, 1, 0, 2])
  assert.deepEqual(unitsOf(2, null), [[0], [1]])
  assert.deepEqual(unitsOf(0, null), [])
})
