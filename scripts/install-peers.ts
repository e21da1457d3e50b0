/**
 * Installs the programs that some tests compare Plinth with: PyTorch, MLflow and friends in a Python environment of their own under
 * $PLINTH_CACHE, Chromium, Fashion-MNIST and PostgreSQL from Debian (its programs only: tests start servers of their own). Nothing of it
 * is needed to use Plinth. What cannot be installed is a warning: the tests that want it skip and say so. A second call finds everything
 * in place and does nothing.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium, fashionMnist, peersFolder, postgres, python } from '../test/peers.ts'

const lock = fileURLToPath(new URL('../test/peers.lock.txt', import.meta.url))
const packages = [
  ...(chromium() ? [] : ['chromium']),
  ...(fashionMnist() ? [] : ['dataset-fashion-mnist']),
  ...(postgres() ? [] : ['postgresql']),
]
const missing = [...installFromDebian(packages), ...installPython()]
if (missing.length) {
  const frame = process.env['CI'] ? '!'.repeat(80) : ''
  console.error(
    `${frame}\nNot every peer is here, so some tests will be skipped:\n${missing.map(line => `  ${line}`).join('\n')}\n${frame}`.trim(),
  )
} else console.log('All peers are in place.')

/** Answers what is still missing, in words. */
function installFromDebian(packages: readonly string[]): string[] {
  if (!packages.length) return []
  const command = `apt-get install -y --no-install-recommends ${packages.join(' ')}`
  if (!existsSync('/etc/debian_version')) return [`${packages.join(' and ')}: Debian packages; this is no Debian`]
  if (process.getuid?.() !== 0) return [`${packages.join(' and ')}: run as root: ${command}`]
  const environment = { DEBIAN_FRONTEND: 'noninteractive' }
  run('apt-get', ['update', '-q'], environment)
  if (packages.includes('postgresql')) withoutCluster()
  // one at a time: one that is not to be had must not keep the other away
  return packages.flatMap(name => {
    const result = run(
      'apt-get',
      ['install', '-y', '-q', '--no-install-recommends', '-o', 'Dpkg::Options::=--force-confold', name],
      environment,
    )
    return result.status === 0 ? [] : [`${name}: ${lastLine(result)}`]
  })
}

/** Debian's package would otherwise make a database cluster and start a server for the whole machine. */
function withoutCluster(): void {
  const file = '/etc/postgresql-common/createcluster.conf'
  if (existsSync(file)) return
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, 'create_main_cluster = false\n')
}

function installPython(): string[] {
  if (python()) return []
  const folder = peersFolder()
  const part = `${folder}.part-${process.pid}`
  mkdirSync(dirname(folder), { recursive: true })
  try {
    let venv = run('python3', ['-m', 'venv', part])
    if (venv.status !== 0 && process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
      rmSync(part, { recursive: true, force: true })
      run('apt-get', ['install', '-y', '-q', 'python3-venv'], { DEBIAN_FRONTEND: 'noninteractive' })
      venv = run('python3', ['-m', 'venv', part])
    }
    if (venv.status !== 0) return [`PyTorch: no Python environment could be made: ${lastLine(venv)}`]
    const interpreter = join(part, 'bin', 'python')
    const pip = run(interpreter, ['-m', 'pip', 'install', '--quiet', '--only-binary', ':all:', '--requirement', lock])
    if (pip.status !== 0) return [`PyTorch: pip failed: ${lastLine(pip)}`]
    const check = run(interpreter, [
      '-c',
      'import torch, torchvision, onnxruntime, mlflow, schemathesis; print("PyTorch", torch.__version__)',
    ])
    if (check.status !== 0) return [`PyTorch: installed, but does not load: ${lastLine(check)}`]
    // tests look for the folder by its name only: it has that name when it is whole. (bin/python bears the move; bin/pip does not.)
    if (!existsSync(folder)) renameSync(part, folder)
    return []
  } finally {
    rmSync(part, { recursive: true, force: true })
  }
}

function run(command: string, words: readonly string[], environment: Record<string, string> = {}): SpawnSyncReturns<string> {
  console.log(`$ ${command} ${words.join(' ')}`)
  return spawnSync(command, words, { env: { ...process.env, ...environment }, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] })
}

function lastLine({ stderr, error }: SpawnSyncReturns<string>): string {
  return error?.message ?? stderr?.trim().split('\n').at(-1) ?? 'no reason given'
}
