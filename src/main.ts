#!/usr/bin/env node
// Nothing is imported above this check: an older Node must get as far as saying that it is too old.
const needed = 24
if (Number(process.versions.node.split('.')[0]) < needed) {
  const { Failure } = await import('./failure.ts')
  const failure = new Failure('node_too_old', { found: process.versions.node, needed })
  if (process.argv.includes('--json')) console.log(JSON.stringify({ error: failure }))
  else console.error(`Error: ${failure.message}\n${failure.next}`)
  process.exit(1)
}

// libuv decodes pictures in four threads, however many cores there are, unless told before its first work
const cores = (await import('node:os')).availableParallelism()
if (cores > 4) process.env['UV_THREADPOOL_SIZE'] ??= String(Math.min(cores, 128))

// what was read and compiled once need not be again: a third of the time of a start
const { enableCompileCache } = await import('node:module')
const { cache } = await import('./config.ts')
enableCompileCache(`${cache()}/compiled`)

// a server keeps for its whole life what memory its start took for a moment (some 20 MB), unless the young generation stays small meanwhile;
// cli/up.ts lets it grow again
if (process.argv[2] === 'up') (await import('node:v8')).setFlagsFromString('--semi-space-growth-factor=1')

// node:sqlite announces itself as experimental on every start; that is our choice to have made, not the user's to read
if (process.env['PLINTH_DEBUG'] !== '1') {
  process.removeAllListeners('warning')
  process.on('warning', warning => {
    if (warning.name !== 'ExperimentalWarning') console.error(`${warning.name}: ${warning.message}`)
  })
}

const { dispatch } = await import('./cli/dispatch.ts')
const code = await dispatch(process.argv.slice(2))
// leave when everything is written; a handle that a library forgot must not keep the prompt away
process.stdout.write('', () => process.exit(code))
