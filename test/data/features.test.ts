/** Features of a dataset that resembles another one: what is there is taken, what is new is computed, and nothing differs from computing all of it. */
import assert from 'node:assert/strict'
import { readdirSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { forgetOldFeatures, preparePictures } from '../../src/data/features.ts'
import { sha256 } from '../../src/data/source.ts'
import { encodePng } from '../../src/images/encode.ts'
import { backbone } from '../../src/models/catalogue.ts'
import { scene } from '../images/make.ts'
import { temporary } from './folders.ts'

const network = backbone('efficientnet-lite0')
const weights = await network.loadWeights()
const files = new Map<string, Uint8Array>()
for (let seed = 1; seed <= 40; seed++) {
  const bytes = await encodePng({ width: 48, height: 40, data: scene(48, 40, seed) })
  files.set(sha256(bytes), bytes)
}
const contents = [...files.keys()]

async function prepare(folder: string, dataset: string, rows: readonly string[], stopRequested?: () => boolean) {
  const read: string[] = []
  const blob = async (content: string) => {
    read.push(content)
    return files.get(content)!
  }
  const what = { folder, dataset, rows: rows.map(content => ({ content })), blob, backbone: network, weights, side: 32, threads: 1 }
  const prepared = await preparePictures({ ...what, ...(stopRequested && { stopRequested }) })
  const pictures = rows.slice(0, prepared.features.length / prepared.width).map((_, row) => {
    const square = new Uint8Array(3 * 32 * 32)
    prepared.read(row, square)
    return square
  })
  prepared.close()
  return { features: prepared.features, pictures, computed: prepared.computed.rows, read }
}

test('a dataset that changed computes what is new, wherever it stands, and has the features it would have had', async t => {
  const folder = temporary(t)
  const before = await prepare(folder, 'birds@1', contents.slice(0, 30))
  assert.equal(before.computed, 30)
  // others went, others came between them, one is there twice
  const rows = [...contents.slice(30, 33), ...contents.slice(10, 20), contents[38]!, ...contents.slice(3, 8).reverse(), contents[31]!]
  const after = await prepare(folder, 'birds@2', rows)
  assert.deepEqual(after.read.sort(), [...contents.slice(30, 33), contents[38]!].sort())
  assert.equal(after.computed, 4)
  const alone = await prepare(join(folder, 'elsewhere'), 'birds@2', rows)
  assert.equal(alone.computed, 4 + 15)
  assert.deepEqual(after.features, alone.features)
  assert.deepEqual(after.pictures, alone.pictures)
  assert.equal((await prepare(folder, 'birds@2', rows)).read.length, 0)
})

test('what was stopped goes on, and lends what it has so far; what nobody opened for a month goes', async t => {
  const folder = temporary(t)
  let asked = 0
  const half = await prepare(folder, 'birds@1', contents, () => asked++ === 20)
  assert.equal(half.pictures.length, 20)
  const other = await prepare(folder, 'cats@1', contents.slice(18, 24))
  assert.deepEqual(other.read.sort(), contents.slice(20, 24).sort())
  const whole = await prepare(folder, 'birds@1', contents)
  assert.deepEqual(whole.read.sort(), contents.slice(24).sort())
  assert.deepEqual(whole.features, (await prepare(join(folder, 'elsewhere'), 'birds@1', contents)).features)

  const [first] = readdirSync(folder).filter(name => statSync(join(folder, name)).isDirectory() && name !== 'elsewhere')
  const old = new Date(Date.now() - 31 * 24 * 3600 * 1000)
  utimesSync(join(folder, first!, 'owner'), old, old)
  await forgetOldFeatures(folder)
  assert.ok(!readdirSync(folder).some(name => name.startsWith(first!)))
  assert.equal(readdirSync(folder).filter(name => name !== 'elsewhere').length, 1)
})
