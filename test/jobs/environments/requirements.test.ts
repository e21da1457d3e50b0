/** Requirement files, which people write and strangers send: what is passed on, what is refused, and that pip reads the same lines. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../../../src/failure.ts'
import { logicalLines, readRequirements, requirementsOfLines } from '../../../src/jobs/environments/requirements.ts'
import { python3 } from './attempts.ts'

const root = mkdtempSync(join(tmpdir(), 'requirements-'))
const write = (path: string, content: string | Uint8Array) => {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), content)
}
const options = { root, envs: {}, secrets: {} }
const read = async (text: string | Uint8Array, more: Partial<typeof options> = {}) => {
  write('r.txt', text)
  return await readRequirements('r.txt', { ...options, ...more })
}
/** A variable, as pip writes it. */
const ref = (name: string) => `$\{${name}}`
const given = async (text: string) => (await read(text)).files[0]!.text.trimEnd()

test('lines keep their numbers, comments and options leave', async () => {
  const found = await read(
    '# top\n--pre\n\nnumpy>=2,<3  # why\n--only-binary=:all:\ntorch[dev] ; python_version < "3.12"\n-i https://a/simple --extra-index-url=https://b/simple\n',
  )
  assert.equal(found.files[0]!.text, '\n\n\nnumpy>=2,<3\n\ntorch[dev] ; python_version < "3.12"\n')
  assert.deepEqual({ ...found.index }, { index: 'https://a/simple', extra: ['https://b/simple'], findLinks: [], noIndex: false })
  assert.deepEqual([found.pre, found.onlyBinary, found.names], [true, [':all:'], ['numpy', 'torch']])
})

test('nested files are read, once each, with their options', async () => {
  write('more/dev.txt', '-r ../r.txt\n-c limits.txt\npytest\n')
  write('more/limits.txt', 'numpy<3\n--no-index\n')
  await assert.rejects(read('numpy\n-r more/dev.txt\n'), /asks for itself/)
  write('more/dev.txt', '-c limits.txt\npytest\n--find-links wheels\n')
  const found = await read('numpy\n-rmore/dev.txt\n')
  assert.deepEqual(
    found.files.map(({ path, text }) => [path, text]),
    [
      ['r.txt', 'numpy\n-r more/dev.txt\n'],
      ['more/dev.txt', '-c limits.txt\npytest\n'],
      ['more/limits.txt', 'numpy<3\n'],
    ],
  )
  assert.deepEqual(found.index.findLinks, [join(root, 'more', 'wheels')])
  assert.equal(found.index.noIndex, true)
})

test('hashes, over several lines, make every package need one', async () => {
  const hash = `--hash=sha256:${'0a'.repeat(32)}`
  const found = await read(`six==1.17.0 \\\n    ${hash} \\\n    --hash sha256:${'0B'.repeat(32)}\n`)
  assert.equal(found.files[0]!.text.trimEnd(), `six==1.17.0 ${hash} --hash=sha256:${'0b'.repeat(32)}`)
  assert.equal(found.requireHashes, true)
})

test('a file as PowerShell writes it is read', async () => {
  assert.equal(await given(Buffer.from('\ufeffnumpy==2.0\r\nsix\r\n', 'utf16le') as never), 'numpy==2.0\nsix')
})

