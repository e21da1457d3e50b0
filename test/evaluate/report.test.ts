import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { chromium as playwright } from 'playwright-core'
import { html, markupOf } from '../../src/data/html.ts'
import { randomFrom } from '../../src/engine/random.ts'
import { type ReportInput, renderReport, renderText, reportJson, score, verdicts } from '../../src/evaluate/index.ts'
import { softmax } from '../../src/models/logistic-regression.ts'
import { Mislabels, Unknown } from '../../src/sdk/index.ts'
import { chromium } from '../peers.ts'

const folder = await mkdtemp(join(tmpdir(), 'plinth-report-'))
after(() => rm(folder, { recursive: true }))

const pixel = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

/** A model of some strength on n pictures of the given classes, with everything a training would hand over. */
function training(
  labels: readonly string[],
  n: number,
  strength = 3,
  name = (label: string, i: number) => `${label}/${i}.jpg`,
): ReportInput {
  const random = randomFrom(labels.length, n)
  const gauss = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const truth = Int32Array.from({ length: n }, (_, i) => i % labels.length)
  const answers = (s: number) =>
    Array.from(truth, label =>
      softmax(
        labels.map((_, k) => 2 * gauss() + (k === label ? s : 0)),
        labels.length,
      ),
    )
  const evaluation = score({
    labels,
    truth,
    probabilities: answers(strength),
    trainTruth: truth,
    linearProbeProbabilities: answers(strength * 0.7),
    paths: Array.from(truth, (label, i) => name(labels[label]!, i)),
    calibration: { temperature: 1.3 },
  })
  return {
    title: 'birds',
    evaluation,
    classes: labels,
    result: {
      run: '0123456789abcdef0123456789abcdef',
      model: { name: 'birds', version: 2, path: 'model.onnx', labels: [...labels] },
      dataset: {
        name: 'birds',
        version: 1,
        digest: 'abc',
        images: 5 * n,
        classes: labels.length,
        unreadable: [{ path: name('x', -1), reason: name('y', -2) }],
        exactDuplicates: [[name('x', -3), name('y', -4)]],
        split: { train: 3 * n, validation: n, test: n },
      },
      chosen: 'finetune',
      validation: { head: 0.8, finetune: 0.85 },
      device: { kind: 'cpu', name: 'a processor', threads: 2 },
      seconds: 100,
      forecastSeconds: 110,
    },
    notes: [name('note', 0)],
    plan: [name('plan', 0)],
    pictures: async () => pixel,
    examples: labels.map(label => ({ path: name(label, 0), label })),
    history: [
      { epoch: 1, trainLoss: 1.5, validationLoss: 1.2, validationAccuracy: 0.7 },
      { epoch: 2, trainLoss: 1.1, validationLoss: 1.0, validationAccuracy: 0.85 },
    ],
    conflicts: [[name('x', -5), name('y', -6)]],
    threshold: 0.4,
    reproduce: ['plinth train birds@1'],
    lineage: { [name('key', 0)]: name('value', 0) },
  }
}

const hostile = [
  '<script>window.ran=1</script>',
  '"><img src=x onerror="window.ran=1">',
  `' onmouseover='window.ran=1' autofocus onfocus='window.ran=1`,
  '</style><script>window.ran=1</script>',
  '</title></svg><svg onload=window.ran=1>',
  '<iframe srcdoc="<script>parent.ran=1</script>">',
  '<meta http-equiv=refresh content="0;url=https://example.com">',
  '&lt;b&gt; {{window.ran=1}} `',
]

