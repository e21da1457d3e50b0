import assert from 'node:assert/strict'
import { test } from 'node:test'
import { byPixels, isJudged, reviewQueue } from '../../../src/data/review/queue.ts'
import type { ReviewVerdict } from '../../../src/sdk/shapes.ts'
import { row, suspected } from './reviews.ts'

const paths = (items: ReturnType<typeof reviewQueue>) => items.map(({ kind, pictures }) => [kind, ...pictures.map(({ path }) => path)])
const rows = [
  row('cat/a.png', 'a1', 'cat'),
  row('cat/b.png', 'b1', 'cat'),
  row('cat/c.png', 'c1', 'cat'),
  row('cat/copy of b.png', 'b1', 'cat'),
  row('dog/a again.png', 'a1', 'dog'),
  row('dog/d.png', 'd1', 'dog'),
  row('dog/e.png', 'e1', 'dog'),
]
const verdict = (index: number, change: Partial<ReviewVerdict>): ReviewVerdict => {
  const { path, pixels, labels } = rows[index]!
  return { path, pixels, verdict: 'keep', from: labels, reason: 'mislabel', at: '2026-11-25T10:00:00.000Z', ...change }
}
const judged = (item: ReturnType<typeof reviewQueue>[number], ...verdicts: ReviewVerdict[]) => isJudged(item, byPixels(verdicts))

test('certain things come first: conflicts, then labels that look wrong by suspicion, then copies', () => {
  const mislabels = suspected(
    { path: 'dog/e.png', label: 'dog', suggestion: 'cat' },
    { path: 'cat/c.png', label: 'cat', suggestion: 'dog' },
  )
  mislabels.listed.reverse()
  assert.deepEqual(paths(reviewQueue({ manifest: { rows }, copies: null, mislabels })), [
    ['conflict', 'cat/a.png', 'dog/a again.png'],
    ['mislabel', 'dog/e.png'],
    ['mislabel', 'cat/c.png'],
    ['copy', 'cat/b.png', 'cat/copy of b.png'],
  ])
})

test('edited copies count like equal pixels, and join them', () => {
  const items = reviewQueue({
    manifest: { rows },
    copies: {
      samePicture: [
        [1, 2],
        [5, 6],
      ],
    },
    mislabels: null,
  })
  assert.deepEqual(paths(items), [
    ['conflict', 'cat/a.png', 'dog/a again.png'],
    ['copy', 'cat/b.png', 'cat/c.png', 'cat/copy of b.png'],
    ['copy', 'dog/d.png', 'dog/e.png'],
  ])
  assert.deepEqual(
    items.map(({ exact }) => exact),
    [true, false, false],
  )
  const across = reviewQueue({ manifest: { rows }, copies: { samePicture: [[0, 5]] }, mislabels: null })
  assert.deepEqual(paths(across)[0], ['conflict', 'cat/a.png', 'dog/a again.png', 'dog/d.png'])
})

test('a picture in a conflict is asked about once, with what the search found as its evidence', () => {
  const mislabels = suspected({ path: 'dog/a again.png', label: 'dog', suggestion: 'cat' })
  const [item, ...rest] = reviewQueue({ manifest: { rows }, copies: null, mislabels })
  assert.deepEqual(
    rest.map(({ kind }) => kind),
    ['copy'],
  )
  assert.deepEqual(item!.suggestions, ['cat', 'dog'])
  assert.equal(item!.evidence!.probabilityOfSuggestion, 0.934)
  assert.match(item!.because.join(' '), /did not learn from them would say “cat”/)
})

test('which label is likelier right is for a model that saw none of the files to say, not for their number', () => {
  const four = [
    row('bag/1.png', '11', 'bag'),
    row('bag/2.png', '11', 'bag'),
    row('boot/3.png', '11', 'boot'),
    row('coat/4.png', '11', 'coat'),
  ]
  const suggestions = (mislabels: ReturnType<typeof suspected> | null) =>
    reviewQueue({ manifest: { rows: four }, copies: null, mislabels })[0]!.suggestions
  assert.deepEqual(suggestions(null), ['bag', 'boot', 'coat'])
  assert.deepEqual(suggestions(suspected({ path: 'bag/1.png', label: 'bag', suggestion: 'coat' })), ['coat', 'bag', 'boot'])
})

test('the copies of a picture with a wrong label are answered together with it', () => {
  const mislabels = suspected(
    { path: 'cat/copy of b.png', label: 'cat', suggestion: 'dog' },
    { path: 'cat/b.png', label: 'cat', suggestion: 'dog' },
  )
  const items = reviewQueue({ manifest: { rows }, copies: null, mislabels }).filter(({ kind }) => kind === 'mislabel')
  assert.deepEqual(paths(items), [['mislabel', 'cat/copy of b.png', 'cat/b.png']])
  assert.match(items[0]!.because.join(' '), /A copy of it has the same label; your answer holds for all\./)
})

