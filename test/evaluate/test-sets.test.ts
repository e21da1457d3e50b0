import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import { type Home, listTestSets, testSetScores } from '../../src/data/test-sets.ts'
import { saveDataset } from '../../src/data/versions.ts'
import { randomFrom } from '../../src/engine/random.ts'
import { type Answer, askAboutModel, askOnTestSets, askWhichIsBetter, makeTestSet } from '../../src/evaluate/ask.ts'
import { expectedMaximum, wilson } from '../../src/evaluate/intervals.ts'
import { writeComparisonReport, writeEvaluationReport } from '../../src/evaluate/pages.ts'
import { flattery, seenSentence, wear } from '../../src/evaluate/test-sets.ts'
import { encodePng } from '../../src/images/encode.ts'
import { registerModel } from '../../src/models/registry.ts'
import type { TestSet } from '../../src/sdk/index.ts'
import { createRun } from '../../src/track/runs.ts'
import { COLOURS, plain, type TinyOptions, tinyArtefact } from '../models/tiny-model.ts'
import { newRun, temporaryFolder, temporaryHome } from '../track/homes.ts'

// what is known of pictures is kept in the cache: not in this user's
const cache = mkdtempSync(join(tmpdir(), 'plinth-cache-'))
process.env['PLINTH_CACHE'] = cache
after(() => rmSync(cache, { recursive: true, force: true }))

const asking = { threads: 1, signal: new AbortController().signal, onProgress: () => {} }
const reading = { signal: asking.signal, onProgress: () => {} }

/** A folder per colour; no two pictures are equal. `first`: pictures of other numbers are other pictures. */
async function colours(t: TestContext, perClass: number, first = 0): Promise<string> {
  const folder = temporaryFolder(t)
  for (const [k, label] of COLOURS.entries()) {
    mkdirSync(join(folder, label))
    for (let i = first; i < first + perClass; i++) {
      const rgb = [0, 0, 0].map((_, channel) => (channel === k ? 180 + (i % 70) : Math.floor(i / 70))) as [number, number, number]
      writeFileSync(join(folder, label, `${i}.png`), await encodePng(plain(12, 12, rgb)))
    }
  }
  return folder
}

async function registered(t: TestContext, home: Home, options: TinyOptions = {}, change: object = {}) {
  const file = join(temporaryFolder(t), 'model.onnx')
  writeFileSync(file, tinyArtefact(options))
  return registerModel(home, { name: 'tiny', file, labels: options.labels ?? COLOURS, run: null, dataset: null, accuracy: null, ...change })
}

test('every model is scored on every test set once; sets of other classes are passed over, a new version is a new question', async t => {
  const home = await temporaryHome(t)
  const good = await registered(t, home)
  const other = await registered(t, home, { labels: ['x', 'y', 'z'] })
  assert.deepEqual(await askOnTestSets(home, 'tiny@1', asking), [], 'without test sets nothing is to do')
  await makeTestSet(home, 'day', await colours(t, 5), reading)
  await makeTestSet(home, 'night', await colours(t, 4, 40), reading)
  const first = await askOnTestSets(home, 'tiny@1', asking)
  assert.deepEqual(
    first.map(each => [each.set, each.outcome, each.outcome === 'scored' && each.score.accuracy]),
    [
      ['day', 'scored', 1],
      ['night', 'scored', 1],
    ],
  )
  const again = await askOnTestSets(home, 'tiny@1', asking)
  assert.deepEqual(
    again.map(each => each.outcome),
    ['known', 'known'],
  )
  const strange = await askOnTestSets(home, 'tiny@2', asking)
  assert.deepEqual(
    strange.map(each => [each.outcome, 'strangers' in each && each.strangers.toSorted()]),
    [
      ['other classes', ['blue', 'green', 'red']],
      ['other classes', ['blue', 'green', 'red']],
    ],
  )
  assert.deepEqual(
    (await listTestSets(home)).map(({ looks, models }) => [looks, models]),
    [
      [1, 1],
      [1, 1],
    ],
  )
  await makeTestSet(home, 'day', await colours(t, 6), reading)
  assert.deepEqual(
    (await askOnTestSets(home, good.path, asking)).map(each => each.outcome),
    ['scored', 'known'],
  )
  assert.equal((await testSetScores(home, { model: good.digest })).length, 3)
  assert.equal((await testSetScores(home, { model: other.digest })).length, 0)
})

test('a scoring that is stopped between two sets keeps the first and goes on with the second', async t => {
  const home = await temporaryHome(t)
  await registered(t, home)
  await makeTestSet(home, 'a', await colours(t, 3), reading)
  await makeTestSet(home, 'b', await colours(t, 3, 30), reading)
  const controller = new AbortController()
  const stopping = askOnTestSets(home, 'tiny', {
    ...asking,
    signal: controller.signal,
    onProgress: () => controller.abort(new Error('stop')),
  })
  await assert.rejects(stopping, /stop/)
  assert.deepEqual(
    (await testSetScores(home)).map(({ set }) => set.name),
    ['a'],
  )
  assert.deepEqual(
    (await askOnTestSets(home, 'tiny', asking)).map(each => each.outcome),
    ['known', 'scored'],
  )
})

