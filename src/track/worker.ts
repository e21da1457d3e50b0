/**
 * Who works on a run, so that nobody believes the word of a process that is gone. A process is its number *and its birth*, because
 * numbers are used again. Numbers mean something only where they were given: a process in another container or on another machine
 * that shares the home cannot be seen, so there the last sign of life counts.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import { z } from 'zod'
import { isProcessAlive } from '../storage/process.ts'

export const Worker = z.strictObject({
  pid: z.int(),
  /** Boot and ticks since it; empty where the system does not say (anything but Linux), and the number alone has to do. */
  birth: z.string(),
  /** Host and process namespace that gave the number. */
  place: z.string(),
})
export type Worker = z.infer<typeof Worker>

/** A worker touches its run.json this often, in milliseconds; seen from elsewhere it is gone after `silence` without. */
export const heartbeat = 5_000
export const silence = 60_000

export const thisProcess = (): Worker => ({ pid: process.pid, birth: birthOf(process.pid) ?? '', place: here() })

export const isHere = (worker: Worker): boolean => worker.place === here()

/** `lastSign`: when it last touched its run.json, in milliseconds since 1970. */
export function isAlive(worker: Worker, lastSign: number): boolean {
  if (!isHere(worker)) return Date.now() - lastSign < silence
  const birth = birthOf(worker.pid)
  if (birth !== null) return birth === worker.birth
  if (process.platform === 'linux') return false
  return isProcessAlive(worker.pid)
}

/** proc(5), field 22, with the boot's id. Null: no such process, or no /proc. */
function birthOf(pid: number): string | null {
  try {
    const ticks = birthTicks(readFileSync(`/proc/${pid}/stat`, 'utf8'))
    return ticks === null ? null : `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}/${ticks}`
  } catch {
    return null
  }
}

/** From the text of /proc/<pid>/stat; null for a process that is dead and only not collected yet. Names may hold spaces and brackets. */
export function birthTicks(stat: string): string | null {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null)
}

let place: string | null = null
function here(): string {
  place ??= `${hostname()}/${processNamespace()}`
  return place
}

function processNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid')
  } catch {
    return '' // not Linux
  }
}
