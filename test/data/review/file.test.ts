import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseVerdicts } from '../../../src/data/review/file.ts'
import { Failure } from '../../../src/failure.ts'
import { ReviewVerdict } from '../../../src/sdk/shapes.ts'
import { row } from './reviews.ts'

const rows = [row('cat/1.png', '11', 'cat'), row('cat/naïve “2”.png', '22', 'cat')]
const now = new Date('2026-11-25T10:00:00Z')
const parse = (...lines: (object | string)[]) =>
  parseVerdicts(lines.map(line => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'), { rows }, now)

test('lines are completed from the dataset; blank lines and a byte order mark do not matter', () => {
  const pixels = rows.map(row => row.pixels)
  const rest = { from: ['cat'], reason: 'other', at: '2026-11-25T10:00:00.000Z' }
  const verdicts = parse('\ufeff{"path":"cat/1.png","verdict":"relabel","to":"dog"}\r', '', {
    path: 'cat/naïve “2”.png',
    verdict: 'drop',
    reason: 'copy',
  })
  assert.deepEqual(verdicts, [
    { path: 'cat/1.png', pixels: pixels[0], verdict: 'relabel', to: ['dog'], ...rest },
    { path: 'cat/naïve “2”.png', pixels: pixels[1], verdict: 'drop', ...rest, reason: 'copy' },
  ])
  assert.deepEqual(parse(...verdicts), verdicts, 'what a manifest keeps can be given again')
})

test('a line that cannot be used is named by its number, and none is taken', () => {
  const good = { path: 'cat/1.png', verdict: 'keep' }
  const wrong: [object | string, RegExp][] = [
    ['{"path":"cat/1.png"', /not JSON/],
    ['null', /object/],
    [{ path: 'cat/9.png', verdict: 'keep' }, /has no picture "cat\/9\.png"/],
    [{ path: 'cat/1.png', verdict: 'delete' }, /verdict: /],
    [{ path: 'cat/1.png', verdict: 'relabel' }, /"to" goes with "relabel"/],
    [{ path: 'cat/1.png', verdict: 'keep', to: ['dog'] }, /"to" goes with "relabel"/],
    [{ path: 'cat/1.png', verdict: 'relabel', to: ['a/b'] }, /a folder could not be called so/],
    [{ path: 'cat/1.png', verdict: 'relabel', to: [] }, /to/],
    [{ path: 'cat/1.png', verdict: 'relabel', to: 'dog', reason: 'copy' }, /no answer to the reason "copy"/],
    [{ path: 'cat/1.png', verdict: 'keep', pixels: 'ff' }, /another one by now/],
    [{ path: 'cat/1.png', verdict: 'keep', colour: 'red' }, /colour/],
    [{ path: 'cat/1.png', verdict: 'keep', at: 'yesterday' }, /at: /],
  ]
  for (const [line, problem] of wrong)
    assert.throws(
      () => parse(good, '', line, good),
      (error: Failure) => error.code === 'verdicts_invalid' && error.details['line'] === 3 && problem.test(error.message),
      JSON.stringify(line),
    )
  assert.throws(() => parse('', ' '), { code: 'verdicts_invalid' })
})

test('whatever is in the file, it is verdicts or a refusal', () => {
  const anyLine = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record(
        {
          path: fc.constantFrom('cat/1.png', '__proto__', ''),
          verdict: fc.constantFrom('keep', 'relabel', 'drop', 1),
          to: fc.anything(),
          reason: fc.anything(),
        },
        { requiredKeys: [] },
      )
      .map(value => JSON.stringify(value) ?? ''),
  )
  fc.assert(
    fc.property(fc.array(anyLine, { maxLength: 4 }), lines => {
      try {
        for (const verdict of parse(...lines)) ReviewVerdict.parse(verdict)
      } catch (error) {
        assert.ok(error instanceof Failure && error.code === 'verdicts_invalid', String(error))
      }
    }),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 20_000 : 500 },
  )
})
