/** From an attempt to the environment that its script runs in. */
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { driverVersion } from '../../hardware/inventory/nvidia.ts'
import { readText } from '../../hardware/limits.ts'
import { writeFileAtomic } from '../../storage/disk.ts'
import { Attempt, type PreparedEnvironment } from '../attempt.ts'
import { copyHook, hookVariables } from './hook.ts'
import { notebookProgram } from './notebook-command.ts'
import { preparePython } from './python.ts'
import type { EnvironmentRequest } from './request.ts'
import type { Variables } from './settings.ts'

export interface PrepareOptions {
  /** The attempt's. */
  folder: string
  secrets: unknown
  machine: Variables
  print(line: string): void
  signal: AbortSignal
}

/** Writes environment.json and answers what stands in it. */
export async function prepareAttempt(
  given: unknown,
  { folder, secrets, machine, print, signal }: PrepareOptions,
): Promise<PreparedEnvironment> {
  const { spec, allocation, envs } = Attempt.parse(given)
  const workdir = spec.workdir ?? join(folder, 'work')
  await mkdir(workdir, { recursive: true })
  const notebook = spec.notebook === null ? null : await import('./notebook.ts')
  await notebook?.checkNotebook(workdir, spec.notebook!)
  const tracked = envs['MLFLOW_RUN_ID'] !== undefined
  const hook = tracked || spec.autolog || spec.notebook !== null ? await copyHook(folder) : null
  const request: EnvironmentRequest = {
    folder,
    workdir,
    machine,
    envs: spec.envs,
    secrets: z.record(z.string(), z.string()).parse(secrets),
    devices: allocation.nodes.flatMap(({ devices }) => devices),
    driver: driverVersion(readText('/proc/driver/nvidia/version')),
    lease: folder,
    hook: tracked || spec.autolog ? hook : null,
    programs: spec.notebook === null ? {} : { [notebookProgram]: join(hook!, 'run_notebook.py') },
    moreLayers: (interpreter, layer) => notebook?.notebookLayers(request, interpreter, layer) ?? Promise.resolve([]),
    say: print,
    print,
    signal,
  }
  await rm(join(folder, 'venv'), { recursive: true, force: true }) // of a phase that was killed and is done again
  const prepared = await prepare(request, spec.runtime)
  const autolog = spec.autolog
    ? { PLINTH_AUTOLOG: '1', ...(prepared.kind !== 'python' && hookVariables(hook!, { ...machine, ...spec.envs })) }
    : {}
  const whole = { ...prepared, envs: { ...prepared.envs, ...autolog } }
  await writeFileAtomic(join(folder, 'environment.json'), `${JSON.stringify(whole, null, 2)}\n`)
  return whole
}

async function prepare(request: EnvironmentRequest, runtime: Attempt['spec']['runtime']): Promise<PreparedEnvironment> {
  switch (runtime.kind) {
    case 'python':
      return await preparePython(request, runtime)
    case 'node':
      return await (await import('./node.ts')).prepareNode(request)
    case 'none':
      return { kind: 'none', key: null, envs: {}, path: [], interpreter: null, version: null, packages: [], seconds: 0, reused: false }
  }
}
