import assert from 'node:assert/strict'
import { test } from 'node:test'
import sharp from 'sharp'
import { encodePng } from '../../src/images/encode.ts'
import { PredictAnswer } from '../../src/sdk/index.ts'
import { noise, plain } from '../models/tiny-model.ts'
import { blueJpeg, bluePng, file, form, post, raw, serve } from './serving.ts'

const server = await serve()

test('a raw JPEG is answered with a label, all probabilities and the time it took', async () => {
  const { status, body } = await post(server, blueJpeg, { 'content-type': 'image/jpeg' })
  assert.equal(status, 200)
  const answer = PredictAnswer.parse(body)
  assert.equal(answer.label, 'blue')
  assert.equal(answer.unknown, false)
  assert.equal(answer.model, 'colours@2')
  assert.ok(answer.milliseconds > 0)
  assert.deepEqual(answer.probabilities.map(row => row.label).sort(), ['blue', 'green', 'red'])
  assert.ok(Math.abs(answer.probabilities.reduce((sum, row) => sum + row.probability, 0) - 1) < 1e-6)
})

test('the same picture as a form, under any field name, gets the same answer', async () => {
  const direct = await post(server, bluePng)
  for (const name of ['image', 'file', 'photo of mine']) {
    const { status, body } = await post(server, form(bluePng, name))
    assert.equal(status, 200)
    assert.deepEqual(body.probabilities, direct.body.probabilities)
  }
})

test('the type of a picture is told from its content, whatever the header says', async () => {
  for (const type of ['image/jpeg', 'text/plain', 'application/x-www-form-urlencoded', 'application/json', 'image/png; charset=utf-8']) {
    const { status, body } = await post(server, bluePng, { 'content-type': type })
    assert.equal(status, 200, type)
    assert.equal(body.label, 'blue')
  }
})

test('WebP, GIF and TIFF are read too', async () => {
  const picture = sharp(bluePng)
  for (const bytes of [await picture.webp().toBuffer(), await picture.gif().toBuffer(), await picture.tiff().toBuffer()])
    assert.equal((await post(server, bytes)).body.label, 'blue')
})

test('a grey picture is not sure of any colour and says so, with a label all the same', async () => {
  const { body } = await post(server, await encodePng(plain(30, 30, [128, 128, 128])))
  assert.equal(body.unknown, true)
  assert.ok(['red', 'green', 'blue'].includes(body.label))
})

test('what is no picture is refused with a code and the next step', async () => {
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
  const cases: [string, Uint8Array | string, number, string][] = [
    ['text', 'not an image', 400, 'image_unreadable'],
    ['nothing', '', 400, 'body_missing'],
    ['SVG', svg, 415, 'image_format'],
    ['a cut JPEG', blueJpeg.subarray(0, 60), 400, 'image_unreadable'],
    ['a PNG in name only', Buffer.concat([bluePng.subarray(0, 40), Buffer.alloc(500)]), 400, 'image_unreadable'],
  ]
  for (const [what, bytes, status, code] of cases) {
    const answer = await post(server, bytes)
    assert.equal(answer.status, status, what)
    assert.equal(answer.body.error.code, code, what)
    assert.ok(answer.body.error.message && answer.body.error.next, what)
    assert.doesNotMatch(JSON.stringify(answer.body), /\/(home|root|tmp|work)\//, what)
  }
})

test('a decompression bomb is refused before it is unpacked', async () => {
  const bomb = await sharp({ create: { width: 16000, height: 16000, channels: 3, background: '#000' }, limitInputPixels: false })
    .png({ compressionLevel: 9 })
    .toBuffer()
  const started = performance.now()
  const { status, body } = await post(server, bomb)
  assert.equal(status, 413)
  assert.equal(body.error.code, 'image_too_large')
  assert.ok(performance.now() - started < 2000)
})

test('more bytes than allowed are refused, said in advance or not', async () => {
  const small = await serve({ limits: { request: 10_000 } })
  const declared = await post(small, new Uint8Array(20_000))
  assert.equal(declared.status, 413)
  assert.equal(declared.body.error.code, 'body_too_large')

  const parts = Array.from({ length: 30 }, () => `1000\r\n${'x'.repeat(4096)}\r\n`).join('')
  const chunked = await raw(small, `POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n${parts}0\r\n\r\n`)
  assert.match(chunked, /^HTTP\/1\.1 413 /)
  assert.match(chunked, /body_too_large/)

  const asked = await raw(small, 'POST /predict HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 20000\r\n\r\n', {
    milliseconds: 300,
  })
  assert.match(asked, /^HTTP\/1\.1 413 /, 'no "continue" for what will be refused')
  assert.equal((await post(small, bluePng)).status, 200)
})

test('a client that asks before it sends is told to go on', async () => {
  const head = `POST /predict HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: ${bluePng.length}\r\n\r\n`
  const text = await raw(server, Buffer.concat([Buffer.from(head), bluePng]))
  assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/)
})