test('no option reaches the installer from a line of a file, and what is refused says where and what to do', async () => {
  const cases: [string, RegExp][] = [
    ['numpy --install-option="--prefix=/"', /"--install-option=--prefix=\/" stands behind a package, where only --hash may/],
    ['numpy --global-option=x', /only --hash may/],
    ['numpy --config-settings k=v', /only --hash may/],
    ['--target /etc', /the option "--target" is not passed on/],
    ['--prefix=/usr', /the option "--prefix" is not passed on/],
    ['-t /etc', /the option "-t" is not passed on/],
    ['--trusted-host evil', /turns the check of certificates off/],
    ['-e .', /a folder, whose content changes/],
    ['--editable=git+https://x/y', /a folder, whose content changes/],
    ['.', /a folder, whose content changes/],
    ['-r https://example.org/r.txt', /not fetched from an address/],
    ['-r /etc/passwd', /lies outside/],
    ['-r ../../../../../../etc/passwd', /lies outside/],
    ['-c link.txt', /lies outside/],
    ['-r', /lacks its value/],
    ['--pre=1', /takes no value/],
    ['--no-binary=--pre', /is no name of a package/],
    ['-i file:///etc', /is no address of an index/],
    ['-i https://h/ --target=/x', /the option "--target" is not passed on/],
    ['hg+https://h/r', /packages are not taken from "hg\+https:"/],
    ['git+ext::sh -c touch% /tmp/x', /packages are not taken from|is no address|stands behind a package/],
    ['git+https://h/r@--upload-pack=x', /is no address of a repository/],
    ['git+ssh://-oProxyCommand=x/r', /is no address of a repository/],
    ['x @ file:///etc/passwd', /lies outside/],
    ['numpy; import os; os.system("x")', /cannot be read as a condition|is no condition/],
    ['numpy>=2 $(touch x)', /cannot be read as a package/],
    ['numpy`id`', /cannot be read as a package/],
    ['numpy\0', /is no text in UTF-8/],
    ['six --hash=md5:00', /is no hash/],
    ["-r 'half", /a quote is not closed/],
    [`numpy==${ref('PLINTH_TOKEN')}`, /wants the variable PLINTH_TOKEN, which the job does not have/],
  ]
  symlinkSync('/etc/passwd', join(root, 'link.txt'))
  for (const [line, problem] of cases)
    await assert.rejects(read(`six\n${line}\n`), (error: unknown) => {
      assert.ok(error instanceof Failure && error.code === 'environment_file_invalid', `${line}: ${error}`)
      assert.match(error.message, problem, line)
      if (!line.includes('\0')) assert.match(error.message, /^r\.txt, line 2: /, line)
      assert.ok(error.next.length > 5)
      return true
    })
  await assert.rejects(requirementsOfLines(['numpy', '--pre'], 'pyproject.toml', options), /^Failure: pyproject.toml: "--pre" is an option/)
  await assert.rejects(requirementsOfLines(['numpy\n--pre'], 'pyproject.toml', options), /control characters/)
})

test('variables of the job are filled in; secrets stay with the installer', async () => {
  const text = `numpy==${ref('NUMPY')}\n-i https://u:${ref('TOKEN')}@h/simple\nown @ git+https://${ref('TOKEN')}@h/r@main\n`
  const found = await read(text, { envs: { NUMPY: '2.1' }, secrets: { TOKEN: 's3cret' } } as never)
  assert.equal(found.files[0]!.text, `numpy==2.1\n\nown @ git+https://${ref('TOKEN')}@h/r@main\n`)
  assert.equal(found.index.index, 'https://u:s3cret@h/simple')
  assert.match(found.notices[0]!, /line 3: taken from what main is now/)
  await assert.rejects(read(`numpy==${ref('NUMPY')}\n`, { envs: { NUMPY: '1 --pre' } } as never), /only --hash may/)
})

test('whatever stands in a file, the installer gets packages and nothing else', async () => {
  const piece = fc.constantFrom(
    'numpy',
    ' ',
    '-',
    '--',
    '\\\n',
    '\n',
    '#',
    '--hash=',
    'sha256:',
    '0'.repeat(64),
    '@',
    'https://h/a.whl',
    ';',
    '"',
    "'",
    '==1',
    '[x]',
    '\t',
    '-r',
    'r.txt',
    '\u2028',
    '=',
    ',',
    ref('A'),
    ':all:',
  )
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof(piece, fc.string({ maxLength: 4 })), { maxLength: 12 }), async pieces => {
      const found = await read(pieces.join('')).catch((error: unknown) => {
        assert.ok(error instanceof Failure, String(error))
        return null
      })
      for (const { text } of found?.files ?? [])
        for (const line of text.split('\n')) assert.match(line, /^$|^([A-Za-z0-9]|https?:\/\/|git\+|file:)((?!\s--?(?!hash=sha)).)*$/)
    }),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 20_000 : 500 },
  )
})

test('pip joins the same lines and sees the same comments', { skip: python3 === null && 'python3 is not installed' }, t => {
  const texts = fc.sample(
    fc
      .array(fc.constantFrom('a', ' ', '#', '\\', '\n', 'b==1', '\t', '\\\n', '# x', ' #y'), { maxLength: 14 })
      .map(parts => parts.join('')),
    { numRuns: 400, seed: 7 },
  )
  const script = `
import json, sys
from pip._internal.req import req_file as r
print(json.dumps([[list(each) for each in r.ignore_comments(r.join_lines(enumerate(text.splitlines(), start=1)))] for text in json.load(sys.stdin)]))`
  const asked = spawnSync(python3!, ['-c', script], { input: JSON.stringify(texts), encoding: 'utf8' })
  if (asked.status !== 0) return t.skip('this python3 has no pip to compare with')
  const ours = texts.map(text =>
    logicalLines(text.split('\n'))
      .map(({ number, text }) => [number, text] as const)
      .filter(([, line]) => line !== ''),
  )
  for (const [i, theirs] of (JSON.parse(asked.stdout) as [number, string][][]).entries())
    assert.deepEqual(
      ours[i]!.map(([, line]) => line),
      theirs.map(([, line]) => line),
      JSON.stringify(texts[i]),
    )
})
