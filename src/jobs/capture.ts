/**
 * What an attempt was made of, in one record: the state of the code, the command, the packages and the machine. Taken when the attempt starts,
 * kept in its folder under capture/, and stored with its run: what stands in a table as tags, the rest as files under environment/.
 *
 *     capture/job.json     the record
 *     capture/code.diff    what differs from the commit, secrets masked
 *     capture/files.json   every file of the folder with its size and digest, but for what .plinthignore leaves out
 *     capture/packages.txt what the installer chose, with hashes where there are some (environments/python.ts writes it)
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat, readdir, readFile } from 'node:fs/promises'
import { basename, isAbsolute, join, relative, resolve } from 'node:path'
import { makeFolder, writeFileAtomic } from '../storage/disk.ts'
import type { Attempt } from './attempt.ts'
import { masking } from './environments/masking.ts'
import { maskTokens } from './environments/tokens.ts'
import { type Ignore, readIgnore } from './ignore.ts'

export interface Capture {
  version: 1
  /** ISO 8601. */
  captured: string
  command: string
  /** Null: the command names no file of the folder. */
  script: { path: string; bytes: number; sha256: string } | null
  git: GitState | { none: string }
  files: { count: number; bytes: number; sha256: string; complete: boolean }
  machine: { host: string; platform: string; processor: string; cpus: number; memory: number; devices: string[] }
  plinth: string
}

export interface GitState {
  commit: string
  /** Null: no branch is checked out. */
  branch: string | null
  /** Without user and password. */
  remote: string | null
  /** The folder within the repository, '' where it is its root. */
  folder: string
  dirty: boolean
  /** Paths that differ from the commit, and such that git does not know, at most 1,000 of each. */
  changed: string[]
  untracked: string[]
  /** Null: nothing differs. */
  diff: { bytes: number; complete: boolean } | null
}

export interface CaptureOptions {
  attempt: Pick<Attempt, 'spec' | 'allocation'>
  /** The attempt's. */
  folder: string
  /** Hidden wherever they stand. */
  secrets: Readonly<Record<string, string>>
  machine: Omit<Capture['machine'], 'devices' | 'cpus' | 'memory'>
  plinth: string
}

/** What is more than this is cut, and the record says so. */
const most = { diff: 1_000_000, paths: 1_000, files: 10_000, hashed: 256 * 2 ** 20, milliseconds: 5_000 }

/** Writes the files and answers the record. It fails only where the disk refuses: what cannot be found out is said in the record. */
export async function capture({ attempt, folder, secrets, machine, plinth }: CaptureOptions): Promise<Capture> {
  const { spec, allocation } = attempt
  const into = await makeFolder(folder, 'capture')
  const workdir = spec.workdir ?? join(folder, 'work')
  const hide = (text: string) => maskTokens(masking(Object.values(secrets))(text))
  const [state, files, script] = await Promise.all([gitState(workdir, hide), listFiles(workdir), scriptOf(spec, workdir)])
  const { diff, ...git } = state
  const record: Capture = {
    version: 1,
    captured: new Date().toISOString(),
    command: hide('argv' in spec.run ? spec.run.argv.join(' ') : spec.run.shell),
    script,
    git:
      'none' in git ? git : { ...git, diff: diff === undefined ? null : { bytes: Buffer.byteLength(diff.text), complete: diff.complete } },
    files: { count: files.rows.length, bytes: files.bytes, sha256: files.sha256, complete: files.complete },
    machine: {
      ...machine,
      cpus: allocation.nodes[0]?.cpus ?? 0,
      memory: allocation.nodes[0]?.memory ?? 0,
      devices: allocation.nodes.flatMap(node => node.devices.map(({ name, id }) => `${name} (${id})`)),
    },
    plinth,
  }
  await writeFileAtomic(join(into, 'files.json'), `${JSON.stringify({ complete: files.complete, files: files.rows }, null, 1)}\n`)
  if (diff !== undefined) await writeFileAtomic(join(into, 'code.diff'), diff.text)
  await writeFileAtomic(join(into, 'job.json'), `${JSON.stringify(record, null, 2)}\n`)
  return record
}

