/**
 * What pages of other sites, other names of this machine, forms, WebSockets and hostile bodies get from the control plane, on every route of
 * its table; and that nothing anybody sends makes it open a connection.
 */
import assert from 'node:assert/strict'
import { channel } from 'node:diagnostics_channel'
import { mkdtempSync, rmSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { foreignRoutesOf, routesOf, startControlPlane } from '../../src/control-plane.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import { openHome } from '../../src/track/home.ts'
import { createRunLog } from '../../src/track/log.ts'

const folder = mkdtempSync(join(tmpdir(), 'guards-'))
const home = await openHome(folder)
const server = await startControlPlane(home, { host: '127.0.0.1', port: 0, limits: { requests: 1e6, failures: 1e6 } })
const { port } = new URL(server.url)
after(async () => {
  await server.close()
  await home.close()
  rmSync(folder, { recursive: true, force: true })
})
const own = `127.0.0.1:${port}`
const bearer = { authorization: `Bearer ${server.token}` }
const json = { 'content-type': 'application/json' }

const log = createRunLog(home.db)
const table = [
  ...routesOf(home, log).map(({ call: { method, path, right } }) => ({ method, path, right, body: 'json' as const })),
  ...foreignRoutesOf(home, log, memoryObjects()).map(({ method, path, right, body }) => ({ method, path, right, body })),
].map(route => ({ ...route, url: route.path.replace(/:\w+/g, 'x').replace('*', '0/x') }))

/** fetch() does not let a caller set Host, Origin or Upgrade. */
function ask(method: string, path: string, headers: Record<string, string>, body?: string) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const sent = request({ port, host: '127.0.0.1', path, method, headers, agent: false })
    const read = (answer: IncomingMessage) => {
      let text = ''
      answer.setEncoding('utf8').on('data', part => (text += part))
      answer.on('end', () => resolve({ status: answer.statusCode!, text })).on('error', reject)
    }
    sent.on('response', read).on('upgrade', (answer, socket) => {
      socket.destroy()
      resolve({ status: answer.statusCode!, text: '' })
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

test('no route answers under a name that is not this machine’s, whatever the token', async () => {
  for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', '10.0.0.7', '127.evil'])
    for (const { method, url } of table) {
      const { status, text } = await ask(method, url, { ...bearer, host })
      assert.equal(status, 403, `${host} ${method} ${url} ${text}`)
    }
  assert.equal((await ask('GET', '/api/server', { ...bearer, host: 'LOCALHOST:1' })).status, 200)
})

test('pages of other sites neither change nor read anything, by any method, even with a token', async () => {
  const foreign = [
    ...['null', 'http://evil.example', `http://127.0.0.1:${Number(port) + 1}`, `ftp://${own}`].map(origin => ({ origin })),
    ...['cross-site', 'same-site'].map(site => ({ 'sec-fetch-site': site, 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' })),
  ]
  for (const headers of foreign)
    for (const { method, url } of table) {
      const { status, text } = await ask(method, url, { ...bearer, host: own, ...headers })
      assert.equal(status, 403, `${JSON.stringify(headers)} ${method} ${url} ${text}`)
    }
  for (const method of ['OPTIONS', 'TRACE', 'PURGE'])
    assert.notEqual((await ask(method, '/api/runs', { ...bearer, host: own, origin: `http://${own}` })).status, 200, method)
  const same = { host: own, origin: `http://${own}`, 'sec-fetch-site': 'same-origin' }
  assert.equal((await ask('GET', '/api/server', { ...bearer, ...same })).status, 200)
})

test('what a form can send is no request of ours', async () => {
  for (const type of ['application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'text/plain'])
    for (const { method, url, body } of table) {
      if (method === 'GET' || body === 'stream' || body === 'none') continue
      const { status } = await ask(method, url, { ...bearer, host: own, 'content-type': type }, 'name=x')
      assert.ok(status >= 400 && status < 500, `${type} ${method} ${url}: ${status}`)
    }
})

test('a WebSocket is opened nowhere, and asking for one gets past no check', async () => {
  const upgrade = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'eDEyMzQ1Njc4OTAxMjM0NQ==',
  }
  for (const { method, url, right } of table) {
    if (method !== 'GET' || right === 'public') continue
    assert.equal((await ask(method, url, { host: own, ...upgrade })).status, 401, url)
    assert.equal((await ask(method, url, { ...bearer, host: own, ...upgrade, origin: 'http://evil.example' })).status, 403, url)
    assert.notEqual((await ask(method, url, { ...bearer, host: own, ...upgrade })).status, 101, url)
  }
})

test('nothing that is sent makes the server open a connection, whatever it is called', async () => {
  const opened: unknown[] = []
  let asking = true
  const seen = (message: unknown) => asking || opened.push(message)
  channel('net.client.socket').subscribe(seen)
  try {
    const place = 'http://127.0.0.1:59999/metadata'
    const fields = [
      'source',
      'artifact_location',
      'uri',
      'url',
      'path',
      'name',
      'run_link',
      'key',
      'value',
      'location',
      'source_type',
      'filter',
    ]
    const forms = [
      place,
      'https://[::ffff:127.0.0.1]:59999/x',
      'http://169.254.169.254/latest',
      's3://bucket/x',
      'ftp://127.0.0.1:59999/x',
      '//127.0.0.1:59999/x',
    ]
    for (const form of forms)
      for (const { method, url } of table) {
        const given = Object.fromEntries(fields.map(field => [field, form]))
        const read = method === 'GET' || method === 'DELETE'
        asking = true // our own socket is made at once, what the server would open comes later
        const answer = ask(
          method,
          read ? `${url}?${new URLSearchParams(given)}` : url,
          { ...bearer, host: own, ...json },
          read ? undefined : JSON.stringify({ ...given, experiment_id: '0', dataset: { source: form }, tags: [{ key: 'k', value: form }] }),
        )
        asking = false
        const { status, text } = await answer
        assert.ok(status < 500 || status === 501, `${method} ${url}: ${status} ${text}`)
      }
    assert.deepEqual(opened, [])
    await assert.rejects(fetch(place)) // and this is how one would be seen
    assert.equal(opened.length, 1)
  } finally {
    channel('net.client.socket').unsubscribe(seen)
  }
})

test('a body that reaches for prototypes, or is nested without end, is refused at once', async () => {
  const deep = `${'{"tags":'.repeat(200_000)}1${'}'.repeat(200_000)}`
  const bodies = [
    '{"__proto__":{"polluted":1}}',
    '{"tags":{"__proto__":{"polluted":1}}}',
    '{"constructor":{"prototype":{"polluted":1}}}',
    deep,
    '['.repeat(1e6),
  ]
  const began = process.cpuUsage()
  for (const body of bodies)
    for (const path of ['/api/experiments', '/api/runs', '/api/runs/search']) {
      const { status } = await ask('POST', path, { ...bearer, host: own, ...json }, body)
      assert.equal(status, 400, `${path} ${body.slice(0, 60)}`)
    }
  for (const body of bodies) {
    const { status } = await ask('POST', '/api/2.0/mlflow/experiments/create', { ...bearer, host: own, ...json }, body)
    assert.equal(status, 400, body.slice(0, 60))
  }
  const { user, system } = process.cpuUsage(began)
  assert.ok(user + system < 10e6, `${(user + system) / 1e6} s of processor`)
  assert.equal(({} as { polluted?: number }).polluted, undefined)
})