test('the same set evaluated twenty times: the answer and the page say so', async t => {
  const home = await temporaryHome(t)
  await registered(t, home)
  await makeTestSet(home, 'site-b', await colours(t, 5), reading)
  let answer: Answer | null = null
  for (let i = 0; i < 20; i++) answer = await askAboutModel(home, 'tiny', { name: 'site-b' }, asking)
  assert.deepEqual([answer!.testSet!.looks, answer!.testSet!.models, answer!.set], [20, 1, 'site-b@1'])
  assert.match(
    wear(answer!.testSet!, answer!.evaluation)!,
    /looked at 20 times, for one model; asking again about the same model adds no luck/,
  )
  const page = join(temporaryFolder(t), 'page.html')
  await writeEvaluationReport(home, answer!, page)
  assert.match(readFileSync(page, 'utf8'), /The test set site-b has been looked at 20 times/)
})

test('twenty models on one set: choosing the best is said to flatter, and the set loses the last word', async t => {
  const home = await temporaryHome(t)
  await makeTestSet(home, 'site-b', await colours(t, 10), reading)
  for (let i = 0; i < 20; i++) await registered(t, home, { temperature: 1 + i / 100 })
  for (let version = 1; version <= 20; version++) await askOnTestSets(home, `tiny@${version}`, asking)
  const [set] = await listTestSets(home)
  assert.deepEqual([set!.looks, set!.models], [20, 20])
  const [score] = await testSetScores(home)
  assert.match(
    wear(set!, score!)!,
    /20 times, for 20 models: choosing the best of 20 by it flatters that one by up to 5\.\d points.*too good to be the last word/,
  )
  const { comparison, manifest, testSet } = await askWhichIsBetter(home, ['tiny@1', 'tiny@2'], { name: 'site-b' }, asking)
  assert.deepEqual([testSet!.looks, testSet!.models, comparison.set], [22, 20, 'site-b@1'])
  const page = join(temporaryFolder(t), 'compare.html')
  await writeComparisonReport(home, { comparison, manifest, notes: [wear(testSet!, null)!] }, page)
  assert.match(readFileSync(page, 'utf8'), /looked at 22 times, for 20 models/)
})

test('the luck of the luckiest of k equally good models is what the sentence says', () => {
  const random = randomFrom(11)
  for (const k of [2, 5, 20]) {
    const [n, accuracy, draws] = [200, 0.8, 1500]
    let best = 0
    for (let draw = 0; draw < draws; draw++) {
      let most = 0
      for (let model = 0; model < k; model++) {
        let right = 0
        for (let i = 0; i < n; i++) right += Number(random() < accuracy)
        most = Math.max(most, right / n)
      }
      best += most / draws
    }
    const [low, high] = wilson(n * accuracy, n)
    const said = flattery(k, { low, high })
    assert.ok(Math.abs(best - accuracy - said) < 0.1 * said, `${k} models: ${best - accuracy}, said ${said}`)
  }
  // exact values from tables of order statistics
  for (const [k, exact] of [
    [2, 0.5642],
    [5, 1.163],
    [10, 1.5388],
    [100, 2.5076],
  ] as const)
    assert.ok(Math.abs(expectedMaximum(k) - exact) < 0.05 * exact, `${k}: ${expectedMaximum(k)}`)
  assert.equal(flattery(1, { low: 0, high: 1 }), 0)
  const worn = (looks: number, models: number) => wear({ name: 's', looks, models } as TestSet, { low: 0.7, high: 0.8 })
  assert.equal(worn(0, 0), null)
  assert.match(worn(1, 1)!, /looked at once, for one model\.$/)
  assert.match(worn(3, 3)!, /flatters that one by up to 2\.\d points\.$/)
  assert.match(worn(4, 4)!, /last word/)
})

test('pictures that the model learned from are counted, and the score is given without them', async t => {
  const home = await temporaryHome(t)
  const folder = await colours(t, 8)
  const { reference, manifest } = await makeTestSet(home, 'all', folder, reading)
  const data = await saveDataset(home, 'trained-on', manifest, 'dataset')
  const { run } = await createRun(home, newRun({ dataset: data }))
  const rows = [...manifest.rows.keys()]
  const split = { schema: 1, dataset: reference.digest, seed: 0, ratios: [0.5, 0.25, 0.25], notes: [] }
  const sides = {
    train: rows.filter(row => row % 4 < 2),
    validation: rows.filter(row => row % 4 === 2),
    test: rows.filter(row => row % 4 === 3),
  }
  writeFileSync(join(home.path, 'runs', run.run, 'split.json'), JSON.stringify({ ...split, ...sides }))
  await registered(t, home, {}, { run: run.run, dataset: data })
  for (const source of [{ path: folder }, { name: 'all' }, { name: 'trained-on' }]) {
    const { seen, evaluation } = await askAboutModel(home, 'tiny', source, asking)
    assert.deepEqual([seen!.trained, seen!.chosenOn, seen!.without!.n, evaluation.n], [12, 6, 6, 24])
    assert.match(
      seenSentence(seen, 24, 'tiny@1')[0]!,
      /knows some of these 24 pictures: 12 were learned from, 6 were used to choose it\..*On the other 6/,
    )
  }
  const fresh = await askAboutModel(home, 'tiny', { path: await colours(t, 3, 60) }, asking)
  assert.deepEqual([fresh.seen, seenSentence(fresh.seen, 9, 'tiny@1')], [{ ...fresh.seen, trained: 0, chosenOn: 0, copies: 0 }, []])
  const stranger = await registered(t, home, { temperature: 2 })
  assert.equal((await askAboutModel(home, `tiny@${stranger.version}`, { path: folder }, asking)).seen, null)
})
