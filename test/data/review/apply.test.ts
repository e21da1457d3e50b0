import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { importPictures, manifestDigest } from '../../../src/data/import.ts'
import { applyVerdicts, changesAnything, refuseUntrainable, standing } from '../../../src/data/review/apply.ts'
import type { DatasetReference, Manifest, ReviewVerdict } from '../../../src/sdk/shapes.ts'
import { blobsIn, temporary, write } from '../folders.ts'
import { files, row } from './reviews.ts'

const parent: DatasetReference = { name: 'pets', version: 1, digest: 'a'.repeat(32) }
const manifestOf = (rows: Manifest['rows']): Manifest => ({
  schema: 1,
  classes: [...new Set(rows.flatMap(({ labels }) => labels))].sort(),
  rows,
  unreadable: [{ path: 'cat/broken.png', code: 'image_unreadable', reason: 'it is cut' }],
  ignored: [{ path: '.DS_Store', reason: 'hidden' }],
  exactDuplicates: [],
  conflicts: [],
})
const about = ({ path, pixels, labels }: Manifest['rows'][number], change: Partial<ReviewVerdict>): ReviewVerdict => ({
  path,
  pixels,
  verdict: 'keep',
  from: labels,
  reason: 'mislabel',
  at: '2026-11-25T10:00:00.000Z',
  ...change,
})

test('any verdicts in any order: the new rows are the old without the dropped, labels replaced, and nothing else', () => {
  const letters = ['cat', 'dog', 'eel']
  const anyRows = fc
    .array(fc.record({ pixels: fc.integer({ min: 0, max: 12 }), label: fc.constantFrom(...letters), group: fc.constantFrom(null, 'g') }), {
      minLength: 1,
      maxLength: 25,
    })
    .map(given => given.map(({ pixels, label, group }, index) => row(`${label}/${index}.png`, `p${pixels}`, label, { group })))
  const anyAct = fc.record({
    at: fc.nat(),
    verdict: fc.constantFrom('keep' as const, 'relabel' as const, 'drop' as const),
    to: fc.constantFrom(...letters, 'fox'),
    reason: fc.constantFrom('mislabel' as const, 'conflict' as const, 'copy' as const, 'other' as const),
  })
  fc.assert(
    fc.property(anyRows, fc.array(anyAct, { maxLength: 30 }), (rows, acts) => {
      const before = structuredClone(rows)
      const manifest = manifestOf(rows)
      const verdicts = acts.map(({ at, verdict, to, reason }) => {
        const given = verdict === 'relabel' && reason === 'copy' ? 'keep' : verdict
        return about(rows[at % rows.length]!, { verdict: given, reason, ...(given === 'relabel' && { to: [to] }) })
      })
      // what a person would expect, row by row: the last word on each of the two questions
      const expected = rows.flatMap(({ path, labels }) => {
        const own = verdicts.filter(verdict => verdict.path === path)
        const label = own.findLast(({ reason }) => reason !== 'copy')
        const copy = own.findLast(({ reason }) => reason === 'copy')
        return label?.verdict === 'drop' || copy?.verdict === 'drop' ? [] : [{ path, labels: label?.to ?? labels }]
      })
      const { manifest: made, changes } = applyVerdicts(manifest, parent, verdicts)
      assert.deepEqual(
        made.rows.map(({ path, labels }) => ({ path, labels })),
        expected,
      )
      assert.deepEqual(rows, before, 'the old version is as it was')
      assert.deepEqual(made.parent, parent)
      assert.deepEqual([made.unreadable, made.ignored], [manifest.unreadable, manifest.ignored])
      assert.deepEqual(made.classes, [...new Set(expected.flatMap(({ labels }) => labels))].sort())
      assert.equal(
        changesAnything(changes),
        JSON.stringify(expected) !== JSON.stringify(rows.map(({ path, labels }) => ({ path, labels }))),
      )
      assert.equal(changes.dropped.length, rows.length - made.rows.length)
      // derived fields hold for the rows that are left
      for (const group of made.exactDuplicates)
        assert.equal(new Set(made.rows.filter(({ path }) => group.includes(path)).map(({ pixels }) => pixels)).size, 1)
      const byPixels = [...Map.groupBy(made.rows, ({ pixels }) => pixels).values()].filter(({ length }) => length > 1)
      assert.equal(made.exactDuplicates.length, byPixels.length)
      assert.equal(made.conflicts.length, byPixels.filter(group => new Set(group.map(({ labels }) => labels.join())).size > 1).length)
      for (const [group, members] of Map.groupBy(made.rows, ({ group }) => group))
        assert.ok(group === null || members.length > 1, 'nobody is a group alone')
      for (const group of byPixels) assert.equal(new Set(group.map(({ group }) => group)).size, 1)
      // the same verdicts in any order between pictures, and once more on the result
      const shuffled = [...standing(verdicts)].sort((a, b) => (a.path < b.path ? 1 : -1))
      assert.equal(manifestDigest(applyVerdicts(manifest, parent, shuffled).manifest), manifestDigest(made))
      assert.equal(manifestDigest(applyVerdicts(made, parent, verdicts).manifest), manifestDigest(made))
    }),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 10_000 : 400 },
  )
})

