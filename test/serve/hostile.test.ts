import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../src/failure.ts'
import { pictureIn } from '../../src/serve/requests.ts'
import { blueJpeg, bluePng, form, post, raw, serve } from './serving.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const server = await serve({ limits: { body: 600, headers: 400 } })
const alive = async () => assert.equal((await post(server, bluePng)).body.label, 'blue')
const post1 = (headers: string, body = '') => `POST /predict HTTP/1.1\r\nhost: localhost\r\n${headers}\r\n\r\n${body}`

test('requests that are not HTTP, or lie about themselves, get a coded refusal', async () => {
  const cases: [string, string | Uint8Array, RegExp][] = [
    ['noise', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', /^HTTP\/1\.1 400 /],
    ['HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', /^HTTP\/1\.1 (400|404|405|505) /],
    ['no host', 'POST /predict HTTP/1.1\r\ncontent-length: 0\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['an empty host', 'GET /model HTTP/1.1\r\nhost:\r\n\r\n', /^HTTP\/1\.1 403 /],
    ['two hosts', 'GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n', /^HTTP\/1\.1 (400|403|200) /],
    ['two lengths', post1('content-length: 5\r\ncontent-length: 6', 'hello!'), /^HTTP\/1\.1 400 /],
    ['length and chunks', post1('content-length: 5\r\ntransfer-encoding: chunked', '0\r\n\r\n'), /^HTTP\/1\.1 400 /],
    ['negative length', post1('content-length: -1', 'x'), /^HTTP\/1\.1 400 /],
    ['length in words', post1('content-length: many', 'x'), /^HTTP\/1\.1 400 /],
    ['enormous length', post1('content-length: 99999999999999999999', 'x'), /^HTTP\/1\.1 4(00|13) /],
    ['large length', post1('content-length: 9007199254740991', 'x'), /^HTTP\/1\.1 413 /],
    ['bad chunk', post1('transfer-encoding: chunked', 'zz\r\nx\r\n'), /^HTTP\/1\.1 400 /],
    ['endless chunk size', post1('transfer-encoding: chunked', `${'f'.repeat(400)}\r\n`), /^HTTP\/1\.1 400 /],
    ['smuggled', post1('transfer-encoding : chunked', '0\r\n\r\n'), /^HTTP\/1\.1 400 /],
    ['bare line feeds', 'GET /healthz HTTP/1.1\nhost: localhost\n\n', /^HTTP\/1\.1 400 /],
    ['folded header', 'GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n', /^HTTP\/1\.1 (400|200) /],
    ['NUL in a header', 'GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['long headers', `GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
    ['many headers', `GET /healthz HTTP/1.1\r\nhost: localhost\r\n${'a-header: of some length\r\n'.repeat(5000)}\r\n`, /^HTTP\/1\.1 431 /],
    ['long address', `GET /${'a'.repeat(20_000)} HTTP/1.1\r\nhost: localhost\r\n\r\n`, /^HTTP\/1\.1 4(31|14|00) /],
    ['whole address', 'GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n', /^HTTP\/1\.1 404 /],
    ['star', 'OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n', /^HTTP\/1\.1 404 /],
    ['upgrade', 'GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n', /^(HTTP\/1\.1 (200|400|404) |$)/],
    ['connect', 'CONNECT evil.example:80 HTTP/1.1\r\nhost: localhost\r\n\r\n', /^(HTTP\/1\.1 4|$)/],
    ['odd expectation', post1('expect: a miracle\r\ncontent-length: 0'), /^HTTP\/1\.1 4(00|17) /],
  ]
  for (const [what, bytes, expected] of cases) {
    const text = await raw(server, bytes, { milliseconds: 150 })
    assert.match(text, expected, `${what}: ${text.slice(0, 80)}`)
    assert.doesNotMatch(text, / {4}at |node:|\.ts:/, what)
  }
  await alive()
})

test('a body that arrives too slowly is cut off', async () => {
  const text = await raw(server, post1('content-length: 1000', 'a few bytes'), { milliseconds: 5000 })
  assert.match(text, /^HTTP\/1\.1 408 /)
  assert.match(text, /request_too_slow/)
  assert.match(await raw(server, 'POST /predict HTTP/1.1\r\nhost: loc', { milliseconds: 5000 }), /^HTTP\/1\.1 408 /)
  await alive()
})

test('a client that leaves in the middle leaves nothing behind', async () => {
  for (let i = 0; i < 30; i++)
    await raw(server, post1('content-length: 100000', 'x'.repeat(i * 100)), { milliseconds: 5, end: i % 2 === 0 })
  await alive()
})

test('bytes of many requests together are bounded', async () => {
  const tight = await serve({ limits: { request: 1_000_000, together: 2_500_000 } })
  const answers = await Promise.all(Array.from({ length: 12 }, () => post(tight, Buffer.concat([bluePng, Buffer.alloc(900_000)]))))
  for (const { status, body } of answers) assert.ok(status === 200 || status === 400 || body.error.code === 'overloaded', String(status))
  // everything was given back
  for (let i = 0; i < 5; i++) assert.equal((await post(tight, bluePng)).status, 200)
})

test('changed pictures get an answer or a coded refusal, and the host lives', async () => {
  const runs = long ? 5000 : 150
  const kinds = [blueJpeg, bluePng]
  const spots = fc.array(fc.record({ at: fc.nat(), value: fc.nat(255) }), { minLength: 1, maxLength: 8 })
  await fc.assert(
    fc.asyncProperty(fc.nat(1), spots, fc.option(fc.nat()), async (kind, changes, length) => {
      const bytes = Buffer.from(kinds[kind]!)
      for (const { at, value } of changes) bytes[at % bytes.length] = value
      const { status, body } = await post(server, length === null ? bytes : bytes.subarray(0, 1 + (length % bytes.length)))
      assert.ok(status === 200 ? body.label : status >= 400 && status < 500 && body.error.code, `${status} ${JSON.stringify(body)}`)
    }),
    { numRuns: runs },
  )
  const restarts = /plinth_model_restarts_total\{[^}]*\} (\d+)/.exec(await (await fetch(`${server.url}/metrics`)).text())![1]
  assert.equal(restarts, '0')
})

test('changed forms give a picture or a coded refusal', async () => {
  const response = new Response(form(bluePng))
  const type = response.headers.get('content-type')!
  const body = Buffer.from(await response.arrayBuffer())
  const head = body.indexOf('\r\n\r\n') + 4
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ at: fc.oneof(fc.nat(head), fc.integer({ min: body.length - 60, max: body.length - 1 })), value: fc.nat(255) }), {
        maxLength: 5,
      }),
      fc.integer({ min: 1, max: body.length }),
      async (changes, length) => {
        const mutant = Buffer.from(body)
        for (const { at, value } of changes) mutant[at] = value
        try {
          assert.ok((await pictureIn(mutant.subarray(0, length), type)).length > 0)
        } catch (error) {
          assert.ok(error instanceof Failure, String(error))
          assert.match(error.code, /^(multipart_invalid|body_missing)$/)
        }
      },
    ),
    { numRuns: long ? 100_000 : 1500 },
  )
})

