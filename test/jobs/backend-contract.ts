/** What the controller relies on, of whatever runs attempts: one suite that every backend passes. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Allocation, Attempt, Exit } from '../../src/jobs/attempt.ts'
import type { Backend, Observation } from '../../src/jobs/backend.ts'
import { createLineReader } from '../../src/jobs/log-lines.ts'
import { type JobSpec, plainSpec } from '../../src/jobs/spec.ts'

/** How each thing is said in the words of the backend's scripts. */
export interface Words {
  say(text: string): string
  sleep(seconds: number): string
  exit(code: number): string
  output(path: string, text: string): string
  secret(name: string): string
  ignoreTerm: string
}
export interface Subject {
  backend: Backend
  /** The same engine, seen by a controller that was started anew. */
  again(): Backend
  words: Words
  /** On which attempts can be placed. */
  node: string
}

export function backendContract(name: string, make: (t: TestContext) => Promise<Subject>): void {
  let jobs = 0
  const attemptOf = (node: string, script: readonly string[], spec: Partial<JobSpec> = {}, { nodes = 1 } = {}): Attempt => ({
    ...{ job: ++jobs, attempt: 1, cookie: randomBytes(16).toString('hex'), project: 'default', envs: {} },
    spec: plainSpec(`job-${jobs}`, { shell: script.join('; ') }, spec),
    allocation: { nodes: Array.from({ length: nodes }, () => ({ node, cpus: 1, memory: 0, devices: [] })) },
  })
  const says = (what: string, run: (subject: Subject) => Promise<void>) =>
    test(`${name}: ${what}`, async t => {
      await run(await make(t))
    })

  says('it has machines, and says what holds on them', async ({ backend }) => {
    const nodes = await backend.nodes()
    assert.ok(nodes.length > 0)
    for (const { name: each, cpus, memory, devices } of nodes) {
      assert.ok(each !== '' && cpus > 0 && memory > 0)
      for (const { free, why } of devices) assert.equal(free, why === null, 'a device that cannot be had has a reason')
    }
    assert.ok((await backend.describe()).every(line => line.length > 10))
  })

  says('an attempt runs to its end, and its log and its outputs are there', async ({ backend, words, node }) => {
    const attempt = attemptOf(node, [words.say('one'), words.output('model/weights.txt', 'learned'), words.say('two')])
    await backend.start(attempt, {})
    const exit = await endOf(backend, attempt)
    assert.deepEqual([exit.exitCode, exit.signal, exit.reason], [0, null, null])
    assert.ok(Math.abs(exit.ended - Date.now()) < 60_000)
    assert.deepEqual(await linesOf(backend, attempt), ['one', 'two'])
    const outputs = await backend.outputs(attempt.job, 1)
    assert.deepEqual(
      outputs.map(({ path, bytes }) => [path, bytes]),
      [['model/weights.txt', outputs[0]!.bytes]],
    )
    const parts: Buffer[] = []
    for await (const part of await outputs[0]!.open()) parts.push(Buffer.from(part))
    assert.equal(Buffer.concat(parts).toString().trim(), 'learned')
    assert.equal(Buffer.concat(parts).length, outputs[0]!.bytes)
  })

  says('the exit code is told, and what it means', async ({ backend, words, node }) => {
    const failing = attemptOf(node, [words.exit(3)])
    const unknown = attemptOf(node, ['plinth-no-such-command'])
    await Promise.all([failing, unknown].map(each => backend.start(each, {})))
    const [failed, missing] = [await endOf(backend, failing), await endOf(backend, unknown)]
    assert.deepEqual([failed.exitCode, failed.reason], [3, 'user_error'])
    assert.deepEqual([missing.exitCode, missing.reason], [127, 'command_not_found'])
  })

  says('starting it again starts nothing new, also for a controller that was started anew', async ({ backend, again, words, node }) => {
    const attempt = attemptOf(node, [words.say('once'), words.sleep(0.5)])
    await Promise.all([backend.start(attempt, {}), backend.start(attempt, {})])
    const other = again()
    await other.start(attempt, {})
    await endOf(other, attempt)
    await other.start(attempt, {})
    assert.equal((await other.observe(attempt.job, 1)).status, 'ended')
    assert.deepEqual(await linesOf(other, attempt), ['once'])
    await other.close()
  })

  says('of what it does not know it says that it is lost', async ({ backend }) => {
    assert.equal((await backend.observe(999_999, 1)).status, 'lost')
    await backend.stop(999_999, 1, { grace: 0, reason: 'cancelled' })
    assert.deepEqual(await backend.outputs(999_999, 1), [])
  })

  says('what is asked to end ends with the reason that it was given', async ({ backend, words, node }) => {
    for (const reason of ['cancelled', 'preempted', 'timeout'] as const) {
      const attempt = attemptOf(node, [words.sleep(60)])
      await backend.start(attempt, {})
      await until(backend, attempt, ({ status }) => status === 'running')
      await backend.stop(attempt.job, 1, { grace: 20, reason })
      const exit = await endOf(backend, attempt)
      assert.deepEqual([exit.reason, exit.exitCode !== 0], [reason, true])
    }
  })

  says(
    'what does not listen is shown as stopping, and killed after its grace, which can be shortened',
    async ({ backend, words, node }) => {
      const attempt = attemptOf(node, [words.ignoreTerm, words.say('deaf'), ...Array.from({ length: 60 }, () => words.sleep(1))])
      await backend.start(attempt, {})
      await saidIn(backend, attempt, 'deaf')
      const asked = Date.now()
      await backend.stop(attempt.job, 1, { grace: 600, reason: 'cancelled' })
      await until(backend, attempt, ({ status }) => status === 'stopping')
      await backend.stop(attempt.job, 1, { grace: 1, reason: 'cancelled' })
      const exit = await endOf(backend, attempt)
      assert.deepEqual([exit.reason, exit.signal, exit.exitCode], ['cancelled', 'SIGKILL', 137])
      assert.ok(Date.now() - asked < 30_000)
      await backend.stop(attempt.job, 1, { grace: 0, reason: 'timeout' })
      const seen = await backend.observe(attempt.job, 1)
      assert.equal(seen.status === 'ended' && seen.exit.reason, 'cancelled', 'an end is an end')
    },
  )

  says('a log is read on from where a reader was, and followed to its end', async ({ backend, words, node }) => {
    const attempt = attemptOf(node, [words.say('first'), words.sleep(0.3), words.say('second'), words.sleep(0.3), words.say('third')])
    await backend.start(attempt, {})
    const signal = AbortSignal.timeout(30_000)
    const seen: { next: number; text: string }[] = []
    const reader = createLineReader()
    for (let [at, end] = [0, false]; !end; ) {
      const chunk = await backend.readLog(attempt.job, 1, { offset: at, limit: 20, follow: true, signal })
      seen.push(...reader.read(at, chunk))
      ;({ next: at, end } = chunk)
    }
    assert.ok(!signal.aborted)
    assert.deepEqual(
      seen.map(({ text }) => text),
      ['first', 'second', 'third'],
    )
    const rest = await backend.readLog(attempt.job, 1, { offset: seen[0]!.next, limit: 1 << 20, follow: false, signal })
    assert.deepEqual(
      createLineReader()
        .read(seen[0]!.next, rest)
        .map(({ text }) => text),
      ['second', 'third'],
    )
    assert.equal(rest.end, true)
    const running = attemptOf(node, [words.sleep(60)])
    await backend.start(running, {})
    const gone = new AbortController()
    const reading = backend.readLog(running.job, 1, { offset: 0, limit: 1 << 20, follow: true, signal: gone.signal })
    gone.abort()
    assert.equal((await reading).end, false, 'a reader that leaves is not kept')
    await backend.stop(running.job, 1, { grace: 0, reason: 'cancelled' })
    await endOf(backend, running)
  })

  says('a secret reaches the script and never the log', async ({ backend, words, node }) => {
    const value = `hush-${randomBytes(8).toString('hex')}`
    const attempt = attemptOf(node, [words.secret('KEY')], { secrets: ['KEY'] })
    await backend.start(attempt, { KEY: value })
    assert.equal((await endOf(backend, attempt)).exitCode, 0)
    assert.deepEqual(await linesOf(backend, attempt), ['***'])
  })

  says('a controller that lost its memory finds what runs, with its leases', async ({ backend, again, words, node }) => {
    const attempt = attemptOf(node, [words.sleep(60)])
    await backend.start(attempt, {})
    const other = again()
    const known = (await other.known()).find(({ job }) => job === attempt.job)
    assert.deepEqual(known, { job: attempt.job, attempt: 1, allocation: attempt.allocation satisfies Allocation })
    await other.stop(attempt.job, 1, { grace: 0, reason: 'cancelled' })
    await endOf(other, attempt)
    await other.close()
  })

  says('what has ended can be forgotten, what runs cannot', async ({ backend, words, node }) => {
    const attempt = attemptOf(node, [words.sleep(60)])
    await backend.start(attempt, {})
    await until(backend, attempt, ({ status }) => status === 'running')
    await assert.rejects(backend.forget(attempt.job, 1), { code: 'job_active' })
    await backend.stop(attempt.job, 1, { grace: 0, reason: 'cancelled' })
    await endOf(backend, attempt)
    await backend.forget(attempt.job, 1)
    assert.equal((await backend.observe(attempt.job, 1)).status, 'lost')
    assert.ok(!(await backend.known()).some(({ job }) => job === attempt.job))
  })
}

