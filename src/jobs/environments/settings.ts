/**
 * Which package index an installer asks, and with which variables it runs. What the user has set for pip holds for uv too and the other way
 * round (neither reads the other's), a job's own variables stand above those of the machine, and a requirement file's above both. Whatever
 * decides what gets installed is in `identity`, without passwords: a token that is renewed must not make another environment.
 */
import { readFile } from 'node:fs/promises'
import { devNull, homedir } from 'node:os'
import { join } from 'node:path'
import { Failure } from '../../failure.ts'
import { type IndexOptions, noIndexOptions, type Requirements, withoutUser } from './requirements.ts'

export type Variables = Readonly<Record<string, string | undefined>>

export interface PackageSettings extends IndexOptions {
  /** Of the machine and the job, for any tool. */
  variables: Record<string, string>
  /** Sorted pairs for the content address. */
  identity: [name: string, value: string][]
  /** Passwords in addresses, and secrets of the job: masked in all that tools print. */
  masked: string[]
}

export interface SettingsOptions {
  /** Of this process. */
  machine: Variables
  envs: Readonly<Record<string, string>>
  secrets: Readonly<Record<string, string>>
  /** What the requirement files say. */
  asked?: Pick<Requirements, 'index' | 'secrets'>
}

/** Of the machine: what any program needs to run, reach the network and compile. PYTHONPATH and the like stay out: they would decide what is installed. */
const ofMachine =
  /^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|XDG_\w+|(HTTPS?|NO|ALL|FTP)_PROXY|(https?|no|all|ftp)_proxy|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NODE_EXTRA_CA_CERTS|NETRC|SSH_AUTH_SOCK|GIT_SSL_CAINFO|GIT_SSH_COMMAND|LD_LIBRARY_PATH|SYSTEMROOT)$/
/** What a build of a package is steered with; of machine and job, and part of the identity. */
const ofBuilds =
  /^(CC|CXX|CFLAGS|CXXFLAGS|CPPFLAGS|LDFLAGS|CMAKE_ARGS|CMAKE_\w+|MAKEFLAGS|PKG_CONFIG_PATH|CUDA_HOME|CUDA_PATH|ROCM_HOME|TORCH_CUDA_ARCH_LIST|FORCE_CUDA|MAX_JOBS|CARGO_HOME|RUSTUP_HOME|RUSTFLAGS|NPY_\w+|BLIS_\w+|OPENBLAS|[A-Z0-9]+_(BUILD|SKIP|USE|FORCE|WITH)_\w+)$/
/** Settings of installers that are passed on. Those that lead elsewhere (PIP_TARGET, PIP_PREFIX, PIP_LOG, PIP_REQUIREMENT …) are not. */
const ofPip =
  /^PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|PRE|PREFER_BINARY|ONLY_BINARY|NO_BINARY|CONSTRAINT|TIMEOUT|DEFAULT_TIMEOUT|RETRIES|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|KEYRING_PROVIDER|USE_FEATURE|USE_DEPRECATED|UPLOADED_PRIOR_TO)$/
const ofUv =
  /^UV_(INDEX|INDEX_URL|DEFAULT_INDEX|EXTRA_INDEX_URL|INDEX_\w+_(USERNAME|PASSWORD)|FIND_LINKS|INDEX_STRATEGY|PRERELEASE|RESOLUTION|FORK_STRATEGY|EXCLUDE_NEWER|CONSTRAINT|OVERRIDE|BUILD_CONSTRAINT|NO_BUILD|NO_BINARY|CACHE_DIR|NO_CACHE|LINK_MODE|OFFLINE|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|HTTP_TIMEOUT|HTTP_RETRIES|CONCURRENT_\w+|TORCH_BACKEND|KEYRING_PROVIDER|CONFIG_FILE|NO_CONFIG|REQUIRE_HASHES)$/
const ofOthers = /^(CONDARC|CONDA_\w+|MAMBA_\w+|npm_config_(registry|cache|userconfig|https?_proxy|noproxy|cafile|strict_ssl))$/i
/** Those whose value changes what is installed. Addresses are compared by themselves. */
const decides =
  /^(PIP_(PRE|PREFER_BINARY|ONLY_BINARY|NO_BINARY|CONSTRAINT|USE_DEPRECATED|UPLOADED_PRIOR_TO)|UV_(INDEX_STRATEGY|PRERELEASE|RESOLUTION|FORK_STRATEGY|EXCLUDE_NEWER|CONSTRAINT|OVERRIDE|BUILD_CONSTRAINT|NO_BUILD|NO_BINARY|TORCH_BACKEND))$/

