import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { serviceUnit } from '../../src/cli/service.ts'
import { onSmallDisk } from '../storage/small-disk.ts'
import { temporaryFolder } from '../track/homes.ts'
import { main } from './up.ts'

test('a full disk: reading goes on, writing is refused for good and not for a moment, and works again once there is room', async t => {
  const answer = await onSmallDisk<object>(t, new URL('./full-disk.ts', import.meta.url), [], '6m')
  if (!answer) return
  // clients of MLflow ask again for minutes after 408, 429, 500, 502, 503 and 504; 507 they tell
  assert.deepEqual(answer, {
    full: {
      log: [507, 'disk_full'],
      mlflow: [507, 'INTERNAL_ERROR'],
      file: [507, 'INTERNAL_ERROR'],
      said: false,
      read: 200,
      history: 200,
      list: 200,
      health: 200,
      metrics: 200,
      left: false,
    },
    started: 200,
    again: { log: [200, null], mlflow: [200, null], file: [200, null] },
  })
})

// ── systemd ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const unit = {
  words: ['--port', '6420', '--log-file', '/var/log/plinth dir/100%$x.log'],
  home: '/srv/plinth home',
  user: '1000',
  node: process.execPath,
  program: main,
  cache: '/var/cache/plinth',
}
const setting = (text: string, name: string) =>
  text.split('\n').flatMap(line => (line.startsWith(`${name}=`) ? [line.slice(name.length + 1)] : []))

test('the unit leaves alone what the server started, starts again what crashed, and lets jobs write, compute on devices and have control groups', () => {
  const text = serviceUnit({ ...unit, system: true })
  assert.deepEqual(setting(text, 'KillMode'), ['process'])
  assert.deepEqual(setting(text, 'Restart'), ['on-failure'])
  assert.deepEqual(setting(text, 'User'), ['1000'])
  assert.deepEqual(setting(text, 'ProtectSystem'), ['full'])
  assert.deepEqual(setting(text, 'Delegate'), ['yes'])
  assert.deepEqual(setting(text, 'NoNewPrivileges'), ['yes'])
  for (const wall of ['PrivateTmp', 'PrivateDevices', 'ProtectHome', 'ProtectControlGroups']) assert.deepEqual(setting(text, wall), [])
  assert.deepEqual(setting(text, 'ExecStart'), [`${process.execPath} ${main} up --port 6420 --log-file "/var/log/plinth dir/100%%$$x.log"`])
  assert.match(text, /PLINTH_HOME=\/srv\/plinth home/)
  const own = serviceUnit({ ...unit, system: false })
  assert.deepEqual([setting(own, 'User'), setting(own, 'WantedBy')], [[], ['default.target']])
  assert.throws(() => serviceUnit({ ...unit, system: false, home: '/a\nExecStartPre=/bin/evil' }), { code: 'service_words' })
})

test('systemd understands the unit', t => {
  if (spawnSync('systemd-analyze', ['--version']).status !== 0) return t.skip('systemd-analyze is not installed')
  for (const system of [true, false]) {
    const file = join(temporaryFolder(t), 'plinth.service')
    writeFileSync(file, serviceUnit({ ...unit, system }))
    const { status, stderr } = spawnSync(
      'systemd-analyze',
      ['verify', ...(system ? [] : ['--user']), '--man=no', '--recursive-errors=no', file],
      {
        encoding: 'utf8',
        env: { ...process.env, XDG_RUNTIME_DIR: temporaryFolder(t) },
      },
    )
    const said = stderr.split('\n').filter(line => line.includes('plinth'))
    assert.deepEqual([status, said], [0, []], stderr)
  }
})

