/** For faults.test.ts, on a small disk: jobs that fill it, and one that cannot begin because it is full or read-only. Prints how each went. */
import { execFileSync, spawnSync } from 'node:child_process'
import { rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../../../src/failure.ts'
import { makeEngine, processesWith, shimOf, until } from './engine.ts'

const disk = process.argv[2]!
const engine = makeEngine({ home: disk })
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'fine',
    error => (error instanceof Failure ? error.code : String(error)),
  )
const fill = 'cat /dev/zero >$PLINTH_OUTPUT_DIR/ballast 2>/dev/null'

const filled = await engine.run(`echo before; ${fill}; for i in 1 2 3 4 5 6 7 8 9; do seq 1 3000; done; exit 3`)
const refused = await codeOf(engine.start('true'))
rmSync(join(engine.folder(filled.job), 'outputs/ballast'))
const recovered = await engine.run(`${fill}; seq 1 200000; rm $PLINTH_OUTPUT_DIR/ballast; echo there is room again`)
// on the full disk its supervisor is killed, another one takes over, and it is stopped
const stubborn = await engine.start(`trap 'exit 9' TERM; ${fill}; sleep 60 & wait`)
await until(() => statfsSync(disk).bfree === 0, 'a full disk')
const supervisor = shimOf(engine, stubborn)
process.kill(supervisor, 'SIGKILL')
await until(() => !processesWith(`PLINTH_HOME=${disk}\0`).includes(supervisor), 'the end of its supervisor')
await until(
  async () => (await engine.backend.observe(stubborn, 1)).status === 'running' && shimOf(engine, stubborn) !== supervisor,
  'another one',
)
await engine.backend.stop(stubborn, 1, { grace: 10, reason: 'cancelled' })
const stopped = await engine.ended(stubborn)
rmSync(join(engine.folder(stubborn), 'outputs/ballast'))
const after = await engine.run('echo fine')
// refused as long as the last supervisor has files open
await until(() => spawnSync('mount', ['-o', 'remount,ro', disk]).status === 0, 'a read-only disk')
const readOnly = await codeOf(engine.start('true'))
execFileSync('mount', ['-o', 'remount,rw', disk])
await engine.close()
const { exitCode, reason, message } = filled
console.log(
  JSON.stringify({
    filled: { exitCode, reason, message: message?.replace(/\d+/, 'N') },
    ...{ refused, readOnly },
    recovered: {
      reason: recovered.reason,
      message: recovered.message?.replace(/\d+/, 'N'),
      marked: recovered.log.some(line => /^p \d+ lines are missing here: ENOSPC$/.test(line)),
      last: recovered.log.findLast(line => line.startsWith('o ')),
    },
    stopped: [stopped.exitCode, stopped.reason],
    after: after.text,
  }),
)
