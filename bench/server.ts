/**
 * `plinth up` beside a real `mlflow server` over SQLite, in one run on one machine: the same requests from the same load generator
 * (server-load.ts), in turn.
 *
 *     npm run bench:server                 (about 4 minutes; a Python with mlflow: npm run peers, or PLINTH_MLFLOW_PYTHON)
 *     npm run bench:server -- --full       (10⁸ points in the place of 10⁷)
 *     npm run bench:server -- search       (only sections whose name has this word)
 *
 * Without MLflow only Plinth is measured. Both keep what they answered when they are killed; MLflow's SQLite flushes the disk before each
 * answer, Plinth's points follow within 100 ms (docs/inside/tracking.md), so the raw speed of both ways is measured too.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { mlflowPython } from '../test/mlflow/server.ts'
import type { Load, Measured, Question } from './server-load.ts'
import { fillPoints, type Server, seedPoints, seedRuns, startMlflow, startPlinth } from './server-peers.ts'

const full = process.argv.includes('--full')
const wanted = process.argv.slice(2).filter(word => !word.startsWith('--'))
const folder = mkdtempSync(join(tmpdir(), 'plinth-bench-'))
const python = mlflowPython()
const servers: Server[] = []

const sections: Record<string, () => Promise<void>> = {
  start: measureStart,
  'log-metric': () => compareLogging('log-metric', { goal: 100, of: 'requests' }),
  'log-batch': () => compareLogging('log-batch', { goal: 20, of: 'metrics', times: 1000 }),
  search: compareSearch,
  history: measureHistory,
  many: measureMany,
  artifacts: measureArtifacts,
  writers: measureWriters,
  limits: measureLimits,
}

console.log(
  `${cpus().length} × ${cpus()[0]?.model.trim()}, Node ${process.versions.node}${python ? '' : '; MLflow is not here (npm run peers)'}\n`,
)
try {
  servers.push(await startPlinth(join(folder, 'plinth')))
  if (python) servers.push(await startMlflow(python, join(folder, 'mlflow')))
  for (const [name, measure] of Object.entries(sections)) {
    if (wanted.length > 0 && !wanted.some(word => name.includes(word))) continue
    const begun = performance.now()
    console.log(`## ${name}\n`)
    await measure()
    console.log(`\n(${((performance.now() - begun) / 1000).toFixed(0)} s)\n`)
  }
} finally {
  for (const server of servers) await server.stop()
  rmSync(folder, { recursive: true, force: true })
}

// ── sections ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function measureStart(): Promise<void> {
  await new Promise(resolve => setTimeout(resolve, 3000)) // idle
  table(
    ['', ...servers.map(({ name }) => name)],
    [
      ['cold start', ...servers.map(({ coldStart }) => `${(coldStart / 1000).toFixed(2)} s`)],
      ['idle memory', ...servers.map(server => megabytes(server.memory()))],
    ],
  )
}

async function compareLogging(
  kind: 'log-metric' | 'log-batch',
  { goal, of, times = 1 }: { goal: number; of: string; times?: number },
): Promise<void> {
  const rows: string[][] = []
  for (const connections of [8, 1]) {
    const results: Measured[] = []
    for (const server of servers) {
      const runs = await Promise.all(Array.from({ length: connections }, () => newRun(server)))
      const load = { kind, connections, runs }
      await measured(server, { ...load, seconds: 1, from: 1e6 })
      results.push(await timed(server, { ...load, seconds: server.name === 'Plinth' ? 4 : 6 }, rows, `${connections} connections`, times))
    }
    addRatio(rows, results, connections === 8 ? goal : null)
  }
  table(['', 'server', `${of}/s`, 'p50', 'p95', 'processor/request', ''], rows)
}

async function compareSearch(): Promise<void> {
  for (const server of servers) seedRuns(server, 10_000)
  const questions = {
    '1,000 of 10,000 runs': {},
    'the same, filtered, sorted by a metric': { filter: 'metrics.metric_1 > 10', order_by: ['metrics.metric_3 DESC'] },
  }
  const rows: string[][] = []
  for (const [what, question] of Object.entries(questions))
    for (const connections of [8, 1]) {
      const results: Measured[] = []
      for (const server of servers) {
        const load = {
          ...{ kind: 'any' as const, connections, runs: [] },
          questions: [
            { path: '/api/2.0/mlflow/runs/search', body: JSON.stringify({ experiment_ids: ['1'], max_results: 1000, ...question }) },
          ],
        }
        await measured(server, { ...load, seconds: 1 })
        results.push(
          await timed(server, { ...load, seconds: server.name === 'Plinth' ? 4 : 7 }, rows, `${what}, ${connections} connections`, 1),
        )
      }
      addRatio(rows, results, connections === 8 ? 40 : null)
    }
  table(['', 'server', 'searches/s', 'p50', 'p95', 'processor/request', ''], rows)
}

async function measureHistory(): Promise<void> {
  const points = 1_000_000
  const rows: string[][] = []
  for (const server of servers) {
    const run = await newRun(server)
    const bytes = seedPoints(server, run, points)
    const thinned = `/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?run_ids=${run}&metric_key=long&max_results=320`
    const questions = {
      ...(server.name === 'Plinth' && { 'thinned to 1,000, with the band around': `/api/runs/${run}/metrics?key=long&points=1000` }),
      'as MLflow’s charts ask': thinned,
    }
    for (const [what, path] of Object.entries(questions)) {
      const load = { kind: 'any' as const, connections: 1, runs: [], questions: [{ path }], seconds: 8, requests: 12 }
      await measured(server, { ...load, seconds: 1, requests: 2 })
      const { p50, p95, requests, refused } = await measured(server, load)
      const answered = requests > refused ? [ms(p50), ms(p95)] : [`none in ${ms(p50)}`, '']
      rows.push([what, server.name, ...answered, `${(bytes / points).toFixed(0)} bytes a point`])
    }
  }
  table([`${points.toLocaleString('en')} points`, 'server', 'p50', 'p95', 'database'], rows)
}

async function measureMany(): Promise<void> {
  const [plinth] = servers as [Server]
  const begun = performance.now()
  const { bytes, experiment, runs } = fillPoints(plinth.database, { runs: full ? 2000 : 200, perMetric: 5000 })
  const filled = (performance.now() - begun) / 1000
  const questions: Record<string, (run: string, i: number) => Question> = {
    'one run': run => ({ path: `/api/runs/${run}` }),
    'history, thinned to 1,000': (run, i) => ({ path: `/api/runs/${run}/metrics?key=metric_${i % 10}&points=1000` }),
    'history, whole': (run, i) => ({
      path: `/api/2.0/mlflow/metrics/get-history?run_id=${run}&metric_key=metric_${i % 10}&max_results=25000`,
    }),
    '100 runs, sorted by a metric': (_, i) => ({
      path: '/api/2.0/mlflow/runs/search',
      body: JSON.stringify({ experiment_ids: [experiment], max_results: 100, order_by: [`metrics.metric_${i % 10} DESC`] }),
    }),
  }
  const rows: string[][] = []
  for (const [what, question] of Object.entries(questions)) {
    const asked = Array.from({ length: 100 }, (_, i) => question(runs[(i * 7919) % runs.length]!, i))
    const { p50, p95, requests, refused, firstRefused } = await measured(plinth, {
      kind: 'any',
      connections: 1,
      runs: [],
      questions: asked,
      seconds: 6,
      requests: 200,
    })
    if (refused > 0) throw new Error(`${what}: ${firstRefused}`)
    rows.push([what, ms(p50), ms(p95), String(requests)])
  }
  const points = runs.length * 50_000
  table(
    [`${points.toLocaleString('en')} points, ${bytes.toFixed(0)} bytes each, filled in ${filled.toFixed(0)} s`, 'p50', 'p95', 'asked'],
    rows,
  )
}

/** 2 GiB of zeros, and what they leave in the server's memory. */
async function measureArtifacts(): Promise<void> {
  const size = 2 * 2 ** 30
  const rows: string[][] = []
  for (const server of servers) {
    const place = await artifactsOf(server)
    server.forgetPeak()
    const before = server.peak()
    const begun = performance.now()
    const status = await Promise.race([
      upload(server, `${place}/model.bin`, size),
      new Promise<null>(resolve => setTimeout(resolve, 45_000, null)),
    ])
    const seconds = (performance.now() - begun) / 1000
    rows.push([
      server.name,
      status === null ? 'not done in 45 s' : `${status} after ${seconds.toFixed(1)} s, ${(size / 2 ** 20 / seconds).toFixed(0)} MB/s`,
      megabytes(before),
      megabytes(server.peak()),
    ])
  }
  table(['2 GiB upload', '', 'memory before', 'most during it'], rows)
}

