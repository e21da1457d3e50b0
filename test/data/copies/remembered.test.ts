/** A second search for copies: nothing is compared twice, and whatever happened to the cache the answer is that of a first search. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { findCopies } from '../../../src/data/copies/index.ts'
import { fingerprint } from '../../../src/images/fingerprint.ts'
import type { ManifestRow } from '../../../src/sdk/index.ts'
import { temporary } from '../folders.ts'

/** Stripes and waves that resemble each other; every fourth is a lighter copy of the one before. */
const prints = Array.from({ length: 40 }, (_, number) => {
  const [of, light] = number % 4 === 3 ? [number - 1, 1.15] : [number, 1]
  const value = (x: number, y: number) =>
    90 + 50 * Math.sin(x / (3 + (of % 5))) + 40 * Math.cos(y / (2 + (of % 7)) + of) + 20 * Math.sin((x * y) / (40 + of))
  return fingerprint({
    width: 96,
    height: 96,
    data: Uint8Array.from({ length: 96 * 96 * 3 }, (_, at) => Math.min(255, light * value(Math.floor(at / 3) % 96, Math.floor(at / 288)))),
  })
})

/** `asked`: how often a grey copy was wanted, which every comparison wants. */
function searchOf(numbers: readonly number[], cache?: string) {
  const asked = { greys: 0 }
  const rows = numbers.map((number): ManifestRow => {
    const digest = createHash('sha256').update(String(number)).digest('hex')
    const place = { path: `a/${number}x.png`, labels: ['a'], group: null, side: null, width: 96, height: 96, flags: [] }
    return { ...place, content: String(number), pixels: digest }
  })
  const facts = {
    get: (content: string) => ({ fingerprint: prints[Number(content)]! }),
    grey(content: string) {
      asked.greys++
      return prints[Number(content)]!.grey
    },
  }
  const dataset = createHash('sha256').update(JSON.stringify(rows)).digest('hex')
  return { asked, search: { manifest: { rows }, dataset, facts, seed: 1, ...(cache !== undefined && { cache }) } }
}
const all = [...prints.keys()]

test('the same search again compares nothing and gives the same answer; another seed or other pictures are another search', async t => {
  const cache = join(temporary(t), 'copies')
  const first = searchOf(all, cache)
  const copies = await findCopies(first.search)
  assert.ok(copies.samePicture.length >= 8, `${copies.samePicture.length} groups`)
  assert.ok(first.asked.greys >= 20)
  const again = searchOf(all, cache)
  assert.deepEqual(await findCopies(again.search), copies)
  assert.equal(again.asked.greys, 0)
  assert.deepEqual(copies, await findCopies(searchOf(all).search))
  await findCopies({ ...again.search, seed: 2 })
  assert.equal(readdirSync(cache).filter(name => name.endsWith('.json')).length, 2)
})

test('where some pictures went and others came, only those are compared, and the answer is that of a first search', async t => {
  const cache = join(temporary(t), 'copies')
  await findCopies(searchOf(all.slice(0, 36), cache).search)
  const changed = [...all.slice(5, 30), ...all.slice(36)]
  const again = searchOf(changed, cache)
  const cold = searchOf(changed)
  assert.deepEqual(await findCopies(again.search), await findCopies(cold.search))
  assert.ok(again.asked.greys > 0 && again.asked.greys < cold.asked.greys, `${again.asked.greys} of ${cold.asked.greys}`)
})

test('a cache that is torn, damaged or in the way costs time and no answer', async t => {
  const folder = temporary(t)
  const cache = join(folder, 'copies')
  const copies = await findCopies(searchOf(all, cache).search)
  const only = (ending: string) => join(cache, readdirSync(cache).find(name => name.endsWith(ending))!)
  const comparisons = readFileSync(only('.comparisons'))
  const answer = readFileSync(only('.json'), 'utf8')
  const damages: (() => void)[] = [
    () => truncateSync(only('.comparisons'), comparisons.length - 7),
    () => writeFileSync(only('.comparisons'), comparisons.with(comparisons.length - 3, comparisons.at(-3)! ^ 1)),
    () => writeFileSync(only('.comparisons'), Buffer.concat([comparisons, Buffer.from('plinthC1\xff\xff\xff\xff', 'latin1')])),
  ]
  for (const damage of damages) {
    damage()
    writeFileSync(only('.json'), answer.slice(0, -20))
    assert.deepEqual(await findCopies(searchOf(all, cache).search), copies)
  }
  writeFileSync(only('.json'), JSON.stringify({ ...copies, samePicture: 'none' }))
  assert.deepEqual(await findCopies(searchOf(all, cache).search), copies)
  const inTheWay = join(folder, 'file')
  writeFileSync(inTheWay, '')
  assert.deepEqual(await findCopies(searchOf(all, inTheWay).search), copies)
})

test('a search that is stopped remembers what it compared; what nobody asked for in a month goes', async t => {
  const cache = join(temporary(t), 'copies')
  const stop = new AbortController()
  const stopped = searchOf(all, cache).search
  const onProgress = (_done: number, _total: number, what: string) => what === 'look-alikes compared' && stop.abort(new Error('stopped'))
  await assert.rejects(async () => {
    await findCopies({ ...stopped, signal: stop.signal, onProgress })
    stop.signal.throwIfAborted() // where all was compared within one breath
  }, /stopped|aborted/)
  assert.ok(readdirSync(cache).some(name => name.endsWith('.comparisons')))
  writeFileSync(join(cache, 'of another version.json'), '{}')
  const old = new Date(Date.now() - 31 * 24 * 3600 * 1000)
  utimesSync(join(cache, 'of another version.json'), old, old)
  await findCopies(searchOf(all.slice(1), cache).search)
  assert.ok(!readdirSync(cache).includes('of another version.json'))
})
