import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Browser, chromium as browserOf, type Page } from 'playwright-core'
import { encodePng } from '../../src/images/encode.ts'
import type { RunningServer } from '../../src/serve/gateway.ts'
import { plain } from '../models/tiny-model.ts'
import { chromium } from '../peers.ts'
import { blueJpeg, bluePng, file, halfRed, knowing, serve } from './serving.ts'

const executablePath = chromium()
const options = { skip: executablePath ? false : 'no Chromium', timeout: 60_000 }
// biome-ignore format: flags
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic']
// a camera that shows a test picture, so that the button can be pressed
const camera = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']

let browser: Browser
before(async () => {
  if (executablePath) browser = await browserOf.launch({ executablePath, args: [...flags, ...camera] })
})
after(() => browser?.close())

const jpeg = file('blue.jpg', blueJpeg)
const example = {
  path: file('red.png', await encodePng(plain(40, 40, [250, 0, 0]))),
  title: 'red/1.png',
  label: 'green',
  predicted: 'red',
  probability: 0.9,
}

const server = await serve({ examples: [example] })

/** The page, ready; anything that the browser complains about on the way fails the test that opened it. */
async function open(server: RunningServer, { width = 1280, height = 900, fragment = '' } = {}) {
  const page = await browser.newPage({ viewport: { width, height } })
  const complaints: string[] = []
  page.on('pageerror', error => complaints.push(error.message))
  page.on('console', message => message.type() === 'error' && !/status of 4\d\d/.test(message.text()) && complaints.push(message.text()))
  const elsewhere: string[] = []
  page.on('request', request => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).port !== String(server.port)) elsewhere.push(request.url())
  })
  await page.goto(`http://localhost:${server.port}/${fragment}`)
  return { page, complaints, elsewhere }
}
const shown = (page: Page, label: string) => page.locator('#label', { hasText: label }).waitFor({ timeout: 5000 })

test('a chosen picture gets its label, its bars and the time', options, async () => {
  const { page, complaints, elsewhere } = await open(server)
  await page.locator('h1', { hasText: 'colours@2' }).waitFor()
  await page.setInputFiles('#file', jpeg)
  await shown(page, 'blue')
  assert.match((await page.textContent('#verdict'))!, /% sure, in [\d.]+ ms/)
  assert.deepEqual(await page.locator('#bars .name').allTextContents(), ['blue', 'red', 'green'])
  const widths = await page.locator('#bars .fill').evaluateAll(fills => fills.map(fill => fill.getBoundingClientRect().width))
  assert.ok(widths[0]! > 10 * widths[1]!, String(widths))
  assert.deepEqual(complaints, [], 'the content policy allows what the page does')
  assert.deepEqual(elsewhere, [], 'nothing is loaded from elsewhere')
  await page.close()
})

test('pictures may be dropped anywhere or pasted', options, async () => {
  const { page } = await open(server)
  const bring = (kind: 'drop' | 'paste', name: string) =>
    page.evaluate(
      ({ kind, base64, name }) => {
        const data = new DataTransfer()
        data.items.add(new File([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], name, { type: 'image/png' }))
        const event =
          kind === 'drop'
            ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent('paste', { clipboardData: data, bubbles: true })
        document.body.dispatchEvent(event)
      },
      { kind, base64: Buffer.from(bluePng).toString('base64'), name },
    )
  await bring('drop', 'dropped.png')
  await shown(page, 'blue')
  assert.equal(await page.getAttribute('#picture', 'alt'), 'dropped.png')
  await page.reload()
  await page.locator('h1', { hasText: 'colours@2' }).waitFor()
  await bring('paste', 'pasted.png')
  await shown(page, 'blue')
  assert.equal(await page.getAttribute('#picture', 'alt'), 'pasted.png')
  await page.close()
})

test('the camera takes a picture', options, async () => {
  const { page, complaints } = await open(server)
  await page.locator('h1', { hasText: 'colours@2' }).waitFor()
  await page.click('#camera')
  await page.locator('#finder[open]').waitFor()
  await page.click('#shoot')
  await page.locator('#bars li').first().waitFor()
  assert.equal(await page.locator('#finder[open]').count(), 0)
  assert.deepEqual(complaints, [])
  await page.close()
})

test('an unsure answer is called that, with the closest label beside it', options, async () => {
  const { page } = await open(server)
  await page.setInputFiles('#file', file('grey.png', await encodePng(plain(30, 30, [128, 128, 128]))))
  await shown(page, 'Not sure')
  assert.match((await page.textContent('#verdict'))!, /Closest is (red|green|blue) with 33\.3 %/)
  await page.close()
})

test('a picture of something else is called none of these, with the nearest label beside it', options, async () => {
  const { page } = await open(await serve({ model: knowing }))
  await page.setInputFiles('#file', file('yellow.png', await encodePng(plain(30, 30, [250, 250, 10]))))
  await shown(page, 'None of these')
  const said = (await page.textContent('#verdict'))!
  assert.match(said, /does not look like anything the model has learned: it is farther away than 95 % of the pictures it knows/)
  assert.match(said, /Nearest is (red|green|blue)/)
  await page.close()
})

