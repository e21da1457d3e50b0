import assert from 'node:assert/strict'
import { test } from 'node:test'
import { areForeign, strangersAmong, strangersFinding } from '../../src/evaluate/strangers.ts'
import type { Manifest } from '../../src/sdk/index.ts'

const ladder = Array.from({ length: 101 }, (_, i) => i / 100)
const model = { unknown: { threshold: 2, falseAlarmRate: 0.05, ladder } }

/** Pictures at these distances; those in `wrong` are answered wrongly; `group`: of each, where they have one. */
function asked(distances: readonly number[], wrong: readonly number[] = [], group: (i: number) => string | null = () => null) {
  const rows = distances.map((_, i) => ({ path: `p/${i}.jpg`, group: group(i) })) as Manifest['rows']
  const answers = distances.map(distance => ({ probabilities: new Float32Array(2), distance }))
  return strangersAmong(
    model,
    answers,
    distances.map((_, i) => !wrong.includes(i)),
    { rows },
    0.8,
  )!
}

test('pictures beyond the limit are counted, the farthest named first, with how right the answers on both kinds are', () => {
  const found = asked([1, 3, 2, 9, Number.NaN, 1.5], [1, 4, 5])
  const { called, rightAmongCalled, rightAmongOthers, auroc, threshold } = found
  assert.deepEqual(
    { called, rightAmongCalled, rightAmongOthers, auroc, threshold },
    { called: 3, rightAmongCalled: 1, rightAmongOthers: 2, auroc: 0.8, threshold: 2 },
  )
  assert.equal(found.paths.length, 3)
  assert.ok(found.paths.indexOf('p/3.jpg') < found.paths.indexOf('p/1.jpg'))
  assert.equal(strangersAmong({}, [], [], { rows: [] }, null), null, 'a model without a distance says nothing')
  assert.deepEqual(strangersFinding(null, 6), [])
})

test('as many unknown as there should be is said as it is; far more says that the pictures are of another kind', () => {
  const usual = asked(Array.from({ length: 200 }, (_, i) => (i < 10 ? 5 : 1)))
  assert.equal(areForeign(usual), false)
  const [said] = strangersFinding(usual, 200)
  assert.match(
    said!.sentence,
    /^10 of 200 pictures are called “unknown” \(5\.0 %\); of pictures like those it has learned, 5 % would be\. It is right on 10 of these 10/,
  )
  assert.doesNotMatch(said!.sentence, /another kind/)
  const foreign = asked(Array.from({ length: 200 }, (_, i) => (i < 60 ? 5 : 1)))
  assert.equal(areForeign(foreign), true)
  assert.match(strangersFinding(foreign, 200)[0]!.sentence, /another kind/)
  // ten frames of one burst are one strange thing, not ten
  const frames = [...Array<number>(10).fill(5), ...Array<number>(90).fill(1)]
  assert.equal(areForeign(asked(frames)), true)
  assert.equal(areForeign(asked(frames, [], i => (i < 10 ? 'burst' : null))), false)
})
