/**
 * An engine on which nothing runs: its jobs are scripts of a few words, its machines are whatever it is told, its time may be simulated, and
 * it can be made to fail in the ways that real ones do. It passes the same suite as every backend; the controller is tested on it.
 *
 * A script is what a job's `run` says, its commands apart by semicolons or lines:
 *
 *     say TEXT · sleep SECONDS · output PATH TEXT · secret NAME (says it) · ignore-term · exit CODE · kill SIGNAL
 */
import { Readable } from 'node:stream'
import { Failure } from '../../failure.ts'
import type { Allocation, Attempt, Exit } from '../attempt.ts'
import type { Backend, LogChunk, Node, Observation } from '../backend.ts'
import type { JobReason } from '../spec.ts'

export interface FakeFaults {
  /** The next so many starts are refused: nothing was started. */
  failStarts: number
  /** The next so many starts begin, and then their answer is lost. */
  loseAnswers: number
  /** Seconds from a start until it runs. */
  slowStart: number
  /** Nothing can be asked of these machines, and what runs there goes on. */
  cut: Set<string>
  /** Attempts of which nothing can be found any more, as `job/attempt`. */
  vanished: Set<string>
}

export interface FakeEngine {
  faults: FakeFaults
  nodes: Node[]
  /** What a controller sees of it; the engine itself outlives any of them. */
  backend(): Backend
  /** The machine is gone with what ran there. */
  loseNode(name: string): void
  /** The engine stops it of its own accord. */
  preempt(job: number, attempt: number): void
  /** Somebody waits for something to happen: time has passed. */
  tick(): void
  /** What an attempt was started with; undefined where it never was. */
  given(job: number, attempt: number): { attempt: Attempt; secrets: Readonly<Record<string, string>> } | undefined
  /** How often each attempt was really started, as `job/attempt`: once. */
  starts: Map<string, number>
}

export interface FakeOptions {
  name?: string
  nodes?: readonly Node[]
  /** Milliseconds since 1970. */
  now?: () => number
}

export const fakeNode = (name: string, { cpus = 4, memory = 16e9, devices = [] as Node['devices'] } = {}): Node => ({
  ...{ name, cpus, memory, devices, usable: true, apart: true, processor: 'simulated processor' },
})

interface Doing {
  attempt: Attempt
  secrets: Readonly<Record<string, string>>
  commands: string[][]
  began: number
  /** How far the script has come in time. */
  at: number
  ignoresTerm: boolean
  stop: { at: number; kill: number; reason: JobReason } | null
  exit: Exit | null
  log: Buffer[]
  bytes: number
  outputs: Map<string, string>
}

