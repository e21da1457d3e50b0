import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomFrom } from '../../src/engine/random.ts'
import { estimateNoise } from '../../src/evaluate/label-noise.ts'
import { findMislabels, type MislabelTask } from '../../src/evaluate/mislabels.ts'
import { Mislabels } from '../../src/sdk/shapes.ts'
import { clouds, flipped } from './clouds.ts'

const names = (classes: number) => Array.from({ length: classes }, (_, k) => `class-${k}`)
const path = (row: number) => `picture-${row}.png`
const rowOf = (listed: { path: string }) => Number(/\d+/.exec(listed.path)![0])

function find(task: Pick<MislabelTask, 'features' | 'width' | 'labels'> & Partial<MislabelTask> & { k: number }) {
  const paths = Array.from(task.labels, (_, row) => path(row))
  return findMislabels({ classes: names(task.k), paths, groups: [], threads: 2, seed: 1, ...task })
}
const with_ = (features: Float32Array, width: number, more: readonly ArrayLike<number>[]) => {
  const all = new Float32Array(features.length + more.length * width)
  all.set(features)
  for (const [at, row] of more.entries()) all.set(Array.from(row), features.length + at * width)
  return all
}

test('flipped labels come first, each with the right class as the suggestion and neighbours that say so', async () => {
  const some = clouds(600, 40, 5, 9, 1)
  const { labels, rows } = flipped(some.labels, 5, 18, 1)
  const found = await find({ ...some, labels, k: 5 })
  assert.deepEqual(Mislabels.parse(found), found)
  const first = found.listed.slice(0, 18)
  assert.deepEqual(first.map(rowOf).sort(), [...rows].sort())
  for (const one of first) {
    const truth = `class-${some.labels[rowOf(one)]}`
    assert.deepEqual([one.pile, one.suggestion], ['another', truth])
    assert.ok(one.probabilityOfLabel < 0.1 && one.probabilityOfSuggestion > 0.8, JSON.stringify(one))
    assert.ok(one.neighbours.length === 5 && one.neighbours.filter(({ label }) => label === truth).length >= 4)
    assert.ok(one.neighbours.every(({ path }) => path !== one.path))
    assert.deepEqual(
      one.neighbours.map(({ similarity }) => similarity),
      one.neighbours.map(({ similarity }) => similarity).sort((a, b) => b - a),
    )
  }
  const { count, low, high } = found.estimate
  assert.ok(low <= 18 && 18 <= high && Math.abs(count - 18) < 6, `${count} (${low} to ${high})`)
  assert.equal(found.n, 600)
  assert.ok(found.notes.some(note => note.includes('half')))
  assert.ok(found.exchanged.length > 0 && found.exchanged.every(({ label, suggestion, count }) => label !== suggestion && count > 0))
})

test('on clean labels the interval begins at 0 and ends near it', async () => {
  for (const seed of [1, 2, 3]) {
    const some = clouds(500, 40, 4, 6, seed)
    const { estimate } = await find({ ...some, k: 4 })
    assert.ok(estimate.low === 0 && estimate.high <= 12, JSON.stringify(estimate))
  }
})

test('one class called another throughout shows as an exchanged pair', async () => {
  const some = clouds(600, 40, 4, 8, 4)
  const labels = some.labels.map((label, row) => (label === 1 && row % 5 === 0 ? 3 : label))
  const { exchanged } = await find({ ...some, labels, k: 4 })
  assert.deepEqual([exchanged[0]?.label, exchanged[0]?.suggestion], ['class-3', 'class-1'])
  assert.ok(Math.abs(exchanged[0]!.count - 30) <= 6, `${exchanged[0]!.count}`)
})

test('a copy with the same wrong label vouches for it, unless the two are known to be copies', async () => {
  const width = 40
  const some = clouds(400, width, 4, 5, 5)
  // ten pictures of class 0, each in eight copies and all called class 2
  const random = randomFrom(55)
  const wrong = Array.from({ length: 10 }, (_, i) => some.features.subarray(4 * i * width, (4 * i + 1) * width))
  const copies = wrong.flatMap(picture => Array.from({ length: 8 }, () => Array.from(picture, value => value + 0.02 * (random() - 0.5))))
  const features = with_(some.features, width, copies)
  const labels = Int32Array.from([...some.labels, ...copies.map(() => 2)])
  const groups = wrong.map((_, i) => Array.from({ length: 8 }, (_, copy) => 400 + 8 * i + copy))

  const belief = (found: Mislabels) => {
    const of = new Map(found.listed.map((one, place) => [rowOf(one), place]))
    return groups.flat().filter(row => (of.get(row) ?? 999) < 80).length
  }
  const together = await find({ features, width, labels, k: 4, groups })
  const apart = await find({ features, width, labels, k: 4 })
  assert.ok(belief(together) >= 75, `${belief(together)} of 80 at the top with groups`)
  assert.ok(belief(apart) <= 20, `${belief(apart)} of 80 at the top without`)
})

