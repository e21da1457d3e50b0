import assert from 'node:assert/strict'
import { after, before, type TestContext, test } from 'node:test'
import { type Browser, chromium as browserOf, type Page } from 'playwright-core'
import { reviewQueue } from '../../../src/data/review/queue.ts'
import { type RunningReview, startReviewServer } from '../../../src/data/review/server.ts'
import { openReview, type Review } from '../../../src/data/review/session.ts'
import { resolveDataset } from '../../../src/data/versions.ts'
import type { Manifest } from '../../../src/sdk/shapes.ts'
import { chromium } from '../../peers.ts'
import { files, pets, suspected } from './reviews.ts'

const executablePath = chromium()
const options = { skip: executablePath ? false : 'no Chromium', timeout: 60_000 }
// biome-ignore format: flags
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic']

let browser: Browser
before(async () => {
  if (executablePath) browser = await browserOf.launch({ executablePath, args: flags })
})
after(() => browser?.close())

const mislabels = suspected({ path: 'cat/3.png', label: 'cat', suggestion: 'dog' }, { path: 'dog/5.png', label: 'dog', suggestion: 'cat' })

async function served(t: TestContext, change: Partial<Parameters<typeof openReview>[1]> = {}) {
  const given = await pets(t)
  const { home, reference, manifest } = given
  const review = await openReview(home, { reference, manifest, copies: null, mislabels, ...change })
  const server = await startReviewServer({ review, blobs: home.blobs, port: 0 })
  t.after(async () => {
    await server.close()
    await review.close()
  })
  return { ...given, review, server }
}

/** The page with its first question; anything that the browser complains about on the way fails the test that opened it. */
async function open(
  t: TestContext,
  server: RunningReview,
  { url = server.url, ...viewport }: { url?: string; width?: number; height?: number } = {},
) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900, ...viewport } })
  const complaints: string[] = []
  page.on('pageerror', error => complaints.push(error.message))
  page.on(
    'console',
    message =>
      message.type() === 'error' && !/status of 4\d\d|ERR_CONNECTION_REFUSED/.test(message.text()) && complaints.push(message.text()),
  )
  page.on('request', request => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).port !== String(server.port))
      complaints.push(`it asked ${request.url()}`)
  })
  t.after(async () => {
    await page.close()
    assert.deepEqual(complaints, [], 'the content policy allows what the page does, and nothing comes from elsewhere')
  })
  await page.goto(url)
  return page
}
const asked = (page: Page, question: string | RegExp) => page.locator('#question', { hasText: question }).waitFor({ timeout: 5000 })
const progress = (page: Page, text: RegExp) => page.locator('#progress', { hasText: text }).waitFor({ timeout: 5000 })
const said = async (review: Review) =>
  (await review.list())
    .flatMap(({ pictures, verdicts }) =>
      verdicts.map((verdict, i) => verdict && `${pictures[i]!.path} ${verdict.verdict} ${verdict.to ?? ''}`.trim()),
    )
    .filter(each => each !== null)

