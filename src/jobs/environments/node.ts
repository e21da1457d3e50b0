/** The environment of a job in Node: the packages of package-lock.json, installed once and linked into the job's folder. */

import { createHash } from 'node:crypto'
import { copyFile, lstat, readFile, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { z } from 'zod'
import { Failure } from '../../failure.ts'
import { makeFolder, temporaryPath } from '../../storage/disk.ts'
import type { PreparedEnvironment } from '../attempt.ts'
import type { EnvironmentRequest } from './request.ts'
import { toolOptions } from './required.ts'
import { invalid, withoutUser } from './requirements.ts'
import { packageSettings } from './settings.ts'
import { environmentsFolder, obtain } from './store.ts'
import { oneLine, runTool } from './tool.ts'

const Lock = z.object({
  lockfileVersion: z.number(),
  packages: z
    .record(z.string(), z.object({ version: z.string().optional(), resolved: z.string().optional(), link: z.boolean().optional() }))
    .default({}),
})

/**
 * Folders that are there already are used as they are. @throws environment_file_invalid, environment_unsatisfiable, environment_tool_missing
 */
export async function prepareNode(request: EnvironmentRequest): Promise<PreparedEnvironment> {
  const began = performance.now()
  const { workdir, say } = request
  const { version, path } = await nodeOf(request)
  const answer = (more: Partial<PreparedEnvironment>): PreparedEnvironment => ({
    ...{ kind: 'node', key: null, envs: {}, path, interpreter: 'node', version, packages: [], reused: false },
    seconds: Math.round(performance.now() - began) / 1000,
    ...more,
  })
  const manifest = await readText(join(workdir, 'package.json'))
  if (manifest === null) return answer({})
  const lock = await readText(join(workdir, 'package-lock.json'))
  const packages = lock === null ? [] : packagesOf(lock)
  const folder = join(workdir, 'node_modules')
  if (!(await isOurs(folder))) {
    say(
      lock === null || (await isCurrent(folder, lock))
        ? 'node_modules of the job is used as it is'
        : 'node_modules of the job is used as it is, and is not what package-lock.json says: npm ci makes it so',
    )
    return answer({ packages })
  }
  if (!hasDependencies(manifest)) return answer({})
  if (
    lock === null &&
    (await lstat(join(workdir, 'pnpm-lock.yaml'))
      .catch(() => lstat(join(workdir, 'yarn.lock')))
      .catch(() => null))
  )
    throw new Failure('environment_tool_missing', {
      file: 'pnpm-lock.yaml or yarn.lock',
      tool: 'its own package manager, and only the lock of npm is read',
      remedy: 'Install the packages yourself (node_modules is used as it is), or in setup.',
    })
  const built = await packagesBuilt(request, manifest, lock, version)
  await link(folder, join(built.folder, 'project', 'node_modules'))
  say(
    `environment ${built.key.slice(0, 12)} (${lock === null ? 'package.json' : 'package-lock.json'}, Node ${version}): ${built.reused ? 'is there already' : `built in ${built.seconds.toFixed(1)} s`}`,
  )
  return answer({ key: built.key, reused: built.reused, packages: packagesOf(built.lock) })
}

async function packagesBuilt(request: EnvironmentRequest, manifest: string, lock: string | null, version: string) {
  const { workdir, machine, envs, secrets, say } = request
  const settings = await packageSettings({ machine, envs, secrets })
  const npmrc = await readText(join(workdir, '.npmrc'))
  const files = await filesOf(workdir, manifest, lock)
  let resolvedLock = lock
  const built = await obtain(
    {
      content: [
        ['package.json', manifest],
        ['package-lock.json', lock ?? ''],
        // where packages come from, not who asks for them
        ['.npmrc', withoutUser((npmrc ?? '').replace(/^.*(_auth|_authToken|_password|username)\s*=.*$/gim, ''))],
        ...files.map(({ name, sha256 }) => ['file', `${name} ${sha256}`] as const),
        ['node', `${version} ${process.platform} ${process.arch}`],
        ...Object.entries(settings.variables).filter(([name]) => /^npm_config_registry$/i.test(name)),
      ],
      about: { from: lock === null ? 'package.json' : 'package-lock.json', node: version },
      async build(into, resolved) {
        const project = await makeFolder(into, 'project')
        await writeFile(join(project, 'package.json'), manifest)
        resolvedLock = lock ?? resolved
        if (resolvedLock !== null) await writeFile(join(project, 'package-lock.json'), resolvedLock)
        if (npmrc !== null) await writeFile(join(project, '.npmrc'), npmrc, { mode: 0o600 })
        for (const { name, path } of files) {
          await makeFolder(dirname(join(project, name)))
          await copyFile(path, join(project, name))
        }
        const words = [resolvedLock === null ? 'install' : 'ci', '--no-audit', '--no-fund', '--no-progress', '--loglevel=notice']
        say(`npm ${words[0]} with Node ${version}`)
        const { code, output } = await runTool(
          'npm',
          words,
          toolOptions(request, { ...settings.variables, npm_config_update_notifier: 'false', NO_COLOR: '1' }, project, settings.masked),
        )
        await rm(join(project, '.npmrc'), { force: true })
        if (code !== 0) throw refusalOfNpm(output)
        resolvedLock ??= await readFile(join(project, 'package-lock.json'), 'utf8')
        return lock === null ? resolvedLock : null
      },
    },
    request,
  )
  resolvedLock ??= (await readText(join(built.folder, 'project', 'package-lock.json'))) ?? '{}'
  return { ...built, lock: resolvedLock }
}

/** `npm error …` without the file of its log and the code in front. */
function refusalOfNpm(output: string): Failure {
  const said = output
    .split('\n')
    .flatMap(line => /^npm (?:error|ERR!)\s?(.*)$/.exec(line)?.[1] ?? [])
    .filter(line => !/complete log of this run|^code |^\s*$/.test(line))
  return new Failure('environment_unsatisfiable', {
    file: 'package.json',
    says: oneLine(said.slice(0, 15).join('\n') || output.slice(-500)),
  })
}

// ── what the files say ──────────────────────────────────────────────────────────────────────────────────────────────────────

function hasDependencies(manifest: string): boolean {
  const value = parse(manifest, 'package.json') as Record<string, object | undefined>
  return ['dependencies', 'devDependencies', 'optionalDependencies'].some(field => Object.keys(value[field] ?? {}).length > 0)
}

function packagesOf(lock: string): string[] {
  const parsed = Lock.safeParse(parse(lock, 'package-lock.json'))
  if (!parsed.success) return []
  return Object.entries(parsed.data.packages).flatMap(([path, { version }]) =>
    path && version ? [`${path.split('node_modules/').at(-1)}@${version}`] : [],
  )
}

/** Archives beside the project that it takes packages from: part of the content. Folders change under it, and are refused. */
async function filesOf(workdir: string, manifest: string, lock: string | null): Promise<{ name: string; path: string; sha256: string }[]> {
  const parsed = lock === null ? null : Lock.safeParse(parse(lock, 'package-lock.json'))
  if (parsed && !parsed.success)
    throw invalid('package-lock.json', 'it is no lock of npm', 'Make it anew: npm install --package-lock-only.')
  const linked = parsed ? Object.entries(parsed.data.packages).find(([, { link: isLink }]) => isLink) : undefined
  if (linked)
    throw invalid(
      'package-lock.json',
      `${linked[0]} is a folder of the project, whose content may change`,
      'Install the packages yourself: node_modules is used as it is.',
    )
  const named = [...(lock ?? manifest).matchAll(/"file:([^"]+)"/g)].map(([, file]) => file!)
  return await Promise.all(
    [...new Set(named)].map(async name => {
      const path = resolve(workdir, name)
      if (isAbsolute(name) || !path.startsWith(workdir + sep))
        throw invalid('package.json', `${name} lies outside of the folder of the job`, 'Copy it into the folder.')
      const bytes = await readFile(path).catch(() => null)
      if (bytes === null) throw invalid('package.json', `${name} is no archive that can be read`, 'Pack it: npm pack.')
      return { name: relative(workdir, path), path, sha256: createHash('sha256').update(bytes).digest('hex') }
    }),
  )
}

function parse(text: string, file: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw invalid(file, `it is no JSON (${(error as Error).message.slice(0, 120)})`, 'Correct it.')
  }
}

