/**
 * Requirement files as pip reads them (its req_file.py), taken apart before pip or uv sees them. They are what an environment is made from, so
 * everything that decides what gets installed has to be in hand: nested files and local wheels are read here and go into the content address.
 * And nothing of them is an option: those that are understood leave the text and come back as settings, every other one is refused.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, realpath, stat } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../../failure.ts'

export interface Requirements {
  /** What the installer is given, under paths relative to `root`; the first is the one that names the others. Lines keep their numbers. */
  files: { path: string; text: string }[]
  index: IndexOptions
  /** Both are passed on as they are: names of packages, :all:, :none:. */
  onlyBinary: string[]
  noBinary: string[]
  pre: boolean
  preferBinary: boolean
  /** Every package has to be of a hash that is written down. */
  requireHashes: boolean
  /** What is asked for by name, normalised (PEP 503). */
  names: string[]
  /** Wheels and archives of this machine. */
  artifacts: { path: string; sha256: string }[]
  /** Secrets that addresses in the text want, as in ${TOKEN}. */
  secrets: string[]
  /** Said to the user. */
  notices: string[]
}

export interface IndexOptions {
  /** Null: not said. */
  index: string | null
  extra: string[]
  /** Folders (absolute) and addresses. */
  findLinks: string[]
  noIndex: boolean
}

export interface RequirementsOptions {
  /** Folder that nested files, wheels and folders of wheels lie in; nothing outside is read. */
  root: string
  /** Values for ${NAME}. */
  envs: Readonly<Record<string, string>>
  secrets: Readonly<Record<string, string>>
}

const most = { files: 50, bytes: 2_000_000, artifact: 4 * 2 ** 30 }

export const noIndexOptions = (): IndexOptions => ({ index: null, extra: [], findLinks: [], noIndex: false })
const nothing = (): Requirements => ({
  files: [],
  index: noIndexOptions(),
  onlyBinary: [],
  noBinary: [],
  pre: false,
  preferBinary: false,
  requireHashes: false,
  names: [],
  artifacts: [],
  secrets: [],
  notices: [],
})

/** @throws environment_file_missing, environment_file_invalid */
export async function readRequirements(file: string, options: RequirementsOptions): Promise<Requirements> {
  const root = await realpath(options.root)
  const found = nothing()
  await readFileInto(found, await inside(file, root, { where: file }), { ...options, root }, [])
  return found
}

/** Lines that come from elsewhere than a file (pyproject.toml, environment.yml); none of them may be an option. @throws environment_file_invalid */
export async function requirementsOfLines(lines: readonly string[], where: string, options: RequirementsOptions): Promise<Requirements> {
  const found = nothing()
  const checked: string[] = []
  for (const line of lines) {
    const place = { where, root: await realpath(options.root), folder: options.root, options }
    if (/^\s*-/.test(line)) throw invalid(where, `${quoted(line)} is an option, not a package`, 'Name packages only.')
    checked.push(await requirementLine(found, filled(found, line.trim(), place), place))
  }
  found.files.push({ path: 'requirements.txt', text: checked.map(line => `${line}\n`).join('') })
  return found
}

async function readFileInto(found: Requirements, path: string, options: RequirementsOptions, above: readonly string[]): Promise<void> {
  const shown = relative(options.root, path)
  if (above.includes(path)) throw invalid(shown, 'it asks for itself, by way of another file', 'Take the -r or -c out.')
  if (found.files.some(each => each.path === shown)) return
  if (found.files.length >= most.files) throw invalid(shown, `it is one of more than ${most.files} files`, 'Put them together.')
  const staged = { path: shown, text: '' }
  found.files.push(staged)
  const lines = decode(await readFile(path).catch(error => Promise.reject(missing(shown, error))), shown).split(/\r\n|\r|\n/)
  const kept: string[] = lines.map(() => '')
  for (const { number, text } of logicalLines(lines)) {
    const where = `${shown}, line ${number}`
    const place: Place = { where, root: options.root, folder: dirname(path), options }
    const line = filled(found, text, place)
    if (!line) continue
    if (!line.startsWith('-')) {
      kept[number - 1] = await requirementLine(found, line, place)
      continue
    }
    for (const nested of optionLine(found, words(line, where), place)) {
      const target = await inside(nested.file, options.root, { where, folder: dirname(path) })
      await readFileInto(found, target, options, [...above, path])
      kept[number - 1] += `${nested.option} ${relative(dirname(path), target).split(sep).join('/')} `
    }
    kept[number - 1] = kept[number - 1]!.trimEnd()
  }
  staged.text = `${kept.join('\n').trimEnd()}\n`
}

