/** Where a version comes from, and what came from a run or a dataset. Read from what is recorded anyway; nothing is written for it. */
import { sql } from 'kysely'
import type { Db } from '../db/open.ts'
import type { Lineage } from '../sdk/calls/models.ts'
import { Run } from '../sdk/shapes.ts'
import { getRegisteredVersion } from './registered.ts'

/** throws registered_version_not_found */
export async function lineageOf(db: Db, project: string, name: string, version: number): Promise<Lineage> {
  const { run, source } = await getRegisteredVersion(db, project, name, version)
  const row = await db
    .selectFrom('model_versions')
    .select('dataset')
    .where('project', '=', project)
    .where('name', '=', name)
    .where('version', '=', version)
    .executeTakeFirstOrThrow()
  const [, from, number] = /^models:\/([^/]+)\/(\d{1,9})$/.exec(source) ?? []
  const own =
    row.dataset === null ? [] : [{ ...(JSON.parse(row.dataset) as { name: string; version: number; digest: string }), source: null }]
  const of = run === null ? nothing : await fromRun(db, project, run)
  const datasets = [...own, ...of.datasets.filter(({ digest }) => !own.some(each => each.digest === digest))]
  return { name, version, ...of, datasets, copiedFrom: from ? `${from}@${number}` : null }
}

type FromRun = Pick<Lineage, 'run' | 'datasets' | 'code' | 'environment' | 'hardware'>
const nothing: FromRun = {
  run: null,
  datasets: [],
  code: { commit: null, repository: null, source: null },
  environment: {},
  hardware: null,
}

/** What the run's tags and inputs say, under MLflow's names and ours; a training's own record knows more of its software. */
async function fromRun(db: Db, project: string, id: string): Promise<FromRun> {
  const run = await db
    .selectFrom('tracked_runs as r')
    .innerJoin('experiments as e', 'e.id', 'r.experiment')
    .select(['r.number', 'r.id', 'r.name', 'r.status', 'r.user', 'r.started', 'r.experiment'])
    .where('r.id', '=', id)
    .where('e.project', '=', project)
    .executeTakeFirst()
  if (!run) return nothing
  const tags = new Map(
    (await db.selectFrom('tags').selectAll().where('run', '=', run.number).execute()).map(({ key, value }) => [key, value]),
  )
  const inputs = await db
    .selectFrom('run_inputs as i')
    .innerJoin('logged_datasets as d', 'd.id', 'i.dataset')
    .select(['d.name', 'd.digest', 'd.source'])
    .where('i.run', '=', run.number)
    .orderBy('d.name')
    .execute()
  const training = await recordOf(db, id)
  const [, dataset, version] = /^(.+)@(\d{1,9})$/.exec(tags.get('plinth.dataset') ?? '') ?? []
  return {
    run: {
      ...{
        run: run.id,
        name: run.name,
        status: run.status,
        user: run.user,
        started: Number(run.started),
        experiment: String(run.experiment),
      },
    },
    datasets: [
      ...(dataset ? [{ name: dataset, version: Number(version), digest: tags.get('plinth.dataset.digest') ?? '', source: null }] : []),
      ...inputs.map(input => ({ ...input, version: null })),
    ],
    code: {
      commit: tags.get('mlflow.source.git.commit') ?? null,
      repository: tags.get('mlflow.source.git.repoURL') ?? null,
      source: tags.get('mlflow.source.name') ?? tags.get('plinth.recipe') ?? null,
    },
    environment: {
      ...environmentOf(training),
      ...Object.fromEntries(
        [...tags].filter(([key]) => key.startsWith('plinth.environment.')).map(([key, value]) => [key.slice(19), value]),
      ),
      ...(tags.has('plinth.version') && { plinth: tags.get('plinth.version')! }),
    },
    hardware: tags.get('plinth.device') ?? null,
  }
}

async function recordOf(db: Db, id: string): Promise<Run | null> {
  const row = await db.selectFrom('runs').select('run').where('id', '=', id).executeTakeFirst()
  const read = row && Run.safeParse(JSON.parse(row.run))
  return read?.success ? read.data : null
}
const environmentOf = (run: Run | null): Record<string, string> =>
  Object.fromEntries(
    Object.entries(run?.environment ?? {}).flatMap(([key, value]) =>
      value === null || key === 'commit' ? [] : [[key, typeof value === 'string' ? value : JSON.stringify(value)]],
    ),
  )

export interface VersionQuery {
  name?: string | undefined
  run?: string | undefined
  /** A name, name@version or digest. */
  dataset?: string | undefined
  limit: number
  after?: string | undefined
}

/** Names and numbers in the order of names, newest version first; `next` goes on behind the last. */
export async function findVersions(db: Db, project: string, { name, run, dataset, limit, after }: VersionQuery) {
  let query = db
    .selectFrom('model_versions as v')
    .select(['v.name', 'v.version'])
    .where('v.project', '=', project)
    .where('v.deleted', 'is', null)
  if (name !== undefined) query = query.where('v.name', '=', name)
  if (run !== undefined) query = query.where('v.run', '=', run)
  if (dataset !== undefined) query = query.where(cameFrom(dataset))
  const [, number, from] = /^(\d{1,9})@(.+)$/s.exec(after ?? '') ?? []
  if (number !== undefined && from !== undefined)
    query = query.where(where =>
      where.or([where('v.name', '>', from), where.and([where('v.name', '=', from), where('v.version', '<', Number(number))])]),
    )
  const rows = await query
    .orderBy('v.name')
    .orderBy('v.version', 'desc')
    .limit(limit + 1)
    .execute()
  const items = rows.slice(0, limit).map(({ name, version }) => ({ name, version }))
  const last = items.at(-1)
  return { items, next: rows.length > limit && last ? `${last.version}@${last.name}` : null }
}

/** By what a training wrote beside its version, or by what the run said it read. Nothing in `dataset` is a pattern. */
function cameFrom(dataset: string) {
  const [, name, version] = /^(.+)@(\d{1,9})$/.exec(dataset) ?? []
  const wanted =
    name === undefined
      ? [`%"name":${pattern(JSON.stringify(dataset))},%`, `%"digest":${pattern(JSON.stringify(dataset))}}%`]
      : [`%"name":${pattern(JSON.stringify(name))},"version":${version},%`]
  const written = wanted.map(each => sql<boolean>`v.dataset like ${each} escape '!'`)
  const said = sql<boolean>`v.run in (
    select r.id from tracked_runs r join run_inputs i on i.run = r.number join logged_datasets d on d.id = i.dataset
    join experiments e on e.id = r.experiment
    where e.project = v.project and (d.name = ${dataset} or d.digest = ${dataset}))`
  return sql<boolean>`(${sql.join([...written, said], sql` or `)})`
}
const pattern = (text: string) => text.replace(/[!%_]/g, letter => `!${letter}`)