// ── node_modules ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Not there, or a link of ours. */
async function isOurs(folder: string): Promise<boolean> {
  const about = await lstat(folder).catch(() => null)
  if (about === null) return true
  return about.isSymbolicLink() && (await readlink(folder)).startsWith(environmentsFolder() + sep)
}

/** npm writes down beside the packages what it installed. */
async function isCurrent(folder: string, lock: string): Promise<boolean> {
  const installed = Lock.safeParse(parse((await readText(join(folder, '.package-lock.json'))) ?? '{}', 'package-lock.json'))
  const wanted = Lock.safeParse(parse(lock, 'package-lock.json'))
  if (!installed.success || !wanted.success) return false
  return Object.entries(installed.data.packages).every(([path, { version }]) => wanted.data.packages[path]?.version === version)
}

/** Replaces a link of ours in one step: another job that runs here sees the old packages or the new. */
async function link(folder: string, target: string): Promise<void> {
  if ((await readlink(folder).catch(() => null)) === target) return
  const aside = temporaryPath(folder)
  await symlink(target, aside)
  await rename(aside, folder).catch(async error => {
    await rm(aside, { force: true })
    throw error
  })
}

/** The node of PATH; where there is none, the one that runs Plinth. */
async function nodeOf(request: EnvironmentRequest): Promise<{ version: string; path: string[] }> {
  const { PATH = '' } = request.machine
  const answer = await runTool(
    'node',
    ['--version'],
    toolOptions(request, { PATH }, '/', [], () => {}),
  ).catch(() => null)
  const version = /^v(\d+\.\d+\.\d+)/.exec(answer?.output ?? '')?.[1]
  if (answer?.code === 0 && version !== undefined) return { version, path: [] }
  return { version: process.versions.node, path: [dirname(process.execPath)] }
}

async function readText(path: string): Promise<string | null> {
  return await readFile(path, 'utf8').catch(() => null)
}
