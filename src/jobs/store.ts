/** The queue and what became of each job, in the database. Everything asked for in another project is not found. */

import type { Selectable } from 'kysely'
import { sql } from 'kysely'
import { record } from '../db/audit.ts'
import type { Db } from '../db/open.ts'
import { exclusively, speaksPostgres } from '../db/open.ts'
import type { Schema } from '../db/schema.ts'
import { Failure } from '../failure.ts'
import type { Job } from '../sdk/calls/jobs.ts'
import type { RunStatus } from '../sdk/shapes.ts'
import { hasEnded } from '../sdk/shapes.ts'
import type { Allocation } from './attempt.ts'
import { JobSpec } from './spec.ts'

export const activeStates = ['queued', 'starting', 'setting_up', 'running', 'stopping'] as const

export type JobRow = Selectable<Schema['jobs']>
export type AttemptRow = Selectable<Schema['job_attempts']>

/** Who does it, and where. */
export interface Actor {
  user: string
  project: string
}

export interface Submission {
  spec: unknown
  secrets?: Readonly<Record<string, string>>
  key?: string | undefined
  group?: string | undefined
  index?: number | undefined
}

/** Bytes of a spec as JSON: a script belongs into a file of the work folder. */
const largestSpec = 1_000_000

/**
 * Queues a job; under a key that was used before, answers that job. `keepSecrets` is called before the job can start, with its number, where
 * it has any. throws job_spec_invalid, job_secret_missing, job_dependency_unknown, job_key_taken
 */
export async function submitJob(
  db: Db,
  { user, project }: Actor,
  { spec: given, secrets = {}, key, group, index }: Submission,
  { now = Date.now(), keepSecrets }: { now?: number; keepSecrets?: (job: number) => Promise<void> } = {},
): Promise<{ job: number; fresh: boolean }> {
  const spec = readSpec(given)
  for (const name of spec.secrets) if (!Object.hasOwn(secrets, name)) throw new Failure('job_secret_missing', { name })
  const unnamed = Object.keys(secrets).find(name => !spec.secrets.includes(name))
  if (unnamed !== undefined) throw invalid(`it is given a value of the secret ${unnamed}, which it does not name`)
  return await db.transaction().execute(async transaction => {
    const resolved: JobSpec = { ...spec, dependsOn: await dependencies(transaction, project, spec, group) }
    const text = JSON.stringify(resolved)
    const made = await transaction
      .insertInto('jobs')
      .values({
        ...{ project, user, name: spec.name, spec: text, status: 'queued', priority: spec.priority, submitted: now, due: now },
        ...{ attempt: 0, retries: 0, warnings: '[]', key: key ?? null, group: group ?? null, index: index ?? null },
      })
      .onConflict(conflict => conflict.columns(['project', 'key']).doNothing())
      .returning('id')
      .executeTakeFirst()
    if (!made) {
      const known = await transaction
        .selectFrom('jobs')
        .select(['id', 'spec'])
        .where('project', '=', project)
        .where('key', '=', key!)
        .executeTakeFirstOrThrow()
      if (known.spec !== text) throw new Failure('job_key_taken', { job: known.id })
      return { job: known.id, fresh: false }
    }
    if (spec.secrets.length > 0) await keepSecrets?.(made.id)
    await record(transaction, { project, user, action: 'jobs.submit', subject: String(made.id), details: { name: spec.name } })
    return { job: made.id, fresh: true }
  })
}

const variable = /^[A-Za-z_][A-Za-z0-9_]*$/