export function createFakeEngine({ name = 'fake', nodes = [fakeNode('fake-1')], now = Date.now }: FakeOptions = {}): FakeEngine {
  const known = new Map<string, Doing>()
  const waiting = new Set<() => void>()
  const faults: FakeFaults = { failStarts: 0, loseAnswers: 0, slowStart: 0, cut: new Set(), vanished: new Set() }
  const starts = new Map<string, number>()
  const keyOf = (job: number, attempt: number) => `${job}/${attempt}`
  const isCut = ({ attempt }: Doing) => attempt.allocation.nodes.some(({ node }) => faults.cut.has(node))

  const find = (job: number, attempt: number): Doing | undefined => {
    const found = known.get(keyOf(job, attempt))
    if (found) advance(found, now())
    return found
  }
  const wake = () => {
    for (const done of waiting) done()
    waiting.clear()
  }
  const engine: FakeEngine = {
    faults,
    nodes: [...nodes],
    starts,
    tick: wake,
    given: (job, attempt) => known.get(keyOf(job, attempt)),
    loseNode(gone) {
      engine.nodes = engine.nodes.map(node => (node.name === gone ? { ...node, usable: false } : node))
      for (const doing of known.values()) {
        advance(doing, now())
        if (doing.attempt.allocation.nodes.some(({ node }) => node === gone))
          end(doing, now(), { reason: 'node_lost', message: `${gone} is gone` })
      }
      wake()
    },
    preempt(job, attempt) {
      const doing = find(job, attempt)
      if (doing) askToEnd(doing, now(), 0, 'preempted')
      wake()
    },
    backend: (): Backend => ({
      name,
      describe: async () => ['Nothing runs here: jobs are simulated.'],
      nodes: async () => engine.nodes.map(node => (faults.cut.has(node.name) ? { ...node, usable: false } : node)),
      async start(attempt, secrets) {
        const key = keyOf(attempt.job, attempt.attempt)
        if (known.has(key) || faults.vanished.has(key)) return
        if (faults.failStarts > 0) {
          faults.failStarts--
          throw new Failure('internal', { problem: 'the simulated engine refused to start it' })
        }
        const wanted = new Set(engine.nodes.filter(({ usable }) => usable).map(each => each.name))
        const missing = attempt.allocation.nodes.find(({ node }) => !wanted.has(node))
        if (missing) throw new Failure('internal', { problem: `${missing.node} is not there` })
        known.set(key, begin(attempt, secrets, now(), faults.slowStart))
        starts.set(key, (starts.get(key) ?? 0) + 1)
        if (faults.loseAnswers > 0) {
          faults.loseAnswers--
          throw new Failure('internal', { problem: 'the answer of the simulated engine was lost' })
        }
      },
      async observe(job, attempt): Promise<Observation> {
        const doing = find(job, attempt)
        if (!doing || faults.vanished.has(keyOf(job, attempt))) return { status: 'lost', why: 'the simulated engine knows nothing of it' }
        if (isCut(doing)) return { status: 'unknown', why: 'its machine does not answer' }
        if (doing.exit) return { status: 'ended', exit: doing.exit, environment: null }
        const status = doing.stop ? 'stopping' : now() < doing.began ? 'starting' : 'running'
        return { status, since: doing.stop?.at ?? doing.began, environment: null }
      },
      async stop(job, attempt, { grace, reason }) {
        const doing = find(job, attempt)
        if (!doing || doing.exit) return
        if (isCut(doing)) throw new Failure('internal', { problem: 'its machine does not answer' })
        askToEnd(doing, now(), grace, reason)
        wake()
      },
      async readLog(job, attempt, { offset, limit, follow, signal }): Promise<LogChunk> {
        for (;;) {
          const doing = find(job, attempt)
          if (!doing) return { bytes: new Uint8Array(), next: offset, end: true }
          const whole = Buffer.concat(doing.log)
          const some = whole.subarray(offset, offset + limit)
          // whole lines where one ends within it
          const bytes = offset + limit < whole.length ? some.subarray(0, some.lastIndexOf(10) + 1 || some.length) : some
          const next = offset + bytes.length
          if (bytes.length > 0 || doing.exit || !follow || signal.aborted)
            return { bytes, next, end: doing.exit !== null && next >= whole.length }
          await somethingHappens(nextChange(doing) - now(), signal)
        }
      },
      async outputs(job, attempt) {
        const doing = find(job, attempt)
        return [...(doing?.outputs ?? [])].map(([path, text]) => ({
          path,
          bytes: Buffer.byteLength(text),
          open: async () => Readable.from([Buffer.from(text)]),
        }))
      },
      known: async () =>
        [...known.values()].map(({ attempt: { job, attempt, allocation } }): { job: number; attempt: number; allocation: Allocation } => ({
          ...{ job, attempt, allocation },
        })),
      async forget(job, attempt) {
        const doing = find(job, attempt)
        if (doing && !doing.exit) throw new Failure('job_active', { job, state: 'running' })
        known.delete(keyOf(job, attempt))
      },
      close: async () => {},
    }),
  }
  return engine

  /** Until somebody says so, or the time comes where it is the real one. */
  function somethingHappens(milliseconds: number, signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const timer = now === Date.now && milliseconds < 2 ** 31 ? setTimeout(done, Math.max(1, milliseconds)) : undefined
      function done() {
        clearTimeout(timer)
        waiting.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      waiting.add(done)
      signal.addEventListener('abort', done, { once: true })
    })
  }
}

