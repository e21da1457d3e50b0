import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { errorsPage } from '../../scripts/error-docs.ts'
import { Failure, type FailureCode, failures } from '../../src/failure.ts'

const codes = Object.keys(failures) as FailureCode[]

test('docs/errors.md says what src/failure.ts says', () => {
  const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  assert.ok(page === errorsPage(), 'docs/errors.md is not what src/failure.ts says: run npm run docs and commit it')
  for (const code of codes) assert.equal(page.split(`\n| \`${code}\` |`).length, 2, `${code} stands there once`)
})

test('every failure says what happened and what to do, in sentences', () => {
  for (const code of codes) {
    const [status, message, next] = failures[code]
    assert.match(code, /^[a-z][a-z0-9_]*$/)
    assert.ok(status >= 400 && status < 600, `${code}: ${status}`)
    assert.match(message, /^"?[A-Z{]/, code)
    assert.match(next, /^[A-Z{]/, code)
    assert.match(next, /[.)}]$/, `${code}: "${next}" ends like a sentence`)
  }
})

test('every failure is thrown somewhere', () => {
  const sources = globSync('src/**/*.ts', { cwd: new URL('../..', import.meta.url) })
    .filter(file => !file.endsWith('failure.ts'))
    .map(file => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8'))
    .join('\n')
  assert.deepEqual(
    codes.filter(code => !new RegExp(`['"]${code}['"]`).test(sources)),
    [],
  )
})

test('braces are filled from the details, and what is filled in is not read again', () => {
  const failure = new Failure('usage', { problem: 'say {command}', command: 'train' })
  assert.equal(failure.message, 'say {command}')
  assert.equal(failure.next, 'Run plinth train --help.')
  assert.deepEqual(JSON.parse(JSON.stringify({ error: failure })), {
    error: { code: 'usage', message: failure.message, next: failure.next },
  })
})

test('a failure that lacks what its text needs does not compile, and one from another process arrives as it was', () => {
  // @ts-expect-error the text of this code wants the loss as well
  assert.match(new Failure('loss_not_finite', { step: 3 }).message, /\{loss\}/)
  const made = new Failure('loss_not_finite', { loss: 'NaN', step: 3 })
  const { code, details } = made
  const received = Failure.received(JSON.parse(JSON.stringify({ code, details })))
  assert.deepEqual(received.toJSON(), made.toJSON())
  assert.equal(received.status, made.status)
})
