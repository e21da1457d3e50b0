/** Jobs as the contract calls them: who answers which call. */
import { join } from 'node:path'
import type { Principal } from '../api/principal.ts'
import { type Route, route } from '../api/route.ts'
import type { Db } from '../db/open.ts'
import { Failure } from '../failure.ts'
import type { Job } from '../sdk/calls/jobs.ts'
import { calls } from '../sdk/calls/jobs.ts'
import { hasEnded } from '../sdk/shapes.ts'
import { removeFolder } from '../storage/disk.ts'
import type { Backend } from './backend.ts'
import { nodesShown } from './leases.ts'
import { asSeen } from './look.ts'
import type { Controller } from './loop.ts'
import type { JobSecrets } from './secrets.ts'
import { attemptsOf, deleteJob, endedJob, getJob, jobRow, listJobs, readSpec, retryJob, stopJob, submitJob } from './store.ts'
import type { JobTracking } from './tracking.ts'

export interface JobHost {
  backends: ReadonlyMap<string, Backend>
  secrets: JobSecrets
  tracking: JobTracking
  /** The controller of this process; null where it does not keep the home. */
  controller: Controller | null
}
export interface JobParts {
  db: Db
  /** `jobs` in the home. */
  folder: string
  /** Made when the first call needs it: most processes that could answer about jobs never do. */
  host(): Promise<JobHost>
  /** Aborted when the server closes: who follows a log is let go. */
  closing: AbortSignal
  /** A job is a program of the user that the server runs as: who may not be that user may not run one. */
  mayRun(principal: Principal): boolean
}

export const jobRoutes = ({ db, folder, host, mayRun }: Omit<JobParts, 'closing'>): Route[] => {
  const checkMayRun = (principal: Principal) => {
    if (!mayRun(principal)) throw new Failure('jobs_of_the_owner', { user: principal.user })
  }
  const shown = async (jobs: readonly Job[]): Promise<Job[]> => {
    const { controller, backends } = await host()
    if (controller) return jobs.map(job => (hasEnded(job.state) ? job : { ...job, message: controller.why(job.job) ?? job.message }))
    return await asSeen(db, jobs, backends)
  }
  const one = async (project: string, job: number): Promise<Job> => (await shown([await getJob(db, project, job)]))[0]!
  return [
    route(calls.submitJob, async ({ spec, secrets: values, ...rest }, { project, principal }) => {
      checkMayRun(principal)
      const { user } = principal
      const { controller, secrets: kept } = await host()
      await controller?.checkPossible(readSpec(spec))
      const { job } = await submitJob(
        db,
        { user, project },
        { spec, secrets: values, ...rest },
        { keepSecrets: number => kept.keep(number, values) },
      )
      controller?.wake()
      return await one(project, job)
    }),
    route(calls.listJobs, async (input, { project }) => {
      const { items, next } = await listJobs(db, project, input)
      return { items: await shown(items), next }
    }),
    route(calls.getJob, ({ job }, { project }) => one(project, job)),
    route(calls.stopJob, async ({ job, grace }, { project, principal: { user } }) => {
      const { controller, tracking, secrets } = await host()
      const ended = Date.now()
      const cancelled = { project, status: 'cancelled', reason: 'cancelled', ended } as const
      await stopJob(db, { user, project }, job, grace, {
        now: ended,
        endRun: (transaction, run) => tracking.endRun(transaction, { ...cancelled, run }),
      })
      if ((await jobRow(db, project, job)).status === 'cancelled') await secrets.forget(job)
      if (controller) controller.wake()
      else await stopHere(project, job)
      return await one(project, job)
    }),
    route(calls.retryJob, async ({ job }, { project, principal }) => {
      checkMayRun(principal)
      await retryJob(db, { user: principal.user, project }, job)
      ;(await host()).controller?.wake()
      return await one(project, job)
    }),
    route(calls.deleteJob, async ({ job }, { project, principal: { user } }) => {
      await endedJob(db, project, job)
      const attempts = await attemptsOf(db, job)
      const { backends, controller } = await host()
      for (const { engine, attempt } of attempts) await backends.get(engine)?.forget(job, attempt)
      await removeFolder(join(folder, String(job)))
      await deleteJob(db, { user, project }, job)
      controller?.wake()
      return {}
    }),
    route(calls.listNodes, async () => ({ nodes: await nodesShown(db, await host()) })),
  ]

  /** Nobody keeps the home: its engine is told from here, and whoever keeps it next finds what became of it. */
  async function stopHere(project: string, job: number): Promise<void> {
    const { state, spec } = await getJob(db, project, job)
    const attempt = (await attemptsOf(db, job)).at(-1)
    if (state !== 'stopping' || !attempt || attempt.ended !== null) return
    const row = await db.selectFrom('jobs').select('grace').where('id', '=', job).executeTakeFirstOrThrow()
    const grace = row.grace ?? readSpec(spec).timeouts.stop
    await (await host()).backends.get(attempt.engine)?.stop(job, attempt.attempt, { grace, reason: 'cancelled' })
  }
}