/** @throws environment_file_invalid where a pip.conf of the user cannot be read */
export async function packageSettings({ machine, envs, secrets, asked }: SettingsOptions): Promise<PackageSettings> {
  const passes = (name: string) => ofBuilds.test(name) || ofPip.test(name) || ofUv.test(name) || ofOthers.test(name)
  const variables: Record<string, string> = {}
  for (const [name, value] of Object.entries(machine))
    if (value !== undefined && (ofMachine.test(name) || passes(name))) variables[name] = value
  const own = { ...envs, ...secrets }
  for (const [name, value] of Object.entries(own)) if (passes(name) || /^(HTTPS?|NO|ALL)_PROXY$/i.test(name)) variables[name] = value
  for (const name of asked?.secrets ?? []) variables[name] = secrets[name]!

  // pip is told what stands in its files and reads none itself: they may say where else to install to
  for (const [name, value] of await pipFiles(variables)) if (ofPip.test(name)) variables[name] ??= value
  const uvFile = await uvConfiguration(variables)
  const machineIndex = indexOf(variables)
  const wanted = asked?.index ?? noIndexOptions()
  const index: IndexOptions = {
    index: wanted.index ?? machineIndex.index,
    extra: [...machineIndex.extra, ...wanted.extra],
    findLinks: [...machineIndex.findLinks, ...wanted.findLinks],
    noIndex: wanted.noIndex || machineIndex.noIndex,
  }
  const masked = [...Object.values(secrets), ...[index.index ?? '', ...index.extra, ...index.findLinks].flatMap(passwordOf)].filter(
    each => each.length >= 4,
  )
  const deciding = Object.entries(variables).filter(([name]) => decides.test(name) || (ofBuilds.test(name) && !/_HOME$/.test(name)))
  const identity = [
    ['index', withoutUser(index.index ?? '')],
    ...index.extra.map(each => ['extra', withoutUser(each)]),
    ...index.findLinks.map(each => ['links', withoutUser(each)]),
    ['no index', String(index.noIndex)],
    ...deciding,
    ...(uvFile === null ? [] : [['uv.toml', withoutUser(uvFile)]]),
  ] as [string, string][]
  return { ...index, variables, identity: identity.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)), masked }
}

/** The variables that pip runs with, and all the settings that it has. */
export function forPip(
  { variables, index, extra, findLinks, noIndex }: PackageSettings,
  more: { extra?: readonly string[] } = {},
): Record<string, string> {
  return {
    ...without(variables, /^UV_/),
    ...(index !== null && { PIP_INDEX_URL: index }),
    ...list('PIP_EXTRA_INDEX_URL', [...extra, ...(more.extra ?? [])], ' '),
    ...list('PIP_FIND_LINKS', findLinks, ' '),
    ...(noIndex && { PIP_NO_INDEX: '1' }),
    PIP_CONFIG_FILE: devNull,
    PIP_NO_INPUT: '1',
    PIP_DISABLE_PIP_VERSION_CHECK: '1',
    PYTHONNOUSERSITE: '1',
    PYTHONUNBUFFERED: '1',
    GIT_TERMINAL_PROMPT: '0',
  }
}

/** The variables that uv runs with: it reads its own settings by itself, and is told those of pip and of requirement files. See `uvOptions`. */
export function forUv({ variables, index, extra, findLinks }: PackageSettings, more: { torch?: string } = {}): Record<string, string> {
  const certificate = variables['PIP_CERT']
  return {
    ...without(variables, /^(PIP_|UV_(INDEX|INDEX_URL|DEFAULT_INDEX|EXTRA_INDEX_URL|FIND_LINKS)$)/),
    ...(certificate !== undefined && variables['SSL_CERT_FILE'] === undefined && { SSL_CERT_FILE: certificate }),
    ...(index !== null && { UV_DEFAULT_INDEX: index }),
    ...list('UV_INDEX', extra, ' '),
    ...list('UV_FIND_LINKS', findLinks, ','),
    ...(more.torch !== undefined && variables['UV_TORCH_BACKEND'] === undefined && { UV_TORCH_BACKEND: more.torch }),
    // its own Pythons come from the network: those of this machine are what the job is told about
    UV_PYTHON_DOWNLOADS: 'never',
    UV_NO_PROGRESS: '1',
    NO_COLOR: '1',
    PYTHONNOUSERSITE: '1',
    GIT_TERMINAL_PROMPT: '0',
  }
}

/** What uv has no variable for. */
export const uvOptions = ({ noIndex }: PackageSettings): string[] => (noIndex ? ['--no-index'] : [])

