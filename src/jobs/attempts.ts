/**
 * One attempt from its row to its end. Each step can be done again: the row is there before anything starts, starting is idempotent, an end is
 * written once. So whoever takes over after a kill between any two steps does the next one, whichever that is.
 *
 *     begin      row in the database → token → backend.start            again: the same token, the same cookie, nothing new is started
 *     end        attempt ended, token dead, lease free, queued again?   one transaction
 *     finish     outputs kept → job and run ended → secrets forgotten   a job whose newest attempt has ended and which has not is here
 */
import { randomBytes } from 'node:crypto'
import type { Db } from '../db/open.ts'
import { Failure, forOthers } from '../failure.ts'
import { hasEnded } from '../sdk/shapes.ts'
import { comesAgain, endOf } from './after.ts'
import type { Allocation, Attempt, Exit } from './attempt.ts'
import type { Backend, Observation } from './backend.ts'
import { compareWithForecast, keepRecord, type Machine, type Recorded, recordAttempt } from './beside.ts'
import type { Placed } from './board.ts'
import { deviceOf, deviceTag } from './device.ts'
import type { JobSecrets } from './secrets.ts'
import type { JobReason, JobSpec } from './spec.ts'
import { type ActiveRow, jobRow, type QueuedRow } from './store.ts'
import type { JobTracking } from './tracking.ts'

export interface AttemptParts {
  db: Db
  backends: ReadonlyMap<string, Backend>
  secrets: JobSecrets
  /** Null: no runs are made. */
  tracking: JobTracking | null
  /** Null: nothing is recorded of where they run. */
  machine: Machine | null
  now(): number
  /** The processor of a node, for people. */
  processorOf(engine: string, node: string): string
  coresOf(engine: string, node: string): number
  onError(error: unknown): void
  /** Aborted when the controller closes: long copies stop, and are begun again by the next one. */
  signal: AbortSignal
}

/** Files of an attempt's output folder that are kept; more are told. */
const mostOutputs = 10_000

export interface Attempts {
  /** The row of a new attempt, with its lease and its run; false where the job does not wait any more. throws what the run cannot be made for */
  lease(job: QueuedRow, spec: JobSpec, placed: Placed): Promise<boolean>
  begin(row: ActiveRow, spec: JobSpec): Promise<'begun' | 'unknown' | 'ended'>
  moveOn(row: ActiveRow, seen: Exclude<Observation, { status: 'ended' | 'lost' | 'unknown' }>): Promise<void>
  /** Whether the job has ended with it. */
  end(
    row: ActiveRow,
    spec: JobSpec,
    exit: Exit,
    seen?: Pick<Extract<Observation, { status: 'ended' }>, 'environment' | 'warnings'>,
  ): Promise<void>
  finish(row: ActiveRow): Promise<void>
  /** What it was made of, at its run. */
  record(row: ActiveRow, spec: JobSpec): Promise<void>
  /** Said aloud from now on, in the place of what was said before. */
  warn(row: Pick<ActiveRow, 'id' | 'attempt'>, text: string | null, before: string | null): Promise<void>
  /** The end of a job that never ran. */
  giveUp(job: number, status: 'failed' | 'cancelled', reason: JobReason, message: string): Promise<void>
}