/** For the run; MLflow's own names where it has one. */
export function captureTags({ git, script, command, files, plinth }: Capture): Record<string, string> {
  return {
    'mlflow.source.type': 'JOB',
    ...(script && { 'mlflow.source.name': script.path, 'plinth.script.sha256': script.sha256 }),
    'plinth.command': command.slice(0, 4000),
    'plinth.files.sha256': files.sha256,
    'plinth.version': plinth,
    ...('none' in git
      ? { 'plinth.git': git.none }
      : {
          'mlflow.source.git.commit': git.commit,
          ...(git.branch !== null && { 'mlflow.source.git.branch': git.branch }),
          ...(git.remote !== null && { 'mlflow.source.git.repoURL': git.remote }),
          'plinth.git.dirty': String(git.dirty),
        }),
  }
}

/** Files of the record that are there, under the names that they have in the run. */
export async function captureFiles(folder: string): Promise<{ path: string; name: string }[]> {
  const names = await readdir(join(folder, 'capture')).catch(() => [])
  const own = names
    .filter(name => !name.includes('.plinth-part-'))
    .map(name => ({ path: join(folder, 'capture', name), name: `environment/${name}` }))
  const prepared = join(folder, 'environment.json')
  const isThere = await lstat(prepared).then(
    () => true,
    () => false,
  )
  return isThere ? [...own, { path: prepared, name: 'environment/environment.json' }] : own
}

// ── git ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Diff = { text: string; complete: boolean }

async function gitState(
  workdir: string,
  hide: (text: string) => string,
): Promise<(Omit<GitState, 'diff'> & { diff?: Diff }) | { none: string; diff?: never }> {
  const git = (...words: string[]) => runGit(workdir, words)
  const top = await git('rev-parse', '--show-toplevel', '--show-prefix')
  if (top.code !== 0)
    return {
      none: top.missing
        ? 'git is not installed'
        : /not a git repository/i.test(top.errors)
          ? 'the folder is in no repository of git'
          : `git says: ${hide(top.errors.trim().split('\n')[0] ?? '').slice(0, 200)}`,
    }
  const [commit, branch, remote, status] = await Promise.all([
    git('rev-parse', '--verify', 'HEAD'),
    git('symbolic-ref', '--short', '-q', 'HEAD'),
    git('config', '--get', 'remote.origin.url'),
    git('status', '--porcelain=v1', '-z', '--untracked-files=normal', '--ignore-submodules=dirty', '--', '.'),
  ])
  if (commit.code !== 0) return { none: 'the repository has no commit yet' }
  if (status.code !== 0)
    return { none: status.late ? 'git took too long' : `git says: ${hide(status.errors.trim().split('\n')[0] ?? '').slice(0, 200)}` }
  const { changed, untracked } = readStatus(status.output)
  // names of such files stay in `changed`; their content is what they are there to hide
  const hidden = changed.filter(isSecretFile).map(path => `:(exclude,top,literal)${path}`)
  const diff =
    changed.length === 0
      ? null
      : await git(
          'diff',
          '--no-ext-diff',
          '--no-textconv',
          '--no-color',
          '--ignore-submodules=dirty',
          'HEAD',
          '--',
          '.',
          ...hidden.slice(0, 100),
        )
  const text = diff === null ? '' : hide(diff.output.slice(0, most.diff))
  return {
    commit: commit.output.trim(),
    branch: branch.code === 0 ? branch.output.trim() : null,
    remote: remote.code === 0 ? remote.output.trim().replace(/(:\/\/)[^/@]*@/, '$1') : null,
    folder: top.output.split('\n')[1]?.trim().replace(/\/$/, '') ?? '',
    dirty: changed.length > 0 || untracked.length > 0,
    changed: changed.slice(0, most.paths),
    untracked: untracked.slice(0, most.paths),
    ...(diff !== null &&
      text !== '' && { diff: { text, complete: diff.code === 0 && !diff.late && diff.output.length <= most.diff && hidden.length === 0 } }),
  }
}

/** `XY path\0`, and for what was renamed the old path in an entry of its own. */
export function readStatus(text: string): { changed: string[]; untracked: string[] } {
  const [changed, untracked]: [string[], string[]] = [[], []]
  const entries = text.split('\0')
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!
    if (entry.length < 4) continue
    const path = entry.slice(3)
    if (entry.startsWith('??')) untracked.push(path)
    else {
      changed.push(path)
      if (/^(R|C|.R|.C)/.test(entry)) i++
    }
  }
  return { changed, untracked }
}

const isSecretFile = (path: string): boolean =>
  /(^|\/)(\.env(\..*)?|\.netrc|\.pypirc|\.npmrc|id_[a-z0-9]+|credentials(\.json)?|.*\.(pem|key|p12|pfx|kdbx))$/i.test(path)

