/** What every command does alike, seen from outside: real processes, pipes, signals and a pseudo-terminal. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { openSync, statSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { failures } from '../../src/failure.ts'

const example = fileURLToPath(new URL('./example.ts', import.meta.url))
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

interface Ran {
  code: number | null
  stdout: string
  stderr: string
}
interface Options {
  program?: string
  env?: Record<string, string>
  /** Called with each piece of stdout. */
  onText?: (text: string, child: ChildProcess) => void
}

function run(words: string[], { program = example, env = {}, onText }: Options = {}): Promise<Ran> {
  const child = spawn(process.execPath, [program, ...words], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  return ended(child, onText)
}

function ended(child: ChildProcess, onText?: Options['onText']): Promise<Ran> {
  let stdout = ''
  let stderr = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
    onText?.(text, child)
  })
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  return new Promise(resolve => child.on('close', code => resolve({ code, stdout, stderr })))
}

test('without --json the text goes to stdout and nothing else does', async () => {
  assert.deepEqual(await run(['show', 'a', 'b']), { code: 0, stdout: 'working\nseed 7, 2 files\n', stderr: '' })
})

test('with --json stdout is one object; the text goes to stderr; what JSON has no word for is a string', async () => {
  const { code, stdout, stderr } = await run(['show', 'a', '--json'])
  assert.equal(code, 0)
  assert.deepEqual(JSON.parse(stdout), {
    files: ['a'],
    seed: 7,
    kind: 'cat',
    serve: true,
    force: false,
    odd: ['NaN', 'Infinity', '-Infinity'],
  })
  assert.equal(stdout.split('\n').length, 2, 'one line and its end')
  assert.equal(stderr, 'working\nseed 7, 1 files\n')
})

test('--quiet leaves what was asked for; with --json only the object', async () => {
  assert.equal((await run(['show', '--quiet'])).stdout, 'seed 7, 0 files\n')
  const both = await run(['show', '--quiet', '--json'])
  assert.equal(both.stderr, '')
  assert.equal(JSON.parse(both.stdout).seed, 7)
})

test('a command that tells nothing still ends with an object', async () => {
  assert.equal((await run(['things', 'add', 'x', '--json'])).stdout, '{}\n')
})

test('a failure is cause and next step on stderr, exit 1, without control characters of foreign names', async () => {
  const { code, stdout, stderr } = await run(['refuse'])
  assert.deepEqual([code, stdout], [1, ''])
  assert.equal(stderr, `Error: There is no value for the parameter evil\ufffd[31m.\n${failures.weights_missing[2]}\n`)
})

test('a failure with --json is one object on stdout, exit 1', async () => {
  const { code, stdout, stderr } = await run(['refuse', '--json'])
  assert.deepEqual([code, stderr], [1, ''])
  assert.deepEqual(Object.keys(JSON.parse(stdout).error), ['code', 'message', 'next'])
  assert.equal(JSON.parse(stdout).error.code, 'weights_missing')
})

test('a wrong word is exit 2 and says which one was probably meant', async () => {
  const cases: [string[], RegExp][] = [
    [['shwo'], /no command called shwo\. Did you mean show\?/],
    [['things', 'lst'], /no command called things lst\. Did you mean things list\?/],
    [['things'], /things needs a verb: list, add\./],
    [['things', 'add'], /things add needs THING: what to add\./],
    [['things', 'add', 'a', 'b'], /does not know what to do with "b"/],
    [['show', '--sed', '3'], /no option --sed\. Did you mean --seed\?/],
    [['show', '--servee'], /no option --servee\. Did you mean --serve\?/],
    [['show', '-x'], /no option -x/],
    [['show', '--seed'], /--seed needs a value: --seed N/],
    [['show', '--kind', '--force'], /--kind needs a value: --kind cat\|dog/],
    [['--seed', '3', 'show'], /Options stand behind the command/],
  ]
  for (const [words, expected] of cases) {
    const { code, stdout, stderr } = await run(words)
    assert.match(stderr, expected)
    assert.deepEqual([code, stdout], [2, ''], words.join(' '))
  }
})

test('the exit code that a command answers is the exit code', async () => {
  assert.equal((await run(['code'])).code, 5)
})

