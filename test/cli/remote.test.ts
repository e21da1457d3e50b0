/** Commands against a server elsewhere: its own process, its own home, reached by PLINTH_URL and a token that was typed once. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { registerModel } from '../../src/models/registry.ts'
import { openHome } from '../../src/track/home.ts'
import { temporaryFolder } from '../track/homes.ts'
import { main, startUp } from '../up/up.ts'

interface Said {
  code: number
  // biome-ignore lint/suspicious/noExplicitAny: answers are compared field by field
  answer: any
  stderr: string
}
function machine(t: TestContext, environment: Record<string, string> = {}) {
  const folder = temporaryFolder(t)
  const base = {
    PLINTH_HOME: join(folder, 'home'),
    XDG_CONFIG_HOME: join(folder, 'config'),
    PLINTH_URL: '',
    PLINTH_TOKEN: '',
    ...environment,
  }
  const plinth = async (words: readonly string[], { input = '', ...more }: Record<string, string> = {}): Promise<Said> => {
    const child = spawn(process.execPath, [main, ...words, '--json'], { env: { ...process.env, ...base, ...more }, stdio: 'pipe' })
    const said = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) child[name].setEncoding('utf8').on('data', text => (said[name] += text))
    child.stdin.end(input)
    const [code] = await once(child, 'close')
    return { code, answer: JSON.parse(said.stdout.trim().split('\n').at(-1) || '{}'), stderr: said.stderr }
  }
  return { folder, plinth, credentials: join(folder, 'config', 'plinth', 'servers.json') }
}

test('a token typed once lets commands work at a server elsewhere as they do at home', async t => {
  const place = temporaryFolder(t)
  const up = await startUp(t, join(place, 'home'))
  const { plinth, credentials, folder } = machine(t)
  const at = { PLINTH_URL: up.url }
  assert.equal((await plinth(['models', 'list'], at)).answer.error.code, 'login_needed')
  const wrong = await plinth(['login', up.url], { input: `plinth_${'0'.repeat(12)}_${'x'.repeat(43)}\n` })
  assert.deepEqual([wrong.code, wrong.answer.error.code, existsSync(credentials)], [1, 'token_wrong', false])
  assert.equal((await plinth(['login', up.url])).answer.error.code, 'login_empty')
  const { code, answer, stderr } = await plinth(['login', `${up.url}/`], { input: `${up.token}\n` })
  assert.deepEqual([code, answer.user, answer.role, answer.project], [0, 'owner', 'owner', 'default'])
  assert.ok(!JSON.stringify(answer).includes(up.token) && !stderr.includes(up.token))
  assert.equal(statSync(credentials).mode & 0o077, 0)
  assert.deepEqual(Object.keys(JSON.parse(readFileSync(credentials, 'utf8'))), [up.url])

  // made there, seen there, not here
  const body = JSON.stringify({ experiment: '0', name: 'far', tags: { 'plinth.model': 'birds@1' } })
  const { run } = (await (await up.ask('/api/runs', { method: 'POST', headers: { 'content-type': 'application/json' }, body })).json()) as {
    run: string
  }
  const listed = await plinth(['runs', 'list'], at)
  assert.deepEqual(
    listed.answer.runs.map((each: { run: string; name: string }) => [each.run, each.name]),
    [[run, 'far']],
  )
  assert.deepEqual((await plinth(['runs', 'list'])).answer, { runs: [] })
  assert.deepEqual((await plinth(['runs', 'show', run.slice(0, 6)], at)).answer.run.model, { name: 'birds', version: 1 })
  assert.deepEqual(
    (await plinth(['experiments', 'list'], at)).answer.experiments.map((each: { name: string }) => each.name),
    ['Default'],
  )
  assert.equal((await plinth(['runs', 'delete', run], at)).code, 0)
  assert.equal((await plinth(['runs', 'show', run], at)).answer.run.run, run, 'it can be restored until the next gc')
  assert.deepEqual((await plinth(['runs', 'list'], at)).answer, { runs: [] })

  // people and tokens
  assert.equal((await plinth(['users', 'add', 'ada', 'viewer'], at)).code, 0)
  const { token, about } = (await plinth(['tokens', 'create', 'laptop', '--user', 'ada', '--days', '3'], at)).answer
  const ada = machine(t, at)
  assert.equal((await ada.plinth(['login', up.url], { input: token })).answer.user, 'ada')
  const refused = await ada.plinth(['users', 'add', 'eve', 'admin'])
  assert.deepEqual([refused.code, refused.answer.error.code], [1, 'forbidden'])
  assert.equal((await plinth(['tokens', 'revoke', about.id], at)).code, 0)
  assert.equal((await ada.plinth(['models', 'list'])).answer.error.code, 'token_wrong')
  assert.equal((await plinth(['tokens', 'reset'], at)).answer.error.code, 'home_only')

  // what works here only says so
  assert.match((await plinth(['data', 'list'], at)).stderr, /works on the home of this machine only/)
  assert.doesNotMatch((await plinth(['models', 'list'], at)).stderr, /this machine only/)
  assert.equal((await plinth(['logout', up.url])).answer.forgotten, true)
  assert.deepEqual([existsSync(credentials), (await plinth(['models', 'list'], at)).answer.error.code], [false, 'login_needed'])
  assert.equal((await plinth(['models', 'list'], { ...at, PLINTH_TOKEN: up.token })).code, 0)
  assert.ok(!readdirSync(folder, { recursive: true }).some(name => String(name).endsWith('servers.json')))
  up.process.kill('SIGTERM')
  await up.ended
  assert.equal((await plinth(['models', 'list'], { ...at, PLINTH_TOKEN: up.token })).answer.error.code, 'server_unreachable')
  assert.ok(!up.said().includes(up.token) && !up.said().includes(token), 'no token in the log')
})

test('models are promoted and deleted at home and elsewhere alike, and the log tells who and why', async t => {
  const place = temporaryFolder(t)
  const path = join(place, 'home')
  const home = await openHome(path)
  for (const content of ['one', 'two']) {
    writeFileSync(join(place, 'model.onnx'), content)
    await registerModel(home, {
      name: 'birds',
      file: join(place, 'model.onnx'),
      labels: ['owl', 'wren'],
      run: null,
      dataset: { name: 'photos', version: 1, digest: 'd' },
      accuracy: null,
    })
  }
  await home.close()
  const up = await startUp(t, path)
  const { plinth } = machine(t, { PLINTH_HOME: path })
  const elsewhere = machine(t, { PLINTH_URL: up.url, PLINTH_TOKEN: up.token })
  const promoted = await plinth(['models', 'promote', 'birds@1', 'champion', '--reason', 'the first'])
  assert.deepEqual([promoted.answer.version, promoted.answer.before], [1, null])
  const moved = await elsewhere.plinth(['models', 'promote', 'birds@2', 'champion', '--reason', 'newer pictures'])
  assert.deepEqual([moved.answer.version, moved.answer.before, moved.answer.comparisons], [2, 1, []])
  assert.match(moved.stderr, /no score on a test set in common/)
  for (const { answer } of [await plinth(['models', 'aliases']), await elsewhere.plinth(['models', 'aliases', 'birds'])])
    assert.deepEqual(answer.aliases, [{ name: 'birds', alias: 'champion', version: 2 }])
  const [here, there] = [
    await plinth(['models', 'show', 'birds@champion', '--lineage']),
    await elsewhere.plinth(['models', 'show', 'birds@champion', '--lineage']),
  ]
  assert.equal(readFileSync(here.answer.model.path, 'utf8'), 'two')
  assert.deepEqual({ ...here.answer.model, path: undefined }, { ...there.answer.model, path: undefined })
  assert.deepEqual(there.answer.lineage.datasets, [{ name: 'photos', version: 1, digest: 'd', source: null }])
  assert.deepEqual(
    (await elsewhere.plinth(['models', 'list', '--dataset', 'photos@1'])).answer.models.map((each: { version: number }) => each.version),
    [2, 1],
  )
  const preview = await elsewhere.plinth(['models', 'delete', 'birds'])
  assert.deepEqual([preview.answer.deleted, preview.answer.bytes, preview.answer.users], [false, 6, ['alias champion of version 2']])
  assert.equal((await elsewhere.plinth(['models', 'delete', 'birds', '--yes'])).answer.error.code, 'model_in_use')
  assert.equal((await elsewhere.plinth(['models', 'promote', 'birds@1', 'champion'])).code, 2)
  assert.equal((await elsewhere.plinth(['models', 'unalias', 'birds', 'champion', '--reason', 'retired'])).code, 0)
  assert.equal((await elsewhere.plinth(['models', 'delete', 'birds@1', '--yes'])).answer.bytes, 3)
  assert.equal((await plinth(['models', 'delete', 'birds', '--yes'])).answer.bytes, 3)
  const { entries } = (await plinth(['audit'])).answer
  const told = entries
    .filter(({ action }: { action: string }) => action.startsWith('models.'))
    .map(({ action, subject, details }: { action: string; subject: string; details: { reason?: string } }) => [
      action,
      subject,
      details.reason ?? null,
    ])
  assert.deepEqual(told, [
    ['models.delete', 'birds', null],
    ['models.delete', 'birds@1', null],
    ['models.alias_delete', 'birds@2', 'retired'],
    ['models.promote', 'birds@2', 'newer pictures'],
    ['models.promote', 'birds@1', 'the first'],
  ])
})

test('addresses that are none, or would show the token to others, are refused before anything is sent', async t => {
  const { plinth } = machine(t)
  for (const url of ['plinth.example.org', 'ftp://x', 'https://user:secret@x', 'https://x/y', 'https://x/?q'])
    assert.equal((await plinth(['login', url], { input: 'plinth_x' })).answer.error?.code, 'server_address', url)
  assert.equal(
    (await plinth(['login', 'http://192.0.2.1:6420'], { input: `plinth_${'x'.repeat(60)}` })).answer.error.code,
    'server_not_safe',
  )
})

test('a server of another version, or something else that answers, is told for what it is', async t => {
  let version = '99.0.0'
  const server = createServer((request, response) => {
    const known = request.url === '/api/server'
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' })
    response.end(
      JSON.stringify(
        known ? { version, user: 'u', project: 'p', role: null } : { error: { code: 'api_route_not_found', message: 'm', next: 'n' } },
      ),
    )
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const { plinth } = machine(t, { PLINTH_URL: url, PLINTH_TOKEN: `plinth_${'x'.repeat(60)}` })
  const { answer } = await plinth(['experiments', 'list'])
  assert.equal(answer.error.code, 'server_version')
  assert.match(answer.error.message, /99\.0\.0/)
  version = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version
  assert.equal((await plinth(['experiments', 'list'])).answer.error.code, 'api_route_not_found')
})
