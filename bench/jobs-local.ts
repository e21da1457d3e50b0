/**
 * What the local engine costs: how much later a script begins than by a plain spawn, how fast its log takes lines, how late a reader sees
 * one, and the memory of a supervisor.
 *
 *     node bench/jobs-local.ts            # about a minute; --flags: the supervisor under several settings of V8 as well
 */
import { spawn } from 'node:child_process'
import { globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Attempt } from '../src/jobs/attempt.ts'
import { createLocalBackend, shimFlags } from '../src/jobs/backends/local/backend.ts'
import { plainSpec } from '../src/jobs/spec.ts'

export interface LocalMeasured {
  /**
   * Milliseconds from the call until the script runs, by the engine and by a plain spawn, the middle and the least of their differences; `cpu`:
   * seconds of processor that a supervisor has taken when it only waits.
   */
  start: { engine: number; spawn: number; difference: number; least: number; rounds: number; cpu: number }
  /** `lost`: lines that are not in the log; `cpu`: seconds of the supervisor. */
  lines: { lines: number; seconds: number; perSecond: number; lost: number; cpu: number }
  /** Milliseconds from a line's print to its reader. */
  lag: { median: number; p95: number; greatest: number }
  /** Megabytes of one supervisor: idle, and after all these lines. Private: what ends with it. */
  memory: { idle: Memory; afterwards: Memory }
  /** Of the machine, while it was measured. */
  load: number
}
interface Memory {
  rss: number
  pss: number
  private: number
}

const lines = 2_000_000
const rounds = 15
const wait = 'while [ ! -e go ]; do sleep 0.02; done'

export async function measureLocal(say: (text: string) => void = () => {}): Promise<LocalMeasured> {
  const home = mkdtempSync(join(tmpdir(), 'bench-jobs-'))
  const backend = createLocalBackend({ home, inventory: async () => [] })
  let number = 0
  const begin = async (shell: string): Promise<number> => {
    const job = ++number
    await backend.start(attemptOf(job, shell), {})
    return job
  }
  const end = async (job: number): Promise<void> => {
    writeFileSync(join(home, 'jobs', String(job), '1', 'work', 'go'), '')
    while ((await backend.observe(job, 1)).status !== 'ended') await pause(5)
  }
  try {
    await end(await begin('true')) // its files are in memory, its code is compiled

    say('start')
    const times: { engine: number; spawn: number }[] = []
    for (let i = 0; i < rounds; i++) {
      const before = epoch()
      const job = await begin('date +%s%N')
      await end(job)
      const engine = Number((await logOf(home, job)).split(' ')[2]) / 1e6 - before
      times.push({ engine, spawn: await plainSpawn() })
    }

    say('tail')
    const lags = await tail(await begin(`for i in $(seq 200); do date +%s%N; sleep 0.02; done; ${wait}`))

    say('lines')
    const idle = await begin(wait)
    await pause(500)
    const startCpu = cpuOf(shimOf(home, idle))
    const memory = { idle: memoryOf(shimOf(home, idle)), afterwards: { rss: 0, pss: 0, private: 0 } }
    await end(idle)
    const before = performance.now()
    const job = await begin(`seq 1 ${lines}; touch printed; ${wait}`)
    const folder = join(home, 'jobs', String(job), '1')
    while (!readdirSync(join(folder, 'work')).includes('printed')) await pause(2)
    const seconds = (performance.now() - before) / 1000
    memory.afterwards = memoryOf(shimOf(home, job))
    const cpu = cpuOf(shimOf(home, job))
    await end(job)
    const lost = lines - (await countInOrder(job))
    return {
      start: {
        engine: median(times.map(each => each.engine)),
        spawn: median(times.map(each => each.spawn)),
        difference: median(times.map(each => each.engine - each.spawn)),
        least: Math.min(...times.map(each => each.engine - each.spawn)),
        rounds,
        cpu: startCpu,
      },
      lines: { lines, seconds, perSecond: lines / seconds, lost, cpu },
      lag: { median: median(lags), p95: lags.toSorted((a, b) => a - b)[Math.floor(lags.length * 0.95)]!, greatest: Math.max(...lags) },
      memory,
      load: loadavg()[0]!,
    }
  } finally {
    for (const { job, attempt } of await backend.known()) await backend.stop(job, attempt, { grace: 0, reason: 'cancelled' })
    for (const { job } of await backend.known()) await end(job)
    await backend.close()
    rmSync(home, { recursive: true, force: true, maxRetries: 5 })
  }

  async function tail(job: number): Promise<number[]> {
    const lags: number[] = []
    for (let offset = 0; lags.length < 200; ) {
      const read = await backend.readLog(job, 1, { offset, limit: 1 << 16, follow: true, signal: new AbortController().signal })
      const now = epoch()
      offset = read.next
      for (const line of text(read.bytes)) lags.push(now - Number(line.split(' ')[2]) / 1e6)
    }
    await end(job)
    return lags
  }

  async function countInOrder(job: number): Promise<number> {
    let next = 1
    for (let offset = 0, over = false; !over; ) {
      const read = await backend.readLog(job, 1, { offset, limit: 1 << 22, follow: false, signal: new AbortController().signal })
      for (const line of text(read.bytes)) if (line.endsWith(` o ${next}`)) next++
      offset = read.next
      over = read.end
    }
    return next - 1
  }
}

const attemptOf = (job: number, shell: string): Attempt => ({
  ...{ job, attempt: 1, cookie: `bench-${process.pid}-${job}`, project: 'bench', envs: {} },
  spec: plainSpec('bench', { shell }),
  allocation: { nodes: [{ node: 'here', cpus: 1, memory: 0, devices: [] }] },
})