test('a compressed body is refused, not unpacked', async () => {
  const { status, body } = await post(server, bluePng, { 'content-encoding': 'gzip' })
  assert.equal(status, 415)
  assert.equal(body.error.code, 'body_encoded')
})

test('forms that are broken or ask for too much are refused', async () => {
  const part = (name: string, content = 'x') => `--b\r\ncontent-disposition: form-data; name="${name}"; filename="a"\r\n\r\n${content}\r\n`
  const field = '--b\r\ncontent-disposition: form-data; name="f"\r\n\r\nx\r\n'
  const type = 'multipart/form-data; boundary=b'
  const cases: [string, string, string, string][] = [
    ['no boundary', 'multipart/form-data', part('a'), 'multipart_invalid'],
    ['an empty boundary', 'multipart/form-data; boundary=', part('a'), 'multipart_invalid'],
    ['a boundary of 100', `multipart/form-data; boundary=${'b'.repeat(100)}`, part('a'), 'multipart_invalid'],
    ['another multipart', 'multipart/mixed; boundary=b', part('a'), 'multipart_invalid'],
    ['no end', type, part('a'), 'multipart_invalid'],
    ['no file', type, `${field}--b--\r\n`, 'body_missing'],
    ['an empty file', type, `${part('a', '')}--b--\r\n`, 'body_missing'],
    ['two files', type, `${part('a')}${part('b')}--b--\r\n`, 'multipart_invalid'],
    ['a thousand fields', type, `${field.repeat(1000)}--b--\r\n`, 'multipart_invalid'],
    ['another boundary than said', type, '--c\r\n\r\nx\r\n--c--\r\n', 'multipart_invalid'],
    ['a thousand headers', type, `--b\r\n${'x-y: z\r\n'.repeat(1000)}\r\nx\r\n--b--\r\n`, 'body_missing'],
    ['prototype', type, '--b\r\ncontent-disposition: form-data; name="__proto__"\r\n\r\nx\r\n--b--\r\n', 'body_missing'],
  ]
  for (const [what, contentType, body, code] of cases) {
    const answer = await post(server, body, { 'content-type': contentType })
    assert.equal(answer.status, 400, `${what}: ${JSON.stringify(answer.body)}`)
    assert.equal(answer.body.error.code, code, what)
  }
})

test('sixty requests at once are all answered, each with its own picture', async () => {
  const patient = await serve({ limits: { maxWaiting: 100 } })
  const colours = [
    ['red', [240, 9, 9]],
    ['green', [9, 240, 9]],
    ['blue', [9, 9, 240]],
  ] as const
  const answers = await Promise.all(
    Array.from({ length: 60 }, async (_, i) => {
      const [label, rgb] = colours[i % 3]!
      const { status, body } = await post(patient, await encodePng(plain(10 + i, 70 - i, rgb)))
      return { status, label: body.label, expected: label }
    }),
  )
  for (const { status, label, expected } of answers) {
    assert.equal(status, 200)
    assert.equal(label, expected)
  }
})