/** throws job_spec_invalid with the first thing that is wrong, by its name */
export function readSpec(given: unknown): JobSpec {
  const read = JobSpec.safeParse(given)
  if (!read.success) {
    const [issue] = read.error.issues
    throw invalid(`${issue!.path.length > 0 ? `${issue!.path.join('.')}: ` : ''}${issue!.message}`)
  }
  const spec = read.data
  if (JSON.stringify(spec).length > largestSpec) throw invalid('it is larger than 1 MB; put long scripts into a file of the work folder')
  for (const name of [...Object.keys(spec.envs), ...spec.secrets]) {
    if (!variable.test(name)) throw invalid(`"${name.slice(0, 100)}" is no name of a variable`)
    if (name.startsWith('PLINTH_') && !name.startsWith('PLINTH_ARRAY_'))
      throw invalid(`variables that begin with PLINTH_ are set by Plinth, among them ${name}`)
  }
  if (spec.workdir !== null && !/^(\/|[A-Za-z]:[\\/])/.test(spec.workdir)) throw invalid('workdir: it has to be an absolute path')
  const texts = [
    ...Object.values(spec.envs),
    spec.workdir ?? '',
    spec.setup ?? '',
    ...('argv' in spec.run ? spec.run.argv : [spec.run.shell]),
  ]
  if (texts.some(text => text.includes('\0'))) throw invalid('a NUL character cannot be handed to a process')
  for (const { count } of spec.resources.devices)
    if (count >= 1 && !Number.isInteger(count))
      throw invalid(`resources.devices: ${count} accelerators are neither whole ones nor a part of one`)
  return spec
}
const invalid = (problem: string) => new Failure('job_spec_invalid', { problem })

/** By number, each with the name that it was asked for under resolved within the group. They were there before: there is no circle. */
async function dependencies(db: Db, project: string, { dependsOn }: JobSpec, group: string | undefined): Promise<JobSpec['dependsOn']> {
  const resolved: JobSpec['dependsOn'] = []
  for (const { job, when } of dependsOn) {
    let query = db.selectFrom('jobs').select('id').where('project', '=', project)
    if (typeof job === 'number') query = query.where('id', '=', job)
    else query = query.where('group', '=', group ?? '').where('name', '=', job)
    const found = await query.orderBy('id', 'desc').executeTakeFirst()
    if (!found) throw new Failure('job_dependency_unknown', { job: typeof job === 'number' ? `job ${job}` : `a job called ${job}` })
    resolved.push({ job: found.id, when })
  }
  return resolved
}

/** throws job_not_found */
export async function jobRow(db: Db, project: string, job: number): Promise<JobRow> {
  const row = await db.selectFrom('jobs').selectAll().where('id', '=', job).where('project', '=', project).executeTakeFirst()
  if (!row) throw new Failure('job_not_found', { job })
  return row
}

export async function getJob(db: Db, project: string, job: number): Promise<Job> {
  return (await withAttempts(db, [await jobRow(db, project, job)]))[0]!
}

/** Newest first. */
export async function listJobs(
  db: Db,
  project: string,
  {
    limit,
    after,
    state,
    group,
  }: { limit: number; after?: string | undefined; state?: RunStatus | 'active' | undefined; group?: string | undefined },
): Promise<{ items: Job[]; next: string | null }> {
  let query = db.selectFrom('jobs').selectAll().where('project', '=', project)
  if (state === 'active') query = query.where('status', 'in', [...activeStates])
  else if (state !== undefined) query = query.where('status', '=', state)
  if (group !== undefined) query = query.where('group', '=', group)
  if (after !== undefined) query = query.where('id', '<', /^\d{1,15}$/.test(after) ? Number(after) : 0)
  const rows = await query
    .orderBy('id', 'desc')
    .limit(limit + 1)
    .execute()
  const items = await withAttempts(db, rows.slice(0, limit))
  return { items, next: rows.length > limit ? String(items.at(-1)!.job) : null }
}

async function withAttempts(db: Db, rows: readonly JobRow[]): Promise<Job[]> {
  const attempts: AttemptRow[] = []
  const ids = rows.filter(({ attempt }) => attempt > 0).map(({ id }) => id)
  for (let at = 0; at < ids.length; at += 1000)
    attempts.push(
      ...(await db
        .selectFrom('job_attempts')
        .selectAll()
        .where('job', 'in', ids.slice(at, at + 1000))
        .orderBy('job')
        .orderBy('attempt')
        .execute()),
    )
  const of = Map.groupBy(attempts, ({ job }) => job)
  return rows.map(row => asJob(row, of.get(row.id) ?? []))
}

