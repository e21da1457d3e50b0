/**
 * The verbs of `runs`, one export a command: runs of every origin, trainings of recipes as well as what MLflow's clients and the SDK track,
 * in a home or on a server. Of a training in the home its folder knows more than the tracked run, and is asked too.
 */
import { type Connection, connect, deleteTraining, listTrainings, settleTrainings } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import type { TrackedRun } from '../sdk/calls/runs.ts'
import type { Run } from '../sdk/index.ts'
import { defineCommand } from './command.ts'

/** A run as it is printed: in the words of trainings, with what only tracked runs have. */
type Listed = Omit<Run, 'recipe'> & { experiment: string; user: string; tags: Record<string, string> }

const newest = 'attributes.start_time DESC'
const statusText = (run: { status: string; reason: string | null }) => (run.reason ? `${run.status} (${run.reason})` : run.status)

export const list = defineCommand({
  name: 'runs list',
  where: 'server',
  summary: 'list runs, newest first: trainings, and whatever scripts track',
  details: `The filter is written as in MLflow: comparisons of metrics.x, params.x, tags.x and attributes such as status or start_time, joined by AND.`,
  options: {
    experiment: { type: 'string', value: 'NAME', summary: 'only of this experiment, by its name or number' },
    filter: { type: 'string', value: 'TEXT', default: '', summary: 'only those that fit' },
    sort: { type: 'string', value: 'FIELD', default: newest, summary: 'in another order, such as "metrics.accuracy DESC"' },
    deleted: { type: 'boolean', summary: 'those that were deleted and can be restored' },
    last: { type: 'integer', minimum: 1, maximum: 10_000, default: 1000, summary: 'how many to show' },
  },
  examples: [
    'plinth runs list',
    `plinth runs list --experiment birds --filter "metrics.accuracy > 0.9 and params.backbone = 'resnet18'"`,
    'plinth runs list --sort "metrics.loss ASC" --last 5',
  ],
  async run({ experiment, filter, sort, deleted, last }, { out, table, result }) {
    const connection = await connect()
    try {
      const trainings = await trainingsOf(connection)
      const experiments = await experimentsOf(connection, experiment)
      const { items, next } = await connection.plinth.searchRuns({
        ...{ filter, limit: last, orderBy: [sort] },
        ...(experiment !== undefined && { experiments: [...experiments.keys()] }),
        view: deleted ? 'deleted' : 'active',
      })
      const runs = items.map(run => asListed(run, experiments, trainings))
      if (runs.length === 0) out(filter || experiment || deleted ? 'No run fits.' : 'No runs yet. Start one with plinth train ./photos')
      else
        table(
          ['run', 'name', 'experiment', 'status', 'started', { title: 'checkpoint', align: 'right' }],
          runs.map(run => [
            run.run.slice(0, 8),
            run.name,
            run.experiment,
            statusText(run),
            run.started.slice(0, 16).replace('T', ' '),
            run.checkpointStep ? `step ${run.checkpointStep}` : '',
          ]),
        )
      if (next !== null) out(`There are more: --last N shows more than ${last}.`)
      result({ runs, ...(next !== null && { more: true }) })
    } finally {
      await connection.close()
    }
  },
})

export const show = defineCommand({
  name: 'runs show',
  where: 'server',
  summary: 'show one run: settings, numbers, tags, where it came from',
  arguments: { run: { summary: 'the id of the run, or its first letters' } },
  async run({ run: id }, { out, result }) {
    const connection = await connect()
    try {
      const trainings = await trainingsOf(connection)
      const experiments = await experimentsOf(connection)
      const tracked = await findRun(connection, id)
      const run = asListed(tracked, experiments, trainings)
      const parent = tracked.tags[parentTag] ?? null
      const { items } = await connection.plinth.searchRuns({
        filter: `tags.\`${parentTag}\` = '${run.run}'`,
        ...{ limit: 1000, orderBy: [newest] },
      })
      const children = items.map(({ run, name, status, reason }) => ({ run, name, status, reason }))
      const line = (name: string, value: string) => out(`  ${name.padEnd(24)} ${value}`)
      out(`${run.run}  ${run.name}  ${statusText(run)}${tracked.deleted ? ', deleted' : ''}`)
      line('experiment', run.experiment)
      line('user', run.user)
      line('started', `${run.started}${run.ended ? `, ended ${run.ended}` : ''}`)
      if (run.dataset) line('dataset', `${run.dataset.name}@${run.dataset.version}`)
      if (run.model) line('model', `${run.model.name}@${run.model.version}`)
      if (run.device) line('device', `${run.device.name}, ${run.device.threads} threads`)
      if (parent) line('part of', parent)
      section('params', Object.entries(run.params), value => (typeof value === 'string' ? value : JSON.stringify(value)))
      section('metrics', Object.entries(run.metrics), value => String(typeof value === 'number' ? Number(value.toPrecision(5)) : value))
      section(
        'tags',
        Object.entries(run.tags).filter(([name]) => name !== 'mlflow.runName' && name !== noteTag),
        value => value,
      )
      if (run.tags[noteTag]) out(`note\n${run.tags[noteTag].replace(/^/gm, '  ')}`)
      section(
        'runs in it',
        children.map(child => [child.run.slice(0, 8), `${child.name}  ${statusText(child)}`]),
        value => value,
      )
      if (run.status !== 'succeeded' && run.checkpointStep > 0) out(`Go on with: plinth train --resume ${run.run}`)
      result({ run: { ...run, ...(parent && { parent }), ...(children.length > 0 && { children }) } })

      function section<T>(title: string, entries: readonly (readonly [string, T])[], shown: (value: T) => string): void {
        if (entries.length > 0) out(title)
        for (const [name, value] of entries) line(name, shown(value))
      }
    } finally {
      await connection.close()
    }
  },
})

