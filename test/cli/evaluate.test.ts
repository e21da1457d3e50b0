/** `plinth evaluate`, `compare` and `testset` as their users run them, on small models that tell colours. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { encodePng } from '../../src/images/encode.ts'
import { registerModel } from '../../src/models/registry.ts'
import { Comparison, Evaluation, Mislabels, TestSet, TestSetScore } from '../../src/sdk/shapes.ts'
import { openHome } from '../../src/track/home.ts'
import { COLOURS, finishedArtefact, plain } from '../models/tiny-model.ts'
import { temporaryFolder } from '../track/homes.ts'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

/** A home with two models, `tiny@1` right and `tiny@2` mixing up red and green, and a folder of pictures: `site/red/attic/3.png`. */
async function prepared(t: TestContext) {
  const folder = temporaryFolder(t)
  for (const [k, label] of COLOURS.entries())
    for (let i = 0; i < 12; i++) {
      const path = join(folder, 'site', label, i < 6 ? 'attic' : 'cellar')
      mkdirSync(path, { recursive: true })
      const rgb = [0, 0, 0].map((_, channel) => (channel === k ? 180 + i : 5)) as [number, number, number]
      writeFileSync(join(path, `${i}.png`), await encodePng(plain(12, 12, rgb)))
    }
  const home = await openHome(join(folder, 'home'))
  for (const labels of [COLOURS, ['green', 'red', 'blue']]) {
    const file = join(folder, 'model.onnx')
    writeFileSync(file, await finishedArtefact({ labels }))
    await registerModel(home, { name: 'tiny', file, labels, run: null, dataset: null, accuracy: null })
  }
  await home.close()
  const env = { ...process.env, PLINTH_HOME: join(folder, 'home'), PLINTH_CACHE: join(folder, 'cache'), NO_COLOR: '1' }
  const plinth = (...words: string[]) => spawnSync(process.execPath, [main, ...words], { encoding: 'utf8', env, cwd: folder })
  return {
    folder,
    plinth,
    /** What it printed as text, and its JSON. */
    ask(...words: string[]) {
      const { stdout, stderr, status } = plinth(...words, '--json')
      return { json: JSON.parse(stdout.trim().split('\n').at(-1)!), text: stderr, status }
    },
  }
}

test('from a folder to a comparison, a test set, its scores and its wear', async t => {
  const { folder, ask, plinth } = await prepared(t)
  const evaluated = ask('evaluate', 'tiny@2', './site', '--report', 'page.html')
  assert.equal(evaluated.status, 0, evaluated.text)
  const evaluation = Evaluation.parse(evaluated.json.test)
  assert.deepEqual([evaluation.n, evaluation.accuracy, evaluated.json.seen, evaluated.json.testSet], [36, 1 / 3, null, null])
  assert.deepEqual(Object.keys(evaluated.json), [
    'model',
    'images',
    'unreadable',
    'test',
    'seen',
    'unknown',
    'mislabels',
    'testSet',
    'report',
  ])
  assert.deepEqual([evaluated.json.unknown, Mislabels.parse(evaluated.json.mislabels).n], [null, 36])
  assert.equal(evaluation.ece, evaluation.calibration.expectedCalibrationErrorAfter)
  assert.deepEqual(evaluation.slices!.map(({ by, value }) => `${by} ${value}`).toSorted(), ['folder attic', 'folder cellar'])
  assert.match(readFileSync(join(folder, 'page.html'), 'utf8'), /<h1>tiny@2 on site<\/h1>/)

  const added = ask('testset', 'add', 'site-b', './site')
  assert.deepEqual([added.status, added.json.testSet.version, added.json.testSet.images], [0, 1, 36])
  const first = ask('testset', 'score')
  assert.deepEqual(
    first.json.scores.map((each: { outcome: string }) => each.outcome),
    ['scored', 'scored'],
  )
  assert.deepEqual(
    ask('testset', 'score', 'tiny@1').json.scores.map((each: { outcome: string }) => each.outcome),
    ['known'],
  )

  const compared = ask('compare', 'tiny@1', 'tiny@2', 'site-b', '--report', 'compare.html')
  assert.equal(compared.status, 0, compared.text)
  const comparison = Comparison.parse(compared.json)
  assert.deepEqual([comparison.set, comparison.verdict, comparison.onlyA], ['site-b@1', 'A is better', 24])
  assert.match(compared.text, /^tiny@1 is better: /m)
  assert.ok(existsSync(join(folder, 'compare.html')))

  const shown = ask('testset', 'show', 'site-b')
  assert.deepEqual([TestSet.parse(shown.json.testSet).looks, shown.json.testSet.models], [4, 2])
  assert.deepEqual(
    shown.json.scores.map((score: unknown) => TestSetScore.parse(score).accuracy),
    [1, 1 / 3],
  )
  assert.match(shown.text, /tiny@1 .*100\.0 %/)
  assert.match(shown.text, /looked at 4 times, for 2 models: choosing the best of 2/)
  assert.match(ask('testset', 'list').text, /site-b@1 +36 +3 +4 +2/)
  assert.match(ask('models', 'show', 'tiny@1').text, /test set +site-b@1 +100\.0 %/)

  const trained = ask('train', 'site-b', '--epochs', '0')
  assert.deepEqual([trained.status, trained.json.error.code], [1, 'test_set_not_for_training'])
  assert.equal(ask('data', 'import', './site', '--name', 'site-b').json.error.code, 'dataset_kind')
  assert.deepEqual(ask('testset', 'remove', 'site-b').json, { removed: false, name: 'site-b', versions: [1] })
  assert.equal(ask('testset', 'remove', 'site-b', '--yes').json.removed, true)
  assert.equal(plinth('testset', 'show', 'site-b').status, 1)
})

test('what cannot be asked is refused with what to do', async t => {
  const { folder, ask } = await prepared(t)
  mkdirSync(join(folder, 'empty'))
  const codeOf = (...words: string[]) => ask(...words).json.error?.code
  assert.equal(codeOf('evaluate', 'tiny', 'nothing'), 'dataset_not_found')
  assert.equal(codeOf('evaluate', 'nobody', './site'), 'model_not_found')
  assert.equal(codeOf('compare', 'tiny@1', 'tiny@9', './site'), 'model_not_found')
  assert.equal(codeOf('testset', 'add', 'a/b', './site'), 'name_invalid')
  assert.equal(codeOf('testset', 'add', 'site-b', './empty'), 'no_pictures')
  assert.equal(codeOf('testset', 'show', 'site-b'), 'test_set_not_found')
  assert.equal(codeOf('compare', 'tiny@1'), 'usage')
  mkdirSync(join(folder, 'other', 'pink'), { recursive: true })
  writeFileSync(join(folder, 'other', 'pink', 'x.png'), await encodePng(plain(9, 9, [255, 180, 200])))
  assert.equal(codeOf('evaluate', 'tiny', './other'), 'classes_unknown')
})
