import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { disk, examine, node } from '../../src/hardware/doctor.ts'
import { onSmallDisk } from '../storage/small-disk.ts'
import { temporaryFolder } from '../track/homes.ts'

test('this machine gets one sentence a part, and a next step wherever something is wrong', async t => {
  const home = join(temporaryFolder(t), 'not', 'there', 'yet')
  const checks = await examine({ home, cache: home, runtime: '1.2.3' })
  const names = ['processor', 'memory', 'GPU', 'Node', 'runtime', 'home', 'cache', 'temporary']
  assert.deepEqual([...new Set(checks.map(check => check.name))], names)
  for (const { name, status, found, next } of checks) {
    assert.ok(['ok', 'warning', 'problem'].includes(status) && found.length > 0, name)
    assert.ok(status === 'ok' || next, `${name} says what to do`)
  }
  assert.match(checks.find(check => check.name === 'processor')!.found, /\d cores/)
  assert.match(checks.find(check => check.name === 'runtime')!.found, /1\.2\.3/)
})

test('an old Node is a problem', () => {
  assert.equal(node('24.0.0').status, 'ok')
  assert.equal(node('26.1.0').status, 'ok')
  assert.equal(node('22.20.0').status, 'problem')
})

test('a folder is judged by the disk it is or will be on', async t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'there'))
  const elsewhere = 'Set X.'
  const there = await disk('home', join(folder, 'there'), elsewhere)
  const later = await disk('home', join(folder, 'there', 'a', 'b'), elsewhere)
  assert.match(later.found, /a.b, \d+\.\d GB free/)
  assert.equal(later.status, there.status)
})

test('a small disk is worth a warning; one without room for a file, or only for reading, is a problem', async t => {
  const seen = await onSmallDisk(t, new URL('./small-disk-doctor.ts', import.meta.url))
  if (seen) assert.deepEqual(seen, { small: 'warning', crowded: 'problem', readOnly: 'problem' })
})
