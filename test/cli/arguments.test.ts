import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type OptionSpecs, parseArguments, parseDuration, suggestion, takeCommonFlags } from '../../src/cli/arguments.ts'
import { Failure } from '../../src/failure.ts'

const options = {
  seed: { type: 'integer', minimum: 0, maximum: 99, summary: '' },
  rate: { type: 'number', summary: '' },
  budget: { type: 'duration', default: 60, summary: '' },
  'image-size': { type: 'integer', summary: '' },
  kind: { type: 'string', choices: ['cat', 'dog'], summary: '' },
  name: { type: 'string', env: 'NAME', summary: '' },
  serve: { type: 'boolean', default: true, summary: '' },
  force: { type: 'boolean', env: 'FORCE', summary: '' },
} as const satisfies OptionSpecs
const place = { model: { summary: 'a model' }, files: { summary: 'files', many: true, optional: true } } as const

const parse = (words: string[], environment = {}) => parseArguments('try', place, options, words, environment)
const problem = (words: string[], environment = {}) => {
  try {
    parse(words, environment)
  } catch (error) {
    assert.ok(error instanceof Failure && error.code === 'usage', String(error))
    return error.message
  }
  return assert.fail(`${words.join(' ')} was accepted`)
}

test('values of every type, before and behind the arguments, with = and without', () => {
  const values = parse([
    '--seed',
    '3',
    'm',
    '--rate=-1.5e-3',
    'a',
    '--budget',
    '1h30m',
    '--image-size=96',
    '--kind',
    'dog',
    '--no-serve',
    '--force',
    'b',
  ])
  assert.deepEqual(values, {
    model: 'm',
    files: ['a', 'b'],
    seed: 3,
    rate: -0.0015,
    budget: 5400,
    imageSize: 96,
    kind: 'dog',
    name: undefined,
    serve: false,
    force: true,
  })
})

test('defaults, then the environment, then the flag', () => {
  assert.equal(parse(['m']).budget, 60)
  assert.equal(parse(['m'], { NAME: 'from outside' }).name, 'from outside')
  assert.equal(parse(['m', '--name', 'given'], { NAME: 'from outside' }).name, 'given')
  assert.equal(parse(['m'], { FORCE: '1' }).force, true)
  assert.equal(parse(['m'], { FORCE: '0' }).force, false)
  assert.match(problem(['m'], { FORCE: 'perhaps' }), /^FORCE must be 1 or 0/)
})

test('behind -- everything is an argument, and - is one', () => {
  assert.deepEqual(parse(['m', '-', '--', '--seed', '-x']).files, ['-', '--seed', '-x'])
  assert.deepEqual(takeCommonFlags(['a', '--json', '--', '--help']), {
    flags: { json: true, quiet: false, help: false, version: false },
    rest: ['a', '--', '--help'],
  })
})

test('a value that does not fit is refused with what would', () => {
  assert.match(problem(['m', '--seed', '1.5']), /--seed must be a whole number from 0 to 99, not "1.5"/)
  assert.match(problem(['m', '--seed', '-1']), /--seed must be a whole number from 0 to 99, not "-1"/)
  assert.match(problem(['m', '--seed', '0x10']), /not "0x10"/)
  assert.match(problem(['m', '--seed=']), /not ""/)
  assert.match(problem(['m', '--image-size', '1e999']), /whole number/)
  assert.match(problem(['m', '--rate', 'NaN']), /--rate must be a number, not "NaN"/)
  assert.match(problem(['m', '--budget', '2 minutes']), /90s, 2m or 1h30m/)
  assert.match(problem(['m', '--budget', '0']), /--budget must be a time/)
  assert.match(problem(['m', '--kind', 'dgo']), /one of cat, dog, not "dgo"\. Did you mean dog\?/)
  assert.match(problem(['m', '--name', '']), /--name is empty/)
  assert.match(problem(['m', '--force=yes']), /--force takes no value/)
  assert.match(problem(['m', '--seed', '1', '--seed', '2']), /--seed is given twice/)
  assert.match(problem(['m', '--serve', '--no-serve']), /--no-serve is given twice/)
  assert.match(problem(['m', '--no-seed']), /no option --no-seed/)
  assert.match(problem(['m', '--constructor', 'x']), /no option --constructor/)
  assert.match(problem([]), /try needs MODEL: a model/)
  assert.match(problem(['']), /MODEL is empty/)
})

test('durations', () => {
  assert.deepEqual(['90', '90s', '2m', '1h', '1h30m', '1.5h', '1m30s', '0.5m'].map(parseDuration), [90, 90, 120, 3600, 5400, 5400, 90, 30])
  assert.deepEqual(['', '2', 'm', '1d', '30s1m', '-5s', '1 m'].map(parseDuration), [null, 2, null, null, null, null, null])
})

test('a suggestion is near, or there is none', () => {
  assert.equal(suggestion('trian', ['train', 'serve']), ' Did you mean train?')
  assert.equal(suggestion('xyz', ['train', 'serve']), '')
})

test('no words of any kind do anything but give values or a usage failure', () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom('--seed', '--no-serve', '--', '-', '--seed=3', '--name', '3', '__proto__', '--__proto__'),
  )
  fc.assert(
    fc.property(fc.array(word, { maxLength: 8 }), words => {
      try {
        const values = parse(takeCommonFlags(words).rest)
        assert.equal(typeof values['model'], 'string')
        assert.ok(values['seed'] === undefined || Number.isInteger(values['seed']))
      } catch (error) {
        if (!(error instanceof Failure) || error.code !== 'usage') throw error
      }
    }),
  )
})
