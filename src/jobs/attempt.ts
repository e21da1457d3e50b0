/**
 * One try of a job as files, which are the truth about it: whoever asks how it stands reads these, whatever process has died meanwhile.
 *
 *     jobs/<job>/<attempt>/
 *       attempt.json      what is to be done; written before anything starts
 *       secrets.json      values of secrets, mode 0600; removed when the attempt has ended
 *       supervisor.<n>.json  who supervises it (number, birth, boot): the n-th, who took over when the one before had died
 *       phase.json        environment, setup or run, and since when
 *       environment.json  written by the environment phase: what later phases run in
 *       log, log.<offset>, log.index  `<ms> <o|e|p> <line>` in UTF-8; p is what Plinth says (log-file.ts)
 *       outputs/          PLINTH_OUTPUT_DIR
 *       peak.json         greatest memory and device use that was seen
 *       exit.json         how it ended; written last, once
 *       stop.json         somebody wants it to end, and how long it may take; read by the shim
 *
 * Every file but the log is written aside and renamed.
 */
import { z } from 'zod'
import { JobReason, JobSpec } from './spec.ts'

/** A process is its number, its birth and the boot that it was born in. */
export const ProcessIdentity = z.strictObject({ pid: z.int(), birth: z.string(), boot: z.string() })
export type ProcessIdentity = z.infer<typeof ProcessIdentity>

export const phases = ['environment', 'setup', 'run'] as const
export type Phase = (typeof phases)[number]

/** What was leased for the attempt: cores and bytes of each node, and accelerators by their ids. */
export const Allocation = z.strictObject({
  nodes: z.array(
    z.strictObject({
      node: z.string(),
      cpus: z.number().nonnegative(),
      memory: z.number().nonnegative(),
      devices: z.array(z.strictObject({ id: z.string(), vendor: z.string(), name: z.string(), share: z.number() })),
    }),
  ),
})
export type Allocation = z.infer<typeof Allocation>

export const Attempt = z.strictObject({
  job: z.int().positive(),
  attempt: z.int().positive(),
  /** In the environment of every process of the attempt: how those that left their group are found. */
  cookie: z.string(),
  project: z.string(),
  spec: JobSpec,
  allocation: Allocation,
  /** Variables beyond the environment contract: PLINTH_API, PLINTH_RUN_ID, MLFLOW_…; values that are secret are in secrets.json. */
  envs: z.record(z.string(), z.string()),
})
export type Attempt = z.infer<typeof Attempt>

export const Exit = z.strictObject({
  /** As a shell says it: 128 + n where signal n ended it. Null: nobody knows (lost), or nothing ran. */
  exitCode: z.int().nullable(),
  /** Its name, where the exit code stands for one. */
  signal: z.string().nullable(),
  /** Null: it succeeded. */
  reason: JobReason.nullable(),
  /** In words, where there is more to say than the reason does. */
  message: z.string().nullable(),
  /** False: a log policy says that trying again is of no use. */
  mayRetry: z.boolean().optional(),
  phase: z.enum(phases),
  /** Milliseconds since 1970. */
  ended: z.int(),
})
export type Exit = z.infer<typeof Exit>

/** What the environment phase leaves for the phases after it. */
export const PreparedEnvironment = z.strictObject({
  kind: z.enum(['none', 'python', 'node']),
  /** Content address; null where nothing was built. */
  key: z.string().nullable(),
  /** Set for the phases that follow; `path` goes before PATH. */
  envs: z.record(z.string(), z.string()),
  path: z.array(z.string()),
  /** Interpreter, version, and what is installed, for the record of the run. */
  interpreter: z.string().nullable(),
  version: z.string().nullable(),
  packages: z.array(z.string()),
  seconds: z.number(),
  reused: z.boolean(),
})
export type PreparedEnvironment = z.infer<typeof PreparedEnvironment>