interface GitAnswer {
  code: number
  output: string
  errors: string
  late: boolean
  missing: boolean
}

/** Reads only: no hook, watcher or program that the repository's own settings name is started, but for its content filters. */
function runGit(folder: string, words: readonly string[]): Promise<GitAnswer> {
  const safe = ['-c', 'core.fsmonitor=false', '-c', 'core.hooksPath=/dev/null', '-c', 'core.pager=cat', '-c', 'core.quotePath=false']
  const env = {
    ...process.env,
    GIT_OPTIONAL_LOCKS: '0',
    GIT_TERMINAL_PROMPT: '0',
    LC_ALL: 'C',
    GIT_DIR: undefined,
    GIT_WORK_TREE: undefined,
    GIT_INDEX_FILE: undefined,
  }
  return new Promise(done => {
    execFile(
      'git',
      [...safe, ...words],
      { cwd: folder, env, timeout: most.milliseconds, killSignal: 'SIGKILL', maxBuffer: 8 * most.diff },
      (error, output, errors) => {
        const cut = error?.code === ('ERR_CHILD_PROCESS_STDIO_MAXBUFFER' as unknown)
        done({
          code: error && !cut ? (typeof error.code === 'number' ? error.code : 1) : 0,
          output,
          errors,
          late: error?.killed === true && !cut,
          missing: error?.code === ('ENOENT' as unknown),
        })
      },
    )
  })
}

// ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface FileRow {
  path: string
  bytes: number
  /** Null: more was there than is hashed. */
  sha256: string | null
}

/** Links are named and not followed. `sha256` is that of the list, so that two folders are compared by one word. */
export async function listFiles(root: string): Promise<{ rows: FileRow[]; bytes: number; sha256: string; complete: boolean }> {
  const ignore = readIgnore(await readFile(join(root, '.plinthignore'), 'utf8').catch(() => ''))
  const until = performance.now() + most.milliseconds
  const paths: { path: string; bytes: number }[] = []
  let complete = true
  for await (const file of walk(root, '', ignore)) {
    if (paths.length >= most.files || performance.now() > until) {
      complete = false
      break
    }
    paths.push(file)
  }
  const rows: FileRow[] = []
  let left = most.hashed
  for (const { path, bytes } of paths) {
    const fits = bytes <= left && performance.now() < until
    const sha256 = fits ? await sha256Of(join(root, path)) : null
    if (fits) left -= bytes
    if (sha256 === null) complete = false
    rows.push({ path, bytes, sha256 })
  }
  const list = createHash('sha256')
  for (const { path, bytes, sha256 } of rows) list.update(`${JSON.stringify([path, bytes, sha256])}\n`)
  return { rows, bytes: rows.reduce((sum, row) => sum + row.bytes, 0), sha256: list.digest('hex'), complete }
}

async function* walk(root: string, folder: string, ignore: Ignore): AsyncGenerator<{ path: string; bytes: number }> {
  const entries = await readdir(join(root, folder), { withFileTypes: true }).catch(() => [])
  // code points, not the reader's language: the digest of the list depends on it
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = folder === '' ? entry.name : `${folder}/${entry.name}`
    if (ignore.leavesOut(path, entry.isDirectory())) continue
    if (entry.isDirectory()) yield* walk(root, path, ignore)
    else if (entry.isFile()) {
      const about = await lstat(join(root, path)).catch(() => null)
      if (about) yield { path, bytes: about.size }
    }
  }
}

/** Null: it is gone, or may not be read. */
async function sha256Of(path: string): Promise<string | null> {
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
    return hash.digest('hex')
  } catch {
    return null
  }
}

/** The first word of the command that is a file of the folder; of a shell text the first word that looks like a script. */
async function scriptOf({ run, notebook }: Attempt['spec'], workdir: string): Promise<Capture['script']> {
  const words = 'argv' in run ? run.argv : (run.shell.match(/[\w./-]+\.(?:py|ipynb|sh|js|mjs|ts|R|jl)\b/g) ?? [])
  for (const word of [...(notebook === null ? [] : [notebook]), ...words].slice(0, 50)) {
    const path = resolve(workdir, word)
    const about = await lstat(path).catch(() => null)
    if (!about?.isFile() || about.size > most.hashed) continue
    const sha256 = await sha256Of(path)
    if (sha256 === null) continue
    const shown = relative(workdir, path)
    return { path: shown.startsWith('..') || isAbsolute(shown) ? basename(path) : shown, bytes: about.size, sha256 }
  }
  return null
}
