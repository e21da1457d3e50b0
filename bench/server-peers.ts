/** The two servers that are compared, each a process of its own with a folder of its own, and what the system says of them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'

export interface Server {
  name: string
  port: number
  token?: string
  database: string
  /** Milliseconds from the start of the process to its first answer. */
  coldStart: number
  /** Seconds of processor time so far, of the process and its children. */
  cpu(): number
  /** Bytes of memory that are its own, of the process and its children; shared pages by parts. */
  memory(): number
  /** Most bytes resident since `forgetPeak`, the same way. */
  peak(): number
  forgetPeak(): void
  post(path: string, body: unknown): Promise<unknown>
  /** Nothing of it runs until `wake`: the other one has the machine for itself. */
  sleep(): void
  wake(): void
  stop(): Promise<void>
}

export async function startPlinth(folder: string): Promise<Server> {
  const home = join(folder, 'home')
  const port = await freePort()
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url))
  return await start('Plinth', process.execPath, [main, 'up', '--port', String(port), '--json'], port, folder, join(home, 'plinth.db'), {
    PLINTH_HOME: home,
    PLINTH_CACHE: join(folder, 'cache'),
    PLINTH_DATABASE: undefined,
  })
}

/** As it is installed and started: its defaults, over SQLite. */
export async function startMlflow(python: string, folder: string): Promise<Server> {
  const port = await freePort()
  const database = join(folder, 'mlflow.db')
  const words = [
    '--backend-store-uri',
    `sqlite:///${database}`,
    '--artifacts-destination',
    join(folder, 'artifacts'),
    '--port',
    String(port),
  ]
  return await start('MLflow', python, ['-m', 'mlflow', 'server', ...words], port, folder, database, {
    MLFLOW_DISABLE_TELEMETRY: 'true',
    DO_NOT_TRACK: 'true',
  })
}

async function start(
  name: string,
  program: string,
  args: string[],
  port: number,
  folder: string,
  database: string,
  environment: Record<string, string | undefined>,
): Promise<Server> {
  mkdirSync(folder, { recursive: true })
  const log = openSync(join(folder, 'log'), 'w')
  const begun = performance.now()
  const child = spawn(program, args, {
    stdio: ['ignore', name === 'Plinth' ? 'pipe' : log, log],
    detached: true, // a group of its own, so that its children end with it
    env: { ...process.env, ...environment },
    cwd: folder,
  })
  const said = name === 'Plinth' ? firstLine(child) : Promise.resolve('{}')
  await answering(port, child)
  const coldStart = performance.now() - begun
  const { token } = JSON.parse(await said) as { token?: string }
  return {
    ...{ name, port, database, coldStart, ...(token && { token }) },
    sleep: () => void process.kill(-child.pid!, 'SIGSTOP'),
    wake: () => void process.kill(-child.pid!, 'SIGCONT'),
    cpu: () => sum(treeOf(child.pid!), cpuOf),
    memory: () => sum(treeOf(child.pid!), pid => field(pid, 'smaps_rollup', 'Pss')),
    peak: () => sum(treeOf(child.pid!), pid => field(pid, 'status', 'VmHWM')),
    forgetPeak() {
      for (const pid of treeOf(child.pid!)) writeFileSync(`/proc/${pid}/clear_refs`, '5') // proc(5)
    },
    async post(path, body) {
      for (let left = 60; ; left--) {
        const answer = await fetch(`http://127.0.0.1:${port}/api/2.0/mlflow/${path}`, {
          method: 'POST',
          // its own connection: a kept one may be closed by the server in this moment
          headers: { 'content-type': 'application/json', connection: 'close', ...(token && { authorization: `Bearer ${token}` }) },
          body: JSON.stringify(body),
        })
        if (answer.ok) return await answer.json()
        // MLflow says for a while that its database is locked, after questions that nobody waits for any more
        if (answer.status !== 503 || left === 0) throw new Error(`${name}: ${path}: ${answer.status} ${await answer.text()}`)
        await new Promise(resolve => setTimeout(resolve, 1000))
      }
    },
    async stop() {
      const ended = new Promise(resolve => child.once('exit', resolve))
      process.kill(-child.pid!, 'SIGTERM')
      const late = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), 10_000)
      await ended
      clearTimeout(late)
    },
  }
}

const firstLine = (child: ChildProcess) =>
  new Promise<string>((resolve, reject) => {
    let text = ''
    child.stdout!.setEncoding('utf8').on('data', (part: string) => {
      text += part
      if (text.includes('\n')) resolve(text.split('\n', 1)[0]!)
    })
    child.once('exit', code => reject(new Error(`it ended with ${code}`)))
  })

