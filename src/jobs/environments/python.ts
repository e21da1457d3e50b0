/** The environment of a job in Python: from a file of requirements, a project, a lock, a conda file, or the interpreter as it is. */
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import { makeFolder, writeFileAtomic } from '../../storage/disk.ts'
import type { PreparedEnvironment } from '../attempt.ts'
import { findInterpreter, type Interpreter } from './interpreters.ts'
import { type Layer, makeOverlay } from './overlay.ts'
import { packagesIn } from './packages.ts'
import { unpackedPip } from './pip.ts'
import type { EnvironmentRequest, PythonRuntime } from './request.ts'
import { requiredPackages, toolOptions } from './required.ts'
import { invalid, readRequirements } from './requirements.ts'
import type { Obtained } from './store.ts'

interface Found {
  interpreter: Interpreter
  layer: Layer
  /** Null: nothing was built. */
  shared: Obtained | null
  envs?: Record<string, string>
  path?: readonly string[]
}

/** @throws interpreter_missing, environment_file_missing, environment_file_invalid, environment_unsatisfiable, environment_tool_missing … */
export async function preparePython(request: EnvironmentRequest, runtime: PythonRuntime): Promise<PreparedEnvironment> {
  const began = performance.now()
  const { interpreter, layer, shared, envs = {}, path = [] } = await find(request, runtime)
  const layers = [layer, ...(await request.moreLayers(interpreter, layer))]
  const pip = await unpackedPip(interpreter, toolOptions(request, {}, '/')).catch(() => null) // without it pip is missing in the job, no more
  const venv = join(request.folder, 'venv')
  const packages = await packagesIn(layer.sites)
  await keepList(request.folder, shared?.resolved ?? packages.map(line => `${line}\n`).join(''))
  const bin = await makeOverlay({ folder: venv, base: interpreter, layers, pip, hook: request.hook, programs: request.programs })
  return {
    kind: 'python',
    key: shared?.key ?? null,
    envs: { VIRTUAL_ENV: venv, ...envs },
    path: [bin, ...path],
    interpreter: interpreter.base,
    version: interpreter.version,
    packages,
    seconds: Math.round(performance.now() - began) / 1000,
    reused: shared?.reused ?? false,
  }
}

/** Goes into the record of the run (capture.ts): with it and the same index the packages can be had again. */
async function keepList(folder: string, list: string): Promise<void> {
  await writeFileAtomic(join(await makeFolder(folder, 'capture'), 'packages.txt'), list)
}

async function find(request: EnvironmentRequest, runtime: PythonRuntime): Promise<Found> {
  const { requirements, lock, project, conda } = runtime
  // loaded when they are wanted: this phase is waited for by every job
  if (conda !== null) return await (await import('./conda.ts')).condaEnvironment(request, conda)
  if (lock !== null && basename(lock) === 'uv.lock')
    return await (await import('./project.ts')).lockedProject(request, runtime.python, lock)
  if (project !== null) return await (await import('./project.ts')).projectDependencies(request, runtime.python, project)
  const interpreter = await findInterpreter(runtime.python, request.machine)
  const file = requirements ?? lock
  if (file === null) {
    request.say(`Python ${interpreter.version} as it is${interpreter.virtual ? ', in the virtual environment that is active' : ''}`)
    return { interpreter, layer: { sites: interpreter.sites, scripts: interpreter.virtual ? interpreter.scripts : null }, shared: null }
  }
  if (/\.(toml|json|ya?ml)$/i.test(file))
    throw invalid(file, 'it is no list of requirements', 'Locks that are read: uv.lock, and requirement files with versions or hashes.')
  const { root, path } = folderOf(request.workdir, file)
  const asked = await readRequirements(relative(root, path), { root, envs: request.envs, secrets: request.secrets })
  return await requiredPackages(request, { file, interpreter, requirements: asked })
}

/** What a file may bring along lies below the job's folder; a file that was named from elsewhere brings its own folder. */
function folderOf(workdir: string, file: string): { root: string; path: string } {
  const path = resolve(workdir, file)
  return { path, root: path.startsWith(workdir + sep) ? workdir : dirname(path) }
}
