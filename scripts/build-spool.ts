/**
 * Builds the wheel of python/plinth-spool: `npm run build:spool`, or `node scripts/build-spool.ts FOLDER`. It needs a Python of 3.11 or
 * newer and nothing from any network: the wheel is written by python/plinth-spool/build_wheel.py, which pip calls too.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

if (import.meta.main) console.log(`Built ${buildSpool(resolve(process.argv[2] ?? join(root, 'dist')))}`)

/** Answers the path of the wheel. @throws when there is no Python that can build it. */
export function buildSpool(folder: string, python = process.env['PLINTH_PYTHON'] || 'python3'): string {
  mkdirSync(folder, { recursive: true })
  const built = spawnSync(python, ['build_wheel.py', folder], { cwd: join(root, 'python/plinth-spool'), encoding: 'utf8' })
  if (built.status !== 0) throw new Error(`The wheel cannot be built with ${python}: ${built.error?.message ?? built.stderr.trim()}`)
  return join(folder, built.stdout.trim())
}