async function until(backend: Backend, { job, attempt }: Attempt, holds: (seen: Observation) => boolean): Promise<Observation> {
  for (const end = performance.now() + 30_000; ; await delay(10)) {
    const seen = await backend.observe(job, attempt)
    if (holds(seen)) return seen
    if (performance.now() > end) assert.fail(`waited 30 s; it is ${JSON.stringify(seen)}`)
  }
}

async function endOf(backend: Backend, attempt: Attempt): Promise<Exit> {
  const seen = await until(backend, attempt, ({ status }) => status === 'ended' || status === 'lost')
  if (seen.status !== 'ended') assert.fail(JSON.stringify(seen))
  return seen.exit
}

/** What the script said: lines of Plinth itself are left out. */
async function linesOf(backend: Backend, { job, attempt }: Attempt): Promise<string[]> {
  const chunk = await backend.readLog(job, attempt, { offset: 0, limit: 1 << 20, follow: false, signal: AbortSignal.timeout(10_000) })
  const lines = createLineReader().read(0, chunk)
  return lines.filter(({ stream }) => stream !== 'p').map(({ text }) => text)
}

async function saidIn(backend: Backend, attempt: Attempt, text: string): Promise<void> {
  for (const end = performance.now() + 30_000; !(await linesOf(backend, attempt)).includes(text); await delay(10))
    if (performance.now() > end) assert.fail(`waited 30 s for "${text}"`)
}
