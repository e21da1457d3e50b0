/** Python projects: pyproject.toml by the dependencies it names, uv.lock by uv. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { Failure } from '../../failure.ts'
import { findInterpreter, type Interpreter, isVersionWish, satisfies } from './interpreters.ts'
import { sitePath } from './overlay.ts'
import type { EnvironmentRequest } from './request.ts'
import { type BuiltEnvironment, contentOf, findUv, requiredPackages, toolOptions } from './required.ts'
import { invalid, normalised, requirementsOfLines } from './requirements.ts'
import { forUv, packageSettings, uvOptions } from './settings.ts'
import { obtain } from './store.ts'
import { runOrFail, runTool } from './tool.ts'
import { refusalOfUv } from './uv.ts'

const Project = z.object({
  name: z.string().nullable(),
  requires: z.string().nullable(),
  /** Null: not named here, but found out by building it. */
  dependencies: z.array(z.string()).nullable(),
  /** Whether there is a table [project] at all. */
  standard: z.boolean(),
  poetry: z.boolean(),
  sources: z.array(z.string()),
})
type Project = z.infer<typeof Project>

/** pip carries a reader of TOML, which Python itself has from 3.11 on. */
const reader = `
import sys, json
try:
    import tomllib
except ImportError:
    sys.path.insert(0, sys.argv[2])
    from pip._vendor import tomli as tomllib
with open(sys.argv[1], 'rb') as f:
    try:
        data = tomllib.load(f)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        print(json.dumps(dict(problem=str(e))))
        sys.exit()
project, tool = data.get('project') or {}, data.get('tool') or {}
dynamic = project.get('dynamic') or []
print(json.dumps(dict(name=project.get('name'), requires=project.get('requires-python'), standard=bool(project), poetry='poetry' in tool,
    dependencies=None if 'dependencies' in dynamic else project.get('dependencies') or [], sources=sorted((tool.get('uv') or {}).get('sources') or {}))))
`

/** The dependencies of [project]; the project itself is where the job runs and is not installed. */
export async function projectDependencies(request: EnvironmentRequest, python: string | null, file: string): Promise<BuiltEnvironment> {
  const path = resolve(request.workdir, file)
  const { project, interpreter } = await openProject(request, python, path, file)
  if (!project.standard)
    throw invalid(
      file,
      project.poetry ? 'it names its dependencies under [tool.poetry] only' : 'it has no table [project]',
      project.poetry
        ? 'Write them out: poetry export -o requirements.txt, and give that file.'
        : 'Name the dependencies under [project], or give a requirements.txt.',
    )
  if (project.dependencies === null)
    throw invalid(
      file,
      'its dependencies are dynamic: only building the project tells them',
      'Give a requirements.txt, or uv.lock (uv lock makes it).',
    )
  if (project.sources.length > 0)
    request.say(`${file}: [tool.uv.sources] counts with uv.lock only; not used for ${project.sources.join(', ')}`)
  const options = { root: dirname(path), envs: request.envs, secrets: request.secrets }
  const requirements = await requirementsOfLines(project.dependencies, file, options)
  return withSources(await requiredPackages(request, { file, interpreter, requirements }), dirname(path))
}