function begin(attempt: Attempt, secrets: Readonly<Record<string, string>>, now: number, delay: number): Doing {
  const { run } = attempt.spec
  const text = 'shell' in run ? run.shell : run.argv.join(' ')
  const commands = text
    .split(/[;\n]/)
    .map(each => each.trim().split(/\s+/))
    .filter(([word]) => word !== '')
  const began = now + delay * 1000
  return { attempt, secrets, commands, began, at: began, ignoresTerm: false, stop: null, exit: null, log: [], bytes: 0, outputs: new Map() }
}

/** Does what the script does until `now`. */
function advance(doing: Doing, now: number): void {
  while (!doing.exit && doing.at <= now) {
    if (doing.stop && doing.at >= endOfStop(doing)) {
      endByStop(doing)
      return
    }
    const [word = '', ...words] = doing.commands[0] ?? ['exit', '0']
    if (word === 'sleep') {
      const until = doing.at + Number(words[0]) * 1000
      if (doing.stop && endOfStop(doing) < until && endOfStop(doing) <= now) {
        endByStop(doing)
        return
      }
      if (until > now) return
      doing.at = until
    } else if (word === 'exit') {
      const exitCode = Number(words[0] ?? 0)
      const reason =
        doing.stop && exitCode !== 0 ? doing.stop.reason : exitCode === 0 ? null : exitCode === 127 ? 'command_not_found' : 'user_error'
      end(doing, doing.at, { exitCode, reason })
    } else if (word === 'kill') end(doing, doing.at, { exitCode: 137, signal: words[0] ?? 'SIGKILL', reason: 'user_error' })
    else if (word === 'say') say(doing, words.join(' '))
    else if (word === 'secret') say(doing, doing.secrets[words[0]!] ?? '(none)')
    else if (word === 'output') doing.outputs.set(words[0]!, words.slice(1).join(' '))
    else if (word === 'ignore-term') doing.ignoresTerm = true
    else {
      say(doing, `${word}: command not found`)
      end(doing, doing.at, { exitCode: 127, reason: 'command_not_found' })
    }
    doing.commands.shift()
  }
}

function askToEnd(doing: Doing, now: number, grace: number, reason: JobReason): void {
  const kill = now + grace * 1000
  if (doing.stop) doing.stop.kill = Math.min(doing.stop.kill, kill)
  else doing.stop = { at: now, kill, reason }
  advance(doing, now)
}
const endOfStop = ({ stop, ignoresTerm }: Doing): number => (ignoresTerm ? stop!.kill : stop!.at)
function endByStop(doing: Doing): void {
  const { reason } = doing.stop!
  end(
    doing,
    endOfStop(doing),
    doing.ignoresTerm ? { exitCode: 137, signal: 'SIGKILL', reason } : { exitCode: 143, signal: 'SIGTERM', reason },
  )
}

function end(doing: Doing, ended: number, exit: Partial<Exit>): void {
  doing.exit ??= { exitCode: null, signal: null, reason: null, message: null, phase: 'run', ...exit, ended: Math.trunc(ended) }
}

function say(doing: Doing, text: string): void {
  const hidden = Object.values(doing.secrets).reduce((all, value) => (value === '' ? all : all.replaceAll(value, '***')), text)
  const line = Buffer.from(`${Math.trunc(doing.at)} o ${hidden}\n`)
  doing.log.push(line)
  doing.bytes += line.length
}

/** When it will do something by itself. */
function nextChange(doing: Doing): number {
  const [word, seconds] = doing.commands[0] ?? []
  const script = word === 'sleep' ? doing.at + Number(seconds) * 1000 : doing.at
  return doing.stop ? Math.min(script, endOfStop(doing)) : script
}
