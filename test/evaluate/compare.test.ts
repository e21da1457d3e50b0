import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareModels, comparisonVerdicts } from '../../src/evaluate/compare.ts'
import { renderComparisonReport } from '../../src/evaluate/compare-report.ts'
import { evaluateModel } from '../../src/evaluate/evaluate-model.ts'
import { renderComparison } from '../../src/evaluate/index.ts'
import { encodePng } from '../../src/images/encode.ts'
import { type Classifier, openArtefact } from '../../src/models/artefact.ts'
import { Comparison, type Manifest, type Side } from '../../src/sdk/index.ts'
import { COLOURS, plain, type TinyOptions, tinyArtefact } from '../models/tiny-model.ts'

/** Pictures that are plainly one colour; `wrong` of each class carry the next class's label. */
async function colours(perClass: number, wrong: number, { labels = COLOURS, groupOf = (_: number): string | null => null } = {}) {
  const files = new Map<string, Uint8Array>()
  const rows: Manifest['rows'] = []
  for (const [k, label] of labels.entries())
    for (let i = 0; i < perClass; i++) {
      const shown = (i < wrong ? k + 1 : k) % 3
      const rgb = [0, 0, 0].map((_, channel) => (channel === shown ? 200 + (i % 50) : 10 + k)) as [number, number, number]
      const content = `${label} ${i}`
      files.set(content, await encodePng(plain(12, 12, rgb)))
      rows.push({
        path: `${label}/${i}.png`,
        content,
        pixels: `${label} ${i}`,
        labels: [label],
        group: groupOf(rows.length),
        side: null,
        width: 12,
        height: 12,
        flags: [],
      })
    }
  const manifest: Manifest = {
    schema: 1,
    classes: [...labels],
    rows,
    unreadable: [],
    ignored: [],
    exactDuplicates: [],
    conflicts: [],
  }
  return {
    manifest,
    blob: async (content: string) => files.get(content)!,
    signal: new AbortController().signal,
    onProgress: () => {},
  }
}

async function withModels<T>(options: readonly TinyOptions[], work: (models: Classifier[]) => Promise<T>): Promise<T> {
  const models = await Promise.all(options.map(each => openArtefact(tinyArtefact(each), { threads: 1 })))
  try {
    return await work(models)
  } finally {
    await Promise.all(models.map(model => model.close()))
  }
}
const asked = (name: string, classifier: Classifier, learned: ReadonlyMap<string, Side> | null = new Map()) => ({
  name,
  classifier,
  learned,
})
/** Knows the colours, and one that takes red for green and green for red. */
const knows: TinyOptions = {}
const mixesUp: TinyOptions = { labels: ['green', 'red', 'blue'] }

test('a model that is right is better than one that mixes two classes up, and the pictures where they differ are named', async () => {
  await withModels([knows, mixesUp], async ([good, bad]) => {
    const pictures = await colours(12, 0)
    const result = await compareModels(asked('good@2', good!), asked('bad@1', bad!), 'a folder', pictures)
    assert.deepEqual(Comparison.parse(JSON.parse(JSON.stringify(result))), result)
    assert.deepEqual([result.n, result.accuracyA, result.accuracyB, result.onlyA, result.onlyB], [36, 1, 1 / 3, 24, 0])
    assert.equal(result.verdict, 'A is better')
    assert.equal(result.differing.length, 24)
    assert.ok(result.differing.every(({ label, a, b }) => a === label && b !== label))
    assert.ok(result.low > 0.4 && result.high < 0.9 && result.p < 1e-5)
    const turned = await compareModels(asked('bad@1', bad!), asked('good@2', good!), 'a folder', pictures)
    assert.deepEqual([turned.verdict, turned.onlyB, turned.p], ['B is better', 24, result.p])
    assert.match(comparisonVerdicts(result)[0]!, /^good@2 is better: .*Of the 24 pictures that exactly one of them gets right, it gets 24/)
    assert.deepEqual(comparisonVerdicts(result).slice(1), [])
    const text = renderComparison(result)
    assert.match(text, /they differ on 24: 24 right only by good@2, 0 only by bad@1/)
    assert.match(text, /and 14 more/)
    for (const line of text.split('\n')) assert.ok(line.length <= 100, line)
  })
})

test('five against nothing is not told apart and says that pictures are missing; the same model twice agrees with itself', async () => {
  await withModels([knows, knows, mixesUp], async ([one, other, bad]) => {
    const few = await compareModels(asked('a@1', one!), asked('b@1', bad!), 'few', await colours(2, 0))
    assert.deepEqual([few.onlyA, few.onlyB, few.verdict], [4, 0, 'not told apart'])
    assert.match(comparisonVerdicts(few).join('\n'), /^Not told apart: .*can be luck\.\nOnly 4 of 6 pictures speak for one of the two/)
    const same = await compareModels(asked('a@1', one!), asked('a@2', other!), 'same', await colours(5, 1))
    assert.deepEqual([same.p, same.difference, same.verdict, same.differing], [1, 0, 'not told apart', []])
    assert.match(comparisonVerdicts(same)[0]!, /exactly the same pictures/)
  })
})

test('copies of one picture are one piece of evidence', async () => {
  await withModels([knows, mixesUp], async ([good, bad]) => {
    // the reds are one burst, and so are the greens: two things speak, not 24
    const grouped = await colours(12, 0, { groupOf: row => (row < 12 ? 'burst 1' : row < 24 ? 'burst 2' : null) })
    const result = await compareModels(asked('good', good!), asked('bad', bad!), 'bursts', grouped)
    assert.deepEqual([result.groups, result.p, result.verdict], [14, 0.5, 'not told apart'])
    const alone = await compareModels(asked('good', good!), asked('bad', bad!), 'alone', await colours(12, 0))
    assert.ok(result.high - result.low > 2 * (alone.high - alone.low))
    assert.match(comparisonVerdicts(result).join('\n'), /36 pictures in 14 groups/)
  })
})

