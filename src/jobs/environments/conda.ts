/** conda's environment.yml, with whichever of its programs is here. */
import { readFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { Failure } from '../../failure.ts'
import { writeFileAtomic } from '../../storage/disk.ts'
import { askInterpreter } from './interpreters.ts'
import type { EnvironmentRequest } from './request.ts'
import { type BuiltEnvironment, toolOptions } from './required.ts'
import { invalid, requirementsOfLines } from './requirements.ts'
import { packageSettings } from './settings.ts'
import { obtain } from './store.ts'
import { oneLine, runTool } from './tool.ts'
import { acceleratorTag } from './torch.ts'

const programs = ['micromamba', 'mamba', 'conda'] as const

/** @throws environment_tool_missing, environment_file_invalid, environment_unsatisfiable */
export async function condaEnvironment(
  request: EnvironmentRequest,
  file: string,
): Promise<BuiltEnvironment & { envs: Record<string, string>; path: string[] }> {
  const { machine, envs, secrets, say } = request
  const text = await readFile(resolve(request.workdir, file), 'utf8').catch(() => {
    throw new Failure('environment_file_missing', { file })
  })
  const wanted = await readCondaFile(text, file, dirname(resolve(request.workdir, file)))
  const program = await findProgram(request, file)
  const settings = await packageSettings({ machine, envs, secrets })
  const staged = `${JSON.stringify(wanted, null, 2)}\n` // JSON is YAML
  const shared = await obtain(
    {
      content: [
        ['environment.yml', staged],
        ['platform', `${process.platform} ${process.arch}`],
        ['accelerator', acceleratorTag(request.devices)],
        ...settings.identity,
      ],
      about: { from: file, by: program, channels: wanted.channels },
      async build(into, resolved) {
        say(`${file}, by ${program}`)
        const prefix = join(into, 'venv')
        const tool = toolOptions(
          request,
          { ...settings.variables, CONDA_PKGS_DIRS: settings.variables['CONDA_PKGS_DIRS'] ?? join(into, 'packages') },
          into,
          settings.masked,
        )
        await writeFileAtomic(join(into, 'environment.yml'), staged)
        const create =
          basename(program) === 'micromamba'
            ? ['create', '--yes', '--prefix', prefix, '--file', 'environment.yml']
            : ['env', 'create', '--prefix', prefix, '--file', 'environment.yml']
        const pinned = join(into, 'explicit.txt')
        if (resolved !== null) await writeFileAtomic(pinned, resolved)
        // pip's part of the file is not in the explicit list, so a file that has one is resolved again
        const again = resolved !== null && wanted.pip.length === 0
        const { code, output } = await runTool(
          program,
          again ? ['create', '--yes', '--prefix', prefix, '--file', 'explicit.txt'] : create,
          tool,
        )
        if (code !== 0) throw new Failure('environment_unsatisfiable', { file, says: oneLine(output.split('\n').slice(-20).join('\n')) })
        const listed = await runTool(program, ['list', '--prefix', prefix, '--explicit', '--md5'], { ...tool, print: () => {} })
        return listed.code === 0 ? listed.output : null
      },
    },
    request,
  )
  const prefix = join(shared.folder, 'venv')
  const interpreter = await askInterpreter(join(prefix, 'bin/python'), machine)
  if (!interpreter) throw invalid(file, 'the environment has no Python', 'Name python under dependencies.')
  say(
    `environment ${shared.key.slice(0, 12)} (${file}, Python ${interpreter.version}): ${shared.reused ? 'is there already' : `built in ${shared.seconds.toFixed(1)} s`}`,
  )
  return {
    interpreter,
    layer: { sites: interpreter.sites, scripts: interpreter.scripts },
    shared,
    envs: { CONDA_PREFIX: prefix, CONDA_DEFAULT_ENV: prefix },
    path: [join(prefix, 'bin')],
  }
}

export interface CondaFile {
  channels: string[]
  /** conda's own specifications, then those of pip. */
  dependencies: (string | { pip: string[] })[]
  pip: string[]
}

const largest = 200_000

/** `name` and `prefix` say where it is to lie, which is the cache's affair; they are left out. @throws environment_file_invalid */
export async function readCondaFile(text: string, file: string, root: string): Promise<CondaFile> {
  const wrong = (problem: string, remedy = 'See docs/environments.md for an example.') => invalid(file, problem, remedy)
  if (text.length > largest) throw wrong('it is larger than 200 kB')
  const document = parseDocument(text, { uniqueKeys: true, strict: true })
  const [first] = [...document.errors, ...document.warnings]
  if (first) throw wrong(first.message.split('\n')[0]!)
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 50 })
  } catch {
    throw wrong('its aliases stand for more than 50 copies')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('it has no list of dependencies')
  const { channels = [], dependencies } = value as Record<string, unknown>
  if (!Array.isArray(dependencies) || !Array.isArray(channels)) throw wrong('dependencies and channels have to be lists')
  const names = channels.map(each => specification(each, /^[A-Za-z0-9][\w./:@-]*$/, 'a channel', wrong))
  const own = dependencies
    .filter(each => typeof each !== 'object')
    .map(each => specification(each, /^[A-Za-z0-9_][\w.:/ <>=!~*,|[\]"'-]*$/, 'a package', wrong))
  const lines = dependencies.flatMap(each =>
    typeof each === 'object' && each !== null ? pipOf(each as Record<string, unknown>, wrong) : [],
  )
  const pip = (await requirementsOfLines(lines, `${file}, pip`, { root, envs: {}, secrets: {} })).files[0]!.text.split('\n').filter(Boolean)
  return { channels: names, dependencies: [...own, ...(pip.length > 0 ? [{ pip }] : [])], pip }
}

function specification(value: unknown, form: RegExp, what: string, wrong: (problem: string) => Failure): string {
  if (typeof value !== 'string' || value.length > 500 || !form.test(value))
    throw wrong(`${JSON.stringify(value)?.slice(0, 100)} is not ${what}`)
  return value
}

function pipOf(entry: Record<string, unknown>, wrong: (problem: string) => Failure): string[] {
  const { pip, ...others } = entry
  const [other] = Object.keys(others)
  if (other !== undefined) throw wrong(`${other} stands under dependencies, where only pip may`)
  if (!Array.isArray(pip) || pip.some(each => typeof each !== 'string')) throw wrong('pip has to be a list of packages')
  return pip as string[]
}

async function findProgram(request: EnvironmentRequest, file: string): Promise<string> {
  const { PATH = '', HOME = '', MAMBA_EXE, CONDA_EXE } = request.machine
  for (const program of [...programs, MAMBA_EXE, CONDA_EXE]) {
    if (!program) continue
    const answer = await runTool(
      program,
      ['--version'],
      toolOptions(request, { PATH, HOME }, '/', [], () => {}),
    ).catch((error: unknown) => {
      if (error instanceof Failure && error.code === 'environment_tool_missing') return null
      throw error
    })
    if (answer?.code === 0) return program
  }
  throw new Failure('environment_tool_missing', {
    file: basename(file),
    tool: 'conda (or mamba, or micromamba)',
    remedy: 'Install one of them where Plinth runs (micromamba is a single program: mamba.readthedocs.io), or give a requirements.txt.',
  })
}