test('why is shown over the picture when asked for, for each label, and goes with the next picture', options, async () => {
  const { page, complaints } = await open(await serve({ model: knowing }))
  await page.setInputFiles('#file', file('half-red.png', await encodePng(halfRed)))
  await page.locator('#show-why').waitFor()
  assert.equal(await page.locator('#heat').isVisible(), false)
  await page.click('#show-why')
  await page.locator('#why-labels button').first().waitFor()
  assert.match((await page.textContent('#verdict'))!, /farther away than (all|\d+ %) of the pictures it knows\. Nearest is red/)
  assert.match((await page.textContent('#why-exact'))!, /“red” rather than the others. Exact for the score: the parts add up to \+\d/)
  /** Red minus blue, times how much it covers, on the left and on the right of the map. */
  const heat = () =>
    page.evaluate(() => {
      const canvas = document.querySelector('#heat') as HTMLCanvasElement
      const at = (x: number) => {
        const [r, , b, a] = canvas.getContext('2d')!.getImageData(canvas.width * x, canvas.height / 2, 1, 1).data
        return ((r! - b!) * a!) / 255
      }
      return [at(0.2), at(0.8)] as const
    })
  const [left, right] = await heat()
  assert.ok(left > 60 && Math.abs(right) < 20, `${left}, ${right}`)
  await page.locator('#why-labels button', { hasText: 'green' }).click()
  const against = await heat()
  assert.ok(against[0] < -20, `${against}`)
  await page.setInputFiles('#file', jpeg)
  await shown(page, 'blue')
  assert.equal(await page.locator('#heat').isVisible(), false)
  assert.equal(await page.textContent('#show-why'), 'Show why')
  assert.deepEqual(complaints, [], 'the content policy allows what the page does')
  await page.close()
})

test('a refusal shows what is wrong and what to do, and the next picture works', options, async () => {
  const { page } = await open(server)
  await page.setInputFiles('#file', file('text.jpg', Buffer.from('hello')))
  await page.locator('.failed').waitFor()
  assert.match((await page.textContent('#label'))!, /cannot be read/)
  assert.match((await page.textContent('#verdict'))!, /save it\s+again/)
  await page.setInputFiles('#file', jpeg)
  await shown(page, 'blue')
  await page.close()
})

test('the examples are pictures, and asking for one answers as the file does', options, async () => {
  const { page } = await open(server)
  const image = page.locator('#examples img')
  await image.waitFor()
  await page.waitForFunction(() => (document.querySelector('#examples img') as HTMLImageElement).naturalWidth === 40)
  await page.locator('#examples button').focus()
  await page.keyboard.press('Enter')
  await shown(page, 'red')
  assert.match((await page.textContent('#verdict'))!, /labelled green/)
  await page.close()
})

test('everything can be reached by keyboard, and has a name', options, async () => {
  const { page } = await open(server)
  await page.locator('#examples img').waitFor()
  const reached: string[] = []
  for (let i = 0; i < 4; i++) {
    await page.keyboard.press('Tab')
    reached.push(await page.evaluate(() => document.activeElement!.id || document.activeElement!.parentElement!.parentElement!.id))
  }
  assert.deepEqual(reached, ['file', 'camera', 'examples', 'copy'])
  const nameless = await page.evaluate(
    () =>
      [...document.querySelectorAll('button, input, img')].filter(
        e => e.checkVisibility() && !e.getAttribute('aria-label') && !e.getAttribute('alt') && !e.textContent!.trim(),
      ).length,
  )
  assert.equal(nameless, 0)
  await page.close()
})

test('on a phone nothing is wider than the screen', options, async () => {
  const { page } = await open(server, { width: 400, height: 800 })
  await page.setInputFiles('#file', jpeg)
  await shown(page, 'blue')
  assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 400)
  await page.close()
})

test('with a token the page asks for it, or takes it from the address and forgets it there', options, async () => {
  const server = await serve({ token: 'a/secret+and.some~more==', examples: [example] })
  const asked = await open(server)
  await asked.page.locator('#token').fill('wrong')
  await asked.page.keyboard.press('Enter')
  await asked.page.locator('.failed').waitFor()
  await asked.page.locator('#token').fill('a/secret+and.some~more==')
  await asked.page.keyboard.press('Enter')
  await asked.page.locator('h1', { hasText: 'colours@2' }).waitFor()
  await asked.page.setInputFiles('#file', jpeg)
  await shown(asked.page, 'blue')
  assert.match((await asked.page.textContent('#curl'))!, /Bearer \$PLINTH_TOKEN/)
  await asked.page.close()

  const given = await open(server, { fragment: `#token=${encodeURIComponent('a/secret+and.some~more==')}` })
  await given.page.locator('h1', { hasText: 'colours@2' }).waitFor()
  assert.doesNotMatch(given.page.url(), /secret/)
  await given.page.close()
})

test('the curl line on the page is the one that works', options, async () => {
  const { page } = await open(server)
  await page.locator('h1', { hasText: 'colours@2' }).waitFor()
  assert.equal(await page.textContent('#curl'), `curl -F image=@picture.jpg http://localhost:${server.port}/predict`)
  await page.close()
})
