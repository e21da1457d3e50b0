/** Metrics over time in MLflow's words: whole, in pages, or thinned out for its charts. */
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import { type JsonText, jsonText } from '../../api/answers.ts'
import type { ForeignRoute } from '../../api/route.ts'
import { type Db, speaksPostgres } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import { beforeAll, countPoints, type Place, placeAfter } from '../history.ts'
import { original } from '../points.ts'
import type { Reads } from '../reads.ts'
import { rowOf } from '../tracked-runs.ts'
import { runIn } from './runs.ts'
import { compact, type Message, mlflowRoute, wireNumber, wrongParameter } from './wire.ts'

export const historyRoutes = (reads: Reads): ForeignRoute[] => [
  ...mlflowRoute('GET', '/mlflow/metrics/get-history', 'viewer', (message, { project }) => {
    const limit = message.integer('max_results') // unset is "all of them"
    if (limit !== undefined && limit <= 0) message.wrong('max_results', 'It must be a positive integer.')
    const after = message.text('page_token') || null
    return reads.ask(historyPage, project, { run: runIn(message), key: message.required('metric_key'), limit, after })
  }),
  ...mlflowRoute('GET', '/mlflow/metrics/get-history-bulk', 'viewer', (message, { project }) => {
    const runs = message.texts('run_id')
    const key = message.text('metric_key')
    if (runs.length === 0) throw wrongParameter('GetMetricHistoryBulk request must specify at least one run_id.')
    atMostRuns('GetMetricHistoryBulk', runs)
    if (!key) throw wrongParameter('GetMetricHistoryBulk request must specify a metric_key.')
    const most = Math.min(message.integer('max_results') ?? mostInBulk, mostInBulk)
    return reads.ask(wholeHistories, project, { runs, key, most })
  }),
  ...mlflowRoute('GET', '/mlflow/metrics/get-history-bulk-interval', 'viewer', (message, { project }) => {
    const runs = message.texts('run_ids')
    if (runs.length === 0) message.missing('run_ids')
    atMostRuns('GetMetricHistoryBulkInterval', runs)
    const key = message.required('metric_key')
    const most = message.integer('max_results') ?? mostInInterval
    if (most < 1 || most > mostInInterval) throw wrongParameter(`max_results must be between 1 and ${mostInInterval}.`)
    return reads.ask(samplesInBulk, project, { runs, key, most, steps: stepsIn(message) })
  }),
]

type OfRun = { run: string; key: string; limit: number | undefined; after: string | null }
/** throws tracked_run_not_found, page_invalid */
export async function historyPage(db: Db, project: string, { run, key, limit = mostPoints, after }: OfRun): Promise<JsonText> {
  const { number } = await rowOf(db, project, run)
  const points = await pointsOf(db, number, key, { limit: limit + 1, after: after === null ? null : place(after) })
  const page = points.slice(0, limit)
  const last = page.at(-1)
  return written(
    compact({
      metrics: page.map(point => asMlflowPoint(key, point)),
      next_page_token: last && points.length > page.length ? token(last) : null,
    }),
  )
}

type OfRuns = { runs: readonly string[]; key: string; most: number }
/** throws tracked_run_not_found */
export async function wholeHistories(db: Db, project: string, { runs, key, most }: OfRuns): Promise<JsonText> {
  const metrics: object[] = []
  for (const run of [...new Set(runs)].toSorted()) {
    const { number } = await rowOf(db, project, run)
    const points = await pointsOf(db, number, key, { limit: Math.max(0, most - metrics.length), after: null })
    for (const point of points) metrics.push({ ...asMlflowPoint(key, point), run_id: run })
  }
  return written({ metrics }) // also when it is empty: its reader counts on it
}

type OfSteps = OfRuns & { steps: { from: number; to: number } | null }
/** throws tracked_run_not_found */
export async function samplesInBulk(db: Db, project: string, { runs, key, most, steps }: OfSteps): Promise<JsonText> {
  const numbers: [string, number][] = []
  for (const run of runs) numbers.push([run, (await rowOf(db, project, run)).number])
  const metrics: object[] = []
  for (const [run, number] of numbers)
    for (const point of await sampled(db, number, key, most, steps)) metrics.push({ ...asMlflowPoint(key, point), run_id: run })
  return written(compact({ metrics }))
}

const written = (answer: object) => jsonText([JSON.stringify(answer)])