async function answering(port: number, child: ChildProcess): Promise<void> {
  const until = performance.now() + 90_000
  while (performance.now() < until && child.exitCode === null) {
    const answer = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null)
    if (answer?.ok) return
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  throw new Error(`nothing answers on ${port}; see the log`)
}

const freePort = () =>
  new Promise<number>(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

// ── what /proc says ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function treeOf(root: number): number[] {
  const parents = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .flatMap(pid => {
      const fields = statOf(pid)
      return fields ? [[pid, Number(fields[1])] as const] : []
    })
  const tree = [root]
  for (const pid of tree) tree.push(...parents.filter(([, parent]) => parent === pid).map(([child]) => child))
  return tree
}
/** From the third field on: state, parent … */
function statOf(pid: number): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return null
  }
}
/** A hundred ticks a second on every Linux. */
const cpuOf = (pid: number) => {
  const fields = statOf(pid)
  return fields ? (Number(fields[11]) + Number(fields[12])) / 100 : 0
}
function field(pid: number, file: string, name: string): number {
  try {
    return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/${file}`, 'utf8'))?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}
const sum = (pids: number[], of: (pid: number) => number) => pids.reduce((all, pid) => all + of(pid), 0)

// ── the same runs and points in both ────────────────────────────────────────────────────────────────────────────────────────

/** Straight into the tables, since MLflow would take minutes for what is only there to be searched. */
export function seedRuns({ name, database }: Server, count: number): void {
  const db = new DatabaseSync(database, { timeout: 20_000 })
  const id = (i: number) => i.toString(16).padStart(32, '0')
  db.exec('begin immediate')
  if (name === 'Plinth') {
    db.exec("insert into experiments values (1, 'default', 'ten thousand', 'mlflow-artifacts:/1', 1, 1, null)")
    const run = db.prepare(
      `insert into tracked_runs (number, id, experiment, name, status, "user", started, location) values (?, ?, 1, ?, 'succeeded', 'me', ?, 'mlflow-artifacts:/1')`,
    )
    const [param, tag] = ['params', 'tags'].map(table => db.prepare(`insert into ${table} values (?, ?, ?)`))
    const metric = db.prepare('insert into latest_metrics values (?, ?, 100, ?, ?, 0)')
    const keys = Array.from({ length: 10 }, (_, i) => numberOf(db, `metric_${i}`))
    const { base } = db.prepare('select coalesce(max(number), 0) as base from tracked_runs').get() as { base: number }
    for (let i = 1; i <= count; i++) {
      const number = base + i
      run.run(number, id(i), `run ${i}`, started(i))
      for (let key = 0; key < 10; key++) {
        param!.run(number, `param_${key}`, `value ${i * key}`)
        metric.run(number, keys[key]!, started(i), i / (key + 7))
      }
      for (let key = 0; key < 6; key++)
        tag!.run(number, key === 0 ? 'mlflow.runName' : `tag_${key}`, key === 0 ? `run ${i}` : `value ${i} ${key}`)
    }
  } else {
    db.exec(
      "insert into experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time) values (1, 'ten thousand', 'mlflow-artifacts:/1', 'active', 1, 1)",
    )
    const run = db.prepare(
      "insert into runs (run_uuid, name, source_type, user_id, status, start_time, lifecycle_stage, artifact_uri, experiment_id) values (?, ?, 'LOCAL', 'me', 'FINISHED', ?, 'active', 'mlflow-artifacts:/1', 1)",
    )
    const [param, tag] = ['params', 'tags'].map(table => db.prepare(`insert into ${table} (run_uuid, key, value) values (?, ?, ?)`))
    const metric = db.prepare('insert into latest_metrics (run_uuid, key, value, timestamp, step, is_nan) values (?, ?, ?, ?, 100, 0)')
    for (let i = 1; i <= count; i++) {
      run.run(id(i), `run ${i}`, started(i))
      for (let key = 0; key < 10; key++) {
        param!.run(id(i), `param_${key}`, `value ${i * key}`)
        metric.run(id(i), `metric_${key}`, i / (key + 7), started(i))
      }
      for (let key = 0; key < 6; key++)
        tag!.run(id(i), key === 0 ? 'mlflow.runName' : `tag_${key}`, key === 0 ? `run ${i}` : `value ${i} ${key}`)
    }
  }
  db.exec('commit')
  db.close()
}
/** Plinth's number for the name of a metric. */
function numberOf(db: DatabaseSync, key: string): number {
  db.prepare('insert into metric_keys (key) values (?) on conflict do nothing').run(key)
  return (db.prepare('select id from metric_keys where key = ?').get(key) as { id: number }).id
}
const started = (i: number) => 1_700_000_000_000 + i * 1000

/** One metric of many points, of the run with this id. Answers bytes that the database grew by. */
export function seedPoints({ name, database }: Server, run: string, points: number): number {
  const db = new DatabaseSync(database, { timeout: 20_000 })
  const bytes = () => {
    const { page_count } = db.prepare('pragma page_count').get() as { page_count: number }
    const { page_size } = db.prepare('pragma page_size').get() as { page_size: number }
    return page_count * page_size
  }
  const before = bytes()
  db.exec('begin immediate')
  if (name === 'Plinth') {
    const key = numberOf(db, 'long')
    const { number } = db.prepare('select number from tracked_runs where id = ?').get(run) as { number: number }
    const add = db.prepare('insert into metrics values (?, ?, ?, ?, ?, 0)')
    for (let i = 0; i < points; i++) add.run(number, key, i, started(i), value(i))
    db.prepare('insert into latest_metrics values (?, ?, ?, ?, ?, 0)').run(number, key, points - 1, started(points - 1), value(points - 1))
  } else {
    const add = db.prepare("insert into metrics (run_uuid, key, step, timestamp, value, is_nan) values (?, 'long', ?, ?, ?, 0)")
    for (let i = 0; i < points; i++) add.run(run, i, started(i), value(i))
    db.prepare("insert into latest_metrics (run_uuid, key, step, timestamp, value, is_nan) values (?, 'long', ?, ?, ?, 0)").run(
      ...[run, points - 1, started(points - 1), value(points - 1)],
    )
  }
  db.exec('commit')
  const grown = bytes() - before
  db.close()
  return grown
}
const value = (i: number) => Math.sin(i / 1000) + (i % 97) / 1000

export interface Filled {
  /** Bytes a point. */
  bytes: number
  experiment: string
  runs: string[]
}

/**
 * Points of many runs, ten metrics each, in Plinth's own table and in the order that runs side by side write them: a hundred steps of a
 * metric, then the next metric, then the next run, and again.
 */
export function fillPoints(database: string, { runs, perMetric }: { runs: number; perMetric: number }): Filled {
  const db = new DatabaseSync(database, { timeout: 20_000 })
  db.exec('pragma synchronous = off; pragma cache_size = -65536')
  const number = (text: string) => Number(Object.values(db.prepare(text).get() as object)[0])
  const experiment = number(
    "insert into experiments (project, name, location, created, updated) values ('default', 'many points', '', 1, 1) returning id",
  )
  const base = number('select coalesce(max(number), 0) from tracked_runs')
  const ids = Array.from({ length: runs }, (_, i) => `f${i.toString(16).padStart(31, '0')}`)
  const keys = Array.from({ length: 10 }, (_, i) => `metric_${i}`)
  db.exec('begin immediate')
  for (const [i, id] of ids.entries())
    db.prepare(
      `insert into tracked_runs (number, id, experiment, name, status, "user", started, location) values (?, ?, ?, ?, 'running', 'me', ?, '')`,
    ).run(base + 1 + i, id, experiment, `run ${i}`, started(i))
  const numbers = keys.map(key => numberOf(db, key))
  db.exec('commit')
  const firstKey = numbers[0]! // one after the other, since nobody else makes any meanwhile
  const before = number('pragma page_count')
  const fill = db.prepare(`
    with recursive numbers(n) as (select 0 union all select n + 1 from numbers where n + 1 < ${runs * 1000})
    insert into metrics select n / 1000 + ${base + 1}, n / 100 % 10 + ${firstKey}, ? * 100 + n % 100,
      1700000000000 + (? * 100 + n % 100) * 50, (n * 7919 % 100003) / 1e5, 0 from numbers`)
  for (let block = 0; block < perMetric / 100; block++) fill.run(block, block)
  const bytes = ((number('pragma page_count') - before) * number('pragma page_size')) / (runs * 10 * perMetric)
  db.exec(
    `insert into latest_metrics select run, key, step, timestamp, value, special from metrics where run > ${base} and step = ${perMetric - 1}`,
  )
  db.exec('pragma wal_checkpoint(truncate)')
  db.close()
  return { bytes, experiment: String(experiment), runs: ids }
}
