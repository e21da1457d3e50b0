/** Programs that jobs need or can use, with their versions, and what stands between a graphics card and the runtimes that are here. */
import { join } from 'node:path'
import { hasLibrary } from './packages.ts'
import { type Provenance, recorded, type System } from './system.ts'

export interface Tool {
  name: string
  /** Null: it is not there, or did not answer. */
  version: string | null
  /** What else has to be said: a service that does not run, a module that is missing. */
  problem: string | null
}

const questions = {
  python: ['python3', '--version'],
  uv: ['uv', '--version'],
  conda: ['conda', '--version'],
  mamba: ['mamba', '--version'],
  git: ['git', '--version'],
  docker: ['docker', 'version', '--format', '{{.Client.Version}} {{.Server.Version}}'],
  podman: ['podman', '--version'],
  apptainer: ['apptainer', '--version'],
} as const
export type ToolName = keyof typeof questions

export async function readTools(system: System): Promise<{ tools: Record<ToolName, Tool>; provenance: Provenance }> {
  const { system: noting, provenance } = recorded(system, { verified: true })
  const names = Object.keys(questions) as ToolName[]
  const found = await Promise.all(names.map(async name => [name, await ask(noting, name)] as const))
  return { tools: Object.fromEntries(found) as Record<ToolName, Tool>, provenance }
}

async function ask(system: System, name: ToolName): Promise<Tool> {
  const [command, ...args] = questions[name]
  const answer = await system.run(command, ...args)
  if (!answer) return { name, version: null, problem: null }
  if (answer.late) return { name, version: null, problem: `${command} does not answer in time` }
  const version = /\d+\.\d+(\.\d+)?\S*/.exec(`${answer.output} ${answer.errors}`)?.[0] ?? null
  if (name === 'docker' && answer.code !== 0) return { name, version: version ?? 'unknown', problem: dockerProblem(answer.errors) }
  if (answer.code !== 0) return { name, version: null, problem: `${command} fails` }
  if (name !== 'python') return { name, version, problem: null }
  // Debian splits venv off; without it no environment can be made
  const venv = await system.run(command, '-c', 'import venv, ensurepip')
  return { name, version, problem: venv?.code === 0 ? null : 'its module venv is missing' }
}

const dockerProblem = (words: string): string =>
  /permission denied/i.test(words) ? 'this user may not use it' : 'its service does not run'

// ── runtimes for graphics ───────────────────────────────────────────────────────────────────────────────────────────────────

export interface GraphicsRuntimes {
  /** The loader and at least one driver are there: WebGPU needs both. `software`: the driver computes on the processor. */
  vulkan: { loader: boolean; drivers: string[]; software: boolean }
  /** Of onnxruntime-node, beside its library. */
  cudaProvider: boolean
}

const driverFolders = ['/usr/share/vulkan/icd.d', '/usr/local/share/vulkan/icd.d', '/etc/vulkan/icd.d']

/** `runtime`: folder of the package onnxruntime-node; null: not known. */
export async function readGraphicsRuntimes(system: System, runtime: string | null): Promise<GraphicsRuntimes> {
  const drivers = (await Promise.all(driverFolders.map(folder => system.list(folder)))).flat().filter(name => name.endsWith('.json'))
  return {
    vulkan: {
      loader: await hasLibrary('libvulkan.so.1', system),
      drivers,
      software: drivers.length > 0 && drivers.every(name => /^(lvp|swrast|llvmpipe)/.test(name)),
    },
    cudaProvider: runtime !== null && (await cudaLibraries(system, runtime)),
  }
}

async function cudaLibraries(system: System, runtime: string): Promise<boolean> {
  for (const version of await system.list(join(runtime, 'bin'))) {
    const files = await system.list(join(runtime, 'bin', version, 'linux', process.arch))
    if (files.some(name => name.startsWith('libonnxruntime_providers_cuda'))) return true
  }
  return false
}
