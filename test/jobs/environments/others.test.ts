/** Environments that are not made of a requirement file: projects, locks, conda files, and Node. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, lstatSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { Failure } from '../../../src/failure.ts'
import { condaEnvironment, readCondaFile } from '../../../src/jobs/environments/conda.ts'
import { prepareNode } from '../../../src/jobs/environments/node.ts'
import { projectDependencies } from '../../../src/jobs/environments/project.ts'
import { environmentsFolder } from '../../../src/jobs/environments/store.ts'
import { makePlace, makeWheel, noPython, type Place, python3 } from './attempts.ts'

const options = { skip: python3 === null && noPython }
const uv = spawnSync('sh', ['-c', 'command -v uv'], { encoding: 'utf8' }).stdout.trim()
const withUv = { skip: python3 === null ? noPython : uv === '' && 'uv is not on PATH' }

const project = (dependencies: string, more = '') =>
  `[project]\nname = "own"\nversion = "1"\nrequires-python = ">=3.8"\ndependencies = [${dependencies}]\n${more}`
/** Message and next step. */
const refused = (work: Promise<unknown>, problem: RegExp, what = '') =>
  assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof Failure, String(error))
    assert.match(`${error.message} ${error.next}`, problem, what)
    return true
  })
/** The uv of this machine, for a job. */
const bringUv = (place: Place) => symlinkSync(uv, join(place.folder, 'bin', 'uv'))

test('a project has the packages that it depends on, and its sources can be imported', options, async () => {
  const place = makePlace()
  makeWheel(place.wheels, 'alpha', '1.0')
  place.write('pyproject.toml', project('"alpha>=1; python_version > \'3\'"', '[tool.uv.sources]\nother = { path = "x" }\n'))
  place.write('src/own/__init__.py', 'name = "own"\n')
  const prepared = await place.prepare({ runtime: { project: 'pyproject.toml' } })
  assert.equal(prepared.code, 0, prepared.err)
  assert.match(prepared.out, /\[tool\.uv\.sources\] counts with uv\.lock only; not used for other/)
  assert.equal(prepared.run(['python', '-c', 'import alpha, own; print(alpha.version, own.name)']), '1.0 own')

  const wrong: [string, RegExp][] = [
    ['[project\n', /^wrong\/pyproject\.toml: .*(Expected|Invalid)/i],
    ['[build-system]\nrequires = []\n', /^wrong\/pyproject\.toml: it has no table \[project\]\./],
    ['[tool.poetry]\nname = "x"\n', /it names its dependencies under \[tool\.poetry\] only\. Write them out: poetry export/],
    ['[project]\nname = "x"\ndynamic = ["dependencies"]\n', /its dependencies are dynamic/],
    [project('"--pre"'), /"--pre" is an option, not a package/],
    [project('"alpha --hash=sha256:00 --target=/x"'), /is no hash|only --hash may/],
    [project('5'), /what it says under \[project\] is of the wrong kind/],
  ]
  for (const [text, problem] of wrong) {
    place.write('wrong/pyproject.toml', text)
    await refused(projectDependencies(place.request(), null, 'wrong/pyproject.toml'), problem, text)
  }
  place.write('future/pyproject.toml', '[project]\nname = "x"\nrequires-python = ">=3.99"\ndependencies = []\n')
  await refused(projectDependencies(place.request(), null, 'future/pyproject.toml'), /^The job asks for Python >=3\.99; here are/)
})

test('files that no environment is made of are told from those that are', options, async () => {
  const place = makePlace()
  assert.match(
    (await place.prepare({ runtime: { requirements: 'none.txt' } })).err,
    /^There is no file none\.txt in the folder of the job\./,
  )
  place.write('poetry.lock.toml', '')
  assert.match((await place.prepare({ runtime: { lock: 'poetry.lock.toml' } })).err, /Locks that are read: uv\.lock/)
})

