/** The runner of these tests, run on files that pass, fail, skip, break and hang. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const folder = mkdtempSync(join(tmpdir(), 'runner-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const runner = fileURLToPath(new URL('../../scripts/test.ts', import.meta.url))

function runTests(files: Record<string, string>, environment: Record<string, string> = {}) {
  const paths = Object.entries(files).map(([name, text]) => {
    const path = join(folder, name)
    writeFileSync(path, `import assert from 'node:assert/strict'\nimport { describe, test } from 'node:test'\n${text}\n`)
    return path
  })
  return run(paths, environment)
}

async function run(words: string[], environment: Record<string, string> = {}) {
  const child = spawn(process.execPath, [runner, ...words], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let printed = ''
  child.stdout.setEncoding('utf8').on('data', text => (printed += text))
  const code = await new Promise(done => child.on('close', done))
  return { code, printed, lastLine: printed.trimEnd().split('\n').at(-1) }
}

test('passes, subtests and skips are counted, and the reason of a skip is shown', async () => {
  const { code, printed, lastLine } = await runTests({
    'fine.ts': `
      test('one', () => {})
      describe('a group is not a test', () => { test('two', () => {}) })
      test('three', async t => { await t.test('four', () => {}) })
      test('five', t => t.skip('no moon tonight'))`,
  })
  assert.equal(lastLine, '4 passed, 0 failed, 1 skipped')
  assert.match(printed, /no moon tonight: five/)
  assert.equal(code, 0)
})

test('a failure is shown with its name, its difference and what the file printed', async () => {
  const { code, printed, lastLine } = await runTests({
    'bad.ts': `console.log('a hint'); describe('sums', () => { test('add up', () => assert.equal(1 + 1, 3)) })`,
    'good.ts': `test('good', () => {})`,
  })
  assert.equal(lastLine, '1 passed, 1 failed, 0 skipped')
  assert.match(printed, /✗ sums › add up/)
  assert.match(printed, /2 !== 3/)
  assert.match(printed, /│ a hint/)
  assert.equal(code, 1)
})

test('a file that breaks before its first test, one without tests and one that dies are failures', async () => {
  const { code, lastLine } = await runTests({
    'broken.ts': `import './nowhere.ts'`,
    'empty.ts': '',
    'dies.ts': `test('fine', () => {}); process.on('exit', () => { process.exitCode = 3 })`,
  })
  assert.equal(lastLine, '1 passed, 3 failed, 0 skipped')
  assert.equal(code, 1)
})

test('a file that hangs is killed with everything it started, and fails', async () => {
  const pidFile = join(folder, 'pid')
  const { printed, lastLine } = await runTests(
    {
      'hangs.ts': `
        import { spawn } from 'node:child_process'
        import { writeFileSync } from 'node:fs'
        test('waits for ever', async () => {
          writeFileSync(${JSON.stringify(pidFile)}, String(spawn('sleep', ['1000']).pid))
          await new Promise(() => setInterval(() => {}, 1000))
        })`,
    },
    { PLINTH_TEST_TIMEOUT: '2' },
  )
  assert.equal(lastLine, '0 passed, 1 failed, 0 skipped')
  assert.match(printed, /did not end within 2 s/)
  const pid = Number(readFileSync(pidFile, 'utf8'))
  assert.ok(isGone(pid), `the process ${pid} that the test started still runs`)
})

test('a child that a test leaves behind does not keep the runner waiting', async () => {
  const { lastLine } = await runTests({
    'leaves.ts': `
      import { spawn } from 'node:child_process'
      test('starts something', () => { spawn('sleep', ['1000'], { stdio: 'inherit' }).unref() })`,
  })
  assert.equal(lastLine, '1 passed, 0 failed, 0 skipped')
})

test('a word that no test file has in its path is not a success', async () => {
  const { code, lastLine } = await run(['no-such-test-file'])
  assert.equal(lastLine, '0 passed, 0 failed, 0 skipped')
  assert.equal(code, 1)
})

/** A killed process that its new parent has not yet buried still answers signals: /proc tells the two apart. */
function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch {
    return true
  }
  return process.platform === 'linux' && readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.startsWith('Z')
}
