import assert from 'node:assert/strict'
import { readdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { importPictures } from '../../../src/data/import.ts'
import { openReview, type Review } from '../../../src/data/review/session.ts'
import { resolveDataset, saveDataset } from '../../../src/data/versions.ts'
import type { Manifest } from '../../../src/sdk/shapes.ts'
import { write } from '../folders.ts'
import { pets, type Reviewed, suspected } from './reviews.ts'

const mislabels = suspected({ path: 'cat/3.png', label: 'cat', suggestion: 'dog' }, { path: 'dog/5.png', label: 'dog', pile: 'none' })
async function opened(
  t: Parameters<typeof pets>[0],
  { home, reference, manifest }: Reviewed,
  change: Partial<Parameters<typeof openReview>[1]> = {},
) {
  const review = await openReview(home, { reference, manifest, copies: null, mislabels, ...change })
  t.after(() => review.close())
  return review
}
const questions = async (review: Review) =>
  (await review.list()).map(({ kind, pictures }) => `${kind} ${pictures.map(({ path }) => path).join(' ')}`)
const item = async (review: Review, path: string, kind?: string) =>
  (await review.list()).find(each => each.pictures.some(picture => picture.path === path) && (!kind || each.kind === kind))!
const labelsOf = (manifest: Manifest) => Object.fromEntries(manifest.rows.map(({ path, labels }) => [path, labels.join('+')]))

test('verdicts become the next version with parent and reasons; the old version and the user’s folder stay as they were', async t => {
  const given = await pets(t)
  const list = () =>
    readdirSync(given.folder, { recursive: true, withFileTypes: true })
      .filter(each => each.isFile())
      .map(each => join(each.parentPath, each.name))
      .sort()
  const folder = list().map(path => [path, statSync(path).mtimeMs, readFileSync(path, 'base64')])
  const review = await opened(t, given)
  assert.deepEqual(await questions(review), [
    'conflict cat/2.png dog/cat 2.png',
    'conflict cat/dog 20.png dog/0.png',
    'mislabel cat/3.png',
    'mislabel dog/5.png',
    'copy cat/1.png cat/twin.png',
  ])
  const all = async (path: string, verdict: 'keep' | 'relabel' | 'drop', to?: string[]) => {
    const { id, pictures } = await item(review, path)
    return review.answer(
      id,
      pictures.map(picture => ({ path: picture.path, verdict, ...(to && { to }) })),
    )
  }
  await all('cat/2.png', 'relabel', ['cat'])
  await all('cat/dog 20.png', 'relabel', ['dog'])
  await all('cat/3.png', 'relabel', ['dog', 'cat'])
  await all('dog/5.png', 'drop')
  await review.answer((await item(review, 'cat/twin.png')).id, [
    { path: 'cat/1.png', verdict: 'keep' },
    { path: 'cat/twin.png', verdict: 'drop' },
  ])
  assert.deepEqual(await review.tally(), { items: 5, answered: 5, relabelled: 3, dropped: 2 })

  const { made, dataset, changes } = await review.makeVersion()
  assert.deepEqual([made, dataset.name, dataset.version], [true, 'pets', 2])
  const { manifest } = await resolveDataset(given.home, 'pets@2')
  const expected = labelsOf(given.manifest)
  delete expected['dog/5.png']
  delete expected['cat/twin.png']
  assert.deepEqual(labelsOf(manifest), { ...expected, 'dog/cat 2.png': 'cat', 'cat/dog 20.png': 'dog', 'cat/3.png': 'dog+cat' })
  assert.deepEqual(manifest.parent, given.reference)
  const reasons = manifest.verdicts!.map(({ path, verdict, reason, from, to }) => `${path} ${verdict} ${reason} ${from} ${to ?? ''}`.trim())
  assert.deepEqual(reasons, [
    'cat/1.png keep copy cat',
    'cat/2.png keep conflict cat',
    'cat/3.png relabel mislabel cat dog,cat',
    'cat/dog 20.png relabel conflict cat dog',
    'cat/twin.png drop copy cat',
    'dog/0.png keep conflict dog',
    'dog/5.png drop mislabel dog',
    'dog/cat 2.png relabel conflict dog cat',
  ])
  assert.deepEqual([manifest.conflicts, manifest.exactDuplicates.length], [[], 2])
  assert.deepEqual([changes.kept, changes.newClasses, changes.goneClasses], [3, [], []])
  assert.deepEqual((await resolveDataset(given.home, 'pets@1')).manifest, given.manifest)
  assert.deepEqual(
    list().map(path => [path, statSync(path).mtimeMs, readFileSync(path, 'base64')]),
    folder,
  )
  assert.equal((await review.makeVersion()).dataset.version, 2, 'the same verdicts are the same version')
})

test('a review goes on where it was left, and what was answered does not come back unless asked for', async t => {
  const given = await pets(t)
  const first = await opened(t, given)
  await first.answer((await item(first, 'cat/3.png')).id, [{ path: 'cat/3.png', verdict: 'keep' }])
  await first.close()
  const second = await opened(t, given)
  assert.equal(second.earlier, 1)
  assert.deepEqual(second.kinds, { conflict: 2, mislabel: 1, copy: 1 })
  assert.ok(!(await questions(second)).includes('mislabel cat/3.png'))
  const again = await opened(t, given, { again: true })
  assert.equal(again.earlier, 0)
  assert.ok((await questions(again)).includes('mislabel cat/3.png'))
  assert.equal((await again.tally()).answered, 0, 'it is asked anew')
  const only = await opened(t, given, { only: 'copy' })
  assert.deepEqual(await questions(only), ['copy cat/1.png cat/twin.png'])
})

test('undo takes back answer after answer, those of an earlier session too, whose questions then come back', async t => {
  const given = await pets(t)
  const first = await opened(t, given)
  await first.answer((await item(first, 'cat/3.png')).id, [{ path: 'cat/3.png', verdict: 'drop' }])
  await first.close()
  const review = await opened(t, given)
  const { id } = await item(review, 'dog/5.png')
  await review.answer(id, [{ path: 'dog/5.png', verdict: 'keep' }])
  await review.answer(id, [{ path: 'dog/5.png', verdict: 'drop' }])
  assert.deepEqual((await item(review, 'dog/5.png')).verdicts, [{ verdict: 'drop' }])
  assert.equal((await review.undo())!.item, id)
  assert.deepEqual((await item(review, 'dog/5.png')).verdicts, [{ verdict: 'keep' }])
  await review.undo()
  assert.deepEqual((await item(review, 'dog/5.png')).verdicts, [null])
  assert.deepEqual(await review.undo(), { item: (await item(review, 'cat/3.png')).id, place: 2 })
  assert.deepEqual((await item(review, 'cat/3.png')).answered, false)
  assert.equal(await review.undo(), null)
  assert.deepEqual(await review.tally(), { items: 5, answered: 0, relabelled: 0, dropped: 0 })
})

test('a picture that was relabelled and is kept beside its copy keeps the new label', async t => {
  const given = await pets(t)
  const review = await opened(t, given, { mislabels: suspected({ path: 'cat/twin.png', label: 'cat', suggestion: 'dog' }) })
  await review.answer((await item(review, 'cat/twin.png', 'mislabel')).id, [
    { path: 'cat/1.png', verdict: 'relabel', to: ['dog'] },
    { path: 'cat/twin.png', verdict: 'relabel', to: ['dog'] },
  ])
  await review.answer((await item(review, 'cat/twin.png', 'copy')).id, [
    { path: 'cat/1.png', verdict: 'drop' },
    { path: 'cat/twin.png', verdict: 'keep' },
  ])
  const { manifest } = await review.makeVersion()
  assert.equal(labelsOf(manifest)['cat/twin.png'], 'dog')
  assert.equal(labelsOf(manifest)['cat/1.png'], undefined)
})

test('pictures imported again with the old labels get their verdicts again', async t => {
  const given = await pets(t)
  const review = await opened(t, given)
  await review.answer((await item(review, 'cat/3.png')).id, [{ path: 'cat/3.png', verdict: 'relabel', to: ['dog'] }])
  const { dataset } = await review.makeVersion()
  // somebody adds pictures to the folder, which still has the old label
  await write(given.folder, { 'dog/new.png': 99 })
  const anew = await importPictures(given.folder, { blobs: given.home.blobs })
  const third = await saveDataset(given.home, 'pets', anew)
  assert.deepEqual([dataset.version, third.version], [2, 3])
  const later = await opened(t, { ...given, reference: third, manifest: anew })
  assert.ok(!(await questions(later)).includes('mislabel cat/3.png'))
  assert.equal((await later.tally()).relabelled, 1)
  const { manifest, dataset: fourth } = await later.makeVersion()
  assert.equal(fourth.version, 4)
  assert.deepEqual(labelsOf(manifest), { ...labelsOf(anew), 'cat/3.png': 'dog' })
})

test('the numbers on the page are those of the version it makes, for renamed pictures, corrected ones and copies, too', async t => {
  const given = await pets(t)
  const review = await opened(t, given)
  for (const [path, verdict] of [
    ['cat/3.png', 'relabel'],
    ['dog/5.png', 'drop'],
  ] as const)
    await review.answer((await item(review, path)).id, [{ path, verdict, ...(verdict === 'relabel' && { to: ['dog'] }) }])
  await review.answer((await item(review, 'cat/twin.png')).id, [
    { path: 'cat/twin.png', verdict: 'drop' },
    { path: 'cat/1.png', verdict: 'keep' },
  ])
  renameSync(join(given.folder, 'cat/3.png'), join(given.folder, 'cat/renamed.png'))
  const anew = await importPictures(given.folder, { blobs: given.home.blobs })
  const rows = anew.rows.map(row =>
    row.path === 'dog/5.png' ? { ...row, labels: ['cat'] } : row.path === 'cat/twin.png' ? { ...row, labels: ['dog'] } : row,
  )
  const manifest = { ...anew, rows }
  const later = await opened(t, { ...given, manifest, reference: await saveDataset(given.home, 'pets', manifest) })
  const { changes } = await later.preview()
  assert.deepEqual(
    [changes.relabelled.map(({ path }) => path), changes.dropped.map(({ path }) => path)],
    [['cat/renamed.png'], ['cat/twin.png']],
  )
  const { relabelled, dropped } = await later.tally()
  assert.deepEqual([relabelled, dropped], [1, 1])
  for (let more = await later.undo(); more; more = await later.undo()) {
    const { changes } = await later.preview()
    const { relabelled, dropped } = await later.tally()
    assert.deepEqual([relabelled, dropped], [changes.relabelled.length, changes.dropped.length])
  }
})

test('a class with too few pictures left is warned about at once and refused at the end', async t => {
  const given = await pets(t, {
    'cat/a.png': 1,
    'cat/b.png': 2,
    'cat/c.png': 3,
    'dog/a.png': 11,
    'dog/b.png': 12,
    'dog/c.png': 13,
    'dog/d.png': 14,
  })
  const review = await opened(t, given, { mislabels: suspected({ path: 'cat/a.png', label: 'cat', suggestion: 'dog' }) })
  const { id } = await item(review, 'cat/a.png')
  const { warnings } = await review.answer(id, [{ path: 'cat/a.png', verdict: 'relabel', to: ['eel'] }])
  assert.equal(warnings.length, 2)
  assert.match(warnings.join(' '), /“cat” would have 2 different pictures left.*“eel” is a new class with 1 picture so far/)
  assert.deepEqual(await review.labels(), ['cat', 'dog', 'eel'])
  assert.equal((await review.preview()).refusal!.code, 'review_class_too_small')
  await assert.rejects(review.makeVersion(), { code: 'review_class_too_small' })
  assert.deepEqual((await review.answer(id, [{ path: 'cat/a.png', verdict: 'keep' }])).warnings, [])
  assert.equal((await review.makeVersion()).made, false, 'what is only kept makes no version')
})

test('answers that make no sense are refused and nothing of them is kept', async t => {
  const review = await opened(t, await pets(t))
  const { id } = await item(review, 'cat/3.png')
  const group = await item(review, 'cat/2.png')
  const refused = (code: string, item: string, ...answers: Parameters<Review['answer']>[1]) =>
    assert.rejects(review.answer(item, answers), { code }, JSON.stringify(answers))
  const path = 'cat/3.png'
  await refused('review_item_unknown', 'mislabel-0000', { path, verdict: 'keep' })
  await refused('review_answer_invalid', id)
  await refused('review_answer_invalid', id, { path: 'cat/4.png', verdict: 'keep' })
  await refused('review_answer_invalid', id, { path, verdict: 'keep' }, { path, verdict: 'drop' })
  await refused('review_answer_invalid', id, { path, verdict: 'keep', to: ['dog'] })
  await refused('review_answer_invalid', id, { path, verdict: 'relabel' })
  await refused('review_answer_invalid', id, { path, verdict: 'relabel', to: [] })
  await refused('review_answer_invalid', group.id, { path: 'cat/2.png', verdict: 'drop' }, { path: '../secret', verdict: 'drop' })
  for (const label of ['', '  ', 'a\nb', 'a\u0000', 'a/b', 'a\\b', '..', '\ud800', 'x'.repeat(101), 'a\u202eb'])
    await refused('review_label_invalid', id, { path, verdict: 'relabel', to: [label] })
  assert.equal((await review.tally()).answered, 0)
  await review.answer(id, [{ path, verdict: 'relabel', to: [' Cafe\u0301 '] }])
  assert.deepEqual((await item(review, path)).verdicts, [{ verdict: 'relabel', to: ['Café'] }], 'composed and trimmed')
  await review.answer(id, [{ path, verdict: 'relabel', to: ['cat'] }])
  assert.deepEqual((await item(review, path)).verdicts, [{ verdict: 'keep' }], 'the label that is there is kept')
})
