/** MLflow's own client through plinth-spool: with the server there, away, killed; with trainings killed at any moment. */
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { buildSpool } from '../../scripts/build-spool.ts'
import { getTrackedRun, metricHistory, updateTrackedRun } from '../../src/track/tracked-runs.ts'
import { startServer } from '../mlflow/server.ts'
import { temporaryFolder } from '../track/homes.ts'
import { assertWhole, filesIn, long, serve, statusOf, until } from '../track/trainings.ts'
import { startUp } from '../up/up.ts'
import { installed, missing, python, startTrainer } from './python.ts'

const kills = long ? 500 : 20
const nobody = 'http://127.0.0.1:9'

test('the wheel is the same bytes each time, declares its licence and its places in MLflow, and pip takes it', { skip: missing }, t => {
  const [one, two] = [temporaryFolder(t), temporaryFolder(t)].map(folder => readFileSync(buildSpool(folder, python!)))
  assert.ok(one!.equals(two!))
  const folder = temporaryFolder(t)
  const wheel = buildSpool(folder, python!)
  const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--no-cache-dir', '--target', join(folder, 'site'), wheel]
  execFileSync(python!, pip, { stdio: ['ignore', 'ignore', 'inherit'] })
  const metadata = readFileSync(join(folder, 'site', 'plinth_spool-0.1.0.dist-info', 'METADATA'), 'utf8')
  assert.match(metadata, /^License-Expression: Apache-2\.0$/m)
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
  assert.match(metadata, new RegExp(`^Version: ${version.replaceAll('.', '\\.')}$`, 'm'))
})

test('with the server away all the time a training of scikit-learn loses nothing: its model, its data and its files are there later, once', {
  skip: missing,
}, async t => {
  const home = temporaryFolder(t)
  const trainer = await startTrainer(t, home, nobody)
  const [offline] = await trainer.do('autolog', 'offline')
  assert.deepEqual([offline.status, offline.params > 10], ['RUNNING', true], 'it can be read back meanwhile')
  await trainer.close()
  assert.match(trainer.stderr(), /lines of 1 run are not with http:\/\/127\.0\.0\.1:9 yet.*python -m plinth_spool send/s)
  const server = await serve(t, home)
  await until(
    () => filesIn(home),
    files => files.length === 0,
  )
  // the same training with the server there is what it is compared with
  const other = await startTrainer(t, home, server.url)
  const [online] = await other.do('autolog', 'online')
  const [a] = await other.do('look', offline.run)
  const [b] = await other.do('look', online.run)
  assert.deepEqual({ ...a, name: '', tags: Object.keys(a.tags).toSorted() }, { ...b, name: '', tags: Object.keys(b.tags).toSorted() })
  assert.deepEqual(
    [a.status, a.name, a.models, a.datasets, a.text],
    ['FINISHED', 'offline', ['LOGGED_MODEL_READY'.slice(13)], ['dataset'], 'by hand'],
  )
  assert.ok(a.scores[0] > 0.9 && a.files.includes('notes/a.txt') && a.files.length > 2)
  await other.close()
})

test('each kind of call does what MLflow says it does, and nothing is thrown for what cannot be kept', { skip: missing }, async t => {
  const home = temporaryFolder(t)
  const server = await serve(t, home)
  const trainer = await startTrainer(t, home, server.url)
  const [spoken] = await trainer.do('speak')
  assert.deepEqual(spoken, {
    found: 1,
    metrics: { asynchronous: '1.0', inf: '1.7976931348623157e+308', late: '1.0', low: '-1.7976931348623157e+308', nan: 'nan' },
    gone: false,
    datasets: ['zeros'],
    parent: true,
    resumed: 'RUNNING',
    history: [
      [0, 1],
      [1, 2],
    ],
    ended: ['FINISHED', 'FINISHED', 'KILLED'],
  })
  const [heard] = await trainer.do('mischief')
  assert.deepEqual(heard, { heard: ['metric', 'param'], params: 252, lr: '1', metrics: 1500, long: 3000, tags: 1 })
  const [forked] = await trainer.do('forks', 3)
  await until(
    () => filesIn(home).filter(name => name.startsWith(forked.run)),
    files => files.length === 0,
  )
  for (const name of ['parent', 'child 0', 'child 1', 'child 2'])
    assert.equal((await metricHistory(server.db, 'default', forked.run, name)).length, 50, name)
  assert.equal(await statusOf(server.db, forked.run), 'succeeded')
  const stop = trainer.do('stopped', 20)
  const { run } = await until(
    () => server.db.selectFrom('tracked_runs').select(['id as run', 'status']).orderBy('number', 'desc').executeTakeFirstOrThrow(),
    ({ status }) => status === 'running',
  )
  await updateTrackedRun(server.db, 'default', run, { status: 'cancelled' })
  assert.deepEqual((await stop).at(-1), { stopped: true })
  await trainer.close()
  assert.deepEqual(filesIn(home), [])
})

test('a server that is killed and comes back in the middle gets every point, once', { skip: missing }, async t => {
  const home = temporaryFolder(t)
  let server = await startUp(t, home, { words: ['--quiet'] })
  const port = new URL(server.url).port
  const trainer = await startTrainer(t, home, server.url)
  const training = trainer.do('train', 600, 0.005)
  for (let kill = 0; kill < (long ? 20 : 3); kill++) {
    const before = Math.max(0, ...trainer.points.values())
    await until(
      () => Math.max(0, ...trainer.points.values()),
      points => points >= Math.min(600, before + 100),
    )
    server.process.kill('SIGKILL')
    await server.ended
    server = await startUp(t, home, { words: ['--quiet'], port })
  }
  await training
  await trainer.close()
  server.process.kill('SIGTERM')
  await server.ended
  const last = await serve(t, home)
  await until(
    () => filesIn(home),
    files => files.length === 0,
  )
  const [run] = [...trainer.points.keys()]
  await assertWhole(last.db, run!, 600)
  assert.equal(await statusOf(last.db, run!), 'succeeded')
})

