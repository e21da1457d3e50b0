/** What gives a class away besides the subject: found where it is, and not where it is luck. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fisher } from '../../../src/data/check/probe.ts'
import { findShortcuts } from '../../../src/data/check/shortcuts.ts'
import { randomFrom } from '../../../src/engine/random.ts'
import { type Changes, type Made, picture } from './made.ts'

const find = (pictures: readonly Made[], groups: number[][] = [], seed = 0) =>
  findShortcuts({
    rows: pictures.map(({ row }) => row),
    facts: pictures.map(({ facts }) => facts),
    classes: [...new Set(pictures.map(({ row }) => row.labels[0]!))].sort(),
    groups,
    seed,
  })
const many = (count: number, changes: Changes | ((index: number) => Changes)) =>
  Array.from({ length: count }, (_, index) => picture(typeof changes === 'function' ? changes(index) : changes))

test('all of one class saved as PNG in another shape: said in one sentence, before training', () => {
  const { found, examples } = find([
    ...many(120, { label: 'defect', format: 'png', width: 800, height: 600 }),
    ...many(340, { label: 'good', width: 1024, height: 576 }),
  ])
  assert.equal(found[0]!.sentence, 'All 120 “defect” pictures are 800×600 PNG; none of the other 340 is.')
  assert.deepEqual([found[0]!.property, found[0]!.accuracy, found[0]!.majority], ['format and size', 1, 0.5])
  assert.equal(found.length, 1, 'bytes and pixels say nothing more')
  assert.equal(examples[0]!.paths.length, 4)
  assert.ok(examples[0]!.paths.every(path => path.startsWith('defect/')) && examples[0]!.others.every(path => path.startsWith('good/')))
})

test('sizes that vary share a shape', () => {
  const { found } = find([
    ...many(60, index => ({ label: 'defect', width: 400 + 4 * index, height: 300 + 3 * index })),
    ...many(60, index => ({ label: 'good', width: 480 + 16 * index, height: 270 + 9 * index })),
  ])
  assert.match(found[0]!.sentence, /^All 60 “(defect|good)” pictures are (4:3|16:9); none of the other 60 is\.$/)
})

test('one class of ten is enough, and exceptions are counted', () => {
  const { found } = find(
    many(500, index => ({
      label: `class ${index % 10}`,
      ...((index % 10 === 3 && index > 60) || index % 97 === 5 ? { format: 'webp' } : {}),
    })),
  )
  assert.equal(found.length, 1)
  assert.match(found[0]!.sentence, /^88 % of the 50 “class 3” pictures are WEBP; of the other 450, \d are\.$/)
})

test('a camera for each class, and a day for each class', () => {
  const cameras = find(many(90, index => ({ label: 'abc'[index % 3]!, camera: `Canon ${index % 3}`, captured: '2026-05-01T12:00:00' })))
  assert.match(
    cameras.found[0]!.sentence,
    /^All 30 “a” pictures are taken with Canon 0; none of the other 60 is\. The same gives “b”, “c” away\.$/,
  )
  const days = find(many(60, index => ({ label: 'ab'[index % 2]!, captured: `2026-05-0${(index % 2) + 1}T1${index % 9}:00:00` })))
  assert.match(days.found[0]!.sentence, /taken on 2026-05-01; none/)
  const undated = find(
    many(60, index => ({ label: 'ab'[index % 2]!, ...(index % 2 === 0 && { captured: `2026-05-${10 + (index % 19)}T12:00:00` }) })),
  )
  assert.match(undated.found[0]!.sentence, /^All 30 “b” pictures are without a date; none of the other 30 is\.$/)
})

test('light alone is a question, not an accusation', () => {
  const { found } = find([
    ...many(40, index => ({ label: 'night', look: { brightness: 0.1 + index / 500 } })),
    ...many(40, index => ({ label: 'day', look: { brightness: 0.4 + index / 100 } })),
  ])
  assert.equal(found.length, 1)
  assert.equal(found[0]!.property, 'brightness')
  assert.match(
    found[0]!.sentence,
    /^All 40 “(day|night)” pictures are (lighter|darker) \(.+ %( up)?\); none of the other 40 is\. That alone tells them apart in \d+ %\. If the light/,
  )
})

test('a class that is mostly brighter than the others is just a class', () => {
  const random = randomFrom(1)
  const { found, notes } = find(
    many(400, index => ({ label: 'ab'[index % 2]!, look: { brightness: 0.3 + 0.2 * (index % 2) + 0.3 * random() } })),
  )
  assert.deepEqual(found, [])
  assert.match(notes[0]!, /^No shortcut stands out\. For comparison: size, file and light alone.+ \(chance: 50 %\)\.$/)
})

test('luck is not called a shortcut: 40 sets in which nothing has to do with the class', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = randomFrom(seed)
    const of = <T>(...choices: T[]) => choices[Math.floor(random() * choices.length)]!
    const pictures = many(20 + Math.floor(random() * 150), index => ({
      label: `class ${index % (2 + (seed % 6))}`,
      format: of('jpeg', 'png', 'webp'),
      width: of(640, 800, 1024),
      camera: of('A', 'B', 'C', 'D'),
      captured: `2026-0${of(1, 2, 3)}-1${of(1, 2, 3, 4)}T1${of(1, 2, 3)}:30:00`,
      flags: of<string[]>([], ['alpha'], ['exif-turned']),
      bytes: 20_000 + Math.floor(random() * 90_000),
      look: Object.fromEntries(['brightness', 'contrast', 'saturation', 'sharpness', 'rim'].map(key => [key, random()])),
    }))
    assert.deepEqual(find(pictures, [], seed).found, [], `seed ${seed}`)
  }
})

test('a hundred copies of one picture are one witness', () => {
  const pictures = [...many(100, { label: 'defect', format: 'png' }), ...many(100, { label: 'good' })]
  assert.equal(find(pictures).found.length, 1)
  const copies = Array.from({ length: 100 }, (_, index) => index)
  assert.deepEqual(find(pictures, [copies]).found, [])
})

test('no properties, one class, no pictures: nothing to say', () => {
  assert.deepEqual(find(many(30, { label: 'a' })), { found: [], examples: [], notes: [] })
  assert.deepEqual(find([]), { found: [], examples: [], notes: [] })
  assert.deepEqual(
    find(many(8, index => ({ label: 'ab'[index % 2]!, format: index % 2 ? 'png' : 'jpeg' }))).found,
    [],
    'four of each are no evidence',
  )
})

test('a thousand classes and 20,000 pictures take seconds', () => {
  const random = randomFrom(3)
  const pictures = many(20_000, index => ({
    label: `class ${index % 1000}`,
    format: index % 1000 === 7 ? 'png' : 'jpeg',
    look: { brightness: random() },
  }))
  const began = performance.now()
  const { found } = find(pictures)
  assert.equal(found[0]!.sentence, 'All 20 “class 7” pictures are PNG; none of the other 19,980 is.')
  assert.ok(performance.now() - began < 20_000)
})

test('how likely luck is: the lady tasting tea, and a class of five among a thousand', () => {
  assert.ok(Math.abs(fisher(4, 4, 0, 4) - 1 / 70) < 1e-9)
  assert.ok(Math.abs(fisher(3, 4, 1, 4) - 17 / 70) < 1e-9)
  assert.ok(Math.abs(fisher(0, 4, 2, 4) - 1) < 1e-9)
  assert.ok(fisher(5, 5, 0, 1000) < 1e-12)
})
