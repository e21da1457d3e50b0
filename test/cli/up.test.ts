/** `plinth up` and its neighbours as commands: what is refused before anything is made, and what an operator is told. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { calls } from '../../src/sdk/calls/index.ts'
import { createClient } from '../../src/sdk/client.ts'
import { temporaryFolder } from '../track/homes.ts'
import { main } from '../up/up.ts'

function plinth(home: string, words: readonly string[], environment: Record<string, string> = {}) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [main, ...words, '--json'], {
    encoding: 'utf8',
    env: { ...process.env, PLINTH_HOME: home, PLINTH_URL: '', ...environment },
  })
  return { status, stderr, answer: JSON.parse(stdout.trim().split('\n').at(-1)!) }
}

test('a server that may not start leaves no home behind, which would tie it to SQLite, and no unit', t => {
  const folder = temporaryFolder(t)
  const home = join(folder, 'home')
  const config = { XDG_CONFIG_HOME: join(folder, 'config') }
  for (const words of [
    ['--host', '0.0.0.0'],
    ['--host', '0.0.0.0', '--install-service'],
    ['--tls-certificate', join(folder, 'none.crt'), '--tls-key', join(folder, 'none.key')],
  ])
    assert.match(plinth(home, ['up', '--port', '0', ...words], config).answer.error.code, /^(host_not_safe|tls_unusable)$/)
  assert.equal(existsSync(home), false)
  assert.deepEqual(readdirSync(folder), [])
})

test('a certificate that is not trusted here is told as that, and not as a server that is away', async t => {
  if (spawnSync('openssl', ['version']).status !== 0) return t.skip('openssl is not installed')
  const folder = temporaryFolder(t)
  const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-subj', '/CN=localhost']
  execFileSync('openssl', ['req', '-x509', ...curve, '-nodes', '-days', '2', '-keyout', key, '-out', cert], { stdio: 'ignore' })
  const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (_, response) => response.end('{}'))
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  await assert.rejects(createClient(calls, { url, token: 'x' }).getServer({}), { code: 'server_certificate' })
  server.closeAllConnections()
  await new Promise(done => server.close(done))
  await assert.rejects(createClient(calls, { url, token: 'x' }).getServer({}), { code: 'server_unreachable' })
})