test('classes that only one of the two knows are left out and named; a class that neither knows, or none in common, is refused', async () => {
  await withModels([knows, { labels: ['red', 'green', 'violet'] }, { labels: ['x', 'y', 'z'] }], async ([all, other, foreign]) => {
    const result = await compareModels(asked('a', all!), asked('b', other!), 'set', await colours(8, 0))
    assert.deepEqual(result.leftOut, { classes: ['blue'], pictures: 8 })
    assert.equal(result.n, 16)
    assert.match(comparisonVerdicts(result).join('\n'), /8 pictures of a class that only one of the two knows left out: “blue”/)
    const strange = await colours(3, 0, { labels: ['red', 'green', 'pink'] })
    await assert.rejects(compareModels(asked('a', all!), asked('b', other!), 'set', strange), { code: 'classes_unknown' })
    await assert.rejects(compareModels(asked('a', all!), asked('c', foreign!), 'set', await colours(3, 0)), { code: 'labels_apart' })
    await assert.rejects(compareModels(asked('a', all!), asked('b', other!), 'set', await colours(0, 0)), { code: 'evaluation_empty' })
  })
})

test('who has learned from the pictures is told, and so is who may have', async () => {
  await withModels([knows, mixesUp], async ([good, bad]) => {
    const pictures = await colours(10, 0)
    const learned = new Map<string, Side>([
      ['red 0', 'train'],
      ['red 1', 'train'],
      ['red 2', 'validation'],
      ['red 3', 'test'],
      ['elsewhere', 'train'],
    ])
    const result = await compareModels(asked('good@1', good!, learned), asked('bad@1', bad!, null), 'set', pictures)
    assert.deepEqual(result.seenByA, { trained: 2, chosenOn: 1, copies: 0, without: { ...result.seenByA!.without!, n: 27, accuracy: 1 } })
    assert.equal(result.seenByB, null)
    const said = comparisonVerdicts(result).join('\n')
    assert.match(said, /good@1 knows some of these 30 pictures: 2 were learned from, 1 was used to choose it\. So the score flatters/)
    assert.match(said, /Which pictures bad@1 learned from is not known here/)

    const { evaluation, seen } = await evaluateModel({ classifier: bad!, trainTruth: null, learned, ...pictures })
    assert.equal(evaluation.accuracy, 1 / 3)
    assert.deepEqual([seen!.without!.n, seen!.without!.accuracy], [27, 10 / 27])
    const everything = new Map(pictures.manifest.rows.map(row => [row.pixels, 'train' as const]))
    const none = await evaluateModel({ classifier: bad!, trainTruth: null, learned: everything, ...pictures })
    assert.deepEqual(none.seen, { trained: 30, chosenOn: 0, copies: 0, without: null })
  })
})

test('a class without pictures shifts nothing: the others keep their scores, whether its folder is empty or not there', async () => {
  await withModels([mixesUp], async ([model]) => {
    const pictures = await colours(10, 3)
    const scoresOf = async (manifest: Manifest) =>
      (await evaluateModel({ classifier: model!, trainTruth: null, learned: null, ...pictures, manifest })).evaluation
    const whole = await scoresOf(pictures.manifest)
    for (const gone of COLOURS) {
      const rows = pictures.manifest.rows.filter(({ labels }) => labels[0] !== gone)
      for (const classes of [pictures.manifest.classes, pictures.manifest.classes.filter(label => label !== gone)]) {
        const { perClass, confusion } = await scoresOf({ ...pictures.manifest, rows, classes })
        for (const [k, { label, n, recall }] of perClass.entries()) {
          const before = whole.perClass[k]!
          assert.deepEqual([label, n, recall], label === gone ? [gone, 0, null] : [before.label, before.n, before.recall])
          assert.deepEqual(confusion[k], label === gone ? [0, 0, 0] : whole.confusion[k])
        }
      }
    }
  })
})

test('the page shows every picture where they differ beside both answers, and hostile names stay text', async () => {
  await withModels([knows, mixesUp], async ([good, bad]) => {
    const hostile = '<script>window.ran=1</script>'
    const result = await compareModels(asked(hostile, good!), asked(`"><img src=x>`, bad!), hostile, await colours(15, 1))
    const pixel = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
    const page = await renderComparisonReport({ comparison: result, pictures: async () => pixel, notes: [hostile] })
    assert.equal(page.match(/<img src="data:/g)!.length, result.differing.length)
    for (const { path } of result.differing) assert.ok(page.includes(`<bdi>${path}</bdi>`), path)
    assert.doesNotMatch(page, /<script|<img src=x|NaN|undefined|\[object/)
    assert.equal(page, await renderComparisonReport({ comparison: result, pictures: async () => pixel, notes: [hostile] }))
    linksLead(page)
  })
})

/** Every link of a page leads to a place on it, and every method that is explained is linked to. */
function linksLead(page: string): void {
  const targets = new Set([...page.matchAll(/id="(how-[a-z]+)"/g)].map(match => match[1]!))
  const links = new Set([...page.matchAll(/href="#(how-[a-z]+)"/g)].map(match => match[1]!))
  assert.deepEqual([...links].toSorted(), [...targets].toSorted())
}