const list = (name: string, values: readonly string[], separator: string) => (values.length > 0 ? { [name]: values.join(separator) } : {})
const without = (variables: Record<string, string>, names: RegExp) =>
  Object.fromEntries(Object.entries(variables).filter(([name]) => !names.test(name)))

/** What is set for uv stands above what is set for pip, where both are. */
function indexOf(variables: Record<string, string>): IndexOptions {
  const pip = (name: string) => variables[variableOf(name)]
  const uv = (...names: string[]) => names.map(name => variables[name]).find(value => value)
  const uvExtra = [uv('UV_INDEX'), uv('UV_EXTRA_INDEX_URL')].flatMap(split)
  return {
    index: uv('UV_DEFAULT_INDEX', 'UV_INDEX_URL') || pip('index-url') || null,
    // uv names an index as in name=https://…; pip knows no names
    extra: uvExtra.length > 0 ? uvExtra.map(each => each.replace(/^[\w-]+=(?=https?:)/, '')) : split(pip('extra-index-url')),
    findLinks:
      uv('UV_FIND_LINKS')
        ?.split(/[,\s]+/)
        .filter(Boolean) ?? split(pip('find-links')),
    noIndex: isOn(pip('no-index')),
  }
}
const split = (text: string | undefined): string[] => text?.split(/\s+/).filter(Boolean) ?? []
const isOn = (value: string | undefined): boolean =>
  value !== undefined && !['', '0', 'false', 'no', 'off', 'n', 'f'].includes(value.toLowerCase())
const variableOf = (name: string): string => `PIP_${name.toUpperCase().replaceAll('-', '_')}`
const passwordOf = (url: string): string[] => (URL.canParse(url) ? [new URL(url).password, decodeURIComponent(new URL(url).password)] : [])

// ── the user's files ────────────────────────────────────────────────────────────────────────────────────────────────────────

interface PipSetting {
  section: string
  name: string
  value: string
}

/** By the name of their variable. Of the system, the user and the file that is named; later ones stand above, and [install] above [global]. */
async function pipFiles(variables: Record<string, string>): Promise<Map<string, string>> {
  const home = variables['HOME'] ?? homedir()
  const named = variables['PIP_CONFIG_FILE']
  if (named === devNull) return new Map() // pip's own word for: none of them
  const paths = [
    ...split(variables['XDG_CONFIG_DIRS']?.replaceAll(':', ' ') ?? '/etc/xdg').map(folder => join(folder, 'pip/pip.conf')),
    '/etc/pip.conf',
    join(home, '.pip/pip.conf'),
    join(variables['XDG_CONFIG_HOME'] ?? join(home, '.config'), 'pip/pip.conf'),
    ...(named ? [named] : []),
  ]
  const texts = await Promise.all(paths.map(path => readText(path)))
  const settings = texts.flatMap(text => (text === null ? [] : readIni(text)))
  const of = (wanted: string) =>
    settings.flatMap(({ section, name, value }) => (section === wanted ? [[variableOf(name), value] as const] : []))
  return new Map([...of('global'), ...of('install')])
}

/** What Python's configparser makes of it: indented lines go on with the value above. */
export function readIni(text: string): PipSetting[] {
  const found: PipSetting[] = []
  let section = ''
  for (const line of text.split(/\r?\n/)) {
    if (/^\s*([#;]|$)/.test(line)) continue
    const last = found.at(-1)
    if (/^\s/.test(line) && last?.section === section) {
      last.value = `${last.value} ${line.trim()}`.trim()
      continue
    }
    const heading = /^\[([^\]]+)\]/.exec(line)
    if (heading) {
      section = heading[1]!.trim()
      continue
    }
    const [, name, value] = /^([^=:]+?)\s*[=:]\s*(.*)$/.exec(line.trim()) ?? []
    if (name !== undefined) found.push({ section, name: name.toLowerCase().replaceAll('_', '-'), value: value!.trim() })
  }
  return found
}

async function uvConfiguration(variables: Record<string, string>): Promise<string | null> {
  const home = variables['HOME'] ?? homedir()
  if (isOn(variables['UV_NO_CONFIG'])) return null
  const paths = variables['UV_CONFIG_FILE']
    ? [variables['UV_CONFIG_FILE']]
    : [join(variables['XDG_CONFIG_HOME'] ?? join(home, '.config'), 'uv/uv.toml'), '/etc/uv/uv.toml']
  const texts = (await Promise.all(paths.map(path => readText(path)))).filter(text => text !== null)
  return texts.length > 0 ? texts.join('\n') : null
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (code === 'EACCES')
      throw new Failure('environment_file_invalid', {
        where: 'the settings of pip',
        problem: 'they cannot be read',
        remedy: 'Check the rights of pip.conf.',
      })
    return null
  }
}
