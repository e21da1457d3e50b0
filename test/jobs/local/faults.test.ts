/** What happens to machines: full and read-only disks, a clock that jumps, a restart, a number that is used again. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { claim } from '../../../src/jobs/backends/local/folder.ts'
import { isAlive } from '../../../src/jobs/backends/local/processes.ts'
import { onSmallDisk } from '../../storage/small-disk.ts'
import { type Engine, makeEngine, processesWith, shimOf, until } from './engine.ts'

const engine = makeEngine()
after(engine.close)

const cookieOf = (job: number): string => JSON.parse(readFileSync(join(engine.folder(job), 'attempt.json'), 'utf8')).cookie
const supervisorFile = (at: Engine, job: number) =>
  join(
    at.folder(job),
    readdirSync(at.folder(job))
      .filter(name => /^supervisor\.\d+\.json$/.test(name))
      .sort()
      .at(-1)!,
  )
const alter = (path: string, change: object) => {
  writeFileSync(`${path}.new`, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }))
  renameSync(`${path}.new`, path)
}
/** As the machine does when its power goes: the shim first, so that it sees nothing. */
async function powerCut(job: number): Promise<void> {
  process.kill(shimOf(engine, job), 'SIGKILL')
  for (const pid of processesWith(cookieOf(job))) process.kill(pid, 'SIGKILL')
  await until(() => processesWith(cookieOf(job)).length === 0, 'the end of all')
}

test('a job that fills the disk ends as its script says, with the lines that are missing counted; nothing new begins on a full or read-only disk', async t => {
  const said = await onSmallDisk(t, new URL('./small-disk.ts', import.meta.url), [], '24m')
  if (said === null) return
  const missing = 'N lines of its output could not be kept (ENOSPC).'
  assert.deepEqual(said, {
    filled: { exitCode: 3, reason: 'user_error', message: missing },
    refused: 'disk_full',
    readOnly: 'read_only',
    recovered: { reason: null, message: missing, marked: true, last: 'o there is room again' },
    stopped: [9, 'cancelled'],
    after: 'fine',
  })
})

test('after a restart of the machine what ran is lost, and its secrets are forgotten', async () => {
  const job = await engine.start('echo ready; sleep 60', { secretValues: { TOKEN: 'a secret of it' } })
  await engine.said(job, 'ready')
  await powerCut(job)
  alter(supervisorFile(engine, job), { boot: 'another-boot/pid:[1]' })
  assert.deepEqual(await engine.backend.observe(job, 1), { status: 'lost', why: 'The machine was started again.' })
  assert.ok(!readdirSync(engine.folder(job)).includes('secrets.json'))
  const read = await engine.backend.readLog(job, 1, { offset: 0, limit: 1000, follow: true, signal: AbortSignal.timeout(20_000) })
  assert.equal(read.end, true, 'who follows its log is not kept waiting')
})

test('what runs in another container is left alone while its supervisor gives signs of life', async () => {
  const job = await engine.start('echo ready; sleep 60')
  await engine.said(job, 'ready')
  const boot: string = JSON.parse(readFileSync(supervisorFile(engine, job), 'utf8')).boot
  await powerCut(job)
  alter(supervisorFile(engine, job), { boot: `${boot.split('/')[0]}/pid:[1]` })
  assert.equal((await engine.backend.observe(job, 1)).status, 'unknown')
  utimesSync(supervisorFile(engine, job), new Date(), new Date(Date.now() - 3_600_000))
  assert.deepEqual(await engine.backend.observe(job, 1), { status: 'lost', why: 'The container that it ran in has ended.' })
})

test('when all of it was killed and nobody saw how, it is lost and not called failed', async () => {
  const job = await engine.start('echo ready; sleep 60')
  await engine.said(job, 'ready')
  await powerCut(job)
  const exit = await engine.ended(job)
  assert.deepEqual([exit.exitCode, exit.signal, exit.reason], [null, null, 'lost'])
})

test('a number that another process has by now is not taken for the supervisor', async () => {
  const job = await engine.start('echo ready; while [ ! -e go ]; do sleep 0.02; done; exit 8')
  await engine.said(job, 'ready')
  process.kill(shimOf(engine, job), 'SIGKILL')
  alter(supervisorFile(engine, job), { pid: process.pid }) // alive, and born at another time
  await engine.backend.observe(job, 1)
  writeFileSync(join(engine.folder(job), 'work', 'go'), '')
  assert.equal((await engine.ended(job)).exitCode, 8)
})

test('of many that want to take over at once one does', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'claim-'))
  const dead = () => true
  const claims = Array.from({ length: 50 }, (_, i) => claim(folder, { pid: i, birth: String(i), boot: 'b' }, before => before.pid < 0))
  assert.equal(claims.filter(Boolean).length, 1)
  assert.match(claim(folder, { pid: 99, birth: '1', boot: 'b' }, dead)!, /supervisor\.2\.json$/)
  assert.equal(isAlive({ pid: process.pid, birth: 'another' }), false)
  rmSync(folder, { recursive: true })
})

test('a clock that jumps neither ends a job nor keeps one', async () => {
  // the date, as the supervisor sees it, goes an hour forth and back every 50 ms
  const jumps = 'const now = Date.now; Date.now = () => now() + (Math.floor(performance.now() / 50) % 2 ? 3_600_000 : -3_600_000)'
  const shim = fileURLToPath(new URL('../../../src/jobs/backends/local/shim.ts', import.meta.url))
  const start = async (run: number, script: string) => {
    const job = await engine.start(script, { timeouts: { pending: null, run, stop: 5 } })
    const first = shimOf(engine, job)
    process.kill(first, 'SIGKILL')
    await until(() => !processesWith(cookieOf(job)).includes(first), 'the end of the first supervisor')
    spawn(process.execPath, ['--import', `data:text/javascript,${encodeURIComponent(jumps)}`, shim, engine.folder(job)], {
      stdio: 'ignore',
      detached: true,
      env: { ...process.env, PLINTH_COOKIE: cookieOf(job), PLINTH_PROCESS: 'supervisor' },
    }).unref()
    await until(() => shimOf(engine, job) !== first, 'its successor')
    return job
  }
  const quick = await start(30, 'while [ ! -e go ]; do sleep 0.02; done; sleep 0.3; exit 2')
  const endless = await start(0.5, 'echo $$; sleep 60')
  writeFileSync(join(engine.folder(quick), 'work', 'go'), '')
  const exit = await engine.ended(quick)
  assert.deepEqual([exit.exitCode, exit.reason], [2, 'user_error'])
  assert.equal((await engine.ended(endless)).reason, 'timeout')
  const times = readFileSync(join(engine.folder(endless), 'log'), 'utf8')
    .trim()
    .split('\n')
    .map(line => Math.abs(Date.now() - Number(line.slice(0, 13))))
  assert.ok(Math.max(...times) > 3_000_000, 'the clock did jump')
})

test('a supervisor that is asked to end, as by a machine that shuts down, ends its job and says that it was not its fault', async () => {
  const job = await engine.start('trap "echo saved; exit 0" TERM; echo ready; sleep 60 & wait')
  await engine.said(job, 'ready')
  process.kill(shimOf(engine, job), 'SIGTERM')
  const exit = await engine.ended(job)
  assert.deepEqual([exit.exitCode, exit.reason], [0, 'infra'])
  assert.ok((await engine.log(job)).includes('o saved'))
})
