/** Whether intervals hold what they promise, by drawing small sets from a large one whose truth is known. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { preparePictures } from '../../src/data/features.ts'
import { importPictures, manifestDigest } from '../../src/data/import.ts'
import { extractSample } from '../../src/data/samples.ts'
import { permutation, randomFrom } from '../../src/engine/random.ts'
import { groupedShare } from '../../src/evaluate/grouped.ts'
import { wilson } from '../../src/evaluate/intervals.ts'
import { findMislabels } from '../../src/evaluate/mislabels.ts'
import { backbone } from '../../src/models/catalogue.ts'
import { fitLogisticRegression } from '../../src/models/logistic-regression.ts'
import { openBlobs } from '../../src/storage/blobs.ts'
import { clouds, flipped } from './clouds.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const draws = 200
const promised = (held: number, what: string) =>
  assert.ok(held >= 0.92 * draws && held <= 0.98 * draws, `${what}: ${held} of ${draws} hold the truth`)

/** Groups of answers, drawn with replacement until there are `pictures` of them: right or wrong, and the group each belongs to. */
function drawGroups(groups: readonly (readonly boolean[])[], pictures: number, seed: number) {
  const random = randomFrom(seed, 61)
  const [right, names]: [boolean[], string[]] = [[], []]
  for (let g = 0; right.length < pictures; g++) {
    const group = groups[Math.floor(random() * groups.length)]!
    right.push(...group)
    names.push(...group.map(() => `group ${g}`))
  }
  return { right, names }
}

function heldBy(groups: readonly (readonly boolean[])[], pictures: number) {
  const all = groups.flat()
  const truth = all.filter(Boolean).length / all.length
  const held = { alone: 0, grouped: 0, blind: 0 }
  const within = ([low, high]: readonly [number, number]) => Number(low <= truth && truth <= high)
  for (let seed = 1; seed <= draws; seed++) {
    const alone = drawGroups(
      all.map(one => [one]),
      pictures,
      seed,
    ).right
    held.alone += within(wilson(alone.filter(Boolean).length, alone.length))
    const { right, names } = drawGroups(groups, pictures, seed)
    const { low, high } = groupedShare(right, names)
    held.grouped += within([low, high])
    held.blind += within(wilson(right.filter(Boolean).length, right.length))
  }
  return held
}

test('95 % intervals hold the large-sample accuracy in 92 to 98 % of 200 small sets; one that is blind to groups does not', () => {
  for (const [accuracy, seed] of [
    [0.85, 1],
    [0.7, 2],
  ] as const) {
    const random = randomFrom(seed, 62)
    // groups of five whose pictures are mostly right or wrong together
    const groups = Array.from({ length: 3000 }, () => {
      const together = random() < 0.6
      const all = random() < accuracy
      return Array.from({ length: 5 }, () => (together ? all : random() < accuracy))
    })
    const held = heldBy(groups, 300)
    promised(held.alone, `Wilson at ${accuracy}`)
    promised(held.grouped, `grouped at ${accuracy}`)
    assert.ok(held.blind < 0.9 * draws, `without the groups ${held.blind} of ${draws}`)
  }
})

test('the same with a real head on real pictures: drawings of one thing are groups', { skip: !long && 'PLINTH_TEST=long' }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'plinth-coverage-'))
  try {
    await extractSample('emoji', join(folder, 'emoji'))
    const blobs = openBlobs(join(folder, 'blobs'))
    const manifest = await importPictures(join(folder, 'emoji'), { blobs })
    const network = backbone('efficientnet-lite0')
    const prepared = await preparePictures({
      folder: join(folder, 'features'),
      dataset: manifestDigest(manifest),
      rows: manifest.rows,
      blob: content => blobs.get(content),
      backbone: network,
      weights: await network.loadWeights(),
      side: 96,
      threads: 2,
    })
    prepared.close()
    const { width, features } = prepared
    const labels = manifest.rows.map(row => manifest.classes.indexOf(row.labels[0]!))
    const classes = manifest.classes.length
    const side = (rows: readonly number[]) => ({
      features: Float32Array.from(rows.flatMap(row => [...features.subarray(row * width, (row + 1) * width)])),
      labels: rows.map(row => labels[row]!),
    })
    const things = [...Map.groupBy(labels.keys(), row => /([^/]*)__/.exec(manifest.rows[row]!.path)![1]!).values()]
    const order = permutation(things.length, randomFrom(5, 63))
    const [taught, asked] = [order.slice(0, things.length / 3), order.slice(things.length / 3)].map(part => part.map(at => things[at]!))
    const nothing = { features: new Float32Array(0), labels: [] }
    const head = await fitLogisticRegression({ train: side(taught!.flat()), validation: nothing, width, classes, threads: 2 })
    const probabilities = head.probabilities(features)
    const right = labels.map((label, row) => {
      const own = probabilities.subarray(row * classes, (row + 1) * classes)
      return own.indexOf(Math.max(...own)) === label
    })
    const held = heldBy(
      asked!.map(group => group.map(row => right[row]!)),
      100,
    )
    promised(held.alone, 'Wilson')
    promised(held.grouped, 'grouped')
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('the interval for the number of wrong labels holds it in at least nine of ten sets, from easy classes to hard ones', async () => {
  const cases = [2.5, 4, 6].flatMap(apart => [0, 0.03, 0.1].map(rate => ({ apart, rate })))
  let [held, sets] = [0, 0]
  const missed: string[] = []
  for (const { apart, rate } of cases)
    for (let seed = 1; seed <= (long ? 12 : 1); seed++) {
      const some = clouds(300, 24, 4, apart, seed)
      const { labels, rows } = flipped(some.labels, 4, Math.round(300 * rate), seed)
      const paths = Array.from(labels, (_, row) => `${row}`)
      const { estimate } = await findMislabels({ ...some, labels, classes: ['a', 'b', 'c', 'd'], paths, groups: [], threads: 2, seed })
      sets++
      if (estimate.low <= rows.length && rows.length <= estimate.high) held++
      else missed.push(`${rows.length}, ${apart} apart: ${estimate.count.toFixed(1)} (${estimate.low} to ${estimate.high})`)
    }
  assert.ok(held >= Math.floor(0.9 * sets), `${held} of ${sets}; not ${missed.join('; ')}`)
})
