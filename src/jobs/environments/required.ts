/** The shared environment with the packages of a file: its content address, the installer, the build of PyTorch. */
import { mkdir, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Failure } from '../../failure.ts'
import type { Interpreter } from './interpreters.ts'
import { type Layer, sitePath } from './overlay.ts'
import { buildWithPip } from './pip.ts'
import type { EnvironmentRequest, Wish } from './request.ts'
import { forPip, forUv, type PackageSettings, packageSettings, uvOptions } from './settings.ts'
import { type Obtained, obtain, type Recipe } from './store.ts'
import { runTool, type ToolOptions } from './tool.ts'
import { acceleratorTag, indexProblem, torchBuild, torchIndex, wantsTorch } from './torch.ts'
import { buildWithUv } from './uv.ts'

export interface BuiltEnvironment {
  interpreter: Interpreter
  layer: Layer
  shared: Obtained
}

/** The shared environment with these packages, as a layer. */
export async function requiredPackages(request: EnvironmentRequest, wish: Wish): Promise<BuiltEnvironment> {
  const { interpreter, requirements, file } = wish
  const { say, machine, envs, secrets } = request
  for (const notice of requirements.notices) say(notice)
  const settings = await packageSettings({ machine, envs, secrets, asked: requirements })
  const torch = await torchFor(request, wish, settings)
  const recipe: Recipe = {
    content: [
      // what the first is called, comments and blank lines do not matter
      ...requirements.files.map(({ path, text }, i) => [i === 0 ? 'file' : `file ${path}`, linesOf(text)] as const),
      ...requirements.artifacts.map(({ path, sha256 }) => ['artifact', `${basename(path)} ${sha256}`] as const),
      [
        'options',
        JSON.stringify([
          requirements.pre,
          requirements.preferBinary,
          requirements.requireHashes,
          requirements.onlyBinary,
          requirements.noBinary,
        ]),
      ],
      ...contentOf(request, interpreter, settings),
      ['torch', torch === null ? '' : torchIndex(torch, request.torchIndexes)],
    ],
    about: {
      from: file,
      python: interpreter.version,
      interpreter: interpreter.base,
      accelerator: acceleratorTag(request.devices),
      torch,
      index: settings.identity.filter(([name]) => /^(index|extra|links)$/.test(name)),
    },
    async build(folder, resolved) {
      const uv = await findUv(request)
      const source = join(folder, 'source')
      for (const { path, text } of requirements.files) {
        await mkdir(dirname(join(source, path)), { recursive: true, mode: 0o700 })
        await writeFile(join(source, path), text, { mode: 0o600 })
      }
      say(`${file} with Python ${interpreter.version}, by ${uv ? 'uv' : 'pip'}`)
      const env = uv
        ? forUv(settings, torch === null ? {} : { torch })
        : forPip(settings, { extra: torch === null ? [] : [torchIndex(torch, request.torchIndexes)] })
      const tool = toolOptions(request, env, source, settings.masked)
      return uv
        ? await buildWithUv({ program: uv, options: uvOptions(settings) }, folder, wish, resolved, tool)
        : await buildWithPip(folder, wish, resolved, tool)
    },
  }
  const shared = await obtain(recipe, request)
  say(
    `environment ${shared.key.slice(0, 12)} (${file}, Python ${interpreter.version}): ${shared.reused ? 'is there already' : `built in ${shared.seconds.toFixed(1)} s`}`,
  )
  const venv = join(shared.folder, 'venv')
  return { interpreter, layer: { sites: [join(venv, sitePath(interpreter))], scripts: join(venv, 'bin') }, shared }
}

const linesOf = (text: string): string => text.split('\n').filter(Boolean).join('\n')

/** What decides beside the files themselves. */
export const contentOf = (
  request: EnvironmentRequest,
  interpreter: Interpreter,
  settings: PackageSettings,
): (readonly [string, string])[] => [
  ['python', `${interpreter.implementation} ${interpreter.version} ${interpreter.abi}`],
  ['interpreter', interpreter.base], // a virtual environment is bound to the program that it was made with
  ['platform', `${process.platform} ${process.arch} ${interpreter.libc}`],
  ['accelerator', acceleratorTag(request.devices)],
  ...settings.identity,
]

/** The build of PyTorch to ask for; null: whatever the package index has. */
async function torchFor(
  request: EnvironmentRequest,
  { requirements, interpreter }: Wish,
  settings: PackageSettings,
): Promise<string | null> {
  const { devices, driver, say } = request
  const build = torchBuild(devices, { platform: process.platform, driver })
  if (build === null || !wantsTorch(requirements.names)) return null
  // somebody has said where PyTorch comes from
  if (
    settings.variables['UV_TORCH_BACKEND'] !== undefined ||
    settings.noIndex ||
    [settings.index ?? '', ...settings.extra].some(each => each.includes('pytorch'))
  )
    return null
  const index = torchIndex(build, request.torchIndexes)
  const problem = await indexProblem(index, interpreter.executable, forPip(settings))
  if (problem === null) {
    say(`PyTorch is taken from ${index}, the build for ${build === 'cpu' ? 'processors' : build}`)
    return build
  }
  say(
    `The build of PyTorch for ${build === 'cpu' ? 'processors (0.2 GB)' : build} is on ${index}, which cannot be reached (${problem}). ` +
      'The one of the usual index is taken: on Linux that is made for CUDA, about 3 GB, and computes on processors too.',
  )
  return null
}

/** The uv of PATH. */
export async function findUv(request: EnvironmentRequest): Promise<string | null> {
  const { PATH = '', HOME = '' } = request.machine
  const { code } = await runTool(
    'uv',
    ['--version'],
    toolOptions(request, { PATH, HOME }, '/', [], () => {}),
  ).catch((error: unknown) => {
    if (error instanceof Failure && error.code === 'environment_tool_missing') return { code: 127 }
    throw error
  })
  return code === 0 ? 'uv' : null
}

export function toolOptions(
  request: EnvironmentRequest,
  env: Readonly<Record<string, string>>,
  cwd: string,
  masked: readonly string[] = [],
  print = request.print,
): ToolOptions {
  return {
    cwd,
    env: { ...(request.machine['PATH'] !== undefined && { PATH: request.machine['PATH'] }), ...env },
    print,
    masked,
    signal: request.signal,
  }
}
