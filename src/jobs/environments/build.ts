/**
 * The phase `environment` of an attempt: `node build.ts ATTEMPT_FOLDER`. Reads attempt.json, prepares what the script runs in, and writes
 * environment.json. What it and the installers have to say goes to standard output, the one message of a refusal to standard error.
 *
 * Exit codes: 0; 126 it cannot be prepared; 143 it was asked to end.
 */
import { readFile } from 'node:fs/promises'
import { enableCompileCache } from 'node:module'
import { join, resolve } from 'node:path'
import { cache } from '../../config.ts'

enableCompileCache(join(cache(), 'compiled'))
const { prepareAttempt } = await import('./prepare.ts')
const { Failure, forOthers } = await import('../../failure.ts')
const { storageFailure } = await import('../../storage/disk.ts')

const folder = resolve(process.argv[2] ?? '.')
const stopping = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => stopping.abort(new Stopped(signal)))

class Stopped extends Error {}

try {
  const secrets = await readFile(join(folder, 'secrets.json'), 'utf8').catch(() => '{}')
  await prepareAttempt(JSON.parse(await readFile(join(folder, 'attempt.json'), 'utf8')), {
    folder,
    secrets: JSON.parse(secrets),
    machine: process.env,
    print: line => process.stdout.write(`${line}\n`),
    signal: stopping.signal,
  })
} catch (error) {
  if (stopping.signal.aborted) process.exitCode = 143
  else {
    process.exitCode = 126
    process.stderr.write(`${shown(error)}\n`)
  }
}

/** It becomes the message of the attempt, which people elsewhere read: no path of this machine. */
function shown(error: unknown): string {
  if (process.env['PLINTH_DEBUG'] === '1') return String((error as Error).stack)
  const { code, path } = error as NodeJS.ErrnoException
  const refusedByDisk = !(error instanceof Failure) && /^(ENOSPC|EDQUOT|EROFS|EACCES|EPERM)$/.test(code ?? '')
  const failure = refusedByDisk ? storageFailure(error, path ?? 'the cache') : error
  if (failure instanceof Failure) {
    const told = forOthers(failure)
    return `${told.message}\n${told.next}`
  }
  return `The environment could not be prepared: ${String(error)}`
}
