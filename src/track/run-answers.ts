/** Runs and histories as the contract answers them. */
import { type JsonText, jsonText } from '../api/answers.ts'
import type { Db } from '../db/open.ts'
import type { AnyNumber } from '../sdk/contract.ts'
import { thinnedHistory } from './history.ts'
import { type RunText, type RunWords, runTexts } from './run-text.ts'
import { type RunSearch, searchRuns } from './search/runs.ts'
import type { TrackedRun } from './tracked-runs.ts'

export const inJson = (value: number): AnyNumber => (Number.isFinite(value) ? value : (String(value) as 'NaN'))
export const shown = ({ number: _, metrics, ...run }: TrackedRun) => ({
  ...run,
  metrics: metrics.map(point => ({ ...point, value: inJson(point.value) })),
})

// the same as text
const words: RunWords = { as: 'record', special: value => JSON.stringify(inJson(value)) }
const asText = ({ run: { number: _, ...run }, params, tags, metrics }: RunText) =>
  `${JSON.stringify(run).slice(0, -1)},"params":${params || '{}'},"tags":${tags || '{}'},"metrics":${metrics || '[]'}}`

/** throws search_invalid, page_invalid */
export async function foundRunsText(db: Db, project: string, search: RunSearch): Promise<JsonText> {
  const { numbers, next } = await searchRuns(db, project, search)
  const items = (await runTexts(db, numbers, words)).map((run, i) => (i === 0 ? '' : ',') + asText(run))
  return jsonText(['{"items":[', ...items, `],"next":${JSON.stringify(next)}}`])
}

/** throws tracked_run_not_found */
export async function historyText(
  db: Db,
  project: string,
  { run, key, points }: { run: string; key: string; points: number },
): Promise<JsonText> {
  const history = await thinnedHistory(db, project, run, key, points)
  const answer = JSON.stringify({
    ...{ key, total: history.total },
    points: history.points.map(({ value, least, greatest, ...point }) => ({
      ...point,
      value: inJson(value),
      least: inJson(least),
      greatest: inJson(greatest),
    })),
  })
  return jsonText([answer])
}
