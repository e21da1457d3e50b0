/**
 * The local engine: attempts on this machine, each under a shim of its own (shim.ts) that goes on when this process is gone. Nothing here
 * remembers anything: every answer is read from the attempt's folder, so that a backend made anew answers the same.
 */
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { access, readdir, rm, rmdir, stat } from 'node:fs/promises'
import { extname, join, sep } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { cache } from '../../../config.ts'
import { Failure } from '../../../failure.ts'
import { makeFolder, removeFolder, storageFailure, writeFileAtomic } from '../../../storage/disk.ts'
import { Attempt, Exit, PreparedEnvironment } from '../../attempt.ts'
import type { Backend, Node, Observation } from '../../backend.ts'
import { readLogFile } from '../../log-file.ts'
import { findGroupParents, type GroupParents, noGroups, removeGroups } from './cgroups.ts'
import { ranksOf } from './command.ts'
import { chooseCores, readCores } from './cores.ts'
import { files, latestSupervisor, type Placement, pipesOf, readJson, type StopFile, writeJson, writeReserved } from './folder.ts'
import { listOutputs } from './outputs.ts'
import { cookieName, findMembers, isAlive, processName, signal, thisBoot, uptime } from './processes.ts'
import { checkpointFolder, inheritedVariables } from './variables.ts'

export interface LocalOptions {
  /** The home's folder; attempts lie in jobs/ in it. */
  home: string
  /** What this machine has for jobs. */
  inventory(): Promise<readonly Node[]>
  /** Control groups are used where they can be made; false: never, and processes are found and memory is watched without. */
  controlGroups?: boolean
  /** Bytes of each attempt's log that are kept. */
  logLimit?: number
}

export interface LocalBackend extends Backend {
  /** Numbers of the processes of an attempt that live now, for a look at who uses a device. */
  processes(job: number, attempt: number): Promise<readonly number[]>
}

const usualLogLimit = 512 * 2 ** 20
/** A shim seen from another container lives as long as it has touched its file within these milliseconds. */
const silence = 60_000
/** A shim that dies again and again is started again after ever longer pauses; milliseconds. */
const longestPause = 5_000

const besides = (path: string) => fileURLToPath(new URL(`${path}${extname(import.meta.url)}`, import.meta.url))
const shimPath = besides('./shim')
const environmentPhasePath = besides('../../environments/build')
/** Settings of V8 that a shim runs with. */
export const shimFlags = [
  // log policies are matched in linear time (lookout.ts)
  '--enable-experimental-regexp-engine',
  '--enable-experimental-regexp-engine-on-excessive-backtracks',
  // there is one for each job, and all that it makes is soon gone: 6 MB less after half a million lines (bench/jobs-local.ts --flags)
  '--max-semi-space-size=1',
  // 1 to 2 MB less; without WebAssembly, which the stripping of types needs
  ...(extname(shimPath) === '.js' ? ['--lite-mode'] : []),
]
const run = promisify(execFile)