test('random bytes on sockets neither end the process nor fill its memory', async () => {
  const pieces = ['POST /predict HTTP/1.1\r\n', 'GET / HTTP/1.1\r\n', 'host: localhost\r\n', 'content-length: 10\r\n', 'transfer-encoding: chunked\r\n', '\r\n', '0\r\n\r\n', '\0', 'a', 'x: y\r\n', 'expect: 100-continue\r\n', 'content-type: multipart/form-data; boundary=b\r\n', '--b\r\n', '5\r\nhello\r\n', 'connection: close\r\n'] // biome-ignore format: a list of pieces
  const runs = long ? 3000 : 120
  const burst = async (seed: number) => {
    for (const parts of fc.sample(fc.array(fc.constantFrom(...pieces), { minLength: 1, maxLength: 12 }), { numRuns: runs, seed })) {
      const text = await raw(server, parts.join(''), { milliseconds: 5, end: true })
      for (const [, status] of text.matchAll(/^HTTP\/1\.1 (\d+) /gm)) assert.ok(Number(status) < 500, text)
    }
  }
  await burst(1)
  await alive()
  await burst(2)
  await alive()
})

test('memory stays flat over many pictures, good and bad', async t => {
  if (process.platform !== 'linux') return t.skip('resident memory is read from /proc')
  const metrics = await (await fetch(`${server.url}/metrics`)).text()
  const host = Number(/plinth_host_pid\{[^}]*\} (\d+)/.exec(metrics)![1])
  const resident = (pid: number) => Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096
  const load = async (rounds: number) => {
    for (let i = 0; i < rounds; i++)
      await Promise.all(
        [bluePng, blueJpeg, bluePng.subarray(0, 200), Buffer.from('x'), blueJpeg, bluePng].map(bytes => post(server, bytes)),
      )
  }
  await load(60)
  const before = resident(host)
  await load(long ? 3000 : 200)
  const grown = resident(host) - before
  assert.ok(grown < 25 * 2 ** 20, `${Math.round(grown / 2 ** 20)} MiB`)
})
