/** How an attempt ended, from what was seen of it. Pure. */
import { constants } from 'node:os'
import type { Exit, Phase } from '../../attempt.ts'
import type { JobReason } from '../../spec.ts'

/** Why the shim itself began to end it; kept on disk (cause.json), so that a shim that takes over knows. */
export interface Cause {
  /** Null: its own exit code says. */
  reason: JobReason | null
  message: string | null
  mayRetry?: boolean
}

export interface Seen {
  phase: Phase
  /** Of the first process that failed, else 0; null: it ended, and nobody knows how. */
  exitCode: number | null
  /** Which process that was, where there are several: `node 1`. */
  who: string | null
  cause: Cause | null
  /** What the wrapper says when the command could not even be tried. */
  refused: string | null
  /** Processes of its control groups that the kernel killed for want of memory. */
  outOfMemoryKills: number
  /** The same count for the whole machine, over the time of the attempt; null: not told here. */
  killsOnMachine: number | null
  /** Bytes that it was allowed, 0: no limit. */
  memoryLimit: number
  /** A line shortly before the end says that an accelerator's memory was used up. */
  outOfDeviceMemory: boolean
  policy: { pattern: string; reason: JobReason | null; mayRetry: boolean } | null
  /** The command's first word; null: a shell's text. */
  command: string | null
  /** Last lines of standard error. */
  errors: readonly string[]
  /** Whatever has to be said beside the end: log lines that are missing, an empty checkpoint folder. */
  remarks: readonly string[]
}

export function verdictOf(seen: Seen): Pick<Exit, 'exitCode' | 'signal' | 'reason' | 'message' | 'mayRetry'> {
  const { exitCode, cause, policy, remarks, who } = seen
  const { reason, message } = reasonOf(seen)
  const said = [message && who ? `${who}: ${message}` : message, ...remarks].filter(Boolean).join(' ')
  const mayRetry = cause?.mayRetry !== false && !(reason !== null && policy?.mayRetry === false)
  return {
    exitCode,
    signal: exitCode === null ? null : signalOf(exitCode),
    reason,
    message: said === '' ? null : said.slice(0, 2000),
    ...(!mayRetry && { mayRetry }),
  }
}

function reasonOf(seen: Seen): { reason: JobReason | null; message: string | null } {
  const { phase, exitCode, cause, refused, outOfMemoryKills: kills, killsOnMachine, outOfDeviceMemory, policy, command, errors } = seen
  if (cause?.reason) return { reason: cause.reason, message: cause.message }
  if (refused !== null) return { reason: 'start_failed', message: refused }
  if (exitCode === 0) {
    const killed = kills > 0 ? `The kernel killed ${kills} of its processes for want of memory, and it ended with 0 all the same.` : null
    return { reason: null, message: killed }
  }
  if (exitCode === null) return { reason: 'lost', message: 'It ended while nobody watched, and how is not known.' }
  if (kills > 0)
    return { reason: 'oom_host', message: `The kernel killed ${kills} of its processes: it used more than the ${gigabytes(seen)} it may.` }
  if (phase === 'environment') return { reason: 'environment_failed', message: lastWords(errors) }
  const policed = policy?.reason ? { reason: policy.reason, message: `Its log matches the policy "${policy.pattern}".` } : null
  if (policed) return policed
  if (outOfDeviceMemory)
    return { reason: 'oom_gpu', message: 'The memory of an accelerator was used up. Use a smaller batch, or a larger device.' }
  if (exitCode === 137) {
    if (killsOnMachine === null)
      return { reason: 'oom_host', message: 'It was killed by SIGKILL, which Plinth did not send: likely for want of memory.' }
    if (killsOnMachine > 0)
      return {
        reason: 'oom_host',
        message: `It was killed, likely for want of memory: meanwhile the kernel killed ${killsOnMachine} process${killsOnMachine === 1 ? '' : 'es'} of this machine for that.`,
      }
  }
  if (phase === 'setup') return { reason: 'setup_failed', message: lastWords(errors) }
  if (exitCode === 127)
    return {
      reason: 'command_not_found',
      message:
        command === null
          ? (errors.findLast(line => /not found|No such file/.test(line)) ?? null)
          : `There is no command ${command}, or its interpreter is missing.`,
    }
  if (exitCode === 126)
    return { reason: 'user_error', message: `${command ?? 'A command'} was found and cannot be run: see its rights and its first line.` }
  const signal = signalOf(exitCode)
  return { reason: 'user_error', message: signal ? `It was ended by ${signal}, which Plinth did not send.` : null }
}

const gigabytes = ({ memoryLimit }: Seen) => (memoryLimit > 0 ? `${(memoryLimit / 2 ** 30).toFixed(2)} GiB` : 'memory')

const lastWords = (errors: readonly string[]): string | null =>
  errors
    .filter(line => line.trim() !== '')
    .slice(-6)
    .join('\n') || null

/** A shell says 128 + n for signal n. */
export function signalOf(exitCode: number): string | null {
  if (exitCode <= 128 || exitCode > 128 + 31) return null
  return Object.entries(constants.signals).find(([, number]) => number === exitCode - 128)?.[0] ?? null
}
