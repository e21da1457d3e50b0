/** The three verdicts on pictures made for the purpose: what is the same, what is only the same scene, what is neither, and what the names and the clock say. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import sharp, { type Sharp } from 'sharp'
import { nearestNeighbours, neighboursKept } from '../../../src/data/copies/feature-search.ts'
import { findCopies } from '../../../src/data/copies/index.ts'
import { namedScenes } from '../../../src/data/copies/names.ts'
import { fingerprint } from '../../../src/images/fingerprint.ts'
import { Copies, type ManifestRow } from '../../../src/sdk/index.ts'
import { randomNumbers } from '../../models/tiny-model.ts'

type Pixels = { width: number; height: number; data: Uint8Array }
const open = ({ width, height, data }: Pixels) => sharp(data, { raw: { width, height, channels: 3 } })
async function pixels(image: Sharp): Promise<Pixels> {
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true })
  return { width: info.width, height: info.height, data }
}

/** Blurred noise in three sizes: as much detail as a photograph, and no two alike. */
async function landscape(width: number, height: number, seed: number): Promise<Pixels> {
  const next = randomNumbers(seed)
  const layers = await Promise.all(
    [5, 14, 40].map(cells => {
      const data = Uint8Array.from({ length: cells * cells * 3 }, () => Math.floor(256 * next()))
      return pixels(
        sharp(data, { raw: { width: cells, height: cells, channels: 3 } }).resize(width, height, { fit: 'fill', kernel: 'cubic' }),
      )
    }),
  )
  const data = Uint8Array.from(
    { length: width * height * 3 },
    (_, at) => (layers[0]!.data[at]! + layers[1]!.data[at]! + layers[2]!.data[at]!) / 3,
  )
  return { width, height, data }
}
const part = (picture: Pixels, left: number, top: number, width: number, height: number) =>
  pixels(open(picture).extract({ left, top, width, height }))

function searchOf(pictures: readonly Pixels[], more: (index: number) => Partial<ManifestRow> = () => ({})) {
  const prints = pictures.map(fingerprint)
  const rows = pictures.map(({ width, height }, index): ManifestRow => {
    const name = `${index}`
    return {
      path: `a/${name}x.png`,
      content: name,
      pixels: name,
      labels: ['a'],
      group: null,
      side: null,
      width,
      height,
      flags: [],
      ...more(index),
    }
  })
  const facts = {
    get: (content: string) => ({ fingerprint: prints[Number(content)]! }),
    grey: (content: string) => prints[Number(content)]!.grey,
  }
  return { manifest: { rows }, dataset: 'd', facts, seed: 1 }
}
const strangers = (count: number) => Promise.all(Array.from({ length: count }, (_, seed) => landscape(240, 180, 1000 + seed)))

test('mirrored, turned, lighter and smaller copies are one picture with their original, which stands first or beside it; strangers are left alone', async () => {
  const others = await strangers(25)
  const original = others[0]!
  const copies = [
    await pixels(open(original).flop()),
    await pixels(open(original).rotate(90)),
    await pixels(open(original).linear(1.15, 0)),
    await pixels(open(original).resize(120, 90)),
  ]
  const pictures = [...others, ...copies]
  const search = { ...searchOf(pictures), picture: async ({ content }: ManifestRow) => pictures[Number(content)]! } // for the recall
  const found = Copies.parse(await findCopies(search))
  assert.deepEqual(
    found.samePicture.map(group => [...group].sort((a, b) => a - b)),
    [[0, 25, 26, 27, 28]],
  )
  assert.deepEqual(found.tiers, ['pixels', 'hash', 'names'])
  assert.deepEqual(found.notJudged, [])
  const recall = new Map(found.recall.map(({ edit, made, found }) => [edit, found / made]))
  for (const edit of ['mirrored', 'half the size', 'without colour', 'saved as JPEG, quality 40'])
    assert.ok(recall.get(edit)! > 0.9, `${edit}: ${recall.get(edit)}`)
  assert.deepEqual(await findCopies(search), found, 'the same again')
})

