/** The check's page in a real browser: nothing blocked, nothing wider than a phone, every picture there, usable by keyboard and without colours. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { chromium as browserOf } from 'playwright-core'
import { findingsOf } from '../../../src/data/check/findings.ts'
import { checkPictures } from '../../../src/data/check/index.ts'
import { writeCheckReport } from '../../../src/data/check/report-file.ts'
import { openFacts } from '../../../src/data/facts.ts'
import { importPictures, manifestDigest } from '../../../src/data/import.ts'
import { chromium } from '../../peers.ts'
import { blobsIn, pictures, temporary, write } from '../folders.ts'

const executablePath = chromium()
const flags = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
]

test('the page on a desktop, on a phone and in the dark', async t => {
  if (executablePath === null) return t.skip('no Chromium here: npm run peers says how to get one')
  const folder = temporary(t)
  const long = `a/${'a very long name without an end '.repeat(5)}.png`
  const set = {
    ...pictures('a', 30),
    ...pictures('b', 30, 100),
    'b/<i>conflict</i> "1".png': 1,
    [long]: 2,
    'a/2 again.png': 2,
    'b/no.jpg': 'text',
  }
  const source = await write(join(folder, 'set'), set)
  const blobs = blobsIn(folder)
  const facts = await openFacts(join(folder, 'facts'))
  const manifest = await importPictures(source, { blobs, facts, accept: 'anything' })
  const bytes = async ({ content }: { content: string }) => await blobs.get(content)
  const digest = manifestDigest(manifest)
  const { check } = await checkPictures({ manifest, version: digest, digest, facts, bytes, threads: 1, seed: 0 })
  facts.close()
  const findings = findingsOf(check, { source: './set', deep: false, measured: 'test' as const })
  assert.ok(findings.some(({ key }) => key === 'conflicts'))
  const report = join(folder, 'report.html')
  await writeCheckReport(report, { title: 'set', check, findings, manifest, next: 'plinth train ./set', bytes })

  const browser = await browserOf.launch({ executablePath, args: flags })
  t.after(() => browser.close())
  for (const [width, colorScheme] of [
    [1200, 'light'],
    [400, 'light'],
    [360, 'dark'],
  ] as const) {
    const page = await browser.newPage({ viewport: { width, height: 800 }, colorScheme })
    const complaints: string[] = []
    page.on('console', message => complaints.push(message.text()))
    page.on('pageerror', error => complaints.push(String(error)))
    page.on('request', request => request.url().startsWith('http') && complaints.push(request.url()))
    await page.goto(pathToFileURL(report).href)
    const seen = await page.evaluate(() => ({
      wide: document.documentElement.scrollWidth,
      images: [...document.images].map(image => [image.complete && image.naturalWidth > 0, image.alt.length > 0]),
      targets: [...document.querySelectorAll('a[href^="#"]')].map(
        link => document.getElementById(link.getAttribute('href')!.slice(1)) !== null,
      ),
      headings: document.querySelectorAll('h1').length,
      unnamed: [...document.querySelectorAll('section')].filter(
        section => !document.getElementById(section.getAttribute('aria-labelledby')!),
      ).length,
    }))
    assert.deepEqual(complaints, [])
    assert.ok(seen.wide <= width, `${seen.wide} > ${width}`)
    assert.ok(seen.images.length >= 3 && seen.images.flat().every(Boolean))
    assert.ok(seen.targets.length > 4 && seen.targets.every(Boolean))
    assert.deepEqual([seen.headings, seen.unnamed], [1, 0])
    await page.keyboard.press('Tab')
    assert.match(await page.evaluate(() => document.activeElement?.getAttribute('href') ?? ''), /^#/)
    await page.keyboard.press('Enter')
    await page.waitForURL(/#conflicts$/)
    await page.close()
  }
})
