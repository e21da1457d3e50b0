import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { joinGroups } from '../../src/data/groups.ts'
import { splitDataset } from '../../src/data/split.ts'
import { type Manifest, type ManifestRow, Split } from '../../src/sdk/shapes.ts'

type Given = { label: string; group?: string | null; side?: ManifestRow['side']; pixels?: string }
function manifest(given: readonly Given[]): Manifest {
  const rows = given.map(({ label, group = null, side = null, pixels }, index): ManifestRow => {
    const digest = (pixels ?? `${label} ${index}`).padEnd(64, '.')
    return { path: `${label}/${index}.png`, content: digest, pixels: digest, labels: [label], group, side, width: 4, height: 4, flags: [] }
  })
  return {
    schema: 1,
    classes: [...new Set(given.map(row => row.label))].sort(),
    rows,
    unreadable: [],
    ignored: [],
    exactDuplicates: [],
    conflicts: [],
  }
}
const many = (label: string, count: number, more: Omit<Given, 'label'> = {}) => Array.from({ length: count }, () => ({ label, ...more }))
const split = (data: Manifest, seed = 1) => splitDataset(data, { seed, dataset: 'd' })
const counts = ({ train, validation, test }: Split) => [train.length, validation.length, test.length]
const sidesOf = (made: Split) => (['train', 'validation', 'test'] as const).map(side => made[side])

const anyManifest = fc
  .array(
    fc.record({
      label: fc.constantFrom('a', 'b', 'c'),
      group: fc.oneof(fc.constant(null), fc.nat(8).map(String)),
      pixels: fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, fc.nat(5).map(String)),
    }),
    { minLength: 1, maxLength: 120 },
  )
  .map(rows => manifest(rows.map(({ pixels, ...row }) => (pixels === undefined ? row : { ...row, pixels }))))
const sides = fc.constantFrom(null, 'train' as const, 'validation' as const, 'test' as const)
const anySided = fc.tuple(anyManifest, fc.array(sides, { minLength: 120, maxLength: 120 })).map(([data, chosen]) => {
  return { ...data, rows: data.rows.map((row, index) => ({ ...row, side: chosen[index]! })) }
})

test('every picture is on exactly one side, whatever the groups, copies and folders', () => {
  fc.assert(
    fc.property(fc.oneof(anyManifest, anySided), fc.integer(), (data, seed) => {
      const made = Split.parse(split(data, seed))
      assert.deepEqual(
        sidesOf(made)
          .flat()
          .sort((a, b) => a - b),
        [...data.rows.keys()],
      )
    }),
  )
})

test('no group and no copy sits on two sides', () => {
  fc.assert(
    fc.property(fc.oneof(anyManifest, anySided), data => {
      const where = new Map<string, number>()
      for (const [side, rows] of sidesOf(split(data)).entries()) {
        for (const row of rows) {
          const { group, pixels } = data.rows[row]!
          for (const key of [`pixels ${pixels}`, ...(group === null ? [] : [`group ${group}`])]) {
            assert.equal(where.get(key) ?? side, side, key)
            where.set(key, side)
          }
        }
      }
    }),
  )
})

test('the shares are kept to a picture a class, and to the largest group where there are groups', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 3, max: 300 }), { minLength: 2, maxLength: 5 }), fc.integer(), (sizes, seed) => {
      const made = split(manifest(sizes.flatMap((size, index) => many(`class ${index}`, size))), seed)
      for (const [index, size] of sizes.entries()) {
        const start = sizes.slice(0, index).reduce((a, b) => a + b, 0)
        for (const [side, share] of [0.7, 0.15, 0.15].entries()) {
          const here = sidesOf(made)[side]!.filter(row => row >= start && row < start + size).length
          assert.ok(here >= 1 && Math.abs(here - share * size) <= 1.5, `${here} of ${size} on side ${side}`)
        }
      }
    }),
  )
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 30, maxLength: 60 }), groups => {
      const made = split(manifest(groups.flatMap((size, index) => many('a', size, { group: String(index) }))))
      const size = groups.reduce((a, b) => a + b, 0)
      for (const [side, share] of [0.7, 0.15, 0.15].entries()) assert.ok(Math.abs(sidesOf(made)[side]!.length - share * size) <= 13)
    }),
  )
})

test('the same pictures and seed give the same split in any order of rows; another seed another', () => {
  const data = manifest([...many('a', 40), ...many('b', 40)])
  const names = (made: Split, of: Manifest) => sidesOf(made).map(rows => rows.map(row => of.rows[row]!.path).sort())
  const backwards = { ...data, rows: data.rows.toReversed() }
  assert.deepEqual(names(split(data), data), names(split(backwards), backwards))
  assert.notDeepEqual(names(split(data, 2), data), names(split(data, 1), data))
})

