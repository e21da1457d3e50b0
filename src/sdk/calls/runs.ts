/** Tracked runs: what they are, what they log, and how they are found. */
import { z } from 'zod'
import { AnyNumber, call, inQuery, page } from '../contract.ts'
import { RunStatus } from '../shapes.ts'

export const RunId = z.string().regex(/^[0-9a-f]{32}$/, 'expected 32 lower-case hexadecimal digits')
const key = z.string().min(1).max(250)
const milliseconds = z.int().min(0)

export const MetricPoint = z.strictObject({
  key,
  value: AnyNumber,
  /** Milliseconds since 1970. */
  timestamp: milliseconds,
  step: z.int(),
})
/** A point as it is logged: it may be the measure of a model, on a dataset. */
export const LoggedPoint = MetricPoint.extend({
  model: z
    .string()
    .regex(/^m-[0-9a-f]{32}$/, 'expected m- and 32 lower-case hexadecimal digits')
    .optional(),
  dataset: z.strictObject({ name: z.string().max(500), digest: z.string().max(36) }).optional(),
})
export const TrackedRun = z.strictObject({
  run: RunId,
  experiment: z.string(),
  name: z.string(),
  status: RunStatus,
  /** Why it is where it is: 'lost', 'interrupted', a failure's code. */
  reason: z.string().nullable(),
  user: z.string(),
  started: z.int(),
  ended: z.int().nullable(),
  /** When the run's process was last heard of, where one promised to be; milliseconds since 1970. */
  heartbeat: z.int().nullable(),
  deleted: z.boolean(),
  location: z.string(),
  params: z.record(z.string(), z.string()),
  tags: z.record(z.string(), z.string()),
  metrics: z.array(MetricPoint),
})
export type TrackedRun = z.infer<typeof TrackedRun>

const run = { run: RunId }
/** Who works on it, so that a run whose process is gone is not believed: given by the SDK, never by hand. */
const Worker = z.strictObject({ pid: z.int(), birth: z.string().max(200), place: z.string().max(500) })

export const calls = {
  startRun: call({
    method: 'POST',
    path: '/api/runs',
    summary: 'Start a run',
    right: 'tracker',
    input: z.strictObject({
      experiment: z.string().default('0'),
      name: z.string().max(500).optional(),
      started: milliseconds.optional(),
      tags: z.record(key, z.string().max(8000)).default({}),
      /** Made by the caller, so that asking twice starts one run. */
      run: RunId.optional(),
      worker: Worker.optional(),
    }),
    output: TrackedRun,
  }),
  getRun: call({
    method: 'GET',
    path: '/api/runs/:run',
    summary: 'One run',
    right: 'viewer',
    input: z.strictObject(run),
    output: TrackedRun,
  }),
  searchRuns: call({
    method: 'POST',
    path: '/api/runs/search',
    summary: 'Find runs: conditions and order as in MLflow',
    right: 'viewer',
    input: z.strictObject({
      /** Without it, all of the project. */
      experiments: z.array(z.string()).max(1000).optional(),
      filter: z.string().max(100_000).default(''),
      orderBy: z.array(z.string().max(1000)).max(20).default([]),
      view: z.enum(['active', 'deleted', 'all']).default('active'),
      limit: z.int().min(1).max(10_000).default(100),
      after: z.string().max(4000).optional(),
    }),
    output: page(TrackedRun),
  }),
  logToRun: call({
    method: 'POST',
    path: '/api/runs/:run/log',
    summary: 'Log metrics, params and tags; all of it or nothing, and sending it again changes nothing',
    right: 'tracker',
    input: z.strictObject({
      ...run,
      metrics: z.array(LoggedPoint).max(10_000).default([]),
      params: z.record(key, z.string().max(6000)).default({}),
      tags: z.record(key, z.string().max(8000)).default({}),
    }),
    output: z.strictObject({}),
  }),
  beat: call({
    method: 'POST',
    path: '/api/runs/:run/heartbeat',
    summary: 'Say that the run is alive',
    right: 'tracker',
    input: z.strictObject(run),
    output: z.strictObject({ status: RunStatus }),
  }),
  resumeRun: call({
    method: 'POST',
    path: '/api/runs/:run/resume',
    summary: 'Go on with a run: it is running again, and the worker that is given answers for it',
    right: 'tracker',
    input: z.strictObject({ ...run, worker: Worker.optional() }),
    output: TrackedRun,
  }),
  endRun: call({
    method: 'POST',
    path: '/api/runs/:run/end',
    summary: 'End a run',
    right: 'tracker',
    input: z.strictObject({
      ...run,
      status: z.enum(['succeeded', 'failed', 'cancelled']),
      reason: z.string().max(200).nullable().default(null),
      ended: milliseconds.optional(),
    }),
    output: TrackedRun,
  }),
  deleteRun: call({
    method: 'DELETE',
    path: '/api/runs/:run',
    summary: 'Delete a run; it can be restored until the next gc',
    right: 'editor',
    input: z.strictObject(run),
    output: z.strictObject({}),
  }),
  restoreRun: call({
    method: 'POST',
    path: '/api/runs/:run/restore',
    summary: 'Restore a deleted run',
    right: 'editor',
    input: z.strictObject(run),
    output: z.strictObject({}),
  }),
  getMetricHistory: call({
    method: 'GET',
    path: '/api/runs/:run/metrics',
    summary: 'One metric over time, with at most so many points: each stands for a stretch of steps, with its least and greatest value',
    right: 'viewer',
    input: z.strictObject({ ...run, key, points: inQuery.integer.min(2).max(10_000).default(1000) }),
    output: z.strictObject({
      key,
      /** How many there are before they are thinned out. */
      total: z.int(),
      points: z.array(
        z.strictObject({ step: z.int(), timestamp: z.int(), value: AnyNumber, least: AnyNumber, greatest: AnyNumber, count: z.int() }),
      ),
    }),
  }),
}