/** The same with every optional part: groups and parts of the test set by a real score, the rest as its shapes allow. */
function complete(labels: readonly string[], n: number, name?: Parameters<typeof training>[3]): ReportInput {
  const input = training(labels, n, 2, name)
  const { evaluation } = input
  const scored = score({
    labels,
    truth: evaluation.confusion.flatMap((row, k) => row.flatMap(count => Array<number>(count).fill(k))),
    probabilities: evaluation.confusion.flatMap(row =>
      row.flatMap((count, answer) =>
        Array.from({ length: count }, () => labels.map((_, k) => (k === answer ? 0.9 : 0.1 / (labels.length - 1)))),
      ),
    ),
    trainTruth: [...labels.keys()],
    linearProbeProbabilities: null,
    paths: Array.from({ length: n }, (_, i) => `${labels[0]}/${name?.('x', i) ?? i}`),
    groups: Array.from({ length: n }, (_, i) => `${Math.floor(i / 2)}`),
    origins: Array.from({ length: n }, (_, i) => ({ camera: `${labels[i % 2]} ${i % 2}`, captured: `2026-0${1 + (i % 3)}-01T00:00:00` })),
    calibration: { temperature: 1.3 },
  })
  const { interval, low, high, slices } = scored
  const mistake = evaluation.worstMistakes[0]!
  return {
    ...input,
    evaluation: {
      ...evaluation,
      low,
      high,
      interval: interval!,
      slices: slices!,
      randomSplit: { grouped: 0.7, random: 0.78, repeats: 3, n },
      crossValidation: { folds: 5, repeats: 3, n: 5 * n, groups: 4 * n, accuracy: 0.72, low: 0.69, high: 0.75 },
    },
    result: {
      ...input.result!,
      unknown: Unknown.parse({
        threshold: 12,
        falseAlarmRate: 0.05,
        falseAlarmsOnTest: 0.06,
        auroc: 0.91,
        aurocOfProbability: 0.84,
        detected: 0.6,
        detectedByProbability: 0.4,
        perClass: labels.map(label => ({ label, n: 40, auroc: 0.9, aurocOfProbability: 0.8 })),
      }),
      mislabels: Mislabels.parse({
        n: 5 * n,
        estimate: { count: 12.4, low: 6, high: 20 },
        exchanged: [{ label: labels[0], suggestion: labels[1], count: 4 }],
        listed: (['another', 'none', 'two'] as const).map((pile, i) => ({
          path: mistake.path,
          label: labels[0],
          pile,
          suggestion: pile === 'none' ? null : labels[1],
          score: 1 - i / 10,
          probabilityOfLabel: 0.02,
          probabilityOfSuggestion: 0.93,
          neighbours: [{ path: mistake.path, label: labels[1], similarity: 0.9 }],
        })),
        notes: [labels[0]],
      }),
      choices: [{ what: `${labels[0]} fit`, chosen: labels[1]!, sentence: `Cropped: ${labels[0]}.` }],
    },
    contactSheets: [{ title: labels[0]!, text: labels[1]!, pictures: [pixel, pixel, 'https://example.com/x.png'] }],
    activation: async () => pixel,
    further: [{ sentence: `Strange: ${labels[0]}.`, how: 'strangers' }],
    strangers: [mistake.path],
    warnings: [
      { sentence: `It knows ${labels[0]}.`, how: 'seen' },
      { sentence: `Worn: ${labels[1]}.`, how: 'looks' },
    ],
  }
}

test('hostile labels, names and notes are shown as they are and do nothing, in a real browser', async t => {
  const executablePath = chromium()
  if (!executablePath) return t.skip('no Chromium here')
  const input = complete(hostile, 80, (label, i) => `${label}/${hostile[Math.abs(i) % hostile.length]} ${i}`)
  const browser = await playwright.launch({
    executablePath,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-quic',
    ],
  })
  try {
    const page = await browser.newPage({ viewport: { width: 400, height: 800 } })
    const requests: string[] = []
    const complaints: string[] = []
    page.on('request', request => requests.push(request.url()))
    page.on('console', message => complaints.push(message.text()))
    page.on('dialog', dialog => complaints.push(dialog.message()))
    const file = join(folder, 'hostile.html')
    await writeFile(file, await renderReport({ ...input, title: hostile[0]! + hostile[4] }))
    await page.goto(pathToFileURL(file).href)
    assert.equal(await page.evaluate('window.ran'), undefined)
    assert.deepEqual(
      requests.filter(url => !url.startsWith('data:image/png')),
      [pathToFileURL(file).href],
    )
    assert.deepEqual(complaints, [])
    assert.equal(await page.locator('h1').textContent(), hostile[0]! + hostile[4])
    assert.equal(await page.locator('script, iframe, object, embed, link, form, base').count(), 0)
    // nothing sits in an attribute that could act
    assert.equal(
      await page.evaluate(
        `Array.from(document.querySelectorAll('*')).flatMap(e => Array.from(e.attributes)).filter(a => a.name.startsWith('on') || a.name === 'style').length`,
      ),
      0,
    )
    const shown = (await page.locator('body').textContent())!
    for (const text of hostile) assert.ok(shown.includes(text), text)

    // the policy allows our own style sheet: the page is not bare
    assert.equal(await page.evaluate(`getComputedStyle(document.querySelector('.headline')).display`), 'grid')
    assert.equal(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true, 'nothing is wider than a phone')
    // and would stop a script even if escaping had failed
    await page.evaluate(
      `document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran=1">'); const s = document.createElement('script'); s.textContent = 'window.ran=1'; document.body.append(s)`,
    )
    await page.waitForFunction(`performance.getEntriesByType('navigation')[0].loadEventEnd > 0`)
    assert.equal(await page.evaluate('window.ran'), undefined)
    assert.ok(complaints.some(text => /Content Security Policy/.test(text)))
  } finally {
    await browser.close()
  }
})

