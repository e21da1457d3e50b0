import assert from 'node:assert/strict'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { openVerdictLog } from '../../../src/data/review/log.ts'
import type { ReviewVerdict } from '../../../src/sdk/shapes.ts'
import { child, childHead, temporaryFolder } from '../../track/homes.ts'

const verdict = (path: string): ReviewVerdict => ({
  path,
  pixels: 'ab',
  verdict: 'drop',
  from: ['cat'],
  reason: 'mislabel',
  at: '2026-11-25T10:00:00.000Z',
})

test('what was said stays, in order, and the newest can be taken back until nothing is left', async t => {
  const path = temporaryFolder(t)
  const log = await openVerdictLog({ path }, 'pets')
  await log.give('item-1', [verdict('a'), verdict('b')])
  await log.give(null, [verdict('c')])
  await log.close()
  const again = await openVerdictLog({ path }, 'pets')
  t.after(() => again.close())
  const said = async () => (await again.acts()).map(({ item, verdicts }) => [item, ...verdicts.map(({ path }) => path)])
  assert.deepEqual(await said(), [
    ['item-1', 'a', 'b'],
    [null, 'c'],
  ])
  assert.equal((await again.undo())!.item, null)
  assert.equal((await again.undo())!.item, 'item-1')
  assert.equal(await again.undo(), null)
  assert.deepEqual(await said(), [])
  await again.give(null, [verdict('d')])
  assert.deepEqual(await said(), [[null, 'd']])
})

test('killed at any moment, no verdict that was acknowledged is lost, and the review goes on', async t => {
  const path = temporaryFolder(t)
  const program = `${childHead({ openVerdictLog: 'data/review/log.ts' })}
    const log = await openVerdictLog(home, 'pets')
    for (let n = 0; ; n++) {
      const verdict = { path: 'x'.repeat(3000) + n, pixels: 'ab', verdict: 'keep', from: ['cat'], reason: 'copy', at: new Date().toISOString() }
      say((await log.give(null, [verdict])).id)
    }`
  const acknowledged: string[] = []
  const kills = process.env['PLINTH_TEST'] === 'long' ? 100 : 4
  for (let kill = 0; kill < kills; kill++) {
    const writer = child(program, [path])
    let more = 3 + kill
    for await (const id of writer.lines) {
      acknowledged.push(id as string)
      if (--more === 0) writer.process.kill('SIGKILL')
    }
    assert.equal(await writer.ended, 'SIGKILL')
    if (kill === 0) appendFileSync(join(path, 'reviews/pets.jsonl'), '{"id":"torn","item":null,"verd') // as half a write leaves it
    const log = await openVerdictLog({ path }, 'pets')
    const there = (await log.acts()).map(({ id }) => id)
    assert.deepEqual(
      acknowledged.filter(id => !there.includes(id)),
      [],
    )
    assert.ok(!there.includes('torn'))
    acknowledged.push((await log.give('after the kill', [verdict('a')])).id)
    await log.close()
  }
})

test('two processes at once lose nothing of each other, and each sees what the other said', async t => {
  const path = temporaryFolder(t)
  const program = `${childHead({ openVerdictLog: 'data/review/log.ts' })}
    const log = await openVerdictLog(home, 'pets')
    for (let n = 0; n < 40; n++) {
      const verdict = { path: process.argv[2] + n, pixels: 'ab', verdict: 'keep', from: ['cat'], reason: 'copy', at: new Date().toISOString() }
      await log.give(null, [verdict])
      if (n % 10 === 9) await log.undo()
    }
    say((await log.acts()).length)
    process.exit()`
  const mine = await openVerdictLog({ path }, 'pets')
  t.after(() => mine.close())
  const writers = ['a', 'b'].map(name => child(program, [path, name]))
  for (const writer of writers) assert.equal(await writer.ended, 0)
  const acts = await mine.acts()
  assert.equal(acts.length, 72, 'of 80 eight were taken back, whoever gave them')
  assert.equal(new Set(acts.map(({ id }) => id)).size, 72)
})

test('a file that somebody else wrote into is named, and a name that is a path is none', async t => {
  const path = temporaryFolder(t)
  await (await openVerdictLog({ path }, 'pets')).close()
  const file = join(path, 'reviews/pets.jsonl')
  writeFileSync(file, '{"hello":"world"}\n')
  await assert.rejects(openVerdictLog({ path }, 'pets'), { code: 'home_damaged', details: { path: file } })
  assert.equal(readFileSync(file, 'utf8'), '{"hello":"world"}\n')
  await assert.rejects(openVerdictLog({ path }, '../pets'), { code: 'name_invalid' })
})