interface Place {
  where: string
  root: string
  /** Where relative paths start. */
  folder: string
  options: RequirementsOptions
}

// ── lines ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** UTF-8, or UTF-16 by its mark: what `pip freeze > requirements.txt` writes in PowerShell. */
function decode(bytes: Uint8Array, where: string): string {
  if (bytes.length > most.bytes) throw invalid(where, 'it is larger than 2 MB', 'A requirement file names packages.')
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : bytes[0] === 0xfe && bytes[1] === 0xff ? 'utf-16be' : 'utf-8'
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes)
    if (/[\0-\x08\x0b\x0e-\x1f\x7f\u2028\u2029]/.test(text)) throw new RangeError('control characters')
    return text
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error
    throw invalid(where, 'it is no text in UTF-8', 'Save it as UTF-8.')
  }
}

/** Joins lines that end with a backslash and takes comments away, as pip does. */
export function logicalLines(lines: readonly string[]): { number: number; text: string }[] {
  const found: { number: number; text: string }[] = []
  let open: { number: number; text: string } | null = null
  for (const [i, line] of lines.entries()) {
    const isComment = /^\s*#/.test(line)
    open ??= { number: i + 1, text: '' }
    if (line.endsWith('\\') && !isComment) {
      open.text += line.replace(/^\\+|\\+$/g, '')
      continue
    }
    open.text += isComment ? ` ${line}` : line
    found.push(open)
    open = null
  }
  if (open) found.push(open)
  return found.map(({ number, text }) => ({ number, text: withoutComment(text).trim() }))
}