test('uv, where it is, resolves and installs, and what it wrote down is used by pip as well', withUv, async () => {
  const place = makePlace()
  bringUv(place)
  makeWheel(place.wheels, 'alpha', '1.0', { requires: ['beta'], scripts: { 'alpha-says': 'alpha:main' } })
  makeWheel(place.wheels, 'beta', '1.0')
  place.write('requirements.txt', 'alpha\n')
  const wanted = { runtime: { requirements: 'requirements.txt' } }
  const first = await place.prepare(wanted)
  assert.equal(first.code, 0, first.err)
  assert.match(first.out, /by uv/)
  assert.deepEqual([first.run(['alpha-says']), first.environment.packages], ['alpha 1.0', ['alpha==1.0', 'beta==1.0']])
  first.run(['pip', 'install', '--quiet', '--no-deps', '--force-reinstall', 'beta']) // there is a pip, for this job alone
  assert.deepEqual((await place.prepare(wanted)).environment.packages, ['alpha==1.0', 'beta==1.0'])

  process.env['PLINTH_CACHE'] = place.cache
  const stored = join(environmentsFolder(), first.environment.key!.slice(0, 32))
  assert.match(readFileSync(join(stored, 'resolved.txt'), 'utf8'), /^alpha==1\.0 \\\n {4}--hash=sha256:[0-9a-f]{64}\nbeta==1\.0/)
  makeWheel(place.wheels, 'beta', '2.0')
  spawnSync('rm', ['-r', join(stored, '.complete'), join(place.folder, 'bin', 'uv')])
  const again = await place.prepare(wanted)
  assert.match(again.out, /built again, from what it had[\s\S]*by pip/)
  assert.deepEqual(again.environment.packages, ['alpha==1.0', 'beta==1.0'])

  bringUv(place)
  place.write('wrong.txt', 'alpha==9\n')
  const { code, err } = await place.prepare({ runtime: { requirements: 'wrong.txt' } })
  assert.equal(code, 126)
  assert.match(err, /^The packages of wrong\.txt cannot be installed\. .*alpha==9/)
})

test('uv is called with constant words, whatever a file says', options, async () => {
  const place = makePlace()
  const calls = join(place.folder, 'calls')
  // in the place of uv: it notes its words and does as little as will do
  const standIn = `#!/bin/sh
printf '%s\\n' "$*" >>${calls}
case "$1 $2" in
venv*) for last in "$@"; do :; done; exec python3 -m venv --without-pip "$last" ;;
'pip compile') while [ "$1" != --output-file ]; do shift; done; printf 'alpha==1\\n' >"$2" ;;
esac
`
  writeFileSync(join(place.folder, 'bin/uv'), standIn, { mode: 0o755 })
  place.write('--x $(touch x)/r.txt', 'alpha ; python_version < "3" # $(touch x)\n--only-binary alpha\n-c c.txt\n')
  place.write('--x $(touch x)/c.txt', '')
  const prepared = await place.prepare({ runtime: { requirements: '--x $(touch x)/r.txt' } })
  assert.equal(prepared.code, 0, prepared.err)
  const words = readFileSync(calls, 'utf8')
    .trim()
    .split('\n')
    .map(line => line.replaceAll(/\/\S*\/builds\/\w+/g, 'BUILD').replaceAll(/--python \/\S+/g, '--python PYTHON'))
  assert.deepEqual(words, [
    '--version',
    'venv --quiet --no-project --python PYTHON BUILD/venv',
    'pip compile --quiet --python BUILD/venv/bin/python --only-binary alpha --generate-hashes --no-annotate --no-header --no-strip-extras --output-file BUILD/resolved.txt ./--x $(touch x)/r.txt --no-index',
    'pip install --python BUILD/venv/bin/python --no-deps --only-binary alpha --requirement resolved.txt --no-index',
  ])
  assert.equal(existsSync(join(place.work, 'x')), false)
})

