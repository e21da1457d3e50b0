/** What users install: the package is built, packed, installed in an empty folder by npm, and used there. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { build } from '../../scripts/build.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = realpathSync(mkdtempSync(join(tmpdir(), 'package-')))
const app = join(folder, 'app')
after(() => rmSync(folder, { recursive: true, force: true }))

const environment: NodeJS.ProcessEnv = {
  // npm tells its scripts about the package it runs for; the npm in here works on another one
  ...Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(package|lifecycle|command|config_(local_prefix|loglevel))/.test(name)),
  ),
  ONNXRUNTIME_NODE_INSTALL: 'skip',
  PLINTH_HOME: join(folder, 'home'),
}

function run(command: string, words: string[], cwd = app) {
  const { status, stdout, stderr, error } = spawnSync(command, words, { cwd, env: environment, encoding: 'utf8' })
  if (error) throw error
  return { status, stdout, stderr }
}

const tarball = pack()
const reason = install()

test('the package holds what runs and nothing else', () => {
  const { files, size } = tarball
  const foreign = files.filter(
    path =>
      !/^(src\/.*(\.(js|d\.ts|safetensors|zip|html|css|txt|json)|\/NOTICE)|python\/plinth-job\/\w+\.py|package\.json|LICENSE|NOTICE|README\.md|CHANGELOG\.md)$/.test(
        path,
      ),
  )
  assert.deepEqual(foreign, [])
  for (const needed of [
    'LICENSE',
    'src/main.js',
    'src/engine/index.js',
    'src/engine/index.d.ts',
    'src/serve/page.html',
    'src/data/samples/fashion.zip',
    'python/plinth-job/sitecustomize.py',
    'src/jobs/backends/local/shim.js',
  ])
    assert.ok(files.includes(needed), `${needed} is in the package`)
  assert.ok(size < 40e6, `${(size / 1e6).toFixed(1)} MB`)
})

test('npm links a plinth that runs', t => {
  if (reason) return t.skip(reason)
  const plinth = join(app, 'node_modules/.bin/plinth')
  assert.ok(statSync(plinth).mode & 0o100, 'may be executed')
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  assert.deepEqual(run(process.execPath, [plinth, '--version']), { status: 0, stdout: `${version}\n`, stderr: '' })
  const help = run(process.execPath, [plinth, '--help'])
  assert.equal(help.status, 0, help.stderr)
  assert.match(help.stdout, /quickstart/)
})

test('a program imports the engine and the SDK by name, and its types are found', t => {
  if (reason) return t.skip(reason)
  const program = `import { sequential, dense, adam, mse } from 'plinth/engine'
import { calls, createClient, Failure, type Run } from 'plinth/sdk'
const model = sequential([dense(4, { activation: 'relu', inputShape: [2] }), dense(1)])
const rows = [[0, 0], [0, 1], [1, 0], [1, 1]]
await model.fit(rows, rows.map(([a, b]) => [a! + b!]), { loss: mse(), optimizer: adam(), epochs: 2 })
const status: Run['status'] = 'succeeded'
console.log(status, (await model.predict(rows)).length, new Failure('loss_unknown').code)
const plinth = createClient(calls, { url: 'http://127.0.0.1:1', token: 'x' })
const found: string[] = await plinth.searchRuns({ limit: 1 }).then(({ items }) => items.map(({ run }) => run), ({ code }) => [code])
console.log(...found)
`
  writeFileSync(join(app, 'app.ts'), program)
  const ran = run(process.execPath, ['app.ts'])
  assert.equal(ran.stdout, 'succeeded 4 loss_unknown\nserver_unreachable\n', ran.stderr)
  const options = [
    '--noEmit',
    '--strict',
    '--module',
    'nodenext',
    '--target',
    'es2024',
    '--skipLibCheck',
    'false',
    '--types',
    'node',
    '--typeRoots',
    join(root, 'node_modules/@types'),
  ]
  const types = run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), ...options, 'app.ts'])
  assert.equal(types.stdout, '')
  const wrong = run(process.execPath, [
    join(root, 'node_modules/typescript/bin/tsc'),
    ...options,
    writeProgram('wrong.ts', `import { dense } from 'plinth/engine'\ndense('four')\n`),
  ])
  assert.match(wrong.stdout, /wrong\.ts\(2,7\): error TS2345/)
})

test('an older Node is told so, in a sentence', t => {
  if (reason) return t.skip(reason)
  const old = olderNode()
  if (!old) return t.skip('no Node older than 24 on the path')
  const main = join(app, 'node_modules/plinth/src/main.js')
  const { status, stderr } = run(old, [main, 'train'])
  assert.equal(status, 1)
  assert.match(stderr, /^Error: Plinth needs Node 24 or newer; this is Node \d+\.\d+\.\d+\.\n/)
  assert.equal(JSON.parse(run(old, [main, 'train', '--json']).stdout).error.code, 'node_too_old')
})

test('the installed package runs the quickstart', t => {
  if (process.env['PLINTH_TEST'] !== 'long') return t.skip('minutes: PLINTH_TEST=long runs it')
  if (reason) return t.skip(reason)
  const { status, stdout, stderr } = run(process.execPath, [join(app, 'node_modules/.bin/plinth'), 'quickstart', '--no-serve', '--json'])
  assert.equal(status, 0, stderr)
  const { test: score } = JSON.parse(stdout.trimEnd().split('\n').at(-1)!)
  assert.ok(score.accuracy >= 0.8, `accuracy ${score.accuracy}`)
})

function pack(): { path: string; files: string[]; size: number } {
  mkdirSync(app)
  const { status, stdout, stderr } = run('npm', ['pack', build(join(folder, 'dist')), '--json', '--pack-destination', folder])
  assert.equal(status, 0, stderr)
  const [packed] = JSON.parse(stdout) as { filename: string; files: { path: string }[]; size: number }[]
  return { path: join(folder, packed!.filename), files: packed!.files.map(({ path }) => path), size: packed!.size }
}

/** Answers why it could not be installed, or null. With the repository's locked versions, npm finds all it needs in its cache: no network. */
function install(): string | null {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as { packages: Record<string, { dev?: boolean }> }
  const installed = Object.entries(lock.packages).filter(([path, { dev }]) => path && !dev)
  const packed = JSON.parse(readFileSync(join(folder, 'dist/package.json'), 'utf8')) as Record<string, object>
  const own = {
    ...Object.fromEntries(['version', 'license', 'bin', 'dependencies', 'engines'].map(field => [field, packed[field]])),
    resolved: `file:${tarball.path}`,
    integrity: `sha512-${createHash('sha512').update(readFileSync(tarball.path)).digest('base64')}`,
  }
  const manifest = { name: 'app', version: '1.0.0', type: 'module', dependencies: { plinth: `file:${tarball.path}` } }
  writeProgram('package.json', JSON.stringify(manifest))
  writeProgram(
    'package-lock.json',
    JSON.stringify({
      name: 'app',
      version: '1.0.0',
      lockfileVersion: 3,
      requires: true,
      packages: { '': manifest, 'node_modules/plinth': own, ...Object.fromEntries(installed) },
    }),
  )
  const { status, stderr } = run('npm', ['ci', '--prefer-offline', '--no-audit', '--no-fund'])
  if (status === 0) return null
  if (/ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|E40\d|E50\d/.test(stderr))
    return 'npm has the dependencies neither in its cache nor within reach'
  assert.fail(`npm ci failed:\n${stderr}`)
}

function writeProgram(name: string, text: string): string {
  writeFileSync(join(app, name), text)
  return name
}

function olderNode(): string | undefined {
  const candidates = (process.env['PATH'] ?? '').split(delimiter).map(part => join(part, 'node'))
  return candidates.find(
    path => existsSync(path) && Number(spawnSync(path, ['-p', 'process.versions.node.split(".")[0]'], { encoding: 'utf8' }).stdout) < 24,
  )
}