test('near-copies under two labels are certain: the less believed one comes first, with its copy as evidence', async () => {
  const width = 40
  const some = clouds(300, width, 3, 6, 6)
  const copy = Array.from(some.features.subarray(0, width), value => value + 0.01)
  const features = with_(some.features, width, [copy])
  const labels = Int32Array.from([...some.labels, 1]) // row 0 is class 0
  for (const copies of [undefined, [[0, 300]]]) {
    const { listed, notes } = await find({ features, width, labels, k: 3, groups: [[0, 300]], ...(copies ? { copies } : {}) })
    const [first] = listed
    assert.deepEqual([first!.path, first!.label, first!.suggestion, first!.score], [path(300), 'class-1', 'class-0', 1])
    assert.deepEqual([first!.neighbours[0]!.path, first!.neighbours[0]!.label], [path(0), 'class-0'])
    assert.ok(first!.neighbours[0]!.similarity > 0.95)
    assert.ok(notes.some(note => note.includes('for certain')))
  }
  // the same two pictures, merely of one scene: nothing is certain about labels that differ
  const scene = await find({ ...some, k: 3, groups: [[0, 1]] })
  assert.ok(!scene.notes.some(note => note.includes('for certain')))
})

test('a picture of no class is called that, without a suggestion', async () => {
  const width = 40
  const some = clouds(400, width, 4, 7, 7)
  const random = randomFrom(77)
  const strange = Array.from({ length: 4 }, (_, s) =>
    Float32Array.from({ length: width }, (_, f) => (f % 4 === s ? 6 : 0) * (random() < 0.5 ? -1 : 1)),
  )
  const labels = Int32Array.from([...some.labels, 0, 1, 2, 3])
  const { listed, notes } = await find({ features: with_(some.features, width, strange), width, labels, k: 4 })
  const none = listed.filter(({ pile }) => pile === 'none')
  assert.ok(none.filter(one => rowOf(one) >= 400).length >= 3, JSON.stringify(listed.slice(0, 8)))
  assert.ok(none.every(({ suggestion }) => suggestion === null))
  assert.ok(notes.some(note => note.includes('None of the classes')))
})

test('a picture with two classes on it is called that', async () => {
  const width = 40
  const some = clouds(600, width, 3, 10, 8)
  const middle = (a: number, b: number) =>
    Float32Array.from({ length: width }, (_, f) => (some.centres[a * width + f]! + some.centres[b * width + f]!) / 2)
  const both = [middle(0, 1), middle(1, 2), middle(0, 2), middle(0, 1)]
  const labels = Int32Array.from([...some.labels, 0, 1, 2, 1])
  const { listed } = await find({ features: with_(some.features, width, both), width, labels, k: 3 })
  const two = listed.filter(({ pile }) => pile === 'two').map(rowOf)
  assert.ok(two.length >= 1 && two.every(row => row >= 600), JSON.stringify(listed.slice(0, 6)))
})

test('the list is as long as the estimate asks, at most 500, and never holds a label that is believed', async () => {
  const some = clouds(2700, 24, 3, 8, 9)
  const { labels } = flipped(some.labels, 3, 540, 9)
  const { listed, estimate } = await find({ ...some, labels, k: 3 })
  assert.ok(estimate.count > 400, `${estimate.count}`)
  assert.equal(listed.length, 500)
  assert.ok(listed.every(one => one.probabilityOfLabel < 0.5))
  assert.deepEqual(
    listed.map(({ score }) => score),
    listed.map(({ score }) => score).sort((a, b) => b - a),
  )
})

test('two classes, and a class of three', async () => {
  const some = clouds(200, 30, 2, 8, 10)
  const { labels, rows } = flipped(some.labels, 2, 5, 10)
  const found = await find({ ...some, labels, k: 2 })
  assert.deepEqual(found.listed.slice(0, 5).map(rowOf).sort(), [...rows].sort())

  const rare = clouds(203, 30, 3, 8, 11)
  const keep = [...rare.labels.keys()].filter(row => rare.labels[row] !== 2 || row < 9)
  const features = Float32Array.from(keep.flatMap(row => [...rare.features.subarray(row * 30, (row + 1) * 30)]))
  const few = await find({ features, width: 30, labels: Int32Array.from(keep, row => rare.labels[row]!), k: 3 })
  assert.equal(few.n, keep.length)
  assert.ok(few.listed.length <= 20)
})