test('a camera that moves on makes no chain of copies: nobody is in a group who was not like its first', async () => {
  const wide = await landscape(1200, 180, 5)
  const steps = Array.from({ length: 30 }, (_, step) => 8 * step) // each shows 97 % of the one before
  const frames = await Promise.all(steps.map(left => part(wide, left, 0, 240, 180)))
  const found = await findCopies(searchOf([...frames, ...(await strangers(25))]))
  for (const group of found.samePicture) {
    const offsets = group.map(row => steps[row]!)
    assert.ok(Math.max(...offsets) - Math.min(...offsets) <= 80, `frames ${group.join(', ')} were called one picture`)
  }
  const last = frames.length - 1
  assert.ok(!found.samePicture.some(group => group.includes(0) && group.includes(last)))
  assert.ok(
    found.sameScene.some(({ rows, evidence }) => evidence === 'pixels' && rows.includes(0) && rows.length > 5),
    'but they are one scene',
  )
  assert.ok(found.sameScene.every(({ rows }) => rows.every(row => row <= last)))
})

test('flat pictures are never called copies of each other, however many there are', async () => {
  const flat = Array.from({ length: 30 }, (_, shade) => {
    const next = randomNumbers(shade)
    return { width: 120, height: 90, data: Uint8Array.from({ length: 120 * 90 * 3 }, () => 100 + shade + Math.floor(3 * next())) }
  })
  const found = await findCopies(searchOf(flat))
  assert.deepEqual([found.samePicture, found.sameScene, found.alike], [[], [], []])
  assert.equal(found.notJudged.length, 30)
})

test('a turn that the fingerprint does not see is found where the features are near', async () => {
  const others = await strangers(30)
  const large = await pixels(open(others[0]!).rotate(14, { background: '#000' }))
  const turned = await part(large, Math.round((large.width - 240) / 2), Math.round((large.height - 180) / 2), 240, 180)
  const search = searchOf([...others, turned])
  assert.deepEqual((await findCopies(search)).samePicture, [])
  const next = randomNumbers(9)
  const width = 40
  const values = Float32Array.from({ length: 31 * width }, () => next())
  for (let column = 0; column < width; column++) values[30 * width + column] = values[column]! + 0.2 * (next() - 0.5)
  const found = await findCopies({ ...search, features: { values, width } })
  assert.deepEqual(
    found.samePicture.map(group => [...group].sort((a, b) => a - b)),
    [[0, 30]],
  )
  assert.ok(found.tiers.includes('features'))
})

test('every picture finds its nearest neighbour by features, across blocks and in the last one too', async () => {
  const [n, width] = [2500, 48]
  const next = randomNumbers(4)
  const values = Float32Array.from({ length: n * width }, () => next())
  const twin = (row: number) => (row + n / 2) % n
  for (let row = n / 2; row < n; row++)
    for (let column = 0; column < width; column++) values[row * width + column] = values[twin(row) * width + column]! + 0.05 * next()
  const { rows, cosines } = await nearestNeighbours(values, width, [...Array(n).keys()], 2)
  for (let row = 0; row < n; row++) {
    const own = [...rows.subarray(row * neighboursKept, (row + 1) * neighboursKept)]
    assert.equal(own[0], twin(row))
    assert.ok(new Set(own).size === neighboursKept && !own.includes(row) && !own.includes(-1))
    for (let rank = 1; rank < neighboursKept; rank++)
      assert.ok(cosines[row * neighboursKept + rank]! <= cosines[row * neighboursKept + rank - 1]!)
  }
})

test('an interruption ends the search with its reason', async () => {
  const controller = new AbortController()
  const pictures = await strangers(40)
  const search = searchOf(pictures)
  const reason = new Error('enough')
  const picture = async ({ content }: ManifestRow) => {
    controller.abort(reason)
    return pictures[Number(content)]!
  }
  await assert.rejects(findCopies({ ...search, picture, signal: controller.signal }), error => error === reason)
  await assert.rejects(findCopies({ ...search, signal: AbortSignal.abort(reason) }), error => error === reason)
})

