/**
 * What a job is, in one canonical form: a job file (SkyPilot's vocabulary), a script on the command line, a trial of a sweep and later a
 * notebook or a pipeline step all become a JobSpec before anything else sees them. It is stored and answered by the API, so it holds no secret.
 */
import { z } from 'zod'
import { SweepDefinition } from './sweeps/search.ts'

export const jobReasons = [
  'user_error',
  'setup_failed',
  'environment_failed',
  'command_not_found',
  'start_failed',
  'oom_host',
  'oom_gpu',
  'timeout',
  'device_missing',
  'preempted',
  'node_lost',
  'lost',
  'infra',
  'cancelled',
] as const
export const JobReason = z.enum(jobReasons)
export type JobReason = z.infer<typeof JobReason>

const seconds = z.number().positive()

/** What each node of the job needs. `exact: false` is SkyPilot's `4+`. */
const Amount = z.strictObject({ amount: z.number().positive(), exact: z.boolean() })

/** Alternatives of accelerators come as a list of these, in order of preference; `count` may be a fraction below 1 for a shared device. */
export const DeviceRequest = z.strictObject({
  vendor: z.enum(['nvidia', 'amd', 'intel', 'apple', 'google', 'habana', 'aws']).nullable(),
  /** Canonical name such as H100, in the words of src/hardware; null: any. */
  name: z.string().max(100).nullable(),
  count: z.number().positive(),
  /** Bytes that each has at least. */
  memory: z.number().positive().nullable(),
})
export type DeviceRequest = z.infer<typeof DeviceRequest>

export const Resources = z.strictObject({
  /** Cores; null: 1. */
  cpus: Amount.nullable(),
  /** Bytes; null: not limited, and counted as nothing. */
  memory: Amount.nullable(),
  /** Any one of them will do; empty: no accelerator. */
  devices: z.array(DeviceRequest).max(20),
  /** Bytes of disk that have to be free where the job writes; null: not asked. */
  disk: z.number().positive().nullable(),
  /** `local`, later slurm/partition, ray/address; null: wherever. */
  infra: z.string().max(200).nullable(),
  labels: z.record(z.string(), z.string()),
})
export type Resources = z.infer<typeof Resources>

export const Runtime = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('none') }),
  z.strictObject({
    kind: z.literal('python'),
    /** At most one of the files; paths relative to workdir. None: the interpreter as it is. */
    requirements: z.string().max(1000).nullable(),
    lock: z.string().max(1000).nullable(),
    project: z.string().max(1000).nullable(),
    conda: z.string().max(1000).nullable(),
    /** "3.11", or conditions such as ">=3.10,<3.13"; null: the one that python3 means. */
    python: z.string().max(20).nullable(),
  }),
  z.strictObject({ kind: z.literal('node') }),
])
export type Runtime = z.infer<typeof Runtime>

export const JobSpec = z.strictObject({
  version: z.literal(1),
  name: z.string().min(1).max(200),
  /** Absolute; where the commands run. Null: an empty folder of the job's own. */
  workdir: z.string().max(4000).nullable(),
  /** How many nodes start together or not at all. */
  nodes: z.int().min(1).max(10_000),
  resources: Resources,
  envs: z.record(z.string(), z.string()),
  /** Names only; the values travel beside the spec and are forgotten when the job has ended. */
  secrets: z.array(z.string()),
  /** Shell text, run once before `run`. */
  setup: z.string().nullable(),
  /** What runs on every node: shell text, or words that no shell reads. */
  run: z.union([z.strictObject({ shell: z.string() }), z.strictObject({ argv: z.array(z.string()).min(1) })]),
  runtime: Runtime,
  /** Log metrics of known frameworks without touching the script. */
  autolog: z.boolean(),
  /** A notebook is executed and kept with its outputs; path relative to workdir. */
  notebook: z.string().nullable(),
  launcher: z.enum(['none', 'torchrun', 'per-accelerator']),
  /** Seconds; null: none. `stop`: from SIGTERM to SIGKILL. */
  timeouts: z.strictObject({ pending: seconds.nullable(), run: seconds.nullable(), stop: seconds }),
  retry: z.strictObject({
    on: z.array(JobReason),
    /** Further attempts beside the first. */
    max: z.int().min(0).max(1000),
    backoff: z.strictObject({ min: seconds, max: seconds }),
    /** Exit codes that are tried again whatever `on` says. */
    exitCodes: z.array(z.int()),
  }),
  /** -1000 (lowest) to 1000. */
  priority: z.int().min(-1000).max(1000),
  /** May be stopped for a job of higher priority, and is queued again. */
  preemptible: z.boolean(),
  /** How many jobs of its group run at once; null: as many as there is room for. */
  parallel: z.int().positive().nullable(),
  /** Stop it when it computes without the accelerator that it asked for. */
  requireDevice: z.boolean(),
  checkpoint: z.strictObject({ dir: z.string(), keep: z.int().positive().nullable() }).nullable(),
  dependsOn: z.array(z.strictObject({ job: z.union([z.int(), z.string()]), when: z.enum(['succeeded', 'ended', 'failed']) })).max(1000),
  /** Shown next to a job's log lines that match; the first that matches decides the reason or what happens. */
  logPolicies: z
    .array(
      z.strictObject({ pattern: z.string().max(1000), reason: JobReason.nullable(), action: z.enum(['none', 'cancel_retries', 'stop']) }),
    )
    .max(100),
  /** Experiment that its run belongs to, by name; null: the default one. Tracking off: no run at all. */
  experiment: z.string().max(500).nullable(),
  track: z.boolean(),
  /** The sweep that it is a trial of: every trial carries the whole definition, so that a sweep can be taken up from its jobs. */
  trial: z.strictObject({ index: z.int().min(0), parameters: z.record(z.string(), z.string()), sweep: SweepDefinition }).nullable(),
})
export type JobSpec = z.infer<typeof JobSpec>

const minute = 60

/** Everything that a spec has besides its name and command, as it is when nobody says otherwise. */
export const plainSpec = (name: string, run: JobSpec['run'], rest: Partial<Omit<JobSpec, 'version' | 'name' | 'run'>> = {}): JobSpec => ({
  version: 1,
  name,
  workdir: null,
  nodes: 1,
  resources: { cpus: null, memory: null, devices: [], disk: null, infra: null, labels: {} },
  envs: {},
  secrets: [],
  setup: null,
  run,
  runtime: { kind: 'none' },
  autolog: false,
  notebook: null,
  launcher: 'none',
  timeouts: { pending: null, run: null, stop: minute },
  retry: { on: ['preempted', 'node_lost', 'infra'], max: 3, backoff: { min: 5, max: 5 * minute }, exitCodes: [] },
  priority: 0,
  preemptible: false,
  parallel: null,
  requireDevice: false,
  checkpoint: null,
  dependsOn: [],
  logPolicies: [],
  experiment: null,
  track: true,
  trial: null,
  ...rest,
})
