/**
 * Where attempts run. The controller (loop.ts) decides what runs and owns attempts and retries; a backend starts one attempt, says how it
 * stands, and stops it. One suite of tests holds for every backend (test/jobs/backend-contract.ts).
 */
import type { Allocation, Attempt, Exit, PreparedEnvironment } from './attempt.ts'

/** A machine or a slice of one that attempts are placed on. */
export interface Node {
  name: string
  cpus: number
  /** Bytes. */
  memory: number
  devices: readonly NodeDevice[]
  /** A node that is gone or drained gets nothing new. */
  usable: boolean
  /** Each node of a job takes a machine of its own; without it they may share this one (a test topology). */
  apart?: boolean
  /** Of the processor, for people. */
  processor?: string
}
export interface NodeDevice {
  /** The vendor's own id (GPU-…), else vendor and number. */
  id: string
  vendor: string
  /** Canonical name: H100, RTX 4090. */
  name: string
  /** Bytes. */
  memory: number
  /** False while a process that is not ours holds it, or it cannot be used; `why` says so. */
  free: boolean
  why: string | null
}

export type Observation =
  | {
      status: 'starting' | 'setting_up' | 'running' | 'stopping'
      since: number
      environment: PreparedEnvironment | null
      /** What has to be said aloud: it computes without the accelerator that it asked for. */
      warnings?: readonly string[]
    }
  | { status: 'ended'; exit: Exit; environment: PreparedEnvironment | null; warnings?: readonly string[] }
  /** It was started and nothing of it can be found: `why` in words. */
  | { status: 'lost'; why: string }
  /** The backend cannot tell now (cut network): nothing is concluded from it. */
  | { status: 'unknown'; why: string }

export interface LogChunk {
  bytes: Uint8Array
  /** Where the next read goes on. */
  next: number
  /** Nothing more will come. */
  end: boolean
}

export interface Backend {
  readonly name: string
  /** What holds here, in words for people: how memory is limited, how processes are found. */
  describe(): Promise<readonly string[]>
  nodes(): Promise<readonly Node[]>
  /** Places wanted nodes; asking again for the same (job, attempt) starts nothing new. Secrets are values by name. */
  start(attempt: Attempt, secrets: Readonly<Record<string, string>>): Promise<void>
  observe(job: number, attempt: number): Promise<Observation>
  /** Asks it to end; SIGKILL after `grace` seconds. Asking again with less grace shortens it. */
  stop(
    job: number,
    attempt: number,
    how: { grace: number; reason: 'cancelled' | 'timeout' | 'preempted' | 'device_missing' },
  ): Promise<void>
  /** Bytes of the log from `offset`, at most `limit`; waits for more until `signal` aborts where `follow` is set. */
  readLog(job: number, attempt: number, options: { offset: number; limit: number; follow: boolean; signal: AbortSignal }): Promise<LogChunk>
  /** Folder or listing of what it left in its output folder, for the controller to log as artifacts; regular files only, no links. */
  outputs(job: number, attempt: number): Promise<readonly { path: string; bytes: number; open(): Promise<NodeJS.ReadableStream> }[]>
  /** Attempts that it knows of, so that a controller that lost its memory finds them. */
  known(): Promise<readonly { job: number; attempt: number; allocation: Allocation }[]>
  /** Forgets an ended attempt and removes its files. */
  forget(job: number, attempt: number): Promise<void>
  close(): Promise<void>
}
