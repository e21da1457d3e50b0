/** What a job was made of: real repositories of git, and real folders. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Capture, type CaptureOptions, capture, captureFiles, captureTags, listFiles, readStatus } from '../../src/jobs/capture.ts'
import { maskTokens } from '../../src/jobs/environments/tokens.ts'
import { readIgnore } from '../../src/jobs/ignore.ts'
import { type JobSpec, plainSpec } from '../../src/jobs/spec.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const hasGit = spawnSync('git', ['--version']).status === 0
const options = { skip: !hasGit && 'git is not installed' }

function makeFolder(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'capture-'))
  write(folder, files)
  return folder
}
function write(folder: string, files: Record<string, string>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
}
function git(folder: string, ...words: string[]): string {
  const env = {
    PATH: process.env['PATH'],
    HOME: folder,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_AUTHOR_NAME: 'a',
    GIT_AUTHOR_EMAIL: 'a@b',
    GIT_COMMITTER_NAME: 'a',
    GIT_COMMITTER_EMAIL: 'a@b',
  }
  const done = spawnSync('git', words, { cwd: folder, env, encoding: 'utf8' })
  assert.equal(done.status, 0, done.stderr)
  return done.stdout.trim()
}
function repository(files: Record<string, string>): string {
  const folder = makeFolder(files)
  git(folder, 'init', '-q', '-b', 'main')
  git(folder, 'add', '.')
  git(folder, 'commit', '-q', '-m', 'first')
  return folder
}
async function captured(workdir: string, more: { spec?: Partial<JobSpec>; secrets?: Record<string, string>; run?: JobSpec['run'] } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'attempt-'))
  const given: CaptureOptions = {
    attempt: {
      spec: plainSpec('job', more.run ?? { argv: ['python', 'train.py', '--lr', '0.1'] }, { workdir, ...more.spec }),
      allocation: { nodes: [{ node: 'here', cpus: 2, memory: 4e9, devices: [{ id: 'GPU-1', vendor: 'nvidia', name: 'H100', share: 1 }] }] },
    },
    folder,
    secrets: more.secrets ?? {},
    machine: { host: 'box', platform: 'linux-x64', processor: 'Zen' },
    plinth: '1.2.3',
  }
  const record = await capture(given)
  const path = join(folder, 'capture', 'code.diff')
  assert.deepEqual(JSON.parse(readFileSync(join(folder, 'capture', 'job.json'), 'utf8')), record)
  return { record, folder, diff: existsSync(path) ? readFileSync(path, 'utf8') : null }
}
const gitOf = ({ git: state }: Capture) => ('none' in state ? assert.fail(state.none) : state)

test(
  'the commit, the branch, what differs from it and the script are in one record, with tags in the words of MLflow',
  options,
  async () => {
    const workdir = repository({ 'train.py': 'lr = 1\n', 'a b.txt': 'x\n', 'gone.py': 'old\n' })
    git(workdir, 'remote', 'add', 'origin', 'https://user:password@example.org/r.git')
    const clean = await captured(workdir)
    assert.equal(gitOf(clean.record).dirty, false)
    assert.equal(clean.diff, null)

    write(workdir, { 'train.py': 'lr = 2\n', 'new file.py': 'new\n', 'a b.txt': 'y\n' })
    git(workdir, 'add', 'a b.txt')
    rmSync(join(workdir, 'gone.py'))
    const { record, diff, folder } = await captured(workdir)
    const state = gitOf(record)
    assert.deepEqual([state.commit, state.branch, state.remote], [git(workdir, 'rev-parse', 'HEAD'), 'main', 'https://example.org/r.git'])
    assert.deepEqual([state.dirty, state.changed.toSorted(), state.untracked], [true, ['a b.txt', 'gone.py', 'train.py'], ['new file.py']])
    assert.match(diff!, /^-lr = 1\n\+lr = 2$/m)
    assert.match(diff!, /^-x\n\+y$/m)
    assert.equal(record.command, 'python train.py --lr 0.1')
    assert.equal(record.script!.path, 'train.py')
    assert.equal(record.script!.sha256, spawnSync('sha256sum', [join(workdir, 'train.py')], { encoding: 'utf8' }).stdout.slice(0, 64))
    assert.deepEqual(record.machine, {
      host: 'box',
      platform: 'linux-x64',
      processor: 'Zen',
      cpus: 2,
      memory: 4e9,
      devices: ['H100 (GPU-1)'],
    })
    assert.deepEqual(captureTags(record)['mlflow.source.git.commit'], state.commit)
    assert.deepEqual(captureTags(record)['plinth.git.dirty'], 'true')
    assert.deepEqual((await captureFiles(folder)).map(({ name }) => name).toSorted(), [
      'environment/code.diff',
      'environment/files.json',
      'environment/job.json',
    ])
    // the diff makes the same tree from the commit
    const copy = mkdtempSync(join(tmpdir(), 'copy-'))
    git(copy, 'clone', '-q', workdir, '.')
    writeFileSync(join(copy, '.git', 'd'), diff!)
    git(copy, 'apply', '.git/d')
    assert.equal(readFileSync(join(copy, 'train.py'), 'utf8'), 'lr = 2\n')
    assert.equal(existsSync(join(copy, 'gone.py')), false)
  },
)

test('secrets are masked: those of the job, those that look like one, and files that are there to hide them', options, async () => {
  const workdir = repository({ 'train.py': 'x\n', '.env': 'A=1\n', 'conf/key.pem': 'k\n' })
  const token = `ghp_${'a1B2'.repeat(9)}`
  write(workdir, {
    'train.py': `password = "correct horse"\nkey = "my-own-secret"\ntoken = os.environ["TOKEN"]\nurl = "https://u:pw12345@h/x"\ngh = "${token}"\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\n`,
    '.env': 'A=hidden-value\n',
    'conf/key.pem': 'hidden-value\n',
  })
  const { record, diff } = await captured(workdir, {
    secrets: { KEY: 'my-own-secret' },
    run: { shell: 'KEY=my-own-secret python train.py' },
  })
  for (const secret of ['correct horse', 'my-own-secret', 'pw12345', token, 'MIIabc', 'hidden-value'])
    assert.equal(diff!.includes(secret), false, secret)
  assert.match(diff!, /os\.environ\["TOKEN"\]/)
  assert.deepEqual(gitOf(record).changed.toSorted(), ['.env', 'conf/key.pem', 'train.py'])
  assert.equal(gitOf(record).diff!.complete, false)
  assert.equal(record.command, 'KEY=*** python train.py')
  assert.equal(record.script!.path, 'train.py')
})

test('nothing that a repository names as a program is started', options, async () => {
  const workdir = repository({ 'train.py': 'x\n', '.gitattributes': '*.py diff=evil\n' })
  const trap = join(workdir, '..', `${workdir.split('/').at(-1)}-ran`)
  writeFileSync(join(workdir, 'evil.sh'), `#!/bin/sh\ntouch ${trap}\n`)
  chmodSync(join(workdir, 'evil.sh'), 0o755)
  for (const name of ['core.fsmonitor', 'diff.external', 'diff.evil.command', 'diff.evil.textconv', 'core.pager', 'core.sshCommand'])
    git(workdir, 'config', name, join(workdir, 'evil.sh'))
  write(workdir, { 'train.py': 'y\n' })
  const { diff } = await captured(workdir)
  assert.match(diff!, /\+y/)
  assert.equal(existsSync(trap), false)
})

test('a folder without git, without a commit or without anything is said to be so', options, async () => {
  const bare = await captured(makeFolder({ 'train.py': 'x\n' }))
  assert.deepEqual(bare.record.git, { none: 'the folder is in no repository of git' })
  assert.equal(captureTags(bare.record)['plinth.git'], 'the folder is in no repository of git')
  const empty = makeFolder({})
  git(empty, 'init', '-q')
  assert.deepEqual((await captured(empty)).record.git, { none: 'the repository has no commit yet' })
  const { record } = await captured(join(empty, 'gone'))
  assert.deepEqual([record.files.count, record.script], [0, null])
})

test('a diff over 1 MB is cut, and the record says so', options, async () => {
  const workdir = repository({ 'train.py': 'x\n' })
  write(workdir, { 'train.py': `${'line of text\n'.repeat(120_000)}` })
  const { record, diff } = await captured(workdir)
  assert.deepEqual([diff!.length, gitOf(record).diff!.complete], [1_000_000, false])
})

test('the list of files honours .plinthignore, follows no link, and has one digest', async () => {
  const folder = makeFolder({
    'train.py': 'x',
    'data/big.bin': 'zz',
    'data/keep/a.txt': 'y',
    'node_modules/m/i.js': 'n',
    'run/__pycache__/a.pyc': 'c',
    '.plinthignore': 'data/*\n!data/keep/\n',
  })
  symlinkSync('/etc/passwd', join(folder, 'link'))
  const { rows, complete, sha256, bytes } = await listFiles(folder)
  assert.deepEqual(
    rows.map(({ path }) => path),
    ['.plinthignore', 'data/keep/a.txt', 'train.py'],
  )
  assert.deepEqual([complete, bytes], [true, 21])
  assert.equal((await listFiles(folder)).sha256, sha256)
  writeFileSync(join(folder, 'train.py'), 'y')
  assert.notEqual((await listFiles(folder)).sha256, sha256)
})

test('status is read as git writes it, whatever the names', options, () => {
  assert.deepEqual(readStatus(' M a b\0R  new\0old\0?? x\ny\0A  z\0'), { changed: ['a b', 'new', 'z'], untracked: ['x\ny'] })
})

test('.plinthignore leaves out what git leaves out by the same patterns', options, () => {
  const folder = makeFolder({})
  git(folder, 'init', '-q')
  const part = fc.constantFrom(
    'a',
    'b',
    'ab',
    'a.c',
    '*',
    '**',
    '?',
    'a*',
    '*b',
    '[ab]',
    '[!a]',
    '[a-c]x',
    '\\a',
    '*.c',
    '[]a]',
    '[^b]c',
    'a\\',
    '[',
  )
  const pattern = fc
    .tuple(
      fc.constantFrom('', '!', '/', '#', '\\!'),
      fc.array(part, { minLength: 1, maxLength: 3 }),
      fc.constantFrom('', '/', ' ', '\\ ', '/**'),
    )
    .map(([head, parts, tail]) => head + parts.join('/') + tail)
  const name = fc.constantFrom('a', 'b', 'ab', 'a.c', 'ac', 'x.c', 'bx', 'cx', ']', '!a', 'abb')
  const cases = fc.sample(
    fc.tuple(
      fc.array(pattern, { minLength: 1, maxLength: 4 }),
      fc.array(fc.array(name, { minLength: 1, maxLength: 3 }), { minLength: 5, maxLength: 12 }),
    ),
    { numRuns: long ? 1500 : 60, seed: 11 },
  )
  for (const [patterns, paths] of cases) {
    writeFileSync(join(folder, '.gitignore'), `${patterns.join('\n')}\n`)
    const names = [...new Set(paths.map(parts => parts.join('/')))]
    const { stdout } = spawnSync('git', ['check-ignore', '--no-index', '--stdin', '-z'], {
      cwd: folder,
      input: names.join('\0'),
      encoding: 'utf8',
    })
    const theirs = new Set(stdout.split('\0').filter(Boolean))
    const ignore = readIgnore(patterns.join('\n'))
    for (const path of names) {
      const parts = path.split('/')
      // as whoever walks the folders asks
      const ours = parts.some((_, i) => ignore.leavesOut(parts.slice(0, i + 1).join('/'), i < parts.length - 1))
      assert.equal(ours, theirs.has(path), `${JSON.stringify(patterns)} ${path}`)
    }
  }
})

test('patterns made to take for ever take no time', () => {
  const evil = readIgnore(`${'*a'.repeat(2000)}b\n${'**/'.repeat(300)}x\n`)
  const began = performance.now()
  assert.equal(evil.leavesOut('a'.repeat(4000), false), false)
  assert.equal(evil.leavesOut('a/'.repeat(300) + 'y', false), false)
  const text = '-----BEGIN PRIVATE KEY-----\n'.repeat(20_000) + 'password='.repeat(20_000)
  assert.ok(maskTokens(text).length > 0)
  assert.ok(performance.now() - began < 3000, `${performance.now() - began} ms`)
})