export function createLocalBackend({ home, inventory, controlGroups = true, logLimit = usualLogLimit }: LocalOptions): LocalBackend {
  const root = join(home, 'jobs')
  const folderOf = (job: number, attempt: number) => join(root, String(job), String(attempt))
  const boot = thisBoot()
  const starting = new Map<string, Promise<void>>()
  /** When the shim of a folder was last started again, and how often in a row. */
  const restarts = new Map<string, { at: number; count: number }>()
  let parents: Promise<GroupParents> | null = null
  const groupParents = () => {
    parents ??= controlGroups ? findGroupParents(`plinth-${process.pid}`, canEnter) : Promise.resolve(noGroups)
    return parents
  }
  let hasTaskset: Promise<boolean> | null = null
  const taskset = () => {
    hasTaskset ??= run('taskset', ['--version']).then(
      () => true,
      () => false,
    )
    return hasTaskset
  }

  /** A shim for the folder, unless one lives. Resolves when it has begun. throws job_not_started */
  function supervise(folder: string): Promise<void> {
    let begun = starting.get(folder)
    if (!begun) {
      begun = startShim(folder).finally(() => starting.delete(folder))
      starting.set(folder, begun)
    }
    return begun
  }

  /** Cores of attempts that had not ended when they were last looked at; read from their folders once. */
  let bound: Promise<Map<string, number[]>> | null = null
  const boundCores = () => {
    bound ??= readBound(root, folderOf)
    return bound
  }

  async function place(attempt: Attempt, folder: string): Promise<Placement> {
    const all = (await taskset()) ? readCores() : []
    const inUse = await boundCores()
    for (const each of inUse.keys()) if (await exists(files(each).exit)) inUse.delete(each)
    const taken = [...inUse.values()].flat()
    const mine: number[] = []
    const cores = attempt.allocation.nodes.map(({ cpus }) => {
      // who did not say how many it needs is counted as one, and may use what is idle
      const chosen = all.length > 0 && cpus > 0 && attempt.spec.resources.cpus !== null ? chooseCores(all, [...taken, ...mine], cpus) : null
      mine.push(...(chosen ?? []))
      return chosen?.join() ?? null
    })
    inUse.set(folder, mine)
    const name = `plinth-${createHash('sha256').update(home).digest('hex').slice(0, 8)}-${attempt.job}-${attempt.attempt}`
    return { name, cores, groups: await groupParents(), logLimit }
  }

  async function over(folder: string): Promise<void> {
    // what a shim that was killed at its very end leaves
    await rm(files(folder).secrets, { force: true })
    const placement = readJson<Placement>(files(folder).placement)
    if (placement) removeGroups(placement.groups, placement.name, placement.cores.length)
    if (bound) (await bound).delete(folder)
    restarts.delete(folder)
  }

  /** How the attempt stands; a shim that died is replaced on the way. */
  async function observe(job: number, attempt: number): Promise<Observation> {
    const folder = folderOf(job, attempt)
    const paths = files(folder)
    const environment = PreparedEnvironment.safeParse(readJson(paths.environment)).data ?? null
    const exit = Exit.safeParse(readJson(paths.exit)).data
    if (exit) {
      await over(folder)
      return { status: 'ended', exit, environment }
    }
    if (!(await exists(paths.attempt))) return { status: 'lost', why: 'Nothing of it is on this machine.' }
    const supervisor = latestSupervisor(folder)
    if (supervisor && supervisor.identity.boot !== boot) {
      const elsewhere = supervisor.identity.boot.split('/')[0] === boot.split('/')[0]
      const sign = await stat(supervisor.path).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0,
      )
      if (elsewhere && Math.abs(Date.now() - sign) < silence)
        return { status: 'unknown', why: 'It runs in another container, which shares this home.' }
      await over(folder)
      return { status: 'lost', why: elsewhere ? 'The container that it ran in has ended.' : 'The machine was started again.' }
    }
    // a power cut may leave half of what had been written
    if (!supervisor && !(readJson(paths.attempt) && readJson(paths.placement)))
      return { status: 'lost', why: 'It was not begun when the machine went down.' }
    if (!supervisor || !isAlive(supervisor.identity)) {
      // it may have ended between the two looks
      const last = Exit.safeParse(readJson(paths.exit)).data
      if (last) {
        await over(folder)
        return { status: 'ended', exit: last, environment }
      }
      const again = await superviseAgain(folder)
      if (again) return { status: 'unknown', why: again }
    }
    const phase = readJson<{ phase: string; since: number }>(paths.phase)
    const since = phase?.since ?? (await stat(paths.attempt)).mtimeMs
    if ((await exists(paths.stop)) || (await exists(paths.cause))) return { status: 'stopping', since, environment }
    return { status: phase === null ? 'starting' : phase.phase === 'run' ? 'running' : 'setting_up', since, environment }
  }

  /** Null, or why there is none yet. */
  async function superviseAgain(folder: string): Promise<string | null> {
    const before = restarts.get(folder)
    const recent = before && performance.now() - before.at < 4 * longestPause ? before : { at: Number.NEGATIVE_INFINITY, count: 0 }
    const pause = recent.count < 3 ? 0 : Math.min(longestPause, 100 * 2 ** (recent.count - 3))
    if (performance.now() - recent.at < pause) return 'Its supervisor died several times and is started again in a moment.'
    restarts.set(folder, { at: performance.now(), count: recent.count + 1 })
    return supervise(folder).then(
      () => null,
      (error: Error) => error.message,
    )
  }

  return {
    name: 'local',
    async describe() {
      const { memory, processes } = await groupParents()
      return [
        'Jobs run as processes of this user, each under a supervisor of its own that goes on when the server ends. A container or a service manager that ends everything with the server ends them too (systemd: KillMode=process keeps them).',
        memory === null
          ? 'Memory: no control group can be made here, so it is looked at every 2 s, and a job that holds more than it may is killed.'
          : `Memory: the kernel keeps the limit (control group, version ${memory.version}).`,
        ...(memory?.version === 2 ? [] : ['Control groups of version 2 with a memory controller: not run here.']),
        processes === null
          ? 'Processes that leave their group are found by a word in their environment.'
          : 'Processes are held together by a control group.',
        (await taskset())
          ? 'Cores: a job that has fewer than the machine is bound to some of them (taskset).'
          : 'Cores: not bound, because taskset is not here.',
        'Accelerators are shown to a job by the variables of their vendors. That is cooperation, not isolation.',
        'Several nodes of one job are process groups on this one machine: a topology for tests.',
      ]
    },
    nodes: inventory,
    async start(given, secrets) {
      // who belongs to an attempt is read from /proc
      if (process.platform !== 'linux') throw new Failure('job_platform', { platform: process.platform })
      const attempt = Attempt.parse(given)
      const folder = folderOf(attempt.job, attempt.attempt)
      const paths = files(folder)
      if (!(await exists(paths.attempt))) {
        await makeFolder(paths.outputs)
        if (attempt.spec.workdir === null) await makeFolder(paths.work)
        await makeFolder(checkpointFolder(attempt, join(folder, '..'))).catch(() => {}) // in a workdir that may not be there: told at the start
        const placement = await place(attempt, folder)
        try {
          if (Object.keys(secrets).length > 0) writeJson(paths.secrets, secrets)
          writeJson(paths.placement, placement)
          writeJson(paths.attempt, attempt) // from here on it is to be started, whoever is asked
        } catch (error) {
          await over(folder)
          throw storageFailure(error, folder)
        }
      }
      if (latestSupervisor(folder) !== null) return
      await supervise(folder).catch(async error => {
        // nothing of it was begun: it never was, so that it is not begun later when nobody expects it
        if (!(await exists(paths.phase))) {
          await over(folder)
          await removeFolder(folder).catch(() => {})
        }
        throw error
      })
    },
    observe,
    async stop(job, attempt, { grace, reason }) {
      const folder = folderOf(job, attempt)
      const paths = files(folder)
      if (!(await exists(paths.attempt)) || (await exists(paths.exit))) return
      const before = readJson<StopFile>(paths.stop)
      const killAt = Math.min(uptime() + grace * 1000, before?.killAt ?? Number.POSITIVE_INFINITY)
      const wish: StopFile = { reason: before?.reason ?? reason, killAt }
      try {
        writeReserved(folder, 'stop.json', wish)
      } catch (error) {
        // nobody has reserved anything yet: its supervisor is about to
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') await writeFileAtomic(paths.stop, JSON.stringify(wish))
        else throw storageFailure(error, paths.stop)
      }
      const supervisor = latestSupervisor(folder)
      if (supervisor && supervisor.identity.boot === boot) signal(supervisor.identity, 'SIGCONT')
    },
    async readLog(job, attempt, options) {
      const folder = folderOf(job, attempt)
      let looked = Number.NEGATIVE_INFINITY
      const ended = async () => {
        if (await exists(files(folder).exit)) return true
        if (performance.now() - looked < 2000) return false
        looked = performance.now()
        return (await observe(job, attempt)).status === 'lost'
      }
      return readLogFile(folder, { ...options, ended })
    },
    outputs: (job, attempt) => listOutputs(files(folderOf(job, attempt)).outputs),
    async known() {
      const attempts = await Promise.all(
        (await listAttempts(root)).map(async ({ job, attempt }) => {
          const read = Attempt.safeParse(readJson(files(folderOf(job, attempt)).attempt)).data
          return read ? [{ job, attempt, allocation: read.allocation }] : []
        }),
      )
      return attempts.flat()
    },
    async forget(job, attempt) {
      const { status } = await observe(job, attempt)
      if (status !== 'ended' && status !== 'lost') throw new Failure('job_active', { job, state: status })
      const folder = folderOf(job, attempt)
      const known = readJson<Attempt>(files(folder).attempt)
      await removeFolder(folder)
      // checkpoints belong to all attempts; they go with the last one, unless they lie elsewhere
      const ofJob = join(folder, '..')
      const checkpoints = known ? checkpointFolder(known, ofJob) : join(ofJob, 'checkpoints')
      const left = await readdir(ofJob).catch(() => [])
      if (left.some(name => /^\d+$/.test(name))) return
      if (checkpoints.startsWith(join(ofJob, sep))) await removeFolder(checkpoints)
      await rmdir(ofJob).catch(() => {}) // somebody else keeps something there
    },
    async processes(job, attempt) {
      const cookie = readJson<Attempt>(files(folderOf(job, attempt)).attempt)?.cookie
      if (cookie === undefined) return []
      return findMembers(cookie).flatMap(({ pid, belongsTo }) => (belongsTo === 'supervisor' ? [] : [pid]))
    },
    async close() {
      await Promise.allSettled(starting.values())
    },
  }

  async function startShim(folder: string): Promise<void> {
    const paths = files(folder)
    const attempt = readJson<Attempt>(paths.attempt)!
    // beside the start of the shim, which makes what it still misses
    const pipes = run('mkfifo', ['-m', '600', ...pipesOf(folder, ranksOf(attempt).length)]).catch(() => {})
    const environmentPhase = (await exists(environmentPhasePath)) ? environmentPhasePath : ''
    let log: number
    try {
      log = openSync(paths.shimLog, 'a', 0o600)
    } catch (error) {
      throw storageFailure(error, paths.shimLog)
    }
    const child = spawn(process.execPath, [...shimFlags, shimPath, folder, environmentPhase, '3'], {
      cwd: '/',
      detached: true,
      stdio: ['ignore', log, log, 'pipe'],
      env: {
        ...inheritedVariables(process.env),
        PLINTH_HOME: home,
        PLINTH_CACHE: cache(),
        // types are stripped, and code is compiled, once and not by each shim
        NODE_COMPILE_CACHE: join(cache(), 'compiled'),
        [cookieName]: attempt.cookie,
        [processName]: 'supervisor',
      },
    })
    closeSync(log)
    const word = await new Promise<string | null>(resolve => {
      child.on('error', error => resolve(error.message))
      // one that was killed is replaced by the next look at the attempt
      child.on('exit', (code, by) => resolve(code === 0 || by !== null ? null : `it ended with ${code}`))
      child.stdio[3]!.on('data', resolve).on('error', () => {})
      ;(child.stdio[3] as Readable).setEncoding('utf8')
    })
    child.stdio[3]!.destroy()
    await pipes
    child.unref() // it outlives us
    if (word === null || word === '.') return
    const code = /^(ENOSPC|EDQUOT|EROFS|EACCES)\b/.exec(word)?.[0]
    throw code === undefined ? new Failure('job_not_started', { job: attempt.job, problem: word }) : storageFailure({ code }, folder)
  }
}

/** Whether a process of ours may go into a control group. */
const canEnter = (file: string): Promise<boolean> =>
  run('/bin/sh', ['-c', 'echo 0 >"$1"', 'plinth', file]).then(
    () => true,
    () => false,
  )

async function readBound(root: string, folderOf: (job: number, attempt: number) => string): Promise<Map<string, number[]>> {
  const cores = new Map<string, number[]>()
  for (const { job, attempt } of await listAttempts(root)) {
    const folder = folderOf(job, attempt)
    if (await exists(files(folder).exit)) continue
    const lists = readJson<Placement>(files(folder).placement)?.cores ?? []
    cores.set(
      folder,
      lists.flatMap(list => list?.split(',').map(Number) ?? []),
    )
  }
  return cores
}

async function listAttempts(root: string): Promise<{ job: number; attempt: number }[]> {
  const numbers = async (path: string) => (await readdir(path).catch(() => [])).filter(name => /^\d+$/.test(name)).map(Number)
  const attempts: { job: number; attempt: number }[] = []
  for (const job of await numbers(root)) for (const attempt of await numbers(join(root, String(job)))) attempts.push({ job, attempt })
  return attempts
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
