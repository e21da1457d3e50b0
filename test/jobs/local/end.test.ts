/** How attempts are made to end: asked, then made to, with all that they started; and limits that end them. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { noGroups } from '../../../src/jobs/backends/local/cgroups.ts'
import { type Seen, verdictOf } from '../../../src/jobs/backends/local/verdict.ts'
import { type Engine, makeEngine, processesWith, until } from './engine.ts'

const withGroups = makeEngine()
const without = makeEngine({ controlGroups: false })
after(async () => {
  await withGroups.close()
  await without.close()
})
const cookieOf = (engine: Engine, job: number): string => JSON.parse(readFileSync(join(engine.folder(job), 'attempt.json'), 'utf8')).cookie
const nobodyLeft = (engine: Engine, job: number) =>
  until(
    () => processesWith(cookieOf(engine, job)).length === 0,
    () => `the end of ${processesWith(cookieOf(engine, job))}`,
  )
const placementOf = (engine: Engine, job: number) => JSON.parse(readFileSync(join(engine.folder(job), 'placement.json'), 'utf8'))

// most of it is waiting for others
for (const [how, engine] of [
  ['held together by a control group', withGroups],
  ['found by their environment', without],
] as const)
  describe(`processes ${how}`, { concurrency: 4 }, () => {
    test('a stop asks the script alone, which may save its work and say with which code it ends', async t => {
      const job = await engine.start(
        'trap "echo saved; exit 5" TERM; sleep 60 & worker=$!; trap "echo worker asked" USR1; echo ready; wait $worker; echo never',
      )
      await engine.said(job, 'ready')
      if (engine === withGroups && placementOf(engine, job).groups.processes === null) t.skip('no control group can be made here')
      await engine.backend.stop(job, 1, { grace: 20, reason: 'cancelled' })
      const exit = await engine.ended(job)
      assert.deepEqual([exit.exitCode, exit.signal, exit.reason], [5, null, 'cancelled'])
      const log = await engine.log(job)
      assert.ok(log.includes('o saved') && !log.includes('o never'), log.join('\n'))
      await nobodyLeft(engine, job)
    })

    test('who ignores SIGTERM, forks away and starts a session of its own is killed when the grace is over', async () => {
      const job = await engine.start(
        `trap '' TERM; setsid -f sh -c 'trap "" TERM; echo away; while :; do sleep 0.1; done'; (sleep 300 &); echo ready; while :; do sleep 0.1; done`,
      )
      await engine.said(job, 'ready')
      await engine.said(job, 'away')
      await engine.backend.stop(job, 1, { grace: 0.3, reason: 'preempted' })
      const exit = await engine.ended(job)
      assert.deepEqual([exit.exitCode, exit.signal, exit.reason], [137, 'SIGKILL', 'preempted'])
      await nobodyLeft(engine, job)
    })

    test('a script that leaves others running has ended: they end too, and the log says so', async () => {
      const { job, exitCode, text } = await engine.run(`setsid -f sh -c 'exec sleep 300'; (trap "" TERM; exec sleep 301) & echo done`, {
        timeouts: { pending: null, run: null, stop: 0.5 },
      })
      assert.equal(exitCode, 0)
      assert.match(text, /left 2 running, which end too: sleep/)
      await nobodyLeft(engine, job)
    })

    test('what overwrites its environment is found by who started it', async () => {
      const job = await engine.start(`env -i /bin/sh -c 'echo ready; exec sleep 300' & env -i setsid sleep 301; wait`)
      await engine.said(job, 'ready')
      await until(() => findPids(300).length === 1 && findPids(301).length === 1, 'both')
      await engine.backend.stop(job, 1, { grace: 0, reason: 'cancelled' })
      assert.equal((await engine.ended(job)).reason, 'cancelled')
      await until(() => findPids(300).length === 0 && findPids(301).length === 0, 'their end')
    })
  })

/** Numbers of `sleep SECONDS`. */
function findPids(seconds: number): number[] {
  return processesWith('').filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8') === `sleep\0${seconds}\0`
    } catch {
      return false
    }
  })
}

