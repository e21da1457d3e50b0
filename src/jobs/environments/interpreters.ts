/** Which Pythons are here, and what an environment has to know about the one that it is made with. */
import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { z } from 'zod'
import { Failure } from '../../failure.ts'

/** What an interpreter says about itself. */
export const Interpreter = z.strictObject({
  /** Absolute; of a virtual environment where it is one. */
  executable: z.string(),
  /** The one below a virtual environment. */
  base: z.string(),
  /** Folder of the interpreter's own programs, as pyvenv.cfg calls `home`. */
  home: z.string(),
  /** 3.11.7 */
  version: z.string(),
  /** cpython, pypy */
  implementation: z.string(),
  /** What its compiled packages are built for: cpython-311-x86_64-linux-gnu. */
  abi: z.string(),
  /** glibc 2.36; empty where there is none. */
  libc: z.string(),
  virtual: z.boolean(),
  /** Folders of installed packages, in the order that they are looked through. */
  sites: z.array(z.string()),
  /** Folder of its programs (pip's console scripts). */
  scripts: z.string(),
  /** The pip that comes with it, as a wheel; null where a distribution took it out. */
  pipWheel: z.string().nullable(),
  /** Whether `-m pip` works. */
  pip: z.boolean(),
  /** Whether `-m venv` works. */
  venv: z.boolean(),
})
export type Interpreter = z.infer<typeof Interpreter>

// runs on every Python from 3.6 on
const question = `
import sys, os, json, site, sysconfig, platform, glob, importlib.util as u
def wheel():
    import ensurepip
    folders = [sysconfig.get_config_var('WHEEL_PKG_DIR'), os.path.join(ensurepip.__path__[0], '_bundled'), '/usr/share/python-wheels']
    found = [sorted(glob.glob(os.path.join(f, 'pip-*.whl'))) for f in folders if f]
    return next((each[-1] for each in found if each), None)
base = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
sites = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
print(json.dumps(dict(
    executable=sys.executable, base=base, home=os.path.dirname(base), version='.'.join(map(str, sys.version_info[:3])),
    implementation=sys.implementation.name, abi=str(sysconfig.get_config_var('SOABI') or sysconfig.get_platform()),
    libc=' '.join(platform.libc_ver()).strip(), virtual=sys.prefix != sys.base_prefix, sites=[s for s in sites if os.path.isdir(s)],
    scripts=sysconfig.get_path('scripts'), pipWheel=wheel() if u.find_spec('ensurepip') else None, pip=u.find_spec('pip') is not None, venv=u.find_spec('venv') is not None)))
`

/** Asks one; null where it is none, does not answer within ten seconds, or is older than 3.6. */
export function askInterpreter(
  command: string,
  variables: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Interpreter | null> {
  // a PYTHONPATH of whoever asks would show folders that the job may not have
  const { PYTHONPATH: _, PYTHONHOME: __, ...env } = variables
  return new Promise(resolve => {
    execFile(command, ['-c', question], { timeout: 10_000, killSignal: 'SIGKILL', env }, (error, stdout) => {
      if (error) return resolve(null)
      const line = stdout.trim().split('\n').at(-1) ?? ''
      const parsed = Interpreter.safeParse(readJson(line))
      resolve(parsed.success && isAtLeast(parsed.data.version, '3.6') ? parsed.data : null)
    })
  })
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null // something that answers to the name of python and is none
  }
}

/**
 * `wanted`: a version such as 3.11 or 3.11.7, or conditions such as >=3.10,<3.13. Without one it is what `python3` means on PATH (in an
 * active virtual environment that one), as when the command is typed. With one the PATH comes first, then Pythons that pyenv, uv and the
 * system keep, the newest first.
 * @throws interpreter_missing, interpreter_version_invalid
 */
