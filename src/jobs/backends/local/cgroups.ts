/**
 * Control groups, where this user may make them: a limit of memory that the kernel keeps, and a list of processes that nobody leaves by
 * forking. Memory is limited by version 2, else by version 1; processes are held together by any writable version 2 hierarchy, even one
 * without controllers, as beside version 1.
 *
 * Only node: modules are imported: the shim uses it.
 */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Groups that groups for attempts are made in; null: not here. */
export interface GroupParents {
  memory: { version: 1 | 2; path: string } | null
  processes: string | null
}
export const noGroups: GroupParents = { memory: null, processes: null }

/** What the shim makes for one attempt. */
export interface Groups {
  /** Files that a process of a node writes itself into; `node` null: a phase that the memory of nodes does not limit. */
  entrances(node: number | null): string[]
  /** Bytes of programs' own memory now, without what the kernel caches for them; null where it is not counted. */
  memoryOf(node: number): number | null
  /** How many processes the kernel has killed for want of memory. */
  outOfMemoryKills(node: number): number
  members(): number[]
  kill(): void
  /** Only when nobody is left in them. */
  remove(): boolean
}

interface Mounts {
  unified: { mount: string; own: string } | null
  memory: { mount: string; own: string } | null
}

/** `enter`: tries whether a process may go into a group, given the file it writes itself into. */
export async function findGroupParents(name: string, enter: (file: string) => Promise<boolean>): Promise<GroupParents> {
  const { unified, memory } = findMounts()
  const usable = async (parent: string, file: string | null) => {
    const trial = join(parent, `${name}-trial`)
    try {
      mkdirSync(trial)
    } catch {
      return false // read-only, or not ours
    }
    try {
      if (file !== null) writeFileSync(join(trial, file), String(1 << 30))
      return await enter(join(trial, 'cgroup.procs'))
    } catch {
      return false
    } finally {
      remove(trial)
    }
  }
  // groups with processes of their own give no controllers to groups in them: the one above ours may
  const nearest = unified ? [join(unified.mount, unified.own), dirname(join(unified.mount, unified.own))] : []
  const candidates = nearest.filter(path => unified && path.startsWith(unified.mount))
  const first = async (paths: readonly string[], file: string | null) => {
    for (const path of paths) if (await usable(path, file)) return path
    return null
  }
  const controlled = candidates.filter(path => read(join(path, 'cgroup.subtree_control')).split(/\s+/).includes('memory'))
  const second = await first(controlled, 'memory.max')
  if (second !== null) return { memory: { version: 2, path: second }, processes: second }
  const older = memory ? await first([join(memory.mount, memory.own), memory.mount], 'memory.limit_in_bytes') : null
  return { memory: older === null ? null : { version: 1, path: older }, processes: await first(candidates, null) }
}

function findMounts(): Mounts {
  const own = new Map<string, string>()
  for (const line of read('/proc/self/cgroup').split('\n')) {
    const [, , controllers, path] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? []
    if (path !== undefined) own.set(controllers!, path)
  }
  const mounts: Mounts = { unified: null, memory: null }
  for (const line of read('/proc/self/mountinfo').split('\n')) {
    const [before = '', after = ''] = line.split(' - ')
    const mount = before.split(' ')[4]?.replace(/\\040/g, ' ')
    const [type, , options = ''] = after.split(' ')
    if (mount === undefined) continue
    if (type === 'cgroup2') mounts.unified ??= { mount, own: own.get('') ?? '/' }
    if (type === 'cgroup' && options.split(',').includes('memory')) {
      const controllers = [...own.keys()].find(each => each.split(',').includes('memory'))
      mounts.memory ??= { mount, own: own.get(controllers ?? '') ?? '/' }
    }
  }
  return mounts
}

/**
 * `limits`: bytes a node, 0: none. Groups that an earlier shim made are used as they are.
 * @throws what the system says when a group cannot be made
 */
export function makeGroups({ memory, processes }: GroupParents, name: string, limits: readonly number[]): Groups {
  const limited = memory !== null && limits.some(limit => limit > 0)
  const all = processes === null ? null : join(processes, name)
  const nodeGroup = limits.map((limit, i) =>
    !limited || limit === 0 ? null : memory.version === 2 ? join(all!, `node-${i}`) : join(memory.path, `${name}-${i}`),
  )
  // in version 2 a process is in one group: with groups of nodes in it, the one above them has no processes itself
  const shared = all !== null && limited && memory.version === 2 ? join(all, 'shared') : all
  if (all !== null) make(all)
  if (shared !== null && shared !== all) {
    write(join(all!, 'cgroup.subtree_control'), '+memory')
    make(shared)
  }
  for (const [i, group] of nodeGroup.entries()) {
    if (group === null) continue
    make(group)
    if (memory!.version === 2) {
      write(join(group, 'memory.max'), limits[i]!)
      tryToWrite(join(group, 'memory.swap.max'), 0)
      tryToWrite(join(group, 'memory.oom.group'), 1)
    } else {
      write(join(group, 'memory.limit_in_bytes'), limits[i]!)
      tryToWrite(join(group, 'memory.memsw.limit_in_bytes'), limits[i]!)
    }
  }
  const version = memory?.version
  const made = [...nodeGroup, shared, all].filter(group => group !== null)
  return {
    entrances(node) {
      const group = node === null ? null : nodeGroup[node]
      const inner = version === 2 ? [group ?? shared] : [group, shared]
      return inner.filter(each => each !== null && each !== undefined).map(each => join(each, 'cgroup.procs'))
    },
    memoryOf(node) {
      const group = nodeGroup[node]
      if (!group) return null
      return readNumber(join(group, 'memory.stat'), version === 2 ? /^anon (\d+)/m : /^total_rss (\d+)/m)
    },
    outOfMemoryKills(node) {
      const group = nodeGroup[node]
      if (!group) return 0
      return readNumber(join(group, version === 2 ? 'memory.events' : 'memory.oom_control'), /^oom_kill (\d+)/m) ?? 0
    },
    members: () => (all === null ? [] : [...new Set([all, ...made].flatMap(membersOf))]),
    kill() {
      if (all !== null) tryToWrite(join(all, 'cgroup.kill'), 1)
    },
    remove: () => made.map(remove).every(Boolean),
  }
}

/** Of an attempt that has ended, whoever made them. */
export function removeGroups({ memory, processes }: GroupParents, name: string, nodes: number): void {
  if (memory?.version === 1) for (let i = 0; i < nodes; i++) remove(join(memory.path, `${name}-${i}`))
  if (processes !== null) remove(join(processes, name))
}

const membersOf = (group: string): number[] => read(join(group, 'cgroup.procs')).split('\n').filter(Boolean).map(Number)

function make(group: string): void {
  try {
    mkdirSync(group)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** Groups in it go first. False: somebody is in it. */
function remove(group: string): boolean {
  try {
    for (const { name } of readdirSync(group, { withFileTypes: true }).filter(entry => entry.isDirectory())) remove(join(group, name))
    rmdirSync(group)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
  }
}

const write = (path: string, value: string | number): void => writeFileSync(path, String(value))
function tryToWrite(path: string, value: string | number): void {
  try {
    write(path, value)
  } catch {} // an older kernel, or no swap here
}

const readNumber = (path: string, pattern: RegExp): number | null => {
  const found = pattern.exec(read(path))?.[1]
  return found === undefined ? null : Number(found)
}
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
