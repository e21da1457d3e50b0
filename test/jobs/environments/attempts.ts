/** For the tests of environments: attempts in a place of their own, prepared as the shim does it, and tiny packages to install from a folder. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { writeZip } from '../../../scripts/write-zip.ts'
import type { Allocation, PreparedEnvironment } from '../../../src/jobs/attempt.ts'
import type { EnvironmentRequest } from '../../../src/jobs/environments/request.ts'
import { type JobSpec, plainSpec, type Runtime } from '../../../src/jobs/spec.ts'

export const long = process.env['PLINTH_TEST'] === 'long'

/** The program itself, not a script of pyenv in front of it, which takes a quarter of a second; null: there is none that can make environments. */
export const python3: string | null = findPython()
function findPython(): string | null {
  const { status, stdout } = spawnSync('python3', ['-c', 'import venv, ensurepip, sys; print(sys._base_executable)'], { encoding: 'utf8' })
  return status === 0 ? realpathSync(stdout.trim()) : null
}
export const noPython = 'python3 with venv and ensurepip is not installed'

const buildPhase = fileURLToPath(new URL('../../../src/jobs/environments/build.ts', import.meta.url))

export interface Place {
  folder: string
  cache: string
  /** Where jobs run. */
  work: string
  /** Packages that pip finds, and nothing else. */
  wheels: string
  variables: Record<string, string>
  write(path: string, text: string): void
  prepare(wanted?: Wanted): Promise<Prepared>
  /** For functions that are called in this process; `said` gathers what Plinth says. */
  request(said?: string[], more?: Partial<EnvironmentRequest>): EnvironmentRequest
  /** Starts it and does not wait. */
  begin(wanted?: Wanted): { child: ChildProcess; ended: Promise<Prepared>; said(text: string): Promise<void> }
}

export interface Wanted {
  spec?: Partial<JobSpec>
  runtime?: Partial<Extract<Runtime, { kind: 'python' }>> | { kind: 'node' | 'none' }
  variables?: Record<string, string | undefined>
  secrets?: Record<string, string>
  /** Of the attempt, as the controller sets them. */
  envs?: Record<string, string>
  devices?: Allocation['nodes'][number]['devices']
}

export interface Prepared {
  code: number | null
  out: string
  err: string
  /** Of the attempt. */
  folder: string
  /** Throws where there is none. */
  environment: PreparedEnvironment
  /** In the environment: standard output, or a thrown error with what went wrong. */
  run(words: readonly string[], variables?: Record<string, string>): string
  try(words: readonly string[], variables?: Record<string, string>): { code: number | null; out: string; err: string }
}

/** pip, unpacked once for all places of a test file: a second of computing. */
const tools = mkdtempSync(join(tmpdir(), 'tools-'))