test('a uv.lock is followed to the hash, without the project itself', withUv, async () => {
  const place = makePlace()
  bringUv(place)
  makeWheel(place.wheels, 'alpha', '1.0')
  place.write('pyproject.toml', project('"alpha"', '[build-system]\nrequires = ["not-there"]\nbuild-backend = "not_there"\n'))
  place.write('src/own/__init__.py', '')
  const locked = spawnSync(uv, ['lock', '--quiet', '--no-index', '--find-links', place.wheels, '--python', python3!], {
    ...{ cwd: place.work, encoding: 'utf8', env: place.variables },
  })
  assert.equal(locked.status, 0, locked.stderr)
  makeWheel(place.wheels, 'alpha', '2.0')
  const prepared = await place.prepare({ runtime: { lock: 'uv.lock' } })
  assert.equal(prepared.code, 0, prepared.err + prepared.out)
  assert.deepEqual(prepared.environment.packages, ['alpha==1.0'])
  assert.equal(prepared.run(['python', '-c', 'import own, alpha; print(alpha.version)']), '1.0')
})

test('a uv.lock without uv says what to do', options, async () => {
  const place = makePlace()
  place.write('pyproject.toml', project('"alpha"'))
  place.write('uv.lock', 'version = 1\n')
  const { code, out, err } = await place.prepare({ runtime: { lock: 'uv.lock' } })
  assert.equal(code, 126)
  assert.match(out, /uv\.lock is read by uv, which is not on PATH: it is installed for that/)
  assert.match(err, /^uv\.lock needs uv, which is not here\.\nInstall it where Plinth runs \(pip install uv/)
})

// ── conda ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a conda file without conda has a clear verdict', options, async () => {
  const place = makePlace()
  place.write('environment.yml', 'dependencies: [python=3.11, {pip: [six]}]\n')
  await refused(
    condaEnvironment(place.request(), 'environment.yml'),
    /^environment\.yml needs conda \(or mamba, or micromamba\), which is not here\. Install one of them/,
  )
})

test('a conda file is read in its parts, and nothing of it is an option', async () => {
  const read = (text: string) => readCondaFile(text, 'environment.yml', '/')
  assert.deepEqual(
    await read(
      'name: x\nprefix: /x\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - numpy >=2,<3\n  - pip\n  - pip:\n    - six==1.17.0\n',
    ),
    {
      channels: ['conda-forge'],
      dependencies: ['python=3.11', 'numpy >=2,<3', 'pip', { pip: ['six==1.17.0'] }],
      pip: ['six==1.17.0'],
    },
  )
  const wrong: [string, RegExp][] = [
    ['dependencies: [--prefix=/x]', /"--prefix=\/x" is not a package/],
    ['channels: [--override-channels]\ndependencies: []', /is not a channel/],
    ['dependencies: ["a\\nb"]', /is not a package/],
    ['dependencies: [{pip: ["--target=/x"]}]', /is an option, not a package/],
    ['dependencies: [{npm: [x]}]', /npm stands under dependencies, where only pip may/],
    ['dependencies: [{pip: x}]', /pip has to be a list/],
    ['dependencies: python', /have to be lists/],
    ['- a', /no list of dependencies/],
    ['dependencies: &a [*a]', /stands under dependencies/],
    ['dependencies: !!js/function x', /tag/i],
    ['dependencies: []\ndependencies: []', /unique/i],
    [`a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [${'*a,'.repeat(9)}]\nc: [${'*b,'.repeat(9)}]\ndependencies: []`, /aliases/],
  ]
  for (const [text, problem] of wrong)
    await assert.rejects(read(text), (error: Error) => problem.test(error.message) || assert.fail(`${text}: ${error.message}`))
})

