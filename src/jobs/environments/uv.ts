/** An environment by uv, where it is here: quicker, and it says with hashes of every file what it chose. */

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../../failure.ts'
import { writeFileAtomic } from '../../storage/disk.ts'
import type { Wish } from './request.ts'
import { oneLine, runOrFail, runTool, type ToolOptions } from './tool.ts'

export interface Uv {
  program: string
  /** For each call that asks an index. */
  options: readonly string[]
}

/** Fills `folder`/venv; answers the lines that install the same again. */
export async function buildWithUv(
  { program, options }: Uv,
  folder: string,
  wish: Wish,
  resolved: string | null,
  tool: ToolOptions,
): Promise<string | null> {
  const { interpreter, requirements, file } = wish
  const venv = join(folder, 'venv')
  const python = ['--python', join(venv, 'bin/python')]
  await runOrFail(program, ['venv', '--quiet', '--no-project', '--python', interpreter.executable, venv], { ...tool, tool: 'uv venv' })
  const choice = [
    ...(requirements.pre ? ['--prerelease', 'allow'] : []),
    ...requirements.onlyBinary.flatMap(each => ['--only-binary', each]),
    ...requirements.noBinary.flatMap(each => ['--no-binary', each]),
  ]
  if (requirements.requireHashes) {
    await install(['--require-hashes', ...choice, '--requirement', requirements.files[0]!.path])
    return null // the file is its own list
  }
  const list = resolved ?? (await resolve())
  await writeFileAtomic(join(tool.cwd, 'resolved.txt'), list)
  await install(['--no-deps', ...choice, '--requirement', 'resolved.txt'])
  return resolved === null ? list : null

  async function resolve(): Promise<string> {
    const output = join(folder, 'resolved.txt')
    const words = [
      'pip',
      'compile',
      '--quiet',
      ...python,
      ...choice,
      '--generate-hashes',
      '--no-annotate',
      '--no-header',
      '--no-strip-extras',
      '--output-file',
      output,
    ]
    await succeed([...words, `./${requirements.files[0]!.path}`]) // a name may begin with a dash
    return await readFile(output, 'utf8')
  }
  async function install(words: readonly string[]): Promise<void> {
    await succeed(['pip', 'install', ...python, ...words])
  }
  async function succeed(words: readonly string[]): Promise<void> {
    const { code, output } = await runTool(program, [...words, ...options], tool)
    if (code !== 0) throw refusalOfUv(file, output)
  }
}

/** The resolver's own words: `error: …` with its causes, or the framed text of earlier releases. */
export function refusalOfUv(file: string, output: string): Failure {
  const lines = output.split('\n')
  const at = lines.findIndex(line => /^\s*(error:|×)/.test(line))
  if (/No space left on device|os error 28/.test(output))
    return new Failure('environment_tool_failed', { tool: 'uv', says: 'No space is left on the disk of the cache.' })
  const said = (at < 0 ? lines.slice(-4) : lines.slice(at)).map(line => line.replace(/^\s*(error|cause|Caused by): ?/, ''))
  return new Failure('environment_unsatisfiable', { file, says: oneLine(said.join('\n')) })
}
