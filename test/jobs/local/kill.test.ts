/**
 * kill -9 at random instants, of the server and of shims: every job ends as its script says, started once, and nobody is left. The seed is
 * printed, and PLINTH_SEED repeats it as far as a machine repeats anything.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Attempt } from '../../../src/jobs/attempt.ts'
import { attemptOf, long, makeEngine, processesWith, readLines, shimOf, until } from './engine.ts'

const seed = Number(process.env['PLINTH_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const kills = long ? 500 : 20
const together = 5

/** mulberry32 */
const random = (() => {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
})()

const controllers = new Set<ChildProcess>()
after(() => {
  for (const each of controllers) each.kill('SIGKILL')
})

interface Line {
  job: number
  status: string
  exit?: { exitCode: number; reason: string | null; message: string | null }
}

function startController(home: string, attempts: readonly Attempt[], lines: Line[]): ChildProcess {
  const child = spawn(process.execPath, [fileURLToPath(new URL('controller.ts', import.meta.url)), home, JSON.stringify(attempts)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  controllers.add(child)
  child.on('exit', () => controllers.delete(child))
  let rest = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop()!
    lines.push(...parts.map(part => JSON.parse(part) as Line))
  })
  return child
}

/** Shims of a home, and at times what one has just forked and is still its copy: that may be killed as well. */
const shimsOf = (home: string): number[] =>
  processesWith('PLINTH_PROCESS=supervisor').filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`PLINTH_HOME=${home}\0`)
    } catch {
      return false
    }
  })

test(`${kills} times kill -9 at random instants: no job is lost, started twice or told wrong, and nobody is left`, async t => {
  t.diagnostic(`seed ${seed}`)
  const killed = { shim: 0, controller: 0 }
  let missing = 0
  let job = 0
  while (killed.shim + killed.controller < kills) {
    const home = mkdtempSync(join(tmpdir(), 'kill-'))
    const attempts = Array.from({ length: together }, () => {
      job++
      // says that it began, works a little, and ends with a code of its own
      const script = `echo began >>${home}/${job}.began; for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.0${Math.floor(random() * 9)}; done; exit ${job % 3}`
      const setup = random() < 0.5 ? `echo set up >>${home}/${job}.setup` : null
      return attemptOf(job, script, { setup, nodes: random() < 0.2 ? 2 : 1 })
    })
    const lines: Line[] = []
    let controller = startController(home, attempts, lines)
    for (let i = 0; i < 2 * together && killed.shim + killed.controller < kills; i++) {
      const isShim = random() < 0.75
      // a shim that has just begun, or one in the middle of its job
      if (isShim) await until(() => controller.exitCode !== null || shimsOf(home).length > 0, 'a shim')
      await delay(random() * (isShim ? 100 : 400)) // the random instant
      const shims = isShim ? shimsOf(home) : []
      const victim = shims[Math.floor(random() * shims.length)]
      if (victim !== undefined && kill(victim)) killed.shim++
      if (isShim || controller.exitCode !== null) continue
      controller.kill('SIGKILL')
      killed.controller++
      controller = startController(home, attempts, lines)
    }
    await until(
      () => controller.exitCode !== null,
      () => `the end of the jobs in ${home}: ${lines.map(line => JSON.stringify(line)).join('\n')}`,
      60,
    )
    assert.equal(controller.exitCode, 0)

    const engine = makeEngine({ home })
    for (const { job, allocation, spec, cookie } of attempts) {
      const about = `job ${job} in ${home}, seed ${seed}: ${JSON.stringify(lines.filter(line => line.job === job))}`
      const nodes = allocation.nodes.length
      const code = job % 3
      for (const line of lines.filter(each => each.job === job)) {
        assert.notEqual(line.status, 'lost', about)
        if (line.exit) assert.deepEqual([line.exit.exitCode, line.exit.reason], [code, code === 0 ? null : 'user_error'], about)
      }
      assert.equal((await engine.ended(job)).exitCode, code, about)
      const began = readFileSync(join(home, `${job}.began`), 'utf8').split('\n').length - 1
      assert.ok(began === nodes || (code !== 0 && began >= 1 && began <= nodes), `${began} began: ${about}`)
      if (spec.setup !== null) assert.equal(readFileSync(join(home, `${job}.setup`), 'utf8'), 'set up\n', about)
      const said = (await readLines(engine.backend, job)).filter(line => line.startsWith('o ')).map(line => Number(line.at(-1)))
      if (nodes === 1) {
        assert.deepEqual(said, [...new Set(said)].sort(), `each line once, in order: ${about}`)
        missing += 8 - said.length
      }
      assert.deepEqual(processesWith(cookie), [], `left over: ${about}`)
    }
  }
  t.diagnostic(`${killed.shim} shims and ${killed.controller} servers killed, ${job} jobs, ${missing} lines missing`)
})

test('a shim that is gone while nobody looks is replaced, and what was printed meanwhile is in the log', async () => {
  const first = makeEngine()
  const job = await first.start('echo before; while [ ! -e go ]; do sleep 0.02; done; seq 1 3000; echo last words; exit 4')
  await first.said(job, 'before')
  const shim = shimOf(first, job)
  assert.ok(kill(shim))
  await until(() => processesWith('').every(pid => pid !== shim), 'the end of the shim')
  writeFileSync(join(first.folder(job), 'work', 'go'), '')
  // the script ends with nobody to tell; its wrapper waits, and keeps what it printed
  await until(() => /^\s*4$/m.test(readFileSync(join(first.folder(job), 'run.0.exit'), 'utf8')), 'its exit code on disk')
  const second = makeEngine({ home: first.home })
  const exit = await second.ended(job)
  assert.deepEqual([exit.exitCode, exit.reason], [4, 'user_error'])
  const said = (await second.log(job)).filter(line => line.startsWith('o '))
  assert.deepEqual(said, ['o before', ...Array.from({ length: 3000 }, (_, i) => `o ${i + 1}`), 'o last words'])
  await second.close()
})

function kill(pid: number): boolean {
  try {
    process.kill(pid, 'SIGKILL')
    return true
  } catch {
    return false // it has just ended
  }
}