function withoutComment(text: string): string {
  const at = [...text.matchAll(/#/g)].find(({ index }) => index === 0 || /\s/.test(text[index - 1]!))?.index
  return at === undefined ? text : text.slice(0, at)
}

/** ${NAME} of the job's variables now; those of secrets stay for the installer to fill, so that no value is written into a file. */
function filled(found: Requirements, text: string, { where, options }: Place): string {
  return text.replace(/\$\{([A-Z0-9_]+)\}/g, (whole, name: string) => {
    if (Object.hasOwn(options.envs, name)) return options.envs[name]!
    if (!Object.hasOwn(options.secrets, name))
      throw invalid(
        where,
        `it wants the variable ${name}, which the job does not have`,
        `Give it with --envs ${name}=… or --secret ${name}.`,
      )
    found.secrets.push(name)
    return whole
  })
}

/** Words of an option line: quotes group, nothing else is special. */
function words(line: string, where: string): string[] {
  const found = [...line.matchAll(/(?:[^\s'"]|'[^']*'|"[^"]*")+/g)].map(([word]) => word.replace(/'([^']*)'|"([^"]*)"/g, '$1$2'))
  if (line.replace(/'[^']*'|"[^"]*"/g, '').match(/['"]/)) throw invalid(where, 'a quote is not closed', 'Close it.')
  return found
}

// ── options ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Taken = { option: '-r' | '-c'; file: string }

interface Option {
  /** Whether a word follows. */
  value: boolean
  take(found: Requirements, value: string, place: Place): Taken | undefined
}

/** What an option line may say. */
const options: Record<string, Option> = {
  '-r': { value: true, take: (_, file, place) => nested('-r', file, place) },
  '-c': { value: true, take: (_, file, place) => nested('-c', file, place) },
  '-i': { value: true, take: ({ index }, url, place) => set(index, { index: address(url, place) }) },
  '--extra-index-url': { value: true, take: ({ index }, url, place) => set(index, { extra: [...index.extra, address(url, place)] }) },
  '-f': { value: true, take: ({ index }, links, place) => set(index, { findLinks: [...index.findLinks, linksOf(links, place)] }) },
  '--no-index': { value: false, take: ({ index }) => set(index, { noIndex: true }) },
  '--pre': { value: false, take: found => set(found, { pre: true }) },
  '--prefer-binary': { value: false, take: found => set(found, { preferBinary: true }) },
  '--require-hashes': { value: false, take: found => set(found, { requireHashes: true }) },
  '--only-binary': {
    value: true,
    take: (found, names, place) => set(found, { onlyBinary: [...found.onlyBinary, ...packageNames(names, place)] }),
  },
  '--no-binary': {
    value: true,
    take: (found, names, place) => set(found, { noBinary: [...found.noBinary, ...packageNames(names, place)] }),
  },
}
const set = <T extends object>(of: T, values: Partial<T>): undefined => void Object.assign(of, values)
const long: Record<string, string> = {
  '--requirement': '-r',
  '--constraint': '-c',
  '--index-url': '-i',
  '--pypi-url': '-i',
  '--find-links': '-f',
}
const refused: Record<string, [problem: string, remedy: string]> = {
  '-e': editable(),
  '--editable': editable(),
  '--trusted-host': [
    '--trusted-host turns the check of certificates off, which a file of a project may not do',
    'Name the certificate of that server in PIP_CERT or SSL_CERT_FILE where Plinth runs.',
  ],
}
function editable(): [string, string] {
  return [
    'it installs from a folder, whose content changes under an environment that others use too',
    'Take the line out and write pip install -e into setup: what setup installs is in a layer of this job alone.',
  ]
}

function optionLine(found: Requirements, given: readonly string[], place: Place): Taken[] {
  const files: Taken[] = []
  for (let i = 0; i < given.length; i++) {
    const word = given[i]!
    const [, name = word, attached] = /^(--[\w-]+)=(.*)$/s.exec(word) ?? /^(-[a-z])(.+)$/s.exec(word) ?? []
    const no = Object.hasOwn(refused, name) ? refused[name]! : null
    if (no) throw invalid(place.where, no[0], no[1])
    const short = long[name] ?? name
    const option = Object.hasOwn(options, short) ? options[short]! : null
    if (!option) throw invalid(place.where, `the option ${quoted(name)} is not passed on`, `Take it out. Known are ${known}.`)
    const value = option.value ? (attached ?? given[++i]) : ''
    if (value === undefined || (option.value && value === '')) throw invalid(place.where, `${name} lacks its value`, 'Give it one.')
    if (!option.value && attached !== undefined) throw invalid(place.where, `${name} takes no value`, 'Take the value out.')
    const file = option.take(found, value, place)
    if (file) files.push(file)
  }
  return files
}
const known = [...Object.keys(options), ...Object.keys(long)].toSorted().join(', ')

function nested(option: '-r' | '-c', file: string, { where }: Place): Taken {
  if (/^[a-z][a-z+.-]*:/i.test(file))
    throw invalid(where, 'a file of packages is not fetched from an address', 'Download it beside this one.')
  return { option, file }
}

/** http only for machines that are asked for by a mirror's own address: it is the user's to know. */
function address(url: string, { where, options: { secrets } }: Place): string {
  const whole = url.replace(/\$\{([A-Z0-9_]+)\}/g, (_, name: string) => secrets[name] ?? '')
  if (!/^https?:\/\/[^\s\\^`{|}<>"']+$/.test(whole) || !URL.canParse(whole))
    throw invalid(where, `${quoted(withoutUser(url))} is no address of an index`, 'It has to begin with https://.')
  return whole
}

function linksOf(given: string, place: Place): string {
  if (/^https?:/i.test(given)) return address(given, place)
  const path = given.startsWith('file:') ? fromFileUrl(given, place.where) : given
  return resolve(place.folder, path)
}

function packageNames(text: string, { where }: Place): string[] {
  const names = text.split(',').map(each => each.trim())
  const wrong = names.find(name => !/^(:all:|:none:|[A-Za-z0-9][\w.-]*)$/.test(name))
  if (wrong !== undefined) throw invalid(where, `${quoted(wrong)} is no name of a package`, 'Name packages, :all: or :none:.')
  return names
}

// ── packages ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const named = /^([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(\[[\w.,\s-]*\])?\s*(.*)$/s
const versions = /^\(?[\s\w.,<>=!~*+-]*\)?$/
const marker = /^[\s\w.'"()<>=!~,*+-]*$/
const archive = /\.(whl|tar\.gz|tgz|zip|tar\.bz2|tar\.xz)$/i

/** Answers the line as it is given on. */
async function requirementLine(found: Requirements, line: string, place: Place): Promise<string> {
  const { where } = place
  if (/[\0-\x1f\x7f]/.test(line.replaceAll('\t', ' '))) throw invalid(where, 'it holds control characters', 'Write one package a line.')
  // as pip splits: the first word that begins with a dash begins the options
  const at = line.search(/\s-/)
  const [package_, rest] = at < 0 ? [line, ''] : [line.slice(0, at).trimEnd(), line.slice(at)]
  const hashes = hashesOf(rest, where)
  if (hashes.length > 0) found.requireHashes = true
  const body = await packageOf(found, package_, place)
  return [body, ...hashes.map(hash => `--hash=${hash}`)].join(' ')
}

function hashesOf(text: string, where: string): string[] {
  const found: string[] = []
  const given = words(text, where)
  for (let i = 0; i < given.length; i++) {
    const word = given[i]!
    const value = word === '--hash' ? given[++i] : /^--hash=(.*)$/.exec(word)?.[1]
    if (value === undefined) throw invalid(where, `${quoted(word)} stands behind a package, where only --hash may`, 'Take it out.')
    if (!/^sha(256|384|512):[0-9a-f]{64,128}$/i.test(value))
      throw invalid(where, `${quoted(value)} is no hash`, 'Write --hash=sha256:…, as pip hash prints it.')
    found.push(value.toLowerCase())
  }
  return found
}

async function packageOf(found: Requirements, text: string, place: Place): Promise<string> {
  const { where } = place
  if (isSource(text)) return await sourceOf(found, text, place)
  const [, name, extras = '', rest = ''] = named.exec(text) ?? []
  if (name === undefined) throw invalid(where, `${quoted(text)} names no package`, 'Write a package a line, such as numpy>=2.')
  found.names.push(normalised(name))
  const [, url, tail] = /^@\s*(\S+)(.*)$/s.exec(rest) ?? []
  if (url !== undefined) return `${name}${extras} @ ${await sourceOf(found, url, place)}${tail!.trim() ? ` ${markerOf(tail!, where)}` : ''}`
  const semicolon = rest.indexOf(';')
  const [version, condition] = semicolon < 0 ? [rest, ''] : [rest.slice(0, semicolon), rest.slice(semicolon)]
  if (!versions.test(version) || (version.trim() && !/^\s*\(?\s*[<>=!~]/.test(version)))
    throw invalid(where, `${quoted(text)} cannot be read as a package and its version`, 'Write it as in numpy>=2,<3.')
  return `${name}${extras}${version.trim()}${condition ? ` ${markerOf(condition, where)}` : ''}`
}

function markerOf(text: string, where: string): string {
  const condition = text.trim()
  if (!condition.startsWith(';') || !marker.test(condition.slice(1)))
    throw invalid(where, `${quoted(condition)} is no condition`, 'Write it as in ; python_version < "3.12".')
  return condition
}

const isSource = (text: string): boolean =>
  /^[a-z][a-z+]*:/i.test(text) || /^[./~]/.test(text) || /[\\/]/.test(text.split(/[\s;@[]/)[0]!) || archive.test(text.split(/[\s;]/)[0]!)

/** Where a package lies that is not taken from an index. */
async function sourceOf(found: Requirements, text: string, place: Place): Promise<string> {
  const { where } = place
  const scheme = /^([a-z][a-z+]*):/i.exec(text)?.[1]?.toLowerCase()
  if (scheme === 'git+https' || scheme === 'git+ssh') {
    const [, repository, revision] =
      /^(git\+(?:https|ssh):\/\/[\w.:@$%{}/~+-]+?)(?:@([A-Za-z0-9][\w./-]*))?(?:#[\w.=&/-]*)?$/i.exec(text) ?? []
    if (repository === undefined || repository.includes('/-'))
      throw invalid(where, `${quoted(withoutUser(text))} is no address of a repository`, 'Write it as git+https://host/name@revision.')
    if (!/^[0-9a-f]{40}$/.test(revision ?? ''))
      found.notices.push(
        `${where}: taken from ${revision === undefined ? 'the newest commit' : `what ${revision} is now`}; the commit is written down and used from then on`,
      )
    return text
  }
  if (scheme === 'https' || scheme === 'http') {
    if (!/^https?:\/\/[^\s\\^`|<>"']+$/i.test(text)) throw invalid(where, `${quoted(withoutUser(text))} is no address`, 'Check it.')
    return text
  }
  if (scheme !== undefined && scheme !== 'file' && scheme.length > 1)
    throw invalid(
      where,
      `packages are not taken from ${quoted(`${scheme}:`)}`,
      'Use https, git+https or git+ssh, or a wheel beside this file.',
    )
  const path = await inside(scheme === 'file' ? fromFileUrl(text, where) : text, place.root, place)
  const about = await stat(path)
  if (about.isDirectory()) throw invalid(where, ...editable())
  if (!archive.test(path) || !about.isFile() || about.size > most.artifact)
    throw invalid(where, `${quoted(text)} is neither a wheel nor an archive of a package`, 'Name a .whl or .tar.gz.')
  found.artifacts.push({ path, sha256: await sha256Of(path) })
  return `file://${encodeURI(path)}`
}

export const normalised = (name: string): string => name.toLowerCase().replace(/[-_.]+/g, '-')

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

// ── paths ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The real path; what leads out of `root`, also by a link, is refused: an error of the installer would show a line of any file. */
async function inside(file: string, root: string, { where, folder = root }: { where: string; folder?: string }): Promise<string> {
  const path = isAbsolute(file) ? file : join(folder, file)
  const real = await realpath(path).catch((error: NodeJS.ErrnoException) => Promise.reject(missing(file, error)))
  if (real !== root && !real.startsWith(root + sep))
    throw invalid(where, `${quoted(file)} lies outside of the folder of the job`, 'Copy it into the folder.')
  return real
}

function fromFileUrl(url: string, where: string): string {
  try {
    return fileURLToPath(url.replace(/#.*$/, ''))
  } catch {
    throw invalid(where, `${quoted(url)} is no file of this machine`, 'Write its path.')
  }
}

const missing = (file: string, error: NodeJS.ErrnoException): Failure =>
  error.code === 'EISDIR' || error.code === 'ELOOP' || error.code === 'EACCES'
    ? invalid(file, 'it cannot be read', 'Check what it is, and its rights.')
    : new Failure('environment_file_missing', { file })

export const invalid = (where: string, problem: string, remedy: string): Failure =>
  new Failure('environment_file_invalid', { where, problem, remedy })
const quoted = (text: string): string => `"${text.length > 120 ? `${text.slice(0, 117)}…` : text}"`

/** As it may be shown: without the user and password of an address. */
export const withoutUser = (text: string): string => text.replace(/(:\/\/)[^/@\s]*@/g, '$1')