test('renaming pictures does not move them, and adding a class does not move those of another', () => {
  const data = manifest([...many('a', 40), ...many('b', 40)])
  const renamed = { ...data, rows: data.rows.map((row, index) => ({ ...row, path: `${row.labels[0]}/new ${99 - index}.png` })) }
  assert.deepEqual(sidesOf(split(renamed)), sidesOf(split(data)))
  const more = manifest([...many('a', 40), ...many('b', 40), ...many('c', 9)])
  for (const [side, rows] of sidesOf(split(more)).entries())
    assert.deepEqual(
      rows.filter(row => row < 80),
      sidesOf(split(data))[side],
    )
})

test('2,000 pictures in ten classes are 1,400, 300 and 300', () => {
  assert.deepEqual(counts(split(manifest(Array.from('abcdefghij').flatMap(label => many(label, 200))))), [1400, 300, 300])
})

test('three pictures are one each; fewer are said', () => {
  assert.deepEqual(counts(split(manifest([...many('a', 3), ...many('b', 3)]))), [2, 2, 2])
  const small = split(manifest([...many('a', 20), ...many('b', 2)]))
  assert.match(small.notes.join('\n'), /Too few pictures that differ to have one on each side: b\.\nNo picture in (test|validation) for: b/)
})

test('a class of a few large groups is still on each side', () => {
  const data = manifest(['x', 'y', 'z'].flatMap(group => many('a', 5, { group })))
  assert.deepEqual(counts(split(data)), [5, 5, 5])
})

test('a class that has three units is on every side, however unequal its groups and however many classes there are', () => {
  const groups = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 3, maxLength: 8 })
  fc.assert(
    fc.property(fc.array(groups, { minLength: 1, maxLength: 6 }), fc.integer(), (classes, seed) => {
      const data = manifest(
        classes.flatMap((sizes, label) => sizes.flatMap((size, index) => many(`class ${label}`, size, { group: `${label} ${index}` }))),
      )
      for (const rows of sidesOf(split(data, seed))) {
        assert.deepEqual([...new Set(rows.map(row => data.rows[row]!.labels[0]!))].sort(), data.classes)
      }
    }),
  )
})

test('own folders are kept whatever they hold: nothing but copies changes its side', () => {
  fc.assert(
    fc.property(anySided, fc.integer(), (data, seed) => {
      const alone = {
        ...data,
        rows: data.rows.map((row, index) => ({ ...row, group: null, pixels: `${index}`, side: row.side ?? 'train' })),
      }
      if (!alone.rows.some(row => row.side === 'train')) return
      const made = split(alone, seed)
      for (const side of ['validation', 'test'] as const) {
        const own = [...alone.rows.keys()].filter(row => alone.rows[row]!.side === side)
        if (own.length > 0) assert.deepEqual(made[side], own)
      }
    }),
  )
})

test('own folders are kept as they are, a class that is missing from one included', () => {
  const data = manifest([
    ...many('a', 8, { side: 'train' }),
    ...many('b', 6, { side: 'train' }),
    ...many('a', 2, { side: 'validation' }),
    ...many('b', 3, { side: 'test' }),
  ])
  const made = split(data)
  assert.deepEqual(counts(made), [14, 2, 3])
  assert.deepEqual(made.notes, [
    'Your own folders decide: train, validation and test.',
    'No picture in validation for: b; they have no say in choosing the model.',
    'No picture in test for: a; nothing is said about them.',
  ])
})

test('a missing test folder is made out of train, and the validation folder stays', () => {
  const data = manifest([
    ...many('a', 100, { side: 'train' }),
    ...many('b', 100, { side: 'train' }),
    ...many('a', 10, { side: 'validation' }),
    ...many('b', 10, { side: 'validation' }),
  ])
  const made = split(data)
  assert.deepEqual(counts(made), [164, 20, 36])
  assert.match(made.notes.join('\n'), /You have no folder for test: 18 % for test were taken out of train/)
  assert.ok(made.validation.every(row => row >= 200))
})

test('a train folder alone is split three ways; a test folder without train decides nothing', () => {
  assert.deepEqual(counts(split(manifest(many('a', 100, { side: 'train' })))), [70, 15, 15])
  const odd = split(manifest([...many('a', 80, { side: 'test' }), ...many('a', 20, { side: 'validation' })]))
  assert.deepEqual(counts(odd), [70, 15, 15])
  assert.match(odd.notes.join('\n'), /There is no train folder/)
})