test('a bug says that it is one, and shows the stack only when asked', async () => {
  for (const words of [['break'], ['break', '--later']]) {
    const { code, stderr } = await run(words)
    assert.equal(code, 1)
    assert.match(stderr, /^Error: Something in Plinth broke: [xy] is not a function\nThis is a bug\./)
    assert.doesNotMatch(stderr, /example\.ts/)
    assert.match((await run(words, { env: { PLINTH_DEBUG: '1' } })).stderr, /at .*example\.ts:\d+/)
  }
  assert.equal(JSON.parse((await run(['break', '--later', '--json'])).stdout).error.code, 'internal')
})

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} asks a command to stop; it ends with 130 and says how to go on`, async () => {
    const { code, stderr } = await run(['wait'], { onText: (_, child) => child.kill(signal) })
    assert.equal(code, 130)
    assert.match(stderr, /^Stopping … .*\nError: Stopped on request\.\nRun the same command again\.\n$/)
  })
}

test('a server that is stopped has done its work: exit 0, and its object was printed while it served', async () => {
  const { code, stdout } = await run(['serve', '--json'], { onText: (_, child) => child.kill('SIGTERM') })
  assert.deepEqual([code, stdout], [0, '{"url":"here"}\n'])
})

test('a second Ctrl-C ends a command that does not listen, at once', async () => {
  const child = spawn(process.execPath, [example, 'deaf'], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stderr.on('data', text => String(text).startsWith('Stopping') && child.kill('SIGINT'))
  const { code } = await ended(child, () => child.kill('SIGINT'))
  assert.equal(code, 130)
})

test('a reader that has seen enough ends the command without a complaint', async () => {
  const child = spawn(process.execPath, [example, 'count'], { stdio: ['ignore', 'pipe', 'pipe'] })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', text => (stderr += text))
  child.stdout.once('data', () => child.stdout.destroy())
  const code = await new Promise(resolve => child.on('exit', resolve))
  assert.deepEqual([code, stderr], [0, ''])
})

test('a full disk behind stdout is an error, not silence', { skip: process.platform !== 'linux' && 'needs /dev/full' }, async () => {
  const child = spawn(process.execPath, [example, 'show'], { stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'] })
  let stderr = ''
  child.stderr!.setEncoding('utf8').on('data', text => (stderr += text))
  assert.equal(await new Promise(resolve => child.on('close', resolve)), 1)
  assert.match(stderr, /no space left/i)
})

test('in a pipe, progress is a plain line on stderr, and none with --quiet', async () => {
  const { stdout, stderr } = await run(['progress'])
  assert.equal(stdout, 'half\nin a pipe\n')
  assert.match(stderr, /^reading {2}4 pictures in \d\.\d s\n$/)
  assert.equal((await run(['progress', '--quiet'])).stderr, '')
})

test('on a terminal, progress is one line with rate and time left that makes way for text', async t => {
  const screen = await onTerminal(['progress'])
  if (!screen) return t.skip('needs script (util-linux)')
  assert.match(screen, /\r\u001b\[2Kreading {2}█+░+ 1\/4 pictures · \d\.\d\/s · 0\.\d s left · fine/)
  assert.match(screen, /\u001b\[2Khalf\r\n/, 'the line is wiped before text is printed')
  assert.match(screen, /on a terminal/)
})

test('colour on a terminal, none with NO_COLOR, none in a pipe', async t => {
  const screen = await onTerminal(['--help'])
  if (!screen) return t.skip('needs script (util-linux)')
  assert.match(screen, /\u001b\[1mExamples/)
  assert.doesNotMatch((await onTerminal(['--help'], { NO_COLOR: '1' }))!, /\u001b\[1m/)
  assert.doesNotMatch((await run(['--help'])).stdout, /\u001b/)
})

test('a table lines up in any alphabet and neutralises control characters', async () => {
  const { stdout } = await run(['things', 'list'])
  assert.equal(stdout, 'name          size\nété              1\n日本語        1000\nevil\ufffd[2Jname    20\n')
})

test('help: for everything, for a noun, for a command', async () => {
  const all = (await run(['--help'])).stdout
  assert.match(all, /Examples\n {2}show \[FILES…\] +show what was understood\n/)
  assert.equal((await run([])).stdout, all)
  assert.equal((await run(['help'])).stdout, all)
  assert.match((await run(['things', '--help'])).stdout, /things list +list the things\n {2}things add THING +add a thing/)
  const one = (await run(['show', '--help'])).stdout
  assert.match(one, /^example|^plinth show \[FILES…\] \[options\]/)
  assert.match(one, /--seed N +a seed \(default 7; or \$EXAMPLE_SEED\)/)
  assert.match(one, /--no-serve +do not serve/)
  assert.match(one, /--json/)
  assert.equal((await run(['help', 'show'])).stdout, one)
})

test('plinth itself: it may be executed, and knows its version and its commands', async () => {
  if (process.platform !== 'win32') assert.ok(statSync(main).mode & 0o111)
  const version = JSON.parse((await run(['version', '--json'], { program: main })).stdout)
  assert.match(version.plinth, /^\d+\.\d+\.\d+/)
  assert.equal((await run(['--version'], { program: main })).stdout, `${version.plinth}\n`)
  const { stdout, stderr, code } = await run(['--help'], { program: main })
  assert.deepEqual([code, stderr], [0, ''])
  assert.match(stdout, /version +show the version/)
})

/** What a terminal would show; null where no pseudo-terminal can be had. */
function onTerminal(words: string[], env: Record<string, string> = {}): Promise<string | null> {
  // of the surroundings only this: CI, NO_COLOR, COLORTERM and others each have a say in colours
  const { PATH, HOME } = process.env
  const command = [process.execPath, example, ...words].map(word => `'${word}'`).join(' ')
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    env: { PATH, HOME, TERM: 'xterm', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return new Promise(resolve => {
    child.on('error', () => resolve(null))
    ended(child).then(({ stdout }) => resolve(stdout))
  })
}
