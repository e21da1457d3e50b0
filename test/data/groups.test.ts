import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { groupPattern, groupsBy, joinGroups } from '../../src/data/groups.ts'
import { importPictures } from '../../src/data/import.ts'
import type { Failure } from '../../src/failure.ts'
import { pictures, temporary, write } from './folders.ts'

test('a group is called by the first capture group, else by all that matches; what does not match is alone', () => {
  const paths = ['cat/tom__1.jpg', 'cat/tom__2.jpg', 'dog/tom__1.jpg', 'cat/kit.jpg', 'cat/🐈__1.jpg']
  assert.deepEqual(groupsBy(groupPattern('^(.*)__'), paths), ['cat/tom', 'cat/tom', 'dog/tom', null, 'cat/🐈'])
  assert.deepEqual(groupsBy(groupPattern('[a-z]+__'), paths), ['tom__', 'tom__', 'tom__', null, null])
  assert.deepEqual(groupsBy(groupPattern('(x)?tom'), paths), ['tom', 'tom', 'tom', null, null])
  assert.deepEqual(groupsBy(groupPattern('(z*)'), paths), [null, null, null, null, null], 'an empty name is none')
  assert.deepEqual(groupsBy(/(.)__/gy, ['a__', 'a__']), ['a', 'a'], 'no match remembers the one before')
})

test('a pattern that is none is refused with an example', () => {
  for (const text of ['(', '[z-a]', '*', '(?<a>x)(?<a>y)']) {
    assert.throws(
      () => groupPattern(text),
      (error: Failure) => {
        assert.equal(error.code, 'group_pattern_invalid')
        assert.match(error.next, /--group-by/)
        return true
      },
    )
  }
  assert.deepEqual(groupsBy(groupPattern('^(.*)\\-'), ['a-1.jpg']), ['a'], 'what is escaped without need is still a pattern')
})

test('a pattern that would search for ever is stopped in time', () => {
  const hard = [`${'a'.repeat(60)}!`, ...Array.from({ length: 1000 }, (_, index) => `${'a'.repeat(40)}${index}!`)]
  for (const text of ['^(a+)+$', '^(a|aa)+$', '(.*a){20}$']) {
    const started = performance.now()
    assert.throws(() => groupsBy(groupPattern(text), hard, 300), { code: 'group_pattern_slow' }, text)
    assert.ok(performance.now() - started < 3000, text)
  }
})

test('100,000 paths are grouped at once', () => {
  const paths = Array.from({ length: 100_000 }, (_, index) => `class ${index % 1000}/patient-${index % 500}__${index}.jpg`)
  const started = performance.now()
  assert.equal(new Set(groupsBy(groupPattern('(patient-\\d+)__'), paths)).size, 500)
  assert.ok(performance.now() - started < 2000)
})

test('an import with a pattern that is too slow fails before a picture is read', async t => {
  const folder = await write(temporary(t), { ...pictures('cat', 3), ...pictures(`${'a'.repeat(60)}!`, 3, 50) })
  const onProgress = () => assert.fail('a picture was read')
  await assert.rejects(importPictures(folder, { blobs: null, groupBy: /^(a+)+$/, onProgress }), { code: 'group_pattern_slow' })
})

test('pictures that share a key, directly or through others, are one group', () => {
  assert.deepEqual(joinGroups([['a'], ['b'], ['a', 'c'], ['c'], ['d']]), ['a', null, 'a', 'a', null])
  const keys = fc.array(fc.array(fc.nat(12).map(String), { minLength: 1, maxLength: 3 }), { maxLength: 20 })
  fc.assert(
    fc.property(keys, rows => {
      const groups = joinGroups(rows)
      // the slow and plain way: join until nothing changes
      const slow = rows.map((_, index) => index)
      for (let changed = true; changed; ) {
        changed = false
        for (const a of rows.keys())
          for (const b of rows.keys())
            if (slow[a] !== slow[b] && rows[a]!.some(key => rows[b]!.includes(key))) {
              slow[a] = slow[b] = Math.min(slow[a]!, slow[b]!)
              changed = true
            }
      }
      for (const a of rows.keys())
        for (const b of rows.keys()) {
          if (a === b) assert.equal(groups[a] === null, slow.filter(each => each === slow[a]).length === 1)
          else assert.equal(groups[a] !== null && groups[a] === groups[b], slow[a] === slow[b])
        }
    }),
  )
})