test('the question says which labels are weighed, with probabilities as people say them', () => {
  const mislabels = suspected(
    { path: 'cat/c.png', label: 'cat', suggestion: 'dog' },
    { path: 'dog/d.png', label: 'dog', pile: 'none' },
    { path: 'dog/e.png', label: 'dog', suggestion: 'cat', pile: 'two' },
  )
  const asked = reviewQueue({ manifest: { rows }, copies: null, mislabels }).filter(({ kind }) => kind === 'mislabel')
  assert.deepEqual(
    asked.map(({ question }) => question),
    ['Is this “cat”, or “dog”?', 'Is this “dog”? It looks like none of the classes.', 'Is this “dog”, “cat”, or both at once?'],
  )
  assert.equal(asked[0]!.because[0], 'Its label is “cat”. A model that did not learn from it gives “cat” less than 1 % and “dog” 93 %.')
  assert.deepEqual(
    asked.map(({ suggestions }) => suggestions),
    [['dog'], [], ['cat']],
  )
})

test('of copies the larger, the whole, the coloured, the one with a camera and the one with most bytes is suggested, and the reason said', () => {
  const suggested = (...changes: Parameters<typeof row>[3][]) => {
    const twins = changes.map((change, index) => row(`cat/${index}.png`, 'ff', 'cat', change))
    const [item] = reviewQueue({ manifest: { rows: twins }, copies: null, mislabels: null })
    return [item!.keep, item!.because[1]]
  }
  assert.deepEqual(suggested({ width: 4 }, { width: 40 }), [1, 'Suggested to keep: cat/1.png, the largest.'])
  assert.deepEqual(suggested({ width: 40, flags: ['truncated'] }, { width: 4 }), [
    1,
    'Suggested to keep: cat/1.png, the only one that is whole.',
  ])
  assert.deepEqual(suggested({ flags: ['grey'] }, { bytes: 3 }), [1, 'Suggested to keep: cat/1.png, the one in colour.'])
  assert.equal(suggested({ bytes: 9 }, { camera: 'X100', bytes: 3 })[0], 1)
  assert.equal(suggested({ bytes: 9 }, { bytes: 10 })[0], 1)
  assert.deepEqual(suggested({}, {}), [0, 'Suggested to keep: cat/0.png, the first by name, for they do not differ.'])
  const named = reviewQueue({
    manifest: { rows: [row('cat/1 copy.png', 'ff', 'cat'), row('cat/2.png', 'ff', 'cat')] },
    copies: null,
    mislabels: null,
  })
  assert.equal(named[0]!.keep, 1)
})

test('copies on two sides of the user’s own split come before others', () => {
  const sided = [
    row('cat/1.png', '11', 'cat'),
    row('cat/2.png', '11', 'cat'),
    row('test/cat/3.png', '33', 'cat', { side: 'test' }),
    row('train/cat/4.png', '33', 'cat', { side: 'train' }),
  ]
  const items = reviewQueue({ manifest: { rows: sided }, copies: null, mislabels: null })
  assert.deepEqual(paths(items)[0], ['copy', 'test/cat/3.png', 'train/cat/4.png'])
  assert.match(items[0]!.because.join(' '), /both sides of your own split \(test, train\)/)
})

test('a question has the same id whenever it is asked, and another when another picture is in it', () => {
  const ids = (given: typeof rows) => reviewQueue({ manifest: { rows: given }, copies: null, mislabels: null }).map(({ id }) => id)
  assert.deepEqual(
    ids(rows),
    ids(rows.toReversed()).toSorted((a, b) => ids(rows).indexOf(a) - ids(rows).indexOf(b)),
  )
  assert.notDeepEqual(ids(rows), ids([...rows, row('cat/z.png', 'b1', 'cat')]))
})

test('what was answered does not come back: by pixels, in every later version, but only what was asked', () => {
  const mislabels = suspected({ path: 'cat/c.png', label: 'cat', suggestion: 'dog' })
  const [conflict, mislabel, copy] = reviewQueue({ manifest: { rows }, copies: null, mislabels }) as [never, never, never]
  assert.equal(judged(mislabel), false)
  assert.equal(judged(mislabel, verdict(2, {})), true)
  assert.equal(judged(mislabel, verdict(2, { path: 'cat/under another name.png' })), true)
  assert.equal(judged(mislabel, verdict(2, { reason: 'copy' })), false, 'that it may stay beside its copies says nothing about its label')
  assert.equal(judged(mislabel, verdict(2, { from: ['fish'] })), false, 'it has another label by now')
  assert.equal(judged(mislabel, verdict(2, { from: ['fish'], verdict: 'relabel', to: ['cat'] })), true, 'and that is the one it was given')
  assert.equal(judged(mislabel, verdict(2, { verdict: 'drop' })), true)
  assert.equal(
    judged(mislabel, verdict(2, { verdict: 'drop', path: 'cat/back.png' })),
    false,
    'a dropped picture came back under another name',
  )
  assert.equal(judged(conflict, verdict(0, { reason: 'conflict' })), false, 'only one of the two')
  assert.equal(judged(conflict, verdict(0, { reason: 'conflict' }), verdict(4, { reason: 'conflict' })), true)
  assert.equal(judged(copy, verdict(1, { reason: 'copy' }), verdict(3, { reason: 'copy', verdict: 'drop' })), true)
  assert.equal(judged(copy, verdict(1, { reason: 'copy' }), verdict(3, {})), false)
})
