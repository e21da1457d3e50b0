/** Logs to a spool on a disk of its own until that is full, and goes on; its server keeps its home on a larger disk. */
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startControlPlane } from '../../src/control-plane.ts'
import { openHome } from '../../src/track/home.ts'
import { startRun } from '../../src/track/tracker.ts'
import type { SmallDisk } from './tracker-kills.test.ts'

const [point, home] = process.argv.slice(2) as [string, string]
const opened = await openHome(home)
const server = await startControlPlane(opened, { host: '127.0.0.1', port: 0 })
let warnings = 0
const write = process.stderr.write.bind(process.stderr)
process.stderr.write = ((text: string) => {
  if (text.includes('cannot be written')) warnings++
  return write(text)
}) as typeof process.stderr.write

const started = performance.now()
const run = await startRun({ directory: point, url: server.url, token: server.token })
// all but 100 KB is taken by somebody else
writeFileSync(join(point, 'others'), Buffer.alloc(4 * 2 ** 20 - 100 * 1024 - 64 * 1024))
let refusedAt = 0
let logged = 0
const file = join(point, 'spool', `${run.id}.jsonl`)
for (; logged < 20_000; logged++) {
  const before = existsSync(file) ? statSync(file).size : 0
  run.metric('loss', 1 / (logged + 1), { step: logged, time: 1_000_000 + logged })
  if (refusedAt === 0 && existsSync(file) && statSync(file).size === before) refusedAt = logged
  // what is in memory only is on its way to the server meanwhile
  if (logged % 500 === 499) await run.flush()
}
await run.end('succeeded', { wait: 20_000 })
const answer: SmallDisk = { run: run.id, home, logged, refusedAt, milliseconds: performance.now() - started, warnings }
await server.close()
await opened.close()
console.log(JSON.stringify(answer))
