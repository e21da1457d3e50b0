/** Notebooks as jobs: what can be run, the command that runs one, and the packages that this takes beside those of the job. */
import { access, readFile, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { Failure } from '../../failure.ts'
import type { Interpreter } from './interpreters.ts'
import type { Layer } from './overlay.ts'
import type { EnvironmentRequest } from './request.ts'
import { requiredPackages } from './required.ts'
import { requirementsOfLines } from './requirements.ts'

const largest = 200_000_000

const Text = z.union([z.string(), z.array(z.string())])
const Notebook = z.object({
  nbformat: z.number(),
  cells: z.array(z.object({ cell_type: z.string(), source: Text, metadata: z.record(z.string(), z.unknown()).optional() })),
  metadata: z
    .object({
      kernelspec: z.object({ language: z.string().optional(), name: z.string().optional() }).optional(),
      language_info: z.object({ name: z.string().optional() }).optional(),
    })
    .optional(),
})

/** Before anything is installed for it. @throws environment_file_missing, notebook_invalid */
export async function checkNotebook(workdir: string, file: string): Promise<void> {
  const wrong = (problem: string) => new Failure('notebook_invalid', { file, problem })
  const path = resolve(workdir, file)
  const about = await stat(path).catch(() => null)
  if (!about) throw new Failure('environment_file_missing', { file })
  if (!about.isFile()) throw wrong('it is no file')
  if (about.size > largest) throw wrong('it is larger than 200 MB')
  let value: unknown
  try {
    value = JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    throw wrong(about.size === 0 ? 'it is empty' : `it is no JSON (${(error as Error).message.slice(0, 120)})`)
  }
  const format = (value as { nbformat?: unknown } | null)?.nbformat
  if (typeof format === 'number' && format !== 4) throw wrong(`it is of format ${format}, and format 4 is read`)
  const parsed = Notebook.safeParse(value)
  if (!parsed.success) {
    const { path: at, message } = parsed.error.issues[0]!
    throw wrong(`${at.length ? at.join('.') : 'the file'}: ${message.toLowerCase()}`)
  }
  const { kernelspec, language_info } = parsed.data.metadata ?? {}
  const language = kernelspec?.language ?? language_info?.name
  if (language !== undefined && !/^i?python3?$/i.test(language))
    throw wrong(`it is written in ${language.slice(0, 40)}, and Python is what runs`)
}

/** IPython, where the job's own packages lack it: behind them, so that nothing of theirs changes. Without it the cells run as plain Python. */
export async function notebookLayers(request: EnvironmentRequest, interpreter: Interpreter, { sites }: Layer): Promise<Layer[]> {
  for (const site of sites)
    if (
      await access(join(site, 'IPython')).then(
        () => true,
        () => false,
      )
    )
      return []
  const { say } = request
  say('IPython is not among the packages of the job: it is put behind them for magics and pictures')
  try {
    const requirements = await requirementsOfLines(['ipython', 'matplotlib-inline'], 'IPython', { root: '/', envs: {}, secrets: {} })
    const { layer } = await requiredPackages(request, { file: 'IPython', interpreter, requirements })
    return [{ ...layer, scripts: null }]
  } catch (error) {
    if (!(error instanceof Failure) || !['environment_unsatisfiable', 'environment_tool_missing'].includes(error.code)) throw error
    say(`IPython could not be installed, so the cells run as plain Python. ${error.message}`)
    return []
  }
}
