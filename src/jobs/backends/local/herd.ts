/**
 * Everybody who belongs to an attempt, however they got away from their script: by its control group where there is one, else by
 * their environment, session and parents.
 *
 * Only node: modules are imported: the shim uses it.
 */
import type { Groups } from './cgroups.ts'
import { findMembers, identityOf, signal, uptime } from './processes.ts'

export interface Herd {
  /** But for wrappers and supervisors. */
  members(): { pid: number; birth: string }[]
  /** Asks each to end. */
  ask(): void
  /** Kills everybody, and whoever they start meanwhile. Answers how many could not be ended: a disk or a device does not answer them. */
  sweep(): Promise<number>
}

/** Milliseconds. */
const sweepFor = 10_000

/** `groups`: null where processes are not held together by one. `wrappers`: numbers of processes that stay. */
export function createHerd(cookie: string, groups: Groups | null, wrappers: () => ReadonlySet<number>): Herd {
  const members = () => {
    const kept = wrappers()
    const all = groups
      ? groups.members().flatMap(pid => identityOf(pid) ?? [])
      : findMembers(cookie).filter(({ belongsTo }) => belongsTo !== 'supervisor')
    return all.filter(({ pid }) => pid !== process.pid && !kept.has(pid))
  }
  let sweeping: Promise<number> | null = null
  return {
    members,
    ask() {
      for (const member of members()) signal(member, 'SIGTERM')
    },
    sweep() {
      sweeping ??= sweep().finally(() => {
        sweeping = null
      })
      return sweeping
    },
  }

  async function sweep(): Promise<number> {
    for (const end = uptime() + sweepFor; ; ) {
      const left = members()
      if (left.length === 0 || uptime() > end) return left.length
      groups?.kill()
      for (const member of left) signal(member, 'SIGKILL')
      await pause(20)
    }
  }
}

export const pause = (milliseconds: number): Promise<void> => new Promise(done => setTimeout(done, milliseconds))