test('a whole review by keyboard: relabel, drop, undo, another label, and the version that comes of it', options, async t => {
  const { server, review, home, manifest } = await served(t)
  const page = await open(t, server)
  await asked(page, 'The same picture under 2 labels')
  await progress(page, /^0 of 5$/)
  assert.ok(!page.url().includes(server.token), 'the token is not left in the address')
  await page.keyboard.press('1')
  await page.locator('#note', { hasText: 'Both are “cat”.' }).waitFor()
  await progress(page, /^1 of 5$/)
  assert.deepEqual(await said(review), ['cat/2.png keep', 'dog/cat 2.png relabel cat'])

  // for one of the group alone, then for the other
  await asked(page, 'The same picture under 2 labels')
  await page.keyboard.press('ArrowDown')
  await page.locator('.card.chosen', { hasText: 'cat/dog 20.png' }).waitFor()
  await page.keyboard.press('d')
  await page.locator('.card.chosen', { hasText: 'dog/0.png' }).waitFor()
  await page.keyboard.press('k')
  await asked(page, 'Is this “cat”, or “dog”?')

  await page.keyboard.press('r')
  await page.keyboard.type('DO')
  await page.locator('[role=option][aria-selected=true]', { hasText: 'dog' }).waitFor()
  await page.keyboard.press('Enter')
  await asked(page, 'Is this “dog”, or “cat”?')
  await page.keyboard.press('d')
  await asked(page, 'The same picture twice: keep both?')
  await page.keyboard.press('u')
  await asked(page, 'Is this “dog”, or “cat”?')
  assert.ok(!(await said(review)).some(text => text.startsWith('dog/5.png')), 'the drop is undone')
  await page.keyboard.press('k')

  // of the copies: the suggested stays, then it is marked the other way round
  await asked(page, 'The same picture twice: keep both?')
  assert.deepEqual(await page.locator('.card input').evaluateAll(boxes => boxes.map(box => (box as HTMLInputElement).checked)), [
    true,
    false,
  ])
  await page.keyboard.press('Space')
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('Space')
  await page.locator('.actions button', { hasText: 'Keep 1 picture, drop the other' }).waitFor()
  await page.keyboard.press('d')
  await asked(page, 'That was all.')
  await progress(page, /^5 of 5, all done$/)

  await page.click('#make')
  await page.locator('#version[open]', { hasText: '2 relabelled, 2 dropped' }).waitFor()
  await page.click('#version-make')
  await page.locator('#version-title', { hasText: 'pets@2 is there' }).waitFor()
  assert.match((await page.textContent('#version-body'))!, /plinth train pets@2.*plinth data diff pets@1 pets@2/)
  const labels = (of: Manifest) => Object.fromEntries(of.rows.map(({ path, labels }) => [path, labels.join()]))
  const { 'cat/dog 20.png': _, 'cat/1.png': __, ...rest } = labels(manifest)
  assert.deepEqual(labels((await resolveDataset(home, 'pets@2')).manifest), { ...rest, 'dog/cat 2.png': 'cat', 'cat/3.png': 'dog' })
})

test('a new class is typed with R, and a name that cannot be one is told before it is sent', options, async t => {
  const { server, review } = await served(t, { only: 'mislabel' })
  const page = await open(t, server)
  await asked(page, 'Is this “cat”')
  await page.keyboard.press('r')
  await page.keyboard.type('a/b')
  await page.keyboard.press('Enter')
  await page.locator('#typed-problem', { hasText: 'No slashes' }).waitFor()
  await page.fill('#typed', 'Éel')
  await page.locator('[role=option]', { hasText: 'New class “Éel”' }).waitFor()
  await page.keyboard.press('Enter')
  await page.locator('#note.warning', { hasText: '“Éel” is a new class with 1 picture so far' }).waitFor()
  assert.deepEqual(await said(review), ['cat/3.png relabel Éel'])
  await page.keyboard.press('r')
  await page.keyboard.type('ee')
  await page.locator('[role=option]', { hasText: /^Éel$/ }).waitFor()
  await page.keyboard.press('Escape')
  assert.equal(await page.locator('dialog[open]').count(), 0)
})

test('keys can be switched off, a key held down answers once, and Ctrl with a key is left to the browser', options, async t => {
  const { server, review } = await served(t)
  const page = await open(t, server)
  await asked(page, 'The same picture')
  await page.keyboard.press('Control+k')
  await page.evaluate(() => {
    for (const repeat of [false, true, true, true])
      document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'k', bubbles: true, repeat }))
  })
  await progress(page, /^1 of 5$/)
  await page.keyboard.press('?')
  await page.uncheck('#shortcuts')
  await page.click('#helping-close')
  await page.keyboard.press('k')
  await page.keyboard.press('ArrowRight')
  await asked(page, 'Is this “cat”')
  assert.equal((await review.tally()).answered, 1)
  await page.click('.actions [data-key=K]')
  await progress(page, /^2 of 5$/)
})