export async function findInterpreter(
  wanted: string | null,
  variables: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Interpreter> {
  if (wanted !== null && !isVersionWish(wanted)) throw new Failure('interpreter_version_invalid', { wanted })
  const seen = new Map<string, Interpreter>()
  for (const command of ['python3', 'python']) {
    const found = await askInterpreter(command, variables)
    if (!found) continue
    if (wanted === null || satisfies(found.version, wanted)) return found
    seen.set(found.version, found)
  }
  const others = await candidates(variables)
  for (const path of others) {
    // the name says the version: those that cannot be it are not started
    const named = versionInPath(path)
    if (wanted !== null && named !== null && !mayFit(named, wanted)) {
      if (!seen.has(named) && ![...seen.keys()].some(version => version.startsWith(`${named}.`)))
        seen.set(named, { executable: path } as Interpreter)
      continue
    }
    const found = await askInterpreter(path, variables)
    if (!found) continue
    if (wanted === null || satisfies(found.version, wanted)) return found
    seen.set(found.version, found)
  }
  const here = [...seen.keys()].toSorted(byVersion).reverse()
  throw new Failure('interpreter_missing', {
    wanted: wanted ?? '3.6 or newer',
    here: here.length ? `here are ${here.join(', ')}` : 'there is none here',
  })
}

/** Programs that may be Pythons, the newest first; no two for one path. */
async function candidates(variables: Readonly<Record<string, string | undefined>>): Promise<string[]> {
  const home = variables['HOME'] ?? homedir()
  const onPath = [...(variables['PATH'] ?? '').split(delimiter), '/usr/local/bin', '/usr/bin'].filter(
    folder => folder.startsWith('/') && !folder.endsWith('/shims'),
  )
  const programs = (await Promise.all(onPath.map(folder => entries(folder, /^python3\.\d+$/)))).flat()
  const kept = await Promise.all([
    entries(join(variables['PYENV_ROOT'] ?? join(home, '.pyenv'), 'versions'), /^3\.\d+\.\d+$/),
    entries(
      variables['UV_PYTHON_INSTALL_DIR'] ?? join(variables['XDG_DATA_HOME'] ?? join(home, '.local/share'), 'uv/python'),
      /^cpython-3/,
    ),
  ])
  const all = [...programs, ...kept.flat().map(folder => join(folder, 'bin/python3'))]
  return [...new Set(all)].toSorted((a, b) => byVersion(versionInPath(b) ?? '0', versionInPath(a) ?? '0'))
}

const entries = async (folder: string, name: RegExp): Promise<string[]> =>
  (await readdir(folder).catch(() => [])).filter(each => name.test(each)).map(each => join(folder, each))

/** 3.11 of /usr/bin/python3.11, 3.11.7 of ~/.pyenv/versions/3.11.7/bin/python3. */
const versionInPath = (path: string): string | null =>
  /^python(3\.\d+)$/.exec(path.split('/').at(-1)!)?.[1] ??
  /(?:^|-)(3\.\d+\.\d+)(?:$|-)/.exec(dirname(dirname(path)).split('/').at(-1)!)?.[1] ??
  null

// ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const condition = /^(~=|==|!=|<=|>=|<|>)?\s*(\d+(?:\.\d+){0,2})(\.\*)?$/
const conditionsOf = (wanted: string) => wanted.split(',').map(each => condition.exec(each.trim()))

/** Whether it is a version or a list of conditions (PEP 440, numbers only). */
export const isVersionWish = (wanted: string): boolean => wanted.length <= 100 && conditionsOf(wanted).every(each => each !== null)

/** PEP 440 for final releases: `3.11` alone is any 3.11.x. */
export function satisfies(version: string, wanted: string): boolean {
  return conditionsOf(wanted).every(found => {
    if (!found) return false
    const [, operator, than] = found as unknown as [string, string | undefined, string]
    const prefix = found[3] !== undefined || operator === undefined
    const starts = version === than || version.startsWith(`${than}.`)
    switch (operator) {
      case undefined:
        return starts
      case '==':
        return prefix ? starts : byVersion(version, than) === 0
      case '!=':
        return !(prefix ? starts : byVersion(version, than) === 0)
      case '~=':
        return isAtLeast(version, than) && `${version}.`.startsWith(`${than.split('.').slice(0, -1).join('.')}.`)
      case '>=':
        return isAtLeast(version, than)
      case '<=':
        return !isAtLeast(version, than) || byVersion(version, than) === 0
      case '>':
        return isAtLeast(version, than) && byVersion(version, than) !== 0
      default:
        return !isAtLeast(version, than)
    }
  })
}

/** Of a version that may lack its last number: whether some release of it fits. */
const mayFit = (named: string, wanted: string): boolean =>
  named.split('.').length > 2
    ? satisfies(named, wanted)
    : Array.from({ length: 40 }, (_, i) => `${named}.${i}`).some(each => satisfies(each, wanted))

const isAtLeast = (version: string, than: string): boolean => byVersion(version, than) >= 0

/** Order of versions by their numbers; a missing number is 0. */
export function byVersion(a: string, b: string): number {
  const [left, right] = [a.split('.').map(Number), b.split('.').map(Number)]
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0)
    if (difference !== 0) return Math.sign(difference)
  }
  return 0
}
