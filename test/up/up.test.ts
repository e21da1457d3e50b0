import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { temporaryFolder } from '../track/homes.ts'
import { plinth, startUp, type Up } from './up.ts'

const sample = (text: string, name: string) => Number(new RegExp(`^${name} (.+)$`, 'm').exec(text)?.[1])

test('it says where it answers and with which token; only health needs none', async t => {
  const home = join(temporaryFolder(t), 'home')
  const up = await startUp(t, home)
  assert.match(up.url, /^http:\/\/127\.0\.0\.1:\d+$/)
  assert.equal(readFileSync(join(home, 'token'), 'utf8').trim(), up.token)
  assert.equal(statSync(join(home, 'token')).mode & 0o077, 0)
  for (const path of ['/healthz', '/health', '/version']) assert.equal((await fetch(new URL(path, up.url))).status, 200, path)
  for (const path of ['/metrics', '/api/server', '/api', '/nothing']) {
    const { status } = await fetch(new URL(path, up.url))
    assert.equal(status, path === '/nothing' ? 404 : 401, path)
  }
  assert.equal((await up.ask('/api/server')).status, 200)
})

test('it starts without what only computing needs, and is small', { skip: process.platform !== 'linux' }, async t => {
  const up = await startUp(t, join(temporaryFolder(t), 'home'))
  const libraries = readFileSync(`/proc/${up.process.pid}/maps`, 'utf8').match(/\S*(onnxruntime|sharp|vips)\S*/g)
  assert.equal(libraries, null)
  const metrics = await (await up.ask('/metrics')).text()
  const megabytes = sample(metrics, 'process_resident_memory_bytes') / 2 ** 20
  const seconds = sample(metrics, 'process_cpu_seconds_total')
  t.diagnostic(
    `ready after ${up.milliseconds.toFixed(0)} ms beside other tests; ${seconds.toFixed(2)} s of processor, ${megabytes.toFixed(0)} MB`,
  )
  assert.ok(megabytes < 150, `${megabytes} MB`)
  assert.ok(seconds < 3, `${seconds} s of processor`)
})

test('one keeps a home: a second is told who, and takes over from one that was killed', async t => {
  const home = join(temporaryFolder(t), 'home')
  const up = await startUp(t, home)
  const second = plinth(home, ['up', '--port', '0'])
  assert.equal(second.status, 1)
  assert.equal(second.answer.error.code, 'home_held')
  assert.match(second.answer.error.message, new RegExp(`Process ${up.process.pid} .*${up.url}`))
  up.process.kill('SIGKILL')
  await up.ended
  const next = await startUp(t, home)
  assert.equal((await next.ask('/api/server')).status, 200)
  assert.equal(next.token, up.token)
  next.process.kill('SIGTERM')
  assert.equal(await next.ended, 0)
  assert.equal(readdirSync(home).includes('server'), false)
})

test('commands work on the home while the server does, and see what it wrote', async t => {
  const home = join(temporaryFolder(t), 'home')
  const up = await startUp(t, home)
  const body = JSON.stringify({ name: 'together' })
  const made = await up.ask('/api/experiments', { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  assert.equal(made.status, 200)
  for (const words of [['runs', 'list'], ['models', 'list'], ['gc']]) assert.equal(plinth(home, words).status, 0, words.join(' '))
  assert.equal((await up.ask('/api/server')).status, 200)
})

test('beyond this machine only with TLS, or a proxy that speaks it', async t => {
  const folder = temporaryFolder(t)
  const refused = plinth(join(folder, 'home'), ['up', '--host', '0.0.0.0', '--port', '0'])
  assert.equal(refused.answer.error.code, 'host_not_safe')
  for (const proxy of ['nonsense', '10.0.0.0/33', '10.0.0.1,', 'localhost'])
    assert.equal(plinth(join(folder, 'home'), ['up', '--behind-proxy', '--proxy', proxy]).status, 2, proxy)
  const up = await startUp(t, join(folder, 'proxied'), { words: ['--host', '0.0.0.0', '--behind-proxy', '--proxy', '127.0.0.1'] })
  const { port } = new URL(up.url)
  const asked = await fetch(`http://127.0.0.1:${port}/api/server`, {
    headers: { authorization: `Bearer ${up.token}`, 'x-forwarded-for': '192.0.2.7', 'x-forwarded-proto': 'https' },
  })
  assert.equal(asked.status, 200)
  assert.equal(asked.headers.get('strict-transport-security'), 'max-age=31536000')
  const plain = await fetch(`http://127.0.0.1:${port}/health`)
  assert.equal(plain.headers.get('strict-transport-security'), null, 'not without TLS')
  await fetch(`http://127.0.0.1:${port}/api/server`, { headers: { 'x-forwarded-for': 'nonsense' } })
  up.process.kill('SIGTERM')
  await up.ended
  const lines = up
    .said()
    .split('\n')
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line))
  assert.equal(lines.find(line => line.status === 200).address, '192.0.2.7')
})

test('proxy headers of somebody who is no proxy of ours are not believed', async t => {
  const up = await startUp(t, join(temporaryFolder(t), 'home'))
  const answer = await up.ask('/api/server', { headers: { 'x-forwarded-for': '192.0.2.7', 'x-forwarded-proto': 'https' } })
  assert.equal(answer.headers.get('strict-transport-security'), null)
  up.process.kill('SIGTERM')
  await up.ended
  assert.match(up.said(), /"route":"\/api\/server".*"address":"127\.0\.0\.1"/)
  assert.doesNotMatch(up.said(), /192\.0\.2\.7/)
})