describe('stops and limits', { concurrency: 4 }, () => {
  test('asking again with less grace is sooner, with more it changes nothing', async () => {
    const engine = withGroups
    const job = await engine.start(`trap '' TERM; echo ready; while :; do sleep 0.05; done`)
    await engine.said(job, 'ready')
    await engine.backend.stop(job, 1, { grace: 600, reason: 'cancelled' })
    await until(async () => (await engine.backend.observe(job, 1)).status === 'stopping', 'stopping')
    await engine.backend.stop(job, 1, { grace: 0.1, reason: 'cancelled' })
    await engine.backend.stop(job, 1, { grace: 900, reason: 'cancelled' })
    assert.equal((await engine.ended(job)).reason, 'cancelled')
    await engine.backend.stop(job, 1, { grace: 0, reason: 'cancelled' }) // nothing is left to stop
  })

  test('a job is stopped in its setup too, and what comes after does not begin', async () => {
    const job = await withGroups.start('echo never', { setup: 'echo setting up; exec sleep 60' })
    await withGroups.said(job, 'setting up')
    assert.equal((await withGroups.backend.observe(job, 1)).status, 'setting_up')
    await withGroups.backend.stop(job, 1, { grace: 5, reason: 'cancelled' })
    const exit = await withGroups.ended(job)
    assert.deepEqual([exit.exitCode, exit.signal, exit.reason, exit.phase], [143, 'SIGTERM', 'cancelled', 'setup'])
    assert.ok(!(await withGroups.log(job)).includes('o never'))
  })

  test('a limit of time ends it with its name, whatever the script says', async () => {
    const exit = await withGroups.run('trap "exit 0" TERM; sleep 60 & wait', { timeouts: { pending: null, run: 0.3, stop: 5 } })
    assert.deepEqual([exit.exitCode, exit.reason], [0, 'timeout'])
    assert.match(exit.message!, /longer than the 0.3 s/)
  })

  test('when one node fails the others are asked to end, and the first failure is the one that counts', async () => {
    const exit = await withGroups.run(
      'if [ $NODE_RANK = 1 ]; then sleep 0.2; exit 7; fi; trap "echo node $NODE_RANK asked; exit 0" TERM; sleep 60 & wait',
      {
        nodes: 3,
      },
    )
    assert.deepEqual([exit.exitCode, exit.reason], [7, 'user_error'])
    assert.match(exit.text, /Node 1 ended with 7: the others are stopped/)
    assert.match(exit.text, /\[node 0\] node 0 asked/)
    assert.match(exit.text, /\[node 2\] node 2 asked/)
  })

  test('scripts that signal their group do not lose the way they ended', async () => {
    const exit = await withGroups.run('trap "exit 6" TERM; kill 0; sleep 1')
    assert.equal(exit.exitCode, 6)
  })

  test('the kernel keeps the limit of memory where there is a control group, and its kill is named', async t => {
    const job = await withGroups.start('true')
    await withGroups.ended(job)
    if (placementOf(withGroups, job).groups.memory === null) return t.skip('no control group for memory can be made here')
    const hog = `node -e 'const all = []; for (;;) all.push(Buffer.alloc(16 << 20, 1))'`
    const exit = await withGroups.run(hog, { share: { memory: 256 << 20 } })
    assert.deepEqual([exit.exitCode, exit.reason], [137, 'oom_host'])
    assert.match(exit.message!, /more than the 0.25 GiB/)
    // a worker is killed, its parent notices and fails in its own way
    const parent = await withGroups.run(`(${hog}); echo worker ended with $?; exit 1`, { share: { memory: 256 << 20 } })
    assert.deepEqual([parent.exitCode, parent.reason], [1, 'oom_host'])
    // or gets over it
    const survivor = await withGroups.run(`(${hog}); exit 0`, { share: { memory: 256 << 20 } })
    assert.deepEqual([survivor.exitCode, survivor.reason], [0, null])
    assert.match(survivor.message!, /killed 1 of its processes for want of memory/)
  })

  test('without a control group memory is looked at, shared pages are counted once, and who holds too much is killed', async () => {
    const hold = (megabytes: number) => `node -e 'globalThis.held = Buffer.alloc(${megabytes} << 20, 1); setInterval(() => {}, 1000)'`
    const exit = await without.run(hold(400), { share: { memory: 256 << 20 } })
    assert.deepEqual([exit.exitCode, exit.reason], [137, 'oom_host'])
    assert.match(exit.message!, /It used \d+ MiB of memory; it may use 256 MiB/)
    const script = [
      'import os, time',
      "held = bytearray(b'x' * (120 << 20))",
      'children = [os.fork() for _ in range(3)]', // eight processes that share it
      'time.sleep(2.2)',
      'if 0 not in children: [os.wait() for _ in children]',
    ].join('\n')
    writeFileSync(join(without.home, 'forks.py'), script)
    const shared = await without.run(['python3', join(without.home, 'forks.py')], { share: { memory: 600 << 20 } })
    if (shared.exitCode === 127) return
    assert.equal(shared.reason, null, shared.message ?? '')
    const { memory } = JSON.parse(readFileSync(join(without.folder(shared.job), 'peak.json'), 'utf8'))
    assert.ok(memory > 120 << 20, `${memory}`)
  })

  test('the greatest memory that was seen is kept', async () => {
    const script = `globalThis.held = Buffer.alloc(200 << 20, 1); setInterval(() => fs.existsSync('go') && process.exit(), 20)`
    const job = await withGroups.start(['node', '-e', script])
    const path = join(withGroups.folder(job), 'peak.json')
    await until(() => existsSync(path) && JSON.parse(readFileSync(path, 'utf8')).memory > 200 << 20, 'its peak')
    writeFileSync(join(withGroups.folder(job), 'work', 'go'), '')
    assert.equal((await withGroups.ended(job)).exitCode, 0)
    assert.ok(JSON.parse(readFileSync(path, 'utf8')).memory < 500 << 20)
  })

  test('a job is more likely to be taken than the server when the machine runs out of memory', async () => {
    assert.equal((await withGroups.run('cat /proc/self/oom_score_adj')).text, '500')
  })

  test('nothing of a job is left: no group, no pipe, no process', async () => {
    const { job } = await withGroups.run('true', { share: { memory: 1 << 30 } })
    const { groups, name } = placementOf(withGroups, job)
    for (const path of [groups.processes && join(groups.processes, name), groups.memory && join(groups.memory.path, `${name}-0`)])
      if (path) await until(() => !existsSync(path), `the end of ${path}`)
    await nobodyLeft(withGroups, job)
  })

  test('the engine says what holds here, and what was not run here', async () => {
    const said = (await withGroups.backend.describe()).join('\n')
    assert.match(said, /Memory: /)
    assert.match(said, /topology for tests/)
    if (!existsSync('/sys/fs/cgroup/cgroup.controllers')) assert.match(said, /not run here/)
    assert.match(
      (await without.backend.describe()).join('\n'),
      /no control group can be made here.*\n(.*\n)*.*found by a word in their environment/,
    )
  })
})

