/** Each kind of database that is here, fresh and empty, for suites that all kinds must pass. */
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, globSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Db } from '../../src/db/open.ts'
import { openDatabase } from '../../src/db/open.ts'

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

let server: Promise<string> | null = null
function postgres(): TestDatabase {
  const bin = globSync('/usr/lib/postgresql/*/bin').toSorted().at(-1)
  const target = async () => {
    const name = `t${randomBytes(6).toString('hex')}`
    server ??= startPostgres(bin!)
    const url = await server
    const { default: pg } = await import('pg')
    const client = new pg.Client({ connectionString: `${url}/postgres` })
    await client.connect()
    await client.query(`create database ${name}`)
    await client.end()
    return `${url}/${name}`
  }
  const missing = bin && existsSync(join(bin, 'initdb')) ? null : 'PostgreSQL is not installed (npm run peers)'
  return { kind: 'PostgreSQL', missing, target, open: async () => openDatabase(await target()) }
}

/** A server of this test process alone, in a folder of its own, gone with it. It refuses to be root, so root runs it as postgres. */
async function startPostgres(bin: string): Promise<string> {
  const folder = mkdtempSync(join('/tmp', 'pg-'))
  const root = process.getuid?.() === 0
  const as = (program: string, args: string[]): [string, string[]] =>
    root ? ['setpriv', ['--reuid=postgres', '--regid=postgres', '--clear-groups', program, ...args]] : [program, args]
  if (root) execFileSync('chown', ['postgres', folder])
  const data = join(folder, 'data')
  const [init, initArgs] = as(join(bin, 'initdb'), ['-D', data, '-A', 'trust', '-U', 'plinth', '--no-sync', '-E', 'UTF8'])
  execFileSync(init, initArgs, { stdio: 'ignore', cwd: '/' })
  const port = 20_000 + (process.pid % 40_000)
  const [run, runArgs] = as(join(bin, 'postgres'), [
    '-D',
    data,
    '-p',
    String(port),
    '-k',
    folder,
    '-c',
    'listen_addresses=127.0.0.1',
    '-c',
    'fsync=off',
  ])
  const child = spawn(run, runArgs, { stdio: ['ignore', 'ignore', 'pipe'], cwd: '/' })
  process.once('exit', () => {
    child.kill('SIGQUIT')
    rmSync(folder, { recursive: true, force: true })
  })
  await new Promise<void>((resolve, reject) => {
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (said.includes('ready to accept connections')) resolve()
    })
    child.once('exit', code => reject(new Error(`postgres ended with ${code}: ${said}`)))
  })
  child.unref()
  child.stderr.removeAllListeners('data')
  child.stderr.resume()
  ;(child.stderr as unknown as { unref(): void }).unref()
  return `postgres://plinth@127.0.0.1:${port}`
}
