/** `plinth run`, `jobs` and `sweep` as they are typed, on a home without a server and with one in the background. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { keeperOf } from '../../src/track/keeper.ts'
import { main } from '../up/up.ts'

interface Ended {
  code: number | null
  // biome-ignore lint/suspicious/noExplicitAny: answers are compared field by field
  json: any
  stdout: string
  stderr: string
}

/** A home and a folder to work in, and a way to type commands there. */
function desk(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'run-'))
  const [home, work] = [join(folder, 'home'), join(folder, 'work')]
  mkdirSync(work)
  // first the server that a command may have left in the background, then what it stands on
  t.after(async () => {
    const keeper = await keeperOf(home)
    if (keeper) process.kill(keeper.worker.pid, 'SIGTERM')
    while (keeper && (await keeperOf(home))) await new Promise(resolve => setTimeout(resolve, 20))
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  })
  const begin = (words: readonly string[], env: Record<string, string> = {}): ChildProcess =>
    spawn(process.execPath, [main, ...words], {
      cwd: work,
      env: { ...process.env, PLINTH_HOME: home, PLINTH_URL: '', PLINTH_TOKEN: '', PLINTH_CACHE: join(folder, 'cache'), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  const ended = async (child: ChildProcess): Promise<Ended> => {
    let [stdout, stderr] = ['', '']
    child.stdout!.setEncoding('utf8').on('data', part => (stdout += part))
    child.stderr!.setEncoding('utf8').on('data', part => (stderr += part))
    const [code] = await once(child, 'close')
    const last = stdout.trim().split('\n').at(-1) ?? ''
    return { code, json: last.startsWith('{') ? JSON.parse(last) : null, stdout, stderr }
  }
  const plinth = (...words: string[]) => ended(begin(words))
  const write = (name: string, text: string) => writeFileSync(join(work, name), text)
  return { home, work, begin, ended, plinth, write }
}

const node = (script: string) => ['--', process.execPath, '-e', script]

test('a command runs as a tracked job, its log is shown, and its exit code is ours', async t => {
  const { plinth, home } = desk(t)
  const script = `console.log('to work'); console.error('beside'); require('fs').writeFileSync(process.env.PLINTH_OUTPUT_DIR + '/made.txt', 'made'); process.exit(7)`
  const { code, json, stderr } = await plinth('run', '--json', ...node(script))
  assert.equal(code, 7)
  const { job, state, exitCode, reason, device, run, seconds } = json
  assert.deepEqual({ state, exitCode, reason, kind: device.kind }, { state: 'failed', exitCode: 7, reason: 'user_error', kind: 'cpu' })
  assert.match(run, /^[0-9a-f]{32}$/)
  assert.ok(seconds > 0)
  assert.match(stderr, /to work/)
  assert.match(stderr, /beside/)
  const shown = await plinth('runs', 'show', run, '--json')
  assert.deepEqual([shown.json.run.status, shown.json.run.reason], ['failed', 'user_error'])
  const again = await plinth('jobs', 'logs', String(job))
  assert.deepEqual(
    again.stdout
      .split('\n')
      .filter(line => line === 'to work' || line === 'beside')
      .toSorted(),
    ['beside', 'to work'],
  )
  assert.ok(existsSync(join(home, 'jobs', String(job))))
  const listed = await plinth('jobs', 'list', '--all', '--json')
  assert.deepEqual(
    listed.json.jobs.map((each: { job: number }) => each.job),
    [job],
  )
  assert.equal((await plinth('jobs', 'delete', String(job), '--json')).code, 0)
  assert.ok(!existsSync(join(home, 'jobs', String(job))))
})

test('what keeps a job from its work is told from what the job says', async t => {
  const { plinth, write } = desk(t)
  const missing = await plinth('run', 'nowhere.py', '--json')
  assert.deepEqual([missing.code, missing.json.error.code], [125, 'job_target_not_found'])
  const unknown = await plinth('run', '--json', '--', 'no-such-command-at-all')
  assert.deepEqual([unknown.code, unknown.json.reason], [127, 'command_not_found'])
  write('x.txt', 'this is == no requirement\n')
  const environment = await plinth('run', '--env', 'x.txt', '--json', ...node('1'))
  assert.equal(environment.code, 126, environment.stderr)
  const habit = await plinth('run', '--env', 'A=1', '--json', ...node('1'))
  assert.equal(habit.code, 2)
  assert.match(habit.json.error.message, /--envs A=1/)
  const device = await plinth('run', '--gpus', 'H100:999', '--json', ...node('1'))
  assert.equal(device.code, 125)
  assert.match(device.json.error.message, /H100/)
})

test('a secret reaches the job and neither its spec, its files nor its log', async t => {
  const { begin, ended, home } = desk(t)
  const secret = 'hunter2-and-more'
  const words = [
    'run',
    '--secret',
    'KEY',
    '--envs',
    'PLAIN=seen',
    '--json',
    ...node('console.log(process.env.KEY.length, process.env.PLAIN, process.env.KEY)'),
  ]
  const { code, json, stdout, stderr } = await ended(begin(words, { KEY: secret }))
  assert.equal(code, 0, stderr)
  assert.match(stderr, new RegExp(`^${secret.length} seen `, 'm'))
  assert.ok(!`${stdout}${stderr}`.includes(secret))
  const files = globSync('jobs/**/*', { cwd: home, withFileTypes: true }).filter(entry => entry.isFile())
  assert.ok(files.length > 3)
  for (const { parentPath, name } of files) assert.ok(!readFileSync(join(parentPath, name)).includes(secret), name)
  for (const file of ['plinth.db', 'plinth.db-wal'])
    if (existsSync(join(home, file))) assert.ok(!readFileSync(join(home, file)).includes(secret), file)
  assert.ok(json.job > 0)
})

test('Ctrl-C stops the job at a good place, says how to go on, and it does', async t => {
  const { begin, ended, plinth, work } = desk(t)
  const script = `const fs = require('fs'), file = process.env.PLINTH_CHECKPOINT_DIR + '/step'
    const from = fs.existsSync(file) ? Number(fs.readFileSync(file, 'utf8')) : 0
    console.log('from', from)
    if (from > 0) process.exit(0)
    process.on('SIGTERM', () => { fs.writeFileSync(file, '41'); process.exit(0) })
    fs.writeFileSync('ready', ''); setInterval(() => {}, 1000)`
  const child = begin(['run', '--json', ...node(script)])
  const end = ended(child)
  while (!existsSync(join(work, 'ready'))) await new Promise(resolve => setTimeout(resolve, 20))
  child.kill('SIGINT')
  const { code, json, stderr } = await end
  assert.equal(code, 130, stderr)
  const [, job] = /plinth jobs retry (\d+)/.exec(json.error.next) ?? []
  const again = await plinth('jobs', 'retry', job!, '--json')
  assert.deepEqual([again.code, again.json.state], [0, 'succeeded'], again.stderr)
  assert.match(again.stderr, /from 41/)
})

test('a job file is read with a verdict for each field, and an array of it runs to its end', async t => {
  const { plinth, write, work } = desk(t)
  write(
    'job.yaml',
    `name: each\nresources: {cpus: 1, use_spot: true, region: us}\nenvs: {WHO: null}\nrun: echo $WHO $N > out-$N.txt\next: {array: {matrix: {N: [1, 2, 3]}, parallel: 2}}\n`,
  )
  const unsaid = await plinth('run', 'job.yaml', '--json')
  assert.deepEqual([unsaid.code, unsaid.json.error.code], [125, 'job_envs_missing'])
  const dry = await plinth('run', 'job.yaml', '--envs', 'WHO=me', '--dry-run', '--json')
  assert.equal(dry.json.jobs, 3)
  const verdicts = Object.fromEntries(dry.json.verdicts.map((each: { field: string; verdict: string }) => [each.field, each.verdict]))
  assert.deepEqual([verdicts['resources.use_spot'], verdicts['resources.region'], verdicts['run']], ['translated', 'ignored', 'honoured'])
  const { code, json, stderr } = await plinth('run', 'job.yaml', '--envs', 'WHO=me', '--json')
  assert.equal(code, 0, stderr)
  assert.deepEqual(
    json.jobs.map((job: { state: string }) => job.state),
    ['succeeded', 'succeeded', 'succeeded'],
  )
  assert.equal(readFileSync(join(work, 'out-3.txt'), 'utf8'), 'me 3\n')
})

test('a sweep in the background finds the best trial, and is taken up by its name', async t => {
  const { plinth, write, work, home } = desk(t)
  write(
    'trial.mjs',
    `const { PLINTH_API, PLINTH_RUN_ID, PLINTH_TOKEN, rate } = process.env
     const metrics = [1, 2, 3].map(step => ({ key: 'score', value: Number(rate) * step, timestamp: Date.now(), step }))
     const answer = await fetch(PLINTH_API + '/api/runs/' + PLINTH_RUN_ID + '/log', { method: 'POST', body: JSON.stringify({ metrics }),
       headers: { authorization: 'Bearer ' + PLINTH_TOKEN, 'content-type': 'application/json' } })
     if (!answer.ok) throw new Error(await answer.text())`,
  )
  const { code, json, stderr } = await plinth(
    ...[
      'sweep',
      'trial.mjs',
      '--search',
      'rate=1,5,3',
      '--method',
      'grid',
      '--metric',
      'score',
      '--name',
      'rates',
      '--report',
      'sweep.html',
      '--json',
    ],
  )
  assert.equal(code, 0, stderr)
  assert.deepEqual(json.best.parameters, { rate: '5' })
  assert.equal(json.best.value, 15)
  assert.deepEqual(
    json.trials.map((trial: { parameters: { rate: string } }) => trial.parameters.rate),
    ['5', '3', '1'],
  )
  assert.match(readFileSync(join(work, 'sweep.html'), 'utf8'), /<polyline[^>]*><title>job \d+: rate 5, score 15/)
  assert.ok((await keeperOf(home))?.url, 'the server that was started for it stays')
  const shown = await plinth('runs', 'list', '--filter', "params.rate = '5'", '--json')
  assert.equal(shown.json.runs.length, 1)
  const again = await plinth('sweep', '--resume', '--name', 'rates', '--json')
  assert.deepEqual(again.json.best.job, json.best.job)
  assert.equal(again.json.trials.length, 3)
})

test('after a run it is told how far the advice was off', async t => {
  const { plinth, write } = desk(t)
  write('train.mjs', 'setTimeout(() => {}, 300)\n')
  const advice = await plinth('advise', 'train.mjs', '--params', '1M', '--batch', '8', '--samples', '100', '--epochs', '1', '--json')
  assert.equal(advice.code, 0, advice.stderr)
  const { json } = await plinth('run', 'train.mjs', '--json')
  const { run } = (await plinth('runs', 'show', json.run, '--json')).json
  assert.match(run.tags['plinth.forecast'], /^Against the forecast: .*time [+−]\d+ %/)
})
