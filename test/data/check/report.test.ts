/** What is said of a check, as text and as a page: worst first, hostile names harmless, bounded, nothing loaded. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { type Finding, findingsOf } from '../../../src/data/check/findings.ts'
import { methods } from '../../../src/data/check/methods.ts'
import { type CheckReportInput, renderCheckReport } from '../../../src/data/check/report.ts'
import { writeCheckReport } from '../../../src/data/check/report-file.ts'
import { checkText } from '../../../src/data/check/text.ts'
import { Failure } from '../../../src/failure.ts'
import { encodePng, thumbnail } from '../../../src/images/encode.ts'
import { DataCheck } from '../../../src/sdk/shapes.ts'
import { temporary } from '../folders.ts'
import { picture } from './made.ts'

const hostile = [
  '<script>alert(1)</script>.jpg',
  '"><img src=x onerror=alert(1)>.png',
  "it's `code` & more.jpg",
  'two\nlines\u001b[31m.jpg',
  'gpj.\u202eexe',
  '{{7*7}}.jpg',
]
const path = (index: number) => `class/${index}-${hostile[index % hostile.length]}`
const paths = (from: number, count: number) => Array.from({ length: count }, (_, index) => path(from + index))

/** Everything that can be found, many times over. */
function everything(groups = 3): DataCheck {
  const pairs = (from: number) => Array.from({ length: groups }, (_, index) => paths(from + 3 * index, 3))
  return DataCheck.parse({
    version: 'birds@1',
    images: 5000,
    classes: 3,
    unreadable: [{ path: path(1), code: 'image_empty', reason: 'The picture is empty.' }],
    ignored: [{ path: path(2), reason: 'hidden file' }],
    exactDuplicates: pairs(100),
    nearDuplicateGroups: pairs(1100),
    sameSceneGroups: pairs(2100).map(group => ({ paths: group, evidence: 'time' })),
    alike: pairs(3100).map(([a, b]) => ({ paths: [a!, b!], score: 0.5 })),
    notJudged: paths(0, groups),
    conflicts: pairs(4100).map(group => ({ paths: group, labels: ['<b>cat</b>', 'dog'] })),
    shortcuts: [
      { property: 'format', accuracy: 1, majority: 0.5, sentence: 'All 20 “<i>defect</i>” pictures are PNG; none of the other 30 is.' },
      {
        property: 'brightness',
        accuracy: 0.99,
        majority: 0.5,
        sentence: 'All 20 “night” pictures are darker; none of the other 30 is. Is it?',
      },
    ],
    tiny: paths(0, groups),
    uniform: paths(1, groups),
    blurred: paths(2, groups),
    dark: paths(3, groups),
    oddShaped: paths(4, groups),
    perClass: [
      { label: '<b>cat</b>', images: 900, different: 850 },
      { label: 'dog', images: 100, different: 90 },
      { label: 'rare', images: 2, different: 2 },
    ],
    recallOnOwnEdits: [{ edit: 'cropped by 10 %', made: 40, found: 38 }],
    acrossSplit: { groups: pairs(200), testPictures: 300, leaked: 80, accuracyAsGiven: 0.9, accuracyWithout: 0.8 },
    mislabels: {
      n: 5000,
      estimate: { count: 23.4, low: 14.2, high: 35.1 },
      exchanged: [{ label: 'cat', suggestion: 'dog', count: 9 }],
      listed: Array.from({ length: groups }, (_, index) => ({
        path: path(index),
        label: '<b>cat</b>',
        pile: (['another', 'none', 'two'] as const)[index % 3]!,
        suggestion: index % 3 === 1 ? null : 'dog',
        score: 0.9,
        probabilityOfLabel: 0.1,
        probabilityOfSuggestion: 0.8,
        neighbours: [{ path: path(index + 1), label: 'dog', similarity: 0.9 }],
      })),
      notes: [],
    },
    notes: ['Half of the <pictures> are small.'],
    report: null,
  })
}
const clean = (): DataCheck => ({
  ...everything(0),
  unreadable: [],
  ignored: [],
  conflicts: [],
  shortcuts: [],
  perClass: [
    { label: 'cat', images: 300, different: 300 },
    { label: 'dog', images: 200, different: 200 },
  ],
  acrossSplit: { groups: [], testPictures: 100, leaked: 0, accuracyAsGiven: null, accuracyWithout: null },
  mislabels: { n: 10, estimate: { count: 0, low: 0, high: 1 }, exchanged: [], listed: [], notes: [] },
  recallOnOwnEdits: [],
  notes: [],
})
const options = { source: './photos', deep: false, measured: 'test' as const }
const plain = { width: 90, style: (_: string, text: string) => text }
const pixel = encodePng({ width: 70, height: 70, data: new Uint8Array(70 * 70 * 3).fill(200) })

async function pageOf(check: DataCheck, findings = findingsOf(check, options), changes: Partial<CheckReportInput> = {}): Promise<string> {
  const rows = Array.from({ length: 9000 }, (_, index) => ({ ...picture().row, path: path(index), labels: ['<b>cat</b>'] }))
  const small = await thumbnail(await pixel, 32)
  return await renderCheckReport({
    title: '<h1>photos</h1>',
    check,
    findings,
    manifest: { rows },
    next: 'plinth train ./photos',
    made: new Date(0),
    thumbnail: async () => small,
    ...changes,
  })
}