test('conda is called with constant words, and its environment is what the job runs in', options, async () => {
  const place = makePlace()
  // a program of another maker that is not here: one that notes its words and makes a folder with a Python, as conda does
  const calls = join(place.folder, 'calls')
  writeFileSync(
    join(place.folder, 'bin/micromamba'),
    `#!/bin/sh\nprintf '%s\\n' "$*" >>${calls}\ncase $1 in\ncreate) mkdir -p "$4" && python3 -m venv --without-pip "$4" ;;\nlist) printf '@EXPLICIT\\nhttps://c/python-3.11.tar.bz2#abc\\n' ;;\nesac\n`,
  )
  chmodSync(join(place.folder, 'bin/micromamba'), 0o755)
  place.write('environment.yml', 'channels: [conda-forge]\ndependencies: ["python =3.11; rm -rf /"]\n')
  await refused(condaEnvironment(place.request(), 'environment.yml'), /is not a package/)
  place.write('environment.yml', 'channels: [conda-forge]\ndependencies: [python=3.11]\n')
  const wanted = { runtime: { conda: 'environment.yml' } }
  const prepared = await place.prepare(wanted)
  assert.equal(prepared.code, 0, prepared.err)
  const prefix = prepared.environment.envs['CONDA_PREFIX']!
  assert.equal(prepared.run(['python', '-c', 'print("runs")']), 'runs')
  assert.equal((await place.prepare(wanted)).environment.reused, true)
  spawnSync('rm', [join(dirname(dirname(dirname(prefix))), '.complete')])
  assert.equal((await place.prepare(wanted)).code, 0)
  const words = readFileSync(calls, 'utf8')
    .trim()
    .split('\n')
    .filter(line => line !== '--version')
    .map(line => line.replaceAll(/\/\S*\/venv/g, 'PREFIX'))
  assert.deepEqual(words, [
    'create --yes --prefix PREFIX --file environment.yml',
    'list --prefix PREFIX --explicit --md5',
    'create --yes --prefix PREFIX --file explicit.txt',
    'list --prefix PREFIX --explicit --md5',
  ])
})

// ── Node ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A registry with one package, as npm asks it. */
async function registry(versions: readonly string[]) {
  const archives = new Map(
    versions.map(version => [
      version,
      tgz({
        'package/package.json': JSON.stringify({ name: 'tiny', version, main: 'i.js' }),
        'package/i.js': `module.exports = '${version}'\n`,
      }),
    ]),
  )
  let downloads = 0
  const server = createServer((request, answer) => {
    const version = /tiny-(.*)\.tgz$/.exec(request.url!)?.[1]
    if (version !== undefined) {
      downloads++
      answer.end(archives.get(version))
    } else if (request.url === '/tiny') {
      const dist = (each: string) => ({
        tarball: `${url}/tiny-${each}.tgz`,
        integrity: `sha512-${createHash('sha512').update(archives.get(each)!).digest('base64')}`,
      })
      const all = Object.fromEntries(versions.map(each => [each, { name: 'tiny', version: each, dist: dist(each) }]))
      answer.setHeader('content-type', 'application/json')
      answer.end(JSON.stringify({ name: 'tiny', 'dist-tags': { latest: versions.at(-1) }, versions: all }))
    } else {
      answer.statusCode = 404
      answer.end('{}')
    }
  }).listen(0, '127.0.0.1')
  await new Promise(done => server.once('listening', done))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { url, downloads: () => downloads, close: () => new Promise(done => server.close(done)) }
}