test('a unit is written once, told, and never written over unless that is asked for', { skip: process.platform !== 'linux' }, t => {
  if (process.getuid?.() === 0) {
    // as root it would be a unit of this very machine: somebody else installs it, in a home of their own
    const allowed = spawnSync('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath, '--version'])
    if (allowed.status !== 0) return t.skip('another user cannot run node here')
  }
  const folder = temporaryFolder(t)
  const config = join(folder, 'config')
  mkdirSync(config, { mode: 0o777 })
  spawnSync('chmod', ['-R', '777', folder])
  const install = (...words: string[]) => {
    const command = [process.execPath, main, 'up', '--install-service', '--json', ...words]
    const [program, ...args] =
      process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', ...command] : command
    const { stdout, stderr, status } = spawnSync(program!, args, {
      encoding: 'utf8',
      env: {
        PATH: process.env['PATH'],
        HOME: folder,
        XDG_CONFIG_HOME: config,
        PLINTH_HOME: join(folder, 'home'),
        PLINTH_CACHE: join(folder, 'cache'),
      },
    })
    return { status, answer: JSON.parse(stdout.trim().split('\n').at(-1)!), stderr }
  }
  const first = install('--port', '7000')
  if (first.status !== 0 && /EACCES|ENOENT|not read/.test(JSON.stringify(first.answer)))
    return t.skip('another user cannot read the sources here')
  assert.deepEqual([first.status, first.answer.changed], [0, true], first.stderr)
  const path = join(config, 'systemd', 'user', 'plinth.service')
  assert.equal(first.answer.path, path)
  assert.ok(first.answer.next.some((command: string) => command === 'systemctl --user enable --now plinth'))
  assert.match(readFileSync(path, 'utf8'), /up --port 7000 --host 127\.0\.0\.1/)
  assert.equal(install('--port', '7000').answer.changed, false)
  assert.equal(install('--port', '7001').answer.error.code, 'service_in_the_way')
  assert.match(readFileSync(path, 'utf8'), /7000/)
  assert.equal(install('--port', '7001', '--force').answer.changed, true)
  assert.match(readFileSync(path, 'utf8'), /7001/)
})

// ── the container ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const containerfile = readFileSync(new URL('../../Containerfile', import.meta.url), 'utf8')
const instructions = containerfile
  .replaceAll('\\\n', ' ')
  .split('\n')
  .filter(line => /^[A-Z]+ /.test(line))
  .map(line => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1).trim()] as const)
const all = (name: string) => instructions.filter(([instruction]) => instruction === name).map(([, rest]) => rest)

test('the container runs the pinned Node as a user without rights, keeps its home in a volume, and says whether it is well', () => {
  const { engines, devDependencies } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  assert.ok(
    all('FROM').every(image => image.startsWith(`docker.io/library/node:${devDependencies.node}-bookworm-slim`)),
    String(all('FROM')),
  )
  assert.ok(Number(devDependencies.node.split('.')[0]) >= Number(engines.node.replace('>=', '')))
  assert.deepEqual(all('USER'), ['node'])
  assert.deepEqual(all('VOLUME'), ['["/home/plinth"]'])
  assert.deepEqual(all('EXPOSE'), ['6420'])
  assert.match(all('HEALTHCHECK')[0]!, /127\.0\.0\.1:6420\/healthz/)
  assert.equal(
    all('ENV').some(line => /token|password|secret/i.test(line)),
    false,
  )
})

test('what the container starts is a command that plinth accepts, and its health check works', async () => {
  const words = JSON.parse(all('ENTRYPOINT')[0]!) as string[]
  const rest = JSON.parse(all('CMD')[0]!) as string[]
  assert.equal(words.at(-1), 'plinth')
  const { parseArguments } = await import('../../src/cli/arguments.ts')
  const { default: up } = await import('../../src/cli/up.ts')
  assert.equal(rest[0], 'up')
  const values = parseArguments('up', up.arguments, up.options, rest.slice(1), {})
  assert.deepEqual([values['host'], values['port'], values['behindProxy']], ['0.0.0.0', 6420, true])
  const [, script] = /node -e "(.*)"$/.exec(all('HEALTHCHECK')[0]!) ?? []
  const check = (port: string) => spawnSync(process.execPath, ['-e', script!.replace('6420', port)]).status
  assert.equal(check('9'), 1)
})