export function createAttempts({
  db,
  backends,
  secrets,
  tracking,
  machine,
  now,
  processorOf,
  coresOf,
  onError,
  signal,
}: AttemptParts): Attempts {
  const attempts: Attempts = {
    async lease(job, spec, { engine, allocation }) {
      const attempt = job.attempt + 1
      const time = now()
      const { node: first = '', cpus = 1 } = allocation.nodes[0] ?? {}
      const cores = spec.resources.cpus === null && spec.nodes === 1 ? coresOf(engine, first) : cpus
      const device = deviceOf(allocation, node => processorOf(engine, node), cores)
      return await db.transaction().execute(async transaction => {
        const row = await jobRow(transaction, job.project, job.id)
        if (row.status !== 'queued' || row.attempt !== job.attempt) return false
        const run = tracking && spec.track ? (row.run ?? randomBytes(16).toString('hex')) : row.run
        await transaction
          .updateTable('jobs')
          .set({
            ...{ status: 'starting', attempt, started: row.started ?? time, reason: null, message: null, run },
            device: JSON.stringify(device),
          })
          .where('id', '=', job.id)
          .execute()
        await transaction
          .insertInto('job_attempts')
          .values({ job: job.id, attempt, engine, status: 'starting', started: time, allocation: JSON.stringify(allocation) })
          .execute()
        if (tracking && spec.track && run !== null)
          await tracking.startRun(transaction, {
            ...{ job: job.id, attempt, project: job.project, user: row.user, run, name: spec.name, experiment: spec.experiment },
            tags: { 'plinth.job': String(job.id), 'plinth.attempt': String(attempt), 'plinth.device': deviceTag(device) },
          })
        return true
      })
    },

    async begin(row, spec) {
      const backend = backends.get(row.engine)!
      const attempt: Attempt = {
        ...{ job: row.id, attempt: row.attempt, project: row.project, spec },
        cookie: secrets.derived(`cookie ${row.id}/${row.attempt}`).toString('hex'),
        allocation: JSON.parse(row.allocation) as Allocation,
        envs: {},
      }
      const values = spec.secrets.length > 0 ? await secrets.read(row.id) : {}
      const hidden = Object.fromEntries(spec.secrets.flatMap(name => (values[name] === undefined ? [] : [[name, values[name]]])))
      if (tracking && spec.track && row.run !== null) {
        const { run } = row
        const tracked = { job: row.id, attempt: row.attempt, project: row.project, user: row.user, run }
        const token = await tracking.giveToken(db, tracked)
        const url = tracking.url()
        Object.assign(attempt.envs, { PLINTH_API: url, PLINTH_URL: url, PLINTH_RUN_ID: run })
        hidden['PLINTH_TOKEN'] = token
        // a script that tracks elsewhere says so, and nothing of ours would mean anything there
        if (spec.envs['MLFLOW_TRACKING_URI'] === undefined && hidden['MLFLOW_TRACKING_URI'] === undefined) {
          const experiment = await tracking.experimentOf(row.project, run)
          Object.assign(attempt.envs, { MLFLOW_TRACKING_URI: url, MLFLOW_RUN_ID: run, MLFLOW_EXPERIMENT_ID: experiment })
          hidden['MLFLOW_TRACKING_TOKEN'] = token
        }
      }
      try {
        await backend.start(attempt, hidden)
        return 'begun'
      } catch (error) {
        onError(error)
        // it may have begun all the same: only what the engine knows nothing of has not
        const seen = await backend.observe(row.id, row.attempt).catch((): Observation => ({ status: 'unknown', why: '' }))
        if (seen.status === 'unknown') return 'unknown'
        if (seen.status !== 'lost') return 'begun'
        const message = error instanceof Failure ? forOthers(error).message : 'the engine could not start it; see the log of the server'
        await attempts.end(row, spec, { ...nothing, reason: 'start_failed', message, ended: now() })
        return 'ended'
      }
    },

    async moveOn(row, { status: seen, environment, warnings = [] }) {
      const status = row.stop === null ? seen : 'stopping'
      const all = [...new Set([...(JSON.parse(row.warnings) as string[]), ...warnings])]
      const [text, told] = [environment && JSON.stringify(environment), JSON.stringify(all)]
      const changes = {
        ...(status !== row.status && { status }),
        ...(text !== null && text !== row.environment && { environment: text }),
        ...(told !== row.warnings && { warnings: told }),
      }
      if (seen === row.attemptStatus && Object.keys(changes).length === 0) return
      await db.transaction().execute(async transaction => {
        const { numUpdatedRows } = await transaction
          .updateTable('job_attempts')
          .set({ status: seen })
          .where('job', '=', row.id)
          .where('attempt', '=', row.attempt)
          .where('ended', 'is', null)
          .executeTakeFirst()
        if (numUpdatedRows === 0n || Object.keys(changes).length === 0) return
        let change = transaction.updateTable('jobs').set(changes).where('id', '=', row.id).where('attempt', '=', row.attempt)
        // who asked for its end meanwhile is not contradicted
        if (status !== 'stopping') change = change.where('stop', 'is', null)
        await change.execute()
      })
      if (changes.environment && tracking && row.run !== null && environment) {
        const { kind, key, version, interpreter, reused, seconds } = environment
        const tags = { kind, key, version, interpreter, reused: String(reused), seconds: String(seconds) }
        const known = Object.entries(tags).flatMap(([name, value]) => (value === null ? [] : [[`plinth.environment.${name}`, value]]))
        await tracking.tagRun(row.project, row.run, Object.fromEntries(known))
      }
    },

    async end(row, spec, exit, seen) {
      const time = now()
      // clocks of two machines differ, and jump
      const ended = exit.ended >= (row.started ?? 0) && exit.ended <= time ? exit.ended : time
      await db.transaction().execute(async transaction => {
        const job = await jobRow(transaction, row.project, row.id)
        const stopped = job.stop !== null
        const { status, reason } = endOf(exit.reason, stopped)
        const { numUpdatedRows } = await transaction
          .updateTable('job_attempts')
          .set({ status, reason: exit.reason ?? reason, message: exit.message, exit_code: exit.exitCode, signal: exit.signal, ended })
          .where('job', '=', row.id)
          .where('attempt', '=', row.attempt)
          .where('ended', 'is', null)
          .executeTakeFirst()
        if (numUpdatedRows === 0n) return
        await tracking?.takeToken(transaction, row.id, row.attempt)
        const again = comesAgain(spec, exit, { retries: row.retries, stopped })
        const told = {
          ...(seen?.environment && { environment: JSON.stringify(seen.environment) }),
          ...(seen?.warnings && { warnings: JSON.stringify([...new Set([...(JSON.parse(job.warnings) as string[]), ...seen.warnings])]) }),
        }
        await transaction
          .updateTable('jobs')
          .set(
            again
              ? {
                  ...told,
                  status: 'queued',
                  due: time + again.wait * 1000,
                  reason: exit.reason,
                  retries: row.retries + (again.counts ? 1 : 0),
                }
              : { ...told, status: 'stopping' },
          )
          .where('id', '=', row.id)
          .where('attempt', '=', row.attempt)
          .execute()
        if (again && tracking && row.run !== null) await tracking.pauseRun(transaction, row.project, row.run)
      })
      tracking?.tokenTaken()
    },

    async finish(row) {
      const warnings: string[] = JSON.parse(row.warnings)
      const backend = backends.get(row.engine)
      if (backend && tracking && row.run !== null) {
        if (machine) {
          const { spec } = await jobRow(db, row.project, row.id)
          // of what was recorded when it started this only says it again
          const [own, recorded] = [JSON.parse(spec) as JobSpec, recordedOf(row, row.run)]
          await attempts.record(row, own).catch(onError)
          await keepRecord(machine, tracking, recorded).catch(onError)
          await compareWithForecast(machine, tracking, recorded, own).catch(onError)
        }
        warnings.push(...(await keepOutputs(backend, tracking, row, row.run)))
      }
      await db.transaction().execute(async transaction => {
        const { status: before, stop, attempt } = await jobRow(transaction, row.project, row.id)
        if (hasEnded(before) || attempt !== row.attempt) return
        const { status, reason } = endOf(row.reason as JobReason | null, stop !== null)
        const ended = row.ended ?? now()
        if (tracking && row.run !== null) {
          const told = await tracking.endRun(transaction, { project: row.project, run: row.run, status, reason, ended })
          if (told !== status && status === 'succeeded')
            warnings.push(`The script told its run that it ${told === 'failed' ? 'failed' : 'was cancelled'}, and ended with exit code 0.`)
        }
        await transaction
          .updateTable('jobs')
          .set({ status, reason, message: row.message, exit_code: row.exit_code, ended, warnings: JSON.stringify(warnings) })
          .where('id', '=', row.id)
          .execute()
      })
      await secrets.forget(row.id)
    },

    async record(row, spec) {
      if (!machine || !tracking || row.run === null) return
      const values = spec.secrets.length > 0 ? await secrets.read(row.id) : {}
      await recordAttempt(machine, tracking, recordedOf(row, row.run), spec, values)
    },

    async warn({ id, attempt }, text, before) {
      await db.transaction().execute(async transaction => {
        const row = await transaction
          .selectFrom('jobs')
          .select('warnings')
          .where('id', '=', id)
          .where('attempt', '=', attempt)
          .executeTakeFirst()
        if (!row) return
        const others = (JSON.parse(row.warnings) as string[]).filter(each => each !== text && each !== before)
        const warnings = JSON.stringify(text === null ? others : [...others, text])
        await transaction.updateTable('jobs').set({ warnings }).where('id', '=', id).execute()
      })
    },

    async giveUp(job, status, reason, message) {
      await db.transaction().execute(async transaction => {
        const row = await transaction.selectFrom('jobs').selectAll().where('id', '=', job).where('status', '=', 'queued').executeTakeFirst()
        if (!row) return
        const ended = now()
        await transaction.updateTable('jobs').set({ status, reason, message, ended }).where('id', '=', job).execute()
        // it had attempts before
        if (tracking && row.run !== null) await tracking.endRun(transaction, { project: row.project, run: row.run, status, reason, ended })
      })
      await secrets.forget(job)
    },
  }
  return attempts

  /** What could not be kept, in words: the job has ended as it has, whatever becomes of its files. */
  async function keepOutputs(backend: Backend, keep: JobTracking, row: ActiveRow, run: string): Promise<string[]> {
    const problems: string[] = []
    try {
      const files = await backend.outputs(row.id, row.attempt)
      if (files.length > mostOutputs)
        problems.push(`Of ${files.length} files in its output folder the first ${mostOutputs} were kept with the run.`)
      for (const { path, open } of files.slice(0, mostOutputs)) {
        signal.throwIfAborted()
        try {
          await keep.keepFile(row.project, run, `outputs/${path}`, (await open()) as AsyncIterable<Uint8Array>)
        } catch (error) {
          onError(error)
          if (problems.length < 5) problems.push(`The output ${path} was not kept: ${told(error)}`)
        }
      }
    } catch (error) {
      signal.throwIfAborted()
      onError(error)
      problems.push(`Its outputs were not kept: ${told(error)}`)
    }
    return problems
  }
}

const recordedOf = ({ engine, id: job, attempt, project, allocation }: ActiveRow, run: string): Recorded => ({
  ...{ engine, job, attempt, project, run },
  allocation: JSON.parse(allocation),
})
const told = (error: unknown): string => (error instanceof Failure ? forOthers(error).message : 'see the log of the server')
const nothing = { exitCode: null, signal: null, phase: 'environment' } as const
