/** Environments built for real, by pip, from a folder of packages: no network is asked. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { environmentsFolder, findUnusedEnvironments } from '../../../src/jobs/environments/store.ts'
import { long, makePlace, makeWheel, noPython, type Place, type Prepared, python3 } from './attempts.ts'

const options = { skip: python3 === null && noPython }
let place: Place
before(() => {
  place = makePlace()
  process.env['PLINTH_CACHE'] = place.cache
  makeWheel(place.wheels, 'alpha', '1.0', { requires: ['beta>=1'], scripts: { 'alpha-says': 'alpha:main' } })
  makeWheel(place.wheels, 'beta', '1.0')
  makeWheel(place.wheels, 'gamma', '1.0')
})

const environmentOf = ({ environment }: Prepared) => join(environmentsFolder(), environment.key!.slice(0, 32))
const buildsIn = (folder: string) => (existsSync(join(folder, 'builds')) ? readdirSync(join(folder, 'builds')) : [])
const endAll = () => {
  for (const attempt of readdirSync(join(place.folder, 'attempts')))
    writeFileSync(join(place.folder, 'attempts', attempt, 'exit.json'), '{}')
}

test(
  'packages of a requirement file are there for the job, written down with hashes, and used by the next job as they are',
  options,
  async () => {
    place.write('requirements.txt', '# what we need\nalpha>=1\n')
    const first = await place.prepare({ runtime: { requirements: 'requirements.txt' } })
    assert.equal(first.code, 0, first.err)
    assert.equal(first.environment.reused, false)
    assert.deepEqual(first.environment.packages, ['alpha==1.0', 'beta==1.0'])
    assert.equal(first.run(['python', '-c', 'import alpha, beta; print(alpha.version, beta.version)']), '1.0 1.0')
    assert.equal(first.run(['alpha-says']), 'alpha 1.0')
    const list = readFileSync(join(environmentOf(first), 'resolved.txt'), 'utf8')
    assert.equal(readFileSync(join(first.folder, 'capture/packages.txt'), 'utf8'), list) // goes with the run
    assert.match(list, /^alpha==1.0 --hash=sha256:[0-9a-f]{64}\nbeta==1.0 --hash=sha256:[0-9a-f]{64}\n$/)

    const second = await place.prepare({ runtime: { requirements: 'requirements.txt' } })
    assert.equal(second.environment.key, first.environment.key)
    assert.equal(second.environment.reused, true)
    assert.doesNotMatch(second.out, /Collecting|Processing/)
    assert.equal(second.run(['python', '-c', 'import alpha; print(alpha.version)']), '1.0')
  },
)

test('what setup installs is in the layer of its job alone', options, async () => {
  const one = await place.prepare({ runtime: { requirements: 'requirements.txt' } })
  one.run(['pip', 'install', '--quiet', 'gamma'])
  assert.equal(one.run(['python', '-c', 'import alpha, gamma; print(gamma.version)']), '1.0')
  const other = await place.prepare({ runtime: { requirements: 'requirements.txt' } })
  assert.equal(other.environment.reused, true)
  assert.match(other.try(['python', '-c', 'import gamma']).err, /No module named 'gamma'/)
  assert.deepEqual(other.environment.packages, ['alpha==1.0', 'beta==1.0'])
})

test('two jobs that want the same at once build it once', options, async () => {
  place.write('both.txt', 'alpha\ngamma\n')
  const both = [1, 2].map(() => place.begin({ runtime: { requirements: 'both.txt' } }))
  const ended = await Promise.all(both.map(each => each.ended))
  assert.deepEqual(
    ended.map(({ code, err }) => `${code}${err}`),
    ['0', '0'],
  )
  assert.deepEqual(ended.map(({ environment }) => environment.reused).toSorted(), [false, true])
  assert.equal(ended.filter(({ out }) => out.includes('Successfully installed')).length, 1)
  assert.equal(buildsIn(environmentOf(ended[0]!)).length, 1)
  for (const each of ended) assert.equal(each.run(['python', '-c', 'import alpha, gamma; print(alpha.version)']), '1.0')
})

test('a build that is killed at any moment leaves nothing that is believed, and the next one succeeds', options, async () => {
  const kills = long ? 40 : 1
  for (let i = 0; i < kills; i++) {
    const file = `killed-${i}.txt`
    place.write(file, `alpha>=0.${i}\n`)
    const wanted = { runtime: { requirements: file } }
    const { child, ended, said } = place.begin(wanted)
    await said(i % 2 ? 'Processing' : 'is being built')
    await new Promise(done => setTimeout(done, ((i * 7919) % 13) * 30)) // spread over the build, which takes about half a second
    child.kill('SIGKILL')
    await ended
    const again = await place.prepare(wanted)
    assert.equal(again.code, 0, again.err)
    assert.equal(again.run(['python', '-c', 'import alpha, beta; print(alpha.version, beta.version)']), '1.0 1.0')
    assert.equal(buildsIn(environmentOf(again)).length, 1)
  }
})

test('a build that is asked to end does so, and says nothing of a failure', options, async () => {
  place.write('stopped.txt', 'alpha>0.1\n')
  const { child, ended, said } = place.begin({ runtime: { requirements: 'stopped.txt' } })
  await said('is being built')
  child.kill('SIGTERM')
  const { code, err } = await ended
  assert.equal(`${code} ${err}`, '143 ')
})

test('an environment that was cleaned away is built again exactly, also when newer packages are there by now', options, async () => {
  // a file that was named from elsewhere brings its own folder
  mkdirSync(join(place.folder, 'elsewhere'))
  writeFileSync(join(place.folder, 'elsewhere/limits.txt'), '')
  const file = join(place.folder, 'elsewhere/exact.txt')
  writeFileSync(file, '-c limits.txt\nbeta\n')
  const wanted = { runtime: { requirements: file } }
  const first = await place.prepare(wanted)
  endAll()
  makeWheel(place.wheels, 'beta', '2.0')
  try {
    const unused = await findUnusedEnvironments({ days: -1 })
    const mine = unused.find(({ path }) => path === join(environmentOf(first), 'builds'))
    assert.ok(mine && mine.bytes > 0)
    assert.equal(await mine.remove(), mine.bytes)
    assert.deepEqual(buildsIn(environmentOf(first)), [])

    const again = await place.prepare(wanted)
    assert.equal(again.environment.key, first.environment.key)
    assert.match(again.out, /built again, from what it had/)
    assert.deepEqual(again.environment.packages, ['beta==1.0'])
    writeFileSync(file, 'beta>0\n')
    const other = await place.prepare(wanted)
    assert.deepEqual(other.environment.packages, ['beta==2.0'])
    assert.notEqual(other.environment.key, first.environment.key)
  } finally {
    rmSync(join(place.wheels, 'beta-2.0-py3-none-any.whl'))
  }
})

test(
  'an environment that an attempt is at work in stays, and goes when it has ended and nobody has used it for long',
  options,
  async () => {
    endAll()
    const used = await place.prepare({ runtime: { requirements: 'requirements.txt' } })
    const mine = async (days: number) =>
      (await findUnusedEnvironments({ days })).find(({ path }) => path === join(environmentOf(used), 'builds'))
    assert.equal(await mine(-1), undefined)
    writeFileSync(join(used.folder, 'exit.json'), '{}')
    assert.equal(await mine(30), undefined)
    const found = await mine(-1)
    assert.ok(found)
    // another job comes between the look and the removal
    await place.prepare({ runtime: { requirements: 'requirements.txt' } })
    assert.equal(await found.remove(), 0)
    assert.equal(used.run(['python', '-c', 'import alpha; print(alpha.version)']), '1.0')
  },
)

test('what cannot be installed is told in the words of the resolver, and ends with 126', options, async () => {
  makeWheel(place.wheels, 'delta', '1.0', { requires: ['gamma>=5'] })
  const cases: [string, RegExp][] = [
    ['nowhere==9\n', /Could not find a version that satisfies the requirement nowhere==9/],
    ['delta\n', /gamma>=5/],
  ]
  for (const [text, said] of cases) {
    place.write('wrong.txt', text)
    const { code, err, folder } = await place.prepare({ runtime: { requirements: 'wrong.txt' } })
    assert.equal(code, 126)
    assert.match(err, said)
    assert.match(err, /^The packages of wrong\.txt cannot be installed\. /)
    assert.doesNotMatch(err, /^\s+at |Traceback|ERROR:/m)
    assert.ok(err.trim().split('\n').length === 2 && !existsSync(join(folder, 'environment.json')), err)
  }
})

test('a Python that is not here is named with those that are', options, async () => {
  const { code, err } = await place.prepare({ runtime: { python: '3.99' } })
  assert.equal(code, 126)
  assert.match(err, /^The job asks for Python 3\.99; here are \d+\.\d+/)
  assert.match((await place.prepare({ runtime: { python: 'latest; rm' } })).err, /^"latest; rm" is no version of Python\./)
})

test('the interpreter as it is has the name python, and setup may install into it', options, async () => {
  const plain = await place.prepare({ runtime: {} })
  assert.equal(plain.environment.key, null)
  assert.equal(plain.run(['python', '-c', 'import sys; print(sys.version_info[:2] >= (3, 6))']), 'True')
  plain.run(['pip', 'install', '--quiet', 'gamma'])
  assert.equal(plain.run(['python', '-c', 'import gamma; print(gamma.version)']), '1.0')
  assert.equal(plain.run(['python3', '-m', 'pip', '--version']).startsWith('pip '), true)
})

test('no password of an index, of the job or of the machine, stands in the log or in a file of the cache', options, async () => {
  place.write('secret.txt', `--extra-index-url https://user:$\{INDEX_TOKEN}@127.0.0.1:9/simple\nnowhere-else\n`)
  const { code, out, err, folder } = await place.prepare({
    runtime: { requirements: 'secret.txt' },
    secrets: { INDEX_TOKEN: 'hunter2-token' },
    variables: {
      PIP_NO_INDEX: undefined,
      PIP_FIND_LINKS: undefined,
      PIP_INDEX_URL: 'http://me:machine-password@127.0.0.1:9/simple',
      PIP_RETRIES: '0',
    },
  })
  assert.equal(code, 126)
  const files = [place.cache, join(folder, 'venv')]
    .filter(existsSync)
    .flatMap(each => readdirSync(each, { recursive: true, withFileTypes: true }))
  const kept = files
    .filter(entry => entry.isFile() && /\.(txt|json|cfg|pth)$/.test(entry.name))
    .map(entry => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
  assert.ok(kept.length > 3)
  for (const text of [out, err, ...kept]) assert.doesNotMatch(text, /hunter2-token|machine-password/)
})

test('a cache that cannot be written is said as such, without the path of it', options, async () => {
  const blocked = join(place.folder, 'a file')
  writeFileSync(blocked, '')
  const { code, err } = await place.prepare({
    runtime: { requirements: 'requirements.txt' },
    variables: { PLINTH_CACHE: join(blocked, 'cache') },
  })
  assert.equal(code, 126)
  assert.equal(err.split('\n').length, 3, err)
  assert.equal(err.includes(place.folder), false, err)
})
