/**
 * Supervises one attempt, as a process of its own that outlives the server: `node shim.ts FOLDER [PROGRAM [FD]]` (of the phase
 * `environment`; where whoever started it waits for a word). It takes the attempt through its phases, writes the log, keeps the limits, ends it when it is told to, and writes down how it ended.
 *
 * It may be killed at any instant. All that it knows is on disk before it acts on it, so another one, started on the same folder, goes on
 * where it was: with processes that run, with those that ended meanwhile, with a phase that was not begun.
 *
 * Only node: modules are imported, and no more of them than it takes: there is one of these for each job.
 */
import { closeSync, existsSync, readdirSync, rmSync, utimesSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Attempt, Exit, Phase } from '../../attempt.ts'
import { type Groups, makeGroups, noGroups } from './cgroups.ts'
import { ranksOf } from './command.ts'
import {
  claim,
  files,
  isEmpty,
  isFolder,
  type Placement,
  pipePath,
  pipesOf,
  readBorn,
  readExitCode,
  readJson,
  readText,
  reserveRoom,
  type StopFile,
  tryToWriteJson,
  writeExit,
  writeReserved,
} from './folder.ts'
import { createHerd, pause } from './herd.ts'
import { type Launcher, launch, type Work, workOf } from './launch.ts'
import { openLog } from './log-writer.ts'
import { createLookout } from './lookout.ts'
import { createMemoryWatch } from './memory.ts'
import { findPorts } from './ports.ts'
import { findMembers, identityOf, isAlive, nameOf, signal, uptime } from './processes.ts'
import { makePipes, openPump, type Pump, readPipe } from './pump.ts'
import { checkpointFolder, type Ports, type Rank } from './variables.ts'
import { type Cause, verdictOf } from './verdict.ts'

/** phase.json. Clock times are those of the machine's uptime, which no change of the date moves. */
interface PhaseFile {
  phase: Phase
  /** Milliseconds since 1970. */
  since: number
  /** When setup, or run where there is none, began: `timeouts.run` counts from there. Milliseconds of the uptime. */
  clock: number | null
  /** What the machine counted of processes killed for want of memory when the attempt began; null: it does not say. */
  kills: number | null
}
/** cause.json */
interface CauseFile extends Cause {
  /** Milliseconds of the uptime: when everybody is asked to end, not only the scripts, and when nobody is asked any more. */
  askAllAt: number
  killAt: number
  /** The scripts have been asked. */
  asked: boolean
  /** Which process failed first, of those of a run. */
  first: number | null
}

const [folder, environmentPhase = '', starter = ''] = process.argv.slice(2) as [string, string?, string?]
const paths = files(folder)
const seconds = 1000
/** Milliseconds between two looks at everything. */
const tickEvery = 2 * seconds
/** Milliseconds that processes which outlive their script have before they are asked, and then made, to end. */
const leftoverPatience = 1 * seconds
const leftoverGrace = 10 * seconds

let starterTold = false
process.on('uncaughtException', error => {
  tellStarter(error.message)
  process.stderr.write(`${new Date().toISOString()} ${error.stack}\n`)
  process.exit(70) // the next one goes on from the files
})

const self = identityOf(process.pid)!
const claimed = claim(folder, self, before => before.boot === self.boot && !isAlive(before))
if (claimed === null || existsSync(paths.exit)) process.exit(0)
const isFirst = /\.1\.json$/.test(claimed)

const attempt = readJson<Attempt>(paths.attempt)!
const placement = readJson<Placement>(paths.placement)!
const { spec, allocation } = attempt
const secrets = readJson<Record<string, string>>(paths.secrets) ?? {}
const begun: PhaseFile | null = readJson(paths.phase)
let cause: CauseFile | null = readJson(paths.cause)
let phase: PhaseFile = begun ?? { phase: 'environment', since: Date.now(), clock: null, kills: killsOnMachine() }
/** When somebody outside wants it to have ended at last, in milliseconds of the uptime. */
let stopBy = Number.POSITIVE_INFINITY
let works: Work[] = []
let ports: Ports | null = null
let settled = Promise.withResolvers<void>()
let askedAll = false
let finishing = false
let memoryLooks = 0
let memoryLookAt = 0
/** What wrappers have said of a line that is not whole yet. */
let reports = ''

