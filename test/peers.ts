/** Heavier programs and data that tests use where they are installed: `npm run peers` installs them; a test that misses one skips and says so. */
import { createHash } from 'node:crypto'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { cache } from '../src/config.ts'

/** The Python of the virtual environment that `scripts/install-peers.ts` makes, named after the lock file; null where there is none. */
export function python(): string | null {
  const named = process.env['PLINTH_PYTHON']
  if (named) return existsSync(named) ? named : null
  const path = join(peersFolder(), 'bin', 'python')
  return existsSync(path) ? path : null
}

export function peersFolder(): string {
  const lock = readFileSync(new URL('./peers.lock.txt', import.meta.url))
  return join(cache(), 'peers', createHash('sha256').update(lock).digest('hex').slice(0, 16))
}

/** A Chromium or Chrome of the system; null where there is none. */
export function chromium(): string | null {
  const candidates = [process.env['PLINTH_CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
  return candidates.find(path => path && existsSync(path)) ?? null
}

/** The folder of Debian's dataset-fashion-mnist (four .gz files); null where it is not installed. */
export function fashionMnist(): string | null {
  const folder = '/usr/share/datasets/fashion-mnist'
  return existsSync(folder) ? folder : null
}

/** The folder of PostgreSQL's programs (initdb, postgres), the newest; null where it is not installed. */
export function postgres(): string | null {
  const bin = globSync('/usr/lib/postgresql/*/bin').toSorted().at(-1)
  return bin && existsSync(join(bin, 'initdb')) ? bin : null
}
