/** Jobs: anything that runs, from the queue to its end. The log is a stream of its own: GET /api/jobs/:job/log. */
import { z } from 'zod'
import { call, inQuery, page, pageInput } from '../contract.ts'
import { Device, RunStatus } from '../shapes.ts'
import { RunId } from './runs.ts'

/** The canonical JobSpec (src/jobs/spec.ts checks it; its JSON form is versioned there). */
const Spec = z.record(z.string(), z.unknown())

export const JobAttempt = z.strictObject({
  attempt: z.int(),
  engine: z.string(),
  status: RunStatus,
  reason: z.string().nullable(),
  message: z.string().nullable(),
  exitCode: z.int().nullable(),
  signal: z.string().nullable(),
  /** Milliseconds since 1970. */
  started: z.int().nullable(),
  ended: z.int().nullable(),
  nodes: z.array(z.string()),
  devices: z.array(z.string()),
})
export const Job = z.strictObject({
  job: z.int(),
  name: z.string(),
  project: z.string(),
  user: z.string(),
  state: RunStatus,
  reason: z.string().nullable(),
  /** In words: why it waits, or how it ended. */
  message: z.string().nullable(),
  exitCode: z.int().nullable(),
  priority: z.int(),
  submitted: z.int(),
  started: z.int().nullable(),
  ended: z.int().nullable(),
  run: RunId.nullable(),
  device: Device.nullable(),
  /** Said aloud: asked for an accelerator and computes without, holds … */
  warnings: z.array(z.string()),
  attempts: z.array(JobAttempt),
  /** Array or sweep that it belongs to, and its place in there. */
  group: z.string().nullable(),
  index: z.int().nullable(),
  environment: z.record(z.string(), z.unknown()).nullable(),
  spec: Spec,
})
export type Job = z.infer<typeof Job>

const job = { job: inQuery.integer.positive() }

export const calls = {
  submitJob: call({
    method: 'POST',
    path: '/api/jobs',
    summary: 'Queue a job',
    right: 'editor',
    input: z.strictObject({
      spec: Spec,
      /** Values of the secrets that the spec names; kept until the job has ended, answered by nothing. */
      secrets: z.record(z.string(), z.string().max(100_000)).default({}),
      /** Made by the caller, so that asking twice queues one job. */
      key: z.string().min(8).max(100).optional(),
      group: z.string().max(200).optional(),
      index: z.int().min(0).optional(),
    }),
    output: Job,
  }),
  listJobs: call({
    method: 'GET',
    path: '/api/jobs',
    summary: 'Jobs, newest first',
    right: 'viewer',
    input: z.strictObject({
      ...pageInput,
      /** active: those that have not ended. */
      state: z.union([RunStatus, z.literal('active')]).optional(),
      group: z.string().max(200).optional(),
    }),
    output: page(Job),
  }),
  getJob: call({
    method: 'GET',
    path: '/api/jobs/:job',
    summary: 'One job with its attempts',
    right: 'viewer',
    input: z.strictObject(job),
    output: Job,
  }),
  stopJob: call({
    method: 'POST',
    path: '/api/jobs/:job/stop',
    summary: 'Stop a job: SIGTERM, then SIGKILL after the grace period',
    right: 'editor',
    input: z.strictObject({ ...job, grace: z.number().min(0).max(86_400).optional() }),
    output: Job,
  }),
  retryJob: call({
    method: 'POST',
    path: '/api/jobs/:job/retry',
    summary: 'Queue another attempt of a job that has ended',
    right: 'editor',
    input: z.strictObject(job),
    output: Job,
  }),
  deleteJob: call({
    method: 'DELETE',
    path: '/api/jobs/:job',
    summary: 'Delete a job that has ended, with its log',
    right: 'editor',
    input: z.strictObject(job),
    output: z.strictObject({}),
  }),
  listNodes: call({
    method: 'GET',
    path: '/api/nodes',
    summary: 'Machines that jobs run on: what they have, what is leased',
    right: 'viewer',
    input: z.strictObject({}),
    output: z.strictObject({
      nodes: z.array(
        z.strictObject({
          name: z.string(),
          engine: z.string(),
          usable: z.boolean(),
          cpus: z.strictObject({ total: z.number(), leased: z.number() }),
          memory: z.strictObject({ total: z.number(), leased: z.number() }),
          devices: z.array(
            z.strictObject({
              id: z.string(),
              vendor: z.string(),
              name: z.string(),
              memory: z.number(),
              leased: z.number(),
              why: z.string().nullable(),
            }),
          ),
        }),
      ),
    }),
  }),
}
