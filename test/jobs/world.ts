/** A controller over a real database, real runs and real tokens, on the simulated engine, in simulated time. */
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { giveJobToken, takeJobToken } from '../../src/accounts/job-tokens.ts'
import type { Db } from '../../src/db/open.ts'
import type { Backend, Node } from '../../src/jobs/backend.ts'
import { createFakeEngine, type FakeEngine, fakeNode } from '../../src/jobs/backends/fake.ts'
import { type Controller, createController } from '../../src/jobs/loop.ts'
import { type JobSecrets, openJobSecrets } from '../../src/jobs/secrets.ts'
import { type JobSpec, plainSpec } from '../../src/jobs/spec.ts'
import { getJob, submitJob } from '../../src/jobs/store.ts'
import type { JobTracking } from '../../src/jobs/tracking.ts'
import { hasEnded } from '../../src/sdk/shapes.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import type { Objects } from '../../src/storage/objects.ts'
import { endJobRun, experimentOfRun, keepJobFile, pauseJobRun, startJobRun, tagJobRun } from '../../src/track/job-runs.ts'

export const actor = { user: 'owner', project: 'default' }

export interface World {
  db: Db
  engine: FakeEngine
  objects: Objects
  secrets: JobSecrets
  controller: Controller
  /** What went wrong beside the jobs. */
  errors: unknown[]
  now(): number
  /** Seconds. */
  pass(seconds: number): void
  /** Seconds that the clock on the wall is put forward, while no time passes. */
  jump(seconds: number): void
  submit(
    run: string,
    spec?: Partial<JobSpec>,
    more?: { group?: string; index?: number; secrets?: Record<string, string>; key?: string },
  ): Promise<number>
  job(job: number): ReturnType<typeof getJob>
  /** One turn, and everything that it set going. */
  step(): Promise<void>
  /** Steps of a quarter of a second until all of these jobs have ended; at most `seconds`. */
  play(jobs: readonly number[], seconds?: number): Promise<void>
  /** Another controller in the place of this one, as after a restart; the old one is left as it is. */
  takeOver(parts?: { db?: Db; backend?: (backend: Backend) => Backend; tracking?: (tracking: JobTracking) => JobTracking }): Controller
}

export async function createWorld(
  t: TestContext | null,
  db: Db,
  { nodes = [fakeNode('n0')] }: { nodes?: readonly Node[] } = {},
): Promise<World> {
  let time = 1_764_000_000_000
  let wall = 0
  const now = () => time + wall
  const engine = createFakeEngine({ nodes, now: () => time })
  const objects = memoryObjects()
  const secrets = await openJobSecrets(mkdtempSync(join(tmpdir(), 'jobs-')))
  await db
    .insertInto('users')
    .values({ name: 'owner', owner: 1, created: '', disabled: null })
    .onConflict(conflict => conflict.doNothing())
    .execute()
  const errors: unknown[] = []
  const trackingOver = (over: Db): JobTracking => ({
    startRun: startJobRun,
    experimentOf: (project, run) => experimentOfRun(over, project, run),
    pauseRun: pauseJobRun,
    endRun: endJobRun,
    tagRun: (project, run, tags) => tagJobRun(over, project, run, tags),
    keepFile: (project, run, path, content) => keepJobFile(over, objects, project, run, path, content),
    giveToken: (transaction, job) => giveJobToken(transaction, secrets.derived, job),
    takeToken: (transaction, job, attempt) => takeJobToken(transaction, secrets.derived, job, attempt),
    tokenTaken: () => {},
    url: () => 'http://127.0.0.1:6420',
  })
  const world: World = {
    ...{ db, engine, objects, secrets, errors, now },
    controller: undefined as unknown as Controller,
    jump(seconds) {
      wall += seconds * 1000
    },
    pass(seconds) {
      time += seconds * 1000
      engine.tick()
    },
    async submit(run, spec = {}, { secrets: values = {}, ...more } = {}) {
      const given = { spec: plainSpec('job', { shell: run }, { secrets: Object.keys(values), ...spec }), secrets: values, ...more }
      const { job } = await submitJob(db, actor, given, { now: now(), keepSecrets: number => secrets.keep(number, values) })
      world.controller.wake()
      return job
    },
    job: job => getJob(db, 'default', job),
    async step() {
      await world.controller.turn()
      await world.controller.settled()
    },
    async play(jobs, seconds = 120) {
      for (const until = time + seconds * 1000; time < until; world.pass(0.25)) {
        await world.step()
        const states = await Promise.all(jobs.map(world.job))
        if (states.every(({ state }) => hasEnded(state))) return
      }
      const states = await Promise.all(jobs.map(world.job))
      throw new Error(`not ended after ${seconds} s: ${JSON.stringify(states.map(({ job, state, message }) => ({ job, state, message })))}`)
    },
    takeOver({ db: over = db, backend = (each: Backend) => each, tracking = (each: JobTracking) => each } = {}) {
      world.controller = createController({
        ...{ db: over, secrets, now, tick: () => time, onError: error => errors.push(error) },
        backends: [backend(engine.backend())],
        tracking: tracking(trackingOver(over)),
      })
      return world.controller
    },
  }
  world.takeOver()
  t?.after(async () => {
    await world.controller.close()
    await db.destroy()
  })
  return world
}