export const asJob = (row: JobRow, attempts: readonly AttemptRow[]): Job => ({
  job: row.id,
  name: row.name,
  project: row.project,
  user: row.user,
  state: row.status as RunStatus,
  reason: row.reason,
  message: row.message,
  exitCode: row.exit_code,
  priority: row.priority,
  submitted: row.submitted,
  started: row.started,
  ended: row.ended,
  run: row.run,
  device: row.device === null ? null : JSON.parse(row.device),
  warnings: JSON.parse(row.warnings),
  attempts: attempts.map(asAttempt),
  group: row.group,
  index: row.index,
  environment: row.environment === null ? null : JSON.parse(row.environment),
  spec: JSON.parse(row.spec),
})

function asAttempt(row: AttemptRow): Job['attempts'][number] {
  const { nodes } = JSON.parse(row.allocation) as Allocation
  return {
    attempt: row.attempt,
    engine: row.engine,
    status: row.status as RunStatus,
    reason: row.reason,
    message: row.message,
    exitCode: row.exit_code,
    signal: row.signal,
    started: row.started,
    ended: row.ended,
    nodes: nodes.map(({ node }) => node),
    devices: nodes.flatMap(({ devices }) => devices.map(({ id }) => id)),
  }
}

/**
 * Somebody wants it to end. One that waits is cancelled at once; one that has ended stays as it is. Asking again with less grace shortens it.
 * `grace`: seconds; otherwise as the job says. throws job_not_found
 */
export async function stopJob(
  db: Db,
  { user, project }: Actor,
  job: number,
  grace: number | undefined,
  { now = Date.now(), endRun }: { now?: number; endRun?: ((db: Db, run: string) => Promise<unknown>) | undefined } = {},
): Promise<void> {
  await db.transaction().execute(async transaction => {
    const row = await jobRow(transaction, project, job)
    if (hasEnded(row.status)) return
    const seconds = grace ?? (JSON.parse(row.spec) as JobSpec).timeouts.stop
    const shorter = row.grace === null ? seconds : Math.min(row.grace, seconds)
    await transaction
      .updateTable('jobs')
      .set(
        row.status === 'queued'
          ? {
              stop: now,
              status: 'cancelled',
              reason: 'cancelled',
              message: row.attempt === 0 ? 'stopped before it ran' : 'stopped between two attempts',
              ended: now,
            }
          : { stop: row.stop ?? now, grace: shorter, status: 'stopping' },
      )
      .where('id', '=', job)
      .execute()
    // one that waited for its next attempt has a run already
    if (row.status === 'queued' && row.run !== null) await endRun?.(transaction, row.run)
    if (row.stop === null) await record(transaction, { project, user, action: 'jobs.stop', subject: String(job) })
  })
}

/** Queued again, as an attempt more. throws job_not_found, job_active, job_secrets_gone */
export async function retryJob(db: Db, { user, project }: Actor, job: number, now: number = Date.now()): Promise<void> {
  await db.transaction().execute(async transaction => {
    const row = await jobRow(transaction, project, job)
    if (!hasEnded(row.status)) throw new Failure('job_active', { job, state: row.status.replaceAll('_', ' ') })
    if ((JSON.parse(row.spec) as JobSpec).secrets.length > 0) throw new Failure('job_secrets_gone', { job })
    await transaction
      .updateTable('jobs')
      .set({
        ...{ status: 'queued', reason: null, message: null, exit_code: null, ended: null, started: null, warnings: '[]' },
        ...{ due: now, retries: 0, stop: null, grace: null, environment: null, device: null },
      })
      .where('id', '=', job)
      .execute()
    await record(transaction, { project, user, action: 'jobs.retry', subject: String(job) })
  })
}

/** Its rows; answers its attempts, whose files are somebody else's. throws job_not_found, job_active */
export async function deleteJob(db: Db, { user, project }: Actor, job: number): Promise<void> {
  await db.transaction().execute(async transaction => {
    const { status } = await endedJob(transaction, project, job)
    await transaction.deleteFrom('job_attempts').where('job', '=', job).execute()
    await transaction.deleteFrom('jobs').where('id', '=', job).execute()
    await record(transaction, { project, user, action: 'jobs.delete', subject: String(job), details: { status } })
  })
}