const mostPoints = Number.MAX_SAFE_INTEGER - 1
const mostInBulk = 25_000
const mostInInterval = 2500

function atMostRuns(call: string, runs: readonly string[]): void {
  if (runs.length > 100) throw wrongParameter(`${call} request must specify at most 100 run_ids. Received ${runs.length} run_ids.`)
}

function stepsIn(message: Message): { from: number; to: number } | null {
  const [from, to] = [message.integer('start_step'), message.integer('end_step')]
  if (from === undefined && to === undefined) return null
  if (from === undefined || to === undefined)
    throw wrongParameter('If either start step or end step are specified, both must be specified.')
  if (from > to) throw wrongParameter(`end_step must be greater than start_step. Found start_step=${from} and end_step=${to}.`)
  return { from, to }
}

interface Point {
  step: number
  timestamp: number
  value: number
  special: number
}
const asMlflowPoint = (key: string, { step, timestamp, ...value }: Point) => ({ key, value: wireNumber(original(value)), timestamp, step })

// ── pages ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Seen = [timestamp: number, step: number, value: number, special: number]

/** Pages go on behind the last point seen, so that what is logged meanwhile shifts nothing. */
const token = ({ timestamp, step, value, special }: Point) =>
  Buffer.from(JSON.stringify([timestamp, step, value, special] satisfies Seen)).toString('base64url')
function place(text: string): Seen {
  try {
    const read = JSON.parse(Buffer.from(text, 'base64url').toString()) as unknown
    if (Array.isArray(read) && read.length === 4 && read.every(each => typeof each === 'number')) return read as Seen
  } catch {
    // told below
  }
  throw new Failure('page_invalid')
}

/** By time, step and value. */
async function pointsOf(db: Db, run: number, key: string, { limit, after }: { limit: number; after: Seen | null }): Promise<Point[]> {
  const behind = after ? sql<SqlBool>` and (timestamp, step, value, special) > (${after[0]}, ${after[1]}, ${after[2]}, ${after[3]})` : sql``
  const { rows } = await sql<Point>`
    select step, timestamp, value, special from metrics where ${ofMetric(run, key)}${behind}
    order by timestamp, step, value, special limit ${limit}`.execute(db)
  return rows
}

const ofMetric = (run: number, key: string): RawBuilder<unknown> =>
  sql`run = ${run} and key = (select id from metric_keys where key = ${key})`

// ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** At most `most` points, evenly over all that there are, the last one among them. */
async function sampled(db: Db, run: number, key: string, most: number, steps: { from: number; to: number } | null): Promise<Point[]> {
  if (speaksPostgres(db)) return await sampledByWindow(db, run, key, most, steps)
  const named = await db.selectFrom('metric_keys').select('id').where('key', '=', key).executeTakeFirst()
  if (!named) return []
  const metric = { run, key: named.id }
  const total = await countPoints(db, metric, steps)
  // SQLite is faster when it jumps from one to the next than when it numbers all of them: as many parts as points, the first of each
  const [each, larger] = [Math.floor(total / most), total % most]
  const points: Point[] = []
  let place: Place | null = steps ? [steps.from, -1, 0, 0] : beforeAll
  for (let part = 0, jump = 1; part < Math.min(most, total) && place; part++) {
    const size = part < larger ? each + 1 : each
    const isLast = part === most - 1
    place = await placeAfter(db, metric, place, isLast ? jump + size - 1 : jump)
    jump = size
    if (place) points.push({ step: place[0], timestamp: place[1], value: place[2], special: place[3] })
  }
  return points
}

async function sampledByWindow(
  db: Db,
  run: number,
  key: string,
  most: number,
  steps: { from: number; to: number } | null,
): Promise<Point[]> {
  const which = sql`${ofMetric(run, key)}${steps ? sql` and step between ${steps.from} and ${steps.to}` : sql``}`
  const { rows } = await sql<Point>`
    select step, timestamp, value, special from (
      select step, timestamp, value, special, place, row_number() over (partition by part order by place) as first, total from (
        select step, timestamp, value, special, row_number() over byStep as place, ntile(${sql.lit(most)}) over byStep as part, count(*) over () as total
        from metrics where ${which} window byStep as (order by step, timestamp, value, special)) parts) firsts
    where first = 1 or place = total order by place`.execute(db)
  return rows.length > most ? rows.toSpliced(-2, 1) : rows // the last one in the place of the one before it
}