test('a class of one picture, or of copies of one, is not judged, and that is said', async () => {
  const some = clouds(120, 20, 3, 8, 12)
  const labels = some.labels.map((label, row) => (row < 4 ? 3 : label))
  const found = await find({ ...some, labels, k: 5, groups: [[0, 1, 2, 3]] })
  assert.equal(found.n, 116)
  assert.ok(found.listed.every(one => rowOf(one) >= 4))
  assert.ok(found.notes.some(note => note.startsWith('4 of 120 pictures could not be judged')))
})

test('600 classes of three pictures, which heads by least squares judge', async () => {
  const some = clouds(1800, 48, 600, 14, 13)
  const { labels, rows } = flipped(some.labels, 600, 30, 13)
  const found = await find({ ...some, labels, k: 600 })
  const top = new Set(found.listed.slice(0, 60).map(rowOf))
  assert.ok(rows.filter(row => top.has(row)).length >= 20, `${rows.filter(row => top.has(row)).length} of 30 among the first 60`)
})

test('the same pictures and seed give the same answer, to the bit', async () => {
  const some = clouds(300, 20, 4, 3, 14)
  const [a, b] = [await find({ ...some, k: 4 }), await find({ ...some, k: 4 })]
  assert.deepEqual(a, b)
})

test('features that are no numbers, a single class and wrong sizes are refused; a dozen pictures are not', async () => {
  const some = clouds(60, 10, 3, 4, 15)
  const features = some.features.slice()
  features[57] = Number.NaN
  await assert.rejects(find({ ...some, features, k: 3 }), { code: 'bad_scores', message: /picture 5 has NaN at feature 7/ })
  await assert.rejects(find({ ...some, width: 11, k: 3 }), { code: 'shape_mismatch' })
  await assert.rejects(find({ ...some, labels: new Int32Array(60), k: 3 }), { code: 'one_class_left', message: /class-0/ })
  const copies = await find({ ...some, k: 3, groups: [[...some.labels.keys()]] })
  assert.deepEqual([copies.n, copies.listed.length, copies.estimate.high], [0, 0, 60])
  assert.match(copies.notes[0]!, /copies of one another/)
  const dozen = clouds(12, 10, 3, 6, 16)
  const found = await find({ ...dozen, k: 3 })
  assert.ok(found.notes.some(note => note.includes('hardly more than a guess')))
})

test('Ctrl-C stops it', async () => {
  const some = clouds(2000, 200, 10, 1, 17)
  const stop = new AbortController()
  const reason = new Error('enough')
  const running = find({ ...some, k: 10, signal: stop.signal })
  setImmediate(() => stop.abort(reason))
  await assert.rejects(running, reason)
})

test('hard pictures are not counted as wrong labels: probabilities that mean what they say give an estimate near the truth', () => {
  const [n, classes] = [4000, 5]
  for (const [rate, seed] of [
    [0, 1],
    [0.03, 2],
    [0.1, 3],
  ] as const) {
    const random = randomFrom(seed, 18)
    const logProbabilities = new Float64Array(n * classes)
    const labels = new Int32Array(n)
    let wrong = 0
    for (let i = 0; i < n; i++) {
      // a third of the pictures is hard: two classes share them
      const [a, b] = [Math.floor(random() * classes), Math.floor(random() * classes)]
      const share = random() < 0.33 ? 0.5 + 0.5 * random() : 0.995
      for (let k = 0; k < classes; k++)
        logProbabilities[i * classes + k] = Math.log((k === a ? share : 0) + (k === b ? 1 - share : 0) + 1e-4)
      const truth = random() < share ? a : b
      const flip = random() < rate
      wrong += Number(flip)
      labels[i] = flip ? (truth + 1 + Math.floor(random() * (classes - 1))) % classes : truth
    }
    const { count, low, high } = estimateNoise({
      logProbabilities,
      labels,
      classes,
      units: Array.from({ length: n }, (_, i) => [i]),
      seed: 1,
    })
    assert.ok(low <= wrong && wrong <= high, `${wrong} wrong, said ${count} (${low} to ${high})`)
    assert.ok(high - low < 0.08 * n, `${wrong} wrong, said ${count} (${low} to ${high})`)
  }
})