test('a test picture that is a copy of a training picture is no test, and the user is told', () => {
  const data = manifest([...many('a', 10, { side: 'train' }), ...many('a', 5, { side: 'test' }), ...many('a', 5, { side: 'validation' })])
  data.rows[12]!.pixels = data.rows[3]!.pixels
  const made = split(data)
  assert.ok(made.train.includes(12))
  assert.deepEqual(counts(made), [11, 5, 4])
  assert.match(made.notes.join('\n'), /1 picture of your validation or test folder is a copy/)
})

test('groups join through any chain of shared names, and only then', () => {
  assert.deepEqual(joinGroups([['a'], ['b'], ['c', 'a'], ['b', 'c'], ['d']]), ['a', 'a', 'a', 'a', null])
  fc.assert(
    fc.property(fc.array(fc.array(fc.nat(12).map(String), { minLength: 1, maxLength: 3 }), { maxLength: 30 }), keys => {
      const joined = joinGroups(keys)
      // the slow way: spread numbers until nothing changes
      const slow = keys.map((_, index) => index)
      for (let changed = true; changed; ) {
        changed = false
        for (const [a, own] of keys.entries())
          for (const [b, other] of keys.entries())
            if (slow[a]! > slow[b]! && own.some(key => other.includes(key))) {
              slow[a] = slow[b]!
              changed = true
            }
      }
      for (const a of keys.keys())
        for (const b of keys.keys()) if (a !== b) assert.equal(joined[a] !== null && joined[a] === joined[b], slow[a] === slow[b])
    }),
  )
})

test('pictures of an earlier model stay where they were: nothing is tested that was learned from', () => {
  const first = manifest(many('a', 40).concat(many('b', 40)))
  const before = split(first, 1)
  const earlier = new Map(
    (['train', 'validation', 'test'] as const).flatMap(side => before[side].map(row => [first.rows[row]!.pixels, side] as const)),
  )
  const more = manifest([...many('a', 40), ...many('b', 40), ...many('c', 40)])
  const after = splitDataset(more, { seed: 2, dataset: 'd', earlier })
  for (const side of ['train', 'validation', 'test'] as const)
    for (const row of after[side]) {
      const known = earlier.get(more.rows[row]!.pixels)
      if (known) assert.equal(known, side)
    }
  const fresh = (rows: readonly number[]) => rows.filter(row => more.rows[row]!.labels[0] === 'c').length
  assert.deepEqual([fresh(after.train), fresh(after.validation), fresh(after.test)], [28, 6, 6])
  assert.match(after.notes.join(' '), /80 pictures of the earlier model stay/)
  assert.match(splitDataset(first, { seed: 9, dataset: 'd', earlier }).notes[0]!, /that of the earlier model/)
})

test('a copy of a learned picture under another name is not tested on, whatever folder it lies in; an unknown past is said aloud', () => {
  const rows = manifest([...many('a', 9), ...many('b', 9)])
  const learned = rows.rows[3]!.pixels
  const own = { ...rows, rows: rows.rows.map((row, i) => ({ ...row, side: i % 3 === 0 ? ('test' as const) : ('train' as const) })) }
  const made = splitDataset(own, { seed: 1, dataset: 'd', earlier: new Map([[learned, 'train']]) })
  assert.ok(made.train.includes(3))
  assert.match(splitDataset(rows, { seed: 1, dataset: 'd', earlier: null }).notes.join(' '), /not known here/)
})

test('groups that were found (copies, scenes) never sit on two sides, whatever the manifest says of groups and folders', () => {
  const found = fc.array(fc.array(fc.nat(119), { minLength: 2, maxLength: 6 }), { maxLength: 12 })
  fc.assert(
    fc.property(fc.oneof(anyManifest, anySided), found, fc.integer(), (data, given, seed) => {
      const groups = given.map(group => [...new Set(group)].filter(row => row < data.rows.length)).filter(group => group.length > 1)
      const made = splitDataset(data, { seed, dataset: 'd', groups })
      const side = (row: number) => sidesOf(made).findIndex(rows => rows.includes(row))
      for (const group of groups) assert.equal(new Set(group.map(side)).size, 1)
      assert.equal(sidesOf(made).flat().length, data.rows.length)
    }),
  )
})

test('a test picture that is an edited copy of a training picture is no test either, and the user is told how many', () => {
  const data = manifest([...many('a', 10, { side: 'train' }), ...many('a', 5, { side: 'test' }), ...many('a', 5, { side: 'validation' })])
  const groups = [
    [2, 11],
    [4, 12, 13],
  ]
  const made = splitDataset(data, { seed: 1, dataset: 'd', groups })
  assert.deepEqual(counts(made), [13, 5, 2])
  assert.match(made.notes.join('\n'), /3 pictures of your validation or test folder are copies/)
})
