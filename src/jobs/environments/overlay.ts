/**
 * The virtual environment that a job sees: one of its own, made in milliseconds, with nothing in it but a way to the packages of a shared
 * environment or of the interpreter as it is. So `python` exists where the system only has python3, `pip install` in a job's setup is allowed
 * (PEP 668 refuses it for the system's Python) and stays in this one job: a shared environment is never written to.
 */
import { readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFolder } from '../../storage/disk.ts'
import type { Interpreter } from './interpreters.ts'

/** Where packages come from; the first hides what later ones have too. */
export interface Layer {
  sites: readonly string[]
  /** Folder of console scripts; null: none are taken over. */
  scripts: string | null
}

export interface OverlayOptions {
  folder: string
  /** The interpreter below all layers. */
  base: Pick<Interpreter, 'base' | 'home' | 'version' | 'implementation'>
  layers: readonly Layer[]
  /** A folder with the package pip, for environments that have none. */
  pip: string | null
  /** Folder with the module plinth_job, which every Python of the job then begins with; null: none does. */
  hook: string | null
  /** Programs of Plinth for it: name and path of a Python file. */
  programs: Readonly<Record<string, string>>
}

/** Answers the folder of its programs, to go before PATH. */
export async function makeOverlay({ folder, base, layers, pip, hook, programs }: OverlayOptions): Promise<string> {
  const bin = await makeFolder(folder, 'bin')
  const site = await makeFolder(folder, sitePath(base))
  await writeFile(join(folder, 'pyvenv.cfg'), `home = ${base.home}\ninclude-system-site-packages = false\nversion = ${base.version}\n`)
  const python = join(bin, 'python')
  const [major, minor] = base.version.split('.')
  for (const name of ['python', `python${major}`, `python${major}.${minor}`]) await symlink(base.base, join(bin, name))
  // addsitedir, and not a line with the path: a folder's own .pth files count then too (editable installs, namespace packages)
  const folders = [...layers.flatMap(({ sites }) => sites)]
  const lines = folders.map(each => `import site; site.addsitedir(${JSON.stringify(each)})`)
  await writeFile(join(site, '_plinth.pth'), [...lines, ...(pip === null ? [] : [pip]), ''].join('\n'))
  // not by PYTHONPATH, which a script or a job file may set anew
  if (hook !== null) await writeFile(join(site, '_plinth_job.pth'), `${hook}\nimport plinth_job\n`)
  // the first layer's programs win
  for (const { scripts } of layers.toReversed()) if (scripts !== null) await takeScripts(scripts, bin, python)
  // pip for this one, also where the interpreter's own has a program elsewhere: that would install for the whole system
  if (pip !== null || (await hasPip(folders)))
    for (const name of ['pip', 'pip3'])
      await writeProgram(join(bin, name), python, 'import sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n')
  for (const [name, path] of Object.entries(programs))
    await writeFile(join(bin, name), `#!/bin/sh\nexec "${quoted(python)}" "${quoted(path)}" "$@"\n`, { mode: 0o755 })
  return bin
}

export const sitePath = ({ version, implementation }: Pick<Interpreter, 'version' | 'implementation'>): string =>
  `lib/${implementation === 'pypy' ? 'pypy' : 'python'}${version.split('.').slice(0, 2).join('.')}/site-packages`

const hasPip = async (sites: readonly string[]): Promise<boolean> =>
  (await Promise.all(sites.map(each => readFile(join(each, 'pip/__init__.py')).catch(() => null)))).some(each => each !== null)

/** A shell begins it, because a path with spaces or over 127 characters cannot stand behind #!. Python reads the second line as a text. */
const writeProgram = async (path: string, python: string, body: string): Promise<void> => {
  await writeFile(path, `#!/bin/sh\n'''exec' "${quoted(python)}" "$0" "$@"\n' '''\n${body}`, { mode: 0o755 })
}
const quoted = (path: string): string => path.replace(/["\\$`]/g, '\\$&')

/** Console scripts begin with the path of their interpreter: the copies begin with this one, so that they see what setup installed. */
async function takeScripts(scripts: string, bin: string, python: string): Promise<void> {
  for (const entry of await readdir(scripts, { withFileTypes: true }).catch(() => [])) {
    if (/^(python|pypy|pip|activate|Activate)/.test(entry.name) || entry.isDirectory()) continue
    const from = join(scripts, entry.name)
    const text = await scriptText(from)
    if (text === null) {
      await symlink(from, join(bin, entry.name)).catch(() => {}) // of a layer before
      continue
    }
    const body = text.startsWith("#!/bin/sh\n'''exec'") ? text.split('\n').slice(3).join('\n') : text.slice(text.indexOf('\n') + 1)
    await writeProgram(join(bin, entry.name), python, body)
  }
}

/** Null: no Python script of that folder's interpreter, but a compiled program or one of another kind. */
async function scriptText(path: string): Promise<string | null> {
  const bytes = await readFile(path).catch(() => null)
  if (!bytes || bytes.length > 1_000_000 || bytes[0] !== 0x23 || bytes[1] !== 0x21) return null
  const text = bytes.toString('utf8')
  const head = text.split('\n', 2).join('\n')
  return /^#!.*\/(python|pypy)[\d.]*\s*$/m.test(head.split('\n')[0]!) || head.startsWith("#!/bin/sh\n'''exec'") ? text : null
}