try {
  reserveRoom(folder)
} catch (error) {
  if (isFirst) throw error // what another one has begun goes on, whatever room there is
}
const lookout = createLookout(spec.logPolicies, paths.policy)
const log = openLog(folder, { limit: placement.logLimit, secrets: Object.values(secrets), inspect: lookout.inspect })
for (const pattern of lookout.unusable)
  log.say(`The log policy "${pattern}" is not used: it looks ahead or back, and only patterns that take linear time are.`)
lookout.onMatch = policy => {
  log.say(`The log matches the policy "${policy.pattern}".`)
  if (policy.action === 'stop')
    begin({ reason: policy.reason ?? 'user_error', message: `Its log matches the policy "${policy.pattern}".` }, spec.timeouts.stop)
}
const pumps = new Map<number, { rank: Rank | null; pumps: Pump[] }>()
const groups = openGroups()
const herd = createHerd(attempt.cookie, groups.holdsAll ? groups : null, () => new Set(wrappersOf().map(({ pid }) => pid)))
const memory = createMemoryWatch(
  allocation.nodes.map(node => node.memory),
  paths.peak,
)

process.on('SIGCONT', () => tick()) // sent when stop.json is there; ignored by a process that is not listening yet
for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
  process.on(name, () =>
    begin(
      { reason: 'infra', message: `Its supervisor was ended by ${name}: the machine is shut down, or somebody ended it.` },
      spec.timeouts.stop,
    ),
  )
const launcher: Launcher = {
  ...{ attempt, placement, folder, secrets, groups, environmentPhase: environmentPhase || null, wrapperEnded },
  failed: (work, why) => settle(work, 125, why),
}
makePipes(pipesOf(folder, ranksOf(attempt).length))
const control = readPipe(paths.control, readReports)
let timer = setTimeout(tick, tickEvery)
tellStarter('.')
await main()

async function main(): Promise<void> {
  if (!isFirst) log.say('Its supervisor was gone; another one has taken over.')
  const order: Phase[] = ['environment', 'setup', 'run']
  for (const each of order.slice(order.indexOf(phase.phase))) {
    const next = await worksOf(each)
    if (next.length === 0) continue
    readStop()
    const known = begun?.phase === each
    if (cause !== null && !known) break // asked to end before it began
    if (!known) {
      phase = { ...phase, phase: each, since: Date.now(), clock: phase.clock ?? (each === 'environment' ? null : uptime()) }
      writeReserved(folder, 'phase.json', phase)
      if (each === 'run' && allocation.nodes.length > 1)
        log.say(`${allocation.nodes.length} nodes are process groups on this one machine: a topology for tests.`)
    }
    settled = Promise.withResolvers()
    works = next
    for (const work of works) openPumps(work.rank)
    for (const work of works) {
      if (known) await resume(work)
      else start(work)
    }
    tick()
    await settled.promise
    if (works.some(({ code }) => code !== 0)) break
    if (each !== 'run') {
      for (const pump of allPumps()) pump.catchUp() // before the same pipes are somebody else's
      endWrappers()
    }
  }
  await finish()
}

function start(work: Work): void {
  if (cause !== null)
    settle(work, null) // the one before it could not be started, or it is to end
  else launch(work, ports, launcher)
}

/** The processes of a phase; none: there is no such phase. */
async function worksOf(each: Phase): Promise<Work[]> {
  if (each === 'setup') return spec.setup === null ? [] : [workOf(folder, each, null)]
  if (each === 'environment')
    return environmentPhase === '' || (spec.runtime.kind === 'none' && !spec.autolog && spec.notebook === null)
      ? []
      : [workOf(folder, each, null)]
  const ranks = ranksOf(attempt)
  ports = readJson<Ports>(paths.ports) ?? (await findPorts(attempt.job, ranks.length))
  tryToWriteJson(paths.ports, ports)
  return ranks.map(rank => workOf(folder, each, rank))
}

function openPumps(rank: Rank | null): void {
  const index = rank?.index ?? 0
  const pumped = pumps.get(index)
  if (pumped) {
    pumped.rank = rank // the same pipe serves the phases before
    return
  }
  const entry = { rank, pumps: [] as Pump[] }
  const prefix = () => prefixOf(entry.rank)
  entry.pumps.push(
    openPump(pipePath(folder, index, 'out'), log.sink('o', prefix)),
    openPump(pipePath(folder, index, 'err'), log.sink('e', prefix)),
  )
  pumps.set(index, entry)
}