test('an answer that could not be kept is told, and the question stays', options, async t => {
  const { server, review } = await served(t)
  const page = await open(t, server)
  await asked(page, 'The same picture')
  await server.close()
  await page.keyboard.press('k')
  await page.locator('#problem', { hasText: 'The review does not answer. Is the command still running?' }).waitFor()
  await progress(page, /^0 of 5$/)
  assert.equal((await review.tally()).answered, 0)
})

test('without its token the page asks for it; a ticket opens it once', options, async t => {
  const { server } = await served(t)
  const page = await open(t, server, { url: `http://127.0.0.1:${server.port}/` })
  await page.locator('#ask:visible').waitFor()
  await page.fill('#token', server.token)
  await page.keyboard.press('Enter')
  await asked(page, 'The same picture')
  const url = server.ticketUrl()
  await asked(await open(t, server, { url }), 'The same picture')
  await (await open(t, server, { url })).locator('#ask:visible').waitFor()
})

test('everything has a name, can be reached by keyboard, and the question is what is read first', options, async t => {
  const { server } = await served(t)
  const page = await open(t, server)
  await asked(page, 'The same picture')
  await page.waitForFunction(() => (document.querySelector('.card img') as HTMLImageElement | null)?.naturalWidth === 4)
  assert.equal(await page.evaluate(() => document.activeElement!.id), 'question')
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => (document.activeElement as HTMLElement).dataset['key']), '1')
  const nameless = await page.evaluate(
    () =>
      [...document.querySelectorAll('button, input, img, dialog, section, nav')].filter(
        each =>
          each.checkVisibility() &&
          !each.getAttribute('aria-label') &&
          !each.getAttribute('aria-labelledby') &&
          !each.getAttribute('alt') &&
          !each.textContent!.trim() &&
          !(each as HTMLInputElement).labels?.length,
      ).length,
  )
  assert.equal(nameless, 0)
  assert.deepEqual(await page.locator('.card img').evaluateAll(images => images.map(image => (image as HTMLImageElement).alt)), [
    'cat/2.png, labelled cat',
    'dog/cat 2.png, labelled dog',
  ])
  const keys = await page.locator('#keys').textContent()
  for (const word of ['keep', 'another label', 'drop', 'undo']) assert.ok(keys!.includes(word), word)
})

test('on a phone nothing is wider than the screen, and the answers are on it', options, async t => {
  const { server } = await served(t)
  const page = await open(t, server, { width: 400, height: 800 })
  for (const question of ['The same picture', 'The same picture', 'Is this “cat”', 'Is this “dog”', 'The same picture twice']) {
    await asked(page, question)
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 400)
    const box = (await page.locator('.actions').first().boundingBox())!
    assert.ok(box.y >= 0 && box.y + box.height <= 800, JSON.stringify(box))
    await page.click('#on')
  }
})

test('ten thousand questions: the page opens, jumps and answers as fast as with five', options, async t => {
  const given = await pets(t, files)
  const rows = Array.from({ length: 20_000 }, (_, index) => {
    const of = given.manifest.rows[index % given.manifest.rows.length]!
    return { ...of, path: `cat/${String(index).padStart(5, '0')}.png`, labels: ['cat'], pixels: String(index >> 1).padStart(64, '0') }
  })
  const manifest = { ...given.manifest, classes: ['cat'], rows }
  assert.equal(reviewQueue({ manifest, copies: null, mislabels: null }).length, 10_000)
  const review = await openReview(given.home, { reference: given.reference, manifest, copies: null, mislabels: null })
  const server = await startReviewServer({ review, blobs: given.home.blobs, port: 0 })
  t.after(async () => {
    await server.close()
    await review.close()
  })
  const began = performance.now()
  const page = await open(t, server)
  await asked(page, 'The same picture twice')
  for (let answers = 1; answers <= 5; answers++) {
    await page.keyboard.press('k')
    await progress(page, new RegExp(`^${answers} of 10000`))
  }
  await progress(page, /^5 of 10000, (about \d+ (minutes?|hours?)|less than a minute) left$/)
  assert.ok(performance.now() - began < 20_000)
  assert.ok((await page.locator('img').count()) < 10, 'only what is looked at is on the page')
})
