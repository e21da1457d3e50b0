/** Runs as MLflow calls them. */
import { type JsonText, jsonText } from '../../api/answers.ts'
import type { Db } from '../../db/open.ts'
import type { RunStatus } from '../../sdk/shapes.ts'
import { linksOf, type RunLinks } from '../run-links.ts'
import { type RunText, type RunWords, runTexts } from '../run-text.ts'
import { type RunSearch, searchRuns } from '../search/runs.ts'
import type { TrackedRun } from '../tracked-runs.ts'
import { compact, enumeration, pairs, wireNumber } from './wire.ts'

const toMlflow: Record<RunStatus, string> = {
  queued: 'SCHEDULED',
  starting: 'SCHEDULED',
  setting_up: 'SCHEDULED',
  running: 'RUNNING',
  stopping: 'RUNNING',
  succeeded: 'FINISHED',
  failed: 'FAILED',
  cancelled: 'KILLED',
}
export const statuses = enumeration<RunStatus>([
  ['RUNNING', 1, 'running'],
  ['SCHEDULED', 2, 'queued'],
  ['FINISHED', 3, 'succeeded'],
  ['FAILED', 4, 'failed'],
  ['KILLED', 5, 'cancelled'],
])

/** What is undefined is left out of JSON. */
export const infoOf = (run: RunText['run']) => ({
  run_id: run.run,
  run_uuid: run.run,
  run_name: run.name,
  experiment_id: run.experiment,
  user_id: run.user,
  status: toMlflow[run.status],
  start_time: run.started,
  end_time: run.ended ?? undefined,
  artifact_uri: run.location,
  lifecycle_stage: run.deleted ? 'deleted' : 'active',
})

export async function asMlflowRuns(db: Db, runs: readonly TrackedRun[]) {
  const links = await linksOf(
    db,
    runs.map(({ number }) => number),
  )
  return runs.map(run => asMlflowRun(run, links.get(run.number)))
}

export const asMlflowRun = (run: TrackedRun, links: RunLinks | undefined) => ({
  info: infoOf(run),
  data: compact({
    metrics: run.metrics.map(point => ({ ...point, value: wireNumber(point.value) })),
    params: pairs(run.params),
    tags: pairs(run.tags),
  }),
  ...linked(links),
})

const linked = (links: RunLinks | undefined) => ({
  inputs: compact({
    dataset_inputs: links?.datasets.map(({ tags, sourceType, ...dataset }) => ({
      ...(tags.length > 0 && { tags }),
      dataset: compact({ ...dataset, source_type: sourceType }),
    })),
    model_inputs: links?.inputs.map(model => ({ model_id: model })),
  }),
  outputs: compact({ model_outputs: links?.outputs.map(({ model, step }) => ({ model_id: model, step })) }),
})

// ── the same as text, for many ──────────────────────────────────────────────────────────────────────────────────────────────

/** throws search_invalid, page_invalid */
export async function foundRuns(db: Db, project: string, search: RunSearch): Promise<JsonText> {
  const { numbers, next } = await searchRuns(db, project, search)
  const more = next === null ? '' : `"next_page_token":${JSON.stringify(next)}`
  if (numbers.length === 0) return jsonText([`{${more}}`])
  const runs = (await asMlflowText(db, numbers)).map((run, i) => (i === 0 ? '' : ',') + run)
  return jsonText(['{"runs":[', ...runs, `]${more && `,${more}`}}`])
}

async function asMlflowText(db: Db, numbers: readonly number[]): Promise<string[]> {
  const links = await linksOf(db, numbers)
  const runs = await runTexts(db, numbers, words)
  return runs.map(({ run, metrics, params, tags }) => {
    // a run always has a tag, its name
    const lists = `${metrics && `"metrics":${metrics},`}${params && `"params":${params},`}"tags":${tags || '[]'}`
    const own = links.get(run.number)
    return `{"info":${JSON.stringify(infoOf(run))},"data":{${lists}},${own ? JSON.stringify(linked(own)).slice(1) : unlinked}`
  })
}
const unlinked = '"inputs":{},"outputs":{}}'
const words: RunWords = { as: 'pairs', special: value => JSON.stringify(wireNumber(value)) }