function allPumps(): Pump[] {
  return [...pumps.values()].flatMap(each => each.pumps)
}

function prefixOf(rank: Rank | null): string {
  if (rank === null || rank.count === 1) return ''
  return rank.perNode === 1 ? `[node ${rank.node}] ` : `[node ${rank.node}, process ${rank.local}] `
}

/** A process that a shim before this one started, or was about to. */
async function resume(work: Work): Promise<void> {
  for (;;) {
    const code = readExitCode(`${work.files}.exit`)
    if (code !== undefined) return settle(work, code)
    if (readBorn(`${work.files}.born`) !== null) break
    const members = findMembers(attempt.cookie)
    // between fork and the first line of its wrapper: it says who it is in a moment
    if (!members.some(({ belongsTo }) => belongsTo === work.name || belongsTo === 'supervisor')) return start(work)
    await pause(10)
  }
  work.watched = true
  work.terminated = cause?.asked ?? false // by whoever was here before
}

/** Without a word of the wrapper: it was killed, or its word lies in its file. */
function wrapperEnded(work: Work, exit: number | null, by: NodeJS.Signals | null): void {
  if (work.code !== undefined) return
  const code = readExitCode(`${work.files}.exit`)
  const born = readBorn(`${work.files}.born`)
  if (code !== undefined) settle(work, code)
  else if (born && isAlive(born.leader)) work.watched = true
  else if (born) settle(work, by === 'SIGKILL' ? 137 : null)
  else if (by !== null && work.launches < 3)
    start(work) // killed before it began
  else settle(work, 125, exit === null ? `It was killed by ${by} before it began.` : 'It could not be started.')
}

function readReports(bytes: Buffer): void {
  const lines = (reports + bytes.toString('latin1')).split('\n')
  reports = lines.pop()!
  for (const line of lines) {
    const [name, code] = line.split(' ')
    const work = works.find(each => each.name === name)
    if (work && code !== undefined) settle(work, Number(code))
  }
}

function settle(work: Work, code: number | null, refused: string | null = null): void {
  if (work.code !== undefined) return
  work.code = code
  work.refused = refused ?? readText(`${work.files}.failed`)
  if (code !== 0 && cause === null && works.some(each => each.code === undefined)) {
    const who = nameOfWork(work)
    log.say(`${who} ended with ${code ?? 'an unknown code'}: the others are stopped.`)
    begin({ reason: null, message: null }, spec.timeouts.stop, works.indexOf(work))
  }
  if (works.every(each => each.code !== undefined)) settled.resolve()
}

function nameOfWork({ rank, name }: Work): string {
  if (rank === null) return name.split('.')[0]!
  return rank.perNode === 1 ? `Node ${rank.node}` : `Process ${rank.local} of node ${rank.node}`
}

/** Asks the scripts to end; everybody else shortly before `grace` seconds are over; then nobody is asked. Again with less grace: sooner. */
function begin(why: Cause, grace: number, first: number | null = null): void {
  endBy(why, uptime() + grace * seconds, first)
}

function endBy(why: Cause, killAt: number, first: number | null = null): void {
  if (finishing) return
  const left = Math.max(0, killAt - uptime())
  const times = { killAt, askAllAt: killAt - Math.min(5 * seconds, left * 0.2) }
  if (cause === null) {
    cause = { ...why, first, ...times, asked: false }
    writeReserved(folder, 'cause.json', cause)
    if (why.reason !== null)
      log.say(`It is asked to end (${why.reason.replaceAll('_', ' ')}), and has ${(left / seconds).toFixed(1)} s to do so.`)
  } else if (killAt < cause.killAt) {
    cause = { ...cause, ...times }
    writeReserved(folder, 'cause.json', cause)
  }
  tick()
}

function readStop(): void {
  const stop = readJson<StopFile>(paths.stop)
  if (stop === null || stop.killAt >= stopBy) return
  stopBy = stop.killAt
  endBy({ reason: stop.reason, message: null }, stop.killAt)
}