export function makePlace(): Place {
  const folder = mkdtempSync(join(tmpdir(), 'environments-'))
  const [work, wheels, cache, bin] = ['work', 'wheels', 'cache', 'bin'].map(name => join(folder, name)) as [string, string, string, string]
  for (const each of [work, wheels, bin, cache]) mkdirSync(each)
  symlinkSync(tools, join(cache, 'tools'))
  if (python3) symlinkSync(python3, join(bin, 'python3'))
  const variables = {
    ...{ PATH: `${bin}:${dirname(process.execPath)}:/usr/bin:/bin`, HOME: folder, LANG: 'C.UTF-8', PLINTH_CACHE: cache },
    ...{ PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels },
  }
  let number = 0
  const place: Place = {
    ...{ folder, cache, work, wheels, variables },
    write: (path, text) => {
      mkdirSync(dirname(join(work, path)), { recursive: true })
      writeFileSync(join(work, path), text)
    },
    prepare: wanted => place.begin(wanted).ended,
    request: (said = [], more = {}) => ({
      ...{ folder, workdir: work, envs: {}, secrets: {}, devices: [], driver: null, lease: null, hook: null, programs: {} },
      machine: variables,
      moreLayers: async () => [],
      say: line => said.push(line),
      print: () => {},
      signal: new AbortController().signal,
      ...more,
    }),
    begin(wanted = {}) {
      const attempt = join(folder, 'attempts', String(++number))
      mkdirSync(attempt, { recursive: true })
      const spec = plainSpec('job', { argv: ['python', 'train.py'] }, { workdir: work, ...wanted.spec, runtime: runtimeOf(wanted.runtime) })
      const node = { node: 'here', cpus: 1, memory: 0, devices: wanted.devices ?? [] }
      const whole = {
        job: number,
        attempt: 1,
        cookie: 'c',
        project: 'default',
        spec,
        allocation: { nodes: [node] },
        envs: wanted.envs ?? {},
      }
      writeFileSync(join(attempt, 'attempt.json'), JSON.stringify(whole))
      if (wanted.secrets) writeFileSync(join(attempt, 'secrets.json'), JSON.stringify(wanted.secrets), { mode: 0o600 })
      const env = Object.fromEntries(Object.entries({ ...variables, ...wanted.variables }).filter(([, value]) => value !== undefined))
      const child = spawn(process.execPath, [buildPhase, attempt], { cwd: work, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
      let [out, err] = ['', '']
      const waiting: { text: string; done: () => void }[] = []
      child.stdout!.setEncoding('utf8').on('data', (text: string) => {
        out += text
        for (const each of waiting) if (out.includes(each.text)) each.done()
      })
      child.stderr!.setEncoding('utf8').on('data', (text: string) => (err += text))
      const ended = new Promise<Prepared>(done => child.on('close', code => done(preparedOf(attempt, code, out, err))))
      const said = (text: string) =>
        Promise.race([
          new Promise<void>(done => (out.includes(text) ? done() : waiting.push({ text, done }))),
          ended.then(({ out, err }) => {
            if (!out.includes(text)) throw new Error(`It never said "${text}":\n${out}${err}`)
          }),
        ])
      return { child, ended, said }
    },
  }
  return place

  function preparedOf(attempt: string, code: number | null, out: string, err: string): Prepared {
    const file = join(attempt, 'environment.json')
    const read = (): PreparedEnvironment => {
      if (!existsSync(file)) throw new Error(`Nothing was prepared (${code}):\n${out}${err}`)
      return JSON.parse(readFileSync(file, 'utf8')) as PreparedEnvironment
    }
    const tryIt = (words: readonly string[], more: Record<string, string> = {}) => {
      const { envs, path } = read()
      const PATH = [...path, variables.PATH].join(':')
      const env = { PATH, HOME: folder, LANG: 'C.UTF-8', PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels, ...envs, ...more }
      // the shell looks the program up in that PATH; spawn would in ours
      const done = spawnSync('/bin/sh', ['-c', 'exec "$0" "$@"', ...words], { cwd: work, env, encoding: 'utf8' })
      return { code: done.status, out: done.stdout, err: done.stderr }
    }
    return {
      ...{ code, out, err, folder: attempt },
      get environment() {
        return read()
      },
      try: tryIt,
      run(words, more) {
        const done = tryIt(words, more)
        if (done.code !== 0) throw new Error(`${words.join(' ')} ended with ${done.code}:\n${done.out}${done.err}`)
        return done.out.trim()
      },
    }
  }
}

function runtimeOf(wanted: Wanted['runtime'] = {}): Runtime {
  if ('kind' in wanted && wanted.kind !== 'python') return { kind: wanted.kind as 'node' | 'none' }
  return { ...{ kind: 'python', requirements: null, lock: null, project: null, conda: null, python: null }, ...wanted } as Runtime
}

export interface WheelOptions {
  /** `name>=1` */
  requires?: readonly string[]
  /** Console scripts: name to module:function. */
  scripts?: Record<string, string>
  /** Text of the module that has the name of the package. */
  module?: string
}

/** A package of one module; answers the path of its wheel. */
export function makeWheel(
  folder: string,
  name: string,
  version: string,
  { requires = [], scripts = {}, module }: WheelOptions = {},
): string {
  const info = `${name}-${version}.dist-info`
  const files: Record<string, string> = {
    [`${name}.py`]: module ?? `version = '${version}'\ndef main():\n    print('${name} ${version}')\n`,
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n${requires.map(each => `Requires-Dist: ${each}\n`).join('')}`,
    [`${info}/WHEEL`]: 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    ...(Object.keys(scripts).length > 0 && {
      [`${info}/entry_points.txt`]: `[console_scripts]\n${Object.entries(scripts)
        .map(([script, target]) => `${script} = ${target}\n`)
        .join('')}`,
    }),
  }
  const rows = Object.entries(files).map(([path, text]) => {
    const hash = createHash('sha256').update(text).digest('base64url')
    return `${path},sha256=${hash},${Buffer.byteLength(text)}`
  })
  files[`${info}/RECORD`] = `${[...rows, `${info}/RECORD,,`].join('\n')}\n`
  const path = join(folder, `${name}-${version}-py3-none-any.whl`)
  writeFileSync(path, writeZip(Object.entries(files).map(([entry, text]) => ({ name: entry, data: Buffer.from(text) }))))
  return path
}