/** Where files of a new run go, as a path of the artifacts' API. */
async function artifactsOf(server: Server): Promise<string> {
  const { run } = (await server.post('runs/create', { experiment_id: '0' })) as { run: { info: { artifact_uri: string } } }
  return run.info.artifact_uri.replace(/^mlflow-artifacts:\/*/, '')
}

function upload({ port, token }: Server, path: string, size: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const part = Buffer.alloc(2 ** 20)
    const sent = request(
      {
        ...{ host: '127.0.0.1', port, method: 'PUT', path: `/api/2.0/mlflow-artifacts/artifacts/${path}` },
        headers: { 'content-length': size, 'content-type': 'application/octet-stream', ...(token && { authorization: `Bearer ${token}` }) },
      },
      answer => answer.resume().on('end', () => resolve(answer.statusCode!)),
    ).on('error', reject)
    let left = size
    const more = () => {
      while (left > 0) {
        left -= part.length
        if (!sent.write(part)) return void sent.once('drain', more)
      }
      sent.end()
    }
    more()
  })
}

/** Every point that was acknowledged is there, and once. */
async function measureWriters(): Promise<void> {
  const [plinth] = servers as [Server]
  const run = await newRun(plinth)
  const { requests, perSecond, p95, refused } = await measured(plinth, { kind: 'log-metric', connections: 200, runs: [run], seconds: 4 })
  const answer = await fetch(`http://127.0.0.1:${plinth.port}/api/2.0/mlflow/metrics/get-history?run_id=${run}&metric_key=loss`, {
    headers: { authorization: `Bearer ${plinth.token}` },
  })
  const { metrics } = (await answer.json()) as { metrics: { step: number }[] }
  const different = new Set(metrics.map(({ step }) => step)).size
  console.log(
    `200 writers: ${requests} points acknowledged (${perSecond.toFixed(0)}/s, p95 ${ms(p95)}), ${metrics.length} there, ${different} different; ${refused} refused`,
  )
  if (metrics.length !== requests || different !== requests || refused > 0) process.exitCode = 1
}

/** What the same machine does without either: the disk, the database, and HTTP. */
async function measureLimits(): Promise<void> {
  const rows: string[][] = []
  for (const synchronous of ['full', 'normal']) {
    const db = new DatabaseSync(join(folder, `limit-${synchronous}.db`))
    db.exec(`pragma journal_mode = wal; pragma synchronous = ${synchronous}`)
    db.exec(
      'create table points (run integer, key integer, step integer, timestamp integer, value real, special integer, primary key (run, key, step, timestamp, value, special)) strict, without rowid',
    )
    const add = db.prepare('insert into points values (1, 1, ?, ?, ?, 0)')
    let n = 0
    const one = during(1.5, () => {
      db.exec('begin immediate')
      add.run(n, n, n++)
      db.exec('commit')
    })
    const many = during(1.5, () => {
      db.exec('begin immediate')
      for (let i = 0; i < 1000; i++) add.run(n, n, n++)
      db.exec('commit')
    })
    db.close()
    rows.push([
      `SQLite, synchronous = ${synchronous}`,
      `${one.toFixed(0)} commits of one point/s`,
      `${(many * 1000).toFixed(0)} points/s in thousands`,
    ])
  }
  const bare = createServer((asked, answer) => {
    asked.resume().on('end', () => answer.setHeader('content-type', 'application/json').end('{}'))
  })
  await new Promise<void>(resolve => bare.listen(0, '127.0.0.1', resolve))
  const { port } = bare.address() as { port: number }
  const load = { kind: 'log-metric' as const, connections: 8, runs: ['x'], seconds: 1 }
  await measured({ port }, load)
  const before = process.cpuUsage()
  const { perSecond, requests } = await measured({ port }, { ...load, seconds: 2 })
  const { user, system } = process.cpuUsage(before)
  bare.closeAllConnections()
  bare.close()
  rows.push([
    'node:http that reads and answers {}',
    `${perSecond.toFixed(0)} requests/s`,
    `${((user + system) / requests).toFixed(0)} µs of processor each`,
  ])
  table(['the limit', '', ''], rows)
}

function during(seconds: number, work: () => void): number {
  const begun = performance.now()
  let times = 0
  while (performance.now() - begun < seconds * 1000) {
    work()
    times++
  }
  return times / ((performance.now() - begun) / 1000)
}

// ── below ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function newRun(server: Server): Promise<string> {
  const { run } = (await server.post('runs/create', { experiment_id: '0' })) as { run: { info: { run_id: string } } }
  return run.info.run_id
}

/** By a process of its own. */
function measured({ port, token }: Pick<Server, 'port' | 'token'>, load: Omit<Load, 'port' | 'token'>): Promise<Measured> {
  const given: Load = { ...load, port, ...(token && { token }) }
  const others = servers.filter(each => each.port !== port)
  for (const other of others) other.sleep()
  return new Promise<Measured>((resolve, reject) => {
    const child = spawn(process.execPath, [fileURLToPath(new URL('./server-load.ts', import.meta.url))], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part))
    child
      .once('error', reject)
      .once('close', code => (code === 0 ? resolve(JSON.parse(text)) : reject(new Error(`the load generator ended with ${code}`))))
    child.stdin.end(JSON.stringify(given))
  }).finally(() => {
    for (const other of others) other.wake()
  })
}