test('it speaks HTTPS with a certificate, and refuses a key of another one', async t => {
  const folder = temporaryFolder(t)
  if (spawnSync('openssl', ['version']).status !== 0) return t.skip('openssl is not installed')
  const made = (name: string) => {
    const [certificate, key] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '2',
        '-keyout',
        key,
        '-out',
        certificate,
        ...subject,
      ],
      { stdio: 'ignore' },
    )
    return { certificate, key }
  }
  const [one, other] = [made('one'), made('other')]
  const home = join(folder, 'home')
  const mixed = plinth(home, ['up', '--port', '0', '--tls-certificate', one.certificate, '--tls-key', other.key])
  assert.equal(mixed.answer.error.code, 'tls_unusable')
  assert.equal(plinth(home, ['up', '--tls-key', one.key]).status, 2)
  const up = await startUp(t, home, { words: ['--tls-certificate', one.certificate, '--tls-key', one.key] })
  assert.match(up.url, /^https:/)
  const asking = request(new URL('/api/server', up.url), {
    ca: readFileSync(one.certificate),
    headers: { authorization: `Bearer ${up.token}` },
  }).end()
  const [response] = await once(asking, 'response')
  assert.deepEqual([response.statusCode, response.headers['strict-transport-security']], [200, 'max-age=31536000'])
  asking.destroy()
})

test('stopped, it ends what is under way; stopped twice, it ends at once', async t => {
  const home = join(temporaryFolder(t), 'home')
  const upload = async (up: Up) => {
    const { run } = await up.post('/api/runs', {})
    const folder = join(home, 'artifacts', '0', run, 'artifacts')
    const socket = connect(Number(new URL(up.url).port), '127.0.0.1').on('error', () => {})
    const head = [
      `PUT /api/2.0/mlflow-artifacts/artifacts/0/${run}/artifacts/file HTTP/1.1`,
      'Host: localhost',
      `Authorization: Bearer ${up.token}`,
    ]
    socket.write(`${[...head, 'Content-Length: 10'].join('\r\n')}\r\n\r\nhello`)
    await until(() => existsSync(folder))
    return { folder, socket }
  }
  const up = await startUp(t, home)
  const { folder, socket } = await upload(up)
  up.process.kill('SIGTERM')
  await until(() => up.said().includes('"event":"stopping"'))
  socket.write('world')
  let answer = ''
  for await (const chunk of socket) answer += chunk
  assert.match(answer, /^HTTP\/1\.1 200/)
  assert.equal(await up.ended, 0)
  assert.equal(readFileSync(join(folder, 'file'), 'utf8'), 'helloworld')

  const again = await startUp(t, home)
  const other = await upload(again)
  again.process.kill('SIGTERM')
  await until(() => again.said().includes('"event":"stopping"'))
  again.process.kill('SIGTERM')
  assert.equal(await again.ended, 130)
  assert.equal(existsSync(join(other.folder, 'file')), false)
})

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await setTimeout(5)
}

test('the log has a line for each request, with its name, and no secret; /metrics counts it', async t => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'log', 'plinth.log')
  mkdirSync(join(folder, 'log'))
  const up = await startUp(t, join(folder, 'home'), { words: ['--log-file', file] })
  const answered = await up.ask(`/api/runs/${'0'.repeat(32)}`)
  const id = answered.headers.get('x-request-id')
  assert.equal(answered.status, 404)
  await fetch(new URL('/api/server', up.url), { headers: { authorization: `Bearer ${up.token}x` } })
  const metrics = await (await up.ask('/metrics')).text()
  assert.equal(sample(metrics, 'plinth_http_requests_total\\{method="GET",route="/api/runs/:run",status="404"\\}'), 1)
  assert.ok(sample(metrics, 'plinth_database_bytes') > 0 && sample(metrics, 'plinth_home_free_bytes') > 0)
  assert.equal(sample(metrics, 'plinth_points_logged_total'), 0)
  up.process.kill('SIGTERM')
  assert.equal(await up.ended, 0)
  const text = readFileSync(file, 'utf8')
  const lines = text
    .trim()
    .split('\n')
    .map(line => JSON.parse(line) as Record<string, unknown>)
  assert.deepEqual([lines[0]!['event'], lines.at(-1)!['event']], ['started', 'stopped'])
  const line = lines.find(each => each['request'] === id)!
  assert.deepEqual(
    [line['level'], line['method'], line['route'], line['status'], line['user'], line['code']],
    ['info', 'GET', '/api/runs/:run', 404, 'owner', 'tracked_run_not_found'],
  )
  assert.equal(lines.find(each => each['status'] === 401)!['level'], 'warn')
  assert.equal(text.includes(up.token), false)
  assert.equal(statSync(file).mode & 0o077, 0)
})

test('a database address is refused where its password could be read', t => {
  const folder = temporaryFolder(t)
  const home = join(folder, 'home')
  const code = (...words: string[]) => plinth(home, ['up', '--port', '0', ...words]).answer.error.code
  assert.equal(code('--database', 'postgres://me:secret@localhost/x'), 'database_address')
  const open = join(folder, 'open')
  writeFileSync(open, 'postgres://me:secret@localhost/x\n', { mode: 0o644 })
  assert.equal(code('--database-file', open), 'secret_open')
  assert.equal(code('--database-file', join(folder, 'missing')), 'database_address')
  assert.equal(code('--database', 'mysql://localhost/x'), 'database_address')
  const unreachable = plinth(home, ['up', '--port', '0', '--database', 'postgres://me@127.0.0.1:9/x'])
  assert.equal(unreachable.answer.error.code, 'database_unreachable')
  assert.match(unreachable.answer.error.message, /postgres:\/\/me@127\.0\.0\.1:9\/x/)
})
