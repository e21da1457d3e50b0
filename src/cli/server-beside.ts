/** A job that goes on without its command needs somebody who keeps the home: the server that is there, else one in the background. */
import { spawn } from 'node:child_process'
import { mkdirSync, openSync } from 'node:fs'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { home as homePath, serverUrl } from '../config.ts'
import { keeperAt } from '../control-plane.ts'
import { Failure } from '../failure.ts'

/** throws server_not_started */
export async function startServerBeside(say: (text: string) => void): Promise<void> {
  if (serverUrl() !== undefined || (await keeperAt(homePath()))?.url) return
  const home = homePath()
  mkdirSync(home, { recursive: true, mode: 0o700 })
  const log = join(home, 'up.log')
  const errors = openSync(log, 'a', 0o600)
  const main = fileURLToPath(new URL(`../main${extname(import.meta.url)}`, import.meta.url))
  const child = spawn(process.execPath, [main, 'up', '--port', '0', '--log-file', log], {
    detached: true,
    stdio: ['ignore', 'ignore', errors],
  })
  child.unref()
  const ended = new Promise<never>((_, reject) => child.once('exit', () => reject(new Failure('server_not_started', { log: 'up.log' }))))
  ended.catch(() => {})
  for (const started = Date.now(); Date.now() - started < 20_000; ) {
    const keeper = await keeperAt(home)
    if (keeper?.url) {
      say(`plinth up runs in the background at ${keeper.url} (process ${keeper.worker.pid}); its log is up.log in the home.`)
      return
    }
    await Promise.race([ended, new Promise(done => setTimeout(done, 50))])
  }
  throw new Failure('server_not_started', { log: 'up.log' })
}