/** throws job_not_found, job_active */
export async function endedJob(db: Db, project: string, job: number): Promise<JobRow> {
  const row = await jobRow(db, project, job)
  if (!hasEnded(row.status)) throw new Failure('job_active', { job, state: row.status.replaceAll('_', ' ') })
  return row
}

export const attemptsOf = (db: Db, job: number): Promise<AttemptRow[]> =>
  db.selectFrom('job_attempts').selectAll().where('job', '=', job).orderBy('attempt').execute()

// ── for the controller ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** What waits, without specs: there may be ten thousand, and a spec never changes. */
export const queuedJobs = (db: Db) =>
  db
    .selectFrom('jobs')
    .select(['id', 'project', 'priority', 'submitted', 'due', 'attempt', 'group'])
    .where('status', '=', 'queued')
    .orderBy('id')
    .execute()
export type QueuedRow = Awaited<ReturnType<typeof queuedJobs>>[number]

/** Jobs that have an attempt under way, or one that has ended and not been finished with; `job`: only that one. */
export const activeJobs = (db: Db, job?: number) => {
  const all = db
    .selectFrom('jobs as j')
    .innerJoin('job_attempts as a', join => join.onRef('a.job', '=', 'j.id').onRef('a.attempt', '=', 'j.attempt'))
    .select([
      'j.id',
      'j.project',
      'j.user',
      'j.name',
      'j.status',
      'j.priority',
      'j.submitted',
      'j.attempt',
      'j.retries',
      'j.run',
      'j.group',
    ])
    .select(['j.stop', 'j.grace', 'j.warnings', 'j.environment'])
    .select(['a.engine', 'a.status as attemptStatus', 'a.started', 'a.ended', 'a.reason', 'a.message', 'a.exit_code', 'a.allocation'])
    .where('j.status', 'in', ['starting', 'setting_up', 'running', 'stopping'])
  return (job === undefined ? all : all.where('j.id', '=', job)).orderBy('j.id').execute()
}
export type ActiveRow = Awaited<ReturnType<typeof activeJobs>>[number]

export async function specsOf(db: Db, jobs: readonly number[]): Promise<Map<number, JobSpec>> {
  const specs = new Map<number, JobSpec>()
  for (let at = 0; at < jobs.length; at += 1000) {
    const rows = await db
      .selectFrom('jobs')
      .select(['id', 'spec'])
      .where('id', 'in', jobs.slice(at, at + 1000))
      .execute()
    for (const { id, spec } of rows) specs.set(id, JSON.parse(spec))
  }
  return specs
}

export async function statesOf(db: Db, jobs: readonly number[]): Promise<Map<number, { status: string; name: string }>> {
  const states = new Map<number, { status: string; name: string }>()
  for (let at = 0; at < jobs.length; at += 1000)
    for (const { id, status, name } of await db
      .selectFrom('jobs')
      .select(['id', 'status', 'name'])
      .where('id', 'in', jobs.slice(at, at + 1000))
      .execute())
      states.set(id, { status, name })
  return states
}

/** No job gets a number up to this one any more: an engine knows attempts of those that this database does not (it is a copy from before). */
export const passNumbers = (db: Db, upTo: number): Promise<void> =>
  exclusively(db, async transaction => {
    const { last } = await transaction
      .selectFrom('jobs')
      .select(({ fn }) => fn.max('id').as('last'))
      .executeTakeFirstOrThrow()
    if ((last ?? 0) >= upTo) return
    if (speaksPostgres(transaction)) {
      await sql`select setval(pg_get_serial_sequence('jobs', 'id'), greatest(${upTo}::bigint, (select last_value from jobs_id_seq)))`.execute(
        transaction,
      )
      return
    }
    // autoincrement goes on from the greatest number that was ever there
    const values = { id: upTo, project: '', user: '', name: '', spec: '{}', status: 'failed', priority: 0, submitted: 0, due: 0 }
    await transaction
      .insertInto('jobs')
      .values({ ...values, attempt: 0, retries: 0, warnings: '[]' })
      .execute()
    await transaction.deleteFrom('jobs').where('id', '=', upTo).execute()
  })
