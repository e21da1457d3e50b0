import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomFrom } from '../../src/engine/random.ts'
import { type Origin, slices } from '../../src/evaluate/slices.ts'

const labels = ['cat', 'dog', 'bird']

/** n pictures; `wrong` says how often each is answered wrong, from its origin and label. */
function answered(n: number, origin: (i: number, label: string) => Origin, wrong: (origin: Origin, label: string) => number, seed = 1) {
  const random = randomFrom(seed)
  const own = Array.from({ length: n }, (_, i) => labels[i % labels.length]!)
  const origins = own.map((label, i) => origin(i, label))
  const right = origins.map((each, i) => random() >= wrong(each, own[i]!))
  return { origins, labels: own, right, groups: own.map(() => null as string | null) }
}

test('a bad camera shows without being asked for, and only it', () => {
  const cameras = ['Canon', 'Nikon', 'Broken', 'Sony']
  const input = answered(
    400,
    (i, label) => ({ path: `${label}/${i}.jpg`, camera: cameras[Math.floor(i / 3) % 4], format: 'jpeg' }),
    ({ camera }) => (camera === 'Broken' ? 0.4 : 0.08),
  )
  const found = slices(input)
  assert.deepEqual(
    found.filter(({ stands }) => stands === 'worse').map(({ by, value }) => [by, value]),
    [['camera', 'Broken']],
  )
  assert.equal(found[0]!.value, 'Broken', 'what stands out comes first')
  assert.equal(found.length, 4, 'a format that all pictures share is no part')
  for (const { n, low, accuracy, high } of found) assert.ok(n === 100 || n === 99 || n === 101 || (low <= accuracy && accuracy <= high))
})

test('a camera that saw only the hard class is not blamed for it', () => {
  const input = answered(
    600,
    (i, label) => ({ path: `${label}/${i}.jpg`, camera: label === 'bird' && i % 2 === 0 ? 'Macro' : 'Canon' }),
    (_, label) => (label === 'bird' ? 0.5 : 0.02),
  )
  for (const { stands } of slices(input)) assert.equal(stands, 'not told apart')
})

test('among forty parts that do not differ, rarely one is said to stand out', () => {
  let called = 0
  const sets = 60
  for (let set = 0; set < sets; set++) {
    const input = answered(
      600,
      (i, label) => ({ path: `site-${i % 20}/${label}/${i}.jpg`, camera: `camera ${Math.floor(i / 7) % 20}` }),
      () => 0.2,
      set,
    )
    const found = slices(input)
    assert.equal(found.length, 40)
    called += Number(found.some(({ stands }) => stands !== 'not told apart'))
  }
  assert.ok(called <= 6, `in ${called} of ${sets} sets, allowed is about one in twenty`)
})

test('folders count by level without the class, on either side of it; months from the capture time', () => {
  const input = answered(
    120,
    (i, label) => ({
      path: i % 2 ? `${label}/attic/${i}.jpg` : `${label}/cellar/${i}.jpg`,
      captured: i % 4 < 2 ? '2026-05-01T12:00:00' : '2026-06-01T12:00:00',
    }),
    () => 0.1,
  )
  assert.deepEqual(
    slices(input)
      .map(({ by, value }) => `${by} ${value}`)
      .toSorted(),
    ['folder attic', 'folder cellar', 'month 2026-05', 'month 2026-06'],
  )
  const outside = answered(
    60,
    (i, label) => ({ path: `${i % 2 ? 'a' : 'b'}/${label}/${i}.jpg` }),
    () => 0.1,
  )
  assert.deepEqual(
    slices(outside).map(({ value }) => value),
    ['b', 'a'],
  )
})

test('the same pictures under two names are said once; few pictures, everything, and nothing are no parts', () => {
  const twice = answered(
    60,
    (i, label) => ({ path: `${i % 2 ? 'a' : 'b'}/${label}/${i}.jpg`, camera: i % 2 ? 'Canon' : 'Nikon' }),
    () => 0.1,
  )
  assert.deepEqual(
    slices(twice).map(({ by }) => by),
    ['folder', 'folder'],
  )
  const few = answered(
    60,
    (i, label) => ({ path: `${label}/${i}.jpg`, camera: i < 9 ? 'rare' : undefined, format: 'png' }),
    () => 0.1,
  )
  assert.deepEqual(slices(few), [])
  assert.deepEqual(slices({ origins: [], labels: [], right: [], groups: [] }), [])
})

test('twenty copies of one wrong picture are one wrong picture', () => {
  const input = answered(
    240,
    (i, label) => ({ path: `${label}/${i}.jpg`, camera: i < 120 ? 'Canon' : 'Nikon' }),
    () => 0,
  )
  const copy = (i: number) => i % 3 === 0 && i < 60
  const right = input.right.map((_, i) => !copy(i))
  const canon = (groups: (string | null)[]) => slices({ ...input, right, groups }).find(({ value }) => value === 'Canon')!
  const together = canon(right.map((_, i) => (copy(i) ? 'one' : null)))
  assert.deepEqual([together.accuracy, together.stands], [100 / 120, 'not told apart'])
  assert.equal(canon(input.groups).stands, 'worse')
})
