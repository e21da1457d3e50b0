/** Tracking as the contract calls it: who answers which call. */
import { type Route, route } from '../api/route.ts'
import { recorded } from '../db/audit.ts'
import type { Db } from '../db/open.ts'
import { calls as experimentCalls } from '../sdk/calls/experiments.ts'
import { calls as runCalls } from '../sdk/calls/runs.ts'
import { createExperiment, getExperiment, getOrCreateExperiment, listExperiments } from './experiments.ts'
import type { RunLog } from './log.ts'
import { type Reads, readHere } from './reads.ts'
import { foundRunsText, historyText, shown } from './run-answers.ts'
import { beat, createTrackedRun, getTrackedRun, resumeTrackedRun, setDeleted, updateTrackedRun } from './tracked-runs.ts'

export const trackingRoutes = (db: Db, log: RunLog, reads: Reads = readHere(db)): Route[] => [
  route(experimentCalls.createExperiment, (input, { project }) => createExperiment(db, project, input)),
  route(experimentCalls.getOrCreateExperiment, (input, { project }) => getOrCreateExperiment(db, project, input)),
  route(experimentCalls.getExperiment, ({ experiment }, { project }) => getExperiment(db, project, experiment)),
  route(experimentCalls.listExperiments, (input, { project }) => listExperiments(db, project, input)),
  route(runCalls.startRun, async ({ tags, worker, ...given }, { project, principal }) =>
    shown(
      await createTrackedRun(db, project, {
        ...given,
        user: principal.user,
        tags: pairs(tags),
        ...(worker && { worker: JSON.stringify(worker) }),
      }),
    ),
  ),
  route(runCalls.getRun, async ({ run }, { project }) => shown(await getTrackedRun(db, project, run))),
  route(runCalls.searchRuns, (input, { project }) => reads.ask(foundRunsText, project, input)),
  route(runCalls.logToRun, async ({ run, metrics, params, tags }, { project }) => {
    await log.log({
      project,
      run,
      metrics: metrics.map(({ value, dataset, ...point }) => ({
        ...point,
        value: Number(value),
        datasetName: dataset?.name,
        datasetDigest: dataset?.digest,
      })),
      params: pairs(params),
      tags: pairs(tags),
    })
    return {}
  }),
  route(runCalls.beat, ({ run }, { project }) => beat(db, project, run)),
  route(runCalls.resumeRun, async ({ run, worker }, { project }) =>
    shown(await resumeTrackedRun(db, project, run, worker && JSON.stringify(worker))),
  ),
  route(runCalls.endRun, async ({ run, status, reason, ended = Date.now() }, { project }) =>
    shown(await updateTrackedRun(db, project, run, { status, reason, ended })),
  ),
  route(runCalls.deleteRun, async ({ run }, { project, principal: { user } }) => {
    await recorded(db, { project, user, action: 'runs.delete', subject: run }, transaction => setDeleted(transaction, project, run, true))
    return {}
  }),
  route(runCalls.restoreRun, async ({ run }, { project }) => {
    await setDeleted(db, project, run, false)
    return {}
  }),
  route(runCalls.getMetricHistory, (input, { project }) => reads.ask(historyText, project, input)),
]

const pairs = (record: Readonly<Record<string, string>>) => Object.entries(record).map(([key, value]) => ({ key, value }))