// ── the verdict alone ──

const seen: Seen = {
  ...{ phase: 'run', exitCode: 1, who: null, cause: null, refused: null, outOfMemoryKills: 0, killsOnMachine: 0, memoryLimit: 0 },
  ...{ outOfDeviceMemory: false, policy: null, command: 'train', errors: [], remarks: [] },
}

test('SIGKILL that Plinth did not send is memory only where the kernel says so, or says nothing', () => {
  assert.equal(verdictOf({ ...seen, exitCode: 137 }).reason, 'user_error')
  assert.equal(verdictOf({ ...seen, exitCode: 137, killsOnMachine: 2 }).reason, 'oom_host')
  const unknown = verdictOf({ ...seen, exitCode: 137, killsOnMachine: null })
  assert.equal(unknown.reason, 'oom_host')
  assert.match(unknown.message!, /likely/)
})

test('what Plinth did itself goes before what can be guessed from the code', () => {
  const cause = { reason: 'timeout', message: 'too long' } as const
  assert.deepEqual(verdictOf({ ...seen, exitCode: 137, cause, outOfMemoryKills: 1, outOfDeviceMemory: true }), {
    ...{ exitCode: 137, signal: 'SIGKILL', reason: 'timeout', message: 'too long' },
  })
  assert.equal(verdictOf({ ...seen, exitCode: null }).reason, 'lost')
  assert.equal(
    verdictOf({ ...seen, exitCode: 1, phase: 'environment', errors: ['a', '', 'No such package'] }).message,
    'a\nNo such package',
  )
  assert.equal(noGroups.memory, null)
})
