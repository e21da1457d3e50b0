/**
 * Which processes belong to an attempt, and how they are told from others. A number alone says nothing, because numbers are used again: a
 * process is its number, its birth and the boot and namespace that gave the number. Those of an attempt are found by the cookie in their
 * environment, by the session that one of them leads, and by their parents, so that one that forks away, starts a session of its own or
 * overwrites its environment is still found.
 *
 * Only node: modules are imported: the shim uses it.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { ProcessIdentity } from '../../attempt.ts'

/** In the environment of every process of an attempt. */
export const cookieName = 'PLINTH_COOKIE'
/** Beside it: `<phase>.<number>`, or `supervisor`. */
export const processName = 'PLINTH_PROCESS'

/** The boot, and the namespace that gives numbers: in a container that was started again, all processes of before are gone. */
export const thisBoot = (): string => `${readText('/proc/sys/kernel/random/boot_id').trim()}/${namespace()}`

function namespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid')
  } catch {
    return ''
  }
}

/** proc(5), field 22: ticks since boot; empty where the system does not say, and the number alone has to do. Null: there is no such process. */
export function birthOf(pid: number): string | null {
  if (process.platform === 'linux') return statOf(pid)?.birth ?? null
  try {
    process.kill(pid, 0) // signal 0 only asks
    return ''
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? '' : null
  }
}

/** Milliseconds of the machine's uptime: one clock for every process of this boot, which no change of the date moves. */
export const uptime = (): number => Number(process.hrtime.bigint() / 1_000_000n)

export const identityOf = (pid: number): ProcessIdentity | null => {
  const birth = birthOf(pid)
  return birth === null ? null : { pid, birth, boot: thisBoot() }
}

/** Only of processes of this boot and namespace. */
export const isAlive = ({ pid, birth }: Pick<ProcessIdentity, 'pid' | 'birth'>): boolean => birthOf(pid) === birth

export interface Member {
  pid: number
  birth: string
  parent: number
  session: number
  /** What its environment, or its parent's, says that it belongs to; null: only its session or its parent tell. */
  belongsTo: string | null
}

/** Every process of the attempt but this one. Dead ones that nobody has collected are not counted. */
export function findMembers(cookie: string): Member[] {
  if (process.platform !== 'linux') return []
  const needle = Buffer.from(`${cookieName}=${cookie}\0`)
  const all = new Map<number, Member>()
  const found = new Map<number, Member>()
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (!Number.isInteger(pid)) continue
    const stat = statOf(pid)
    if (!stat) continue
    const member = { pid, ...stat, belongsTo: null as string | null }
    all.set(pid, member)
    if (pid === process.pid) continue
    const environment = readBytes(`/proc/${pid}/environ`)
    if (!environment.includes(needle)) continue
    member.belongsTo = variableOf(environment, processName)
    found.set(pid, member)
  }
  const supervisors = new Set([...found.values()].filter(({ belongsTo }) => belongsTo === 'supervisor').map(({ session }) => session))
  supervisors.add(all.get(process.pid)?.session ?? process.pid)
  const sessions = new Map<number, string | null>()
  for (const { session, belongsTo } of found.values()) if (!supervisors.has(session)) sessions.set(session, belongsTo)
  for (let before = -1; before !== found.size; ) {
    before = found.size
    for (const member of all.values()) {
      if (found.has(member.pid) || member.pid === process.pid) continue
      const parent = found.get(member.parent)
      if (!parent && !sessions.has(member.session)) continue
      member.belongsTo = parent?.belongsTo ?? sessions.get(member.session) ?? null
      found.set(member.pid, member)
    }
  }
  return [...found.values()]
}

/** What a process is called, for people. */
export const nameOf = (pid: number): string => readText(`/proc/${pid}/comm`).trim() || '?'

/** Bytes of memory that processes hold; pages that several of them share are counted once where the kernel says so (smaps_rollup). */
export const residentBytes = (pid: number): number => kilobytes(`/proc/${pid}/status`, /^VmRSS:\s+(\d+)/m) ?? 0
export const proportionalBytes = (pid: number): number => kilobytes(`/proc/${pid}/smaps_rollup`, /^Pss:\s+(\d+)/m) ?? residentBytes(pid)

function kilobytes(path: string, pattern: RegExp): number | null {
  const found = pattern.exec(readText(path))?.[1]
  return found === undefined ? null : Number(found) * 1024
}

/** Signals a process if it is still the one that is meant. */
export function signal({ pid, birth }: Pick<ProcessIdentity, 'pid' | 'birth'>, name: NodeJS.Signals): void {
  if (!isAlive({ pid, birth })) return
  try {
    process.kill(pid, name)
  } catch {} // gone meanwhile, or another user's
}

/** Names may hold spaces and brackets; a process that is dead and only not collected yet is none. */
function statOf(pid: number): { parent: number; session: number; birth: string } | null {
  const text = readText(`/proc/${pid}/stat`)
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  if (fields.length < 20 || fields[0] === 'Z' || fields[0] === 'X') return null
  return { parent: Number(fields[1]), session: Number(fields[3]), birth: fields[19]! }
}

function variableOf(environment: Buffer, name: string): string | null {
  const entry = environment
    .toString('latin1')
    .split('\0')
    .find(each => each.startsWith(`${name}=`))
  return entry?.slice(name.length + 1) ?? null
}

const readBytes = (path: string): Buffer => {
  try {
    return readFileSync(path)
  } catch {
    return Buffer.alloc(0) // gone, or another user's
  }
}
const readText = (path: string): string => readBytes(path).toString('latin1')
