import assert from 'node:assert/strict'
import { request } from 'node:http'
import { test } from 'node:test'
import type { RunningServer } from '../../src/serve/gateway.ts'
import { bluePng, post, serve } from './serving.ts'

const server = await serve()
const behindToken = await serve({ host: '0.0.0.0', token: 'the-one-that-is-right' })

/** fetch() does not let a caller set Host or Origin. */
function ask(to: RunningServer, path: string, headers: Record<string, string>, method = 'GET', body?: Uint8Array) {
  return new Promise<{ status: number; code?: string }>((resolve, reject) => {
    const sent = request({ port: to.port, host: '127.0.0.1', path, method, headers, agent: false }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', part => {
        text += part
      })
      response.on('end', () =>
        resolve({ status: response.statusCode!, code: text.startsWith('{"error"') ? JSON.parse(text).error.code : '' }),
      )
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

test('on loopback only names of this machine are answered, on every route', async () => {
  const own = ['localhost', `localhost:${server.port}`, '127.0.0.1:1', '127.8.9.1', '[::1]:80', 'LOCALHOST']
  for (const host of own) assert.equal((await ask(server, '/healthz', { host })).status, 200, host)
  const foreign = [
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '127.evil',
    '10.0.0.7',
    '[fe80::1]',
    'x@localhost',
    'localhost:80:80',
  ]
  for (const host of foreign)
    for (const path of ['/', '/healthz', '/version', '/model', '/metrics', '/examples/0', '/nothing'])
      assert.deepEqual(await ask(server, path, { host }), { status: 403, code: 'host_refused' }, `${host} ${path}`)
})

test('pages of other sites may neither ask nor read, by any method', async () => {
  const host = `localhost:${server.port}`
  const own = { host, origin: `http://${host}`, 'sec-fetch-site': 'same-origin' }
  assert.equal((await ask(server, '/predict', own, 'POST', bluePng)).status, 200)
  const foreign = [
    'null',
    'http://evil.example',
    `http://localhost:${server.port + 1}`,
    'file://',
    `ftp://${host}`,
    `http://${host}.evil.example`,
  ]
  for (const origin of foreign)
    for (const method of ['POST', 'GET', 'OPTIONS', 'PUT'])
      assert.deepEqual(
        await ask(server, '/predict', { host, origin }, method),
        { status: 403, code: 'origin_refused' },
        `${origin} ${method}`,
      )
  // a form of another site, or a picture tag: browsers say where it comes from even without an Origin
  for (const site of ['cross-site', 'same-site'])
    for (const path of ['/model', '/examples/0', '/metrics', '/predict'])
      assert.equal((await ask(server, path, { host, 'sec-fetch-site': site, 'sec-fetch-mode': 'no-cors' })).status, 403, `${site} ${path}`)
})

test('a link from another site to the page works', async () => {
  const visit = { host: 'localhost', 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }
  assert.equal((await ask(server, '/', visit)).status, 200)
  assert.equal((await ask(server, '/?from=mail', visit)).status, 200)
  assert.equal((await ask(server, '/model', visit)).status, 403)
  assert.equal((await ask(server, '/', { ...visit, 'sec-fetch-dest': 'iframe' })).status, 403)
})

test('beyond loopback everything about the model wants the token', async () => {
  for (const [path, method] of [
    ['/predict', 'POST'],
    ['/model', 'GET'],
    ['/metrics', 'GET'],
    ['/examples/0', 'GET'],
    ['/examples/0', 'POST'],
  ] as const)
    for (const authorization of [
      undefined,
      'Bearer',
      'Bearer wrong',
      'Bearer the-one-that-is-righ',
      'Basic dGhlLW9uZS10aGF0LWlzLXJpZ2h0',
      'the-one-that-is-right',
    ])
      assert.deepEqual(
        await ask(behindToken, path, { ...(authorization && { authorization }) }, method),
        { status: 401, code: 'token_required' },
        `${method} ${path} ${authorization}`,
      )
  for (const path of ['/', '/healthz', '/version']) assert.equal((await ask(behindToken, path, {})).status, 200, path)
  const allowed = await post({ ...behindToken, url: `http://127.0.0.1:${behindToken.port}` }, bluePng, {
    authorization: 'Bearer the-one-that-is-right',
  })
  assert.equal(allowed.status, 200)
})

test('behind a token any name will do, another origin will not', async () => {
  const headers = { host: 'photos.example', authorization: 'Bearer the-one-that-is-right' }
  assert.equal((await ask(behindToken, '/model', headers)).status, 200)
  assert.equal((await ask(behindToken, '/model', { ...headers, origin: 'https://photos.example' })).status, 200)
  assert.equal((await ask(behindToken, '/model', { ...headers, origin: 'https://evil.example' })).status, 403)
})

test('a token is taken from the environment, or made anew and different each time', async () => {
  const made = await serve({ host: '0.0.0.0' })
  const again = await serve({ host: '0.0.0.0' })
  assert.ok(made.tokenIsNew && made.token!.length >= 32 && made.token !== again.token)
  process.env['PLINTH_TOKEN'] = 'from-the-environment'
  try {
    const known = await serve({ host: '0.0.0.0' })
    assert.deepEqual([known.token, known.tokenIsNew], ['from-the-environment', false])
    assert.equal((await serve()).token, null, 'on loopback there is none')
  } finally {
    delete process.env['PLINTH_TOKEN']
  }
})

test('a token that is short or cannot be sent is refused before anything listens', async () => {
  for (const token of ['', 'short', 'with blanks in the middle', 'with-a-line\nbreak-in-it', 'ünsendable-characters'])
    await assert.rejects(serve({ token }), { code: 'token_invalid' }, token)
})
