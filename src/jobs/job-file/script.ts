/** What `plinth run X` runs when X is no job file: a script by its suffix, a notebook, or a command as it stands. */
import { existsSync, statSync } from 'node:fs'
import { basename, extname } from 'node:path'
import { Failure } from '../../failure.ts'
import { notebookCommand } from '../environments/notebook-command.ts'
import { type JobSpec, plainSpec, type Runtime } from '../spec.ts'

export interface ScriptOptions {
  /** Where the command runs; the script's path is relative to it. */
  workdir: string
  /** The file of the environment: requirements.txt, uv.lock, pyproject.toml, environment.yml. */
  env?: string | undefined
}

/** throws job_target_not_found */
export function specOfCommand(words: readonly string[], { workdir, env }: ScriptOptions): JobSpec {
  const [target = '', ...rest] = words
  const isFile = existsSync(target) && statSync(target).isFile()
  const suffix = isFile ? extname(target).slice(1).toLowerCase() : ''
  if (!isFile && /[/.]\w*$/.test(target) && /\.(py|ipynb|js|mjs|ts|sh|ya?ml)$/i.test(target))
    throw new Failure('job_target_not_found', { target })
  const python = { ...noEnvironment, ...(env && environmentOf(env)) }
  const name = basename(target)
  if (suffix === 'py') return plainSpec(name, { argv: ['python', target, ...rest] }, { workdir, runtime: python })
  if (suffix === 'ipynb') return plainSpec(name, { argv: notebookCommand(target, rest) }, { workdir, runtime: python, notebook: target })
  if (suffix === 'js' || suffix === 'mjs' || suffix === 'ts')
    return plainSpec(name, { argv: ['node', target, ...rest] }, { workdir, runtime: { kind: 'node' } })
  if (suffix === 'sh') return plainSpec(name, { argv: ['bash', target, ...rest] }, { workdir, ...(env && { runtime: python }) })
  return plainSpec(name, { argv: [...words] }, { workdir, ...(env && { runtime: python }) })
}

/** A runtime of Python as it stands; of anything else, Python without an environment. */
export const pythonOf = (runtime: Runtime): PythonRuntime => (runtime.kind === 'python' ? runtime : noEnvironment)

type PythonRuntime = Extract<Runtime, { kind: 'python' }>
const noEnvironment = { kind: 'python', requirements: null, lock: null, project: null, conda: null, python: null } as const

/** By the file's name, as their tools call them. throws job_environment_file */
export function environmentOf(file: string): Partial<PythonRuntime> {
  if (!existsSync(file)) throw new Failure('job_environment_file', { file, problem: 'it is not there' })
  const name = basename(file).toLowerCase()
  if (name === 'pyproject.toml') return { project: file }
  if (name.endsWith('.lock')) return { lock: file }
  if (/\.ya?ml$/.test(name)) return { conda: file }
  if (name.endsWith('.txt') || name.endsWith('.in')) return { requirements: file }
  throw new Failure('job_environment_file', { file, problem: 'it is none of requirements.txt, pyproject.toml, uv.lock, environment.yml' })
}
