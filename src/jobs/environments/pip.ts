/** An environment by `python3 -m venv` and the pip that comes with the interpreter, where uv is not here. */

import { createHash } from 'node:crypto'
import { readFile, rename, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { cache } from '../../config.ts'
import { Failure } from '../../failure.ts'
import { makeFolder, temporaryPath, writeFileAtomic } from '../../storage/disk.ts'
import { byVersion, type Interpreter } from './interpreters.ts'
import { packagesIn } from './packages.ts'
import type { Wish } from './request.ts'
import { logicalLines } from './requirements.ts'
import { oneLine, runOrFail, runTool, type ToolOptions } from './tool.ts'

/** Of `--report`: what was chosen. https://pip.pypa.io/en/stable/reference/installation-report/ */
const Report = z.object({
  install: z.array(
    z.object({
      is_direct: z.boolean(),
      metadata: z.object({ name: z.string(), version: z.string() }),
      download_info: z.object({
        url: z.string(),
        archive_info: z.object({ hash: z.string().optional(), hashes: z.record(z.string(), z.string()).optional() }).optional(),
        vcs_info: z.object({ vcs: z.string(), commit_id: z.string() }).optional(),
      }),
    }),
  ),
})

/** Fills `folder`/venv; answers the lines that install the same again. */
export async function buildWithPip(folder: string, wish: Wish, resolved: string | null, tool: ToolOptions): Promise<string | null> {
  const { interpreter, requirements } = wish
  const venv = join(folder, 'venv')
  await runOrFail(interpreter.executable, ['-m', 'venv', '--without-pip', venv], { ...tool, tool: 'python -m venv' })
  const pip = [join(venv, 'bin/python'), ...(await pipOf(interpreter, wish.file, tool))] as const
  const reports = byVersion(versionOf(interpreter), '22.2') >= 0
  const report = join(folder, 'report.json')
  const install = async (words: readonly string[]) => {
    const { code, output } = await runTool(pip[0]!, [...pip.slice(1), 'install', '--progress-bar', 'off', ...words], tool)
    if (code !== 0) throw refusalOfPip(wish.file, output)
  }
  if (resolved !== null) {
    for (const [name, lines] of Object.entries(byHash(resolved))) {
      if (lines.length === 0) continue
      await writeFileAtomic(join(tool.cwd, `${name}.txt`), lines.map(line => `${line}\n`).join(''))
      await install(['--no-deps', '--requirement', `${name}.txt`])
    }
    return null
  }
  await install([
    ...(requirements.pre ? ['--pre'] : []),
    ...(requirements.preferBinary ? ['--prefer-binary'] : []),
    ...(requirements.requireHashes ? ['--require-hashes'] : []),
    ...requirements.onlyBinary.flatMap(each => ['--only-binary', each]),
    ...requirements.noBinary.flatMap(each => ['--no-binary', each]),
    ...(reports ? ['--report', report] : []),
    '--requirement',
    requirements.files[0]!.path,
  ])
  if (!reports)
    return (await packagesIn([join(venv, `lib/python${interpreter.version.split('.').slice(0, 2).join('.')}/site-packages`)]))
      .map(line => `${line}\n`)
      .join('')
  const chosen = Report.parse(JSON.parse(await readFile(report, 'utf8')))
  await rm(report)
  return chosen.install
    .map(each => `${lineOf(each)}\n`)
    .toSorted()
    .join('')
}

function lineOf({
  is_direct,
  metadata: { name, version },
  download_info: { url, archive_info, vcs_info },
}: z.infer<typeof Report>['install'][number]): string {
  if (vcs_info) return `${name} @ ${vcs_info.vcs}+${url}@${vcs_info.commit_id}`
  const sha256 = archive_info?.hashes?.['sha256'] ?? /^sha256=(.*)$/.exec(archive_info?.hash ?? '')?.[1]
  const hash = sha256 === undefined ? '' : ` --hash=sha256:${sha256}`
  return is_direct ? `${name} @ ${url}${hash}` : `${name}==${version}${hash}`
}

/** pip wants a hash of every package of a file or of none, and a commit of a repository has none. */
function byHash(resolved: string): { hashed: string[]; unhashed: string[] } {
  const lines = logicalLines(resolved.split('\n')).flatMap(({ text }) => (text ? [text] : []))
  const { hashed = [], unhashed = [] } = Object.groupBy(lines, line => (line.includes('--hash') ? 'hashed' : 'unhashed'))
  return { hashed, unhashed }
}

/** The resolver's own words, from its first error on. */
function refusalOfPip(file: string, output: string): Failure {
  const lines = output.split('\n')
  const at = lines.findIndex(line => /^\s*ERROR: /.test(line))
  const full = /No space left on device|Errno 28/.test(output)
  if (full) return new Failure('environment_tool_failed', { tool: 'pip', says: 'No space is left on the disk of the cache.' })
  const said = (at < 0 ? lines.slice(-4) : lines.slice(at))
    .filter(line => !/ResolutionImpossible|^\s*\[notice\]|^WARNING: /.test(line))
    .map(line => line.replace(/^\s*ERROR: /, ''))
  return new Failure('environment_unsatisfiable', { file, says: oneLine([...new Set(said)].join('\n')) })
}

/** Words behind the interpreter that run pip; the environment itself gets none, so that it holds only what was asked for. */
async function pipOf(interpreter: Interpreter, file: string, tool: ToolOptions): Promise<string[]> {
  const unpacked = await unpackedPip(interpreter, tool)
  if (unpacked !== null) return [join(unpacked, 'pip')]
  throw new Failure('environment_tool_missing', {
    file,
    tool: `a pip for ${basename(interpreter.executable)} ${interpreter.version}`,
    remedy: 'Install uv (pip install uv), or the package of the system with ensurepip: apt-get install python3-venv.',
  })
}

/**
 * The pip that an interpreter carries as a wheel, unpacked into the cache once: as a folder it can be run by any interpreter, and build packages
 * from source, which it cannot from within a zip file. Null where there is no wheel.
 */
export async function unpackedPip(
  interpreter: Pick<Interpreter, 'pipWheel' | 'executable'>,
  tool: Pick<ToolOptions, 'env' | 'signal' | 'print' | 'masked'>,
): Promise<string | null> {
  if (interpreter.pipWheel === null) return null
  const sha256 = createHash('sha256')
    .update(await readFile(interpreter.pipWheel))
    .digest('hex')
  const folder = join(await makeFolder(cache(), 'tools'), `pip-${sha256.slice(0, 24)}`)
  if (await isThere(join(folder, 'pip'))) return folder
  const aside = temporaryPath(folder)
  await runOrFail(interpreter.executable, ['-m', 'zipfile', '-e', interpreter.pipWheel, aside], {
    ...tool,
    cwd: '/',
    tool: 'python -m zipfile',
  })
  await rename(aside, folder).catch(async error => {
    await rm(aside, { recursive: true, force: true })
    if (!(await isThere(join(folder, 'pip')))) throw error // another job was quicker
  })
  return folder
}

const isThere = (path: string): Promise<boolean> =>
  readFile(join(path, '__init__.py')).then(
    () => true,
    () => false,
  )

/** By the name of its wheel: asking takes a third of a second. */
const versionOf = ({ pipWheel }: Interpreter): string => /pip-(\d+(?:\.\d+)*)/.exec(pipWheel ?? '')?.[1] ?? '0'