/** Milliseconds since 1970, with their fractions. */
const epoch = () => performance.timeOrigin + performance.now()

function plainSpawn(): Promise<number> {
  const before = epoch()
  return new Promise((resolve, reject) => {
    const child = spawn('bash', ['-c', 'date +%s%N'], { stdio: ['ignore', 'pipe', 'inherit'] })
    child.on('error', reject)
    child.stdout.once('data', (bytes: Buffer) => resolve(Number(bytes.toString()) / 1e6 - before))
  })
}

/** The supervisor, as the package has it, under settings of V8: its memory while nothing happens and after 500,000 lines, and its time for them. */
export async function measureFlags(say: (text: string) => void): Promise<void> {
  const shim = compiledShim()
  const settings = [[], ['--max-semi-space-size=16'], ['--jitless'], ['--lite-mode'], ['--single-threaded'], ['--optimize-for-size']]
  for (const flags of settings) {
    const home = mkdtempSync(join(tmpdir(), 'bench-flags-'))
    const backend = createLocalBackend({ home, inventory: async () => [] })
    await backend.start(attemptOf(1, `while [ ! -e print ]; do sleep 0.02; done; seq 1 500000; touch printed; ${wait}`), {})
    const first = shimOf(home, 1)
    process.kill(first, 'SIGKILL')
    const folder = join(home, 'jobs', '1', '1')
    const env = { ...process.env, PLINTH_COOKIE: `bench-${process.pid}-1`, PLINTH_PROCESS: 'supervisor' }
    const child = spawn(process.execPath, [...shimFlags, ...flags, shim, folder], { ...{ stdio: 'inherit', detached: true }, env })
    while (shimOf(home, 1) === first && child.exitCode === null) await pause(5)
    await pause(1000)
    const idle = memoryOf(shimOf(home, 1))
    writeFileSync(join(folder, 'work', 'print'), '')
    while (!readdirSync(join(folder, 'work')).includes('printed')) await pause(5)
    const busy = memoryOf(shimOf(home, 1))
    const cpu = cpuOf(shimOf(home, 1))
    writeFileSync(join(folder, 'work', 'go'), '')
    while ((await backend.observe(1, 1)).status !== 'ended') await pause(5)
    rmSync(home, { recursive: true, force: true, maxRetries: 5 })
    say(`${flags.join(' ') || 'as it is'}: idle ${shown(idle)}; after 500,000 lines ${shown(busy)}, ${cpu.toFixed(2)} s of processor`)
  }
}

/** Without types, so that the stripping of types is not in its memory. */
function compiledShim(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bench-shim-'))
  const source = fileURLToPath(new URL('../src/jobs', import.meta.url))
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  mkdirSync(join(folder, 'backends/local'), { recursive: true })
  for (const file of globSync(['log-file.ts', 'backends/local/*.ts'], { cwd: source })) {
    const code = stripTypeScriptTypes(readFileSync(join(source, file), 'utf8')).replaceAll(/(from '[^']*)\.ts'/g, "$1.js'")
    writeFileSync(join(folder, file.replace(/\.ts$/, '.js')), code)
  }
  return join(folder, 'backends/local/shim.js')
}

const shimOf = (home: string, job: number): number => {
  const folder = join(home, 'jobs', String(job), '1')
  const numbers = readdirSync(folder).flatMap(name => Number(/^supervisor\.(\d+)\.json$/.exec(name)?.[1] ?? []))
  return JSON.parse(readFileSync(join(folder, `supervisor.${Math.max(...numbers)}.json`), 'utf8')).pid
}
function memoryOf(pid: number): Memory {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const megabytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(rollup)![1]) / 1024
  return { rss: megabytes('Rss'), pss: megabytes('Pss'), private: megabytes('Private_Clean') + megabytes('Private_Dirty') }
}
/** Seconds; the kernel counts hundredths. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}
const logOf = async (home: string, job: number) => readFileSync(join(home, 'jobs', String(job), '1', 'log'), 'utf8')
const text = (bytes: Uint8Array): string[] => Buffer.from(bytes).toString().split('\n').slice(0, -1)
const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
const pause = (milliseconds: number) => new Promise<void>(done => setTimeout(done, milliseconds))
const shown = ({ rss, pss, private: own }: Memory) => `${pss.toFixed(1)} MB PSS (${rss.toFixed(1)} RSS, ${own.toFixed(1)} its own)`

export function tellLocal({ start, lines: took, lag, memory, load }: LocalMeasured, say: (text: string) => void): void {
  say(
    `a script begins ${start.engine.toFixed(0)} ms after the call, ${start.spawn.toFixed(0)} ms by a plain spawn: ${start.difference.toFixed(0)} ms later (middle of ${start.rounds}, least ${start.least.toFixed(0)}; goal 150); its supervisor took ${start.cpu.toFixed(2)} s of processor`,
  )
  say(
    `${took.lines} lines in ${took.seconds.toFixed(2)} s, ${Math.round(took.perSecond)} a second, ${took.lost} lost, ${took.cpu.toFixed(2)} s of processor for the supervisor`,
  )
  say(`a reader sees a line after ${lag.median.toFixed(0)} ms (95 %: ${lag.p95.toFixed(0)}, most: ${lag.greatest.toFixed(0)}; goal 200)`)
  say(`a supervisor: idle ${shown(memory.idle)}; after the lines ${shown(memory.afterwards)} (goal 20 MB PSS)`)
  say(`load of the machine: ${load.toFixed(1)}`)
}

if (import.meta.main) {
  const progress = (what: string) => process.stderr.write(`${what} …\n`)
  tellLocal(await measureLocal(progress), console.log)
  if (process.argv.includes('--flags')) await measureFlags(console.log)
}
