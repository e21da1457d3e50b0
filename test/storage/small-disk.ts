/** A disk of a few megabytes for one test: a tmpfs in a mount namespace of its own, which ends with the process that it is for. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

const namespace = process.getuid?.() === 0 ? ['-m'] : ['-rm']

/**
 * Runs the module `program` with the mount point as its argument; what it prints last is JSON, and is the answer. It may remount
 * with `mount -o remount,ro`. Skips the test and answers null where such namespaces are not allowed.
 */
export async function onSmallDisk<T>(t: TestContext, program: URL, args: readonly string[] = [], size = '4m'): Promise<T | null> {
  const allowed = spawnSync('unshare', [...namespace, 'sh', '-c', 'mount -t tmpfs tmpfs /tmp'])
  if (allowed.status !== 0) {
    t.skip(`private mounts are not allowed here: ${allowed.error?.message ?? String(allowed.stderr).trim()}`)
    return null
  }
  const point = mkdtempSync(join(tmpdir(), 'plinth-disk-'))
  t.after(() => rmSync(point, { recursive: true }))
  const script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
  const command = [process.execPath, fileURLToPath(program), point, ...args]
  const child = spawn('unshare', [...namespace, 'sh', '-c', script, 'sh', size, point, ...command], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let printed = ''
  child.stdout.on('data', chunk => {
    printed += chunk
  })
  const code = await new Promise<number | null>(resolve => child.on('close', resolve))
  if (code !== 0) throw new Error(`the program on the small disk ended with ${code}: ${printed}`)
  return JSON.parse(printed.trim().split('\n').at(-1)!) as T
}
