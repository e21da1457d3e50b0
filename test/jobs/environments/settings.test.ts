/** Which index an installer asks, with which variables; and which build of PyTorch for which device. Nothing is installed here. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { findInterpreter, satisfies } from '../../../src/jobs/environments/interpreters.ts'
import { requiredPackages } from '../../../src/jobs/environments/required.ts'
import { noIndexOptions, requirementsOfLines } from '../../../src/jobs/environments/requirements.ts'
import { forPip, forUv, packageSettings, readIni, uvOptions } from '../../../src/jobs/environments/settings.ts'
import { keyOf } from '../../../src/jobs/environments/store.ts'
import { indexProblem, torchBuild, torchIndex, wantsTorch } from '../../../src/jobs/environments/torch.ts'
import { makePlace, makeWheel, noPython, python3 } from './attempts.ts'

const home = mkdtempSync(join(tmpdir(), 'settings-'))
const settingsOf = (machine: Record<string, string>, more: Partial<Parameters<typeof packageSettings>[0]> = {}) =>
  packageSettings({ machine: { HOME: home, XDG_CONFIG_DIRS: home, ...machine }, envs: {}, secrets: {}, ...more })
const only = (variables: Record<string, string>, names: RegExp) =>
  Object.fromEntries(Object.entries(variables).filter(([name]) => names.test(name)))

test('a mirror that is set for pip is used by uv, and one that is set for uv by pip', async () => {
  const forBoth = async (machine: Record<string, string>) => {
    const settings = await settingsOf(machine)
    return [only(forPip(settings), /^PIP_(INDEX|EXTRA|FIND|NO_INDEX)/), only(forUv(settings), /^UV_(INDEX|DEFAULT|FIND)/)]
  }
  assert.deepEqual(
    await forBoth({ PIP_INDEX_URL: 'https://m/simple', PIP_EXTRA_INDEX_URL: 'https://a/s https://b/s', PIP_FIND_LINKS: '/w /x' }),
    [
      { PIP_INDEX_URL: 'https://m/simple', PIP_EXTRA_INDEX_URL: 'https://a/s https://b/s', PIP_FIND_LINKS: '/w /x' },
      { UV_DEFAULT_INDEX: 'https://m/simple', UV_INDEX: 'https://a/s https://b/s', UV_FIND_LINKS: '/w,/x' },
    ],
  )
  assert.deepEqual(await forBoth({ UV_INDEX_URL: 'https://m/simple', UV_INDEX: 'own=https://a/s' }), [
    { PIP_INDEX_URL: 'https://m/simple', PIP_EXTRA_INDEX_URL: 'https://a/s' },
    { UV_DEFAULT_INDEX: 'https://m/simple', UV_INDEX: 'https://a/s' },
  ])
})

test('no index at all is a word for uv, which has no variable for it', async () => {
  const settings = await settingsOf({ PIP_NO_INDEX: '1' })
  assert.deepEqual([forPip(settings)['PIP_NO_INDEX'], uvOptions(settings)], ['1', ['--no-index']])
})

test('pip.conf counts as well, below variables', async () => {
  const config = mkdtempSync(join(tmpdir(), 'config-'))
  mkdirSync(join(config, 'pip'))
  writeFileSync(
    join(config, 'pip/pip.conf'),
    '[install]\nindex-url = https://conf/simple\ntarget = /x\nuser = true\n[global]\nindex-url = https://below/simple\ncert = /c.pem\nroot = /x\n# no\nextra-index-url =\n    https://a/s\n    https://b/s\n[freeze]\nindex-url = https://no\n',
  )
  const settings = await settingsOf({ XDG_CONFIG_HOME: config })
  assert.deepEqual([settings.index, settings.extra], ['https://conf/simple', ['https://a/s', 'https://b/s']])
  // pip gets them as variables, and reads no file that may say more than that
  assert.deepEqual(only(forPip(settings), /^PIP_(CONFIG|INDEX|EXTRA|TARGET|USER|CERT|ROOT)/), {
    PIP_CONFIG_FILE: '/dev/null',
    PIP_INDEX_URL: 'https://conf/simple',
    PIP_EXTRA_INDEX_URL: 'https://a/s https://b/s',
    PIP_CERT: '/c.pem',
  })
  const above = await settingsOf({ XDG_CONFIG_HOME: config, PIP_INDEX_URL: 'https://env/simple' })
  assert.equal(above.index, 'https://env/simple')
  assert.deepEqual(readIni('[install]\nuser: true\n  indeed\n[x]\n  odd\n'), [{ section: 'install', name: 'user', value: 'true indeed' }])
})

test('what leads an installer elsewhere, and what looks into the server, is not passed on', async () => {
  const settings = await settingsOf(
    {
      PIP_TARGET: '/x',
      PIP_PREFIX: '/x',
      PIP_REQUIREMENT: '/x',
      PIP_LOG: '/x',
      PYTHONPATH: '/x',
      PLINTH_DATABASE: 'postgres://u:p@h',
      AWS_SECRET_ACCESS_KEY: 'x',
      LD_PRELOAD: 'x',
      PATH: '/bin',
    },
    { envs: { PIP_ROOT: '/x', UV_TARGET: '/x', UV_PYTHON: '/x', PYTHONSTARTUP: '/x', TORCH_CUDA_ARCH_LIST: '9.0' } },
  )
  for (const variables of [forPip(settings), forUv(settings)]) {
    assert.deepEqual(only(variables, /TARGET|PREFIX|REQUIREMENT|_LOG|PYTHONPATH|DATABASE|AWS|PRELOAD|ROOT|UV_PYTHON$|STARTUP/), {})
    assert.deepEqual([variables['PATH'], variables['TORCH_CUDA_ARCH_LIST']], ['/bin', '9.0'])
  }
})

test('the content address follows the index and what decides, and no password', async () => {
  const key = async (machine: Record<string, string>, more = {}) => keyOf((await settingsOf(machine, more)).identity)
  const plain = await key({})
  assert.notEqual(await key({ PIP_INDEX_URL: 'https://m/simple' }), plain)
  assert.notEqual(await key({ PIP_PRE: '1' }), plain)
  assert.notEqual(await key({ UV_EXCLUDE_NEWER: '2026-01-01' }), plain)
  assert.notEqual(await key({}, { asked: { index: { ...noIndexOptions(), extra: ['https://e/s'] }, secrets: [] } }), plain)
  assert.equal(await key({ PIP_INDEX_URL: 'https://u:one@m/simple' }), await key({ PIP_INDEX_URL: 'https://u:two@m/simple' }))
  assert.equal(await key({ UV_INDEX_URL: 'https://m/simple' }), await key({ PIP_INDEX_URL: 'https://m/simple' }))
  assert.equal(await key({ LANG: 'de', PIP_TIMEOUT: '9', HTTPS_PROXY: 'http://p' }), plain)
})

test('the build of PyTorch follows the device that was leased and its driver', () => {
  const cases: [vendor: string | null, driver: string | null, platform: NodeJS.Platform, build: string | null][] = [
    [null, null, 'linux', 'cpu'],
    [null, '580.65.06', 'linux', 'cpu'], // the machine has a card, the job has not
    ['nvidia', '580.65.06', 'linux', 'cu130'],
    ['nvidia', '570.86.10', 'linux', 'cu126'],
    ['nvidia', '525.60.13', 'linux', 'cu126'],
    ['nvidia', '525.60.12', 'linux', 'cu118'],
    ['nvidia', '418.40', 'linux', 'cpu'],
    ['nvidia', null, 'linux', null],
    ['amd', null, 'linux', 'rocm7.1'],
    ['intel', null, 'linux', 'xpu'],
    ['google', null, 'linux', 'cpu'],
    [null, null, 'darwin', null],
    ['apple', null, 'darwin', null],
  ]
  for (const [vendor, driver, platform, build] of cases)
    assert.equal(torchBuild(vendor === null ? [] : [{ vendor }], { platform, driver }), build, `${vendor} ${driver} ${platform}`)
  assert.equal(wantsTorch(['numpy', 'pytorch-lightning']), true)
  assert.equal(wantsTorch(['numpy', 'scikit-learn']), false)
})

test('the resolver is told the build: uv by its backend, pip by one more index', async () => {
  const settings = await settingsOf({ PIP_EXTRA_INDEX_URL: 'https://a/s' })
  assert.equal(forUv(settings, { torch: 'cu126' })['UV_TORCH_BACKEND'], 'cu126')
  assert.equal(forPip(settings, { extra: [torchIndex('cpu')] })['PIP_EXTRA_INDEX_URL'], 'https://a/s https://download.pytorch.org/whl/cpu')
  // who has said it decides
  assert.equal(forUv(await settingsOf({ UV_TORCH_BACKEND: 'cu118' }), { torch: 'cpu' })['UV_TORCH_BACKEND'], 'cu118')
})

test('an index that cannot be reached is not asked again for a while, and the usual one serves, with a notice', {
  skip: python3 === null && noPython,
}, async () => {
  const place = makePlace()
  process.env['PLINTH_CACHE'] = place.cache
  let asked = 0
  const server = createServer((_, answer) => {
    asked++
    answer.end()
  }).listen(0, '127.0.0.1')
  await new Promise(done => server.once('listening', done))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/whl/cpu`
  const variables = { PATH: place.variables['PATH']! }
  assert.equal(await indexProblem(url, python3!, variables), null)
  assert.equal(await indexProblem(url, python3!, variables), null)
  assert.equal(asked, 1)
  await new Promise(done => server.close(done))
  const gone = `${url}/gone`
  const problem = await indexProblem(gone, python3!, variables)
  assert.match(problem!, /refused/i)
  assert.equal(await indexProblem(gone, '/nowhere/python', variables), problem)

  // the package index of this test is a folder behind a server, as a mirror is
  makeWheel(place.wheels, 'torch', '2.0')
  const said: string[] = []
  const request = place.request(said, {
    machine: { ...place.variables, PIP_NO_INDEX: undefined, PIP_INDEX_URL: 'http://127.0.0.1:9/simple', PIP_RETRIES: '0' },
    torchIndexes: `http://127.0.0.1:${new URL(url).port}/other`,
  })
  const interpreter = await findInterpreter(null, place.variables)
  const requirements = await requirementsOfLines(['torch'], 'test', { root: place.work, envs: {}, secrets: {} })
  const { layer } = await requiredPackages(request, { file: 'requirements.txt', interpreter, requirements })
  assert.match(
    said.join('\n'),
    /The build of PyTorch for processors \(0\.2 GB\) is on http:\S+\/other\/cpu, which cannot be reached \(.*refused.*\)\. The one of the usual index is taken/i,
  )
  assert.equal(layer.sites.length, 1)
})

test('versions of Python are compared as PEP 440 compares them', () => {
  const cases: [version: string, wanted: string, fits: boolean][] = [
    ['3.11.7', '3.11', true],
    ['3.11.7', '3.1', false],
    ['3.11.7', '3.11.7', true],
    ['3.11.7', '>=3.10,<3.12', true],
    ['3.12.0', '>=3.10,<3.12', false],
    ['3.11.7', '==3.11.*', true],
    ['3.11.7', '==3.11', false],
    ['3.11.0', '==3.11', true],
    ['3.11.7', '!=3.11.*', false],
    ['3.11.7', '~=3.9', true],
    ['3.11.7', '~=3.9.2', false],
    ['3.9.9', '~=3.9.2', true],
    ['3.10.0', '>3.9', true],
    ['3.9.0', '>3.9', false],
    ['3.9.0', '<=3.9', true],
    ['4.0.0', '~=3.9', false],
  ]
  for (const [version, wanted, fits] of cases) assert.equal(satisfies(version, wanted), fits, `${version} ${wanted}`)
})