async function timed(server: Server, load: Omit<Load, 'port' | 'token'>, rows: string[][], what: string, times: number): Promise<Measured> {
  const before = server.cpu()
  const result = await measured(server, load)
  const cpu = server.cpu() - before
  const note = result.refused > 0 ? `${result.refused} failed: ${result.firstRefused?.split('\r\n', 1)[0]}` : ''
  rows.push([what, server.name, rate(result.perSecond * times), ms(result.p50), ms(result.p95), ms((cpu * 1000) / result.requests), note])
  return result
}

function addRatio(rows: string[][], [plinth, mlflow]: Measured[], goal: number | null): void {
  if (!mlflow) return
  const none = mlflow.requests === mlflow.refused // not one came in time
  const ratio = plinth!.perSecond / (none ? 1 / mlflow.seconds : mlflow.perSecond)
  rows.at(-2)![6] =
    `**${none ? 'more than ' : ''}${ratio < 10 ? ratio.toFixed(1) : ratio.toFixed(0)}×**${goal === null ? '' : ` (goal ${goal}×)`}`
}

function table(head: string[], rows: string[][]): void {
  for (const row of [head, head.map(() => '---'), ...rows]) console.log(`| ${row.join(' | ')} |`)
}
function ms(milliseconds: number): string {
  return milliseconds < 0.995 ? `${(milliseconds * 1000).toFixed(0)} µs` : `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`
}
function rate(perSecond: number): string {
  return perSecond < 100 ? perSecond.toFixed(1) : Math.round(perSecond).toLocaleString('en')
}
function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`
}
