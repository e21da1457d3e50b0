import assert from 'node:assert/strict'
import { join, normalize, posix, win32 } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { checkName, parseReference } from '../../src/db/names.ts'

test('names that would be paths, options, versions or devices are refused', () => {
  const hostile = [
    '',
    '.',
    '..',
    '../x',
    'a/b',
    'a\\b',
    '/etc',
    'C:',
    '-rf',
    '.hidden',
    'a@2',
    'a b',
    'a\0',
    'a\n',
    'ä',
    'dot.',
    'NUL',
    'con.txt',
    'lpt1',
  ]
  const long = 'a'.repeat(101)
  for (const name of [...hostile, long, 'x.plinth-part-000000000000'])
    assert.throws(() => checkName('model', name), { code: 'name_invalid' }, JSON.stringify(name))
  for (const name of ['a', 'birds', 'Birds-2026_v1.2', '0', 'a'.repeat(100), 'console']) assert.equal(checkName('model', name), name)
})

test('whatever passes is one folder inside its parent, on every system, and can be named with a version', () => {
  const anything = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.stringMatching(/^[A-Za-z0-9._@/\\-]{0,110}$/))
  fc.assert(
    fc.property(anything, fc.integer({ min: 1, max: 999_999_999 }), (name, version) => {
      try {
        checkName('dataset', name)
      } catch {
        return
      }
      for (const system of [posix, win32]) assert.equal(system.basename(system.join('home', name)), name)
      assert.equal(normalize(join('home', name, '..')), 'home')
      assert.deepEqual(parseReference('dataset', `${name}@${version}`), { name, version })
      assert.deepEqual(parseReference('dataset', name), { name, version: null })
    }),
    { numRuns: 2000 },
  )
})

test('a version is a whole number from 1', () => {
  for (const version of ['', '0', '-1', '1.5', '01', '1e3', 'latest', '9'.repeat(10), ' 1'])
    assert.throws(() => parseReference('model', `birds@${version}`), { code: 'version_invalid' }, version)
  assert.throws(() => parseReference('model', '@1'), { code: 'name_invalid' })
})