test('the page, the health check and the version are there, and other addresses say what is', async () => {
  const get = async (path: string, method = 'GET') => {
    const response = await fetch(server.url + path, { method })
    return { status: response.status, headers: response.headers, text: await response.text() }
  }
  assert.match((await get('/')).text, /<html lang="en">/)
  assert.deepEqual(JSON.parse((await get('/healthz')).text), { ready: true, model: 'colours@2' })
  assert.equal(JSON.parse((await get('/version')).text).model, 'colours@2')
  assert.deepEqual(JSON.parse((await get('/model')).text).labels, ['red', 'green', 'blue'])
  assert.equal((await get('/healthz', 'HEAD')).text, '')

  const lost = await get('/favicon.ico')
  assert.equal(lost.status, 404)
  assert.equal(JSON.parse(lost.text).error.code, 'route_not_found')
  for (const path of ['/predict/', '//', '/../etc/passwd', '/examples/0', '/examples/__proto__', '/constructor', '/__proto__'])
    assert.equal((await get(path)).status, 404, path)

  const wrong = await get('/predict')
  assert.equal(wrong.status, 405)
  assert.equal(wrong.headers.get('allow'), 'POST')
  for (const method of ['PUT', 'DELETE', 'OPTIONS', 'PATCH']) assert.equal((await get('/predict', method)).status, 405, method)
})

test('every answer carries the headers that keep browsers from guessing', async () => {
  for (const [path, method] of [
    ['/', 'GET'],
    ['/healthz', 'GET'],
    ['/predict', 'POST'],
    ['/nothing', 'GET'],
  ] as const) {
    const { headers } = await fetch(server.url + path, { method })
    assert.match(headers.get('content-security-policy')!, /default-src 'none'.*frame-ancestors 'none'/, path)
    assert.doesNotMatch(headers.get('content-security-policy')!, /unsafe/, path)
    assert.equal(headers.get('x-content-type-options'), 'nosniff', path)
    assert.equal(headers.get('referrer-policy'), 'no-referrer', path)
    assert.equal(headers.get('cross-origin-resource-policy'), 'same-origin', path)
    assert.equal(headers.get('access-control-allow-origin'), null, path)
  }
})

test('the counters add up', async () => {
  const counted = await serve()
  for (let i = 0; i < 3; i++) await post(counted, bluePng)
  await post(counted, 'rubbish')
  const text = await (await fetch(`${counted.url}/metrics`)).text()
  assert.match(text, /plinth_requests_total\{route="\/predict",status="200"\} 3\n/)
  assert.match(text, /plinth_requests_total\{route="\/predict",status="400"\} 1\n/)
  assert.match(text, /plinth_predict_seconds_count\{model="colours@2"\} 3\n/)
  assert.match(text, /plinth_model_ready\{model="colours@2"\} 1\n/)
  for (const line of text.trim().split('\n')) assert.match(line, /^(# (HELP|TYPE) \w+ .+|\w+\{[^}]*\} [\d.e-]+)$/)
  const stats = await counted.close()
  assert.equal(stats.predictions, 3)
  assert.equal(stats.failures, 1)
  assert.ok(stats.p50! > 0 && stats.p95! >= stats.p50!)
})

test('the examples are shown as copies and predicted from their files', async () => {
  const example = { title: 'a/b.png', label: 'red', predicted: 'blue', probability: 0.9 }
  const shown = await serve({
    examples: [
      { ...example, path: file('example.png', await encodePng(noise(700, 500))) },
      { ...example, path: file('gone.png', new Uint8Array()) },
    ],
  })
  const picture = await fetch(`${shown.url}/examples/0`)
  assert.equal(picture.headers.get('content-type'), 'image/webp')
  const { format, width, height } = await sharp(Buffer.from(await picture.arrayBuffer())).metadata()
  assert.deepEqual([format, width, height], ['webp', 512, 366])

  const asked = await fetch(`${shown.url}/examples/0`, { method: 'POST' })
  const direct = await post(shown, await encodePng(noise(700, 500)))
  assert.deepEqual(((await asked.json()) as PredictAnswer).probabilities, direct.body.probabilities)
  assert.equal((await fetch(`${shown.url}/examples/1`)).status, 400)
  assert.equal((await fetch(`${shown.url}/examples/2`)).status, 404)
  const { examples } = (await (await fetch(`${shown.url}/model`)).json()) as { examples: object[] }
  assert.deepEqual(examples[0], example, 'no path of this machine')
})