export const remove = defineCommand({
  name: 'runs delete',
  where: 'server',
  summary: 'delete a run; of a training here its checkpoints and report too. Its model stays',
  details: `What scripts tracked can be restored until the next plinth gc. A training in this home goes for good, with its folder.`,
  arguments: { run: { summary: 'the id of the run, or its first letters' } },
  async run({ run: id }, { out, result }) {
    const connection = await connect()
    try {
      const { run } = await findRun(connection, id)
      const isTraining = connection.opened && (await trainingsOf(connection)).has(run)
      if (isTraining) await deleteTraining(connection.opened!, run)
      else await connection.plinth.deleteRun({ run })
      out(`Deleted run ${run}.${isTraining ? '' : ' It can be restored until the next plinth gc.'}`)
      result({ run })
    } finally {
      await connection.close()
    }
  },
})

// ── below ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const parentTag = 'mlflow.parentRunId'
const noteTag = 'mlflow.note.content'

/** What the folders of the home's trainings say. Where nobody keeps the home, this is when lost ones are told. */
async function trainingsOf({ opened }: Connection): Promise<ReadonlyMap<string, Run>> {
  if (!opened) return new Map()
  await settleTrainings(opened)
  return new Map((await listTrainings(opened)).map(run => [run.run, run]))
}

/** Number → name: of all, or of the one that is called so. throws experiment_not_found */
async function experimentsOf({ plinth }: Connection, wanted?: string): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>()
  for (let after: string | undefined; ; ) {
    const { items, next } = await plinth.listExperiments({ limit: 1000, ...(after && { after }) })
    for (const { experiment, name } of items) found.set(experiment, name)
    if (next === null) break
    after = next
  }
  if (wanted === undefined) return found
  const [own] = [...found].filter(([experiment, name]) => name === wanted || experiment === wanted)
  if (!own) throw new Failure('experiment_not_found', { experiment: wanted })
  return new Map([own])
}

/** `id`: whole, or so many first letters (four at least) that only one run has them. throws tracked_run_not_found, run_ambiguous */
async function findRun({ plinth }: Connection, id: string): Promise<TrackedRun> {
  if (/^[0-9a-f]{32}$/.test(id)) return await plinth.getRun({ run: id })
  if (!/^[0-9a-f]{4,31}$/.test(id)) throw new Failure('tracked_run_not_found', { run: id.slice(0, 64) })
  const { items } = await plinth.searchRuns({ filter: `attributes.run_id LIKE '${id}%'`, view: 'all', limit: 100 })
  if (items.length > 1) throw new Failure('run_ambiguous', { run: id, count: items.length })
  if (!items[0]) throw new Failure('tracked_run_not_found', { run: id })
  return items[0]
}

function asListed(tracked: TrackedRun, experiments: ReadonlyMap<string, string>, trainings: ReadonlyMap<string, Run>): Listed {
  const { run, name, status, reason, started, ended, params, metrics, tags, user } = tracked
  const [, model, version] = /^(.+)@(\d+)$/.exec(tags['plinth.model'] ?? '') ?? []
  const [, dataset, number] = /^(.+)@(\d+)$/.exec(tags['plinth.dataset'] ?? '') ?? []
  return {
    ...{ run, name, status, reason, params, user, tags },
    experiment: experiments.get(tracked.experiment) ?? tracked.experiment,
    started: new Date(started).toISOString(),
    ended: ended === null ? null : new Date(ended).toISOString(),
    checkpointStep: 0,
    metrics: Object.fromEntries(metrics.map(({ key, value }) => [key, value])),
    environment: tags['mlflow.source.git.commit'] ? { commit: tags['mlflow.source.git.commit'] } : {},
    dataset: dataset ? { name: dataset, version: Number(number), digest: tags['plinth.dataset.digest'] ?? '' } : null,
    device: null,
    model: model ? { name: model, version: Number(version) } : null,
    ...trainings.get(run),
  }
}
