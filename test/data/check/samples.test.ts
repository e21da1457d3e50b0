/** Two real sets with nothing wrong in their light, their files and their classes. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { judgeQuality } from '../../../src/data/check/quality.ts'
import { findShortcuts } from '../../../src/data/check/shortcuts.ts'
import { openFacts } from '../../../src/data/facts.ts'
import { importPictures } from '../../../src/data/import.ts'
import { sampleArchive, temporary } from '../folders.ts'

test('the samples raise no false alarm: no shortcut, no blur, nothing tiny or odd', async t => {
  const folder = temporary(t)
  const facts = await openFacts(join(folder, 'facts'))
  t.after(() => facts.close())
  for (const name of ['emoji', 'fashion'] as const) {
    const { rows, classes } = await importPictures(sampleArchive(name), { blobs: null, facts })
    const known = rows.map(row => facts.get(row.content)!)
    const { dark, notes, ...lists } = judgeQuality(rows, known)
    assert.deepEqual(lists, { tiny: [], uniform: [], blurred: [], oddShaped: [] }, name)
    // one T-shirt is nearly black, on black
    assert.deepEqual(dark, name === 'fashion' ? ['t-shirt/55350.png'] : [])
    assert.equal(notes.length, name === 'fashion' ? 1 : 0, notes.join())
    assert.deepEqual(findShortcuts({ rows, facts: known, classes, groups: [], seed: 0 }).found, [])
  }
})
