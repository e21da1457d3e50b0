/** Each kind of database that is here, fresh and empty, for suites that all kinds must pass. */
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Db } from '../../src/db/open.ts'
import { openDatabase } from '../../src/db/open.ts'
import { postgres as postgresPrograms } from '../peers.ts'

export interface TestDatabase {
  kind: 'SQLite' | 'PostgreSQL'
  /** Why it cannot be used here, or null. */
  missing: string | null
  /** What `openDatabase` takes; a new database each time. */
  target(): Promise<string>
  open(): Promise<Db>
}

export function databases(): TestDatabase[] {
  return [sqlite(), postgres()]
}

function sqlite(): TestDatabase {
  const target = async () => join(mkdtempSync(join(tmpdir(), 'db-')), 'plinth.db')
  return { kind: 'SQLite', missing: null, target, open: async () => openDatabase(await target()) }
}

const bin = postgresPrograms()
export const postgresMissing = bin ? null : 'PostgreSQL is not installed (npm run peers)'

let server: Promise<PostgresServer> | null = null
function postgres(): TestDatabase {
  const target = async () => {
    server ??= startPostgres()
    return await newDatabase(await server)
  }
  return { kind: 'PostgreSQL', missing: postgresMissing, target, open: async () => openDatabase(await target()) }
}

/** postgres://… of a new, empty database. */
export async function newDatabase({ url }: PostgresServer): Promise<string> {
  const name = `t${randomBytes(6).toString('hex')}`
  const { default: pg } = await import('pg')
  const client = new pg.Client({ connectionString: `${url}/postgres` })
  await client.connect()
  await client.query(`create database ${name}`)
  await client.end()
  return `${url}/${name}`
}

export interface PostgresServer {
  /** Without a database. */
  url: string
  /** Ends every connection, as an administrator does who restarts it. */
  stop(): Promise<void>
  start(): Promise<void>
}

/** A server of this test process alone, in a folder of its own, gone with it. It refuses to be root, so root runs it as postgres. */
export async function startPostgres(): Promise<PostgresServer> {
  const folder = mkdtempSync(join('/tmp', 'pg-'))
  const root = process.getuid?.() === 0
  const as = (program: string, args: string[]): [string, string[]] =>
    root ? ['setpriv', ['--reuid=postgres', '--regid=postgres', '--clear-groups', program, ...args]] : [program, args]
  if (root) execFileSync('chown', ['postgres', folder])
  const data = join(folder, 'data')
  const [init, initArgs] = as(join(bin!, 'initdb'), ['-D', data, '-A', 'trust', '-U', 'plinth', '--no-sync', '-E', 'UTF8'])
  execFileSync(init, initArgs, { stdio: 'ignore', cwd: '/' })
  const port = await freePort()
  const settings = ['listen_addresses=127.0.0.1', 'fsync=off', 'shared_buffers=16MB'].flatMap(setting => ['-c', setting])
  const [run, runArgs] = as(join(bin!, 'postgres'), ['-D', data, '-p', String(port), '-k', folder, ...settings])
  let child: ReturnType<typeof launch> | null = null
  process.once('exit', () => {
    child?.kill('SIGQUIT')
    rmSync(folder, { recursive: true, force: true })
  })
  const self: PostgresServer = {
    url: `postgres://plinth@127.0.0.1:${port}`,
    async start() {
      child = launch(run, runArgs)
      await ready(child)
    },
    async stop() {
      const ended = once(child!, 'exit')
      child!.kill('SIGINT') // fast shutdown: connections are ended
      await ended
    },
  }
  await self.start()
  return self
}

const launch = (program: string, args: string[]) => spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], cwd: '/' })

async function ready(child: ReturnType<typeof launch>): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (said.includes('ready to accept connections')) resolve()
    })
    child.once('exit', code => reject(new Error(`postgres ended with ${code}: ${said}`)))
  })
  // it must not keep the test process alive
  child.unref()
  child.stderr.removeAllListeners('data')
  child.stderr.resume()
  ;(child.stderr as unknown as { unref(): void }).unref()
}

async function freePort(): Promise<number> {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as { port: number }
  listener.close()
  await once(listener, 'close')
  return port
}