/** Everything that has its time. */
function tick(): void {
  clearTimeout(timer)
  if (!existsSync(paths.attempt)) {
    void abandon()
    return
  }
  readStop()
  log.tick()
  touch(claimed!)
  const now = uptime()
  const { run } = spec.timeouts
  const runEnds = run === null || phase.clock === null || cause !== null ? Number.POSITIVE_INFINITY : phase.clock + run * seconds
  if (now >= runEnds) {
    begin({ reason: 'timeout', message: `It ran for longer than the ${run} s that it may.` }, spec.timeouts.stop)
    return // begin() ticks
  }
  if (now >= memoryLookAt) watchMemory(now)
  const watched = works.filter(work => work.watched && work.code === undefined)
  for (const work of watched) lookAt(work)
  if (cause !== null) carryOut(cause, now)
  const soon = cause !== null || watched.length > 0 ? 200 : tickEvery
  const killAt = cause !== null && cause.killAt > now ? cause.killAt : Number.POSITIVE_INFINITY
  const next = Math.min(now + soon, runEnds, memoryLookAt, killAt)
  clearTimeout(timer) // of what happened meanwhile
  timer = setTimeout(tick, Math.max(5, next - now))
}

function lookAt(work: Work): void {
  const born = readBorn(`${work.files}.born`)
  const gone = !born || (!isAlive(born.leader) && !isAlive(born.wrapper))
  const code = readExitCode(`${work.files}.exit`) // after the look at who lives: a wrapper writes, then ends
  if (code !== undefined || gone) settle(work, code ?? null)
}

function carryOut({ askAllAt, killAt }: CauseFile, now: number): void {
  const running = works.filter(({ code }) => code === undefined)
  if (running.length === 0) return // finish() deals with who is left
  if (now >= killAt) {
    void herd.sweep()
    return
  }
  for (const work of running) {
    const leader = work.terminated ? undefined : readBorn(`${work.files}.born`)?.leader
    if (!leader) continue
    signal(leader, 'SIGTERM')
    work.terminated = true
  }
  if (cause && !cause.asked && running.every(({ terminated }) => terminated)) {
    cause = { ...cause, asked: true }
    writeReserved(folder, 'cause.json', cause)
  }
  if (askedAll || now < askAllAt) return
  askedAll = true
  herd.ask()
}

/** Its folder was removed under it: nobody can ask about it any more, or end it. */
async function abandon(): Promise<void> {
  await createHerd(attempt.cookie, null, () => new Set()).sweep()
  groups.remove()
  process.exit(71)
}

/** The script has ended: what it leaves running ends too. */
async function endLeftovers(): Promise<string | null> {
  const asked = cause !== null
  await gone(uptime() + (asked ? 0 : leftoverPatience))
  const left = herd.members()
  if (left.length === 0) return null
  const names = left.slice(0, 5).map(({ pid }) => `${nameOf(pid)} (${pid})`)
  if (!asked) log.say(`The script has ended and left ${left.length} running, which end too: ${names.join(', ')}`)
  herd.ask()
  await gone(cause?.killAt ?? uptime() + Math.min(leftoverGrace, spec.timeouts.stop * seconds))
  const stubborn = await herd.sweep()
  return stubborn === 0 ? null : `${stubborn} of its processes cannot be killed.`
}

/** Until nobody is left, or the time has come. */
async function gone(at: number): Promise<void> {
  while (herd.members().length > 0 && uptime() < Math.min(at, stopBy)) {
    await pause(50)
    readStop()
  }
}

async function finish(): Promise<void> {
  finishing = true
  const remarks = [await endLeftovers()]
  clearTimeout(timer)
  watchMemory(uptime())
  control.close()
  for (const pump of allPumps()) pump.drain()
  const failed = cause?.first != null ? works[cause.first] : works.find(({ code }) => code !== 0)
  const exitCode = works.length === 0 ? null : failed ? failed.code! : 0
  const lost = log.lost()
  if (lost) remarks.push(`${lost.lines} lines of its output could not be kept (${lost.code}).`)
  if (exitCode === 0 && cause === null) remarks.push(...missingWork())
  for (const remark of remarks) if (remark) log.say(remark)
  const killsNow = killsOnMachine()
  const nodes = allocation.nodes.map((_, node) => node)
  endWrappers()
  const exit: Exit = {
    ...verdictOf({
      phase: phase.phase,
      exitCode,
      who: failed && works.length > 1 ? nameOfWork(failed) : null,
      cause,
      refused: failed?.refused ?? null,
      outOfMemoryKills: nodes.reduce((sum, node) => sum + groups.outOfMemoryKills(node), 0),
      killsOnMachine: killsNow === null || phase.kills === null ? null : killsNow - phase.kills,
      memoryLimit: allocation.nodes[failed?.rank?.node ?? 0]!.memory,
      outOfDeviceMemory: lookout.outOfDeviceMemory(),
      policy: lookout.matched(),
      command: 'argv' in spec.run ? spec.run.argv[0]! : null,
      errors: log.lastErrors(),
      remarks: remarks.filter(remark => remark !== null),
    }),
    phase: phase.phase,
    ended: Date.now(),
  }
  // a disk that became read-only may come back, and nobody else knows how it ended
  while (!tryToWrite(exit)) await pause(seconds)
  log.close()
  await cleanUp()
  process.exit(0)
}