test(`${kills} kills of trainings, with the server there and away: what was acknowledged is there, once, and each is failed, lost`, {
  skip: missing,
}, async t => {
  const home = temporaryFolder(t)
  let server = await serve(t, home)
  const trainer = await startTrainer(t, home, server.url)
  for (let kill = 0; kill < kills; kill++) {
    if (kill === kills >> 1) await server.close() // from here on nobody hears them
    const before = trainer.pids.size
    await trainer.do('forked', 1_000_000)
    await until(
      () => trainer.pids.size,
      size => size > before,
    )
    const [run, pid] = [...trainer.pids].at(-1)!
    const enough = (kill * 37) % 400
    await until(
      () => trainer.points.get(run) ?? 0,
      points => points >= enough,
    )
    process.kill(pid, 'SIGKILL')
    // what it said last is on its way
    await until(
      () => spawnSync('kill', ['-0', String(pid)]).status,
      status => status !== 0,
    )
  }
  await trainer.close()
  server = await serve(t, home)
  const died = Date.now()
  for (const run of trainer.pids.keys()) {
    await until(
      () => statusOf(server.db, run),
      status => status === 'failed lost',
    )
    assert.ok(Date.now() - died < 10_000)
  }
  await until(
    () => filesIn(home),
    files => files.length === 0,
    60,
  )
  for (const run of trainer.pids.keys()) await assertWhole(server.db, run, trainer.points.get(run) ?? 0)
})

test('where no log can be written all of it still reaches the server; without either the training goes on', { skip: missing }, async t => {
  const file = join(temporaryFolder(t), 'a file')
  writeFileSync(file, '')
  const server = await startServer()
  t.after(() => server.close())
  const trainer = await startTrainer(t, file, server.url, { MLFLOW_TRACKING_TOKEN: server.token })
  const [{ run }] = await trainer.do('train', 200)
  await trainer.close()
  await assertWhole(server.db, run, 200)
  assert.equal(await statusOf(server.db, run), 'succeeded')
  const alone = await startTrainer(t, file, nobody)
  await alone.do('train', 200)
  await alone.close()
  assert.match(alone.stderr(), /its log cannot be written/)
})

test('what was logged with a token lands in its project: by plinth up of that home, or by hand', { skip: missing }, async t => {
  const home = temporaryFolder(t)
  const server = await startServer()
  t.after(() => server.close())
  const token = await server.tokenFor('vision')
  const trainer = await startTrainer(t, home, nobody, { MLFLOW_TRACKING_TOKEN: token })
  const [{ run }] = await trainer.do('train', 50)
  await trainer.close()
  const send = async (token: string) => {
    const environment = { ...process.env, PLINTH_HOME: home, PYTHONPATH: installed(), MLFLOW_TRACKING_TOKEN: token }
    const child = spawn(python!, ['-m', 'plinth_spool', 'send', '--url', server.url], { env: environment })
    let printed = ''
    child.stdout.on('data', text => {
      printed += text
    })
    const [code] = await once(child, 'close')
    return [code, printed.trim()]
  }
  const [refused, why] = await send(server.token)
  assert.deepEqual([refused, /another token/.test(String(why))], [1, true])
  assert.deepEqual(await send(token), [0, `${run.slice(0, 8)}  sent`])
  assert.equal((await getTrackedRun(server.db, 'vision', run)).status, 'succeeded')
  assert.equal((await send(token))[1], 'Nothing was waiting for this.')
  // left in the folder of the server's own home, it is taken up there
  const here = await startTrainer(t, server.home, nobody, { MLFLOW_TRACKING_TOKEN: token })
  const [second] = await here.do('train', 50)
  await here.close()
  await until(
    () => filesIn(server.home),
    files => files.length === 0,
  )
  assert.equal((await getTrackedRun(server.db, 'vision', second.run)).status, 'succeeded')
})

test('all that test/mlflow does with the plain client goes through the log as well', {
  skip: missing || (!long && 'only with PLINTH_TEST=long'),
}, async t => {
  const server = await startServer()
  t.after(() => server.close())
  const home = temporaryFolder(t)
  mkdirSync(home, { recursive: true })
  const child = spawn(python!, [fileURLToPath(new URL('../mlflow/client.py', import.meta.url))], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: {
      ...process.env,
      PLINTH_HOME: home,
      PYTHONPATH: installed(),
      MLFLOW_TRACKING_URI: `plinth+${server.url}`,
      MLFLOW_TRACKING_TOKEN: server.token,
      OTHER_TOKEN: await server.tokenFor('other'),
      MLFLOW_DISABLE_TELEMETRY: 'true',
      MLFLOW_HTTP_REQUEST_MAX_RETRIES: '2',
    },
  })
  let printed = ''
  child.stdout.on('data', text => {
    printed += text
  })
  await once(child, 'close')
  const told = printed
    .split('\n')
    .filter(line => line.startsWith('{"chapter"'))
    .map(line => JSON.parse(line) as { chapter: string; error?: string })
  assert.ok(told.length > 10)
  /** A param that changes is warned of here, and a run of one's own is known without the server. */
  const otherwise = ['runs_are_logged_and_read_back', 'another_project_is_not_seen']
  assert.deepEqual(
    told.filter(({ error, chapter }) => error && !otherwise.includes(chapter)),
    [],
  )
})