test('a clean set has nothing to put right and nothing to look at', async () => {
  const findings = findingsOf(clean(), options)
  assert.deepEqual(findings, [])
  assert.match(checkText(clean(), findings, plain), /^5,000 pictures in 3 classes\n\nNothing wrong was found\.$/)
  assert.match(await pageOf(clean()), /Nothing wrong was found in 5,000 pictures\./)
})

test('everything there is to find is said, what spoils numbers first, each with its method on the page and no key twice', async () => {
  const findings = findingsOf(everything(), options)
  const order = findings.map(({ level }) => ['wrong', 'look', 'known'].indexOf(level))
  assert.deepEqual(order, order.toSorted())
  assert.equal(findings[0]!.key, 'across-split')
  assert.equal(new Set(findings.map(({ key }) => key)).size, findings.length)
  const said = new Set(findings.map(({ key }) => key.replace(/-\d$/, '')))
  for (const key of [
    'conflicts',
    'shortcut',
    'mislabels',
    'unreadable',
    'near-copies',
    'exact-copies',
    'small-classes',
    'balance',
    'uniform',
    'blurred',
    'dark',
    'tiny',
    'oddShaped',
    'scenes',
    'alike',
    'not-judged',
    'ignored',
  ])
    assert.ok(said.has(key), key)
  const page = await pageOf(everything())
  for (const { key, method } of findings) {
    assert.ok(page.includes(`href="#${key}"`) && page.includes(`id="${key}"`), key)
    assert.ok(page.includes(`href="#how-${method}"`) && page.includes(`id="how-${method}"`), method)
  }
  assert.deepEqual(
    Object.keys(methods).filter(name => !page.includes(`id="how-${name}"`)),
    [],
  )
  assert.match(page, /80\.0 %/)
  assert.match(page, /10\.0\u00a0points of it were memory/)
})

test('a text has lines that fit, examples and one next step for each, and no control characters', () => {
  const text = checkText(everything(), findingsOf(everything(), options), plain)
  assert.equal(stripVTControlCharacters(text), text)
  for (const line of text.split('\n')) {
    assert.ok(line.length <= 90 || line.startsWith('    '), `${line.length}: ${line}`)
    assert.doesNotMatch(line, /[\u0000-\u001f\u202e]/)
  }
  assert.match(text, /^4 things to put right, 11 things to look at$/m)
  assert.match(text, /^ {2}→ /m)
  assert.match(
    text.replace(/\s+/g, ' '),
    /Of 40 copies made of your own pictures to try the search, 38 were found; of “cropped by 10 %” 38 of 40\./,
  )
  assert.match(text, /About 23 of 5,000 labels look wrong \(14 to 36\)/)
})

test('whatever files and classes are called, the page shows it as text, loads nothing and runs nothing', async () => {
  const page = await pageOf(everything())
  assert.doesNotMatch(page, /<script|<img src=x|<b>cat|<i>defect|<h1>photos|\u001b|\u202e/)
  assert.doesNotMatch(page, /(src|href)="(?!data:image\/webp;base64,|#)/)
  assert.doesNotMatch(page, /NaN|undefined|\[object|Infinity/)
  assert.match(page, /default-src 'none'; img-src data:; style-src 'sha256-/)
  for (const tag of ['section', 'li', 'ul', 'ol', 'div', 'p', 'dl', 'details', 'table'])
    assert.equal(page.match(new RegExp(`<${tag}[ >]`, 'g'))?.length, page.match(new RegExp(`</${tag}>`, 'g'))?.length, tag)
  assert.equal(page, await pageOf(everything()), 'the same input gives the same page')
})

test('thousands of findings make a page of bounded size that says how many are not on it', async () => {
  const check = everything(900)
  const page = await pageOf(check)
  assert.ok((page.match(/<img/g) ?? []).length <= 400)
  assert.ok(page.length < 1_000_000, `${page.length}`)
  assert.match(page, /… and 840 more; plinth data check --json lists all\./)
  const text = checkText(check, findingsOf(check, options), plain)
  assert.ok(text.split('\n').length < 150)
})

test('a picture that went away since is said to be gone; a report is worth having without it', async () => {
  assert.match(await pageOf(everything(), undefined, { thumbnail: async () => null }), /no picture any more/)
})

test('the report is written whole, over an older report, and over nothing else', async t => {
  const folder = temporary(t)
  const check = clean()
  const input = {
    title: 'photos',
    check,
    findings: [] as Finding[],
    manifest: { rows: [] },
    next: 'plinth train',
    bytes: async () => {
      throw new Failure('file_unreadable', { reason: 'it is gone' })
    },
  }
  const file = join(folder, 'report.html')
  await writeCheckReport(file, input)
  await writeCheckReport(file, input)
  assert.match(readFileSync(file, 'utf8'), /^<!doctype html>[\s\S]+<\/html>\n$/)
  const photo = join(folder, 'photo.jpg')
  writeFileSync(photo, 'the only copy')
  await assert.rejects(writeCheckReport(photo, input), { code: 'report_in_the_way' })
  assert.equal(readFileSync(photo, 'utf8'), 'the only copy')
  await assert.rejects(writeCheckReport(folder, input), { code: 'path_in_the_way' })
  await assert.rejects(writeCheckReport(join(folder, 'no', 'such', 'folder.html'), input), { code: 'storage' })
})