test('pictures are shown only when they are inline pictures; one that fails does not cost the report', async () => {
  const input = training(['cat', 'dog'], 60, 1)
  for (const source of [
    'https://example.com/x.png',
    'data:text/html;base64,PHNjcmlwdD4=',
    'data:image/svg+xml;base64,PHN2Zz4=',
    'data:image/png;base64,AAAA" onerror="x',
    'x.png',
  ]) {
    const page = await renderReport({ ...input, pictures: async () => source })
    assert.ok(!page.includes('<img'), source)
    assert.match(page, /no picture/)
  }
  const page = await renderReport({
    ...input,
    pictures: async path => {
      if (path === input.evaluation.worstMistakes[0]!.path) throw new Error('file is gone')
      return pixel
    },
  })
  assert.match(page, /no picture/)
  assert.match(page, /<img src="data:image\/png/)
})

test('the page holds what was promised, names every mistake, and needs nothing from elsewhere', async () => {
  const input = training(['cat', 'dog', 'Übergang – 鳥'], 90, 2)
  const page = await renderReport(input)
  const { evaluation } = input
  assert.ok(page.includes(`${(100 * evaluation.accuracy).toFixed(1)}<small>`))
  for (const { path } of evaluation.worstMistakes) assert.ok(page.includes(`<bdi>${path}</bdi>`), path)
  for (const heading of [
    'What can be said',
    'Fine-tuning won',
    'Worst mistakes',
    'Class by class',
    'What is taken for what',
    'Can the probabilities be believed?',
    'The data',
    'Where it comes from',
    'How each number was computed',
  ])
    assert.ok(page.includes(heading), heading)
  for (const text of [
    '1 file could not be read',
    'identical pictures under different labels',
    'plinth train birds@1',
    '0123456789abcdef0123456789abcdef',
  ])
    assert.ok(page.includes(text), text)
  assert.doesNotMatch(page, /(src|href)="(?!data:image|#)/)
  assert.doesNotMatch(page, /url\(|@import|https?:\/\//)
  assert.doesNotMatch(page, /NaN|undefined|\[object/)
  assert.equal(page, await renderReport(input), 'the same input gives the same page')
})

test('everything that is known is on the page, in words for whoever has never heard of it', async () => {
  const input = complete(['cat', 'dog', 'bird'], 120)
  const page = await renderReport(input)
  for (const text of [
    'a model that knows only cars would still say which car',
    '91 of 100',
    '60 of 100',
    'What other ways of testing would say',
    'Head alone, split by chance',
    'Where the pictures come from',
    'Labels that look wrong',
    'also <bdi>dog</bdi>',
    'none of the classes',
    'plinth data review 01234567',
    'What was chosen, and what the network sees',
    'what spoke for',
    'It knows cat.',
    'Strange: cat.',
    'Pictures it calls unknown',
    '60 groups',
  ])
    assert.ok(page.includes(text), text)
  assert.doesNotMatch(page, /NaN|undefined|\[object|example\.com/)
  assert.equal(page, await renderReport(input))
  assert.doesNotMatch(page, /AUROC/, 'that is nobody’s word')
})

test('every number leads to how it was computed, and nothing is explained that is not there', async () => {
  const alone = training(['cat', 'dog'], 60)
  const seen = { ...alone, contactSheets: [{ title: 'a', text: '', pictures: [pixel] }] }
  for (const input of [complete(['cat', 'dog', 'bird'], 120), alone, seen, { ...alone, result: null }]) {
    const page = await renderReport(input)
    const targets = new Set([...page.matchAll(/id="(how-[a-z]+)"/g)].map(match => match[1]!))
    const links = new Set([...page.matchAll(/href="#(how-[a-z]+)"/g)].map(match => match[1]!))
    assert.deepEqual([...links].toSorted(), [...targets].toSorted())
    // a section with numbers has a link, apart from the methods themselves
    for (const section of page.split('<section').slice(1, -1))
      if (/\d+(\.\d)?\u00a0%/.test(section)) assert.match(section, /href="#how-/, section.slice(0, 120))
  }
})

test('a count of mix-ups leads to its pictures', async () => {
  const page = await renderReport(training(['cat', 'dog', 'bird'], 90, 2))
  const targets = [...page.matchAll(/id="(mix-up-\d-\d)"/g)].map(match => match[1]!)
  const links = [...page.matchAll(/href="#(mix-up-\d-\d)"/g)].map(match => match[1]!)
  assert.ok(targets.length >= 3)
  assert.equal(new Set(targets).size, targets.length, 'an anchor stands once')
  assert.deepEqual([...new Set(links)].toSorted(), targets.toSorted())
  const [, truth, answer] = targets[0]!.match(/(\d)-(\d)/)!
  const [label, predicted] = [truth, answer].map(k => ['cat', 'dog', 'bird'][Number(k)])
  const card = page.split(`id="${targets[0]}"`)[1]!.split('</li>')[0]!
  assert.ok(card.includes(`<b><bdi>${predicted}</bdi></b>`) && card.includes(`labelled <bdi>${label}</bdi>`), card)
})

test('a picture without a map has none beside it, and a model that goes by distance says nothing of a probability', async () => {
  const input = complete(['cat', 'dog', 'bird'], 120)
  assert.doesNotMatch(await renderReport(input), /An answer the model is less than/)
  const { unknown: _, ...result } = input.result!
  const page = await renderReport({
    ...input,
    result,
    activation: async () => {
      throw new Error('no map')
    },
  })
  assert.match(page, /An answer the model is less than/)
  assert.doesNotMatch(page, /what spoke for|something else<\/h2>/)
})

test('odd trainings make sound pages: 2 classes and 3 pictures, 60 classes, no mistake, no training, a diverged epoch', async () => {
  const odd: ReportInput[] = [
    training(['a', 'b'], 3),
    training(
      Array.from({ length: 60 }, (_, i) => `class ${i}`),
      600,
    ),
    training(['a', 'b'], 40, 60),
    {
      ...training(['a', 'b'], 40),
      result: null,
      history: [],
      plan: [],
      notes: [],
      examples: [],
      conflicts: [],
      reproduce: [],
      lineage: {},
    },
    {
      ...training(['a', 'b'], 40),
      history: [
        { epoch: 1, trainLoss: Number.NaN, validationAccuracy: 0.5 },
        { epoch: 2, trainLoss: 1, validationAccuracy: 0.5 },
        { epoch: 3, trainLoss: 1, validationAccuracy: 0.5 },
      ],
    },
  ]
  for (const input of odd) {
    const page = await renderReport(input)
    assert.doesNotMatch(page, /NaN|undefined|Infinity|\[object/)
    assert.equal(page.match(/<section/g)!.length, page.match(/<\/section>/g)!.length)
  }
})

test('whatever is put between tags comes out as text, with what cannot be seen made visible', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      const written = markupOf(html`<p title="${text}">${text}</p>`)
      assert.match(written, /^<p title="[^"<>]*">[^<>]*<\/p>$/)
    }),
    { numRuns: 500 },
  )
  assert.equal(markupOf(html`${'photo\u202egpj.exe'}`), 'photo⟨U+202E⟩gpj.exe')
  assert.equal(markupOf(html`${'two\nlines\u0000'}`), 'two␊lines␀')
  assert.equal(markupOf(html`${'👩‍👩‍👧'}`), '👩‍👩‍👧')
  assert.equal(markupOf(html`${null}${undefined}${false}${0}${[html`<b>`, html`</b>`]}`), '0<b></b>')
  assert.ok(markupOf(html`${'\ud800'}`).isWellFormed())
})

test('the terminal gets aligned columns, whole file names, and no line wider than asked except for those', () => {
  const { evaluation } = training(
    ['cat', '鳥と犬', 'a class whose name goes on and on and on and on and on and on'],
    120,
    2,
    (label, i) => `${label}/\u001b[31m${i}.jpg`,
  )
  const text = renderText(evaluation, verdicts(evaluation), { width: 80 })
  assert.ok(!text.includes('\u001b'), 'escape sequences in names must not reach the terminal')
  const wide = (line: string) => Array.from(line).reduce((sum, character) => sum + (/[\u3000-\u9fff]/.test(character) ? 2 : 1), 0)
  const lines = text.split('\n')
  for (const line of lines) assert.ok(wide(line) <= 80 || line.includes('.jpg'), `${wide(line)} columns: ${line}`)
  const rows = lines.slice(
    lines.findIndex(line => line.startsWith('class')),
    lines.findIndex(line => line.startsWith('surest')) - 1,
  )
  assert.equal(rows.length, 4)
  assert.deepEqual(new Set(rows.map(wide)).size, 1, rows.join('\n'))
  for (const { path } of evaluation.worstMistakes.slice(0, 5)) assert.ok(text.includes(path.replace('\u001b', '␛')))
})

test('the JSON beside the page is the evaluation with its sentences', () => {
  const { evaluation } = training(['cat', 'dog'], 60)
  assert.deepEqual(JSON.parse(reportJson(evaluation)), { schema: 1, ...evaluation, verdicts: verdicts(evaluation) })
})