test('dropping gives the version that an import without those files gives', async t => {
  const folder = temporary(t)
  const whole = await importPictures(await write(`${folder}/whole`, files), { blobs: blobsIn(folder) })
  const { ['cat/twin.png']: _, ['dog/cat 2.png']: __, ...fewer } = files
  const without = await importPictures(await write(`${folder}/fewer`, fewer), { blobs: blobsIn(folder) })
  const drop = whole.rows
    .filter(({ path }) => path === 'cat/twin.png' || path === 'dog/cat 2.png')
    .map(each => about(each, { verdict: 'drop' }))
  const { manifest } = applyVerdicts(whole, parent, drop)
  assert.deepEqual(manifest.rows, without.rows)
  assert.deepEqual([manifest.exactDuplicates, manifest.conflicts], [without.exactDuplicates, without.conflicts])
  assert.equal(manifestDigest(manifest), manifestDigest(without))
})

test('a verdict holds in a later version: moved files are relabelled, never dropped, and corrected ones are left alone', () => {
  const [first, second, third] = [row('cat/1.png', '11', 'cat'), row('cat/2.png', '22', 'cat'), row('cat/3.png', '33', 'cat')]
  const relabel = about(first, { verdict: 'relabel', to: ['dog'] })
  const drop = about(second, { verdict: 'drop' })
  const of = (rows: Manifest['rows'], ...verdicts: ReviewVerdict[]) => applyVerdicts(manifestOf(rows), parent, verdicts)
  assert.deepEqual(of([{ ...first, path: 'cat/new name.png' }], relabel).manifest.rows[0]!.labels, ['dog'])
  assert.deepEqual(of([{ ...first, path: 'eel/new name.png', labels: ['eel'] }], relabel).manifest.rows[0]!.labels, ['eel'])
  assert.deepEqual(of([{ ...second, path: 'cat/new name.png' }], drop).manifest.rows.length, 1, 'it may be the copy that was to stay')
  const corrected = of([{ ...first, labels: ['eel'] }, third], relabel)
  assert.deepEqual(corrected.manifest.rows[0]!.labels, ['eel'])
  assert.deepEqual(corrected.changes.outdated, [relabel])
  assert.deepEqual(of([{ ...first, labels: ['dog'] }], relabel).changes.outdated, [], 'it is what was asked for')
  assert.deepEqual(of([{ ...first, pixels: 'other' }], relabel).manifest.rows[0]!.labels, ['cat'], 'another picture under the old name')
})

test('a version names the verdicts that made it, and not those that made its parent', () => {
  const rows = ['1', '2', '3', '4'].map(name => row(`cat/${name}.png`, `${name}${name}`, 'cat'))
  const one = about(rows[0]!, { verdict: 'relabel', to: ['dog'] })
  const kept = about(rows[1]!, {})
  const first = applyVerdicts(manifestOf(rows), parent, [one, kept]).manifest
  assert.deepEqual(first.verdicts, [one, kept])
  const two = about(rows[2]!, { verdict: 'drop' })
  const second = applyVerdicts(first, { ...parent, version: 2 }, [one, kept, two]).manifest
  assert.deepEqual(second.verdicts, [two])
})

test('what could not be trained any more is refused, with the class and how many it has; what was so before may stay', () => {
  const class_ = (label: string, from: number, to: number) =>
    Array.from({ length: to - from }, (_, index) => row(`${label}/${index}.png`, `${label}${from + index}`, label))
  const whole = manifestOf([...class_('cat', 0, 4), ...class_('dog', 0, 3), ...class_('eel', 0, 2)])
  const after = (...verdicts: ReviewVerdict[]) => applyVerdicts(whole, parent, verdicts).manifest
  const drop = (label: string, ...numbers: number[]) =>
    numbers.map(number => about(whole.rows.find(({ path }) => path === `${label}/${number}.png`)!, { verdict: 'drop' }))
  refuseUntrainable(whole, after(...drop('cat', 0)))
  assert.throws(() => refuseUntrainable(whole, after(...drop('cat', 0, 1))), {
    code: 'review_class_too_small',
    details: { label: 'cat', pictures: '2 different pictures' },
  })
  refuseUntrainable(whole, after(...drop('dog', 0, 1, 2))) // gone altogether
  assert.throws(() => refuseUntrainable(whole, after(...drop('eel', 0))), { code: 'review_class_too_small' })
  refuseUntrainable(whole, whole) // eel was too small before
  const fox = about(whole.rows[0]!, { verdict: 'relabel', to: ['fox'] })
  assert.throws(() => refuseUntrainable(whole, after(fox)), {
    code: 'review_class_too_small',
    details: { label: 'fox', pictures: '1 picture' },
  })
  const rest = [...drop('dog', 0, 1, 2), ...drop('eel', 0, 1)]
  assert.throws(() => refuseUntrainable(whole, after(...rest)), { code: 'review_one_class', message: /only “cat” would be left/ })
})