function tryToWrite(exit: Exit): boolean {
  try {
    writeExit(folder, exit)
    return true
  } catch (error) {
    process.stderr.write(`${error}\n`)
    return false
  }
}

/** A script that ends with 0 and has lost its work has not noticed; here it is said at least. */
function missingWork(): string[] {
  const checkpoints = checkpointFolder(attempt, join(folder, '..'))
  return [
    ...(spec.checkpoint !== null && isEmpty(checkpoints) ? ['It ended with 0, and its checkpoint folder is empty.'] : []),
    ...(isFolder(paths.outputs) ? [] : ['It ended with 0, and its output folder is gone.']),
  ]
}

/** They hold the pipes for a shim that takes over; how their scripts ended is in their files. */
function endWrappers(): void {
  for (const wrapping of wrappersOf()) signal(wrapping, 'SIGKILL')
}

function wrappersOf(): { pid: number; birth: string }[] {
  return readdirSync(folder).flatMap(name => (name.endsWith('.born') ? (readBorn(join(folder, name))?.wrapper ?? []) : []))
}

/** exit.json is there: whatever is left behind now is only untidy. */
async function cleanUp(): Promise<void> {
  rmSync(paths.secrets, { force: true })
  for (const name of readdirSync(folder))
    if (/^(control|\d+\.(out|err)|(environment|setup|run)\.\d+\.(born|exit|failed)|.*\.(reserved|sh|part-.*))$/.test(name))
      rmSync(join(folder, name), { force: true })
  for (let tries = 0; !groups.remove() && tries < 50; tries++) await pause(10) // the killed are members until they are collected
}

function openGroups(): Groups & { holdsAll: boolean } {
  const limits = allocation.nodes.map(node => node.memory)
  try {
    return { ...makeGroups(placement.groups, placement.name, limits), holdsAll: placement.groups.processes !== null }
  } catch (error) {
    log.say(`Its control group could not be made (${(error as NodeJS.ErrnoException).code ?? error}): memory is watched instead.`)
    return { ...makeGroups(noGroups, placement.name, limits), holdsAll: false }
  }
}

/** Often at first, for scripts that end soon. */
function watchMemory(now: number): void {
  memoryLookAt = now + Math.min(tickEvery, 250 * 2 ** memoryLooks++)
  if (works.length === 0) return
  const counted = allocation.nodes.map((_, node) => groups.memoryOf(node))
  const over = memory.look(counted, () => {
    const all = allocation.nodes.length > 1 ? findMembers(attempt.cookie) : herd.members().map(member => ({ ...member, belongsTo: null }))
    const nodeOf = new Map(works.map(({ name, rank }) => [name, rank?.node ?? 0]))
    return allocation.nodes.map((_, node) =>
      all.filter(({ belongsTo }) => (nodeOf.get(belongsTo ?? '') ?? 0) === node).map(({ pid }) => pid),
    )
  })
  if (over !== null && phase.phase !== 'environment') begin({ reason: 'oom_host', message: over }, 0)
}

function killsOnMachine(): number | null {
  const found = /^oom_kill (\d+)/m.exec(readText('/proc/vmstat') ?? '')?.[1]
  return found === undefined ? null : Number(found)
}

/** Whoever started it waits for a word: a point, or what is wrong. */
function tellStarter(word: string): void {
  if (starter === '' || starterTold) return
  starterTold = true
  try {
    writeSync(Number(starter), word)
    closeSync(Number(starter))
  } catch {} // it is gone
}

/** Seen from another container, a supervisor lives as long as this file is new. */
function touch(path: string): void {
  try {
    utimesSync(path, new Date(), new Date())
  } catch {} // a read-only disk
}