/** ustar, enough for npm. */
function tgz(files: Record<string, string>): Buffer {
  const blocks = Object.entries(files).flatMap(([path, text]) => {
    const head = Buffer.alloc(512)
    const put = (at: number, value: string) => head.write(value, at, 'latin1')
    put(0, path)
    put(100, '0000644\0')
    put(108, '0000000\0')
    put(116, '0000000\0')
    put(124, `${Buffer.byteLength(text).toString(8).padStart(11, '0')}\0`)
    put(136, '00000000000\0')
    put(148, '        ')
    put(156, '0')
    put(257, 'ustar\x0000')
    put(
      148,
      `${head
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
    )
    const body = Buffer.alloc(Math.ceil(Buffer.byteLength(text) / 512) * 512)
    body.write(text)
    return [head, body]
  })
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(1024)]))
}

test('packages of Node are installed once by their lock, and linked where the job runs', async t => {
  if (spawnSync('npm', ['--version']).status !== 0) return t.skip('npm is not on PATH')
  const server = await registry(['1.0.0', '1.1.0'])
  t.after(() => server.close())
  const place = makePlace()
  process.env['PLINTH_CACHE'] = place.cache
  const variables = { PATH: process.env['PATH']!, npm_config_registry: server.url, npm_config_cache: join(place.folder, 'npm') }
  place.write('package.json', JSON.stringify({ name: 'job', dependencies: { tiny: '^1.0.0' } }))
  place.write('main.js', "console.log(require('tiny'))\n")
  const wanted = { runtime: { kind: 'node' } as const, variables }
  const first = await place.prepare(wanted)
  assert.equal(first.code, 0, first.err + first.out)
  assert.deepEqual(first.environment.packages, ['tiny@1.1.0'])
  const folder = join(place.work, 'node_modules')
  assert.ok(lstatSync(folder).isSymbolicLink() && readlinkSync(folder).startsWith(environmentsFolder()))
  assert.equal(spawnSync(process.execPath, ['main.js'], { cwd: place.work, encoding: 'utf8' }).stdout, '1.1.0\n')
  assert.equal(existsSync(join(place.work, 'package-lock.json')), false) // the lock is the environment's; what the user wrote stays as it is

  const downloads = server.downloads()
  assert.equal((await place.prepare(wanted)).environment.reused, true)
  assert.equal(server.downloads(), downloads)

  // a lock of the user's
  const made = join(environmentsFolder(), first.environment.key!.slice(0, 32), 'resolved.txt')
  const lock = JSON.parse(readFileSync(made, 'utf8').replaceAll('1.1.0', '1.0.0'))
  delete lock.packages['node_modules/tiny'].integrity
  place.write('package-lock.json', JSON.stringify(lock))
  const locked = await place.prepare(wanted)
  assert.deepEqual([locked.code, locked.environment.packages], [0, ['tiny@1.0.0']], locked.err)
  assert.equal(spawnSync(process.execPath, ['main.js'], { cwd: place.work, encoding: 'utf8' }).stdout, '1.0.0\n')

  place.write('package.json', JSON.stringify({ name: 'job', dependencies: { nowhere: '^1.0.0' } }))
  const { code, err } = await place.prepare(wanted)
  assert.equal(code, 126)
  assert.match(err, /^The packages of package\.json cannot be installed\. .*(nowhere|sync|lock file)/)
})

test('node_modules of the user is used as it is, and what npm cannot do here is said', async () => {
  const place = makePlace()
  place.write('package.json', '{"dependencies":{"tiny":"1"}}')
  place.write('node_modules/tiny/package.json', '{}')
  const own = await place.prepare({ runtime: { kind: 'node' } })
  assert.equal(own.code, 0, own.err)
  assert.match(own.out, /node_modules of the job is used as it is/)
  assert.equal(own.environment.key, null)
  const other = makePlace()
  const cases: [files: Record<string, string>, problem: RegExp][] = [
    [{ 'package.json': '{"dependencies":{"tiny":"1"}}', 'yarn.lock': '' }, /^pnpm-lock\.yaml or yarn\.lock needs its own package manager/],
    [{ 'package.json': '{' }, /^package\.json: it is no JSON/],
    [
      {
        'package.json': '{"dependencies":{"tiny":"file:../x.tgz"}}',
        'package-lock.json': '{"lockfileVersion":3,"packages":{"a":{"resolved":"file:../x.tgz"}}}',
      },
      /\.\.\/x\.tgz lies outside/,
    ],
    [{ 'package-lock.json': '{"lockfileVersion":3,"packages":{"a":{"resolved":"x","link":true}}}' }, /a is a folder of the project/],
    [{ 'package-lock.json': '{"lockfileVersion":"x"}' }, /it is no lock of npm/],
  ]
  for (const [files, problem] of cases) {
    for (const [path, text] of Object.entries(files)) other.write(path, text)
    await refused(prepareNode(other.request()), problem, JSON.stringify(files))
  }
})
