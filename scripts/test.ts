/**
 * `npm test`: types, lint, then every test/**\/*.test.ts in a process of its own. `npm test -- test/cli engine` runs the files whose path
 * contains one of the words. `PLINTH_TEST=long` runs the full counts. The last line is always `N passed, N failed, N skipped`.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Ended } from './test-events.ts'

const long = process.env['PLINTH_TEST'] === 'long'
const fileTimeout = Number(process.env['PLINTH_TEST_TIMEOUT'] ?? (long ? 7200 : 300)) // seconds
const warnAfter = 8 * 60 // seconds; the promise is ten minutes on two cores
const concurrency = Math.min(2, availableParallelism())
const root = fileURLToPath(new URL('..', import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'plinth-test-'))
const running = new Set<ChildProcess>()

interface Part {
  name: string
  seconds: number
  ended: Ended[]
  /** What it printed; shown where something failed. */
  printed: string
}

const started = performance.now()
stopEverythingOnCtrlC()
const words = process.argv.slice(2)
const files = words.length ? chosenFiles(words) : globSync('test/**/*.test.ts', { cwd: root }).toSorted()
if (!files.length) console.log(`No test file has ${words.join(' or ')} in its path.`)
const parts: Part[] = []
if (!words.length) {
  parts.push(await runTool('types', ['typescript/bin/tsc', '-p', '.']))
  parts.push(await runTool('lint and format', ['@biomejs/biome/bin/biome', 'check', '.']))
}
const waiting = [...files.entries()]
await Promise.all(
  Array.from({ length: concurrency }, async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) parts.push(await runFile(next[1], next[0]))
  }),
)
rmSync(scratch, { recursive: true, force: true })
process.exitCode = summarise(parts, (performance.now() - started) / 1000)

/** A file named in full, wherever it lies, or every test file with the word in its path. */
function chosenFiles(words: readonly string[]): string[] {
  const all = globSync('test/**/*.test.ts', { cwd: root }).toSorted()
  const isFile = (word: string) => existsSync(resolve(word)) && statSync(resolve(word)).isFile()
  return [
    ...new Set(words.flatMap(word => (isFile(word) ? [resolve(word)] : all.filter(file => file.includes(word.replace(/^\.?\//, '')))))),
  ]
}

async function runTool(name: string, [script, ...args]: [string, ...string[]]): Promise<Part> {
  const { code, printed, seconds } = await runNode([join(root, 'node_modules', script), ...args], {}, fileTimeout)
  return tell({
    name,
    seconds,
    printed,
    ended: [{ name, outcome: code === 0 ? 'passed' : 'failed', detail: '', milliseconds: seconds * 1000 }],
  })
}

async function runFile(file: string, index: number): Promise<Part> {
  const folder = join(scratch, String(index))
  mkdirSync(folder)
  const events = join(folder, 'events.ndjson')
  const reporter = new URL('./test-events.ts', import.meta.url).href
  const { code, printed, seconds, timedOut } = await runNode(
    ['--enable-source-maps', '--test-reporter', reporter, '--test-reporter-destination', events, file],
    // a test that forgets to name a home of its own must not touch the one of whoever runs it
    { TMPDIR: folder, PLINTH_HOME: join(folder, 'home'), PLINTH_URL: undefined, NODE_TEST_CONTEXT: undefined },
    fileTimeout,
  )
  const ended = readEvents(events)
  const fail = (detail: string) => ended.push({ name: 'the file as a whole', outcome: 'failed', detail, milliseconds: seconds * 1000 })
  if (timedOut) fail(`It did not end within ${fileTimeout} s and was killed.`)
  else if (code !== 0 && !ended.some(test => test.outcome === 'failed')) fail(`It ended with ${code}.`)
  else if (!ended.length) fail('There is no test in it.')
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  return tell({ name: file, seconds, ended, printed })
}

function readEvents(path: string): Ended[] {
  const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
  return lines.filter(line => line.endsWith('}')).map(line => JSON.parse(line) as Ended)
}

interface Ran {
  code: number | string
  printed: string
  seconds: number
  timedOut: boolean
}
/** In a process group of its own, so that whatever a test left running goes with it. */
function runNode(args: readonly string[], environment: Record<string, string | undefined>, timeout: number): Promise<Ran> {
  return new Promise((done, failed) => {
    const began = performance.now()
    const child = spawn(process.execPath, args, {
      cwd: root,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: process.platform !== 'win32',
    })
    running.add(child)
    let printed = ''
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      killGroup(child)
    }, timeout * 1000)
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (printed = (printed + text).slice(-200_000)))
    child.on('error', failed)
    // a grandchild may hold the pipes open: the end of the process counts, then the rest is stopped and the pipes close
    child.on('exit', () => killGroup(child))
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      running.delete(child)
      done({ code: code ?? signal ?? 'nothing', printed, seconds: (performance.now() - began) / 1000, timedOut })
    })
  })
}

function killGroup(child: ChildProcess) {
  try {
    if (process.platform === 'win32') child.kill('SIGKILL')
    else process.kill(-child.pid!, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

function stopEverythingOnCtrlC() {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      for (const child of running) killGroup(child)
      rmSync(scratch, { recursive: true, force: true })
      process.exit(130)
    })
}

function tell(part: Part): Part {
  const { passed, failed, skipped } = count([part])
  const counts = [passed && `${passed} passed`, failed && `${failed} FAILED`, skipped && `${skipped} skipped`].filter(Boolean).join(', ')
  console.log(`${failed ? '✗' : '✓'} ${part.name}  ${counts}  ${part.seconds.toFixed(1)} s`)
  return part
}

function count(parts: readonly Part[]) {
  const ended = parts.flatMap(part => part.ended)
  const of = (outcome: Ended['outcome']) => ended.filter(test => test.outcome === outcome).length
  return { passed: of('passed'), failed: of('failed'), skipped: of('skipped') }
}

/** What to read when it is over; answers the exit code. */
function summarise(parts: readonly Part[], seconds: number): number {
  for (const part of parts) {
    const failures = part.ended.filter(test => test.outcome === 'failed')
    if (!failures.length) continue
    console.log(`\n──── ${part.name}`)
    for (const { name, detail } of failures) console.log(`\n✗ ${name}\n${detail.replace(/^/gm, '  ')}`)
    if (part.printed.trim()) console.log(`\n  It printed:\n${part.printed.trimEnd().replace(/^/gm, '  │ ')}`)
  }
  const skips = Map.groupBy(
    parts.flatMap(part => part.ended.filter(test => test.outcome === 'skipped').map(test => ({ ...test, file: part.name }))),
    test => test.detail || 'no reason given',
  )
  if (skips.size) console.log('\nSkipped:')
  for (const [reason, tests] of skips) console.log(`  ${reason}: ${tests.map(test => `${test.name} (${test.file})`).join('; ')}`)
  if (parts.length > 3) {
    console.log('\nSlowest:')
    for (const part of parts.toSorted((a, b) => b.seconds - a.seconds).slice(0, 5))
      console.log(`  ${part.seconds.toFixed(1).padStart(6)} s  ${part.name}`)
  }
  console.log(`\n${seconds.toFixed(0)} s with ${concurrency} at a time`)
  if (seconds > warnAfter && !long) console.log('WARNING: that is over 8 minutes; npm test promises to end within 10 on 2 cores.')
  const { passed, failed, skipped } = count(parts)
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
  return failed || !parts.length ? 1 : 0
}