/** What `uv sync --frozen` makes of it, without the project itself. @throws environment_tool_missing */
export async function lockedProject(request: EnvironmentRequest, python: string | null, file: string): Promise<BuiltEnvironment> {
  const { say, machine, envs, secrets } = request
  const lockFile = resolve(request.workdir, file)
  const folder = dirname(lockFile)
  const [lockText, projectText] = [
    await readText(lockFile, file),
    await readText(join(folder, 'pyproject.toml'), join(dirname(file), 'pyproject.toml')),
  ]
  const { project, interpreter } = await openProject(request, python, join(folder, 'pyproject.toml'), 'pyproject.toml')
  const settings = await packageSettings({ machine, envs, secrets })
  const local = [
    ...lockText.matchAll(/^name = "([^"]+)"\n(?:version = .*\n)?source = \{ (?:editable|directory|path|virtual) = "([^"]*)"/gm),
  ].filter(([, name]) => normalised(name!) !== normalised(project.name ?? ''))
  if (local.length > 0)
    say(
      `${file}: packages from folders of the project are not in the environment: ${local.map(([, name]) => name).join(', ')}; setup can install them (pip install -e)`,
    )
  const shared = await obtain(
    {
      content: [['pyproject.toml', projectText], ['uv.lock', lockText], ...contentOf(request, interpreter, settings)],
      about: { from: file, python: interpreter.version, interpreter: interpreter.base },
      async build(into) {
        const uv = (await findUv(request)) ?? (await bringUv(request, file, interpreter))
        say(`${file} with Python ${interpreter.version}, by uv`)
        const venv = join(into, 'venv')
        const env = { ...forUv(settings), UV_PROJECT_ENVIRONMENT: venv }
        const tool = toolOptions(request, env, folder, settings.masked)
        await runOrFail(uv, ['venv', '--quiet', '--no-project', '--python', interpreter.executable, venv], { ...tool, tool: 'uv venv' })
        const { code, output } = await runTool(
          uv,
          [
            'sync',
            '--frozen',
            '--no-install-project',
            '--no-install-workspace',
            '--no-install-local',
            ...uvOptions(settings),
            '--python',
            join(venv, 'bin/python'),
          ],
          tool,
        )
        if (code !== 0) throw refusalOfUv(file, output)
        return null // the lock is the list
      },
    },
    request,
  )
  say(
    `environment ${shared.key.slice(0, 12)} (${file}, Python ${interpreter.version}): ${shared.reused ? 'is there already' : `built in ${shared.seconds.toFixed(1)} s`}`,
  )
  const venv = join(shared.folder, 'venv')
  return withSources({ interpreter, layer: { sites: [join(venv, sitePath(interpreter))], scripts: join(venv, 'bin') }, shared }, folder)
}

/** A project with a folder src/ is imported from there, as an installed one would be. */
function withSources(built: BuiltEnvironment, folder: string): BuiltEnvironment {
  return { ...built, layer: { ...built.layer, sites: [...built.layer.sites, join(folder, 'src')] } }
}

async function openProject(
  request: EnvironmentRequest,
  python: string | null,
  path: string,
  file: string,
): Promise<{ project: Project; interpreter: Interpreter }> {
  await readText(path, file)
  const first = await findInterpreter(python, request.machine)
  const project = await readProject(path, file, first)
  const { requires } = project
  if (python !== null || requires === null || !isVersionWish(requires) || satisfies(first.version, requires))
    return { project, interpreter: first }
  return { project, interpreter: await findInterpreter(requires, request.machine) }
}

function readProject(path: string, file: string, interpreter: Interpreter): Promise<Project> {
  return new Promise((done, failed) => {
    execFile(
      interpreter.executable,
      ['-I', '-c', reader, path, interpreter.pipWheel ?? ''],
      { timeout: 20_000, maxBuffer: 4 << 20 },
      (error, stdout, stderr) => {
        const answer = readJson(stdout)
        const parsed = Project.safeParse(answer)
        if (parsed.success) return done(parsed.data)
        const problem =
          (answer as { problem?: string } | null)?.problem ??
          (error ? lastLine(stderr) : 'what it says under [project] is of the wrong kind')
        failed(invalid(file, problem, 'See packaging.python.org on pyproject.toml.'))
      },
    )
  })
}

/** uv from the package index, in an environment of its own: only it can read its lock. */
async function bringUv(request: EnvironmentRequest, file: string, interpreter: Interpreter): Promise<string> {
  request.say(`${file} is read by uv, which is not on PATH: it is installed for that, beside the environment`)
  const requirements = await requirementsOfLines(['uv'], 'uv', { root: '/', envs: {}, secrets: {} })
  try {
    const { shared } = await requiredPackages({ ...request, lease: null }, { file: 'uv', interpreter, requirements })
    return join(shared.folder, 'venv/bin/uv')
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'environment_unsatisfiable') throw error
    throw new Failure(
      'environment_tool_missing',
      {
        file,
        tool: 'uv',
        remedy: 'Install it where Plinth runs (pip install uv, pipx install uv), or write the lock out: uv export -o requirements.txt.',
      },
      { cause: error },
    )
  }
}

async function readText(path: string, file: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch {
    throw new Failure('environment_file_missing', { file })
  }
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
const lastLine = (text: string): string => text.trim().split('\n').at(-1)?.slice(0, 300) || 'it cannot be read'
