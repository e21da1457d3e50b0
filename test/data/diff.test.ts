import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { diffDatasets } from '../../src/data/diff.ts'
import type { ManifestRow } from '../../src/sdk/shapes.ts'

type Short = { path: string; pixels: string; label?: string; side?: ManifestRow['side'] }
const set = (...rows: Short[]) => ({
  classes: [...new Set(rows.map(row => row.label ?? row.path.split('/')[0]!))].sort(),
  rows: rows.map(({ path, pixels, label = path.split('/')[0]!, side = null }): ManifestRow => {
    return { path, content: pixels, pixels, labels: [label], group: null, side, width: 1, height: 1, flags: [] }
  }),
})

test('added, removed, changed, renamed, relabelled, moved to another side, the same', () => {
  const before = set(
    { path: 'cat/1', pixels: 'A' },
    { path: 'cat/2', pixels: 'B' },
    { path: 'cat/3', pixels: 'C' },
    { path: 'cat/4', pixels: 'D' },
    { path: 'cat/5', pixels: 'E' },
    { path: 'cat/6', pixels: 'F', side: 'train' },
    { path: 'gone/1', pixels: 'X' },
  )
  const after = set(
    { path: 'cat/1', pixels: 'A' },
    { path: 'cat/2', pixels: 'B2' },
    { path: 'cat/3 new name', pixels: 'C' },
    { path: 'dog/4', pixels: 'D' },
    { path: 'cat/5', pixels: 'E', label: 'dog' },
    { path: 'cat/6', pixels: 'F', side: 'test' },
    { path: 'dog/7', pixels: 'G' },
  )
  assert.deepEqual(diffDatasets(before, after), {
    added: ['dog/7'],
    removed: ['gone/1'],
    changed: ['cat/2'],
    renamed: [{ from: 'cat/3', to: 'cat/3 new name' }],
    relabelled: [
      { path: 'cat/5', before: 'cat/5', from: ['cat'], to: ['dog'] },
      { path: 'dog/4', before: 'cat/4', from: ['cat'], to: ['dog'] },
    ],
    moved: [{ path: 'cat/6', from: 'train', to: 'test' }],
    same: 1,
    classes: { added: ['dog'], removed: ['gone'] },
  })
})

test('two pictures that exchanged their names are two changed pictures; one of three copies that went is one removed', () => {
  const swapped = diffDatasets(
    set({ path: 'a/1', pixels: 'A' }, { path: 'a/2', pixels: 'B' }),
    set({ path: 'a/1', pixels: 'B' }, { path: 'a/2', pixels: 'A' }),
  )
  assert.deepEqual(swapped.renamed, [
    { from: 'a/2', to: 'a/1' },
    { from: 'a/1', to: 'a/2' },
  ])
  const copies = diffDatasets(
    set({ path: 'a/1', pixels: 'A' }, { path: 'a/2', pixels: 'A' }, { path: 'a/3', pixels: 'A' }),
    set({ path: 'a/2', pixels: 'A' }, { path: 'b/3', pixels: 'A' }),
  )
  assert.deepEqual(
    [copies.same, copies.removed, copies.relabelled.map(({ before, path }) => `${before} ${path}`)],
    [1, ['a/1'], ['a/3 b/3']],
  )
})

test('every picture is accounted for exactly once on each side, and nothing changed against itself', () => {
  const rows = fc.uniqueArray(fc.record({ path: fc.stringMatching(/^[ab]\/[1-9]$/), pixels: fc.constantFrom('A', 'B', 'C', 'D') }), {
    selector: row => row.path,
  })
  fc.assert(
    fc.property(rows, rows, (one, other) => {
      const [before, after] = [set(...one), set(...other)]
      const { added, removed, renamed, relabelled, changed, moved, same } = diffDatasets(before, after)
      const common = renamed.length + relabelled.length + changed.length + moved.length + same
      assert.equal(common + added.length, after.rows.length)
      assert.equal(common + removed.length, before.rows.length)
      assert.equal(diffDatasets(before, before).same, before.rows.length)
    }),
    { numRuns: 300 },
  )
})
