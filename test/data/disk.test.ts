import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { fromRgb, scene } from '../images/make.ts'
import { onSmallDisk } from '../storage/small-disk.ts'
import { pictures, temporary, write } from './folders.ts'

test('a full disk stops an import, a sample and a version with its own code, and nothing half stays behind', async t => {
  const large = await fromRgb(scene(300, 300), 300, 300).png().toBuffer()
  const photos = await write(join(temporary(t), 'photos'), { ...pictures('cat', 3), ...pictures('dog', 3, 100), 'cat/large.png': large })
  const said = await onSmallDisk(t, new URL('./full-disk.ts', import.meta.url), [photos], '16m')
  if (said === null) return
  assert.deepEqual(said, {
    before: 'fine',
    full: { import: 'disk_full', sample: 'disk_full', version: 'disk_full' },
    after: { import: 'fine', sample: 'fine', version: 'fine' },
    versions: ['1.json', '2.json'],
  })
})