test('pictures taken within seconds by one camera are one scene, not those of two cameras, and not those of a camera that never rests', () => {
  const row = (index: number, captured: string, camera: string, group: string | null = null): ManifestRow => ({
    path: `a/${index}x.jpg`,
    content: `${index}`,
    pixels: `${index}`,
    labels: ['a'],
    group,
    side: null,
    width: 100,
    height: 100,
    flags: [],
    captured,
    camera,
  })
  const at = (second: number) => new Date(Date.UTC(2026, 4, 1, 12, 0, 0) + 1000 * second).toISOString().slice(0, -1)
  const scenes = (rows: ManifestRow[]) => namedScenes(rows, [])
  const walk = [0, 1, 3, 100, 101, 500, 900].map((second, index) => row(index, at(second), 'Canon A'))
  assert.deepEqual(scenes(walk).scenes, [
    { rows: [0, 1, 2], evidence: 'time' },
    { rows: [3, 4], evidence: 'time' },
  ])
  const two = [row(0, at(0), 'Canon A'), row(1, at(1), 'Canon B')]
  assert.deepEqual(scenes(two).scenes, [])
  const belt = Array.from({ length: 200 }, (_, index) => row(index, at(index), 'Basler'))
  assert.deepEqual(scenes(belt).scenes, [])
  assert.match(scenes(belt).notes.join(), /Basler took pictures without a pause.*--group-by/)
  const given = [row(0, at(0), 'Canon A', 'mine'), row(1, at(1), 'Canon A', 'yours')]
  assert.deepEqual(scenes(given).scenes, [])
  const unreadable = [row(0, 'yesterday', 'Canon A'), row(1, at(1), 'Canon A')]
  assert.deepEqual(scenes(unreadable).scenes, [])
})

test('frames of a film are one scene where the next frame is far more alike than any other', () => {
  const next = randomNumbers(8)
  const random = () => Uint8Array.from({ length: 32 }, () => Math.floor(256 * next()))
  const rows = Array.from({ length: 60 }, (_, index): ManifestRow => {
    const name = `clip_${String(index).padStart(6, '0')}`
    return {
      path: `a/${name}.jpg`,
      content: name,
      pixels: name,
      labels: ['a'],
      group: null,
      side: null,
      width: 100,
      height: 100,
      flags: [],
    }
  })
  const scenesOf = (hashes: Uint8Array[]) =>
    namedScenes(
      rows,
      hashes.map((hash, index) => ({ rows: [index], hash, judged: true })),
    ).scenes
  const shots = [random(), random(), random()]
  const film = rows.map((_, index) => {
    const hash = shots[Math.floor(index / 20)]!.slice()
    for (let flips = 0; flips < 6; flips++) hash[Math.floor(32 * next())]! ^= 1 << Math.floor(8 * next())
    return hash
  })
  assert.deepEqual(
    scenesOf(film).map(({ rows }) => [rows[0], rows.length]),
    [
      [0, 20],
      [20, 20],
      [40, 20],
    ],
  )
  const belt = rows.map((_, index) => film[index % 20]!) // all alike: the next one no more than any other
  assert.deepEqual(scenesOf(belt), [])
})

test('things by several vendors stay together where that is how all files are named, and a common prefix is no source', () => {
  const rowsOf = (names: readonly string[]) =>
    names.map(
      (name): ManifestRow => ({
        path: `a/${name}.png`,
        content: name,
        pixels: name,
        labels: ['a'],
        group: null,
        side: null,
        width: 100,
        height: 100,
        flags: [],
      }),
    )
  const things = ['ant', 'bee', 'cat', 'dog', 'eel', 'fox']
  const named = namedScenes(rowsOf(things.flatMap(thing => ['noto', 'fluent'].map(vendor => `${thing}__${vendor}`))), [])
  assert.deepEqual(
    named.scenes.map(({ rows }) => rows),
    [
      [0, 1],
      [2, 3],
      [4, 5],
      [6, 7],
      [8, 9],
      [10, 11],
    ],
  )
  assert.match(named.notes.join(), /6 groups by file name \(such as ant__noto and ant__fluent\)/)
  assert.deepEqual(namedScenes(rowsOf(Array.from({ length: 40 }, (_, index) => `camera1__${index}a`)), []).scenes, [])
  assert.deepEqual(
    namedScenes(rowsOf(['ant__noto', 'ant__fluent', ...Array.from({ length: 40 }, (_, index) => `holiday ${index}a`)]), []).scenes,
    [],
  )
})
